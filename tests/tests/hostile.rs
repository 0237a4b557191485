//! Guests that mean harm: each ends in a typed error, and the node goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft_host::check;
use raft_host::fsm::{LimitChange, Limits};
use raft_host::machine::QueryResult;
use raft_host::node::{JobKind, UpgradeFailure};
use raft_host::types::{ModuleHash, Outcome, TrapKind};
use raft_host::wasm::{CheckError, check_module};
use raft_host_tests::generate::verdict::{Verdict, judge};
use raft_host_tests::hostile::{
    Healthy, LoneNode, Script, assemble, fixtures, healthy, large, limits, loader,
};
use raft_host_tests::workspace;

/// The module of a real plugin.
fn kv() -> Vec<u8> {
    std::fs::read(workspace("plugins/kv/kv.wasm")).expect("the plugin")
}

#[test]
fn every_hostile_guest_ends_as_its_header_says_and_the_node_goes_on() {
    let loader = loader();
    let healthy = healthy();
    let mut failed = Vec::new();
    for (name, text) in fixtures() {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let module = assemble(&text).unwrap_or_else(|error| panic!("{error}"));
            let script = Script::parse(&text);
            let mut node = LoneNode::new(loader.clone(), limits());
            node.upgrade(&healthy).expect("the healthy guest");
            assert!(matches!(node.apply(b""), Outcome::Ok(_)));
            script.play(&mut node, &Healthy { module: &healthy }, &module);
        }));
        if let Err(panic) = played {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            failed.push(format!("{name}: {}", words.unwrap_or("?")));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// Counts empty commands; any other spoils what it can reach, and traps.
const COUNTING: &str = r#"
  (global $count (mut i64) (i64.const 0))
  (func $tell (result i32)
    (i64.store (i32.const 0) (global.get $count))
    (i32.store (i32.const 8) (call $ordinal))
    (call $write (i32.const 0) (i32.const 12))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32)
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    (if (local.get 0) (then
      (global.set $count (i64.const 999))
      (drop (memory.grow (i32.const 3)))
      (memory.fill (i32.const 0) (i32.const 90) (i32.const 65536))
      (unreachable)))
    (call $tell))
  (func (export "query") (param i32) (result i32) (call $tell))
"#;

