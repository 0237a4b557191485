//! What the host refuses is never the guest's doing: a command, an activation or a restore ends in
//! a failure of the host, a query goes without an answer.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use bytes::Bytes;

use super::memory::{PAGER, paged};
use super::seccomp::{
    giving_back, making_a_memory_file, opening_a_page, opening_anything, refused, refused_at_first,
    reserving_4_gib,
};
use super::*;
use crate::fsm::{HostFailure, QueryError};
use crate::wasm::memory::{exhaust_mappings, noted_pages_of_all};

/// On one thread, so that it is the one to which things are refused.
fn start_alone(body: &str, limits: &Limits) -> WasmFsm {
    loader().with_threads(1).start(&wasm(body), limits, Some(at(1))).unwrap().unwrap()
}

fn pager() -> WasmFsm {
    start_alone(PAGER, &small_limits())
}

fn sum(fsm: &mut WasmFsm) -> Vec<u8> {
    ok(fsm.query(at(1), &paged(b's', 0, 0)).unwrap())
}

#[track_caller]
fn unanswered(answer: Result<Call, QueryError>) -> String {
    match answer {
        Err(QueryError::Unanswered(unanswered)) => unanswered.to_string(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn host_failure(result: Result<Call, HostFailure>) -> String {
    result.expect_err("a failure of the host").to_string()
}

#[test]
fn a_query_whose_pages_cannot_be_opened_one_by_one_is_answered_all_the_same() {
    let mut fsm = start_alone(SCRIBE, &small_limits());
    fsm.apply(at(1), b"a1").unwrap();
    let expected = contents(&mut fsm);
    for _ in 0..3 {
        // The first write is the host's, which hands the input over: there is no trap to end it.
        let asked = refused(opening_a_page(), || fsm.query(at(1), b"a-scribble"));
        ok(asked.unwrap());
        assert_eq!(contents(&mut fsm), expected);
        assert_eq!(refused(opening_a_page(), || contents(&mut fsm)), expected);
    }
}

#[test]
fn a_query_that_is_refused_its_own_memory_does_not_trap_and_is_asked_again() {
    let mut fsm = pager();
    ok(fsm.apply(at(1), &paged(b'w', 4, 1)).unwrap());
    // Makes a fork on which the page with the input is open.
    let expected = sum(&mut fsm);
    let said = refused(opening_anything(), || fsm.query(at(1), &paged(b'w', 20, 1)));
    let said = unanswered(said);
    assert!(said.contains("could not use its own memory at 0x14000"), "{said}");
    assert!(said.contains("vm.max_map_count"), "{said}");
    assert_eq!(sum(&mut fsm), expected);
    // Growing is refused as well: that is no answer of `memory.grow`.
    let said = refused(opening_anything(), || fsm.query(at(1), &paged(b'g', 0, 0)));
    assert!(unanswered(said).contains("growing a guest's memory"));
    ok(fsm.query(at(1), &paged(b'w', 20, 1)).unwrap());
    ok(fsm.apply(at(1), &paged(b'w', 20, 1)).unwrap());
    assert_ne!(sum(&mut fsm), expected);
}

#[test]
fn a_thread_that_cannot_handle_signals_answers_no_query_and_does_not_panic() {
    let mut fsm = pager();
    let mut expected = None;
    // At first there is no fork, later there is.
    for _ in 0..2 {
        let said = refused_at_first(opening_anything(), || fsm.query(at(1), &paged(b's', 0, 0)));
        let said = unanswered(said);
        assert!(said.contains("a stack for signals"), "{said}");
        let answer = sum(&mut fsm);
        assert_eq!(*expected.get_or_insert_with(|| answer.clone()), answer);
    }
}

#[test]
fn a_snapshot_that_is_refused_its_own_memory_is_a_failure_of_the_host() {
    // As in an activation: a replica that took it for a trap would go on with the old module.
    let body = PAGER.replace(
        r#"(func (export "snapshot") (result i32) (i32.const 0))"#,
        r#"(func (export "snapshot") (result i32)
          (i32.store (i32.const 81920) (i32.const 1)) (i32.const 0))"#,
    );
    let mut fsm = start_alone(&body, &small_limits());
    sum(&mut fsm);
    let said = host_failure(refused(opening_anything(), || fsm.snapshot(at(1))));
    assert!(said.contains("could not use its own memory at 0x14000"), "{said}");
    let said = host_failure(refused(reserving_4_gib(), || fsm.snapshot(at(1))));
    assert!(said.contains("mapping a guest's memory"), "{said}");
    ok(fsm.snapshot(at(1)).unwrap());
}

#[test]
fn a_classification_that_is_refused_its_own_memory_is_a_failure_of_the_host() {
    // A replica that took it for a trap would refuse a command that the others apply.
    let classify = r#"(func (export "classify") (param i32) (result i32)
      (i32.store (i32.const 81920) (i32.const 1)) (i32.const 0))"#;
    let mut fsm = start_alone(&format!("{PAGER} {classify}"), &small_limits());
    sum(&mut fsm);
    let said = host_failure(refused(opening_anything(), || fsm.classify(at(1), b"")));
    assert!(said.contains("could not use its own memory at 0x14000"), "{said}");
    let said = host_failure(refused(reserving_4_gib(), || fsm.classify(at(1), b"")));
    assert!(said.contains("mapping a guest's memory"), "{said}");
    // It was the fork's, and the state is sound.
    ok(fsm.classify(at(1), b"").unwrap());
}

#[test]
fn a_command_that_is_refused_memory_to_grow_is_a_failure_of_the_host() {
    let mut fsm = pager();
    let said = host_failure(refused(opening_anything(), || fsm.apply(at(1), &paged(b'g', 0, 0))));
    assert!(said.contains("growing a guest's memory to 327680"), "{said}");
    // Nothing is known of the state any more.
    let said = host_failure(fsm.apply(at(2), &paged(b'w', 0, 0)));
    assert!(said.contains("did not survive"), "{said}");
    assert!(matches!(fsm.query(at(2), &paged(b's', 0, 0)), Err(QueryError::Host(_))));
}

#[test]
fn an_instance_that_is_refused_its_memory_is_no_refusal_of_the_module() {
    for what in [reserving_4_gib(), making_a_memory_file(), opening_anything()] {
        let loader = loader();
        let module = wasm(PAGER);
        loader.check(&module, &small_limits()).unwrap().unwrap();
        let started = refused(what, || loader.start(&module, &small_limits(), Some(at(1))).err());
        let said = started.expect("a failure of the host").to_string();
        assert!(said.contains("Cannot allocate memory"), "{said}");
    }
}

#[test]
fn queries_without_room_for_a_fork_cost_themselves_only() {
    let mut fsm = start_alone(SCRIBE, &small_limits());
    let queries = vec![Bytes::from_static(b"q"); 3];
    for round in 1..4 {
        let index = 10 * round;
        fsm.apply(at(index), b"a").unwrap();
        let expected = "a".repeat(round as usize);
        let answers = refused(reserving_4_gib(), || {
            let one = fsm.query(at(index), b"q");
            let several = fsm.query_some(at(index), &queries, u64::MAX).unwrap();
            let apart = fsm.bystander().unwrap().unwrap().query(at(index), b"q");
            (one, several, apart)
        });
        let (one, several, apart) = answers;
        for answer in [one, apart] {
            let said = unanswered(answer);
            assert!(said.contains("Cannot allocate memory"), "{said}");
        }
        assert_eq!(several.len(), 3);
        assert!(several.iter().all(Result::is_err));
        let answers = fsm.query_some(at(index), &queries, u64::MAX).unwrap();
        for answer in answers {
            assert_eq!(ok(answer.unwrap()), expected.as_bytes());
        }
        // One that is dropped leaves room for nobody else's trouble.
        assert_eq!(fsm.query(at(index), b"u").map(trap).unwrap(), TrapKind::Unreachable);
    }
}

#[test]
fn a_fork_that_cannot_give_back_is_dropped_and_its_answer_counts() {
    let mut fsm = start_alone(super::forks::PAINTER, &super::forks::painter_limits());
    let expected = ok(fsm.query(at(1), b"").unwrap());
    let paint = super::forks::paint(1_500 * 4096, 9);
    let answer = refused(giving_back(), || fsm.query(at(1), &paint));
    ok(answer.unwrap());
    assert!(fsm.idle_private_bytes().is_empty());
    assert_eq!(ok(fsm.query(at(1), b"").unwrap()), expected);
}

/// The host's and the guest's faults are told apart by the address.
#[test]
fn an_access_across_the_end_of_memory_is_the_guests_own_fault() {
    const ACROSS: &str = r#"
      (memory (export "memory") 1)
      (func $do (param $len i32) (result i32) (local $at i32)
        (drop (call $take))
        (local.set $at (i32.load (i32.const 1025)))
        (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 119))
          (then (i64.store (local.get $at) (i64.const 7)))
          (else (drop (i64.load (local.get $at)))))
        (i32.const 0))
      (func (export "apply") (param i32) (result i32) (call $do (local.get 0)))
      (func (export "query") (param i32) (result i32) (call $do (local.get 0)))
      (func (export "snapshot") (result i32) (i32.const 0))
      (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    let mut fsm = start(ACROSS);
    for op in [b'w', b'r'] {
        for at_byte in 65536 - 9..65536 + 3 {
            let asked = paged(op, at_byte, 0);
            let fits = at_byte + 8 <= 65536;
            let (command, query) = (fsm.apply(at(1), &asked), fsm.query(at(1), &asked));
            for call in [command.unwrap(), query.unwrap()] {
                match fits {
                    true => drop(ok(call)),
                    false => assert_eq!(trap(call), TrapKind::OutOfBounds, "{at_byte}"),
                }
            }
        }
    }
}

