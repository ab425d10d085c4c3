//! The [`ByHand`] calls: one request each, but where said otherwise.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bollard::models::{ContainerBlkioStatEntry, ContainerConfig, ContainerCpuStats, ContainerStatsResponse, PortMap};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CommitContainerOptionsBuilder, ContainerArchiveInfoOptionsBuilder,
    DownloadFromContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, StatsOptionsBuilder, TopOptions,
    UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::sync::mpsc;

use super::build::parts;
use super::streams::chunk;
use super::{DockerEngine, SLOW_ANSWER_WITHIN, Tried, error, plain};
use crate::engine::by_hand::{
    AttachSpec, Attached, BoundPort, ByHand, CommitSpec, Exiting, ImageDetails, PathStat, Processes, Unpack, Usage,
    VolumeDetails, WaitFor, cpu_percent, memory_in_use,
};
use crate::engine::{BoxStream, EngineError, EngineKind, Result};
use crate::graph::Protocol;

/// Pieces of an archive that wait for the one who takes them.
const PIECES: usize = 16;
/// Bits of a file's mode as the engine sends it. Source: Go, `io/fs.FileMode`.
const MODE_DIR: u32 = 1 << 31;
const MODE_SYMLINK: u32 = 1 << 27;

#[async_trait]
impl ByHand for DockerEngine {
    async fn image_details(&self, reference: &str) -> Result<Option<ImageDetails>> {
        let tried = Tried::new("look for image", reference).what("image");
        let image = match self.call("image_inspect", tried, self.docker.inspect_image(reference)).await {
            Ok(image) => image,
            Err(EngineError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let platform = [image.os, image.architecture, image.variant].into_iter().flatten();
        let platform: Vec<String> = platform.filter(|part| !part.is_empty()).collect();
        let tagged = image.metadata.and_then(|metadata| metadata.last_tag_time);
        let config = image.config.unwrap_or_default();
        Ok(Some(ImageDetails {
            id: image.id.unwrap_or_default(),
            tags: image.repo_tags.unwrap_or_default(),
            platform: platform.join("/"),
            size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            created: image.created.unwrap_or_default(),
            tagged: tagged.unwrap_or_default(),
            command: [config.entrypoint, config.cmd].into_iter().flatten().flatten().collect(),
        }))
    }

    async fn volume_details(&self, name: &str) -> Result<Option<VolumeDetails>> {
        let tried = Tried::new("look at volume", name).what("volume");
        match self.call("volume_inspect", tried, self.docker.inspect_volume(name)).await {
            Ok(volume) => Ok(Some(VolumeDetails {
                mountpoint: volume.mountpoint,
                scope: volume.scope.map(|scope| scope.to_string()).unwrap_or_default(),
            })),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn processes(&self, id_or_name: &str) -> Result<Processes> {
        let tried = Tried::new("list the processes of container", id_or_name).what("container");
        if self.kind == EngineKind::Podman {
            let listed = self.call("container_top", tried, self.podman_processes(id_or_name)).await?;
            return Ok(Processes {
                titles: listed.titles.unwrap_or_default(),
                rows: listed.processes.unwrap_or_default(),
            });
        }
        let listed = self.docker.top_processes(id_or_name, None::<TopOptions>);
        let listed = self.call("container_top", tried, listed).await?;
        Ok(Processes { titles: listed.titles.unwrap_or_default(), rows: listed.processes.unwrap_or_default() })
    }

    async fn bound_ports(&self, id_or_name: &str) -> Result<Vec<BoundPort>> {
        let container = self.inspect(id_or_name).await?;
        // Podman tells of them also while it does not run.
        let runs = container.state.and_then(|state| state.running).unwrap_or_default();
        let ports = container.network_settings.and_then(|settings| settings.ports).filter(|_| runs);
        Ok(bound(ports.unwrap_or_default()))
    }

    fn usage(&self, id_or_name: &str, once: bool) -> BoxStream<'static, Result<Usage>> {
        self.count("container_stats");
        // The engine looks twice also for one answer: what a processor did shows only between two.
        let options = StatsOptionsBuilder::default().stream(!once).one_shot(false).build();
        let (docker, name, socket) = (self.docker.clone(), id_or_name.to_owned(), self.socket.clone());
        let (to, from) = mpsc::channel(1);
        tokio::spawn(async move {
            let tried = Tried::new("see what uses container", &name).what("container").at(&socket);
            let mut looks = std::pin::pin!(docker.stats(&name, Some(options)));
            while let Some(look) = looks.next().await {
                let look = look.map(|look| usage(&look)).map_err(|source| error::classify(source, &tried));
                if to.send(look).await.is_err() {
                    return;
                }
            }
        });
        received(from)
    }

    async fn path_stat(&self, id_or_name: &str, path: &str) -> Result<PathStat> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let tried = Tried::new("look at a path in container", id_or_name).what("container");
        let looked = self.docker.get_container_archive_info(id_or_name, Some(options));
        match self.call("archive_info", tried, looked).await {
            Ok(stat) => {
                let is = |bit: u32| stat.file_mode & bit != 0;
                // Podman says of everything else that it leads to itself.
                let link = if is(MODE_SYMLINK) { stat.link_target } else { String::new() };
                Ok(PathStat { name: stat.name, is_dir: is(MODE_DIR), link })
            }
            // An answer to HEAD has no words: whether it is the path or the container that is not there is asked for.
            Err(EngineError::NotFound { .. } | EngineError::Refused { .. } | EngineError::Failed { .. }) => {
                self.inspect(id_or_name).await?;
                Err(EngineError::NotFound { what: "path", name: path.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    fn read_archive(&self, id_or_name: &str, path: &str) -> BoxStream<'static, Result<Bytes>> {
        self.count("archive_get");
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let (docker, socket) = (self.patient(SLOW_ANSWER_WITHIN), self.socket.clone());
        let name = id_or_name.to_owned();
        let (to, from) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            let tried = Tried::new("copy out of container", &name).what("path").at(&socket);
            let mut pieces = std::pin::pin!(docker.download_from_container(&name, Some(options)));
            while let Some(piece) = pieces.next().await {
                if to.send(piece.map_err(|source| error::classify(source, &tried))).await.is_err() {
                    return;
                }
            }
        });
        received(from)
    }

    async fn write_archive(
        &self,
        id_or_name: &str,
        directory: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
        how: Unpack,
    ) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(directory).no_overwrite_dir_non_dir("true");
        let options = if how.owners { options.copy_uidgid("true") } else { options };
        if self.kind == EngineKind::Podman {
            // It says nothing of a directory that is not there.
            self.path_stat(id_or_name, directory).await?;
        }
        let docker = self.patient(SLOW_ANSWER_WITHIN);
        let body = bollard::body_try_stream(archive);
        let tried = Tried::new("copy into container", id_or_name).what("path");
        self.call("archive_put", tried, docker.upload_to_container(id_or_name, Some(options.build()), body)).await
    }

    fn export(&self, id_or_name: &str) -> BoxStream<'static, Result<Bytes>> {
        self.count("container_export");
        let (docker, socket) = (self.patient(SLOW_ANSWER_WITHIN), self.socket.clone());
        let name = id_or_name.to_owned();
        let (to, from) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            let tried = Tried::new("export container", &name).what("container").at(&socket);
            let mut pieces = std::pin::pin!(docker.export_container(&name));
            while let Some(piece) = pieces.next().await {
                if to.send(piece.map_err(|source| error::classify(source, &tried))).await.is_err() {
                    return;
                }
            }
        });
        received(from)
    }

