//! When to take snapshots.

use crate::node::config::SnapshotConfig;

/// Counts what was applied since the last snapshot.
pub(in crate::node) struct SnapshotPolicy {
    config: SnapshotConfig,
    commands: u64,
    bytes: u64,
    /// The log's clock when the last one was taken.
    last_ms: u64,
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
    /// The newest snapshot that there is has so many bytes, and was taken at that time of the log.
    pub(in crate::node) fn new(
        config: SnapshotConfig,
        last_size_bytes: u64,
        last_ms: u64,
    ) -> SnapshotPolicy {
        SnapshotPolicy {
            config,
            commands: 0,
            bytes: 0,
            last_ms,
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

    /// Whether one is due, at this time of the log.
    pub(super) fn due(&self, now_ms: u64) -> bool {
        if self.is_urgent() {
            return true;
        }
        let SnapshotConfig { threshold, growth_percent, pause_ms, pause_bytes, .. } = self.config;
        let growth = self.last_size_bytes.saturating_mul(growth_percent) / 100;
        let has_paused =
            now_ms.saturating_sub(self.last_ms) >= pause_ms || self.bytes >= pause_bytes;
        !self.saving && self.commands >= threshold && self.bytes >= growth && has_paused
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

    /// The log's clock when the last one was taken.
    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms
    }

    pub(super) fn keep(&self) -> usize {
        self.config.keep
    }

    pub(super) fn started(&mut self, now_ms: u64) {
        self.saving = true;
        self.last_ms = now_ms;
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

    /// One of the leader's came, at this time of the log.
    pub(super) fn installed(&mut self, now_ms: u64, size_bytes: u64) {
        self.last_ms = now_ms;
        self.saved(size_bytes);
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
            pause_ms: 0,
            keep: 1,
            ..SnapshotConfig::default()
        };
        let mut policy = SnapshotPolicy::new(config, 100, 0);
        policy.count(1, 40);
        policy.count(1, 40);
        assert!(!policy.due(0));
        policy.count(1, 40);
        assert!(policy.due(0));
        policy.started(0);
        policy.count(1, 400);
        policy.count(1, 400);
        assert!(!policy.due(0), "one at a time");
        policy.saved(500);
        assert!(policy.due(0));
    }

    #[test]
    fn at_a_high_rate_it_is_time_and_bytes_that_count() {
        let config = SnapshotConfig {
            threshold: 2,
            growth_percent: 0,
            pause_ms: 1_000,
            pause_bytes: 500,
            ..SnapshotConfig::default()
        };
        let mut policy = SnapshotPolicy::new(config, 0, 7_000);
        policy.count(100, 400);
        assert!(!policy.due(7_999));
        assert!(policy.due(8_000));
        policy.count(1, 100);
        assert!(policy.due(7_001), "so much would have to be executed again");
        policy.started(8_000);
        policy.saved(10);
        policy.count(1, 10);
        assert!(!policy.due(60_000), "one command is not worth it");
        policy.count(1, 10);
        assert!(!policy.due(8_999));
        assert!(policy.due(9_000));
        policy.installed(9_000, 10);
        assert!(!policy.due(9_999));
        assert!(policy.due(10_000));
        // A clock that was put back counts as one that stands.
        assert!(!policy.due(1_000));
    }

    #[test]
    fn a_costly_activation_makes_a_snapshot_due_also_while_another_one_is_written() {
        let costly = SnapshotConfig::default().costly_fuel;
        let mut policy = SnapshotPolicy::new(SnapshotConfig::default(), 1 << 30, 0);
        policy.count(1, 1);
        policy.activated(costly - 1);
        assert!(!policy.due(0));
        policy.activated(costly);
        assert!(policy.due(0) && policy.is_urgent());
        policy.started(0);
        policy.activated(costly);
        assert!(!policy.due(0), "one at a time");
        policy.saved(1 << 30);
        assert!(policy.is_urgent());
        policy.started(0);
        policy.saved(1 << 30);
        assert!(!policy.due(0));
    }

    #[test]
    fn a_snapshot_that_could_not_be_saved_is_taken_again_for_a_follower_though_nothing_is_applied()
    {
        let config = SnapshotConfig {
            threshold: 2,
            growth_percent: 100,
            pause_ms: 0,
            keep: 1,
            ..SnapshotConfig::default()
        };
        let mut policy = SnapshotPolicy::new(config, 0, 0);
        assert!(!policy.wanted(), "it would be the same again");
        policy.count(1, 40);
        assert!(policy.wanted());
        for passed_over in [1, 3, 7, 15, 15, 15] {
            policy.started(0);
            assert!(!policy.wanted(), "one at a time");
            policy.failed();
            let wishes = (0..=passed_over).map(|_| policy.wanted()).collect::<Vec<_>>();
            let (last, before) = wishes.split_last().unwrap();
            assert!(*last && !before.contains(&true), "{passed_over}: {wishes:?}");
        }
        policy.started(0);
        policy.saved(500);
        assert!(!policy.wanted(), "nothing was applied since");
    }
}
