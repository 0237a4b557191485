//! Puts other contents into a stopped node's directory and keeps the old ones aside.
//!
//! ```text
//!   RECOVERY          what a succession that is under way has come to, and its tag
//!   recovering/       the new contents, until they are complete: a data directory of its own
//!   before-TAG/       the old contents, untouched: a data directory as well
//! ```
//!
//! A crash between two steps leaves `RECOVERY`, with which nobody else opens the directory, and the same
//! succession begun again goes on: until the new contents are complete the old ones lie where they
//! were; then all of the old ones leave; then all of the new ones come.
//!
//! `RECOVERY` is one line: `raft-host-recovery 1 TAG STAGE`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DataDir, IDENTITY_FILE, LOCK_FILE, Medium, medium, read_identity};
use crate::storage::StorageError;
use crate::storage::disk::{RealDisk, corrupt, ensure_dir, io_error, list, sync_dir};
use crate::storage::room::{DiskRoom, RESERVE_FILE};

const MAGIC: &str = "raft-host-recovery 1";
pub(super) const RECOVERY_FILE: &str = "RECOVERY";
/// Where the new contents are made.
const FRESH: &str = "recovering";
/// Before the tag.
const ASIDE: &str = "before-";

/// How far a succession is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The new contents are being made.
    Making,
    /// They are complete, and the old ones leave.
    Clearing,
    /// The old ones are gone, and the new ones come.
    Placing,
}

impl Stage {
    const ALL: [(Stage, &str); 3] =
        [(Stage::Making, "making"), (Stage::Clearing, "clearing"), (Stage::Placing, "placing")];

    fn name(self) -> &'static str {
        let name = Stage::ALL.iter().find(|(stage, _)| *stage == self).map(|(_, name)| *name);
        name.expect("all stages are listed")
    }
}

/// A directory whose contents are to be replaced, locked.
#[derive(Debug)]
pub struct Succession {
    dir: DataDir,
    tag: String,
    stage: Option<Stage>,
}

impl Succession {
    /// Locks the directory of a node that does not run. `tag` names this succession: letters and digits.
    ///
    /// # Errors
    /// `ForeignData` when the node runs, when this is no node's directory, or when a succession of
    /// another tag was interrupted here; otherwise as [`DataDir::lock`].
    pub fn begin(path: &Path, tag: &str) -> Result<Succession, StorageError> {
        Succession::begin_on(Arc::new(RealDisk), path, tag)
    }

    /// As [`Succession::begin`], on another disk.
    ///
    /// # Errors
    /// As [`Succession::begin`].
    pub fn begin_on(
        disk: Arc<dyn Medium>,
        path: &Path,
        tag: &str,
    ) -> Result<Succession, StorageError> {
        let under_way = read(&*disk, path)?;
        let is_ours = match &under_way {
            Some((other, _)) if other != tag => return Err(interrupted(path, other)),
            Some(_) => true,
            None => medium::read(&*disk, &path.join(IDENTITY_FILE))?.is_some(),
        };
        if !is_ours || !disk.was_held(path) {
            return Err(StorageError::ForeignData(format!(
                "{} is not the data directory of a node: it has no {IDENTITY_FILE} and {LOCK_FILE}",
                path.display()
            )));
        }
        let held = disk.hold(path)?;
        // Whoever had the lock until now may have changed it.
        let stage = read(&*disk, path)?.map(|(_, stage)| stage);
        let identity = read_identity(&*disk, &path.join(IDENTITY_FILE))?;
        let room = Arc::new(DiskRoom::of(path));
        let dir = DataDir { path: path.to_owned(), identity, room, disk, _held: held };
        Ok(Succession { dir, tag: tag.to_owned(), stage })
    }

    /// Whether all of it is done already.
    pub fn is_done(&self) -> bool {
        self.stage.is_none() && self.dir.disk.is_dir(&self.aside())
    }

    /// Whether the new contents have yet to be made: the old ones are where they were.
    pub fn wants_contents(&self) -> bool {
        !self.is_done() && matches!(self.stage, None | Some(Stage::Making))
    }

    /// The directory, with its old contents until the succession is done.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// Where the old contents are when it is done.
    pub fn aside(&self) -> PathBuf {
        self.dir.path.join(format!("{ASIDE}{}", self.tag))
    }

