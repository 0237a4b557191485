//! The property helper finds what a snapshot forgets, and says it in few commands.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft_fsm_sdk::testing::{Random, RestoreProperty};
use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Writer};

/// A sound list of words, and the ways to get its snapshots wrong.
#[derive(Default)]
struct Words<const BUG: u8> {
    words: Vec<String>,
    /// Words that were refused; `FORGETS` leaves it out of the snapshot.
    refused: u64,
    said_at: u64,
}

const SOUND: u8 = 0;
const FORGETS: u8 = 1;
const REORDERS: u8 = 2;
const REFUSES: u8 = 3;
const FORGETS_THE_TIME: u8 = 4;
const FORGETS_IN_EVENTS: u8 = 5;

impl<const BUG: u8> StateMachine for Words<BUG> {
    fn apply(&mut self, context: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        let word = std::str::from_utf8(command).map_err(Rejection::display)?;
        match word {
            "refused" => Ok(self.refused.to_string().into()),
            "refuse" => {
                self.refused += 1;
                Ok(Answer::default())
            }
            "tell" => {
                context.emit("told", self.refused.to_string());
                Ok(Answer::default())
            }
            "pause" => {
                let long_ago = context.time_ms() - self.said_at >= 500;
                self.said_at = context.time_ms();
                Ok(if long_ago { "long" } else { "short" }.into())
            }
            word => {
                self.words.push(word.to_owned());
                Ok(self.words.len().to_string().into())
            }
        }
    }

    fn query(&self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> {
        Ok(self.words.join(" ").into())
    }

    fn snapshot(&self, _: &Context, out: &mut Writer) {
        out.u64(if matches!(BUG, FORGETS | FORGETS_IN_EVENTS) { 0 } else { self.refused });
        out.u64(if BUG == FORGETS_THE_TIME { 0 } else { self.said_at });
        for word in &self.words {
            out.sized(word.as_bytes());
        }
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<Self, Rejection> {
        let (refused, said_at) = (input.u64()?, input.u64()?);
        let mut words = Vec::new();
        while input.remaining() > 0 {
            words.push(String::from_utf8(input.sized()?).map_err(Rejection::display)?);
        }
        if BUG == REORDERS {
            words.sort();
        }
        if BUG == REFUSES && words.len() == 2 {
            return Err("two words are too many".into());
        }
        Ok(Words { words, refused, said_at })
    }
}

fn word(random: &mut Random) -> String {
    match random.below(8) {
        0 => "refuse".to_owned(),
        1 => "refused".to_owned(),
        2 => "tell".to_owned(),
        3 => "pause".to_owned(),
        _ => (*random.pick(&["a", "b", "é", "a longer one"])).to_owned(),
    }
}

fn message(check: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(check)).expect_err("the property does not hold");
    *panic.downcast::<String>().expect("a message that was formatted")
}

fn given<const BUG: u8>(commands: &[&str]) -> String {
    message(|| RestoreProperty::<Words<BUG>>::new().holds_for(commands))
}

#[test]
fn a_sound_machine_passes_with_given_and_generated_commands() {
    let property = RestoreProperty::<Words<SOUND>>::new().query("");
    property.holds_for(["a", "b", "refuse", "refused", "tell", "pause", "\u{0}"]);
    property.holds_for([[0xff_u8, 0xfe], [b'a', b'b']]);
    property.holds_for::<&str>([]);
    property.holds_for_random(30, word);
    property.holds_for_random(30, |random| random.bytes(20));
}

#[test]
fn what_a_snapshot_forgets_is_shown_with_the_fewest_commands() {
    let message = given::<FORGETS>(&["a", "refuse", "b", "pause", "refused", "c"]);
    let expected = "\
restore(snapshot(s)) does not behave as s:
  apply refuse
  snapshot and restore
  apply refused
the answers to the last command differ:
  never restored: ok 1
  restored:       ok 0
(2 of 6 commands are enough)";
    assert_eq!(message, expected);
}

#[test]
fn generated_commands_find_it_too() {
    let message =
        message(|| RestoreProperty::<Words<FORGETS_IN_EVENTS>>::new().holds_for_random(100, word));
    let start =
        "restore(snapshot(s)) does not behave as s:\n  apply refuse\n  snapshot and restore";
    assert!(message.starts_with(start), "{message}");
    assert!(
        message.contains("(2 of 30 commands are enough)\n(found in generated run "),
        "{message}"
    );
}

#[test]
fn events_count_as_behaviour() {
    let message = given::<FORGETS_IN_EVENTS>(&["refuse", "tell"]);
    let end = "\
  apply refuse
  snapshot and restore
  apply tell
the events of the last command differ:
  never restored: told: 1
  restored:       told: 0";
    assert!(message.ends_with(end), "{message}");
}

#[test]
fn snapshots_are_compared_and_so_are_answers_to_queries() {
    let end = "\
  apply b
  apply a
  snapshot and restore
the snapshots differ from byte 20 on:
  never restored: \"b\\x01\\x00\\x00\\x00a\" of 26 bytes
  restored:       \"a\\x01\\x00\\x00\\x00b\" of 26 bytes";
    let found = given::<REORDERS>(&["b", "a"]);
    assert!(found.ends_with(end), "{found}");

    let end = "\
the answers to the query \"\" differ:
  never restored: ok b a
  restored:       ok a b";
    let property = RestoreProperty::<Words<REORDERS>>::new().query("");
    let found = message(|| property.holds_for(["b", "a"]));
    assert!(found.ends_with(end), "{found}");
}

#[test]
fn a_snapshot_that_is_rejected_is_shown_with_the_reason() {
    let message = given::<REFUSES>(&["pause", "b", "a", "c"]);
    let end = "\
  apply b
  apply a
  snapshot and restore
restore rejects the snapshot: two words are too many
(2 of 4 commands are enough)";
    assert!(message.ends_with(end), "{message}");
}

#[test]
fn a_restored_node_lives_at_the_same_index_and_time() {
    // Time counts: the pause before the second command must not be taken for a long one.
    let message = given::<FORGETS_THE_TIME>(&["pause"; 10]);
    assert!(message.contains("never restored: ok short"), "{message}");
    assert!(message.contains("restored:       ok long"), "{message}");
    let stopped = RestoreProperty::<Words<SOUND>>::new().advance_up_to_ms(0);
    stopped.holds_for(["pause", "pause"]);
}

#[test]
fn a_run_longer_than_the_number_of_copies_is_checked_to_its_end() {
    let mut commands = vec!["a"; 300];
    commands.push("refuse");
    commands.extend(["a"; 10]);
    commands.push("refused");
    let message = given::<FORGETS>(&commands);
    assert!(message.contains("never restored: ok 1"), "{message}");
    assert!(message.ends_with("(2 of 312 commands are enough)"), "{message}");
}
