//! The order of compose-go's structures, and JSON as Go writes it.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// What becomes of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// As it is, keys of mappings sorted.
    Plain,
    /// A number of 32 bits.
    Float,
    /// Nothing said is said by its absence, also where the model has 0.
    Ulimit,
    /// A file of variables: its path alone says that it must be there.
    EnvFile,
    /// A structure with these fields, and without all others (`x-` keys).
    Fields(&'static [(&'static str, Shape)]),
    /// A structure whose fields have no names for JSON: they are capitalised.
    Capitals(&'static [(&'static str, Shape)]),
    /// A list, or a mapping with keys that the user chooses, of such values.
    Each(&'static Shape),
}

use Shape::{Capitals, Each, EnvFile, Fields, Float, Plain, Ulimit};

const HOOK: Shape = Fields(&[
    ("command", Plain),
    ("user", Plain),
    ("privileged", Plain),
    ("working_dir", Plain),
    ("environment", Plain),
]);
const DEVICE: Shape =
    Fields(&[("capabilities", Plain), ("driver", Plain), ("count", Plain), ("device_ids", Plain), ("options", Plain)]);
const FILE: Shape = Fields(&[("source", Plain), ("target", Plain), ("uid", Plain), ("gid", Plain), ("mode", Plain)]);
const WEIGHTS: Shape = Each(&Capitals(&[("path", Plain), ("weight", Plain)]));
const RATES: Shape = Each(&Capitals(&[("path", Plain), ("rate", Plain)]));
const BLKIO: Shape = Fields(&[
    ("weight", Plain),
    ("weight_device", WEIGHTS),
    ("device_read_bps", RATES),
    ("device_read_iops", RATES),
    ("device_write_bps", RATES),
    ("device_write_iops", RATES),
]);
const RESOURCE: Shape = Fields(&[
    ("cpus", Float),
    ("memory", Plain),
    ("pids", Plain),
    ("devices", Each(&DEVICE)),
    ("generic_resources", Each(&Fields(&[("discrete_resource_spec", Fields(&[("kind", Plain), ("value", Plain)]))]))),
]);
const UPDATE: Shape = Fields(&[
    ("parallelism", Plain),
    ("delay", Plain),
    ("failure_action", Plain),
    ("monitor", Plain),
    ("max_failure_ratio", Float),
    ("order", Plain),
]);
const RESTART: Shape = Fields(&[("condition", Plain), ("delay", Plain), ("max_attempts", Plain), ("window", Plain)]);
const PLACEMENT: Shape = Fields(&[
    ("constraints", Plain),
    ("preferences", Each(&Fields(&[("spread", Plain)]))),
    ("max_replicas_per_node", Plain),
]);
const DEPLOY: Shape = Fields(&[
    ("mode", Plain),
    ("labels", Plain),
    ("update_config", UPDATE),
    ("rollback_config", UPDATE),
    ("resources", Fields(&[("limits", RESOURCE), ("reservations", RESOURCE)])),
    ("restart_policy", RESTART),
    ("placement", PLACEMENT),
    ("endpoint_mode", Plain),
]);
const TRIGGER: Shape = Fields(&[
    ("path", Plain),
    ("action", Plain),
    ("target", Plain),
    ("exec", HOOK),
    ("include", Plain),
    ("ignore", Plain),
    ("initial_sync", Plain),
]);
const HEALTHCHECK: Shape = Fields(&[
    ("test", Plain),
    ("timeout", Plain),
    ("interval", Plain),
    ("retries", Plain),
    ("start_period", Plain),
    ("start_interval", Plain),
    ("disable", Plain),
]);
const ATTACHMENT: Shape = Fields(&[
    ("aliases", Plain),
    ("driver_opts", Plain),
    ("gw_priority", Plain),
    ("interface_name", Plain),
    ("ipv4_address", Plain),
    ("ipv6_address", Plain),
    ("link_local_ips", Plain),
    ("mac_address", Plain),
    ("priority", Plain),
]);
const PORT: Shape = Fields(&[
    ("name", Plain),
    ("mode", Plain),
    ("host_ip", Plain),
    ("target", Plain),
    ("published", Plain),
    ("protocol", Plain),
    ("app_protocol", Plain),
]);
const MOUNT: Shape = Fields(&[
    ("type", Plain),
    ("source", Plain),
    ("target", Plain),
    ("read_only", Plain),
    ("consistency", Plain),
    ("bind", Fields(&[("selinux", Plain), ("propagation", Plain), ("create_host_path", Plain), ("recursive", Plain)])),
    ("volume", Fields(&[("labels", Plain), ("nocopy", Plain), ("subpath", Plain)])),
    ("tmpfs", Fields(&[("size", Plain), ("mode", Plain)])),
    ("image", Fields(&[("subpath", Plain)])),
]);

