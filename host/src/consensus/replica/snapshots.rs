//! What a replica makes of snapshots that were taken, or sent.

use super::{Replica, ReplicaError};
use crate::museum::{self, Exhibit};
use crate::storage::SnapshotMeta;
use crate::types::{Index, NodeId, SnapshotFate};

impl Replica {
    pub(super) fn on_snapshot_sent(&mut self, to: NodeId, fate: SnapshotFate) {
        self.raw.mut_store().offers().ended(to, fate);
        let status = match fate {
            SnapshotFate::Delivered => raft::SnapshotStatus::Finish,
            _ if museum::is_on(Exhibit::LostSnapshotUnreported) => return,
            _ => raft::SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(to.0, status);
    }

    pub(super) fn on_snapshot_saved(&mut self, meta: SnapshotMeta) -> Result<(), ReplicaError> {
        let newest = self.raw.store().latest_snapshot().map_or(Index(0), |newest| newest.index);
        let is_suspect = self.reseed.is_some() && !museum::is_on(Exhibit::QuarantinedSnapshots);
        if meta.index <= newest || is_suspect {
            return Ok(());
        }
        let by_count = meta.index.0.saturating_sub(self.config.limits.trailing_logs);
        let keep_from = self.log_bytes_total.saturating_sub(self.config.limits.trailing_bytes);
        let by_size = self
            .log_bytes
            .iter()
            .take_while(|(_, before)| *before <= keep_from)
            .last()
            .map_or(0, |(index, _)| index.0);
        self.raw.mut_store().set_snapshot(meta);
        if museum::is_on(Exhibit::LogNeverCompacted) {
            return Ok(());
        }
        let target = Index(by_count.max(by_size));
        if let Some(position) = self.raw.mut_store().compact(target)? {
            while self.log_bytes.front().is_some_and(|(index, _)| *index <= position.index) {
                self.log_bytes.pop_front();
            }
            self.compact_to = Some(position);
        }
        Ok(())
    }
}
