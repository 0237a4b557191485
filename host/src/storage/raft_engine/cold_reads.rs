//! Reads of entries that are no longer in memory, beside whatever a purge is at.
//!
//! A purge copies what is still alive in old files, makes the copies durable, has raft-engine's index
//! point to them, and then forgets the files. Old files are never changed, and a read holds the file
//! that it has found: it gives the right bytes, or an error when the index led to a file that is gone.

use std::ops::Range;
use std::sync::atomic::Ordering;

use raft_engine::env::FileSystem;

use super::{RaftEngineLog, StorageError, UNPOISONED, fetch};
use crate::storage::index::take_capped;
use crate::types::{GroupId, Index, LogEntry};

/// So often a read is tried that a purge got in the way of, before it waits for the purge's end.
/// Files are forgotten once or twice in a purge, so the second or third time it succeeds.
const TRIES: usize = 16;

impl<F: FileSystem + 'static> RaftEngineLog<F> {
    pub(super) fn read_cold(
        &self,
        group: GroupId,
        range: &Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        for _ in 0..TRIES {
            let before = self.purges.load(Ordering::SeqCst);
            let read = self.read_files(group, range, max_bytes);
            let is_beside_purge = before % 2 == 1 || self.purges.load(Ordering::SeqCst) != before;
            if read.is_ok() || !is_beside_purge {
                return read;
            }
        }
        let _purging = self.purging.lock().expect(UNPOISONED);
        self.read_files(group, range, max_bytes)
    }

    fn read_files(
        &self,
        group: GroupId,
        range: &Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let _gate = self.gate.read().expect(UNPOISONED);
        // While waiting for the gate the log may have changed.
        let recent = self.groups.read().expect(UNPOISONED).recent(group, range, max_bytes)?;
        if let Some(entries) = recent {
            return Ok(entries);
        }
        let mut taken: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        loop {
            let from = taken.last().map_or(range.start, |entry| entry.index.next());
            if from >= range.end || (bytes >= max_bytes && !taken.is_empty()) {
                return Ok(taken);
            }
            // No entry is longer in the file than its cost, so this fetches enough.
            let more = fetch(&self.dir, &self.engine, group, from..range.end, max_bytes - bytes)?;
            let fetched = more.len();
            let first_alone = taken.is_empty();
            let fitting = take_capped(more, max_bytes - bytes);
            let fits = |entry: &LogEntry| bytes + entry.cost_bytes() <= max_bytes;
            if !first_alone && !fitting.first().is_some_and(fits) {
                return Ok(taken);
            }
            let all_fit = fitting.len() == fetched;
            bytes = bytes.saturating_add(fitting.iter().map(LogEntry::cost_bytes).sum());
            taken.extend(fitting);
            if !all_fit {
                return Ok(taken);
            }
        }
    }
}
