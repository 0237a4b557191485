//! Who proposes digest points and verdicts, and who reports what to whom.
//!
//! ```text
//!   leader    point due ─► DigestPoint (log) ─► own digest, reports ─► DigestVerdict (log)
//!   others                 DigestPoint (log) ─► report to the leader, again until the verdict
//! ```
//!
//! Part of the group: it counts ticks and sees no clock, no machine and no disk. Whoever
//! leads collects, so a verdict outlives its leader: reports are repeated to the next one.

use std::collections::BTreeMap;

use crate::machine::{Vote, truth};
use crate::node::config::NodeConfig;
use crate::types::{ConfState, Index, NodeId, StateDigest};

/// When things are due, in ticks.
#[derive(Clone, Debug)]
struct Pace {
    /// 0: never.
    every_commands: u64,
    /// 0: never.
    every_ticks: u64,
    /// Between two points that nobody asked for.
    pause: u64,
    /// First time between two reports of the same digest; doubles each time.
    report_again: u64,
    /// Then a verdict needs only more than half of the voters, if they make a majority; and a
    /// proposal is taken for lost.
    patience: u64,
    /// Then it needs no majority.
    disputed: u64,
    /// Then a point is given up.
    give_up: u64,
}

/// Reports of a digest are repeated at least so often, as a multiple of the first pause.
const REPORT_PAUSE_MAX: u64 = 64;

/// What the group looks like to this node.
pub(super) struct View<'a> {
    pub(super) me: NodeId,
    pub(super) leads: bool,
    pub(super) leader: Option<NodeId>,
    pub(super) conf_state: &'a ConfState,
    /// This node's state is not trusted: it reports, and proposes nothing.
    pub(super) is_quarantined: bool,
    /// Somebody waits for a point.
    pub(super) is_asked: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Propose a point.
    Point,
    /// Propose a verdict.
    Verdict(Index, Vec<Vote>),
    /// Tell the leader.
    Report(NodeId, Index, StateDigest),
}

/// The reports about one point.
struct Collecting {
    point: Index,
    votes: BTreeMap<NodeId, StateDigest>,
    ticks: u64,
}

struct Report {
    to: NodeId,
    point: Index,
    due_in: u64,
    pause: u64,
}

/// See the module.
pub(super) struct Digests {
    pace: Pace,
    /// What was found here at the newest point that has no verdict yet.
    own: Option<(Index, StateDigest)>,
    /// Newest point with a verdict that decided.
    judged: Index,
    /// A point whose verdict had no majority: one more vote may make one.
    undecided: Option<Index>,
    /// Commands applied since the last point, any other entry counting as one.
    since_point: u64,
    ticks_since_point: u64,
    report: Option<Report>,
    collecting: Option<Collecting>,
    /// Ticks since something was proposed that has not been applied yet.
    proposed: Option<u64>,
}

impl Digests {
    pub(super) fn new(config: &NodeConfig) -> Digests {
        let election = config.election_ticks() as u64;
        let tick_us = (config.tick().as_micros() as u64).max(1);
        let ticks = |ms: u64| ms.saturating_mul(1_000).div_ceil(tick_us);
        let pace = Pace {
            every_commands: config.digest.every_commands,
            every_ticks: ticks(config.digest.every_ms),
            pause: ticks(config.digest.pause_ms),
            report_again: config.heartbeat_ticks() as u64,
            patience: 2 * election,
            disputed: 8 * election,
            give_up: 16 * election,
        };
        Digests {
            pace,
            own: None,
            judged: Index(0),
            undecided: None,
            since_point: 0,
            ticks_since_point: 0,
            report: None,
            collecting: None,
            proposed: None,
        }
    }

    /// Entries were applied; so many, points and verdicts aside, since the last point.
    pub(super) fn on_applied(&mut self, since_point: u64) {
        self.since_point = since_point;
    }

    /// A point was applied.
    pub(super) fn on_taken(&mut self, point: Index, digest: StateDigest) {
        self.own = Some((point, digest));
        self.ticks_since_point = 0;
        self.since_point = 0;
        self.proposed = None;
    }

