//! A backup is read back, or refused with what is wrong.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::fsm::native::NativeLoader;
use crate::fsm::{Limits, SharedLoader};
use crate::machine::Machine;
use crate::types::{ConfState, GroupId, Index, Member, Term};

fn loader() -> SharedLoader {
    std::sync::Arc::new(NativeLoader)
}

fn machine() -> Machine {
    let cluster = ClusterId([7; 16]);
    let mut machine = Machine::new(cluster, GroupId::MAIN, Limits::default(), loader());
    let member = Member { id: NodeId(1), address: "127.0.0.1:7400".to_owned() };
    let conf_state = ConfState { voters: [NodeId(1)].into(), ..ConfState::default() };
    machine.bootstrap_members(Index(1), [member], conf_state);
    machine
}

fn backup() -> (BackupFacts, Vec<u8>) {
    let mut machine = machine();
    let facts = BackupFacts {
        cluster: ClusterId([7; 16]),
        group: "main".to_owned(),
        position: LogPosition { index: machine.applied_index(), term: Term(3) },
        saved_ms: 1_700_000_000_000,
        node: NodeId(2),
        version: "0.1.0".to_owned(),
        digest: machine.digest_now().expect("it has one"),
    };
    let mut writer = BackupWriter::begin(Vec::new(), &facts).expect("a vector takes all");
    machine.capture().expect("captured").write_to(&mut writer).expect("a vector takes all");
    let (bytes, file) = writer.finish().expect("a vector takes all");
    assert_eq!(bytes, file.len() as u64);
    (facts, file)
}

fn check(file: &[u8]) -> Result<u64, BackupError> {
    BackupReader::open(file)?.to_end()
}

#[test]
fn a_backup_is_read_back_and_has_the_state_that_was_copied() {
    let (facts, file) = backup();
    let reader = BackupReader::open(&file[..]).expect("it is one");
    assert_eq!(*reader.facts(), facts);
    assert_eq!(check(&file).expect("it is whole"), file.len() as u64);
    let restored = reader.restore(loader()).expect("its own");
    assert_eq!(restored.applied_index(), facts.position.index);

    // Whole, but not what it says.
    let other = BackupFacts { digest: StateDigest([9; 32]), ..facts };
    let mut writer = BackupWriter::begin(Vec::new(), &other).expect("a vector takes all");
    machine().capture().expect("captured").write_to(&mut writer).expect("a vector takes all");
    let (_, file) = writer.finish().expect("a vector takes all");
    let refused = BackupReader::open(&file[..]).expect("it is one").restore(loader());
    assert!(matches!(refused, Err(BackupError::OtherState { .. })));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed_and_told() {
    let (_, good) = backup();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let refused = check(&bad).expect_err("a bit is flipped");
        let restored = BackupReader::open(&bad[..]).and_then(|reader| reader.restore(loader()));
        assert!(restored.is_err(), "byte {at}: {refused}");
        let refused = check(&good[..at]).expect_err("it is cut");
        match at {
            0..8 => assert_eq!(refused.to_string(), "is no backup of raft-host"),
            _ => assert!(refused.to_string().contains("cut short"), "{refused}"),
        }
    }
    let long = [&good[..], b"x"].concat();
    assert!(check(&long).expect_err("too long").to_string().contains("after its end"));
}

#[test]
fn a_newer_format_and_other_files_are_refused_with_what_to_do() {
    let (_, mut file) = backup();
    file[8] = 2;
    let refused = check(&file).expect_err("newer").to_string();
    assert!(refused.contains("format version 2") && refused.contains("a later one"), "{refused}");
    for other in [&b""[..], b"RHSNAPSH and more than that"] {
        assert!(matches!(check(other), Err(BackupError::NotABackup)));
    }
}

#[test]
fn blocks_of_any_size_come_back() {
    let (facts, _) = backup();
    for length in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
        let content: Vec<u8> = (0..length).map(|at| (at * 7 + at / 255) as u8).collect();
        let mut writer = BackupWriter::begin(Vec::new(), &facts).expect("a vector takes all");
        for part in content.chunks(70_001) {
            writer.write_all(part).expect("a vector takes all");
        }
        let (_, file) = writer.finish().expect("a vector takes all");
        let mut reader = BackupReader::open(&file[..]).expect("it is one");
        let mut read = Vec::new();
        io::Read::read_to_end(&mut reader, &mut read).expect("it is whole");
        assert_eq!(read, content);
    }
}

#[test]
fn a_file_is_there_whole_or_not_at_all_and_replaces_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("b");
    let mut file = NewFile::create(&path).expect("created");
    file.write_all(&vec![1; 3 << 20]).expect("written");
    assert!(!path.exists());
    drop(file);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
    let mut file = NewFile::create(&path).expect("created");
    file.write_all(b"whole").expect("written");
    file.finish().expect("finished");
    assert_eq!(std::fs::read(&path).expect("there"), b"whole");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "what it holds is nobody else's");
    let again = NewFile::create(&path).expect_err("there is one");
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).expect("there"), b"whole");
}