    /// An empty place for the new contents, a data directory to be.
    ///
    /// # Errors
    /// `Io`.
    pub fn fresh(&mut self) -> Result<PathBuf, StorageError> {
        self.note(Stage::Making)?;
        let fresh = self.dir.path.join(FRESH);
        let disk = &*self.dir.disk;
        if disk.is_dir(&fresh) {
            medium::remove_all(disk, &fresh)?;
        }
        ensure_dir(disk, &fresh)?;
        Ok(fresh)
    }

    /// Puts the new contents, which are complete and which nobody has open, in the place of the old ones.
    ///
    /// # Errors
    /// `Io`; begun again, it goes on.
    pub fn complete(mut self) -> Result<(), StorageError> {
        let (path, fresh, aside) = (self.dir.path.clone(), self.dir.path.join(FRESH), self.aside());
        let disk = Arc::clone(&self.dir.disk);
        let disk = &*disk;
        if self.stage != Some(Stage::Placing) {
            self.note(Stage::Clearing)?;
            ensure_dir(disk, &aside)?;
            // It is a node's directory as before, for `replay`, or for the way back.
            drop(disk.hold(&aside)?);
            bring_all(disk, &path, &aside, |name| {
                let is_ours =
                    [LOCK_FILE, RECOVERY_FILE, RESERVE_FILE, FRESH, "lost+found"].contains(&name);
                !is_ours && !name.starts_with(ASIDE)
            })?;
            self.note(Stage::Placing)?;
        }
        if disk.is_dir(&fresh) {
            bring_all(disk, &fresh, &path, |name| name != LOCK_FILE)?;
            medium::remove_all(disk, &fresh)?;
        }
        let recovery = path.join(RECOVERY_FILE);
        disk.remove(&recovery).map_err(io_error("remove", &recovery))?;
        sync_dir(disk, &path)
    }

    fn note(&mut self, stage: Stage) -> Result<(), StorageError> {
        let line = format!("{MAGIC} {} {}\n", self.tag, stage.name());
        medium::write(&*self.dir.disk, &self.dir.path.join(RECOVERY_FILE), line.as_bytes())?;
        self.stage = Some(stage);
        Ok(())
    }
}

/// Refuses a directory that a succession was interrupted in.
pub(super) fn refuse_interrupted(disk: &dyn Medium, path: &Path) -> Result<(), StorageError> {
    read(disk, path)?.map_or(Ok(()), |(tag, _)| Err(interrupted(path, &tag)))
}

fn interrupted(path: &Path, tag: &str) -> StorageError {
    StorageError::ForeignData(format!(
        "a recovery by the plan {tag} was interrupted in {}: run `raft-host recover apply` with that plan \
         again, which completes it",
        path.display()
    ))
}

