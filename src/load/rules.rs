//! ONE table of the specification: what may stand where, how it merges, which short forms it has.
//!
//! Every phase walks a file's tree and this table side by side; no phase knows a path of its own. A row per path:
//! `*` stands for a key that the user chooses, `[]` for the items of a list. An element of the specification that orch
//! does not model yet has a row of shape [`Shape::Refused`], so that it is refused with its place and never ignored.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::long::{self, Long};
use super::merge::Merge;

/// What a value must be, once short forms are made long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Part of the specification, not modelled yet.
    Refused,
    /// Anything: `x-` keys.
    Any,
    /// Text.
    Text,
    /// One of the first words; the others are of the specification, but not modelled yet.
    Word(&'static [&'static str], &'static [&'static str]),
    /// Text, number or boolean, kept as text.
    Scalar,
    /// Text or number, kept as text.
    TextOrNumber,
    /// `true` or `false`.
    Bool,
    /// A whole number in a range.
    Int(i64, i64),
    /// A number of 0 or more.
    Number,
    /// A duration, kept as Go prints it.
    Duration,
    /// A number of bytes, kept as decimal text.
    Bytes,
    /// A file mode, kept as octal text.
    Mode,
    /// A whole number, or a mapping with the keys of the table.
    IntOrMap,
    /// A mapping with the keys of the table, and `x-` keys.
    Map,
    /// A mapping with keys that the user chooses.
    Open,
    /// A list.
    List,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Where, such as `services.*.ports`.
    pub(super) path: &'static str,
    /// What must be there.
    pub(super) shape: Shape,
    /// How the values of two files become one.
    pub(super) merge: Merge,
    /// How short forms become the long form.
    pub(super) long: Long,
    /// Whether nothing may be there.
    pub(super) nullable: bool,
    /// Chapter of the specification.
    pub(super) spec: &'static str,
}

impl Rule {
    const fn merge(self, merge: Merge) -> Self {
        Self { merge, ..self }
    }

    const fn long(self, long: Long) -> Self {
        Self { long, ..self }
    }

    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }
}

const fn row(path: &'static str, shape: Shape, spec: &'static str) -> Rule {
    Rule { path, shape, merge: Merge::Auto, long: Long::None, nullable: false, spec }
}

const U32: Shape = Shape::Int(0, u32::MAX as i64);
const I64: Shape = Shape::Int(i64::MIN, i64::MAX);
const LIMIT: Shape = Shape::Int(-1, i64::MAX);
const PORT: Shape = Shape::Int(1, u16::MAX as i64);

use Shape::{
    Any, Bool, Bytes, Duration, Int, IntOrMap, List, Map, Mode, Number, Open, Refused, Scalar, Text, TextOrNumber, Word,
};

const TOP: &str = "03-compose-file.md";
const NETWORKS: &str = "06-networks.md";
const VOLUMES: &str = "07-volumes.md";
const CONFIGS: &str = "08-configs.md";
const SECRETS: &str = "09-secrets.md";
const SERVICES: &str = "05-services.md";
const DEPLOY: &str = "deploy.md";

