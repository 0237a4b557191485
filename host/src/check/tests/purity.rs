//! Queries that change the state, and queries that only seem to.

use super::*;

/// The warning about queries, if there is one.
fn warning(report: &Report) -> Option<&Finding> {
    let findings = report.sections.iter().flat_map(|section| &section.findings);
    let mut warnings = findings.filter(|finding| finding.weight == Weight::Warning);
    warnings.find(|finding| finding.text.contains("a query changes the state"))
}

fn warns(report: &Report, words: &[&str]) {
    assert!(report.is_fit(), "{:?}", report.sections);
    let warning = warning(report).unwrap_or_else(|| panic!("no warning: {:?}", report.sections));
    assert!(warning.text.contains("the host undoes that, so the change is lost"), "{warning:?}");
    assert!(warning.text.contains("change the state in `apply` only"), "{warning:?}");
    for words in words {
        assert!(warning.details[0].contains(words), "{words}: {warning:?}");
    }
}

fn does_not_warn(report: &Report) {
    assert_eq!(warning(report), None);
    let good = told(report, Weight::Good);
    assert!(good.iter().any(|line| line.contains("were let write")), "{good:?}");
}

const COUNT: &str = "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))";

#[test]
fn a_query_that_counts_in_the_state_is_found_though_the_host_undoes_it() {
    let count = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))";
    let tell_first = format!("(drop (call $tell)) {count} (return (i32.const 0))");
    let report = examined("query", &tell_first);
    warns(&report, &["\"\": the snapshot then has other bytes from byte 0 on"]);
    // So is one that does it and then rejects.
    let report = examined("bad_query", count);
    warns(&report, &["the snapshot then has other bytes"]);
}

#[test]
fn a_query_that_a_snapshot_does_not_survive_is_found() {
    let spoil = "(global.set $asked (i32.const 1))";
    let fail = "(if (global.get $asked) (then (return (i32.const 1))))";
    let report = examined_with(&[("query", spoil), ("snapshot", fail)]);
    warns(&report, &["the snapshot then ends: rejected"]);
}

#[test]
fn a_query_that_counts_beside_the_snapshot_is_found_by_its_answer() {
    let tell = "(i32.store (i32.const 16) (global.get $asked))
                (call $write (i32.const 16) (i32.const 4))";
    let report = examined("bad_query", &format!("{COUNT} {tell}"));
    warns(&report, &["the same query is answered rejected", "instead of rejected"]);
}

#[test]
fn a_query_that_changes_the_answer_of_another_is_found() {
    let more = "(if (global.get $asked) (then (call $write (i32.const 0) (i32.const 1))))";
    let report = examined_with(&[("bad_query", COUNT), ("query", more)]);
    warns(&report, &["\"\", after the others: the same query is answered"]);
}

#[test]
fn a_query_that_writes_to_memory_only_is_pure() {
    let scratch = "(drop (memory.grow (i32.const 1)))
                   (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))";
    does_not_warn(&examined("query", &format!("{scratch} {COUNT}")));
}

#[test]
fn a_query_that_traps_changes_nothing() {
    let spoil = "(i32.store (i32.const 0) (i32.const 77)) unreachable";
    does_not_warn(&examined("bad_query", spoil));
}

#[test]
fn a_query_is_not_blamed_for_a_snapshot_that_is_never_the_same() {
    // Every call, queries too, changes what stands for an address, and a copy has another.
    let move_on = "(i32.store (i32.const 20) (i32.add (i32.load (i32.const 20)) (i32.const 1)))";
    let report = examined_with(&[
        ("accept", move_on),
        ("query", move_on),
        ("snapshot", "(call $write (i32.const 20) (i32.const 4))"),
        (
            "bad_restore",
            "(if (i32.eq (local.get $len) (i32.const 8)) (then
               (drop (call $read (i32.const 24) (i32.const 4)))
               (drop (call $read (i32.const 0) (i32.const 4)))
               (return (i32.const 0))))",
        ),
    ]);
    fails(&report, &["again give other bytes", "an address is in the snapshot"]);
    does_not_warn(&report);
}

#[test]
fn a_module_without_queries_is_not_asked() {
    let text = SOUND.replace("(export \"query\")", "");
    let text = PLACES.iter().fold(text, |text, place| text.replace(&format!("{{{place}}}"), ""));
    let report = run(&wat::parse_str(text).unwrap(), &Options::default()).unwrap();
    assert_eq!(report.count(Weight::Warning), 0, "{:?}", report.sections);
    assert!(told(&report, Weight::Good).contains(&"it answers none"));
}
