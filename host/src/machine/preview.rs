//! What going back to the module before would change, tried on a copy of the state.

use super::ahead::copy_of;
use super::core::outcome_of;
use super::incumbent::Incumbent;
use super::kept::Executed;
use super::snapshot::MachineSnapshot;
use crate::fsm::{Context, HostFailure, SharedLoader};
use crate::types::{ActorName, Index, ModuleHash, Outcome, Position};

/// What a rewind would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewindPreview {
    /// The module that would come back.
    pub module: ModuleHash,
    /// What is active.
    pub active: Incumbent,
    /// It would begin with the state after this entry,
    pub base: Index,
    /// as of which the copy is.
    pub until: Index,
    /// Commands that it would execute again.
    pub commands: u64,
}

impl MachineSnapshot {
    /// Executes with the module before what came since its end, as a rewind would. Each command that ends
    /// otherwise is told, with how it would end.
    ///
    /// # Errors
    /// [`HostFailure`]: of this host. A sentence: there is no way back, or it takes too much.
    pub fn preview_rewind(
        &self,
        loader: &SharedLoader,
        on_difference: &mut dyn FnMut(&Executed, &Outcome),
    ) -> Result<Result<RewindPreview, String>, HostFailure> {
        let state = &self.state;
        let (Some(kept), Some(active)) = (&state.kept, state.modules.incumbent()) else {
            let words = "no state from before the last activation is kept any more".to_owned();
            return Ok(Err(words));
        };
        let (cluster, limits) = (state.cluster, &state.limits);
        let module = state.modules.bytes(kept.module).expect("it is held as long as its state");
        let context = Context {
            cluster,
            position: Position::first(state.applied),
            time_ms: state.time_ms,
            actor: ActorName::NONE,
        };
        let mut fsm = match copy_of(loader, &module, limits, context, &*kept.image)? {
            Ok(fsm) => fsm,
            Err(reason) => return Ok(Err(reason)),
        };
        let (mut commands, mut fuel_used) = (0, 0_u64);
        for executed in kept.commands.iter() {
            let Executed { position, time_ms, actor, data, outcome } = &**executed;
            let context =
                Context { cluster, position: *position, time_ms: *time_ms, actor: *actor };
            let call = fsm.apply(context, data)?;
            fuel_used = fuel_used.saturating_add(call.fuel_used);
            commands += 1;
            if fuel_used > limits.activation_fuel {
                return Ok(Err(format!(
                    "the commands since take more fuel than activation_fuel allows, which is {}: after \
                     {commands} of them they have used {fuel_used}",
                    limits.activation_fuel
                )));
            }
            let again = outcome_of(call.result).0;
            if again != *outcome {
                on_difference(executed, &again);
            }
        }
        let (module, base, until) = (kept.module, kept.index, state.applied);
        Ok(Ok(RewindPreview { module, active, base, until, commands }))
    }
}
