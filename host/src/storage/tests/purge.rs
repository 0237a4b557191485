//! Reads beside a purge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::faults::{Faults, FaultyFileSystem};
use super::*;

type FaultyLog = RaftEngineLog<FaultyFileSystem>;

/// A log of many files, all but a little of it compacted and not yet purged.
fn ready_to_purge(dir: &Path, faults: &Arc<Faults>) -> Arc<FaultyLog> {
    let file_system = Arc::new(FaultyFileSystem(Arc::clone(faults)));
    let store = RaftEngineLog::open_with_file_system(dir, &config(), file_system).expect("opens");
    for from in (1..=2_000).step_by(50) {
        let entries = log(from..=from + 49, 1);
        write(&store, GroupWrite { entries, ..GroupWrite::default() });
    }
    compact(&store, 500);
    Arc::new(store)
}

fn write(store: &FaultyLog, write: GroupWrite) {
    store.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("written");
}

fn compact(store: &FaultyLog, to: u64) {
    write(store, GroupWrite { compact_to: Some(position(to, 1)), ..GroupWrite::default() });
}

fn read(store: &FaultyLog, from: u64, count: u64) -> Vec<LogEntry> {
    store.entries(GROUP, Index(from)..Index(from + count), u64::MAX).expect("it is there")
}

/// A purge held a lock across all of its fsyncs that reads of older entries waited for, on the event
/// loop at that: heartbeats stopped.
#[test]
fn entries_are_read_while_a_purge_waits_for_its_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::none();
    let store = ready_to_purge(dir.path(), &faults);
    faults.stick();
    let purging = Arc::clone(&store);
    let purge = std::thread::spawn(move || purging.purge());
    faults.wait_until_stuck();
    let (sender, done) = mpsc::channel();
    let reading = Arc::clone(&store);
    std::thread::spawn(move || {
        for from in (501..=1_901).step_by(100) {
            assert_eq!(read(&reading, from, 100), log(from..=from + 99, 1));
        }
        sender.send(()).expect("the test waits");
    });
    // It takes milliseconds; only a read that waits for the purge takes for ever.
    done.recv_timeout(Duration::from_secs(60)).expect("a read waits for the purge");
    assert!(!purge.is_finished());
    faults.release();
    purge.join().expect("no panic").expect("purged");
    assert_eq!(read(&store, 501, 1_500), log(501..=2_000, 1));
}

/// raft-engine's index may lead to a file that is purged by the time it is read.
#[test]
fn reads_beside_many_purges_find_what_is_there_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = ready_to_purge(dir.path(), &Faults::none());
    let is_over = Arc::new(AtomicBool::new(false));
    let (reading, ends) = (Arc::clone(&store), Arc::clone(&is_over));
    let reader = std::thread::spawn(move || {
        let mut reads = 0_u64;
        while !ends.load(Ordering::Relaxed) || reads == 0 {
            // Nothing from here on is compacted below.
            let from = 1_500 + reads * 37 % 450;
            assert_eq!(read(&reading, from, 50), log(from..=from + 49, 1));
            reads += 1;
        }
    });
    for to in (510..1_490).step_by(20) {
        compact(&store, to);
        store.purge().expect("purged");
    }
    is_over.store(true, Ordering::Relaxed);
    reader.join().expect("every read found what was written");
}
