//! Images that hosts of a cluster pass on to each other over the mesh, streamed from engine to engine.
//!
//! Membership alone gives no right to an image: somebody who may command both hosts asks the one for a ticket and gives
//! it to the other. The giver says which layers the image has, the taker how many of them it has, and then comes the
//! rest as `docker save` writes it. What is in memory of it is a few pieces.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, timeout};

use crate::api::types::{ApiError, ErrorKind, FetchImage, ImageOffer, ObjectState, Progress};
use crate::diag::chain;
use crate::engine::{BoxStream, Engine, EngineError, copy};
use crate::ids::HostName;
use crate::mesh::{DialError, ImageTarget, Incoming, Kind, Refusal};

use super::shared::Shared;

/// How long an offer holds: an image of many gigabytes may have to wait for others.
const OFFERED_FOR: Duration = Duration::from_mins(15);
/// Most offers at a time; the oldest goes.
const MOST_OFFERS: usize = 1024;
/// Images given at the same time; who asks for more gets them elsewhere.
const GIVEN_AT_ONCE: usize = 8;
/// Longest that the other side may say nothing: its engine reads a whole image before it gives the first byte.
const SILENCE: Duration = Duration::from_mins(5);
/// Most bytes of a message before the image: 127 layers of some 70 characters.
const MESSAGE: u64 = 64 << 10;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Between two words about how far it is.
const TELL: Duration = Duration::from_millis(200);

/// What this host lets others have, and how much of it goes out now.
#[derive(Debug)]
pub struct Offers {
    /// By ticket.
    offered: Mutex<BTreeMap<String, (String, Instant)>>,
    slots: Semaphore,
}

impl Default for Offers {
    fn default() -> Self {
        Self { offered: Mutex::default(), slots: Semaphore::new(GIVEN_AT_ONCE) }
    }
}

impl Offers {
    fn make(&self, reference: &str) -> Result<String, ring::error::Unspecified> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random)?;
        let ticket = format!("{:032x}", u128::from_be_bytes(random));
        let mut offered = self.lock();
        offered.retain(|_, (_, made)| made.elapsed() < OFFERED_FOR);
        while offered.len() >= MOST_OFFERS
            && let Some(oldest) = offered.iter().min_by_key(|(_, (_, made))| *made).map(|(ticket, _)| ticket.clone())
        {
            offered.remove(&oldest);
        }
        offered.insert(ticket.clone(), (reference.to_owned(), Instant::now()));
        Ok(ticket)
    }

    fn holds(&self, target: &ImageTarget) -> bool {
        let offered = self.lock();
        let offer = offered.get(&target.ticket);
        offer.is_some_and(|(reference, made)| *reference == target.reference && made.elapsed() < OFFERED_FOR)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (String, Instant)>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets other hosts have an image for a while.
///
/// # Errors
/// The engine does not have it.
pub async fn offer(shared: &Shared, reference: &str) -> Result<ImageOffer, ApiError> {
    let failed = |kind, message: String| ApiError { message, kind };
    let id = shared.engine.image_id(reference).await.map_err(|error| failed(ErrorKind::Host, chain(&error)))?;
    if id.is_none() {
        return Err(failed(ErrorKind::NotFound, format!("image `{reference}` is not on `{}`", shared.host())));
    }
    let none = |_| failed(ErrorKind::Internal, "the system gives no random numbers".to_owned());
    Ok(ImageOffer { ticket: shared.offers.make(reference).map_err(none)? })
}

/// What the giver says first.
#[derive(Debug, Serialize, Deserialize)]
struct Given {
    /// Content ids of the layers, lowest first.
    layers: Vec<String>,
}

/// What the taker answers.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    /// How many of the lowest layers it has.
    known: usize,
}

/// Gives another host an image, if it was offered.
pub async fn give(shared: Arc<Shared>, call: Incoming) {
    let Kind::Image(target) = &call.kind else { return };
    let (peer, target) = (call.peer.clone(), target.clone());
    let refusal = |reason: Refusal| {
        tracing::debug!(%peer, reference = target.reference, %reason, "an image is not given");
        reason
    };
    if !shared.offers.holds(&target) {
        let reason = refusal(Refusal::NotOffered { reference: target.reference.clone() });
        return drop(call.refuse(&reason).await);
    }
    let Ok(_slot) = shared.offers.slots.try_acquire() else {
        let reason = refusal(Refusal::Busy { reason: "many images are given already".to_owned() });
        return drop(call.refuse(&reason).await);
    };
    let given = match call.accept().await {
        Ok(stream) => send(shared.engine.as_ref(), &target.reference, stream).await,
        Err(error) => Err(error),
    };
    match given {
        Ok(()) => tracing::info!(%peer, reference = target.reference, "gave an image"),
        Err(error) => tracing::warn!(%peer, reference = target.reference, %error, "could not give an image"),
    }
}

