//! What is said of two instances that differ. The host sees to it that no guest can make them, so
//! they are made up.

use super::super::lab::Done;
use super::super::player::{Played, compare};
use super::super::script::Level;
use super::super::trials::Tried;
use super::super::twins::{Came, difference};
use super::*;
use crate::fsm::{Call, Context, GuestResult};
use crate::types::{ActorName, ClusterId, Event, Index, Position, StateDigest};

fn came(result: GuestResult) -> Came {
    let context = Context {
        cluster: ClusterId([0; 16]),
        position: Position::first(Index(7)),
        time_ms: 0,
        actor: ActorName::NONE,
    };
    let call = Call { result, fuel_used: 100, events: Vec::new(), pages_dirtied: None };
    let done = Done { call, log: Vec::new(), context };
    Came { done: Some(done), digest: StateDigest([1; 32]) }
}

fn ok() -> Came {
    came(GuestResult::Ok(b"5".to_vec()))
}

fn changed(change: impl FnOnce(&mut Done)) -> Came {
    let mut came = ok();
    change(came.done.as_mut().unwrap());
    came
}

fn event() -> Event {
    Event { topic: b"t".to_vec(), data: b"d".to_vec() }
}

#[test]
fn instances_that_did_the_same_must_not_differ_in_anything() {
    assert_eq!(difference(&ok(), &ok()), None);
    let other_memory = || Came { digest: StateDigest([2; 32]), ..ok() };
    let cases = [
        (
            came(GuestResult::Ok(b"6".to_vec())),
            "came to another outcome: ok \"6\" instead of ok \"5\"",
        ),
        (
            came(GuestResult::Rejected(b"5".to_vec())),
            "came to another outcome: rejected \"5\" instead of ok \"5\"",
        ),
        (
            changed(|done| done.call.events.push(event())),
            "came to another outcome: ok \"5\" and the event(s) \"t\" \"d\" instead of ok \"5\"",
        ),
        (changed(|done| done.call.fuel_used = 101), "used other fuel: 101 instead of 100"),
        (changed(|done| done.log.push((Level::Info, "a line".to_owned()))), "logged other lines"),
        (other_memory(), "has other memory or globals after it"),
        (Came { done: None, ..other_memory() }, "has other memory or globals after it"),
    ];
    for (second, words) in cases {
        assert_eq!(difference(&ok(), &second).as_deref(), Some(words));
    }
}

#[test]
fn the_first_step_that_two_runs_took_otherwise_is_named() {
    let script = script("apply +\nadvance 5\napply +\n# why\napply +\n");
    let mut played = Played { steps: 4, violations: Vec::new() };
    let advanced = || Came { done: None, ..ok() };
    let first = [ok(), advanced(), ok(), ok()];
    let second = [
        ok(),
        advanced(),
        changed(|done| done.call.fuel_used = 99),
        came(GuestResult::Ok(Vec::new())),
    ];
    compare(&script, &first, &first, &mut played);
    assert_eq!(played.violations, []);
    compare(&script, &first, &second, &mut played);
    let [violation] = &played.violations[..] else { panic!("{:?}", played.violations) };
    assert_eq!((violation.line, violation.only_a_trap), (3, false));
    let words = "a second instance that did the same used other fuel: 99 instead of 100";
    assert_eq!(violation.message, words);
}

#[test]
fn a_difference_of_twins_fails_the_determinism() {
    let mut tried = Tried::default();
    tried.note_difference("command \"+\"", &ok(), &ok());
    tried.note_difference("command \"x\"", &ok(), &changed(|done| done.call.fuel_used = 99));
    tried.note_difference("command \"y\"", &ok(), &came(GuestResult::Ok(Vec::new())));
    let sections = tried.told(true, false, 3);
    let [finding] = &sections[0].findings[..] else { panic!("{sections:?}") };
    assert_eq!(finding.weight, Weight::Failure);
    let words = "two instances that did the same differ after command \"x\": the second used other \
                 fuel: 99 instead of 100; decide by the command";
    assert!(finding.text.starts_with(words), "{finding:?}");
}

#[test]
fn a_query_that_a_fork_did_not_undo_fails() {
    let mut tried = Tried::default();
    tried.impure = Some("\"q\"".to_owned());
    let sections = tried.told(true, false, 0);
    let [finding] = &sections[1].findings[..] else { panic!("{sections:?}") };
    assert_eq!(finding.weight, Weight::Failure);
    assert!(finding.text.starts_with("the query \"q\" changed the state"), "{finding:?}");
}
