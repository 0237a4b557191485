//! The guests, and commands that mean something to them.

use std::sync::Arc;

use proptest::prelude::*;
use raft_host::fsm::SharedLoader;
use raft_host::wasm::{MemoryBackend, WasmLoader};

use crate::{hostile, workspace};

/// A guest to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// The key-value plugin, in Rust.
    Kv,
    /// A guest in text format that touches memory, its size and all types of globals.
    Wat,
    /// A guest in C on wasi-libc.
    WasiC,
}

/// All of them.
pub const ALL: [Guest; 3] = [Guest::Kv, Guest::Wat, Guest::WasiC];

/// A loader for each way in which a host can keep a guest's memory: what they do must not be
/// told apart. A kernel that cannot track what is written has one way less.
pub fn loaders() -> Vec<SharedLoader> {
    let plain = WasmLoader::new(None)
        .and_then(|loader| loader.with_memory_backend(MemoryBackend::PlainCopy))
        .expect("every host can copy");
    let alone = WasmLoader::new(None).expect("this machine runs guests").with_threads(1);
    vec![hostile::loader(), Arc::new(plain), Arc::new(alone)]
}

impl Guest {
    /// Its module.
    pub fn module(self) -> Vec<u8> {
        let read = |path| std::fs::read(workspace(path)).expect("a file of this repository");
        match self {
            Guest::Kv => read("plugins/kv/kv.wasm"),
            Guest::WasiC => read("tests/guests/wasi-c/guest.wasm"),
            Guest::Wat => hostile::assemble(WAT).expect("it is sound"),
        }
    }

    /// A command: mostly one that changes the state, sometimes one that is refused or traps.
    pub fn command(self) -> BoxedStrategy<Vec<u8>> {
        match self {
            Guest::Kv => kv_command(),
            Guest::Wat => wat_command(),
            Guest::WasiC => c_command(),
        }
    }

