//! The choice of an endpoint, by tables, by counting, and by properties.

use super::*;
use proptest::prelude::*;

/// Candidates as text: `l3` local with 3 open connections, `r0` remote, `!` marked down, `~` passed over, `0` of a host
/// without a share, `*50` with that share, `-` not to be taken.
fn candidates(text: &str) -> Vec<Option<Candidate>> {
    text.split_whitespace()
        .map(|word| {
            let (marked_down, word) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest));
            let (passed_over, word) = word.strip_prefix('~').map_or((false, word), |rest| (true, rest));
            let (spare, word) = word.strip_prefix('0').map_or((false, word), |rest| (true, rest));
            let remote = word.starts_with('r');
            let (load, weight) = word.get(1..)?.split_once('*').unwrap_or((word.get(1..)?, "100"));
            let class = Class { marked_down, passed_over, spare, remote };
            let (in_flight, weight) = (load.parse().ok()?, weight.parse().ok()?);
            Some(Candidate { class, in_flight, weight, seed: 0 })
        })
        .collect()
}

fn least(luck: u64) -> Choice {
    Choice { by: By::LeastConnections, is_weighted: false, luck }
}

fn free() -> Candidate {
    Candidate { class: Class::default(), in_flight: 0, weight: 100, seed: 0 }
}

#[track_caller]
fn check(text: &str, expected: &[usize]) {
    let all = candidates(text);
    let mut seen: Vec<usize> =
        (0..200).map(mix).filter_map(|luck| pick(all.len(), least(luck), |index| all[index])).collect();
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
    check("~l0 r9", &[1]);
    check("~l0 !l0", &[0]);
    check("~l1 ~l0", &[1]);
    check("0l0 l9", &[1]);
    check("0l0 ~l0", &[0]);
    check("0l0 0r0", &[0]);
}

/// How often each is picked in 3,000 choices that differ in luck, turn and key.
fn shares(text: &str, by: fn(u64) -> By) -> Vec<usize> {
    let mut all = candidates(text);
    for (number, found) in all.iter_mut().enumerate() {
        if let Some(found) = found {
            found.seed = stable_hash(&[u8::try_from(number).expect("few")]);
        }
    }
    let is_weighted = text.contains('*');
    let mut counts = vec![0; all.len()];
    for number in 0..3000 {
        let choice = Choice { by: by(number), is_weighted, luck: mix(number) };
        counts[pick(all.len(), choice, |index| all[index]).expect("one may be taken")] += 1;
    }
    counts
}

#[track_caller]
fn check_shares(text: &str, by: fn(u64) -> By, expected: &[usize], tolerance: usize) {
    let found = shares(text, by);
    let fits = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= tolerance);
    assert!(fits, "{text}: {found:?} instead of {expected:?}");
}

