//! Guests that lose memory, and guests that take their time to find their level.

use super::super::leaks::{Mark, has_no_level, is_leak};
use super::*;

/// Takes bytes and never gives them back, except as `{wrap}` says.
const LOSE: &str = r#"
  (global $heap (mut i32) (i32.const 65536))
  (func $lose (param $bytes i32)
    {wrap}
    (global.set $heap (i32.add (global.get $heap) (local.get $bytes)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow {by})))))"#;

fn lose(by: &str, wrap: &str) -> String {
    LOSE.replace("{by}", by).replace("{wrap}", wrap)
}

/// What is said of the memory of a guest that loses so many bytes in some place.
fn warnings(place: &str, bytes: u32, function: &str) -> Vec<String> {
    let defect = format!("(call $lose (i32.const {bytes}))");
    let report = examined_with(&[("function", function), (place, &defect)]);
    assert!(report.is_fit(), "{:?}", report.sections);
    told(&report, Weight::Warning).into_iter().map(str::to_owned).collect()
}

#[test]
fn memory_that_each_rejection_loses_is_found() {
    let warnings = warnings("reject", 128, &lose("(i32.const 1)", ""));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for words in [
        "it grows for as long as rejected commands are repeated",
        "from 384.0 KiB to 8.4 MiB in 65,536 calls, 128 bytes in each",
        "after some 8,385,536 of them it traps at the limit of 1.0 GiB",
        "free what `apply` allocates",
    ] {
        assert!(warnings[0].contains(words), "{words}: {warnings:?}");
    }
}

#[test]
fn memory_that_each_accepted_command_loses_is_found() {
    let warnings = warnings("accept", 64, &lose("(i32.const 1)", ""));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("accepted commands"), "{warnings:?}");
}

#[test]
fn memory_that_doubles_whenever_it_is_full_is_found() {
    let warnings = warnings("reject", 300, &lose("(memory.size)", ""));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("rejected commands"), "{warnings:?}");
}

#[test]
fn a_heap_that_is_collected_at_a_size_is_no_leak() {
    // As with Go: nothing is collected below 4 MiB.
    let collect = "(if (i32.gt_u (global.get $heap) (i32.const 4194304))
                     (then (global.set $heap (i32.const 65536))))";
    for bytes in [64, 1_000, 20_000] {
        let warnings = warnings("reject", bytes, &lose("(i32.const 1)", collect));
        assert_eq!(warnings, [""; 0], "{bytes}");
    }
}

#[test]
fn what_a_query_loses_is_undone_and_no_leak() {
    for place in ["query", "bad_query", "snapshot"] {
        assert_eq!(warnings(place, 4_096, &lose("(i32.const 1)", "")), [""; 0], "{place}");
    }
}

/// Marks at 0, 256, 512… calls with so many pages.
fn marks(pages: &[u64]) -> Vec<Mark> {
    let mark = |(at, pages): (usize, &u64)| Mark {
        calls: if at == 0 { 0 } else { 128 << at },
        memory_bytes: pages << 16,
        snapshot_bytes: 8,
    };
    pages.iter().enumerate().map(mark).collect()
}

/// Whether a leak is found on the way, as long as there is no level.
fn is_found(pages: &[u64]) -> bool {
    let mut steps = (5..=pages.len()).map(|known| marks(&pages[..known]));
    steps.any(|marks| is_leak(&marks) && has_no_level(&marks))
        && (5..=pages.len()).all(|known| has_no_level(&marks(&pages[..known])))
}

#[test]
fn growth_is_a_leak_only_if_it_doubles_with_the_calls() {
    let linear = [18, 19, 20, 22, 26, 34, 50, 82, 146, 274];
    assert!(is_found(&linear));
    let doubling = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    assert!(is_found(&doubling));
    // What the Go sample does when it is called for the first time, from 56 pages on.
    let go = [56, 56, 56, 56, 64, 72, 88, 116, 117, 121];
    assert!(!is_found(&go));
    for few_steps in [[2, 2, 2, 2, 2, 2, 200], [2, 2, 2, 2, 2, 100, 200], [2, 2, 2, 2, 2, 200, 200]]
    {
        assert!(!is_leak(&marks(&few_steps)));
    }
    let flat = [18; 10];
    assert!(!has_no_level(&marks(&flat)));
}

#[test]
fn growth_of_the_state_is_no_leak() {
    let mut marks = marks(&[18, 19, 20, 22, 26, 34, 50, 82, 146, 274]);
    assert!(has_no_level(&marks));
    for mark in &mut marks {
        mark.snapshot_bytes += mark.calls / 8;
    }
    assert!(!has_no_level(&marks));
}
