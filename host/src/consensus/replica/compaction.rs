//! How much of the log is kept behind a snapshot.
//!
//! ```text
//!   start ……… floor ……… needed ……… by size / by count and time ……… snapshot ……… last
//!             │         └ what a peer gets next, that is near or being sent a snapshot; or a rehearsal
//!             └ nobody holds the log back further: consensus.held_bytes
//! ```
//!
//! A peer that finds its next entry compacted needs a whole snapshot. So a peer that is being sent
//! one gets the entries behind it, or at a high rate of commands it would need another, without end.

use super::Replica;
use super::ReplicaError;
use crate::museum::{self, Exhibit};
use crate::storage::SnapshotMeta;
use crate::types::{Index, LogEntry, NodeId, Space};

/// Longest distance between two samples of the log's size.
const SAMPLE_BYTES_MAX: u64 = 256 << 10;
/// Samples within the smallest of the bounds in bytes.
const SAMPLES_MIN: u64 = 16;

/// What preceded an index.
#[derive(Clone, Copy, Debug)]
struct Sample {
    index: Index,
    bytes_before: u64,
    tick: u64,
}

/// How many bytes precede an index, and when it was appended; sampled.
#[derive(Debug, Default)]
pub(super) struct LogSize {
    samples: std::collections::VecDeque<Sample>,
    total: u64,
    /// Nobody has counted what lies up to here: it was there when the replica started.
    uncounted: Index,
    /// The last entry, and when it was appended.
    newest: (Index, u64),
    /// Something would have been compacted if nobody needed it.
    is_held: bool,
    /// Somebody on this node reads what comes after.
    reader: Option<Index>,
}

impl LogSize {
    /// Of a log that ends at `last`.
    pub(super) fn new(last: Index) -> LogSize {
        LogSize { uncounted: last, newest: (last, 0), ..LogSize::default() }
    }

    /// Somebody on this node reads what comes after, or nobody does.
    pub(super) fn hold(&mut self, reader: Option<Index>) {
        self.reader = reader;
    }

    /// The log is empty and goes on after `last`.
    pub(super) fn reset(&mut self, last: Index) {
        self.samples.clear();
        self.uncounted = last;
    }

    fn append(&mut self, entries: &[LogEntry], tick: u64, distance: u64, interval: u64) {
        let Some(first) = entries.first() else { return };
        while self.samples.back().is_some_and(|sample| sample.index >= first.index) {
            self.samples.pop_back();
        }
        for entry in entries {
            let is_due = self.samples.back().is_none_or(|last| {
                self.total - last.bytes_before >= distance || tick - last.tick >= interval
            });
            if is_due {
                let (index, bytes_before) = (entry.index, self.total);
                self.samples.push_back(Sample { index, bytes_before, tick });
            }
            self.total += entry.cost_bytes();
            self.newest = (entry.index, tick);
        }
    }

    fn forget_through(&mut self, index: Index) {
        while self.samples.front().is_some_and(|sample| sample.index <= index) {
            self.samples.pop_front();
        }
    }

    /// The newest sample of which it is true, or the beginning.
    fn last_where(&self, is_so: impl Fn(&Sample) -> bool) -> Index {
        let count = self.samples.partition_point(is_so);
        count.checked_sub(1).map_or(Index(0), |at| self.samples[at].index)
    }

    /// The last entry behind which there are at least so many bytes.
    pub(super) fn before_bytes(&self, bytes: u64) -> Index {
        let Some(most) = self.total.checked_sub(bytes) else { return Index(0) };
        // Rounded down: a little more is kept.
        let first_kept = self.last_where(|sample| sample.bytes_before <= most);
        Index(first_kept.0.saturating_sub(1))
    }

    /// The last entry that was appended by then, or before the replica started.
    fn before_tick(&self, tick: Option<u64>) -> Index {
        match (tick, self.newest) {
            (None, _) => self.uncounted,
            (Some(tick), (index, appended)) if appended <= tick => index,
            (Some(tick), _) => self.last_where(|sample| sample.tick <= tick).max(self.uncounted),
        }
    }
}

impl Replica {
    pub(super) fn on_snapshot_saved(&mut self, meta: SnapshotMeta) -> Result<(), ReplicaError> {
        let newest = self.raw.store().latest_snapshot().map_or(Index(0), |newest| newest.index);
        let is_suspect = self.reseed.is_some() && !museum::is_on(Exhibit::QuarantinedSnapshots);
        if meta.index <= newest || is_suspect {
            return Ok(());
        }
        self.raw.mut_store().set_snapshot(meta);
        self.compact()
    }

