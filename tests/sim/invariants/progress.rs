//! Once everything has been mended, the cluster comes to serve and to agree within a bound.

use super::Invariant;
use crate::sim::observe::{End, Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct Progress;

fn seconds(time: u64) -> f64 {
    time as f64 / 1e6
}

fn end(end: &End<'_>) -> Result<(), String> {
    let bound = seconds(end.bound.0);
    let Some(converged) = end.converged else {
        let waited = seconds(end.survey.at.0.saturating_sub(end.mended.0));
        return Err(format!(
            "{waited:.1} s after everything was mended the cluster had not recovered (the bound \
             is {bound:.1} s): {}",
            end.missing
        ));
    };
    let took = converged.0.saturating_sub(end.mended.0);
    if took <= end.bound.0 {
        return Ok(());
    }
    Err(format!("the cluster took {:.1} s to recover, the bound is {bound:.1} s", seconds(took)))
}

impl Invariant for Progress {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::End(over) => end(over),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, judge, refused, survey};
    use super::*;
    use crate::sim::observe::Phase;

    #[test]
    fn a_cluster_recovers_in_time_or_it_is_said_what_was_missing() {
        let survey = survey(0, Phase::Calm, vec![]);
        let mut over = testing::end(&survey);
        over.mended = Micros(100);
        over.converged = Some(Micros(110));
        assert_eq!(judge(&mut Progress, &[Fact::End(&over)]), Ok(()));
        over.converged = Some(Micros(111));
        refused(&mut Progress, &[Fact::End(&over)], "the bound is");
        over.converged = None;
        over.missing = "n2 is not up";
        refused(&mut Progress, &[Fact::End(&over)], "n2 is not up");
    }
}