    /// A verdict was applied. One that decided nothing leaves the question open: who has not
    /// voted, or votes otherwise after a restart, may decide.
    pub(super) fn on_judged(&mut self, point: Index, is_decided: bool) {
        self.proposed = None;
        if !is_decided {
            self.undecided = Some(point);
            return;
        }
        self.undecided = self.undecided.filter(|undecided| *undecided > point);
        self.judged = self.judged.max(point);
        self.own = self.own.filter(|(own, _)| *own > point);
        self.collecting = self.collecting.take().filter(|collecting| collecting.point > point);
    }

    /// The machine was replaced: what the old one found says nothing about it.
    pub(super) fn on_new_state(&mut self) {
        self.own = None;
    }

    /// Another role, term or leader.
    pub(super) fn on_leadership(&mut self) {
        self.report = None;
        self.collecting = None;
        self.proposed = None;
    }

    /// A peer says what it found.
    pub(super) fn on_report(&mut self, from: NodeId, point: Index, digest: StateDigest) {
        if point <= self.judged {
            return;
        }
        match &mut self.collecting {
            Some(collecting) if collecting.point > point => {}
            Some(collecting) if collecting.point == point => {
                collecting.votes.insert(from, digest);
            }
            collecting => {
                let votes = [(from, digest)].into();
                *collecting = Some(Collecting { point, votes, ticks: 0 });
            }
        }
    }

    pub(super) fn on_tick(&mut self) {
        self.ticks_since_point += 1;
        if let Some(report) = &mut self.report {
            report.due_in = report.due_in.saturating_sub(1);
        }
        if let Some(collecting) = &mut self.collecting {
            collecting.ticks += 1;
        }
        self.proposed = self.proposed.map(|ticks| ticks + 1).filter(|t| *t < self.pace.patience);
    }

    /// The next thing to do, until there is none.
    pub(super) fn next(&mut self, view: &View<'_>) -> Option<Wish> {
        if !view.leads {
            // Who does not lead has nothing to collect.
            self.collecting = None;
            return self.report(view);
        }
        if let Some((point, digest)) = self.own {
            self.on_report(view.me, point, digest);
        }
        if self.proposed.is_some() || view.is_quarantined {
            return None;
        }
        let wish = self.verdict(view).or_else(|| self.point(view))?;
        self.proposed = Some(0);
        Some(wish)
    }

    fn report(&mut self, view: &View<'_>) -> Option<Wish> {
        let (point, digest) = self.own?;
        let to = view.leader.filter(|leader| *leader != view.me)?;
        let report = match &mut self.report {
            Some(report) if report.to == to && report.point == point => report,
            report => report.insert(Report { to, point, due_in: 0, pause: self.pace.report_again }),
        };
        if report.due_in > 0 {
            return None;
        }
        report.due_in = report.pause;
        report.pause = (report.pause * 2).min(self.pace.report_again * REPORT_PAUSE_MAX);
        Some(Wish::Report(to, point, digest))
    }

    fn verdict(&self, view: &View<'_>) -> Option<Wish> {
        let Collecting { point, votes, ticks } = self.collecting.as_ref()?;
        let members = view.conf_state.nodes();
        let votes: Vec<Vote> = votes
            .iter()
            .filter(|(node, _)| members.contains(node))
            .map(|(node, digest)| Vote { node: *node, digest: *digest })
            .collect();
        let voters = members.iter().filter(|node| view.conf_state.is_voter(**node)).count();
        let voted = votes.iter().filter(|vote| view.conf_state.is_voter(vote.node)).count();
        let is_complete = votes.len() == members.len();
        // Whoever is missing may be who decides: without a majority it is waited for longer.
        let truth = truth(&votes, view.conf_state);
        let is_late = match truth {
            Some(_) => *ticks >= self.pace.patience,
            None => *ticks >= self.pace.disputed,
        };
        let is_due = match self.undecided {
            // That there is no majority is in the log already.
            Some(undecided) if undecided == *point => truth.is_some(),
            _ => is_complete || (is_late && 2 * voted > voters),
        };
        is_due.then_some(Wish::Verdict(*point, votes))
    }

