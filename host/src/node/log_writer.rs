//! The one thread that writes the log: takes everything that waits, writes it as one batch
//! with one fsync, reports the watermark.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use super::event_loop::{Event, EventSender};
use super::metrics::NodeMetrics;
use super::stop::{StopOnPanic, StopSignal};
use crate::consensus::Write;
use crate::storage::{GroupWrite, LogStore, StorageError, WriteBatch};
use crate::types::GroupId;

/// Most bytes merged into one batch; more would delay the first of them.
const MAX_BATCH_BYTES: u64 = 8 << 20;

pub(super) fn spawn(
    log: Arc<dyn LogStore>,
    group: GroupId,
    writes: Receiver<Write>,
    events: EventSender,
    metrics: Arc<NodeMetrics>,
    stop: StopSignal,
) -> std::io::Result<JoinHandle<()>> {
    let (purge, purges) = std::sync::mpsc::channel();
    let purger = spawn_purger(Arc::clone(&log), purges, stop.clone())?;
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        let _guard = StopOnPanic(stop.clone(), "log writer");
        write_all(&*log, group, &writes, &purge, &events, &metrics, &stop);
        drop(purge);
        // Its panic has stopped the node already.
        let _ = purger.join();
    })
}

fn write_all(
    log: &dyn LogStore,
    group: GroupId,
    writes: &Receiver<Write>,
    purge: &Sender<()>,
    events: &EventSender,
    metrics: &NodeMetrics,
    stop: &StopSignal,
) {
    let mut batcher = Batcher::default();
    loop {
        let Some(first) = batcher.carried.take().or_else(|| writes.recv().ok()) else { return };
        let Batch { number, write, compacts } = batcher.fill(first, writes);
        metrics.log_entries_written.add(write.entries.len() as u64);
        metrics.log_bytes_written.add(cost(&write));
        let began = Instant::now();
        if let Err(error) = log.write(&WriteBatch { groups: vec![(group, write)] }) {
            fail(stop, &error);
            return;
        }
        metrics.log_write_duration.observe(began.elapsed());
        // A stopping event loop needs no news, but what it handed over is still written.
        let _ = events.send(Event::Persisted(number));
        if compacts {
            // The purger has ended only after a failure that stops the node.
            let _ = purge.send(());
        }
    }
}

/// What reached the disk is unknown, and trying again would not tell.
pub(super) fn fail(stop: &StopSignal, error: &StorageError) {
    stop.fail("writing the log failed", error);
}

pub(super) fn fail_purge(stop: &StopSignal, error: &StorageError) {
    stop.fail("releasing compacted log space failed", error);
}

/// What is written with one fsync.
pub(super) struct Batch {
    /// Of the last write in it.
    pub(super) number: u64,
    pub(super) write: GroupWrite,
    /// There may be space to release after it.
    pub(super) compacts: bool,
}

/// Merges what waits into batches.
#[derive(Default)]
pub(super) struct Batcher {
    /// Did not fit the batch before.
    carried: Option<Write>,
}

impl Batcher {
    /// The next batch of what waits, if anything does.
    pub(super) fn next(&mut self, writes: &Receiver<Write>) -> Option<Batch> {
        let first = self.carried.take().or_else(|| writes.try_recv().ok())?;
        Some(self.fill(first, writes))
    }

    fn fill(&mut self, first: Write, writes: &Receiver<Write>) -> Batch {
        let mut number = first.number;
        let mut bytes = cost(&first.write);
        let mut merged = first.write;
        while bytes < MAX_BATCH_BYTES {
            let Ok(next) = writes.try_recv() else { break };
            if next.write.reset_to.is_some() {
                self.carried = Some(next);
                break;
            }
            number = next.number;
            bytes += cost(&next.write);
            merge(&mut merged, next.write);
        }
        let compacts = merged.compact_to.is_some() || merged.reset_to.is_some();
        Batch { number, write: merged, compacts }
    }
}

fn cost(write: &GroupWrite) -> u64 {
    write.entries.iter().map(|entry| entry.cost_bytes()).sum()
}

/// Makes `earlier` say what both say one after the other. `later` must not reset the log.
fn merge(earlier: &mut GroupWrite, later: GroupWrite) {
    assert!(later.reset_to.is_none(), "a reset starts its own batch");
    if later.hard_state.is_some() {
        earlier.hard_state = later.hard_state;
    }
    if let Some(first) = later.entries.first().map(|entry| entry.index) {
        while earlier.entries.last().is_some_and(|entry| entry.index >= first) {
            earlier.entries.pop();
        }
        earlier.entries.extend(later.entries);
    }
    if later.compact_to.is_some() {
        earlier.compact_to = later.compact_to;
    }
}

/// Purging may take long; writes must not wait for it.
fn spawn_purger(
    log: Arc<dyn LogStore>,
    purges: Receiver<()>,
    stop: StopSignal,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("log-purger".into()).spawn(move || {
        let _guard = StopOnPanic(stop.clone(), "log purger");
        while purges.recv().is_ok() {
            while purges.try_recv().is_ok() {}
            if let Err(error) = log.purge() {
                fail_purge(&stop, &error);
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{EntryKind, HardState, Index, LogEntry, Term};

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry {
            index: Index(index),
            term: Term(term),
            kind: EntryKind::Normal,
            data: Bytes::new(),
            context: Bytes::new(),
        }
    }

    fn write(entries: &[(u64, u64)], term: u64) -> GroupWrite {
        GroupWrite {
            entries: entries.iter().map(|(index, term)| entry(*index, *term)).collect(),
            hard_state: Some(HardState { term: Term(term), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn merging_keeps_the_later_suffix_and_the_later_hard_state() {
        let mut merged = write(&[(5, 1), (6, 1), (7, 1)], 1);
        merge(&mut merged, write(&[(6, 2)], 2));
        merge(&mut merged, GroupWrite::default());
        merge(&mut merged, write(&[(7, 2), (8, 2)], 2));
        assert_eq!(merged, write(&[(5, 1), (6, 2), (7, 2), (8, 2)], 2));
    }

    #[test]
    fn a_suffix_that_starts_before_the_earlier_batch_replaces_all_of_it() {
        let mut merged = write(&[(5, 1), (6, 1)], 1);
        merge(&mut merged, write(&[(4, 2)], 2));
        assert_eq!(merged, write(&[(4, 2)], 2));
    }
}
