//! Queries see everything and leave nothing.

use bytes::Bytes;

use super::*;

fn a_query_sees_every_command_and_its_own_writes_vanish() {
    let mut fsm = scribe();
    for index in 1..50 {
        fsm.apply(at(index), b"a.").unwrap();
        let before = image(&mut *fsm);
        // Appends, which writes to memory and to globals.
        ok(fsm.query(at(index), b"a-scribble").unwrap());
        assert_eq!(image(&mut *fsm), before);
        assert_eq!(contents(&mut *fsm), "a.".repeat(index as usize));
    }
}

fn queries_follow_growth_and_may_grow_themselves() {
    let mut fsm = scribe();
    let grow = |fsm: &mut dyn Fsm, query: bool| -> i32 {
        let call = match query {
            true => fsm.query(at(1), b"g").unwrap(),
            false => fsm.apply(at(1), b"g").unwrap(),
        };
        i32::from_le_bytes(ok(call).try_into().unwrap())
    };
    assert_eq!(grow(&mut *fsm, true), 2);
    assert_eq!(grow(&mut *fsm, true), 2);
    assert_eq!(grow(&mut *fsm, false), 2);
    assert_eq!(grow(&mut *fsm, true), 3);
    assert_eq!(grow(&mut *fsm, false), 3);
    assert_eq!(grow(&mut *fsm, true), 4);
    assert_eq!(contents(&mut *fsm), "");
}

fn a_query_after_undo_image_or_restore_sees_the_new_state() {
    let mut fsm = scribe();
    fsm.apply(at(1), b"a1").unwrap();
    let bytes = image(&mut *fsm);
    assert_eq!(contents(&mut *fsm), "a1");
    trap(fsm.apply(at(2), b"u").unwrap());
    assert_eq!(contents(&mut *fsm), "a1");
    fsm.apply(at(2), b"a2").unwrap();
    assert_eq!(contents(&mut *fsm), "a1a2");
    fsm.load_image(&mut bytes.as_slice()).unwrap();
    assert_eq!(contents(&mut *fsm), "a1");
}

/// Writes `input[0..4]` (little-endian) bytes of `input[4]` from 64 KiB on, in apply or query;
/// an empty query sums up that memory.
pub(super) const PAINTER: &str = r#"
  (memory (export "memory") 100)
  (func $paint (result i32)
    (drop (call $take))
    (memory.fill (i32.const 65536) (i32.load8_u (i32.const 1028)) (i32.load (i32.const 1024)))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $paint))
  (func (export "query") (param i32) (result i32) (local $at i32) (local $sum i64)
    (if (local.get 0) (then (return (call $paint))))
    (local.set $at (i32.const 65536))
    (loop $more
      (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 64)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 6553600))))
    (i64.store (i32.const 0) (local.get $sum))
    (call $write (i32.const 0) (i32.const 8)) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0))"#;

pub(super) fn painter_limits() -> Limits {
    Limits { query_fuel: 100_000_000, apply_fuel: 100_000_000, ..small_limits() }
}

pub(super) fn paint(len: u32, color: u8) -> Vec<u8> {
    let mut command = len.to_le_bytes().to_vec();
    command.push(color);
    command
}

fn queries_that_write_one_page_or_thousands_are_undone_alike() {
    let mut fsm = try_start(&wasm(PAINTER), &painter_limits()).unwrap();
    let sum = |fsm: &mut dyn Fsm| {
        u64::from_le_bytes(ok(fsm.query(at(1), b"").unwrap()).try_into().unwrap())
    };
    let mut painted = 0;
    // Below and above what is noted page by page, many times over.
    for round in 1..40u32 {
        let pages = [1, 3, 100, 511, 512, 513, 1500][round as usize % 7];
        ok(fsm.query(at(1), &paint(pages * 4096, 0xff)).unwrap());
        assert_eq!(sum(&mut *fsm), painted, "round {round}");
        ok(fsm.apply(at(1), &paint(round * 4096, 1)).unwrap());
        painted = u64::from(round) * 64;
        assert_eq!(sum(&mut *fsm), painted, "round {round}");
    }
}

