//! What can be wrong with a model that only shows when it is expanded.

use std::fmt;

use crate::graph::MAX_PODS;

/// A mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ExpandError {
    /// Path in the model: `services.web.ports[0]`; `--scale` for the command line.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Something that the file says and orch does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Path in the model.
    pub path: String,
    /// What does not apply and why.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Services depend on one another in a ring. Docker Compose's words.
    #[error("dependency cycle detected: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// A service that the project does not have, or that no active profile enables.
    #[error("no such service: {0}")]
    NoSuchService(String),
    /// A network, volume, config or secret that the file does not define.
    #[error("undefined {kind} `{name}`")]
    Undefined {
        /// `network`, `volume`, `config`, `secret`.
        kind: &'static str,
        /// Its key.
        name: String,
    },
    /// A service of the file that is called as a helper of another one's pods is.
    #[error("`{name}` is what a helper of `{of}` is called: give one of them another name")]
    NameOfHelper {
        /// The service.
        name: String,
        /// The service with the helper.
        of: String,
    },
    /// A step that is run once for the service, after one that is run for each replica.
    #[error(
        "is run once for the service, before any replica starts, and `pre_start[{each}]`, which comes before it, is run for each replica"
    )]
    SharedAfterEach {
        /// Index of the other step.
        each: usize,
    },
    /// A volume that only one container has, and a step that is run for each replica to prepare it.
    #[error("is run for each replica, and does not share the volume without a name at `{target}`")]
    NamelessForEach {
        /// Where it is mounted.
        target: String,
    },
    /// Namespaces of containers that are not placed together.
    #[error(
        "shares namespaces or volumes with `{one}` and with `{other}`, which need not be on one host: let one of these share the other's"
    )]
    TwoOwners {
        /// A service.
        one: String,
        /// Another one.
        other: String,
    },
    /// A service without an image.
    #[error("no image is given")]
    NoImage,
    /// `container_name` with several replicas.
    #[error("container name `{name}` can only be given to one container, and {replicas} replicas are wanted")]
    NameOfMany {
        /// The name.
        name: String,
        /// Replicas wanted.
        replicas: u32,
    },
    /// Two containers of one name.
    #[error("container name `{name}` is that of service `{other}` too")]
    NameTaken {
        /// The name.
        name: String,
        /// The other service.
        other: String,
    },
    /// A subnet that has addresses of another one.
    #[error("{subnet} has addresses in common with {other} of network `{network}`")]
    SubnetsOverlap {
        /// The subnet.
        subnet: String,
        /// The other one.
        other: String,
        /// Its network.
        network: String,
    },
    /// Two services of one address.
    #[error("{address} is the address of service `{other}` too")]
    AddressTaken {
        /// The address.
        address: String,
        /// The other service.
        other: String,
    },
    /// Two attributes that mean the same say different things. Docker Compose's words.
    #[error("can't set distinct values on `{0}` and `{1}`")]
    DistinctValues(&'static str, &'static str),
    /// A number of replicas with `mode: global`.
    #[error("a service of mode `global` has one replica on each host, a number of replicas cannot be set")]
    GlobalWithReplicas,
    /// A value that cannot be read.
    #[error("`{text}` is not a valid {what}, expected {expected}")]
    Invalid {
        /// What it was to be.
        what: &'static str,
        /// The value.
        text: String,
        /// What is valid.
        expected: &'static str,
    },
    /// Something that orch does not do.
    #[error("{what} is not supported, {instead}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A capability that Linux does not have.
    #[error("`{name}` is not a capability{}", .near.as_ref().map(|near| format!(", perhaps `{near}`")).unwrap_or_default())]
    NoSuchCapability {
        /// As written.
        name: String,
        /// One of almost that name.
        near: Option<String>,
    },
    /// More containers than a project can have.
    #[error("{wanted} containers are wanted up to here, and a project can have {MAX_PODS}")]
    TooManyPods {
        /// Containers of this service and of those before it.
        wanted: u64,
    },
    /// A port that the load balancer was asked to publish, of a protocol that it does not know.
    #[error("{protocol} port {target} cannot be published by the load balancer")]
    NotBalanced {
        /// The protocol, in capitals.
        protocol: &'static str,
        /// Port in the container.
        target: u16,
    },
    /// Ports of a service that has no address of its own.
    #[error("ports of a service in the network of `{0}` must be published by that one")]
    PortsOfMember(String),
    /// A fixed published port that is wanted twice.
    #[error("port {port} is published by service `{other}` too")]
    PortTaken {
        /// Port and protocol.
        port: String,
        /// The other service; may be the same one.
        other: String,
    },
    /// A link between services that cannot reach each other.
    #[error("links to `{0}`, and the two share no network")]
    NoCommonNetwork(String),
    /// A config or secret whose content orch does not get.
    #[error("{kind} `{name}` is external: orch reads its content from `file`, `environment` or `content`")]
    NoContent {
        /// `config` or `secret`.
        kind: &'static str,
        /// Its key.
        name: String,
    },
    /// A certificate and its key that cannot be shown.
    #[error("certificate and key cannot be used: {0}")]
    Certificate(String),
    /// Authorities that cannot be trusted.
    #[error("authorities cannot be used: {0}")]
    Authorities(String),
    /// How to roll out a service that is replaced with another one.
    #[error(
        "is for nothing here: its replicas are replaced together with those of `{0}`, whose network or volumes they share"
    )]
    RolloutOfMember(String),
    /// Two mounts at one path.
    #[error("`{0}` is mounted twice")]
    TargetTwice(String),
    /// A fixed address for several containers.
    #[error("a fixed address can only be given to one container, and {0} replicas are wanted")]
    AddressOfMany(u32),
    /// More replicas than namespaces to live in.
    #[error(
        "{replicas} replicas are to share the {what} of `{owner}`, one with each of its replicas, which are {owners}"
    )]
    TooFewOwners {
        /// Network or volumes.
        what: &'static str,
        /// Replicas of the service.
        replicas: String,
        /// The service that owns the namespaces.
        owner: String,
        /// Its replicas.
        owners: String,
    },
}