    /// Whether more about a point may be heard. When all voters have voted and have no majority, a
    /// new point may find what this one cannot.
    fn is_waited_for(&self, collecting: &Collecting, view: &View<'_>) -> bool {
        let members = view.conf_state.nodes();
        let mut voters = members.iter().filter(|node| view.conf_state.is_voter(**node));
        let is_hopeless = self.undecided == Some(collecting.point)
            && voters.all(|node| collecting.votes.contains_key(node));
        collecting.ticks < self.pace.give_up && !is_hopeless
    }

    fn point(&self, view: &View<'_>) -> Option<Wish> {
        // A new point makes what was reported about the one before worthless. Whoever asks waits
        // until that one is judged; all who wait share the next.
        if self.collecting.as_ref().is_some_and(|c| self.is_waited_for(c, view)) {
            return None;
        }
        let Pace { every_commands, every_ticks, pause, .. } = self.pace;
        let by_commands = every_commands > 0
            && self.since_point >= every_commands
            && self.ticks_since_point >= pause;
        let by_time =
            every_ticks > 0 && self.since_point > 0 && self.ticks_since_point >= every_ticks;
        (view.is_asked || by_commands || by_time).then_some(Wish::Point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::DigestConfig;

    const POINT: Index = Index(9);
    const RIGHT: StateDigest = StateDigest([7; 32]);
    const WRONG: StateDigest = StateDigest([9; 32]);

    /// Ticks of 10 ms, election timeouts of 100 ticks.
    fn digests() -> Digests {
        let digest = DigestConfig { every_commands: 5, every_ms: 1_000, pause_ms: 0 };
        Digests::new(&NodeConfig { digest, ..NodeConfig::default() })
    }

    fn three() -> ConfState {
        ConfState { voters: [NodeId(1), NodeId(2), NodeId(3)].into(), ..ConfState::default() }
    }

    fn view(conf_state: &ConfState, leader: u64) -> View<'_> {
        let (me, leader) = (NodeId(1), NodeId(leader));
        View {
            me,
            leads: leader == me,
            leader: Some(leader),
            conf_state,
            is_quarantined: false,
            is_asked: false,
        }
    }

    fn ticks(digests: &mut Digests, count: usize) {
        (0..count).for_each(|_| digests.on_tick());
    }

    fn verdict(of: &[(u64, StateDigest)]) -> Option<Wish> {
        let vote =
            |(node, digest): &(u64, StateDigest)| Vote { node: NodeId(*node), digest: *digest };
        Some(Wish::Verdict(POINT, of.iter().map(vote).collect()))
    }

    #[test]
    fn a_point_is_due_after_so_many_entries_or_after_a_time_in_which_there_were_any() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let mut digests = digests();
        ticks(&mut digests, 1_000);
        assert_eq!(digests.next(&view), None, "nothing was applied");
        digests.on_applied(1);
        assert_eq!(digests.next(&view), Some(Wish::Point), "by time");
        assert_eq!(digests.next(&view), None, "one at a time");
        digests.on_taken(POINT, RIGHT);
        digests.on_judged(POINT, true);
        digests.on_applied(4);
        ticks(&mut digests, 99);
        assert_eq!(digests.next(&view), None);
        digests.on_applied(5);
        assert_eq!(digests.next(&view), Some(Wish::Point), "by entries");
        digests.on_leadership();
        let off = DigestConfig::OFF;
        let mut digests = Digests::new(&NodeConfig { digest: off, ..NodeConfig::default() });
        digests.on_applied(1_000_000);
        ticks(&mut digests, 100_000);
        assert_eq!(digests.next(&view), None);
    }

