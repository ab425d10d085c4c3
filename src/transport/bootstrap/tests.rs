use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::engine::EngineInfo;
use crate::engine::fake::{FakeEngine, Fault};

fn build(version: &str, hash: &str) -> Build {
    let (version, hash) = (version.to_owned(), hash.to_owned());
    Build { version, hash, binary: "/dev/null".into(), repository: "orch".to_owned() }
}

/// An agent that answers with its container's build once it was asked `slow` times.
struct FakeAgent {
    engine: FakeEngine,
    slow: AtomicU32,
    /// Times that it goes away while it is asked to uninstall.
    gone: AtomicU32,
    uninstalled: Mutex<bool>,
}

impl FakeAgent {
    fn new(engine: &FakeEngine) -> Self {
        Self {
            engine: engine.clone(),
            slow: AtomicU32::new(3),
            gone: AtomicU32::new(0),
            uninstalled: Mutex::new(false),
        }
    }
}

#[async_trait]
impl AgentApi for FakeAgent {
    async fn build(&self) -> Result<String, String> {
        let container = self.engine.inspect_container("orch-agent").await.map_err(|error| error.to_string())?;
        if !container.is_running() {
            return Err("connection refused".to_owned());
        }
        let left = self.slow.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { Err("not yet".to_owned()) } else { Ok(container.labels["orch.agent.build"].clone()) }
    }

    async fn uninstall(&self) -> Result<(), String> {
        let left = self.gone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err("connection closed before message completed".to_owned());
        }
        *self.uninstalled.lock().expect("not poisoned") = true;
        Ok(())
    }
}

async fn ensure(engine: &FakeEngine, build: &Build) -> Result<AgentStatus, BootstrapError> {
    ensure_agent(engine, &FakeAgent::new(engine), build, &AgentOptions::default()).await
}

