//! Re-executes the committed log of a node that does not run, and compares.
//!
//! A machine is a pure function of its snapshot and the log. So whoever has both can find out
//! what the state at an index must be, and whether the node, another node or this host came to
//! something else. Changes nothing; knows nothing of nodes that run, and of no command line.
//!
//! ```text
//!   snapshot ──► Machine ◄── committed entries ── log
//!                  ├─► Step (kind, reply, fuel, digest)
//!                  ├─? the next stored snapshot says the same
//!                  ├─? the next verdict, or a quarantined state that was kept, says the same
//!                  └─? Comparison: another node's Step says the same
//! ```

mod compare;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::compare::{Comparison, Divergence, compare};
use crate::consensus::{Configuration, ReplicaError};
use crate::fsm::{HostFailure, SharedLoader};
use crate::machine::{Applied, BodyKind, Machine, Reply, RestoreError, Verdict};
use crate::storage::{SnapshotMeta, StorageError, Stores};
use crate::types::{
    ClusterId, ConfState, EntryKind, GroupId, Index, LogEntry, LogPosition, StateDigest,
};

/// Entries read from the log at once.
const READ_BYTES: u64 = 1 << 20;
/// Digest points that a verdict may still be about.
const POINTS_KEPT: usize = 16;

/// Why a log cannot be re-executed (further).
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A store is damaged, or does not have what it should.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is nothing to begin with.
    #[error("there is no snapshot that the log goes on from: {0}")]
    NoStart(String),
    /// A snapshot cannot be restored.
    #[error("restoring the snapshot at index {index}: {source}")]
    Restore {
        /// Its index.
        index: Index,
        /// The cause.
        source: RestoreError,
    },
    /// A membership change cannot be read.
    #[error(transparent)]
    Membership(#[from] ReplicaError),
    /// This host failed.
    #[error("at index {index}: {source}")]
    Host {
        /// The entry.
        index: Index,
        /// The cause.
        source: HostFailure,
    },
}

/// A re-executed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The entry's place.
    pub position: LogPosition,
    /// What it holds: a [`BodyKind`]'s name, or "membership".
    pub kind: &'static str,
    /// What came of its commands, in their order; one answer if it holds none.
    pub answers: Vec<Answered>,
    /// Of machine and guest after the entry, if it was asked for.
    pub digest: Option<StateDigest>,
    /// What does not fit to what this node stored.
    pub differences: Vec<Difference>,
}

/// What came of a command, or of an entry that holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The machine's answer.
    pub reply: Reply,
    /// Fuel that the guest used.
    pub fuel_used: u64,
}

/// Something that this node stored and that re-execution contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What says otherwise.
    pub from: Source,
    /// Index of the state that it speaks of.
    pub index: Index,
    /// The last index at which all agreed, or where re-execution began.
    pub agreed: Index,
    /// Digest of the state that it has or found.
    pub theirs: StateDigest,
    /// Digest of the re-executed state.
    pub replayed: StateDigest,
    /// Ranges of the guest's memory, in bytes, that differ, where both can be looked at.
    pub memory: Vec<Range<u64>>,
}

/// What a re-executed state is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A snapshot that the node stored.
    Snapshot,
    /// What most voters found, as the log says.
    Verdict,
    /// The state that was kept when the node was quarantined.
    Evidence,
}

impl Source {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Source::Snapshot => "snapshot",
            Source::Verdict => "verdict",
            Source::Evidence => "evidence",
        }
    }
}

/// A machine on its way through the log.
pub struct Replayer {
    cluster: ClusterId,
    group: GroupId,
    stores: Stores,
    loader: SharedLoader,
    machine: Machine,
    configuration: Configuration,
    /// Of the snapshot that it began with.
    began: Index,
    /// Highest index that is known to be committed and is in the log.
    last: Index,
    /// Read and not yet applied.
    entries: VecDeque<LogEntry>,
    /// Stored snapshots that are still to come, ascending.
    to_check: VecDeque<SnapshotMeta>,
    /// The latest digest points and what they found.
    points: VecDeque<(Index, StateDigest)>,
    /// Quarantined states that were kept, by the index of their last entry.
    evidence: BTreeMap<Index, PathBuf>,
    /// The last index at which something stored agreed; `began` before that.
    agreed: Index,
}

