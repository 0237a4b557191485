//! What a replica makes of the end of a transfer.

use super::Replica;
use crate::museum::{self, Exhibit};
use crate::types::{NodeId, SnapshotFate};

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
}
