//! Replicas that leave leading to others: one whose machine is not trusted, and one that an operator has
//! taken off duty.
//!
//! They vote, acknowledge and forward as any other. They do not campaign, and take no leadership that they
//! are handed, as long as somebody else can be expected to lead: after some election timeouts without any
//! leader they campaign all the same. The others may be held back, too, or cannot win without what this
//! log has. What is off duty and leads then goes on leading until it is told to hand over: who of the
//! others is on duty is not known here.

use raft::StateRole;

use super::Replica;
use crate::museum::{self, Exhibit};

/// A replica that is held back campaigns all the same when it has heard from no leader for so many
/// election timeouts.
const LAST_RESORT_ELECTIONS: usize = 5;

impl Replica {
    /// Whether this replica leaves it to others to lead. Not for ever: see
    /// [`LAST_RESORT_ELECTIONS`].
    pub(super) fn is_held_back(&self) -> bool {
        let raft = &self.raw.raft;
        // Two of them that campaigned at once, again and again, would never be elected.
        let drawn = raft.randomized_election_timeout();
        let last_resort = (LAST_RESORT_ELECTIONS - 1) * self.config.election_ticks + drawn;
        let is_distrusted = self.reseed.is_some() && !museum::is_on(Exhibit::QuarantinedLeads);
        (is_distrusted || self.is_off_duty)
            && raft.state != StateRole::Leader
            && raft.election_elapsed < last_resort
    }
}