#[test]
fn a_trap_in_the_middle_of_an_entry_costs_the_commands_around_it_nothing() {
    let mut node = LoneNode::new(loader(), limits());
    node.upgrade(&assemble(COUNTING).expect("it is sound")).expect("a new cluster's first");
    let told = |count: u64, ordinal: u32| {
        Outcome::Ok([&count.to_le_bytes()[..], &ordinal.to_le_bytes()].concat())
    };
    let trapped = || Outcome::Trapped(TrapKind::Unreachable);
    for before in [0, 3, 6] {
        let outcomes = node.apply_batch(&[b"", b"t", b"", b"t", b"t", b""]);
        let expected = [
            told(before + 1, 0),
            trapped(),
            told(before + 2, 2),
            trapped(),
            trapped(),
            told(before + 3, 5),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(node.query(b""), told(before + 3, 0), "as of the index");
        // Its log is executed again.
        node.restart();
        assert_eq!(node.query(b""), told(before + 3, 0));
    }
}

/// Before there is a node: `check` refuses in one line what a node refuses, and says what to do.
#[test]
fn what_no_node_takes_is_refused_by_check_with_what_to_do_about_it() {
    let before_it_runs =
        ["upgrade => refused ", "upgrade => failed \"its ini", "upgrade => failed \"it cannot"];
    let mut seen = 0;
    for (name, text) in fixtures() {
        let Some(expected) = before_it_runs.iter().find_map(|step| text.split(step).nth(1)) else {
            continue;
        };
        seen += 1;
        let module = assemble(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let options = check::Options { limits: limits(), ..check::Options::default() };
        let report = check::run(&module, &options).expect("this machine runs guests");
        let reason = report.refused.unwrap_or_else(|| panic!("{name} is not refused"));
        let words = expected.split('"').find(|words| !words.is_empty()).expect("quoted words");
        assert!(reason.contains(words), "{name}: {words:?} is not in: {reason}");
        assert!(reason.contains("; ") && !reason.contains('\n'), "{name}: {reason}");
    }
    assert!(seen > 30, "only {seen} fixtures were found");
}

/// A node that runs the healthy guest.
fn node() -> (LoneNode, Vec<u8>) {
    let healthy = healthy();
    let node = LoneNode::new(loader(), limits());
    node.upgrade(&healthy).expect("the healthy guest");
    (node, healthy)
}

#[test]
fn modules_that_would_keep_a_compiler_busy_for_minutes_are_refused_at_once() {
    let (node, _) = node();
    let bombs: [(Vec<u8>, &str); 20] = [
        (large::functions(100_000), "has 100004 functions"),
        (large::locals(6_000, 50_000), "in all functions together"),
        (large::locals(1, 50_001), "malformed"),
        (large::nested(10_000), "blocks nest more than 4096 deep"),
        (large::merges(10, 100), "loops nest more than 64 deep"),
        (large::merges(2_000, 60), "2000 locals, and loops that nest 60 deep"),
        (large::nested_results(2_000, 60), "hand 60 values on"),
        (large::nested_results(1_000, 1_000), "0 parameters and 1000 results"),
        (large::calls(50_000, 1_000), "0 parameters and 1000 results"),
        (large::calls(50_000, 64), "function 4 of the module is too complex"),
        (large::callable(65_000, 1_000), "1000 parameters and 1000 results"),
        (large::straight(2_000_000), "function 4 of the module is too complex"),
        (large::types(100_000), "more than 16384 types"),
        (large::immutable_globals(100_000), "more than 65536 globals"),
        (large::declared(2_000_000), "more than 1048576 elements"),
        (large::imports(100_000), "more than 4096 imports"),
        (large::exits(50_000, 1_000), "instructions + locals × branches"),
        (large::branch_tables(300, 60_000), "instructions + locals + values"),
        (large::globals(5_000), "5000 mutable globals"),
        (large::elements(100_000), "first values in 100001 steps"),
    ];
    for (module, words) in bombs {
        let refused = node.upgrade(&module).expect_err(words);
        assert!(matches!(refused, UpgradeFailure::Refused(_)), "{refused}");
        assert!(refused.to_string().contains(words), "{refused} should contain {words:?}");
        assert!(matches!(node.apply(b""), Outcome::Ok(_)));
    }
}

#[test]
fn large_but_sound_modules_run() {
    let (mut node, healthy) = node();
    for module in [
        large::data(60),
        large::padding(60 << 20),
        large::functions(2_000),
        large::locals(10, 40_000),
        large::straight(100_000),
        large::nested(1_000),
        large::globals(4_096),
        large::data_segments(100_000),
        large::elements(16_383),
        large::branch_tables(3, 10_000),
        large::calls(2_000, 64),
        large::callable(2_000, 60),
        large::named(300_000),
    ] {
        node.upgrade(&module).expect("large, but no more than that");
        assert_eq!(node.apply(b""), Outcome::Ok(Vec::new()));
        node.take_snapshot();
        node.restart();
        assert_eq!(node.apply(b""), Outcome::Ok(Vec::new()));
        node.upgrade(&healthy).expect("and back");
    }
    let too_large = large::padding(65 << 20);
    let refused = node.upgrade(&too_large).expect_err("more than module_max_bytes");
    assert!(refused.to_string().contains("the cluster's limit is 67108864"), "{refused}");
}

/// Half a download, at many places.
#[test]
fn a_truncated_module_is_refused_wherever_it_ends() {
    let (node, _) = node();
    let module = kv();
    let places = (0..64).chain((64..module.len()).step_by(997)).chain([module.len() - 1]);
    for end in places {
        let error = check_module(&module[..end], &Limits::default()).expect_err("cut off");
        let expected = matches!(
            error,
            CheckError::Truncated(_)
                | CheckError::Malformed(_)
                | CheckError::NotWasm
                | CheckError::MarkerMissing
        );
        assert!(expected, "{end} bytes: {error}");
        if end % 7 == 0 {
            let refused = node.upgrade(&module[..end]).expect_err("cut off");
            assert!(matches!(refused, UpgradeFailure::Refused(_)), "{refused}");
        }
    }
    assert!(matches!(node.apply(b""), Outcome::Ok(_)));
}

/// A bad download, at many places: refused, or a module that does something else. Whatever it is, it
/// ends in an outcome, twice the same.
#[test]
fn a_module_with_a_flipped_bit_is_refused_or_runs_but_never_stops_the_host() {
    let loader = loader();
    let module = kv();
    let (mut refused, mut ran) = (0, 0);
    for number in 0..64 {
        // Spread over the module; every eighth in its first sections.
        let at = if number % 8 == 0 { 8 + number * 5 } else { number * 2_503 % module.len() };
        let mut damaged = module.clone();
        damaged[at] ^= 1 << (number % 8);
        match judge(&loader, &loader, &damaged) {
            Verdict::Refused => refused += 1,
            Verdict::DoesNotStart | Verdict::Ran => ran += 1,
        }
    }
    assert!(refused > 10 && ran > 10, "{refused} refused, {ran} ran");
}

/// Limits under which the active module, or its state, cannot go on.
#[test]
fn a_limit_that_does_not_fit_is_refused_and_the_node_goes_on() {
    let grown = r#"
      (memory (export "memory") 2)
      (func (export "_initialize") (local $n i32)
        (local.set $n (i32.const 1000))
        (loop $again
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $again (local.get $n))))
      (func (export "apply") (param i32) (result i32)
        (drop (memory.grow (i32.const 4))) (i32.const 0))
    "#;
    let (mut node, _) = node();
    let module = assemble(grown).expect("it is sound");
    node.upgrade(&module).expect("it is sound");
    assert_eq!(node.apply(b""), Outcome::Ok(Vec::new()));
    let bad = [
        (LimitChange::MemoryMaxBytes(64 << 10), "the module's memory starts with 131072 bytes"),
        (LimitChange::MemoryMaxBytes(256 << 10), "memory has grown to 393216 bytes already"),
        (LimitChange::MemoryMaxBytes(100_000), "multiple of 65536"),
        (LimitChange::MemoryMaxBytes(8 << 30), "from 65536 to 4294967296"),
        (LimitChange::ModuleMaxBytes(100), "the active module is refused"),
        (LimitChange::StackMaxBytes(1), "from 65536 to 8388608"),
        (LimitChange::StackMaxBytes(u64::MAX), "from 65536 to 8388608"),
        (LimitChange::ApplyFuel(0), "at least 1"),
        (LimitChange::OutputMaxBytes(u64::MAX), "output_max_bytes"),
        (LimitChange::SnapshotMaxBytes(0), "snapshot_max_bytes"),
        (LimitChange::InputMaxBytes(0), "input_max_bytes"),
    ];
    for (limit, words) in bad {
        let refused = node.set_limit(limit).expect_err(words).to_string();
        assert!(refused.contains(words), "{refused} should contain {words:?}");
        assert_eq!(node.query(b""), Outcome::Ok(Vec::new()));
    }
    // What may be, may be hard: but a command that exceeds it traps, and no more.
    for (limit, trap) in [
        (LimitChange::ApplyFuel(1), Some(TrapKind::OutOfFuel)),
        (LimitChange::ApplyFuel(u64::MAX), None),
        // Its initialisers have run, once and for all.
        (LimitChange::InitFuel(10), None),
        (LimitChange::StackMaxBytes(8 << 20), None),
        (LimitChange::StackMaxBytes(64 << 10), None),
        (LimitChange::EventsMax(0), None),
        (LimitChange::LogLinesMax(u32::MAX), None),
        (LimitChange::OutputMaxBytes(1), None),
    ] {
        node.set_limit(limit).expect("possible");
        let expected = trap.map_or(Outcome::Ok(Vec::new()), Outcome::Trapped);
        assert_eq!(node.apply(b""), expected);
    }
    node.take_snapshot();
    node.restart();
    assert_eq!(node.apply(b""), Outcome::Ok(Vec::new()));
}

/// Tells a process started by the test below that it is that process.
const CHILD: &str = "RAFT_HOST_HUNGRY_CHILD";
/// Rounds of all hungry guests until the allocator has what it will ever have (it keeps a part of
/// what was freed, less and less each time), and rounds that are judged after that.
const WARM_UP: usize = 4;
const ROUNDS: usize = 8;
/// Each round allocates several hundred megabytes, one guest after the other. What is left over
/// of a round would show as often as there are rounds.
const GROWTH_MAX_KIB: u64 = 96 << 10;

/// In a process of its own, because the peak is one of a process.
#[test]
fn the_hosts_memory_stays_bounded_while_guests_are_hungry() {
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "hungry_guests_in_a_process_of_their_own", "--nocapture"])
        .env(CHILD, "1")
        // Each of the many threads would keep memory of its own.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("a second process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("peaks in KiB"), "{said}");
}