fn pages_first_read_as_holes_by_a_query_show_later_writes() {
    let mut fsm = try_start(
        &wasm(PAINTER),
        &Limits { query_fuel: 1 << 30, apply_fuel: 1 << 30, ..small_limits() },
    )
    .unwrap();
    let sum = |fsm: &mut dyn Fsm| ok(fsm.query(at(1), b"").unwrap());
    assert_eq!(sum(&mut *fsm), 0u64.to_le_bytes());
    let mut command = 6_000_000u32.to_le_bytes().to_vec();
    command.push(1);
    ok(fsm.apply(at(1), &command).unwrap());
    assert_eq!(sum(&mut *fsm), 93_750u64.to_le_bytes());
}

/// Forks used to keep until the next query what one had written, and that may be as much as a guest
/// may have, for each thread.
fn idle_forks_keep_a_few_pages_of_what_queries_wrote_or_grew() {
    // Grows by 64 MiB, if that is asked for, and writes to 60 MiB.
    const SPENDER: &str = r#"
      (memory (export "memory") 1024)
      (func (export "apply") (param i32) (result i32) (i32.const 0))
      (func (export "query") (param $len i32) (result i32)
        (drop (call $take))
        (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 103))
          (then (drop (memory.grow (i32.const 1024)))))
        (memory.fill (i32.const 65536)
          (i32.const 7)
          (i32.mul (i32.load8_u (i32.const 1025)) (i32.const 1048576)))
        (i32.const 0))
      (func (export "snapshot") (result i32) (i32.const 0))
      (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    const THREADS: usize = 3;
    let limits = Limits { memory_max_bytes: 128 << 20, query_fuel: 1 << 30, ..small_limits() };
    let mut fsm = loader()
        .with_threads(THREADS)
        .start(&wasm(SPENDER), &limits, Some(at(1)))
        .unwrap()
        .unwrap();
    for query in [[b'w', 60], [b'g', 60], [b'w', 1], [b'w', 60], [b'w', 0]] {
        let queries = vec![Bytes::copy_from_slice(&query); 2 * THREADS];
        for answer in fsm.query_all(at(1), &queries).unwrap() {
            ok(answer);
        }
        let kept = fsm.idle_private_bytes();
        assert!(kept.len() <= THREADS);
        // What can be noted: see the memory's own bound.
        assert!(kept.iter().all(|bytes| *bytes <= 512 * 4096), "{query:?}: {kept:?}");
    }
    assert!(!fsm.idle_private_bytes().is_empty());
}

fn a_module_without_query_says_so() {
    let mut fsm = start(&SCRIBE.replace(r#"(export "query")"#, ""));
    assert!(!fsm.has_query());
    let call = fsm.query(at(1), b"q").unwrap();
    let GuestResult::Rejected(reason) = call.result else { panic!("{call:?}") };
    assert!(String::from_utf8(reason).unwrap().contains("does not export `query`"));
}

fn a_query_whose_writes_are_kept_is_there_after_an_undo_and_gone_after_its_own_trap() {
    let mut fsm = start_wasm(SCRIBE, &small_limits());
    fsm.apply(at(1), b"a1").unwrap();
    let asked = fsm.query(at(1), b"a-asked").unwrap();
    assert_eq!(fsm.query_and_keep(at(1), b"a-asked").unwrap(), asked);
    assert_eq!(contents(&mut fsm), "a1a-asked");
    // A rejected one keeps its writes too; one that traps does not.
    let call = fsm.query_and_keep(at(1), b"r-no").unwrap();
    assert_eq!(call.result, GuestResult::Rejected(b"r-no".to_vec()));
    assert_eq!(trap(fsm.query_and_keep(at(1), b"u").unwrap()), TrapKind::Unreachable);
    assert_eq!(contents(&mut fsm), "a1a-askedr-no");
    fsm.apply(at(2), b"a2").unwrap();
    trap(fsm.apply(at(3), b"u").unwrap());
    assert_eq!(contents(&mut fsm), "a1a-askedr-noa2");
}

on_each_backend! {
    a_query_whose_writes_are_kept_is_there_after_an_undo_and_gone_after_its_own_trap
    a_query_sees_every_command_and_its_own_writes_vanish
    queries_follow_growth_and_may_grow_themselves
    a_query_after_undo_image_or_restore_sees_the_new_state
    queries_that_write_one_page_or_thousands_are_undone_alike
    pages_first_read_as_holes_by_a_query_show_later_writes
    idle_forks_keep_a_few_pages_of_what_queries_wrote_or_grew
    a_module_without_query_says_so
}