/// The table. Rows that need no more than a shape are in [`SIMPLE`] and [`REFUSED`].
#[rustfmt::skip]
static TABLE: &[Rule] = &[
    row("", Map, TOP),
    row("version", Any, "04-version-and-name.md"),
    row("name", Text, "04-version-and-name.md"),
    row("services", Open, SERVICES),
    row("services.*", Map, SERVICES),
    row("services.*.command", List, "05-services.md#command").long(long::COMMAND).merge(Merge::Replace).or_null(),
    row("services.*.configs", List, "05-services.md#configs").merge(Merge::Unique(long::config_target)),
    row("services.*.configs.[]", Map, "05-services.md#configs").long(long::FILE_REFERENCE),
    row("services.*.depends_on", Open, "05-services.md#depends_on").long(long::DEPENDS_ON),
    row("services.*.depends_on.*", Map, "05-services.md#depends_on"),
    row("services.*.deploy", Map, DEPLOY).or_null(),
    row("services.*.deploy.labels", Open, "deploy.md#labels").long(long::LABELS),
    row("services.*.devices", List, "05-services.md#devices").merge(Merge::Unique(long::target)),
    row("services.*.devices.[]", Map, "05-services.md#devices").long(long::DEVICE),
    row("services.*.dns", List, "05-services.md#dns").long(long::ONE_OR_MORE).merge(Merge::Distinct),
    row("services.*.dns_opt", List, "05-services.md#dns_opt").merge(Merge::Distinct),
    row("services.*.dns_search", List, "05-services.md#dns_search").long(long::ONE_OR_MORE).merge(Merge::Distinct),
    row("services.*.entrypoint", List, "05-services.md#entrypoint").long(long::COMMAND).merge(Merge::Replace).or_null(),
    row("services.*.env_file", List, "05-services.md#env_file").long(long::ONE_OR_MORE).merge(Merge::Unique(long::path)),
    row("services.*.env_file.[]", Map, "05-services.md#env_file").long(long::ENV_FILE),
    row("services.*.environment", Open, "05-services.md#environment").long(long::ENVIRONMENT),
    row("services.*.environment.*", Scalar, "05-services.md#environment").merge(Merge::Replace).or_null(),
    row("services.*.expose", List, "05-services.md#expose").merge(Merge::Distinct),
    row("services.*.expose.[]", TextOrNumber, "05-services.md#expose").long(long::EXPOSE),
    row("services.*.extra_hosts", List, "05-services.md#extra_hosts").long(long::EXTRA_HOSTS).merge(Merge::Distinct),
    row("services.*.extra_hosts.[]", Text, "05-services.md#extra_hosts").long(long::EXTRA_HOST),
    row("services.*.healthcheck.test", List, "05-services.md#healthcheck").long(long::HEALTH_TEST).merge(Merge::Replace),
    row("services.*.labels", Open, "05-services.md#labels").long(long::LABELS),
    row("services.*.links", List, "05-services.md#links").merge(Merge::Distinct),
    row("services.*.logging", Map, "05-services.md#logging").merge(Merge::Logging),
    row("services.*.networks", Open, "05-services.md#networks").long(long::KEYS),
    row("services.*.networks.*", Map, "05-services.md#networks").or_null(),
    row("services.*.ports", List, "05-services.md#ports").merge(Merge::Unique(long::port_key)),
    row("services.*.ports.[]", Map, "05-services.md#ports").long(long::PORT),
    row("services.*.secrets", List, "05-services.md#secrets").merge(Merge::Unique(long::secret_target)),
    row("services.*.secrets.[]", Map, "05-services.md#secrets").long(long::FILE_REFERENCE),
    row("services.*.sysctls", Open, "05-services.md#sysctls").long(long::LABELS),
    row("services.*.tmpfs", List, "05-services.md#tmpfs").long(long::ONE_OR_MORE).merge(Merge::Unique(long::tmpfs_path)),
    row("services.*.ulimits.*", IntOrMap, "05-services.md#ulimits").merge(Merge::Replace),
    row("services.*.volumes", List, "05-services.md#volumes").merge(Merge::Unique(long::target)),
    row("services.*.volumes.[]", Map, "05-services.md#volumes").long(long::VOLUME),
    row("networks", Open, NETWORKS),
    row("networks.*", Map, NETWORKS).long(long::RESOURCE).or_null(),
    row("networks.*.ipam.config", List, "06-networks.md#ipam").merge(Merge::UniqueDeep(long::subnet)),
    row("networks.*.labels", Open, "06-networks.md#labels").long(long::LABELS),
    row("volumes", Open, VOLUMES),
    row("volumes.*", Map, VOLUMES).long(long::RESOURCE).or_null(),
    row("volumes.*.labels", Open, "07-volumes.md#labels").long(long::LABELS),
    row("configs", Open, CONFIGS),
    row("configs.*", Map, CONFIGS).long(long::RESOURCE),
    row("configs.*.labels", Open, CONFIGS).long(long::LABELS),
    row("secrets", Open, SECRETS),
    row("secrets.*", Map, SECRETS).long(long::RESOURCE),
    row("secrets.*.labels", Open, SECRETS).long(long::LABELS),
];

