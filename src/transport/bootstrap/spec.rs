//! The agent's own container. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::AgentOptions;
use super::decide::AGENT_ROLE;
use crate::engine::{ContainerSpec, EngineInfo, EngineRestart, SpecNetwork, label};
use crate::graph::{Container, Logging, Mount, MountSource, Namespace, Recursion};
use crate::transport::image::Build;
use crate::transport::local::ENGINE_SOCKET_VARIABLE;

/// Time for an agent to hand over or close its connections.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);

/// What the agent does below the engine, and the least that the kernel wants for it (tried one by one on 6.18):
/// joining namespaces (`SYS_ADMIN`, the mount namespace also `SYS_CHROOT`), opening those of other processes
/// (`SYS_PTRACE`), addresses and packet filter (`NET_ADMIN`, `NET_RAW` for legacy iptables), ports below 1024, and
/// files of configs and secrets for other users.
const CAPABILITIES: [&str; 9] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
];

/// Where the engine's socket is inside.
const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// Returns the container of an agent: host network and processes, no privileges but [`CAPABILITIES`].
///
/// No resource limits are asked for: an engine that may not raise them fails to start the container (seen on a host
/// where the engine runs with a bounded set of capabilities). The agent raises its own as far as it may.
pub fn agent_spec(build: &Build, options: &AgentOptions, engine: &EngineInfo) -> ContainerSpec {
    let AgentOptions { name, engine_socket, state_dir, run_dir, environment, .. } = options;
    // Containers that use the engine's API are given the socket of that path.
    let elsewhere =
        (engine_socket != ENGINE_SOCKET).then(|| (ENGINE_SOCKET_VARIABLE.to_owned(), engine_socket.clone()));
    let command = ["agent", "--state", state_dir, "--run", run_dir];
    let logging = BTreeMap::from([("max-size", "10m"), ("max-file", "3")]);
    let container = Container {
        command: Some(command.map(str::to_owned).to_vec()),
        environment: elsewhere.into_iter().chain(environment.iter().cloned()).collect(),
        mounts: vec![
            // Inside the state directory of a read-only image only these can be written.
            bind(state_dir, state_dir, true),
            bind(run_dir, run_dir, true),
            bind(engine_socket, ENGINE_SOCKET, false),
        ],
        pid: Some(Namespace::Engine("host".to_owned())),
        read_only: true,
        cap_drop: vec!["ALL".to_owned()],
        cap_add: CAPABILITIES.map(str::to_owned).to_vec(),
        security_opt: security_options(&engine.security),
        logging: Some(Logging {
            driver: Some("json-file".to_owned()),
            options: logging.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }),
        ..Container::default()
    };
    let labels = [(label::ROLE, AGENT_ROLE), (label::AGENT_VERSION, &build.version), (label::AGENT_BUILD, &build.hash)];
    ContainerSpec {
        container,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        network: SpecNetwork::Mode("host".to_owned()),
        stop_grace: STOP_GRACE,
        restart: EngineRestart::Always,
        ..ContainerSpec::new(name, build.image())
    }
}

fn bind(path: &str, target: &str, create: bool) -> Mount {
    let source = MountSource::Bind {
        path: path.to_owned(),
        create,
        propagation: None,
        selinux: None,
        recursion: Recursion::default(),
    };
    Mount { target: target.to_owned(), read_only: false, source }
}

/// The profiles of `AppArmor` and `SELinux` for containers forbid opening other processes' namespaces, which is the
/// agent's work; where the engine has neither, it would refuse the options.
fn security_options(security: &[String]) -> Vec<String> {
    let has = |name: &str| security.iter().any(|option| option == name);
    let mut options = vec!["no-new-privileges".to_owned()];
    options.extend(has("apparmor").then(|| "apparmor=unconfined".to_owned()));
    options.extend(has("selinux").then(|| "label=disable".to_owned()));
    options
}
