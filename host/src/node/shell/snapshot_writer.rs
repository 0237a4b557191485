//! The thread that writes snapshots.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::node::apply::try_save;
use crate::node::message::{Job, SaveJob};
use crate::node::stop::{StopOnPanic, Stops};
use crate::storage::SnapshotStore;

pub(super) fn spawn(
    store: Arc<dyn SnapshotStore>,
    jobs: Receiver<SaveJob>,
    stops: Stops,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("snapshots".into()).spawn(move || {
        let _guard = StopOnPanic(stops, "snapshot");
        while let Ok(job) = jobs.recv() {
            let (began, metrics) = (Instant::now(), Arc::clone(&job.metrics));
            run(&*store, job);
            metrics.snapshot_write_duration.observe(began.elapsed());
        }
    })
}

/// Writes one, and tells whose it is.
pub(super) fn run(store: &dyn SnapshotStore, SaveJob { meta, image, keep, done, .. }: SaveJob) {
    let saved = try_save(store, keep, meta, &image);
    // A group that has ended needs no news.
    let _ = done.send(Job::Saved(saved));
}
