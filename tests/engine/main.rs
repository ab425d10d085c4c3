//! What can only be shown on a real engine: that ours keeps its contract, and that an agent is brought up and away again.
//!
//! Without a test harness: this very binary is also the only program in the containers' images, as a workload
//! (`engine run SCRIPT`) and as a small agent (`engine agent --state DIR --run DIR`). All cases run at once, each with
//! names of its own, and clean up after themselves. No engine: it fails and says so. All of it once more on [`podman`].

mod agent;
mod podman;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use async_trait::async_trait;
use bytes::Bytes;
use ipnet::Ipv4Net;
use orch::engine::contract::{self, Act, CASES, World};
use orch::engine::docker::DockerEngine;
use orch::engine::{Engine, EngineKind};
use orch::ids::ProjectName;
use orch::transport::image::{Entry, Image, archive};

const NAME: &str = "contract_and_bootstrap_on_the_real_engine";
const ON_PODMAN: &str = "contract_and_bootstrap_on_podman_in_a_lab_host";
const PROGRAM: &str = "/workload";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match words.as_slice() {
        ["run", script] => runtime.block_on(play(script)),
        ["agent", "--state", _, "--run", directory] => runtime.block_on(agent::serve(directory.as_ref())),
        // What cargo-nextest asks of a test binary; ours has no ignored tests.
        list if list.contains(&"--list") => {
            if !list.contains(&"--ignored") {
                say(&format!("{NAME}: test\n{ON_PODMAN}: test"));
            }
            ExitCode::SUCCESS
        }
        filters => {
            let asked = |name: &str| filters.iter().all(|word| word.starts_with('-') || name.contains(word));
            let here = if asked(NAME) { runtime.block_on(check()) } else { ExitCode::SUCCESS };
            if here == ExitCode::SUCCESS && asked(ON_PODMAN) { podman::check(NAME) } else { here }
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program whose output is its purpose")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a program whose output is its purpose")]
fn complain(line: &str) {
    eprintln!("{line}");
}

/// Obeys a script inside a container.
async fn play(script: &str) -> ExitCode {
    use tokio::signal::unix::{SignalKind, signal};
    let mut stop = signal(SignalKind::terminate()).expect("a signal handler");
    for act in contract::script(script) {
        match act {
            Act::Out(line) => say(&line),
            Act::Err(line) => complain(&line),
            Act::Exit(code) => return ExitCode::from(u8::try_from(code).expect("a small code")),
            Act::Sleep => {
                say("sleeping");
                stop.recv().await;
                return ExitCode::from(143);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs all cases and says which failed.
async fn check() -> ExitCode {
    let address = std::env::var("DOCKER_HOST").ok();
    let engine = match DockerEngine::connect(address.as_deref()).await {
        Ok(engine) => engine,
        Err(error) => {
            complain(&format!("{NAME} needs a container engine: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let run = std::process::id();
    let image = format!("orch-contract/workload:{run}");
    engine.load_image(workload(&image)).await.expect("the image can be loaded");
    let mut cases = tokio::task::JoinSet::new();
    for (index, &(name, case)) in CASES.iter().enumerate() {
        let world = RealWorld { engine: engine.clone(), image: image.clone(), run, index };
        cases.spawn(async move {
            let inner = world.clone();
            let result = tokio::spawn(async move { case(&inner).await }).await;
            contract::clean(&world).await;
            (name, result)
        });
    }
    let agents = agent::Names::new(&engine, run);
    cases.spawn(async move {
        let inner = agents.clone();
        let result = tokio::spawn(async move { agent::check(&inner).await }).await;
        agents.clean().await;
        ("an_agent_comes_and_goes", result)
    });
    let mut failed = Vec::new();
    while let Some(done) = cases.join_next().await {
        match done {
            Ok((name, Ok(()))) => say(&format!("ok {name}")),
            Ok((name, Err(error))) => failed.push(format!("FAILED {name}: {error}")),
            Err(error) => failed.push(format!("FAILED to clean up: {error}")),
        }
    }
    engine.remove_image(&image).await.expect("the image can be removed");
    for line in &failed {
        complain(line);
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workload(reference: &str) -> Bytes {
    let binary = std::fs::read("/proc/self/exe").expect("this binary");
    let image = Image {
        reference: reference.to_owned(),
        entrypoint: vec![PROGRAM.to_owned(), "run".to_owned()],
        labels: BTreeMap::new(),
    };
    archive(&[Entry::file("workload", 0o755, &binary)], &[image]).expect("an archive")
}

#[derive(Clone)]
struct RealWorld {
    engine: DockerEngine,
    image: String,
    run: u32,
    index: usize,
}

#[async_trait]
impl World for RealWorld {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn project(&self) -> ProjectName {
        ProjectName::new(format!("engc{}-{}", self.run, self.index)).expect("a name")
    }

    fn image(&self) -> String {
        self.image.clone()
    }

    fn other_image(&self) -> (Bytes, String) {
        let reference = format!("orch-contract/other{}:1", self.run);
        let image =
            Image { reference: reference.clone(), entrypoint: vec!["/nothing".to_owned()], labels: BTreeMap::new() };
        let note = self.run.to_string();
        (archive(&[Entry::file("note", 0o644, note.as_bytes())], &[image]).expect("an archive"), reference)
    }

    fn program(&self) -> Vec<String> {
        vec![PROGRAM.to_owned(), "run".to_owned()]
    }

    /// In the range for benchmarks (RFC 2544), which no real network uses; by process, so that runs do not meet.
    fn subnet(&self, number: u8) -> Ipv4Net {
        let index = u8::try_from(self.index).expect("few cases") * 2 + number;
        let block = self.run % 128 * 1024;
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + block + u32::from(index) * 16;
        Ipv4Net::new(Ipv4Addr::from(base), 28).expect("a prefix")
    }

    fn free_port(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    }

    /// The engine itself checks, but Podman by a timer of systemd, which hosts of the lab have not.
    #[expect(clippy::disallowed_methods, reason = "the lab's host has the program")]
    async fn check_health(&self, id: &str) {
        let info = self.engine.info().await.expect("the engine answers");
        if info.kind == EngineKind::Podman && !Path::new("/run/systemd/private").exists() {
            let done = tokio::process::Command::new("podman").args(["healthcheck", "run", id]).output().await;
            assert!(done.expect("podman can be run").status.success(), "the check passes");
        }
    }
    async fn keeps_health_output(&self) -> bool {
        self.engine.info().await.expect("the engine answers").kind != EngineKind::Podman
    }
}
