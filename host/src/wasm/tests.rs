//! Tests of the room, with guests in text format.

use std::cell::Cell;

use crate::fsm::{Call, Context, Fsm, FsmLoader as _, GuestResult, Limits, ModuleRefused};
use crate::types::{ActorName, ClusterId, Index, Position, TrapKind};

use super::instance::WasmFsm;
use super::{MemoryBackend, WasmLoader};

thread_local! {
    static BACKEND: Cell<Option<MemoryBackend>> = const { Cell::new(None) };
}

/// Runs a test with a given way of finding out what guests write. Where the kernel does not
/// have it there is nothing to test.
fn on(backend: MemoryBackend, test: fn()) {
    if WasmLoader::new(None).unwrap().with_memory_backend(backend).is_ok() {
        BACKEND.set(Some(backend));
        test();
        BACKEND.set(None);
    }
}

/// Makes a test of each function, for each way of finding out what guests write.
macro_rules! on_each_backend {
    ($($name:ident)+) => {
        $(mod $name {
            use crate::wasm::{MemoryBackend, tests::on};

            #[test]
            fn with_userfaultfd() {
                on(MemoryBackend::Userfaultfd, super::$name);
            }

            #[test]
            fn with_plain_copies() {
                on(MemoryBackend::PlainCopy, super::$name);
            }
        })+
    };
}

mod adopts;
mod checks;
mod classes;
mod forks;
mod formats;
mod fuel;
mod limits;
mod memory;
#[cfg(feature = "museum")]
mod museum;
mod portable;
mod refusals;
mod seccomp;
mod stack;
mod storms;
mod undo;
mod window;

/// Imports, memory and the exports that every guest needs; `BODY` provides `$apply` and more.
///
/// `$take` reads the input to 1024 and returns its length; `$give` appends to the output.
const PRELUDE: &str = r#"
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (import "raft_fsm_v1" "index" (func $index (result i64)))
  (import "raft_fsm_v1" "time_ms" (func $time_ms (result i64)))
  (import "raft_fsm_v1" "random" (func $random (param i32 i32)))
  (import "raft_fsm_v1" "emit" (func $emit (param i32 i32 i32 i32)))
  (import "raft_fsm_v1" "log" (func $log (param i32 i32 i32)))
  (func (export "raft_fsm_abi_v1"))
  (func $take (result i32) (call $read (i32.const 1024) (i32.const 4096)))
"#;

