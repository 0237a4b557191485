//! Tracked pages, checkpoints, digests and images.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::types::StateDigest;
use crate::wasm::digest::from_scratch;

/// Does on command what a test needs; the first byte decides, the next four are a page.
/// `w` write the fifth byte to that page and the next; `g` grow by sixteen pages of 4 KiB
/// and write to the last one; `t` as `g` and `w`, then trap; `s` sum up the first bytes of
/// all pages.
pub(super) const PAGER: &str = r#"
  (memory (export "memory") 4)
  (global $writes (mut i64) (i64.const 0))
  (func $page (result i32) (i32.mul (i32.load (i32.const 1025)) (i32.const 4096)))
  (func $paint (local $at i32)
    (local.set $at (call $page))
    (if (i32.ge_u (i32.add (local.get $at) (i32.const 4100))
          (i32.mul (memory.size) (i32.const 65536)))
      (then (return)))
    (i32.store8 (local.get $at) (i32.load8_u (i32.const 1029)))
    (i32.store8 (i32.add (local.get $at) (i32.const 4096)) (i32.load8_u (i32.const 1029)))
    (global.set $writes (i64.add (global.get $writes) (i64.const 1))))
  (func $grow (local $old i32)
    (local.set $old (memory.grow (i32.const 1)))
    (if (i32.ge_s (local.get $old) (i32.const 0)) (then
      (i32.store8
        (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)) (i32.const 7)))))
  (func $do (local $op i32)
    (local.set $op (i32.load8_u (i32.const 1024)))
    (if (i32.eq (local.get $op) (i32.const 119)) (then (call $paint)))
    (if (i32.eq (local.get $op) (i32.const 103)) (then (call $grow)))
    (if (i32.eq (local.get $op) (i32.const 116)) (then
      (call $grow) (call $paint) (unreachable))))
  (func $sum (local $at i32) (local $sum i32)
    (loop $more
      (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31))
        (i32.load8_u (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 2048)))
      (br_if $more (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
    (i32.store (i32.const 8) (local.get $sum))
    (call $write (i32.const 8) (i32.const 4)))
  (func $call (result i32)
    (drop (call $take))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 115))
      (then (call $sum)) (else (call $do)))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $call))
  (func (export "query") (param i32) (result i32) (call $call))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0))"#;

pub(super) fn paged(op: u8, page: u32, value: u8) -> Vec<u8> {
    let mut command = vec![op];
    command.extend_from_slice(&page.to_le_bytes());
    command.push(value);
    command
}

fn digest(fsm: &mut dyn Fsm) -> StateDigest {
    fsm.digest().unwrap().digest
}

fn memory_that_grew_and_was_undone_is_zero_again() {
    let mut straight = start(PAGER);
    let mut broken = start(PAGER);
    for round in 0..5u8 {
        // Writes to what was there and to what is new.
        for page in [3, 64 + 16 * u32::from(round)] {
            assert_eq!(
                trap(broken.apply(at(1), &paged(b't', page, 9)).unwrap()),
                TrapKind::Unreachable
            );
        }
        // The digest sees all of it, and so does the image.
        assert_eq!(digest(&mut *broken), digest(&mut *straight));
        for fsm in [&mut straight, &mut broken] {
            ok(fsm.apply(at(1), &paged(b'w', 5, round)).unwrap());
            ok(fsm.apply(at(1), &paged(b'g', 0, 0)).unwrap());
            ok(fsm.query(at(1), &paged(b'g', 0, 0)).unwrap());
        }
        assert_eq!(image(&mut *broken), image(&mut *straight), "round {round}");
        let sum = |fsm: &mut dyn Fsm| ok(fsm.apply(at(1), &paged(b's', 0, 0)).unwrap());
        assert_eq!(sum(&mut *broken), sum(&mut *straight));
    }
}

