//! What the members found at a digest point, and what more than half of the voters found.

use raft_host_proto::stored;

use crate::museum::{self, Exhibit};
use crate::types::{ConfState, Index, NodeId, StateDigest};

/// What a member found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The member.
    pub node: NodeId,
    /// What it found.
    pub digest: StateDigest,
}

/// What the members found at a digest point. The same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The entry that holds it.
    pub at: Index,
    /// The digest point that it is about.
    pub point: Index,
    /// At most one for each node.
    pub votes: Vec<Vote>,
    /// What more than half of all voters found; `None` when no digest has that many.
    pub truth: Option<StateDigest>,
}

impl Verdict {
    /// What a node found, if it answered.
    pub fn vote_of(&self, node: NodeId) -> Option<StateDigest> {
        self.votes.iter().find(|vote| vote.node == node).map(|vote| vote.digest)
    }

    /// The nodes that found something else than the majority did.
    pub fn differing(&self) -> impl Iterator<Item = NodeId> + '_ {
        let differs = |vote: &&Vote| self.truth.is_some_and(|truth| truth != vote.digest);
        self.votes.iter().filter(differs).map(|vote| vote.node)
    }

    /// Whether the votes that are missing could make a majority where there is none.
    pub fn may_still_be_decided(&self, conf_state: &ConfState) -> bool {
        let voters = conf_state.voters.union(&conf_state.voters_outgoing).count();
        let cast: Vec<&Vote> =
            self.votes.iter().filter(|vote| conf_state.is_voter(vote.node)).collect();
        let supporters = |digest| cast.iter().filter(|vote| vote.digest == digest).count();
        let most = cast.iter().map(|vote| supporters(vote.digest)).max().unwrap_or(0);
        self.truth.is_none() && 2 * (most + voters - cast.len()) > voters
    }

    /// Whether two nodes found different things.
    pub fn is_disputed(&self) -> bool {
        self.votes.windows(2).any(|pair| pair[0].digest != pair[1].digest)
    }
}

/// Reads the verdict of the entry at `at`; the voters are those of the configuration there.
pub(super) fn read(
    at: Index,
    record: &stored::DigestVerdict,
    conf_state: &ConfState,
) -> Result<Verdict, String> {
    let mut votes: Vec<Vote> = Vec::with_capacity(record.votes.len());
    for vote in &record.votes {
        let digest = StateDigest::try_from(&vote.digest[..])
            .map_err(|error| format!("a verdict with a digest that is none: {error}"))?;
        let node = NodeId(vote.node_id);
        if votes.last().is_some_and(|last| last.node >= node) {
            return Err("a verdict whose votes are not in the order of their nodes".to_owned());
        }
        votes.push(Vote { node, digest });
    }
    if record.index >= at.0 {
        return Err("a verdict about a point that is still to come".to_owned());
    }
    let truth = truth(&votes, conf_state);
    Ok(Verdict { at, point: Index(record.index), votes, truth })
}

