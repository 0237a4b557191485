//! When to take snapshots.

use crate::node::config::SnapshotConfig;

/// Counts what was applied since the last snapshot.
pub(in crate::node) struct SnapshotPolicy {
    config: SnapshotConfig,
    commands: u64,
    bytes: u64,
    last_size_bytes: u64,
    saving: bool,
    /// A restart must not run again what was done since the last one.
    urgent: bool,
    /// Saves that failed since the last that did not.
    failures: u32,
    /// So many more wishes of followers are passed over before the next attempt.
    passing: u32,
}

/// Followers ask about once per heartbeat. On a full disk every attempt copies the machine
/// for nothing.
const MOST_PASSED: u32 = 15;

impl SnapshotPolicy {
    pub(in crate::node) fn new(config: SnapshotConfig, last_size_bytes: u64) -> SnapshotPolicy {
        SnapshotPolicy {
            config,
            commands: 0,
            bytes: 0,
            last_size_bytes,
            saving: false,
            urgent: false,
            failures: 0,
            passing: 0,
        }
    }

    pub(super) fn count(&mut self, commands: u64, bytes: u64) {
        self.commands += commands;
        self.bytes += bytes;
    }

    /// An activation was tried, and the guests used that much.
    pub(super) fn activated(&mut self, fuel_used: u64) {
        self.urgent |= fuel_used >= self.config.costly_fuel;
    }

    /// Whether one is due, however little was applied.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent && !self.saving
    }

    pub(super) fn due(&self) -> bool {
        if self.is_urgent() {
            return true;
        }
        let growth = self.last_size_bytes.saturating_mul(self.config.growth_percent) / 100;
        !self.saving && self.commands >= self.config.threshold && self.bytes >= growth
    }

    /// A follower needs a snapshot. Whether to take one: it would differ from the last one,
    /// and the last attempt did not fail just now.
    pub(super) fn wanted(&mut self) -> bool {
        if self.saving || (self.commands == 0 && self.failures == 0) {
            return false;
        }
        let is_time = self.passing == 0;
        self.passing = self.passing.saturating_sub(1);
        is_time
    }

    /// The last one is gone: the next is not the same again, even if nothing was applied since.
    pub(super) fn lost(&mut self) {
        self.failures = self.failures.max(1);
        self.passing = 0;
    }

    pub(super) fn saving(&self) -> bool {
        self.saving
    }

    pub(super) fn keep(&self) -> usize {
        self.config.keep
    }

    pub(super) fn started(&mut self) {
        self.saving = true;
        self.urgent = false;
        self.commands = 0;
        self.bytes = 0;
    }

    pub(super) fn saved(&mut self, size_bytes: u64) {
        self.saving = false;
        self.failures = 0;
        self.passing = 0;
        self.last_size_bytes = size_bytes;
    }

    /// What it would have covered is still without a snapshot: a follower that needs it must
    /// get it even if nothing is applied any more.
    pub(super) fn failed(&mut self) {
        self.saving = false;
        self.failures += 1;
        self.passing = 1_u32.checked_shl(self.failures).map_or(MOST_PASSED, |n| n - 1);
        self.passing = self.passing.min(MOST_PASSED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_is_snapshotted_only_when_the_log_outgrew_it() {
        let config = SnapshotConfig {
            threshold: 2,
            growth_percent: 100,
            keep: 1,
            ..SnapshotConfig::default()
        };
        let mut policy = SnapshotPolicy::new(config, 100);
        policy.count(1, 40);
        policy.count(1, 40);
        assert!(!policy.due());
        policy.count(1, 40);
        assert!(policy.due());
        policy.started();
        policy.count(1, 400);
        policy.count(1, 400);
        assert!(!policy.due(), "one at a time");
        policy.saved(500);
        assert!(policy.due());
    }

    #[test]
    fn a_costly_activation_makes_a_snapshot_due_also_while_another_one_is_written() {
        let costly = SnapshotConfig::default().costly_fuel;
        let mut policy = SnapshotPolicy::new(SnapshotConfig::default(), 1 << 30);
        policy.count(1, 1);
        policy.activated(costly - 1);
        assert!(!policy.due());
        policy.activated(costly);
        assert!(policy.due() && policy.is_urgent());
        policy.started();
        policy.activated(costly);
        assert!(!policy.due(), "one at a time");
        policy.saved(1 << 30);
        assert!(policy.is_urgent());
        policy.started();
        policy.saved(1 << 30);
        assert!(!policy.due());
    }

    #[test]
    fn a_snapshot_that_could_not_be_saved_is_taken_again_for_a_follower_though_nothing_is_applied()
    {
        let config = SnapshotConfig {
            threshold: 2,
            growth_percent: 100,
            keep: 1,
            ..SnapshotConfig::default()
        };
        let mut policy = SnapshotPolicy::new(config, 0);
        assert!(!policy.wanted(), "it would be the same again");
        policy.count(1, 40);
        assert!(policy.wanted());
        for passed_over in [1, 3, 7, 15, 15, 15] {
            policy.started();
            assert!(!policy.wanted(), "one at a time");
            policy.failed();
            let wishes = (0..=passed_over).map(|_| policy.wanted()).collect::<Vec<_>>();
            let (last, before) = wishes.split_last().unwrap();
            assert!(*last && !before.contains(&true), "{passed_over}: {wishes:?}");
        }
        policy.started();
        policy.saved(500);
        assert!(!policy.wanted(), "nothing was applied since");
    }
}
