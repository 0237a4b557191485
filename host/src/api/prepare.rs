//! The barrier before an activation: every voter has compiled the module.
//!
//! A node that has not would compile it on its apply thread, at the activation, and its commands
//! and queries would wait; if that is the leader of the moment, everybody's would. So the leader
//! asks the voters until they have. It does not insist: a voter that is dead, or that does not get
//! there in time, is left to itself.

use std::time::Duration;

use futures::future::join_all;
use raft_host_proto::peer;

use super::context::Context;
use super::convert::bytes;
use super::forward::passed_on_by_node;
use crate::types::{Member, ModuleHash};

/// Between two questions to a voter that is still at it.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// A voter that does not answer so many times in a row is taken for dead.
const SILENCES_MAX: u32 = 3;

/// Waits until the other voters have compiled the module, at most so long.
pub(super) async fn when_voters_are(context: &Context, module: ModuleHash, patience: Duration) {
    let Some(view) = context.handle.machine().borrow().clone() else { return };
    let me = context.handle.identity().node;
    let voters = view.conf_state.voters.iter().chain(&view.conf_state.voters_outgoing);
    let others = voters.filter(|voter| **voter != me).filter_map(|id| view.members.get(id));
    let waits = others.map(|voter| async move {
        let outcome = tokio::time::timeout(patience, when_prepared(context, voter, module)).await;
        let why = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => format!("it has not compiled it within {} s", patience.as_secs()),
        };
        tracing::warn!(
            voter = %voter.id, module = %module.short(), why,
            "a module is activated before this voter has compiled it"
        );
    });
    join_all(waits).await;
}

async fn when_prepared(
    context: &Context,
    voter: &Member,
    module: ModuleHash,
) -> Result<(), String> {
    let mut silences = 0;
    loop {
        match ask(context, voter, module).await {
            Ok(true) => return Ok(()),
            Ok(false) => silences = 0,
            Err(why) => {
                silences += 1;
                if silences == SILENCES_MAX {
                    return Err(why);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(context: &Context, voter: &Member, module: ModuleHash) -> Result<bool, String> {
    let request =
        peer::PreparedRequest { group: context.handle.group().0, module_hash: bytes(module.0) };
    let way = context.forwarder.membership(voter);
    let mut membership = way.map_err(|failure| failure.message().to_owned())?;
    let answer = membership.prepared(passed_on_by_node(request, Some(ANSWER_PATIENCE)));
    match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer.into_inner().prepared),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}
