//! Reads what is stored before anybody needs it, and says what is no longer what was written.
//!
//! What has rotted can be mended as long as there is something to mend it from: a state in memory
//! replaces a snapshot, and a snapshot replaces the log before it. After a restart there is neither.

mod board;

use std::io;
use std::path::PathBuf;

pub use self::board::{KnownDamage, ScrubBoard, ScrubReport};
use super::disk::is_medium_error;
use super::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::{GroupId, Index};

/// How much is read at a time.
pub(super) const STEP_BYTES: usize = 64 << 10;

/// Asked before so many bytes are read: waits until they may be, and says whether to go on at all.
pub type Pace<'a> = dyn FnMut(u64) -> bool + Send + 'a;

/// What a damaged file belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamagedPart {
    /// This snapshot.
    Snapshot(SnapshotMeta),
    /// The log.
    Log,
}

/// A file that does not hold what was written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What it belongs to.
    pub part: DamagedPart,
    /// The file.
    pub file: PathBuf,
    /// Byte offset, as near as it is known.
    pub offset: u64,
    /// What does not fit.
    pub reason: String,
}

/// What reading came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// What was found, at most one place of each file.
    pub damages: Vec<Damage>,
    /// Whether all was read; not if the pace ended it.
    pub is_whole: bool,
}

/// Reads all snapshots of a group that no other thread is about to install: those up to `upto`.
///
/// # Errors
/// `Io` when something cannot be read, and the medium is not to blame.
pub fn scrub_snapshots(
    store: &dyn SnapshotStore,
    group: GroupId,
    upto: Index,
    pace: &mut Pace<'_>,
) -> Result<Scrubbed, StorageError> {
    let mut damages = Vec::new();
    for meta in store.list(group)?.into_iter().filter(|meta| meta.index <= upto) {
        match read_snapshot(store, &meta, pace) {
            Ok(true) => {}
            Ok(false) => return Ok(Scrubbed { damages, is_whole: false }),
            // Another one has taken its place meanwhile, or it was not needed any more.
            Err(_) if !store.list(group)?.contains(&meta) => {}
            Err(error) => damages.push(as_damage(error, &meta)?),
        }
    }
    Ok(Scrubbed { damages, is_whole: true })
}

/// Says whether it was read to its end.
fn read_snapshot(
    store: &dyn SnapshotStore,
    meta: &SnapshotMeta,
    pace: &mut Pace<'_>,
) -> Result<bool, StorageError> {
    store.forget_cached(meta);
    let (_, mut content) = store.open(meta.group, meta.index)?;
    let mut bytes = vec![0; STEP_BYTES];
    loop {
        if !pace(STEP_BYTES as u64) {
            return Ok(false);
        }
        match content.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(named(error, meta)),
        }
    }
    // What was only read to be looked at shall not displace what is needed.
    store.forget_cached(meta);
    Ok(true)
}

/// The reader's own error, or one that names the snapshot.
fn named(error: io::Error, meta: &SnapshotMeta) -> StorageError {
    match error.downcast::<StorageError>() {
        Ok(error) => error,
        Err(source) => {
            let path = PathBuf::from(format!("snapshot {} of group {}", meta.index, meta.group));
            StorageError::Io { action: "read", path, source }
        }
    }
}

fn as_damage(error: StorageError, meta: &SnapshotMeta) -> Result<Damage, StorageError> {
    let part = DamagedPart::Snapshot(meta.clone());
    damage(part, error)
}

/// The error again when the medium is not to blame.
pub(super) fn damage(part: DamagedPart, error: StorageError) -> Result<Damage, StorageError> {
    match error {
        StorageError::Corrupt { path: file, offset, reason } => {
            Ok(Damage { part, file, offset, reason })
        }
        StorageError::Io { path: file, source, .. } if is_medium_error(&source) => {
            Ok(Damage { part, file, offset: 0, reason: source.to_string() })
        }
        error => Err(error),
    }
}
