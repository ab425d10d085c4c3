//! A client that asks at a steady rate, on new and on kept connections (the script `probe` beside this file).
#![expect(clippy::disallowed_methods, reason = "end to end: programs are run as a user would")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use crate::project::Project;

/// A running probe.
pub(crate) struct Probe {
    child: Child,
}

/// What a probe saw.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    /// Requests sent.
    pub(crate) requests: u32,
    /// Those without an answer of status 200.
    pub(crate) failed: u32,
    /// Failures by kind: `Connection refused`, `timeout`, `503`.
    #[expect(dead_code, reason = "read by who reads a failed test")]
    kinds: BTreeMap<String, u32>,
    /// Seconds of the longest run of failures without a success between.
    #[serde(rename = "outage_s")]
    pub(crate) outage_secs: f64,
    /// How many different first lines the answers had.
    pub(crate) answered_by: u32,
}

impl Probe {
    /// Asks from this machine, outside the host: `rate` requests a second for `seconds`, each on a new connection.
    pub(crate) fn from_machine(rate: u32, seconds: u32, urls: &[&str]) -> Self {
        Self::spawn(Command::new(script()), rate, seconds, &[], urls)
    }

    /// As [`Probe::from_machine`], but on eight connections that are kept.
    pub(crate) fn from_machine_kept(rate: u32, seconds: u32, urls: &[&str]) -> Self {
        Self::spawn(Command::new(script()), rate, seconds, &["--kept", "8"], urls)
    }

    /// Asks from the network namespace of a container, by its own resolver.
    pub(crate) fn beside(project: &Project, container: &str, rate: u32, seconds: u32, urls: &[&str]) -> Self {
        let resolver = project.within(container, "awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf").ok();
        project.host.write("/root/probe", &std::fs::read_to_string(script()).expect("the probe"));
        let mut command = project.host.command_beside(container);
        command.args(["python3", "/root/probe"]);
        Self::spawn(command, rate, seconds, &["--dns", &resolver], urls)
    }

    fn spawn(mut command: Command, rate: u32, seconds: u32, flags: &[&str], urls: &[&str]) -> Self {
        command.args([rate.to_string(), seconds.to_string()]).args(urls).args(flags);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("run the probe");
        Self { child }
    }

    /// Waits for the end of the probe and returns what it saw.
    pub(crate) fn finish(self) -> Report {
        let output = self.child.wait_with_output().expect("the probe's output");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("the probe said `{text}`: {error}"))
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/probe")
}
