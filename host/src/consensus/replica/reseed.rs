//! A replica whose machine is not trusted: it does not lead, and asks its leader for a state.
//!
//! Its log is as good as anybody's, so it goes on voting and acknowledging. What has to be known
//! of raft-rs 0.7 to get a state from the leader without breaking that:
//!
//! * From the moment of the request until the snapshot is there, raft-rs acknowledges nothing.
//!   A leader that needs this replica for its quorum then commits nothing.
//! * The snapshot replaces the whole log, also what was acknowledged beyond it.
//!
//! So the log is frozen at its end, which is acknowledged, until all of it is known to be
//! committed, and only then is the request made: the leader can fulfil it whatever it commits
//! meanwhile, and nothing acknowledged is lost. A request dies with the leader or term that it was
//! made of, and when it takes too long it is withdrawn for a while, each time later than before.
//!
//! ```text
//!   Quarantined ─► freeze the log ─► all committed ─► request ─► snapshot ─► Install
//!                       ▲ new leader, or too long (rest a while) ┘
//! ```

use raft::StateRole;

use super::Replica;
use crate::museum::{self, Exhibit};
use crate::types::{MessageKind, NodeId, PeerMessage};

/// First time that a request may take, in election timeouts.
const PATIENCE_ELECTIONS: u64 = 10;
/// No more doublings of it than that.
const DOUBLINGS_MAX: u32 = 8;
/// Time between two attempts, in election timeouts: others use it to commit what they have.
const REST_ELECTIONS: u64 = 2;
/// A state is wanted.
pub(super) struct Reseed {
    phase: Phase,
    attempts: u32,
    /// Term and leader of the request that is being waited for.
    asked: Option<(u64, u64)>,
}

enum Phase {
    /// Until this tick: the log is frozen, and a request made as soon as it can be.
    Asking(u64),
    /// Until this tick: the replica works as any other.
    Resting(u64),
}

impl Replica {
    pub(super) fn begin_reseed(&mut self) {
        if self.reseed.is_none() {
            let phase = Phase::Asking(self.tick + self.patience(0));
            self.reseed = Some(Reseed { phase, attempts: 0, asked: None });
            self.raw.mut_store().withhold(true);
        }
    }

    pub(super) fn end_reseed(&mut self) {
        if self.reseed.take().is_some() {
            self.raw.raft.pending_request_snapshot = raft::INVALID_INDEX;
            self.raw.mut_store().withhold(false);
        }
    }

    /// Whether its machine is not trusted.
    #[cfg(test)]
    pub(in crate::consensus) fn is_quarantined(&self) -> bool {
        self.reseed.is_some()
    }

    /// The clock of raft-rs. A replica that is held back campaigns not, but must notice that its
    /// leader is gone, or it would not vote for another. Nor does one whose disk does not answer, or is full.
    pub(super) fn pass_time(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader;
        if self.is_held_back() || ((self.is_stuck() || self.is_reluctant()) && !leads) {
            self.raw.raft.election_elapsed += 1;
        } else {
            self.raw.tick();
        }
    }

    /// Takes no entries beyond the end of the log while it is frozen, as if the leader had sent
    /// fewer. What the log has it acknowledges again. A disk that does not answer freezes it too:
    /// entries would only pile up in memory.
    pub(super) fn freeze_log(&self, message: &mut PeerMessage) {
        let is_frozen = self.is_frozen(message.term.0) || self.is_stuck();
        if message.kind != MessageKind::AppendEntries || !is_frozen {
            return;
        }
        let last = self.raw.raft.raft_log.last_index();
        message.entries.retain(|entry| entry.index.0 <= last);
    }

    fn is_frozen(&self, term: u64) -> bool {
        let asking = self.reseed.as_ref().is_some_and(|r| matches!(r.phase, Phase::Asking(_)));
        // The leader's first entry must get in: from then on it can tell what is committed.
        asking && self.raw.raft.term == term && self.raw.raft.raft_log.last_term() == term
    }

    /// Once a tick: hands leadership over, or gets on with the request.
    pub(super) fn pursue_reseed(&mut self) {
        if self.reseed.is_none() {
            return;
        }
        match self.raw.raft.state {
            StateRole::Leader if museum::is_on(Exhibit::QuarantinedLeads) => {}
            StateRole::Leader if self.raw.raft.lead_transferee.is_none() => {
                self.transfer_leader(None);
            }
            StateRole::Leader | StateRole::Candidate | StateRole::PreCandidate => {}
            StateRole::Follower => self.ask_for_state(),
        }
    }

    fn ask_for_state(&mut self) {
        let now = (self.raw.raft.term, self.raw.raft.leader_id);
        let (tick, rest) = (self.tick, REST_ELECTIONS * self.config.election_ticks as u64);
        let is_committed = self.is_all_committed();
        let Some(reseed) = &mut self.reseed else { return };
        if reseed.asked.is_some_and(|asked| asked != now)
            && !museum::is_on(Exhibit::ReseedAskedOnce)
        {
            reseed.asked = None;
            self.raw.raft.pending_request_snapshot = raft::INVALID_INDEX;
        }
        match reseed.phase {
            Phase::Asking(until) if tick >= until => {
                reseed.asked = None;
                reseed.attempts += 1;
                reseed.phase = Phase::Resting(tick + rest);
                self.raw.raft.pending_request_snapshot = raft::INVALID_INDEX;
            }
            Phase::Asking(_) if reseed.asked.is_none() && is_committed => {
                // Refused for a reason that passes: the next tick tries again.
                if self.raw.request_snapshot().is_ok() {
                    reseed.asked = Some(now);
                    tracing::info!(
                        leader = %NodeId(now.1), term = now.0,
                        "asked the leader for a fresh state"
                    );
                }
            }
            Phase::Asking(_) => {}
            Phase::Resting(until) if tick >= until => {
                let attempts = reseed.attempts;
                let phase = Phase::Asking(tick + self.patience(attempts));
                self.reseed = Some(Reseed { phase, attempts, asked: None });
            }
            Phase::Resting(_) => {}
        }
    }

    /// Whether a leader is there that knows all of this log to be committed, because this replica
    /// learned it from that leader.
    fn is_all_committed(&self) -> bool {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        raft.leader_id != raft::INVALID_ID
            && !self.is_installing()
            && raft.snap().is_none()
            && log.committed == log.last_index()
            && log.last_term() == raft.term
    }

    fn patience(&self, attempts: u32) -> u64 {
        (PATIENCE_ELECTIONS * self.config.election_ticks as u64) << attempts.min(DOUBLINGS_MAX)
    }
}
