//! Archives of images: Podman names an image that no registry was named for `localhost/NAME`, which to Docker is another one.

use bytes::{Bytes, BytesMut};

use super::own_name;

/// Size of a tar's blocks.
const BLOCK: usize = 512;
/// Longest manifest that is read.
const MANIFEST: u64 = 4 << 20;

/// Gives the images of an archive that comes in pieces the names that they were loaded by.
#[derive(Default)]
pub(in crate::engine::docker) struct Renamed {
    /// Of the next header, or of the manifest with its header, as far as it is here.
    held: BytesMut,
    /// Bytes of the present entry that are still to come and are passed on.
    passing: u64,
    /// Bytes of the manifest and its header, once it is the present entry.
    manifest: Option<usize>,
}

impl Renamed {
    /// Takes in a piece and returns what is to be passed on.
    pub(in crate::engine::docker) fn take(&mut self, mut piece: &[u8]) -> Bytes {
        let mut passed = BytesMut::with_capacity(piece.len());
        while !piece.is_empty() {
            if self.passing > 0 {
                let length = piece.len().min(usize::try_from(self.passing).unwrap_or(usize::MAX));
                passed.extend_from_slice(&piece[..length]);
                self.passing -= length as u64;
                piece = &piece[length..];
                continue;
            }
            let wanted = self.manifest.unwrap_or(BLOCK);
            let (now, later) = piece.split_at(piece.len().min(wanted - self.held.len()));
            self.held.extend_from_slice(now);
            piece = later;
            if self.held.len() == wanted {
                self.complete(&mut passed);
            }
        }
        passed.freeze()
    }

    /// Returns what is left of an archive that ended early.
    pub(in crate::engine::docker) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    /// A header is whole, or the manifest.
    fn complete(&mut self, passed: &mut BytesMut) {
        let held = std::mem::take(&mut self.held);
        let mut block = [0; BLOCK];
        block.copy_from_slice(&held[..BLOCK]);
        let mut header = tar::Header::from_byte_slice(&block).clone();
        let size = header.entry_size().unwrap_or(0);
        let padded = size.div_ceil(BLOCK as u64) * BLOCK as u64;
        if self.manifest.take().is_some() {
            let content = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(BLOCK).min(held.len());
            let content = renamed(&held[BLOCK..content]);
            header.set_size(content.len() as u64);
            header.set_cksum();
            passed.extend_from_slice(header.as_bytes());
            passed.extend_from_slice(&content);
            passed.resize(passed.len() + content.len().next_multiple_of(BLOCK) - content.len(), 0);
        } else if *header.path_bytes() == *b"manifest.json" && (1..=MANIFEST).contains(&size) {
            self.manifest = usize::try_from(padded).ok().map(|padded| padded + BLOCK);
            self.held = held;
        } else {
            passed.extend_from_slice(&held);
            self.passing = padded;
        }
    }
}

/// Returns a manifest with the images' own names; what is none stays as it is.
fn renamed(manifest: &[u8]) -> Vec<u8> {
    let Ok(mut images) = serde_json::from_slice::<serde_json::Value>(manifest) else { return manifest.to_vec() };
    for image in images.as_array_mut().into_iter().flatten() {
        for name in image.get_mut("RepoTags").and_then(serde_json::Value::as_array_mut).into_iter().flatten() {
            let own = name.as_str().map(own_name).unwrap_or_default().to_owned();
            *name = own.into();
        }
    }
    serde_json::to_vec(&images).unwrap_or_else(|_| manifest.to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *content).expect("appended");
        }
        builder.into_inner().expect("a tar")
    }

    fn read(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("a header whose sum is right");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            (entry.path().expect("a path").display().to_string(), content)
        });
        entries.collect()
    }

    fn cut(archive: &[u8], size: usize) -> Vec<u8> {
        let mut renamed = Renamed::default();
        let mut passed: Vec<u8> = archive.chunks(size).flat_map(|piece| renamed.take(piece)).collect();
        passed.extend(renamed.rest());
        passed
    }

    #[test]
    fn names_are_those_that_images_were_loaded_by_however_the_pieces_are_cut() {
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["localhost/redis:7","docker.io/library/x:1"],"Layers":["a.tar"]}]"#;
        let expected = br#"[{"Config":"c.json","RepoTags":["redis:7","docker.io/library/x:1"],"Layers":["a.tar"]}]"#;
        let layer = vec![7; 1500];
        let before = archive(&[("a.tar", &layer), ("manifest.json", manifest), ("repositories", b"{}")]);
        for size in [1, 7, 511, 512, 513, 100_000] {
            let after = read(&cut(&before, size));
            let names: Vec<&str> = after.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(names, ["a.tar", "manifest.json", "repositories"], "{size}");
            assert_eq!((&after[0].1, after[1].1.as_slice()), (&layer, &expected[..]), "{size}");
        }
    }

    #[test]
    fn what_is_no_manifest_and_what_ends_early_stays_as_it_is() {
        let odd = archive(&[("manifest.json", b"no JSON"), ("x", b"y")]);
        assert_eq!(read(&cut(&odd, 100)), read(&odd));
        let whole = archive(&[("a", &[1; 700]), ("manifest.json", b"[]")]);
        for length in [100, 600, 1300, 1700] {
            assert!(cut(&whole[..length], 64) == whole[..length], "{length}");
        }
    }
}
