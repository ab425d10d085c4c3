//! Files that containers bind: `resolv.conf`, configs and secrets. Observed, compared, written, and swept when unused.
//!
//! | what | where |
//! |---|---|
//! | `resolv.conf` | `STATE/projects/PROJECT/resolv/HASH` |
//! | configs | `STATE/projects/PROJECT/files/HASH.UID.GID.MODE` |
//! | secrets | `RUN/secrets/PROJECT/HASH.UID.GID.MODE`, in memory only |
//!
//! Where the engine does not make `RUN` itself when it starts the agent after a boot (Podman), a line in
//! `/etc/tmpfiles.d/orch.conf` has systemd make it; see [`HostFiles::made_at_boot`].
//!
//! A path names its content, so a container with another config has another bind, and old and new run side by side.
//! Directories are for root only: the engine binds files as root, what a container may read is the file's own mode.
//!
//! Where the host's `/run` is not in memory, a tmpfs is mounted at `RUN/secrets` in the host's mount namespace. It covers
//! that directory only, since the agent's socket lies beside it and must not be hidden. A container that was there before
//! the mount, the agent's own too, does not see it, so the agent then goes through the host's root.

mod write;

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use self::write::{Attributes, ensure};
use crate::graph::{FileContent, FileMount};
use crate::host::tools::{HostTools, ToolError};
use crate::ids::ProjectName;

/// Options of the tmpfs. Compose limits a secret to 500 KB; 64 MiB are over a hundred of the largest.
const TMPFS: &str = "mode=0700,nosuid,nodev,noexec,size=64m";
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// Why a file of a container could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A host's tool refused.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// There is no place for secrets that is not on a disk.
    #[error("{} is not in memory: secrets are not written there", .0.display())]
    NotInMemory(PathBuf),
    /// A content is not what its name says: the request was cut or made up.
    #[error("a config or secret named by hash `{0}` has another content")]
    WrongContent(String),
    /// Nothing makes the run directory at boot.
    #[error("{} cannot be written: have {} made at each boot before Podman starts its containers", .list.display(), .run.display())]
    NoTmpfiles {
        /// What would have been written.
        list: PathBuf,
        /// The run directory.
        run: PathBuf,
    },
    /// Removing this would remove what is not ours.
    #[error("{} is not a directory of orch's own", .0.display())]
    NotOurs(PathBuf),
}

/// Result of a call.
pub type Result<T, E = FilesError> = std::result::Result<T, E>;

/// What a container's `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolv {
    /// Who answers: the gateway of a network that the container is on.
    pub gateway: Ipv4Addr,
    /// Domains tried for short names (`dns_search`).
    pub search: Vec<String>,
    /// The user's options (`dns_opt`); where they say something else than ours, they win.
    pub options: Vec<String>,
}

/// The files of one host. Calls for one project must come one after the other; its reconcile loop sees to that.
#[derive(Debug, Clone)]
pub struct HostFiles {
    state: PathBuf,
    run: PathBuf,
    tools: HostTools,
    /// File of the host that has its directory made at each boot.
    boot: Option<PathBuf>,
}

impl HostFiles {
    /// Returns the files below these directories, which have the same paths for the host and for this process.
    pub fn new(state: impl Into<PathBuf>, run: impl Into<PathBuf>, tools: HostTools) -> Self {
        Self { state: state.into(), run: run.into(), tools, boot: None }
    }

    /// Returns the same for a host that does not make the run directory by itself after a boot; `list` is the file, in a
    /// directory of systemd-tmpfiles, that shall have it made.
    #[must_use]
    pub fn made_at_boot(self, list: impl Into<PathBuf>) -> Self {
        Self { boot: Some(list.into()), ..self }
    }

    /// Makes sure that the run directory will be there after a boot, where that does not come by itself.
    ///
    /// # Errors
    /// The host has no such list: no systemd. Then its administrator has to see to it.
    pub async fn ensure_made_at_boot(&self) -> Result<()> {
        let Some(list) = &self.boot else { return Ok(()) };
        let path = self.tools.reach(list);
        if path.parent().is_none_or(|directory| !directory.is_dir()) {
            return Err(FilesError::NoTmpfiles { list: list.clone(), run: self.run.clone() });
        }
        let text = format!(
            "# Written by orch: Podman does not start a container whose mounts are missing.\nd {} 0755 root root -\n",
            self.run.display()
        );
        put(path, text.into_bytes(), Attributes { uid: None, gid: None, mode: 0o644 }).await
    }

    /// Makes sure of a `resolv.conf` and returns its path on the host.
    ///
    /// `ndots:0`, because the agent completes names itself: with Docker's default of asking short names as they are, a
    /// search list would otherwise be tried first for each of them.
    pub async fn ensure_resolv(&self, project: &ProjectName, resolv: &Resolv) -> Result<PathBuf> {
        let text = resolv.render();
        let path = self.project(project).join("resolv").join(&hex(text.as_bytes())[..16]);
        let attributes = Attributes { uid: None, gid: None, mode: 0o644 };
        put(path.clone(), text.into_bytes(), attributes).await?;
        Ok(path)
    }