    async fn commit(&self, id_or_name: &str, spec: &CommitSpec) -> Result<String> {
        let CommitSpec { reference, author, message, changes, pause } = spec;
        let mut options = CommitContainerOptionsBuilder::default().container(id_or_name).pause(*pause);
        if let Some(reference) = reference {
            let (repository, tag) = parts(reference);
            options = options.repo(repository).tag(tag);
        }
        if let Some(author) = author {
            options = options.author(author);
        }
        if let Some(message) = message {
            options = options.comment(message);
        }
        if !changes.is_empty() {
            options = options.changes(&changes.join("\n"));
        }
        let tried = Tried::new("make an image of container", id_or_name).what("container");
        let docker = self.patient(SLOW_ANSWER_WITHIN);
        let made = docker.commit_container(options.build(), ContainerConfig::default());
        let id = self.call("container_commit", tried, made).await?.id;
        // Podman leaves out what the digits are.
        Ok(if id.contains(':') { id } else { format!("sha256:{id}") })
    }

    async fn attach(&self, id_or_name: &str, spec: &AttachSpec) -> Result<Attached> {
        let mut options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(spec.stdin).stdout(true).stderr(true);
        if let Some(keys) = &spec.detach_keys {
            options = options.detach_keys(keys);
        }
        let tried = Tried::new("attach to container", id_or_name).what("container");
        let attached = self.docker.attach_container(id_or_name, Some(options.build()));
        let attached = self.call("container_attach", tried, attached).await?;
        let (socket, name) = (self.socket.clone(), id_or_name.to_owned());
        let output = attached
            .output
            .map_ok(chunk)
            .map_err(move |source| error::classify(source, &Tried::new("attach to container", &name).at(&socket)));
        Ok(Attached { output: output.boxed(), input: attached.input })
    }

