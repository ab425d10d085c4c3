//! The same on Podman: this very binary is run in a host of the lab that has it for an engine (`tests/lab/lab`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// A lab of this test's own.
const LAB: (&str, &str) = ("engp", "10.77.98");

/// Runs the cases of the real engine there.
pub(crate) fn check(cases: &str) -> ExitCode {
    let base = std::env::var_os("ORCH_LAB_DIR").map_or_else(|| PathBuf::from("/var/tmp/orch-lab"), PathBuf::from);
    let slots = base.join("slots");
    fs::create_dir_all(&slots).expect("make the folder of slots");
    // Another checkout may be at it.
    let slot = File::create(slots.join(LAB.0)).expect("make a slot");
    slot.lock().expect("wait for the slot");
    lab(&["down"]); // of a run that was killed
    let booted = lab(&["up", "1", "--podman", "all"]);
    let passed = booted.success() && {
        let program = base.join("labs").join(LAB.0).join("node1/root/opt/engine");
        fs::copy("/proc/self/exe", program).expect("copy this binary to the host");
        lab(&["exec", "node1", "/opt/engine", cases]).success()
    };
    lab(&["down"]);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "the lab is a program")]
fn lab(args: &[&str]) -> ExitStatus {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab");
    let status = Command::new(script).args(args).env("LAB", LAB.0).env("LAB_NET", LAB.1).status();
    status.expect("run tests/lab/lab")
}
