//! Docker Compose's own hashes of services: what both programs print for `config --hash '*'`, and what containers are labelled
//! with, which differs where there are files of variables.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use orch::load::{LoadRequest, OsFiles, OwnKeys, load};

use crate::flags::FLAGGED;
use crate::parallel;
use crate::project::{ENVIRONMENT, Project, SHARED};
use crate::reference::{comparable, not_covered, reference};

/// Hashes by service.
type Hashes = BTreeMap<String, String>;

/// A project in a directory of its own.
pub(crate) struct Written {
    directory: tempfile::TempDir,
    request: LoadRequest,
}

impl Written {
    pub(crate) fn new(project: &Project) -> Self {
        let directory = tempfile::Builder::new().prefix("project").tempdir().expect("a directory");
        let shared = SHARED.map(|(name, text)| (name.into(), text.into()));
        let own = project.files.files.iter();
        let own =
            own.map(|(path, text)| (path.strip_prefix("/project").expect("all are there").to_owned(), text.clone()));
        for (path, text) in own.chain(shared) {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it is below another")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let mut request = project.request.clone();
        request.cwd = directory.path().canonicalize().expect("it is there");
        request.services.clear();
        request.options.contents = false;
        request.options.applied = false;
        request.options.own_keys = OwnKeys::AsWritten;
        Self { directory, request }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.request.cwd
    }

    /// Files of the project.
    pub(crate) fn files(&self) -> &[String] {
        &self.request.files
    }

    /// Returns the flags that say which project is meant, with these files.
    pub(crate) fn arguments(&self, files: &[String]) -> Vec<String> {
        let LoadRequest { env_files, profiles, project_name, .. } = &self.request;
        let flags = [("-f", files), ("--env-file", env_files.as_slice()), ("--profile", profiles.as_slice())];
        let flags = flags.into_iter().flat_map(|(flag, values)| values.iter().map(move |value| (flag, value)));
        let flags = flags.chain(project_name.iter().map(|name| ("-p", name)));
        flags.flat_map(|(flag, value)| [flag.to_owned(), value.clone()]).collect()
    }

    fn ours(&self, is_resolved: bool) -> Option<Hashes> {
        let mut request = self.request.clone();
        request.options.resolve_environment = is_resolved;
        let loaded = load(&OsFiles, &request).ok()?;
        let hashes = loaded.model.hashes.services.iter();
        Some(hashes.map(|(name, hash)| (name.to_string(), hash.of_file())).collect())
    }

    /// `None`: it refuses the project.
    #[expect(clippy::disallowed_methods, reason = "the reference is a program")]
    fn run(&self, program: &Path, files: &[String], args: &[&str]) -> Option<String> {
        let mut run = Command::new(program);
        run.current_dir(&self.request.cwd).env_clear().envs(ENVIRONMENT).env("HOME", "/home/u");
        run.args(self.arguments(files));
        let output = run.arg("config").args(args).output().expect("it ran before");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
    }

    fn theirs(&self, program: &Path, is_resolved: bool) -> Option<Hashes> {
        let printed = "printed.yaml".to_owned();
        let text = if is_resolved {
            // What `up` labels containers with is nowhere printed, but it is the hash of what `config` prints.
            std::fs::write(self.directory.path().join(&printed), self.run(program, &self.request.files, &[])?)
                .expect("written");
            self.run(program, &[printed], &["--hash", "*"])?
        } else {
            self.run(program, &self.request.files, &["--hash", "*"])?
        };
        let words = text.lines().filter_map(|line| line.rsplit_once(' '));
        Some(words.map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect())
    }

    /// Says how the hashes of a project that both accept differ; `Err`: one of the two does not accept it.
    pub(crate) fn difference(&self, program: &Path, is_resolved: bool) -> Result<Option<String>, ()> {
        let ours = self.ours(is_resolved).ok_or(())?;
        let theirs = self.theirs(program, is_resolved).ok_or(())?;
        Ok((ours != theirs)
            .then(|| format!("hashes (resolved: {is_resolved})\n  ours   {ours:?}\n  theirs {theirs:?}")))
    }
}

#[test]
fn docker_compose_hashes_services_of_every_file_alike() {
    let Some(program) = reference() else { return not_covered() };
    let is_otherwise =
        |name: &str| FLAGGED.iter().filter_map(|one| one.case.strip_prefix("--hash ")).any(|part| name.contains(part));
    let all: Vec<_> = comparable().into_iter().filter(|(name, _)| !is_otherwise(name)).collect();
    let compared = parallel::each(&all, |(name, project)| {
        let written = Written::new(project);
        let forms: &[bool] = if name.contains("env") { &[false, true] } else { &[false] };
        let compared = forms.iter().filter_map(|form| written.difference(&program, *form).ok());
        compared.map(|difference| difference.map(|difference| format!("{name}\n{difference}"))).collect::<Vec<_>>()
    });
    let compared: Vec<_> = compared.into_iter().flatten().collect();
    let (compared, failures) = (compared.len(), compared.into_iter().flatten().collect::<Vec<_>>());
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 350, "only {compared} projects were compared");
}
