//! Which endpoint gets a connection or a request. Pure: load, failures, time and luck are arguments.
//!
//! The order of wishes: an endpoint that has not just failed before one that has; one that is not passed over before one
//! that is; one of a host with a share before one of a host that has none; one on this host before one elsewhere; and
//! among those that are equal so far the one that the service's own way of choosing says ([`By`]). Endpoints that failed
//! are last, never excluded: when all have failed, one of them is still the best there is.
//!
//! So connections spill over to other hosts when no endpoint here is ready, or when all that are have just failed, and
//! come back as soon as one here serves again. The load here does not count yet: an endpoint that is ready but busy is
//! preferred to an idle one elsewhere. Where hosts have shares, or the same key shall find the same endpoint from every
//! host, nearness does not count at all: whoever makes the candidates says of none that it is remote.

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

/// An endpoint as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What it is before load and keys count.
    pub class: Class,
    /// Open connections to it.
    pub in_flight: usize,
    /// Its share among those of its class; at least 1.
    pub weight: u32,
    /// What tells it from others where keys are hashed: the same on every host, and as long as the pod has its number.
    pub seed: u64,
}

/// What an endpoint is before load and keys count. The order of the fields is the order of wishes; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Class {
    /// It failed a short while ago.
    pub marked_down: bool,
    /// It answered badly too often: see [`super::outlier`].
    pub passed_over: bool,
    /// Its host has a share of 0.
    pub spare: bool,
    /// It is on another host, where that counts.
    pub remote: bool,
}

/// How one is chosen among endpoints of the same class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The fewest open connections.
    LeastConnections,
    /// The better of two taken by lot.
    PowerOfTwo,
    /// One after the other; this is the turn of the number given.
    Turn(u64),
    /// Always the same for the number given, as long as it is there.
    Key(u64),
}

/// What decides a choice beside the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// How.
    pub by: By,
    /// Whether weights differ.
    pub is_weighted: bool,
    /// Breaks ties and draws from large sets.
    pub luck: u64,
}

/// Returns the index, below `count`, of the endpoint to try next.
///
/// `candidate` describes the endpoint at an index, or `None` if it is not to be taken (tried before, or going away).
/// With the same arguments the result is the same.
pub fn pick(count: usize, choice: Choice, candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let Choice { by, is_weighted, luck } = choice;
    if count == 0 {
        return None;
    }
    let found = match by {
        By::Key(key) => return by_key(count, key, is_weighted, candidate),
        By::Turn(turn) => in_turn(count, turn, is_weighted, &candidate),
        By::LeastConnections | By::PowerOfTwo if is_weighted => by_lot(count, luck, &candidate),
        By::PowerOfTwo => draw_two(count, luck, &candidate).or_else(|| two_of_all(count, luck, &candidate)),
        By::LeastConnections if count > FULL_SCAN => draw_two(count, luck, &candidate),
        By::LeastConnections => None,
    };
    // What was counted a moment ago may have gone meanwhile.
    found.or_else(|| scan(count, luck, candidate))
}

/// The best of all, beginning at a random one so that equals take turns.
fn scan(count: usize, luck: u64, candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let start = below(luck, count);
    (0..count)
        .map(|offset| (start + offset) % count)
        .filter_map(|index| candidate(index).map(|found| (found.class, found.in_flight, index)))
        .min_by_key(|(class, in_flight, _)| (*class, *in_flight))
        .map(|(_, _, index)| index)
}

/// The better of two of the best class, if two are soon found.
fn draw_two(count: usize, luck: u64, candidate: &impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let mut first: Option<(usize, usize)> = None;
    let mut state = luck;
    for _ in 0..DRAWS {
        state = mix(state);
        let index = below(state, count);
        let Some(found) = candidate(index).filter(|found| found.class == Class::default()) else { continue };
        match first {
            None => first = Some((found.in_flight, index)),
            Some((_, other)) if other == index => {}
            Some((load, other)) => return Some(if found.in_flight < load { index } else { other }),
        }
    }
    None
}

/// The better of two of the best class that there is.
fn two_of_all(count: usize, luck: u64, candidate: &impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let best = Best::of(count, candidate)?;
    let first = below(luck, best.count);
    let second = below(mix(luck), best.count.saturating_sub(1));
    let second = if second >= first { second + 1 } else { second };
    let (first, second) = (best.nth(first, count, candidate), best.nth(second, count, candidate));
    better(first, second, |found| (found.in_flight, 1))
}

/// The better of two that are drawn by their shares, each measured by its share.
fn by_lot(count: usize, luck: u64, candidate: &impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let best = Best::of(count, candidate)?;
    let draw = |luck| best.at(scaled(luck, best.weight), count, candidate);
    better(draw(luck), draw(mix(luck)), |found| (found.in_flight, found.weight))
}

