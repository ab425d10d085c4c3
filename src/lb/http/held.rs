//! How much memory is held for what came over the network and waits: one budget for all connections of a host, in equal shares
//! for its threads, so that counting takes no lock.
//!
//! Counted are heads and bodies that are not whole, requests whose answer has not begun, and parts of answers that clients have not
//! taken. When there is no room, what has only begun is refused first: who sends slowly may have [`Room::begun`], so that whole requests
//! still find some. Of answers less is read at a time where [`Room::bulk`] is used up, so that nobody's is cut off and those that clients
//! do not take leave the rest to requests. What pingora itself holds of a body while it passes it on is not counted; its heads are, as
//! long as it has them.

use std::cell::Cell;

/// What of a thread's share may be taken by what has only begun, and what is held of all until less is read of answers, in quarters.
const BEGUN_QUARTERS: usize = 3;
const BULK_QUARTERS: usize = 2;

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
    /// As long as no more is held, answers are read in large parts.
    pub(super) bulk: usize,
}

impl Room {
    /// Returns the share of each of `threads`.
    pub(super) fn new(all: usize, threads: usize) -> Self {
        let whole = all / threads.max(1);
        Self { whole, begun: whole / 4 * BEGUN_QUARTERS, bulk: whole / 4 * BULK_QUARTERS }
    }
}

/// Returns whether this thread holds `most` bytes or more.
pub(super) fn is_full(most: usize) -> bool {
    HELD.get() >= most
}

/// Bytes that count until this is dropped; a connection stays on its thread.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    /// Counts `bytes` in place of what it counted before. Returns `false`, and counts as before, where the thread would then
    /// hold more than `most`.
    pub(super) fn set(&mut self, bytes: usize, most: usize) -> bool {
        if bytes > self.0 && !self.fits(bytes, most) {
            return false;
        }
        self.force(bytes);
        true
    }

    /// Returns whether the thread would hold no more than `most` with `bytes` in place of what this counts, also where that is less.
    pub(super) fn fits(&self, bytes: usize, most: usize) -> bool {
        HELD.get().saturating_sub(self.0).saturating_add(bytes) <= most
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
        assert_eq!((room.whole, room.begun, room.bulk), (1000, 750, 500));
        let (mut one, mut other) = (Held::default(), Held::default());
        assert!(one.set(700, room.begun) && !other.set(100, room.begun) && other.set(100, room.whole));
        assert!(!one.set(901, room.whole), "more than there is with the other's");
        assert!(one.set(900, room.whole) && is_full(room.whole));
        assert!(one.set(800, room.begun), "less is always allowed");
        assert!(one.fits(600, 700) && !one.fits(601, 700), "and yet it may be too much");
        assert!(!is_full(room.whole));
        other.force(5000);
        assert!(is_full(room.whole) && one.set(10, room.whole) && !one.set(11, room.whole));
        drop(other);
        assert!(!is_full(room.whole));
        one.clear();
        drop(one);
        assert_eq!(HELD.get(), 0);
    }
}
