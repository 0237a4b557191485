//! A leader and what it makes of the clocks that its members tell it of.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::*;

const DECADE_MS: i64 = 10 * 365 * 86_400 * 1_000;
const NOW_MS: i64 = 1_700_000_000_000;

/// A node of three, its clocks in hand. Ticks of 10 ms, an election timeout of 1 s.
struct Hands {
    clocks: Clocks,
    log: Arc<LogClock>,
    steady_us: Arc<AtomicU64>,
    wall_off_ms: Arc<AtomicI64>,
    conf_state: ConfState,
    leads: bool,
}

/// A member whose clock is off by so much, and how long its answers take.
type Member = (u64, i64, u64);

impl Hands {
    fn new(voters: &[u64], wall_off_ms: i64) -> Hands {
        let steady_us = Arc::new(AtomicU64::new(7_000_000));
        let wall_off_ms = Arc::new(AtomicI64::new(wall_off_ms));
        let hand = Arc::clone(&steady_us);
        let steady: MonotonicClock =
            Arc::new(move || Duration::from_micros(hand.load(Ordering::Relaxed)));
        let (hand, off) = (Arc::clone(&steady_us), Arc::clone(&wall_off_ms));
        let wall: WallClock = Arc::new(move || truth_ms(&hand, off.load(Ordering::Relaxed)));
        let log = Arc::new(LogClock::new(Arc::clone(&steady)));
        let config = NodeConfig::default();
        let clocks =
            Clocks::new(NodeId(1), GroupId::MAIN, &config, (wall, steady), Arc::clone(&log));
        let conf_state = ConfState {
            voters: voters.iter().copied().map(NodeId).collect(),
            ..ConfState::default()
        };
        Hands { clocks, log, steady_us, wall_off_ms, conf_state, leads: true }
    }

    fn elect(&mut self) {
        let Hands { clocks, conf_state, leads, .. } = self;
        let leader = leads.then_some(NodeId(1));
        clocks.on_leadership(Standing { leads: *leads, leader, conf_state });
    }

    fn change_voters(&mut self, voters: &[u64]) {
        self.conf_state.voters = voters.iter().copied().map(NodeId).collect();
        let Hands { clocks, conf_state, leads, .. } = self;
        let leader = leads.then_some(NodeId(1));
        clocks.on_members(Standing { leads: *leads, leader, conf_state });
    }

    /// A tick, and the answers to the questions that were due.
    fn tick(&mut self, members: &[Member]) -> usize {
        let Hands { clocks, conf_state, leads, steady_us, .. } = self;
        let leader = leads.then_some(NodeId(1));
        let standing = Standing { leads: *leads, leader, conf_state };
        steady_us.fetch_add(10_000, Ordering::Relaxed);
        let questions = clocks.on_tick(standing);
        for (node, off_ms, takes_ms) in members {
            let asked = questions.iter().filter(|question| question.to == NodeId(*node));
            for (asked, _) in asked.filter_map(PeerMessage::as_clock_question) {
                steady_us.fetch_add(takes_ms * 500, Ordering::Relaxed);
                let wall_ms = truth_ms(steady_us, *off_ms);
                steady_us.fetch_add(takes_ms * 500, Ordering::Relaxed);
                clocks.on_answer(NodeId(*node), asked, wall_ms, standing);
            }
        }
        questions.len()
    }

    fn ticks(&mut self, count: usize, members: &[Member]) {
        for _ in 0..count {
            self.tick(members);
        }
    }

    /// How far the log's clock is from the truth.
    fn log_off_ms(&self) -> i64 {
        self.log.now_ms() as i64 - truth_ms(&self.steady_us, 0) as i64
    }

    fn status(&self) -> Arc<ClockStatus> {
        self.clocks.watch().borrow().clone()
    }
}

fn truth_ms(steady_us: &AtomicU64, off_ms: i64) -> u64 {
    (NOW_MS + off_ms) as u64 + steady_us.load(Ordering::Relaxed) / 1_000
}

