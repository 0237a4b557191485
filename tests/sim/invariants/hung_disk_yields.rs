//! A leader whose disk does not answer leaves leading to others, says that it is not healthy, and one
//! of the others serves.

use raft_host::consensus::Role;

use super::Invariant;
use crate::sim::observe::{Fact, Micros, NodeSurvey};

/// See the module.
#[derive(Debug, Default)]
pub struct HungDiskYields;

impl Invariant for HungDiskYields {
    fn name(&self) -> &'static str {
        "hung_disk_yields"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Survey(survey) = fact else { return Ok(()) };
        let leads = |node: &&NodeSurvey| node.must_not_lead && node.role == Some(Role::Leader);
        if let Some(hung) = survey.nodes.iter().find(leads) {
            return Err(format!("the disk of {} hangs, and it leads all the same", hung.slot));
        }
        let Some(hung) = survey.nodes.iter().find(|node| node.must_yield) else { return Ok(()) };
        if hung.is_healthy {
            return Err(format!("the disk of {} hangs, and it reports itself healthy", hung.slot));
        }
        let serves = survey.nodes.iter().any(|node| {
            node.role == Some(Role::Leader) && node.is_healthy && node.term >= hung.term
        });
        if !serves {
            return Err(format!(
                "the disk of {} hangs, and nobody else leads and serves",
                hung.slot
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, node_survey, refused, survey};
    use super::*;
    use crate::sim::observe::{Phase, Survey};

    fn nodes(hung: NodeSurvey, leads: bool) -> [Survey; 1] {
        let other = NodeSurvey { role: leads.then_some(Role::Leader), ..node_survey(1) };
        [survey(1, Phase::Faults, vec![hung, other])]
    }

    fn hung() -> NodeSurvey {
        NodeSurvey { must_yield: true, is_healthy: false, ..node_survey(0) }
    }

    #[test]
    fn somebody_else_leads_and_serves() {
        let all = |surveys: &[Survey; 1]| judge(&mut HungDiskYields, &[Fact::Survey(&surveys[0])]);
        assert_eq!(all(&nodes(hung(), true)), Ok(()));
        let leads = NodeSurvey { role: Some(Role::Leader), must_not_lead: true, ..hung() };
        let leads_on = nodes(leads, false);
        refused(&mut HungDiskYields, &[Fact::Survey(&leads_on[0])], "leads all the same");
        let healthy = nodes(NodeSurvey { is_healthy: true, ..hung() }, true);
        refused(&mut HungDiskYields, &[Fact::Survey(&healthy[0])], "reports itself healthy");
        refused(&mut HungDiskYields, &[Fact::Survey(&nodes(hung(), false)[0])], "nobody else");
        let fine = nodes(NodeSurvey { must_yield: false, ..hung() }, false);
        assert_eq!(all(&fine), Ok(()), "not every hung disk must be yielded for");
    }
}
