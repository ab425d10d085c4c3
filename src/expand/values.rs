//! Values of a container that every engine refuses, but only when the container is made or started.

use std::collections::BTreeMap;

use crate::model::Ulimit;
use crate::model::signal::is_stop_signal;

use super::Part;

/// Limits of processes, sorted. Source: getrlimit(2); runc refuses others.
const LIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Settings of the kernel that a container has of its own, besides all of `net` and `fs.mqueue`. Source: docker/cli,
/// `opts.ValidateSysctl`, and runc, `libcontainer/configs/validate`, which knows the last two as well.
const SYSCTLS: [&str; 10] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.domainname",
    "kernel.hostname",
];

impl Part<'_, '_> {
    /// Returns the variables that have a value.
    pub(super) fn named_environment(
        &mut self,
        environment: &BTreeMap<String, Option<String>>,
    ) -> BTreeMap<String, String> {
        if let Some(value) = environment.get("") {
            let text = value.as_ref().map_or_else(String::new, |value| format!("={value}"));
            self.invalid("environment[]", "variable", &text, "a name before `=`");
        }
        self.environment(environment)
    }

    pub(super) fn directory(&mut self, path: Option<&String>) -> Option<String> {
        if let Some(path) = path.filter(|path| !path.is_empty() && !path.starts_with('/')) {
            self.invalid("working_dir", "directory of a container", path, "an absolute path");
        }
        path.cloned()
    }

    pub(super) fn signal(&mut self, name: Option<&String>) -> Option<String> {
        if let Some(name) = name.filter(|name| !name.is_empty() && !is_stop_signal(name)) {
            self.invalid("stop_signal", "signal", name, "a name such as `SIGTERM`, or a number");
        }
        name.cloned()
    }

    /// A runtime that the file names may have a kernel of its own.
    pub(super) fn kernel_options(&mut self, options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        for name in options.keys().filter(|name| self.service.runtime.is_none() && !is_sysctl(name)) {
            let expected = "a setting that each container has of its own: `net.…`, `fs.mqueue.…`, `kernel.shm…`, `kernel.msg…` \
                            or `kernel.sem`";
            self.invalid(&format!("sysctls[{name}]"), "sysctl of a container", name, expected);
        }
        options.clone()
    }

    pub(super) fn limits(&mut self, limits: &BTreeMap<String, Ulimit>) -> BTreeMap<String, (i64, i64)> {
        for name in limits.keys().filter(|name| LIMITS.binary_search(&name.to_ascii_lowercase().as_str()).is_err()) {
            self.invalid(&format!("ulimits.{name}"), "limit", name, "one of getrlimit(2), such as `nofile` or `nproc`");
        }
        limits.iter().map(|(name, limit)| (name.clone(), soft_and_hard(*limit))).collect()
    }
}

fn is_sysctl(name: &str) -> bool {
    // Between names of network interfaces it may be `/`.
    let dotted = name.replace('/', ".");
    ["net.", "fs.mqueue."].iter().any(|start| dotted.starts_with(start)) || SYSCTLS.contains(&dotted.as_str())
}

fn soft_and_hard(limit: Ulimit) -> (i64, i64) {
    match limit {
        Ulimit::Single(both) => (both, both),
        Ulimit::Pair { soft, hard } => (soft, hard),
    }
}