#[test]
fn a_leader_whose_clock_says_next_decade_does_not_take_the_log_there() {
    let mut hands = Hands::new(&[1, 2, 3], DECADE_MS);
    hands.log.follow(NOW_MS as u64 - 5_000);
    hands.elect();
    hands.tick(&[(2, 0, 4), (3, 10, 4)]);
    assert!(hands.log_off_ms().abs() < 20, "{}", hands.log_off_ms());
    let status = hands.status();
    assert_eq!(status.is_agreed, Some(true));
    assert!((status.offset_ms.expect("known") - DECADE_MS).abs() < 20, "{status:?}");
    assert!(status.alarm.as_ref().expect("one").contains("ahead of what"), "{status:?}");
    assert!(status.members[&NodeId(2)].abs() < 20, "{status:?}");
}

#[test]
fn days_in_which_all_were_down_are_followed_and_so_is_a_voter_that_is_wrong_the_other_way() {
    let mut hands = Hands::new(&[1, 2, 3], 0);
    hands.log.follow(NOW_MS as u64 - 3 * 86_400_000);
    hands.elect();
    assert!(hands.log_off_ms() < -80_000_000, "nobody has answered yet");
    hands.tick(&[(2, 3, 4), (3, -DECADE_MS, 4)]);
    assert!(hands.log_off_ms().abs() < 20, "{}", hands.log_off_ms());
    assert_eq!(hands.status().alarm, None, "this one's clock is right");
    assert!(hands.status().members[&NodeId(3)] < -DECADE_MS / 2);
}

#[test]
fn without_a_majority_only_monotonic_time_passes_and_an_alarm_says_so() {
    let mut hands = Hands::new(&[1, 2, 3], DECADE_MS);
    hands.log.follow(NOW_MS as u64);
    hands.elect();
    let before = hands.log_off_ms();
    hands.ticks(300, &[(2, 0, 4)]);
    assert!((hands.log_off_ms() - before).abs() <= 1, "it went on with the time that passed");
    assert_eq!((hands.status().is_agreed, hands.status().alarm.clone()), (Some(false), None));
    hands.ticks(300, &[(2, 0, 4)]);
    assert!(hands.status().alarm.as_ref().expect("one").contains("do not agree"));
    hands.ticks(101, &[(2, 0, 4), (3, 0, 4)]);
    assert_eq!(hands.status().is_agreed, Some(true), "the third makes a majority");
}

#[test]
fn the_only_voter_follows_its_clock_at_start_and_no_jump_after_that() {
    let mut hands = Hands::new(&[1], 0);
    hands.log.follow(NOW_MS as u64 - 86_400_000);
    hands.elect();
    assert!(hands.log_off_ms().abs() <= 1, "a day of downtime is followed");
    hands.wall_off_ms.store(DECADE_MS, Ordering::Relaxed);
    hands.ticks(500, &[]);
    assert!(hands.log_off_ms().abs() <= 1, "{}", hands.log_off_ms());
    assert!(hands.status().alarm.is_some(), "people should look");
    hands.wall_off_ms.store(-DECADE_MS, Ordering::Relaxed);
    hands.ticks(500, &[]);
    assert!(hands.log_off_ms().abs() <= 1, "{}", hands.log_off_ms());
}

/// The log's clock went at half the speed until it was as wrong as before.
#[test]
fn the_only_voter_goes_on_from_where_an_operator_has_put_the_logs_clock() {
    let mut hands = Hands::new(&[1], -3_600_000);
    hands.elect();
    hands.ticks(200, &[]);
    hands.wall_off_ms.store(0, Ordering::Relaxed);
    assert!((hands.log_off_ms() + 3_600_000).abs() <= 1, "{}", hands.log_off_ms());
    hands.log.put_forward(truth_ms(&hands.steady_us, 0));
    hands.ticks(500, &[]);
    assert!(hands.log_off_ms().abs() <= 2, "{}", hands.log_off_ms());
    assert_eq!(hands.status().alarm, None);
}

#[test]
fn what_was_put_forward_while_others_voted_is_still_ahead_of_what_they_agreed_on() {
    let mut hands = Hands::new(&[1, 2], 0);
    hands.log.follow(truth_ms(&hands.steady_us, 0));
    hands.elect();
    hands.ticks(200, &[(2, 0, 4)]);
    hands.log.put_forward(truth_ms(&hands.steady_us, 3_600_000));
    hands.ticks(200, &[(2, 0, 4)]);
    hands.change_voters(&[1]);
    hands.ticks(200, &[]);
    assert_eq!(hands.status().is_agreed, Some(true));
    let ahead_ms = hands.status().log_ahead_ms.expect("known");
    assert!((3_500_000..3_600_000).contains(&ahead_ms), "{ahead_ms}");
}

