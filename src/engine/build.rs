//! What an image is built of, and what is heard of it meanwhile.
//!
//! Every engine has a builder of its own (`POST /build`, "classic"), which gets an archive. Docker's has `BuildKit` besides, which
//! asks for what it needs while it builds, files and secrets and agents: a [`Kit`] has these. What the two have in common is a
//! [`BuildSpec`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PullProgress, RegistryLogin};

/// How an image is to be made of a context: a tar archive with the file of instructions and what it copies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildSpec {
    /// Path of the file of instructions in the context.
    pub dockerfile: String,
    /// Names that the image gets; the first one is for messages.
    pub names: Vec<String>,
    /// Variables.
    pub args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The stage that is wanted; `None`: the last.
    pub target: Option<String>,
    /// Images whose layers may be taken.
    pub cache_from: Vec<String>,
    /// Network of the containers that it runs in; `None`: the engine's own.
    pub network: Option<String>,
    /// Lines of `/etc/hosts`, `name:address`.
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Bytes of memory at most.
    pub memory: Option<u64>,
    /// Limits of processes: soft and hard.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Take no layers of earlier builds.
    pub no_cache: bool,
    /// Pull base images anew.
    pub pull: bool,
    /// Platform: `linux/amd64`.
    pub platform: Option<String>,
    /// Logins to the registries of base images.
    pub logins: Vec<RegistryLogin>,
}

impl BuildSpec {
    /// Returns the name for messages.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// Something that a build says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildStep {
    /// A piece of its output, line ends included.
    Said(String),
    /// A base image is pulled.
    Pulling(PullProgress),
    /// The id of an image that it made; the last one is the result.
    Made(String),
    /// The last lines of the step that failed, where others said something, too.
    Failing(Vec<String>),
}

/// What an engine's `BuildKit` can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildKit {
    /// Version of the engine: major and minor.
    pub version: (u32, u32),
    /// The same for people.
    pub version_text: String,
    /// Whether the engine keeps images in containerd's store, which takes indexes of several platforms and attestations.
    pub has_containerd_store: bool,
    /// Whether the engine itself would take it where nobody says which builder to take.
    pub is_preferred: bool,
}

impl BuildKit {
    /// Returns whether the engine is of this version or a newer one.
    pub fn since(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }
}

/// What `BuildKit` may ask for while it builds, and what only it understands.
#[derive(Clone, Default)]
pub struct Kit {
    /// The same for builds of the same directories: unchanged files are taken from the last one.
    pub shared_key: String,
    /// Directories by name. `context` is what is copied from, `dockerfile` has the file of instructions.
    pub directories: BTreeMap<String, Arc<dyn Directory>>,
    /// Further contexts by name, as the builder takes them: `local:NAME` of `directories`, `docker-image://…`, an address.
    pub contexts: BTreeMap<String, String>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Sockets of SSH agents by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// Platforms of an image of several; empty: that of the spec.
    pub platforms: Vec<String>,
    /// Stages that take no layers of earlier builds.
    pub no_cache_filter: Vec<String>,
    /// Where layers may come from.
    pub cache_from: Vec<CacheEntry>,
    /// Where layers go.
    pub cache_to: Vec<CacheEntry>,
    /// Further rights: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// Attestations by kind, `provenance` and `sbom`, with their parameters.
    pub attestations: BTreeMap<String, String>,
}

/// Names only.
impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directories, contexts, secrets, agents, .. } = self;
        f.debug_struct("Kit")
            .field("directories", &directories.keys())
            .field("contexts", &contexts.keys())
            .field("secrets", &secrets.keys())
            .field("agents", &agents.keys())
            .finish_non_exhaustive()
    }
}

/// A place of layers: `type=registry,ref=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `inline`, …
    pub kind: String,
    /// What else is said of it.
    pub attributes: BTreeMap<String, String>,
}

/// Where a secret is read when a step asks for it.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// Here.
    Value(String),
}

/// Without the secret.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// A directory that a build may read.
pub trait Directory: Send + Sync {
    /// Visits all that is in it: names of a directory in order of their bytes, what is in a directory right behind it.
    ///
    /// # Errors
    /// What cannot be read, and what `visit` says.
    fn walk(&self, visit: &mut dyn FnMut(DirectoryEntry) -> io::Result<()>) -> io::Result<()>;

    /// Opens a file that was visited.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;
}

/// Something in a directory that a build may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// From the directory on.
    pub path: PathBuf,
    /// Kind and permissions, as `stat` has them.
    pub mode: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_nanos: i64,
    /// Where a link leads; of a file: the path by which it was visited first.
    pub link: Option<PathBuf>,
    /// Numbers of a device.
    pub device: (u32, u32),
}
