//! A lab of its own for each test: names and addresses that nobody else on this machine uses at the same time.
#![expect(clippy::disallowed_methods, reason = "end to end: programs are run as a user would")]

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Done;

/// Most labs at once on this machine, over all test runs.
const SLOTS: u8 = 32;

/// Names and addresses for hosts; what was made under them is removed when it is dropped.
pub(crate) struct Lab {
    name: String,
    net: String,
    /// Held as long as the lab lives.
    _slot: File,
}

impl Lab {
    /// Takes the first one that nobody uses now, in whatever process or checkout.
    pub(crate) fn free() -> Self {
        let slots = base().join("slots");
        fs::create_dir_all(&slots).expect("make the folder of slots");
        let free = (0..SLOTS).find_map(|number| {
            let file = File::create(slots.join(number.to_string())).expect("make a slot");
            file.try_lock().ok().map(|()| (file, number))
        });
        let (slot, number) = free.expect("fewer than 32 labs at once");
        let lab = Self { name: format!("it{number}"), net: format!("10.77.{}", 100 + number), _slot: slot };
        lab.run(&["down"]); // of a run that was killed
        lab
    }

    /// Runs the script `lab` beside this file.
    pub(crate) fn run(&self, args: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab");
        let output = Command::new(script).args(args).env("LAB", &self.name).env("LAB_NET", &self.net).output();
        let done = Done::new(&output.expect("run tests/lab/lab"));
        assert_eq!(done.code, 0, "tests/lab/lab {args:?}: {}{}", done.stdout, done.stderr);
    }

    /// Returns the prefix of everything that it has on this machine.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns where its files are.
    pub(crate) fn folder(&self) -> PathBuf {
        base().join("labs").join(&self.name)
    }

    /// Returns the address of `desk`, `node1`, `node2`, …, which this machine reaches.
    pub(crate) fn address(&self, host: &str) -> Ipv4Addr {
        let number: u8 = host.strip_prefix("node").map_or(0, |number| number.parse().expect("a number"));
        format!("{}.{}", self.net, 10 + number).parse().expect("an address")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

/// Where labs keep their files; the script uses the same.
fn base() -> PathBuf {
    std::env::var_os("ORCH_LAB_DIR").map_or_else(|| PathBuf::from("/var/tmp/orch-lab"), PathBuf::from)
}