fn an_image_keeps_what_checkpoints_replace_while_it_is_written() {
    let mut fsm = start(PAGER);
    let mut images = Vec::new();
    for round in 1..20u32 {
        ok(fsm.apply(at(1), &paged(b'w', round * 3 % 60, round as u8)).unwrap());
        let captured = fsm.capture().unwrap();
        let mut bytes = Vec::new();
        captured.write_to(&mut bytes).unwrap();
        images.push((captured, bytes));
    }
    for (captured, early) in images {
        let mut late = Vec::new();
        captured.write_to(&mut late).unwrap();
        assert!(early == late);
    }
}

fn counting_pages_tells_what_one_command_wrote_and_loses_nothing() {
    let mut fsm = start(PAGER);
    let counts = BACKEND.get() == Some(MemoryBackend::Userfaultfd);
    let before = image(&mut *fsm);
    ok(fsm.apply(at(1), &paged(b'w', 8, 1)).unwrap());
    for (page, pages) in [(20, 3), (8, 3), (0, 2)] {
        fsm.count_pages();
        // The input goes to page 0; painting writes to two pages.
        let call = fsm.apply(at(1), &paged(b'w', page, 2)).unwrap();
        assert_eq!(call.pages_dirtied, counts.then_some(pages));
    }
    assert_eq!(fsm.apply(at(1), &paged(b'w', 1, 1)).unwrap().pages_dirtied, None);
    let after = image(&mut *fsm);
    assert_ne!(before, after);
    // What was counted, by a command that traps as well, is undone.
    ok(fsm.apply(at(1), &paged(b'w', 30, 5)).unwrap());
    let expected = fsm.query(at(1), &paged(b's', 0, 0)).unwrap();
    for page in [30, 40] {
        fsm.count_pages();
        let call = fsm.apply(at(1), &paged(b't', page, 6)).unwrap();
        assert_eq!(call.pages_dirtied.is_some(), counts);
        trap(call);
        assert_eq!(fsm.query(at(1), &paged(b's', 0, 0)).unwrap(), expected);
    }
}

fn a_digest_names_the_ranges_that_changed_since_the_last() {
    let mut fsm = start(PAGER);
    let [all] = fsm.digest().unwrap().changed.try_into().unwrap();
    assert_eq!(all, 0..4 << 16);
    let first = fsm.digest().unwrap();
    assert!(first.changed.is_empty());
    ok(fsm.apply(at(1), &paged(b'w', 8, 1)).unwrap());
    ok(fsm.apply(at(1), &paged(b'w', 11, 1)).unwrap());
    let second = fsm.digest().unwrap();
    assert_ne!(first.digest, second.digest);
    // Those, and the one that took the input.
    assert_eq!(second.changed, [0..1 << 12, 8 << 12..10 << 12, 11 << 12..13 << 12]);
    ok(fsm.apply(at(1), &paged(b'w', 8, 1)).unwrap());
    // The input before this was that of page 11.
    let [one] = fsm.digest().unwrap().changed.try_into().unwrap();
    assert_eq!(one, 0..1 << 12);
}

fn a_state_has_the_same_digest_however_it_came_about() {
    let mut one = start(PAGER);
    let mut other = start(PAGER);
    for value in 1..50u8 {
        ok(one.apply(at(1), &paged(b'w', u32::from(value), value)).unwrap());
        digest(&mut *one);
        image(&mut *one);
        ok(other.apply(at(1), &paged(b'w', u32::from(value), value)).unwrap());
    }
    assert_eq!(digest(&mut *one), digest(&mut *other));
    let mut third = start(PAGER);
    third.load_image(&mut image(&mut *one).as_slice()).unwrap();
    assert_eq!(digest(&mut *third), digest(&mut *one));
    // What was cleared again does not count, nor that a block is there for it.
    let mut fourth = start(PAGER);
    fourth.adopt(&*one.capture().unwrap()).unwrap();
    for fsm in [&mut one, &mut fourth] {
        for page in 1..50 {
            ok(fsm.apply(at(1), &paged(b'w', page, 0)).unwrap());
        }
    }
    assert_eq!(digest(&mut *one), digest(&mut *fourth));
    assert_ne!(digest(&mut *one), digest(&mut *third));
}

