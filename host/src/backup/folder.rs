//! The directory that a node's own backups are in.
//!
//! ```text
//!   <cluster id>-<group>-<index, 20 digits>-<saved, ms>.backup
//! ```
//!
//! Other files are left alone. Several nodes may have the same directory.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{BackupFacts, BackupReader, SavedBackup};
use crate::types::ClusterId;

const EXTENSION: &str = "backup";
/// What was begun so long ago and not finished is of a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// Where a backup is saved.
pub fn path_in(dir: &Path, facts: &BackupFacts) -> PathBuf {
    let BackupFacts { cluster, group, position, saved_ms, .. } = facts;
    dir.join(format!("{cluster}-{group}-{:020}-{saved_ms}.{EXTENSION}", position.index.0))
}

fn is_of(cluster: ClusterId, name: &str) -> bool {
    name.starts_with(&format!("{cluster}-")) && name.ends_with(&format!(".{EXTENSION}"))
}

/// The backups of a cluster, oldest first. What cannot be read is told and left out.
///
/// # Errors
/// The directory cannot be read.
pub fn list(dir: &Path, cluster: ClusterId) -> io::Result<Vec<SavedBackup>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !is_of(cluster, &entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        match look_at(&path) {
            Ok(backup) => found.push(backup),
            Err(reason) => {
                tracing::warn!(file = %path.display(), "this backup {reason}");
            }
        }
    }
    found.sort_by_key(|backup| (backup.facts.position.index, backup.facts.saved_ms));
    Ok(found)
}

/// Reads its beginning only.
fn look_at(path: &Path) -> Result<SavedBackup, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let bytes = file.metadata().map_err(|error| format!("cannot be read: {error}"))?.len();
    let reader = BackupReader::open(BufReader::new(file)).map_err(|error| error.to_string())?;
    Ok(SavedBackup { file: path.to_owned(), bytes, facts: reader.facts().clone() })
}

/// Removes all but the newest `keep` backups of a cluster, and what a killed process left.
///
/// # Errors
/// The directory cannot be read, or a file not be removed.
pub fn prune(dir: &Path, cluster: ClusterId, keep: usize) -> io::Result<()> {
    let mut saved = list(dir, cluster)?;
    saved.truncate(saved.len().saturating_sub(keep));
    for backup in saved {
        tracing::info!(file = %backup.file.display(), "removing an old backup");
        fs::remove_file(&backup.file)?;
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.starts_with(&format!(".{cluster}-")) && name.ends_with(".tmp");
        if is_ours && is_abandoned(&entry)? {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_abandoned(entry: &fs::DirEntry) -> io::Result<bool> {
    let written = entry.metadata()?.modified()?;
    Ok(SystemTime::now().duration_since(written).unwrap_or_default() >= ABANDONED)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::backup::{BackupWriter, NewFile};
    use crate::types::{Index, LogPosition, NodeId, StateDigest, Term};

    fn save(dir: &Path, cluster: ClusterId, index: u64) {
        let position = LogPosition { index: Index(index), term: Term(1) };
        let (group, version) = ("main".to_owned(), "0".to_owned());
        let (node, digest, saved_ms) = (NodeId(1), StateDigest([0; 32]), 7);
        let facts = BackupFacts { cluster, group, position, saved_ms, node, version, digest };
        let file = NewFile::create(&path_in(dir, &facts)).expect("created");
        let mut writer = BackupWriter::begin(file, &facts).expect("written");
        writer.write_all(b"content").expect("written");
        writer.finish().expect("written").1.finish().expect("there");
    }

    #[test]
    fn the_newest_of_the_cluster_are_kept_and_what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (ours, other) = (ClusterId([1; 16]), ClusterId([2; 16]));
        // Out of order, and across the number of digits.
        for index in [900, 1_000_000_000_007, 20, 3] {
            save(dir.path(), ours, index);
        }
        save(dir.path(), other, 1);
        fs::write(dir.path().join("notes"), "mine").expect("written");
        fs::write(dir.path().join(format!("{ours}-main-1-1.backup")), "no backup")
            .expect("written");
        let fresh = dir.path().join(format!(".{ours}-main-5.tmp"));
        fs::write(&fresh, "half").expect("written");
        let old = dir.path().join(format!(".{ours}-main-4.tmp"));
        let file = File::create(&old).expect("created");
        file.set_modified(SystemTime::now() - 2 * ABANDONED).expect("older");
        prune(dir.path(), ours, 2).expect("pruned");
        let indexes = |cluster| -> Vec<u64> {
            let list = list(dir.path(), cluster).expect("listed");
            list.iter().map(|backup| backup.facts.position.index.0).collect()
        };
        assert_eq!(indexes(ours), [900, 1_000_000_000_007]);
        assert_eq!(indexes(other), [1]);
        assert!(dir.path().join("notes").exists() && fresh.exists() && !old.exists());
    }
}
