//! Why a node stops, said once by whoever knows first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::types::GroupId;

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

/// Shared by all that work for a group.
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

/// The signals of all groups of a node: what ends the node ends each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops(Arc<Mutex<BTreeMap<GroupId, StopSignal>>>);

impl Stops {
    /// The signal of one group only.
    pub(super) fn of(group: GroupId, signal: StopSignal) -> Stops {
        Stops(Arc::new(Mutex::new(BTreeMap::from([(group, signal)]))))
    }

    /// False: there is one of that group already.
    pub(super) fn add(&self, group: GroupId, signal: StopSignal) -> bool {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(group) {
            Entry::Vacant(place) => {
                place.insert(signal);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Stops one group. Whether it is there.
    pub(super) fn stop(&self, group: GroupId, reason: StopReason) -> bool {
        let signals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = signals.get(&group);
        signal.inspect(|signal| signal.stop(reason)).is_some()
    }

    pub(super) fn stop_all(&self, reason: &StopReason) {
        for signal in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            signal.stop(reason.clone());
        }
    }

    pub(super) fn fail_all(&self, context: &str, error: &dyn std::fmt::Display) {
        self.stop_all(&StopReason::Failed(format!("{context}: {error}")));
    }
}

/// Turns a panic of a thread into the node's stop: one without a thread of its would be a zombie, and one with a
/// broken invariant says nothing that can be relied on. Every thread of a node holds one.
pub(super) struct StopOnPanic(pub(super) Stops, pub(super) &'static str);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop_all(&StopReason::Failed(format!(
                "the {} thread panicked: a broken invariant; the log above says which",
                self.1
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_stops_all_groups_and_one_that_ends_stops_none() {
        let signals = [StopSignal::new(), StopSignal::new()];
        let stops = Stops::of(GroupId(1), signals[0].clone());
        assert!(stops.add(GroupId(2), signals[1].clone()));
        for panics in [false, true] {
            let stops = stops.clone();
            let thread = std::thread::spawn(move || {
                let _guard = StopOnPanic(stops, "test");
                assert!(!panics, "on purpose");
            });
            assert_eq!(thread.join().is_err(), panics);
            for signal in &signals {
                assert_eq!(signal.is_given(), panics);
            }
        }
        let Some(StopReason::Failed(why)) = signals[1].reason() else { panic!("{signals:?}") };
        assert!(why.contains("the test thread panicked"), "{why}");
    }
}
