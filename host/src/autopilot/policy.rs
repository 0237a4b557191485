//! Which dead member is removed, if any: facts in, decision out.
//!
//! A voter goes only if enough others are well for the cluster to be as large as it should be without it, so
//! that a replacement has joined first, and if they are a majority of the voters that stay. The one that was
//! silent for the longest goes first, and one at a time: the next look sees the facts anew.

use std::cmp::Reverse;
use std::time::Duration;

use super::AutopilotConfig;
use crate::types::NodeId;

/// A member, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    /// Which.
    pub node: NodeId,
    /// A voter, or a learner.
    pub votes: bool,
    /// For how long it has said nothing, as far as this leader can tell: not for longer than it has led, or
    /// than the node has been a member.
    pub silent: Duration,
    /// It answers, and its state is not known to differ from its cluster's.
    pub is_well: bool,
}

/// What the leader knows when it decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// All members, the leader among them.
    pub members: Vec<MemberFacts>,
    /// Members or leadership are changing, or the leader is new.
    pub is_changing: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; a dead member stays, if there is one.
    Nothing(Option<Stay>),
    /// Remove this member.
    Remove {
        /// Which.
        node: NodeId,
        /// Whether it votes.
        votes: bool,
        /// Why, for people.
        reason: String,
    },
}

/// A dead member that is not removed, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Who, and for how long it has been silent.
    pub silence: String,
    /// Which.
    pub node: NodeId,
    /// Why it stays. Changes only when that does.
    pub why: String,
}

impl std::fmt::Display for Stay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.silence, self.why)
    }
}

/// Decides about dead members.
pub fn decide(config: &AutopilotConfig, facts: &Facts) -> Decision {
    let patience = Duration::from_millis(config.remove_dead_after_ms);
    if patience.is_zero() || facts.is_changing {
        return Decision::Nothing(None);
    }
    let mut dead: Vec<&MemberFacts> =
        facts.members.iter().filter(|it| !it.is_well && it.silent >= patience).collect();
    dead.sort_by_key(|it| (!it.votes, Reverse(it.silent), it.node));
    let mut stays = None;
    for member in dead {
        match judge(config, facts, member) {
            Ok(reason) => {
                return Decision::Remove { node: member.node, votes: member.votes, reason };
            }
            Err(why) => stays = stays.or(Some(why)),
        }
    }
    Decision::Nothing(stays)
}

/// Why a dead member is removed, or else why it stays.
fn judge(config: &AutopilotConfig, facts: &Facts, dead: &MemberFacts) -> Result<String, Stay> {
    let others = || facts.members.iter().filter(|it| it.votes && it.node != dead.node);
    let (stay, well) = (others().count(), others().filter(|it| it.is_well).count());
    let silence = format!("node {} has been silent for {}", dead.node, span(dead.silent));
    if well * 2 <= stay {
        let why = format!("it stays, because only {well} of the {stay} voters without it are well");
        return Err(Stay { silence, node: dead.node, why });
    }
    if !dead.votes {
        return Ok(format!("{silence}, and it is a learner"));
    }
    let wanted = config.voters;
    if (well as u64) < wanted {
        let are = if well == 1 { "is" } else { "are" };
        let why = format!(
            "it is removed when {wanted} voters are well without it (autopilot.voters), and {well} \
             {are} now: let a replacement join"
        );
        return Err(Stay { silence, node: dead.node, why });
    }
    Ok(format!("{silence}, and {well} voters are well without it (autopilot.voters is {wanted})"))
}

/// In the largest unit that is not 0; it changes seldom.
fn span(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 2 * 86_400 => format!("{} days", s / 86_400),
        s if s >= 2 * 3_600 => format!("{} hours", s / 3_600),
        s if s >= 2 * 60 => format!("{} minutes", s / 60),
        s => format!("{s} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters 1 to 9, learners from 10 on; silent for so many seconds, 0: well.
    fn facts(members: &[(u64, u64)]) -> Facts {
        let member = |(node, silent): &(u64, u64)| MemberFacts {
            node: NodeId(*node),
            votes: *node < 10,
            silent: Duration::from_secs(*silent),
            is_well: *silent == 0,
        };
        Facts { members: members.iter().map(member).collect(), is_changing: false }
    }

    fn decided(members: &[(u64, u64)]) -> Result<u64, Option<String>> {
        let config = AutopilotConfig {
            remove_dead_after_ms: 60_000,
            voters: 3,
            ..AutopilotConfig::default()
        };
        match decide(&config, &facts(members)) {
            Decision::Nothing(why) => Err(why.map(|why| why.to_string())),
            Decision::Remove { node, votes, .. } => {
                assert_eq!(votes, node.0 < 10);
                Ok(node.0)
            }
        }
    }

    #[test]
    fn a_dead_voter_goes_only_when_its_replacement_votes() {
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 0)]), Err(None));
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 59)]), Err(None), "not dead yet");
        let words = "node 3 has been silent for 60 seconds; it is removed when 3 voters are well without it \
                     (autopilot.voters), and 2 are now: let a replacement join";
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 60)]), Err(Some(words.to_owned())));
        // One that has joined and does not vote yet, or is away as well, is no replacement.
        assert!(decided(&[(1, 0), (2, 0), (3, 60), (10, 0)]).is_err_and(|why| why.is_some()));
        assert!(decided(&[(1, 0), (2, 0), (3, 60), (4, 5)]).is_err_and(|why| why.is_some()));
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 60), (4, 0)]), Ok(3));
    }

    #[test]
    fn without_a_healthy_majority_everybody_stays() {
        let words = "node 2 has been silent for 2 minutes; it stays, because only 1 of the 2 voters without \
                     it are well";
        assert_eq!(decided(&[(1, 0), (2, 120), (3, 90)]), Err(Some(words.to_owned())));
        assert!(decided(&[(1, 0), (2, 99), (3, 99), (10, 99)]).is_err(), "learners as well");
        // Three of five are well, which is a majority of those that stay, and as many as there should be.
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 0), (4, 70), (5, 80)]), Ok(5));
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 0), (4, 70)]), Ok(4), "then the other");
        // Three of six are enough voters, and a majority of five.
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 0), (4, 70), (5, 70), (6, 70)]), Ok(4));
        assert!(decided(&[(1, 0), (2, 0), (3, 0), (4, 70), (5, 70), (6, 70), (7, 70)]).is_err());
    }

    #[test]
    fn dead_learners_go_after_the_same_time() {
        assert_eq!(decided(&[(1, 0), (10, 59)]), Err(None));
        assert_eq!(decided(&[(1, 0), (10, 60)]), Ok(10));
        // A voter that has to stay does not keep a learner.
        assert_eq!(decided(&[(1, 0), (2, 0), (3, 60), (10, 60)]), Ok(10));
    }

    #[test]
    fn nothing_is_done_while_things_change_or_when_it_is_off() {
        let members = [(1, 0), (2, 0), (3, 60), (4, 0)];
        let config =
            AutopilotConfig { remove_dead_after_ms: 60_000, voters: 3, ..Default::default() };
        let changing = Facts { is_changing: true, ..facts(&members) };
        assert_eq!(decide(&config, &changing), Decision::Nothing(None));
        assert_eq!(decide(&AutopilotConfig::default(), &facts(&members)), Decision::Nothing(None));
    }
}
