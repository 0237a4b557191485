//! Guests with one defect each, and what the examination says of them.

use super::*;

mod classes;
mod defects;
mod leaks;
mod purity;
mod rules;
mod twins;

/// A guest whose state is the number at address 0: `+` adds one and answers it, an empty query
/// asks for it, anything else is rejected. `{…}` are the places for defects.
const SOUND: &str = r#"(module
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (memory (export "memory") 1)
  (global $restored (mut i32) (i32.const 0))
  (global $asked (mut i32) (i32.const 0))
  (func (export "raft_fsm_abi_v1"))
  {function}
  (func $tell (result i32) (call $write (i32.const 0) (i32.const 4)) (i32.const 0))
  (func (export "apply") (param $len i32) (result i32)
    (i32.store8 (i32.const 8) (i32.const 0))
    (drop (call $read (i32.const 8) (i32.const 1)))
    (if (i32.or (i32.ne (local.get $len) (i32.const 1))
                (i32.ne (i32.load8_u (i32.const 8)) (i32.const 43 (; '+' ;))))
      (then {reject} (return (i32.const 1))))
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    {accept}
    (call $tell))
  (func (export "query") (param $len i32) (result i32)
    (if (local.get $len) (then {bad_query} (return (i32.const 1))))
    {query}
    (call $tell))
  (func (export "snapshot") (result i32) {snapshot} (call $tell))
  (func (export "restore") (param $len i32) (result i32)
    (if (i32.ne (local.get $len) (i32.const 4)) (then {bad_restore} (return (i32.const 1))))
    (drop (call $read (i32.const 0) (i32.const 4)))
    (global.set $restored (i32.const 1))
    {restore}
    (i32.const 0)))"#;

const PLACES: [&str; 8] =
    ["function", "reject", "accept", "query", "bad_query", "snapshot", "bad_restore", "restore"];

/// The sound guest with something put into one place.
fn guest(place: &str, defect: &str) -> Vec<u8> {
    guest_with(&[(place, defect)])
}

/// The same with something in several places.
fn guest_with(defects: &[(&str, &str)]) -> Vec<u8> {
    wat::parse_str(text_with(defects)).unwrap()
}

fn text_with(defects: &[(&str, &str)]) -> String {
    let mut text = SOUND.to_owned();
    for name in PLACES {
        let defect = defects.iter().find(|(place, _)| *place == name).map_or("", |(_, put)| put);
        text = text.replace(&format!("{{{name}}}"), defect);
    }
    text
}

fn script(text: &str) -> Script {
    Script::parse("s.script", text.as_bytes()).unwrap()
}

/// Commands that the sound guest takes, so that random input has something to go on.
fn options() -> Options {
    let answers = "apply +\nok-hex 01000000\napply +\nok-hex 02000000\napply x\nrejected\nquery\n\
                   ok-hex 02000000\n";
    Options { scripts: vec![script(answers)], ..Options::default() }
}

fn told(report: &Report, weight: Weight) -> Vec<&str> {
    let findings = report.sections.iter().flat_map(|section| &section.findings);
    findings.filter(|finding| finding.weight == weight).map(|finding| &*finding.text).collect()
}

/// What is said of a defect: failures, and warnings.
fn examined(place: &str, defect: &str) -> Report {
    examined_with(&[(place, defect)])
}

fn examined_with(defects: &[(&str, &str)]) -> Report {
    let report = run(&guest_with(defects), &options()).unwrap();
    assert_eq!(report.refused, None);
    report
}

/// One failure says what is wrong, and what to do.
fn fails_with(place: &str, defect: &str, words: &[&str]) {
    fails(&examined(place, defect), words);
}

fn fails(report: &Report, words: &[&str]) {
    assert!(!report.is_fit());
    let failures = told(report, Weight::Failure);
    let says = |failure: &&str| words.iter().all(|words| failure.contains(words));
    assert!(failures.iter().any(says), "{words:?}: {failures:?}");
}

#[test]
fn a_sound_guest_is_fit_without_a_warning() {
    let report = examined("", "");
    assert!(report.is_fit(), "{:?}", report.sections);
    assert_eq!(report.count(Weight::Warning), 0, "{:?}", report.sections);
    let slowest = report.peaks.slowest.unwrap();
    assert!(slowest.fuel > 0);
    assert_eq!(report.peaks.snapshot_bytes, 4);
}

#[test]
fn a_rejection_that_changes_something_breaks_a_promise() {
    let change = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))";
    let words = ["was rejected and yet changed the snapshot", "check first, change after"];
    fails_with("reject", change, &words);
}

