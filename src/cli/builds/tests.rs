use std::fs;

use super::*;
use crate::cli::ui::Style;
use crate::cli::ui::testing::ui;
use crate::engine::fake::FakeEngine;
use crate::load::{LoadOptions, LoadRequest, MemoryFiles, load};

/// What the services of a file have built; contexts are in `directory`.
fn builds(directory: &str, services: &str) -> Vec<BuiltImage> {
    let file = format!("{directory}/compose.yaml");
    let yaml = format!("name: shop\nservices:\n{services}");
    let files = MemoryFiles::new([(file.as_str(), yaml.as_str())]);
    let options = LoadOptions { contents: false, ..LoadOptions::default() };
    let request = LoadRequest { cwd: directory.into(), options, ..LoadRequest::default() };
    of(&load(&files, &request).unwrap_or_else(|problems| panic!("{problems}")))
}

/// A directory with a file of instructions.
fn context(instructions: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("Dockerfile"), instructions).expect("written");
    fs::write(directory.path().join("note"), "hello").expect("written");
    directory
}

async fn run(
    engine: &FakeEngine,
    builds: Vec<BuiltImage>,
    wish: &Wish,
) -> (Result<BTreeMap<String, String>, CliError>, String) {
    let (mut ui, _, err) = ui(Style::Plain);
    let done = ensure(&mut ui, engine, builds, BTreeMap::new(), wish, &Logins::default()).await;
    (done, err.take())
}

#[test]
fn what_is_done_about_an_image() {
    let check = |image: &str, policy: &str, when: When, pull: Option<PullPolicy>, there: Way, not_there: Way| {
        let build = &builds("/p", &format!("  web: {{build: ., {image} pull_policy: '{policy}'}}\n"))[0];
        let wish = Wish { when, pull, ..Wish::default() };
        assert_eq!((build.way(true, &wish), build.way(false, &wish)), (there, not_there), "{image} {policy} {wish:?}");
    };
    let named = "image: 'app:1',";
    check("", "", When::Missing, None, Way::Keep, Way::Build);
    check("", "", When::Always, None, Way::Build, Way::Build);
    check("", "", When::Never, None, Way::Keep, Way::Lack);
    check("", "always", When::Missing, None, Way::Keep, Way::Build);
    check("", "build", When::Missing, None, Way::Build, Way::Build);
    check(named, "build", When::Never, None, Way::Keep, Way::Lack);
    check(named, "", When::Missing, None, Way::Keep, Way::PullOrBuild);
    check(named, "", When::Never, None, Way::Keep, Way::Pull);
    check(named, "never", When::Missing, None, Way::Keep, Way::Build);
    check(named, "always", When::Missing, None, Way::PullOrKeep, Way::PullOrBuild);
    check(named, "always", When::Always, None, Way::Build, Way::Build);
    check(named, "", When::Missing, Some(PullPolicy::Always), Way::PullOrKeep, Way::PullOrBuild);
    check(named, "always", When::Missing, Some(PullPolicy::Never), Way::Keep, Way::Build);
}

#[tokio::test]
async fn what_is_not_there_is_built_once() {
    let directory = context("FROM scratch\nCOPY note /\n");
    let path = directory.path().to_str().expect("text");
    let engine = FakeEngine::new();
    let two = "  web: {build: {context: ., args: {A: b}}}\n  also: {build: ., image: 'absent:1'}\n";
    let (done, said) = run(&engine, builds(path, two), &Wish::default()).await;
    let ids = done.expect("built");
    assert_eq!(ids.keys().collect::<Vec<_>>(), ["absent:1", "shop-web"]);
    assert!(said.contains(" Service web  Building  Step 1/2 : FROM scratch\n"), "{said}");
    assert!(said.contains(" Service web  Built\n") && said.contains(" Service also  Built\n"), "{said}");
    let (again, said) = run(&engine, builds(path, two), &Wish::default()).await;
    assert_eq!((again.expect("there"), said.as_str()), (ids, ""));
    let quiet = MakeOptions { quiet: true, no_cache: true, ..MakeOptions::default() };
    let wish = Wish { when: When::Always, make: quiet, ..Wish::default() };
    let (_, said) = run(&engine, builds(path, "  web: {build: .}\n"), &wish).await;
    assert_eq!(said, " Service web  Building\n Service web  Built\n");
}

