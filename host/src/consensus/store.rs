//! The log as raft-rs sees it: the durable log, and in front of it the newest entries, which
//! the log writer may not have persisted yet.
//!
//! ```text
//!        start                tail_start            persisted           last
//!  ...compacted │ durable only     │ in memory and durable │ in memory only │
//! ```
//!
//! start ≤ tail_start - 1 ≤ persisted ≤ last. Nothing here waits for a disk once it is open: of what
//! lies below `tail_start`, raft-rs gets what was fetched for the purpose ([`Fetched`]), and
//! otherwise nothing. The log store's content there no pending write changes. Terms and bounds the
//! log store has in memory.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState};

use super::convert;
use super::offers::Offers;
use crate::museum::{self, Exhibit};
use crate::storage::{LogStore, SnapshotMeta, StorageError};
use crate::types::{
    ConfState, EntryKind, GroupId, HardState, Index, LogEntry, LogPosition, NodeId, Term,
};

/// Entries that were read from the log store, contiguous, for one of those who read on.
pub(super) type Fetched = Vec<LogEntry>;

/// Most bytes that are read at a time when the log is opened.
const SCAN_BYTES: u64 = 4 << 20;

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
    /// Of the entries after the snapshot that the machine began with, those that change the
    /// membership. raft-rs counts them among what is not applied yet.
    conf_changes: BTreeSet<Index>,
    /// Changes when entries are replaced: what is being read meanwhile may be of before.
    epoch: u64,
    /// Present while a peer may be sent entries: see `raft::Storage::entries`.
    sending: Option<Fetched>,
    /// Present while the machine may be given entries.
    applying: Option<Fetched>,
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
        let applied =
            snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index).max(start.index);
        let conf_changes = find_conf_changes(&*log, group, applied.next()..last_index.next())?;
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
            conf_changes,
            epoch: 0,
            sending: None,
            applying: None,
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

    /// Whether an entry need not be fetched, given what was.
    pub(super) fn is_in_memory(&self, index: Index, fetched: &[LogEntry]) -> bool {
        index >= self.tail_start() || position_in(fetched, index).is_some()
    }

    /// The same while sending.
    pub(super) fn can_send(&self, index: Index) -> bool {
        self.is_in_memory(index, self.sending.as_deref().unwrap_or_default())
    }

    /// Whether an entry is in memory only because it was fetched.
    pub(super) fn needs_fetched(&self, index: Index, fetched: &[LogEntry]) -> bool {
        index < self.tail_start() && position_in(fetched, index).is_some()
    }

    /// The last entry that can be fetched: those from the next on are in memory.
    pub(super) fn last_on_disk(&self) -> Index {
        Index(self.tail_start().0 - 1)
    }

    /// See [`Fetched`]. What is read in one epoch is not to be used in another.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Answers raft-rs's reads for a peer, from memory and from what was fetched.
    pub(super) fn begin_sending(&mut self, fetched: Fetched) {
        self.sending = Some(fetched);
    }

    /// Ends [`ReplicaStore::begin_sending`] and gives back what was fetched.
    pub(super) fn end_sending(&mut self) -> Fetched {
        self.sending.take().unwrap_or_default()
    }

    /// Answers raft-rs's reads for the machine, from memory and from what was fetched.
    pub(super) fn begin_applying(&mut self, fetched: Fetched) {
        self.applying = Some(fetched);
    }

    /// Ends [`ReplicaStore::begin_applying`] and gives back what was fetched.
    pub(super) fn end_applying(&mut self) -> Fetched {
        self.applying.take().unwrap_or_default()
    }

    /// Takes entries that a pending write will persist, replacing a conflicting suffix. Says
    /// whether there was one.
    pub(super) fn append(&mut self, entries: &[LogEntry]) -> bool {
        let Some(first) = entries.first().map(|entry| entry.index) else { return false };
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
        let replaces = first <= self.last.index;
        if replaces {
            self.epoch += 1;
            self.conf_changes.split_off(&first);
        }
        self.persisted = self.persisted.min(Index(first.0 - 1));
        self.conf_changes.extend(conf_changes_of(entries));
        for entry in entries {
            self.tail_bytes += entry.cost_bytes();
            self.tail.push_back(entry.clone());
        }
        let last = entries.last().expect("not empty");
        self.last = LogPosition { index: last.index, term: last.term };
        replaces
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
        self.conf_changes.clear();
        self.epoch += 1;
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
        self.conf_changes = self.conf_changes.split_off(&index.next());
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

    /// The beginning of a range within the log, as far as it is in memory and at most
    /// `max_bytes` (but one entry). Empty when not even its first entry is.
    fn in_memory(
        &self,
        range: Range<Index>,
        max_bytes: u64,
        fetched: &[LogEntry],
    ) -> Vec<LogEntry> {
        let Range { start: low, end: high } = range;
        let count = (high.0 - low.0) as usize;
        let tail_start = self.tail_start();
        match position_in(fetched, low) {
            _ if low >= tail_start => {
                let from = (low.0 - tail_start.0) as usize;
                capped(self.tail.range(from..).take(count), max_bytes)
            }
            Some(from) => capped(fetched[from..].iter().take(count), max_bytes),
            None => Vec::new(),
        }
    }
}

fn position_in(fetched: &[LogEntry], index: Index) -> Option<usize> {
    let from = index.0.checked_sub(fetched.first()?.index.0)? as usize;
    (from < fetched.len()).then_some(from)
}

/// As many as fit `max_bytes`, but at least one.
fn capped<'a>(entries: impl Iterator<Item = &'a LogEntry>, max_bytes: u64) -> Vec<LogEntry> {
    let mut taken = Vec::new();
    let mut bytes: u64 = 0;
    for entry in entries {
        bytes = bytes.saturating_add(entry.cost_bytes());
        if bytes > max_bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

fn conf_changes_of(entries: &[LogEntry]) -> impl Iterator<Item = Index> {
    entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange).map(|entry| entry.index)
}

fn find_conf_changes(
    log: &dyn LogStore,
    group: GroupId,
    range: Range<Index>,
) -> Result<BTreeSet<Index>, StorageError> {
    let mut found = BTreeSet::new();
    let mut next = range.start;
    while next < range.end {
        let entries = log.entries(group, next..range.end, SCAN_BYTES)?;
        found.extend(conf_changes_of(&entries));
        next = Index(next.0 + entries.len() as u64);
    }
    Ok(found)
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

    /// raft-rs asks for three reasons.
    ///
    /// * For a peer ("may be async"): answered only while [`super::Replica`] sends, which knows how
    ///   much that peer may be sent. At any other time, and when it is not in memory: not now.
    /// * For the machine: answered likewise; otherwise it gets none, and raft-rs asks again.
    /// * To count the membership changes in a range, without a bound: it gets those alone.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if Index(low) <= self.start.index {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let range = Index(low)..Index(high);
        let wanted = if context.can_async() { &self.sending } else { &self.applying };
        let entries = match (max_size.into(), wanted) {
            (None, _) if !context.can_async() => {
                return Ok(self.conf_changes.range(range).map(|at| conf_change_at(*at)).collect());
            }
            (_, None) => Vec::new(),
            (max_bytes, Some(fetched)) => {
                self.in_memory(range, max_bytes.unwrap_or(u64::MAX), fetched)
            }
        };
        if entries.is_empty() && context.can_async() {
            return Err(raft::Error::Store(raft::StorageError::LogTemporarilyUnavailable));
        }
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

/// All that raft-rs looks at when it counts.
fn conf_change_at(index: Index) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: eraftpb::EntryType::EntryConfChangeV2,
        index: index.0,
        ..Default::default()
    }
}