fn removed(version: &str) -> Done {
    Done::Removed { version: version.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn an_absent_agent_is_made_once() {
    let engine = FakeEngine::new();
    let one = build("0.1.0", "aaa");
    let status = ensure(&engine, &one).await.expect("can be made");
    assert_eq!(status.done, [Done::Loaded, Done::Created, Done::Started]);
    let again = ensure(&engine, &one).await.expect("is there");
    assert_eq!((again.done, again.container), (Vec::new(), status.container));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_or_frozen_agent_is_woken() {
    let engine = FakeEngine::new();
    let one = build("0.1.0", "aaa");
    ensure(&engine, &one).await.expect("can be made");
    engine.stop_container("orch-agent", Duration::ZERO).await.expect("can be stopped");
    assert_eq!(ensure(&engine, &one).await.expect("can be started").done, [Done::Started]);
    engine.pause("orch-agent");
    assert_eq!(ensure(&engine, &one).await.expect("can be thawed").done, []);
}

#[tokio::test(start_paused = true)]
async fn another_build_is_replaced_but_a_newer_version_is_not() {
    let engine = FakeEngine::new();
    let check = async |version: &str, hash: &str, expected: &[Done]| {
        let status = ensure(&engine, &build(version, hash)).await.expect("can be replaced");
        assert_eq!(status.done, expected, "{version} {hash}");
    };
    ensure(&engine, &build("0.1.0", "aaa")).await.expect("can be made");
    check("0.1.0", "bbb", &[Done::Loaded, removed("0.1.0"), Done::Created, Done::Started]).await;
    check("0.2.0", "ccc", &[Done::Loaded, removed("0.1.0"), Done::Created, Done::Started]).await;
    let error = ensure(&engine, &build("0.1.0", "aaa")).await.expect_err("is newer");
    assert_eq!(
        error.to_string(),
        "the agent is version 0.2.0, this is 0.1.0: upgrade orch, or go back to 0.1.0 with `orch up --allow-downgrade`"
    );
    let options = AgentOptions { allow_downgrade: true, ..AgentOptions::default() };
    let status = ensure_agent(&engine, &FakeAgent::new(&engine), &build("0.1.0", "aaa"), &options).await;
    assert_eq!(status.expect("may be replaced").done, [Done::Loaded, removed("0.2.0"), Done::Created, Done::Started]);
    assert_eq!(engine.image_references("orch").await.expect("answers"), ["orch:aaa"], "old images go");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_an_agent_is_left_alone() {
    let engine = FakeEngine::new();
    engine.add_image("nginx");
    let id = engine.create_container(&crate::engine::ContainerSpec::new("orch-agent", "nginx")).await.expect("made");
    let error = ensure(&engine, &build("0.1.0", "aaa")).await.expect_err("is not ours");
    assert!(matches!(error, BootstrapError::Refused(Refusal::NotOurs { .. })), "{error:?}");
    assert!(stop_agent(&engine, &AgentOptions::default()).await.is_err());
    engine.inspect_container(&id).await.expect("is there");
}

#[tokio::test(start_paused = true)]
async fn several_at_the_same_time_make_one() {
    let engine = FakeEngine::new();
    let (old, new) = (build("0.1.0", "aaa"), build("0.1.0", "bbb"));
    ensure(&engine, &old).await.expect("can be made");
    engine.add_image(&new.image());
    let (one, other, third) = tokio::join!(ensure(&engine, &new), ensure(&engine, &new), ensure(&engine, &new));
    let (one, other, third) = (one.expect("works"), other.expect("works"), third.expect("works"));
    assert_eq!((&one.container, &other.container), (&other.container, &third.container));
    let made = engine.history().into_iter().filter(|event| event.action == "create").count();
    assert_eq!(made, 2, "the old and the new");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_or_a_cut_off_run_is_taken_up() {
    for method in ["load_image", "create_container", "start_container"] {
        let engine = FakeEngine::new();
        engine.fail(method, Fault::After, 1);
        let one = build("0.1.0", "aaa");
        ensure(&engine, &one).await.expect_err("a test wants it");
        ensure(&engine, &one).await.unwrap_or_else(|error| panic!("after {method}: {error}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_told_with_its_last_lines() {
    let engine = FakeEngine::new();
    let silent = FakeAgent { slow: AtomicU32::new(u32::MAX), ..FakeAgent::new(&engine) };
    let result = ensure_agent(&engine, &silent, &build("0.1.0", "aaa"), &AgentOptions::default()).await;
    let error = result.expect_err("does not answer");
    insta::assert_snapshot!(error, @r"
    the agent did not answer within 30 s: not yet
    the last lines of its log:
    sleeping
    ");
}

#[tokio::test(start_paused = true)]
async fn uninstalling_leaves_no_container_and_no_image() {
    let engine = FakeEngine::new();
    let one = build("0.1.0", "aaa");
    ensure(&engine, &one).await.expect("can be made");
    engine.stop_container("orch-agent", Duration::ZERO).await.expect("can be stopped");
    let agent = FakeAgent::new(&engine);
    let done = uninstall_agent(&engine, &agent, &one, &AgentOptions::default()).await.expect("can be done");
    assert!(done.container && *agent.uninstalled.lock().expect("not poisoned"));
    let images = ["orch:aaa", "orch/demo:latest", "orch/holder:latest"].map(str::to_owned).to_vec();
    assert_eq!((done.images, done.kept), (images, Vec::new()));
    let again = uninstall_agent(&engine, &agent, &one, &AgentOptions::default()).await.expect("is done");
    assert_eq!(again, Uninstalled::default());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_anew_meanwhile_is_asked_to_uninstall_once_more() {
    let engine = FakeEngine::new();
    let one = build("0.1.0", "aaa");
    ensure(&engine, &one).await.expect("can be made");
    let agent = FakeAgent::new(&engine);
    agent.gone.store(1, Ordering::Relaxed);
    let done = uninstall_agent(&engine, &agent, &one, &AgentOptions::default()).await.expect("can be done");
    assert!(done.container && *agent.uninstalled.lock().expect("not poisoned"));

    ensure(&engine, &one).await.expect("can be made");
    agent.gone.store(u32::MAX, Ordering::Relaxed);
    let error = uninstall_agent(&engine, &agent, &one, &AgentOptions::default()).await.expect_err("it cannot");
    assert!(matches!(error, BootstrapError::NotCleaned { .. }), "{error}");
}

#[test]
fn the_agents_container() {
    let security = ["seccomp", "apparmor", "selinux"].map(str::to_owned).to_vec();
    let info = EngineInfo { security, ..EngineInfo::default() };
    let spec = agent_spec(&build("0.1.0", "aaa"), &AgentOptions::default(), &info);
    let request = crate::engine::translate::create_request(&spec, crate::engine::translate::ApiVersion::OLDEST);
    let mut host = request.expect("can be said").body.host_config.expect("is always there");
    host.cap_add = None; // listed with its reasons
    host.log_config = None; // a map without order
    insta::assert_snapshot!(serde_json::to_string_pretty(&host).expect("serialises"), @r#"
    {
      "Binds": [
        "/var/lib/orch:/var/lib/orch:rw",
        "/run/orch:/run/orch:rw"
      ],
      "NetworkMode": "host",
      "RestartPolicy": {
        "Name": "always"
      },
      "Mounts": [
        {
          "Target": "/var/run/docker.sock",
          "Source": "/var/run/docker.sock",
          "Type": "bind"
        }
      ],
      "CapDrop": [
        "ALL"
      ],
      "PidMode": "host",
      "Privileged": false,
      "ReadonlyRootfs": true,
      "SecurityOpt": [
        "no-new-privileges",
        "apparmor=unconfined",
        "label=disable"
      ]
    }
    "#);
    let plain = agent_spec(&build("0.1.0", "aaa"), &AgentOptions::default(), &EngineInfo::default());
    assert_eq!(plain.container.security_opt, ["no-new-privileges"]);
}

#[test]
fn a_start_without_the_directories_that_are_mounted_is_told_from_other_failures() {
    let check = |message: &str| lacks_a_mount(message, &AgentOptions::default());
    // crun 1.8 and runc 1.1 under Podman 4.3.1.
    assert!(check(
        "crun: error stat'ing file `/run/orch`: No such file or directory: OCI runtime attempted to invoke a command \
         that was not found"
    ));
    assert!(check(
        "runc: create failed: error mounting \"/run/orch\" to rootfs: stat /run/orch: no such file or directory"
    ));
    assert!(!check("crun: executable file `/orch` not found in $PATH: No such file or directory"));
    assert!(!check("crun: mount `/run/orch` to `run/orch`: Permission denied"));
}
