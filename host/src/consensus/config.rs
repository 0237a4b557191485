//! Timing and limits of consensus.

use serde::{Deserialize, Serialize};

use crate::types::{GroupId, NodeId};

/// The part of the configuration file that concerns consensus. Time is counted in ticks,
/// whose length is the node's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsensusConfig {
    /// Most bytes of entries in one AppendEntries message.
    pub max_append_bytes: u64,
    /// Most AppendEntries messages on their way to one peer.
    pub max_inflight_messages: usize,
    /// Most bytes of entries on their way to one peer, but for one message: older ones wait in the
    /// log. Must fit the transport's queue.
    pub append_window_bytes: u64,
    /// Most bytes of entries that are proposed but not committed; more are refused as busy.
    pub max_uncommitted_bytes: u64,
    /// Most bytes of entries that wait in memory to be applied, but for one message; what is
    /// committed beyond that waits in the log.
    pub max_unapplied_bytes: u64,
    /// Entries kept in memory for followers that lag a little, in bytes.
    pub entry_cache_bytes: u64,
    /// So many entries are kept behind a snapshot, so that a follower that was away for a moment
    /// need not fetch the snapshot.
    pub trailing_logs: u64,
    /// The entries of so many milliseconds are kept likewise: at a high rate they are more.
    pub trailing_ms: u64,
    /// No more bytes than that are kept for either of the two.
    pub trailing_bytes: u64,
    /// Most bytes of entries that a leader keeps for peers that are being sent a snapshot, or are
    /// close behind, and any replica for who reads its log ([`Input::HoldLog`](super::Input::HoldLog)): what
    /// they need next is not compacted.
    pub held_bytes: u64,
    /// A learner is promoted only when it is at most this many entries behind,
    pub promotion_lag: u64,
    /// and so many bytes.
    pub promotion_lag_bytes: u64,
}

impl Default for ConsensusConfig {
    fn default() -> ConsensusConfig {
        ConsensusConfig {
            max_append_bytes: 1 << 20,
            max_inflight_messages: 256,
            append_window_bytes: 16 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_unapplied_bytes: 64 << 20,
            entry_cache_bytes: 32 << 20,
            trailing_logs: 10_240,
            trailing_ms: 60_000,
            trailing_bytes: 64 << 20,
            held_bytes: 1 << 30,
            promotion_lag: 1_000,
            promotion_lag_bytes: 16 << 20,
        }
    }
}

impl ConsensusConfig {
    /// Says what contradicts what.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        for (name, value) in [
            ("max_append_bytes", self.max_append_bytes),
            ("max_inflight_messages", self.max_inflight_messages as u64),
            ("max_unapplied_bytes", self.max_unapplied_bytes),
            ("entry_cache_bytes", self.entry_cache_bytes),
            ("trailing_logs", self.trailing_logs),
            ("trailing_bytes", self.trailing_bytes),
            ("held_bytes", self.held_bytes),
            ("promotion_lag_bytes", self.promotion_lag_bytes),
        ] {
            if value == 0 {
                return Err(format!("consensus.{name} must not be 0"));
            }
        }
        if self.max_uncommitted_bytes < self.max_append_bytes {
            return Err(format!(
                "consensus.max_uncommitted_bytes ({}) must not be less than \
                 consensus.max_append_bytes ({})",
                self.max_uncommitted_bytes, self.max_append_bytes
            ));
        }
        if self.append_window_bytes < self.max_append_bytes {
            return Err(format!(
                "consensus.append_window_bytes ({}) must not be less than \
                 consensus.max_append_bytes ({})",
                self.append_window_bytes, self.max_append_bytes
            ));
        }
        Ok(())
    }
}

/// All that a [`super::Replica`] needs to know besides its log.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This node.
    pub node: NodeId,
    /// The group replicated.
    pub group: GroupId,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election; the actual timeout is drawn from
    /// `election_ticks .. 2 * election_ticks` (Raft dissertation §3.4).
    pub election_ticks: usize,
    /// Entries appended within so many ticks are kept behind a snapshot: see
    /// [`ConsensusConfig::trailing_ms`].
    pub trailing_ticks: u64,
    /// Seeds the election timeouts; the same seed and inputs give the same effects.
    pub seed: u64,
    /// Differs between two starts of the same node, so that answers to reads that a previous
    /// incarnation asked for are not mistaken for answers to this one's.
    pub incarnation: u64,
    /// Limits.
    pub limits: ConsensusConfig,
}
