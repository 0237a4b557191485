//! Modules by `wasm-smith`: valid, with the exports of a guest and imports that the host has.

use arbitrary::{Result, Unstructured};
use wasm_smith::{Config, InstructionKind, InstructionKinds, Module};

/// What every guest must export.
const EXPORTS: &str = r#"(module
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 1 4)
  (global (export "raft_fsm_window") i32 (i32.const 61440))
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "query") (param i32) (result i32) (i32.const 0))
  (func (export "classify") (param i32) (result i32) (i32.const 0))
  (func (export "check") (result i32) (i32.const 0))
  (func (export "state_version") (result i32) (i32.const 0))
  (func (export "restores") (param i32) (result i32) (i32.const 0))
  (func (export "adopt") (param i32) (result i32) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0)))"#;

/// What a guest may import.
const IMPORTS: &str = r#"(module
  (import "raft_fsm_v1" "read" (func (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func (param i32 i32)))
  (import "raft_fsm_v1" "index" (func (result i64)))
  (import "raft_fsm_v1" "ordinal" (func (result i32)))
  (import "raft_fsm_v1" "time_ms" (func (result i64)))
  (import "raft_fsm_v1" "random" (func (param i32 i32)))
  (import "raft_fsm_v1" "emit" (func (param i32 i32 i32 i32)))
  (import "raft_fsm_v1" "log" (func (param i32 i32 i32)))
  (import "raft_fsm_v1" "window" (func (result i32)))
  (import "raft_fsm_v1" "actor" (func (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "old_memory_size" (func (result i64)))
  (import "raft_fsm_v1" "old_memory" (func (param i64 i32 i32)))
  (import "raft_fsm_v1" "old_global" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// A module. Three of four use only what a guest may use; the others use anything that wasm has.
///
/// # Errors
/// The bytes do not suffice.
pub fn module(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let wild = bytes.ratio(1u8, 4u8)?;
    let config = if wild { anything() } else { loadable(bytes)? };
    Ok(Module::new(config, bytes)?.to_bytes())
}

fn loadable(bytes: &mut Unstructured<'_>) -> Result<Config> {
    let assembled = |text| wat::parse_str(text).expect("it is sound");
    let kinds = [
        InstructionKind::Numeric,
        InstructionKind::Vector,
        InstructionKind::Parametric,
        InstructionKind::Variable,
        InstructionKind::Memory,
        InstructionKind::Control,
    ];
    let imports = bytes.arbitrary::<bool>()?;
    Ok(Config {
        exports: Some(assembled(EXPORTS)),
        available_imports: imports.then(|| assembled(IMPORTS)),
        max_imports: if imports { 20 } else { 0 },
        // On top of the one that is exported.
        max_memories: 0,
        allowed_instructions: InstructionKinds::new(&kinds),
        bulk_memory_enabled: false,
        reference_types_enabled: false,
        max_memory32_bytes: 1 << 20,
        max_table_elements: 1000,
        max_instructions: 400,
        ..small()
    })
}

fn anything() -> Config {
    let exports = wat::parse_str(EXPORTS).expect("it is sound");
    Config { exports: Some(exports), max_memories: 2, max_tables: 4, ..Config::default() }
}

/// Without what the host refuses as a whole.
fn small() -> Config {
    Config {
        threads_enabled: false,
        relaxed_simd_enabled: false,
        gc_enabled: false,
        exceptions_enabled: false,
        memory64_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        generate_custom_sections: true,
        ..Config::default()
    }
}
