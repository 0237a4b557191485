//! A node that an operator takes off duty, for maintenance: others lead, and clients are sent to others. It
//! votes, follows, forwards and answers as before.

use tokio::sync::watch;

use super::core::NodeHandle;
use super::membership::MembershipFailure;
use crate::consensus::Role;
use crate::node::message::Event;
use crate::types::NodeId;

impl NodeHandle {
    /// Whether an operator has taken this node off duty.
    pub fn is_off_duty(&self) -> bool {
        *self.shared.off_duty.borrow()
    }

    /// The same; changes can be awaited.
    pub fn watch_off_duty(&self) -> watch::Receiver<bool> {
        self.shared.off_duty.subscribe()
    }

    /// Takes this node off duty: it hands leadership over, to one of `on_duty`, and does not lead again
    /// unless nobody else does for some election timeouts. A node that nobody relieves stays on duty. Not
    /// remembered over a restart. Off duty already: fine; it hands over all the same, if it leads.
    ///
    /// # Errors
    /// `NoOtherVoter` when this node is the only voter; of a leader as for
    /// [`NodeHandle::transfer_leadership`], and `NobodyOnDuty` when `on_duty` names no other voter.
    pub async fn leave_duty(&self, on_duty: &[NodeId]) -> Result<(), MembershipFailure> {
        let me = self.identity().node;
        let view = self.shared.machine.borrow().clone().ok_or(MembershipFailure::NoState)?;
        let voters = &view.conf_state.voters;
        if voters.iter().eq([&me]) {
            return Err(MembershipFailure::NoOtherVoter);
        }
        // It must not be elected again meanwhile.
        let was_off_duty = self.set_off_duty(true);
        let relieved = self.be_relieved(on_duty).await;
        if relieved.is_err() && !was_off_duty {
            self.set_off_duty(false);
        }
        relieved
    }

    async fn be_relieved(&self, on_duty: &[NodeId]) -> Result<(), MembershipFailure> {
        if self.shared.leadership.borrow().role != Role::Leader {
            return Ok(());
        }
        match self.transfer_to_one_of(on_duty).await {
            // Whoever it is.
            Ok(_) | Err(MembershipFailure::AnotherLeads { .. }) => Ok(()),
            Err(error) if self.shared.leadership.borrow().role == Role::Leader => Err(error),
            // It lost leadership in another way.
            Err(_) => Ok(()),
        }
    }

    /// Hands leadership to one of these, to the most up-to-date of those that were heard from. Leader only.
    ///
    /// # Errors
    /// `NobodyOnDuty` when no other voter is among them, and as for [`NodeHandle::transfer_leadership`].
    pub async fn transfer_to_one_of(
        &self,
        on_duty: &[NodeId],
    ) -> Result<NodeId, MembershipFailure> {
        let status = self.replica_status().await?;
        let me = self.identity().node;
        let mut able: Vec<_> = on_duty
            .iter()
            .filter(|node| **node != me && status.conf_state.voters.contains(node))
            .filter_map(|node| status.peer(*node))
            .collect();
        able.sort_by_key(|peer| (!peer.recently_active, std::cmp::Reverse(peer.matched)));
        let Some(successor) = able.first() else {
            return Err(MembershipFailure::NobodyOnDuty);
        };
        self.transfer_leadership(Some(successor.node)).await
    }

    /// Puts this node back on duty. On duty already: fine. Returns whether it was off duty.
    pub fn return_to_duty(&self) -> bool {
        self.set_off_duty(false)
    }

    /// Returns what it was.
    fn set_off_duty(&self, is_off_duty: bool) -> bool {
        // A node that has stopped has no duties.
        let _ = self.shared.events.send(Event::OffDuty(is_off_duty));
        self.shared.off_duty.send_replace(is_off_duty)
    }
}
