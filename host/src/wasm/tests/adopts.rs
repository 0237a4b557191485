//! Taking over the memory of another module's instance.

use super::*;
use crate::fsm::Image;
use crate::fsm::native::{KV, NativeFsm};
use crate::types::ModuleHash;

/// Keeps the last command from 65,537 on, and has mutable globals of all types.
const OLD: &str = r#"
  (memory (export "memory") 2)
  (global (mut i32) (i32.const -5))
  (global i64 (i64.const 99))
  (global (mut i64) (i64.const -6))
  (global (mut f32) (f32.const 1.5))
  (global (mut f64) (f64.const -2.5))
  (global (mut v128) (v128.const i64x2 7 8))
  (func (export "init") (result i32) (drop (memory.grow (i32.const 1))) (i32.const 0))
  (func (export "apply") (param i32) (result i32)
    (drop (call $read (i32.const 65537) (i32.const 100))) (i32.const 0))
  (func (export "snapshot") (result i32) (unreachable))
  (func (export "restore") (param i32) (result i32) (unreachable))"#;

/// Takes over the second page of the old one, keeps the module's hash at 0, the size of the old memory at 32,
/// and types and bits of the first six globals from 64 on. The old one's last command says what happens then: `r` rejects
/// with it, `u` traps, `l` loops, `b` asks for bytes across the end of the old memory, `w` for some far away, `p` has them
/// written across its own end, and `g` a global.
const HEIR: &str = r#"
  (import "raft_fsm_v1" "old_memory_size" (func $old_memory_size (result i64)))
  (import "raft_fsm_v1" "old_memory" (func $old_memory (param i64 i32 i32)))
  (import "raft_fsm_v1" "old_global" (func $old_global (param i32 i32) (result i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 2)
  (func $global (param $n i32) (local $at i32)
    (local.set $at (i32.add (i32.const 64) (i32.mul (local.get $n) (i32.const 32))))
    (i32.store (local.get $at)
      (call $old_global (local.get $n) (i32.add (local.get $at) (i32.const 16)))))
  (func $look
    (i64.store (i32.const 32) (call $old_memory_size))
    (call $global (i32.const 0)) (call $global (i32.const 1)) (call $global (i32.const 2))
    (call $global (i32.const 3)) (call $global (i32.const 4)) (call $global (i32.const 5)))
  (func (export "adopt") (param $len i32) (result i32) (local $told i32)
    (if (i32.ne (local.get $len) (i32.const 32)) (then (unreachable)))
    (if (i32.ne (call $read (i32.const 0) (i32.const 100)) (i32.const 32)) (then (unreachable)))
    (call $look)
    (call $old_memory (i64.const 65536) (i32.const 65536) (i32.const 65536))
    (call $old_memory (i64.const -1) (i32.const -1) (i32.const 0))
    (local.set $told (i32.load8_u (i32.const 65537)))
    (if (i32.eq (local.get $told) (i32.const 117)) (then (unreachable)))
    (if (i32.eq (local.get $told) (i32.const 108)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $told) (i32.const 98)) (then
      (call $old_memory (i64.sub (call $old_memory_size) (i64.const 7)) (i32.const 0) (i32.const 8))))
    (if (i32.eq (local.get $told) (i32.const 119)) (then
      (call $old_memory (i64.const -1) (i32.const 0) (i32.const 2))))
    (if (i32.eq (local.get $told) (i32.const 112)) (then
      (call $old_memory (i64.const 0) (i32.const 0x1ffff) (i32.const 2))))
    (if (i32.eq (local.get $told) (i32.const 103)) (then
      (drop (call $old_global (i32.const 99) (i32.const 0x1fff1)))))
    (if (i32.eq (local.get $told) (i32.const 114)) (then
      (call $write (i32.const 65537) (i32.const 8)) (return (i32.const 1))))
    (i32.const 0))
  ;; Without input it looks, else it reads a byte.
  (func $do (param $len i32) (result i32)
    (if (local.get $len)
      (then (call $old_memory (i64.const 0) (i32.const 0) (i32.const 1)))
      (else (call $look)))
    (call $write (i32.const 32) (i32.const 224)) (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $do (local.get 0)))
  (func (export "query") (param i32) (result i32) (call $do (local.get 0)))
  (func (export "snapshot") (result i32)
    (call $write (i32.const 0) (i32.const 0x20000)) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0))"#;

const READ_AND_WRITE: &str = r#"
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))"#;

fn heir() -> WasmFsm {
    let module = wat::parse_str(format!("(module {READ_AND_WRITE} {HEIR})")).unwrap();
    let limits = Limits { restore_fuel: 1_000_000, ..small_limits() };
    loader().start(&module, &limits, Some(at(1))).unwrap().unwrap()
}

