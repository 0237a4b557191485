//! The thread that reads what replicas no longer have in memory, so that the event loop never
//! waits for a disk: heartbeats must go out whatever a disk is at.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use crate::consensus::LogRead;
use crate::node::message::{Event, Mail, Mailbox};
use crate::node::stop::{StopOnPanic, Stops};
use crate::storage::LogStore;
use crate::types::GroupId;

/// What is to be read, of which group.
pub(super) type ReadRequest = (GroupId, LogRead);

pub(super) fn spawn(
    log: Arc<dyn LogStore>,
    reads: Receiver<ReadRequest>,
    mail: Mailbox,
    stops: Stops,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("log-reader".into()).spawn(move || {
        let _guard = StopOnPanic(stops, "log reader");
        while let Ok(request) = reads.recv() {
            // An event loop that has ended needs no entries.
            let _ = mail.send(run(&*log, request));
        }
    })
}

/// Reads, and says what it found.
pub(super) fn run(log: &dyn LogStore, (group, read): ReadRequest) -> Mail {
    let found = read.run(log, group);
    Mail::Event(group, Event::LogRead(read, found))
}
