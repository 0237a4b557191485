//! A node whose state differs from the majority's at a digest point is quarantined from the verdict
//! until it has a fresh state; a node whose state does not differ never is.

use std::collections::BTreeMap;

use raft_host::machine::{Reply, Verdict};
use raft_host::types::{ConfState, Index, NodeId, StateDigest};

use super::Invariant;
use super::notes::Map;
use crate::sim::observe::{AppliedEntry, Digest, Fact, Micros, Slot};

/// Newer points after which a node may have forgotten what it found.
const KEPT: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct DigestsAgree {
    nodes: Map<Slot, Node>,
    /// The configuration from an index on.
    members: BTreeMap<Index, ConfState>,
    /// At each point: what the simulator saw a state to be, and the digest that a node found.
    pairs: Map<Index, Vec<(Slot, Digest, StateDigest)>>,
}

#[derive(Debug, Default)]
struct Node {
    id: NodeId,
    /// What the simulator saw, and what the node found, in its present life and state.
    seen: BTreeMap<Index, (Option<Digest>, StateDigest)>,
    /// The last verdict by which it differs, and the point.
    differs: Option<(Index, Index)>,
    quarantine: Option<Index>,
}

impl DigestsAgree {
    fn taken(&mut self, entry: &AppliedEntry, point: Index, found: StateDigest) {
        let node = self.nodes.entry(entry.slot).or_default();
        node.seen.insert(point, (entry.digest, found));
    }

    /// Equal states have equal digests, and others have others.
    fn digested(&mut self, slot: Slot, point: Index, found: StateDigest) -> Result<(), String> {
        let node = self.nodes.entry(slot).or_default();
        let Some((Some(seen), _)) = node.seen.get(&point).copied() else { return Ok(()) };
        node.seen.insert(point, (Some(seen), found));
        let pairs = self.pairs.entry(point).or_default();
        let wrong = pairs.iter().find(|(_, state, digest)| (*state == seen) != (*digest == found));
        if let Some((other, state, _)) = wrong {
            let (states, digests) = match *state == seen {
                true => ("equal states", "other digests"),
                false => ("other states", "equal digests"),
            };
            return Err(format!("{other} and {slot} had {states} and {digests} at index {point}"));
        }
        pairs.push((slot, seen, found));
        Ok(())
    }

    fn judged(&mut self, entry: &AppliedEntry, verdict: &Verdict) {
        let at = entry.position.index;
        let members = self.members.range(..=at).next_back().map(|(_, members)| members);
        let first = ConfState { voters: [NodeId(1)].into(), ..ConfState::default() };
        let members = members.unwrap_or(&first);
        let voters: Vec<NodeId> = members.voters.union(&members.voters_outgoing).copied().collect();
        let cast: Vec<StateDigest> = verdict
            .votes
            .iter()
            .filter(|vote| voters.contains(&vote.node))
            .map(|vote| vote.digest)
            .collect();
        let count = |digest: &&StateDigest| cast.iter().filter(|other| other == digest).count();
        let truth = cast.iter().find(|digest| 2 * count(digest) > voters.len());
        let node = self.nodes.entry(entry.slot).or_default();
        let newer = node.seen.range(verdict.point.next()..).count();
        let own = node.seen.get(&verdict.point).filter(|_| newer < KEPT);
        let is_alone = voters == [node.id];
        if let (Some(truth), Some((_, own))) = (truth, own)
            && own != truth
            && !is_alone
        {
            node.differs = Some((at, verdict.point));
        }
    }

    fn trust(&mut self, slot: Slot, quarantine: Option<(Index, Index)>) -> Result<(), String> {
        let node = self.nodes.entry(slot).or_default();
        let before = std::mem::replace(&mut node.quarantine, quarantine.map(|(since, _)| since));
        match (before, quarantine, node.differs) {
            (Some(since), None, _) => Err(format!(
                "{slot} is trusted again, with the state that it was quarantined for at {since}"
            )),
            (None, Some((since, point)), None) => Err(format!(
                "{slot} is quarantined by the verdict at {since} though at index {point} it had \
                 what most voters had"
            )),
            (_, None, Some((at, point))) => Err(format!(
                "{slot} had another state than most voters at index {point} and is not quarantined \
                 after the verdict at {at}"
            )),
            _ => Ok(()),
        }
    }

