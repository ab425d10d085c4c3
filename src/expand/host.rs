//! What the engine takes as it is: the values that it would refuse only when the container is made.

use crate::graph::{Hook, Resources};
use crate::model::{self, BlkioConfig, Bytes, HostOptions};

use super::container::{absent, present};
use super::{Part, Problem};

/// What block devices can weigh. Source: moby, `daemon/daemon_unix.go`, as the other limits here.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;
/// Periods of the scheduler, in microseconds.
const PERIODS: std::ops::RangeInclusive<i64> = 1_000..=1_000_000;

impl Part<'_, '_> {
    /// Returns the options as they are written, and reports what no engine takes.
    pub(super) fn host_options(&mut self, resources: &Resources) -> HostOptions {
        let options = self.service.host.clone();
        self.namespaces_of_host(&options);
        self.scheduler(&options, resources);
        self.swap(&options, resources);
        if let Some(limits) = &options.blkio_config {
            self.weights(limits);
        }
        for (index, rule) in options.device_cgroup_rules.iter().enumerate() {
            if !is_device_rule(rule) {
                let expected = "a rule such as `c 1:3 mr` or `a *:* rwm`";
                self.invalid(&format!("device_cgroup_rules[{index}]"), "device rule", rule, expected);
            }
        }
        options
    }

    /// Source: moby, `container/hostconfig_unix.go`: of these two the engine knows the host's only.
    fn namespaces_of_host(&mut self, options: &HostOptions) {
        for (key, mode) in [("uts", &options.uts), ("userns_mode", &options.userns_mode)] {
            if let Some(text) = mode.as_deref().filter(|mode| !matches!(*mode, "" | "host")) {
                self.invalid(key, "namespace", text, "`host`");
            }
        }
        if options.uts.as_deref() == Some("host") && self.service.hostname.is_some() {
            let what = "`hostname` with `uts: host`".to_owned();
            self.error("uts", Problem::Unsupported { what, instead: "leave out one of them" });
        }
    }

    fn scheduler(&mut self, options: &HostOptions, resources: &Resources) {
        let HostOptions { cpu_period, cpu_quota, cpu_rt_period, cpu_rt_runtime, cpuset, .. } = options;
        let limited = resources.nano_cpus.is_some_and(|cpus| cpus != 0);
        for (key, number) in [("cpu_period", *cpu_period), ("cpu_quota", *cpu_quota)] {
            if number != 0 && limited {
                let what = format!("`{key}` with `cpus`");
                self.error(key, Problem::Unsupported { what, instead: "`cpus` is the quota over the period" });
            }
        }
        if *cpu_period != 0 && !PERIODS.contains(cpu_period) {
            self.invalid("cpu_period", "period", &cpu_period.to_string(), "1000 to 1000000 microseconds");
        }
        if (1..*PERIODS.start()).contains(cpu_quota) {
            self.invalid("cpu_quota", "quota", &cpu_quota.to_string(), "1000 microseconds or more");
        }
        if *cpu_rt_period != 0 && cpu_rt_runtime > cpu_rt_period {
            self.invalid("cpu_rt_runtime", "time", &cpu_rt_runtime.to_string(), "no more than `cpu_rt_period`");
        }
        if let Some(text) = cpuset.as_deref().filter(|text| !is_cpu_set(text)) {
            self.invalid("cpuset", "set of CPUs", text, "numbers and ranges such as `0-2,4`");
        }
    }

    fn swap(&mut self, options: &HostOptions, resources: &Resources) {
        // -1 is the host's own, as the engine has it.
        if let Some(Bytes(percent)) = options.mem_swappiness.filter(|Bytes(percent)| !(-1..=100).contains(percent)) {
            self.invalid("mem_swappiness", "share", &percent.to_string(), "0 to 100");
        }
        let Some(Bytes(limit)) = options.memswap_limit.filter(|Bytes(limit)| *limit > 0) else { return };
        let memory = resources.memory.filter(|memory| *memory != 0);
        if memory.is_none_or(|memory| limit < memory) {
            let expected = "a `mem_limit`, and at least that: it is memory and swap together";
            self.invalid("memswap_limit", "limit", &limit.to_string(), expected);
        }
    }

    fn weights(&mut self, limits: &BlkioConfig) {
        let own = ("blkio_config.weight".to_owned(), limits.weight);
        let devices = limits.weight_device.iter().enumerate();
        let devices =
            devices.map(|(index, device)| (format!("blkio_config.weight_device[{index}].weight"), device.weight));
        for (path, weight) in std::iter::once(own).chain(devices) {
            if weight != 0 && !WEIGHTS.contains(&weight) {
                self.invalid(&path, "weight", &weight.to_string(), "10 to 1000");
            }
        }
    }
}

impl Part<'_, '_> {
    /// Source: compose-spec 05-services.md, `post_start` and `pre_stop`.
    pub(super) fn hooks(&mut self, key: &str, hooks: &[model::Hook]) -> Vec<Hook> {
        let mut all = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            // Image and number are for `pre_start` alone.
            let model::Hook {
                command,
                environment,
                image: _,
                per_replica: _,
                privileged,
                user,
                working_dir,
                extensions: _,
            } = hook;
            let command = command.clone().unwrap_or_default();
            if command.is_empty() {
                self.invalid(&format!("{key}[{index}].command"), "command", "", "what is to be run in the container");
            }
            all.push(Hook {
                command,
                environment: present(environment),
                unset: absent(environment),
                user: user.clone().filter(|user| !user.is_empty()),
                working_dir: working_dir.clone().filter(|path| !path.is_empty()),
                privileged: *privileged,
            });
        }
        all
    }
}

/// `0-2,4`. Source: cpuset(7), list format.
fn is_cpu_set(text: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok();
    text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
        None => number(part).is_some(),
    })
}

/// `[acb] MAJOR:MINOR rwm`. Source: docker/cli, `cli/command/container/opts.go`.
fn is_device_rule(rule: &str) -> bool {
    let number = |text: &str| text == "*" || !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match rule.split(' ').collect::<Vec<_>>().as_slice() {
        ["a" | "b" | "c", device, access] => {
            let device = device.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
            device && (1..=3).contains(&access.len()) && access.chars().all(|access| "rwm".contains(access))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus() {
        for good in ["0", "0-2,4", "1,3"] {
            assert!(is_cpu_set(good), "{good}");
        }
        for bad in ["", "a", "2-0", "0-", "0,,1", "-1"] {
            assert!(!is_cpu_set(bad), "{bad}");
        }
    }

    #[test]
    fn rules_for_devices() {
        for good in ["c 1:3 mr", "a *:* rwm", "b 8:* r"] {
            assert!(is_device_rule(good), "{good}");
        }
        for bad in ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 ", "c  1:3 r", "c :3 r"] {
            assert!(!is_device_rule(bad), "{bad}");
        }
    }
}
