//! The log as raft-rs sees it: the durable log, and in front of it the newest entries, which
//! the log writer may not have persisted yet.
//!
//! ```text
//!        start                tail_start            persisted           last
//!  ...compacted │ durable only     │ in memory and durable │ in memory only │
//! ```
//!
//! start ≤ tail_start - 1 ≤ persisted ≤ last. Reads below `tail_start` go to the log store,
//! whose content there no pending write changes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState};

use super::convert;
use super::offers::Offers;
use crate::museum::{self, Exhibit};
use crate::storage::{LogStore, SnapshotMeta, StorageError};
use crate::types::{ConfState, GroupId, HardState, Index, LogEntry, LogPosition, NodeId, Term};

pub(super) struct ReplicaStore {
    group: GroupId,
    log: Arc<dyn LogStore>,
    start: LogPosition,
    last: LogPosition,
    /// Contiguous, ends at `last`.
    tail: VecDeque<LogEntry>,
    tail_bytes: u64,
    tail_budget_bytes: u64,
    persisted: Index,
    /// As of opening: raft-rs reads them once.
    hard_state: HardState,
    conf_state: ConfState,
    /// The newest snapshot in the snapshot store.
    snapshot: Option<SnapshotMeta>,
    /// A follower needs a snapshot that the snapshot store does not have. raft-rs asks through
    /// a shared reference.
    snapshot_wanted: Cell<bool>,
    /// Why the log could not be read. raft-rs panics of such errors, so it gets none.
    failure: Cell<Option<StorageError>>,
    /// No snapshot may be sent: what they hold cannot be trusted.
    is_withheld: bool,
    offers: Offers,
}

impl ReplicaStore {
    pub(super) fn open(
        log: Arc<dyn LogStore>,
        group: GroupId,
        snapshot: Option<SnapshotMeta>,
        tail_budget_bytes: u64,
        offers: Offers,
    ) -> Result<ReplicaStore, StorageError> {
        let start = log.start(group)?;
        let mut last_index = log.last_index(group)?;
        if museum::is_on(Exhibit::TailForgottenAtRestart) {
            last_index = log.hard_state(group)?.commit;
        }
        let last = LogPosition { index: last_index, term: log.term(group, last_index)? };
        let hard_state = log.hard_state(group)?;
        let conf_state =
            snapshot.as_ref().map(|snapshot| snapshot.conf_state.clone()).unwrap_or_default();
        Ok(ReplicaStore {
            group,
            log,
            start,
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_budget_bytes,
            persisted: last_index,
            hard_state,
            conf_state,
            snapshot,
            snapshot_wanted: Cell::new(false),
            failure: Cell::new(None),
            is_withheld: false,
            offers,
        })
    }

    /// Whether a newer snapshot was asked for since the last call.
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    /// Why the log could not be read. Whoever gets it must not go on.
    pub(super) fn take_failure(&self) -> Option<StorageError> {
        self.failure.take()
    }

    /// Whether snapshots are kept from others.
    pub(super) fn withhold(&mut self, withheld: bool) {
        self.is_withheld = withheld;
    }

    pub(super) fn start(&self) -> LogPosition {
        self.start
    }

    pub(super) fn latest_snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    fn tail_start(&self) -> Index {
        self.tail.front().map_or(self.last.index.next(), |entry| entry.index)
    }

    /// Takes entries that a pending write will persist, replacing a conflicting suffix.
    pub(super) fn append(&mut self, entries: &[LogEntry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        assert!(
            first > self.start.index && first <= self.last.index.next(),
            "append at {first} does not join a log of {}..={}",
            self.start.index.next(),
            self.last.index
        );
        while self.tail.back().is_some_and(|entry| entry.index >= first) {
            let dropped = self.tail.pop_back().expect("just seen");
            self.tail_bytes -= dropped.cost_bytes();
        }
        self.persisted = self.persisted.min(Index(first.0 - 1));
        for entry in entries {
            self.tail_bytes += entry.cost_bytes();
            self.tail.push_back(entry.clone());
        }
        let last = entries.last().expect("not empty");
        self.last = LogPosition { index: last.index, term: last.term };
    }

    /// Everything up to `position` is durable, unless a later append replaced it.
    pub(super) fn persisted_to(&mut self, position: LogPosition) {
        if position.index <= self.last.index
            && position.index > self.persisted
            && self.term_at(position.index).ok() == Some(position.term)
        {
            self.persisted = position.index;
        }
        while self.tail_bytes > self.tail_budget_bytes
            && self.tail.front().is_some_and(|entry| entry.index <= self.persisted)
        {
            let dropped = self.tail.pop_front().expect("just seen");
            self.tail_bytes -= dropped.cost_bytes();
        }
    }

    /// A snapshot replaces the whole log.
    pub(super) fn reset_to(&mut self, snapshot: SnapshotMeta) {
        self.start = snapshot.position();
        self.last = self.start;
        self.persisted = self.start.index;
        self.tail.clear();
        self.tail_bytes = 0;
        self.snapshot = Some(snapshot);
    }

    pub(super) fn set_snapshot(&mut self, snapshot: SnapshotMeta) {
        self.snapshot = Some(snapshot);
    }

    /// A stored snapshot cannot be read any more; `newest` is the newest that can.
    pub(super) fn snapshot_gone(&mut self, index: Index, newest: Option<SnapshotMeta>) {
        self.offers.gone(index);
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.index == index) {
            // What is newer than this one waits to be installed, and is not this replica's yet.
            self.snapshot = newest.filter(|newest| newest.index <= index);
        }
    }

