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

mod any_engine;
mod compare;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::any_engine::AnyEngine;
pub use self::compare::{Comparison, Divergence, compare};
use crate::consensus::{Configuration, ReplicaError};
use crate::fsm::{HostFailure, SharedLoader};
use crate::machine::{
    Applied, BodyKind, Held, Machine, QueryReply, Reply, RestoreError, Verdict, commands_of,
};
use crate::storage::{SnapshotMeta, StorageError, Stores};
use crate::types::{
    ClusterId, ConfState, EntryKind, Event, GroupId, Index, LogEntry, LogPosition, StateDigest,
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
    /// What it was asked, and what it emitted, if that was to be looked at ([`Replayer::watch`]).
    pub watched: Option<Watched>,
}

/// What else is seen of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The command; `None`: the entry holds none.
    pub command: Option<Held>,
    /// What the guest emitted.
    pub events: Vec<Event>,
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
    /// Commands and events are looked at.
    is_watching: bool,
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
            is_watching: false,
            points: VecDeque::new(),
            evidence: BTreeMap::new(),
            to_check: usable.split_off(chosen + 1).into(),
            machine,
            loader,
            stores,
        })
    }

    /// Between what a log can be re-executed: after the oldest stored state that it goes on from, up to
    /// the last entry that is known to be committed.
    ///
    /// # Errors
    /// `NoStart` or `Storage`.
    pub fn reach(stores: &Stores, group: GroupId) -> Result<(Index, Index), ReplayError> {
        let log_start = stores.log.start(group)?.index;
        let stored = stores.snapshots.list(group)?.into_iter().map(|meta| meta.index);
        let oldest = stored.filter(|index| *index >= log_start).min();
        let oldest = oldest.ok_or_else(|| {
            ReplayError::NoStart(format!("the log begins after index {log_start}"))
        })?;
        let commit = stores.log.hard_state(group)?.commit;
        Ok((oldest, commit.min(stores.log.last_index(group)?).max(oldest)))
    }

    /// Compares with quarantined states as well: snapshot files by the index of their last entry.
    pub fn look_at(&mut self, evidence: BTreeMap<Index, PathBuf>) {
        self.evidence = evidence;
    }

    /// Has each answer say what was asked and emitted ([`Answered::watched`]).
    pub fn watch(&mut self) {
        self.is_watching = true;
    }

    /// Asks the state as of the last re-executed entry.
    ///
    /// # Errors
    /// `Host`.
    pub fn query(&mut self, query: &[u8]) -> Result<QueryReply, ReplayError> {
        let index = self.applied();
        self.machine.query(query).map_err(|source| ReplayError::Host { index, source })
    }

    /// Re-executes up to a position: all of the entry at `index`, or its commands up to the one with this ordinal,
    /// those included that waited for the entry. After the latter the log cannot go on: that was the last step. If the
    /// entry has no such command, it is taken whole. `each` gets every step, and may end the way.
    ///
    /// # Errors
    /// See [`ReplayError`]; and what `each` says.
    pub fn go_to<E: From<ReplayError>>(
        &mut self,
        index: Index,
        ordinal: Option<u32>,
        with_digest: bool,
        each: &mut dyn FnMut(&Step) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.applied() < index {
            let is_last = self.applied().next() == index;
            let step = match ordinal.filter(|_| is_last) {
                Some(ordinal) => self.last_step(ordinal as usize + 1)?,
                None => self.step(with_digest)?,
            };
            let Some(step) = step else { break };
            each(&step)?;
        }
        Ok(())
    }

    /// As [`Replayer::step`], but executes no more than the first `commands` of the entry.
    fn last_step(&mut self, commands: usize) -> Result<Option<Step>, ReplayError> {
        let step = self.take(false, commands)?;
        self.last = self.applied();
        Ok(step)
    }

    /// Takes everything up to this entry for committed, as far as it is in the log.
    ///
    /// # Errors
    /// `Storage`.
    pub fn trust(&mut self, committed: Index) -> Result<(), ReplayError> {
        self.last = self.last.max(committed.min(self.stores.log.last_index(self.group)?));
        Ok(())
    }

    /// Takes everything for committed that is in the log.
    ///
    /// # Errors
    /// `Storage`.
    pub fn trust_all(&mut self) -> Result<(), ReplayError> {
        self.trust(Index(u64::MAX))
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
        self.take(with_digest, usize::MAX)
    }

    fn take(&mut self, with_digest: bool, most: usize) -> Result<Option<Step>, ReplayError> {
        self.next_entry()?;
        let Some(entry) = self.entries.pop_front() else { return Ok(None) };
        let position = LogPosition { index: entry.index, term: entry.term };
        let mut answers = Vec::new();
        let host = |source| ReplayError::Host { index: entry.index, source };
        let (commands, waiting) = match self.is_watching {
            true => self.commands_of(&entry).map_err(host)?,
            false => (Vec::new(), Vec::new()),
        };
        let is_watching = self.is_watching;
        let kind = match entry.kind {
            EntryKind::ConfChange => {
                let (change, conf_state) = self.configuration.apply(&entry)?;
                self.machine.apply_membership(entry.index, &change, conf_state);
                let (reply, fuel_used) = (Reply::Nothing, 0);
                answers.push(Answered { reply, fuel_used, watched: None });
                "membership"
            }
            EntryKind::Normal => {
                let mut on_answer = |_, applied: Applied| {
                    let Applied { reply, fuel_used, events, waited, .. } = applied;
                    let command = match waited {
                        None => commands.get(answers.len()),
                        waited => waiting.iter().chain(&commands).find(|it| it.session == waited),
                    };
                    let watched =
                        is_watching.then(|| Watched { command: command.cloned(), events });
                    answers.push(Answered { reply, fuel_used, watched });
                };
                let applied =
                    self.machine.apply_up_to(entry.index, &entry.data, most, &mut on_answer);
                applied.map_err(host)?;
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
        // What is stored is of the whole entry.
        let is_whole = step.answers.len() < most;
        let snapshot = self.to_check.pop_front_if(|meta| meta.index == entry.index);
        let snapshot = snapshot.filter(|_| is_whole);
        let evidence = self.evidence.remove(&entry.index).filter(|_| is_whole);
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

    /// The commands of an entry, and those that wait in the sessions of these.
    fn commands_of(&self, entry: &LogEntry) -> Result<(Vec<Held>, Vec<Held>), HostFailure> {
        if entry.kind == EntryKind::ConfChange {
            return Ok((Vec::new(), Vec::new()));
        }
        let commands = commands_of(entry.index, &entry.data)?;
        let sessions = commands.iter().filter_map(|held| held.session);
        let sessions: BTreeSet<u64> = sessions.map(|number| number.session_id).collect();
        let waiting = sessions.into_iter().flat_map(|id| self.machine.waiting_in(id)).collect();
        Ok((commands, waiting))
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
