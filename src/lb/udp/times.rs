//! When a session of datagrams is over. Pure: the time is an argument.

use std::time::Duration;

use crate::host::datagrams::Remembered;

/// Silence after which a session is over that never got an answer.
const UNANSWERED: Duration = Duration::from_secs(10);

/// Silence after which any other is.
const IDLE: Duration = Duration::from_mins(1);

/// Time that passes before the kernel takes a flow for one that lasts: its two seconds, and one more to be sure.
const LASTING: Duration = Duration::from_secs(3);

/// The kernel's memory of a flow must outlive the session by this much.
const MARGIN: Duration = Duration::from_secs(5);

/// Silence after an answer that ends a session with an endpoint that has left the table…
const GOODBYE: Duration = Duration::from_secs(1);

/// …and the time that such an endpoint has for an answer.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// After how much silence sessions are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lb) struct Limits {
    unanswered: Duration,
    short: Duration,
    lasting: Duration,
}

impl Limits {
    /// Returns those of sessions whose datagrams come as they were sent.
    pub(in crate::lb) fn plain() -> Self {
        Self { unanswered: UNANSWERED, short: IDLE, lasting: IDLE }
    }

    /// Returns those of sessions whose datagrams the kernel rewrites for as long as it remembers their flow: an answer that
    /// is sent later would come from a port that the client does not know.
    pub(in crate::lb) fn rewritten(remembered: Remembered) -> Self {
        let within = |limit: Duration, memory: Duration| limit.min(memory.saturating_sub(MARGIN).max(memory / 2));
        Self {
            unanswered: within(UNANSWERED, remembered.short),
            short: within(IDLE, remembered.short),
            lasting: within(IDLE, remembered.lasting),
        }
    }
}

/// What came when in a session, since some fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Times {
    /// Its first datagram.
    pub(super) began: Duration,
    /// The latest one of the client.
    pub(super) asked: Duration,
    /// The first one of the client that no answer came after.
    pub(super) waits_since: Option<Duration>,
    /// The latest answer.
    pub(super) answered: Option<Duration>,
}

impl Times {
    /// Returns when the latest datagram came, either way.
    pub(super) fn last(self) -> Duration {
        self.asked.max(self.answered.unwrap_or_default())
    }

    /// Returns whether the session is over at `now`. `retired` says that its endpoint has left the table.
    pub(super) fn is_over(self, now: Duration, limits: Limits, retired: bool) -> bool {
        let since = |moment: Duration| now.saturating_sub(moment);
        if retired {
            return match self.waits_since {
                Some(asked) => since(asked) >= LAST_ANSWER,
                None => since(self.last()) >= GOODBYE,
            };
        }
        let limit = match self.answered {
            None => limits.unanswered,
            Some(_) if self.last().saturating_sub(self.began) >= LASTING => limits.lasting,
            Some(_) => limits.short,
        };
        since(self.last()) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Reads `0? 1! 5?`: questions and answers with their seconds, and says for how many seconds after the last the
    /// session is not over.
    #[track_caller]
    fn check(text: &str, limits: Limits, retired: bool, expected: u64) {
        let mut times = Times::default();
        for word in text.split_whitespace() {
            let (at, what) = word.split_at(word.len() - 1);
            let at = secs(at.parse().expect("seconds"));
            if what == "?" {
                times.asked = at;
                times.waits_since = times.waits_since.or(Some(at));
            } else {
                (times.answered, times.waits_since) = (Some(at), None);
            }
        }
        let last = times.last();
        let over = (0..200).find(|after| times.is_over(last + secs(*after), limits, retired)).expect("some day");
        assert_eq!(over, expected, "{text}");
    }

    #[test]
    fn silence_ends_a_session_sooner_where_no_answer_ever_came() {
        let plain = Limits::plain();
        check("0?", plain, false, 10);
        check("0? 1? 30?", plain, false, 10);
        check("0? 1!", plain, false, 60);
        check("0? 1! 30?", plain, false, 60);
        check("0? 5! 5!", plain, false, 60);
    }

    #[test]
    fn the_kernels_memory_outlives_the_session() {
        let usual = Limits::rewritten(Remembered { short: secs(30), lasting: secs(120) });
        check("0? 0!", usual, false, 25);
        check("0? 2! 2?", usual, false, 25);
        check("0? 1! 3?", usual, false, 60);
        check("0?", usual, false, 10);
        let hasty = Limits::rewritten(Remembered { short: secs(4), lasting: secs(8) });
        check("0? 0!", hasty, false, 2);
        check("0? 3!", hasty, false, 4);
        check("0?", hasty, false, 2);
    }

    #[test]
    fn an_endpoint_that_leaves_may_still_answer() {
        let plain = Limits::plain();
        check("0? 0!", plain, true, 1);
        check("0?", plain, true, 2);
        check("0? 1! 9? 10?", plain, true, 1); // asked at 9, and again at 10
        check("0? 1? 30?", plain, true, 0); // nobody ever answered: nothing is lost by going elsewhere
    }
}
