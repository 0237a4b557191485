//! Where this replica stands, for those who must decide before the event loop is asked.

use std::sync::Mutex;

use crate::consensus::{Replica, Role};
use crate::transport::SnapshotWish;
use crate::types::{Index, NodeId, PeerMessage, Term};

/// As of the last turn of the event loop.
#[derive(Default)]
pub(super) struct RaftStanding(Mutex<Stand>);

#[derive(Clone, Copy, Default)]
struct Stand {
    me: NodeId,
    term: Term,
    leads: bool,
    leader: Option<NodeId>,
    commit: Index,
    is_installing: bool,
    has_room: bool,
}

impl RaftStanding {
    pub(super) fn update(&self, me: NodeId, replica: &Replica) {
        let now = Stand {
            me,
            term: replica.term(),
            leads: replica.role() == Role::Leader,
            leader: replica.leader(),
            commit: replica.commit(),
            is_installing: replica.is_installing(),
            has_room: replica.has_room_for_snapshots(),
        };
        *self.0.lock().expect("no code panics while it holds this lock") = now;
    }

    /// What Raft would make of an announced snapshot. At most late: a snapshot that is taken for
    /// wanted and is not any more when it is there does no harm.
    pub(super) fn wants_snapshot(&self, message: &PeerMessage) -> Result<SnapshotWish, String> {
        let stand = *self.0.lock().expect("no code panics while it holds this lock");
        let Some(meta) = &message.snapshot else {
            return Err("the message announces none".to_owned());
        };
        if message.term < stand.term {
            let (old, now) = (message.term, stand.term);
            return Err(format!("it is of term {old}, and this node is in term {now}"));
        }
        let is_other = stand.leader.is_some_and(|leader| leader != message.from);
        if message.term == stand.term && (stand.leads || is_other) {
            return Err(format!("another node leads in term {}", stand.term));
        }
        if meta.term > message.term || meta.index == Index(0) {
            return Err("its position is none that a leader can have".to_owned());
        }
        // Whoever leads has joined, and what it offers is of then or later.
        for node in [message.from, stand.me] {
            if !meta.conf_state.contains(node) {
                return Err(format!("its configuration does not name node {node}"));
            }
        }
        if stand.is_installing {
            return Err("this node is installing another one".to_owned());
        }
        if !stand.has_room {
            return Err("this node's disk is all but full".to_owned());
        }
        // Raft refuses it, and tells the leader how far this node is. At the commit index it may
        // have been asked for, by a node whose state went wrong.
        let is_known = meta.index < stand.commit;
        Ok(if is_known { SnapshotWish::MessageOnly } else { SnapshotWish::Content })
    }
}
