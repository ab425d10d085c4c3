//! An image goes from the engine of this machine to those of several hosts out of one reading, to each without the layers
//! that it has.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, copy};

/// Pieces of an archive that one host may be behind the others.
const BEHIND: usize = 64;

/// What a host has of an image.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The files of the layers that are there, by their paths in the archive.
    files: BTreeSet<String>,
    /// Bytes that it lacks; `None`: all of the image.
    pub(super) lacks: Option<u64>,
}

/// Returns what each of `to` has of the image that `reference` means at `from`. What cannot be found out is taken for
/// nothing.
pub(super) async fn known(from: &dyn Engine, to: &[&dyn Engine], reference: &str) -> Vec<Known> {
    let layers = from.layers(reference).await.unwrap_or_default();
    let shared = join_all(to.iter().map(|engine| copy::known_layers(*engine, &layers))).await;
    let shared: Vec<usize> = shared.into_iter().map(Result::unwrap_or_default).collect();
    if shared.iter().all(|count| *count == 0) {
        return vec![Known::default(); to.len()];
    }
    let archive = copy::files(from, reference).await.unwrap_or_default();
    let known = shared.into_iter().map(|count| {
        let files = archive.of_lowest(count);
        let lacks = (!files.is_empty()).then(|| archive.bytes_without(&files));
        Known { files, lacks }
    });
    known.collect()
}

/// Sends the image that `reference` means at `from` to all of `to`, out of one reading. Returns how that went for each.
pub(super) async fn send(
    from: &dyn Engine,
    to: &[(&dyn Engine, &Known)],
    reference: &str,
) -> Vec<Result<(), EngineError>> {
    let lacking = to.iter().map(|(engine, known)| (*engine, known.files.clone())).collect();
    let mut results = transfer(from, reference, lacking).await;
    let mut again = Vec::new();
    for (index, (engine, known)) in to.iter().enumerate().filter(|(_, (_, known))| !known.files.is_empty()) {
        if results[index].is_err() || !there(*engine, reference).await {
            tracing::debug!(reference, layers = known.files.len(), "an image without known layers was not taken");
            again.push(index);
        }
    }
    let whole = again.iter().map(|index| (to[*index].0, BTreeSet::new())).collect();
    for (index, result) in again.iter().zip(transfer(from, reference, whole).await) {
        results[*index] = result;
    }
    results
}

async fn there(engine: &dyn Engine, reference: &str) -> bool {
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
    from: &dyn Engine,
    reference: &str,
    to: Vec<(&dyn Engine, BTreeSet<String>)>,
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
    left_out: BTreeSet<String>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let pieces = stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
    copy::without(pieces.boxed(), left_out)
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

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
}
