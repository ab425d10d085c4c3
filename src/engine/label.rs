//! Labels that orch writes and reads. Docker Compose's own are kept so that its tools see orch's containers.

/// Project name.
pub const PROJECT: &str = "com.docker.compose.project";
/// Service name.
pub const SERVICE: &str = "com.docker.compose.service";
/// Number of the replica, from 1.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// `True` on containers that `run` made, else `False`.
pub const ONEOFF: &str = "com.docker.compose.oneoff";
/// Random digits of a one-off, of which its name has the first.
pub const SLUG: &str = crate::observed::SLUG_LABEL;
/// Docker Compose's own hash of what a container, network or volume was made for.
pub const CONFIG_HASH: &str = crate::observed::CONFIG_HASH_LABEL;
/// Id of the image.
pub const IMAGE: &str = "com.docker.compose.image";
/// `db:service_healthy:true,…`.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Version of the tool.
pub const VERSION: &str = "com.docker.compose.version";
/// Directory that relative paths refer to.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// The compose files, comma separated.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// Which builder made an image.
pub const IMAGE_BUILDER: &str = "com.docker.compose.image.builder";
/// Key of a network.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of a volume.
pub const VOLUME: &str = "com.docker.compose.volume";
/// orch: hash of the spec; its presence says that orch made the container.
pub const SPEC_HASH: &str = crate::observed::SPEC_HASH_LABEL;
/// orch: the parts of the spec, each with the first digits of its hash.
pub const SPEC_PARTS: &str = crate::observed::SPEC_PARTS_LABEL;
/// orch: revision that the container was made for.
pub const REVISION: &str = "orch.revision";
/// orch: generation of the desired state when the container was made.
pub const GENERATION: &str = "orch.generation";
/// orch: `agent` on the agent's own container.
pub const ROLE: &str = "orch.role";
/// orch: engine names of the anonymous volumes that the container took over, comma separated. The engine takes
/// them for named ones, so that removing the container with its volumes must name them.
pub const CARRIED: &str = "orch.carried-volumes";
/// orch: hashes of the snapshots that the container mounts, comma separated.
pub const SNAPSHOTS: &str = "orch.snapshots";
/// orch: what is run in the container before it is stopped, as JSON: it is the container's own, whatever the file says by then.
pub const PRE_STOP: &str = "orch.pre-stop";
/// orch: the service of the file whose pods the container is part of, where they have several.
pub const POD: &str = crate::observed::POD_LABEL;
/// orch: what the container does in its pod.
pub const POD_ROLE: &str = crate::observed::ROLE_LABEL;
/// orch: `True` on a one-off that is also reached by its service's names (`run --use-aliases`).
pub const ALIASES: &str = crate::observed::ALIASES_LABEL;
/// orch: the ambassadors in the pod of a one-off, as JSON: they are its own, whatever the file says by then.
pub const AMBASSADORS: &str = crate::observed::AMBASSADORS_LABEL;
/// orch: the containers whose namespaces the container lives in.
pub const OWNERS: &str = crate::observed::OWNERS_LABEL;
/// orch: the pod that a volume is for.
pub const POD_VOLUME: &str = crate::observed::POD_VOLUME_LABEL;
/// orch: version of the agent, on its container.
pub const AGENT_VERSION: &str = "orch.agent.version";
/// orch: build of the agent (12 hex digits of its binary's SHA-256), on its container.
pub const AGENT_BUILD: &str = "orch.agent.build";
