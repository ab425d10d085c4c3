//! Which endpoint gets a connection. Pure: load, failures, time and luck are arguments.
//!
//! The order of wishes: an endpoint that has not just failed before one that has; one on this host before one
//! elsewhere; then the one with the fewest open connections. Endpoints that failed are last, never excluded: when all
//! have failed, one of them is still the best there is.
//!
//! So connections spill over to other hosts when no endpoint here is ready, or when all that are have just failed, and
//! come back as soon as one here serves again. The load here does not count yet: an endpoint that is ready but busy is
//! preferred to an idle one elsewhere.

use std::time::Duration;

/// Up to this many endpoints all are compared. Beyond, two drawn by lot are: nearly as even (the "power of two
/// choices", Mitzenmacher 2001) at a cost that does not grow.
pub const FULL_SCAN: usize = 32;

/// Draws before a large set is scanned after all: it then has few endpoints of the best class.
const DRAWS: usize = 8;

/// Time for which an endpoint is avoided after its first failed connect; doubled with each further one in a row.
///
/// Short, because the next table brings the truth within milliseconds: this only covers the time until then, and
/// ports on which nothing listens.
pub const MARK_DOWN: Duration = Duration::from_secs(1);

/// Longest time for which an endpoint is avoided.
pub const MARK_DOWN_MAX: Duration = Duration::from_secs(10);

/// An endpoint as the choice sees it. The order of the fields is the order of wishes; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// It failed a short while ago.
    pub marked_down: bool,
    /// It is on another host.
    pub remote: bool,
    /// Open connections to it.
    pub in_flight: usize,
}

impl Candidate {
    /// Whether no other candidate can be of a better class.
    fn is_best_class(self) -> bool {
        !self.marked_down && !self.remote
    }
}

/// Returns the index, below `count`, of the endpoint to try next.
///
/// `candidate` describes the endpoint at an index, or `None` if it is not to be taken (tried before, or going away).
/// `luck` breaks ties and draws from large sets; with the same arguments the result is the same.
pub fn pick(count: usize, luck: u64, candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    if count > FULL_SCAN
        && let Some(index) = draw_two(count, luck, &candidate)
    {
        return Some(index);
    }
    scan(count, luck, candidate)
}

/// The best of all, beginning at a random one so that equals take turns.
fn scan(count: usize, luck: u64, candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let start = below(luck, count);
    (0..count)
        .map(|offset| (start + offset) % count)
        .filter_map(|index| candidate(index).map(|found| (found, index)))
        .min_by_key(|(found, _)| *found)
        .map(|(_, index)| index)
}

/// The better of two of the best class, if two are soon found.
fn draw_two(count: usize, luck: u64, candidate: &impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let mut first: Option<(Candidate, usize)> = None;
    let mut state = luck;
    for _ in 0..DRAWS {
        state = mix(state);
        let index = below(state, count);
        let Some(found) = candidate(index).filter(|found| found.is_best_class()) else { continue };
        match first {
            None => first = Some((found, index)),
            Some((_, other)) if other == index => {}
            Some(other) => return Some(other.min((found, index)).1),
        }
    }
    None
}

/// Maps a random number to `0..count`; 0 for an empty range.
fn below(random: u64, count: usize) -> usize {
    // The high half times the count: even to one part in four thousand million.
    usize::try_from(((random >> 32) * count as u64) >> 32).unwrap_or(0)
}

/// Returns the next of a sequence of numbers that look random. Source: Steele, Lea, Flood 2014, "`SplitMix64`".
pub fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Failed connects to one port of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// In a row.
    pub count: u32,
    /// Until when the endpoint is avoided, since some fixed moment.
    pub until: Duration,
}

impl Failures {
    /// Returns the state after one more failure at `now`.
    #[must_use]
    pub fn another(self, now: Duration) -> Self {
        let count = self.count.saturating_add(1);
        let doubled = MARK_DOWN.saturating_mul(1 << (count - 1).min(16));
        Self { count, until: now + doubled.min(MARK_DOWN_MAX) }
    }

    /// Returns whether the endpoint is avoided at `now`.
    pub fn is_down(self, now: Duration) -> bool {
        now < self.until
    }
}

/// What is known of a port when every endpoint has refused it or did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortHistory {
    /// A connect to this port succeeded before, on one of the endpoints tried.
    pub served_before: bool,
    /// How long the youngest of the endpoints tried has been ready.
    pub youngest: Duration,
}