/// `ServiceConfig`, without `build`, `pull_policy`, `scale`, `depends_on` and `profiles`, which are not hashed.
pub(super) const SERVICE: &[(&str, Shape)] = &[
    ("annotations", Plain),
    ("attach", Plain),
    ("develop", Fields(&[("watch", Each(&TRIGGER))])),
    ("blkio_config", BLKIO),
    ("cap_add", Plain),
    ("cap_drop", Plain),
    ("cgroup_parent", Plain),
    ("cgroup", Plain),
    ("cpu_count", Plain),
    ("cpu_percent", Float),
    ("cpu_period", Plain),
    ("cpu_quota", Plain),
    ("cpu_rt_period", Plain),
    ("cpu_rt_runtime", Plain),
    ("cpus", Float),
    ("cpuset", Plain),
    ("cpu_shares", Plain),
    ("command", Plain),
    ("configs", Each(&FILE)),
    ("container_name", Plain),
    ("credential_spec", Fields(&[("config", Plain), ("file", Plain), ("registry", Plain)])),
    ("deploy", DEPLOY),
    ("device_cgroup_rules", Plain),
    ("devices", Each(&Fields(&[("source", Plain), ("target", Plain), ("permissions", Plain)]))),
    ("dns", Plain),
    ("dns_opt", Plain),
    ("dns_search", Plain),
    ("domainname", Plain),
    ("entrypoint", Plain),
    ("provider", Fields(&[("type", Plain), ("options", Plain)])),
    ("environment", Plain),
    ("env_file", Each(&EnvFile)),
    ("expose", Plain),
    ("external_links", Plain),
    ("extra_hosts", Plain),
    ("group_add", Plain),
    ("gpus", Each(&DEVICE)),
    ("hostname", Plain),
    ("healthcheck", HEALTHCHECK),
    ("image", Plain),
    ("init", Plain),
    ("ipc", Plain),
    ("isolation", Plain),
    ("labels", Plain),
    ("label_file", Plain),
    ("links", Plain),
    ("logging", Fields(&[("driver", Plain), ("options", Plain)])),
    ("mem_limit", Plain),
    ("mem_reservation", Plain),
    ("memswap_limit", Plain),
    ("mem_swappiness", Plain),
    ("mac_address", Plain),
    ("models", Each(&Fields(&[("endpoint_var", Plain), ("model_var", Plain)]))),
    ("network_mode", Plain),
    ("networks", Each(&ATTACHMENT)),
    ("oom_kill_disable", Plain),
    ("oom_score_adj", Plain),
    ("pid", Plain),
    ("pids_limit", Plain),
    ("platform", Plain),
    ("ports", Each(&PORT)),
    ("privileged", Plain),
    ("read_only", Plain),
    ("restart", Plain),
    ("runtime", Plain),
    ("secrets", Each(&FILE)),
    ("security_opt", Plain),
    ("shm_size", Plain),
    ("stdin_open", Plain),
    ("stop_grace_period", Plain),
    ("stop_signal", Plain),
    ("storage_opt", Plain),
    ("sysctls", Plain),
    ("tmpfs", Plain),
    ("tty", Plain),
    ("ulimits", Each(&Ulimit)),
    ("use_api_socket", Plain),
    ("user", Plain),
    ("userns_mode", Plain),
    ("uts", Plain),
    ("volumes", Each(&MOUNT)),
    ("volumes_from", Plain),
    ("working_dir", Plain),
    ("post_start", Each(&HOOK)),
    ("pre_stop", Each(&HOOK)),
];