fn parallel_queries_answer_as_single_ones_and_change_nothing() {
    let mut fsm =
        loader().with_threads(4).start(&wasm(SCRIBE), &small_limits(), Some(at(1))).unwrap();
    let fsm = fsm.as_mut().unwrap();
    let mut expected = String::new();
    for round in 0..10u64 {
        ok(fsm.apply(at(round), b"a-command ").unwrap());
        expected.push_str("a-command ");
        let before = image(fsm);
        // Scribbles, grows, traps and loops among the questions.
        let queries: Vec<Bytes> = (0..200)
            .map(|number| match number % 10 {
                0..4 => Bytes::from_static(b"q"),
                4 => Bytes::from_static(b"g"),
                5 => Bytes::from_static(b"u-scribble"),
                6 if number < 20 => Bytes::from_static(b"l"),
                7 => Bytes::from_static(b"r-scribble"),
                8 if number == 78 => Bytes::from(vec![b'a'; 5000]),
                _ => Bytes::from_static(b"a-scribble"),
            })
            .collect();
        let together = fsm.query_all(at(round), &queries).unwrap();
        for (query, answer) in queries.iter().zip(&together) {
            assert_eq!(*answer, fsm.query(at(round), query).unwrap());
            if **query == *b"q" {
                assert_eq!(ok(answer.clone()), expected.as_bytes());
            }
        }
        assert!(image(fsm) == before);
    }
}

#[test]
fn a_query_that_wrote_many_pages_may_still_grow_memory() {
    // A view notes the pages that a query writes, up to a number; beyond, it opens all of them.
    // What it grew by afterwards used to stay protected, so that the query trapped.
    const HUNGRY: &str = r#"
      (memory (export "memory") 64)
      (func (export "apply") (param i32) (result i32) (i32.const 0))
      (func (export "query") (param i32) (result i32) (local $at i32)
        (loop $more
          (i32.store (local.get $at) (i32.const 7))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br_if $more (i32.lt_u (local.get $at) (i32.const 4194304))))
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
        (i32.store (i32.const 5000000) (i32.const 9))
        (call $write (i32.const 5000000) (i32.const 4))
        (i32.const 0))
      (func (export "snapshot") (result i32) (i32.const 0))
      (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    let mut fsm = start(HUNGRY);
    let before = digest(&mut *fsm);
    for _ in 0..3 {
        assert_eq!(ok(fsm.query(at(1), b"").unwrap()), [9, 0, 0, 0]);
    }
    assert_eq!(digest(&mut *fsm), before);
}

#[test]
fn one_thread_and_many_write_the_same_image_and_read_it_alike() {
    let limits = Limits { memory_max_bytes: 64 << 20, ..small_limits() };
    let body =
        PAGER.replace(r#"(memory (export "memory") 4)"#, r#"(memory (export "memory") 900)"#);
    let start = |threads| {
        let fsm = loader().with_threads(threads).start(&wasm(&body), &limits, Some(at(1)));
        fsm.unwrap().unwrap()
    };
    let (mut one, mut many) = (start(1), start(3));
    for page in (0..14_000).step_by(61) {
        for fsm in [&mut one, &mut many] {
            ok(fsm.apply(at(1), &paged(b'w', page, page as u8)).unwrap());
        }
    }
    let bytes = image(&mut one);
    assert!(image(&mut many) == bytes);
    let expected = digest(&mut one);
    for mut fsm in [start(1), start(3)] {
        fsm.load_image(&mut bytes.as_slice()).unwrap();
        assert_eq!(digest(&mut fsm), expected);
        assert!(image(&mut fsm) == bytes);
        for position in [100, bytes.len() / 2, bytes.len() - 5] {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert!(fsm.load_image(&mut damaged.as_slice()).is_err());
        }
        assert_eq!(digest(&mut fsm), expected);
    }
}

#[test]
fn the_way_of_finding_out_what_was_written_is_named() {
    let loader = WasmLoader::new(None).unwrap();
    let loader = loader.with_memory_backend(MemoryBackend::PlainCopy).unwrap();
    assert_eq!(loader.memory_backend(), "plain copy");
    if let Ok(loader) = loader.with_memory_backend(MemoryBackend::Userfaultfd) {
        assert_eq!(loader.memory_backend(), "userfaultfd");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(u8, u32, u8),
    Query(u8, u32),
    Digest,
    Image,
    Reload,
    Count,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..80u32, any::<u8>()).prop_map(|(page, value)| Step::Apply(b'w', page, value)),
        1 => Just(Step::Apply(b'g', 0, 0)),
        2 => (0..120u32, any::<u8>()).prop_map(|(page, value)| Step::Apply(b't', page, value)),
        2 => (0..80u32).prop_map(|page| Step::Query(b'w', page)),
        1 => Just(Step::Query(b'g', 0)),
        1 => Just(Step::Digest),
        1 => Just(Step::Image),
        1 => Just(Step::Reload),
        2 => Just(Step::Count),
    ]
}

