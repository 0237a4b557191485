//! A change of the voters waits until those that would vote after it have shown that they are there.
//!
//! A voter that died a moment ago counts as heard from for another election timeout. Who removed a
//! second one meanwhile would be left without a majority. So the leader keeps the change back until a
//! majority of the voters after it has said something that it was asked for after the change: later
//! than the next heartbeat. It is refused, with the numbers, when that has not come after an election
//! timeout and two heartbeats, in which each of them was asked several times. Time is counted in ticks,
//! which a slow machine passes slowly, too.

use raft::StateRole;

use super::{Replica, ReplicaError};
use crate::consensus::effects::{Care, ProposalId, ProposalReply, ProposeError};
use crate::consensus::membership::{self, ConfChangeError};
use crate::consensus::status::Quorum;
use crate::types::{ConfChange, LogPosition, NodeId};

/// See the module.
pub(super) struct Parked {
    id: ProposalId,
    change: ConfChange,
    care: Care,
    /// The tick at which it was asked for.
    since: u64,
    term: u64,
}

impl Replica {
    /// `None`: the answer comes later.
    pub(super) fn ask_conf_change(
        &mut self,
        id: ProposalId,
        change: ConfChange,
        care: Care,
    ) -> Result<Option<Result<LogPosition, ProposeError>>, ReplicaError> {
        if !self.needs_assurance(&change, care) {
            return self.propose_conf_change(&change, care).map(Some);
        }
        if let Some(error) = self.refuse_proposals() {
            return Ok(Some(Err(error)));
        }
        if self.parked.is_some() {
            return Ok(Some(Err(ConfChangeError::InProgress.into())));
        }
        if let Err(error) = self.check_conf_change(&change, care) {
            return Ok(Some(Err(error.into())));
        }
        let (since, term) = (self.tick, self.raw.raft.term);
        self.parked = Some(Parked { id, change, care, since, term });
        Ok(None)
    }

    /// What needs nobody else's word is done at once; so is what makes no sense, to be refused.
    fn needs_assurance(&self, change: &ConfChange, care: Care) -> bool {
        let current = membership::current(&self.raw);
        let Ok(voters) = membership::validate(change, &current) else { return false };
        !care.force && voters != current.voters && !voters.iter().eq([&self.config.node])
    }

    /// Once a tick: makes the change that waits, or refuses it.
    pub(super) fn pursue_parked(&mut self) -> Result<(), ReplicaError> {
        let Some(Parked { change, since, term, .. }) = &self.parked else { return Ok(()) };
        let raft = &self.raw.raft;
        let decided = if raft.state != StateRole::Leader || raft.term != *term {
            Some(ProposeError::NotLeader(self.leader()))
        } else {
            match membership::validate(change, &membership::current(&self.raw)) {
                Err(error) => Some(error.into()),
                Ok(voters) => {
                    let quorum = self.quorum_after(voters.iter().copied(), *since);
                    let is_late = self.tick - since >= self.assurance_patience();
                    if quorum.is_there() {
                        None
                    } else if is_late {
                        Some(ConfChangeError::NoQuorum(quorum).into())
                    } else {
                        return Ok(());
                    }
                }
            }
        };
        let Some(Parked { id, change, care, .. }) = self.parked.take() else { return Ok(()) };
        let reply: ProposalReply = match decided {
            Some(error) => (id, Err(error)),
            None => (id, self.propose_conf_change(&change, care)?),
        };
        self.effects.proposals.push(reply);
        Ok(())
    }

    /// Who has answered what was sent after that tick. A heartbeat later, nothing of before is on its way
    /// any more.
    fn quorum_after(&self, voters: impl Iterator<Item = NodeId>, tick: u64) -> Quorum {
        let asked = tick + self.config.heartbeat_ticks as u64;
        let (mut count, mut silent) = (0, std::collections::BTreeSet::new());
        for voter in voters {
            count += 1;
            if !self.is_heard_after(voter, asked) {
                silent.insert(voter);
            }
        }
        Quorum { voters: count, silent }
    }

    fn assurance_patience(&self) -> u64 {
        (self.config.election_ticks + 2 * self.config.heartbeat_ticks) as u64
    }
}
