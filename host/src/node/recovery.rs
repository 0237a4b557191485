//! Finds the newest state that a node can go on from: a snapshot, and the log from there.

use std::io;
use std::sync::Arc;

use super::start::StartError;
use crate::consensus::{RecoveryError, reconcile};
use crate::fsm::SharedLoader;
use crate::machine::{Machine, RestoreError};
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError, Stores, WriteBatch};
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
                    damage = damage.or(Some(error.into_start_error(meta)));
                    continue;
                }
                Err(error) => return Err(error.into_start_error(meta)),
            },
        };
        // Not before the state is there: it may replace the log.
        if let Some(write) = write {
            stores.log.write(&WriteBatch { groups: vec![(group, write)] })?;
        }
        return Ok(Recovered { snapshot, machine });
    }
}

/// Why a stored snapshot does not become a machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl LoadError {
    /// Whether the file is to blame: not the program, and not what a host lacks today.
    fn is_damage(&self) -> bool {
        match self {
            LoadError::Storage(StorageError::Corrupt { .. }) => true,
            LoadError::Storage(StorageError::Io { source, .. }) => is_medium_error(source),
            LoadError::Storage(_) => false,
            LoadError::Restore(error) => match error {
                RestoreError::Invalid(_)
                | RestoreError::WrongCluster { .. }
                | RestoreError::WrongGroup { .. } => true,
                RestoreError::Io(source) => is_medium_error(source),
                RestoreError::Version { .. }
                | RestoreError::Program(_)
                | RestoreError::Module { .. }
                | RestoreError::Host(_) => false,
            },
        }
    }

    fn into_start_error(self, meta: &SnapshotMeta) -> StartError {
        match self {
            LoadError::Storage(error) => StartError::Storage(error),
            LoadError::Restore(source) => StartError::Restore { index: meta.index, source },
        }
    }
}

/// The medium cannot read what it was given (`EIO`).
fn is_medium_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// Restores the machine of a stored snapshot, which must be what its metadata says.
pub(super) fn restore(
    snapshots: &dyn SnapshotStore,
    meta: &SnapshotMeta,
    cluster: ClusterId,
    loader: &SharedLoader,
) -> Result<Machine, LoadError> {
    let (_, mut content) = snapshots.open(meta.group, meta.index)?;
    let machine = Machine::restore(&mut content, cluster, meta.group, Arc::clone(loader))?;
    if machine.applied_index() != meta.index || *machine.conf_state() != meta.conf_state {
        let reason = format!(
            "it holds the state at index {}, and its file says {} with another configuration or \
             index",
            machine.applied_index(),
            meta.index
        );
        return Err(RestoreError::Invalid(reason).into());
    }
    Ok(machine)
}
