//! Snapshot files that hold no snapshot any more.

use std::path::{Path, PathBuf};

use super::super::disk::{corrupt, is_medium_error};
use super::super::{SnapshotMeta, StorageError};
use crate::types::{GroupId, Index};

/// A file that is left out of the list.
pub(super) struct Damage {
    path: PathBuf,
    /// As its place says, since its content cannot be asked.
    group: Option<GroupId>,
    index: Option<Index>,
    offset: u64,
    reason: String,
}

impl Damage {
    /// Of a file that could not be looked into. Gives the error back when the file may be good.
    pub(super) fn found(path: PathBuf, error: StorageError) -> Result<Damage, StorageError> {
        let (offset, reason) = match error {
            StorageError::Corrupt { offset, reason, .. } => (offset, reason),
            StorageError::Io { source, .. } if is_medium_error(&source) => (0, source.to_string()),
            other => return Err(other),
        };
        tracing::error!(
            file = %path.display(), offset, %reason,
            "a damaged snapshot is left out; an older one and the log may do"
        );
        Ok(Damage { group: group_of(&path), index: index_of(&path), path, offset, reason })
    }

    /// Of a file whose content could not be used.
    pub(super) fn set_aside(path: PathBuf, meta: &SnapshotMeta) -> Damage {
        let (group, index) = (Some(meta.group), Some(meta.index));
        let reason = "the content cannot be used".to_owned();
        Damage { path, group, index, offset: 0, reason }
    }
}

fn group_of(path: &Path) -> Option<GroupId> {
    path.parent()?.file_name()?.to_str()?.parse().ok().map(GroupId)
}

fn index_of(path: &Path) -> Option<Index> {
    path.file_stem()?.to_str()?.split_once('-')?.0.parse().ok().map(Index)
}

/// All such files of a store.
#[derive(Default)]
pub(super) struct Damaged(Vec<Damage>);

impl Damaged {
    pub(super) fn add(&mut self, damage: Damage) {
        self.0.push(damage);
    }

    /// A good file has taken its place.
    pub(super) fn forget(&mut self, path: &Path) {
        self.0.retain(|damage| damage.path != path);
    }

    /// Hands out those that a state at `upto` makes superfluous, to be removed. A file whose
    /// name is none of ours stays: whoever put it there may want it back.
    pub(super) fn take(&mut self, group: GroupId, upto: Index) -> Vec<PathBuf> {
        let is_covered = |damage: &Damage| {
            damage.group == Some(group) && damage.index.is_some_and(|index| index <= upto)
        };
        self.0.extract_if(.., |damage| is_covered(damage)).map(|damage| damage.path).collect()
    }

    pub(super) fn errors(&self, group: GroupId) -> Vec<StorageError> {
        let of_group = self.0.iter().filter(|damage| damage.group == Some(group));
        of_group.map(|damage| corrupt(&damage.path, damage.offset, &*damage.reason)).collect()
    }
}