impl Replayer {
    /// Restores the newest snapshot at or before `from`, or the oldest that the log goes on from.
    ///
    /// # Errors
    /// `NoStart`, `Restore` or `Storage`.
    pub fn new(
        stores: Stores,
        cluster: ClusterId,
        group: GroupId,
        loader: SharedLoader,
        from: Option<Index>,
    ) -> Result<Replayer, ReplayError> {
        let log_start = stores.log.start(group)?.index;
        let mut usable: Vec<SnapshotMeta> = stores.snapshots.list(group)?;
        usable.retain(|meta| meta.index >= log_start);
        usable.sort_by_key(|meta| meta.index);
        let chosen = match from {
            Some(from) => usable.iter().rposition(|meta| meta.index <= from),
            None => (!usable.is_empty()).then_some(0),
        };
        let Some(chosen) = chosen else {
            return Err(ReplayError::NoStart(match usable.first() {
                Some(oldest) => format!("the oldest is at index {}", oldest.index),
                None => format!("the log begins after index {log_start}"),
            }));
        };
        let meta = &usable[chosen];
        let machine = restore(&stores, meta, cluster, &loader)?;
        let commit = stores.log.hard_state(group)?.commit;
        let last = commit.min(stores.log.last_index(group)?).max(meta.index);
        Ok(Replayer {
            cluster,
            group,
            configuration: Configuration::new(&meta.conf_state, group)?,
            began: meta.index,
            last,
            entries: VecDeque::new(),
            agreed: meta.index,
            points: VecDeque::new(),
            evidence: BTreeMap::new(),
            to_check: usable.split_off(chosen + 1).into(),
            machine,
            loader,
            stores,
        })
    }

    /// Compares with quarantined states as well: snapshot files by the index of their last entry.
    pub fn look_at(&mut self, evidence: BTreeMap<Index, PathBuf>) {
        self.evidence = evidence;
    }

    /// Takes everything for committed that is in the log.
    ///
    /// # Errors
    /// `Storage`.
    pub fn trust_all(&mut self) -> Result<(), ReplayError> {
        self.last = self.last.max(self.stores.log.last_index(self.group)?);
        Ok(())
    }

    /// The members as of the last re-executed entry.
    pub fn conf_state(&self) -> &ConfState {
        self.machine.conf_state()
    }

    /// The state as of the last re-executed entry.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    /// Index of the snapshot that it began with.
    pub fn began(&self) -> Index {
        self.began
    }

    /// The last entry that can be re-executed: the last one known to be committed that is in the
    /// log.
    pub fn last(&self) -> Index {
        self.last
    }

    /// The last re-executed entry.
    pub fn applied(&self) -> Index {
        self.machine.applied_index()
    }

    /// Of machine and guest as they are now.
    ///
    /// # Errors
    /// `Host`.
    pub fn digest(&mut self) -> Result<StateDigest, ReplayError> {
        digest(&mut self.machine)
    }

    /// The entry that [`Replayer::step`] takes next.
    ///
    /// # Errors
    /// `Storage`.
    pub fn next_entry(&mut self) -> Result<Option<&LogEntry>, ReplayError> {
        let next = self.applied().next();
        if self.entries.is_empty() && next <= self.last {
            let range = next..self.last.next();
            self.entries = self.stores.log.entries(self.group, range, READ_BYTES)?.into();
        }
        Ok(self.entries.front())
    }