    /// Makes sure of a config or secret as `mount` wants it and returns its path on the host.
    ///
    /// What was changed by hand is put back in place, so that containers that bind it see it mended.
    ///
    /// # Errors
    /// [`FilesError::WrongContent`] when the content has another hash than the mount says, [`FilesError::NotInMemory`]
    /// for a secret that could only be written to a disk.
    pub async fn ensure_file(
        &self,
        project: &ProjectName,
        mount: &FileMount,
        content: &FileContent,
    ) -> Result<PathBuf> {
        let FileMount { target: _, hash, secret, uid, gid, mode } = mount;
        if hex(&content.bytes) != *hash {
            return Err(FilesError::WrongContent(hash.clone()));
        }
        let name = format!("{hash}.{uid}.{gid}.{mode:o}");
        let attributes = Attributes { uid: Some(*uid), gid: Some(*gid), mode: *mode & 0o7777 };
        if *secret || content.secret {
            let below = Path::new(project.as_str()).join(name);
            let memory = self.ensure_memory().await?;
            put(memory.join(&below), content.bytes.clone(), attributes).await?;
            return Ok(self.secrets().join(below));
        }
        let path = self.project(project).join("files").join(name);
        put(path.clone(), content.bytes.clone(), attributes).await?;
        Ok(path)
    }

    /// Removes the project's files but those in `used`, which are paths that the `ensure` calls returned.
    pub async fn sweep(&self, project: &ProjectName, used: &BTreeSet<PathBuf>) -> Result<()> {
        let mut directories = vec![self.project(project).join("resolv"), self.project(project).join("files")];
        directories.extend(self.memory().map(|memory| memory.join(project.as_str())));
        // By name: the same file has one path for the host and maybe another for us.
        let used: BTreeSet<_> = used.iter().filter_map(|path| path.file_name()).map(ToOwned::to_owned).collect();
        blocking(move || directories.iter().try_for_each(|directory| write::keep_only(directory, &used))).await
    }

    /// Removes all files of a project.
    pub async fn remove_project(&self, project: &ProjectName) -> Result<()> {
        let mut directories = vec![self.project(project)];
        directories.extend(self.memory().map(|memory| memory.join(project.as_str())));
        blocking(move || directories.iter().try_for_each(|directory| write::remove_tree(directory))).await
    }

    /// Removes everything below both directories, the mount if there is one, and the directories themselves. What else
    /// lies in them (store, socket) is removed too: the agent must be about to end.
    ///
    /// # Errors
    /// [`FilesError::NotOurs`] for paths so short that they can only be a mistake.
    pub async fn remove_all(&self) -> Result<()> {
        let directories = [&self.state, &self.run].map(Clone::clone);
        for path in &directories {
            let depth = path.components().filter(|part| matches!(part, Component::Normal(_))).count();
            if !path.is_absolute() || depth < 2 || path.components().any(|part| part == Component::ParentDir) {
                return Err(FilesError::NotOurs(path.clone()));
            }
        }
        let secrets = self.secrets();
        if is_mount(&self.tools.reach(&secrets)) {
            // Lazily: a container that binds a secret keeps it until it ends.
            self.tools.run("umount", &["-l", &secrets.to_string_lossy()], "").await?;
        }
        // Through the host's root the directories are no mount points, so they go too. If that way is shut, or they
        // are somewhere else for us, at least what is in them goes.
        let mut ways: BTreeSet<PathBuf> =
            directories.iter().flat_map(|path| [self.tools.reach(path), path.clone()]).collect();
        ways.extend(self.boot.iter().map(|list| self.tools.reach(list)));
        blocking(move || ways.iter().rev().try_for_each(|path| write::remove_tree(path))).await
    }

    fn project(&self, project: &ProjectName) -> PathBuf {
        self.state.join("projects").join(project.as_str())
    }

    /// Returns where secrets are for the host.
    fn secrets(&self) -> PathBuf {
        self.run.join("secrets")
    }

    /// Returns where this process reaches the host's secrets, if there is such a place in memory now.
    fn memory(&self) -> Option<PathBuf> {
        let secrets = self.secrets();
        [secrets.clone(), self.tools.reach(&secrets)].into_iter().find(|path| in_memory(path))
    }

    /// Makes sure of a place for secrets in memory. Looked at each time: a mount may be gone.
    async fn ensure_memory(&self) -> Result<PathBuf> {
        if let Some(there) = self.memory() {
            return Ok(there);
        }
        let secrets = self.secrets();
        let path = secrets.clone();
        blocking(move || write::make_directory(&path)).await?;
        if in_memory(&secrets) {
            return Ok(secrets);
        }
        let text = secrets.to_string_lossy();
        self.tools.run("mkdir", &["-p", "-m", "0700", &text], "").await?;
        self.tools.run("mount", &["-t", "tmpfs", "-o", TMPFS, "orch-secrets", &text], "").await?;
        self.memory().ok_or(FilesError::NotInMemory(secrets))
    }
}

impl Resolv {
    /// Returns the file's text. Blanks and line ends in the user's words separate words and cannot start another line.
    fn render(&self) -> String {
        let Self { gateway, search, options } = self;
        let words =
            |list: &[String]| list.iter().flat_map(|text| text.split_whitespace()).collect::<Vec<_>>().join(" ");
        let search = if search.is_empty() { String::new() } else { format!("search {}\n", words(search)) };
        // A question that was on its way when the agent ended is asked again after a second, not after the usual five.
        let options = format!("ndots:0 timeout:1 attempts:5 {}", words(options));
        format!(
            "# Written by orch, whose agent answers at this network's gateway.\n{search}nameserver {gateway}\noptions {}\n",
            options.trim_end()
        )
    }
}

async fn put(path: PathBuf, bytes: Vec<u8>, attributes: Attributes) -> Result<()> {
    blocking(move || ensure(&path, &bytes, attributes)).await
}

async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Says whether a path exists and is on a file system that lives in memory (statfs(2) has the numbers).
fn in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| matches!(fs.f_type, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Says whether something is mounted at a path.
fn is_mount(path: &Path) -> bool {
    let device = |path: &Path| path.symlink_metadata().map(|found| found.dev()).ok();
    let parent = path.parent().and_then(device);
    parent.is_some() && device(path).is_some_and(|own| Some(own) != parent)
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
