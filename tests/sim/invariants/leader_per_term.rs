//! Election safety (Raft §5.2): at most one leader per term, because nobody votes twice in one.

use raft_host::consensus::Role;
use raft_host::types::{NodeId, Term};

use super::Invariant;
use super::notes::{Map, vote};
use crate::sim::observe::{Fact, Micros, Slot};

/// What a node has written down about itself.
#[derive(Clone, Copy, Debug)]
struct Promise {
    term: Term,
    vote: Option<NodeId>,
    /// A later one that a failing disk may hold or not.
    unsure: Option<(Term, Option<NodeId>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LeaderPerTerm {
    leaders: Map<Term, NodeId>,
    /// Durable promises.
    promises: Map<Slot, Promise>,
    /// Term in the memory of a node that runs.
    terms: Map<Slot, Term>,
    /// Votes that left a node.
    votes: Map<(Slot, Term), NodeId>,
}

impl LeaderPerTerm {
    fn lead(&mut self, node: NodeId, term: Term) -> Result<(), String> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(format!("term {term} has two leaders: node {first} and node {node}"))
    }

    fn term(&mut self, slot: Slot, term: Term) -> Result<(), String> {
        match self.terms.insert(slot, term) {
            Some(before) if before > term => {
                Err(format!("{slot} went back from term {before} to term {term}"))
            }
            _ => Ok(()),
        }
    }

    fn persisted(&mut self, slot: Slot, (term, new): (Term, Option<NodeId>)) -> Result<(), String> {
        if let Some(old) = self.promises.get(&slot) {
            follows(slot, (old.term, old.vote), (term, new))?;
        }
        self.promises.insert(slot, Promise { term, vote: new, unsure: None });
        Ok(())
    }

    fn started(&mut self, slot: Slot, recovered: (Term, Option<NodeId>)) -> Result<(), String> {
        if let Some(old) = self.promises.get(&slot) {
            let durable = (old.term, old.vote);
            follows(slot, durable, recovered)?;
            // A later term without a vote is what the term of a snapshot makes of it.
            let is_explained =
                recovered == durable || recovered.0 > durable.0 || old.unsure == Some(recovered);
            if !is_explained {
                return Err(format!(
                    "{slot} recovered a vote for {} in term {} that it never wrote",
                    vote(recovered.1),
                    recovered.0
                ));
            }
        }
        let (term, vote) = recovered;
        self.promises.insert(slot, Promise { term, vote, unsure: None });
        self.terms.insert(slot, term);
        Ok(())
    }

    fn voted(&mut self, slot: Slot, term: Term, candidate: NodeId) -> Result<(), String> {
        let first = *self.votes.entry((slot, term)).or_insert(candidate);
        if first != candidate {
            return Err(format!(
                "{slot} voted for node {first} and for node {candidate} in term {term}"
            ));
        }
        let is_durable = self.promises.get(&slot).is_some_and(|promise| {
            promise.term > term || (promise.term, promise.vote) == (term, Some(candidate))
        });
        if is_durable {
            return Ok(());
        }
        Err(format!(
            "{slot} sent its vote for node {candidate} in term {term} before that was durable"
        ))
    }
}

/// Whether a node that promised `old` may promise `new`.
fn follows(
    slot: Slot,
    old: (Term, Option<NodeId>),
    new: (Term, Option<NodeId>),
) -> Result<(), String> {
    if new.0 < old.0 {
        return Err(format!("{slot} had term {} on disk and now has term {}", old.0, new.0));
    }
    if new.0 == old.0 && old.1.is_some() && new.1 != old.1 {
        return Err(format!(
            "{slot} voted for {} in term {} and now for {}",
            vote(old.1),
            old.0,
            vote(new.1)
        ));
    }
    Ok(())
}

impl Invariant for LeaderPerTerm {
    fn name(&self) -> &'static str {
        "leader_per_term"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Started { slot, term, vote, .. } => self.started(slot, (term, vote)),
            Fact::Role { slot, node, role, term, .. } => {
                self.term(slot, term)?;
                if role == Role::Leader { self.lead(node, term) } else { Ok(()) }
            }
            Fact::Persisted { slot, hard_state: Some(state), .. } => self.persisted(slot, state),
            Fact::WriteFailed { slot, hard_state, .. } => {
                if let Some(promise) = self.promises.get_mut(&slot) {
                    promise.unsure = hard_state;
                }
                Ok(())
            }
            Fact::Voted { slot, term, candidate } => self.voted(slot, term, candidate),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Log, judge, node, pos, refused, started, voted};
    use super::*;

