//! What a node does about damage on its disk, as long as it has a state in memory.

use super::core::NodeHandle;
use crate::node::message::Event;
use crate::types::Index;

impl NodeHandle {
    /// The stored snapshot at this index is damaged: it is set aside, and a fresh one taken if the state
    /// can be trusted. Does not wait for that.
    pub fn replace_snapshot(&self, index: Index) {
        // A node that has stopped replaces nothing.
        let _ = self.shared.events.send(Event::SnapshotUnreadable(index));
    }

    /// A part of the log is damaged: forgets all of it that the newest snapshot covers. Peers that need
    /// it get the snapshot. Does not wait for that.
    pub fn compact_all(&self) {
        let _ = self.shared.events.send(Event::CompactAll);
    }
}