/// A voter of three whose clock said next decade when its process started, and is mended, becomes
/// the only voter.
fn shrink_to_one_that_started_wrong() -> Hands {
    let mut hands = Hands::new(&[1, 2, 3], DECADE_MS);
    hands.log.follow(NOW_MS as u64 - 5_000);
    hands.elect();
    hands.tick(&[(2, 0, 4), (3, 0, 4)]);
    assert!(hands.log_off_ms().abs() < 20, "{}", hands.log_off_ms());
    hands.wall_off_ms.store(0, Ordering::Relaxed);
    hands.ticks(200, &[(2, 0, 4), (3, 0, 4)]);
    hands.change_voters(&[1, 2]);
    hands.change_voters(&[1]);
    hands.ticks(200, &[]);
    hands
}

#[test]
fn who_becomes_the_only_voter_goes_on_from_what_was_agreed_and_not_from_its_clock_at_start() {
    let hands = shrink_to_one_that_started_wrong();
    assert!(hands.log_off_ms().abs() < 20, "{}", hands.log_off_ms());
    let status = hands.status();
    assert_eq!((status.is_agreed, status.alarm.clone()), (Some(true), None), "{status:?}");
}

#[cfg(feature = "museum")]
#[test]
fn the_clock_at_start_would_take_the_log_of_the_last_voter_to_the_next_decade() {
    let _on = museum::exhibit(Some(Exhibit::StartClockKept));
    assert!(shrink_to_one_that_started_wrong().log_off_ms() > DECADE_MS / 2);
}

#[test]
fn who_becomes_the_only_voter_without_agreement_goes_on_from_where_the_log_is() {
    let mut hands = Hands::new(&[1, 2], DECADE_MS);
    hands.log.follow(truth_ms(&hands.steady_us, 0) - 5_000);
    hands.elect();
    hands.ticks(200, &[(2, 0, 4)]);
    assert_eq!(hands.status().is_agreed, Some(false), "they are a decade apart");
    hands.change_voters(&[1]);
    hands.ticks(200, &[]);
    assert!((hands.log_off_ms() + 5_000).abs() <= 2, "{}", hands.log_off_ms());
    assert!(hands.status().alarm.as_ref().expect("one").contains("ahead of what"));
}

#[test]
fn who_was_told_by_a_leader_that_its_clock_is_wrong_does_not_follow_it_when_it_is_the_only_voter() {
    let mut hands = Hands::new(&[1, 2], DECADE_MS);
    hands.leads = false;
    let conf_state = hands.conf_state.clone();
    let standing = Standing { leads: false, leader: Some(NodeId(2)), conf_state: &conf_state };
    hands.clocks.on_leadership(standing);
    hands.clocks.on_question(NodeId(2), 77, None, standing);
    hands.log.follow(truth_ms(&hands.steady_us, 0));
    hands.change_voters(&[1]);
    hands.leads = true;
    hands.elect();
    hands.ticks(200, &[]);
    assert!(hands.log_off_ms().abs() <= 2, "{}", hands.log_off_ms());
}

/// Nobody has a say in this process: the others went before it started, after its snapshot.
#[test]
fn who_is_the_only_voter_as_of_its_log_follows_days_in_which_it_was_down() {
    let mut hands = Hands::new(&[1, 2], 0);
    hands.leads = false;
    hands.log.follow(NOW_MS as u64 - 3 * 86_400_000);
    hands.elect();
    hands.ticks(50, &[]);
    hands.change_voters(&[1]);
    hands.leads = true;
    hands.elect();
    assert!(hands.log_off_ms().abs() <= 1, "{}", hands.log_off_ms());
}

#[test]
fn members_are_asked_at_once_after_an_election_and_then_every_election_timeout() {
    let mut hands = Hands::new(&[1, 2, 3], 0);
    hands.conf_state.learners.insert(NodeId(4));
    hands.leads = false;
    hands.elect();
    assert_eq!((0..300).map(|_| hands.tick(&[])).sum::<usize>(), 0, "only leaders ask");
    hands.leads = true;
    hands.elect();
    let asked: Vec<usize> = (0..201).map(|_| hands.tick(&[])).collect();
    let rounds: Vec<usize> = (0..201).filter(|at| asked[*at] > 0).collect();
    assert_eq!((rounds, asked[0]), (vec![0, 100, 200], 3), "learners too, to tell them");
}

