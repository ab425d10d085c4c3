//! Bytes between a thread that may block and tasks that may not: a few pieces at most are on the way.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Pieces on the way. With those of `archive` that makes a quarter of a megabyte.
pub(crate) const PIECES: usize = 4;

/// What one side sends and the other reads: pieces, or why there are no more. Ending without an empty `Ok` is a cut.
pub(crate) type Piece = io::Result<Bytes>;

/// Reads what a task sends.
pub(crate) struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    now: Bytes,
    ended: bool,
}

impl PipeReader {
    pub(crate) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, now: Bytes::new(), ended: false }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.now = piece?;
                    self.ended = self.now.is_empty();
                }
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = buffer.len().min(self.now.len());
        self.now.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Sends what is written to a task.
pub(crate) struct PipeWriter {
    pieces: mpsc::Sender<Piece>,
    buffer: Vec<u8>,
}

/// Bytes that are gathered before they are sent.
const GATHERED: usize = 64 << 10;

impl PipeWriter {
    pub(crate) fn new(pieces: mpsc::Sender<Piece>) -> Self {
        Self { pieces, buffer: Vec::with_capacity(GATHERED) }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(GATHERED - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == GATHERED {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(GATHERED)));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