/// A machine that appends each command to memory from 64 KiB on, its end in a global, and
/// does on command what a test needs. The first byte decides:
/// `a` append; `g` grow memory by one page; `u` append, then `unreachable`; `r` append, then
/// reject; `l` loop for ever; `z` divide by zero; `o` read out of bounds; `c` a bad indirect
/// call; `s` recurse for ever; `n` answer a negative status; `w` write without end; `h` pass
/// a bad pointer; `e` append and emit; `x` write sixteen random bytes; `t` index and time.
/// A query does the same; one that starts with `q` answers everything appended.
const SCRIBE: &str = r#"
  (memory (export "memory") 2)
  (global $end (mut i32) (i32.const 65536))
  (global $calls (mut i64) (i64.const 0))
  (type $nothing (func))
  (table 2 funcref)
  (func $deeper (param i32) (result i32)
    (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $append (param $len i32)
    (memory.copy (global.get $end) (i32.const 1024) (local.get $len))
    (global.set $end (i32.add (global.get $end) (local.get $len)))
    (global.set $calls (i64.add (global.get $calls) (i64.const 1))))
  (func $do (param $len i32) (result i32) (local $op i32)
    (local.set $op (i32.load8_u (i32.const 1024)))
    (if (i32.eq (local.get $op) (i32.const 97)) (then (call $append (local.get $len))))
    (if (i32.eq (local.get $op) (i32.const 103)) (then
      (i32.store (i32.const 8) (memory.grow (i32.const 1)))
      (call $write (i32.const 8) (i32.const 4))))
    (if (i32.eq (local.get $op) (i32.const 117)) (then
      (call $append (local.get $len)) (unreachable)))
    (if (i32.eq (local.get $op) (i32.const 114)) (then
      (call $append (local.get $len))
      (call $write (i32.const 1024) (local.get $len))
      (return (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 108)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $op) (i32.const 122)) (then
      (drop (i32.div_u (local.get $len) (i32.const 0)))))
    (if (i32.eq (local.get $op) (i32.const 111)) (then
      (drop (i32.load (i32.const 0x7fff0000)))))
    (if (i32.eq (local.get $op) (i32.const 99)) (then
      (call_indirect (type $nothing) (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 115)) (then (drop (call $deeper (i32.const 0)))))
    (if (i32.eq (local.get $op) (i32.const 110)) (then (return (i32.const -7))))
    (if (i32.eq (local.get $op) (i32.const 119)) (then
      (loop $again (call $write (i32.const 0) (i32.const 65536)) (br $again))))
    (if (i32.eq (local.get $op) (i32.const 104)) (then
      (call $write (i32.const 0x7fff0000) (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 101)) (then
      (call $append (local.get $len))
      (call $emit (i32.const 1024) (i32.const 1) (i32.const 1024) (local.get $len))))
    (if (i32.eq (local.get $op) (i32.const 120)) (then
      (call $random (i32.const 16) (i32.const 16))
      (call $write (i32.const 16) (i32.const 16))))
    (if (i32.eq (local.get $op) (i32.const 116)) (then
      (i64.store (i32.const 16) (call $index))
      (i64.store (i32.const 24) (call $time_ms))
      (call $write (i32.const 16) (i32.const 16))))
    (if (i32.eq (local.get $op) (i32.const 113)) (then
      (call $write (i32.const 65536) (i32.sub (global.get $end) (i32.const 65536)))))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $do (call $take)))
  (func (export "query") (param i32) (result i32) (call $do (call $take)))
  (func (export "init") (result i32)
    (i32.store8 (i32.const 1024) (i32.const 105)) (call $append (i32.const 1)) (i32.const 0))
  (func (export "snapshot") (result i32)
    (call $write (i32.const 65536) (i32.sub (global.get $end) (i32.const 65536)))
    ;; Scribbles, to show that nothing of it remains.
    (call $append (i32.const 8))
    (i32.const 0))
  ;; Restores all chunks of the input, then does what the last chunk says if it starts with u or r.
  (func (export "restore") (param i32) (result i32) (local $len i32)
    (loop $more
      (local.set $len (call $take))
      (if (local.get $len) (then (call $append (local.get $len)) (br $more))))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 117)) (then (unreachable)))
    (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 114)))
"#;

fn wasm(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {PRELUDE} {body})")).unwrap()
}

fn small_limits() -> Limits {
    Limits {
        apply_fuel: 1_000_000,
        query_fuel: 1_000_000,
        memory_max_bytes: 8 << 20,
        stack_max_bytes: 256 << 10,
        input_max_bytes: 4096,
        output_max_bytes: 256 << 10,
        ..Limits::default()
    }
}

fn at(index: u64) -> Context {
    let position = Position::first(Index(index));
    Context {
        cluster: ClusterId([7; 16]),
        position,
        time_ms: 1_000_000 + index,
        actor: ActorName::NONE,
    }
}

fn try_start(module: &[u8], limits: &Limits) -> Result<Box<dyn Fsm>, ModuleRefused> {
    loader().instantiate(module, limits, at(1)).unwrap()
}

fn loader() -> WasmLoader {
    let loader = WasmLoader::new(None).unwrap();
    match BACKEND.get() {
        Some(backend) => loader.with_memory_backend(backend).unwrap(),
        None => loader,
    }
}

/// The room's own type, which tells more than the seam.
fn start_wasm(body: &str, limits: &Limits) -> WasmFsm {
    loader().start(&wasm(body), limits, Some(at(1))).unwrap().unwrap()
}

/// A command further back in the same entry.
fn behind(context: Context, ordinal: u32) -> Context {
    Context { position: Position { ordinal, ..context.position }, ..context }
}

fn start(body: &str) -> Box<dyn Fsm> {
    try_start(&wasm(body), &small_limits()).unwrap()
}

fn scribe() -> Box<dyn Fsm> {
    start(SCRIBE)
}

fn ok(call: Call) -> Vec<u8> {
    match call.result {
        GuestResult::Ok(output) => output,
        other => panic!("{other:?}"),
    }
}

fn trap(call: Call) -> TrapKind {
    match call.result {
        GuestResult::Trapped(trap) => {
            assert!(call.events.is_empty());
            trap.kind
        }
        other => panic!("{other:?}"),
    }
}

fn image(fsm: &mut dyn Fsm) -> Vec<u8> {
    let mut bytes = Vec::new();
    fsm.capture().unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn contents(fsm: &mut dyn Fsm) -> String {
    String::from_utf8(ok(fsm.query(at(1), b"q").unwrap())).unwrap()
}