const POOL: Shape = Fields(&[("subnet", Plain), ("gateway", Plain), ("ip_range", Plain), ("aux_addresses", Plain)]);

/// `NetworkConfig`.
pub(super) const NETWORK: &[(&str, Shape)] = &[
    ("name", Plain),
    ("driver", Plain),
    ("driver_opts", Plain),
    ("ipam", Fields(&[("driver", Plain), ("config", Each(&POOL))])),
    ("external", Plain),
    ("internal", Plain),
    ("attachable", Plain),
    ("labels", Plain),
    ("enable_ipv4", Plain),
    ("enable_ipv6", Plain),
];

/// `VolumeConfig`.
pub(super) const VOLUME: &[(&str, Shape)] =
    &[("name", Plain), ("driver", Plain), ("driver_opts", Plain), ("external", Plain), ("labels", Plain)];

impl Shape {
    /// Writes a value as Go does.
    pub(super) fn write(self, value: &Value, text: &mut String) {
        match (self, value) {
            (Float, Value::Number(number)) => text.push_str(&float(number)),
            (EnvFile, Value::Object(map)) if map.get("required") == Some(&Value::Bool(true)) => {
                Plain.write(&map["path"], text);
            }
            (EnvFile, map @ Value::Object(_)) => {
                Fields(&[("path", Plain), ("required", Plain), ("format", Plain)]).write(map, text);
            }
            (Fields(fields), Value::Object(map)) => {
                let said = fields.iter().filter_map(|(key, shape)| Some(((*key).to_owned(), map.get(*key)?, *shape)));
                object(said, text);
            }
            (Capitals(fields), Value::Object(map)) => {
                let said = fields.iter().filter_map(|(key, shape)| Some((capital(key), map.get(*key)?, *shape)));
                object(said, text);
            }
            (Ulimit, Value::Object(map)) => {
                let said = ["soft", "hard"].into_iter().filter_map(|key| Some((key.to_owned(), map.get(key)?, Plain)));
                object(said.filter(|(_, value, _)| **value != 0), text);
            }
            (Ulimit, Value::Number(number)) if number.as_i64() == Some(0) => text.push_str("{}"),
            (_, Value::Array(items)) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    self.below().write(item, text);
                }
                text.push(']');
            }
            (_, Value::Object(map)) => {
                let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), value, self.below())).collect();
                entries.sort_by(|(a, ..), (b, ..)| a.cmp(b));
                object(entries.into_iter(), text);
            }
            (_, Value::String(value)) => write_text(value, text),
            (_, plain @ (Value::Null | Value::Bool(_) | Value::Number(_))) => text.push_str(&plain.to_string()),
        }
    }

    /// What the items are.
    fn below(self) -> Self {
        if let Each(shape) = self { *shape } else { Plain }
    }
}

fn object<'a>(entries: impl Iterator<Item = (String, &'a Value, Shape)>, text: &mut String) {
    text.push('{');
    for (index, (key, value, shape)) in entries.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_text(&key, text);
        text.push(':');
        shape.write(value, text);
    }
    text.push('}');
}

fn capital(key: &str) -> String {
    let (first, rest) = key.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// Writes a text in quotes. What HTML would read is escaped, and the two line ends that JavaScript has besides.
pub(super) fn write_text(value: &str, text: &mut String) {
    text.push('"');
    for char in value.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                write!(text, "\\u{:04x}", u32::from(char)).ok();
            }
            _ => text.push(char),
        }
    }
    text.push('"');
}

/// The shortest text that means a number of 32 bits: with an exponent where it is very small or very large.
fn float(number: &Number) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "Docker Compose has it in 32 bits too")]
    let value = number.as_f64().unwrap_or_default() as f32;
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    if size < 1.0 { text } else { text.replace('e', "e+") }
}