    #[test]
    fn many_commands_bring_no_point_before_the_pause_is_over_unless_somebody_asks() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let digest = DigestConfig { every_commands: 5, every_ms: 10_000, pause_ms: 1_000 };
        let mut digests = Digests::new(&NodeConfig { digest, ..NodeConfig::default() });
        digests.on_applied(1_000_000);
        ticks(&mut digests, 99);
        assert_eq!(digests.next(&view), None);
        let asked = View { is_asked: true, ..self::view(&conf_state, 1) };
        assert_eq!(digests.next(&asked), Some(Wish::Point));
        digests.on_taken(POINT, RIGHT);
        digests.on_judged(POINT, true);
        digests.on_applied(1_000_000);
        ticks(&mut digests, 99);
        assert_eq!(digests.next(&view), None);
        ticks(&mut digests, 1);
        assert_eq!(digests.next(&view), Some(Wish::Point));
    }

    #[test]
    fn the_leader_waits_for_all_and_after_a_while_for_a_majority() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        assert_eq!(digests.next(&view), None);
        digests.on_report(NodeId(3), POINT, RIGHT);
        digests.on_report(NodeId(4), POINT, RIGHT);
        assert_eq!(digests.next(&view), None, "node 4 is no member");
        ticks(&mut digests, 199);
        assert_eq!(digests.next(&view), None);
        ticks(&mut digests, 1);
        assert_eq!(digests.next(&view), verdict(&[(1, RIGHT), (3, RIGHT)]));
        assert_eq!(digests.next(&view), None, "one at a time");
        digests.on_judged(POINT, true);
        assert_eq!(digests.next(&view), None);
        digests.on_report(NodeId(2), POINT, RIGHT);
        assert_eq!(digests.next(&view), None, "too late");
    }

    #[test]
    fn all_answers_make_a_verdict_at_once_and_a_dispute_waits_for_the_missing_one() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        assert_eq!(digests.next(&view), None);
        digests.on_report(NodeId(2), POINT, WRONG);
        ticks(&mut digests, 799);
        assert_eq!(digests.next(&view), None);
        digests.on_report(NodeId(3), POINT, RIGHT);
        assert_eq!(digests.next(&view), verdict(&[(1, RIGHT), (2, WRONG), (3, RIGHT)]));
        digests.on_leadership();
        digests.on_report(NodeId(2), POINT, WRONG);
        assert_eq!(digests.next(&view), None);
        ticks(&mut digests, 800);
        assert_eq!(digests.next(&view), verdict(&[(1, RIGHT), (2, WRONG)]));
    }

    #[test]
    fn a_verdict_without_a_majority_is_followed_by_one_that_decides_as_soon_as_a_vote_does() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        assert_eq!(digests.next(&view), None);
        digests.on_report(NodeId(2), POINT, WRONG);
        ticks(&mut digests, 800);
        assert_eq!(digests.next(&view), verdict(&[(1, RIGHT), (2, WRONG)]));
        digests.on_judged(POINT, false);
        assert_eq!(digests.next(&view), None, "the same again would say nothing new");
        digests.on_report(NodeId(3), POINT, RIGHT);
        assert_eq!(digests.next(&view), verdict(&[(1, RIGHT), (2, WRONG), (3, RIGHT)]));
        digests.on_judged(POINT, true);
        assert_eq!(digests.next(&view), None);
        let follower = View { leads: false, leader: Some(NodeId(2)), ..view };
        assert_eq!(digests.next(&follower), None, "nor is anything left to report");
    }

    #[test]
    fn when_all_have_voted_without_a_majority_the_next_point_need_not_wait() {
        let conf_state = three();
        let asked = View { is_asked: true, ..view(&conf_state, 1) };
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        digests.on_report(NodeId(2), POINT, WRONG);
        assert_eq!(digests.next(&asked), None);
        digests.on_judged(POINT, false);
        assert_eq!(digests.next(&asked), None, "node 3 may decide");
        let other = StateDigest([8; 32]);
        digests.on_report(NodeId(3), POINT, other);
        assert_eq!(digests.next(&asked), Some(Wish::Point), "it did not");
    }

    #[test]
    fn a_follower_goes_on_reporting_while_nothing_is_decided() {
        let conf_state = three();
        let follower = view(&conf_state, 2);
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        assert!(digests.next(&follower).is_some());
        digests.on_judged(POINT, false);
        digests.on_leadership();
        let report = Some(Wish::Report(NodeId(2), POINT, RIGHT));
        assert_eq!(digests.next(&follower), report, "the next leader hears it, too");
    }

    #[test]
    fn no_new_point_disturbs_one_that_may_still_be_judged() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        assert_eq!(digests.next(&view), None);
        digests.on_applied(1_000);
        ticks(&mut digests, 1_599);
        assert_eq!(digests.next(&view), None, "a minority of one has answered");
        ticks(&mut digests, 1);
        assert_eq!(digests.next(&view), Some(Wish::Point));
    }

    #[test]
    fn who_asks_for_a_point_waits_for_the_verdict_about_the_one_before() {
        let conf_state = three();
        let quiet = view(&conf_state, 1);
        let asked = View { is_asked: true, ..view(&conf_state, 1) };
        let mut digests = digests();
        assert_eq!(digests.next(&asked), Some(Wish::Point), "at once, though nothing is due");
        assert_eq!(digests.next(&asked), None, "one at a time");
        digests.on_taken(POINT, RIGHT);
        assert_eq!(digests.next(&asked), None, "votes about the first one would be lost");
        digests.on_report(NodeId(3), POINT, RIGHT);
        ticks(&mut digests, 199);
        assert_eq!(digests.next(&asked), None);
        ticks(&mut digests, 1);
        assert_eq!(digests.next(&asked), verdict(&[(1, RIGHT), (3, RIGHT)]));
        digests.on_judged(POINT, true);
        assert_eq!(digests.next(&asked), Some(Wish::Point));
        digests.on_taken(Index(11), RIGHT);
        assert_eq!(digests.next(&quiet), None, "nobody asks any more");
    }

    #[test]
    fn a_leader_collects_about_a_point_that_it_knows_only_from_others() {
        let conf_state = three();
        let view = view(&conf_state, 1);
        let mut digests = digests();
        digests.on_report(NodeId(2), POINT, RIGHT);
        digests.on_report(NodeId(3), POINT, RIGHT);
        ticks(&mut digests, 200);
        assert_eq!(digests.next(&view), verdict(&[(2, RIGHT), (3, RIGHT)]));
    }

    #[test]
    fn a_report_is_repeated_ever_more_slowly_until_the_verdict_and_at_once_to_a_new_leader() {
        let conf_state = three();
        let mut digests = digests();
        digests.on_taken(POINT, RIGHT);
        let report = |to| Some(Wish::Report(NodeId(to), POINT, RIGHT));
        assert_eq!(digests.next(&view(&conf_state, 2)), report(2));
        assert_eq!(digests.next(&view(&conf_state, 2)), None);
        let mut sent = 0;
        for _ in 0..640 {
            digests.on_tick();
            sent += usize::from(digests.next(&view(&conf_state, 2)).is_some());
        }
        assert_eq!(sent, 6, "after 10, 30, 70, 150, 310 and 630 ticks");
        digests.on_leadership();
        assert_eq!(digests.next(&view(&conf_state, 3)), report(3));
        digests.on_judged(POINT, true);
        ticks(&mut digests, 10_000);
        assert_eq!(digests.next(&view(&conf_state, 3)), None);
    }

    #[test]
    fn a_quarantined_leader_proposes_nothing_and_a_new_state_has_no_old_digest() {
        let conf_state = three();
        let mut digests = digests();
        digests.on_applied(1_000);
        let view = View { is_quarantined: true, ..view(&conf_state, 1) };
        assert_eq!(digests.next(&view), None);
        digests.on_taken(POINT, WRONG);
        digests.on_new_state();
        let follower = View { leads: false, leader: Some(NodeId(2)), ..view };
        assert_eq!(digests.next(&follower), None);
    }
}
