//! Whose turn it is among rules that share requests by weight. Pure: how many requests they shared before is an argument.
//!
//! Shares are kept by number, not by chance: of five requests in a row a fifth is one, whichever threads they came by. So the places of
//! all weights together, each divided by what all have in common, are gone through in strides of one length, which comes to each
//! place once before it comes to any again.

/// The golden ratio's fraction of 2 to the 64: strides of about that part of the whole fall evenly everywhere, however few they are.
const GOLDEN: u128 = 0x9E37_79B9_7F4A_7C15;

/// In which order rules that share take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// What all weights are multiples of; 0: there is no weight.
    unit: u64,
    /// All weights together, in units.
    total: u64,
    /// From the place of one turn to that of the next; it has no divisor in common with `total`.
    stride: u64,
}

impl Order {
    /// Makes the order of shares that follow one another, each told by its end.
    pub(super) fn of(ends: impl Iterator<Item = u64>) -> Self {
        let (mut unit, mut before) = (0, 0);
        for end in ends {
            unit = common(unit, end - before);
            before = end;
        }
        let total = before.checked_div(unit).unwrap_or_default();
        Self { unit, total, stride: stride(total) }
    }

    /// Returns the place, among all weights, of the turn of a number.
    pub(super) fn place(&self, turn: u64) -> u64 {
        let Self { unit, total, stride } = *self;
        let Some(turn) = turn.checked_rem(total) else { return 0 };
        let place = u128::from(turn) * u128::from(stride) % u128::from(total);
        u64::try_from(place).unwrap_or_default() * unit
    }
}

/// Returns the length next to the golden part of `total` that has no divisor in common with it.
fn stride(total: u64) -> u64 {
    let golden = u64::try_from((u128::from(total) * GOLDEN) >> 64).unwrap_or_default();
    let near = (0..total).flat_map(|by| [golden.saturating_add(by), golden.saturating_sub(by)]);
    near.into_iter().find(|length| *length > 0 && common(*length, total) == 1).unwrap_or(1)
}

/// Returns the largest number that both are multiples of. Source: Euclid, Elements, VII.2.
fn common(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Which of some shares has each of the first turns.
    fn taken(weights: &[u64], turns: std::ops::Range<u64>) -> Vec<usize> {
        let ends: Vec<u64> = weights
            .iter()
            .scan(0, |end, weight| {
                *end += weight;
                Some(*end)
            })
            .collect();
        let order = Order::of(ends.iter().copied());
        turns.map(|turn| ends.iter().position(|end| order.place(turn) < *end).expect("a share")).collect()
    }

    /// How far any share is from what it is to have in any stretch of requests, in tenths of a request.
    fn furthest(weights: &[u64], turns: std::ops::Range<u64>) -> i128 {
        let taken = taken(weights, turns);
        let total: i128 = weights.iter().copied().map(i128::from).sum();
        let of_share = |(number, weight): (usize, &u64)| {
            // A stretch is off by as much as one is further ahead where it ends than where it begins.
            let ahead = taken.iter().scan(0, |ahead, one| {
                *ahead += i128::from(*one == number) * total - i128::from(*weight);
                Some(*ahead)
            });
            let (least, most) = ahead.fold((0, 0), |(least, most): (i128, i128), at| (least.min(at), most.max(at)));
            (most - least) * 10 / total
        };
        weights.iter().enumerate().map(of_share).max().expect("some")
    }

    #[test]
    fn a_share_is_kept_in_every_stretch_of_requests() {
        for (weights, bound) in [
            (&[80, 20][..], 8),
            (&[90, 10], 9),
            (&[1, 99], 9),
            (&[99, 1], 9),
            (&[1, 1], 5),
            (&[5, 0, 5], 5),
            (&[1, 2, 3], 15),
            (&[70, 20, 10], 12),
            (&[50, 30, 15, 5], 20),
            (&[333, 333, 334], 20),
            (&[997, 3], 29),
            (&[1, 1_000_000], 10),
            (&[123_456, 654_321], 33),
        ] {
            // From the first one on, and long after.
            for begin in [0, 1_000_003, u64::MAX / 2] {
                let off = furthest(weights, begin..begin + 4000);
                assert!(off <= bound, "{weights:?} from {begin}: off by {off} tenths of a request");
            }
        }
    }

    #[test]
    fn a_fifth_of_any_twenty_requests_is_four() {
        for begin in 0..50 {
            let next = taken(&[80, 20], begin..begin + 20).into_iter().filter(|one| *one == 1).count();
            assert_eq!(next, 4, "from {begin}");
        }
    }

    #[test]
    fn without_a_share_the_first_place_is_taken() {
        for ends in [&[][..], &[0], &[0, 0]] {
            assert_eq!(Order::of(ends.iter().copied()).place(7), 0);
        }
        let most = u64::from(u32::MAX);
        let order = Order::of([most, most * 2 - 1, most * 3].into_iter());
        assert!((0..1000).all(|turn| order.place(u64::MAX - turn) < most * 3));
    }

    proptest! {
        #[test]
        fn every_whole_round_is_exact(weights in proptest::collection::vec(0_u64..40, 1..6), begin in any::<u32>()) {
            let total: u64 = weights.iter().sum();
            prop_assume!(total > 0);
            let taken = taken(&weights, begin.into()..u64::from(begin) + total);
            for (number, weight) in weights.iter().enumerate() {
                prop_assert_eq!(taken.iter().filter(|one| **one == number).count() as u64, *weight);
            }
        }
    }
}
