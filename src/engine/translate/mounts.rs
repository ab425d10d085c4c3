//! Mounts in the three forms that the engine has: `Binds` texts, typed `Mounts`, and the `Tmpfs` map.
//!
//! Typed mounts are the rule. `Binds` make a missing host directory and relabel for `SELinux`, which typed mounts cannot
//! on engines before API 1.42; the `Tmpfs` map takes options as text.

use std::collections::HashMap;

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions,
};

use super::{ApiVersion, Untranslatable, some_unless_empty_map};
use crate::engine::ContainerSpec;
use crate::graph::{Mount, MountSource, Recursion};

/// All mounts of a container.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<String>,
    pub(super) typed: Vec<EngineMount>,
    pub(super) tmpfs: HashMap<String, String>,
}

/// First version that can mount a part of a volume (Docker Engine 26).
const SUBPATH: ApiVersion = ApiVersion(1, 45);
/// First version that mounts the content of images (Docker Engine 28).
pub(super) const IMAGES: ApiVersion = ApiVersion(1, 48);
/// First version whose typed mounts can make the host directory (Docker Engine 23).
const CREATE_MOUNTPOINT: ApiVersion = ApiVersion(1, 42);

/// First version that tells mounts below a read-only one apart from it (Docker Engine 25).
pub(super) const RECURSIVELY_READ_ONLY: ApiVersion = ApiVersion(1, 44);

pub(super) fn translate(spec: &ContainerSpec, api: ApiVersion) -> Result<Mounts, Untranslatable> {
    let mut result = Mounts::default();
    for mount in &spec.container.mounts {
        add(&mut result, spec, mount, api)?;
    }
    // Typed, so that a missing file is an error and not a new directory.
    for (host, target) in &spec.file_binds {
        let mount = EngineMount { source: Some(host.clone()), ..typed(MountType::BIND, target, true) };
        result.typed.push(mount);
    }
    Ok(result)
}

fn add(result: &mut Mounts, spec: &ContainerSpec, mount: &Mount, api: ApiVersion) -> Result<(), Untranslatable> {
    let Mount { target, read_only, source } = mount;
    match source {
        MountSource::Bind { path, create, propagation, selinux, recursion } => {
            if matches!(recursion, Recursion::Writable | Recursion::Readonly) && api < RECURSIVELY_READ_ONLY {
                return Err(Untranslatable::TooOld {
                    what: "`bind.recursive`",
                    needs: RECURSIVELY_READ_ONLY,
                    speaks: api,
                });
            }
            let needs_text = selinux.is_some() || (*create && api < CREATE_MOUNTPOINT);
            if needs_text && recursion.is_engines() && !path.contains(':') && !target.contains(':') {
                result.binds.push(bind_text(mount, path, propagation.as_deref(), selinux.as_deref()));
            } else {
                let create = *create && api >= CREATE_MOUNTPOINT;
                result.typed.push(bind(mount, path, create, propagation.as_deref(), *recursion));
            }
        }
        MountSource::Snapshot { .. } | MountSource::PodVolume { .. } | MountSource::EngineSocket => {
            return Err(Untranslatable::Unplaced(target.clone()));
        }
        MountSource::Volume { volume, no_copy, subpath } => {
            if subpath.is_some() && api < SUBPATH {
                return Err(Untranslatable::TooOld { what: "`volume.subpath`", needs: SUBPATH, speaks: api });
            }
            let name = spec.volume_names.get(volume.as_str());
            let name = name.ok_or_else(|| Untranslatable::UnnamedVolume(volume.to_string()))?;
            let options = MountVolumeOptions {
                no_copy: no_copy.then_some(true),
                subpath: subpath.clone(),
                ..MountVolumeOptions::default()
            };
            let volume_options = (*no_copy || subpath.is_some()).then_some(options);
            let source = Some(name.clone());
            result.typed.push(EngineMount { source, volume_options, ..typed(MountType::VOLUME, target, *read_only) });
        }
        MountSource::Anonymous { no_copy, labels } => {
            let source = spec.carried_volumes.get(target).cloned();
            let options = MountVolumeOptions {
                no_copy: no_copy.then_some(true),
                labels: some_unless_empty_map(labels.clone().into_iter().collect()),
                ..MountVolumeOptions::default()
            };
            let volume_options = (*no_copy || !labels.is_empty()).then_some(options);
            result.typed.push(EngineMount { source, volume_options, ..typed(MountType::VOLUME, target, *read_only) });
        }
        MountSource::Image { image, subpath } => {
            if api < IMAGES {
                return Err(Untranslatable::TooOld { what: "a mount of type `image`", needs: IMAGES, speaks: api });
            }
            let image_options = subpath.clone().map(|subpath| MountImageOptions { subpath: Some(subpath) });
            let source = Some(image.clone());
            result.typed.push(EngineMount { source, image_options, ..typed(MountType::IMAGE, target, *read_only) });
        }
        MountSource::Tmpfs { size, mode, options } => add_tmpfs(result, mount, *size, *mode, options),
    }
    Ok(())
}

fn typed(kind: MountType, target: &str, read_only: bool) -> EngineMount {
    EngineMount {
        target: Some(target.to_owned()),
        typ: Some(kind),
        read_only: read_only.then_some(true),
        ..EngineMount::default()
    }
}

fn bind_text(mount: &Mount, path: &str, propagation: Option<&str>, selinux: Option<&str>) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let options: Vec<_> = [Some(access), selinux, propagation].into_iter().flatten().collect();
    format!("{path}:{}:{}", mount.target, options.join(","))
}

fn bind(mount: &Mount, path: &str, create: bool, propagation: Option<&str>, recursion: Recursion) -> EngineMount {
    // An unknown word is refused by the rules of `load`; here it would only be lost.
    let propagation = propagation.and_then(|word| word.parse::<MountBindOptionsPropagationEnum>().ok());
    let only = |one: Recursion| (recursion == one).then_some(true);
    let options = MountBindOptions {
        propagation,
        create_mountpoint: create.then_some(true),
        non_recursive: only(Recursion::Disabled),
        read_only_non_recursive: only(Recursion::Writable),
        read_only_force_recursive: only(Recursion::Readonly),
    };
    EngineMount {
        source: Some(path.to_owned()),
        bind_options: (options != MountBindOptions::default()).then_some(options),
        ..typed(MountType::BIND, &mount.target, mount.read_only)
    }
}

fn add_tmpfs(result: &mut Mounts, mount: &Mount, size: Option<u64>, mode: Option<u32>, options: &str) {
    if options.is_empty() {
        let size_bytes = size.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let tmpfs_options = (size.is_some() || mode.is_some()).then(|| MountTmpfsOptions {
            size_bytes,
            mode: mode.map(i64::from),
            options: None,
        });
        let kind = typed(MountType::TMPFS, &mount.target, mount.read_only);
        result.typed.push(EngineMount { tmpfs_options, ..kind });
        return;
    }
    let mut words = vec![options.to_owned()];
    words.extend(size.map(|size| format!("size={size}")));
    words.extend(mode.map(|mode| format!("mode={mode:o}")));
    words.extend(mount.read_only.then(|| "ro".to_owned()));
    result.tmpfs.insert(mount.target.clone(), words.join(","));
}
