//! Timing and limits of a node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an entry holds besides a command: clock, session, and the framing of both.
pub const ENTRY_OVERHEAD_BYTES: u64 = 1 << 10;

/// The `[node]` part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Time between a leader's heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for this long up to twice as long starts an election, in
    /// milliseconds.
    pub election_ms: u64,
    /// Longest entry, in bytes: a command with its few bytes of header.
    pub max_entry_bytes: u64,
    /// Most bytes of requests that wait to be proposed, committed or applied.
    pub max_inflight_bytes: u64,
    /// Most bytes of peer messages that wait to be looked at.
    pub max_inbox_bytes: u64,
    /// How long a stopping node waits for what is in flight, in milliseconds.
    pub drain_ms: u64,
    /// When one job of the apply thread (an entry, a query, a snapshot) takes longer than this, in
    /// milliseconds, the log says so. It only says so. 0: never.
    pub slow_apply_ms: u64,
    /// When one in a hundred writes of the log took longer than this in the last minute, in
    /// milliseconds, that is an alarm. 0: never.
    pub slow_sync_ms: u64,
    /// When all members offer a higher level, and have done so for this long, in milliseconds, the
    /// leader raises the cluster's: until then an older program can be put back. 0: only by hand.
    pub level_settle_ms: u64,
    /// When to take snapshots.
    pub snapshot: SnapshotConfig,
    /// When the leader has all nodes compare their states.
    pub digest: DigestConfig,
}

/// When a leader proposes digest points. Only a pace: what a point finds does not depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DigestConfig {
    /// After so many commands, any other entry counting as one. 0: commands do not count.
    pub every_commands: u64,
    /// After so many milliseconds in which anything was applied. 0: time does not count.
    pub every_ms: u64,
    /// Not sooner than so many milliseconds after the last, however many commands there were.
    pub pause_ms: u64,
}

/// When a node takes snapshots, and how many it keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Commands since the last snapshot before the next one is considered; any other entry counts as one.
    pub threshold: u64,
    /// The log since the last snapshot must also be this large, as a percentage of that
    /// snapshot's size: a large state is not written again for a few entries.
    pub growth_percent: u64,
    /// It is not taken sooner than so many milliseconds after the last, by the log's clock, however many
    /// commands there were,
    pub pause_ms: u64,
    /// unless they have so many bytes: they are what a restart executes again.
    pub pause_bytes: u64,
    /// Snapshots kept.
    pub keep: usize,
    /// An activation of a module whose guests used this much fuel or more, failed or not, is
    /// followed by a snapshot at once, so that no restart runs it again.
    pub costly_fuel: u64,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            heartbeat_ms: 100,
            election_ms: 1_000,
            max_entry_bytes: 1_536 << 10,
            max_inflight_bytes: 64 << 20,
            max_inbox_bytes: 128 << 20,
            drain_ms: 10_000,
            slow_apply_ms: 1_000,
            slow_sync_ms: 500,
            level_settle_ms: 600_000,
            snapshot: SnapshotConfig::default(),
            digest: DigestConfig::default(),
        }
    }
}

impl Default for DigestConfig {
    fn default() -> DigestConfig {
        DigestConfig { every_commands: 10_000, every_ms: 10_000, pause_ms: 1_000 }
    }
}

impl DigestConfig {
    /// Never by itself.
    pub const OFF: DigestConfig = DigestConfig { every_commands: 0, every_ms: 0, pause_ms: 0 };
}

impl Default for SnapshotConfig {
    fn default() -> SnapshotConfig {
        SnapshotConfig {
            threshold: 10_000,
            growth_percent: 100,
            pause_ms: 10_000,
            pause_bytes: 64 << 20,
            keep: 2,
            costly_fuel: 100_000_000,
        }
    }
}

/// Ticks between heartbeats: fine enough that elections spread out.
const HEARTBEAT_TICKS: u64 = 10;

impl NodeConfig {
    /// Length of a tick.
    pub fn tick(&self) -> Duration {
        Duration::from_micros(self.heartbeat_ms * 1_000 / self.heartbeat_ticks() as u64)
    }

    /// Ticks between heartbeats.
    pub fn heartbeat_ticks(&self) -> usize {
        HEARTBEAT_TICKS.min(self.heartbeat_ms) as usize
    }

    /// Ticks until an election.
    pub fn election_ticks(&self) -> usize {
        (self.election_ms * self.heartbeat_ticks() as u64 / self.heartbeat_ms) as usize
    }

    /// Says what contradicts what.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        if self.heartbeat_ms == 0 {
            return Err("node.heartbeat_ms must not be 0".into());
        }
        if self.election_ms < 3 * self.heartbeat_ms {
            return Err(format!(
                "node.election_ms ({}) must be at least three times node.heartbeat_ms ({}), \
                 or a single late heartbeat would start an election; ten times is usual",
                self.election_ms, self.heartbeat_ms
            ));
        }
        if self.election_ms > 600_000 {
            return Err(format!(
                "node.election_ms ({}) is more than ten minutes: the cluster would stand still \
                 that long after losing its leader",
                self.election_ms
            ));
        }
        if self.max_entry_bytes < 1_100 << 10 {
            return Err(format!(
                "node.max_entry_bytes ({}) must be at least {}: parts of modules are that large",
                self.max_entry_bytes,
                1_100 << 10
            ));
        }
        if self.max_entry_bytes > 8 << 20 {
            return Err(format!(
                "node.max_entry_bytes ({}) must be at most {} (8 MiB): peers refuse messages twice \
                 as large",
                self.max_entry_bytes,
                8 << 20
            ));
        }
        for (name, value) in [
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("max_inbox_bytes", self.max_inbox_bytes),
        ] {
            if value < self.max_entry_bytes {
                return Err(format!(
                    "node.{name} ({value}) must not be less than node.max_entry_bytes ({})",
                    self.max_entry_bytes
                ));
            }
        }
        if self.snapshot.threshold == 0 {
            return Err("node.snapshot.threshold must not be 0".into());
        }
        if self.snapshot.keep == 0 {
            return Err("node.snapshot.keep must be at least 1".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_ticks_add_up() {
        let config = NodeConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.tick(), Duration::from_millis(10));
        assert_eq!(config.election_ticks(), 100);
        let fast = NodeConfig { heartbeat_ms: 3, election_ms: 30, ..NodeConfig::default() };
        assert_eq!(fast.tick(), Duration::from_millis(1));
        assert_eq!((fast.heartbeat_ticks(), fast.election_ticks()), (3, 30));
    }

    #[test]
    fn contradictory_timings_are_named() {
        let config = NodeConfig { election_ms: 150, ..NodeConfig::default() };
        let message = config.validate().unwrap_err();
        assert!(message.contains("election_ms (150)"), "{message}");
        assert!(message.contains("heartbeat_ms (100)"), "{message}");
    }
}
