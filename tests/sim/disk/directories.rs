//! The product's data directory on the simulated disk: whatever operation a loss of power interrupts, the directory
//! is what it was before that or after it.

use raft_host::storage::{Engine, GroupWrite, WriteBatch};
use raft_host::types::{ClusterId, GroupId, HardState, Index, NodeId, Term};
use rand::SeedableRng as _;

use super::*;

const SEEDS: u64 = 1;
const TAG: &str = "a1";

fn identity(cluster: u8) -> NodeIdentity {
    let engine = Engine::default();
    NodeIdentity { cluster: ClusterId([cluster; 16]), node: NodeId(1), engine }
}

fn config() -> StorageConfig {
    StorageConfig { log_file_bytes: 4 << 10, ..StorageConfig::default() }
}

/// One start, in which the log moves on.
fn live(disk: &SimDisk, cluster: u8, term: u64) -> Result<(), StorageError> {
    let stores = disk.open_as(identity(cluster), &config())?;
    let hard_state = HardState { term: Term(term), vote: None, commit: Index(0) };
    let write = GroupWrite { hard_state: Some(hard_state), ..GroupWrite::default() };
    stores.log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] })
}

fn term(disk: &SimDisk, cluster: u8) -> Term {
    let stores = disk.open_as(identity(cluster), &config()).expect("opened");
    stores.log.hard_state(GroupId::MAIN).expect("readable").term
}

/// Does it on disks that lose power after no operation, after one, and so on, and looks at each.
fn with_cuts(make: impl Fn(u64) -> SimDisk, step: impl Fn(&SimDisk), look: impl Fn(&SimDisk)) {
    for seed in 0..SEEDS {
        for operations in 0.. {
            let disk = make(seed);
            disk.die_after(operations);
            step(&disk);
            let is_cut = disk.is_dead();
            disk.crash(&mut ChaCha8Rng::seed_from_u64(seed ^ operations), Crash::PowerLoss);
            look(&disk);
            if !is_cut {
                assert!(operations > 10, "there was something to cut");
                break;
            }
        }
    }
}

fn empty(seed: u64) -> SimDisk {
    SimDisk::new(seed).expect("a temporary directory")
}

fn lived(seed: u64) -> SimDisk {
    let disk = empty(seed);
    live(&disk, 1, 3).expect("lives");
    live(&disk, 1, 4).expect("lives");
    disk.crash(&mut ChaCha8Rng::seed_from_u64(seed), Crash::PowerLoss);
    disk
}

#[test]
fn a_directory_that_is_being_made_is_nobodys_or_whole() {
    let look = |disk: &SimDisk| {
        let found = disk.data_dir().expect("never foreign").identity();
        assert!(found.is_none() || found == Some(identity(1)), "{found:?}");
        live(disk, 1, 3).expect("the next start goes on");
        assert_eq!(term(disk, 1), Term(3));
    };
    with_cuts(empty, |disk| drop(disk.open_as(identity(1), &config())), look);
}

#[test]
fn a_start_that_is_interrupted_is_repeated() {
    let look = |disk: &SimDisk| {
        let found = disk.data_dir().expect("never foreign").identity();
        assert_eq!(found, Some(identity(1)));
        assert_eq!(term(disk, 1), Term(4), "what it had voted");
    };
    with_cuts(lived, |disk| drop(disk.open_as(identity(1), &config())), look);
}

fn succeed(disk: &SimDisk) -> Result<(), StorageError> {
    let mut succession = disk.succession(TAG)?;
    if succession.is_done() {
        return Ok(());
    }
    if succession.wants_contents() {
        let mut dir = disk.data_dir_at(&succession.fresh()?)?;
        dir.initialize(identity(2))?;
        let stores = dir.open_stores(&config())?;
        let hard_state = HardState { term: Term(9), vote: None, commit: Index(0) };
        let write = GroupWrite { hard_state: Some(hard_state), ..GroupWrite::default() };
        stores.log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] })?;
    }
    succession.complete()
}

#[test]
fn a_recovery_that_is_interrupted_lets_nobody_in_and_goes_on() {
    let look = |disk: &SimDisk| {
        match disk.data_dir() {
            Ok(dir) => {
                let found = dir.identity();
                let known = [Some(identity(1)), Some(identity(2))];
                assert!(known.contains(&found), "{found:?}");
            }
            Err(error) => assert!(error.to_string().contains("was interrupted"), "{error}"),
        }
        succeed(disk).expect("goes on");
        assert_eq!(term(disk, 2), Term(9));
        let aside = disk.succession(TAG).expect("done").aside();
        let kept = disk.data_dir_at(&aside).expect("a node's");
        assert_eq!(kept.identity(), Some(identity(1)));
        kept.expect(Some(ClusterId([2; 16])), None, Engine::default()).expect_err("the old one's");
        let stores = kept.open_stores(&config()).expect("whole");
        assert_eq!(stores.log.hard_state(GroupId::MAIN).expect("readable").term, Term(4));
    };
    with_cuts(lived, |disk| drop(succeed(disk)), look);
}

/// What `IDENTITY` and the tags are written with syncs their directory.
#[test]
fn a_name_that_was_not_synced_is_found_out() {
    use raft_host::museum::{Exhibit, exhibit};

    let loses = |seed: u64| {
        let disk = lived(seed);
        let guard = exhibit(Some(Exhibit::IdentityNotSynced));
        live(&disk, 1, 5).expect("lives");
        drop(guard);
        disk.crash(&mut ChaCha8Rng::seed_from_u64(seed), Crash::PowerLoss);
        live(&disk, 1, 6).is_err()
    };
    assert!((0..50).any(loses), "no loss of power took a tag away");
}