/// Paths that need a shape only; the chapter is found from the path.
#[rustfmt::skip]
static SIMPLE: &[(&str, Shape)] = &[
    ("services.*.attach", Bool),
    ("services.*.cap_add", List), ("services.*.cap_add.[]", Text),
    ("services.*.cap_drop", List), ("services.*.cap_drop.[]", Text),
    ("services.*.command.[]", Text),
    ("services.*.configs.[].source", Text), ("services.*.configs.[].target", Text),
    ("services.*.configs.[].uid", Text), ("services.*.configs.[].gid", Text), ("services.*.configs.[].mode", Mode),
    ("services.*.container_name", Text),
    ("services.*.cpus", Number),
    ("services.*.depends_on.*.condition", Word(&["service_started", "service_healthy", "service_completed_successfully"], &[])),
    ("services.*.depends_on.*.restart", Bool), ("services.*.depends_on.*.required", Bool),
    ("services.*.deploy.mode", Word(&["replicated", "global"], &["replicated-job", "global-job"])),
    ("services.*.deploy.endpoint_mode", Word(&["vip", "dnsrr"], &[])),
    ("services.*.deploy.replicas", U32),
    ("services.*.deploy.labels.*", Scalar),
    ("services.*.deploy.placement", Map),
    ("services.*.deploy.placement.constraints", List), ("services.*.deploy.placement.constraints.[]", Text),
    ("services.*.deploy.placement.preferences", List), ("services.*.deploy.placement.preferences.[]", Map),
    ("services.*.deploy.placement.preferences.[].spread", Text),
    ("services.*.deploy.placement.max_replicas_per_node", U32),
    ("services.*.deploy.resources", Map),
    ("services.*.deploy.resources.limits", Map),
    ("services.*.deploy.resources.limits.cpus", Number),
    ("services.*.deploy.resources.limits.memory", Bytes),
    ("services.*.deploy.resources.limits.pids", LIMIT),
    ("services.*.deploy.resources.reservations", Map),
    ("services.*.deploy.resources.reservations.cpus", Number),
    ("services.*.deploy.resources.reservations.memory", Bytes),
    ("services.*.devices.[].source", Text), ("services.*.devices.[].target", Text),
    ("services.*.devices.[].permissions", Text),
    ("services.*.dns.[]", Text), ("services.*.dns_opt.[]", Text), ("services.*.dns_search.[]", Text),
    ("services.*.domainname", Text),
    ("services.*.entrypoint.[]", Text),
    ("services.*.env_file.[].path", Text), ("services.*.env_file.[].required", Bool),
    ("services.*.env_file.[].format", Word(&["raw"], &[])),
    ("services.*.group_add", List), ("services.*.group_add.[]", TextOrNumber),
    ("services.*.healthcheck", Map),
    ("services.*.healthcheck.disable", Bool),
    ("services.*.healthcheck.test.[]", Text),
    ("services.*.healthcheck.interval", Duration), ("services.*.healthcheck.timeout", Duration),
    ("services.*.healthcheck.retries", U32),
    ("services.*.healthcheck.start_period", Duration), ("services.*.healthcheck.start_interval", Duration),
    ("services.*.hostname", Text),
    ("services.*.image", Text),
    ("services.*.init", Bool),
    ("services.*.ipc", Text),
    ("services.*.labels.*", Scalar),
    ("services.*.links.[]", Text),
    ("services.*.logging.driver", Text),
    ("services.*.logging.options", Open), ("services.*.logging.options.*", TextOrNumber),
    ("services.*.mac_address", Text),
    ("services.*.mem_limit", Bytes), ("services.*.mem_reservation", Bytes),
    ("services.*.network_mode", Text),
    ("services.*.networks.*.aliases", List), ("services.*.networks.*.aliases.[]", Text),
    ("services.*.networks.*.ipv4_address", Text), ("services.*.networks.*.mac_address", Text),
    ("services.*.networks.*.priority", I64), ("services.*.networks.*.gw_priority", I64),
    ("services.*.pid", Text),
    ("services.*.pids_limit", LIMIT),
    ("services.*.platform", Text),
    ("services.*.ports.[].name", Text),
    ("services.*.ports.[].mode", Word(&["ingress", "host"], &[])),
    ("services.*.ports.[].host_ip", Text),
    ("services.*.ports.[].target", PORT),
    ("services.*.ports.[].published", TextOrNumber),
    ("services.*.ports.[].protocol", Text),
    ("services.*.ports.[].app_protocol", Text),
    ("services.*.privileged", Bool),
    ("services.*.profiles", List), ("services.*.profiles.[]", Text),
    ("services.*.pull_policy", Text),
    ("services.*.read_only", Bool),
    ("services.*.restart", Text),
    ("services.*.runtime", Text),
    ("services.*.scale", U32),
    ("services.*.secrets.[].source", Text), ("services.*.secrets.[].target", Text),
    ("services.*.secrets.[].uid", Text), ("services.*.secrets.[].gid", Text), ("services.*.secrets.[].mode", Mode),
    ("services.*.security_opt", List), ("services.*.security_opt.[]", Text),
    ("services.*.shm_size", Bytes),
    ("services.*.stdin_open", Bool),
    ("services.*.stop_grace_period", Duration),
    ("services.*.stop_signal", Text),
    ("services.*.sysctls.*", Scalar),
    ("services.*.tmpfs.[]", Text),
    ("services.*.tty", Bool),
    ("services.*.ulimits", Open),
    ("services.*.ulimits.*.soft", I64), ("services.*.ulimits.*.hard", I64),
    ("services.*.user", Text),
    ("services.*.volumes.[].type", Word(&["bind", "volume", "tmpfs"], &["npipe", "cluster", "image"])),
    ("services.*.volumes.[].source", Text), ("services.*.volumes.[].target", Text),
    ("services.*.volumes.[].read_only", Bool), ("services.*.volumes.[].consistency", Text),
    ("services.*.volumes.[].bind", Map),
    ("services.*.volumes.[].bind.propagation", Text),
    ("services.*.volumes.[].bind.create_host_path", Bool),
    ("services.*.volumes.[].bind.selinux", Word(&["z", "Z"], &[])),
    ("services.*.volumes.[].volume", Map),
    ("services.*.volumes.[].volume.nocopy", Bool), ("services.*.volumes.[].volume.subpath", Text),
    ("services.*.volumes.[].tmpfs", Map),
    ("services.*.volumes.[].tmpfs.size", Bytes), ("services.*.volumes.[].tmpfs.mode", Int(0, 0o7777)),
    ("services.*.working_dir", Text),
    ("networks.*.name", Text), ("networks.*.external", Bool), ("networks.*.driver", Text),
    ("networks.*.driver_opts", Open), ("networks.*.driver_opts.*", TextOrNumber),
    ("networks.*.attachable", Bool), ("networks.*.internal", Bool),
    ("networks.*.ipam", Map), ("networks.*.ipam.driver", Text),
    ("networks.*.ipam.config.[]", Map), ("networks.*.ipam.config.[].subnet", Text),
    ("networks.*.ipam.config.[].gateway", Text), ("networks.*.ipam.config.[].ip_range", Text),
    ("networks.*.labels.*", Scalar),
    ("volumes.*.name", Text), ("volumes.*.external", Bool), ("volumes.*.driver", Text),
    ("volumes.*.driver_opts", Open), ("volumes.*.driver_opts.*", TextOrNumber),
    ("volumes.*.labels.*", Scalar),
    ("configs.*.name", Text), ("configs.*.external", Bool), ("configs.*.file", Text), ("configs.*.content", Text), ("configs.*.environment", Text),
    ("configs.*.labels.*", Scalar),
    ("secrets.*.name", Text), ("secrets.*.external", Bool), ("secrets.*.file", Text), ("secrets.*.environment", Text),
    ("secrets.*.labels.*", Scalar),
];