/// The giver's part of the conversation.
async fn send(engine: &dyn Engine, reference: &str, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let layers = engine.layers(reference).await.map_err(io::Error::other)?;
    say(&mut stream, &Given { layers }).await?;
    let Taken { known } = hear(&mut stream).await?;
    let mut archive = copy::archive(engine, reference, known).await.map_err(io::Error::other)?;
    while let Some(piece) = archive.try_next().await.map_err(io::Error::other)? {
        in_time(stream.write_all(&piece)).await?;
    }
    in_time(stream.shutdown()).await?;
    // The taker ended its side before: what is read is that end.
    let mut nothing = [0; 1];
    in_time(stream.read(&mut nothing)).await.map(drop)
}

/// Why an image was not got.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("`{0}` is no other host of the cluster")]
    NoPeer(HostName),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the conversation about the image broke off")]
    Stream(#[from] io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the engine took it and does not have it")]
    NotThere,
}

/// Gets an image from another host and says how far it is, until it is there or nobody listens.
pub async fn fetch(shared: Arc<Shared>, request: FetchImage, tell: mpsc::Sender<Progress>) {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut look = interval(TELL);
    let mut fetched = std::pin::pin!(fetch_from(&shared, &request, &bytes));
    let mut told = 0;
    let done = loop {
        tokio::select! {
            done = &mut fetched => break done,
            () = tell.closed() => return,
            _ = look.tick() => {
                let megabytes = bytes.load(Ordering::Relaxed) / 1_000_000;
                if megabytes != told {
                    told = megabytes;
                    // A caller that does not read needs no word between.
                    tell.try_send(moving(&shared, &request, megabytes)).ok();
                }
            }
        }
    };
    let last = match done {
        Ok(()) => Progress::Done { revision: 0 },
        Err(error) => {
            let what = format!("image `{}` could not be had from `{}`", request.reference, request.from);
            Progress::Failed { messages: vec![format!("{what}: {}", chain(&error))] }
        }
    };
    drop(tell.send(last).await);
}

fn moving(shared: &Shared, request: &FetchImage, megabytes: u64) -> Progress {
    Progress::Object {
        kind: "Image".to_owned(),
        name: request.reference.clone(),
        host: shared.host().clone(),
        status: "Sending".to_owned(),
        state: ObjectState::Working,
        detail: Some(format!("{megabytes} MB from host {}", request.from)),
    }
}

async fn fetch_from(shared: &Shared, request: &FetchImage, bytes: &Arc<AtomicU64>) -> Result<(), FetchError> {
    let FetchImage { reference, from, ticket } = request;
    let target = ImageTarget { reference: reference.clone(), ticket: ticket.clone() };
    let no_peer = || FetchError::NoPeer(from.clone());
    let mesh = shared.mesh.get().ok_or_else(no_peer)?;
    let peer = mesh.peer(from).ok_or_else(no_peer)?;
    let engine = shared.engine.as_ref();
    let stream = mesh.dial(&peer, &Kind::Image(target.clone())).await?;
    match receive(engine, reference, stream, Layers::Missing, bytes).await {
        // An engine that does not take an archive without layers that it has.
        Err(FetchError::Engine(error)) => {
            tracing::debug!(%error, reference, "once more with all layers");
            bytes.store(0, Ordering::Relaxed);
            let stream = mesh.dial(&peer, &Kind::Image(target)).await?;
            receive(engine, reference, stream, Layers::All, bytes).await
        }
        other => other,
    }
}

/// Which layers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layers {
    All,
    Missing,
}

