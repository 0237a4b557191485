//! Raising the cluster's level when all members can follow.
//!
//! ```text
//!   leader   ── ClockQuestion, every election timeout ─►  member
//!            ◄─ LevelOffer (what the member's program offers) ──
//!            all members, learners too, offer more ─► settling time ─► SetLevel in the log
//! ```
//!
//! Whoever does not offer the level that is in force must stop. So a level is raised only while every
//! member has said within the last few rounds that it offers it, no change of the members is under way,
//! and none that adds somebody is let in before the level is known to have changed: who joins then
//! must offer the new one.
//!
//! A leader that has just been elected has heard of nobody, and neither has one whose member has just
//! come back. So what an operator asks for waits, bounded, while only that is in its way
//! ([`Levels::decide`]).
//!
//! Part of the group. Only a leader knows what members offer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::sync::watch;

use crate::consensus::ConfChangeError;
use crate::museum::{self, Exhibit};
use crate::node::answer::{LevelRefused, ProposeFailure, ProposeResult};
use crate::node::config::NodeConfig;
use crate::node::waiter::{ReplySink, Waiter};
use crate::types::{Actor, ConfChange, ConfChangeOp, ConfState, Index, Level, NodeId};

/// What is known of levels beside the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelStatus {
    /// On the leader: what each member offers; who has not said so lately is missing.
    pub offers: BTreeMap<NodeId, Level>,
    /// On the leader: what all members offer above the level in force.
    pub agreed: Option<Level>,
    /// On the leader: when the level is raised to that by itself, if it is; on a new count when somebody
    /// is not heard from meanwhile.
    pub raised_in: Option<Duration>,
}

/// An offer counts for so many rounds of questions.
const ROUNDS_KEPT: u64 = 4;
/// What an operator asks for waits for members that are not heard from, for so many rounds of questions:
/// one may be lost with a connection that is just being made,
const ROUNDS_AWAITED: u64 = 2;
/// but not longer: a command waits for the answer, and has a deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// What an operator has asked for, and waits.
pub(super) struct Asked {
    /// To which level; `None`: as far as all members offer.
    pub(super) wanted: Option<Level>,
    pub(super) actor: Actor,
    pub(super) waiter: Waiter,
    /// In which tick it is decided by what is known then.
    until: u64,
}

/// See the module.
pub(super) struct Levels {
    me: NodeId,
    offered: Level,
    /// `None`: not by itself.
    settle_ticks: Option<u64>,
    tick_length: Duration,
    /// How old an offer may be, in ticks.
    kept_ticks: u64,
    /// How long an operator may wait for what is not known yet, in ticks.
    patience_ticks: u64,
    tick: u64,
    /// In force, as far as this node has applied.
    level: Level,
    /// As of which index it is known.
    raised_at: Index,
    offers: BTreeMap<NodeId, (Level, u64)>,
    /// What all members have offered, and since when without a break.
    agreed: Option<(Level, u64)>,
    /// This leader has proposed to raise it.
    raising: Option<Raising>,
    /// What operators have asked for and is not decided, in order.
    asked: Vec<Asked>,
    status: watch::Sender<Arc<LevelStatus>>,
}

/// What became of a proposal.
enum Raising {
    Proposed(oneshot::Receiver<ProposeResult>),
    /// Whether it comes is not known until this node leads no more.
    Unknown,
}

