//! How much more fuel commands use.

use std::collections::BTreeMap;

use super::report::FuelRatio;
use crate::types::Position;

/// Larger ratios are told apart no more, so that no more than so many are counted.
const PERMILLE_MAX: u64 = 1_000_000;

/// Ratios of commands that both modules executed.
#[derive(Debug, Default)]
pub(super) struct Ratios {
    by_permille: BTreeMap<u64, u64>,
    measured: u64,
    worst: Option<Worst>,
}

/// The command that got dearer by the largest ratio.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worst {
    pub(super) at: Position,
    pub(super) old: u64,
    pub(super) new: u64,
    permille: u64,
}

impl Ratios {
    /// Takes in a command. Returns whether it got dearer by more than any before.
    pub(super) fn add(&mut self, at: Position, old: u64, new: u64) -> bool {
        if old == 0 {
            return false;
        }
        let permille = permille(new, old);
        *self.by_permille.entry(permille).or_default() += 1;
        self.measured += 1;
        let is_worst = self.worst.is_none_or(|worst| permille > worst.permille);
        if is_worst {
            self.worst = Some(Worst { at, old, new, permille });
        }
        is_worst
    }

    pub(super) fn worst(&self) -> Option<Worst> {
        self.worst
    }

    pub(super) fn found(&self) -> FuelRatio {
        let Some(worst) = self.worst else { return FuelRatio::default() };
        let mut left = self.measured.div_ceil(2);
        let median = self.by_permille.iter().find(|(_, count)| {
            left = left.saturating_sub(**count);
            left == 0
        });
        FuelRatio {
            median_permille: median.map_or(0, |(permille, _)| *permille),
            worst_permille: worst.permille,
            worst_at: Some(worst.at),
        }
    }
}

/// A part in thousandths of a whole, up to a thousand times as much.
pub(super) fn permille(part: u64, whole: u64) -> u64 {
    let permille = u128::from(part) * 1_000 / u128::from(whole.max(1));
    u64::try_from(permille).unwrap_or(u64::MAX).min(PERMILLE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Index;

    fn at(index: u64) -> Position {
        Position::first(Index(index))
    }

    #[test]
    fn the_median_is_that_of_the_commands_and_the_worst_is_the_first_of_the_worst() {
        let mut ratios = Ratios::default();
        assert_eq!(ratios.found(), FuelRatio::default());
        for (index, old, new) in [(1, 100, 100), (2, 100, 150), (3, 10, 50), (4, 2, 10), (5, 7, 0)]
        {
            ratios.add(at(index), old, new);
        }
        ratios.add(at(6), 0, 1_000);
        let found = ratios.found();
        assert_eq!(found.median_permille, 1_500);
        assert_eq!((found.worst_permille, found.worst_at), (5_000, Some(at(3))));
    }

    #[test]
    fn ratios_beyond_all_reason_are_one() {
        assert_eq!(permille(u64::MAX, 1), PERMILLE_MAX);
        assert_eq!(permille(u64::MAX, u64::MAX), 1_000);
        assert_eq!(permille(5, 0), 5_000);
    }
}
