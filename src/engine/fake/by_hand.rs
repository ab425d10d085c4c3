//! The [`ByHand`] trait over the fake's state. A container's files are what archives brought there.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::FakeEngine;
use super::state::State;
use crate::engine::by_hand::{
    AttachSpec, Attached, BoundPort, ByHand, CommitSpec, Exiting, ImageDetails, PathStat, Processes, Unpack, Usage,
    VolumeDetails, WaitFor,
};
use crate::engine::{BoxStream, EngineError, LogChunk, Result};

/// What is at a path: the content of a file, or nothing for a directory.
pub(super) type Files = BTreeMap<String, Option<Vec<u8>>>;

fn no_path(path: &str) -> EngineError {
    EngineError::NotFound { what: "path", name: path.to_owned() }
}

/// `/a/b/` and `/a/./b` as `/a/b`; the root is empty.
fn plain(path: &str) -> String {
    let mut plain = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        plain.push('/');
        plain.push_str(part);
    }
    plain
}

fn is_directory(files: &Files, path: &str) -> bool {
    path.is_empty() || files.get(path).is_some_and(Option::is_none)
}

/// An archive of what is at a path.
fn packed(files: &Files, path: &str) -> io::Result<Bytes> {
    let above = path.rsplit_once('/').map_or(0, |(above, _)| above.len());
    let mut builder = tar::Builder::new(Vec::new());
    let inside = |name: &str| name == path || name.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    for (name, content) in files.iter().filter(|(name, _)| inside(name)) {
        let mut header = tar::Header::new_gnu();
        let content = content.as_deref();
        header.set_entry_type(if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
        header.set_mode(if content.is_some() { 0o644 } else { 0o755 });
        header.set_size(content.map_or(0, |content| content.len() as u64));
        builder.append_data(&mut header, &name[above + 1..], content.unwrap_or_default())?;
    }
    builder.into_inner().map(Bytes::from)
}

fn unpack(files: &mut Files, directory: &str, archive: &[u8]) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = format!("{directory}{}", plain(&entry.path()?.to_string_lossy()));
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let is_file = entry.header().entry_type().is_file();
        if !path.is_empty() {
            files.insert(path, is_file.then_some(content));
        }
    }
    Ok(())
}

impl FakeEngine {
    /// Follows what a container writes from its line `at` on, also one that the engine removes when it ends.
    fn written(&self, id: String, at: usize) -> BoxStream<'static, Result<LogChunk>> {
        let engine = self.clone();
        let next = move |at: usize| {
            let (engine, id) = (engine.clone(), id.clone());
            async move {
                let look = |state: &State| {
                    let container = state.containers.get(&id);
                    let logs = container.map(|one| &one.logs).or_else(|| state.gone.get(&id).map(|gone| &gone.logs))?;
                    match logs.get(at) {
                        Some((_, chunk)) => Some(Some(chunk.clone())),
                        // One that was not started yet may still write.
                        None if container.is_some_and(|one| one.is_up() || one.observed.started_at.is_empty()) => None,
                        None => Some(None),
                    }
                };
                engine.when(look).await.map(|chunk| (Ok(chunk), at + 1))
            }
        };
        stream::unfold(at, next).boxed()
    }
}

#[async_trait]
impl ByHand for FakeEngine {
    async fn image_details(&self, reference: &str) -> Result<Option<ImageDetails>> {
        self.call("image_details", |state| {
            let Some(id) = state.image(reference).cloned() else { return Ok(None) };
            let tags =
                state.images.iter().filter(|(name, of)| **of == id && **name != id).map(|(name, _)| name.clone());
            Ok(Some(ImageDetails {
                tags: tags.collect(),
                id,
                platform: "linux/amd64".to_owned(),
                size: 1_984_548,
                created: "2026-01-01T00:00:00Z".to_owned(),
                tagged: "2026-01-01T00:00:00Z".to_owned(),
                command: Vec::new(),
            }))
        })
    }

    async fn volume_details(&self, name: &str) -> Result<Option<VolumeDetails>> {
        self.call("volume_details", |state| {
            Ok(state.volumes.contains_key(name).then(|| VolumeDetails {
                mountpoint: format!("/var/lib/docker/volumes/{name}/_data"),
                scope: "local".to_owned(),
            }))
        })
    }

    async fn processes(&self, id_or_name: &str) -> Result<Processes> {
        self.call("processes", |state| {
            let container = &state.containers[&state.id(id_or_name)?];
            if !container.is_up() {
                let action = format!("list the processes of container `{id_or_name}`");
                return Err(EngineError::Conflict { action, message: "it does not run".to_owned() });
            }
            let row = ["root".to_owned(), container.pid.to_string(), container.observed.command.clone()];
            Ok(Processes { titles: ["UID", "PID", "CMD"].map(str::to_owned).to_vec(), rows: vec![row.to_vec()] })
        })
    }

