//! Which snapshot a follower is offered, and when again after that failed.
//!
//! raft-rs offers one as soon as a follower answers a heartbeat, also to one that could not take
//! the last, and always the newest. So a transfer that fails would be begun ten times a second, and
//! one that takes longer than this node's next snapshot would never be gone on with.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::storage::SnapshotMeta;
use crate::types::{Index, NodeId, SnapshotFate};

/// First pause, in heartbeats; doubles with each failure.
const FIRST_PAUSE_HEARTBEATS: u64 = 2;
/// Longest pause, in election timeouts.
const LONGEST_PAUSE_ELECTIONS: u64 = 8;

/// Transfers that did not succeed yet.
pub(super) struct Offers {
    first_pause: u64,
    longest_pause: u64,
    tick: u64,
    /// raft-rs asks for snapshots through a shared reference.
    peers: RefCell<BTreeMap<NodeId, Offer>>,
}

#[derive(Default)]
struct Offer {
    /// What was offered last.
    snapshot: Option<SnapshotMeta>,
    failures: u32,
    /// Nothing is offered before this tick.
    not_before: u64,
}

impl Offers {
    pub(super) fn new(heartbeat_ticks: usize, election_ticks: usize) -> Offers {
        Offers {
            first_pause: FIRST_PAUSE_HEARTBEATS * heartbeat_ticks as u64,
            longest_pause: LONGEST_PAUSE_ELECTIONS * election_ticks as u64,
            tick: 0,
            peers: RefCell::default(),
        }
    }

    pub(super) fn tick(&mut self) {
        self.tick += 1;
    }

    /// Another leader offers what it has.
    pub(super) fn clear(&mut self) {
        self.peers.get_mut().clear();
    }

    pub(super) fn is_resting(&self, to: NodeId) -> bool {
        self.peers.borrow().get(&to).is_some_and(|offer| self.tick < offer.not_before)
    }

    /// What was offered and is not there yet: the receiver may have a part of it.
    pub(super) fn unfinished(&self, to: NodeId) -> Option<SnapshotMeta> {
        self.peers.borrow().get(&to)?.snapshot.clone()
    }

    pub(super) fn offered(&self, to: NodeId, snapshot: SnapshotMeta) {
        self.peers.borrow_mut().entry(to).or_default().snapshot = Some(snapshot);
    }

    pub(super) fn ended(&mut self, to: NodeId, fate: SnapshotFate) {
        let peers = self.peers.get_mut();
        if fate == SnapshotFate::Delivered {
            peers.remove(&to);
            return;
        }
        let offer = peers.entry(to).or_default();
        offer.failures = match fate {
            // What moves may go on moving.
            SnapshotFate::Interrupted => 1,
            _ => offer.failures.saturating_add(1),
        };
        if fate == SnapshotFate::Unreadable {
            offer.snapshot = None;
        }
        let doublings = (offer.failures - 1).min(u32::BITS - 1);
        let pause = self.first_pause.saturating_mul(1 << doublings).min(self.longest_pause);
        offer.not_before = self.tick + pause;
    }

    /// Nobody can get this one any more.
    pub(super) fn gone(&mut self, index: Index) {
        for offer in self.peers.get_mut().values_mut() {
            offer.snapshot.take_if(|snapshot| snapshot.index == index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ConfState, GroupId, Term};

    fn pause(offers: &mut Offers) -> u64 {
        let mut ticks = 0;
        while offers.is_resting(NodeId(2)) {
            offers.tick();
            ticks += 1;
        }
        ticks
    }

    #[test]
    fn each_failure_doubles_the_pause_up_to_a_bound_and_progress_begins_again() {
        let mut offers = Offers::new(10, 100);
        assert_eq!(pause(&mut offers), 0);
        for expected in [20, 40, 80, 160, 320, 640, 800, 800] {
            offers.ended(NodeId(2), SnapshotFate::Failed);
            assert!(!offers.is_resting(NodeId(3)));
            assert_eq!(pause(&mut offers), expected);
        }
        offers.ended(NodeId(2), SnapshotFate::Interrupted);
        assert_eq!(pause(&mut offers), 20);
        offers.ended(NodeId(2), SnapshotFate::Delivered);
        assert_eq!(pause(&mut offers), 0);
    }

    #[test]
    fn what_was_not_delivered_is_offered_again_unless_it_is_gone() {
        let snapshot = SnapshotMeta {
            group: GroupId::MAIN,
            index: Index(7),
            term: Term(1),
            conf_state: ConfState::default(),
            size_bytes: 1,
            checksum: 1,
        };
        let mut offers = Offers::new(10, 100);
        offers.offered(NodeId(2), snapshot.clone());
        offers.ended(NodeId(2), SnapshotFate::Failed);
        offers.gone(Index(6));
        assert_eq!(offers.unfinished(NodeId(2)), Some(snapshot.clone()));
        offers.gone(Index(7));
        assert_eq!(offers.unfinished(NodeId(2)), None);
        offers.offered(NodeId(2), snapshot.clone());
        offers.ended(NodeId(2), SnapshotFate::Unreadable);
        assert_eq!(offers.unfinished(NodeId(2)), None);
        offers.offered(NodeId(2), snapshot);
        offers.ended(NodeId(2), SnapshotFate::Delivered);
        assert_eq!(offers.unfinished(NodeId(2)), None);
    }
}
