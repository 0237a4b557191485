//! Whole rehearsals of upgrades that are wrong on purpose. `tests/upgrades/ledger.wat` is what they are made of.

mod shadow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;

use super::*;
use crate::fsm::{Limits, SharedLoader, on_guest_stack};
use crate::machine::{CHUNK_MAX_BYTES, Incumbent, Machine};
use crate::types::{
    ClusterId, ConfState, EntryKind, GroupId, LogPosition, ModuleHash, Position, Term,
};
use crate::wasm::WasmLoader;

const LEDGER: &str = include_str!("../../../tests/upgrades/ledger.wat");

/// The ledger with lines replaced: a mark, and what stands there instead.
fn ledger(changes: &[(&str, &str)]) -> Bytes {
    let mut text = String::new();
    let mut left: BTreeMap<&str, &str> = changes.iter().copied().collect();
    for line in LEDGER.lines() {
        let mark = line.rsplit_once(";;@").map(|(_, mark)| mark);
        match mark.and_then(|mark| left.remove(mark)) {
            Some(other) => text.push_str(other),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    assert!(left.is_empty(), "no such marks: {left:?}");
    wat::parse_str(text).expect("the text is a module").into()
}

fn command(op: u8, account: u8, amount: u16) -> Bytes {
    let [low, high] = amount.to_le_bytes();
    vec![op, account, low, high].into()
}

/// A log of one node, and nothing but that.
struct Log {
    entries: Vec<LogEntry>,
}

impl Log {
    /// With the ledger active at index 3; commands begin at index 4, some of them two to an entry.
    fn written(module: &Bytes, commands: &[Bytes]) -> Log {
        let mut log = Log { entries: Vec::new() };
        assert!(module.len() < CHUNK_MAX_BYTES);
        log.push(None);
        log.activate(module, None);
        for commands in commands.chunks(2) {
            log.push(Some(batch(commands)));
        }
        log
    }

    fn activate(&mut self, module: &Bytes, replaces: Option<stored::Incumbent>) {
        let module_hash = Bytes::from(ModuleHash::of(module).0.to_vec());
        self.push(Some(Body::ModuleChunk(stored::ModuleChunk {
            module_hash: module_hash.clone(),
            total_bytes: module.len() as u64,
            offset: 0,
            data: module.clone(),
            ..Default::default()
        })));
        let label = "ledger".to_owned();
        self.push(Some(Body::ActivateModule(stored::ActivateModule {
            module_hash,
            label,
            replaces,
            ..Default::default()
        })));
    }

    fn push(&mut self, body: Option<Body>) {
        let index = self.entries.len() as u64 + 1;
        let data = match body {
            None => Bytes::new(),
            Some(body) => {
                let time_ms = 1_000 * index;
                stored::Entry { time_ms, actor: None, body: Some(body) }.encode_to_vec().into()
            }
        };
        let (index, term) = (Index(index), Term(1));
        let kind = EntryKind::Normal;
        self.entries.push(LogEntry { index, term, kind, data, context: Bytes::new() });
    }

    fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }
}

impl Entries for Log {
    fn entry(&mut self, index: Index) -> Result<LogEntry, RehearsalError> {
        Ok(self.entries[index.0 as usize - 1].clone())
    }
}

fn batch(commands: &[Bytes]) -> Body {
    let commands = commands.iter().cloned();
    let commands = commands.map(|data| stored::Command { data, session: None, actor: None });
    Body::Batch(stored::Batch { commands: commands.collect() })
}

/// What the log of most tests holds, from index 4 on.
fn commands() -> Vec<Bytes> {
    vec![
        command(b'o', 1, 0),   // 4.0: 100
        command(b'd', 2, 333), // 4.1
        command(b'd', 3, 5),   // 5.0
        command(b'i', 2, 5),   // 5.1: 1.665
        command(b'l', 0, 0),   // 6.0
        command(b'w', 3, 9),   // 6.1: rejected
        command(b'c', 1, 0),   // 7.0
        command(b'd', 3, 1),   // 7.1
        command(b'o', 4, 0),   // 8.0
        command(b'i', 2, 20),  // 8.1
    ]
}

fn loader() -> SharedLoader {
    Arc::new(WasmLoader::new(None).expect("this host runs guests"))
}

fn new_machine() -> Machine {
    let mut machine = Machine::new(ClusterId([7; 16]), GroupId::MAIN, Limits::default(), loader());
    machine.bootstrap_members(Index(0), [], ConfState::default());
    machine
}

/// Rehearses on a log whose commands from `base` on are executed by both.
fn try_out(log: &mut Log, module: &Bytes, base: u64) -> Result<Report, RehearsalError> {
    let plan = Plan {
        base: Index(base),
        until: log.last(),
        module: module.clone(),
        label: "next".to_owned(),
        queries: vec![Bytes::from_static(b"b\x02"), Bytes::from_static(b"b\x05")],
        ..Plan::default()
    };
    carry_out(log, &plan)
}

fn carry_out(log: &mut Log, plan: &Plan) -> Result<Report, RehearsalError> {
    let on_stack = || rehearse(new_machine(), log, plan, &|| Duration::ZERO, &mut |_| true);
    on_guest_stack("rehearsal", on_stack).expect("a thread")
}

/// The report on an upgrade of the ledger, after `base`.
fn upgrade(base: u64, changes: &[(&str, &str)]) -> Report {
    let mut log = Log::written(&ledger(&[]), &commands());
    try_out(&mut log, &ledger(changes), base).expect("there is a report")
}

fn told(report: &Report) -> Vec<(Kind, &str, Option<String>)> {
    let told = report.differences.iter();
    told.map(|it| (it.kind, &*it.class, it.position.map(|at| at.to_string()))).collect()
}

fn first(report: &Report, kind: Kind) -> &Difference {
    let found = report.differences.iter().find(|difference| difference.kind == kind);
    found.unwrap_or_else(|| panic!("there is no {} in {report:?}", kind.name()))
}

fn refused(report: &Report, allow: &[&str]) -> u64 {
    report.verdict(&Allowances::parse(allow).expect("well-formed")).refused
}

fn at(index: u64, ordinal: u32) -> Option<Position> {
    Some(Position { index: Index(index), ordinal })
}

#[test]
fn a_module_that_does_the_same_passes() {
    // Not the same module, but one that does the same.
    let report = upgrade(3, &[("work", "(nop) (nop)")]);
    assert_eq!(told(&report), []);
    assert_eq!(report.commands, 10);
    assert_eq!((report.snapshot_before_bytes, report.snapshot_bytes), (136, 136));
    assert_eq!(report.way_back, Ok(()));
    assert!(report.names_classes && report.fuel.median_permille >= 1_000);
    assert_eq!(report.memory.permille, 1_000);
    assert!(report.verdict(&Allowances::default()).passed());
}

#[test]
fn another_rounding_is_found_at_the_first_command_that_rounds() {
    let report = upgrade(3, &[("rounding", "(i64.const 500))")]);
    let difference = first(&report, Kind::Reply);
    assert_eq!((difference.position, &*difference.class), (at(5, 1), "interest"));
    assert_eq!(difference.input, command(b'i', 2, 5));
    assert_eq!(
        (&*difference.old, &*difference.new),
        ("ok: 0x4e01000000000000", "ok: 0x4f01000000000000")
    );
    // The query sees it as well.
    assert_eq!(first(&report, Kind::Query).input, Bytes::from_static(b"b\x02"));
}

/// Up to the first command that has another answer, after index 3.
fn up_to_first(changes: &[(&str, &str)]) -> (Report, Option<First>) {
    let mut log = Log::written(&ledger(&[]), &commands());
    let plan = Plan {
        base: Index(3),
        until: log.last(),
        module: ledger(changes),
        label: "next".to_owned(),
        way: Way::Snapshot,
        queries: Vec::new(),
        classes: Vec::new(),
    };
    let on_stack =
        || first_difference(new_machine(), &mut log, &plan, &|| Duration::ZERO, &mut |_| true);
    on_guest_stack("rehearsal", on_stack).expect("a thread").expect("there is a report")
}

#[test]
fn a_search_for_the_first_difference_ends_there_in_the_midst_of_its_entry() {
    // Without the event both deposits differ, at 4.1 and 5.0, and the one at 7.1.
    let (report, found) = up_to_first(&[("event", "(nop)")]);
    let found = found.expect("one differs");
    assert_eq!(Some(found.position), at(4, 1));
    assert_eq!(found.command.map(|held| held.data), Some(command(b'd', 2, 333)));
    assert!(found.old_fuel > found.new_fuel && found.new_fuel > 0, "it does less");
    assert_eq!((report.commands, report.until), (2, Index(4)));
    assert_eq!(told(&report), [(Kind::Event, "deposit", Some("4.1".to_owned()))]);
    assert_eq!(report.counts, [Count { kind: Kind::Event, class: "deposit".to_owned(), count: 1 }]);
    // The first of two in the same entry.
    let (report, found) = up_to_first(&[("default", "(i64.store (local.get $at) (i64.const 7))")]);
    assert_eq!(found.map(|first| Some(first.position)), Some(at(4, 0)));
    assert_eq!(report.commands, 1);
}

#[test]
fn a_search_that_finds_no_command_reports_the_whole_rehearsal() {
    let (report, found) = up_to_first(&[("work", "(nop) (nop)")]);
    assert_eq!((found, told(&report)), (None, vec![]));
    assert_eq!((report.commands, report.way_back.clone()), (10, Ok(())));
    let counts =
        "(i64.store (i32.const 0x480) (i64.add (i64.load (i32.const 0x480)) (i64.const 1)))";
    let (report, found) = up_to_first(&[("restore", counts)]);
    assert_eq!((found, told(&report)), (None, vec![(Kind::Migration, "", None)]));
    let (report, found) = up_to_first(&[("restore", "(return (i32.const 1))")]);
    assert_eq!((found, told(&report)), (None, vec![(Kind::Migration, "", None)]));
}

#[test]
fn a_changed_default_is_found_where_it_is_used() {
    let report = upgrade(3, &[("default", "(i64.store (local.get $at) (i64.const 110))")]);
    assert_eq!(first(&report, Kind::Reply).position, at(4, 0));
}

#[test]
fn a_field_that_the_migration_forgot_is_found_where_it_is_missed() {
    let forgets = [("restore", "(i64.store (call $account (i32.const 2)) (i64.const 0))")];
    let report = upgrade(4, &forgets);
    let difference = first(&report, Kind::Reply);
    assert_eq!((difference.position, &*difference.class), (at(5, 1), "interest"));
    // Where nothing asks for it, its own snapshot shows it.
    let mut log = Log::written(&ledger(&[]), &commands());
    let plan = Plan {
        base: Index(4),
        until: Index(4),
        module: ledger(&forgets),
        label: String::new(),
        queries: vec![Bytes::from_static(b"b\x02")],
        ..Plan::default()
    };
    let report = carry_out(&mut log, &plan).expect("there is a report");
    assert_eq!(told(&report), [(Kind::Query, "", None)]);
}

#[test]
fn an_order_that_reaches_an_answer_is_found() {
    let other = "(local.set $key (i32.sub (i32.const 15) (local.get $n)))";
    let report = upgrade(3, &[("order", other)]);
    assert_eq!(told(&report), [(Kind::Reply, "", Some("6".to_owned()))]);
}

#[test]
fn a_trap_on_one_rare_command_is_found() {
    let report = upgrade(3, &[("rare", "(unreachable)")]);
    let difference = first(&report, Kind::Trap);
    assert_eq!(difference.position, at(7, 0));
    assert!(difference.new.contains("unreachable"), "{difference:?}");
    assert_eq!(difference.old, "ok");
}

#[test]
fn fifty_times_the_fuel_is_found_with_the_worst_command() {
    let report = upgrade(3, &[("work", "(call $spin)")]);
    let difference = first(&report, Kind::Fuel);
    assert_eq!(difference.position, report.fuel.worst_at);
    assert!(report.fuel.median_permille >= 50_000, "{:?}", report.fuel);
    assert_eq!(refused(&report, &["fuel:2x"]), 1);
    assert_eq!(refused(&report, &["fuel:1000x"]), 0);
    assert_eq!(told(&report).len(), 1);
}

#[test]
fn a_leak_is_found() {
    let report = upgrade(3, &[("work", "(drop (memory.grow (i32.const 2)))")]);
    let memory = first(&report, Kind::Memory);
    assert_eq!(memory.position, None);
    assert!(memory.new.contains("1310720 more"), "{memory:?}");
    assert_eq!(refused(&report, &["memory:5x", "fuel"]), 1);
    assert_eq!(refused(&report, &["memory", "fuel"]), 0);
}

#[test]
fn a_lost_event_is_found() {
    let report = upgrade(3, &[("event", "(nop)")]);
    let difference = first(&report, Kind::Event);
    assert_eq!((difference.position, &*difference.class), (at(4, 1), "deposit"));
    assert_eq!(difference.new, "no events");
    assert_eq!(report.counts, [Count { kind: Kind::Event, class: "deposit".to_owned(), count: 3 }]);
}

#[test]
fn a_changed_answer_to_a_query_is_found() {
    let other = "(i32.store8 (i32.const 1) (i32.const 3))";
    let report = upgrade(3, &[("query", other)]);
    assert_eq!(told(&report), [(Kind::Query, "", None), (Kind::Query, "", None)]);
}

#[test]
fn a_restore_that_is_not_idempotent_is_found() {
    let counts =
        "(i64.store (i32.const 0x480) (i64.add (i64.load (i32.const 0x480)) (i64.const 1)))";
    let report = upgrade(3, &[("restore", counts)]);
    assert_eq!(told(&report), [(Kind::Migration, "", None)]);
    let difference = first(&report, Kind::Migration);
    assert!(difference.new.contains("from byte 128 on"), "{difference:?}");
}

#[test]
fn a_rejection_that_is_none_any_more_is_found() {
    let report = upgrade(
        3,
        &[("work", "(if (i32.eq (local.get $op) (i32.const 119)) (then (return (i32.const 0))))")],
    );
    let difference = first(&report, Kind::Rejected);
    assert_eq!(difference.position, at(6, 1));
    assert_eq!((&*difference.old, &*difference.new), ("rejected: too little", "ok"));
}

#[test]
fn what_is_allowed_is_no_difference_and_nothing_else_is_allowed_with_it() {
    let report = upgrade(3, &[("rounding", "(i64.const 500))")]);
    let allowances =
        Allowances::parse(&["reply:interest", "query", "fuel:3x"]).expect("well-formed");
    let verdict = report.verdict(&allowances);
    assert!(verdict.passed(), "{report:?}");
    assert_eq!((verdict.refused, verdict.allowed), (0, 3));
    assert_eq!(verdict.unmatched, ["fuel:3x allows nothing: there was no such difference"]);
    assert_eq!(refused(&report, &["reply:deposit", "query"]), 2);
    let both = [("rounding", "(i64.const 500))"), ("event", "(nop)")];
    assert_eq!(refused(&upgrade(3, &both), &["reply:interest", "query"]), 3);
}

#[test]
fn a_module_that_does_not_take_over_is_a_difference_and_one_that_is_none_an_error() {
    let report = upgrade(3, &[("restore", "(return (i32.const 1))")]);
    assert_eq!(told(&report), [(Kind::Migration, "", None)]);
    assert!(first(&report, Kind::Migration).new.contains("`restore` of the new module refused"));
    assert_eq!(report.commands, 0);
    let mut log = Log::written(&ledger(&[]), &commands());
    let error = try_out(&mut log, &Bytes::from_static(b"no module"), 3).expect_err("refused");
    assert!(matches!(error, RehearsalError::Refused(_)), "{error}");
}

#[test]
fn reports_on_the_same_range_are_the_same_and_on_another_range_others() {
    let changes = [("rounding", "(i64.const 500))")];
    let (one, other) = (upgrade(3, &changes), upgrade(3, &changes));
    assert_eq!(one.hash(), other.hash());
    assert_ne!(one.hash(), upgrade(4, &changes).hash());
    let slower = Report { switch: Duration::from_secs(9), ..one.clone() };
    assert_eq!(slower.hash(), one.hash());
}

#[test]
fn a_range_that_another_module_executed_is_refused_with_where_it_may_begin() {
    let (before, active) =
        (ledger(&[("default", "(i64.store (local.get $at) (i64.const 7))")]), ledger(&[]));
    let mut log = Log::written(&before, &commands());
    let hash = ModuleHash::of(&before).0.to_vec().into();
    log.activate(&active, Some(stored::Incumbent { module_hash: hash, activated_at: 3 }));
    let since = log.last();
    log.push(Some(batch(&commands())));
    let next = ledger(&[("work", "(nop) (nop)")]);
    let error = try_out(&mut log, &next, 5).expect_err("another module");
    assert!(matches!(error, RehearsalError::ActiveSince { since: found } if found == since));
    let report = try_out(&mut log, &next, since.0).expect("there is a report");
    assert_eq!(told(&report), []);
    assert_eq!(report.replaces.activated_at, since);
}

/// Rehearses all after `base`.
fn planned(module: &Bytes, base: u64, with: Plan) -> Result<Report, RehearsalError> {
    let mut log = Log::written(&with.module, &commands());
    let until = log.last();
    carry_out(&mut log, &Plan { base: Index(base), until, module: module.clone(), ..with })
}

#[test]
fn a_class_that_no_command_is_of_is_refused_before_anything_is_executed() {
    let of = |old: &Bytes, allow: &[&str], base| {
        let classes = Allowances::parse(allow).expect("well-formed").classes();
        planned(&ledger(&[]), base, Plan { module: old.clone(), classes, ..Plan::default() })
    };
    let knows = ledger(&[("rounding", "(i64.const 500))")]);
    let known = ["trap", "reply:interest", "event:deposit", "fuel:3x"];
    assert_eq!(of(&knows, &known, 3).expect("there is a report").commands, 10);
    let error = of(&knows, &["reply:interest", "reply:intrest"], 3).expect_err("a slip");
    assert_eq!(
        error.to_string(),
        "the active module names no command of the range \"intrest\": its classes there are deposit, interest"
    );
    // Where there are no commands, nothing says that it is wrong.
    assert_eq!(of(&knows, &["reply:intrest"], 8).expect("there is a report").commands, 0);
    let silent = ledger(&[("classify", "(return (i32.const 0))")]);
    let error = of(&silent, &["reply:interest"], 3).expect_err("none is named").to_string();
    assert!(error.ends_with("it names none a class; allow the whole kind"), "{error}");
}

/// The ledger that reads another one's memory: by these instructions.
fn adopting(body: &str, changes: &[(&str, &str)]) -> Bytes {
    let import = r#"(import "raft_fsm_v1" "old_memory" (func $old_memory (param i64 i32 i32)))"#;
    let export =
        format!(r#"(func (export "adopt") (param i32) (result i32) {body} (i32.const 0))"#);
    ledger(&[changes, &[("import", import), ("export", &export)]].concat())
}

const ADOPT: &str = "(call $old_memory (i64.const 0x400) (i32.const 0x400) (i32.const 136))";

#[test]
fn a_module_that_reads_the_memory_of_one_whose_snapshot_is_broken_is_rehearsed_so() {
    let broken = ledger(&[("snapshot", "(unreachable)")]);
    let rescued = |module: &Bytes, way| {
        let queries = vec![Bytes::from_static(b"b\x02")];
        planned(module, 5, Plan { module: broken.clone(), way, queries, ..Plan::default() })
            .expect("there is a report")
    };
    let report = rescued(&adopting(ADOPT, &[]), Way::Image);
    assert_eq!((told(&report), report.commands), (Vec::new(), 6));
    assert_eq!((report.way, report.snapshot_fuel), (Way::Image, 0));
    assert!(report.restore_fuel > 0 && report.snapshot_bytes == 136, "{report:?}");
    assert!(report.way_back.is_err(), "the old one writes nothing");
    let other = rescued(&adopting(ADOPT, &[]), Way::Snapshot);
    assert_eq!(told(&other), [(Kind::Migration, "", None)]);
    // What is wrong with the rescue is found as ever.
    let short = ADOPT.replace("136", "8");
    let report = rescued(&adopting(&short, &[]), Way::Image);
    assert!(told(&report).iter().any(|(kind, ..)| *kind == Kind::Query), "{report:?}");
    let report = rescued(&adopting(ADOPT, &[("rounding", "(i64.const 999))")]), Way::Image);
    assert_eq!(told(&report)[0], (Kind::Reply, "interest", Some("8.1".to_owned())));
    let beyond = ADOPT.replace("136", "1000000");
    for (body, words) in [
        ("(unreachable)", "unreachable"),
        ("(return (i32.const 1))", "`adopt` of the new module refused"),
        (&*beyond, "`adopt`"),
    ] {
        let report = rescued(&adopting(body, &[]), Way::Image);
        assert_eq!(told(&report), [(Kind::Migration, "", None)]);
        assert!(first(&report, Kind::Migration).new.contains(words), "{report:?}");
        assert_eq!(report.commands, 0);
    }
    let without = rescued(&ledger(&[]), Way::Image);
    assert!(first(&without, Kind::Migration).new.contains("no export `adopt`"), "{without:?}");
}

#[test]
fn a_portable_state_is_tried_as_it_was_uploaded() {
    let broken = ledger(&[("snapshot", "(unreachable)")]);
    let mut state = vec![0; 136];
    state[16] = 7;
    let hash = ModuleHash::of(&state);
    let rescued = |module: &Bytes, uploaded: &[u8]| {
        let mut log = Log::written(&broken, &commands());
        log.push(Some(Body::ModuleChunk(stored::ModuleChunk {
            module_hash: hash.0.to_vec().into(),
            total_bytes: uploaded.len() as u64,
            offset: 0,
            data: Bytes::copy_from_slice(uploaded),
            portable_state: true,
        })));
        let queries = vec![Bytes::from_static(b"b\x02")];
        let (way, last) = (Way::PortableState(hash), log.last());
        let plan = Plan {
            base: last,
            until: last,
            module: module.clone(),
            way,
            queries,
            ..Plan::default()
        };
        carry_out(&mut log, &plan).expect("there is a report")
    };
    let report = rescued(&ledger(&[]), &state);
    // It is not the state that there is.
    assert_eq!(told(&report), [(Kind::Query, "", None)]);
    assert!(first(&report, Kind::Query).new.contains("0700000000000000"), "{report:?}");
    assert_eq!((report.commands, report.snapshot_bytes), (0, 136));
    let strange = ledger(&[("restore", "(unreachable)")]);
    let report = rescued(&strange, &state);
    assert!(first(&report, Kind::Migration).new.contains("unreachable"), "{report:?}");
    let report = rescued(&ledger(&[]), &state[..7]);
    assert!(first(&report, Kind::Migration).new.contains("is not here"), "{report:?}");
}

#[test]
fn what_cannot_be_rehearsed_is_an_error_with_the_reason() {
    let module = ledger(&[]);
    let mut log = Log::written(&module, &commands());
    let error = try_out(&mut log, &module, 1).expect_err("no module yet").to_string();
    assert!(error.starts_with("the active module is active only since index 3"), "{error}");
    let plan = |base, until, queries| Plan {
        base: Index(base),
        until: Index(until),
        module: module.clone(),
        label: String::new(),
        queries,
        ..Plan::default()
    };
    let error = carry_out(&mut log, &plan(1, 2, Vec::new())).expect_err("none at all").to_string();
    assert!(error.starts_with("no module is active"), "{error}");
    let error = carry_out(&mut log, &plan(7, 5, Vec::new())).expect_err("backwards").to_string();
    assert_eq!(error, "the range ends at index 5, before it begins at index 7");
    let error = carry_out(&mut log, &plan(7, 7, vec![Bytes::new(); 65])).expect_err("many");
    assert!(error.to_string().contains("at most 64"), "{error}");
}

#[test]
fn whoever_wants_it_no_more_ends_it() {
    let mut log = Log::written(&ledger(&[]), &commands());
    let plan = Plan { base: Index(4), until: log.last(), module: ledger(&[]), ..Plan::default() };
    let mut seen = Vec::new();
    let on_stack = || {
        let mut keep_going = |progress: Progress| {
            seen.push((progress.index, progress.commands));
            progress.index < Index(6)
        };
        rehearse(new_machine(), &mut log, &plan, &|| Duration::ZERO, &mut keep_going)
    };
    let ended = on_guest_stack("rehearsal", on_stack).expect("a thread");
    assert!(matches!(ended, Err(RehearsalError::Cancelled)));
    let after_base: Vec<_> = seen.iter().filter(|(index, _)| *index > Index(4)).collect();
    assert_eq!(after_base, [&(Index(5), 2), &(Index(6), 4)]);
}

#[test]
fn allowances_that_are_none_are_refused_in_one_sentence() {
    let bad = |text: &str| Allowances::parse(&[text]).expect_err(text).to_string();
    assert!(bad("answer").contains("the kinds are trap, reply, rejected, event"));
    assert!(bad("reply:a b").contains("is no name of a class"));
    assert!(bad("query:b").ends_with("have no classes: write query"));
    for ratio in ["fuel:3", "fuel:x", "fuel:0x", "memory:-1x", "fuel:1.2345x"] {
        assert!(bad(ratio).contains("is no ratio"), "{ratio}");
    }
    let good = ["trap", "reply:transfer", "fuel:2.5x", "memory:10x"];
    assert_eq!(Allowances::parse(&good).expect("well-formed").texts(), good);
    assert!(Allowances::parse(&["trap"; 65]).is_err());
}

#[test]
fn a_rule_of_its_own_state_that_does_not_hold_is_found_with_whose_fault_it_is() {
    // No account may hold more than 338 from the second interest on.
    let rule = "(if (i64.gt_u (i64.load (call $account (i32.const 2))) (i64.const 338)) (then (call $write (i32.const 0x620) (i32.const 10)) (return (i32.const 1))))";
    let report = upgrade(3, &[("check", rule)]);
    assert_eq!(told(&report), [(Kind::State, "", None)]);
    let difference = first(&report, Kind::State);
    assert_eq!(difference.old, "its check holds");
    assert_eq!(difference.new, "its check after index 8: rejected: too little");
    // Where it has taken over what is wrong already, both times are told.
    let report = upgrade(8, &[("check", rule)]);
    assert_eq!(told(&report), [(Kind::State, "", None)]);
    let broken = upgrade(3, &[("check", "(unreachable)")]);
    assert_eq!(broken.counts, [Count { kind: Kind::State, class: String::new(), count: 2 }]);
    assert_eq!(refused(&broken, &["state"]), 0);
}

/// The last of a session's commands comes first, in an entry of its own; the last entry has the others.
fn waited() -> Log {
    let mut log = Log::written(&ledger(&[]), &[]);
    let ordered = stored::OpenSession { ordered: true, ..Default::default() };
    log.push(Some(Body::OpenSession(ordered)));
    let session_id = log.last().0;
    let of = |sequence, data| {
        let session = stored::SessionCommand { session_id, sequence, ..Default::default() };
        stored::Command { data, session: Some(session), actor: None }
    };
    let push = |log: &mut Log, commands| log.push(Some(Body::Batch(stored::Batch { commands })));
    push(&mut log, vec![of(3, command(b'i', 2, 5))]);
    push(&mut log, vec![of(2, command(b'd', 2, 333)), of(1, command(b'l', 0, 0))]);
    log
}

#[test]
fn commands_that_waited_in_their_session_are_told_as_what_they_are() {
    let mut log = waited();
    let next = ledger(&[("rounding", "(i64.const 999))"), ("event", "(nop)")]);
    for base in [3, log.last().0 - 1] {
        let report = try_out(&mut log, &next, base).expect("there is a report");
        let difference = first(&report, Kind::Reply);
        assert_eq!(difference.input, command(b'i', 2, 5), "it waited since before");
        assert_eq!((&*difference.class, difference.position), ("interest", at(log.last().0, 3)));
        let event = first(&report, Kind::Event);
        assert_eq!((&event.input, event.position), (&command(b'd', 2, 333), at(log.last().0, 2)));
    }
}

#[test]
fn entries_that_are_passed_over_move_the_clock_all_the_same() {
    let module = ledger(&[]);
    let mut log = Log::written(&module, &commands());
    let chunk = stored::ModuleChunk {
        module_hash: vec![7; 32].into(),
        total_bytes: 9,
        offset: 0,
        data: Bytes::from_static(b"nothing"),
        ..Default::default()
    };
    log.push(Some(Body::ModuleChunk(chunk)));
    log.push(Some(Body::DigestPoint(stored::DigestPoint {})));
    log.push(Some(batch(&commands())));
    let next = ledger(&[("work", "(nop) (nop)")]);
    assert_eq!(told(&try_out(&mut log, &next, 5).expect("there is a report")), []);
    let mut machine = new_machine();
    let chunk = log.entries[8].data.clone();
    machine.skip(Index(1), &chunk);
    assert_eq!((machine.applied_index(), machine.time_ms()), (Index(1), 9_000));
}

/// The log as a node stores it.
fn store(log: &Log) -> crate::storage::Stores {
    use crate::storage::{GroupWrite, Stores, WriteBatch};
    let stores = Stores::memory();
    let write = GroupWrite { entries: log.entries.clone(), ..GroupWrite::default() };
    stores
        .log
        .write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] })
        .expect("memory takes it");
    stores
}

