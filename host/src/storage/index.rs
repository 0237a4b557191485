//! What every back end keeps in memory about its groups: bounds, terms, hard state and the
//! most recent entries. Batches are judged here before anything reaches a disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::OnceLock;

use super::codec::GroupMeta;
use super::{GroupWrite, StorageError, WriteBatch};
use crate::types::{GroupId, HardState, Index, LogEntry, LogPosition, Term};

/// One group's log without its older entries.
#[derive(Debug, Default)]
pub(super) struct GroupIndex {
    start: LogPosition,
    last: Index,
    hard_state: HardState,
    /// First index of each run of equal terms; ascending, all in `start.index + 1 ..= last`.
    term_runs: VecDeque<(Index, Term)>,
    /// The newest entries: contiguous, ending at `last`.
    recent: VecDeque<LogEntry>,
}

impl GroupIndex {
    /// An index to be filled by [`GroupIndex::push_recovered`].
    pub(super) fn recovering(start: LogPosition, hard_state: HardState) -> GroupIndex {
        GroupIndex { start, last: start.index, hard_state, ..GroupIndex::default() }
    }

    /// Notes an entry read back when opening.
    pub(super) fn push_recovered(&mut self, entry: &LogEntry) -> Result<(), String> {
        if entry.index != self.last.next() {
            return Err(format!("found entry {} where {} belongs", entry.index, self.last.next()));
        }
        self.push_term(entry);
        self.last = entry.index;
        Ok(())
    }

    pub(super) fn start(&self) -> LogPosition {
        self.start
    }

    pub(super) fn last(&self) -> Index {
        self.last
    }

    pub(super) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// What is to be persisted about the group as it is.
    pub(super) fn meta(&self) -> GroupMeta {
        let last = LogPosition {
            index: self.last,
            term: self.term(self.last).expect("the last index is within the log"),
        };
        GroupMeta { start: self.start, last, hard_state: self.hard_state }
    }

