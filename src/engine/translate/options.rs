//! What a service says and the engine takes as it is: [`HostOptions`] to fields of the request.

use bollard::models::{HostConfig, HostConfigCgroupnsModeEnum, ResourcesBlkioWeightDevice, ThrottleDevice};

use super::{ApiVersion, some_unless_empty, some_unless_empty_map};
use crate::model::{BlkioConfig, Bytes, DeviceRate, DeviceWeight, HostOptions};

/// Puts every option into `config`: a new one will not compile until it is named here.
pub(super) fn apply(options: &HostOptions, api: ApiVersion, config: &mut HostConfig) {
    let HostOptions {
        annotations,
        blkio_config,
        cgroup,
        cgroup_parent,
        cpu_count,
        cpu_percent,
        cpu_period,
        cpu_quota,
        cpu_rt_period,
        cpu_rt_runtime,
        cpu_shares,
        cpuset,
        device_cgroup_rules,
        mem_swappiness,
        memswap_limit,
        oom_kill_disable,
        oom_score_adj,
        storage_opt,
        userns_mode,
        uts,
    } = options;
    if api >= ApiVersion::ANNOTATIONS {
        config.annotations = some_unless_empty_map(annotations.clone().into_iter().collect());
    }
    if let Some(limits) = blkio_config {
        block_devices(limits, config);
    }
    config.cgroupns_mode = match cgroup.as_deref() {
        Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
        Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => None,
    };
    config.cgroup_parent.clone_from(cgroup_parent);
    config.cpu_count = said(*cpu_count);
    config.cpu_percent = said(*cpu_percent);
    config.cpu_period = said(*cpu_period);
    config.cpu_quota = said(*cpu_quota);
    config.cpu_realtime_period = said(*cpu_rt_period);
    config.cpu_realtime_runtime = said(*cpu_rt_runtime);
    config.cpu_shares = said(*cpu_shares);
    config.cpuset_cpus.clone_from(cpuset);
    config.device_cgroup_rules = some_unless_empty(device_cgroup_rules.clone());
    config.memory_swappiness = mem_swappiness.map(|Bytes(percent)| percent);
    config.memory_swap = memswap_limit.map(|Bytes(limit)| limit);
    config.oom_kill_disable = oom_kill_disable.then_some(true);
    config.oom_score_adj = said(*oom_score_adj);
    config.storage_opt = some_unless_empty_map(storage_opt.clone().into_iter().collect());
    config.userns_mode.clone_from(userns_mode);
    config.uts_mode.clone_from(uts);
}

fn block_devices(limits: &BlkioConfig, config: &mut HostConfig) {
    let BlkioConfig { device_read_bps, device_read_iops, device_write_bps, device_write_iops, weight, weight_device } =
        limits;
    config.blkio_weight = (*weight != 0).then_some(*weight);
    let weights = weight_device.iter().map(|DeviceWeight { path, weight }| ResourcesBlkioWeightDevice {
        path: Some(path.clone()),
        weight: Some(usize::from(*weight)),
    });
    config.blkio_weight_device = some_unless_empty(weights.collect());
    config.blkio_device_read_bps = rates(device_read_bps);
    config.blkio_device_read_iops = rates(device_read_iops);
    config.blkio_device_write_bps = rates(device_write_bps);
    config.blkio_device_write_iops = rates(device_write_iops);
}

fn rates(limits: &[DeviceRate]) -> Option<Vec<ThrottleDevice>> {
    let rates = limits
        .iter()
        .map(|DeviceRate { path, rate: Bytes(rate) }| ThrottleDevice { path: Some(path.clone()), rate: Some(*rate) });
    some_unless_empty(rates.collect())
}

/// 0 is as if nothing was said.
fn said(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    /// Everything that can be said.
    fn all() -> HostOptions {
        let rates = |rate| vec![DeviceRate { path: "/dev/sda".to_owned(), rate: Bytes(rate) }];
        let pair = |key: &str| BTreeMap::from([(key.to_owned(), "v".to_owned())]);
        HostOptions {
            annotations: pair("a"),
            blkio_config: Some(BlkioConfig {
                device_read_bps: rates(1),
                device_read_iops: rates(2),
                device_write_bps: rates(3),
                device_write_iops: rates(4),
                weight: 300,
                weight_device: vec![DeviceWeight { path: "/dev/sda".to_owned(), weight: 400 }],
            }),
            cgroup: Some("private".to_owned()),
            cgroup_parent: Some("/parent".to_owned()),
            cpu_count: 2,
            cpu_percent: 50,
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpu_rt_period: 400_000,
            cpu_rt_runtime: 95_000,
            cpu_shares: 73,
            cpuset: Some("0,1".to_owned()),
            device_cgroup_rules: vec!["c 1:3 mr".to_owned()],
            mem_swappiness: Some(Bytes(60)),
            memswap_limit: Some(Bytes(-1)),
            oom_kill_disable: true,
            oom_score_adj: 500,
            storage_opt: pair("size"),
            userns_mode: Some("host".to_owned()),
            uts: Some("host".to_owned()),
        }
    }

    fn sent(options: &HostOptions, api: ApiVersion) -> Value {
        let mut config = HostConfig::default();
        apply(options, api, &mut config);
        serde_json::to_value(config).expect("serialises")
    }

    #[test]
    fn each_is_a_field_of_the_request() {
        let rate = |rate: i64| json!([{"Path": "/dev/sda", "Rate": rate}]);
        let mut expected = json!({
            "BlkioWeight": 300,
            "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 400}],
            "BlkioDeviceReadBps": rate(1),
            "BlkioDeviceReadIOps": rate(2),
            "BlkioDeviceWriteBps": rate(3),
            "BlkioDeviceWriteIOps": rate(4),
            "CgroupnsMode": "private",
            "CgroupParent": "/parent",
            "CpuCount": 2,
            "CpuPercent": 50,
            "CpuPeriod": 50_000,
            "CpuQuota": 25_000,
            "CpuRealtimePeriod": 400_000,
            "CpuRealtimeRuntime": 95_000,
            "CpuShares": 73,
            "CpusetCpus": "0,1",
            "DeviceCgroupRules": ["c 1:3 mr"],
            "MemorySwappiness": 60,
            "MemorySwap": -1,
            "OomKillDisable": true,
            "OomScoreAdj": 500,
            "StorageOpt": {"size": "v"},
            "UsernsMode": "host",
            "UTSMode": "host",
        });
        assert_eq!(sent(&all(), ApiVersion::OLDEST), expected);
        expected["Annotations"] = json!({"a": "v"});
        assert_eq!(sent(&all(), ApiVersion::ANNOTATIONS), expected);
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
        assert_eq!(sent(&HostOptions::default(), ApiVersion::NEWEST), json!({}));
        let host = HostOptions { cgroup: Some("host".to_owned()), ..HostOptions::default() };
        assert_eq!(sent(&host, ApiVersion::NEWEST), json!({"CgroupnsMode": "host"}));
    }
}
