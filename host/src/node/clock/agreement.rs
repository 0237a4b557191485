//! Which time the clocks of enough nodes agree on, by Marzullo's algorithm (K. Marzullo,
//! "Maintaining the Time in a Distributed System", 1984), as the replicas of TigerBeetle use it.
//!
//! ```text
//!   node 1      ├──────┤
//!   node 2          ├──────┤
//!   node 3                            ├────┤      wrong: agrees with nobody
//!   agreed          ├──┤
//! ```
//!
//! Pure: it sees intervals and knows no clock.

use std::collections::BTreeSet;

use crate::types::NodeId;

/// What is known of a clock: the truth that it shows lies within, both ends included. In
/// microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) low: i64,
    pub(super) high: i64,
}

impl Interval {
    pub(super) fn middle(self) -> i64 {
        self.low + (self.high - self.low) / 2
    }

    fn widened(self, by: i64) -> Interval {
        Interval { low: self.low.saturating_sub(by), high: self.high.saturating_add(by) }
    }

    fn contains(self, value: i64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// Clocks that agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) interval: Interval,
    pub(super) nodes: BTreeSet<NodeId>,
}

/// By how much clocks may differ from the truth and be taken for right all the same, smallest first:
/// what the tightest agreement needs is granted. In microseconds.
const TOLERANCES: [i64; 8] =
    [0, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, TOLERANCE_MAX_US];
/// Two clocks that are off by twice as much from each other agree just so.
pub(super) const TOLERANCE_MAX_US: i64 = 4_000_000;

/// The smallest interval that as many clocks as possible agree on, if those are a quorum.
pub(super) fn agree(
    clocks: &[(NodeId, Interval)],
    is_quorum: impl Fn(&BTreeSet<NodeId>) -> bool,
) -> Option<Agreement> {
    TOLERANCES.iter().find_map(|tolerance| {
        let widened: Vec<_> =
            clocks.iter().map(|(node, clock)| (*node, clock.widened(*tolerance))).collect();
        smallest(&widened, &is_quorum)
    })
}

fn smallest(
    clocks: &[(NodeId, Interval)],
    is_quorum: &impl Fn(&BTreeSet<NodeId>) -> bool,
) -> Option<Agreement> {
    let mut best: Option<Agreement> = None;
    // The largest set agrees on an interval that begins where one of them does.
    for (_, first) in clocks {
        let agreeing = || clocks.iter().filter(|(_, clock)| clock.contains(first.low));
        let nodes: BTreeSet<NodeId> = agreeing().map(|(node, _)| *node).collect();
        let high = agreeing().map(|(_, clock)| clock.high).min().unwrap_or(first.high);
        let found = Agreement { interval: Interval { low: first.low, high }, nodes };
        let width = |of: &Agreement| of.interval.high - of.interval.low;
        let is_better = best.as_ref().is_none_or(|best| {
            (found.nodes.len(), -width(&found)) > (best.nodes.len(), -width(best))
        });
        if is_better && is_quorum(&found.nodes) {
            best = Some(found);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn majority_of(total: usize) -> impl Fn(&BTreeSet<NodeId>) -> bool {
        move |nodes| 2 * nodes.len() > total
    }

    fn clocks(of: &[(i64, i64)]) -> Vec<(NodeId, Interval)> {
        let clock = |(low, high): &(i64, i64)| Interval { low: *low, high: *high };
        (1..).map(NodeId).zip(of.iter().map(clock)).collect()
    }

    fn agreed(of: &[(i64, i64)], total: usize) -> Option<(i64, i64, Vec<u64>)> {
        agree(&clocks(of), majority_of(total)).map(|agreement| {
            let Interval { low, high } = agreement.interval;
            (low, high, agreement.nodes.iter().map(|node| node.0).collect())
        })
    }

    /// The examples of Wikipedia's article about the algorithm.
    #[test]
    fn the_interval_is_the_smallest_that_most_clocks_agree_on() {
        assert_eq!(agreed(&[(8, 12), (11, 13), (10, 12)], 3), Some((11, 12, vec![1, 2, 3])));
        assert_eq!(agreed(&[(8, 12), (11, 13), (14, 15)], 3), Some((11, 12, vec![1, 2])));
        assert_eq!(agreed(&[(8, 9), (8, 12), (10, 12)], 3), Some((8, 9, vec![1, 2])));
    }

    #[test]
    fn a_clock_that_is_years_off_counts_for_nothing_whoever_has_it() {
        let decade = 10 * 365 * 86_400 * SECOND;
        assert_eq!(agreed(&[(decade, decade), (0, 5), (3, 9)], 3), Some((3, 5, vec![2, 3])));
        assert_eq!(agreed(&[(0, 5), (-decade, -decade), (3, 9)], 3), Some((3, 5, vec![1, 3])));
    }

    #[test]
    fn without_enough_clocks_that_agree_there_is_no_agreement() {
        assert_eq!(agreed(&[], 1), None);
        assert_eq!(agreed(&[(0, 0)], 3), None, "the others are not heard");
        assert_eq!(agreed(&[(0, 0), (60 * SECOND, 60 * SECOND)], 3), None);
        assert_eq!(agreed(&[(0, 0), (60 * SECOND, 60 * SECOND)], 2), None);
        assert_eq!(agreed(&[(0, 0)], 1), Some((0, 0, vec![1])));
    }

    #[test]
    fn clocks_of_ordinary_quality_agree_with_the_tolerance_that_they_need() {
        let (low, high, nodes) = agreed(&[(0, 0), (90_000, 90_000)], 2).expect("near enough");
        assert_eq!(nodes, [1, 2]);
        assert!(-64_000 <= low && low <= high && high <= 90_000 + 64_000, "{low}..{high}");
        let near = 2 * TOLERANCE_MAX_US;
        assert!(agreed(&[(0, 0), (near, near)], 2).is_some());
        assert!(agreed(&[(0, 0), (near + 1, near + 1)], 2).is_none());
    }

    proptest! {
        /// What the log's clock is steered by never depends on a minority.
        #[test]
        fn what_is_agreed_is_near_the_clocks_of_a_majority(
            of in proptest::collection::vec((-1_000_000_i64..1_000_000, 0_i64..50_000), 1..8),
            far in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let of: Vec<(i64, i64)> = of
                .iter()
                .zip(&far)
                .map(|((value, error), far)| {
                    let value = value + if *far { 400 * SECOND } else { 0 };
                    (value - error, value + error)
                })
                .collect();
            if let Some((low, high, nodes)) = agreed(&of, of.len()) {
                prop_assert!(low <= high);
                prop_assert!(2 * nodes.len() > of.len());
                for node in nodes {
                    let (from, to) = of[node as usize - 1];
                    prop_assert!(low <= to + TOLERANCE_MAX_US && high >= from - TOLERANCE_MAX_US);
                }
            }
        }
    }
}
