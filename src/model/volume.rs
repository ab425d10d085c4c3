//! Volumes, and a service's mounts. Source: compose-spec 07-volumes.md and 05-services.md#volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, VolumeKeys};

/// A named volume of the project.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Name on the engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Managed by somebody else.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `x-pod`: each pod has one of its own, and the project none.
    #[serde(skip)]
    pub pod: Option<VolumeKeys>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// A mount of a service, long form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceVolume {
    /// What kind.
    #[serde(rename = "type")]
    pub kind: MountType,
    /// Path of the host, or key of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    /// Not writable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// `consistent`, `cached`, `delegated`: no effect on Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
    /// Options of a bind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<BindOptions>,
    /// Options of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeOptions>,
    /// Options of a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<TmpfsOptions>,
    /// Options of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOptions>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// Kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// A pipe of Windows; `up` refuses it.
    Npipe,
    /// A volume of a cluster; `up` refuses it.
    Cluster,
    /// Content of an image.
    Image,
}

/// Options of a bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// Propagation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// Make the host's directory when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_host_path: Option<bool>,
    /// What becomes of mounts below: `enabled`, `disabled`, `writable`, `readonly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursive: Option<String>,
    /// `z` or `Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// Options of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Labels of the volume that is made for it, where it has no name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Do not copy the image's content.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nocopy: bool,
    /// Path inside the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// Options of an image mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// Path inside the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}

/// Options of a tmpfs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Size.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub size: Option<Bytes>,
    /// Permission bits.
    #[serde(deserialize_with = "super::said", skip_serializing_if = "super::says_nothing")]
    pub mode: Option<u32>,
    /// `x-` keys.
    #[serde(flatten)]
    pub extensions: super::Extensions,
}
