//! The barrier before an activation: voters have compiled the module.
//!
//! A node that has not would compile it on its apply thread, at the activation, and its commands
//! and queries would wait; if that is the leader of the moment, everybody's would. So the leader
//! asks the voters until they have, and hears from those that cannot why.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use raft_host_proto::peer;
use tokio::time::Instant;

use super::context::Context;
use super::convert::bytes;
use super::forward::passed_on_by_node;
use crate::node::Preparation;
use crate::types::{ConfState, Index, Member, ModuleHash, NodeId};

/// Between two questions to a voter that is still at it.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// A voter that does not answer so many times in a row is taken for dead.
const SILENCES_MAX: u32 = 3;

/// How many voters are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    All,
    Quorum,
}

/// How far the voters are with a module.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    pub(super) ready: BTreeSet<NodeId>,
    /// And why not, ascending.
    pub(super) not_ready: Vec<(NodeId, String)>,
}

impl Readiness {
    /// Those that are not, in one sentence.
    pub(super) fn why_not(&self) -> String {
        let of = |(id, why): &(NodeId, String)| format!("node {id}: {why}");
        self.not_ready.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

/// More than half of the voters, before and after a change of them.
pub(super) fn is_quorum(nodes: &BTreeSet<NodeId>, conf_state: &ConfState) -> bool {
    conf_state.is_quorum(nodes)
}

/// All that vote, ascending.
pub(super) fn voters(conf_state: &ConfState) -> BTreeSet<NodeId> {
    conf_state.voters.union(&conf_state.voters_outgoing).copied().collect()
}

/// Waits until enough voters have compiled the module, or it is clear that the others will not; at most so long.
pub(super) async fn when_voters_are(
    context: &Context,
    module: ModuleHash,
    patience: Duration,
    enough: Enough,
) -> Readiness {
    let give_up = Instant::now() + patience;
    let Some(view) = context.handle.machine().borrow().clone() else { return Readiness::default() };
    let me = context.handle.identity().node;
    let mut missing = voters(&view.conf_state);
    let mut waits: FuturesUnordered<_> = missing
        .iter()
        .map(|id| {
            let (id, voter) = (*id, view.members.get(id).cloned());
            async move {
                let outcome = match voter {
                    _ if id == me => when_prepared_here(context, module).await,
                    Some(voter) => when_prepared(context, &voter, module).await,
                    None => Err("its address is not known".to_owned()),
                };
                (id, outcome)
            }
        })
        .collect();
    let mut readiness = Readiness::default();
    while let Ok(Some((id, outcome))) = tokio::time::timeout_at(give_up, waits.next()).await {
        missing.remove(&id);
        match outcome {
            Ok(()) => readiness.ready.insert(id),
            Err(why) => {
                readiness.not_ready.push((id, why));
                false
            }
        };
        if enough == Enough::Quorum && is_quorum(&readiness.ready, &view.conf_state) {
            break;
        }
    }
    let late = missing.into_iter().map(|id| (id, "it has not compiled it yet".to_owned()));
    readiness.not_ready.extend(late);
    readiness.not_ready.sort();
    readiness
}

async fn when_prepared_here(context: &Context, module: ModuleHash) -> Result<(), String> {
    loop {
        match context.handle.preparation(module) {
            Preparation::Ready => return Ok(()),
            Preparation::Failed(why) => return Err(why),
            Preparation::Underway => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn when_prepared(
    context: &Context,
    voter: &Member,
    module: ModuleHash,
) -> Result<(), String> {
    let mut silences = 0;
    loop {
        match ask(context, voter, Some(module), None).await {
            Ok(answer) if answer.prepared => return Ok(()),
            Ok(answer) if !answer.why_not.is_empty() => return Err(answer.why_not),
            Ok(_) => silences = 0,
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

/// Asks a voter how far it is.
pub(super) async fn ask(
    context: &Context,
    voter: &Member,
    module: Option<ModuleHash>,
    fork: Option<Index>,
) -> Result<peer::PreparedResponse, String> {
    let request = peer::PreparedRequest {
        group: context.handle.group().0,
        module_hash: module.map(|module| bytes(module.0)).unwrap_or_default(),
        fork: fork.map_or(0, |fork| fork.0),
    };
    let way = context.forwarder.membership(voter);
    let mut membership = way.map_err(|failure| failure.message().to_owned())?;
    let answer = membership.prepared(passed_on_by_node(request, Some(ANSWER_PATIENCE)));
    match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_voters_are_a_quorum_before_and_after_a_change() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let mut conf = ConfState { voters: ids(&[1, 2, 3]), ..ConfState::default() };
        assert!(is_quorum(&ids(&[1, 3]), &conf) && !is_quorum(&ids(&[1, 4]), &conf));
        conf.voters_outgoing = ids(&[3, 4, 5]);
        assert!(!is_quorum(&ids(&[1, 3]), &conf) && is_quorum(&ids(&[1, 3, 4]), &conf));
        assert_eq!(voters(&conf), ids(&[1, 2, 3, 4, 5]));
    }
}
