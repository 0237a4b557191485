//! A node that reports itself healthy serves, and one that does not run is not healthy.

use super::Invariant;
use crate::sim::observe::{Fact, Micros, NodeSurvey};

/// See the module.
#[derive(Debug, Default)]
pub struct HealthyServes;

fn survey(node: &NodeSurvey) -> Result<(), String> {
    if !node.is_healthy {
        return Ok(());
    }
    match &node.stopped {
        Some(reason) => {
            Err(format!("{} reports itself healthy and has stopped: {reason}", node.slot))
        }
        None if !node.is_up => Err(format!("{} is healthy and does not run", node.slot)),
        None => Ok(()),
    }
}

impl Invariant for HealthyServes {
    fn name(&self) -> &'static str {
        "healthy_serves"
    }

    fn observe(&mut self, now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Probed { slot, asked, is_answered: false, was_healthy: true } => Err(format!(
                "{slot} reported itself healthy for {} ms and left a request without an answer",
                now.0.saturating_sub(asked.0) / 1000
            )),
            Fact::Survey(all) => all.nodes.iter().try_for_each(survey),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, judge, node_survey, refused};
    use super::*;
    use crate::sim::observe::{Phase, Slot};

    fn probed(is_answered: bool, was_healthy: bool) -> Fact<'static> {
        Fact::Probed { slot: Slot(0), asked: Micros(0), is_answered, was_healthy }
    }

    #[test]
    fn silence_is_wrong_only_of_the_healthy() {
        let fine = [probed(true, true), probed(true, false), probed(false, false)];
        assert_eq!(judge(&mut HealthyServes, &fine), Ok(()));
        refused(&mut HealthyServes, &[probed(false, true)], "without an answer");
    }

    #[test]
    fn what_does_not_run_is_not_healthy() {
        let mut down = node_survey(1);
        (down.is_up, down.is_healthy) = (false, false);
        let fine = testing::survey(0, Phase::Faults, vec![node_survey(0), down.clone()]);
        assert_eq!(judge(&mut HealthyServes, &[Fact::Survey(&fine)]), Ok(()));
        down.is_healthy = true;
        let wrong = testing::survey(0, Phase::Faults, vec![node_survey(0), down.clone()]);
        refused(&mut HealthyServes, &[Fact::Survey(&wrong)], "n1 is healthy and does not run");
        (down.is_up, down.stopped) = (true, Some("disk full".to_owned()));
        let stopped = testing::survey(0, Phase::Faults, vec![down]);
        refused(&mut HealthyServes, &[Fact::Survey(&stopped)], "disk full");
    }
}
