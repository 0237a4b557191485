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

use raft::StateRole;

use super::{Replica, ReplicaError};
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
    /// Whether the message must be dropped, since it says that more was durable here than there is.
    ///
    /// # Errors
    /// [`ReplicaError::Outdated`] when that is beyond doubt.
    pub(super) fn is_beyond_log(&mut self, message: &PeerMessage) -> Result<bool, ReplicaError> {
        let raft = &self.raw.raft;
        let (from, term) = (message.from, message.term);
        let is_heard = term.0 > raft.term || (term.0 == raft.term && !self.leads());
        if message.kind != MessageKind::Heartbeat || !is_heard {
            return Ok(false);
        }
        let last = Index(raft.raft_log.last_index());
        let is_same = |of: &Suspicion| (of.leader, of.term) == (from, term);
        if message.commit <= last {
            self.suspicion = self.suspicion.take().filter(|suspicion| !is_same(suspicion));
            return Ok(false);
        }
        let now = self.tick;
        let fresh = || Suspicion { leader: from, term, since: now, count: 0 };
        let suspicion = self.suspicion.take().filter(is_same).unwrap_or_else(fresh);
        let suspicion = Suspicion { count: suspicion.count + 1, ..suspicion };
        let lasted = now - suspicion.since;
        tracing::warn!(
            %from, commit = %message.commit, %last,
            "a heartbeat says that more entries were durable on this node than its log has"
        );
        if suspicion.count >= EVIDENCE && lasted > 2 * self.config.heartbeat_ticks as u64 {
            return Err(ReplicaError::Outdated { leader: from, commit: message.commit, last });
        }
        self.suspicion = Some(suspicion);
        Ok(true)
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }
}
