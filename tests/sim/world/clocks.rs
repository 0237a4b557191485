//! What the clocks of the voters allow the log's clock to be.

use raft_host::consensus::Role;
use raft_host::types::{ConfState, NodeId};

use super::World;
use crate::sim::host::State;
use crate::sim::observe::{Fact, Micros};

/// Election timeouts after which no leader goes by what a clock showed before it was put back: four
/// rounds in which an answer counts, on a slow clock, and the longest pause of a leader.
const REMEMBERED: u64 = 20;

impl World {
    /// Shows it. For when a clock jumps, the voters change or a node gets another role: whose
    /// clocks count, and what they show, is another matter then. A survey looks as well, since
    /// clocks drift.
    pub(super) fn note_clocks(&mut self) {
        let now = self.now();
        let since =
            Micros(now.0.saturating_sub(self.plan.shape.node.election_ms * 1_000 * REMEMBERED));
        let shown = |node: NodeId| {
            let slot = self.by_node.get(&node)?;
            Some(self.hosts[slot.0].clock.latest_reading_ms(now, since))
        };
        // A leader goes by the voters that it knows of, and may be the last to know.
        let of_leaders = self.hosts.iter().filter_map(|host| match &host.state {
            State::Up(running) if running.node.role() == Role::Leader => {
                Some(running.node.conf_state())
            }
            _ => None,
        });
        let allowed = of_leaders.chain([&self.conf_state]).filter_map(|state| latest(state, shown));
        if let Some(latest_ms) = allowed.max() {
            self.fact(&Fact::Clocks { latest_ms });
        }
    }
}

/// What more than half of the voters' clocks show, or more; in both halves of a joint configuration.
fn latest(conf_state: &ConfState, shown: impl Fn(NodeId) -> Option<u64>) -> Option<u64> {
    let halves = [&conf_state.voters, &conf_state.voters_outgoing];
    let of_half = |half: &std::collections::BTreeSet<NodeId>| {
        let mut readings: Vec<u64> = half.iter().copied().filter_map(&shown).collect();
        readings.sort_unstable();
        // As many show this much or more as make a majority.
        let minority = readings.len().saturating_sub(1) / 2;
        readings.get(minority).copied()
    };
    halves.into_iter().filter_map(of_half).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest_of(voters: &[u64], outgoing: &[u64], shown: &[u64]) -> Option<u64> {
        let nodes = |of: &[u64]| of.iter().copied().map(NodeId).collect();
        let conf_state = ConfState {
            voters: nodes(voters),
            voters_outgoing: nodes(outgoing),
            ..ConfState::default()
        };
        latest(&conf_state, |node| shown.get(node.0 as usize - 1).copied())
    }

    #[test]
    fn a_majority_shows_it_or_more() {
        assert_eq!(latest_of(&[1], &[], &[7]), Some(7));
        assert_eq!(latest_of(&[1, 2], &[], &[7, 90]), Some(7));
        assert_eq!(latest_of(&[1, 2, 3], &[], &[7, 90, 8]), Some(8));
        assert_eq!(latest_of(&[1, 2, 3, 4], &[], &[7, 90, 8, 91]), Some(8));
        assert_eq!(latest_of(&[], &[], &[]), None);
    }

    /// Two of four clocks are wrong and count for nothing, until a voter is removed whose clock
    /// was right: then they are a majority.
    #[test]
    fn who_is_a_majority_depends_on_who_votes() {
        let shown = [26, 27, 110, 111];
        assert_eq!(latest_of(&[1, 2, 3, 4], &[], &shown), Some(27));
        assert_eq!(latest_of(&[1, 3, 4], &[], &shown), Some(110));
        assert_eq!(
            latest_of(&[1, 3, 4], &[1, 2, 3, 4], &shown),
            Some(27),
            "both halves must agree"
        );
    }
}
