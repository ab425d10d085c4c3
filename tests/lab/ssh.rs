//! Hosts reached by the system's ssh, on real sshd: one connection, what happens when it ends, and every error.
#![expect(clippy::disallowed_methods, reason = "end to end: programs are run as a user would")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orch::engine::docker::DockerEngine;
use orch::transport::reach::Reach as _;
use orch::transport::ssh::{Found, Interaction, Problem, SshConnection, SshError, SshSettings};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::host::Host;
use crate::wait::{becomes, eventually, secs};

const ENGINE: &str = "/var/run/docker.sock";

/// A user on this machine: a home with keys and a configuration, and a directory for connections.
struct User {
    home: TempDir,
}

impl User {
    /// Returns a user whom all nodes let in and who knows their keys. `more` goes into the configuration, first.
    fn new(cluster: &Cluster, more: &str) -> Self {
        let home = tempfile::Builder::new().prefix("user").tempdir_in("/tmp").expect("a home");
        let config = fs::read_to_string(cluster.ssh_config()).expect("the lab's configuration");
        fs::write(home.path().join("config"), format!("{more}\nHost *\n{config}")).expect("written");
        Self { home }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn settings(&self) -> SshSettings {
        let variable = |name: &str| match name {
            "XDG_RUNTIME_DIR" => Some(self.home.path().into()),
            "ORCH_SSH_CONFIG" => Some(self.file("config").into()),
            _ => None,
        };
        SshSettings {
            connect_timeout: secs(2),
            persist: secs(2),
            alive_interval: secs(1),
            ..SshSettings::of_user(&variable, Interaction::Never)
        }
    }

    fn reach(&self, address: &str) -> SshConnection {
        SshConnection::new(address.parse().expect("an address"), self.settings())
    }
}

/// What is wrong with `node1` for a user with this configuration.
async fn problem(cluster: &Cluster, config: &str) -> SshError {
    let user = User::new(cluster, config);
    let error = user.reach("node1").engine_socket().await.expect_err("it cannot be reached");
    assert!(!error.help().is_empty());
    error
}

/// TCP connections to a host's sshd.
fn connections(host: &Host) -> usize {
    host.sh("ss -Htn state established '( sport = :22 )'").lines().count()
}

/// The processes that are masters of connections in `directory`.
fn masters(directory: &Path) -> Vec<String> {
    let controls = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("readable").path());
    let check = |path: PathBuf| {
        let output = Command::new("ssh").args(["-F", "/dev/null", "-O", "check", "-S"]).arg(path).arg("x").output();
        let said = String::from_utf8_lossy(&output.expect("ssh").stderr).into_owned();
        said.split_once("pid=").map(|(_, rest)| rest.trim_end().trim_end_matches(')').to_owned())
    };
    // The other files are locks, logs and forwarded sockets.
    controls.filter(|path| !path.to_string_lossy().contains(['-', '.'])).filter_map(check).collect()
}

