//! Who has a session, within bounds. Pure.
//!
//! A client that wants more than its share loses those of its own that were silent for longest; where all together want
//! too many, it is those of all. A sixteenth at a time, so that looking for them costs little for each.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// The part of the sessions in question that goes when there are too many.
const PART: usize = 16;

/// What the ledger must know of a session.
pub(super) trait Entry {
    /// Whose it is.
    fn client(&self) -> IpAddr;

    /// When its latest datagram came, since some fixed moment.
    fn last(&self) -> Duration;
}

/// Sessions by their keys.
#[derive(Debug)]
pub(super) struct Ledger<K, S> {
    sessions: HashMap<K, S>,
    counts: HashMap<IpAddr, usize>,
    per_client: usize,
}

impl<K: Copy + Eq + Hash, S: Entry> Ledger<K, S> {
    /// Returns an empty one that gives each client `per_client` sessions at most.
    pub(super) fn new(per_client: usize) -> Self {
        Self { sessions: HashMap::new(), counts: HashMap::new(), per_client: per_client.max(1) }
    }

    /// Returns how many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns a session.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut S> {
        self.sessions.get_mut(key)
    }

    /// Returns all sessions.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut S)> {
        self.sessions.iter_mut()
    }

    /// Adds a session; returns those of the same client that had to go for it.
    pub(super) fn insert(&mut self, key: K, session: S) -> Vec<S> {
        let client = session.client();
        drop(self.remove(&key));
        let mut gone = Vec::new();
        if self.counts.get(&client).is_some_and(|count| *count >= self.per_client) {
            gone = self.evict(self.per_client / PART, |session| session.client() == client);
        }
        *self.counts.entry(client).or_default() += 1;
        self.sessions.insert(key, session);
        gone
    }

    /// Takes out the sessions that were silent for longest, to make room.
    pub(super) fn evict_oldest(&mut self) -> Vec<S> {
        self.evict(self.sessions.len() / PART, |_| true)
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, key: &K) -> Option<S> {
        let session = self.sessions.remove(key)?;
        let client = session.client();
        if let Some(count) = self.counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
        Some(session)
    }

    /// Takes out the sessions of which `is_over` says so.
    pub(super) fn sweep(&mut self, mut is_over: impl FnMut(&K, &S) -> bool) -> Vec<S> {
        let over: Vec<K> =
            self.sessions.iter().filter(|(key, session)| is_over(key, session)).map(|(key, _)| *key).collect();
        over.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Takes out `count` of those in question (one at least) whose latest datagram is the oldest.
    fn evict(&mut self, count: usize, in_question: impl Fn(&S) -> bool) -> Vec<S> {
        let candidates = self.sessions.iter().filter(|(_, session)| in_question(session));
        let mut candidates: Vec<(Duration, K)> = candidates.map(|(key, session)| (session.last(), *key)).collect();
        let count = count.clamp(1, candidates.len().max(1));
        if count < candidates.len() {
            candidates.select_nth_unstable_by_key(count, |(last, _)| *last);
        }
        candidates.truncate(count);
        candidates.iter().filter_map(|(_, key)| self.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Session {
        client: u8,
        last: u64,
    }

    impl Entry for Session {
        fn client(&self) -> IpAddr {
            IpAddr::from([10, 0, 0, self.client])
        }

        fn last(&self) -> Duration {
            Duration::from_millis(self.last)
        }
    }

    #[test]
    fn a_client_that_wants_too_many_loses_its_own_oldest() {
        let mut ledger = Ledger::new(32);
        assert!(ledger.insert(1000, Session { client: 2, last: 0 }).is_empty());
        for key in 0..32_u16 {
            assert!(ledger.insert(key, Session { client: 1, last: 100 - u64::from(key) }).is_empty());
        }
        let mut gone: Vec<u64> =
            ledger.insert(32, Session { client: 1, last: 200 }).iter().map(|gone| gone.last).collect();
        gone.sort_unstable();
        assert_eq!(gone, [69, 70], "two of thirty-two, the oldest");
        assert!(ledger.get_mut(&1000).is_some(), "others keep theirs, however old");
        assert_eq!(ledger.len(), 32);
    }

    #[test]
    fn room_is_made_by_the_oldest_of_all() {
        let mut ledger = Ledger::new(100);
        assert!(ledger.evict_oldest().is_empty());
        for key in 0..48_u8 {
            ledger.insert(key, Session { client: key, last: u64::from(key) });
        }
        let gone: BTreeSet<u64> = ledger.evict_oldest().iter().map(|gone| gone.last).collect();
        assert_eq!(gone, BTreeSet::from([0, 1, 2]));
        assert_eq!(ledger.sweep(|_, session| session.last < 10).len(), 7);
        assert_eq!(ledger.len(), 38);
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_nothing_is_lost_or_doubled(
            steps in proptest::collection::vec((0_u16..40, 0_u8..4, any::<u64>(), any::<bool>()), 0..300),
        ) {
            let mut ledger = Ledger::new(5);
            let mut there: HashMap<u16, Session> = HashMap::new();
            for (key, client, last, remove) in steps {
                if remove {
                    prop_assert_eq!(ledger.remove(&key), there.remove(&key));
                    continue;
                }
                let session = Session { client, last };
                there.remove(&key);
                for gone in ledger.insert(key, session) {
                    prop_assert_eq!(gone.client, client);
                    let was = there.iter().find(|(_, session)| **session == gone).map(|(key, _)| *key);
                    prop_assert!(was.is_some_and(|key| there.remove(&key).is_some()));
                }
                there.insert(key, session);
                prop_assert_eq!(ledger.len(), there.len());
                for client in 0..4 {
                    prop_assert!(there.values().filter(|session| session.client == client).count() <= 5);
                }
            }
            for (key, session) in &there {
                prop_assert_eq!(ledger.get_mut(key).copied(), Some(*session));
            }
        }
    }
}