    fn role(slot: usize, role: Role, term: u64, log: &Log) -> Fact<'_> {
        Fact::Role {
            slot: Slot(slot),
            node: node(slot),
            role,
            term: Term(term),
            last: pos(0, 0),
            log,
        }
    }

    fn sent(slot: usize, term: u64, candidate: u64) -> Fact<'static> {
        Fact::Voted { slot: Slot(slot), term: Term(term), candidate: NodeId(candidate) }
    }

    #[test]
    fn leaders_of_different_terms_are_fine_and_two_of_one_term_are_not() {
        let log = Log(pos(0, 0), vec![]);
        let mut invariant = LeaderPerTerm::default();
        let facts = [
            role(0, Role::Leader, 1, &log),
            role(0, Role::Follower, 2, &log),
            role(1, Role::Leader, 2, &log),
            role(0, Role::Candidate, 3, &log),
            role(0, Role::Leader, 2, &log),
        ];
        refused(&mut invariant, &facts, "back from term 3");
        let both = [role(0, Role::Leader, 1, &log), role(1, Role::Leader, 1, &log)];
        refused(&mut LeaderPerTerm::default(), &both, "two leaders");
    }

    #[test]
    fn a_vote_survives_a_crash_and_stays_as_it_is_within_its_term() {
        let last = pos(0, 0);
        let fine = [
            started(0, 1, None, last),
            voted(0, 2, None),
            voted(0, 2, Some(2)),
            sent(0, 2, 2),
            started(0, 2, Some(2), last),
            sent(0, 2, 2),
            voted(0, 3, Some(1)),
            sent(0, 2, 2),
        ];
        assert_eq!(judge(&mut LeaderPerTerm::default(), &fine), Ok(()));
        let changed = [voted(0, 2, Some(2)), voted(0, 2, Some(3))];
        refused(&mut LeaderPerTerm::default(), &changed, "now for node 3");
        let forgotten = [voted(0, 2, Some(2)), started(0, 2, None, last)];
        refused(&mut LeaderPerTerm::default(), &forgotten, "now for nobody");
        let older = [voted(0, 2, Some(2)), started(0, 1, None, last)];
        refused(&mut LeaderPerTerm::default(), &older, "now has term 1");
        let invented = [voted(0, 2, None), started(0, 2, Some(3), last)];
        refused(&mut LeaderPerTerm::default(), &invented, "never wrote");
    }

    #[test]
    fn a_batch_that_failed_may_be_there_or_not() {
        let failed = || Fact::WriteFailed {
            slot: Slot(0),
            entries: &[],
            reset_to: None,
            hard_state: Some((Term(2), Some(NodeId(3)))),
        };
        for vote in [None, Some(3)] {
            let facts = [voted(0, 2, None), failed(), started(0, 2, vote, pos(0, 0))];
            assert_eq!(judge(&mut LeaderPerTerm::default(), &facts), Ok(()));
        }
        let facts = [voted(0, 2, None), failed(), started(0, 2, Some(1), pos(0, 0))];
        refused(&mut LeaderPerTerm::default(), &facts, "never wrote");
    }

    #[test]
    fn a_vote_leaves_only_when_it_is_durable_and_for_one_candidate() {
        let early = [voted(0, 1, None), sent(0, 2, 2)];
        refused(&mut LeaderPerTerm::default(), &early, "before that was durable");
        let twice = [voted(0, 2, Some(2)), sent(0, 2, 2), voted(0, 3, None), sent(0, 2, 3)];
        refused(&mut LeaderPerTerm::default(), &twice, "for node 2 and for node 3");
    }
}
