//! Clients that send many commands at once, to sessions that keep little.

use std::collections::BTreeMap;

use super::*;
use crate::machine::sessions::{SessionLimits, Sessions};

/// Draws the same numbers every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A client that acknowledges what it has, loses requests and answers, and sends again.
struct Pipeline {
    session: u64,
    commands: u64,
    /// All below have an answer.
    oldest: u64,
    answered: BTreeMap<u64, Outcome>,
    /// What the machine said the first time, whether the client heard it or not.
    first: BTreeMap<u64, Outcome>,
    refused: u64,
}

const WINDOW: u64 = 12;

impl Pipeline {
    fn data(sequence: u64) -> Vec<u8> {
        // Answers are as long as commands, and more.
        format!("do{sequence}{}", "x".repeat((sequence * 7 % 40) as usize)).into_bytes()
    }

    /// Sends one unanswered command of the window, which may get lost on either way. True when
    /// everything is answered.
    fn step(&mut self, machine: &mut Machine, dice: &mut Dice) -> bool {
        let end = self.commands.min(self.oldest + WINDOW - 1);
        let open: Vec<u64> =
            (self.oldest..=end).filter(|sequence| !self.answered.contains_key(sequence)).collect();
        let Some(sequence) = open.get(dice.below(open.len().max(1) as u64) as usize) else {
            // What it has it would otherwise keep from the others.
            let (session_id, acknowledged) = (self.session, self.commands);
            let keep = Body::KeepSession(stored::KeepSession { session_id, acknowledged });
            let kept = apply(machine, 0, keep).reply;
            assert!(matches!(kept, Reply::SessionKept { .. }), "{kept:?}");
            return true;
        };
        let body = in_session(&Self::data(*sequence), self.session, *sequence, self.oldest - 1);
        let is_lost = dice.below(4) == 0;
        match apply(machine, 0, body).reply {
            Reply::Refused(reason) => {
                assert!(reason.may_pass() && reason.surely_not_applied(), "{sequence}: {reason}");
                assert!(!self.first.contains_key(sequence), "it ran, and is refused now");
                let is_own_fault = matches!(reason, CommandRefused::SessionFull { .. });
                let is_stuck = is_own_fault && *sequence == self.oldest;
                assert!(!is_stuck, "nothing could ever be acknowledged");
                self.refused += 1;
            }
            Reply::Command(Outcome::Duplicate(outcome)) => {
                assert_eq!(self.first.get(sequence), Some(&*outcome));
                self.hear(*sequence, *outcome, is_lost);
            }
            Reply::Command(outcome) => {
                let before = self.first.insert(*sequence, outcome.clone());
                assert_eq!(before, None, "{sequence} ran twice");
                self.hear(*sequence, outcome, is_lost);
            }
            other => panic!("{other:?}"),
        }
        false
    }

    fn hear(&mut self, sequence: u64, outcome: Outcome, is_lost: bool) {
        if !is_lost {
            self.answered.insert(sequence, outcome);
        }
        while self.answered.remove(&self.oldest).is_some() {
            self.oldest += 1;
        }
    }
}

fn pipelines_through(limits: SessionLimits, seed: u64) -> u64 {
    let mut machine = running("test");
    machine.state.sessions = Sessions::new(limits);
    let mut dice = Dice(seed);
    let mut pipelines: Vec<Pipeline> = (0..3)
        .map(|_| {
            apply(&mut machine, 0, open_session(0));
            Pipeline {
                session: machine.applied_index().0,
                commands: 60,
                oldest: 1,
                answered: BTreeMap::new(),
                first: BTreeMap::new(),
                refused: 0,
            }
        })
        .collect();
    for _ in 0..100_000 {
        let ended: Vec<bool> =
            pipelines.iter_mut().map(|pipeline| pipeline.step(&mut machine, &mut dice)).collect();
        if !ended.contains(&false) {
            assert!(pipelines.iter().all(|pipeline| pipeline.first.len() == 60));
            return pipelines.iter().map(|pipeline| pipeline.refused).sum();
        }
        if dice.below(16) == 0 {
            // Another node takes over, from a snapshot.
            let bytes = snapshot(&mut machine);
            machine = restore(&bytes).unwrap();
        }
    }
    panic!("the pipelines do not come to an end");
}

fn tight() -> [SessionLimits; 3] {
    let limits = SessionLimits::default;
    [
        SessionLimits { responses_max: 3, ..limits() },
        SessionLimits { responses_max_bytes: 300, ..limits() },
        // A quarter of it is for commands that come next: more than the longest answer has, which
        // is all that the test's state machine has taken.
        SessionLimits { total_max_bytes: 64 << 10, ..limits() },
    ]
}

#[test]
fn pipelined_commands_run_once_each_however_little_their_session_keeps() {
    for limits in tight() {
        for seed in 1..=20 {
            let refused = pipelines_through(limits.clone(), seed);
            assert!(refused > 0, "{limits:?} was never reached with seed {seed}");
        }
    }
}

/// Otherwise one answer too long could leave no room for any command right after an acknowledged
/// one, and then nobody could acknowledge anything.
#[test]
fn the_room_that_is_set_aside_holds_the_longest_answer() {
    let reserve = SessionLimits::default().total_max_bytes / 4;
    assert!(reserve > Limits::OUTPUT_CEILING_BYTES);
}

#[test]
fn an_idle_session_that_is_kept_alive_takes_commands_and_one_that_is_not_expires() {
    let mut machine = running("test");
    apply(&mut machine, 0, open_session(5_000));
    let id = machine.applied_index().0;
    for time_ms in [4_000, 8_000, 12_000] {
        let keep = Body::KeepSession(stored::KeepSession { session_id: id, acknowledged: 0 });
        assert_eq!(apply(&mut machine, time_ms, keep).reply, Reply::SessionKept { ttl_ms: 5_000 });
    }
    let ran = apply(&mut machine, 16_000, in_session(b"a", id, 1, 0)).reply;
    assert!(matches!(ran, Reply::Command(Outcome::Ok(_))), "{ran:?}");
    let keep = Body::KeepSession(stored::KeepSession { session_id: id, acknowledged: 1 });
    let expired = Reply::Refused(CommandRefused::SessionExpired);
    assert_eq!(apply(&mut machine, 21_000, keep).reply, expired);
}

#[test]
fn a_sequence_number_with_another_command_is_refused_also_after_a_snapshot() {
    let mut machine = running("test");
    apply(&mut machine, 0, open_session(0));
    let id = machine.applied_index().0;
    apply(&mut machine, 0, in_session(b"a", id, 1, 0));
    let reused = Reply::Refused(CommandRefused::SequenceReused { sequence: 1 });
    assert_eq!(apply(&mut machine, 0, in_session(b"b", id, 1, 0)).reply, reused);
    let mut restored = restore(&snapshot(&mut machine)).unwrap();
    assert_eq!(apply(&mut restored, 0, in_session(b"b", id, 1, 0)).reply, reused);
    let again = apply(&mut restored, 0, in_session(b"a", id, 1, 0)).reply;
    assert!(matches!(again, Reply::Command(Outcome::Duplicate(_))), "{again:?}");
}

#[cfg(feature = "museum")]
#[test]
#[should_panic(expected = "sequence number is at or below")]
fn a_session_that_forgets_what_was_not_acknowledged_loses_commands() {
    let _guard = crate::museum::exhibit(Some(crate::museum::Exhibit::ResponsesForgotten));
    let [few, ..] = tight();
    for seed in 1..=20 {
        pipelines_through(few.clone(), seed);
    }
}
