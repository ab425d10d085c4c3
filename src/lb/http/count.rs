//! Counters of requests: for each service, each route and each pod the same ones. Their number is that of the table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::answer::Fault;
use super::refusal::Refusal;

/// Upper ends of the classes of durations, in microseconds; one more class is for what takes longer.
pub const DURATION_CLASSES: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];

/// Why the balancer answered in a pod's stead, in the order of [`HttpStats::by_refusal`].
pub const REFUSALS: [&str; 8] =
    ["none_ready", "not_taken", "broken", "late", "exhausted", "large_answer", "unclear_answer", "no_http"];

/// Counters of requests, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpStats {
    /// Requests under way.
    pub in_flight: u64,
    /// Requests that ended without an answer: the client was gone, or the answer broke off before it began.
    pub unanswered: u64,
    /// Answers by the first digit of their status, from 1 to 5.
    pub by_class: [u64; 5],
    /// Of these, answers of the balancer's own because no pod gave one: see [`REFUSALS`].
    pub by_refusal: [u64; REFUSALS.len()],
    /// Seconds since the last one of these.
    pub refused_secs: Option<u64>,
    /// Answers whose end did not reach the client.
    pub broken_off: u64,
    /// Answers by how long they took, from the request's head to their last byte: see [`DURATION_CLASSES`].
    pub by_duration: [u64; DURATION_CLASSES.len() + 1],
    /// Sum of these durations, in microseconds.
    pub micros: u64,
    /// Bytes of requests.
    pub sent: u64,
    /// Bytes of answers.
    pub received: u64,
}

/// Counters of requests while they count.
///
/// What nearly every request changes comes first and lies side by side: of a thousand rules none is in the caches.
#[derive(Debug, Default)]
#[repr(C)]
pub(in crate::lb) struct Tally {
    in_flight: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    micros: AtomicU64,
    by_class: [AtomicU64; 5],
    by_duration: [AtomicU64; DURATION_CLASSES.len() + 1],
    /// Requests that its rule, the first of some that share, has shared with the others.
    turns: AtomicU64,
    unanswered: AtomicU64,
    by_refusal: [AtomicU64; REFUSALS.len()],
    /// Milliseconds from [`EPOCH`] to the last one, and one more; 0: there was none.
    refused_ms: AtomicU64,
    broken_off: AtomicU64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ending {
    /// Status of its answer; 0: none.
    pub(super) status: u16,
    /// What it says, if it is the balancer's own.
    pub(super) refusal: Option<Refusal>,
    /// Whether all of the answer was passed on.
    pub(super) is_whole: bool,
    /// From the request's head to the end.
    pub(super) took: Duration,
    /// Bytes sent to the pod.
    pub(super) sent: u64,
    /// Bytes received from it.
    pub(super) received: u64,
}

impl Tally {
    /// Returns how many requests were shared before, and counts one more.
    pub(super) fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, ending: &Ending) {
        let Ending { status, refusal, is_whole, took, sent, received } = *ending;
        let count = |counter: &AtomicU64, by: u64| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        count(&self.sent, sent);
        count(&self.received, received);
        let Some(class) = usize::from(status / 100).checked_sub(1) else {
            count(&self.unanswered, 1);
            return;
        };
        count(&self.by_class[class.min(4)], 1);
        if let Some(place) = refusal.and_then(place) {
            count(&self.by_refusal[place], 1);
            self.refused_ms.store(now_ms() + 1, Ordering::Relaxed);
        }
        if !is_whole {
            count(&self.broken_off, 1);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        count(&self.by_duration[DURATION_CLASSES.partition_point(|end| *end < micros)], 1);
        count(&self.micros, micros);
    }

    /// Returns what was counted so far.
    pub(in crate::lb) fn stats(&self) -> HttpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpStats {
            in_flight: read(&self.in_flight),
            unanswered: read(&self.unanswered),
            by_class: self.by_class.each_ref().map(read),
            by_refusal: self.by_refusal.each_ref().map(read),
            refused_secs: read(&self.refused_ms).checked_sub(1).map(|then| now_ms().saturating_sub(then) / 1000),
            broken_off: read(&self.broken_off),
            by_duration: self.by_duration.each_ref().map(read),
            micros: read(&self.micros),
            sent: read(&self.sent),
            received: read(&self.received),
        }
    }
}

