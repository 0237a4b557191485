//! The window: inputs and outputs without the call of an import.

use bytes::Bytes;

use super::*;

/// Appends each command to memory from 128 KiB on, and does on command what a test needs. The first byte
/// decides: `e` answers all behind it, where it lies; `n` answers the number of bytes in the window, then
/// what `read` has; `w` writes `written`, then names the rest; `s` answers all that was appended; `c` answers
/// itself a thousand times; `r` rejects with the rest; `u` is `unreachable`; `b` names what is not there.
/// The window lies across the border of two pages.
const CLERK: &str = r#"
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (import "raft_fsm_v1" "window" (func $window (result i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 4)
  (global (export "raft_fsm_window") i32 (i32.const 63488))
  (global $end (mut i32) (i32.const 131072))
  (data (i32.const 0) "written")
  (func $name (param $ptr i32) (param $len i32)
    (i32.store (i32.const 63488) (local.get $ptr))
    (i32.store (i32.const 63492) (local.get $len)))
  (func $do (param $len i32) (result i32) (local $op i32) (local $at i32) (local $rest i32)
    ;; Where the input is: in the window, or where `read` puts it.
    (local.set $at (i32.const 63496))
    (if (i32.ne (call $window) (local.get $len)) (then
      (local.set $at (i32.const 1024))
      (if (i32.ne (call $read (i32.const 1024) (i32.const 8192)) (local.get $len)) (then (unreachable)))))
    (local.set $op (i32.load8_u (local.get $at)))
    (local.set $rest (i32.sub (local.get $len) (i32.const 1)))
    (memory.copy (global.get $end) (local.get $at) (local.get $len))
    (global.set $end (i32.add (global.get $end) (local.get $len)))
    (if (i32.eq (local.get $op) (i32.const 101)) (then
      (call $name (i32.add (local.get $at) (i32.const 1)) (local.get $rest))))
    (if (i32.eq (local.get $op) (i32.const 110)) (then
      (i32.store (i32.const 16) (call $window))
      (i32.store (i32.const 20) (call $read (i32.const 1024) (i32.const 8192)))
      (call $name (i32.const 16) (i32.const 8))))
    (if (i32.eq (local.get $op) (i32.const 119)) (then
      (call $write (i32.const 0) (i32.const 7))
      (call $name (i32.add (local.get $at) (i32.const 1)) (local.get $rest))))
    (if (i32.eq (local.get $op) (i32.const 115)) (then
      (call $name (i32.const 131072) (i32.sub (global.get $end) (i32.const 131072)))))
    (if (i32.eq (local.get $op) (i32.const 99)) (then
      (memory.fill (i32.const 1024) (i32.const 99) (i32.const 1000))
      (call $name (i32.const 1024) (i32.const 1000))))
    (if (i32.eq (local.get $op) (i32.const 114)) (then
      (call $name (i32.add (local.get $at) (i32.const 1)) (local.get $rest))
      (return (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 117)) (then (unreachable)))
    (if (i32.eq (local.get $op) (i32.const 98)) (then
      (call $name (i32.const 0x7fff0000) (i32.const 1))))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $do (local.get 0)))
  (func (export "query") (param i32) (result i32) (call $do (local.get 0)))
  (func (export "init") (result i32)
    ;; Means nothing here.
    (call $name (i32.const 0x7fff0000) (i32.const 1)) (i32.const 0))
  (func (export "snapshot") (result i32)
    (call $name (i32.const 0x7fff0000) (i32.const 1))
    (call $write (i32.const 131072) (i32.sub (global.get $end) (i32.const 131072)))
    (i32.const 0))
  (func (export "restore") (param i32) (result i32)
    (if (call $window) (then (unreachable)))
    (global.set $end (i32.add (i32.const 131072) (call $read (i32.const 131072) (i32.const 65536))))
    (i32.const 0))
"#;

fn limits() -> Limits {
    Limits { input_max_bytes: 8192, ..small_limits() }
}

fn clerk() -> WasmFsm {
    clerk_with(CLERK, limits())
}

fn clerk_with(body: &str, limits: Limits) -> WasmFsm {
    let module = wat::parse_str(format!("(module {body})")).unwrap();
    loader().start(&module, &limits, Some(at(1))).unwrap().unwrap()
}

fn counted(fsm: &mut WasmFsm, len: usize) -> (u32, u32) {
    let mut command = vec![b'.'; len];
    command[0] = b'n';
    let output = ok(fsm.apply(at(1), &command).unwrap());
    let number = |at: usize| u32::from_le_bytes(output[at..at + 4].try_into().unwrap());
    (number(0), number(4))
}

#[test]
fn a_short_input_is_in_the_window_and_a_long_one_is_read() {
    let mut fsm = clerk();
    for len in [1, 2, 4087, 4088] {
        assert_eq!(counted(&mut fsm, len), (len as u32, 0), "{len}");
    }
    // These were read before they were counted.
    for len in [4089, 8192] {
        assert_eq!(counted(&mut fsm, len), (0, 0), "{len}");
    }
    for len in [1, 7, 4088, 4089, 8192] {
        let command: Vec<u8> = b"e1234567".iter().copied().cycle().take(len).collect();
        assert_eq!(ok(fsm.apply(at(2), &command).unwrap()), command[1..], "{len}");
        assert_eq!(ok(fsm.query(at(2), &command).unwrap()), command[1..], "{len}");
    }
}

#[test]
fn what_the_window_names_comes_behind_what_was_written() {
    let mut fsm = clerk();
    assert_eq!(ok(fsm.apply(at(1), b"w first").unwrap()), b"written first");
    // What an earlier call named is forgotten.
    assert_eq!(ok(fsm.apply(at(2), b"quiet").unwrap()), b"");
    assert_eq!(ok(fsm.query(at(2), b"quiet").unwrap()), b"");
    let rejected = fsm.apply(at(3), b"rno").unwrap().result;
    assert_eq!(rejected, GuestResult::Rejected(b"no".to_vec()));
}

#[test]
fn an_empty_input_is_in_the_window_as_well() {
    let mut fsm = clerk();
    ok(fsm.apply(at(1), b"e1").unwrap());
    // The guest looks at what is left of the command before, and finds `e`.
    let left = fsm.apply(at(2), b"").unwrap();
    assert_eq!(trap(left), TrapKind::BadHostCall, "the rest of nothing is 4 GiB");
    assert_eq!(ok(fsm.query(at(1), b"s").unwrap()), b"e1s");
}

#[test]
fn bytes_in_the_window_cost_what_they_cost_elsewhere_and_no_call() {
    let mut fsm = clerk();
    let fuel = |fsm: &mut WasmFsm, command: &[u8]| fsm.apply(at(1), command).unwrap().fuel_used;
    let (none, some) = (fuel(&mut fsm, b"q"), fuel(&mut fsm, &[b'q'; 1001]));
    // One for the window, one for the guest's own copy.
    assert_eq!(some - none, 2000);
    let (none, some) = (fuel(&mut fsm, b"e"), fuel(&mut fsm, &[b'e'; 1001]));
    assert_eq!(some - none, 3000);
    let (in_window, read) = (fuel(&mut fsm, &[b'q'; 4088]), fuel(&mut fsm, &[b'q'; 4089]));
    // One byte more, the call of `read`, and the guest's eight instructions for it.
    assert_eq!(read - in_window, 2 + 64 + 8);
    // Part of the engine profile.
    assert_eq!(none, 136);
}

#[test]
fn who_cannot_pay_for_what_goes_through_the_window_is_out_of_fuel() {
    let with_fuel = |fuel| clerk_with(CLERK, Limits { apply_fuel: fuel, ..limits() });
    let mut command = vec![b'.'; 1000];
    command[0] = b'q';
    let enough = with_fuel(100_000).apply(at(1), &command).unwrap().fuel_used;
    let mut fsm = with_fuel(enough);
    ok(fsm.apply(at(1), &command).unwrap());
    for too_little in [1, 999, 1000] {
        let mut fsm = with_fuel(too_little);
        let fresh = fsm.state();
        let call = fsm.apply(at(1), &command).unwrap();
        assert_eq!((call.fuel_used, trap(call)), (too_little, TrapKind::OutOfFuel));
        assert_eq!(fsm.state(), fresh);
    }
    // The output is paid for last.
    let all = with_fuel(100_000).apply(at(1), b"c").unwrap().fuel_used;
    let mut fsm = with_fuel(all - 1);
    let call = fsm.apply(at(1), b"c").unwrap();
    assert_eq!((call.fuel_used, trap(call)), (all - 1, TrapKind::OutOfFuel));
    assert_eq!(with_fuel(all).apply(at(1), b"c").unwrap().fuel_used, all);
}

#[test]
fn an_output_in_the_window_has_the_limit_of_all_outputs() {
    let mut fsm = clerk_with(CLERK, Limits { output_max_bytes: 1000, ..limits() });
    assert_eq!(ok(fsm.apply(at(1), b"c").unwrap()).len(), 1000);
    let mut fsm = clerk_with(CLERK, Limits { output_max_bytes: 999, ..limits() });
    assert_eq!(trap(fsm.apply(at(1), b"c").unwrap()), TrapKind::OutputLimit);
}

fn a_command_that_traps_leaves_nothing_in_the_window_either() {
    let mut fsm = clerk();
    fsm.init(at(1)).unwrap();
    for index in 2..40 {
        ok(fsm.apply(at(index), b"e some command").unwrap());
        let before = fsm.state();
        assert_eq!(trap(fsm.apply(at(index), b"unreachable").unwrap()), TrapKind::Unreachable);
        assert_eq!(fsm.state(), before);
        assert_eq!(trap(fsm.apply(at(index), b"bad").unwrap()), TrapKind::BadHostCall);
        assert_eq!(fsm.state(), before);
        let digest = fsm.digest().unwrap().digest;
        assert_eq!(trap(fsm.apply(at(index), &[b'u'; 3000]).unwrap()), TrapKind::Unreachable);
        assert_eq!(fsm.digest().unwrap().digest, digest);
    }
}

fn a_query_leaves_nothing_in_the_window() {
    let mut fsm = clerk();
    ok(fsm.apply(at(1), b"e some command").unwrap());
    let (state, image_before) = (fsm.state(), image(&mut fsm));
    let mut long = vec![b'.'; 4000];
    long[0] = b'e';
    let asked: Vec<Bytes> = (0..64)
        .map(|number| match number % 4 {
            0 => Bytes::from(long.clone()),
            1 => Bytes::from_static(b"unreachable"),
            2 => Bytes::from_static(b"s"),
            _ => Bytes::from(format!("e{number}")),
        })
        .collect();
    for _ in 0..3 {
        let answers = fsm.query_all(at(1), &asked).unwrap();
        for (number, answer) in answers.into_iter().enumerate() {
            match number % 4 {
                0 => assert_eq!(ok(answer), long[1..]),
                1 => assert_eq!(trap(answer), TrapKind::Unreachable),
                2 => assert_eq!(ok(answer), b"e some commands"),
                _ => assert_eq!(ok(answer), number.to_string().as_bytes()),
            }
        }
        assert_eq!(fsm.state(), state);
        assert_eq!(image(&mut fsm), image_before);
    }
}

fn a_state_with_a_window_is_carried_by_images_and_by_snapshots() {
    let mut fsm = clerk();
    ok(fsm.init(at(1)).unwrap());
    ok(fsm.apply(at(2), b"e some command").unwrap());
    let carried = image(&mut fsm);
    let mut other = clerk();
    other.load_image(&mut carried.as_slice()).unwrap();
    for command in [&b"e more"[..], &[b'e'; 5000], b"w", b"s"] {
        assert_eq!(fsm.apply(at(3), command).unwrap(), other.apply(at(3), command).unwrap());
    }
    assert_eq!(fsm.state(), other.state());
    let portable = ok(fsm.snapshot(at(4)).unwrap());
    let mut restored = clerk();
    ok(restored.restore(at(4), &portable).unwrap());
    assert_eq!(ok(restored.query(at(4), b"s").unwrap()), ok(fsm.query(at(4), b"s").unwrap()));
}

on_each_backend! {
    a_command_that_traps_leaves_nothing_in_the_window_either
    a_query_leaves_nothing_in_the_window
    a_state_with_a_window_is_carried_by_images_and_by_snapshots
}

#[test]
fn a_question_asked_of_the_live_instance_without_the_export_changes_nothing() {
    let body = CLERK.replace(r#"(export "query")"#, "");
    let mut fsm = clerk_with(&body, limits());
    ok(fsm.apply(at(1), b"e some command").unwrap());
    let state = fsm.state();
    let GuestResult::Rejected(_) = fsm.query_and_keep(at(1), b"e question").unwrap().result else {
        panic!("it has no `query`");
    };
    assert_eq!(fsm.state(), state);
}

/// Other modules mean something else by the name.
#[test]
fn an_export_of_the_name_means_nothing_without_the_import() {
    for export in [
        r#"(global (export "raft_fsm_window") i32 (i32.const 0))"#,
        r#"(global (export "raft_fsm_window") (mut i64) (i64.const -1))"#,
        r#"(func (export "raft_fsm_window"))"#,
    ] {
        let mut plain = start_wasm(SCRIBE, &limits());
        let mut fsm = start_wasm(&format!("{SCRIBE} {export}"), &limits());
        for command in [&b"a1"[..], b"x", b"t", b"event"] {
            assert_eq!(fsm.apply(at(2), command).unwrap(), plain.apply(at(2), command).unwrap());
        }
        assert_eq!(fsm.state().0, plain.state().0);
    }
}
