//! How much memory is held for what came over the network and waits: one budget for all connections of a host, in equal shares
//! for its threads, so that counting takes no lock.
//!
//! Counted are heads and bodies that are not whole, requests whose answer has not begun, and parts of answers that clients have not
//! taken. When there is no room, what has only begun is refused first: who sends slowly may have [`Room::begun`], so that whole requests
//! still find some. Of answers less is read at a time, so that nobody's is cut off. What pingora itself holds while it passes a body on
//! is not counted.

use std::cell::Cell;

/// What of a thread's share may be taken by what has only begun, in quarters.
const BEGUN_QUARTERS: usize = 3;

/// Bytes of an answer that are read at a time where there is no room.
pub(super) const LITTLE: usize = 2048;

thread_local!(static HELD: Cell<usize> = const { Cell::new(0) });

/// A thread's share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// All of it.
    pub(super) whole: usize,
    /// What requests that are not whole may have of it.
    pub(super) begun: usize,
}

impl Room {
    /// Returns the share of each of `threads`.
    pub(super) fn new(all: usize, threads: usize) -> Self {
        let whole = all / threads.max(1);
        Self { whole, begun: whole / 4 * BEGUN_QUARTERS }
    }

    /// Returns whether this thread has used up its share.
    pub(super) fn is_full(self) -> bool {
        HELD.get() >= self.whole
    }
}

/// Bytes that count until this is dropped; a connection stays on its thread.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    /// Counts `bytes` in place of what it counted before. Returns `false`, and counts as before, where the thread would then
    /// hold more than `most`.
    pub(super) fn set(&mut self, bytes: usize, most: usize) -> bool {
        let others = HELD.get().saturating_sub(self.0);
        if bytes > self.0 && others.saturating_add(bytes) > most {
            return false;
        }
        self.force(bytes);
        true
    }

    /// The same for what is there already, whatever room there is.
    pub(super) fn force(&mut self, bytes: usize) {
        HELD.set(HELD.get().saturating_sub(self.0).saturating_add(bytes));
        self.0 = bytes;
    }

    /// Counts no more.
    pub(super) fn clear(&mut self) {
        if self.0 > 0 {
            self.force(0);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of the thread there may be nothing to count with any more.
        let _ended = HELD.try_with(|held| held.set(held.get().saturating_sub(self.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_the_sum_of_all_and_what_finds_no_room_leaves_it_as_it_was() {
        let room = Room::new(2000, 2);
        assert_eq!((room.whole, room.begun), (1000, 750));
        let (mut one, mut other) = (Held::default(), Held::default());
        assert!(one.set(700, room.begun) && !other.set(100, room.begun) && other.set(100, room.whole));
        assert!(!one.set(901, room.whole), "more than there is with the other's");
        assert!(one.set(900, room.whole) && room.is_full());
        assert!(one.set(800, room.begun), "less is always allowed");
        assert!(!room.is_full());
        other.force(5000);
        assert!(room.is_full() && one.set(10, room.whole) && !one.set(11, room.whole));
        drop(other);
        assert!(!room.is_full());
        one.clear();
        drop(one);
        assert_eq!(HELD.get(), 0);
    }
}
