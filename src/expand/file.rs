//! Configs and secrets: content-addressed files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::graph::{FileContent, FileMount};
use crate::ids::ResourceKey;
use crate::model::FileReference;

use super::{FileKind, Part, Problem};

/// Permission bits where the file gives none. Source: compose-spec 05-services.md#configs, #secrets.
const MODE: u32 = 0o444;

impl Part<'_, '_> {
    /// Returns configs and secrets as files, in order of their target, and keeps their contents for the graph.
    pub(super) fn file_mounts(&mut self) -> Vec<FileMount> {
        let mut mounts = Vec::new();
        for (kind, references) in [(FileKind::Config, &self.service.configs), (FileKind::Secret, &self.service.secrets)]
        {
            for (index, reference) in references.iter().enumerate() {
                mounts.extend(self.file_mount(kind, index, reference));
            }
        }
        mounts.extend(self.logins());
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let volumes: BTreeSet<&str> = self.service.volumes.iter().map(|volume| volume.target.as_str()).collect();
        for (at, mount) in mounts.iter().enumerate() {
            let twice = at > 0 && mounts[at - 1].target == mount.target;
            if twice || volumes.contains(mount.target.as_str()) {
                let key = if mount.secret { "secrets" } else { "configs" };
                self.error(key, Problem::TargetTwice(mount.target.clone()));
            }
        }
        mounts
    }

    fn file_mount(&mut self, kind: FileKind, index: usize, reference: &FileReference) -> Option<FileMount> {
        let (list, word, declared) = match kind {
            FileKind::Config => ("configs", "config", &self.input.model.configs),
            FileKind::Secret => ("secrets", "secret", &self.input.model.secrets),
        };
        let path = format!("{list}[{index}]");
        let name = reference.source.clone();
        let key = ResourceKey::new(name.clone()).ok().filter(|key| declared.contains_key(key));
        let Some(key) = key else {
            self.error(&path, Problem::Undefined { kind: word, name });
            return None;
        };
        let Some(bytes) = self.input.contents.get(&(kind, key)) else {
            self.error(&path, Problem::NoContent { kind: word, name });
            return None;
        };
        let secret = kind == FileKind::Secret;
        let hash = keep(self.files, bytes, secret);
        Some(FileMount {
            target: target(kind, reference),
            hash,
            secret,
            uid: self.owner(&path, "uid", reference.uid.as_deref()),
            gid: self.owner(&path, "gid", reference.gid.as_deref()),
            mode: self.mode(&path, reference.mode.as_deref()),
        })
    }

    fn owner(&mut self, path: &str, key: &str, text: Option<&str>) -> u32 {
        let Some(text) = text else { return 0 };
        text.parse().unwrap_or_else(|_| {
            let problem = Problem::Invalid { what: "owner", text: text.to_owned(), expected: "a number" };
            self.error(&format!("{path}.{key}"), problem);
            0
        })
    }

    fn mode(&mut self, path: &str, text: Option<&str>) -> u32 {
        let Some(text) = text else { return MODE };
        let digits = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777).unwrap_or_else(|| {
            let problem = Problem::Invalid { what: "file mode", text: text.to_owned(), expected: "octal digits" };
            self.error(&format!("{path}.mode"), problem);
            MODE
        })
    }
}

/// Source: compose-spec 05-services.md: configs default to `/<source>`, secrets to `/run/secrets/<source>`, and a
/// relative target is under `/` or `/run/secrets/`.
fn target(kind: FileKind, reference: &FileReference) -> String {
    let target = reference.target.as_deref().unwrap_or(&reference.source);
    match kind {
        _ if target.starts_with('/') => target.to_owned(),
        FileKind::Config => format!("/{target}"),
        FileKind::Secret => format!("/run/secrets/{target}"),
    }
}

/// Keeps contents for the graph and returns their key. The same bytes may be both: then they are handled as a secret.
pub(super) fn keep(files: &mut BTreeMap<String, FileContent>, bytes: &[u8], secret: bool) -> String {
    let hash = sha256(bytes);
    let content = || FileContent { bytes: bytes.to_vec(), secret };
    files.entry(hash.clone()).and_modify(|known| known.secret |= secret).or_insert_with(content);
    hash
}

/// Returns the SHA-256 of `bytes` in lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}
