//! Guests that mean harm, and a node that must survive them.
//!
//! ```text
//!   *.wat    one hostile guest each; its header says what must happen (see `script`)
//!   large    those that are hostile by size, made by code
//!   node     the node that they are tried on
//! ```
//!
//! A fixture holds fields of a module. What every guest needs and the fixture does not bring (imports,
//! memory, marker, harmless exports) is added; one that begins with `(module` or `(component`
//! is taken as it is.

pub mod large;
mod node;
mod script;

use std::path::PathBuf;
use std::sync::Arc;

use raft_host::fsm::{Limits, SharedLoader};
use raft_host::wasm::WasmLoader;

pub use node::LoneNode;
pub use script::{Healthy, Script};

const IMPORTS: &str = r#"
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (import "raft_fsm_v1" "index" (func $index (result i64)))
  (import "raft_fsm_v1" "ordinal" (func $ordinal (result i32)))
  (import "raft_fsm_v1" "time_ms" (func $time_ms (result i64)))
  (import "raft_fsm_v1" "random" (func $random (param i32 i32)))
  (import "raft_fsm_v1" "emit" (func $emit (param i32 i32 i32 i32)))
  (import "raft_fsm_v1" "log" (func $log (param i32 i32 i32)))
"#;

/// Imported only where a fixture calls it: whoever imports it has a window.
const WINDOW: &str = r#"(import "raft_fsm_v1" "window" (func $window (result i32)))"#;

/// Imported only where a fixture calls it.
const ACTOR: &str = r#"(import "raft_fsm_v1" "actor" (func $actor (param i32 i32) (result i32)))"#;

/// Imported only where a fixture calls one of them.
const OLD: &str = r#"
  (import "raft_fsm_v1" "old_memory_size" (func $old_memory_size (result i64)))
  (import "raft_fsm_v1" "old_memory" (func $old_memory (param i64 i32 i32)))
  (import "raft_fsm_v1" "old_global" (func $old_global (param i32 i32) (result i32)))
"#;

/// Added unless the fixture exports the name itself.
const DEFAULTS: &[(&str, &str)] = &[
    ("raft_fsm_abi_v1", r#"(func (export "raft_fsm_abi_v1"))"#),
    ("memory", r#"(memory (export "memory") 1)"#),
    ("apply", r#"(func (export "apply") (param i32) (result i32) (i32.const 0))"#),
    ("query", r#"(func (export "query") (param i32) (result i32) (i32.const 0))"#),
    ("snapshot", r#"(func (export "snapshot") (result i32) (i32.const 0))"#),
    ("restore", r#"(func (export "restore") (param i32) (result i32) (i32.const 0))"#),
];

/// The module that a fixture's text stands for.
///
/// # Errors
/// What the assembler says.
pub fn assemble(text: &str) -> Result<Vec<u8>, wat::Error> {
    let begins = |word: &str| text.lines().any(|line| line.starts_with(word));
    if begins("(module") || begins("(component") {
        return wat::parse_str(text);
    }
    let missing = DEFAULTS
        .iter()
        .filter(|(name, _)| !text.contains(&format!(r#"(export "{name}""#)))
        .map(|(_, field)| *field)
        .collect::<Vec<_>>()
        .join("\n");
    let window = if text.contains("$window") { WINDOW } else { "" };
    let actor = if text.contains("$actor") { ACTOR } else { "" };
    let old = if text.contains("$old_") { OLD } else { "" };
    wat::parse_str(format!("(module {IMPORTS}\n{window}\n{actor}\n{old}\n{text}\n{missing})"))
}

/// Every fixture: its name and text.
pub fn fixtures() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = crate::workspace("tests/hostile")
        .read_dir()
        .expect("the folder of the fixtures")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wat"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("UTF-8"))
    };
    paths.into_iter().map(read).collect()
}

/// Budgets that end quickly what should end.
pub fn limits() -> Limits {
    Limits {
        apply_fuel: 20_000_000,
        query_fuel: 20_000_000,
        init_fuel: 20_000_000,
        snapshot_fuel: 20_000_000,
        restore_fuel: 20_000_000,
        memory_max_bytes: 16 << 20,
        stack_max_bytes: 256 << 10,
        ..Limits::default()
    }
}

/// What loads modules.
pub type Loader = SharedLoader;

/// Loads modules, without a cache.
pub fn loader() -> Loader {
    Arc::new(WasmLoader::new(None).expect("this machine runs guests"))
}

/// The healthy guest: counts its commands, and answers the number.
pub fn healthy() -> Vec<u8> {
    assemble(HEALTHY).expect("it is sound")
}

/// Restores whatever it can use of anybody's state, so that it can follow everybody.
const HEALTHY: &str = r#"
  (global $count (mut i64) (i64.const 0))
  (func $tell (result i32)
    (i64.store (i32.const 0) (global.get $count))
    (call $write (i32.const 0) (i32.const 8))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32)
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    (call $tell))
  (func (export "query") (param i32) (result i32) (call $tell))
  (func (export "snapshot") (result i32) (call $tell))
  (func (export "restore") (param i32) (result i32)
    (drop (call $read (i32.const 0) (i32.const 8)))
    (global.set $count (i64.load (i32.const 0)))
    (i32.const 0))
"#;
