//! A target's breaker: closed while it takes connections, open for a while after failures in a row, then tried by one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::Breaker;

/// Whether connections to a target are tried.
#[derive(Debug, Default)]
pub(super) struct Switch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until when it is left alone; `None`: it is not.
    open_until: Option<Duration>,
    last_error: Option<String>,
}

impl Switch {
    /// Returns whether a connection may be tried at `now`. After the pause one may at a time: the next has to wait for another
    /// pause, or for its success.
    pub(super) fn may_try(&self, now: Duration, pause: Duration) -> bool {
        let mut state = self.lock();
        match state.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + pause);
                true
            }
        }
    }

    /// Notes a connection that was taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        (state.failures, state.open_until, state.last_error) = (0, None, None);
    }

    /// Notes one that was not, at `now`.
    pub(super) fn fail(&self, now: Duration, breaker: Breaker, reason: String) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(reason);
        if breaker.failures > 0 && state.failures >= breaker.failures {
            state.open_until = Some(now + breaker.pause);
        }
    }

    /// Notes why one that was taken came to nothing: it is told, and counts for no failure in a row.
    pub(super) fn note(&self, reason: String) {
        self.lock().last_error = Some(reason);
    }

    /// Returns whether it is left alone at `now`.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        self.lock().open_until.is_some_and(|until| now < until)
    }

    /// Returns what the last failure was, if nothing succeeded since.
    pub(super) fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKER: Breaker = Breaker { failures: 2, pause: Duration::from_secs(10) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fail(switch: &Switch, seconds: u64) {
        switch.fail(at(seconds), BREAKER, "refused".to_owned());
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_tries_after_the_pause() {
        let switch = Switch::default();
        fail(&switch, 0);
        assert!(switch.may_try(at(0), BREAKER.pause));
        fail(&switch, 0);
        assert!(switch.is_open(at(9)) && !switch.may_try(at(9), BREAKER.pause));
        assert!(switch.may_try(at(10), BREAKER.pause), "one tries");
        assert!(!switch.may_try(at(10), BREAKER.pause), "the next waits for what comes of it");
        fail(&switch, 10);
        assert!(!switch.may_try(at(19), BREAKER.pause));
        assert!(switch.may_try(at(20), BREAKER.pause));
        switch.close();
        assert!(switch.may_try(at(20), BREAKER.pause) && switch.may_try(at(20), BREAKER.pause));
        assert_eq!(switch.last_error(), None);
    }

    #[test]
    fn a_success_starts_the_count_anew_and_none_means_never() {
        let switch = Switch::default();
        fail(&switch, 0);
        switch.close();
        fail(&switch, 0);
        assert!(!switch.is_open(at(0)));
        let never = Breaker { failures: 0, ..BREAKER };
        for _ in 0..100 {
            switch.fail(at(0), never, String::new());
        }
        assert!(switch.may_try(at(0), BREAKER.pause));
    }
}
