//! What people do with containers by hand: look into them, copy out of and into them, talk to them. The agent never
//! does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{BoxStream, LogChunk, Result};
use crate::graph::Protocol;

/// An image as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDetails {
    /// `sha256:…`.
    pub id: String,
    /// `repository:tag`, all that it has.
    pub tags: Vec<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// Bytes.
    pub size: u64,
    /// When it was made, RFC 3339; empty where it does not say.
    pub created: String,
    /// When it got its last tag here, RFC 3339; empty where the engine does not say.
    pub tagged: String,
    /// What it runs where nobody says anything else; empty: nothing.
    pub command: Vec<String>,
}

/// A volume beyond what a list says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeDetails {
    /// Where it is on the host.
    pub mountpoint: String,
    /// `local`, `global`.
    pub scope: String,
}

/// The processes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// What the columns are: `UID`, `PID`, …
    pub titles: Vec<String>,
    /// A row for each.
    pub rows: Vec<Vec<String>>,
}

/// A port that the engine publishes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundPort {
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address on the host.
    pub host_ip: IpAddr,
    /// Port on the host.
    pub published: u16,
}

/// What a container uses, at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Of one processor, in percent; that of several is more than 100.
    pub cpu: f64,
    /// Bytes, without what the kernel could drop.
    pub memory: u64,
    /// Bytes that it may use; 0: not known.
    pub memory_limit: u64,
    /// Bytes received over all its networks.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What is at a path in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathStat {
    /// Last part of the path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Where it leads, absolute, if it is a symbolic link; else empty.
    pub link: String,
}

/// How an archive is unpacked in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpack {
    /// Owners are those of the archive, also where they are another's there (`cp -a`).
    pub owners: bool,
}

/// How an image is made of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitSpec {
    /// Its name, `repository[:tag]`; `None`: it has none.
    pub reference: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// What it is for.
    pub message: Option<String>,
    /// Instructions of a Dockerfile that are applied to it, such as `CMD ["x"]`.
    pub changes: Vec<String>,
    /// Whether the container's processes are frozen meanwhile.
    pub pause: bool,
}

/// How to connect to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachSpec {
    /// Connect standard input.
    pub stdin: bool,
    /// Keys that end the connection and not the container; `None`: the engine's own.
    pub detach_keys: Option<String>,
}

/// A connection to a container's main process.
pub struct Attached {
    /// Its output until it ends.
    pub output: BoxStream<'static, Result<LogChunk>>,
    /// Its standard input; shut down to pass on the end of file.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// The next end of a container that may not even have been started.
    NextExit,
    /// The end of one that the engine removes then.
    Removed,
}

/// The exit code, once it is there.
pub type Exiting = Pin<Box<dyn Future<Output = Result<i64>> + Send>>;

/// What people do with one host's containers by hand.
#[async_trait]
pub trait ByHand: Send + Sync {
    /// Looks at an image; `None` when it is not there.
    async fn image_details(&self, reference: &str) -> Result<Option<ImageDetails>>;

    /// Looks at a volume; `None` when it is not there.
    async fn volume_details(&self, name: &str) -> Result<Option<VolumeDetails>>;

    /// Lists the processes of a running container.
    async fn processes(&self, id_or_name: &str) -> Result<Processes>;

    /// Returns the ports that the engine publishes for a container, sorted.
    async fn bound_ports(&self, id_or_name: &str) -> Result<Vec<BoundPort>>;

    /// Says what a container uses, again and again until it ends; `once`: one time. One that does not run uses nothing.
    fn usage(&self, id_or_name: &str, once: bool) -> BoxStream<'static, Result<Usage>>;

    /// Looks at a path in a container, running or not.
    ///
    /// # Errors
    /// `NotFound` (`container` or `path`).
    async fn path_stat(&self, id_or_name: &str, path: &str) -> Result<PathStat>;

    /// Returns what is at a path as a tar archive, the path's last part first in the names of its entries.
    fn read_archive(&self, id_or_name: &str, path: &str) -> BoxStream<'static, Result<Bytes>>;

    /// Unpacks a tar archive below a directory that is there, while it comes.
    async fn write_archive(
        &self,
        id_or_name: &str,
        directory: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
        how: Unpack,
    ) -> Result<()>;

    /// Returns all files of a container as a tar archive, without those of its volumes.
    fn export(&self, id_or_name: &str) -> BoxStream<'static, Result<Bytes>>;

    /// Makes an image of a container, without what is in its volumes. Returns the image's id.
    async fn commit(&self, id_or_name: &str, spec: &CommitSpec) -> Result<String>;

    /// Connects to the main process of a container, which may be started later: nothing of its output is missed then.
    async fn attach(&self, id_or_name: &str, spec: &AttachSpec) -> Result<Attached>;

    /// Returns whether a container was made with a terminal.
    async fn has_terminal(&self, id_or_name: &str) -> Result<bool>;

    /// Tells a container's terminal its size.
    async fn resize_terminal(&self, id_or_name: &str, rows: u16, columns: u16) -> Result<()>;

    /// Begins to wait: once this returns, no end is missed however fast it comes.
    async fn begin_wait(&self, id_or_name: &str, wait: WaitFor) -> Result<Exiting>;
}

/// Returns what a container uses of processors between two looks, in percent of one.
pub(super) fn cpu_percent(used: u64, used_before: u64, system: u64, system_before: u64, cpus: u32) -> f64 {
    let (used, system) = (used.saturating_sub(used_before), system.saturating_sub(system_before));
    if used == 0 || system == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds between two looks")]
    let share = used as f64 / system as f64;
    share * f64::from(cpus.max(1)) * 100.0
}

/// Returns the memory in use without the file cache that the kernel could drop, as the engine's client counts it.
///
/// Source: docker/cli, `cli/command/container/stats_helpers.go`, `calculateMemUsageUnixNoCache`.
pub(super) fn memory_in_use(usage: u64, stats: &BTreeMap<String, u64>) -> u64 {
    // The first is that of control groups of version 1.
    let cache = ["total_inactive_file", "inactive_file"].into_iter().find_map(|name| stats.get(name));
    cache.filter(|cache| **cache < usage).map_or(usage, |cache| usage - cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_as_the_engines_client_does() {
        for (used, before, system, system_before, cpus, percent) in [
            (0, 0, 0, 0, 2, 0.0),
            (150, 50, 1000, 0, 2, 20.0),
            (50, 150, 1000, 0, 2, 0.0),
            (1000, 0, 1000, 0, 4, 400.0),
            (10, 0, 100, 0, 0, 10.0),
        ] {
            let told = cpu_percent(used, before, system, system_before, cpus);
            assert!((told - percent).abs() < 1e-9, "{told} for {percent}");
        }
    }

    #[test]
    fn memory_is_counted_without_what_can_be_dropped() {
        let stats = |name: &str, bytes| BTreeMap::from([(name.to_owned(), bytes)]);
        assert_eq!(memory_in_use(100, &stats("total_inactive_file", 30)), 70);
        assert_eq!(memory_in_use(100, &stats("inactive_file", 30)), 70);
        assert_eq!(memory_in_use(100, &stats("inactive_file", 130)), 100);
        assert_eq!(memory_in_use(100, &BTreeMap::new()), 100);
    }
}
