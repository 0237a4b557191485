//! Why a node stops, said once by whoever knows first.

use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::apply::Job;

/// Why a node stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to.
    Requested,
    /// It was removed from its cluster.
    Removed,
    /// The cluster's engine profile or level is one that this program does not offer. The state up to
    /// the change is safe in a snapshot; the text says what to do.
    Program(String),
    /// The data directory is older than what the cluster knows of it: what this node has
    /// acknowledged is not in it. A restart does not help; the text says what to do.
    Outdated(String),
    /// It cannot be sure to be correct any more; the text says why.
    Failed(String),
}

/// Shared by all threads of a node.
#[derive(Clone, Debug)]
pub(super) struct StopSignal {
    reason: watch::Sender<Option<StopReason>>,
}

impl StopSignal {
    pub(super) fn new() -> StopSignal {
        StopSignal { reason: watch::Sender::new(None) }
    }

    /// The first reason counts.
    pub(super) fn stop(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| {
            if current.is_some() {
                return false;
            }
            match &reason {
                StopReason::Failed(why) | StopReason::Outdated(why) => {
                    tracing::error!(%why, "this node stops");
                }
                StopReason::Program(why) => tracing::warn!(%why, "this node stops"),
                StopReason::Removed => {
                    tracing::warn!("this node was removed from its cluster and stops");
                }
                StopReason::Requested => {}
            }
            *current = Some(reason);
            true
        });
    }

    pub(super) fn fail(&self, context: &str, error: &dyn std::fmt::Display) {
        self.stop(StopReason::Failed(format!("{context}: {error}")));
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        self.reason.borrow().clone()
    }

    pub(super) fn is_given(&self) -> bool {
        self.reason.borrow().is_some()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<StopReason>> {
        self.reason.subscribe()
    }
}

/// Tells the apply thread that the event loop has ended, however that came about: it holds an end
/// of its own queue, and would wait in it for ever.
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

/// Turns a panic of a thread into the node's stop: a node without one of its threads would
/// be a zombie.
pub(super) struct StopOnPanic(pub(super) StopSignal, pub(super) &'static str);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(StopReason::Failed(format!(
                "the {} thread panicked: a broken invariant; the log above says which",
                self.1
            )));
        }
    }
}
