//! Portable snapshots that are longer than a part.

use super::*;
use crate::fsm::{Difference, REASON_MAX_BYTES, Written};

/// Pages that hold 3 MiB more than the scribe begins with.
const PAGES: u64 = 48;
const LINE_BYTES: usize = 4_000;
const LINES: u64 = 700;

fn grown() -> Box<dyn Fsm> {
    let mut fsm = scribe();
    (1..=PAGES).for_each(|index| drop(ok(fsm.apply(at(index), b"g").unwrap())));
    fsm
}

/// One with a state of 2.8 MB.
fn large() -> (Box<dyn Fsm>, Vec<u8>) {
    let mut fsm = grown();
    let mut all = Vec::new();
    for number in 0..LINES {
        let mut line = vec![b'a'];
        line.extend((1..LINE_BYTES as u64).map(|at| (at * (number + 1) % 251) as u8));
        ok(fsm.apply(at(PAGES + 1 + number), &line).unwrap());
        all.extend(line);
    }
    (fsm, all)
}

fn what_was_written_in_parts_is_read_in_parts_and_both_are_the_same_state() {
    let (mut fsm, all) = large();
    let mut kept = Written::kept();
    let context = at(1_000);
    let call = fsm.snapshot_into(context, &mut kept).unwrap();
    let fuel = call.fuel_used;
    assert_eq!((ok(call), kept.len()), (Vec::new(), all.len() as u64));
    let pile = kept.into_pile();
    assert_eq!(pile.clone().into_vec(), all);
    let whole = fsm.snapshot(context).unwrap();
    assert_eq!((whole.fuel_used, ok(whole)), (fuel, all.clone()), "the guest cannot tell");

    let (mut in_parts, mut at_once) = (grown(), grown());
    let one = in_parts.restore_from(context, pile.clone()).unwrap();
    let other = at_once.restore(context, &all).unwrap();
    assert_eq!(one, other);
    ok(one);
    assert_eq!(in_parts.digest().unwrap().digest, at_once.digest().unwrap().digest);

    let mut counted = Written::counted();
    ok(in_parts.snapshot_into(context, &mut counted).unwrap());
    assert_eq!(counted.len(), all.len() as u64);
    let mut compared = Written::compared_with(pile.clone());
    ok(in_parts.snapshot_into(context, &mut compared).unwrap());
    assert_eq!(compared.into_difference(), None);
    ok(in_parts.apply(at(1_001), b"a-more").unwrap());
    let mut compared = Written::compared_with(pile);
    ok(in_parts.snapshot_into(at(1_001), &mut compared).unwrap());
    let found = b"a-more".to_vec();
    let more = Difference { at: all.len() as u64, expected: Vec::new(), found };
    assert_eq!(compared.into_difference(), Some(more));
}

fn the_copy_that_a_trap_goes_back_to_is_made_before_anything_changes_what_was_restored() {
    let (mut fsm, _) = large();
    let mut kept = Written::kept();
    ok(fsm.snapshot_into(at(1_000), &mut kept).unwrap());
    let pile = kept.into_pile();
    let restored = || {
        let mut fsm = grown();
        ok(fsm.restore_from(at(1_000), pile.clone()).unwrap());
        fsm
    };
    let image = image(&mut *restored());
    for prepared in [false, true] {
        let mut fsm = restored();
        if prepared {
            fsm.prepare().unwrap();
        }
        assert_eq!(trap(fsm.apply(at(1_001), b"u").unwrap()), TrapKind::Unreachable);
        assert_eq!(super::image(&mut *fsm), image);
        // A second one that is refused changes nothing, either.
        assert_eq!(trap(fsm.restore(at(1_002), b"u").unwrap()), TrapKind::Unreachable);
        assert_eq!(super::image(&mut *fsm), image);
    }
    let mut loaded = restored();
    ok(loaded.restore(at(1_002), b"a").unwrap());
    loaded.load_image(&mut image.as_slice()).unwrap();
    assert_eq!(trap(loaded.apply(at(1_003), b"u").unwrap()), TrapKind::Unreachable);
    assert_eq!(super::image(&mut *loaded), image);
}

/// Writes 5,000 bytes, and rejects.
const GRUMBLER: &str = r#"
  (memory (export "memory") 1)
  (data (i32.const 0) "no, because")
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0))
  (func (export "snapshot") (result i32)
    (call $write (i32.const 0) (i32.const 5000)) (i32.const 1))"#;

fn a_rejection_says_why_however_little_is_kept_and_the_limit_holds() {
    let mut fsm = start(GRUMBLER);
    for mut written in [Written::counted(), Written::kept()] {
        let call = fsm.snapshot_into(at(1), &mut written).unwrap();
        let GuestResult::Rejected(reason) = call.result else { panic!("{call:?}") };
        assert!(reason.starts_with(b"no, because\0") && reason.len() == REASON_MAX_BYTES);
    }
    let limits = Limits { snapshot_max_bytes: 4_999, ..small_limits() };
    let mut fsm = try_start(&wasm(GRUMBLER), &limits).unwrap();
    for mut written in [Written::counted(), Written::kept()] {
        assert_eq!(trap(fsm.snapshot_into(at(1), &mut written).unwrap()), TrapKind::OutputLimit);
    }
}

on_each_backend! {
    what_was_written_in_parts_is_read_in_parts_and_both_are_the_same_state
    the_copy_that_a_trap_goes_back_to_is_made_before_anything_changes_what_was_restored
    a_rejection_says_why_however_little_is_kept_and_the_limit_holds
}
