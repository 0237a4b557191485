//! What a verdict means for the node that applies it.

use crate::machine::Verdict;
use crate::types::{ConfState, NodeId, StateDigest};

/// What this node found at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) digest: StateDigest,
    /// It was found when this node executed its own log again after a start.
    pub(super) is_reexecuted: bool,
}

/// See [`judge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// There is nothing to compare: this node was not there, or nobody disputes anything.
    Nothing,
    /// This node agrees with the majority.
    Agrees,
    /// This node differs from the majority.
    Differs(StateDigest),
    /// The only voter came to something else when it executed its log again.
    DiffersFromItself(StateDigest),
    /// There is no majority, and this node's state is what its log says.
    Disputed,
    /// There is no majority yet, nothing speaks for this node's state, and a voter that has not
    /// answered may decide.
    Open,
    /// There is no majority, nothing speaks for this node's state, and no vote can change that.
    InDoubt,
}

/// Compares what a node found with what the verdict says the others did.
pub(super) fn judge(
    me: NodeId,
    verdict: &Verdict,
    conf_state: &ConfState,
    own: Option<Own>,
) -> Judgement {
    let Some(own) = own else { return Judgement::Nothing };
    let is_alone = conf_state.voters.iter().eq([&me]) && conf_state.voters_outgoing.is_empty();
    match verdict.truth {
        Some(truth) if truth == own.digest => Judgement::Agrees,
        // Its own word is the majority's; there is nobody to get another state from.
        Some(truth) if is_alone => Judgement::DiffersFromItself(truth),
        Some(truth) => Judgement::Differs(truth),
        None if verdict.votes.iter().all(|vote| vote.digest == own.digest) => Judgement::Nothing,
        None if own.is_reexecuted => Judgement::Disputed,
        None if verdict.may_still_be_decided(conf_state) => Judgement::Open,
        None => Judgement::InDoubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Vote, truth};
    use crate::types::Index;

    fn verdict(of: &[(u64, u8)], conf_state: &ConfState) -> Verdict {
        let votes: Vec<Vote> = of
            .iter()
            .map(|(node, digest)| Vote { node: NodeId(*node), digest: StateDigest([*digest; 32]) })
            .collect();
        let truth = truth(&votes, conf_state);
        Verdict { at: Index(9), point: Index(7), votes, truth }
    }

    fn voters(ids: &[u64]) -> ConfState {
        ConfState { voters: ids.iter().copied().map(NodeId).collect(), ..ConfState::default() }
    }

    fn live(digest: u8) -> Option<Own> {
        Some(Own { digest: StateDigest([digest; 32]), is_reexecuted: false })
    }

    fn reexecuted(digest: u8) -> Option<Own> {
        live(digest).map(|own| Own { is_reexecuted: true, ..own })
    }

    #[test]
    fn a_node_is_judged_by_what_it_found_itself() {
        let three = voters(&[1, 2, 3]);
        let split = verdict(&[(1, 9), (2, 7), (3, 7)], &three);
        let truth = StateDigest([7; 32]);
        let judged = |me, own| judge(NodeId(me), &split, &three, own);
        assert_eq!(judged(1, live(9)), Judgement::Differs(truth), "whether it leads or not");
        assert_eq!(judged(2, live(7)), Judgement::Agrees);
        assert_eq!(judged(1, reexecuted(7)), Judgement::Agrees, "a restart mended it");
        assert_eq!(judged(1, reexecuted(9)), Judgement::Differs(truth), "a restart did not");
        assert_eq!(judged(2, live(8)), Judgement::Differs(truth), "since its report");
        assert_eq!(judged(4, live(9)), Judgement::Differs(truth), "a learner");
        assert_eq!(judged(1, None), Judgement::Nothing, "restored from a later snapshot");
    }

    #[test]
    fn without_a_majority_only_what_was_executed_again_counts() {
        let two = voters(&[1, 2]);
        let split = verdict(&[(1, 9), (2, 7)], &two);
        assert_eq!(judge(NodeId(1), &split, &two, live(9)), Judgement::InDoubt);
        assert_eq!(judge(NodeId(2), &split, &two, live(7)), Judgement::InDoubt);
        assert_eq!(judge(NodeId(1), &split, &two, reexecuted(7)), Judgement::Disputed);
        assert_eq!(judge(NodeId(1), &split, &two, None), Judgement::Nothing);
    }

    #[test]
    fn two_of_three_that_differ_wait_for_the_third() {
        let three = voters(&[1, 2, 3]);
        let split = verdict(&[(1, 9), (2, 7)], &three);
        for (me, own) in [(1, 9), (2, 7), (3, 7)] {
            assert_eq!(judge(NodeId(me), &split, &three, live(own)), Judgement::Open);
        }
        assert_eq!(judge(NodeId(2), &split, &three, reexecuted(7)), Judgement::Disputed);
        let nobody = verdict(&[(1, 9), (2, 7), (3, 8)], &three);
        assert_eq!(judge(NodeId(2), &nobody, &three, live(7)), Judgement::InDoubt);
    }

    #[test]
    fn too_few_answers_that_nobody_disputes_mean_nothing() {
        let five = voters(&[1, 2, 3, 4, 5]);
        let few = verdict(&[(1, 7), (2, 7)], &five);
        assert_eq!(judge(NodeId(1), &few, &five, live(7)), Judgement::Nothing);
        assert_eq!(judge(NodeId(3), &few, &five, live(9)), Judgement::Open);
    }

    #[test]
    fn the_only_voter_raises_an_alarm_and_its_learners_follow_it() {
        let one = voters(&[1]);
        let alone = verdict(&[(1, 7)], &one);
        let logged = StateDigest([7; 32]);
        let differs = Judgement::DiffersFromItself(logged);
        assert_eq!(judge(NodeId(1), &alone, &one, reexecuted(9)), differs);
        assert_eq!(judge(NodeId(1), &alone, &one, reexecuted(7)), Judgement::Agrees);
        assert_eq!(judge(NodeId(2), &alone, &one, live(9)), Judgement::Differs(logged));
    }
}
