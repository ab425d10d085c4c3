//! Build contexts in git repositories, fetched by the user's own `git`: keys, proxies and credential helpers are the user's.
//!
//! What is fetched lies in a directory of its own below the system's for temporary files, and is gone with the [`Checkout`].

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::process::Command;

use crate::model::Repository;

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no `git`.
    #[error("git could not be run: {0}")]
    NoGit(#[source] io::Error),
    /// It failed.
    #[error("git could not {action} `{what}`: {said}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Of what.
        what: String,
        /// Its words.
        said: String,
    },
    /// The directory named is not in it.
    #[error("the repository `{address}` has no directory `{directory}`")]
    NoDirectory {
        /// The repository.
        address: String,
        /// The directory.
        directory: String,
    },
    /// The disk.
    #[error("`{}` could not be made: {source}", .path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was fetched; removed when it is dropped.
#[derive(Debug)]
pub struct Checkout {
    root: PathBuf,
    directory: PathBuf,
}

impl Checkout {
    /// Returns the directory that was asked for.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            tracing::warn!(path = %self.root.display(), %error, "a repository that was fetched is still there");
        }
    }
}

/// Fetches one commit of a repository, with its submodules. Source: moby, builder/remotecontext/git/gitutils.go.
///
/// # Errors
/// What `git` says.
pub async fn fetch(repository: &Repository) -> Result<Checkout, GitError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Repository { address, reference, directory } = repository;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let root = std::env::temp_dir().join(format!("orch-build-{}-{number}", std::process::id()));
    let made = DirBuilder::new().mode(0o700).create(&root);
    made.map_err(|source| GitError::Disk { path: root.clone(), source })?;
    let mut checkout = Checkout { directory: root.clone(), root: root.clone() };
    git(&root, "begin with", address, &["init", "--quiet"]).await?;
    git(&root, "fetch", address, &["fetch", "--quiet", "--depth=1", "--", address, reference]).await?;
    git(&root, "check out", reference, &["checkout", "--quiet", "FETCH_HEAD"]).await?;
    let submodules = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
    git(&root, "fetch the submodules of", address, &submodules).await?;
    let missing = || GitError::NoDirectory { address: address.clone(), directory: directory.clone() };
    let real = |path: &Path| path.canonicalize().map_err(|_| missing());
    checkout.directory = real(&root.join(directory.trim_start_matches('/')))?;
    if !checkout.directory.starts_with(real(&root)?) || !checkout.directory.is_dir() {
        return Err(missing());
    }
    Ok(checkout)
}

/// Never waits for an answer of the user's: nobody would see the question among the progress of builds.
#[expect(clippy::disallowed_methods, reason = "the user's own program, as `ssh` is")]
async fn git(root: &Path, action: &'static str, what: &str, words: &[&str]) -> Result<(), GitError> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(words).env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null()).kill_on_drop(true);
    // Of a repository that the command runs in, as within a hook.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.output().await.map_err(GitError::NoGit)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(GitError::Failed { action, what: what.to_owned(), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a repository with two commits, of which the first has a tag.
    async fn repository(root: &Path) -> String {
        let run = async |words: &[&str]| git(root, "prepare", "a test", words).await.expect("git works");
        run(&["init", "--quiet", "--initial-branch=main"]).await;
        for (content, tag) in [("one", Some("v1")), ("two", None)] {
            std::fs::create_dir_all(root.join("sub")).expect("made");
            std::fs::write(root.join("sub/file"), content).expect("written");
            run(&["add", "."]).await;
            run(&["-c", "user.name=me", "-c", "user.email=me@a.example", "commit", "--quiet", "-m", content]).await;
            if let Some(tag) = tag {
                run(&["tag", tag]).await;
            }
        }
        format!("file://{}", root.display())
    }

    #[tokio::test]
    async fn a_commit_is_fetched_and_gone_again() {
        let origin = tempfile::tempdir().expect("a directory");
        let address = repository(origin.path()).await;
        let fetched = async |rest: &str| fetch(&Repository::parse(&format!("{address}{rest}")).expect("git")).await;
        for (rest, file, content) in [("", "sub/file", "two"), ("#v1", "sub/file", "one"), ("#main:sub", "file", "two")]
        {
            let checkout = fetched(rest).await.expect("it is there");
            let found = std::fs::read_to_string(checkout.directory().join(file)).expect("it is in it");
            assert_eq!(found, content, "{rest}");
            let root = checkout.root.clone();
            drop(checkout);
            assert!(!root.exists());
        }
        for (rest, expected) in
            [("#nothing", "could not fetch"), ("#main:none", "no directory `none`"), (":main:..", "")]
        {
            let said = fetched(rest).await.expect_err("it is not there").to_string();
            assert!(said.contains(expected), "{said}");
        }
        let said = fetched("#main:..").await.expect_err("outside").to_string();
        assert!(said.contains("no directory `..`"), "{said}");
    }
}
