//! An image goes from one engine to another as `docker save` writes it, without the layers that the other has.
//!
//! An engine takes an archive that lacks the files of layers which it knows by their chain of content ids, so a second
//! version of an image costs its changed layers only (moby, image/tarexport/load.go: a layer's file is opened only where
//! the store of layers has no such chain). Where that is refused after all, the whole archive is sent.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::docker::DockerEngine;
use crate::engine::{Engine as _, EngineError};

/// Size of a tar's blocks.
const BLOCK: usize = 512;
/// Longest manifest that is read: one of hundreds of layers has some tens of kilobytes.
const MANIFEST: usize = 4 << 20;
/// Pieces of an archive that one host may be behind the others.
const BEHIND: usize = 64;

/// Sends the image that `reference` means at `from` to all of `to`, out of one reading. Returns how that went for each.
pub(super) async fn send(from: &DockerEngine, to: &[&DockerEngine], reference: &str) -> Vec<Result<(), EngineError>> {
    let known = known_layers(from, to, reference).await;
    let mut results = transfer(from, reference, to.iter().copied().zip(known.iter().cloned()).collect()).await;
    let mut again = Vec::new();
    for (index, known) in known.iter().enumerate().filter(|(_, known)| !known.is_empty()) {
        if results[index].is_err() || !there(to[index], reference).await {
            tracing::debug!(reference, layers = known.len(), "an image without known layers was not taken");
            again.push(index);
        }
    }
    let whole = again.iter().map(|index| (to[*index], BTreeSet::new())).collect();
    for (index, result) in again.iter().zip(transfer(from, reference, whole).await) {
        results[*index] = result;
    }
    results
}

async fn there(engine: &DockerEngine, reference: &str) -> bool {
    engine.image_id(reference).await.is_ok_and(|id| id.is_some())
}

/// Where an archive goes.
struct Taker {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// It takes no more, whether or not somebody still holds the other end of `pieces`.
    done: CancellationToken,
}

/// Sends one archive to all of `to`, to each without some files.
async fn transfer(
    from: &DockerEngine,
    reference: &str,
    to: Vec<(&DockerEngine, BTreeSet<String>)>,
) -> Vec<Result<(), EngineError>> {
    if to.is_empty() {
        return Vec::new();
    }
    let (takers, loads): (Vec<_>, Vec<_>) = to
        .into_iter()
        .map(|(engine, without)| {
            let (pieces, taken) = mpsc::channel(BEHIND);
            let done = CancellationToken::new();
            let ended = done.clone().drop_guard();
            let load = async move {
                let _ended = ended;
                engine.load(filtered(taken, without)).await
            };
            (Taker { pieces, done }, load)
        })
        .unzip();
    tokio::join!(pump(from.save(reference), takers), join_all(loads)).1
}

/// Gives every piece of an archive to all who take it: the slowest sets the pace, who fails is left behind.
async fn pump(mut archive: BoxStream<'static, Result<Bytes, EngineError>>, mut takers: Vec<Taker>) {
    while let Some(piece) = archive.next().await {
        let piece = piece.map_err(Arc::new);
        let given = join_all(takers.iter().map(|taker| {
            let piece = piece.clone().map_err(io::Error::other);
            taker.done.run_until_cancelled(taker.pieces.send(piece))
        }));
        let mut given = given.await.into_iter();
        takers.retain(|_| matches!(given.next(), Some(Some(Ok(())))));
        if takers.is_empty() || piece.is_err() {
            return;
        }
    }
}

fn filtered(
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    without: BTreeSet<String>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let filter = (!without.is_empty()).then(|| Filter::new(without));
    let pieces = stream::try_unfold((pieces, filter), |(mut pieces, mut filter)| async move {
        while let Some(piece) = pieces.recv().await.transpose()? {
            let kept = filter.as_mut().map_or_else(|| piece.clone(), |filter| filter.take(&piece));
            if !kept.is_empty() {
                return Ok(Some((kept, (pieces, filter))));
            }
        }
        Ok(None)
    });
    pieces.boxed()
}

/// For each of `to`, the paths in the archive of those layers that it has: the longest beginning that one of its images
/// shares, because a layer is known by all that lie below it, too. What cannot be found out is taken for nothing.
async fn known_layers(from: &DockerEngine, to: &[&DockerEngine], reference: &str) -> Vec<BTreeSet<String>> {
    let own = from.layers(reference).await.unwrap_or_default();
    let shared = |theirs: Vec<String>| own.iter().zip(&theirs).take_while(|(own, theirs)| own == theirs).count();
    let most = |images: Vec<Vec<String>>| images.into_iter().map(shared).max().unwrap_or_default();
    let there = join_all(to.iter().map(|engine| engine.all_layers())).await;
    let shared: Vec<usize> = there.into_iter().map(|images| images.map(most).unwrap_or_default()).collect();
    if shared.iter().all(|count| *count == 0) {
        return vec![BTreeSet::new(); to.len()];
    }
    let paths = layer_paths(from, reference).await.unwrap_or_default();
    let left_out = |shared: usize| {
        // Two layers of one content share a file; one that is still needed stays.
        let (known, needed) = paths.split_at(shared.min(paths.len()));
        known.iter().filter(|path| !needed.contains(path)).cloned().collect()
    };
    shared.into_iter().map(left_out).collect()
}

/// The paths of the layers in an archive, lowest first. Its manifest comes last, so all of it is read once, on this
/// machine, where that costs little.
async fn layer_paths(from: &DockerEngine, reference: &str) -> Result<Vec<String>, EngineError> {
    let mut archive = from.save(reference);
    let mut finder = Filter::new(BTreeSet::new());
    while let Some(piece) = archive.try_next().await? {
        finder.take(&piece);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&finder.manifest).unwrap_or_default();
    let layers = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
    Ok(layers.iter().filter_map(|path| path.as_str().map(str::to_owned)).collect())
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
        Self { without, header, rest: 0, content: 0, now: Entry::Kept, manifest: Vec::new() }
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

    fn taker() -> (Taker, mpsc::Receiver<io::Result<Bytes>>) {
        let (pieces, taken) = mpsc::channel(1);
        (Taker { pieces, done: CancellationToken::new() }, taken)
    }

    #[tokio::test]
    async fn who_takes_no_more_does_not_hold_up_the_others() {
        let archive = stream::iter((0_u8..100).map(|number| Ok(Bytes::from(vec![number])))).boxed();
        let ((dropped, gone), (finished, held), (reads, taken)) = (taker(), taker(), taker());
        drop(gone);
        finished.done.cancel();
        let takes = filtered(taken, BTreeSet::new()).try_collect::<Vec<_>>();
        let ((), read) = tokio::join!(pump(archive, vec![dropped, finished, reads]), takes);
        assert_eq!(read.expect("all of it").concat(), (0..100).collect::<Vec<u8>>());
        drop(held);
    }

    #[tokio::test]
    async fn an_archive_that_breaks_off_is_an_error_to_all() {
        let broken = || EngineError::Refused { action: "save image `app`".into(), message: "no space".into() };
        let archive = stream::iter([Ok(Bytes::from_static(b"x")), Err(broken())]).boxed();
        let (takers, taken): (Vec<_>, Vec<_>) = [taker(), taker()].into_iter().unzip();
        let reads = taken.into_iter().map(|taken| filtered(taken, BTreeSet::new()).try_collect::<Vec<_>>());
        let ((), read) = tokio::join!(pump(archive, takers), join_all(reads));
        for read in read {
            let error = read.expect_err("broken off");
            assert!(error.to_string().contains(&broken().to_string()), "{error}");
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
