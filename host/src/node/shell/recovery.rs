//! Finds the newest state that a node can go on from: a snapshot, and the log from there.

use super::error::StartError;
use crate::consensus::{RecoveryError, reconcile};
use crate::fsm::SharedLoader;
use crate::machine::Machine;
use crate::node::apply::{LoadError, restore};
use crate::storage::{SnapshotMeta, Stores, WriteBatch};
use crate::types::{ClusterId, GroupId};

/// What a node starts with; nothing on a node that waits for its first snapshot.
pub(super) struct Recovered {
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) machine: Option<Machine>,
}

/// Goes back from the newest snapshot to one that can be restored and that the log goes on from.
///
/// An older state is as good as the newest when the log holds all that came since: what the
/// newest added is executed again. A snapshot that was received and whose log was not reset yet
/// was never acknowledged either. When the log begins after it, nothing else will do.
pub(super) fn recover(
    stores: &Stores,
    cluster: ClusterId,
    group: GroupId,
    loader: &SharedLoader,
) -> Result<Recovered, StartError> {
    // Whatever is wrong with the newest one: that is what people must hear of.
    let mut damage: Option<StartError> =
        stores.snapshots.damaged(group).into_iter().next().map(StartError::from);
    loop {
        let snapshot = stores.snapshots.list(group)?.into_iter().next();
        let write = match (reconcile(&*stores.log, group, snapshot.as_ref()), damage.take()) {
            (Ok(write), known) => {
                damage = known;
                write
            }
            (Err(RecoveryError::Storage(error)), _) => return Err(error.into()),
            (Err(without), Some(damage)) => {
                return Err(StartError::NoOlderState { damage: Box::new(damage), without });
            }
            (Err(error), None) => return Err(error.into()),
        };
        let machine = match &snapshot {
            None => None,
            Some(meta) => match restore(&*stores.snapshots, meta, cluster, loader) {
                Ok(machine) => Some(machine),
                Err(error) if error.is_damage() => {
                    tracing::error!(
                        index = %meta.index, %error,
                        "a damaged snapshot is set aside; trying the state before it"
                    );
                    stores.snapshots.set_aside(meta);
                    damage = damage.or(Some(start_error(error, meta)));
                    continue;
                }
                Err(error) => return Err(start_error(error, meta)),
            },
        };
        // Not before the state is there: it may replace the log.
        if let Some(write) = write {
            stores.log.write(&WriteBatch { groups: vec![(group, write)] })?;
        }
        return Ok(Recovered { snapshot, machine });
    }
}

fn start_error(error: LoadError, meta: &SnapshotMeta) -> StartError {
    match error {
        LoadError::Storage(error) => StartError::Storage(error),
        LoadError::Restore(source) => StartError::Restore { index: meta.index, source },
    }
}