    fn replaced(&mut self, slot: Slot) {
        let node = self.nodes.entry(slot).or_default();
        *node = Node { id: node.id, ..Node::default() };
    }
}

impl Invariant for DigestsAgree {
    fn name(&self) -> &'static str {
        "digests_agree"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Started { slot, node, .. } => {
                self.replaced(slot);
                self.nodes.entry(slot).or_default().id = node;
            }
            Fact::Installed { slot, .. } => self.replaced(slot),
            Fact::Membership { position, conf_state, .. } => {
                self.members.insert(position.index, conf_state.clone());
            }
            Fact::Applied(entry) => match &entry.reply {
                Reply::DigestTaken { index, digest } => self.taken(entry, *index, *digest),
                Reply::DigestJudged(verdict) => self.judged(entry, verdict),
                _ => {}
            },
            Fact::Digested { slot, point, digest } => return self.digested(slot, point, digest),
            Fact::Trust { slot, quarantine } => return self.trust(slot, quarantine),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_host::machine::Vote;

    use super::super::testing::{applied, judge, pos, refused};
    use super::*;

    fn taken(slot: usize, digest: u8) -> AppliedEntry {
        let reply = Reply::DigestTaken { index: Index(3), digest: StateDigest([digest; 32]) };
        AppliedEntry { digest: Some([digest; 16]), ..applied(slot, pos(3, 1), "", reply) }
    }

    fn verdict(slot: usize, votes: &[(u64, u8)]) -> AppliedEntry {
        let vote = |(node, digest): &(u64, u8)| Vote {
            node: NodeId(*node),
            digest: StateDigest([*digest; 32]),
        };
        let votes = votes.iter().map(vote).collect();
        let verdict = Verdict { at: Index(4), point: Index(3), votes, truth: None };
        applied(slot, pos(4, 1), "", Reply::DigestJudged(Box::new(verdict)))
    }

    fn trust(slot: usize, is_quarantined: bool) -> Fact<'static> {
        let quarantine = is_quarantined.then_some((Index(4), Index(3)));
        Fact::Trust { slot: Slot(slot), quarantine }
    }

    #[test]
    fn who_differs_from_most_voters_is_quarantined_and_nobody_else() {
        let three =
            ConfState { voters: [NodeId(1), NodeId(2), NodeId(3)].into(), ..ConfState::default() };
        let (good, bad) = (taken(1, 7), taken(0, 9));
        let votes = [(1, 9), (2, 7), (3, 7)];
        let (judges_good, judges_bad) = (verdict(1, &votes), verdict(0, &votes));
        let before = || {
            vec![
                Fact::Membership { slot: Slot(0), position: pos(1, 1), conf_state: &three },
                Fact::Applied(&good),
                Fact::Applied(&bad),
                Fact::Applied(&judges_good),
                Fact::Applied(&judges_bad),
            ]
        };
        let with = |facts: &[Fact<'static>]| -> Vec<Fact<'_>> {
            let mut all = before();
            for fact in facts {
                if let Fact::Trust { slot, quarantine } = *fact {
                    all.push(Fact::Trust { slot, quarantine });
                }
            }
            all
        };
        let fine = with(&[trust(1, false), trust(0, true)]);
        assert_eq!(judge(&mut DigestsAgree::default(), &fine), Ok(()));
        refused(&mut DigestsAgree::default(), &with(&[trust(0, false)]), "is not quarantined");
        refused(&mut DigestsAgree::default(), &with(&[trust(1, true)]), "had what most voters");
        let lifted = with(&[trust(0, true), trust(0, false)]);
        refused(&mut DigestsAgree::default(), &lifted, "trusted again");
    }

    #[test]
    fn equal_states_have_equal_digests() {
        let (one, other) = (taken(0, 7), taken(1, 7));
        let digested = |slot, digest| Fact::Digested {
            slot: Slot(slot),
            point: Index(3),
            digest: StateDigest([digest; 32]),
        };
        let facts = [Fact::Applied(&one), Fact::Applied(&other), digested(0, 7), digested(1, 8)];
        refused(&mut DigestsAgree::default(), &facts, "other digests");
    }
}
