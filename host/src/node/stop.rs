//! Why a node stops, said once by whoever knows first.

use tokio::sync::watch;

/// Why a node stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to.
    Requested,
    /// It was removed from its cluster.
    Removed,
    /// The cluster's engine profile is one that this program does not offer. The state up to the
    /// change is safe in a snapshot; the text says what to do.
    Engine(String),
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
                StopReason::Failed(why) => tracing::error!(%why, "this node stops"),
                StopReason::Engine(why) => tracing::warn!(%why, "this node stops"),
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
