//! Waiting for a condition, with a deadline that says what was last seen.
#![expect(clippy::disallowed_methods, reason = "the lab runs in real time: there is no clock to pause")]

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks, at least.
const PAUSE: Duration = Duration::from_millis(20);

/// Pause between two looks, at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);

/// Returns the pause before the next look at what is waited for so long: a look is a program that runs in a host, and who looks all
/// the time takes from the others' processor. What comes is seen at most a tenth later than it could be.
fn pause_after(waited: Duration) -> Duration {
    (waited / 10).clamp(PAUSE, LONGEST_PAUSE)
}

/// Looks until `look` gives `Ok`, and returns it.
///
/// # Panics
/// When `within` passes, with `what` and the last `Err`.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > within => panic!("{what}: not within {within:?}; last seen: {seen:?}"),
            Err(_) => thread::sleep(pause_after(start.elapsed())),
        }
    }
}

/// Looks until `look` returns `wanted`.
#[track_caller]
pub(crate) fn becomes<T: PartialEq + Debug>(within: Duration, what: &str, wanted: &T, mut look: impl FnMut() -> T) {
    eventually(within, what, || {
        let seen = look();
        if seen == *wanted { Ok(()) } else { Err(seen) }
    });
}

/// Checks that `look` goes on returning the same for as long as `during`.
#[track_caller]
pub(crate) fn stays<T: PartialEq + Debug>(during: Duration, what: &str, mut look: impl FnMut() -> T) {
    let (start, first) = (Instant::now(), look());
    while start.elapsed() < during {
        assert_eq!(look(), first, "{what}: changed after {:?}", start.elapsed());
        thread::sleep(PAUSE);
    }
}

/// Runs `work` and returns what it gave and how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// Returns `count` seconds.
pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Pauses between two acts of a scenario whose distance matters (kills of a series); never to wait for something.
pub(crate) fn apart(by: Duration) {
    thread::sleep(by);
}