#[test]
fn how_much_is_wanted_is_found_in_the_log() {
    let log = Log::written(&ledger(&[]), &commands());
    let (stores, last) = (store(&log), log.last());
    let of = |oldest, wanted| {
        let floor = Floor { state: Index(oldest), activated: Some(Index(3)) };
        range(&stores, GroupId::MAIN, floor, last, wanted)
    };
    let base = |oldest, wanted| of(oldest, wanted).expect("there is").0.0;
    assert_eq!(of(3, Wanted::All).expect("there is"), (Index(3), last));
    // Two commands to an entry: as many entries as hold at least so many.
    for wanted in [Wanted::Last, Wanted::AtMost] {
        assert_eq!(base(3, wanted(1)), 7);
        assert_eq!(base(3, wanted(2)), 7);
        assert_eq!(base(3, wanted(3)), 6);
        assert_eq!(base(3, wanted(0)), 8);
        assert_eq!(base(5, wanted(6)), 5);
        // Nothing came before that this module has executed.
        assert_eq!(base(1, wanted(1_000)), 3);
        assert_eq!(base(3, wanted(1_000)), 3);
    }
    assert_eq!(base(5, Wanted::AtMost(7)), 5);
    assert_eq!(base(3, Wanted::Since(7_000)), 6);
    assert_eq!(base(3, Wanted::Since(0)), 3);
    assert_eq!(base(5, Wanted::Since(5_001)), 5);
    assert_eq!(base(3, Wanted::Since(u64::MAX)), 8);
    let now = last_time_ms(&*stores.log, GroupId::MAIN, Index(3), last).expect("readable");
    assert_eq!(now, Some(8_000));
    let refused = |wanted| of(5, wanted).expect_err("there is not").to_string();
    let exactly = |base, until| refused(Wanted::Exactly { base: Index(base), until: Index(until) });
    assert_eq!(exactly(6, 5), "the range ends at index 5, before it begins at index 6");
    assert_eq!(exactly(6, 9), "the range ends at index 9, and the last entry is at index 8");
    let words = |wanted: &str| {
        format!(
            "the log begins at index 1, and the oldest retained state is at index 5 (1970-01-01 00:00:05 UTC), which \
             is too late for {wanted}: ask for --all-retained, a later --since or fewer commands"
        )
    };
    assert_eq!(exactly(4, 8), words("index 4"));
    assert_eq!(refused(Wanted::Last(7)), words("7 commands (there are 6 after that state)"));
    assert_eq!(refused(Wanted::Since(5_000)), words("1970-01-01 00:00:05"));
    let wanted = Wanted::Exactly { base: Index(2), until: last };
    assert!(matches!(of(1, wanted), Err(RehearsalError::ActiveSince { since: Index(3) })));
    for (after, found) in [(1, true), (2, true), (3, false)] {
        let activates = activates_after(&*stores.log, GroupId::MAIN, Index(after), last);
        assert_eq!(activates.expect("readable"), found);
    }
    let mut entries = RetainedLog::new(std::sync::Arc::clone(&stores.log), GroupId::MAIN, last);
    for index in 5..=8 {
        assert_eq!(entries.entry(Index(index)).expect("there").index, Index(index));
    }
    assert!(matches!(entries.entry(Index(9)), Err(RehearsalError::BeyondEnd { .. })));
}

