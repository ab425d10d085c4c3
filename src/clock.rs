//! Wall time behind a trait, so that tests can set it. Waits are tokio's, which tests can pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall time.
pub trait Clock: Send + Sync {
    /// Returns the time since 1970-01-01 UTC; zero if the clock stands before that.
    fn now(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A clock that stands until it is moved.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

#[cfg(any(test, feature = "testing"))]
impl ManualClock {
    /// Moves the clock forward.
    ///
    /// # Panics
    /// When moved by more than 500 years.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("tests move by less than 500 years");
        self.0.fetch_add(nanos, std::sync::atomic::Ordering::SeqCst);
    }

    /// Sets the clock back, as somebody does who finds it to be wrong.
    ///
    /// # Panics
    /// When set to before 1970.
    pub fn set_back(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("tests move by less than 500 years");
        let before = self.0.fetch_sub(nanos, std::sync::atomic::Ordering::SeqCst);
        assert!(before >= nanos, "the clock would stand before 1970");
    }
}

#[cfg(any(test, feature = "testing"))]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