#[test]
fn noted_pages_are_bounded_for_all_views_together_and_forgotten_with_them() {
    let limits = super::forks::painter_limits();
    let one = || start_alone(super::forks::PAINTER, &limits);
    let few = super::forks::paint(500 * 4096, 9);
    for _ in 0..2 {
        let mut many: Vec<WasmFsm> = (0..20).map(|_| one()).collect();
        for fsm in &mut many {
            ok(fsm.query(at(1), &few).unwrap());
            assert_eq!(ok(fsm.query(at(1), b"").unwrap()), 0u64.to_le_bytes());
        }
        // Other tests of this process count as well.
        assert!(noted_pages_of_all() <= 8192 + 64, "{}", noted_pages_of_all());
        drop(many);
        let mut fsm = one();
        ok(fsm.query(at(1), &few).unwrap());
        let [kept] = fsm.idle_private_bytes()[..] else { panic!("one fork") };
        assert!(kept >= 500 * 4096, "{kept}: there is room for notes again");
    }
}

/// Names a process that a test below has started.
const CHILD: &str = "RAFT_HOST_REFUSED_CHILD";

fn child(name: &str) -> Output {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", &format!("wasm::tests::refusals::{name}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a second process")
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_process_without_mappings_left_answers_what_it_can() {
    let output = child("a_process_without_mappings");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("all as it should be"), "{said}");
}

