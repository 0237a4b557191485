//! After faults stop, every quarantine ends within a bound, with a state that agrees.

use super::Invariant;
use super::notes::Map;
use crate::sim::observe::{End, Fact, Micros, Slot};

/// See the module.
#[derive(Debug, Default)]
pub struct QuarantineHeals {
    /// The digest point at which a node differed.
    quarantined: Map<Slot, u64>,
    any: bool,
}

impl QuarantineHeals {
    fn end(&self, end: &End<'_>) -> Result<(), String> {
        let members = end.survey.nodes.iter().filter(|node| node.is_up && node.is_member);
        for node in members {
            if let Some(point) = self.quarantined.get(&node.slot) {
                return Err(format!(
                    "{} is still quarantined at the end, since it differed at index {point}",
                    node.slot
                ));
            }
        }
        let Some((first, index, digest)) = end.digests.first() else { return Ok(()) };
        let differs = |other: &&(Slot, _, _)| other.1 == *index && other.2 != *digest;
        match end.digests.iter().find(differs) {
            Some((other, ..)) if self.any && !end.is_overwhelmed && end.converged.is_some() => {
                Err(format!("{first} and {other} still differ at index {index}, unnoticed"))
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for QuarantineHeals {
    fn name(&self) -> &'static str {
        "quarantine_heals"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Tainted { .. } => self.any = true,
            Fact::Trust { slot, quarantine: Some((_, point)) } => {
                self.quarantined.insert(slot, point.0);
            }
            Fact::Trust { slot, quarantine: None } | Fact::Started { slot, .. } => {
                self.quarantined.remove(&slot);
            }
            Fact::End(end) => return self.end(end),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::Index;

    use super::super::testing::{self, judge, node_survey, refused, survey};
    use super::*;
    use crate::sim::observe::Phase;

    #[test]
    fn a_quarantine_ends_before_the_run_does_and_with_it_what_differs() {
        let survey = survey(0, Phase::Calm, vec![node_survey(0), node_survey(1)]);
        let begins = Fact::Trust { slot: Slot(1), quarantine: Some((Index(4), Index(3))) };
        let ends = Fact::Trust { slot: Slot(1), quarantine: None };
        let mut end = testing::end(&survey);
        let facts = [begins, Fact::End(&end)];
        refused(&mut QuarantineHeals::default(), &facts, "n1 is still quarantined");
        let [begins, _] = facts;
        assert_eq!(
            judge(&mut QuarantineHeals::default(), &[begins, ends, Fact::End(&end)]),
            Ok(())
        );
        let digests = [(Slot(0), Index(9), [1; 16]), (Slot(1), Index(9), [2; 16])];
        end.digests = &digests;
        let tainted = Fact::Tainted { slot: Slot(1), is_tainted: true };
        refused(&mut QuarantineHeals::default(), &[tainted, Fact::End(&end)], "still differ");
    }
}