impl Problem {
    /// Returns what to do about it, where the message does not say it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::TooManyPods { .. } => {
                Some("lower `scale` or `deploy.replicas`, or make several projects of it".to_owned())
            }
            Self::NotBalanced { protocol, .. } => {
                Some(format!("{protocol} is not balanced: publish it with `mode: host`"))
            }
            Self::Certificate(_) => {
                let help = "the one holds the certificate and the chain above it, the other its unencrypted private key, both PEM";
                Some(help.to_owned())
            }
            Self::Authorities(_) => Some(
                "it holds the certificate of one authority or more, or of the far side itself, each in PEM \
                 (`-----BEGIN CERTIFICATE-----`)"
                    .to_owned(),
            ),
            Self::SharedAfterEach { .. } => {
                Some("put the steps with `per_replica: true` last, or say `per_replica: true` of both".to_owned())
            }
            Self::NamelessForEach { .. } => Some(
                "give it a name, and say `x-pod: true` of the volume where each replica shall have its own".to_owned(),
            ),
            Self::RolloutOfMember(owner) => Some(format!("say it of `{owner}`")),
            Self::NoSuchCapability { .. } => {
                Some("`man 7 capabilities` has them all; `ALL` means every one".to_owned())
            }
            _ => None,
        }
    }
}

/// Collects errors and warnings.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) errors: Vec<ExpandError>,
    pub(super) warnings: Vec<Warning>,
}

impl Sink {
    pub(super) fn error(&mut self, path: String, problem: Problem) {
        self.errors.push(ExpandError { path, problem });
    }

    pub(super) fn warning(&mut self, path: String, text: String) {
        self.warnings.push(Warning { path, text });
    }
}
