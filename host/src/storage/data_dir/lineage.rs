//! Notices that a part of a data directory was lost, or is older than the others, or another node's.
//!
//! Who has voted or acknowledged must know that it has, outside of the directory that holds the
//! votes and entries: an emptied `log/` looks like that of a node that never said anything. So the
//! directory and its parts carry tags that belong together, and that each start moves on:
//!
//! ```text
//!   PLEDGE              lineage, whose, start n, term and commit index when start n began
//!   log/LINEAGE         lineage, whose, start n
//!   snapshots/LINEAGE   lineage, whose, start n
//! ```
//!
//! The tags of the parts are written before that of the whole, so after a crash between them a part
//! may be one start ahead, and never behind. Nothing is written but at a start.
//!
//! A tag, all numbers little-endian:
//!
//! ```text
//!   0   magic "RHLINEAG"
//!   8   format version u32 = 1 | part u32: 1 the whole, 2 the log, 3 the snapshots
//!   16  lineage, 16 bytes | cluster id, 16 bytes | node id u64
//!   56  start u64 | term u64 | commit index u64
//!   80  CRC-32 of bytes 0..80, u32
//! ```

use std::path::{Path, PathBuf};

use super::medium::{self, names};
use super::{Medium, NodeIdentity};
use crate::storage::disk::{corrupt, ensure_dir};
use crate::storage::{StorageError, Stores};
use crate::types::{ClusterId, GroupId, Index, NodeId, Term};

const MAGIC: &[u8; 8] = b"RHLINEAG";
const VERSION: u32 = 1;
const BYTES: usize = 84;
/// Of the whole.
pub(super) const PLEDGE_FILE: &str = "PLEDGE";
/// Of a part, in it.
const TAG_FILE: &str = "LINEAGE";

/// What carries a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Log,
    Snapshots,
}

impl Part {
    const CONTENTS: [Part; 2] = [Part::Log, Part::Snapshots];

    fn number(self) -> u32 {
        match self {
            Part::Whole => 1,
            Part::Log => 2,
            Part::Snapshots => 3,
        }
    }

