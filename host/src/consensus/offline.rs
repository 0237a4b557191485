//! What committed membership changes make of a configuration, without a replica.

use raft::RawNode;
use raft::storage::MemStorage;

use super::replica::ReplicaError;
use super::{convert, logger, membership};
use crate::types::{ConfChange, ConfState, GroupId, LogEntry, NodeId};

/// A configuration that changes as that of a replica would, by the same code.
pub struct Configuration(RawNode<MemStorage>);

impl Configuration {
    /// As of a snapshot.
    ///
    /// # Errors
    /// When raft-rs does not take it.
    pub fn new(conf_state: &ConfState, group: GroupId) -> Result<Configuration, ReplicaError> {
        // It never speaks, so nobody hears that it has a member's name or none's.
        let node = conf_state.nodes().into_iter().next().unwrap_or(NodeId(1));
        let storage = MemStorage::new();
        storage.initialize_with_conf_state(convert::to_raft_conf_state(conf_state));
        let config = raft::Config { id: node.0, ..Default::default() };
        Ok(Configuration(RawNode::new(&config, storage, &logger::logger(node, group))?))
    }

    /// Takes the next committed change, and says what changed and what results.
    ///
    /// # Errors
    /// [`ReplicaError::BadEntry`] when the entry holds none.
    pub fn apply(&mut self, entry: &LogEntry) -> Result<(ConfChange, ConfState), ReplicaError> {
        let applied = membership::apply(&mut self.0, entry)
            .map_err(|reason| ReplicaError::BadEntry { index: entry.index, reason })?;
        let change = applied.unwrap_or(ConfChange::default());
        Ok((change, membership::current(&self.0)))
    }
}
