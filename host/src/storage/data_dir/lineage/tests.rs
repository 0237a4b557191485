//! Each part of a data directory: missing, emptied, older than the others, another node's.

use std::fs;

use super::*;
use crate::storage::{DataDir, Engine, GroupWrite, RealDisk, StorageConfig, WriteBatch};
use crate::types::HardState;

fn identity(node: u64) -> NodeIdentity {
    NodeIdentity { cluster: ClusterId([7; 16]), node: NodeId(node), engine: Engine::default() }
}

/// One start of a node, in which its log moves on.
fn live(path: &Path, node: u64, term: u64) -> Result<(), StorageError> {
    let mut dir = DataDir::lock(path)?;
    dir.initialize(identity(node))?;
    let stores = dir.open_stores(&StorageConfig::default())?;
    let hard_state = HardState { term: Term(term), vote: None, commit: Index(0) };
    let write = GroupWrite { hard_state: Some(hard_state), ..GroupWrite::default() };
    stores.log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] })
}

/// What a start that makes nothing says.
fn start(path: &Path) -> Result<(), StorageError> {
    DataDir::lock(path)?.open_stores(&StorageConfig::default()).map(drop)
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory") {
            let path = entry.expect("an entry").path();
            copy(&path, &to.join(path.file_name().expect("a name")));
        }
    } else {
        fs::copy(from, to).expect("copied");
    }
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).expect("removed"),
        false => fs::remove_file(path).expect("removed"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Missing,
    /// A directory without anything in it.
    Emptied,
    /// As it was two starts ago.
    Old,
    /// That of another node of the cluster.
    Foreign,
}

/// The words of the refusal; `None`: it starts.
const TABLE: [(&str, Harm, Option<&str>); 17] = [
    ("log", Harm::Missing, Some("its directory log is missing")),
    ("log", Harm::Emptied, Some("its directory log was emptied or replaced")),
    ("log", Harm::Old, Some("its directory log is an older copy")),
    ("log", Harm::Foreign, Some("its directory log is that of node 2")),
    ("snapshots", Harm::Missing, Some("its directory snapshots is missing")),
    ("snapshots", Harm::Emptied, Some("its directory snapshots was emptied or replaced")),
    ("snapshots", Harm::Old, Some("its directory snapshots is an older copy")),
    ("snapshots", Harm::Foreign, Some("its directory snapshots is that of node 2")),
    ("IDENTITY", Harm::Missing, Some("its IDENTITY is missing")),
    // It never changes.
    ("IDENTITY", Harm::Old, None),
    ("IDENTITY", Harm::Foreign, Some("its IDENTITY is that of node 2")),
    ("PLEDGE", Harm::Missing, Some("its PLEDGE is missing")),
    ("PLEDGE", Harm::Old, Some("its PLEDGE is an older copy")),
    ("PLEDGE", Harm::Foreign, Some("its PLEDGE that of node 2")),
    // A cache, and what is kept for people.
    ("modules", Harm::Missing, None),
    ("modules", Harm::Foreign, None),
    ("evidence", Harm::Missing, None),
];

#[test]
fn a_directory_that_lost_a_part_refuses_and_says_which_and_what_to_do() {
    for (part, harm, expected) in TABLE {
        let temporary = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| temporary.path().join(name);
        let (dir, old, other) = (at("dir"), at("old"), at("other"));
        for (path, node) in [(&dir, 1), (&other, 2)] {
            live(path, node, 3).expect("lives");
            fs::create_dir(path.join("modules")).expect("made");
            fs::create_dir(path.join("evidence")).expect("made");
        }
        copy(&dir, &old);
        for path in [&dir, &other] {
            let node = if path == &dir { 1 } else { 2 };
            live(path, node, 4).expect("lives");
            live(path, node, 5).expect("lives");
        }
        remove(&dir.join(part));
        match harm {
            Harm::Missing => {}
            Harm::Emptied => fs::create_dir(dir.join(part)).expect("made"),
            Harm::Old => copy(&old.join(part), &dir.join(part)),
            Harm::Foreign => copy(&other.join(part), &dir.join(part)),
        }
        for _ in 0..2 {
            // A refusal changes nothing, so the next start refuses as well.
            match (start(&dir), expected) {
                (Ok(()), None) => {}
                (Err(StorageError::LostPart(text)), Some(expected)) => {
                    assert!(text.contains(expected), "{part} {harm:?}: {text}");
                    assert!(text.contains("members remove"), "{part} {harm:?}: {text}");
                }
                (other, _) => panic!("{part} {harm:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_log_that_lost_its_files_but_not_its_tag_is_older_than_the_last_start() {
    let temporary = tempfile::tempdir().expect("tempdir");
    let dir = temporary.path().join("dir");
    live(&dir, 1, 3).expect("lives");
    live(&dir, 1, 4).expect("lives");
    let tag = fs::read(Part::Log.file(&dir)).expect("a tag");
    remove(&dir.join("log"));
    fs::create_dir(dir.join("log")).expect("made");
    fs::write(Part::Log.file(&dir), tag).expect("written");
    match start(&dir) {
        Err(StorageError::LostPart(text)) => assert!(text.contains("its log is older"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_that_died_while_it_wrote_its_tags_is_repeated() {
    for written in [&[][..], &[Part::Log], &[Part::Log, Part::Snapshots]] {
        let temporary = tempfile::tempdir().expect("tempdir");
        let dir = temporary.path().join("dir");
        live(&dir, 1, 3).expect("lives");
        let tag = read(&RealDisk, &dir, Part::Whole).expect("readable").expect("there");
        for part in written {
            let tag = Tag { start: tag.start + 1, ..tag };
            fs::write(part.file(&dir), encode(&tag, *part)).expect("written");
        }
        start(&dir).expect("goes on");
        start(&dir).expect("and again");
    }
}

#[test]
fn a_creation_that_died_before_the_identity_was_written_begins_again() {
    let temporary = tempfile::tempdir().expect("tempdir");
    let dir = temporary.path().join("dir");
    fs::create_dir(&dir).expect("made");
    begin(&RealDisk, &dir, &identity(1)).expect("begun");
    live(&dir, 2, 1).expect("somebody else may have it");
    start(&dir).expect("and keeps it");
}

#[test]
fn a_damaged_tag_is_corrupt_wherever_it_is_damaged() {
    let tag = Tag {
        lineage: [9; 16],
        cluster: ClusterId([7; 16]),
        node: NodeId(1),
        start: 4,
        term: Term(5),
        commit: Index(6),
    };
    let good = encode(&tag, Part::Log);
    assert_eq!(decode(&good, Part::Log), Ok(tag));
    assert!(decode(&good, Part::Snapshots).is_err(), "a part's tag is that part's only");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(decode(&bad, Part::Log).is_err(), "byte {at}");
        assert!(decode(&good[..at], Part::Log).is_err(), "cut at {at}");
    }
}
