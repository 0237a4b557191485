//! A replica whose disk does not answer: it has a write under way, and no write has ended for an
//! election timeout.
//!
//! Its heartbeats need no disk, so without this it would lead for ever, and whatever it proposes is
//! never applied by it. It hands leadership to whoever is there; when nobody has taken it after
//! half an election timeout, it goes on as a follower, and leaves campaigning to others until its
//! disk has answered. Only a replica that has no other voter beside it goes on leading: nobody
//! else could.
//!
//! Time is counted in ticks. They come from a monotonic clock and do not pass while the process
//! stands still, so a process that was stopped does not take its disk for stuck.
//!
//! ```text
//!   write handed out ── election timeout ──► hand over ── half of it ──► follow
//! ```

use raft::StateRole;

use super::{Replica, membership};
use crate::museum::{self, Exhibit};
use crate::types::PeerMessage;

/// Most messages that wait for a write: a disk that does not answer for days must not cost memory.
/// Raft sends again what is dropped.
const MOST_WAITING: usize = 4096;

impl Replica {
    /// For how many ticks a write has waited without any write having ended; `None` when none waits.
    pub fn write_waits(&self) -> Option<u64> {
        let oldest = self.pending_writes.front()?;
        Some(self.tick - oldest.since.max(self.last_persisted))
    }

    /// Whether the disk does not answer.
    pub fn is_stuck(&self) -> bool {
        self.write_waits().is_some_and(|ticks| ticks >= self.config.election_ticks as u64)
            && !museum::is_on(Exhibit::StuckDiskUnwatched)
    }

    /// Once a tick.
    pub(super) fn leave_leading(&mut self) {
        if !self.is_stuck() || self.raw.raft.state != StateRole::Leader || self.is_only_voter() {
            return;
        }
        let patience = (self.config.election_ticks + self.config.election_ticks / 2) as u64;
        if self.write_waits().is_some_and(|ticks| ticks >= patience) {
            tracing::warn!(
                "a write of the log is stuck, and nobody takes over: not leading any more"
            );
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        } else if self.raw.raft.lead_transferee.is_none() {
            self.transfer_leader(None);
        }
    }

    pub(super) fn is_only_voter(&self) -> bool {
        let conf_state = membership::current(&self.raw);
        conf_state.voters_outgoing.is_empty() && conf_state.voters.iter().eq([&self.config.node])
    }

    /// The newest count.
    pub(super) fn bound_waiting(messages: &mut Vec<PeerMessage>) {
        if messages.len() > MOST_WAITING {
            messages.drain(..messages.len() - MOST_WAITING);
        }
    }
}