/// The digest that more than half of all voters found. In a joint configuration: of the voters of
/// both halves together.
pub(crate) fn truth(votes: &[Vote], conf_state: &ConfState) -> Option<StateDigest> {
    if museum::is_on(Exhibit::FirstVoteIsTruth) {
        return votes.first().map(|vote| vote.digest);
    }
    let voters = conf_state.voters.union(&conf_state.voters_outgoing).count();
    let cast: Vec<&Vote> = votes.iter().filter(|vote| conf_state.is_voter(vote.node)).collect();
    let supporters = |digest| cast.iter().filter(|vote| vote.digest == digest).count();
    cast.iter().map(|vote| vote.digest).find(|digest| 2 * supporters(*digest) > voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(of: &[(u64, u8)]) -> Vec<Vote> {
        let vote = |(node, digest): &(u64, u8)| Vote {
            node: NodeId(*node),
            digest: StateDigest([*digest; 32]),
        };
        of.iter().map(vote).collect()
    }

    fn voters(ids: &[u64]) -> ConfState {
        ConfState { voters: ids.iter().copied().map(NodeId).collect(), ..ConfState::default() }
    }

    fn found(of: &[(u64, u8)], conf_state: &ConfState) -> Option<u8> {
        truth(&votes(of), conf_state).map(|digest| digest.0[0])
    }

    #[test]
    fn the_truth_is_what_more_than_half_of_all_voters_found() {
        let three = voters(&[1, 2, 3]);
        assert_eq!(found(&[(1, 7), (2, 7), (3, 7)], &three), Some(7));
        assert_eq!(found(&[(1, 9), (2, 7), (3, 7)], &three), Some(7), "whoever is first");
        assert_eq!(found(&[(2, 7), (3, 7)], &three), Some(7), "one is down");
        assert_eq!(found(&[(1, 7), (2, 9)], &three), None);
        assert_eq!(found(&[(1, 7)], &three), None, "half of those who answered is not enough");
        assert_eq!(found(&[(1, 7), (2, 9), (3, 8)], &three), None);
        assert_eq!(found(&[(1, 7), (2, 9)], &voters(&[1, 2])), None);
        assert_eq!(found(&[(1, 7)], &voters(&[1])), Some(7));
        assert_eq!(found(&[(1, 7), (2, 7), (3, 9), (4, 9)], &voters(&[1, 2, 3, 4])), None);
        assert_eq!(found(&[], &three), None);
    }

    #[test]
    fn without_a_majority_the_missing_votes_may_decide_or_not() {
        let open = |of: &[(u64, u8)], conf_state: &ConfState| {
            let votes = votes(of);
            let truth = truth(&votes, conf_state);
            let verdict = Verdict { at: Index(9), point: Index(7), votes, truth };
            verdict.may_still_be_decided(conf_state)
        };
        let three = voters(&[1, 2, 3]);
        assert!(open(&[(1, 7), (2, 9)], &three));
        assert!(!open(&[(1, 7), (2, 9), (3, 8)], &three), "all have voted");
        assert!(!open(&[(1, 7), (2, 7)], &three), "decided");
        assert!(!open(&[(1, 7), (2, 9)], &voters(&[1, 2])));
        assert!(!open(&[(1, 7), (2, 9), (3, 8)], &voters(&[1, 2, 3, 4])), "two of four are half");
        assert!(open(&[(1, 7), (2, 9), (3, 7)], &voters(&[1, 2, 3, 4])));
        assert!(open(&[(1, 7), (2, 9), (4, 9)], &three), "a learner's vote does not count");
    }

    #[test]
    fn learners_have_no_say_and_both_halves_of_a_joint_configuration_have() {
        let learners = ConfState { learners: [NodeId(2), NodeId(3)].into(), ..voters(&[1]) };
        assert_eq!(found(&[(1, 7), (2, 9), (3, 9)], &learners), Some(7));
        let joint =
            ConfState { voters_outgoing: [NodeId(1), NodeId(4)].into(), ..voters(&[1, 2, 3]) };
        assert_eq!(found(&[(1, 7), (2, 7)], &joint), None);
        assert_eq!(found(&[(1, 7), (2, 7), (4, 7)], &joint), Some(7));
    }

    #[test]
    fn a_verdict_says_who_differs() {
        let record = stored::DigestVerdict {
            index: 5,
            votes: votes(&[(1, 7), (2, 7), (3, 9)])
                .iter()
                .map(|vote| stored::DigestVote {
                    node_id: vote.node.0,
                    digest: vote.digest.0.to_vec().into(),
                })
                .collect(),
        };
        let verdict = read(Index(6), &record, &voters(&[1, 2, 3])).expect("well formed");
        assert_eq!(verdict.differing().collect::<Vec<_>>(), [NodeId(3)]);
        assert!(verdict.is_disputed());
        assert_eq!(verdict.vote_of(NodeId(2)), Some(StateDigest([7; 32])));
        assert_eq!(verdict.vote_of(NodeId(4)), None);

        assert!(read(Index(5), &record, &voters(&[1])).is_err(), "of a point to come");
        let mut short = record.clone();
        short.votes[0].digest = vec![7; 31].into();
        assert!(read(Index(6), &short, &voters(&[1])).is_err());
        let mut twice = record;
        twice.votes[1].node_id = 1;
        assert!(read(Index(6), &twice, &voters(&[1])).is_err());
    }
}