/// Does nothing unless the test above started it.
#[test]
fn hungry_guests_in_a_process_of_their_own() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let hungry =
        ["memory_bomb", "grow_in_a_loop", "flood", "snapshot_bomb", "reject_restore", "no_trace"];
    let healthy = healthy();
    let loader = loader();
    let guests: Vec<(String, Vec<u8>)> = fixtures()
        .into_iter()
        .filter(|(name, _)| hungry.contains(&name.as_str()))
        .map(|(_, text)| (text.clone(), assemble(&text).expect("assembles")))
        .collect();
    assert_eq!(guests.len(), hungry.len());
    let mut peaks = Vec::new();
    for _ in 0..=ROUNDS {
        for (text, module) in &guests {
            let mut node = LoneNode::new(loader.clone(), limits());
            node.upgrade(&healthy).expect("the healthy guest");
            Script::parse(text).play(&mut node, &Healthy { module: &healthy }, module);
        }
        peaks.push(peak_kib());
        assert_eq!(guest_memories(), 0, "memories of guests outlive their nodes");
    }
    println!("peaks in KiB: {peaks:?}");
    let growth = peaks[ROUNDS] - peaks[WARM_UP];
    assert!(growth < GROWTH_MAX_KIB, "{peaks:?}");
}

/// Most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Mappings of guests' memories.
fn guest_memories() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    maps.lines().filter(|line| line.contains("memfd:raft-host")).count()
}

