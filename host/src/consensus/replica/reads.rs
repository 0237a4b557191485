//! Reads: asked of the leader, asked again, answered with the index that they must see.

use super::Replica;
use crate::consensus::effects::{ReadId, ReadReady};
use crate::types::Index;

impl Replica {
    /// A read's question or answer may be lost, or fall on a leader that cannot answer yet.
    pub(super) fn ask_stale_reads(&mut self) {
        let patience = self.config.heartbeat_ticks as u64 * 2;
        let stale: Vec<ReadId> = self
            .reads
            .iter()
            .filter(|(_, asked)| self.tick - **asked >= patience)
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            self.reads.insert(id, self.tick);
            self.ask_read(id);
        }
    }

    /// The context names this node and incarnation: the leader keeps contexts of all nodes.
    pub(super) fn ask_read(&mut self, id: ReadId) {
        let mut context = Vec::with_capacity(24);
        for part in [self.config.node.0, self.config.incarnation, id.0] {
            context.extend_from_slice(&part.to_le_bytes());
        }
        self.raw.read_index(context);
    }

    pub(super) fn ask_all_reads(&mut self) {
        let ids: Vec<ReadId> = self.reads.keys().copied().collect();
        for id in ids {
            self.reads.insert(id, self.tick);
            self.ask_read(id);
        }
    }

    pub(super) fn on_read_state(&mut self, state: raft::ReadState) {
        let parts: Option<[u64; 3]> = state
            .request_ctx
            .chunks(8)
            .map(|part| part.try_into().ok().map(u64::from_le_bytes))
            .collect::<Option<Vec<u64>>>()
            .and_then(|parts| parts.try_into().ok());
        let Some([node, incarnation, id]) = parts else {
            tracing::warn!("a read answer without a context of ours");
            return;
        };
        if node != self.config.node.0 || incarnation != self.config.incarnation {
            return;
        }
        if self.reads.remove(&ReadId(id)).is_some() {
            self.effects.reads.push(ReadReady { id: ReadId(id), index: Index(state.index) });
        }
    }
}