impl PortHistory {
    /// Returns whether a refused connection is kept and tried again for a while.
    ///
    /// Yes, when the endpoint may still be starting (containers without health check are ready before their program
    /// listens) or has just died (a port that served before). A port that nothing ever listened on is refused at once,
    /// as without a load balancer.
    pub fn is_worth_waiting(self, patience: Duration) -> bool {
        self.served_before || self.youngest < patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Candidates as text: `l3` local with 3 open connections, `r0` remote, `!` marked down, `-` not to be taken.
    fn candidates(text: &str) -> Vec<Option<Candidate>> {
        text.split_whitespace()
            .map(|word| {
                let (marked_down, word) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest));
                let remote = word.starts_with('r');
                let in_flight = word.get(1..)?.parse().ok()?;
                Some(Candidate { marked_down, remote, in_flight })
            })
            .collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[usize]) {
        let all = candidates(text);
        let mut seen: Vec<usize> =
            (0..200).map(mix).filter_map(|luck| pick(all.len(), luck, |index| all[index])).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn the_order_of_wishes() {
        check("", &[]);
        check("-", &[]);
        check("l0", &[0]);
        check("l2 l1 l3", &[1]);
        check("l1 l1 l3", &[0, 1]);
        check("r0 l9", &[1]);
        check("!l0 l9", &[1]);
        check("!l0 r9", &[1]);
        check("!l5 !l4", &[1]);
        check("!l5 !r4", &[0]);
        check("- l9 -", &[1]);
        check("r3 r2 -", &[1]);
    }

    #[test]
    fn connections_spill_over_only_when_nothing_here_serves() {
        check("l900 r0", &[0]);
        check("r0 r0 l900", &[2]);
        check("!l0 r9 r8", &[2]);
        check("- r9 r9", &[1, 2]);
        check("!l0 !r0", &[0]);
        check("!l1 l9 r0", &[1]);
    }

    #[test]
    fn large_sets_take_the_better_of_two() {
        let busy_first = |index: usize| Some(Candidate { marked_down: false, remote: false, in_flight: 100 - index });
        for luck in (0..1000).map(mix) {
            assert_ne!(pick(100, luck, busy_first), Some(0), "the busiest of all can never be the better of two");
        }
    }

    #[test]
    fn one_good_endpoint_among_many_is_found() {
        let one = |index: usize| Some(Candidate { marked_down: index != 77, remote: false, in_flight: 0 });
        for luck in (0..1000).map(mix) {
            assert_eq!(pick(100, luck, one), Some(77));
        }
    }

    #[test]
    fn equals_get_equal_shares() {
        for count in [3, FULL_SCAN, FULL_SCAN + 68] {
            let mut load = vec![0_usize; count];
            for luck in 0..count as u64 * 50 {
                let found =
                    |index: usize| Some(Candidate { marked_down: false, remote: false, in_flight: load[index] });
                let index = pick(count, mix(luck), found).expect("all may be taken");
                load[index] += 1;
            }
            let (least, most) = (load.iter().min().copied(), load.iter().max().copied());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 6), "{count}: {least:?} to {most:?}");
        }
    }

    #[test]
    fn marks_double_up_to_a_limit() {
        let at = Duration::from_secs(100);
        let mut failures = Failures::default();
        let mut waits = Vec::new();
        for _ in 0..6 {
            failures = failures.another(at);
            waits.push(failures.until.saturating_sub(at).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert!(failures.is_down(at) && !failures.is_down(at + MARK_DOWN_MAX));
    }

    #[test]
    fn only_ports_that_may_come_up_are_waited_for() {
        let patience = Duration::from_secs(3);
        let check = |served_before, secs, expected| {
            let history = PortHistory { served_before, youngest: Duration::from_secs(secs) };
            assert_eq!(history.is_worth_waiting(patience), expected, "{history:?}");
        };
        check(false, 0, true);
        check(false, 60, false);
        check(true, 60, true);
    }

    fn any_candidate() -> impl Strategy<Value = Option<Candidate>> {
        proptest::option::weighted(
            0.8,
            (any::<bool>(), any::<bool>(), 0_usize..5).prop_map(|(marked_down, remote, in_flight)| Candidate {
                marked_down,
                remote,
                in_flight,
            }),
        )
    }

    proptest! {
        #[test]
        fn what_is_picked_may_be_taken_and_something_is(
            all in proptest::collection::vec(any_candidate(), 0..80),
            luck: u64,
        ) {
            let picked = pick(all.len(), luck, |index| all[index]);
            prop_assert_eq!(picked.is_some(), all.iter().any(Option::is_some));
            if let Some(index) = picked {
                prop_assert!(all[index].is_some());
            }
        }

        #[test]
        fn the_class_is_always_the_best_there_is(
            all in proptest::collection::vec(any_candidate(), 1..80),
            luck: u64,
        ) {
            let class = |found: &Candidate| (found.marked_down, found.remote);
            let best = all.iter().flatten().map(class).min();
            let picked = pick(all.len(), luck, |index| all[index]).and_then(|index| all[index]);
            prop_assert_eq!(picked.as_ref().map(class), best);
        }

        #[test]
        fn alternatives_visit_every_endpoint_once(count in 1_usize..60, luck: u64) {
            let mut tried = std::collections::BTreeSet::new();
            let free = Candidate { marked_down: false, remote: false, in_flight: 0 };
            while let Some(index) = pick(count, mix(luck), |index| (!tried.contains(&index)).then_some(free)) {
                prop_assert!(tried.insert(index));
            }
            prop_assert_eq!(tried.len(), count);
        }
    }
}
