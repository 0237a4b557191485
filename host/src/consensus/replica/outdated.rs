//! A replica whose disk is older than what its leader remembers of it.
//!
//! A leader's heartbeat carries what is committed, up to where it knows this replica's disk to
//! agree (Raft dissertation §3.5 has it in AppendEntries; raft-rs sends it with both). A replica that
//! keeps its promises has all of that. One whose directory was replaced by an older copy, or whose
//! disk lost what it had synced, does not: it has acknowledged entries, and perhaps given votes,
//! that it does not know of any more. raft-rs panics; going on would be worse, since a majority
//! that counts on this disk may be none.
//!
//! Nothing on the wire is authenticated, so a single message proves nothing. It is lost, as the
//! network may lose any, until as many came from one leader as cannot be an accident, over more
//! time than it takes that leader to send one that fits.

use super::{Nonsense, Replica, ReplicaError};
use crate::types::{Index, MessageKind, NodeId, PeerMessage, Term};

/// Heartbeats that it takes.
const EVIDENCE: u32 = 3;

/// Heartbeats that say more of this log than there is.
pub(super) struct Suspicion {
    leader: NodeId,
    term: Term,
    /// Tick of the first.
    since: u64,
    count: u32,
}

impl Replica {
    /// A heartbeat that this log has what it speaks of.
    pub(super) fn trust_disk(&mut self, message: &PeerMessage) {
        let is_same = |of: &Suspicion| (of.leader, of.term) == (message.from, message.term);
        if message.kind == MessageKind::Heartbeat && self.suspicion.as_ref().is_some_and(is_same) {
            self.suspicion = None;
        }
    }

    /// A heartbeat that says that more was durable here than there is.
    ///
    /// # Errors
    /// [`ReplicaError::Outdated`] when that is beyond doubt.
    pub(super) fn suspect_disk(
        &mut self,
        message: &PeerMessage,
        commit: Index,
        last: Index,
    ) -> Result<(), ReplicaError> {
        let (leader, term, now) = (message.from, message.term, self.tick);
        let is_same = |of: &Suspicion| (of.leader, of.term) == (leader, term);
        let fresh = || Suspicion { leader, term, since: now, count: 0 };
        let suspicion = self.suspicion.take().filter(is_same).unwrap_or_else(fresh);
        let suspicion = Suspicion { count: suspicion.count + 1, ..suspicion };
        self.effects.nonsense.push((leader, Nonsense::CommitBeyondLog { commit, last }));
        let lasted = now - suspicion.since;
        if suspicion.count >= EVIDENCE && lasted > 2 * self.config.heartbeat_ticks as u64 {
            return Err(ReplicaError::Outdated { leader, commit, last });
        }
        self.suspicion = Some(suspicion);
        Ok(())
    }
}