    /// Term within `start.index ..= last`.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last {
            return None;
        }
        let run = self.term_runs.partition_point(|(first, _)| *first <= index);
        Some(self.term_runs[run - 1].1)
    }

    /// Whether reads of older state would notice the write half done: anything but appending.
    pub(super) fn is_rewritten_by(&self, write: &GroupWrite) -> bool {
        write.reset_to.is_some()
            || write.compact_to.is_some()
            || write.entries.first().is_some_and(|entry| entry.index <= self.last)
    }

    /// The requested entries if all of them are among the recent ones.
    fn recent(&self, range: &Range<Index>, max_bytes: u64) -> Option<Vec<LogEntry>> {
        let first = self.recent.front()?.index;
        if range.start < first {
            return None;
        }
        let from = (range.start.0 - first.0) as usize;
        let to = (range.end.0 - first.0) as usize;
        Some(take_capped(self.recent.range(from..to).cloned(), max_bytes))
    }

    /// Judges a write and says what the group will be after it.
    fn judge(&self, group: GroupId, write: &GroupWrite) -> Result<GroupMeta, StorageError> {
        let refuse = |reason: String| StorageError::InvalidWrite { group, reason };
        let mut meta = self.meta();
        if let Some(start) = write.reset_to {
            (meta.start, meta.last) = (start, start);
        }
        if let Some(hard_state) = write.hard_state {
            meta.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            if first.index <= meta.start.index {
                return Err(refuse(format!(
                    "entry {} is not after the start of the log, {}",
                    first.index, meta.start.index
                )));
            }
            if first.index > meta.last.index.next() {
                return Err(refuse(format!(
                    "entry {} would leave a gap after {}",
                    first.index, meta.last.index
                )));
            }
            for pair in write.entries.windows(2) {
                if pair[1].index != pair[0].index.next() {
                    return Err(refuse(format!(
                        "entry {} follows entry {}",
                        pair[1].index, pair[0].index
                    )));
                }
            }
        }
        if let Some(last) = write.entries.last() {
            meta.last = LogPosition { index: last.index, term: last.term };
        }
        if let Some(to) = write.compact_to {
            let term = self.term_after(write, &meta, to.index).ok_or_else(|| {
                refuse(format!(
                    "compaction up to {} is outside of the log, {}..={}",
                    to.index, meta.start.index, meta.last.index
                ))
            })?;
            if term != to.term {
                return Err(refuse(format!(
                    "compaction up to {} names term {}, but the entry has term {term}",
                    to.index, to.term
                )));
            }
            meta.start = to;
        }
        Ok(meta)
    }

    /// Term of an index once `write` has been applied, where `meta` are its bounds.
    fn term_after(&self, write: &GroupWrite, meta: &GroupMeta, index: Index) -> Option<Term> {
        if index == meta.start.index {
            return Some(meta.start.term);
        }
        if index < meta.start.index || index > meta.last.index {
            return None;
        }
        match write.entries.first() {
            Some(first) if index >= first.index => {
                Some(write.entries[(index.0 - first.index.0) as usize].term)
            }
            _ => self.term(index),
        }
    }

    fn push_term(&mut self, entry: &LogEntry) {
        if self.term_runs.back().is_none_or(|(_, term)| *term != entry.term) {
            self.term_runs.push_back((entry.index, entry.term));
        }
    }

    /// Applies a judged write; returns by how much the recent entries grew and shrank.
    fn apply(&mut self, write: &GroupWrite) -> (u64, u64) {
        let (mut added, mut removed) = (0, 0);
        if let Some(start) = write.reset_to {
            removed += self.recent.drain(..).map(|entry| entry.cost_bytes()).sum::<u64>();
            self.term_runs.clear();
            self.start = start;
            self.last = start.index;
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            while self.recent.back().is_some_and(|entry| entry.index >= first.index) {
                removed += self.recent.pop_back().map_or(0, |entry| entry.cost_bytes());
            }
            while self.term_runs.back().is_some_and(|(index, _)| *index >= first.index) {
                self.term_runs.pop_back();
            }
            for entry in &write.entries {
                self.push_term(entry);
                added += entry.cost_bytes();
                self.recent.push_back(entry.clone());
            }
            self.last = self.recent.back().expect("entries were just pushed").index;
        }
        if let Some(to) = write.compact_to {
            self.start = to;
            removed += self.evict_through(to.index);
            // Keep the run that covers the first remaining entry, from that entry on.
            let first = to.index.next();
            while self.term_runs.get(1).is_some_and(|(index, _)| *index <= first) {
                self.term_runs.pop_front();
            }
            if self.last == to.index {
                self.term_runs.clear();
            } else if let Some(run) = self.term_runs.front_mut() {
                run.0 = run.0.max(first);
            }
        }
        (added, removed)
    }

    fn evict_through(&mut self, index: Index) -> u64 {
        let mut removed = 0;
        while self.recent.front().is_some_and(|entry| entry.index <= index) {
            removed += self.recent.pop_front().map_or(0, |entry| entry.cost_bytes());
        }
        removed
    }
}

/// All groups of a store.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, GroupIndex>,
    /// Sum of the cost of all recent entries.
    recent_bytes: u64,
    recent_limit_bytes: u64,
}

/// Bounds of an unknown group.
static EMPTY: OnceLock<GroupIndex> = OnceLock::new();

impl Groups {
    /// No groups; keeps recent entries up to `recent_limit_bytes`.
    pub(super) fn new(recent_limit_bytes: u64) -> Groups {
        Groups { groups: BTreeMap::new(), recent_bytes: 0, recent_limit_bytes }
    }

    pub(super) fn insert_recovered(&mut self, group: GroupId, index: GroupIndex) {
        self.groups.insert(group, index);
    }

