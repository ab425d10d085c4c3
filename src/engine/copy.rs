//! An image goes from one engine to another as `docker save` writes it, without the layers that the other has.
//!
//! An engine takes an archive that lacks the files of layers which it knows by their chain of content ids, so a second
//! version of an image costs its changed layers only (moby, image/tarexport/load.go: a layer's file is opened only where
//! the store of layers has no such chain). Where that is refused after all, the whole archive is sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{BoxStream, Engine, Result};

/// Size of a tar's blocks.
const BLOCK: usize = 512;
/// Longest manifest that is read: one of hundreds of layers has some tens of kilobytes.
const MANIFEST: usize = 4 << 20;
/// Most files of an archive that are remembered: an image has 127 layers at most, with three files each.
const MOST_FILES: usize = 4096;

/// Returns how many of an image's layers, from the lowest, `to` has: the longest beginning that one of its images shares,
/// because a layer is known by all that lie below it, too.
///
/// # Errors
/// What the engine says.
pub async fn known_layers(to: &dyn Engine, layers: &[String]) -> Result<usize> {
    let mut known = 0;
    for theirs in to.all_layers().await? {
        known = known.max(layers.iter().zip(&theirs).take_while(|(own, theirs)| own == theirs).count());
    }
    Ok(known)
}

/// Returns an image without its lowest `known` layers.
///
/// # Errors
/// What the engine says.
pub async fn archive(from: &dyn Engine, reference: &str, known: usize) -> Result<BoxStream<'static, Result<Bytes>>> {
    let left_out = if known == 0 { BTreeSet::new() } else { files(from, reference).await?.of_lowest(known) };
    Ok(without(from.save(reference), left_out))
}

/// Leaves files out of an archive.
pub fn without<E: Send + 'static>(
    archive: BoxStream<'static, std::result::Result<Bytes, E>>,
    left_out: BTreeSet<String>,
) -> BoxStream<'static, std::result::Result<Bytes, E>> {
    if left_out.is_empty() {
        return archive;
    }
    let state = (archive, Filter::new(left_out));
    let pieces = stream::try_unfold(state, |(mut archive, mut filter)| async move {
        while let Some(piece) = archive.try_next().await? {
            let kept = filter.take(&piece);
            if !kept.is_empty() {
                return Ok(Some((kept, (archive, filter))));
            }
        }
        Ok(None)
    });
    pieces.boxed()
}

/// What is in an archive.
#[derive(Debug, Default)]
pub struct Files {
    /// The paths of the layers, lowest first.
    layers: Vec<String>,
    /// Bytes of each file.
    sizes: BTreeMap<String, u64>,
}

impl Files {
    /// Returns the files of the lowest `known` layers that no other layer needs: two of one content share a file.
    pub fn of_lowest(&self, known: usize) -> BTreeSet<String> {
        let (known, needed) = self.layers.split_at(known.min(self.layers.len()));
        known.iter().filter(|path| !needed.contains(path)).cloned().collect()
    }

    /// Returns the bytes of all files but some.
    pub fn bytes_without(&self, left_out: &BTreeSet<String>) -> u64 {
        self.sizes.iter().filter(|(path, _)| !left_out.contains(*path)).map(|(_, size)| size).sum()
    }
}

/// Looks through an archive. Its manifest comes last, so all of it is read once, on its own machine, where that costs
/// little.
///
/// # Errors
/// What the engine says.
pub async fn files(from: &dyn Engine, reference: &str) -> Result<Files> {
    let mut archive = from.save(reference);
    let mut finder = Filter::new(BTreeSet::new());
    while let Some(piece) = archive.try_next().await? {
        finder.take(&piece);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&finder.manifest).unwrap_or_default();
    let layers = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
    let layers = layers.iter().filter_map(|path| path.as_str().map(str::to_owned)).collect();
    Ok(Files { layers, sizes: finder.sizes })
}

