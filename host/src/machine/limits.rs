//! Changing the budgets of the guest while it runs.
//!
//! A budget is part of an instance (of its engine, for the stack), so a change makes a fresh
//! instance and hands it the exact state of the running one:
//!
//! ```text
//!   active ── capture ──► image ── adopt ──► fresh instance under the new limits ──► active
//! ```
//!
//! What a node that restores a snapshot could not do under the new limits must not be accepted
//! here either: the module must load under them, and the state must fit. That needs no run of the
//! module's initialisers, neither here nor there: the image holds what they have done.

use raft_host_proto::stored;

use super::convert::changed_limits;
use super::core::{Machine, unknown_kind};
use super::modules::Sizes;
use super::reply::{Applied, Reply};
use crate::fsm::{Fsm, HostFailure, ImageError, Limits};
use crate::types::Index;

impl Machine {
    /// Changes limits from the next entry on, or refuses and leaves everything as it is.
    pub(super) fn set_limits(
        &mut self,
        index: Index,
        request: &stored::SetLimits,
    ) -> Result<Applied, HostFailure> {
        let limits = changed_limits(&self.state.limits, &request.changes)
            .ok_or_else(|| unknown_kind(index))?;
        let previous = Box::new(self.state.limits.clone());
        let reply = match self.try_limits(index, &limits)? {
            Ok(()) => Reply::LimitsSet { limits: Box::new(limits), previous },
            Err(reason) => Reply::LimitsRefused(reason),
        };
        Ok(Applied::without_guest(reply))
    }

    fn try_limits(
        &mut self,
        index: Index,
        limits: &Limits,
    ) -> Result<Result<(), String>, HostFailure> {
        if *limits == self.state.limits {
            return Ok(Ok(()));
        }
        if let Err(problems) = limits.validate() {
            return Ok(Err(problems.join("; ")));
        }
        let fresh = match self.instance_under(index, limits)? {
            Ok(fresh) => fresh,
            Err(reason) => return Ok(Err(reason)),
        };
        // The last thing that may refuse, because it also drops what is too large.
        if let Err(reason) = self.state.modules.limit_size(Sizes::of(limits)) {
            return Ok(Err(reason));
        }
        self.fsm = fresh;
        let previous = std::mem::replace(&mut self.state.limits, limits.clone());
        self.state.on_limits(index, &previous);
        self.drop_fork();
        self.refresh_module_infos();
        Ok(Ok(()))
    }

    /// The active module's instance and state under `limits`; none when no module is active.
    pub(super) fn instance_under(
        &mut self,
        index: Index,
        limits: &Limits,
    ) -> Result<Result<Option<Box<dyn Fsm>>, String>, HostFailure> {
        let context = self.context(index);
        let Some(active) = &mut self.fsm else { return Ok(Ok(None)) };
        let module = self.state.modules.bytes(active.module());
        let module = module.expect("the active module is kept");
        let mut fresh = match self.loader.instantiate_blank(&module, limits, context)? {
            Ok(fresh) => fresh,
            Err(refused) => return Ok(Err(format!("the active module is refused: {refused}"))),
        };
        let image = active.capture()?;
        match fresh.adopt(&*image) {
            Ok(()) => Ok(Ok(Some(fresh))),
            Err(ImageError::Invalid(reason)) => {
                Ok(Err(format!("the state of the active module does not fit: {reason}")))
            }
            Err(ImageError::Host(failure)) => Err(failure),
            Err(ImageError::Io(error)) => {
                Err(HostFailure(format!("handing over the state of the module: {error}")))
            }
        }
    }
}