fn take(fsm: &mut WasmFsm, index: u64, step: &Step) {
    match step {
        Step::Apply(op, page, value) => {
            fsm.apply(at(index), &paged(*op, *page, *value)).map(drop).unwrap();
        }
        Step::Query(op, page) => {
            fsm.query(at(index), &paged(*op, *page, 1)).map(drop).unwrap();
        }
        Step::Digest => fsm.digest().map(drop).unwrap(),
        Step::Image => drop(fsm.capture().unwrap()),
        Step::Reload => {
            let bytes = image(fsm);
            fsm.load_image(&mut bytes.as_slice()).unwrap();
        }
        Step::Count => fsm.count_pages(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_state_and_digest_are_those_of_the_commands_alone(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let loader = || WasmLoader::new(None).unwrap();
        let mut loaders = vec![loader().with_memory_backend(MemoryBackend::PlainCopy).unwrap()];
        loaders.extend(loader().with_memory_backend(MemoryBackend::Userfaultfd));
        let start = |loader: &WasmLoader| {
            loader.start(&wasm(PAGER), &small_limits(), Some(at(1))).unwrap().unwrap()
        };
        let mut straight = start(&loaders[0]);
        for (index, step) in steps.iter().enumerate() {
            if matches!(step, Step::Apply(b'w' | b'g', ..)) {
                take(&mut straight, index as u64, step);
            }
        }
        let (memory, globals) = straight.state();
        let expected = from_scratch(&memory, &globals);
        prop_assert_eq!(digest(&mut straight), expected);
        for loader in &loaders {
            let mut fsm = start(loader);
            for (index, step) in steps.iter().enumerate() {
                take(&mut fsm, index as u64, step);
            }
            prop_assert!(fsm.state() == (memory.clone(), globals.clone()));
            prop_assert_eq!(digest(&mut fsm), expected);
            prop_assert!(image(&mut fsm) == image(&mut straight));
        }
    }
}

on_each_backend! {
    memory_that_grew_and_was_undone_is_zero_again
    an_image_keeps_what_checkpoints_replace_while_it_is_written
    counting_pages_tells_what_one_command_wrote_and_loses_nothing
    a_digest_names_the_ranges_that_changed_since_the_last
    a_state_has_the_same_digest_however_it_came_about
    parallel_queries_answer_as_single_ones_and_change_nothing
    a_query_that_wrote_many_pages_may_still_grow_memory
}

#[test]
fn a_bit_that_fails_in_a_page_at_rest_is_found_by_the_sweep() {
    // 19 MiB: more than one sweep compares.
    let body =
        PAGER.replace(r#"(memory (export "memory") 4)"#, r#"(memory (export "memory") 300)"#);
    let limits = Limits { memory_max_bytes: 300 << 16, ..small_limits() };
    let mut fsm = start_wasm(&body, &limits);
    for page in [20, 2_500, 4_700] {
        ok(fsm.apply(at(2), &paged(b'w', page, 7)).unwrap());
        let before = digest(&mut fsm);
        fsm.fail_bit(page as usize * 4096 + 100).unwrap();
        let found = (0..3).any(|_| digest(&mut fsm) != before);
        assert!(found, "page {page}");
        fsm.fail_bit(page as usize * 4096 + 100).unwrap();
        let mended = (0..3).any(|_| digest(&mut fsm) == before);
        assert!(mended, "page {page}");
    }
}
