//! The thread that reads what the replica no longer has in memory, so that the event loop never
//! waits for a disk: heartbeats must go out whatever a disk is at.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use super::event_loop::{Event, EventSender};
use super::stop::{StopOnPanic, StopSignal};
use crate::consensus::LogRead;
use crate::storage::LogStore;
use crate::types::GroupId;

pub(super) fn spawn(
    log: Arc<dyn LogStore>,
    group: GroupId,
    reads: Receiver<LogRead>,
    events: EventSender,
    stop: StopSignal,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("log-reader".into()).spawn(move || {
        let _guard = StopOnPanic(stop, "log reader");
        while let Ok(read) = reads.recv() {
            // An event loop that has ended needs no entries.
            let _ = events.send(run(&*log, group, read));
        }
    })
}

/// Reads, and says what it found.
pub(super) fn run(log: &dyn LogStore, group: GroupId, read: LogRead) -> Event {
    let found = read.run(log, group);
    Event::LogRead(read, found)
}
