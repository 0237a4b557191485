//! How threads end.

use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::node::message::Job;

/// Tells an apply thread that its group has ended, however that came about: it holds an end of its
/// own queue, and would wait in it for ever.
pub(super) struct EndJobs(pub(super) Sender<Job>);

impl Drop for EndJobs {
    fn drop(&mut self) {
        // An apply thread that has ended needs no end.
        let _ = self.0.send(Job::End);
    }
}

/// Threads that have not ended, though the node has stopped: in a system call, or in a guest.
///
/// They may still write what the node handed to them, so nobody else may have the data directory
/// until they have ended.
#[derive(Debug)]
pub struct Stragglers(Vec<JoinHandle<()>>);

impl Stragglers {
    /// Their names, for people.
    pub fn names(&self) -> String {
        let name = |thread: &JoinHandle<()>| thread.thread().name().unwrap_or("?").to_owned();
        self.0.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// Waits until they have ended, which may be never.
    pub fn wait(self) {
        for thread in self.0 {
            // A panic has been reported as the reason to stop.
            let _ = thread.join();
        }
    }
}

/// Time between two looks at threads that are to end.
const LOOK: Duration = Duration::from_millis(5);

/// Joins what ends in time.
pub(super) fn join_within(threads: Vec<JoinHandle<()>>, patience: Duration) -> Option<Stragglers> {
    let began = Instant::now();
    let mut left = threads;
    loop {
        let (ended, running) = left.into_iter().partition(JoinHandle::is_finished);
        Stragglers(ended).wait();
        left = running;
        if left.is_empty() {
            return None;
        }
        if began.elapsed() >= patience {
            return Some(Stragglers(left));
        }
        std::thread::sleep(LOOK.min(patience.saturating_sub(began.elapsed())));
    }
}
