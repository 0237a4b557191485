//! Forming a cluster.

use super::error::StartError;
use crate::consensus::bootstrap_write;
use crate::fsm::{Limits, SharedLoader};
use crate::machine::Machine;
use crate::node::apply::save;
use crate::storage::{SnapshotMeta, Stores, WriteBatch};
use crate::transport::Identity;
use crate::types::{ConfState, GroupId, Index, Member, Term};

/// Forms a cluster of one voter in empty stores: a snapshot of the empty machine at index 1.
///
/// # Errors
/// `NotEmpty`, or what the stores report.
pub fn bootstrap(
    stores: &Stores,
    identity: &Identity,
    group: GroupId,
    limits: Limits,
    loader: SharedLoader,
) -> Result<(), StartError> {
    let empty = stores.snapshots.list(group)?.is_empty()
        && stores.log.last_index(group)? == Index(0)
        && stores.log.hard_state(group)? == Default::default();
    if !empty {
        return Err(StartError::NotEmpty);
    }
    let me = Member { id: identity.node, address: identity.address.clone() };
    let conf_state =
        ConfState { voters: [identity.node].into_iter().collect(), ..Default::default() };
    let mut machine = Machine::new(identity.cluster, group, limits, loader);
    machine.bootstrap_members(Index(1), vec![me], conf_state.clone());
    let image = machine.capture()?;
    let meta = SnapshotMeta {
        group,
        index: Index(1),
        term: Term(1),
        conf_state,
        size_bytes: 0,
        checksum: 0,
    };
    let meta = save(&*stores.snapshots, 1, meta, &image)?;
    let write = bootstrap_write(meta.position());
    stores.log.write(&WriteBatch { groups: vec![(group, write)] })?;
    Ok(())
}
