//! Traps, undo and images.

use super::*;
use crate::fsm::ImageError;

const TRAPS: &[(&[u8], TrapKind)] = &[
    (b"l", TrapKind::OutOfFuel),
    (b"s", TrapKind::StackOverflow),
    (b"o", TrapKind::OutOfBounds),
    (b"u", TrapKind::Unreachable),
    (b"z", TrapKind::Arithmetic),
    (b"c", TrapKind::BadCall),
    (b"h", TrapKind::BadHostCall),
    (b"w", TrapKind::OutputLimit),
    (b"n", TrapKind::BadStatus),
];

fn each_way_to_break_has_its_kind_and_leaves_no_trace() {
    let mut fsm = scribe();
    fsm.apply(at(1), b"a-one ").unwrap();
    let before = image(&mut *fsm);
    for (command, kind) in TRAPS {
        assert_eq!(trap(fsm.apply(at(2), command).unwrap()), *kind);
        assert_eq!(image(&mut *fsm), before, "{kind:?}");
        assert_eq!(trap(fsm.query(at(2), command).unwrap()), *kind);
        assert_eq!(image(&mut *fsm), before, "query, {kind:?}");
    }
    assert_eq!(contents(&mut *fsm), "a-one ");
}

fn a_run_with_traps_ends_bit_identical_to_one_without() {
    let mut straight = scribe();
    let mut broken = scribe();
    for index in 1..60 {
        let command = match index % 7 {
            3 => b"g".to_vec(),
            5 => b"rejected ".to_vec(),
            _ => format!("a{index} ").into_bytes(),
        };
        let expected = straight.apply(at(index), &command).unwrap();
        assert_eq!(broken.apply(at(index), &command).unwrap(), expected);
        if index % 5 == 0 {
            let (command, kind) = TRAPS[index as usize / 5 % TRAPS.len()];
            assert_eq!(trap(broken.apply(at(index), command).unwrap()), kind);
        }
    }
    assert_eq!(image(&mut *straight), image(&mut *broken));
    assert_eq!(straight.apply(at(60), b"a").unwrap(), broken.apply(at(60), b"a").unwrap());
}

/// Wherever in the entry the checkpoint lies that is gone back to.
fn a_trap_in_the_middle_of_an_entry_undoes_nothing_of_the_commands_around_it() {
    for checkpoint_before in 0..5 {
        let mut fsm = scribe();
        for (ordinal, command) in (0..).zip([&b"a-one "[..], b"u", b"a-two ", b"l", b"a-three"]) {
            if ordinal == checkpoint_before {
                drop(fsm.capture().unwrap());
            }
            let call = fsm.apply(behind(at(1), ordinal), command).unwrap();
            assert_eq!(matches!(call.result, GuestResult::Trapped(_)), command.len() == 1);
        }
        assert_eq!(contents(&mut *fsm), "a-one a-two a-three", "before {checkpoint_before}");
    }
}

fn a_rejected_command_reports_its_reason_and_emits_nothing() {
    let mut fsm = scribe();
    let call = fsm.apply(at(1), b"r because").unwrap();
    assert_eq!(call.result, GuestResult::Rejected(b"r because".to_vec()));
    let call = fsm.apply(at(2), b"event").unwrap();
    assert_eq!(call.events.len(), 1);
    assert_eq!((&*call.events[0].topic, &*call.events[0].data), (&b"e"[..], &b"event"[..]));
}

fn an_image_carries_everything_to_another_loader_including_fuel_and_growth() {
    let mut fsm = scribe();
    fsm.init(at(1)).unwrap();
    for index in 2..20 {
        fsm.apply(at(index), b"a-some-text ").unwrap();
    }
    fsm.apply(at(20), b"g").unwrap();
    let bytes = image(&mut *fsm);

    let mut other = scribe();
    // What follows the image belongs to somebody else.
    let mut reader = [&bytes[..], b"rest"].concat();
    reader.truncate(bytes.len() + 4);
    let mut reader = reader.as_slice();
    other.load_image(&mut reader).unwrap();
    assert_eq!(reader, b"rest");
    assert_eq!(image(&mut *other), bytes);
    for (index, command) in [&b"a more"[..], b"g", b"u", b"x", b"t", b"event"].iter().enumerate() {
        let index = at(21 + index as u64);
        let (one, two) = (fsm.apply(index, command).unwrap(), other.apply(index, command).unwrap());
        assert_eq!(one, two);
    }
    assert_eq!(image(&mut *other), image(&mut *fsm));
    assert_eq!(contents(&mut *other), contents(&mut *fsm));
}

fn an_image_in_the_making_does_not_see_what_happens_meanwhile() {
    let mut fsm = scribe();
    fsm.apply(at(1), b"a1").unwrap();
    let early = fsm.capture().unwrap();
    fsm.apply(at(2), b"a2").unwrap();
    image(&mut *fsm);
    let mut bytes = Vec::new();
    early.write_to(&mut bytes).unwrap();
    let mut other = scribe();
    other.load_image(&mut bytes.as_slice()).unwrap();
    assert_eq!(contents(&mut *other), "a1");
}

