//! Shadows, on the same entries as rehearsals.

use super::*;

/// What a shadow of a machine finds that executes a log, from `base` on.
fn shadowed(log: &Log, base: u64, module: &Bytes) -> Report {
    shadowed_and_asked(log, base, module, &[])
}

/// The same, and asks queries at the end.
fn shadowed_and_asked(log: &Log, base: u64, module: &Bytes, queries: &[Bytes]) -> Report {
    let on_stack = || {
        let (mut machine, mut shadow) = (new_machine(), None::<Box<Shadow>>);
        for entry in &log.entries {
            let mut answers = Vec::new();
            let mut on_answer = |_, applied| answers.push(applied);
            machine.apply(entry.index, &entry.data, &mut on_answer).expect("applied");
            if let Some(shadow) = &mut shadow {
                let (entry, memory_bytes) = (entry.clone(), machine.guest_memory_bytes());
                shadow.take(Answered { entry, answers, memory_bytes }).expect("executed");
            }
            if entry.index.0 == base {
                let state = machine.capture().expect("copied");
                let module = (module, "next");
                let begun = Shadow::begin(state, &loader(), module, &|| Duration::ZERO);
                match begun.expect("it begins") {
                    Begun::Running(running) => shadow = Some(running),
                    Begun::Refused(report) => return *report,
                }
            }
        }
        let mut shadow = shadow.expect("there is a base");
        let state = machine.capture().expect("copied");
        shadow.ask(state, &loader(), queries).expect("asked");
        shadow.finish(Ok(())).expect("a report")
    };
    on_guest_stack("shadow", on_stack).expect("a thread")
}

#[test]
fn a_shadow_finds_what_a_rehearsal_finds_where_it_was_executed() {
    for changes in [
        &[("work", "(nop) (nop)")][..],
        &[("rounding", "(i64.const 500))")],
        &[("default", "(i64.store (local.get $at) (i64.const 110))")],
        &[("rare", "(unreachable)")],
        &[("work", "(call $spin)")],
        &[("work", "(drop (memory.grow (i32.const 2)))")],
        &[("event", "(nop)")],
        &[("restore", "(i64.store (call $account (i32.const 2)) (i64.const 0))")],
        &[("rounding", "(i64.const 500))"), ("event", "(nop)")],
    ] {
        for base in [3, 5] {
            let mut log = Log::written(&ledger(&[]), &commands());
            let module = ledger(changes);
            let queries = vec![Bytes::from_static(b"b\x02"), Bytes::from_static(b"b\x03")];
            let shadow = shadowed_and_asked(&log, base, &module, &queries);
            let label = "next".to_owned();
            let (way, classes) = (Way::Snapshot, Vec::new());
            let (base, until) = (Index(base), log.last());
            let plan = Plan { base, until, module, label, way, queries, classes };
            let report = carry_out(&mut log, &plan).expect("there is a report");
            assert_eq!(shadow, report, "{changes:?} from {base} on");
        }
    }
}

#[test]
fn a_shadow_asks_both_modules_at_the_end() {
    let log = Log::written(&ledger(&[]), &commands());
    let forgets = ledger(&[("restore", "(i64.store (call $account (i32.const 2)) (i64.const 0))")]);
    let kinds = |queries: &[Bytes]| {
        let report = shadowed_and_asked(&log, log.last().0, &forgets, queries);
        told(&report).into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>()
    };
    let of = |account| Bytes::from(vec![b'b', account]);
    assert_eq!(kinds(&[]), []);
    assert_eq!(kinds(&[of(3)]), []);
    assert_eq!(kinds(&[of(3), of(2)]), [Kind::Query]);
}

#[test]
fn a_shadow_whose_module_does_the_same_is_silent_and_one_that_does_not_take_over_says_why() {
    let log = Log::written(&ledger(&[]), &commands());
    let report = shadowed(&log, 4, &ledger(&[("work", "(nop) (nop)")]));
    assert_eq!((told(&report), report.commands), (vec![], 8));
    assert!(report.verdict(&Allowances::default()).passed());
    // Even the one that is active.
    let report = shadowed(&log, 4, &ledger(&[]));
    assert_eq!((told(&report), report.commands, report.way_back.clone()), (vec![], 8, Ok(())));
    let report = shadowed(&log, 4, &ledger(&[("restore", "(return (i32.const 1))")]));
    assert_eq!((told(&report), report.commands), (vec![(Kind::Migration, "", None)], 0));
}

#[test]
fn a_shadow_compares_commands_that_had_waited_in_their_session() {
    let log = waited();
    let base = log.last().0 - 1;
    let report = shadowed(&log, base, &ledger(&[("rounding", "(i64.const 999))")]));
    let difference = first(&report, Kind::Reply);
    assert_eq!(difference.input, command(b'i', 2, 5), "it waited since before");
    assert_eq!((&*difference.class, difference.position), ("interest", at(base + 1, 3)));
}

#[test]
fn what_an_answer_takes_counts_with_the_entry() {
    let log = Log::written(&ledger(&[]), &commands());
    let entry = log.entries[4].clone();
    let alone = Answered { entry: entry.clone(), answers: Vec::new(), memory_bytes: 0 };
    assert_eq!(alone.cost_bytes(), entry.cost_bytes());
    let mut machine = new_machine();
    let mut answers = Vec::new();
    let on_stack = || {
        for entry in &log.entries[..5] {
            answers.clear();
            let mut on_answer = |_, applied| answers.push(applied);
            machine.apply(entry.index, &entry.data, &mut on_answer).expect("applied");
        }
    };
    on_guest_stack("machine", on_stack).expect("a thread");
    assert_eq!(answers.len(), 2);
    let answers_bytes: u64 = answers.iter().map(Answered::answer_bytes).sum();
    assert!(answers_bytes > 2 * 8, "both answer something");
    let both = Answered { entry, answers, memory_bytes: 0 };
    assert_eq!(both.cost_bytes(), alone.cost_bytes() + answers_bytes);
}
