//! A machine on its way into the snapshot store, and out of it.

use std::io::{self, Write as _};
use std::sync::Arc;

use crate::fsm::SharedLoader;
use crate::machine::{Machine, MachineSnapshot, RestoreError};
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::ClusterId;

/// `None` when it could not be saved.
pub(in crate::node) fn try_save(
    store: &dyn SnapshotStore,
    keep: usize,
    meta: SnapshotMeta,
    image: &MachineSnapshot,
) -> Option<SnapshotMeta> {
    let index = meta.index;
    match save(store, keep, meta, image) {
        Ok(meta) => {
            tracing::info!(%index, bytes = meta.size_bytes, "snapshot saved");
            Some(meta)
        }
        Err(error) => {
            // Nothing is lost: the log is kept until a snapshot covers it.
            tracing::error!(%index, %error, "snapshot not saved; the log stays");
            None
        }
    }
}

/// Writes a captured machine into the store and drops what is older than the newest `keep`. What
/// was received meanwhile is newer, and stays: it waits to be installed.
pub(in crate::node) fn save(
    store: &dyn SnapshotStore,
    keep: usize,
    meta: SnapshotMeta,
    image: &MachineSnapshot,
) -> Result<SnapshotMeta, StorageError> {
    let group = meta.group;
    let mut sink = store.create(meta)?;
    image.write_to(&mut sink).and_then(|()| sink.flush()).map_err(|source| StorageError::Io {
        action: "write snapshot",
        path: format!("group {group}").into(),
        source,
    })?;
    let meta = sink.finish()?;
    store.retain(group, keep, meta.index)?;
    Ok(meta)
}

/// Why a stored snapshot does not become a machine.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum LoadError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl LoadError {
    /// Whether the file is to blame: not the program, and not what a host lacks today.
    pub(in crate::node) fn is_damage(&self) -> bool {
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
}

/// The medium cannot read what it was given (`EIO`).
fn is_medium_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// Restores the machine of a stored snapshot, which must be what its metadata says.
pub(in crate::node) fn restore(
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
