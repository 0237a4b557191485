//! Forming a cluster.

use super::error::StartError;
use crate::consensus::{RecoveryError, bootstrap_write};
use crate::fsm::{Limits, SharedLoader};
use crate::machine::Machine;
use crate::node::apply::save;
use crate::storage::{SnapshotMeta, Stores, WriteBatch};
use crate::transport::Identity;
use crate::types::{ConfState, GroupId, Index, LogPosition, Member, Term};

/// What the log of a new cluster begins after.
pub const FIRST: LogPosition = LogPosition { index: Index(1), term: Term(1) };

/// The machine of a new cluster of one voter, at [`FIRST`].
pub fn first_machine(
    identity: &Identity,
    group: GroupId,
    limits: Limits,
    loader: SharedLoader,
) -> Machine {
    let me = Member { id: identity.node, address: identity.address.clone() };
    let conf_state =
        ConfState { voters: [identity.node].into_iter().collect(), ..Default::default() };
    let mut machine = Machine::new(identity.cluster, group, limits, loader);
    machine.bootstrap_members(FIRST.index, vec![me], conf_state);
    machine
}

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
    found(stores, group, FIRST, &mut first_machine(identity, group, limits, loader))
}

/// Begins a cluster in empty stores with a machine at this position.
///
/// # Errors
/// `NotEmpty`, or what the stores report.
pub fn found(
    stores: &Stores,
    group: GroupId,
    position: LogPosition,
    machine: &mut Machine,
) -> Result<(), StartError> {
    let empty = stores.snapshots.list(group)?.is_empty()
        && stores.log.last_index(group)? == Index(0)
        && stores.log.hard_state(group)? == Default::default();
    if !empty {
        return Err(StartError::NotEmpty);
    }
    let meta = keep(stores, group, position, machine)?;
    let write = bootstrap_write(meta.position());
    stores.log.write(&WriteBatch { groups: vec![(group, write)] })?;
    Ok(())
}

/// Gives stores whose own snapshots are of no use a committed state of their group, as a snapshot that was
/// received. The next start makes the log fit it, as it would then; what was voted stays.
///
/// # Errors
/// `Recovery` when the log begins after that state, or what the stores report.
pub fn adopt(
    stores: &Stores,
    group: GroupId,
    position: LogPosition,
    machine: &mut Machine,
) -> Result<(), StartError> {
    let log_start = stores.log.start(group)?.index;
    if position.index < log_start {
        let gap = RecoveryError::Gap { group, log_start, snapshot: position.index };
        return Err(gap.into());
    }
    keep(stores, group, position, machine).map(drop)
}

/// Saves a machine's state as the only snapshot.
fn keep(
    stores: &Stores,
    group: GroupId,
    position: LogPosition,
    machine: &mut Machine,
) -> Result<SnapshotMeta, StartError> {
    let image = machine.capture()?;
    let conf_state = machine.conf_state().clone();
    let LogPosition { index, term } = position;
    let meta = SnapshotMeta { group, index, term, conf_state, size_bytes: 0, checksum: 0 };
    Ok(save(&*stores.snapshots, 1, meta, &image)?)
}