#[test]
fn turns_are_taken_one_after_the_other_whatever_the_load() {
    check_shares("l9 l0 l5", By::Turn, &[1000, 1000, 1000], 0);
    check_shares("l0 !l0 r0 l0", By::Turn, &[1500, 0, 0, 1500], 0);
    check_shares("r0 - r0", By::Turn, &[1500, 0, 1500], 0);
    let all = candidates("l0 l0 l0");
    let turn = |number| pick(3, Choice { by: By::Turn(number), ..least(0) }, |index| all[index]);
    assert_eq!([0, 1, 2, 3].map(turn), [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn the_better_of_two_is_never_the_worst_of_all() {
    check_shares("l9 l0 l0", |_| By::PowerOfTwo, &[0, 1500, 1500], 150);
    check_shares("l0", |_| By::PowerOfTwo, &[3000], 0);
    check_shares("l1 !l0", |_| By::PowerOfTwo, &[3000, 0], 0);
}

#[test]
fn hosts_get_their_shares() {
    for by in [|_| By::LeastConnections, |_| By::PowerOfTwo, By::Turn, By::Key] {
        check_shares("l0*50 l0*100", by, &[1000, 2000], 120);
        check_shares("l0*100 l0*100 l0*400", by, &[500, 500, 2000], 120);
        check_shares("0l0*1 l0*10", by, &[0, 3000], 0);
    }
    check_shares("l0*50 l0*100", By::Turn, &[1000, 2000], 2);
    // Who is busy for his share gets less.
    check_shares("l9*50 l0*100", |_| By::LeastConnections, &[333, 2667], 120);
}

#[test]
fn keys_are_spread_evenly() {
    check_shares("l0 l0 l0", By::Key, &[1000, 1000, 1000], 120);
    check_shares("l9 !l0 l0", By::Key, &[1500, 0, 1500], 120);
}

#[test]
fn numbers_of_bytes_never_change() {
    // From the authors' own table: a key would find another pod after an update otherwise.
    assert_eq!(stable_hash(b""), 0xCBF2_9CE4_8422_2325);
    assert_eq!(stable_hash(b"a"), 0xAF63_DC4C_8601_EC8C);
    assert_eq!(stable_hash(b"foobar"), 0x8594_4171_F739_67E8);
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
    let busy_first = |index: usize| Some(Candidate { in_flight: 100 - index, ..free() });
    for luck in (0..1000).map(mix) {
        assert_ne!(pick(100, least(luck), busy_first), Some(0), "the busiest of all can never be the better of two");
    }
}

#[test]
fn one_good_endpoint_among_many_is_found() {
    let one = |index: usize| {
        let class = Class { marked_down: index != 77, ..Class::default() };
        Some(Candidate { class, ..free() })
    };
    for luck in (0..1000).map(mix) {
        assert_eq!(pick(100, least(luck), one), Some(77));
        let two = Choice { by: By::PowerOfTwo, ..least(luck) };
        assert_eq!(pick(100, two, one), Some(77));
    }
}

#[test]
fn equals_get_equal_shares() {
    for count in [3, FULL_SCAN, FULL_SCAN + 68] {
        let mut load = vec![0_usize; count];
        for luck in 0..count as u64 * 50 {
            let found = |index: usize| Some(Candidate { in_flight: load[index], ..free() });
            let index = pick(count, least(mix(luck)), found).expect("all may be taken");
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
    let bits = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let class =
        bits.prop_map(|(marked_down, passed_over, spare, remote)| Class { marked_down, passed_over, spare, remote });
    let all = (class, 0_usize..5, 1_u32..200, any::<u64>());
    let candidate = all.prop_map(|(class, in_flight, weight, seed)| Candidate { class, in_flight, weight, seed });
    proptest::option::weighted(0.8, candidate)
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let by = prop_oneof![
        Just(By::LeastConnections),
        Just(By::PowerOfTwo),
        any::<u64>().prop_map(By::Turn),
        any::<u64>().prop_map(By::Key),
    ];
    (by, any::<bool>(), any::<u64>()).prop_map(|(by, is_weighted, luck)| Choice { by, is_weighted, luck })
}

proptest! {
    #[test]
    fn what_is_picked_may_be_taken_and_something_is(
        all in proptest::collection::vec(any_candidate(), 0..80),
        choice in any_choice(),
    ) {
        let picked = pick(all.len(), choice, |index| all[index]);
        prop_assert_eq!(picked.is_some(), all.iter().any(Option::is_some));
        if let Some(index) = picked {
            prop_assert!(all[index].is_some());
        }
    }

    #[test]
    fn the_class_is_always_the_best_there_is(
        all in proptest::collection::vec(any_candidate(), 1..80),
        choice in any_choice(),
    ) {
        let class = |found: &Candidate| found.class;
        let best = all.iter().flatten().map(class).min();
        let picked = pick(all.len(), choice, |index| all[index]).and_then(|index| all[index]);
        prop_assert_eq!(picked.as_ref().map(class), best);
    }

    #[test]
    fn alternatives_visit_every_endpoint_once(count in 1_usize..60, choice in any_choice()) {
        let mut tried = std::collections::BTreeSet::new();
        while let Some(index) = pick(count, choice, |index| (!tried.contains(&index)).then_some(free())) {
            prop_assert!(tried.insert(index));
        }
        prop_assert_eq!(tried.len(), count);
    }

    #[test]
    fn only_the_keys_of_what_goes_move_and_only_to_what_is_new(
        weights in proptest::collection::vec(1_u32..300, 2..20),
        gone in any::<prop::sample::Index>(),
        salt: u64,
        is_weighted: bool,
    ) {
        let gone = gone.index(weights.len());
        let all: Vec<Candidate> = weights
            .iter()
            .zip(0_u64..)
            .map(|(weight, number)| Candidate { weight: *weight, seed: mix(salt ^ number), ..free() })
            .collect();
        let without: Vec<Candidate> =
            all.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, found)| *found).collect();
        for key in 0..200 {
            let choice = Choice { by: By::Key(key), is_weighted, luck: 0 };
            let of = |all: &[Candidate]| pick(all.len(), choice, |index| all.get(index).copied()).map(|at| all[at].seed);
            let (with, without) = (of(&all), of(&without));
            // Read one way something goes, read the other way it comes.
            prop_assert!(with == without || with == Some(all[gone].seed));
        }
    }
}
