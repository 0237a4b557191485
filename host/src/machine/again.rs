//! Commands that were executed once, executed again by another instance: because it has taken over from a
//! state before them.

use super::core::outcome_of;
use super::kept::Executed;
use super::reply::Applied;
use crate::fsm::{Context, Fsm, HostFailure};
use crate::types::{ClusterId, Position};

/// How it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Again {
    pub(super) commands: u64,
    /// Those with another outcome than the first time.
    pub(super) differing: u64,
    /// The first of those.
    pub(super) first: Option<Position>,
    fuel_used: u64,
}

impl Again {
    /// Executes the next command. `applied` gets the fuel.
    ///
    /// # Errors
    /// [`HostFailure`]: the node must stop. A sentence, which is the same on every node: the commands take
    /// more fuel together than they may.
    pub(super) fn execute(
        &mut self,
        fsm: &mut dyn Fsm,
        cluster: ClusterId,
        executed: &Executed,
        fuel_max: u64,
        applied: &mut Applied,
    ) -> Result<Result<(), String>, HostFailure> {
        let Executed { position, time_ms, actor, data, outcome } = executed;
        let context = Context { cluster, position: *position, time_ms: *time_ms, actor: *actor };
        let call = fsm.apply(context, data)?;
        applied.fuel_used = applied.fuel_used.saturating_add(call.fuel_used);
        self.fuel_used = self.fuel_used.saturating_add(call.fuel_used);
        self.commands += 1;
        if outcome_of(call.result).0 != *outcome {
            self.differing += 1;
            self.first = self.first.or(Some(*position));
        }
        Ok(match self.fuel_used > fuel_max {
            true => Err(format!(
                "the commands since take more fuel than activation_fuel allows, which is {fuel_max}: \
                 after {} of them they have used {}; `raft-host limits set activation_fuel=...` \
                 allows more, and while they run no other command does",
                self.commands, self.fuel_used
            )),
            false => Ok(()),
        })
    }
}
