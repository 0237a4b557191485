use std::fmt;

use super::*;
use crate::storage::{GroupWrite, WriteBatch};
use crate::types::{GroupId, HardState, Index, Term};

fn identity(engine: Engine) -> NodeIdentity {
    NodeIdentity { cluster: ClusterId([7; 16]), node: NodeId(3), engine }
}

fn sled() -> Engine {
    "sled".parse().expect("there is one")
}

fn message<T: fmt::Debug>(result: Result<T, StorageError>) -> String {
    match result.expect_err("must be refused") {
        StorageError::ForeignData(message) => message,
        other => panic!("expected ForeignData, got {other:?}"),
    }
}

#[test]
fn a_directory_keeps_its_identity_and_its_stores() {
    for engine in Engine::all().filter(|engine| engine.is_durable()) {
        let temporary = tempfile::tempdir().expect("tempdir");
        let path = temporary.path().join("deep/down");
        let hard_state = HardState { term: Term(4), vote: Some(NodeId(3)), commit: Index(0) };
        {
            let mut dir = DataDir::lock(&path).expect("lock");
            assert_eq!(dir.identity(), None);
            assert!(
                message(dir.open_stores(&StorageConfig::default()).map(drop))
                    .contains("not initialized")
            );
            dir.initialize(identity(engine)).expect("initialize");
            dir.initialize(identity(engine)).expect("the same again");
            let stores = dir.open_stores(&StorageConfig::default()).expect("stores");
            let write = GroupWrite { hard_state: Some(hard_state), ..GroupWrite::default() };
            stores.log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] }).expect("write");
            assert!(dir.size_bytes().expect("size") > 0);
        }
        let dir = DataDir::lock(&path).expect("lock again");
        assert_eq!(dir.identity(), Some(identity(engine)));
        let stores = dir.open_stores(&StorageConfig::default()).expect("stores");
        assert_eq!(stores.log.hard_state(GroupId::MAIN).expect("hard state"), hard_state);
    }
}

#[test]
fn what_keeps_nothing_takes_no_directory() {
    for engine in Engine::all().filter(|engine| !engine.is_durable()) {
        let temporary = tempfile::tempdir().expect("tempdir");
        let mut dir = DataDir::lock(temporary.path()).expect("lock");
        let refused = message(dir.initialize(identity(engine)));
        assert!(refused.contains(engine.name()), "{refused}");
        Stores::without_directory(engine, &StorageConfig::default()).expect("in memory");
    }
}

#[test]
fn a_second_holder_is_refused_and_told_who_has_it() {
    let temporary = tempfile::tempdir().expect("tempdir");
    let first = DataDir::lock(temporary.path()).expect("lock");
    let text = message(DataDir::lock(temporary.path()));
    assert!(text.contains("in use by another process"), "{text}");
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    drop(first);
    DataDir::lock(temporary.path()).expect("free again");
}

#[test]
fn anothers_data_is_refused_with_a_sentence_that_says_which() {
    let temporary = tempfile::tempdir().expect("tempdir");
    let mut dir = DataDir::lock(temporary.path()).expect("lock");
    dir.initialize(identity(sled())).expect("initialize");
    dir.expect(None, None, sled()).expect("anybody's");
    let cluster = message(dir.expect(Some(ClusterId([8; 16])), None, sled()));
    assert!(cluster.contains("cluster 0707") && cluster.contains("cluster 0808"), "{cluster}");
    let node = message(dir.expect(None, Some(NodeId(5)), sled()));
    assert!(node.contains("node 3") && node.contains("node 5"), "{node}");
    let engine = message(dir.expect(None, None, Engine::default()));
    assert!(engine.contains("--storage-engine sled") && engine.contains("raft-engine"), "{engine}");
    let again = message(dir.initialize(identity(Engine::default())));
    assert_eq!(again, engine);
}

#[test]
fn a_strangers_directory_is_refused_and_left_alone() {
    let temporary = tempfile::tempdir().expect("tempdir");
    for name in ["thesis.tex", "photos", "a", "b"] {
        std::fs::write(temporary.path().join(name), "precious").expect("write");
    }
    let text = message(DataDir::lock(temporary.path()));
    assert!(text.contains("a, b, photos, …"), "{text}");
    let left = std::fs::read_dir(temporary.path()).expect("list").count();
    assert_eq!(left, 4, "nothing added, nothing deleted");
}

#[test]
fn a_newer_an_older_and_a_damaged_identity_are_told_apart() {
    let temporary = tempfile::tempdir().expect("tempdir");
    DataDir::lock(temporary.path())
        .and_then(|mut dir| dir.initialize(identity(sled())))
        .expect("initialize");
    let path = temporary.path().join(IDENTITY_FILE);
    let good = std::fs::read(&path).expect("read");

    let mut newer = good.clone();
    newer[8] = 3;
    std::fs::write(&path, &newer).expect("write");
    let text = message(DataDir::lock(temporary.path()));
    assert!(text.contains("format version 3") && text.contains("newer"), "{text}");

    let mut older = good.clone();
    older[8] = 1;
    std::fs::write(&path, &older).expect("write");
    let text = message(DataDir::lock(temporary.path()));
    assert!(text.contains("format version 1") && text.contains("settled"), "{text}");

    for at in [12, 20, 33, 41] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).expect("write");
        let error = DataDir::lock(temporary.path()).expect_err("damaged");
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    }
    std::fs::write(&path, &good[..20]).expect("write");
    let error = DataDir::lock(temporary.path()).expect_err("cut");
    assert!(error.to_string().contains("20 bytes"), "{error}");
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named() {
    let temporary = tempfile::tempdir().expect("tempdir");
    let file = temporary.path().join("file");
    std::fs::write(&file, "").expect("write");
    let error = DataDir::lock(file.join("data")).expect_err("not a directory");
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn sizes_have_bounds() {
    assert!(StorageConfig::default().validate().is_ok());
    let config = StorageConfig { log_file_bytes: 1, ..StorageConfig::default() };
    assert!(config.validate().expect_err("too small").contains("log_file_bytes"));
}