fn read(disk: &dyn Medium, dir: &Path) -> Result<Option<(String, Stage)>, StorageError> {
    let path = dir.join(RECOVERY_FILE);
    let Some(bytes) = medium::read(disk, &path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let words = text.strip_prefix(MAGIC).and_then(|rest| rest.trim().split_once(' '));
    let parsed = words.and_then(|(tag, name)| {
        let stage = Stage::ALL.iter().find(|(_, known)| *known == name)?.0;
        Some((tag.to_owned(), stage))
    });
    parsed.map(Some).ok_or_else(|| corrupt(&path, 0, format!("it is not a line of {MAGIC:?}")))
}

/// Moves whatever is wanted from one directory into another, durably.
fn bring_all(
    disk: &dyn Medium,
    from: &Path,
    to: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(), StorageError> {
    for path in list(disk, from)? {
        let name = path.file_name().expect("a directory lists names");
        // A name that is no text is none of ours, and belongs to the old contents.
        if name.to_str().is_none_or(&is_wanted) {
            disk.rename(&path, &to.join(name)).map_err(io_error("move", &path))?;
        }
    }
    sync_dir(disk, to)?;
    sync_dir(disk, from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::{Engine, NodeIdentity, StorageConfig};
    use crate::types::{ClusterId, NodeId};

    const TAG: &str = "a1";

    fn identity(cluster: u8) -> NodeIdentity {
        let engine = Engine::default();
        NodeIdentity { cluster: ClusterId([cluster; 16]), node: NodeId(1), engine }
    }

    fn make(path: &Path, cluster: u8) {
        let mut dir = DataDir::lock(path).expect("nobody's");
        dir.initialize(identity(cluster)).expect("initialized");
        dir.open_stores(&StorageConfig::default()).expect("opened");
    }

    /// A stopped node's directory with a file of its own.
    fn old() -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("a temporary directory");
        make(place.path(), 1);
        fs::write(place.path().join("INTENT"), "to do").expect("written");
        place
    }

    fn whose(path: &Path) -> ClusterId {
        let dir = DataDir::lock_stopped(path).expect("a node's");
        let scratch = tempfile::tempdir().expect("a temporary directory");
        dir.open_copies(&StorageConfig::default(), scratch.path()).expect("whole");
        dir.identity().expect("a node's").cluster
    }

    fn succeed(path: &Path) {
        let mut succession = Succession::begin(path, TAG).expect("begun");
        if succession.wants_contents() {
            make(&succession.fresh().expect("a place"), 2);
        }
        succession.complete().expect("completed");
    }

    #[test]
    fn new_contents_take_the_place_of_old_ones_which_stay_aside() {
        let place = old();
        succeed(place.path());
        assert_eq!(whose(place.path()), ClusterId([2; 16]));
        assert!(!place.path().join("INTENT").exists());
        let aside = place.path().join("before-a1");
        assert_eq!(fs::read_to_string(aside.join("INTENT")).expect("kept"), "to do");
        assert_eq!(whose(&aside), ClusterId([1; 16]));
        let again = Succession::begin(place.path(), TAG).expect("begun");
        assert!(again.is_done() && !again.wants_contents());
        drop(again);
        let other = Succession::begin(place.path(), "b2").expect("another one");
        assert!(!other.is_done() && other.wants_contents());
    }

    /// Interrupted before each of its steps on files, it lets nobody in and goes on.
    #[test]
    fn a_succession_that_was_interrupted_anywhere_goes_on() {
        let steps = |path: &Path| -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(path)
                .expect("listed")
                .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
                .filter(|name| ![LOCK_FILE, RECOVERY_FILE, FRESH].contains(&&**name))
                .filter(|name| !name.starts_with(ASIDE))
                .collect();
            names.sort_unstable();
            names
        };
        for stage in [Stage::Making, Stage::Clearing, Stage::Placing] {
            for moved in 0.. {
                let place = old();
                let path = place.path();
                let mut succession = Succession::begin(path, TAG).expect("begun");
                let fresh = succession.fresh().expect("a place");
                make(&fresh, 2);
                if stage == Stage::Making {
                    // Half made.
                    fs::remove_file(fresh.join(IDENTITY_FILE)).expect("removed");
                }
                succession.note(stage).expect("noted");
                let aside = succession.aside();
                let (mut from, mut to) = (path.to_owned(), aside.clone());
                if stage != Stage::Making {
                    fs::create_dir(&aside).expect("created");
                }
                if stage == Stage::Placing {
                    drop(RealDisk.hold(&aside).expect("locked"));
                    for name in steps(path) {
                        fs::rename(path.join(&name), aside.join(name)).expect("moved");
                    }
                    (from, to) = (fresh, path.to_owned());
                }
                let names = if stage == Stage::Making { Vec::new() } else { steps(&from) };
                for name in names.iter().take(moved) {
                    fs::rename(from.join(name), to.join(name)).expect("moved");
                }
                drop(succession);
                let refused = DataDir::lock(path).expect_err("half done").to_string();
                assert!(refused.contains("by the plan a1 was interrupted"), "{refused}");
                DataDir::lock_stopped(path).expect_err("half done");
                let other = Succession::begin(path, "b2").expect_err("half done").to_string();
                assert!(other.contains("by the plan a1"), "{other}");
                succeed(path);
                assert_eq!(whose(path), ClusterId([2; 16]), "{stage:?} {moved}");
                assert_eq!(whose(&aside), ClusterId([1; 16]), "{stage:?} {moved}");
                if moved >= names.len() {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_no_stopped_nodes_directory_is_left_alone() {
        let empty = tempfile::tempdir().expect("a temporary directory");
        let refused = Succession::begin(empty.path(), TAG).expect_err("nobody's").to_string();
        assert!(refused.contains("is not the data directory of a node"), "{refused}");
        assert_eq!(fs::read_dir(empty.path()).expect("listed").count(), 0);
        let place = old();
        let running = DataDir::lock(place.path()).expect("locked");
        let refused = Succession::begin(place.path(), TAG).expect_err("it runs").to_string();
        assert!(refused.contains("is in use by"), "{refused}");
        drop(running);
        fs::write(place.path().join(RECOVERY_FILE), "nonsense").expect("written");
        let refused = Succession::begin(place.path(), TAG).expect_err("damaged").to_string();
        assert!(refused.contains("corrupt"), "{refused}");
    }
}
