//! orch's own image, made from its own binary: an archive as `docker save` writes it and every engine loads it.
//!
//! One layer, shared by its images: the agent's (`orch:<build>`), the demo workloads' (`orch/demo:latest`) and that of holders of
//! pods (`orch/holder:latest`). The same
//! binary gives the same archive, byte for byte, so that loading it twice changes nothing.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::elf;

/// Image of the demo workloads that examples and tests run without a registry.
pub const DEMO_IMAGE: &str = "orch/demo:latest";
pub use crate::graph::HOLDER_IMAGE;

/// Repository of the agent's images; the tag is the build.
const REPOSITORY: &str = "orch";

/// One build of orch: its version, and its binary by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Version of the package, `0.1.0`.
    pub version: String,
    /// 12 hex digits that tell builds of one version apart: a SHA-256 of the linker's id of all that was linked and of the
    /// file's size, or of the whole file where it has no such id. Hashing ten megabytes at each command would cost more
    /// than all else that an `up` with nothing to do does.
    pub hash: String,
    /// The binary, where [`Build::archive`] reads it again.
    pub(super) binary: PathBuf,
    pub(super) repository: String,
}

impl Build {
    /// Returns the build that is running.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn own() -> io::Result<Self> {
        Self::of(Path::new("/proc/self/exe"), env!("CARGO_PKG_VERSION"))
    }

    /// Returns the build of another binary.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(binary: &Path, version: &str) -> io::Result<Self> {
        let mut file = std::fs::File::open(binary)?;
        let mut head = Vec::with_capacity(elf::HEAD);
        file.by_ref().take(elf::HEAD as u64).read_to_end(&mut head)?;
        let mut hasher = Sha256::new();
        if let Some(id) = elf::build_id(&head) {
            hasher.update(id);
            hasher.update(file.metadata()?.len().to_le_bytes());
        } else {
            hasher.update(&head);
            io::copy(&mut file, &mut hasher)?;
        }
        let mut hash = hex(&hasher.finalize());
        hash.truncate(12);
        Ok(Self { version: version.to_owned(), hash, binary: binary.to_owned(), repository: REPOSITORY.to_owned() })
    }

    /// Returns the same build under another name than `orch`, for tests beside a real one.
    #[must_use]
    pub fn named(self, repository: &str) -> Self {
        Self { repository: repository.to_owned(), ..self }
    }

    /// Returns the repository of the agent's images, of this build and others.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the reference of the agent's image: `orch:<build>`.
    pub fn image(&self) -> String {
        format!("{}:{}", self.repository, self.hash)
    }

    /// Returns the reference of the demo workloads' image, [`DEMO_IMAGE`].
    pub fn demo_image(&self) -> String {
        format!("{}/demo:latest", self.repository)
    }

    /// Returns the reference of the image that holders of pods run, [`HOLDER_IMAGE`].
    pub fn holder_image(&self) -> String {
        format!("{}/holder:latest", self.repository)
    }

    /// Returns the archive with all images.
    ///
    /// # Errors
    /// When the binary cannot be read, or needs a dynamic loader, which an image from scratch does not have.
    pub fn archive(&self) -> io::Result<Bytes> {
        let binary = std::fs::read(&self.binary)?;
        if elf::needs_loader(&binary) {
            return Err(io::Error::other(
                "the binary is dynamically linked and cannot run alone in an image: build it with the settings in `.cargo/config.toml`",
            ));
        }
        let labels = BTreeMap::from([
            ("org.opencontainers.image.title".to_owned(), "orch".to_owned()),
            ("org.opencontainers.image.version".to_owned(), self.version.clone()),
            ("orch.build".to_owned(), self.hash.clone()),
        ]);
        let image = |reference: &str, entrypoint: &[&str]| Image {
            reference: reference.to_owned(),
            entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
            labels: labels.clone(),
        };
        let images = [
            image(&self.image(), &["/orch"]),
            image(&self.demo_image(), &["/orch", "demo"]),
            image(&self.holder_image(), &["/orch", "hold"]),
        ];
        archive(&root(&binary), &images)
    }
}

/// What is in orch's image beside the binary: enough for programs that look up users or want to write a file.
fn root(binary: &[u8]) -> [Entry<'_>; 5] {
    [
        Entry::directory("etc/", 0o755),
        Entry::file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n"),
        Entry::file("etc/passwd", 0o644, b"root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n"),
        Entry::directory("tmp/", 0o1777),
        Entry::file("orch", 0o755, binary),
    ]
}

/// A file or directory in a layer.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    path: &'a str,
    mode: u32,
    /// `None`: a directory.
    content: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// A file of root's; `path` is relative.
    pub fn file(path: &'a str, mode: u32, content: &'a [u8]) -> Self {
        Self { path, mode, content: Some(content) }
    }

    /// A directory of root's; `path` is relative and ends with a slash.
    pub fn directory(path: &'a str, mode: u32) -> Self {
        Self { path, mode, content: None }
    }
}

