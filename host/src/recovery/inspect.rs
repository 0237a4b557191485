//! Finding out what a stopped node holds. Changes nothing in its directory.

use std::path::Path;

use super::survivor::{Place, Survivor};
use crate::consensus::{RecoveryError, reconcile};
use crate::fsm::SharedLoader;
use crate::machine::Machine;
use crate::replay::{ReplayError, Replayer};
use crate::storage::{DataDir, LogStore, StorageConfig, StorageError, Stores, WriteBatch};
use crate::types::{ClusterId, ConfState, GroupId, Index, LogPosition, NodeId, StateDigest};

/// Terms that are named, the newest of the log's.
const TERMS_MAX: usize = 1000;

/// Why a directory is of no use for a recovery.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is damaged, in use, or no node's.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its state cannot be computed.
    #[error("{place}: {source}")]
    Replay {
        /// The directory.
        place: String,
        /// The cause.
        source: ReplayError,
    },
    /// Its log and its snapshots do not belong together.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The node joined, and never got a state.
    #[error("{place} holds no state: the node had joined its cluster and not heard anything yet")]
    Stateless {
        /// The directory.
        place: String,
    },
}

/// A survivor and its state as of the last entry.
pub struct Found {
    /// What is told of it.
    pub survivor: Survivor,
    /// The state.
    pub machine: Machine,
}

/// Looks at a directory that no node uses: computes its state from the newest snapshot that can be read
/// and all entries behind it, those that nobody knows to be committed included. `scratch`: an empty
/// directory for a copy of the log. Blocks, for as long as executing the entries takes; needs the stack that
/// guests do. `now_ms`: wall clock.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(
    dir: &DataDir,
    loader: &SharedLoader,
    scratch: &Path,
    now_ms: u64,
    watch: Watch<'_>,
) -> Result<Found, InspectError> {
    let stores = dir.open_copies(&StorageConfig::default(), scratch)?;
    let identity = dir.identity().expect("stores of nobody were refused");
    let whose = Whose {
        cluster: identity.cluster,
        node: identity.node,
        place: dir.path().display().to_string(),
        has_evidence: dir.path().join("evidence").exists(),
    };
    inspect_stores(&stores, whose, loader, now_ms, watch)
}

/// Hears how far a log was executed, and where it ends.
pub type Watch<'a> = &'a (dyn Fn(Index, Index) + Sync);

/// Whose stores are looked at.
#[derive(Clone, Debug)]
pub struct Whose {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Where they are, in words.
    pub place: String,
    /// See [`Survivor`].
    pub has_evidence: bool,
}

/// As [`inspect`], of stores that are open and that nobody else has: what a start would mend in them is mended.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect_stores(
    stores: &Stores,
    whose: Whose,
    loader: &SharedLoader,
    now_ms: u64,
    watch: Watch<'_>,
) -> Result<Found, InspectError> {
    let group = GroupId::MAIN;
    let Whose { cluster, node, place, has_evidence } = whose;
    if stores.snapshots.list(group)?.is_empty() {
        return Err(InspectError::Stateless { place });
    }
    let failed = |source| InspectError::Replay { place: place.clone(), source };
    let mut replayer = newest(stores, cluster, loader).map_err(failed)?;
    if mend(stores, replayer.began())? {
        replayer = newest(stores, cluster, loader).map_err(failed)?;
    }
    let hard_state = stores.log.hard_state(group)?;
    let log = Log { begins_after: stores.log.start(group)?, log: &*stores.log };
    let snapshot = stores.snapshots.list(group)?;
    let snapshot = snapshot.iter().find(|meta| meta.index == replayer.began());
    let snapshot = snapshot.expect("it began with one of them").position();
    let last = stores.log.last_index(group)?;
    while replayer.step(false).map_err(failed)?.is_some() {
        watch(replayer.applied(), last);
    }
    let committed = position(&log, snapshot, replayer.applied())?;
    let digest_committed = replayer.digest().map_err(failed)?;
    let mut configurations = vec![replayer.conf_state().clone()];
    replayer.trust_all().map_err(failed)?;
    while replayer.step(false).map_err(failed)?.is_some() {
        note(&mut configurations, replayer.conf_state());
        watch(replayer.applied(), last);
    }
    let last = position(&log, snapshot, replayer.applied())?;
    let digest: StateDigest = replayer.digest().map_err(failed)?;
    let machine = replayer.into_machine();
    let survivor = Survivor {
        cluster,
        node,
        data_dir: place,
        inspected_ms: now_ms,
        term: hard_state.term,
        vote: hard_state.vote,
        begins_after: log.begins_after.into(),
        snapshot: snapshot.into(),
        committed,
        last,
        terms: log.terms(last.index)?,
        members: machine.members().values().cloned().collect(),
        configurations,
        module: machine.active_module().map(|(hash, _)| hash),
        digest_committed,
        digest,
        has_evidence,
    };
    Ok(Found { survivor, machine })
}

/// Begins with the newest snapshot that can be read: where one is damaged, the one before it will do.
fn newest(
    stores: &Stores,
    cluster: ClusterId,
    loader: &SharedLoader,
) -> Result<Replayer, ReplayError> {
    let mut first_error = None;
    for meta in stores.snapshots.list(GroupId::MAIN)? {
        let loader = SharedLoader::clone(loader);
        let from = Some(meta.index);
        match Replayer::new(stores.clone(), cluster, GroupId::MAIN, loader, from) {
            Ok(replayer) => return Ok(replayer),
            Err(error) => {
                tracing::warn!(index = %meta.index, %error, "a snapshot is of no use");
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.expect("there is a snapshot"))
}

/// As a start does: a crash can come between "the snapshot is there" and "the log begins after it".
fn mend(stores: &Stores, snapshot: Index) -> Result<bool, InspectError> {
    let group = GroupId::MAIN;
    let all = stores.snapshots.list(group)?;
    let snapshot = all.iter().find(|meta| meta.index == snapshot);
    let Some(write) = reconcile(&*stores.log, group, snapshot)? else { return Ok(false) };
    stores.log.write(&WriteBatch { groups: vec![(group, write)] })?;
    Ok(true)
}

fn note(configurations: &mut Vec<ConfState>, now: &ConfState) {
    if configurations.last() != Some(now) {
        configurations.push(now.clone());
    }
}

fn position(log: &Log, snapshot: LogPosition, index: Index) -> Result<Place, StorageError> {
    if index == snapshot.index {
        return Ok(snapshot.into());
    }
    Ok(Place { term: log.log.term(GroupId::MAIN, index)?, index })
}

struct Log<'a> {
    begins_after: LogPosition,
    log: &'a dyn LogStore,
}

impl Log<'_> {
    /// The first entry of each term, ascending.
    fn terms(&self, last: Index) -> Result<Vec<Place>, StorageError> {
        let mut terms = Vec::<Place>::new();
        let mut index = self.begins_after.index.next();
        while index <= last {
            let term = self.log.term(GroupId::MAIN, index)?;
            if terms.last().is_none_or(|first| first.term != term) {
                terms.push(Place { term, index });
            }
            index = index.next();
        }
        let forgotten = terms.len().saturating_sub(TERMS_MAX);
        terms.drain(..forgotten);
        Ok(terms)
    }
}
