//! `RaiseLevel`, and what `Status` says of levels.

use raft_host_proto::v1::{self, Reason};

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::forward::Forwarder;
use crate::consensus::Role;
use crate::node::NodeHandle;
use crate::types::Level;

/// What this node knows.
pub(super) fn status(handle: &NodeHandle) -> v1::LevelStatus {
    let levels = handle.levels().borrow().clone();
    let offered = handle.offered_level();
    let view = handle.machine().borrow().clone();
    let me = handle.identity().node;
    let leads = handle.leadership().borrow().role == Role::Leader;
    let members = view.iter().filter(|_| leads).flat_map(|view| view.conf_state.nodes());
    v1::LevelStatus {
        level: view.as_ref().map_or(0, |view| view.info.level.0),
        offered: offered.0,
        members: members
            .map(|node| v1::MemberLevel {
                node_id: node.0,
                offered: match node == me {
                    true => Some(offered.0),
                    false => levels.offers.get(&node).map(|level| level.0),
                },
            })
            .collect(),
        agreed: levels.agreed.map(|level| level.0),
        raised_in_ms: levels.raised_in.map(|time| time.as_millis() as u64),
    }
}

/// Raises the level, here or at the leader.
pub(super) async fn raise(
    context: &Context,
    caller: &Caller,
    request: v1::RaiseLevelRequest,
) -> Result<v1::RaiseLevelResponse, Failure> {
    context.check_group(&request.group)?;
    if request.level == Some(0) {
        let words = "levels begin at 1; leave it out for the highest that all members offer";
        return Err(Failure::none(Reason::InvalidRequest, words));
    }
    let request = &request;
    let here = || async {
        let handle = context.handle.acting_for(caller.actor);
        let raised = handle.raise_level(request.level.map(Level)).await?;
        Ok(v1::RaiseLevelResponse {
            index: raised.index.0,
            level: raised.level.0,
            previous: raised.previous.0,
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.raise_level(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}