/// The first, unless the second has less to do for its share.
fn better(
    first: Option<(usize, Candidate)>,
    second: Option<(usize, Candidate)>,
    load: impl Fn(&Candidate) -> (usize, u32),
) -> Option<usize> {
    let (Some((one, first)), Some((other, second))) = (first, second) else {
        return first.or(second).map(|(index, _)| index);
    };
    let ((load_one, share_one), (load_other, share_other)) = (load(&first), load(&second));
    let is_less =
        (load_other as u64).saturating_mul(share_one.into()) < (load_one as u64).saturating_mul(share_other.into());
    Some(if is_less { other } else { one })
}

/// The one whose turn it is.
fn in_turn(
    count: usize,
    turn: u64,
    is_weighted: bool,
    candidate: &impl Fn(usize) -> Option<Candidate>,
) -> Option<usize> {
    let best = Best::of(count, candidate)?;
    let found = if is_weighted {
        // Multiples of the golden ratio fall evenly everywhere, however few they are: shares are kept in every stretch.
        best.at(scaled(turn.wrapping_mul(GOLDEN), best.weight), count, candidate)
    } else {
        let turn = usize::try_from(turn % best.count as u64).unwrap_or_default();
        best.nth(turn, count, candidate)
    };
    found.map(|(index, _)| index)
}

/// The one that a key belongs to. Each draws a number for each key, and the highest wins: so a key moves only when the one
/// that it belonged to goes, or to one that is new. Source: Thaler, Ravishankar 1996 ("highest random weight"); with shares
/// as in Schindelhauer, Schomaker 2005 ("logarithmic method").
fn by_key(count: usize, key: u64, is_weighted: bool, candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let key = mix(key);
    let found = (0..count).filter_map(|index| candidate(index).map(|found| (index, found)));
    let drawn = found.map(|(index, found)| (index, found, mix(key ^ found.seed)));
    let best = if is_weighted {
        let score = |weight: u32, drawn: u64| {
            let high = u32::try_from(drawn >> 32).unwrap_or(u32::MAX);
            let between_0_and_1 = (f64::from(high) + 0.5) / (f64::from(u32::MAX) + 1.0);
            f64::from(weight) / -between_0_and_1.ln()
        };
        drawn.max_by(|(_, one, drawn_one), (_, other, drawn_other)| {
            let score = || score(one.weight, *drawn_one).total_cmp(&score(other.weight, *drawn_other));
            other.class.cmp(&one.class).then_with(score).then(drawn_one.cmp(drawn_other))
        })
    } else {
        drawn.max_by(|(_, one, drawn_one), (_, other, drawn_other)| {
            other.class.cmp(&one.class).then(drawn_one.cmp(drawn_other))
        })
    };
    best.map(|(index, _, _)| index)
}

/// The best class that there is, how many are of it, and their shares together.
struct Best {
    class: Class,
    count: usize,
    weight: u64,
}

impl Best {
    fn of(count: usize, candidate: &impl Fn(usize) -> Option<Candidate>) -> Option<Self> {
        let mut best: Option<Self> = None;
        for found in (0..count).filter_map(candidate) {
            match &mut best {
                Some(best) if best.class < found.class => {}
                Some(best) if best.class == found.class => {
                    best.count += 1;
                    best.weight += u64::from(found.weight);
                }
                _ => best = Some(Self { class: found.class, count: 1, weight: found.weight.into() }),
            }
        }
        best
    }

    /// Returns those that are of it, in their order.
    fn members<'a>(
        &'a self,
        count: usize,
        candidate: &'a impl Fn(usize) -> Option<Candidate>,
    ) -> impl Iterator<Item = (usize, Candidate)> + 'a {
        (0..count).filter_map(|index| Some((index, candidate(index)?))).filter(|(_, found)| found.class == self.class)
    }

    fn nth(
        &self,
        number: usize,
        count: usize,
        candidate: &impl Fn(usize) -> Option<Candidate>,
    ) -> Option<(usize, Candidate)> {
        self.members(count, candidate).nth(number)
    }

    /// Returns the one that a place belongs to where each has as many places as its share.
    fn at(
        &self,
        mut place: u64,
        count: usize,
        candidate: &impl Fn(usize) -> Option<Candidate>,
    ) -> Option<(usize, Candidate)> {
        self.members(count, candidate).find(|(_, found)| {
            let is_here = place < u64::from(found.weight);
            place = place.saturating_sub(found.weight.into());
            is_here
        })
    }
}

/// The golden ratio's fraction of 2 to the 64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Maps a random number to `0..limit`, which is below 2 to the 32; 0 for an empty range.
fn scaled(random: u64, limit: u64) -> u64 {
    // The high half times the limit: even to one part in four thousand million.
    ((random >> 32) * limit.min(u64::from(u32::MAX))) >> 32
}

/// Maps a random number to `0..count`; 0 for an empty range.
fn below(random: u64, count: usize) -> usize {
    usize::try_from(scaled(random, count as u64)).unwrap_or(0)
}

/// Returns the next of a sequence of numbers that look random. Source: Steele, Lea, Flood 2014, "`SplitMix64`".
pub fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns a number for bytes that is the same on every host and in every version. Source: Fowler, Noll, Vo ("FNV-1a").
pub fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
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
mod tests;
