//! Volumes, binds and memory file systems of a service.

use crate::graph::{Mount, MountSource, Namespace, Recursion, VolumesFrom};
use crate::ids::{ResourceKey, ServiceName};
use crate::model::{BindOptions, MountType, ServiceVolume, TmpfsOptions, VolumeOptions};

use super::{Part, Problem};

impl Part<'_, '_> {
    /// Returns the mounts in order of their target.
    pub(super) fn mounts(&mut self) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for (index, volume) in self.service.volumes.iter().enumerate() {
            let path = format!("volumes[{index}]");
            if let Some(hash) = self.input.snapshots.get(&(self.name.clone(), index)) {
                let selinux = volume.bind.as_ref().is_some_and(|bind| bind.selinux.is_some());
                let source = MountSource::Snapshot { hash: hash.clone(), selinux };
                mounts.push((path, Mount { target: volume.target.clone(), read_only: true, source }));
                continue;
            }
            if let Some(source) = self.source(&path, volume) {
                mounts.push((path, Mount { target: volume.target.clone(), read_only: volume.read_only, source }));
            }
        }
        for (index, text) in self.service.tmpfs.iter().enumerate() {
            let (target, options) = text.split_once(':').unwrap_or((text, ""));
            let source = MountSource::Tmpfs { size: None, mode: None, options: options.to_owned() };
            mounts.push((format!("tmpfs[{index}]"), Mount { target: target.to_owned(), read_only: false, source }));
        }
        mounts.extend(self.engine_socket().map(|mount| ("use_api_socket".to_owned(), mount)));
        mounts.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
        for pair in mounts.windows(2) {
            if pair[0].1.target == pair[1].1.target {
                self.error(&pair[1].0, Problem::TargetTwice(pair[1].1.target.clone()));
            }
        }
        mounts.into_iter().map(|(_, mount)| mount).collect()
    }

    fn source(&mut self, path: &str, volume: &ServiceVolume) -> Option<MountSource> {
        let source = volume.source.as_deref().filter(|source| !source.is_empty());
        match (volume.kind, source) {
            (MountType::Bind, None) => {
                let problem = Problem::Invalid { what: "bind", text: volume.target.clone(), expected: "a source" };
                self.error(path, problem);
                None
            }
            (MountType::Bind, Some(source)) => {
                let recursion = self.recursion(path, volume);
                Some(bind(source, volume.bind.as_ref(), recursion))
            }
            (MountType::Volume, None) => Some(anonymous(volume.volume.as_ref())),
            (MountType::Volume, Some(key)) => self.named(path, key, volume.volume.as_ref()),
            (MountType::Tmpfs, _) => Some(tmpfs(volume.tmpfs.as_ref())),
            (MountType::Image, None) => {
                let problem =
                    Problem::Invalid { what: "image mount", text: volume.target.clone(), expected: "a source" };
                self.error(path, problem);
                None
            }
            (MountType::Image, Some(source)) => Some(MountSource::Image {
                image: source.to_owned(),
                subpath: volume.image.as_ref().and_then(|image| image.subpath.clone()),
            }),
            (MountType::Npipe | MountType::Cluster, _) => {
                // `load` has said so before, with the place.
                let what = format!("the mount at `{}`", volume.target);
                self.error(path, Problem::Unsupported { what, instead: "use a bind, a volume, an image or tmpfs" });
                None
            }
        }
    }

    /// Source: compose-spec 05-services.md#volumes; what excludes what is observed from Docker Engine.
    fn recursion(&mut self, path: &str, volume: &ServiceVolume) -> Recursion {
        let word = volume.bind.as_ref().and_then(|bind| bind.recursive.as_deref());
        let recursion = match word {
            Some("disabled") => Recursion::Disabled,
            Some("writable") => Recursion::Writable,
            Some("readonly") => Recursion::Readonly,
            _ => Recursion::Enabled,
        };
        if matches!(recursion, Recursion::Writable | Recursion::Readonly) && !volume.read_only {
            let what = format!("`recursive: {}` of a mount that is not `read_only`", word.unwrap_or_default());
            let problem = Problem::Unsupported { what, instead: "add `read_only: true`" };
            self.error(&format!("{path}.bind.recursive"), problem);
        }
        recursion
    }

    fn named(&mut self, path: &str, key: &str, options: Option<&VolumeOptions>) -> Option<MountSource> {
        let volume = ResourceKey::new(key).ok().filter(|key| self.input.model.volumes.contains_key(key));
        if volume.is_none() {
            self.error(path, Problem::Undefined { kind: "volume", name: key.to_owned() });
        }
        if let Some(volume) = volume.as_ref().filter(|key| self.input.model.volumes[*key].pod.is_some()) {
            return Some(MountSource::PodVolume { volume: volume.clone() });
        }
        if options.is_some_and(|options| !options.labels.is_empty()) {
            let text = format!("volume `{key}` has the labels that the top level's `volumes` gives it, and not these");
            self.sink.warning(format!("{}.{path}.volume.labels", self.at), text);
        }
        Some(MountSource::Volume {
            volume: volume?,
            no_copy: options.is_some_and(|options| options.nocopy),
            subpath: options.and_then(|options| options.subpath.clone()),
        })
    }
}

impl Part<'_, '_> {
    /// `SERVICE[:ro|:rw]` or `container:NAME[:ro|:rw]`. Source: compose-spec 05-services.md#volumes_from.
    pub(super) fn volumes_from(&mut self) -> Vec<VolumesFrom> {
        let mut all = Vec::new();
        for (index, text) in self.service.volumes_from.iter().enumerate() {
            let path = format!("volumes_from[{index}]");
            let (source, mode) = match text.strip_prefix("container:") {
                Some(rest) => rest.split_once(':').map_or((rest, "rw"), |parts| parts),
                None => text.split_once(':').map_or((text.as_str(), "rw"), |parts| parts),
            };
            if source.is_empty() || !matches!(mode, "ro" | "rw") {
                let expected = "`SERVICE` or `container:NAME`, and after it `:ro` or `:rw`";
                self.invalid(&path, "source of volumes", text, expected);
                continue;
            }
            let of = if text.starts_with("container:") {
                Namespace::Engine(format!("container:{source}"))
            } else {
                match ServiceName::new(source) {
                    Ok(service) if self.input.model.services.contains_key(&service) => Namespace::Service(service),
                    _ => {
                        self.error(&path, Problem::NoSuchService(source.to_owned()));
                        continue;
                    }
                }
            };
            all.push(VolumesFrom { of, read_only: mode == "ro" });
        }
        all
    }
}

/// Source: compose-spec 05-services.md#volumes; `create_host_path` is on unless it is turned off.
fn bind(path: &str, options: Option<&BindOptions>, recursion: Recursion) -> MountSource {
    MountSource::Bind {
        path: path.to_owned(),
        create: options.and_then(|options| options.create_host_path).unwrap_or(true),
        propagation: options.and_then(|options| options.propagation.clone()),
        selinux: options.and_then(|options| options.selinux.clone()),
        recursion,
    }
}

fn anonymous(options: Option<&VolumeOptions>) -> MountSource {
    MountSource::Anonymous {
        no_copy: options.is_some_and(|options| options.nocopy),
        labels: options.map(|options| options.labels.clone()).unwrap_or_default(),
    }
}

fn tmpfs(options: Option<&TmpfsOptions>) -> MountSource {
    MountSource::Tmpfs {
        size: options.and_then(|options| options.size).and_then(|size| u64::try_from(size.0).ok()),
        mode: options.and_then(|options| options.mode),
        options: String::new(),
    }
}