/// Does nothing unless the test above started it.
#[test]
fn a_process_without_mappings() {
    if !is_child() {
        return;
    }
    let mut fsm = pager();
    let expected = sum(&mut fsm);
    let mappings = exhaust_mappings();
    // The page cannot be a mapping of its own, which the fork is opened for as a whole.
    ok(fsm.query(at(1), &paged(b'w', 20, 1)).unwrap());
    assert_eq!(sum(&mut fsm), expected);
    // A fork that has grown is not kept, and there is no room for another.
    ok(fsm.query(at(1), &paged(b'g', 0, 0)).unwrap());
    let (mappings, more) = (mappings, exhaust_mappings());
    let said = unanswered(fsm.query(at(1), &paged(b's', 0, 0)));
    ok(fsm.apply(at(1), &paged(b'w', 20, 1)).unwrap());
    drop((mappings, more));
    assert!(said.contains("vm.max_map_count"), "{said}");
    assert_ne!(sum(&mut fsm), expected);
    println!("all as it should be");
}

#[test]
fn a_page_that_the_system_does_not_have_ends_the_process_with_words() {
    for name in ["a_command_without_its_pages", "a_query_without_its_pages"] {
        let output = child(name);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{said}");
        assert!(said.contains("the system has no memory for a page"), "{said}");
    }
}

/// Does nothing unless the test above started it.
#[test]
fn a_command_without_its_pages() {
    if is_child() {
        let mut fsm = pager();
        fsm.region().break_promise();
        panic!("{:?}", fsm.apply(at(1), &paged(b'w', 20, 1)));
    }
}

/// Does nothing unless the test above started it.
#[test]
fn a_query_without_its_pages() {
    if is_child() {
        let mut fsm = pager();
        sum(&mut fsm);
        fsm.region().break_promise();
        panic!("{:?}", fsm.query(at(1), &paged(b'w', 20, 1)));
    }
}
