//! An agent that can do nothing but say which build it is, brought up on the real engine by `transport::bootstrap`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orch::engine::Engine;
use orch::engine::docker::DockerEngine;
use orch::observed::ContainerState;
use orch::transport::bootstrap::{
    AgentApi, AgentOptions, AgentStatus, BootstrapError, Done, Refusal, ensure_agent, stop_agent, uninstall_agent,
};
use orch::transport::image::Build;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Answers every connection with the hash of its own binary, until it is stopped.
pub(crate) async fn serve(directory: &Path) -> ExitCode {
    use tokio::signal::unix::{SignalKind, signal};
    let mut stop = signal(SignalKind::terminate()).expect("a signal handler");
    let path = directory.join("agent.sock");
    drop(std::fs::remove_file(&path)); // of an earlier life
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            crate::complain(&format!("no socket at {}: {error}", path.display()));
            return ExitCode::FAILURE;
        }
    };
    let own = Build::own().expect("its own binary");
    loop {
        tokio::select! {
            _ = stop.recv() => return ExitCode::SUCCESS,
            connection = listener.accept() => {
                let (mut stream, _) = connection.expect("a connection");
                // Who asks and goes away has no need of the answer.
                drop(stream.write_all(own.hash.as_bytes()).await);
            }
        }
    }
}

/// Asks such an agent.
struct Socket(PathBuf);

#[async_trait]
impl AgentApi for Socket {
    async fn build(&self) -> Result<String, String> {
        let mut text = String::new();
        let mut stream = UnixStream::connect(&self.0).await.map_err(|error| error.to_string())?;
        stream.read_to_string(&mut text).await.map_err(|error| error.to_string())?;
        Ok(text)
    }

    async fn uninstall(&self) -> Result<(), String> {
        Ok(())
    }
}

/// An agent's names that nobody else uses.
#[derive(Clone)]
pub(crate) struct Names {
    engine: DockerEngine,
    options: AgentOptions,
    repository: String,
    directory: Arc<tempfile::TempDir>,
}

impl Names {
    pub(crate) fn new(engine: &DockerEngine, run: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("orch-agent").tempdir().expect("a directory");
        let inside = |name: &str| directory.path().join(name).display().to_string();
        let options = AgentOptions {
            name: format!("engc-agent-{run}"),
            engine_socket: engine.socket().to_owned(),
            state_dir: inside("state"),
            run_dir: inside("run"),
            ..AgentOptions::default()
        };
        let repository = format!("orch-contract/agent{run}");
        Self { engine: engine.clone(), options, repository, directory: Arc::new(directory) }
    }

    fn build(&self, binary: &Path, version: &str) -> Build {
        Build::of(binary, version).expect("a binary").named(&self.repository)
    }

    async fn ensure(&self, build: &Build) -> Result<AgentStatus, BootstrapError> {
        ensure_agent(&self.engine, &Socket(self.options.socket()), build, &self.options).await
    }

    /// Returns a copy of this binary with something behind its end: the same program, another build.
    fn changed_copy(&self) -> PathBuf {
        let path = self.directory.path().join("copy");
        let mut binary = std::fs::read("/proc/self/exe").expect("this binary");
        binary.extend_from_slice(b"changed");
        std::fs::write(&path, binary).expect("can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("can be changed");
        path
    }

    async fn images(&self) -> Vec<String> {
        self.engine.image_references(&self.repository).await.expect("the engine answers")
    }

    pub(crate) async fn clean(&self) {
        self.engine.remove_container(&self.options.name, true).await.expect("can be removed");
        let mut references = self.images().await;
        references.push(format!("{}/demo:latest", self.repository));
        for reference in references {
            self.engine.remove_image(&reference).await.expect("can be removed");
        }
    }
}

pub(crate) async fn check(names: &Names) {
    let Names { engine, options, directory, .. } = names;
    let first = names.build(Path::new("/proc/self/exe"), "0.2.0");

    let (one, other) = tokio::join!(names.ensure(&first), names.ensure(&first));
    let (one, other) = (one.expect("comes up"), other.expect("comes up"));
    assert_eq!(one.container, other.container, "two at once share one agent");
    assert!(names.ensure(&first).await.expect("is there").done.is_empty());

    engine.kill_container(&options.name, "SIGKILL").await.expect("can be killed");
    assert_eq!(names.ensure(&first).await.expect("comes back").done, [Done::Started]);
    assert!(stop_agent(engine, options).await.expect("can be stopped"));
    assert!(!stop_agent(engine, options).await.expect("is stopped"));

    let second = names.build(&names.changed_copy(), "0.2.0");
    let removed = Done::Removed { version: "0.2.0".to_owned() };
    let replaced = names.ensure(&second).await.expect("is replaced");
    assert_eq!(replaced.done, [Done::Loaded, removed, Done::Created, Done::Started]);
    assert_eq!(names.images().await, [second.image()], "the image of the old build goes");

    let older = names.build(Path::new("/proc/self/exe"), "0.1.9");
    let refused = names.ensure(&older).await.expect_err("the agent is newer");
    assert!(matches!(refused, BootstrapError::Refused(Refusal::Newer { .. })), "{refused:?}");

    let gone = uninstall_agent(engine, &Socket(options.socket()), &second, options).await.expect("can be removed");
    assert!(gone.container && gone.kept.is_empty(), "{gone:?}");
    // Its own, that of the demo workloads, and that of pods' holders.
    assert_eq!((gone.images.len(), names.images().await.len()), (3, 0));

    // What cannot run at all is said, and not started for ever.
    let script = directory.path().join("not-a-program");
    std::fs::write(&script, "nothing that a kernel runs").expect("can be written");
    let broken = names.ensure(&names.build(&script, "0.2.0")).await.expect_err("cannot run");
    let broken = format!("{broken}\n{:?}", std::error::Error::source(&broken));
    let words = broken.to_lowercase();
    assert!(words.contains("it ends again and again") && words.contains("exec format error"), "{broken}");
    let stopped = engine.inspect_container(&options.name).await.expect("is there");
    assert!(matches!(stopped.state, ContainerState::Exited { .. }), "{stopped:?}");

    // One that crashes is shown with its own words.
    let run_dir = directory.path().join("taken").display().to_string();
    std::fs::create_dir_all(Path::new(&run_dir).join("agent.sock")).expect("can be made");
    let crashing = Names {
        options: AgentOptions { run_dir, deadline: Duration::from_secs(20), ..options.clone() },
        ..names.clone()
    };
    let silent = crashing.ensure(&first).await.expect_err("crashes");
    let silent = format!("{silent}\n{:?}", std::error::Error::source(&silent));
    assert!(silent.contains("it ends again and again") && silent.contains("no socket at"), "{silent}");
}