async fn engine_answers(connection: &SshConnection) {
    let socket = connection.engine_socket().await.expect("the engine's socket");
    let engine = DockerEngine::connect(Some(&format!("unix://{}", socket.display()))).await.expect("an engine");
    assert_eq!(engine.socket(), socket.to_string_lossy());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_connection_serves_all_commands_of_all_orchs_and_ends_by_itself() {
    let cluster = Cluster::boot(2, &[]);
    let user = User::new(&cluster, "");
    // Each with nothing in common but the directory, as separate processes have it, and all at once.
    let orchs: Vec<_> = (0..12).map(|at| user.reach(if at % 2 == 0 { "node1" } else { "node2" })).collect();
    let work = orchs.into_iter().map(|orch| {
        tokio::spawn(async move {
            for _ in 0..3 {
                engine_answers(&orch).await;
                assert_eq!(orch.run(&["echo", "it's", "a b"]).await.expect("an echo"), "it's a b\n");
            }
            orch
        })
    });
    let orchs = futures_util::future::join_all(work).await;
    for node in cluster.nodes() {
        assert_eq!(connections(node), 1, "{}", node.name());
    }
    let first = orchs[0].as_ref().expect("it ended well");
    let look = first.look().await.expect("a look");
    assert_eq!(look.server, Some(cluster[1].address().into()));
    assert_eq!(look.system, "Linux");
    assert!(look.free.is_some_and(|free| free > 1 << 20), "{look:?}");
    let code = first.run(&["sh", "-c", "echo no >&2; exit 3"]).await.expect_err("3");
    assert_eq!((code.problem, code.detail.as_str()), (Problem::Command { program: "sh".to_owned(), code: 3 }, "no"));
    let full = first.run(&["sh", "-c", "cat /etc/hostname >/dev/full"]).await.expect_err("full");
    assert_eq!(full.problem, Problem::NoSpace, "{}", full.detail);

    // The next orch finds it ready.
    let again = user.reach("node1");
    engine_answers(&again).await;
    assert_eq!(connections(&cluster[1]), 1);
    // Held while somebody has it, for longer than it is kept without.
    let masters_now = masters(&user.settings().directory);
    assert_eq!(masters_now.len(), 2);
    crate::wait::stays(secs(4), "connections in use", || connections(&cluster[1]));
    drop((orchs, again));
    becomes(secs(15), "connections without orch", &0, || connections(&cluster[1]) + connections(&cluster[2]));
    for pid in masters_now {
        becomes(secs(5), "the process of the connection", &false, || Path::new("/proc").join(&pid).exists());
    }
    // And is made again where only its files are left.
    engine_answers(&user.reach("node1")).await;
}

#[tokio::test]
async fn a_killed_master_and_removed_sockets_are_replaced() {
    let cluster = Cluster::boot(1, &[]);
    let user = User::new(&cluster, "");
    let orch = user.reach("node1");
    engine_answers(&orch).await;
    let directory = user.settings().directory;
    for _ in 0..2 {
        let [master] = &masters(&directory)[..] else { panic!("one master") };
        Command::new("kill").args(["-KILL", master]).status().expect("killed");
        becomes(secs(5), "the master", &false, || Path::new("/proc").join(master).exists());
        assert!(!orch.is_connected().await);
        engine_answers(&orch).await;
        assert!(orch.is_connected().await);
        assert_eq!(masters(&directory).len(), 1);
    }
    // The directory is below /tmp on many machines, and that is cleaned now and then.
    let socket = orch.engine_socket().await.expect("a socket");
    fs::remove_file(&socket).expect("removed");
    engine_answers(&orch).await;
    assert_eq!(orch.engine_socket().await.expect("a socket"), socket);
    // The agent's socket may lead nowhere yet.
    let agent = orch.agent_socket().await.expect("a path");
    assert!(agent.exists() && agent != socket);
    orch.close().await.expect("closed");
    becomes(secs(5), "connections", &0, || connections(&cluster[1]));
    engine_answers(&orch).await;
}

#[tokio::test]
async fn keys_that_do_not_fit_are_told_apart() {
    let cluster = Cluster::boot(1, &[]);
    let home = tempfile::tempdir().expect("a folder");
    let (key, known) = (home.path().join("key"), home.path().join("known"));
    Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().expect("a key");
    let shown = cluster[1].sh("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub");
    let shown = shown.split(' ').nth(1).expect("a fingerprint");

    for checking in ["yes", "ask"] {
        let config = format!("UserKnownHostsFile {}\nStrictHostKeyChecking {checking}", known.display());
        let error = problem(&cluster, &config).await;
        assert_eq!(error.problem, Problem::HostKeyUnknown { fingerprint: Some(shown.to_owned()) }, "{}", error.detail);
        assert!(error.to_string().contains(shown) && error.help().contains("ssh-keyscan"), "{error}");
    }
    let other = fs::read_to_string(key.with_extension("pub")).expect("a key");
    fs::write(&known, format!("{} {other}", cluster[1].address())).expect("written");
    let error = problem(&cluster, &format!("UserKnownHostsFile {}", known.display())).await;
    let Problem::HostKeyChanged { fingerprint, remove } = &error.problem else { panic!("{error}: {}", error.detail) };
    assert_eq!(fingerprint.as_deref(), Some(shown));
    assert!(remove.as_ref().is_some_and(|remove| remove.contains("ssh-keygen")), "{remove:?}");

    let user = User::new(&cluster, "");
    let config = fs::read_to_string(user.file("config")).expect("a configuration");
    let lines = config.lines().map(|line| if line.contains("IdentityFile") { "" } else { line });
    let config: String = lines.flat_map(|line| [line, "\n"]).collect();
    fs::write(user.file("config"), format!("IdentityFile {}\n{config}", key.display())).expect("written");
    let error = user.reach("node1").ensure().await.expect_err("another key");
    assert_eq!(error.problem, Problem::KeyRefused, "{}", error.detail);
    assert!(error.detail.contains("Permission denied"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_host_that_gives_no_engine_says_why() {
    let cluster = Cluster::boot(1, &[]);
    let node = &cluster[1];
    let user = User::new(&cluster, "");
    node.sh(
        "useradd -m -p '*' -s /bin/sh ann; mkdir -p /home/ann/.ssh; cp /root/.ssh/authorized_keys /home/ann/.ssh/; \
         chown -R ann /home/ann",
    );
    let error = user.reach("ann@node1").engine_socket().await.expect_err("not in the group");
    let denied = Problem::NoPermission { socket: ENGINE.to_owned(), user: "ann".to_owned() };
    assert_eq!(error.problem, denied, "{}", error.detail);
    assert!(error.help().contains("usermod -aG docker ann"), "{}", error.help());
    node.sh("usermod -aG docker ann");
    // Groups are those of the login, so that the old connection was not kept.
    let ann = user.reach("ann@node1");
    engine_answers(&ann).await;
    drop(ann);

    let orch = user.reach("node1");
    orch.ensure().await.expect("a connection");
    let engine = |signal: &str| {
        node.sh(&format!(
            "engine=$(cat /run/engine.service.pid); kill -KILL $(ps -o ppid= -p $engine); kill -{signal} $engine; \
             while kill -0 $engine 2>/dev/null; do :; done"
        ));
    };
    engine("KILL");
    let error = orch.engine_socket().await.expect_err("no engine runs");
    let none = |found| Problem::NoEngine { socket: ENGINE.to_owned(), found };
    assert_eq!(error.problem, none(Found::NobodyListening), "{}", error.detail);
    assert!(error.is_transient());
    node.sh("rm /run/docker.sock");
    let error = orch.engine_socket().await.expect_err("no socket");
    assert_eq!(error.problem, none(Found::Nothing), "{}", error.detail);
    assert!(!error.is_transient() && orch.is_connected().await);
    drop(orch);

    node.power_off();
    node.power_on();
    node.sh("sed -i '1i AllowStreamLocalForwarding no' /etc/ssh/sshd_config; kill -HUP $(cat /run/sshd.service.pid)");
    let error = eventually_error(&user, "node1", |problem| *problem == Problem::ForwardingForbidden).await;
    assert!(error.help().contains("AllowStreamLocalForwarding yes"), "{}", error.help());
    // Put right, it is so for the next who tries, whatever connection was kept.
    node.sh("sed -i 1d /etc/ssh/sshd_config; kill -HUP $(cat /run/sshd.service.pid)");
    let mut last = String::new();
    for _ in 0..20 {
        match user.reach("node1").engine_socket().await {
            Ok(_) => return,
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still refused: {last}");
}

/// Asks anew until the error is as wanted: what the host was told takes effect in a moment.
async fn eventually_error(user: &User, address: &str, wanted: impl Fn(&Problem) -> bool) -> SshError {
    let mut last = String::new();
    for _ in 0..20 {
        let orch = user.reach(address);
        drop(orch.close().await);
        match orch.engine_socket().await {
            Err(error) if wanted(&error.problem) => return error,
            Err(error) => last = format!("{error}: {}", error.detail),
            Ok(_) => "it answers".clone_into(&mut last),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("another problem: {last}")
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_says_why() {
    let cluster = Cluster::boot(1, &[]);
    let user = User::new(&cluster, "");
    let reason = async |connection: SshConnection| match connection.ensure().await.expect_err("not reached") {
        SshError { problem: Problem::Unreachable { reason }, .. } => reason,
        error => panic!("{error}: {}", error.detail),
    };
    assert_eq!(reason(user.reach("node1:2222")).await, "the connection was refused");
    let error = user.reach("no-such-host.invalid").ensure().await.expect_err("no such name");
    assert_eq!(error.problem, Problem::UnknownName { name: "no-such-host.invalid".to_owned() }, "{}", error.detail);
    let settings = SshSettings { program: PathBuf::from("orch-no-such-ssh"), ..user.settings() };
    let error = SshConnection::new("node1".parse().expect("valid"), settings).ensure().await.expect_err("no ssh");
    assert!(matches!(error.problem, Problem::NoProgram { .. }), "{error}");

    cluster[1].sh("sshd=$(cat /run/sshd.service.pid); kill -KILL $(ps -o ppid= -p $sshd) $sshd");
    assert_eq!(reason(user.reach("node1")).await, "the connection was refused");
    cluster[1].power_off();
    let error = user.reach("node1").ensure().await.expect_err("no power");
    assert!(matches!(error.problem, Problem::Unreachable { .. }), "{error}: {}", error.detail);
    cluster[1].power_on();
    engine_answers(&user.reach("node1")).await;
}

#[tokio::test]
async fn a_cut_is_noticed_in_seconds_and_healed() {
    let cluster = Cluster::boot(1, &[]);
    let user = User::new(&cluster, "");
    let orch = user.reach("node1");
    for one_way in [false, true] {
        engine_answers(&orch).await;
        if one_way {
            cluster.cut_one_way("node1", "machine");
        } else {
            cluster.cut("machine", "node1");
        }
        let begun = tokio::time::Instant::now();
        while orch.is_connected().await {
            assert!(begun.elapsed() < secs(8), "the cut is not noticed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let error = orch.engine_socket().await.expect_err("still cut");
        let reason = "it did not answer in time".to_owned();
        assert_eq!(error.problem, Problem::Unreachable { reason }, "{}", error.detail);
        assert!(error.is_transient());
        cluster.heal();
    }
    engine_answers(&orch).await;
    cluster.slow("node1", 100);
    engine_answers(&orch).await;
    let begun = tokio::time::Instant::now();
    orch.run(&["true"]).await.expect("it is slow, not broken");
    assert!(begun.elapsed() > Duration::from_millis(200), "there and back");
    cluster.slow("node1", 0);
}

#[tokio::test]
async fn a_jump_host_of_the_users_configuration_is_used() {
    let cluster = Cluster::boot(2, &[]);
    cluster.cut("machine", "node2");
    let user = User::new(&cluster, "Host node2\n  ProxyJump node1\n  LogLevel QUIET\n  LocalForward 7777 127.0.0.1:22");
    let orch = user.reach("root@node2");
    engine_answers(&orch).await;
    let look = orch.look().await.expect("a look");
    assert_eq!(look.client, Some(cluster[1].address().into()));
    drop(orch);
    // What the jump host's ssh says is part of the reason.
    let lost = User::new(&cluster, "Host node2\n  ProxyJump node1:2222");
    let error = lost.reach("node2").ensure().await.expect_err("no such jump host");
    let reason = "the connection was refused".to_owned();
    assert_eq!(error.problem, Problem::Unreachable { reason }, "{}", error.detail);
}

#[test]
fn somebody_at_the_desk_reaches_every_node_by_name() {
    let cluster = Cluster::boot(2, &[]);
    for node in cluster.nodes() {
        assert_eq!(cluster.desk.sh(&format!("ssh {} hostname", node.name())), node.name());
    }
    assert_ne!(cluster.desk.exec(&["docker", "version"]).code, 0, "the desk has no engine");
    eventually(secs(15), "a cut between the desk and a node", || {
        cluster.cut("desk", "node1");
        let done = cluster.desk.exec(&["ssh", "-o", "ConnectTimeout=1", "node1", "true"]);
        if done.code == 255 { Ok(()) } else { Err(done) }
    });
    cluster.heal();
    assert_eq!(cluster.desk.sh("ssh node1 hostname"), "node1");
}