    /// Re-executes one entry; `None` after the last.
    ///
    /// # Errors
    /// See [`ReplayError`]; it cannot go on after one.
    pub fn step(&mut self, with_digest: bool) -> Result<Option<Step>, ReplayError> {
        self.next_entry()?;
        let Some(entry) = self.entries.pop_front() else { return Ok(None) };
        let position = LogPosition { index: entry.index, term: entry.term };
        let mut answers = Vec::new();
        let kind = match entry.kind {
            EntryKind::ConfChange => {
                let (change, conf_state) = self.configuration.apply(&entry)?;
                self.machine.apply_membership(entry.index, &change, conf_state);
                answers.push(Answered { reply: Reply::Nothing, fuel_used: 0 });
                "membership"
            }
            EntryKind::Normal => {
                let mut on_answer = |_, applied: Applied| {
                    answers.push(Answered { reply: applied.reply, fuel_used: applied.fuel_used });
                };
                self.machine
                    .apply(entry.index, &entry.data, &mut on_answer)
                    .map_err(|source| ReplayError::Host { index: entry.index, source })?;
                BodyKind::of(&entry.data).name()
            }
        };
        // None of these is a command, so it is the only one.
        let judged = match answers.last().map(|answered| &answered.reply) {
            Some(Reply::DigestTaken { index, digest }) => {
                self.points.push_back((*index, *digest));
                if self.points.len() > POINTS_KEPT {
                    self.points.pop_front();
                }
                None
            }
            Some(Reply::DigestJudged(verdict)) => self.check_verdict(verdict),
            _ => None,
        };
        let mut step = Step {
            position,
            kind,
            answers,
            digest: None,
            differences: judged.into_iter().collect(),
        };
        let snapshot = self.to_check.pop_front_if(|meta| meta.index == entry.index);
        let evidence = self.evidence.remove(&entry.index);
        if with_digest || snapshot.is_some() || evidence.is_some() {
            step.digest = Some(self.digest()?);
        }
        if let Some(meta) = snapshot {
            let stored = restore(&self.stores, &meta, self.cluster, &self.loader)?;
            step.differences.extend(self.check_state(Source::Snapshot, stored)?);
        }
        if let Some(path) = evidence {
            let stored = self.restore_evidence(entry.index, &path)?;
            step.differences.extend(self.check_state(Source::Evidence, stored)?);
        }
        Ok(Some(step))
    }

    fn check_verdict(&mut self, verdict: &Verdict) -> Option<Difference> {
        let (theirs, index) = (verdict.truth?, verdict.point);
        // A point from before the start was not re-executed.
        let replayed = self.points.iter().rev().find(|(point, _)| *point == index)?.1;
        self.compare(Source::Verdict, index, theirs, replayed)
    }

    fn check_state(
        &mut self,
        from: Source,
        mut stored: Machine,
    ) -> Result<Option<Difference>, ReplayError> {
        let index = self.applied();
        let (theirs, replayed) = (digest(&mut stored)?, self.digest()?);
        let Some(difference) = self.compare(from, index, theirs, replayed) else {
            return Ok(None);
        };
        let host = |source| ReplayError::Host { index, source };
        let ours = self.machine.capture().map_err(host)?;
        let memory = ours.differing_memory(&stored.capture().map_err(host)?);
        Ok(Some(Difference { memory, ..difference }))
    }

    fn compare(
        &mut self,
        from: Source,
        index: Index,
        theirs: StateDigest,
        replayed: StateDigest,
    ) -> Option<Difference> {
        if theirs == replayed {
            self.agreed = self.agreed.max(index);
            return None;
        }
        Some(Difference { from, index, agreed: self.agreed, theirs, replayed, memory: Vec::new() })
    }

    fn restore_evidence(&self, index: Index, path: &Path) -> Result<Machine, ReplayError> {
        let failed = |source| ReplayError::Restore { index, source };
        let mut file =
            File::open(path).map(BufReader::new).map_err(|error| failed(error.into()))?;
        let loader = SharedLoader::clone(&self.loader);
        Machine::restore(&mut file, self.cluster, self.group, loader).map_err(failed)
    }
}

fn restore(
    stores: &Stores,
    meta: &SnapshotMeta,
    cluster: ClusterId,
    loader: &SharedLoader,
) -> Result<Machine, ReplayError> {
    let (_, mut content) = stores.snapshots.open(meta.group, meta.index)?;
    let loader = SharedLoader::clone(loader);
    Machine::restore(&mut content, cluster, meta.group, loader)
        .map_err(|source| ReplayError::Restore { index: meta.index, source })
}

fn digest(machine: &mut Machine) -> Result<StateDigest, ReplayError> {
    let index = machine.applied_index();
    let taken = machine.take_digest(index);
    taken.map(|taken| taken.digest).map_err(|source| ReplayError::Host { index, source })
}
