//! What a plan for a recovery promises to keep is kept, and it promises no more than it can.

use raft_host::recovery::Plan;
use raft_host::types::{Index, LogPosition, Term};

use super::Invariant;
use super::notes::{Map, at};
use crate::sim::observe::{Digest, Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct RecoveryKeeps {
    /// Of every entry that anybody has applied.
    terms: Map<Index, Term>,
    /// Of states that somebody had.
    digests: Map<LogPosition, Digest>,
    /// Of states that a new cluster would have begun with.
    promised: Map<LogPosition, Digest>,
    /// The highest index that a client was told of.
    acknowledged: Index,
}

impl RecoveryKeeps {
    fn committed(&mut self, position: LogPosition) {
        self.terms.entry(position.index).or_insert(position.term);
    }

    fn had(&mut self, position: LogPosition, digest: Digest) -> Result<(), String> {
        self.digests.entry(position).or_insert(digest);
        match self.promised.get(&position) {
            Some(promised) if *promised != digest => Err(format!(
                "a new cluster would have begun with another state than that {}",
                at(position)
            )),
            _ => Ok(()),
        }
    }

    fn planned(&mut self, plan: &Plan, digest: Digest) -> Result<(), String> {
        let (chosen, certain) = (&plan.chosen, plan.certain());
        let who = format!("the plan to go on with node {}", chosen.node);
        if !plan.may_lose && self.acknowledged > certain {
            return Err(format!(
                "{who} loses nothing, keeps all up to {certain}, and a client was told of {}",
                self.acknowledged
            ));
        }
        let is_kept = |index: &&Index| **index <= certain;
        for (index, term) in self.terms.iter().map(|(index, term)| (index, *term)) {
            let kept = Some(index).filter(is_kept).and_then(|index| chosen.term_at(*index));
            if kept.is_some_and(|kept| kept != term) {
                return Err(format!(
                    "{who} keeps all up to {certain}, and has another entry where {index} of term \
                     {term} was committed"
                ));
            }
        }
        let last = LogPosition::from(chosen.last);
        if self.digests.get(&last).is_some_and(|known| *known != digest) {
            return Err(format!("{who} begins with another state than others had {}", at(last)));
        }
        self.promised.insert(last, digest);
        Ok(())
    }
}

impl Invariant for RecoveryKeeps {
    fn name(&self) -> &'static str {
        "recovery_keeps"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Applied(entry) => {
                self.committed(entry.position);
                entry.digest.map_or(Ok(()), |digest| self.had(entry.position, digest))
            }
            Fact::Membership { position, .. } => {
                self.committed(*position);
                Ok(())
            }
            Fact::Acknowledged { position, .. } => {
                self.acknowledged = self.acknowledged.max(position.index);
                Ok(())
            }
            Fact::Planned { plan, digest } => self.planned(plan, *digest),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::recovery::{Place, Survivor};
    use raft_host::types::{ClusterId, ConfState, NodeId, StateDigest};

    use super::super::testing;
    use super::super::testing::{judge, ok, pos, refused};
    use super::*;
    use crate::sim::observe::AppliedEntry;

    fn applied(index: u64, term: u64) -> AppliedEntry {
        testing::applied(0, pos(index, term), "a", ok("a"))
    }

    /// Of node 1 of these voters, with a log of term 1 up to an entry and of term 2 from there on.
    fn plan(voters: &[u64], committed: u64, last: u64) -> Plan {
        let place = |term: u64, index: u64| Place::from(pos(index, term));
        let voters = voters.iter().copied().map(NodeId).collect();
        let chosen = Survivor {
            cluster: ClusterId([1; 16]),
            node: NodeId(1),
            data_dir: String::new(),
            inspected_ms: 0,
            term: Term(2),
            vote: None,
            begins_after: place(1, 1),
            snapshot: place(1, 1),
            committed: place(2, committed),
            last: place(2, last),
            terms: vec![place(1, 2), place(2, 5)],
            members: Vec::new(),
            configurations: vec![ConfState { voters, ..ConfState::default() }],
            module: None,
            digest_committed: StateDigest([0; 32]),
            digest: StateDigest([0; 32]),
            has_evidence: false,
        };
        Plan::of(vec![chosen], true, "p".to_owned(), 0).expect("a plan")
    }

    #[test]
    fn what_clients_were_told_of_is_kept_where_nothing_is_to_be_lost() {
        let (command, reply) = (bytes::Bytes::new(), raft_host::machine::Reply::Nothing);
        let told = |index| Fact::Acknowledged {
            session: None,
            position: pos(index, 2),
            ordinal: 0,
            command: &command,
            reply: &reply,
        };
        let (two, five) = (plan(&[1, 2], 6, 9), plan(&[1, 2, 3, 4, 5], 6, 9));
        let planned = |plan| Fact::Planned { plan, digest: [0; 16] };
        assert_eq!(judge(&mut RecoveryKeeps::default(), &[told(9), planned(&two)]), Ok(()));
        let facts = [told(10), planned(&two)];
        refused(&mut RecoveryKeeps::default(), &facts, "a client was told of 10");
        assert_eq!(judge(&mut RecoveryKeeps::default(), &[told(10), planned(&five)]), Ok(()));
    }

    #[test]
    fn what_is_kept_for_certain_is_what_was_committed() {
        let (one, other) = (applied(6, 2), applied(6, 3));
        let plan = plan(&[1, 2, 3, 4, 5], 6, 9);
        let planned = || Fact::Planned { plan: &plan, digest: [0; 16] };
        assert_eq!(judge(&mut RecoveryKeeps::default(), &[Fact::Applied(&one), planned()]), Ok(()));
        let facts = [Fact::Applied(&other), planned()];
        refused(&mut RecoveryKeeps::default(), &facts, "has another entry where 6 of term 3");
        // Beyond what it is certain of, it may be another one.
        let beyond = applied(8, 3);
        assert_eq!(
            judge(&mut RecoveryKeeps::default(), &[Fact::Applied(&beyond), planned()]),
            Ok(())
        );
    }

    #[test]
    fn the_state_is_that_of_the_cluster_at_the_same_entry() {
        let plan = plan(&[1, 2, 3, 4, 5], 6, 9);
        let planned = || Fact::Planned { plan: &plan, digest: [1; 16] };
        let had = |digest| AppliedEntry { digest: Some(digest), ..applied(9, 2) };
        let (same, wrong) = (had([1; 16]), had([2; 16]));
        for facts in [[Fact::Applied(&same), planned()], [planned(), Fact::Applied(&same)]] {
            assert_eq!(judge(&mut RecoveryKeeps::default(), &facts), Ok(()));
        }
        for facts in [[Fact::Applied(&wrong), planned()], [planned(), Fact::Applied(&wrong)]] {
            refused(&mut RecoveryKeeps::default(), &facts, "another state than");
        }
    }
}