/// Leaves files out of a tar that comes in pieces, and keeps its manifest.
struct Filter {
    without: BTreeSet<String>,
    /// Of the next header, as far as it is here.
    header: BytesMut,
    /// Bytes of the present entry that are still to come, filled up to whole blocks.
    rest: u64,
    /// Bytes of the present entry's content that are still to come.
    content: u64,
    now: Entry,
    manifest: Vec<u8>,
    /// Bytes of each file.
    sizes: BTreeMap<String, u64>,
}

/// What is done with the present entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Kept,
    LeftOut,
    Manifest,
}

impl Filter {
    fn new(without: BTreeSet<String>) -> Self {
        let header = BytesMut::with_capacity(BLOCK);
        Self { without, header, rest: 0, content: 0, now: Entry::Kept, manifest: Vec::new(), sizes: BTreeMap::new() }
    }

    /// Takes in a piece and returns what is kept of it.
    fn take(&mut self, mut piece: &[u8]) -> Bytes {
        let mut kept = BytesMut::with_capacity(piece.len());
        while !piece.is_empty() {
            if self.rest > 0 {
                let length = piece.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                let (now, later) = piece.split_at(length);
                self.pass(now, &mut kept);
                piece = later;
                continue;
            }
            let (now, later) = piece.split_at(piece.len().min(BLOCK - self.header.len()));
            self.header.extend_from_slice(now);
            piece = later;
            if self.header.len() == BLOCK {
                self.begin(&mut kept);
            }
        }
        kept.freeze()
    }

    fn pass(&mut self, bytes: &[u8], kept: &mut BytesMut) {
        let length = bytes.len() as u64;
        if self.now == Entry::Manifest && self.manifest.len() < MANIFEST {
            let content = usize::try_from(self.content.min(length)).unwrap_or(0);
            self.manifest.extend_from_slice(&bytes[..content]);
        }
        self.rest -= length;
        self.content = self.content.saturating_sub(length);
        if self.now != Entry::LeftOut {
            kept.extend_from_slice(bytes);
        }
    }

    fn begin(&mut self, kept: &mut BytesMut) {
        let mut block = [0; BLOCK];
        block.copy_from_slice(&self.header);
        self.header.clear();
        let header = tar::Header::from_byte_slice(&block);
        let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        self.content = header.entry_size().unwrap_or(0);
        self.rest = self.content.div_ceil(BLOCK as u64) * BLOCK as u64;
        if header.entry_type().is_file() && self.sizes.len() < MOST_FILES {
            self.sizes.insert(path.clone(), self.content);
        }
        self.now = match path.as_str() {
            "manifest.json" => Entry::Manifest,
            path if header.entry_type().is_file() && self.without.contains(path) => Entry::LeftOut,
            _ => Entry::Kept,
        };
        if self.now != Entry::LeftOut {
            kept.extend_from_slice(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, size) in [("a/layer.tar", 1500), ("b/layer.tar", 512), ("c/layer.tar", 0), ("manifest.json", 7)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            let content = vec![b'x'; usize::try_from(size).expect("small")];
            builder.append_data(&mut header, path, content.as_slice()).expect("appended");
        }
        builder.into_inner().expect("a tar")
    }

    fn paths(archive: &[u8]) -> Vec<(String, u64)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
        entries.map(|entry| (entry.path().expect("a path").display().to_string(), entry.size())).collect()
    }

    #[test]
    fn layers_are_left_out_however_the_pieces_are_cut() {
        let archive = archive();
        for size in [1, 7, 511, 512, 513, 100_000] {
            let mut filter = Filter::new(BTreeSet::from(["a/layer.tar".to_owned()]));
            let kept: Vec<u8> = archive.chunks(size).flat_map(|piece| filter.take(piece)).collect();
            let expected = [("b/layer.tar", 512), ("c/layer.tar", 0), ("manifest.json", 7)];
            assert_eq!(paths(&kept), expected.map(|(path, size)| (path.to_owned(), size)), "{size}");
            assert_eq!(filter.manifest, b"xxxxxxx");
        }
    }

    #[test]
    fn nothing_left_out_is_the_same_archive() {
        let archive = archive();
        let mut filter = Filter::new(BTreeSet::new());
        let kept: Vec<u8> = archive.chunks(700).flat_map(|piece| filter.take(piece)).collect();
        assert!(kept == archive);
    }
}