/// Elements of the specification that are not modelled yet: parent, then its keys.
#[rustfmt::skip]
static REFUSED: &[(&str, &[&str])] = &[
    ("", &["include", "models"]),
    ("services.*", &[
        "annotations", "blkio_config", "build", "cgroup", "cgroup_parent", "cpu_count", "cpu_percent", "cpu_period",
        "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpuset", "credential_spec", "develop",
        "device_cgroup_rules", "extends", "external_links", "gpus", "isolation", "label_file", "mem_swappiness",
        "memswap_limit", "models", "oom_kill_disable", "oom_score_adj", "post_start", "pre_start", "pre_stop",
        "provider", "pull_refresh_after", "storage_opt", "use_api_socket", "userns_mode", "uts", "volumes_from",
    ]),
    ("services.*.deploy", &["restart_policy", "rollback_config", "update_config"]),
    ("services.*.deploy.resources.limits", &["devices"]),
    ("services.*.deploy.resources.reservations", &["devices", "generic_resources", "pids"]),
    ("services.*.networks.*", &["driver_opts", "interface_name", "ipv6_address", "link_local_ips"]),
    ("services.*.volumes.[]", &["image"]),
    ("services.*.volumes.[].bind", &["recursive"]),
    ("services.*.volumes.[].volume", &["labels"]),
    ("networks.*", &["enable_ipv4", "enable_ipv6"]),
    ("networks.*.ipam", &["options"]),
    ("networks.*.ipam.config.[]", &["aux_addresses"]),
    ("configs.*", &["template_driver"]),
    ("secrets.*", &["driver", "driver_opts", "template_driver"]),
];

/// The table as a tree, to be walked beside a file.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rule: Option<Rule>,
    keys: BTreeMap<&'static str, Rules>,
}