fn a_damaged_truncated_or_foreign_image_is_refused_and_changes_nothing() {
    let mut fsm = scribe();
    fsm.apply(at(1), b"a-text").unwrap();
    let bytes = image(&mut *fsm);
    let mut other = scribe();
    other.apply(at(1), b"a-other").unwrap();
    let before = image(&mut *other);
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        assert!(other.load_image(&mut damaged.as_slice()).is_err(), "byte {position}");
    }
    for len in [0, 7, 40, bytes.len() / 2, bytes.len() - 1] {
        let error = other.load_image(&mut &bytes[..len]).unwrap_err();
        assert!(matches!(error, ImageError::Io(_) | ImageError::Invalid(_)), "{error}");
    }
    let mut foreign = start(&format!("{SCRIBE} (func $one_more)"));
    let error = foreign.load_image(&mut bytes.as_slice()).unwrap_err().to_string();
    assert!(error.contains("it belongs to module"), "{error}");
    assert_eq!(image(&mut *other), before);
}

fn init_runs_once_and_a_module_without_it_is_content() {
    let mut fsm = scribe();
    ok(fsm.init(at(1)).unwrap());
    assert_eq!(contents(&mut *fsm), "i");
    let mut fsm = start(&SCRIBE.replace(r#"(export "init")"#, ""));
    ok(fsm.init(at(1)).unwrap());
    assert_eq!(contents(&mut *fsm), "");
}

fn a_snapshot_restores_and_neither_it_nor_a_failed_restore_leaves_a_trace() {
    let mut fsm = scribe();
    fsm.apply(at(1), b"a-one ").unwrap();
    fsm.apply(at(2), b"a-two").unwrap();
    let before = image(&mut *fsm);
    let snapshot = ok(fsm.snapshot(at(2)).unwrap());
    assert_eq!(snapshot, b"a-one a-two");
    assert_eq!(image(&mut *fsm), before);

    let mut other = scribe();
    assert_eq!(trap(other.restore(at(3), b"u").unwrap()), TrapKind::Unreachable);
    let rejected = other.restore(at(3), b"r").unwrap();
    assert!(matches!(rejected.result, GuestResult::Rejected(_)));
    assert_eq!(contents(&mut *other), "");
    ok(other.restore(at(3), &snapshot).unwrap());
    assert_eq!(contents(&mut *other), "a-one a-two");
    assert_eq!(trap(other.apply(at(4), b"u").unwrap()), TrapKind::Unreachable);
    assert_eq!(contents(&mut *other), "a-one a-two");
}

fn the_start_section_and_initialize_run_at_start_but_not_on_undo_or_load() {
    let body = r#"
      (memory (export "memory") 1)
      (global $starts (mut i32) (i32.const 0))
      (func $start (global.set $starts (i32.add (global.get $starts) (i32.const 1))))
      (start $start)
      (func (export "_initialize") (call $start))
      (func (export "apply") (param i32) (result i32) (unreachable))
      (func (export "query") (param i32) (result i32)
        (i32.store (i32.const 0) (global.get $starts))
        (call $write (i32.const 0) (i32.const 4)) (i32.const 0))
      (func (export "snapshot") (result i32) (i32.const 0))
      (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    let mut fsm = start(body);
    let starts = |fsm: &mut dyn Fsm| ok(fsm.query(at(1), b"").unwrap());
    assert_eq!(starts(&mut *fsm), 2u32.to_le_bytes());
    assert_eq!(trap(fsm.apply(at(1), b"").unwrap()), TrapKind::Unreachable);
    assert_eq!(starts(&mut *fsm), 2u32.to_le_bytes());
    let bytes = image(&mut *fsm);
    fsm.load_image(&mut bytes.as_slice()).unwrap();
    assert_eq!(starts(&mut *fsm), 2u32.to_le_bytes());
}

fn an_initialiser_that_traps_is_a_refusal() {
    let body = format!(r#"{SCRIBE} (func (export "_start") (unreachable))"#);
    let refused = try_start(&wasm(&body), &small_limits()).err().unwrap();
    assert!(refused.0.contains("its initialiser executed `unreachable`"), "{refused}");
    let body = format!(r#"{SCRIBE} (data (i32.const 0x7fff0000) "out")"#);
    let refused = try_start(&wasm(&body), &small_limits()).err().unwrap();
    assert!(refused.0.contains("it cannot start"), "{refused}");
}

fn globals_of_every_number_type_survive_a_trap_and_an_image() {
    let body = r#"
      (memory (export "memory") 1)
      (global $a (mut i32) (i32.const 1)) (global $b (mut i64) (i64.const 2))
      (global $c (mut f32) (f32.const 3)) (global $d (mut f64) (f64.const 4))
      (global $e (mut v128) (v128.const i64x2 5 6))
      (func (export "apply") (param i32) (result i32)
        (global.set $a (i32.const -11)) (global.set $b (i64.const -12))
        (global.set $c (f32.const nan:0x200001)) (global.set $d (f64.const -0))
        (global.set $e (v128.const i64x2 15 -16))
        (if (i32.eq (local.get 0) (i32.const 1)) (then (unreachable)))
        (i32.const 0))
      (func (export "query") (param i32) (result i32)
        (i32.store (i32.const 0) (global.get $a)) (i64.store (i32.const 8) (global.get $b))
        (f32.store (i32.const 16) (global.get $c)) (f64.store (i32.const 24) (global.get $d))
        (v128.store (i32.const 32) (global.get $e))
        (call $write (i32.const 0) (i32.const 48)) (i32.const 0))
      (func (export "snapshot") (result i32) (i32.const 0))
      (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    let mut fsm = start(body);
    let fresh = ok(fsm.query(at(1), b"").unwrap());
    assert_eq!(trap(fsm.apply(at(1), b"x").unwrap()), TrapKind::Unreachable);
    assert_eq!(ok(fsm.query(at(1), b"").unwrap()), fresh);
    ok(fsm.apply(at(1), b"").unwrap());
    let set = ok(fsm.query(at(1), b"").unwrap());
    assert_ne!(set, fresh);
    let bytes = image(&mut *fsm);
    let mut other = start(body);
    other.load_image(&mut bytes.as_slice()).unwrap();
    assert_eq!(ok(other.query(at(1), b"").unwrap()), set);
}

fn checkpoints_on_the_way_do_not_show_after_a_trap() {
    let mut straight = scribe();
    let mut broken = scribe();
    // Enough fuel for several checkpoints of a memory of 128 KiB.
    for index in 1..60_000 {
        let command: &[u8] = if index % 1000 == 0 { b"a." } else { b"t" };
        straight.apply(at(index), command).unwrap();
        broken.apply(at(index), command).unwrap();
        if index % 7919 == 0 {
            assert_eq!(trap(broken.apply(at(index), b"u").unwrap()), TrapKind::Unreachable);
        }
    }
    assert_eq!(image(&mut *straight), image(&mut *broken));
}

/// A module may start at one index and refuse to start at another, and time goes on. What an image
/// holds was accepted once; whoever takes it over must not ask again.
fn an_image_is_taken_over_wherever_the_initialisers_would_refuse_by_now() {
    let body = format!(
        r#"{SCRIBE} (func (export "_initialize")
          (if (i64.gt_u (call $index) (i64.const 1)) (then (unreachable))))"#
    );
    let module = wasm(&body);
    let loader = loader();
    let mut fsm = loader.instantiate(&module, &small_limits(), at(1)).unwrap().unwrap();
    ok(fsm.apply(at(1), b"a1").unwrap());
    let bytes = image(&mut *fsm);
    assert!(loader.instantiate(&module, &small_limits(), at(2)).unwrap().is_err());
    let blank = || loader.instantiate_blank(&module, &small_limits(), at(2)).unwrap().unwrap();
    let mut restored = blank();
    restored.load_image(&mut bytes.as_slice()).unwrap();
    let mut adopted = blank();
    adopted.adopt(&*fsm.capture().unwrap()).unwrap();
    for mut other in [restored, adopted] {
        assert_eq!(image(&mut *other), bytes);
        let expected = fsm.apply(at(3), b"u").unwrap();
        assert_eq!(other.apply(at(3), b"u").unwrap(), expected);
        assert_eq!(contents(&mut *other), "a1");
        assert_eq!(image(&mut *other), bytes);
    }
}

on_each_backend! {
    each_way_to_break_has_its_kind_and_leaves_no_trace
    a_run_with_traps_ends_bit_identical_to_one_without
    a_trap_in_the_middle_of_an_entry_undoes_nothing_of_the_commands_around_it
    a_rejected_command_reports_its_reason_and_emits_nothing
    an_image_carries_everything_to_another_loader_including_fuel_and_growth
    an_image_in_the_making_does_not_see_what_happens_meanwhile
    a_damaged_truncated_or_foreign_image_is_refused_and_changes_nothing
    init_runs_once_and_a_module_without_it_is_content
    a_snapshot_restores_and_neither_it_nor_a_failed_restore_leaves_a_trace
    the_start_section_and_initialize_run_at_start_but_not_on_undo_or_load
    an_initialiser_that_traps_is_a_refusal
    globals_of_every_number_type_survive_a_trap_and_an_image
    an_image_is_taken_over_wherever_the_initialisers_would_refuse_by_now
    checkpoints_on_the_way_do_not_show_after_a_trap
}