#[test]
fn entries_that_were_few_enough_to_be_kept_are_not_read_again() {
    use crate::storage::{GroupWrite, StorageError, WriteBatch};
    let log = Log::written(&ledger(&[]), &commands());
    let (stores, last) = (store(&log), log.last());
    let mut entries = RetainedLog::new(std::sync::Arc::clone(&stores.log), GroupId::MAIN, last);
    let bytes: u64 = log.entries[5..].iter().map(LogEntry::cost_bytes).sum();
    assert!(!entries.keep_after(Index(5), bytes - 1).expect("readable"));
    assert!(entries.keep_after(Index(5), bytes).expect("readable"));
    let LogEntry { index, term, .. } = log.entries[6];
    let write = GroupWrite { compact_to: Some(LogPosition { index, term }), ..Default::default() };
    let batch = WriteBatch { groups: vec![(GroupId::MAIN, write)] };
    stores.log.write(&batch).expect("memory takes it");
    // Those of the range are asked for twice.
    for index in [6, 7, 8, 6, 7, 8] {
        assert_eq!(entries.entry(Index(index)).expect("kept"), log.entries[index as usize - 1]);
    }
    let gone = entries.entry(Index(5));
    assert!(matches!(gone, Err(RehearsalError::Storage(StorageError::Compacted { .. }))));
    assert!(entries.keep_after(last, 0).expect("there is nothing to read"));
}

