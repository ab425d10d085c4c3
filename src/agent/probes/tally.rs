//! From answers in a row to a verdict. Pure: time is an argument.

use std::time::Duration;

use crate::model::Probe;
use crate::plan::Health;

/// How long a run that never answered well counts as one that starts: as long as an engine's health check with its own
/// defaults takes to call it unhealthy. Whoever waits for it is told then, rather than for ever.
pub(super) const STARTING: Duration = Duration::from_secs(90);

/// Answers of one run of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    health: Health,
    /// Good ones in a row, and bad ones; one of them is 0.
    good: u32,
    bad: u32,
    /// When it was first asked, since some fixed moment.
    since: Duration,
}

impl Tally {
    /// Begins with a verdict that is known.
    pub(super) fn new(health: Health, since: Duration) -> Self {
        Self { health, good: 0, bad: 0, since }
    }

    /// Returns whether it never answered well.
    pub(super) fn is_starting(&self) -> bool {
        self.health == Health::Starting
    }

    /// Returns the verdict after one more answer at `now`.
    pub(super) fn note(&mut self, probe: &Probe, is_good: bool, now: Duration) -> Health {
        if is_good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            if self.good >= probe.successes {
                self.health = Health::Healthy;
            }
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            let starts = self.health == Health::Starting && now.saturating_sub(self.since) < STARTING;
            if self.bad >= probe.failures && !starts {
                self.health = Health::Unhealthy;
            }
        }
        self.health
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProbeKind;

    /// Verdicts after answers a second apart: `+` good, `-` bad, `.` a minute without any.
    #[track_caller]
    fn check(from: Health, answers: &str, expected: &str) {
        let second = Duration::from_secs(1);
        let probe =
            Probe { kind: ProbeKind::Tcp, port: 80, interval: second, timeout: second, failures: 3, successes: 2 };
        let (mut tally, mut now, mut told) = (Tally::new(from, Duration::ZERO), Duration::ZERO, String::new());
        for answer in answers.chars() {
            if answer == '.' {
                now += Duration::from_mins(1);
                continue;
            }
            now += second;
            told.push(match tally.note(&probe, answer == '+', now) {
                Health::Healthy => 'h',
                Health::Unhealthy => 'u',
                Health::Starting | Health::None => 's',
            });
        }
        assert_eq!(told, expected, "{answers} from {from:?}");
    }

    #[test]
    fn verdicts_need_their_number_of_answers_in_a_row() {
        check(Health::Starting, "++", "sh");
        check(Health::Starting, "+-++", "sssh");
        check(Health::Healthy, "--+---", "hhhhhu");
        check(Health::Healthy, "---+-++", "hhuuuuh");
        check(Health::Unhealthy, "-++", "uuh");
    }

    #[test]
    fn a_slow_start_is_no_failure_until_it_takes_too_long() {
        check(Health::Starting, "-----++", "ssssssh");
        check(Health::Starting, "---.---.-", "ssssssu");
    }
}
