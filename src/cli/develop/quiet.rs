//! When changes are acted on: once there was silence for a moment, so that what an editor or a check-out writes is one batch.

use std::time::Duration;

use tokio::time::Instant;

/// Silence that ends a batch. Source: Docker Compose 2.40, pkg/watch/debounce.go `QuietPeriod`.
pub(crate) const SILENCE: Duration = Duration::from_millis(500);

/// A batch ends after this at the latest: something may be written for ever, such as a log.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// When something changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quiet {
    first_and_last: Option<(Instant, Instant)>,
}

impl Quiet {
    /// Takes in that something changed.
    pub(crate) fn heard(&mut self, now: Instant) {
        let first = self.first_and_last.map_or(now, |(first, _)| first);
        self.first_and_last = Some((first, now));
    }

    /// Returns when to act; `None`: nothing has changed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.first_and_last.map(|(first, last)| (last + SILENCE).min(first + LONGEST))
    }

    /// Begins anew.
    pub(crate) fn done(&mut self) {
        self.first_and_last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_with_silence_but_not_never() {
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        for (heard, due) in [
            (&[][..], None),
            (&[0], Some(500)),
            (&[0, 100, 400], Some(900)),
            (&[0, 400, 800, 1200, 1600, 2000, 2400, 2800, 3200, 3600, 4000, 4400, 4800], Some(5000)),
        ] {
            let mut quiet = Quiet::default();
            for millis in heard {
                quiet.heard(at(*millis));
            }
            assert_eq!(quiet.due(), due.map(at), "{heard:?}");
            quiet.done();
            assert_eq!(quiet.due(), None);
        }
    }
}