/// An image of an archive.
#[derive(Debug, Clone)]
pub struct Image {
    /// `repository:tag`.
    pub reference: String,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Makes an archive of images that all consist of the one layer `root`.
///
/// Source of the form: moby, image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format".
///
/// # Errors
/// When a path does not fit into a tar header.
pub fn archive(root: &[Entry<'_>], images: &[Image]) -> io::Result<Bytes> {
    let layer = tar(root)?;
    let diff_id = hex(&Sha256::digest(&layer));
    let layer_path = format!("{diff_id}/layer.tar");
    let mut configs = Vec::new();
    let mut manifest = Vec::new();
    for image in images {
        let config = config(image, &diff_id).to_string();
        let config_path = format!("{}.json", hex(&Sha256::digest(&config)));
        manifest.push(json!({"Config": config_path, "RepoTags": [image.reference], "Layers": [layer_path]}));
        configs.push((config_path, config));
    }
    let manifest = Value::from(manifest).to_string();
    let directory = format!("{diff_id}/");
    let mut entries = vec![Entry::directory(&directory, 0o755), Entry::file(&layer_path, 0o644, &layer)];
    entries.extend(configs.iter().map(|(path, config)| Entry::file(path, 0o644, config.as_bytes())));
    // Last, as `docker save` writes it: readers of a stream have seen all that it names.
    entries.push(Entry::file("manifest.json", 0o644, manifest.as_bytes()));
    Ok(Bytes::from(tar(&entries)?))
}

fn config(image: &Image, diff_id: &str) -> Value {
    json!({
        "architecture": architecture(std::env::consts::ARCH),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": image.entrypoint,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Labels": image.labels,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "orch"}],
    })
}

/// Returns Go's name of an architecture, which images use, for Rust's.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Makes a tar in which everything is root's and from 1970.
fn tar(entries: &[Entry<'_>]) -> io::Result<Vec<u8>> {
    let size: usize = entries.iter().map(|entry| 1024 + entry.content.map_or(0, <[u8]>::len)).sum();
    let mut builder = tar::Builder::new(Vec::with_capacity(size + 1024));
    for Entry { path, mode, content } in entries {
        let mut header = tar::Header::new_ustar();
        let kind = if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory };
        header.set_entry_type(kind);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content)?;
    }
    builder.into_inner()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<Image> {
        let image = |reference: &str, entrypoint: &str| Image {
            reference: reference.to_owned(),
            entrypoint: vec![entrypoint.to_owned()],
            labels: BTreeMap::new(),
        };
        vec![image("orch:0123", "/orch"), image("orch/demo:latest", "/demo")]
    }

    fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            assert_eq!(entry.header().mtime().expect("a time"), 0);
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(path, content);
        }
        files
    }

    #[test]
    fn the_same_content_gives_the_same_archive() {
        let make = || archive(&root(b"binary"), &images()).expect("an archive");
        assert_eq!(make(), make());
    }

    #[test]
    fn images_share_one_layer_that_is_named_by_its_content() {
        let files = read(&archive(&root(b"binary"), &images()).expect("an archive"));
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
        assert_eq!(manifest[0]["Layers"], manifest[1]["Layers"]);
        assert_eq!(manifest[1]["RepoTags"][0], "orch/demo:latest");
        let layer = &files[manifest[0]["Layers"][0].as_str().expect("a path")];
        for image in manifest.as_array().expect("a list") {
            let path = image["Config"].as_str().expect("a path");
            assert_eq!(path, format!("{}.json", hex(&Sha256::digest(&files[path]))));
            let config: Value = serde_json::from_slice(&files[path]).expect("JSON");
            assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(&Sha256::digest(layer))));
        }
        let inside: Vec<_> = read(layer).into_keys().collect();
        assert_eq!(inside, ["etc/", "etc/group", "etc/passwd", "orch", "tmp/"]);
    }

    #[test]
    fn builds_are_told_apart_by_their_linkers_id_and_their_size_or_by_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let hash = |content: &[u8]| {
            let path = folder.path().join("binary");
            std::fs::write(&path, content).expect("a file");
            Build::of(&path, "1").expect("a build").hash
        };
        let own = std::fs::read("/proc/self/exe").expect("this test's own binary");
        assert!(elf::build_id(&own[..elf::HEAD]).is_some(), "the linker is told to write an id");
        let mut longer = own.clone();
        longer.push(0);
        assert_eq!(hash(&own), hash(&own));
        assert_ne!(hash(&own), hash(&longer));
        assert_ne!(hash(b"one"), hash(b"two"));
        assert_eq!(hash(b"one").len(), 12);
    }
}
