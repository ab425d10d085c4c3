//! What several hosts say, put in the order of its times as far as their ways allow.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What one host says waits this long for what another said earlier, whose way is longer.
const REORDER: Duration = Duration::from_millis(80);
/// So much waits at most.
const MOST_WAITING: usize = 4096;

/// What was said and waits for what was said earlier elsewhere, by its time.
#[derive(Debug)]
pub(crate) struct Waiting<K, T> {
    said: Vec<(K, T)>,
    /// When it is shown.
    due: Instant,
}

impl<K: Ord, T> Waiting<K, T> {
    /// Nothing waits.
    pub(crate) fn new() -> Self {
        Self { said: Vec::new(), due: Instant::now() }
    }

    /// Takes in what was said at `time`.
    pub(crate) fn push(&mut self, time: K, said: T) {
        if self.said.is_empty() {
            self.due = Instant::now() + REORDER;
        }
        self.said.push((time, said));
    }

    /// Returns whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// Returns whether no more may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.said.len() >= MOST_WAITING
    }

    /// Returns whether what waits has waited long enough.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_empty() && Instant::now() >= self.due
    }

    /// Waits until [`Waiting::is_due`]; for ever where nothing waits.
    pub(crate) async fn due(&self) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        sleep_until(self.due).await;
    }

    /// Returns all that waits, earliest first; of one time in the order in which it came.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = T> + use<K, T> {
        let mut said = std::mem::take(&mut self.said);
        said.sort_by(|(a, _), (b, _)| a.cmp(b));
        said.into_iter().map(|(_, said)| said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_said_earlier_comes_first_if_it_comes_soon() {
        let mut waiting = Waiting::new();
        waiting.push(3, "late");
        tokio::time::advance(REORDER / 2).await;
        assert!(!waiting.is_due());
        waiting.push(1, "early");
        waiting.push(3, "as late");
        waiting.due().await;
        assert!(waiting.is_due());
        assert_eq!(waiting.take().collect::<Vec<_>>(), ["early", "late", "as late"]);
        assert!(waiting.is_empty() && !waiting.is_due());
        tokio::time::timeout(REORDER * 100, waiting.due()).await.expect_err("nothing is ever due");
        (0..MOST_WAITING).for_each(|number| waiting.push(0, if number % 2 == 0 { "even" } else { "odd" }));
        assert!(waiting.is_full());
    }
}
