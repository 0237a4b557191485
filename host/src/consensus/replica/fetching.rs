//! Entries that are not in memory any more. The replica never waits for a disk: it asks for them,
//! goes on, and gets them as an input.

use std::collections::BTreeMap;

use super::{Replica, ReplicaError};
use crate::consensus::effects::{LogRead, LogReader};
use crate::consensus::store::Fetched;
use crate::storage::StorageError;
use crate::types::{Index, LogEntry};

/// So many messages' worth of entries are read at a time.
const MESSAGES_PER_READ: u64 = 4;
/// No entry costs less, so more of them do not fit into a read.
const ENTRY_BYTES_MIN: u64 = 32;

/// What was asked for, and what has come.
#[derive(Debug, Default)]
pub(super) struct Fetches(BTreeMap<LogReader, Fetch>);

#[derive(Debug)]
enum Fetch {
    Asked,
    Here(Fetched),
}

impl Fetches {
    /// What has come for somebody. It is to be put back if it may still be of use.
    pub(super) fn take(&mut self, reader: LogReader) -> Fetched {
        match self.0.get_mut(&reader) {
            Some(Fetch::Here(fetched)) => {
                let fetched = std::mem::take(fetched);
                self.0.remove(&reader);
                fetched
            }
            Some(Fetch::Asked) | None => Fetched::new(),
        }
    }

    pub(super) fn put_back(&mut self, reader: LogReader, fetched: Fetched) {
        if !fetched.is_empty() && !self.is_asked(reader) {
            self.0.insert(reader, Fetch::Here(fetched));
        }
    }

    fn is_asked(&self, reader: LogReader) -> bool {
        matches!(self.0.get(&reader), Some(Fetch::Asked))
    }

    /// Nothing is to be sent: forgets what has come for peers.
    pub(super) fn forget_peers(&mut self) {
        self.0
            .retain(|reader, fetch| *reader == LogReader::Machine || matches!(fetch, Fetch::Asked));
    }

    /// Entries were replaced: forgets what has come.
    pub(super) fn forget_all(&mut self) {
        self.0.retain(|_, fetch| matches!(fetch, Fetch::Asked));
    }
}

impl Replica {
    /// Asks for entries from `from` on, unless they are on their way.
    pub(super) fn fetch(&mut self, reader: LogReader, from: Index, through: Index) {
        let through = through.min(self.raw.store().last_on_disk());
        if self.fetches.is_asked(reader) || from > through {
            return;
        }
        let max_bytes = self.config.limits.max_append_bytes.saturating_mul(MESSAGES_PER_READ);
        let end = through.0.min(from.0 + max_bytes / ENTRY_BYTES_MIN) + 1;
        let epoch = self.raw.store().epoch();
        let range = from..Index(end);
        self.fetches.0.insert(reader, Fetch::Asked);
        self.effects.log_reads.push(LogRead { reader, range, max_bytes, epoch });
    }

    pub(super) fn on_log_read(
        &mut self,
        read: &LogRead,
        result: Result<Vec<LogEntry>, StorageError>,
    ) -> Result<(), ReplicaError> {
        self.fetches.0.remove(&read.reader);
        let store = self.raw.store();
        if read.epoch != store.epoch() {
            // The log is another one by now; whoever still needs entries asks again.
            return Ok(());
        }
        match result {
            Ok(entries) => self.fetches.put_back(read.reader, entries),
            // It was compacted meanwhile: this peer needs a snapshot.
            Err(StorageError::Compacted { .. }) if read.range.start <= store.start().index => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