    pub(super) fn offers(&mut self) -> &mut Offers {
        &mut self.offers
    }

    /// Whether `to` can go on with the log once it has this snapshot.
    fn is_of_use(&self, snapshot: &SnapshotMeta, request_index: u64, to: NodeId) -> bool {
        snapshot.index.0 >= request_index
            && snapshot.index >= self.start.index
            && snapshot.conf_state.contains(to)
    }

    /// Forgets the prefix up to and including `index`, which the snapshot covers and which is
    /// durable. Returns the position when there is anything to forget.
    pub(super) fn compact(&mut self, index: Index) -> Result<Option<LogPosition>, StorageError> {
        let covered = self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
        let index = index.min(self.persisted).min(covered);
        if index <= self.start.index {
            return Ok(None);
        }
        let position = LogPosition { index, term: self.term_at(index)? };
        self.start = position;
        while self.tail.front().is_some_and(|entry| entry.index <= index) {
            let dropped = self.tail.pop_front().expect("just seen");
            self.tail_bytes -= dropped.cost_bytes();
        }
        Ok(Some(position))
    }

    pub(super) fn term_at(&self, index: Index) -> Result<Term, StorageError> {
        if index == self.start.index {
            return Ok(self.start.term);
        }
        if index == self.last.index {
            return Ok(self.last.term);
        }
        if index < self.start.index {
            return Err(StorageError::Compacted {
                group: self.group,
                index,
                first_index: self.start.index.next(),
            });
        }
        if index > self.last.index {
            return Err(StorageError::Unavailable {
                group: self.group,
                index,
                last_index: self.last.index,
            });
        }
        let tail_start = self.tail_start();
        if index >= tail_start {
            return Ok(self.tail[(index.0 - tail_start.0) as usize].term);
        }
        self.log.term(self.group, index)
    }

    /// Entries of a non-empty range within the log; at least one, at most `max_bytes`.
    fn range(
        &self,
        low: Index,
        high: Index,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let tail_start = self.tail_start();
        let mut entries = Vec::new();
        let mut bytes = 0;
        if low < tail_start {
            let disk_high = high.min(tail_start);
            entries = self.log.entries(self.group, low..disk_high, max_bytes)?;
            bytes = entries.iter().map(LogEntry::cost_bytes).sum();
            if entries.len() < (disk_high.0 - low.0) as usize {
                return Ok(entries);
            }
        }
        let from = low.max(tail_start);
        if from < high {
            let tail = self.tail.range((from.0 - tail_start.0) as usize..);
            for entry in tail.take((high.0 - from.0) as usize) {
                bytes += entry.cost_bytes();
                if bytes > max_bytes && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
            }
        }
        Ok(entries)
    }
}

impl ReplicaStore {
    /// raft-rs knows what to do with two kinds of errors. For any other it gets an answer that
    /// it survives; nothing of what it makes of that leaves, since the failure is looked at
    /// first.
    fn for_raft<T: Default>(&self, result: Result<T, StorageError>) -> raft::Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(StorageError::Compacted { .. }) => {
                Err(raft::Error::Store(raft::StorageError::Compacted))
            }
            Err(StorageError::Unavailable { .. }) => {
                Err(raft::Error::Store(raft::StorageError::Unavailable))
            }
            Err(other) => {
                // The first one tells most.
                self.failure.set(Some(self.failure.take().unwrap_or(other)));
                Ok(T::default())
            }
        }
    }
}

impl raft::Storage for ReplicaStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            convert::to_raft_hard_state(self.hard_state),
            convert::to_raft_conf_state(&self.conf_state),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if Index(low) <= self.start.index {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let entries = self.for_raft(self.range(Index(low), Index(high), max_bytes))?;
        Ok(entries.into_iter().map(convert::to_raft_entry).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.for_raft(self.term_at(Index(index)).map(|term| term.0))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.index.0)
    }

    /// A replica refuses a snapshot whose configuration does not name it, so one from before
    /// `to` was added is as good as none. So is one that the log does not go on from.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let to = NodeId(to);
        let is_withheld = self.is_withheld && !museum::is_on(Exhibit::QuarantinedSnapshots);
        if is_withheld || self.offers.is_resting(to) {
            return Err(raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable));
        }
        let candidates = [self.offers.unfinished(to), self.snapshot.clone()];
        let mut usable = candidates.into_iter().flatten();
        if let Some(snapshot) = usable.find(|found| self.is_of_use(found, request_index, to)) {
            let offered = convert::to_raft_snapshot(&snapshot);
            self.offers.offered(to, snapshot);
            return Ok(offered);
        }
        self.snapshot_wanted.set(true);
        Err(raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable))
    }
}