    pub(super) fn ids(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    /// The group, or an empty one.
    pub(super) fn get(&self, group: GroupId) -> &GroupIndex {
        self.groups.get(&group).unwrap_or_else(|| EMPTY.get_or_init(GroupIndex::default))
    }

    pub(super) fn term(&self, group: GroupId, index: Index) -> Result<Term, StorageError> {
        let log = self.get(group);
        if index < log.start.index {
            let first_index = log.start.index.next();
            return Err(StorageError::Compacted { group, index, first_index });
        }
        log.term(index).ok_or(StorageError::Unavailable { group, index, last_index: log.last })
    }

    /// Checks that a range is non-empty and fully present, and serves it from memory if it can.
    pub(super) fn recent(
        &self,
        group: GroupId,
        range: &Range<Index>,
        max_bytes: u64,
    ) -> Result<Option<Vec<LogEntry>>, StorageError> {
        let log = self.get(group);
        if range.start <= log.start.index {
            return Err(StorageError::Compacted {
                group,
                index: range.start,
                first_index: log.start.index.next(),
            });
        }
        if range.is_empty() || range.end.0 - 1 > log.last.0 {
            let index = Index(range.end.0.saturating_sub(1).max(range.start.0));
            return Err(StorageError::Unavailable { group, index, last_index: log.last });
        }
        Ok(log.recent(range, max_bytes))
    }

    /// Judges a whole batch. What it returns is to be persisted with it: one record for each
    /// group that changes. Nothing has happened when it refuses.
    pub(super) fn judge(
        &self,
        batch: &WriteBatch,
    ) -> Result<Vec<(GroupId, GroupMeta)>, StorageError> {
        let mut metas: Vec<(GroupId, GroupMeta)> = Vec::with_capacity(batch.groups.len());
        for (group, write) in &batch.groups {
            if metas.iter().any(|(seen, _)| seen == group) {
                let reason = "the batch holds more than one record for it".to_owned();
                return Err(StorageError::InvalidWrite { group: *group, reason });
            }
            metas.push((*group, self.get(*group).judge(*group, write)?));
        }
        Ok(metas)
    }

    /// Whether the batch does more than append: see [`GroupIndex::is_rewritten_by`].
    pub(super) fn is_rewritten_by(&self, batch: &WriteBatch) -> bool {
        batch.groups.iter().any(|(group, write)| self.get(*group).is_rewritten_by(write))
    }

    /// Applies a judged batch that is durable by now.
    pub(super) fn apply(&mut self, batch: &WriteBatch, metas: &[(GroupId, GroupMeta)]) {
        for ((group, write), (_, meta)) in batch.groups.iter().zip(metas) {
            let index = self.groups.entry(*group).or_default();
            let (added, removed) = index.apply(write);
            // What we tell readers and what we wrote must be the same thing.
            assert_eq!(index.meta(), *meta, "group {group}: memory and disk disagree");
            self.recent_bytes = self.recent_bytes + added - removed;
            while self.recent_bytes > self.recent_limit_bytes {
                let Some(oldest) = index.recent.pop_front() else { break };
                self.recent_bytes -= oldest.cost_bytes();
            }
        }
    }
}

/// The longest prefix that fits `max_bytes`, but at least one entry.
pub(super) fn take_capped(
    entries: impl IntoIterator<Item = LogEntry>,
    max_bytes: u64,
) -> Vec<LogEntry> {
    let mut taken = Vec::new();
    let mut bytes: u64 = 0;
    for entry in entries {
        bytes = bytes.saturating_add(entry.cost_bytes());
        if bytes > max_bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry);
    }
    taken
}

/// Remembers the first failed write: from then on the store refuses, for nobody knows what
/// reached the disk.
#[derive(Debug, Default)]
pub(super) struct Poison(OnceLock<String>);

impl Poison {
    /// Refuses if something failed before.
    pub(super) fn check(&self, engine: &'static str) -> Result<(), StorageError> {
        match self.0.get() {
            None => Ok(()),
            Some(cause) => Err(StorageError::Engine {
                engine,
                message: format!(
                    "refusing all writes since one failed ({cause}); restart the node once the \
                     cause is removed"
                ),
            }),
        }
    }

    /// Remembers a failure and passes it on.
    pub(super) fn set(&self, error: StorageError) -> StorageError {
        // A later failure is a consequence of the first, which stays.
        let _ = self.0.set(error.to_string());
        error
    }
}

/// What a caught panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked without a message".to_owned())
}