#[test]
fn answers_that_are_late_unasked_or_old_count_for_nothing() {
    let mut hands = Hands::new(&[1, 2, 3], DECADE_MS);
    hands.elect();
    hands.tick(&[(3, 0, 4), (2, 0, 1_500)]);
    assert_eq!(hands.status().is_agreed, Some(false), "one took longer than an election timeout");
    let standing = Standing { leads: true, leader: Some(NodeId(1)), conf_state: &hands.conf_state };
    let wall_ms = truth_ms(&hands.steady_us, 0);
    hands.clocks.on_answer(NodeId(2), 1, wall_ms, standing);
    hands.clocks.on_answer(NodeId(9), 1, wall_ms, standing);
    assert_eq!(hands.status().is_agreed, Some(false), "nobody asked for these");
    hands.ticks(100, &[(2, 0, 4)]);
    assert_eq!(hands.status().is_agreed, Some(true));
    hands.ticks(500, &[]);
    assert_eq!(hands.status().is_agreed, Some(false), "what was said long ago says nothing");
}

#[test]
fn a_joint_configuration_needs_both_majorities_and_learners_have_no_say() {
    let mut hands = Hands::new(&[1, 2, 3], DECADE_MS);
    hands.conf_state.learners.insert(NodeId(8));
    hands.conf_state.learners.insert(NodeId(9));
    hands.elect();
    hands.tick(&[(8, 0, 4), (9, 0, 4)]);
    assert_eq!(hands.status().is_agreed, Some(false));
    hands.conf_state.voters_outgoing = [NodeId(1), NodeId(4), NodeId(5)].into();
    hands.elect();
    hands.tick(&[(2, 0, 4), (3, 0, 4)]);
    assert_eq!(hands.status().is_agreed, Some(false), "the outgoing half has not said anything");
    hands.elect();
    hands.tick(&[(2, 0, 4), (3, 0, 4), (4, 0, 4), (5, 0, 4)]);
    assert_eq!(hands.status().is_agreed, Some(true));
    assert!(hands.log_off_ms().abs() < 20);
}

#[test]
fn a_follower_tells_its_clock_and_learns_from_its_leader_how_far_that_is_off() {
    let mut hands = Hands::new(&[1, 2, 3], 90_000);
    hands.leads = false;
    let Hands { clocks, conf_state, .. } = &mut hands;
    let standing = Standing { leads: false, leader: Some(NodeId(2)), conf_state };
    let answer = clocks.on_question(NodeId(2), 77, Some(90_000_000), standing);
    assert_eq!(answer.as_clock_answer(), Some((77, NOW_MS as u64 + 90_000 + 7_000)));
    assert_eq!(answer.to, NodeId(2));
    let told = |clocks: &Clocks| clocks.watch().borrow().offset_ms;
    assert_eq!(told(clocks), Some(90_000));
    assert!(clocks.watch().borrow().alarm.is_some());
    clocks.on_question(NodeId(3), 78, Some(5), standing);
    assert_eq!(told(clocks), Some(90_000), "only the leader's word counts");
    clocks.on_leadership(standing);
    assert_eq!(told(clocks), None);
}

#[test]
fn absurd_times_do_no_harm() {
    let mut hands = Hands::new(&[1, 2, 3], 0);
    hands.log.follow(NOW_MS as u64);
    hands.elect();
    let before = hands.log_off_ms();
    let asked = hands.steady_us.load(Ordering::Relaxed) + 10_000;
    hands.tick(&[]);
    let standing = Standing { leads: true, leader: Some(NodeId(1)), conf_state: &hands.conf_state };
    for wall_ms in [u64::MAX, 0] {
        for node in [2, 3] {
            hands.clocks.on_answer(NodeId(node), asked, wall_ms, standing);
        }
        hands.clocks.on_question(NodeId(2), u64::MAX, Some(i64::MIN), standing);
    }
    assert!((hands.log_off_ms() - before).abs() <= 1 || hands.status().is_agreed == Some(true));
}
