use super::*;
use crate::cli::args::{Global, Selection};
use crate::cli::project;
use crate::cli::travel::Luggage;
use crate::cli::ui::Style;
use crate::cli::ui::testing::ui;
use crate::engine::fake::{FakeEngine, Fault};
use crate::load::{LoadOptions, LoadRequest, MemoryFiles, load};

fn graph(yaml: &str) -> Graph {
    let files = MemoryFiles::new([("/p/compose.yaml", yaml)]);
    let request = LoadRequest { cwd: "/p".into(), options: LoadOptions::default(), ..LoadRequest::default() };
    let loaded = load(&files, &request).unwrap_or_else(|problems| panic!("{problems}"));
    project::expand(loaded, &Selection::default(), Luggage::default()).expect("a graph").graph
}

const POLICIES: &str = "services:
  here: {image: 'here:1'}
  anew: {image: 'anew:1', pull_policy: always}
  own: {image: orch/demo}
  never: {image: 'never:1', pull_policy: never}
";

/// What is told, and which calls were made.
async fn run(engine: &FakeEngine, options: PullOptions) -> (Result<(), CliError>, String) {
    let (mut ui, _, err) = ui(Style::Plain);
    let result = ensure(&mut ui, engine, &graph(POLICIES), &BTreeSet::new(), options, &Logins::default()).await;
    (result, err.take())
}

fn options() -> PullOptions {
    PullOptions { policy: None, quiet: false, parallel: Global::default().parallel, platform: None }
}

#[tokio::test]
async fn only_what_is_to_be_pulled_is_pulled() {
    let engine = FakeEngine::new();
    engine.add_image("here:1");
    engine.add_image("never:1");
    let (result, text) = run(&engine, options()).await;
    result.expect("all there");
    assert_eq!(text, " Image anew:1  Pulling\n Image anew:1  Pulled\n");
}

#[tokio::test]
async fn missing_images_are_named_together_and_nothing_is_pulled() {
    let engine = FakeEngine::new();
    let (result, text) = run(&engine, options()).await;
    let error = result.expect_err("`never` is not there");
    assert_eq!(error.to_string(), "image `never:1` of service `never` is not there, and its pull policy is `never`");
    assert_eq!(text, "");
    assert!(error.help().is_some_and(|help| help.contains("docker load")));
}

#[tokio::test]
async fn a_pull_that_fails_is_an_error_with_its_cause() {
    let engine = FakeEngine::new();
    engine.add_image("here:1");
    engine.add_image("never:1");
    engine.fail("pull", Fault::Before, 1);
    let (result, text) = run(&engine, options()).await;
    assert!(
        result.expect_err("failed").to_string().starts_with("image `anew:1` of service `anew` could not be pulled: ")
    );
    assert!(text.contains(" Image anew:1  Error  "), "{text}");
}

#[tokio::test]
async fn what_needs_a_login_is_pulled_with_it_and_without_it_says_what_to_do() {
    let yaml = "services: {web: {image: private.example/app}}\n";
    let directory = tempfile::tempdir().expect("a directory");
    for (secret, expected) in [
        (None, "you have no login for `private.example` on this machine; `docker login private.example`"),
        (Some("bWU6d3Jvbmc="), "`private.example` refused your login; `docker login private.example`"),
        (Some("bWU6cmlnaHQ="), ""),
    ] {
        let auth = secret.map(|auth| format!(r#"{{"auths": {{"private.example": {{"auth": "{auth}"}}}}}}"#));
        std::fs::write(directory.path().join("config.json"), auth.unwrap_or("{}".into())).expect("written");
        let logins = Logins::of_user(&|name| (name == "DOCKER_CONFIG").then(|| directory.path().into()));
        let (mut ui, _, _) = ui(Style::Plain);
        let result = ensure(&mut ui, &FakeEngine::new(), &graph(yaml), &BTreeSet::new(), options(), &logins).await;
        let said = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
    }
}

#[tokio::test]
async fn the_flag_wins_over_the_file() {
    let engine = FakeEngine::new();
    for image in ["here:1", "anew:1", "never:1"] {
        engine.add_image(image);
    }
    let (result, text) = run(&engine, PullOptions { policy: Some(PullPolicy::Never), ..options() }).await;
    result.expect("all there");
    assert_eq!(text, "");
}

#[tokio::test]
async fn what_is_older_than_the_policy_says_is_pulled_again_and_what_is_mounted_is_pulled_too() {
    let yaml = "services:
  old: {image: 'old:1', pull_policy: every_30m}
  week: {image: 'week:1', pull_policy: weekly}
  day: {image: 'day:1', pull_policy: daily, volumes: [{type: image, source: 'content:1', target: /x}]}
  unknown: {image: 'unknown:1', pull_policy: weekly}
";
    let engine = FakeEngine::new();
    for image in ["old:1", "week:1", "day:1"] {
        engine.add_image(image);
    }
    let (mut ui, _, err) = ui(Style::Plain);
    let options = PullOptions { parallel: 1, ..options() };
    let logins = Logins::default();
    ensure(&mut ui, &engine, &graph(yaml), &BTreeSet::new(), options, &logins).await.expect("all are had");
    let mut pulled: Vec<String> =
        err.take().lines().filter(|line| line.ends_with("Pulled")).map(str::to_owned).collect();
    pulled.sort();
    assert_eq!(pulled, [" Image content:1  Pulled", " Image old:1  Pulled", " Image unknown:1  Pulled"]);
}

#[test]
fn the_demo_image_is_known_by_all_its_names() {
    for name in ["orch/demo", "orch/demo:latest", "docker.io/orch/demo"] {
        assert!(is_own(name), "{name}");
    }
    for name in ["orch/demo:1", "orch", "x/orch/demo"] {
        assert!(!is_own(name), "{name}");
    }
}

#[test]
fn the_bytes_of_all_layers_are_counted() {
    let mut layers = Layers::default();
    let mut step = |id: &str, status: &str, current, total| {
        layers.apply(PullProgress { id: id.into(), status: status.into(), current, total });
        layers.text()
    };
    assert_eq!(step("a", "Pulling fs layer", 0, 0), None);
    assert_eq!(step("a", "Downloading", 1_000_000, 4_000_000).as_deref(), Some("1 of 4 MB"));
    assert_eq!(step("b", "Downloading", 3_000_000, 6_000_000).as_deref(), Some("4 of 10 MB"));
    assert_eq!(step("a", "Pull complete", 0, 0).as_deref(), Some("7 of 10 MB"));
}
