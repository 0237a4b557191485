//! The one thread that writes the log: takes everything that waits, of all groups, writes it as one
//! batch with one fsync, reports the watermarks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::consensus::{Write, WriteNumber};
use crate::node::message::{Event, Mail, Mailbox};
use crate::node::metrics::NodeMetrics;
use crate::node::stop::{StopOnPanic, Stops};
use crate::storage::{GroupWrite, LogStore, StorageError, WriteBatch};
use crate::types::GroupId;

/// Most bytes merged into one batch; more would delay the first of them.
const MAX_BATCH_BYTES: u64 = 8 << 20;

/// What is to be written, of which group.
pub(super) type WriteRequest = (GroupId, Write);

pub(super) fn spawn(
    log: Arc<dyn LogStore>,
    writes: Receiver<WriteRequest>,
    mail: Mailbox,
    metrics: Arc<NodeMetrics>,
    stops: Stops,
) -> std::io::Result<JoinHandle<()>> {
    let (purge, purges) = std::sync::mpsc::channel();
    let purger = spawn_purger(Arc::clone(&log), purges, stops.clone())?;
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        let _guard = StopOnPanic(stops.clone(), "log writer");
        write_all(&*log, &writes, &purge, &mail, &metrics, &stops);
        drop(purge);
        // Its panic has stopped the node already.
        let _ = purger.join();
    })
}

fn write_all(
    log: &dyn LogStore,
    writes: &Receiver<WriteRequest>,
    purge: &Sender<()>,
    mail: &Mailbox,
    metrics: &NodeMetrics,
    stops: &Stops,
) {
    let mut batcher = Batcher::default();
    loop {
        let Some(first) = batcher.carried.take().or_else(|| writes.recv().ok()) else { return };
        let batch = batcher.fill(first, writes);
        for (_, write) in &batch.write.groups {
            metrics.log_entries_written.add(write.entries.len() as u64);
            metrics.log_bytes_written.add(cost(write));
        }
        let began = Instant::now();
        if let Err(error) = log.write(&batch.write) {
            fail(stops, &error);
            return;
        }
        let took = began.elapsed();
        metrics.log_write_duration.observe(took);
        metrics.log_write_pace.observe(took);
        metrics.log_waiting_bytes.take(batch.bytes);
        let compacts = batch.compacts;
        for news in batch.persisted() {
            // A stopping event loop needs no news, but what it handed over is still written.
            let _ = mail.send(news);
        }
        if compacts {
            // The purger has ended only after a failure that stops the node.
            let _ = purge.send(());
        }
    }
}

/// What reached the disk is unknown, and trying again would not tell.
pub(super) fn fail(stops: &Stops, error: &StorageError) {
    stops.fail_all(&what_failed("writing the log failed", error), error);
}

pub(super) fn fail_purge(stops: &Stops, error: &StorageError) {
    stops.fail_all(&what_failed("releasing compacted log space failed", error), error);
}

fn what_failed(what: &str, error: &StorageError) -> String {
    match error.is_full() {
        true => format!(
            "{what}, because the disk that the data directory is on is full: make room on it, then start \
             this node again"
        ),
        false => what.to_owned(),
    }
}

/// What is written with one fsync.
pub(super) struct Batch {
    pub(super) write: WriteBatch,
    /// Of all entries that were to be written, replaced ones included.
    pub(super) bytes: u64,
    /// Of each group in it, the last of its writes.
    numbers: Vec<(GroupId, WriteNumber)>,
    /// There may be space to release after it.
    pub(super) compacts: bool,
}

impl Batch {
    /// What the groups are told once it is written.
    pub(super) fn persisted(self) -> impl Iterator<Item = Mail> {
        self.numbers.into_iter().map(|(group, number)| Mail::Event(group, Event::Persisted(number)))
    }
}

/// Merges what waits into batches.
#[derive(Default)]
pub(super) struct Batcher {
    /// Did not fit the batch before.
    carried: Option<WriteRequest>,
}

impl Batcher {
    /// The next batch of what waits, if anything does.
    pub(super) fn next(&mut self, writes: &Receiver<WriteRequest>) -> Option<Batch> {
        let first = self.carried.take().or_else(|| writes.try_recv().ok())?;
        Some(self.fill(first, writes))
    }

    fn fill(&mut self, first: WriteRequest, writes: &Receiver<WriteRequest>) -> Batch {
        let (group, Write { number, write }) = first;
        let mut bytes = cost(&write);
        let mut merged = BTreeMap::from([(group, (number, write))]);
        while bytes < MAX_BATCH_BYTES {
            let Ok((group, next)) = writes.try_recv() else { break };
            match merged.get_mut(&group) {
                Some(_) if next.write.reset_to.is_some() => {
                    self.carried = Some((group, next));
                    break;
                }
                Some((number, write)) => {
                    *number = next.number;
                    bytes += cost(&next.write);
                    merge(write, next.write);
                }
                None => {
                    bytes += cost(&next.write);
                    merged.insert(group, (next.number, next.write));
                }
            }
        }
        let is_compacting =
            |(_, write): &(_, GroupWrite)| write.compact_to.is_some() || write.reset_to.is_some();
        let compacts = merged.values().any(is_compacting);
        let numbers = merged.iter().map(|(group, (number, _))| (*group, *number)).collect();
        let groups = merged.into_iter().map(|(group, (_, write))| (group, write)).collect();
        Batch { write: WriteBatch { groups }, bytes, numbers, compacts }
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
    stops: Stops,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("log-purger".into()).spawn(move || {
        let _guard = StopOnPanic(stops.clone(), "log purger");
        while purges.recv().is_ok() {
            while purges.try_recv().is_ok() {}
            if let Err(error) = log.purge() {
                fail_purge(&stops, &error);
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

    #[test]
    fn writes_of_several_groups_share_a_batch_and_a_reset_begins_one() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (main, other) = (GroupId::MAIN, GroupId(GroupId::MAIN.0 + 1));
        let request = |group, number, write| (group, Write { number: WriteNumber(number), write });
        let reset = GroupWrite { reset_to: Some(Default::default()), ..Default::default() };
        for wanted in [
            request(main, 1, write(&[(5, 1)], 1)),
            request(other, 9, reset.clone()),
            request(main, 2, write(&[(6, 1)], 1)),
            request(other, 10, reset),
            request(main, 3, write(&[(7, 1)], 1)),
        ] {
            sender.send(wanted).expect("open");
        }
        let mut batcher = Batcher::default();
        let mut numbers = || batcher.next(&receiver).map(|batch| batch.numbers);
        assert_eq!(numbers(), Some(vec![(main, WriteNumber(2)), (other, WriteNumber(9))]));
        assert_eq!(numbers(), Some(vec![(main, WriteNumber(3)), (other, WriteNumber(10))]));
        assert_eq!(numbers(), None);
    }
}