impl Levels {
    pub(super) fn new(me: NodeId, offered: Level, config: &NodeConfig) -> Levels {
        let tick_us = config.tick().as_micros().max(1) as u64;
        let settle_ticks = config.level_settle_ms.saturating_mul(1_000) / tick_us;
        let round = config.election_ticks() as u64;
        let longest = LONGEST_WAIT.as_micros() as u64 / tick_us;
        Levels {
            me,
            offered,
            settle_ticks: (config.level_settle_ms != 0).then_some(settle_ticks),
            tick_length: config.tick(),
            kept_ticks: ROUNDS_KEPT * round,
            patience_ticks: (ROUNDS_AWAITED * round).min(longest),
            tick: 0,
            level: Level::FIRST,
            raised_at: Index(0),
            offers: BTreeMap::new(),
            agreed: None,
            raising: None,
            asked: Vec::new(),
            status: watch::Sender::default(),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<LevelStatus>> {
        self.status.subscribe()
    }

    /// In force, as far as this node has applied.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn offered(&self) -> Level {
        self.offered
    }

    /// Another role, term or leader: what was heard and proposed counts no more.
    pub(super) fn on_leadership(&mut self) {
        self.offers.clear();
        self.agreed = None;
        self.raising = None;
        self.publish();
    }

    /// What the machine's level is as of an index.
    pub(super) fn on_level(&mut self, level: Level, as_of: Index) {
        self.level = level;
        self.raised_at = as_of;
        self.agreed = self.agreed.filter(|(agreed, _)| *agreed > level);
    }

    /// A member says what its program offers.
    pub(super) fn on_offer(&mut self, from: NodeId, level: Level) {
        self.offers.insert(from, (level, self.tick));
    }

    /// Time passes on a leader with these members, or on somebody else (`None`). Says to which level it
    /// is to be raised now.
    pub(super) fn on_tick(&mut self, members: impl FnOnce() -> Option<ConfState>) -> Option<Level> {
        self.tick += 1;
        // As long as this node offers no higher one, all of them do not.
        let Some(members) = (self.offered > self.level).then(members).flatten() else {
            self.agreed = None;
            self.publish();
            return None;
        };
        let members = members.nodes();
        self.offers.retain(|node, _| members.contains(node));
        let most = self.most_for(members.iter().copied()).filter(|level| *level > self.level);
        self.agreed = match (self.agreed, most) {
            (Some((agreed, since)), Some(most)) => Some((agreed.min(most), since)),
            (None, Some(most)) => Some((most, self.tick)),
            (_, None) => None,
        };
        self.publish();
        let (agreed, since) = self.agreed?;
        let is_settled = self.settle_ticks.is_some_and(|settle| self.tick - since >= settle);
        (is_settled && !self.is_raising()).then_some(agreed)
    }

    /// An operator wants the level raised: it is among those that [`Levels::take_asked`] returns.
    pub(super) fn ask(&mut self, wanted: Option<Level>, actor: Actor, waiter: Waiter) {
        let until = self.tick + self.patience_ticks;
        self.asked.push(Asked { wanted, actor, waiter, until });
    }

    /// What is to be decided, but for those whose callers went away. What cannot be decided yet is to be
    /// given back.
    pub(super) fn take_asked(&mut self) -> Vec<Asked> {
        let mut asked = std::mem::take(&mut self.asked);
        asked.retain(|asked| !asked.waiter.is_gone());
        asked
    }

    /// It waits longer.
    pub(super) fn give_back(&mut self, asked: Asked) {
        self.asked.push(asked);
    }

    /// Whether somebody waits.
    pub(super) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// What becomes of what an operator asks for, with these members; `None` as members: they may be
    /// changing. `None` as the answer: who is not heard from yet may make a difference, or what is under way
    /// may be over soon, and there is time.
    pub(super) fn decide(
        &mut self,
        asked: &Asked,
        members: Option<ConfState>,
    ) -> Option<Result<Level, ProposeFailure>> {
        let has_time = self.tick < asked.until;
        let Some(members) = members.filter(|_| !self.is_raising()) else {
            return (!has_time).then(|| Err(ConfChangeError::InProgress.into()));
        };
        let answer = self.check(asked.wanted, &members);
        let may_change = match (&answer, asked.wanted) {
            (Ok(_), Some(_)) => false,
            (Ok(_), None) => self.may_agree_on_more(&members),
            // Who has said that it offers less is in the way whatever the others say.
            (Err(refused), _) => refused.missing.iter().all(|(_, offered)| offered.is_none()),
        };
        if may_change && has_time {
            return None;
        }
        Some(answer.map_err(|refused| ProposeFailure::Level(Box::new(refused))))
    }

    /// Not all have said what they offer, and those who have offer more than what is in force.
    fn may_agree_on_more(&self, members: &ConfState) -> bool {
        let members = members.nodes();
        let mut heard = members.iter().filter_map(|node| self.fresh(*node));
        self.most_for(members.iter().copied()).is_none() && heard.all(|level| level > self.level)
    }

    /// Whether the level may be raised to `wanted`, or to what all offer, by what is known now.
    fn check(&self, wanted: Option<Level>, members: &ConfState) -> Result<Level, LevelRefused> {
        let members = members.nodes();
        let most = self.most_for(members.iter().copied());
        let wanted = wanted.unwrap_or_else(|| most.map_or(self.level, |most| most.max(self.level)));
        let current = self.level;
        if wanted <= current || most.is_some_and(|most| wanted <= most) {
            return Ok(wanted);
        }
        let missing = members.into_iter().map(|node| (node, self.fresh(node)));
        let missing = missing.filter(|(_, offered)| offered.is_none_or(|offered| offered < wanted));
        Err(LevelRefused { current, wanted, missing: missing.collect() })
    }

    /// Whether a change of the members that was decided on at an index would let somebody in who was
    /// not asked about the level that is coming.
    pub(super) fn is_in_the_way_of(&mut self, change: &ConfChange, decided_at: Index) -> bool {
        let adds = change
            .steps
            .iter()
            .any(|(op, _)| !matches!(op, ConfChangeOp::Remove | ConfChangeOp::Move));
        adds && (self.is_raising() || self.raised_at > decided_at)
    }

    pub(super) fn begin(&mut self) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        self.raising = Some(Raising::Proposed(receiver));
        Waiter::of(ReplySink::One(sender))
    }

