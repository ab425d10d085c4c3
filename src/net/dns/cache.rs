//! Answers of resolvers, kept for their time to live. Bounded in number and bytes; the oldest goes first.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{LowerName, RData, RecordType};
use tokio::time::Instant;

use super::message::Request;

/// Answers kept at most.
const MOST_ANSWERS: usize = 4096;

/// Bytes of answers kept at most.
const MOST_BYTES: usize = 4 << 20;

/// A longer answer is not kept.
const LONGEST_ANSWER: usize = 8 << 10;

/// Nothing is kept longer, whatever its time to live.
const LONGEST: Duration = Duration::from_hours(1);

/// The same for the absence of a name or type: it ends more often than a name does.
const LONGEST_NEGATIVE: Duration = Duration::from_mins(1);

/// What makes two questions the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    upstreams: Arc<[SocketAddr]>,
    name: LowerName,
    kind: RecordType,
    flags: [bool; 3],
}

impl Key {
    /// Returns the key of a question to some resolvers.
    pub(super) fn new(request: &Request, upstreams: &Arc<[SocketAddr]>) -> Self {
        let dnssec_ok = request.edns.is_some_and(|edns| edns.dnssec_ok);
        Self {
            upstreams: Arc::clone(upstreams),
            name: LowerName::new(request.query.name()),
            kind: request.query.query_type(),
            flags: [dnssec_ok, request.authentic_data, request.checking_disabled],
        }
    }
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Key, Entry>,
    /// In order of their arrival; an entry that was replaced has an older number here.
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// As it came: a fifth of the size of the parsed form.
    bytes: Box<[u8]>,
    stored: Instant,
    keep: Duration,
}

impl Cache {
    /// Returns the resolver's answer with the times to live that are left.
    pub(super) fn get(&self, key: &Key) -> Option<Message> {
        let (bytes, age) = {
            let kept = self.lock();
            let entry = kept.answers.get(key)?;
            let age = entry.stored.elapsed();
            if age >= entry.keep {
                return None;
            }
            (entry.bytes.clone(), age)
        };
        let mut message = Message::from_vec(&bytes).ok()?;
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Keeps an answer as long as it says, if it may be kept at all.
    pub(super) fn put(&self, key: Key, bytes: &[u8], message: &Message) {
        let Some(keep) = time_to_keep(message).filter(|keep| !keep.is_zero()) else { return };
        if bytes.len() > LONGEST_ANSWER {
            return;
        }
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        kept.bytes += bytes.len();
        kept.order.push_back((key.clone(), number));
        let entry = Entry { number, bytes: bytes.into(), stored: Instant::now(), keep };
        if let Some(old) = kept.answers.insert(key, entry) {
            kept.bytes -= old.bytes.len();
        }
        kept.shrink();
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.lock() = Kept::default();
    }

    /// Returns how many answers and bytes it holds.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let kept = self.lock();
        (kept.order.len(), kept.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn shrink(&mut self) {
        while self.order.len() > MOST_ANSWERS || self.bytes > MOST_BYTES {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.answers.get(&key).is_some_and(|entry| entry.number == number)
                && let Some(entry) = self.answers.remove(&key)
            {
                self.bytes -= entry.bytes.len();
            }
        }
    }
}

/// Returns how long an answer may be kept; `None`: not at all. Source: RFC 2308, 5 for what is not there.
fn time_to_keep(message: &Message) -> Option<Duration> {
    if message.metadata.truncation {
        return None;
    }
    let shortest = message.all_sections().map(|record| record.ttl).min();
    let seconds = |ttl: u32| Duration::from_secs(u64::from(ttl));
    match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => shortest.map(|ttl| seconds(ttl).min(LONGEST)),
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let minimum = message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
                _ => None,
            })?;
            Some(seconds(minimum.min(shortest.unwrap_or(0))).min(LONGEST_NEGATIVE))
        }
        _ => None,
    }
}