impl Rules {
    /// Returns the row of this place.
    pub(super) fn rule(&self) -> &Rule {
        static ANY: Rule = row("", Any, "");
        self.rule.as_ref().unwrap_or(&ANY)
    }

    /// Returns the rules of a key of this mapping; `None` if the specification does not know it.
    pub(super) fn key(&self, key: &str) -> Option<&Self> {
        if self.rule().shape == Open { self.keys.get("*") } else { self.keys.get(key) }
    }

    /// Returns the rules of the items of this list.
    pub(super) fn item(&self) -> &Self {
        static ANY: LazyLock<Rules> = LazyLock::new(Rules::default);
        self.keys.get("[]").unwrap_or(&ANY)
    }

    /// Returns the keys that this mapping may have and orch supports.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(|(_, rules)| rules.rule().shape != Refused).map(|(name, _)| *name)
    }

    fn insert(&mut self, rule: Rule) {
        let mut at = self;
        for key in rule.path.split('.').filter(|key| !key.is_empty()) {
            at = at.keys.entry(key).or_default();
        }
        at.rule = Some(rule);
    }
}

/// Returns the rules of a whole file.
pub(super) fn root() -> &'static Rules {
    static ROOT: LazyLock<Rules> = LazyLock::new(|| {
        let mut root = Rules::default();
        for rule in TABLE {
            root.insert(*rule);
        }
        for (path, shape) in SIMPLE {
            let rule = row(path, *shape, chapter(path));
            root.insert(if is_list_of_names(path) { rule.merge(Merge::Distinct) } else { rule });
        }
        for (parent, keys) in REFUSED {
            for key in *keys {
                let path: &'static str = format!("{parent}.{key}").leak();
                root.insert(row(path, Refused, chapter(path)));
            }
        }
        root
    });
    &ROOT
}

/// Lists that the specification wants without doubles: a double is dropped.
fn is_list_of_names(path: &str) -> bool {
    let distinct = ["cap_add", "cap_drop", "profiles", "aliases", "security_opt", "group_add"];
    path.rsplit('.').next().is_some_and(|last| distinct.contains(&last))
}

/// The chapter of a path that has no row in [`TABLE`]; services' own keys have an anchor each.
fn chapter(path: &str) -> &'static str {
    static CHAPTERS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
        let keys = SIMPLE.iter().map(|(path, _)| *path).filter_map(|path| path.strip_prefix("services.*."));
        let refused = REFUSED.iter().filter(|(parent, _)| *parent == "services.*").flat_map(|(_, keys)| keys.iter());
        keys.map(|path| path.split('.').next().unwrap_or(path))
            .chain(refused.copied())
            .map(|key| (key, &*format!("{SERVICES}#{key}").leak()))
            .collect()
    });
    match path.split('.').filter(|key| !key.is_empty()).collect::<Vec<_>>().as_slice() {
        ["services", "*", "deploy", ..] => DEPLOY,
        ["services", "*", key, ..] => CHAPTERS.get(key).copied().unwrap_or(SERVICES),
        ["include", ..] => "14-include.md",
        ["networks", ..] => NETWORKS,
        ["volumes", ..] => VOLUMES,
        ["configs", ..] => CONFIGS,
        ["secrets", ..] => SECRETS,
        _ => TOP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_has_two_rows() {
        let refused = REFUSED.iter().flat_map(|(parent, keys)| keys.iter().map(move |key| format!("{parent}.{key}")));
        let mut paths: Vec<String> = TABLE
            .iter()
            .map(|rule| rule.path.to_owned())
            .chain(SIMPLE.iter().map(|(path, _)| (*path).to_owned()))
            .chain(refused)
            .collect();
        paths.sort();
        let twice: Vec<_> = paths.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn every_parent_has_a_row_that_takes_children() {
        fn visit(rules: &Rules, path: &str) {
            for (key, child) in &rules.keys {
                let shape = rules.rule().shape;
                let fits = match *key {
                    "*" => shape == Open,
                    "[]" => shape == List,
                    _ => matches!(shape, Map | IntOrMap),
                };
                assert!(fits, "{path}.{key} under {shape:?}");
                assert!(child.rule.is_some(), "{path}.{key} has no row");
                visit(child, &format!("{path}.{key}"));
            }
            let (shape, keys) = (rules.rule().shape, rules.keys.len());
            assert!(!matches!(shape, List | Open) || keys == 1, "{path} says nothing of its items");
        }
        visit(root(), "");
    }
}