/// What times are counted from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_ms() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Returns the place among [`REFUSALS`]; `None`: it is not about pods.
fn place(refusal: Refusal) -> Option<usize> {
    match refusal {
        Refusal::NoneReady => Some(0),
        Refusal::NotTaken => Some(1),
        Refusal::Broken => Some(2),
        Refusal::Late => Some(3),
        Refusal::Exhausted => Some(4),
        Refusal::Answer(Fault::Large) => Some(5),
        Refusal::Answer(Fault::Unclear) => Some(6),
        Refusal::Answer(Fault::NoHttp) => Some(7),
        Refusal::Malformed
        | Refusal::NoRule
        | Refusal::Method
        | Refusal::SlowClient
        | Refusal::LongTarget
        | Refusal::LargeHead
        | Refusal::Coding
        | Refusal::Version => None,
    }
}

/// Counts one request, wherever it belongs, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Counting {
    tallies: [Option<Arc<Tally>>; 3],
    /// To be filled in as it becomes known.
    pub(super) ending: Ending,
}

impl Counting {
    /// Counts the request with a service, a route or a pod too.
    pub(super) fn with(&mut self, tally: &Arc<Tally>) {
        if let Some(free) = self.tallies.iter_mut().find(|free| free.is_none()) {
            tally.begin();
            *free = Some(Arc::clone(tally));
        }
    }

    /// Takes the request away from a pod that did not answer it: another one will.
    pub(super) fn without(&mut self, tally: &Arc<Tally>) {
        let same = |one: &&mut Option<Arc<Tally>>| one.as_ref().is_some_and(|one| Arc::ptr_eq(one, tally));
        if let Some(counted) = self.tallies.iter_mut().find(same).and_then(Option::take) {
            counted.end(&Ending::default());
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        for tally in self.tallies.iter().flatten() {
            tally.end(&self.ending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_everywhere_it_belongs_and_once() {
        let tallies: [Arc<Tally>; 3] = Default::default();
        let mut counting = Counting::default();
        counting.with(&tallies[0]);
        counting.with(&tallies[1]);
        assert_eq!(tallies[0].stats().in_flight, 1);
        counting.without(&tallies[1]);
        counting.with(&tallies[2]);
        counting.ending = Ending {
            status: 204,
            refusal: None,
            is_whole: true,
            took: Duration::from_millis(3),
            sent: 10,
            received: 20,
        };
        drop(counting);
        let [first, failed, last] = tallies.map(|tally| tally.stats());
        assert_eq!(first, last);
        let expected = (0, [0, 1, 0, 0, 0], 1, 3000, 10, 20);
        assert_eq!(
            (first.in_flight, first.by_class, first.by_duration[3], first.micros, first.sent, first.received),
            expected
        );
        assert_eq!((failed.in_flight, failed.unanswered, failed.by_class), (0, 1, [0; 5]));
    }

    #[test]
    fn every_duration_has_its_class() {
        let tally = Tally::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001, u64::MAX] {
            tally.begin();
            let refusal = Some(Refusal::Late);
            tally.end(&Ending { status: 999, refusal, took: Duration::from_micros(micros), ..Ending::default() });
        }
        let stats = tally.stats();
        assert_eq!(
            (stats.by_duration[0], stats.by_duration[1], stats.by_duration[12], stats.by_duration[13]),
            (2, 1, 1, 2)
        );
        assert_eq!((stats.by_class[4], stats.broken_off, stats.by_refusal), (6, 6, [0, 0, 0, 6, 0, 0, 0, 0]));
    }
}