/// The taker's part of the conversation.
async fn receive(
    engine: &dyn Engine,
    reference: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    layers: Layers,
    bytes: &Arc<AtomicU64>,
) -> Result<(), FetchError> {
    let mut stream = BufReader::with_capacity(PIECE, stream);
    let given: Given = hear(&mut stream).await?;
    let known = match layers {
        Layers::All => 0,
        Layers::Missing => copy::known_layers(engine, &given.layers).await?,
    };
    say(&mut stream, &Taken { known }).await?;
    in_time(stream.shutdown()).await?;
    engine.load(pieces(stream, Arc::clone(bytes))).await?;
    if engine.image_id(reference).await?.is_some() { Ok(()) } else { Err(FetchError::NotThere) }
}

/// What comes until the end, counted.
fn pieces<S>(stream: S, bytes: Arc<AtomicU64>) -> BoxStream<'static, io::Result<Bytes>>
where
    S: AsyncRead + Unpin + Send + 'static,
{
    let read = |mut stream: S| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = in_time(stream.read_buf(&mut piece)).await?;
        Ok::<_, io::Error>((read > 0).then(|| (piece.freeze(), stream)))
    };
    let counted = move |piece: &Bytes| {
        bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    };
    stream::try_unfold(stream, read).inspect_ok(counted).boxed()
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    in_time(stream.write_all(&line)).await?;
    in_time(stream.flush()).await
}

async fn hear<T: DeserializeOwned>(stream: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<T> {
    let mut line = Vec::new();
    in_time(stream.take(MESSAGE).read_until(b'\n', &mut line)).await?;
    Ok(serde_json::from_slice(&line)?)
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(SILENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{FakeEngine, Fault};

    /// Passes an image from one engine to another. Returns how that went, and the bytes of the image that went over.
    async fn pass(from: &FakeEngine, to: &FakeEngine, layers: Layers) -> (Result<(), FetchError>, u64) {
        let bytes = Arc::new(AtomicU64::new(0));
        // Less than the archive: it must flow.
        let (here, there) = tokio::io::duplex(700);
        let (given, got) = tokio::join!(send(from, "app:2", here), receive(to, "app:2", there, layers, &bytes));
        assert_eq!(given.is_ok(), got.is_ok(), "{given:?} {got:?}");
        (got, bytes.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn an_image_goes_over_without_the_layers_that_are_there() {
        let (from, to) = (FakeEngine::new(), FakeEngine::new());
        from.add_image("app:2");
        let (got, whole) = pass(&from, &to, Layers::Missing).await;
        got.expect("it is there");
        assert!(to.image_id("app:2").await.expect("answers").is_some());
        let other = FakeEngine::new();
        other.add_image("app:1");
        let (got, part) = pass(&from, &other, Layers::Missing).await;
        got.expect("it is there");
        assert_eq!(whole - part, 1024, "a block for the head and one for the content of the layer that both share");
        let (got, again) = pass(&from, &other, Layers::All).await;
        got.expect("it is there");
        assert_eq!(again, whole);
    }

    #[tokio::test]
    async fn what_an_engine_cannot_do_ends_the_conversation_on_both_sides() {
        let (from, to) = (FakeEngine::new(), FakeEngine::new());
        let (got, _) = pass(&from, &to, Layers::Missing).await;
        assert!(matches!(got, Err(FetchError::Stream(_))), "nothing to give: {got:?}");
        from.add_image("app:2");
        from.fail("save", Fault::Before, 1);
        let (got, _) = pass(&from, &to, Layers::Missing).await;
        assert!(matches!(got, Err(FetchError::Engine(_))), "the archive ended early: {got:?}");
        assert!(to.image_id("app:2").await.expect("answers").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_offered_lately_is_given() {
        let offers = Offers::default();
        let ticket = offers.make("app:1").expect("random numbers");
        let target = |reference: &str, ticket: &str| ImageTarget { reference: reference.into(), ticket: ticket.into() };
        assert!(offers.holds(&target("app:1", &ticket)));
        assert!(!offers.holds(&target("app:2", &ticket)) && !offers.holds(&target("app:1", "")));
        assert_ne!(offers.make("app:1").expect("random numbers"), ticket);
        tokio::time::advance(OFFERED_FOR).await;
        assert!(!offers.holds(&target("app:1", &ticket)));
        (0..2 * MOST_OFFERS).for_each(|_| drop(offers.make("app:1")));
        assert_eq!(offers.lock().len(), MOST_OFFERS);
    }
}
