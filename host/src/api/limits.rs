//! `Limits`, `SetLimits` and `SetEngine`: the budgets of the guest, what must run it, and changing
//! both.

use raft_host_proto::v1::{self, Reason};

use super::caller::Caller;
use super::context::Context;
use super::convert::{bytes, changes_from_wire, limits_to_wire};
use super::failure::Failure;
use super::forward::Forwarder;
use crate::node::{GuestMemory, MachineMemory, MembershipFailure};

/// The limits as this node has applied them.
pub(super) fn show(context: &Context) -> Result<v1::LimitsResponse, Failure> {
    let view = context.handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
    let (guests, machine) = (GuestMemory::under(&view.info.limits), MachineMemory::now());
    Ok(v1::LimitsResponse {
        limits: Some(limits_to_wire(&view.info.limits)),
        applied_index: view.info.applied.0,
        engine: view.info.engine.to_string(),
        profile_hash: bytes(view.info.engine.hash(&view.info.limits).0),
        engine_offered: context.handle.offered_engine().to_string(),
        running_memory_bytes: guests.running,
        activation_memory_bytes: guests.activation,
        machine_memory_bytes: machine.map_or(0, |machine| machine.total),
        memory_warning: shortage(guests, machine),
    })
}

/// What an operator should know, if anything.
fn shortage(guests: GuestMemory, machine: Option<MachineMemory>) -> String {
    machine.and_then(|machine| guests.shortage(machine)).unwrap_or_default()
}

/// Changes limits, here or at the leader.
pub(super) async fn set(
    context: &Context,
    caller: &Caller,
    request: v1::SetLimitsRequest,
) -> Result<v1::SetLimitsResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        let changes = changes_from_wire(&request.changes)
            .map_err(|words| Failure::none(Reason::InvalidRequest, words))?;
        let set = context.handle.acting_for(caller.actor).set_limits(changes).await?;
        Ok(v1::SetLimitsResponse {
            index: set.index.0,
            limits: Some(limits_to_wire(&set.limits)),
            previous: Some(limits_to_wire(&set.previous)),
            memory_warning: shortage(GuestMemory::under(&set.limits), MachineMemory::now()),
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.set_limits(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

/// Changes the engine profile, here or at the leader.
pub(super) async fn set_engine(
    context: &Context,
    caller: &Caller,
    request: v1::SetEngineRequest,
) -> Result<v1::SetEngineResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        let handle = context.handle.acting_for(caller.actor);
        let set = handle.set_engine(&request.profile, request.confirmed).await?;
        Ok(v1::SetEngineResponse {
            index: set.index.0,
            profile: set.engine.to_string(),
            previous: set.previous.to_string(),
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.set_engine(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}
