//! Buffers for what is under way: a thread keeps some for the next request, since what they take is more than an
//! allocator has at hand, and a buffer that was just used is in the caches.

use std::cell::RefCell;

/// Size of a buffer that is kept; one that had to grow far beyond it is given back.
const SIZE: usize = 2048;
const MAX_SIZE: usize = 4 * SIZE;

/// Buffers that a thread keeps.
const MAX_SPARE: usize = 64;

thread_local!(static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

/// Bytes in a buffer that the thread has back when this is dropped; without memory while nothing was written to it.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// Returns it with memory to write to.
    pub(super) fn ready(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0 {
            self.0 = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(SIZE));
        }
        &mut self.0
    }

    /// Forgets its bytes, and gives back its memory.
    pub(super) fn release(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if !(SIZE..=MAX_SIZE).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        // At the end of the thread nothing is kept any more.
        let _kept = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(bytes);
            }
        });
    }
}

impl std::ops::Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// Gives back what this thread keeps.
pub(super) fn give_back() {
    SPARE.with_borrow_mut(|spare| *spare = Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn a_buffer_is_used_again_and_one_that_is_empty_holds_no_memory() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.capacity(), 0);
        buffer.ready().extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        buffer.release();
        assert_eq!((buffer.capacity(), spare()), (0, 1));
        let mut again = Buffer::default();
        assert_eq!((again.ready().as_ptr(), again.len(), spare()), (place, 0, 0));
        drop(again);
        give_back();
        assert_eq!(spare(), 0);
    }

    #[test]
    fn a_rush_or_a_large_one_leaves_little_behind() {
        let mut large = Buffer::default();
        large.ready().resize(MAX_SIZE + 1, 0);
        drop(large);
        assert_eq!(spare(), 0);
        let many: Vec<Buffer> = (0..2 * MAX_SPARE)
            .map(|_| {
                let mut buffer = Buffer::default();
                buffer.ready().push(0);
                buffer
            })
            .collect();
        drop(many);
        assert_eq!(spare(), MAX_SPARE);
    }
}