    async fn bound_ports(&self, id_or_name: &str) -> Result<Vec<BoundPort>> {
        self.call("bound_ports", |state| {
            let container = &state.containers[&state.id(id_or_name)?];
            let ports = container.spec.host_ports.iter().filter(|_| container.is_up());
            let mut ports: Vec<BoundPort> = ports
                .map(|port| BoundPort {
                    target: port.target,
                    protocol: port.protocol,
                    host_ip: port.host_ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
                    published: port.published.map_or(32768, |(first, _)| first),
                })
                .collect();
            ports.sort();
            Ok(ports)
        })
    }

    fn usage(&self, id_or_name: &str, _once: bool) -> BoxStream<'static, Result<Usage>> {
        let used = self.call("usage", |state| {
            let container = &state.containers[&state.id(id_or_name)?];
            let up = Usage { memory: 1 << 20, memory_limit: 8 << 30, pids: 1, ..Usage::default() };
            Ok(if container.is_up() { up } else { Usage::default() })
        });
        stream::iter([used]).boxed()
    }

    async fn path_stat(&self, id_or_name: &str, path: &str) -> Result<PathStat> {
        self.call("path_stat", |state| {
            let files = &state.containers[&state.id(id_or_name)?].files;
            let path = plain(path);
            let is_dir = is_directory(files, &path);
            if !is_dir && !files.contains_key(&path) {
                return Err(no_path(&path));
            }
            let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/").to_owned();
            Ok(PathStat { name, is_dir, link: String::new() })
        })
    }

    fn read_archive(&self, id_or_name: &str, path: &str) -> BoxStream<'static, Result<Bytes>> {
        let read = self.call("read_archive", |state| {
            let files = &state.containers[&state.id(id_or_name)?].files;
            let path = plain(path);
            if !files.contains_key(&path) {
                return Err(no_path(&path));
            }
            Ok(packed(files, &path).expect("memory takes it"))
        });
        stream::iter([read]).boxed()
    }

    async fn write_archive(
        &self,
        id_or_name: &str,
        directory: &str,
        archive: BoxStream<'static, io::Result<Bytes>>,
        _how: Unpack,
    ) -> Result<()> {
        let failed = |error: io::Error| EngineError::Failed {
            action: format!("copy into container `{id_or_name}`"),
            message: error.to_string(),
        };
        let pieces: Vec<Bytes> = archive.try_collect().await.map_err(failed)?;
        self.call("write_archive", |state| {
            let id = state.id(id_or_name)?;
            let Some(container) = state.containers.get_mut(&id) else { return Ok(()) };
            let directory = plain(directory);
            if !is_directory(&container.files, &directory) {
                return Err(no_path(&directory));
            }
            unpack(&mut container.files, &directory, &pieces.concat()).map_err(failed)
        })
    }

    fn export(&self, id_or_name: &str) -> BoxStream<'static, Result<Bytes>> {
        let read = self.call("export", |state| {
            let files = &state.containers[&state.id(id_or_name)?].files;
            Ok(packed(files, "").expect("memory takes it"))
        });
        stream::iter([read]).boxed()
    }

    async fn commit(&self, id_or_name: &str, spec: &CommitSpec) -> Result<String> {
        self.call("commit", |state| {
            state.id(id_or_name)?;
            let id = format!("sha256:{}", state.new_id());
            // One without a name is found by its id only.
            let name = spec.reference.clone().unwrap_or_else(|| id.clone());
            state.images.insert(name, id.clone());
            Ok(id)
        })
    }

    async fn attach(&self, id_or_name: &str, _spec: &AttachSpec) -> Result<Attached> {
        let (id, at) = self.call("attach", |state| {
            let id = state.id(id_or_name)?;
            let at = state.containers[&id].logs.len();
            Ok((id, at))
        })?;
        Ok(Attached { output: self.written(id, at), input: Box::pin(tokio::io::sink()) })
    }

    async fn has_terminal(&self, id_or_name: &str) -> Result<bool> {
        self.call("has_terminal", |state| Ok(state.containers[&state.id(id_or_name)?].spec.container.tty))
    }

    async fn resize_terminal(&self, id_or_name: &str, _rows: u16, _columns: u16) -> Result<()> {
        self.call("resize_terminal", |state| state.id(id_or_name).map(drop))
    }

    async fn begin_wait(&self, id_or_name: &str, wait: WaitFor) -> Result<Exiting> {
        let (id, before) = self.call("begin_wait", |state| {
            let id = state.id(id_or_name)?;
            let before = state.containers[&id].ends;
            Ok((id, before))
        })?;
        let engine = self.clone();
        Ok(Box::pin(async move {
            let look = |state: &State| match (state.containers.get(&id), wait) {
                (Some(container), WaitFor::NextExit) if container.ends > before => container.observed.state.code(),
                (Some(_), _) => None,
                (None, _) => state.gone.get(&id).map(|gone| gone.code),
            };
            Ok(engine.when(look).await.into())
        }))
    }
}
