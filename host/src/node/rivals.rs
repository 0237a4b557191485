//! Members of other clusters that dial this node, and whether that keeps it from serving.
//!
//! Another cluster has a member with this node's address. Somebody may have mistyped an address; or this
//! node was that member, lost its data, and was started with the command line that once formed the
//! cluster. Then its clients still know it by this address, and it must not answer them as if it were
//! what it was.
//!
//! Who dials is a stranger, and nothing of what it says can be checked. So one of them is remembered,
//! and an established cluster serves on whatever they say. Only a cluster that was formed a short while
//! ago (it is *on probation*: the server says from when to when) stops serving when somebody dials its
//! node at its own address, until a person confirms that it is meant to be. That is once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::types::Rival;

/// Time between two lines in the log.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Who has not dialled for so long has stopped: it would within seconds.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What a node knows of its rivals.
#[derive(Clone, Debug, Default)]
pub struct RivalStatus {
    /// The one that dialled last, and when.
    latest: Option<(Rival, Instant)>,
    /// How often any of them has dialled since the node started.
    pub hellos: u64,
    /// This node's cluster was formed a short while ago, and nobody has confirmed it.
    pub is_on_probation: bool,
    /// Who dialled this node at its own address meanwhile. It serves nobody then.
    pub disputed_by: Option<Rival>,
}

impl RivalStatus {
    /// Whether the node serves nobody until a person confirms its cluster.
    pub fn is_unconfirmed(&self) -> bool {
        self.is_on_probation && self.disputed_by.is_some()
    }

    /// Whom people should know of: who dialled lately, and how long ago; or who disputes that this
    /// cluster is meant to be.
    pub fn rival(&self) -> Option<(&Rival, Option<Duration>)> {
        let latest = self.latest.as_ref().map(|(rival, at)| (rival, at.elapsed()));
        let latest = latest.filter(|(_, silent)| *silent < FORGOTTEN_AFTER);
        let latest = latest.map(|(rival, silent)| (rival, Some(silent)));
        let disputing = self.disputed_by.as_ref().filter(|_| self.is_on_probation);
        latest.or(disputing.map(|rival| (rival, None)))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rivals {
    status: watch::Sender<RivalStatus>,
    logged_at: Mutex<Option<Instant>>,
}

impl Default for Rivals {
    fn default() -> Rivals {
        Rivals { status: watch::Sender::new(RivalStatus::default()), logged_at: Mutex::default() }
    }
}

impl Rivals {
    /// A member of another cluster dialled this node.
    pub(super) fn on_hello(&self, rival: Rival, at_own_address: bool) {
        let mut is_news = false;
        self.status.send_modify(|status| {
            status.hellos = status.hellos.saturating_add(1);
            if status.is_on_probation && status.disputed_by.is_none() && at_own_address {
                status.disputed_by = Some(rival.clone());
                is_news = true;
            }
            status.latest = Some((rival, Instant::now()));
        });
        self.log(is_news);
    }

    /// Says it at once when it ends the serving, else at a bounded rate.
    fn log(&self, is_news: bool) {
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_news && logged_at.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            return;
        }
        *logged_at = Some(Instant::now());
        drop(logged_at);
        let status = self.status.borrow().clone();
        let Some((Rival { cluster, node, address, dialled }, _)) = status.rival() else { return };
        tracing::warn!(
            %cluster, %node, %address, %dialled, hellos = status.hellos,
            "a member of another cluster dials this node: that cluster has a member with this \
             address"
        );
        if is_news {
            tracing::error!(
                "this node serves nobody until its cluster is confirmed: {UNCONFIRMED}"
            );
        }
    }

    pub(super) fn is_unconfirmed(&self) -> bool {
        self.status.borrow().is_unconfirmed()
    }

    pub(super) fn watch(&self) -> watch::Receiver<RivalStatus> {
        self.status.subscribe()
    }

    pub(super) fn set_probation(&self, is_on_probation: bool, disputed_by: Option<Rival>) {
        self.status.send_modify(|status| {
            status.is_on_probation = is_on_probation;
            status.disputed_by = disputed_by;
        });
    }
}

/// Why a node on probation serves nobody.
pub(super) const UNCONFIRMED: &str = "this cluster was formed a short while ago, and another cluster has a member with this node's \
     address, which its other members dial (see status). If this node was that member, stop it, empty \
     its data directory and start it with --join; if this cluster is meant to be, `raft-host confirm ID`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, NodeId};

    fn rival(node: u64) -> Rival {
        Rival {
            cluster: ClusterId([9; 16]),
            node: NodeId(node),
            address: format!("other:{node}"),
            dialled: "us:1".to_owned(),
        }
    }

    fn shown(rivals: &Rivals) -> Option<(Rival, bool)> {
        let status = rivals.status.borrow().clone();
        status.rival().map(|(rival, silent)| (rival.clone(), silent.is_some()))
    }

    #[test]
    fn an_established_cluster_serves_on_whoever_dials() {
        let rivals = Rivals::default();
        assert_eq!(shown(&rivals), None);
        for node in 1..=3 {
            rivals.on_hello(rival(node), true);
            assert!(!rivals.is_unconfirmed());
            assert_eq!(shown(&rivals), Some((rival(node), true)), "one is remembered");
        }
        assert_eq!(rivals.status.borrow().hellos, 3);
    }

    #[test]
    fn a_new_cluster_whose_address_is_another_members_waits_for_a_person_once() {
        let rivals = Rivals::default();
        rivals.set_probation(true, None);
        rivals.on_hello(rival(1), false);
        assert!(!rivals.is_unconfirmed(), "reached at another address than its own");
        rivals.on_hello(rival(2), true);
        rivals.on_hello(rival(3), true);
        assert!(rivals.is_unconfirmed());
        assert_eq!(rivals.status.borrow().disputed_by, Some(rival(2)));
        rivals.set_probation(false, None);
        rivals.on_hello(rival(2), true);
        assert!(!rivals.is_unconfirmed());
    }

    #[test]
    fn what_an_earlier_start_heard_counts() {
        let rivals = Rivals::default();
        rivals.set_probation(true, Some(rival(2)));
        assert!(rivals.is_unconfirmed());
        assert_eq!(shown(&rivals), Some((rival(2), false)));
    }
}
