//! What goes to another agent: a bounded queue of frames, and who writes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::frame::{What, frame};

/// Frames that wait, and their bytes; beyond, datagrams are dropped.
const FRAMES: usize = 4096;
const BYTES: usize = 4 << 20;

/// Bytes of one session that wait: one that floods leaves room for the others.
const BYTES_OF_ONE: usize = 1 << 20;

/// Bytes that are written at once where so many wait.
const GATHER: usize = 48 * 1024;

/// How much of one session waits.
pub(super) type Share = Arc<AtomicUsize>;

/// The way into the queue.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Frame>,
    waiting: Arc<AtomicUsize>,
}

/// The way out of it.
pub(super) type Frames = mpsc::Receiver<Frame>;

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    _counted: Option<Counted>,
}

/// What a frame takes of what may wait, until it is gone.
#[derive(Debug)]
struct Counted {
    all: Arc<AtomicUsize>,
    share: Share,
    bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
        self.share.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Outbox {
    /// Returns both ends of an empty queue.
    pub(super) fn new() -> (Self, Frames) {
        let (sender, frames) = mpsc::channel(FRAMES);
        (Self { sender, waiting: Arc::default() }, frames)
    }

    /// Puts a datagram of a session in.
    ///
    /// # Errors
    /// `WouldBlock`: too much waits. `NotConnected`: nobody takes it out any more.
    pub(super) fn datagram(&self, session: u32, content: &[u8], share: &Share) -> io::Result<()> {
        let bytes = frame(session, What::Datagram, content).ok_or(io::ErrorKind::InvalidInput)?;
        let counted = Counted { all: Arc::clone(&self.waiting), share: Arc::clone(share), bytes: bytes.len() };
        let all = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        let own = share.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if all > BYTES || own > BYTES_OF_ONE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.put(Frame { bytes, _counted: Some(counted) })
    }

    /// Puts a message about a session in.
    ///
    /// # Errors
    /// As [`Self::datagram`].
    pub(super) fn message(&self, session: u32, what: What, content: &[u8]) -> io::Result<()> {
        let bytes = frame(session, what, content).ok_or(io::ErrorKind::InvalidInput)?;
        self.put(Frame { bytes, _counted: None })
    }

    fn put(&self, frame: Frame) -> io::Result<()> {
        self.sender.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
            mpsc::error::TrySendError::Closed(_) => io::ErrorKind::NotConnected.into(),
        })
    }
}

/// Writes what is put into the queue until the stream breaks or nobody can put anything in any more.
pub(super) async fn write(mut frames: Frames, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(first) = frames.recv().await {
        buffer.extend_from_slice(&first.bytes);
        drop(first);
        while buffer.len() < GATHER {
            let Ok(frame) = frames.try_recv() else { break };
            buffer.extend_from_slice(&frame.bytes);
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
        buffer.clear();
        buffer.shrink_to(GATHER);
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_session_that_floods_leaves_room_for_the_others() {
        let (outbox, frames) = Outbox::new();
        let large = vec![0; 60_000];
        let (flood, other) = (Share::default(), Share::default());
        let taken = (0..100).filter(|_| outbox.datagram(1, &large, &flood).is_ok()).count();
        assert_eq!(taken, 17, "a megabyte");
        outbox.datagram(2, b"hello", &other).expect("there is room");
        outbox.message(1, What::Close, b"").expect("there is room");
        let (mut read, written) = tokio::io::duplex(4 << 20);
        drop(outbox);
        write(frames, written).await.expect("all of it");
        assert_eq!((flood.load(Ordering::Relaxed), other.load(Ordering::Relaxed)), (0, 0));
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut read, &mut bytes).await.expect("whole");
        assert!(
            bytes.ends_with(
                &[frame(2, What::Datagram, b"hello"), frame(1, What::Close, b"")].map(Option::unwrap).concat()
            )
        );
    }

    #[test]
    fn all_together_are_bounded_too() {
        let (outbox, _frames) = Outbox::new();
        let large = vec![0; 60_000];
        let taken = (0..200).filter(|_| outbox.datagram(1, &large, &Share::default()).is_ok()).count();
        assert_eq!(taken, 69, "four megabytes");
        let taken = (0..10_000).filter(|_| outbox.message(1, What::Close, b"").is_ok()).count();
        assert_eq!(taken, FRAMES - 69);
    }
}
