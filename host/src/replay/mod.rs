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
//!                  └─? Comparison: another node's Step says the same
//! ```

mod compare;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

pub use self::compare::{Comparison, Divergence, compare};
use crate::consensus::{Configuration, ReplicaError};
use crate::fsm::{HostFailure, SharedLoader};
use crate::machine::{BodyKind, Machine, Reply, RestoreError};
use crate::storage::{SnapshotMeta, StorageError, Stores};
use crate::types::{ClusterId, EntryKind, GroupId, Index, LogEntry, LogPosition, StateDigest};

/// Entries read from the log at once.
const READ_BYTES: u64 = 1 << 20;

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
    /// The machine's answer.
    pub reply: Reply,
    /// Fuel that the guest used.
    pub fuel_used: u64,
    /// Of machine and guest after the entry, if it was asked for.
    pub digest: Option<StateDigest>,
    /// What does not fit to what this node stored.
    pub differences: Vec<Difference>,
}

/// Something that this node stored and that re-execution contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A snapshot holds another state than its log leads to.
    Snapshot {
        /// Its index.
        index: Index,
        /// The last index at which they agreed, or where re-execution began.
        agreed: Index,
        /// Of the state in it.
        stored: StateDigest,
        /// Of the re-executed state.
        replayed: StateDigest,
    },
}

impl Difference {
    /// The first index at which it shows.
    pub fn index(&self) -> Index {
        match self {
            Difference::Snapshot { index, .. } => *index,
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
    /// The last index at which a stored snapshot agreed; `began` before that.
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
            to_check: usable.split_off(chosen + 1).into(),
            machine,
            loader,
            stores,
        })
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
        let (kind, reply, fuel_used) = match entry.kind {
            EntryKind::ConfChange => {
                let (change, conf_state) = self.configuration.apply(&entry)?;
                self.machine.apply_membership(entry.index, &change, conf_state);
                ("membership", Reply::Nothing, 0)
            }
            EntryKind::Normal => {
                let applied = self
                    .machine
                    .apply(entry.index, &entry.data)
                    .map_err(|source| ReplayError::Host { index: entry.index, source })?;
                (BodyKind::of(&entry.data).name(), applied.reply, applied.fuel_used)
            }
        };
        let mut step =
            Step { position, kind, reply, fuel_used, digest: None, differences: Vec::new() };
        let due = self.to_check.front().is_some_and(|meta| meta.index == entry.index);
        if with_digest || due {
            let digest = self.digest()?;
            step.digest = Some(digest);
            if due {
                let meta = self.to_check.pop_front().expect("just seen");
                step.differences.extend(self.check_snapshot(&meta, digest)?);
            }
        }
        Ok(Some(step))
    }

    fn check_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        replayed: StateDigest,
    ) -> Result<Option<Difference>, ReplayError> {
        let mut machine = restore(&self.stores, meta, self.cluster, &self.loader)?;
        let stored = digest(&mut machine)?;
        if stored == replayed {
            self.agreed = meta.index;
            return Ok(None);
        }
        let (index, agreed) = (meta.index, self.agreed);
        Ok(Some(Difference::Snapshot { index, agreed, stored, replayed }))
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
    let image = machine.capture().map_err(|source| ReplayError::Host { index, source })?;
    let mut hasher = Hasher(Sha256::new());
    image.write_to(&mut hasher).map_err(|error| ReplayError::Host {
        index,
        source: HostFailure(format!("digesting the state: {error}")),
    })?;
    Ok(StateDigest(hasher.0.finalize().into()))
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
