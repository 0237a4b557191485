//! The log's clock shows no time that a majority of the voters' clocks did not come to: one wrong
//! clock, whoever has it, takes it nowhere.
//!
//! What a majority allowed once goes on with the time that passes, since a log is never put back.

use super::Invariant;
use crate::sim::observe::{Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct ClockWithinMajority {
    /// When it was looked at last, and the latest time that was allowed then, in milliseconds.
    allowed: Option<(Micros, u64)>,
}

/// How late an answer about a clock may be, twice, and what clocks may differ by and be taken for
/// right, in milliseconds.
const SLACK_MS: u64 = 20_000;
/// Monotonic clocks run fast by up to a fifth, of which the simulator's faults make use.
const DRIFT_PERCENT: u64 = 130;

impl ClockWithinMajority {
    fn allowed_ms(&self, now: Micros) -> Option<u64> {
        let (then, allowed_ms) = self.allowed?;
        Some(allowed_ms + now.0.saturating_sub(then.0) * DRIFT_PERCENT / 100 / 1_000)
    }
}

impl Invariant for ClockWithinMajority {
    fn name(&self) -> &'static str {
        "clock_within_majority"
    }

    fn observe(&mut self, now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Clocks { latest_ms } => {
                let allowed = self.allowed_ms(now).unwrap_or(0).max(*latest_ms);
                self.allowed = Some((now, allowed));
                Ok(())
            }
            Fact::Applied(entry) => match self.allowed_ms(now) {
                Some(allowed) if entry.time_ms > allowed + SLACK_MS => Err(format!(
                    "the log's clock shows {} at index {}, and more than half of the voters' clocks \
                     have never come to more than {allowed}: it is {} s ahead",
                    entry.time_ms,
                    entry.position.index,
                    (entry.time_ms - allowed) / 1_000
                )),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::machine::Reply;

    use super::super::testing::{applied, pos};
    use super::*;
    use crate::sim::observe::AppliedEntry;

    fn at(time_ms: u64) -> AppliedEntry {
        AppliedEntry { time_ms, ..applied(0, pos(3, 1), "", Reply::Nothing) }
    }

    #[test]
    fn the_log_may_go_on_from_what_a_majority_allowed_and_no_further() {
        let mut invariant = ClockWithinMajority::default();
        let mut observe =
            |at_s: u64, fact: &Fact<'_>| invariant.observe(Micros(at_s * 1_000_000), fact);
        observe(1, &Fact::Clocks { latest_ms: 1_000_000 }).expect("a fact");
        observe(1, &Fact::Applied(&at(1_000_000))).expect("as allowed");
        // Most clocks go back.
        observe(2, &Fact::Clocks { latest_ms: 5_000 }).expect("a fact");
        observe(11, &Fact::Applied(&at(1_010_000))).expect("ten seconds have passed");
        let refused = observe(12, &Fact::Applied(&at(1_100_000))).expect_err("too far");
        assert!(refused.contains("ahead"), "{refused}");
        observe(13, &Fact::Clocks { latest_ms: 9_000_000 }).expect("a fact");
        observe(13, &Fact::Applied(&at(9_000_000))).expect("most clocks came to that");
    }
}