    /// Whether this leader's proposal may still come.
    pub(super) fn is_raising(&mut self) -> bool {
        let Some(Raising::Proposed(answer)) = &mut self.raising else {
            return self.raising.is_some();
        };
        match answer.try_recv() {
            Err(TryRecvError::Empty) => return true,
            Ok(Err(failure)) if !failure.surely_not_applied() => {
                self.raising = Some(Raising::Unknown);
            }
            // A waiter always answers.
            Ok(_) | Err(TryRecvError::Closed) => self.raising = None,
        }
        self.raising.is_some()
    }

    fn fresh(&self, node: NodeId) -> Option<Level> {
        if node == self.me {
            return Some(self.offered);
        }
        let (level, heard) = self.offers.get(&node)?;
        (self.tick - heard <= self.kept_ticks).then_some(*level)
    }

    /// The highest level that all of them offer, if all of them have said so lately.
    fn most_for(&self, members: impl Iterator<Item = NodeId>) -> Option<Level> {
        if museum::is_on(Exhibit::LevelRaisedEarly) {
            return Some(self.offered);
        }
        let offers: Option<Vec<Level>> = members.map(|node| self.fresh(node)).collect();
        offers?.into_iter().min()
    }

    fn publish(&self) {
        let offers = || self.offers.keys().filter_map(|node| Some((*node, self.fresh(*node)?)));
        let left = |settle: u64, since: u64| settle.saturating_sub(self.tick - since);
        let ticks =
            self.agreed.zip(self.settle_ticks).map(|((_, since), settle)| left(settle, since));
        let in_seconds = |ticks: u64| {
            let time = self.tick_length.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
            Duration::from_secs(time.as_secs())
        };
        let agreed = self.agreed.map(|(level, _)| level);
        let raised_in = ticks.map(in_seconds);
        self.status.send_if_modified(|status| {
            let known = status.offers.iter().map(|(node, level)| (*node, *level));
            let is_news =
                (status.agreed, status.raised_in) != (agreed, raised_in) || !known.eq(offers());
            if is_news {
                *status = Arc::new(LevelStatus { offers: offers().collect(), agreed, raised_in });
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ProposeFailure;
    use crate::types::Member;

    fn members(ids: &[u64]) -> ConfState {
        let voters = ids.iter().map(|id| NodeId(*id)).collect();
        ConfState { voters, ..ConfState::default() }
    }

    /// Of node 1, which offers level 3; settles after 50 ticks, and keeps offers for 400.
    fn levels() -> Levels {
        let config = NodeConfig { level_settle_ms: 500, ..NodeConfig::default() };
        Levels::new(NodeId(1), Level(3), &config)
    }

    fn after(levels: &mut Levels, ticks: u64, members: &ConfState) -> Option<Level> {
        (0..ticks).filter_map(|_| levels.on_tick(|| Some(members.clone()))).last()
    }

    #[test]
    fn the_level_is_what_all_offer_after_the_settling_time() {
        let (mut levels, three) = (levels(), members(&[1, 2, 3]));
        levels.on_offer(NodeId(2), Level(3));
        assert_eq!(after(&mut levels, 100, &three), None, "one has not said anything");
        levels.on_offer(NodeId(3), Level(2));
        assert_eq!(after(&mut levels, 50, &three), None);
        assert_eq!(levels.status.borrow().agreed, Some(Level(2)));
        assert_eq!(levels.on_tick(|| Some(three.clone())), Some(Level(2)));
        let waiter = levels.begin();
        assert_eq!(after(&mut levels, 100, &three), None, "it is under way");
        drop(waiter);
        // Nobody knows what becomes of it.
        assert_eq!(after(&mut levels, 100, &three), None);
        levels.on_leadership();
        levels.on_level(Level(2), Index(7));
        for node in [2, 3] {
            levels.on_offer(NodeId(node), Level(2));
        }
        assert_eq!(after(&mut levels, 100, &three), None, "all offer what is in force");
    }

    #[test]
    fn an_older_program_or_silence_begins_the_count_anew() {
        let (mut levels, two) = (levels(), members(&[1, 2]));
        levels.on_offer(NodeId(2), Level(3));
        assert_eq!(after(&mut levels, 50, &two), None);
        levels.on_offer(NodeId(2), Level(1));
        assert_eq!(after(&mut levels, 100, &two), None);
        levels.on_offer(NodeId(2), Level(3));
        assert_eq!(after(&mut levels, 50, &two), None);
        assert_eq!(levels.on_tick(|| Some(two.clone())), Some(Level(3)));
        let refused = levels.check(None, &two);
        assert_eq!(refused, Ok(Level(3)));
        // Old offers say nothing of who was restarted meanwhile.
        after(&mut levels, 400, &two);
        assert_eq!(levels.on_tick(|| Some(two.clone())), None);
        let refused = levels.check(Some(Level(2)), &two).expect_err("not heard from");
        assert_eq!(refused.missing, [(NodeId(2), None)]);
        assert!(refused.to_string().contains("node 2 has not said lately"), "{refused}");
    }

    #[test]
    fn zero_means_by_hand_and_by_hand_the_same_rules_hold() {
        let config = NodeConfig { level_settle_ms: 0, ..NodeConfig::default() };
        let (mut levels, two) = (Levels::new(NodeId(1), Level(3), &config), members(&[1, 2]));
        levels.on_offer(NodeId(2), Level(2));
        assert_eq!(after(&mut levels, 100, &two), None);
        assert_eq!(levels.status.borrow().raised_in, None);
        assert_eq!(levels.check(None, &two), Ok(Level(2)));
        assert_eq!(
            levels.check(Some(Level(1)), &two),
            Ok(Level(1)),
            "it is that, or more, already"
        );
        let refused = levels.check(Some(Level(3)), &two).expect_err("node 2 does not offer it");
        assert_eq!(refused.missing, [(NodeId(2), Some(Level(2)))]);
    }

    /// An operator asks, and another one who does not wait for the answer.
    fn ask(levels: &mut Levels, wanted: Option<u32>) -> Asked {
        let ((here, _stays), (gone, _)) = (oneshot::channel(), oneshot::channel());
        for sender in [here, gone] {
            let waiter = Waiter::of(ReplySink::One(sender));
            levels.ask(wanted.map(Level), Actor::Nobody, waiter);
        }
        let mut asked = levels.take_asked();
        assert_eq!(asked.len(), 1, "who went away is forgotten");
        asked.remove(0)
    }

    #[test]
    fn an_operator_waits_for_members_that_have_not_spoken_to_this_leader() {
        let (mut levels, three) = (levels(), members(&[1, 2, 3]));
        for wanted in [None, Some(2)] {
            levels.on_leadership();
            let asked = ask(&mut levels, wanted);
            assert_eq!(levels.decide(&asked, Some(three.clone())), None);
            levels.on_offer(NodeId(2), Level(2));
            assert_eq!(levels.decide(&asked, Some(three.clone())), None, "one has not spoken");
            assert_eq!(levels.decide(&asked, None), None, "members may be changing");
            levels.on_offer(NodeId(3), Level(3));
            assert_eq!(levels.decide(&asked, Some(three.clone())), Some(Ok(Level(2))));
        }
        // What others say makes no difference.
        levels.on_leadership();
        let asked = ask(&mut levels, Some(1));
        assert_eq!(levels.decide(&asked, Some(three.clone())), Some(Ok(Level(1))));
        levels.on_offer(NodeId(2), Level(1));
        let asked = ask(&mut levels, None);
        assert_eq!(levels.decide(&asked, Some(three.clone())), Some(Ok(Level(1))));
        let asked = ask(&mut levels, Some(2));
        let refused = levels.decide(&asked, Some(three.clone())).expect("decided");
        let Err(ProposeFailure::Level(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.missing, [(NodeId(2), Some(Level(1))), (NodeId(3), None)]);
    }

    /// Two rounds of questions, which are 200 ticks.
    #[test]
    fn an_operator_does_not_wait_for_ever() {
        let (mut levels, two) = (levels(), members(&[1, 2]));
        let (named, any) = (ask(&mut levels, Some(2)), ask(&mut levels, None));
        after(&mut levels, 199, &two);
        for asked in [&named, &any] {
            assert_eq!(levels.decide(asked, Some(two.clone())), None);
            assert_eq!(levels.decide(asked, None), None);
        }
        after(&mut levels, 1, &two);
        let refused = levels.decide(&named, Some(two.clone())).expect("decided");
        let Err(ProposeFailure::Level(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.missing, [(NodeId(2), None)]);
        assert_eq!(levels.decide(&any, Some(two.clone())), Some(Ok(Level(1))), "it stays");
        let changing = Some(Err(ConfChangeError::InProgress.into()));
        assert_eq!(levels.decide(&any, None), changing);
        // While elections are slow, a command has a deadline all the same.
        let slow = NodeConfig { election_ms: 60_000, ..NodeConfig::default() };
        assert_eq!(Levels::new(NodeId(1), Level(3), &slow).patience_ticks, 300);
    }

    #[test]
    fn nobody_is_let_in_unasked() {
        let member = |id| Member { id: NodeId(id), address: format!("a:{id}") };
        let add = ConfChange::of(ConfChangeOp::AddLearner, member(2));
        let remove = ConfChange::of(ConfChangeOp::Remove, member(2));
        let mut levels = levels();
        assert!(!levels.is_in_the_way_of(&add, Index(5)));
        let waiter = levels.begin();
        assert!(levels.is_in_the_way_of(&add, Index(5)));
        assert!(!levels.is_in_the_way_of(&remove, Index(5)));
        waiter.answer(Err(ProposeFailure::Stopping));
        assert!(!levels.is_in_the_way_of(&add, Index(5)));
        levels.on_level(Level(2), Index(6));
        assert!(levels.is_in_the_way_of(&add, Index(5)), "decided on before");
        assert!(!levels.is_in_the_way_of(&add, Index(6)));
    }
}