    async fn has_terminal(&self, id_or_name: &str) -> Result<bool> {
        Ok(self.inspect(id_or_name).await?.config.and_then(|config| config.tty).unwrap_or_default())
    }

    async fn resize_terminal(&self, id_or_name: &str, rows: u16, columns: u16) -> Result<()> {
        let options = ResizeContainerTTYOptionsBuilder::default().h(rows.into()).w(columns.into()).build();
        let tried = Tried::new("resize the terminal of container", id_or_name).what("container");
        self.call("container_resize", tried, self.docker.resize_container_tty(id_or_name, options)).await
    }

    /// The engine sends the head of its answer as soon as it watches.
    async fn begin_wait(&self, id_or_name: &str, wait: WaitFor) -> Result<Exiting> {
        // Podman has forgotten the exit code of what is removed.
        let condition = match (wait, self.kind) {
            (WaitFor::Removed, EngineKind::Docker) => "removed",
            (WaitFor::Removed, EngineKind::Podman) | (WaitFor::NextExit, _) => "next-exit",
        };
        let path = format!("/v{}/containers/{}/wait?condition={condition}", self.api, plain::word(id_or_name));
        let tried = Tried::new("wait for container", id_or_name).what("container");
        let pending = self.call("container_wait", tried, plain::begin(&self.socket, &path)).await?;
        let (socket, name) = (self.socket.clone(), id_or_name.to_owned());
        Ok(Box::pin(async move {
            let tried = Tried::new("wait for container", &name).what("container").at(&socket);
            let answer = pending.await.map_err(|source| error::classify(source, &tried))?;
            answer.get("StatusCode").and_then(Value::as_i64).ok_or_else(|| EngineError::Failed {
                action: format!("wait for container `{name}`"),
                message: format!("it says {answer}"),
            })
        }))
    }
}

/// Ends when nobody sends any more.
fn received<T: Send + 'static>(from: mpsc::Receiver<T>) -> BoxStream<'static, T> {
    stream::unfold(from, |mut from| async move { from.recv().await.map(|item| (item, from)) }).boxed()
}

/// Reads the ports of an inspect: `80/tcp` to addresses of the host.
fn bound(ports: PortMap) -> Vec<BoundPort> {
    let mut all = Vec::new();
    for (target, bindings) in ports {
        let (number, protocol) = target.split_once('/').unwrap_or((&target, "tcp"));
        let protocol = match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        for binding in bindings.unwrap_or_default() {
            let host_ip = binding.host_ip.filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            let parsed = (number.parse(), host_ip.parse(), binding.host_port.unwrap_or_default().parse());
            if let (Ok(target), Ok(host_ip), Ok(published)) = parsed {
                all.push(BoundPort { target, protocol, host_ip, published });
            }
        }
    }
    all.sort();
    all
}