    /// Once a tick: compacts what a peer needed for a while.
    pub(super) fn compact_what_was_held(&mut self) -> Result<(), ReplicaError> {
        let is_time = self.tick.is_multiple_of(self.config.election_ticks as u64);
        if is_time && self.log_size.is_held { self.compact() } else { Ok(()) }
    }

    pub(super) fn compact(&mut self) -> Result<(), ReplicaError> {
        if museum::is_on(Exhibit::LogNeverCompacted) {
            return Ok(());
        }
        let wanted = self.compaction_target();
        let held = [self.held_at(), self.read_at()].into_iter().flatten().min().unwrap_or(wanted);
        self.log_size.is_held = held < wanted;
        self.compact_through(wanted.min(held))
    }

    /// What is damaged must not be read by anybody: a peer that needs it gets the snapshot.
    pub(super) fn compact_all(&mut self) -> Result<(), ReplicaError> {
        let snapshot = self.raw.store().latest_snapshot().map_or(Index(0), |newest| newest.index);
        self.compact_through(snapshot)
    }

    fn compact_through(&mut self, index: Index) -> Result<(), ReplicaError> {
        if let Some(position) = self.raw.mut_store().compact(index)? {
            self.log_size.forget_through(position.index);
            self.compact_to = Some(position);
        }
        Ok(())
    }

    /// Up to where nobody needs the log who is not far behind: there are as many entries, or it
    /// is as long ago, as is kept for those who were away for a moment, and not more bytes than
    /// that may take. On a disk with little space left, all that the snapshot covers.
    fn compaction_target(&self) -> Index {
        let limits = &self.config.limits;
        let snapshot = self.raw.store().latest_snapshot().map_or(Index(0), |newest| newest.index);
        if self.space != Space::Ample {
            // Who lags gets a snapshot.
            return snapshot;
        }
        let by_count = Index(snapshot.0.saturating_sub(limits.trailing_logs));
        let by_time = self.log_size.before_tick(self.tick.checked_sub(self.config.trailing_ticks));
        let by_size = self.log_size.before_bytes(limits.trailing_bytes);
        by_size.max(by_count.min(by_time))
    }

    /// Up to where the log may be compacted for the sake of the peers, if any needs it.
    fn held_at(&self) -> Option<Index> {
        let raft = &self.raw.raft;
        if raft.state != raft::StateRole::Leader
            || self.space != Space::Ample
            || museum::is_on(Exhibit::CompactionRunsAway)
        {
            return None;
        }
        let needed = raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != self.config.node.0)
            .filter_map(|(id, progress)| match progress.state {
                raft::ProgressState::Snapshot => Some(progress.pending_snapshot),
                _ if !self.was_heard(NodeId(*id)) => None,
                raft::ProgressState::Replicate => Some(progress.matched),
                raft::ProgressState::Probe => Some(progress.next_idx.saturating_sub(1)),
            })
            .min()?;
        let floor = self.log_size.before_bytes(self.config.limits.held_bytes);
        Some(Index(needed).max(floor).max(self.log_size.uncounted))
    }

    /// Up to where the log may be compacted for the sake of whoever reads it on this node, if anybody does.
    fn read_at(&self) -> Option<Index> {
        let reader = self.log_size.reader.filter(|_| self.space == Space::Ample)?;
        let floor = self.log_size.before_bytes(self.config.limits.held_bytes);
        Some(reader.max(floor))
    }

    /// Whether a peer said something within the last two election timeouts.
    fn was_heard(&self, peer: NodeId) -> bool {
        let patience = 2 * self.config.election_ticks as u64;
        self.heard.get(&peer).is_some_and(|at| self.tick - at <= patience)
    }

    pub(super) fn count_log_bytes(&mut self, entries: &[LogEntry]) {
        let limits = &self.config.limits;
        let least = limits.trailing_bytes.min(limits.held_bytes).min(limits.promotion_lag_bytes);
        let distance = (least / SAMPLES_MIN).clamp(1, SAMPLE_BYTES_MAX);
        self.log_size.append(entries, self.tick, distance, self.config.election_ticks as u64);
    }
}