#[test]
fn a_snapshot_that_does_not_come_back_is_a_failure() {
    let forgetful = "(i32.store (i32.const 0) (i32.const 0))";
    fails_with("restore", forgetful, &["again give other bytes", "write every part of the state"]);
}

#[test]
fn a_restore_that_refuses_its_own_snapshot_is_a_failure() {
    let restore = ["must take its own snapshot", "must read exactly what `snapshot` writes"];
    fails_with("restore", "(return (i32.const 1))", &restore);
    fails_with("restore", "unreachable", &restore);
    let snapshot = ["must give a snapshot", "must write the whole state and return 0"];
    fails_with("snapshot", "(return (i32.const 1))", &snapshot);
}

#[test]
fn a_snapshot_that_only_an_original_gives_is_a_failure() {
    let once = "(if (global.get $restored) (then (return (i32.const 1))))";
    let words = ["after `restore`, `snapshot` ended", "must write the whole state and return 0"];
    fails_with("snapshot", once, &words);
}

#[test]
fn a_copy_that_goes_on_otherwise_without_a_word_is_a_failure() {
    // What only a copy writes shows in its next snapshot, and in no answer.
    let report = examined_with(&[
        ("snapshot", "(call $write (i32.const 20) (i32.const 4))"),
        ("accept", "(if (global.get $restored) (then (i32.store (i32.const 20) (i32.const 1))))"),
        (
            "bad_restore",
            "(if (i32.eq (local.get $len) (i32.const 8)) (then
               (drop (call $read (i32.const 20) (i32.const 4)))
               (drop (call $read (i32.const 0) (i32.const 4)))
               (global.set $restored (i32.const 1))
               (return (i32.const 0))))",
        ),
    ]);
    fails(
        &report,
        &["after the same commands a restored copy has another snapshot", "put all that"],
    );
}

#[test]
fn a_copy_that_answers_otherwise_is_a_failure_of_the_script_as_well() {
    let otherwise = "(if (global.get $restored) (then (call $write (i32.const 0) (i32.const 1))))";
    let words = ["a restored copy answers", "put all that `apply` and `query` look at into"];
    fails_with("accept", otherwise, &words);
    let words = ["s.script:1: after snapshot and restore it answers otherwise"];
    fails_with("accept", otherwise, &words);
}

#[test]
fn traps_on_senseless_input_are_worth_a_look_and_no_more() {
    for place in ["reject", "bad_query", "bad_restore"] {
        let options = Options::default();
        let report = run(&guest(place, "unreachable"), &options).unwrap();
        assert!(report.is_fit(), "{place}: {:?}", report.sections);
        let warnings = told(&report, Weight::Warning);
        assert!(warnings.iter().any(|warning| warning.contains("trap")), "{place}: {warnings:?}");
    }
    // In a script that was given, a trap that it does not expect is a failure.
    fails_with("reject", "unreachable", &["s.script:6: expected rejected"]);
}

#[test]
fn many_traps_do_not_hide_a_failure_behind_them() {
    // More traps than are told, and a difference after a renewal at the end.
    let text = format!("{}apply +\n", "apply x\ntrapped bad_status\n".repeat(30));
    let options = Options { scripts: vec![script(&text)], ..Options::default() };
    let otherwise = "(if (global.get $restored) (then (call $write (i32.const 0) (i32.const 1))))";
    let module = guest("accept", otherwise);
    let lab = Lab::new(&module, &options.limits, CompiledModules::default()).unwrap();
    let played = player::play(&lab, &options.scripts[0]).unwrap();
    assert_eq!(played.violations.len(), 31, "{:?}", played.violations);
    assert!(!played.violations[30].only_a_trap);
    let section = super::told(&options.scripts[0], played);
    assert_eq!(section.findings.len(), TOLD_MAX + 1);
    assert_eq!(section.findings[TOLD_MAX].text, "and 11 more");
}

#[test]
fn commands_are_run_and_the_slowest_of_them_listed() {
    let commands = vec![b"+".to_vec(), b"no".to_vec(), b"+".to_vec()];
    let report = run(&guest("", ""), &Options { commands, ..Options::default() }).unwrap();
    let section = report.sections.iter().find(|section| section.name == "commands").unwrap();
    assert_eq!(section.findings[0].text, "3 commands: 2 ok, 1 rejected, 0 trapped");
    assert_eq!(section.findings[0].details.len(), 3);
}