/// Reads one look at what a container uses. Source: docker/cli, `cli/command/container/stats_helpers.go`.
fn usage(look: &ContainerStatsResponse) -> Usage {
    let cpu = |stats: Option<&ContainerCpuStats>| {
        let stats = stats.cloned().unwrap_or_default();
        let used = stats.cpu_usage.clone().and_then(|usage| usage.total_usage).unwrap_or_default();
        let each = stats.cpu_usage.and_then(|usage| usage.percpu_usage).map_or(0, |each| each.len());
        let cpus = stats.online_cpus.filter(|cpus| *cpus > 0).or_else(|| u32::try_from(each).ok());
        (used, stats.system_cpu_usage.unwrap_or_default(), cpus.unwrap_or_default())
    };
    let (used, system, cpus) = cpu(look.cpu_stats.as_ref());
    let (used_before, system_before, _) = cpu(look.precpu_stats.as_ref());
    let memory = look.memory_stats.clone().unwrap_or_default();
    let parts: BTreeMap<String, u64> = memory.stats.unwrap_or_default().into_iter().collect();
    let networks = || look.networks.iter().flatten().map(|(_, network)| network);
    let blocks = look.blkio_stats.as_ref().and_then(|blocks| blocks.io_service_bytes_recursive.as_ref());
    Usage {
        cpu: cpu_percent(used, used_before, system, system_before, cpus),
        memory: memory_in_use(memory.usage.unwrap_or_default(), &parts),
        memory_limit: memory.limit.unwrap_or_default(),
        received: networks().filter_map(|network| network.rx_bytes).sum(),
        sent: networks().filter_map(|network| network.tx_bytes).sum(),
        read: moved(blocks, 'r'),
        written: moved(blocks, 'w'),
        pids: look.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default(),
    }
}

/// Returns the bytes of operations whose word begins so: `Read` with control groups of version 1, `read` with 2.
fn moved(blocks: Option<&Vec<ContainerBlkioStatEntry>>, first: char) -> u64 {
    let is_meant = |entry: &&ContainerBlkioStatEntry| {
        let word = entry.op.as_deref().unwrap_or_default();
        word.chars().next().is_some_and(|letter| letter.eq_ignore_ascii_case(&first))
    };
    blocks.into_iter().flatten().filter(is_meant).filter_map(|entry| entry.value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_are_read_from_an_inspect() {
        let ports: PortMap = serde_json::from_str(
            r#"{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
                "53/udp": [{"HostIp": "", "HostPort": "5353"}], "90/tcp": null}"#,
        )
        .expect("ports");
        let told: Vec<String> = bound(ports)
            .iter()
            .map(|port| format!("{}/{} {} {}", port.target, port.protocol, port.host_ip, port.published))
            .collect();
        assert_eq!(told, ["53/udp 0.0.0.0 5353", "80/tcp 0.0.0.0 8080", "80/tcp :: 8080"]);
    }

    #[test]
    fn what_a_container_uses_is_read_from_stats_of_both_versions_of_control_groups() {
        let look: ContainerStatsResponse = serde_json::from_str(
            r#"{"cpu_stats": {"cpu_usage": {"total_usage": 300, "percpu_usage": [1, 2]}, "system_cpu_usage": 2000},
                "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
                "memory_stats": {"usage": 1000, "limit": 4000, "stats": {"total_inactive_file": 400}},
                "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 50, "tx_bytes": 60}},
                "blkio_stats": {"io_service_bytes_recursive": [
                    {"op": "Read", "value": 7}, {"op": "Write", "value": 8}, {"op": "read", "value": 70}, {"op": "Total", "value": 15}]},
                "pids_stats": {"current": 3}}"#,
        )
        .expect("stats");
        let expected =
            Usage { cpu: 40.0, memory: 600, memory_limit: 4000, received: 55, sent: 66, read: 77, written: 8, pids: 3 };
        assert_eq!(usage(&look), expected);
        assert_eq!(usage(&ContainerStatsResponse::default()), Usage::default());
    }
}