#[tokio::test]
async fn what_fails_is_said_with_the_last_lines_and_other_builds_are_not_begun() {
    let directory = context("FROM scratch\nCOPY nothing /\n");
    let path = directory.path().to_str().expect("text");
    let engine = FakeEngine::new();
    let services = "  web: {build: ., depends_on: [base, other]}\n  base: {build: .}\n  other: {build: ./none}\n";
    let (done, _) = run(&engine, builds(path, services), &Wish::default()).await;
    let error = done.expect_err("nothing can be copied").to_string();
    insta::with_settings!({filters => vec![(path, "PATH")]}, {
        insta::assert_snapshot!(error, @r"
        service `base` could not be built: COPY failed: file not found in build context: stat nothing
          | Step 1/2 : FROM scratch
          | Step 2/2 : COPY nothing /
        service `other` could not be built: the build context `PATH/none` does not exist
        ");
    });
    assert_eq!(engine.calls()["build"], 1);
    let wish = Wish { when: When::Never, ..Wish::default() };
    let (done, _) = run(&engine, builds(path, "  web: {build: .}\n"), &wish).await;
    let error = done.expect_err("it is not there").to_string();
    assert_eq!(error, "image `shop-web` of service `web` is not there, and `--no-build` forbids to build it");
}

#[tokio::test]
async fn what_would_be_built_is_said_and_nothing_is_done() {
    let directory = context("FROM scratch\n");
    let path = directory.path().to_str().expect("text");
    let services = "  web: {build: .}\n  named: {build: ., image: 'named:1'}\n  kept: {build: ., image: 'kept:1'}\n";
    let (engine, builds) = (FakeEngine::new(), builds(path, services));
    let elsewhere = BTreeMap::from([("kept:1".to_owned(), "sha256:1".to_owned())]);
    let lines = preview(&engine, &builds, &elsewhere, &Wish::default()).await.expect("it could be built");
    assert_eq!(lines, ["pull or build image named:1 of service named", "build image shop-web of service web"]);
    let always = Wish { when: When::Always, ..Wish::default() };
    assert_eq!(preview(&engine, &builds, &elsewhere, &always).await.expect("it could be built").len(), 3);
    let never = Wish { when: When::Never, ..Wish::default() };
    assert!(preview(&engine, &builds, &elsewhere, &never).await.is_err());
    assert!(!engine.calls().contains_key("build"));
}

#[tokio::test]
async fn what_the_builder_at_hand_cannot_do_is_refused_where_it_is_written() {
    let directory = context("FROM scratch\n");
    let path = directory.path().to_str().expect("text");
    let services = "  web:\n    build:\n      context: .\n      secrets: [a, b]\nsecrets:\n  a: {file: ./a}\n  b: {environment: NOT_SET}\n";
    let (done, _) = run(&FakeEngine::new(), builds(path, services), &Wish::default()).await;
    let Err(CliError::Files(problems)) = done else { panic!("{done:?}") };
    let text: String = problems.iter().map(|problem| problems.render(problem)).collect();
    let words = [
        "`services.web.build.secrets` needs BuildKit, which this engine does not have",
        "the secret `b` is in the variable `NOT_SET`, which is not set",
        "compose.yaml:6:7",
    ];
    assert!(words.iter().all(|words| text.contains(words)), "{text}");
}

#[test]
fn what_an_image_is_built_of_is_built_with_it() {
    let services = "  web: {build: {context: ., additional_contexts: {a: 'service:base', b: ./b}, secrets: [s, {source: t, target: u}]}}\n  \
                    base: {build: {context: ., additional_contexts: {c: 'service:ground'}}, image: 'base:1'}\n  \
                    ground: {build: .}\n  other: {build: .}\nsecrets:\n  s: {file: ./a}\n  t: {file: ./b}\n";
    let all = builds("/p", services);
    let taken = with_contexts(all.clone(), |service| service.as_str() == "web");
    let names: Vec<&str> = taken.iter().map(|build| build.service.as_str()).collect();
    assert_eq!(names, ["base", "ground", "web"]);
    let web = taken.last().expect("three");
    assert_eq!(web.images, BTreeMap::from([("base".to_owned(), "base:1".to_owned())]));
    assert_eq!(web.after.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["base"]);
    let secrets = [("s", "/p/a"), ("u", "/p/b")].map(|(id, path)| (id.to_owned(), SecretSource::File(path.into())));
    assert_eq!(web.secrets, BTreeMap::from(secrets));
    assert_eq!(with_contexts(all, |service| service.as_str() == "other").len(), 1);
}
