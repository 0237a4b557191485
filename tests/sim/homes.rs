//! A node's data directory on a simulated disk, made, opened and carried on with as a server's start does.

use std::sync::Arc;

use raft_host::config::Config;
use raft_host::fsm::{Limits, SharedLoader};
use raft_host::machine::Machine;
use raft_host::node::StartError;
use raft_host::server::{EmptyHome, Home, Intent, ServeError, form_in, resume};
use raft_host::storage::{DataDir, Engine, StorageConfig, StorageError};
use raft_host::transport::Identity;
use raft_host::types::{ClusterId, LogPosition, Member};

/// How a node begins whose directory is nobody's.
pub(super) enum Beginning<'a> {
    /// It forms a cluster whose guests have these limits.
    Forms(&'a Limits),
    /// It was taken in, and was told of these members.
    Joins(&'a [Member]),
}

/// What a start finds.
pub(super) struct Opened {
    pub(super) home: Home,
    /// Members to reach before the node's own state says who they are.
    pub(super) introduced: Vec<Member>,
}

/// Makes a directory a node's if it is nobody's; else carries out what its last start has left to do.
pub(super) fn open(
    dir: DataDir,
    identity: &Identity,
    beginning: &Beginning<'_>,
    storage: &StorageConfig,
    loader: &SharedLoader,
) -> Result<Opened, StartError> {
    let mut config = config(storage);
    let Some(found) = dir.identity() else {
        let empty = EmptyHome::on(dir);
        let (home, introduced) = match beginning {
            Beginning::Forms(limits) => {
                config.limits = (*limits).clone();
                let home = form_in(empty, identity, &config, Arc::clone(loader));
                (home.map_err(failure)?, Vec::new())
            }
            Beginning::Joins(introduced) => {
                let introduced = introduced.to_vec();
                let intent = Intent::Join { introduced: introduced.clone(), promote: false };
                let (cluster, node) = (identity.cluster, identity.node);
                let home = empty.initialize(&config, &intent, cluster, node);
                (home.map_err(failure)?, introduced)
            }
        };
        return Ok(Opened { home, introduced });
    };
    if let Beginning::Forms(limits) = beginning {
        config.limits = (*limits).clone();
    }
    dir.expect(Some(identity.cluster), Some(identity.node), Engine::default())?;
    let (home, intent) = Home::open(&config, dir, found).map_err(failure)?;
    let resumed = resume(&home, intent, identity, &config, || Ok(Arc::clone(loader)));
    let introduced = resumed.map_err(failure)?.introduced;
    Ok(Opened { home, introduced })
}

/// What there is after a restore or an import was interrupted, or not.
pub(super) enum Founded {
    /// A node of its cluster can start.
    Whole,
    /// It says that nothing in it can be used.
    Half,
}

/// Makes a directory that is nobody's that of the first node of a cluster that begins with a state, as a restore does,
/// or an import.
pub(super) fn found(
    dir: DataDir,
    (cluster, position): (ClusterId, LogPosition),
    machine: &mut Machine,
    imports: bool,
    storage: &StorageConfig,
) -> Result<(), StartError> {
    let settle = Intent::Settle { disputed_by: None };
    let left = imports.then_some(&settle);
    let config = config(storage);
    let founded = EmptyHome::on(dir).found(&config, (cluster, position), machine, left);
    founded.map(drop).map_err(failure)
}

/// What a start says of that.
pub(super) fn look_at_founded(
    dir: DataDir,
    identity: &Identity,
    storage: &StorageConfig,
    loader: &SharedLoader,
) -> Result<Founded, StartError> {
    let config = config(storage);
    let found = dir.identity().expect("the caller has looked");
    let (home, intent) = Home::open(&config, dir, found).map_err(failure)?;
    match resume(&home, intent, identity, &config, || Ok(Arc::clone(loader))) {
        Ok(_) => Ok(Founded::Whole),
        Err(ServeError::HalfFounded { .. }) => Ok(Founded::Half),
        Err(error) => Err(failure(error)),
    }
}

fn config(storage: &StorageConfig) -> Config {
    Config { storage: storage.clone(), ..Config::default() }
}

/// In the words of a start. What only a server says is of the directory.
fn failure(error: ServeError) -> StartError {
    match error {
        ServeError::Storage(error) => error.into(),
        ServeError::Node(error) => error,
        ServeError::Host(error) => error.into(),
        other => StorageError::ForeignData(other.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use raft_host::consensus::reconcile;
    use raft_host::machine::FOUNDER;
    use raft_host::node::{FIRST, first_machine};
    use raft_host::types::{GroupId, NodeId};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::sim::disk::{Crash, SimDisk};
    use crate::sim::runner::loader;

    fn identity(node: NodeId) -> Identity {
        Identity { cluster: ClusterId([3; 16]), node, address: "a:1".to_owned() }
    }

    fn storage() -> StorageConfig {
        StorageConfig { log_file_bytes: 4 << 10, ..StorageConfig::default() }
    }

    fn start(
        disk: &SimDisk,
        node: NodeId,
        beginning: &Beginning<'_>,
    ) -> Result<Opened, StartError> {
        open(disk.data_dir()?, &identity(node), beginning, &storage(), &loader())
    }

    /// The power goes after no operation, after one, and so on, until all are done.
    fn with_cuts(step: impl Fn(&SimDisk) -> bool, mut look: impl FnMut(&SimDisk, bool)) {
        for operations in 0.. {
            let disk = SimDisk::new(operations).expect("a temporary directory");
            disk.die_after(operations);
            let is_told = step(&disk);
            let is_cut = disk.is_dead();
            assert!(is_cut || is_told, "without a cut it is done");
            disk.crash(&mut ChaCha8Rng::seed_from_u64(operations), Crash::PowerLoss);
            look(&disk, is_told);
            if !is_cut {
                assert!(operations > 10, "there was something to cut");
                break;
            }
        }
    }

    #[test]
    fn a_cluster_whose_forming_is_cut_short_is_formed_by_the_next_start() {
        let limits = Limits::default();
        let forms = Beginning::Forms(&limits);
        let look = |disk: &SimDisk, _| {
            let Opened { home, introduced } = start(disk, FOUNDER, &forms).expect("goes on");
            assert!(introduced.is_empty());
            let snapshots = home.stores().snapshots.list(GroupId::MAIN).expect("readable");
            assert_eq!(snapshots.len(), 1);
            // Cut between snapshot and log: the node's start makes them fit.
            let log = &*home.stores().log;
            let write = reconcile(log, GroupId::MAIN, snapshots.first()).expect("they fit");
            let mended = write.and_then(|write| write.hard_state);
            let hard_state = mended.unwrap_or(log.hard_state(GroupId::MAIN).expect("readable"));
            assert_eq!((hard_state.term, hard_state.commit), (FIRST.term, FIRST.index));
        };
        with_cuts(|disk| start(disk, FOUNDER, &forms).is_ok(), look);
    }

    #[test]
    fn whom_a_joining_node_was_told_of_is_known_after_a_cut() {
        let told = [Member { id: NodeId(1), address: "b:1".to_owned() }];
        let joins = Beginning::Joins(&told);
        // What it is told only once.
        let later = Beginning::Joins(&[]);
        let look = |disk: &SimDisk, is_told| {
            let is_nobodys = disk.data_dir().expect("never foreign").identity().is_none();
            assert!(!(is_told && is_nobodys));
            let again = if is_nobodys { &joins } else { &later };
            let opened = start(disk, NodeId(2), again).expect("goes on");
            assert_eq!(opened.introduced, told);
            opened.home.intent_done().expect("done");
            drop(opened);
            disk.crash(&mut ChaCha8Rng::seed_from_u64(1), Crash::PowerLoss);
            // Without a state it has to know them.
            let refused = start(disk, NodeId(2), &later).map(|opened| opened.introduced);
            assert!(refused.is_err(), "{refused:?}");
        };
        with_cuts(|disk| start(disk, NodeId(2), &joins).is_ok(), look);
    }

    #[test]
    fn a_restore_that_is_cut_short_is_nobodys_or_half_or_whole_and_whole_once_it_is_told() {
        for imports in [false, true] {
            let cluster = identity(FOUNDER).cluster;
            let restore = |disk: &SimDisk| {
                let of = identity(FOUNDER);
                let mut machine = first_machine(&of, GroupId::MAIN, Limits::default(), loader());
                let begins = (cluster, FIRST);
                let dir = disk.data_dir().map_err(StartError::from);
                dir.and_then(|dir| found(dir, begins, &mut machine, imports, &storage())).is_ok()
            };
            let (mut halves, mut wholes) = (0, 0);
            let look = |disk: &SimDisk, is_told: bool| {
                let dir = disk.data_dir().expect("never foreign");
                if dir.identity().is_none() {
                    assert!(!is_told);
                    drop(dir);
                    assert!(restore(disk), "in what is nobody's it is done again");
                    return;
                }
                let looked = look_at_founded(dir, &identity(FOUNDER), &storage(), &loader());
                match looked.expect("it is whole, or says that it is half") {
                    Founded::Half => {
                        assert!(!is_told, "it was told to be done");
                        halves += 1;
                    }
                    Founded::Whole => {
                        wholes += 1;
                        let mounted = disk.open_stores(&storage()).expect("whole");
                        let snapshots = mounted.snapshots.list(GroupId::MAIN).expect("readable");
                        assert_eq!(snapshots.len(), 1);
                        let log = mounted.log.hard_state(GroupId::MAIN).expect("readable");
                        assert_eq!((log.term, log.commit), (FIRST.term, FIRST.index));
                    }
                }
            };
            with_cuts(restore, look);
            assert!(halves > 0 && wholes > 0, "{halves} {wholes}");
        }
    }

    #[test]
    fn one_process_has_a_directory_until_it_ends() {
        let limits = Limits::default();
        let forms = Beginning::Forms(&limits);
        let disk = SimDisk::new(1).expect("a temporary directory");
        let opened = start(&disk, FOUNDER, &forms).expect("nobody has it");
        let second = disk.data_dir().map(|dir| dir.identity()).expect_err("somebody has it");
        assert!(second.to_string().contains("in use"), "{second}");
        drop(opened);
        drop(disk.data_dir().expect("nobody has it any more"));
        let opened = start(&disk, FOUNDER, &forms).expect("nobody has it");
        disk.crash(&mut ChaCha8Rng::seed_from_u64(1), Crash::Kill);
        let after = disk.data_dir().expect("it died");
        drop(opened);
        let third = disk.data_dir().map(|dir| dir.identity());
        assert!(third.is_err(), "what is left of the dead process lets go of nothing: {third:?}");
        drop(after);
    }
}