    /// Its directory within the data directory.
    fn name(self) -> &'static str {
        match self {
            Part::Whole => "",
            Part::Log => "log",
            Part::Snapshots => "snapshots",
        }
    }

    fn file(self, dir: &Path) -> PathBuf {
        match self {
            Part::Whole => dir.join(PLEDGE_FILE),
            part => dir.join(part.name()).join(TAG_FILE),
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    lineage: [u8; 16],
    cluster: ClusterId,
    node: NodeId,
    /// Counts openings of the stores.
    start: u64,
    term: Term,
    commit: Index,
}

/// Begins a lineage in a directory that is nobody's yet.
pub(super) fn begin(
    disk: &dyn Medium,
    dir: &Path,
    identity: &NodeIdentity,
) -> Result<(), StorageError> {
    let tag = Tag {
        lineage: rand::random(),
        cluster: identity.cluster,
        node: identity.node,
        start: 0,
        term: Term(0),
        commit: Index(0),
    };
    for part in Part::CONTENTS {
        ensure_dir(disk, &dir.join(part.name()))?;
    }
    write_all(disk, dir, &tag)
}

/// Whether a directory without an identity was left so by an interrupted creation.
///
/// # Errors
/// `LostPart` when it is a node's that has lost its identity.
pub(super) fn is_unborn(disk: &dyn Medium, dir: &Path) -> Result<bool, StorageError> {
    match read(disk, dir, Part::Whole)? {
        None => holds_nothing(disk, dir),
        Some(tag) if tag.start == 0 => Ok(true),
        Some(tag) => Err(lost(dir, tag.node, "its IDENTITY is missing")),
    }
}

/// Whether the creation was interrupted so early that there are at most its parts, with their first tags alone.
fn holds_nothing(disk: &dyn Medium, dir: &Path) -> Result<bool, StorageError> {
    let half_written = |file: &str| format!("{file}.tmp");
    for name in names(disk, dir)? {
        if super::HARMLESS.contains(&&*name) || name == half_written(PLEDGE_FILE) {
            continue;
        }
        let Some(part) = Part::CONTENTS.into_iter().find(|part| part.name() == name) else {
            return Ok(false);
        };
        let path = dir.join(&name);
        let is_tag = |file: &String| *file == TAG_FILE || *file == half_written(TAG_FILE);
        if !disk.is_dir(&path) || !names(disk, &path)?.iter().all(is_tag) {
            return Ok(false);
        }
        if read(disk, dir, part)?.is_some_and(|tag| tag.start != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares the tags of all parts, before anything is opened.
///
/// # Errors
/// `LostPart`; `Corrupt` when a tag is damaged.
pub(super) fn check(
    disk: &dyn Medium,
    dir: &Path,
    identity: &NodeIdentity,
) -> Result<Tag, StorageError> {
    let node = identity.node;
    let Some(whole) = read(disk, dir, Part::Whole)? else {
        return Err(lost(dir, node, "its PLEDGE is missing"));
    };
    if (whole.cluster, whole.node) != (identity.cluster, node) {
        let what = format!(
            "its IDENTITY is that of node {node} of cluster {}, and its PLEDGE that of node {} of \
             cluster {}",
            identity.cluster, whole.node, whole.cluster
        );
        return Err(lost(dir, node, &what));
    }
    for part in Part::CONTENTS {
        let name = part.name();
        let Some(tag) = read(disk, dir, part)? else {
            let is_there = disk.is_dir(&dir.join(name));
            let how = if is_there { "was emptied or replaced" } else { "is missing" };
            return Err(lost(dir, node, &format!("its directory {name} {how}")));
        };
        let what = if tag.lineage != whole.lineage {
            format!(
                "its directory {name} is that of node {} of cluster {}, or of an earlier life of \
                 this one",
                tag.node, tag.cluster
            )
        } else if tag.start < whole.start {
            format!(
                "its directory {name} is an older copy: it is of start {}, and this node's last was \
                 start {}",
                tag.start, whole.start
            )
        } else if tag.start > whole.start + 1 {
            format!(
                "its PLEDGE is an older copy: it is of start {}, and its directory {name} of start {}",
                whole.start, tag.start
            )
        } else {
            continue;
        };
        return Err(lost(dir, node, &what));
    }
    Ok(whole)
}

/// Notes the start, once the stores are open and hold what they held when the last one began.
///
/// # Errors
/// `LostPart` when they do not.
pub(super) fn advance(
    disk: &dyn Medium,
    dir: &Path,
    before: Tag,
    stores: &Stores,
) -> Result<(), StorageError> {
    let hard_state = stores.log.hard_state(GroupId::MAIN)?;
    let start = stores.log.start(GroupId::MAIN)?;
    let commit = hard_state.commit.max(start.index);
    if hard_state.term < before.term || commit < before.commit {
        let what = format!(
            "its log is older than this node's last start: that began in term {} with entry {} \
             committed, and the log is in term {} with entry {commit}",
            before.term, before.commit, hard_state.term
        );
        return Err(lost(dir, before.node, &what));
    }
    let tag = Tag { start: before.start + 1, term: hard_state.term, commit, ..before };
    write_all(disk, dir, &tag)
}

/// The parts first: see the module.
fn write_all(disk: &dyn Medium, dir: &Path, tag: &Tag) -> Result<(), StorageError> {
    for part in [Part::Log, Part::Snapshots, Part::Whole] {
        medium::write(disk, &part.file(dir), &encode(tag, part))?;
    }
    Ok(())
}

fn read(disk: &dyn Medium, dir: &Path, part: Part) -> Result<Option<Tag>, StorageError> {
    let path = part.file(dir);
    let Some(bytes) = medium::read(disk, &path)? else { return Ok(None) };
    decode(&bytes, part).map(Some).map_err(|reason| corrupt(&path, 0, reason))
}

fn lost(dir: &Path, node: NodeId, what: &str) -> StorageError {
    StorageError::LostPart(format!(
        "{} has lost a part: {what}. What node {node} voted and acknowledged may be in it, so it must \
         not go on without: put back the part as it was when the node stopped, or remove the node \
         from its cluster (`raft-host members remove {node}`) and let it join again with an empty \
         data directory",
        dir.display()
    ))
}

fn encode(tag: &Tag, part: Part) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&part.number().to_le_bytes());
    bytes.extend_from_slice(&tag.lineage);
    bytes.extend_from_slice(&tag.cluster.0);
    for number in [tag.node.0, tag.start, tag.term.0, tag.commit.0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], part: Part) -> Result<Tag, String> {
    let bytes: &[u8; BYTES] =
        bytes.try_into().map_err(|_| format!("it has {} bytes, not {BYTES}", bytes.len()))?;
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let tag = Tag {
        lineage: bytes[16..32].try_into().expect("sixteen bytes"),
        cluster: ClusterId(bytes[32..48].try_into().expect("sixteen bytes")),
        node: NodeId(number(48)),
        start: number(56),
        term: Term(number(64)),
        commit: Index(number(72)),
    };
    match encode(&tag, part) == bytes {
        true => Ok(tag),
        false => Err("its magic, version, part or checksum does not fit".to_owned()),
    }
}

#[cfg(test)]
mod tests;