    /// A question, which may scribble over the memory.
    pub fn query(self) -> BoxedStrategy<Vec<u8>> {
        match self {
            Guest::Kv => prop_oneof![
                Just(br#"{"op":"range"}"#.to_vec()),
                Just(br#"{"op":"count"}"#.to_vec()),
                "[a-c]{1,2}"
                    .prop_map(|key| format!(r#"{{"op":"get","key":"{key}"}}"#).into_bytes()),
                any::<Vec<u8>>(),
            ]
            .boxed(),
            // These do the same to a question as to a command.
            Guest::Wat => wat_command(),
            Guest::WasiC => c_command(),
        }
    }
}

fn kv_command() -> BoxedStrategy<Vec<u8>> {
    let key = "[a-c]{1,2}";
    prop_oneof![
        6 => (key, "[x-z]{0,400}").prop_map(|(key, value)| {
            format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#).into_bytes()
        }),
        2 => key.prop_map(|key| format!(r#"{{"op":"delete","key":"{key}"}}"#).into_bytes()),
        2 => (key, "[x-z]{0,3}").prop_map(|(key, value)| {
            format!(r#"{{"op":"cas","key":"{key}","expected":null,"value":"{value}"}}"#).into_bytes()
        }),
        // Long enough to run out of the fuel that these runs give.
        1 => Just({
            let value = "w".repeat(900_000);
            format!(r#"{{"op":"set","key":"long","value":"{value}"}}"#).into_bytes()
        }),
        1 => any::<Vec<u8>>(),
    ]
    .boxed()
}

fn wat_command() -> BoxedStrategy<Vec<u8>> {
    let mild = prop::sample::select(b"aaaaaagrtxe".to_vec());
    let wild = prop::sample::select(b"ulzoshwn".to_vec());
    let command = |op: BoxedStrategy<u8>| {
        (op, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(op, mut rest)| {
            rest.insert(0, op);
            rest
        })
    };
    prop_oneof![5 => command(mild.boxed()), 1 => command(wild.boxed())].boxed()
}

fn c_command() -> BoxedStrategy<Vec<u8>> {
    let mild = prop::sample::select(b"++++++++--trpf".to_vec());
    let wild = prop::sample::select(b"aelz?".to_vec());
    let command = |op: BoxedStrategy<u8>| {
        (op, "[a-z]{0,500}").prop_map(|(op, text)| {
            let mut bytes = vec![op];
            bytes.extend_from_slice(text.as_bytes());
            bytes
        })
    };
    prop_oneof![6 => command(mild.boxed()), 1 => command(wild.boxed())].boxed()
}

/// The first byte decides: `a` append; `g` grow by a page; `r` append, then reject; `t` append index
/// and time; `x` append random bytes; `e` append and emit; `u` append everywhere, then
/// `unreachable`; `l` loop; `z` divide by zero; `o` out of bounds; `s` recurse; `h` a bad pointer; `w`
/// write without end; `n` a negative status.
const WAT: &str = r#"
  (memory (export "memory") 2)
  (global $end (mut i32) (i32.const 65536))
  (global $calls (mut i64) (i64.const 0))
  (global $ratio (mut f64) (f64.const 1))
  (global $wide (mut v128) (v128.const i64x2 1 2))
  (func (export "_initialize") (global.set $calls (i64.const 5)))
  (func $deeper (param i32) (result i32)
    (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $append (param $from i32) (param $len i32)
    (if (i32.gt_u (i32.add (global.get $end) (local.get $len)) (i32.const 131072))
      (then (global.set $end (i32.const 65536))))
    (memory.copy (global.get $end) (local.get $from) (local.get $len))
    (global.set $end (i32.add (global.get $end) (local.get $len)))
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    (global.set $ratio (f64.sqrt (f64.add (f64.mul (global.get $ratio) (f64.const 1.7))
      (f64.convert_i32_u (local.get $len)))))
    (global.set $wide (i64x2.add (global.get $wide) (i64x2.splat (global.get $calls)))))
  (func $do (result i32) (local $len i32) (local $op i32)
    (local.set $len (call $read (i32.const 1024) (i32.const 4096)))
    (local.set $op (i32.load8_u (i32.const 1024)))
    (if (i32.eq (local.get $op) (i32.const 97)) (then
      (call $append (i32.const 1024) (local.get $len))))
    (if (i32.eq (local.get $op) (i32.const 103)) (then
      (i32.store (i32.const 8) (memory.grow (i32.const 1)))
      (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (local.get $len))
      (call $write (i32.const 8) (i32.const 4))))
    (if (i32.eq (local.get $op) (i32.const 114)) (then
      (call $append (i32.const 1024) (local.get $len))
      (call $write (i32.const 1024) (local.get $len))
      (return (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 116)) (then
      (i64.store (i32.const 16) (call $index))
      (i64.store (i32.const 24) (call $time_ms))
      (call $append (i32.const 16) (i32.const 16))
      (call $write (i32.const 16) (i32.const 16))))
    (if (i32.eq (local.get $op) (i32.const 120)) (then
      (call $random (i32.const 16) (i32.const 64))
      (call $append (i32.const 16) (i32.const 64))
      (call $write (i32.const 16) (i32.const 64))))
    (if (i32.eq (local.get $op) (i32.const 101)) (then
      (call $append (i32.const 1024) (local.get $len))
      (call $emit (i32.const 1024) (i32.const 1) (i32.const 1024) (local.get $len))))
    (if (i32.eq (local.get $op) (i32.const 117)) (then
      (call $append (i32.const 1024) (local.get $len))
      (drop (memory.grow (i32.const 2)))
      (memory.fill (i32.const 0) (i32.const 85) (i32.const 131072))
      (unreachable)))
    (if (i32.eq (local.get $op) (i32.const 108)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $op) (i32.const 122)) (then
      (call $append (i32.const 1024) (local.get $len))
      (drop (i32.div_u (local.get $len) (i32.const 0)))))
    (if (i32.eq (local.get $op) (i32.const 111)) (then (drop (i32.load (i32.const 0x7fff0000)))))
    (if (i32.eq (local.get $op) (i32.const 115)) (then (drop (call $deeper (i32.const 0)))))
    (if (i32.eq (local.get $op) (i32.const 104)) (then
      (call $append (i32.const 1024) (local.get $len))
      (call $write (i32.const 0x7fff0000) (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 119)) (then
      (loop $again (call $write (i32.const 0) (i32.const 65536)) (br $again))))
    (if (i32.eq (local.get $op) (i32.const 110)) (then
      (call $append (i32.const 1024) (local.get $len))
      (return (i32.const -7))))
    (i64.store (i32.const 40) (i64.trunc_sat_f64_u (global.get $ratio)))
    (call $write (i32.const 40) (i32.const 8))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $do))
  (func (export "query") (param i32) (result i32) (call $do))
  (func (export "snapshot") (result i32)
    (call $write (i32.const 65536) (i32.sub (global.get $end) (i32.const 65536)))
    (call $append (i32.const 0) (i32.const 100))
    (i32.const 0))
  (func (export "restore") (param i32) (result i32) (local $len i32)
    (loop $more
      (local.set $len (call $read (i32.const 1024) (i32.const 4096)))
      (if (local.get $len) (then
        (call $append (i32.const 1024) (local.get $len)) (br $more))))
    (i32.const 0))
"#;
