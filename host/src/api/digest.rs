//! `Digest`, and what `Status` says of the digests of a node's state.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use raft_host_proto::v1;
use tonic::Response;

use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::forward::passed_on;
use crate::machine::Verdict;
use crate::node::DigestStatus;
use crate::types::{Member, NodeId, StateDigest};

/// How long a comparison may take when the caller does not say: a leader waits two election timeouts
/// for members that do not answer, and eight when those that do have no majority.
pub(super) fn patience(context: &Context) -> Duration {
    context.request_timeout().max(3 * context.election_patience())
}

/// Has all nodes compare their states, here or at the leader.
pub(super) async fn compare(
    context: &Context,
    caller: &Caller,
    request: v1::DigestRequest,
) -> Result<v1::DigestResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        let verdict = context.handle.compare_digests().await?;
        let view = context.handle.machine().borrow().clone();
        let members = view.map(|view| view.conf_state.nodes()).unwrap_or_default();
        Ok(response(&verdict, &members))
    };
    let there = |leader: Member| async move {
        let mut admin = context.forwarder.admin(&leader)?;
        let request = passed_on(request.clone(), caller, Some(caller.remaining()));
        let answer = admin.digest(request).await;
        answer.map(Response::into_inner).map_err(|status| Failure::from_status(&status))
    };
    context.on_leader(caller, context.election_patience(), here, there).await
}

fn response(verdict: &Verdict, members: &BTreeSet<NodeId>) -> v1::DigestResponse {
    let result = result(verdict, members);
    let all_agree = !result.nodes.is_empty() && result.nodes.iter().all(|node| node.agrees);
    v1::DigestResponse { result: Some(result), all_agree }
}

/// Members that did not answer are listed without a digest.
fn result(verdict: &Verdict, members: &BTreeSet<NodeId>) -> v1::DigestResult {
    let mut nodes: BTreeSet<NodeId> = members.clone();
    nodes.extend(verdict.votes.iter().map(|vote| vote.node));
    let found = |node: NodeId| {
        let digest = verdict.vote_of(node);
        v1::NodeDigest {
            node_id: node.0,
            digest: hash(digest),
            agrees: digest.is_some() && digest == verdict.truth,
        }
    };
    v1::DigestResult {
        point_index: verdict.point.0,
        verdict_index: verdict.at.0,
        digest: hash(verdict.truth),
        nodes: nodes.into_iter().map(found).collect(),
    }
}

pub(super) fn status(status: &DigestStatus) -> v1::DigestStatus {
    let DigestStatus { last, verdict, agreed, quarantine, doubt, alarm, counters } = status;
    let last = last.as_ref();
    v1::DigestStatus {
        point_index: last.map_or(0, |taken| taken.index.0),
        digest: hash(last.map(|taken| taken.digest)),
        machine_digest: hash(last.map(|taken| taken.machine)),
        guest_digest: hash(last.and_then(|taken| taken.guest)),
        verdict: verdict.as_ref().map(|verdict| result(verdict, &BTreeSet::new())),
        agreed_index: agreed.0,
        quarantine: quarantine.as_ref().map(|quarantine| v1::Quarantine {
            since_index: quarantine.since.0,
            point_index: quarantine.point.0,
            reason: quarantine.reason.clone(),
            evidence: quarantine
                .evidence
                .as_ref()
                .map(|place| place.display().to_string())
                .unwrap_or_default(),
        }),
        alarm: alarm.clone().unwrap_or_default(),
        points: counters.points,
        verdicts: counters.verdicts,
        quarantines: counters.quarantines,
        healed: counters.healed,
        undecided: counters.undecided,
        doubt: doubt.as_ref().map(|doubt| doubt.reason.clone()).unwrap_or_default(),
    }
}

fn hash(digest: Option<StateDigest>) -> Bytes {
    digest.map(|digest| bytes(digest.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Vote;
    use crate::types::Index;

    #[test]
    fn all_agree_only_when_every_member_found_what_most_voters_did() {
        let right = StateDigest([7; 32]);
        let vote = |node, digest| Vote { node: NodeId(node), digest };
        let members = BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
        let mut verdict = Verdict {
            at: Index(9),
            point: Index(8),
            votes: vec![vote(1, right), vote(2, right)],
            truth: Some(right),
        };
        let two = response(&verdict, &members);
        assert!(!two.all_agree);
        let nodes = two.result.expect("always").nodes;
        assert_eq!(
            (nodes[2].node_id, nodes[2].digest.as_ref()),
            (3, &b""[..]),
            "it did not answer"
        );
        verdict.votes.push(vote(3, right));
        assert!(response(&verdict, &members).all_agree);
        verdict.votes[0].digest = StateDigest([9; 32]);
        assert!(!response(&verdict, &members).all_agree);
        verdict.truth = None;
        assert!(
            response(&verdict, &members).result.expect("always").nodes.iter().all(|n| !n.agrees)
        );
    }
}