/// The image of an old one after a command.
fn old_after(command: &[u8]) -> Box<dyn Image> {
    let mut old = start_wasm(OLD, &small_limits());
    ok(old.init(at(1)).unwrap());
    ok(old.apply(at(2), command).unwrap());
    let image = old.capture().unwrap();
    // The image stays what it was, and so does what is read of it.
    ok(old.apply(at(3), b"later").unwrap());
    image
}

/// What an heir was told of a global: its type and bits.
fn global(number: usize, looked: &[u8]) -> (i32, u128) {
    let here = &looked[32 + number * 32..];
    let ty = i32::from_le_bytes(*here.first_chunk().unwrap());
    (ty, u128::from_le_bytes(*here[16..].first_chunk().unwrap()))
}

fn the_exact_memory_and_globals_are_taken_over() {
    let mut new = heir();
    assert!(new.has_take_over());
    let call = new.take_over(at(4), &*old_after(b"kept")).unwrap();
    // Each byte that is copied costs, and each call.
    assert!((65_536 + 32 + 5 * 16 + 10 * 64..67_000).contains(&call.fuel_used), "{call:?}");
    ok(call);
    let snapshot = ok(new.snapshot(at(4)).unwrap());
    assert_eq!(snapshot[..32], ModuleHash::of(&wasm(OLD)).0);
    let looked = &snapshot[32..];
    assert_eq!(looked[..8], (3u64 << 16).to_le_bytes());
    assert_eq!(global(0, looked), (0, u128::from(-5i32 as u32)));
    assert_eq!(global(1, looked), (1, u128::from(-6i64 as u64)));
    assert_eq!(global(2, looked), (2, 1.5f32.to_bits().into()));
    assert_eq!(global(3, looked), (3, (-2.5f64).to_bits().into()));
    assert_eq!(global(4, looked), (4, 8 << 64 | 7));
    assert_eq!(global(5, looked), (-1, 0));
    assert_eq!(snapshot[65_536..65_543], *b"\0kept\0\0");
    // It goes on as any other: undone, and carried elsewhere.
    let state = new.state();
    assert_eq!(trap(new.apply(at(5), b"x").unwrap()), TrapKind::BadHostCall);
    assert_eq!(new.state(), state);
    let mut carried = heir();
    carried.load_image(&mut image(&mut new).as_slice()).unwrap();
    assert_eq!(carried.state(), state);
    assert_eq!(carried.digest().unwrap().digest, new.digest().unwrap().digest);
}

fn what_is_refused_leaves_the_instance_as_it_was() {
    let mut new = heir();
    let state = new.state();
    for (command, kind) in [
        (b"u", TrapKind::Unreachable),
        (b"l", TrapKind::OutOfFuel),
        (b"b", TrapKind::BadHostCall),
        (b"w", TrapKind::BadHostCall),
        (b"p", TrapKind::BadHostCall),
        (b"g", TrapKind::BadHostCall),
    ] {
        assert_eq!(trap(new.take_over(at(3), &*old_after(command)).unwrap()), kind, "{command:?}");
        assert_eq!(new.state(), state);
    }
    let call = new.take_over(at(3), &*old_after(b"rejected")).unwrap();
    assert_eq!(call.result, GuestResult::Rejected(b"rejected".to_vec()));
    assert_eq!(new.state(), state);
    ok(new.take_over(at(4), &*old_after(b"kept")).unwrap());
    assert_ne!(new.state(), state);
}

fn outside_of_adopt_there_is_no_old_memory() {
    let mut new = heir();
    for round in 0..2 {
        for looked in [ok(new.apply(at(5), b"").unwrap()), ok(new.query(at(5), b"").unwrap())] {
            assert_eq!(looked[..8], [0; 8]);
            assert!((0..6).all(|number| global(number, &looked).0 == -1));
        }
        assert_eq!(trap(new.query(at(5), b"x").unwrap()), TrapKind::BadHostCall);
        if round == 0 {
            ok(new.take_over(at(4), &*old_after(b"kept")).unwrap());
        }
    }
}

#[test]
fn a_host_that_is_told_to_adopt_what_cannot_be_is_at_fault() {
    let mut old = start_wasm(OLD, &small_limits());
    assert!(!old.has_take_over() && old.take_over(at(4), &*old_after(b"kept")).is_err());
    let native = NativeFsm::new(KV).unwrap().capture().unwrap();
    let error = heir().take_over(at(4), &*native).unwrap_err();
    assert!(error.to_string().contains("not of a guest"), "{error}");
}

on_each_backend! {
    the_exact_memory_and_globals_are_taken_over
    what_is_refused_leaves_the_instance_as_it_was
    outside_of_adopt_there_is_no_old_memory
}
