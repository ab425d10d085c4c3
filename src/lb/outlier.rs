//! When an endpoint that answers badly is passed over, and when it is tried again. Pure: time is an argument.
//!
//! Failures count in a row, also over a pause: one that has not answered well since is passed over again with the next
//! failure, for twice as long. One good answer makes all forgotten.

use std::time::Duration;

use crate::model::Ejection;

/// The longest pause is so many times the first one.
const LONGEST: u32 = 10;

/// What is known of one port of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlier {
    /// Failures in a row.
    pub failures: u32,
    /// Pauses since it answered well.
    pub pauses: u32,
    /// Until when it is passed over, since some fixed moment.
    pub until: Duration,
}

/// What is known of the others when one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Others {
    /// All endpoints of the service, this one included.
    pub all: usize,
    /// Of these, those that are passed over, without this one.
    pub passed_over: usize,
}

impl Outlier {
    /// Returns the state after one more failure at `now`. The others are looked at only when it might be passed over.
    #[must_use]
    pub fn failed(self, rule: &Ejection, now: Duration, others: impl FnOnce() -> Others) -> Self {
        let failed = Self { failures: self.failures.saturating_add(1), ..self };
        // Requests that were under way when it was passed over say nothing new.
        if failed.failures < rule.failures || self.is_passed_over(now) || !others().allow_one_more(rule.at_most) {
            return failed;
        }
        let times = (1_u32 << self.pauses.min(16)).min(LONGEST);
        Self { pauses: self.pauses.saturating_add(1), until: now + rule.pause.saturating_mul(times), ..failed }
    }

    /// Returns whether others are preferred at `now`.
    pub fn is_passed_over(self, now: Duration) -> bool {
        now < self.until
    }
}

impl Others {
    /// Returns whether one more may be passed over where `at_most` percent may: one in any case, but never the last.
    fn allow_one_more(self, at_most: u8) -> bool {
        let share = (self.all * usize::from(at_most) / 100).max(1);
        self.passed_over < share.min(self.all.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Ejection = Ejection { failures: 3, pause: Duration::from_secs(10), at_most: 50 };
    const FOUR: Others = Others { all: 4, passed_over: 0 };

    #[test]
    fn failures_in_a_row_are_followed_by_pauses_that_double() {
        let mut now = Duration::from_secs(100);
        let mut outlier = Outlier::default();
        for _ in 0..2 {
            outlier = outlier.failed(&RULE, now, || panic!("nobody else matters yet"));
            assert!(!outlier.is_passed_over(now));
        }
        let mut pauses = Vec::new();
        for _ in 0..6 {
            outlier = outlier.failed(&RULE, now, || FOUR);
            assert!(outlier.is_passed_over(now));
            // A late failure of before changes nothing.
            assert_eq!(outlier.failed(&RULE, now, || FOUR).until, outlier.until);
            pauses.push(outlier.until.saturating_sub(now).as_secs());
            now = outlier.until;
            assert!(!outlier.is_passed_over(now));
        }
        assert_eq!(pauses, [10, 20, 40, 80, 100, 100]);
    }

    #[test]
    fn no_more_than_a_share_and_never_all() {
        #[track_caller]
        fn check(at_most: u8, all: usize, most: usize) {
            let allowed =
                (0..=all).take_while(|passed_over| Others { all, passed_over: *passed_over }.allow_one_more(at_most));
            assert_eq!(allowed.count(), most, "{at_most} % of {all}");
        }
        check(50, 1, 0);
        check(100, 1, 0);
        check(1, 2, 1);
        check(50, 2, 1);
        check(100, 2, 1);
        check(50, 3, 1);
        check(50, 4, 2);
        check(10, 9, 1);
        check(100, 9, 8);
        check(50, 0, 0);
    }

    #[test]
    fn one_that_may_not_be_passed_over_is_once_others_are_back() {
        let now = Duration::from_secs(1);
        let full = Others { all: 2, passed_over: 1 };
        let mut outlier = Outlier::default();
        for _ in 0..9 {
            outlier = outlier.failed(&RULE, now, || full);
            assert!(!outlier.is_passed_over(now));
        }
        assert_eq!(outlier.pauses, 0);
        assert!(outlier.failed(&RULE, now, || FOUR).is_passed_over(now));
    }
}
