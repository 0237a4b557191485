//! `SetClock`, and what `Status` says of clocks.

use raft_host_proto::v1;

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::forward::Forwarder;
use crate::node::{ClockStatus, NodeHandle};

/// Puts the log's clock forward, here or at the leader.
pub(super) async fn set(
    context: &Context,
    caller: &Caller,
    request: v1::SetClockRequest,
) -> Result<v1::SetClockResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        let set = context.handle.acting_for(caller.actor).set_clock(request.time_ms).await?;
        Ok(v1::SetClockResponse {
            index: set.index.0,
            time_ms: set.time_ms,
            previous_ms: set.previous_ms,
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.set_clock(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

pub(super) fn status(handle: &NodeHandle) -> v1::ClockStatus {
    let clocks = handle.clocks().borrow().clone();
    let ClockStatus { offset_ms, is_agreed, log_ahead_ms, members, alarm } = &*clocks;
    let member = |(node, offset): (&crate::types::NodeId, &i64)| v1::MemberClock {
        node_id: node.0,
        offset_ms: *offset,
    };
    v1::ClockStatus {
        log_time_ms: handle.log_time_ms(),
        offset_ms: *offset_ms,
        agreed: *is_agreed,
        log_ahead_ms: *log_ahead_ms,
        members: members.iter().map(member).collect(),
        alarm: alarm.clone().unwrap_or_default(),
    }
}
