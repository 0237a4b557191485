//! When a replica begins an election, and when it must not.

use raft::StateRole;
use rand::Rng as _;

use super::Replica;
use crate::consensus::membership;
use crate::museum::{self, Exhibit};

impl Replica {
    /// raft-rs draws its election timeout from the thread's generator on every reset. Resets
    /// show as a change of term, role or leader: draw again from ours, so that the same seed
    /// gives the same elections.
    pub(super) fn redraw_election_timeout(&mut self) {
        let now = self.soft_state();
        if now != self.timeout_drawn_for {
            self.timeout_drawn_for = now;
            let base = self.config.election_ticks;
            let timeout = self.rng.random_range(base..2 * base);
            self.raw.raft.set_randomized_election_timeout(timeout);
        }
    }

    /// Whether a snapshot is being installed.
    ///
    /// The log begins after a snapshot that is not durable and applied yet. Who campaigned now
    /// would look for membership changes among entries that are gone, which raft-rs does not
    /// survive; with a stuck disk or a large snapshot that may take longer than an election.
    pub fn is_installing(&self) -> bool {
        self.raw.raft.raft_log.applied < self.raw.store().start().index.0
    }

    /// Whether an election must not be begun now. Who leads has none to begin.
    pub(super) fn may_not_campaign(&self) -> bool {
        self.is_expelled || self.is_installing() || self.is_only_voter_behind_its_disk()
    }

    /// Who is the only voter leads as soon as it campaigns, and raft-rs takes its log for durable
    /// then: others are asked for their votes after the write of what came before. A follower is
    /// left as the only voter when the others were removed, perhaps with entries that its disk has
    /// yet to write.
    fn is_only_voter_behind_its_disk(&self) -> bool {
        let raft = &self.raw.raft;
        if raft.state == StateRole::Leader || raft.raft_log.persisted >= raft.raft_log.last_index()
        {
            return false;
        }
        let conf_state = membership::current(&self.raw);
        conf_state.voters.iter().chain(&conf_state.voters_outgoing).eq([&self.config.node])
            && !museum::is_on(Exhibit::UnpersistedLeads)
    }
}