/// Its `restore` never ends, its `query` burns all the fuel that there is, its `apply` is quick.
const ENDLESS: &str = r#"
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "query") (param i32) (result i32) (loop $again (br $again)) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (loop $again (br $again)) (i32.const 0))
"#;

#[test]
fn queries_are_answered_while_an_endless_restore_runs_which_no_restart_runs_again() {
    let endless = assemble(ENDLESS).expect("it is sound");
    // Seconds, so that the question below finds it at work.
    let limits = Limits { restore_fuel: 4_000_000_000, ..limits() };
    let mut node = LoneNode::new(loader(), limits);
    node.upgrade(&healthy()).expect("the healthy guest");
    node.apply(b"");
    let handle = node.handle();
    let activity = std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| node.upgrade(&endless));
        let activity = loop {
            match handle.activity() {
                Some(activity) if activity.kind == JobKind::Activate => break activity,
                _ => std::thread::yield_now(),
            }
        };
        // By its index the answer shows that it did not wait for the activation.
        let answer = node.query_stale(b"");
        assert!(answer.applied < activity.index, "{answer:?} during {activity:?}");
        assert!(matches!(answer.result, QueryResult::Answer(Outcome::Ok(_))), "{answer:?}");
        let failed = upgrade.join().expect("no panic").expect_err("it never ends");
        assert!(failed.to_string().contains("restore_fuel is 4000000000"), "{failed}");
        activity
    });
    assert_eq!(activity.name, ModuleHash::of(&endless).short());
    while node.snapshot_index() < activity.index {
        std::thread::yield_now();
    }
    node.restart();
    assert!(node.snapshot_index() >= activity.index, "the restart began after it");
    assert!(matches!(node.query(b""), Outcome::Ok(_)));
}

#[test]
fn queries_that_burn_their_fuel_hold_a_command_up_for_a_few_of_them_and_not_for_all() {
    let burning = assemble(ENDLESS).expect("it is sound");
    let limits = Limits { query_fuel: 400_000_000, ..limits() };
    let node = LoneNode::new(loader(), limits);
    node.upgrade(&burning).expect("it is sound");
    let before = node.answered_before_a_command(b"", 64, b"");
    assert!(before < 32, "{before} of 64 queries were answered before a command was");
}
