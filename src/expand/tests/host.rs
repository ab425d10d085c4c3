//! What the engine takes as it is: kept, hashed by its key, and refused where no engine takes it.

use super::*;
use crate::graph::Recursion;

#[test]
fn a_change_of_an_option_is_told_by_its_key() {
    let parts = |more: &str| {
        let graph = graph(&format!("{{a: {{{more}}}}}"));
        let service = &graph.services[&name("a")];
        let keys: Vec<String> = service.spec_parts.keys().cloned().collect();
        (service.spec_hash.clone(), keys.join(" "))
    };
    let (plain, keys) = parts("");
    assert_eq!(keys, "image networks");
    let mut seen = BTreeMap::from([(plain, "")]);
    for (option, key) in [
        ("annotations: {a: b}", "annotations"),
        ("blkio_config: {weight: 300}", "blkio_config"),
        ("cgroup: host", "cgroup"),
        ("cgroup_parent: /p", "cgroup_parent"),
        ("cpu_count: 1", "cpu_count"),
        ("cpu_percent: 1", "cpu_percent"),
        ("cpu_period: 50000", "cpu_period"),
        ("cpu_quota: 50000", "cpu_quota"),
        ("cpu_rt_period: 50000", "cpu_rt_period"),
        ("cpu_rt_period: 50000, cpu_rt_runtime: 4", "cpu_rt_period cpu_rt_runtime"),
        ("cpu_shares: 4", "cpu_shares"),
        ("cpuset: '0'", "cpuset"),
        ("device_cgroup_rules: [c 1:3 mr]", "device_cgroup_rules"),
        ("mem_swappiness: '4'", "mem_swappiness"),
        ("memswap_limit: '-1'", "memswap_limit"),
        ("oom_kill_disable: true", "oom_kill_disable"),
        ("oom_score_adj: 4", "oom_score_adj"),
        ("storage_opt: {size: 1G}", "storage_opt"),
        ("userns_mode: host", "userns_mode"),
        ("uts: host", "uts"),
    ] {
        let (hash, keys) = parts(option);
        let mut expected: Vec<&str> = "image networks".split(' ').chain(key.split(' ')).collect();
        expected.sort_unstable();
        assert_eq!(keys, expected.join(" "));
        assert_eq!(seen.insert(hash, option), None, "{option}");
    }
    for option in ["driver_opts: {a: b}", "interface_name: eth7", "link_local_ips: [169.254.8.8]"] {
        let (hash, keys) = parts(&format!("networks: {{default: {{{option}}}}}"));
        assert_eq!((keys.as_str(), seen.insert(hash, option)), ("image networks", None), "{option}");
    }
    for option in ["bind: {recursive: disabled}", "bind: {recursive: readonly}, read_only: true"] {
        let (hash, _) = parts(&format!("volumes: [{{type: bind, source: /s, target: /t, {option}}}]"));
        assert_eq!(seen.insert(hash, option), None, "{option}");
    }
}

#[test]
fn a_develop_section_is_nothing_to_a_container() {
    let hash = |more: &str| graph(&format!("{{a: {{{more}}}}}")).services[&name("a")].spec_hash.clone();
    assert_eq!(hash("develop: {watch: [{path: /s, action: rebuild, exec: {}}]}"), hash(""));
}

#[test]
fn what_no_engine_takes_is_refused() {
    for (options, path, problem) in [
        ("uts: private", "uts", "`private` is not a valid namespace, expected `host`"),
        ("userns_mode: keep-id", "userns_mode", "`keep-id` is not a valid namespace, expected `host`"),
        ("uts: host, hostname: x", "uts", "`hostname` with `uts: host` is not supported, leave out one of them"),
        (
            "cpus: 0.5, cpu_period: 50000",
            "cpu_period",
            "`cpu_period` with `cpus` is not supported, `cpus` is the quota over the period",
        ),
        (
            "deploy: {resources: {limits: {cpus: 0.5}}}, cpu_quota: 50000",
            "cpu_quota",
            "`cpu_quota` with `cpus` is not supported, `cpus` is the quota over the period",
        ),
        ("cpu_period: 999", "cpu_period", "`999` is not a valid period, expected 1000 to 1000000 microseconds"),
        ("cpu_quota: 999", "cpu_quota", "`999` is not a valid quota, expected 1000 microseconds or more"),
        (
            "cpu_rt_period: 5, cpu_rt_runtime: 6",
            "cpu_rt_runtime",
            "`6` is not a valid time, expected no more than `cpu_rt_period`",
        ),
        ("cpuset: '3-1'", "cpuset", "`3-1` is not a valid set of CPUs, expected numbers and ranges such as `0-2,4`"),
        ("mem_swappiness: '101'", "mem_swappiness", "`101` is not a valid share, expected 0 to 100"),
        (
            "memswap_limit: '8'",
            "memswap_limit",
            "`8` is not a valid limit, expected a `mem_limit`, and at least that: it is memory and swap together",
        ),
        (
            "memswap_limit: '8', mem_limit: '9'",
            "memswap_limit",
            "`8` is not a valid limit, expected a `mem_limit`, and at least that: it is memory and swap together",
        ),
        ("blkio_config: {weight: 9}", "blkio_config.weight", "`9` is not a valid weight, expected 10 to 1000"),
        (
            "blkio_config: {weight_device: [{path: /dev/sda, weight: 1001}]}",
            "blkio_config.weight_device[0].weight",
            "`1001` is not a valid weight, expected 10 to 1000",
        ),
        (
            "device_cgroup_rules: [x]",
            "device_cgroup_rules[0]",
            "`x` is not a valid device rule, expected a rule such as `c 1:3 mr` or `a *:* rwm`",
        ),
        (
            "networks: {default: {link_local_ips: [a]}}",
            "networks.default.link_local_ips[0]",
            "`a` is not a valid address, expected an IP address",
        ),
        (
            "volumes: [{type: bind, source: /s, target: /t, bind: {recursive: readonly}}]",
            "volumes[0].bind.recursive",
            "`recursive: readonly` of a mount that is not `read_only` is not supported, add `read_only: true`",
        ),
    ] {
        refused(&format!("{{a: {{{options}}}}}"), &format!("services.a.{path}: {problem}"));
    }
    for taken in [
        "memswap_limit: '9', mem_limit: '9'",
        "memswap_limit: '-1'",
        "mem_swappiness: '-1'",
        "cpu_quota: -1",
        "uts: ''",
    ] {
        assert!(run(&format!("{{a: {{{taken}}}}}"), &[]).is_ok(), "{taken}");
    }
}

#[test]
fn options_of_mounts() {
    let mounts = "{a: {volumes: [{type: bind, source: /s, target: /a, bind: {recursive: disabled}}, \
        {type: volume, target: /b, volume: {labels: {k: v}, nocopy: true}}, \
        {type: volume, source: data, target: /c, volume: {labels: {k: v}}}]}}";
    let done = run(&format!("volumes: {{data: {{name: d}}}}\nservices: {mounts}"), &[]).expect("no mistakes");
    let mounts = &done.graph.services[&name("a")].container.mounts;
    assert!(matches!(mounts[0].source, MountSource::Bind { recursion: Recursion::Disabled, .. }));
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    assert_eq!(mounts[1].source, MountSource::Anonymous { no_copy: true, labels });
    assert_eq!(
        done.warnings[0].to_string(),
        "services.a.volumes[2].volume.labels: volume `data` has the labels that the top level's `volumes` gives it, and not these"
    );
}