/// Two nodes that begin with other states come to the same report only if that is so.
#[test]
fn receipts_on_the_way_count_by_the_members_that_there_were() {
    let (first, second) = (ledger(&[]), ledger(&[("work", "(nop) (nop)")]));
    let mut log = Log::written(&first, &commands());
    // Adding node 2, as raft-rs reads it, and with its address.
    let step = stored::MembershipStep {
        kind: stored::membership_step::Kind::AddVoter.into(),
        node_id: 2,
        address: "b:1".to_owned(),
        ..Default::default()
    };
    log.push(None);
    let entry = log.entries.last_mut().expect("just pushed");
    entry.kind = EntryKind::ConfChange;
    entry.data = Bytes::from_static(&[0x12, 2, 0x10, 2]);
    entry.context = stored::MembershipChange { steps: vec![step] }.encode_to_vec().into();
    let (hash, old) = (ModuleHash::of(&second), ModuleHash::of(&first));
    let replaces = Incumbent { hash: old, activated_at: Index(3) }.to_log();
    let until = log.last().0;
    log.push(Some(Body::RecordReceipt(stored::RecordReceipt {
        module_hash: hash.0.to_vec().into(),
        replaces: Some(replaces.clone()),
        base: 3,
        until,
        report_hash: vec![1; 32].into(),
        voters: vec![2],
        ..Default::default()
    })));
    let receipt = log.last().0;
    log.activate(&second, Some(replaces));
    let activation = log.entries.last_mut().expect("just pushed");
    let mut decoded = stored::Entry::decode(&activation.data[..]).expect("just encoded");
    let Some(Body::ActivateModule(activate)) = &mut decoded.body else { panic!("it is one") };
    activate.receipt = receipt;
    activation.data = decoded.encode_to_vec().into();
    let activated_at = log.last();
    let report = try_out(&mut log, &first, activated_at.0).expect("there is a report");
    assert_eq!(report.replaces, Incumbent { hash, activated_at });
}
