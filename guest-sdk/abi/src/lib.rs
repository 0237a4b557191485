//! The constants of the guest ABI, version 1, shared by the host and by Rust guests.
//!
//! `guest-sdk/ABI.md` is the normative text; a test pins it to these values.
#![no_std]

/// Module name of the host's imports.
pub const IMPORT_MODULE: &str = "raft_fsm_v1";

/// Export that marks the ABI version: a function of any type, never called.
pub const ABI_MARKER: &str = "raft_fsm_abi_v1";

/// Export: the guest's linear memory.
pub const EXPORT_MEMORY: &str = "memory";
/// Export: `apply(len: i32) -> i32`.
pub const EXPORT_APPLY: &str = "apply";
/// Export: `snapshot() -> i32`.
pub const EXPORT_SNAPSHOT: &str = "snapshot";
/// Export: `restore(len: i32) -> i32`.
pub const EXPORT_RESTORE: &str = "restore";
/// Optional export: `query(len: i32) -> i32`.
pub const EXPORT_QUERY: &str = "query";
/// Optional export: `classify(len: i32) -> i32`, the name of the class that a command is of.
pub const EXPORT_CLASSIFY: &str = "classify";
/// Optional export: `check() -> i32`, whether the guest's state keeps the guest's own rules.
pub const EXPORT_CHECK: &str = "check";
/// Optional export: `state_version() -> i32`, the name of the format of its snapshots.
pub const EXPORT_STATE_VERSION: &str = "state_version";
/// Optional export: `restores(len: i32) -> i32`, whether `restore` takes snapshots of a format.
pub const EXPORT_RESTORES: &str = "restores";
/// Optional export: `adopt(len: i32) -> i32`, takes over the memory of another module's instance.
pub const EXPORT_ADOPT: &str = "adopt";
/// Optional export: `init() -> i32`, once in the life of a cluster.
pub const EXPORT_INIT: &str = "init";
/// Optional export, called after instantiation (reactors).
pub const EXPORT_INITIALIZE: &str = "_initialize";
/// Optional export, called after instantiation when there is no `_initialize`.
pub const EXPORT_START: &str = "_start";

/// Optional export: an immutable global of type `i32`, the address of the window. Counts only if
/// [`IMPORT_WINDOW`] is imported, which then needs it.
pub const EXPORT_WINDOW: &str = "raft_fsm_window";

/// Import: `read(ptr: i32, cap: i32) -> i32`, next bytes of the current input.
pub const IMPORT_READ: &str = "read";
/// Import: `write(ptr: i32, len: i32)`, append to the current output.
pub const IMPORT_WRITE: &str = "write";
/// Import: `index() -> i64`, index of the entry being applied.
pub const IMPORT_INDEX: &str = "index";
/// Import: `ordinal() -> i32`, which of its entry's commands is being applied, from 0 on.
pub const IMPORT_ORDINAL: &str = "ordinal";
/// Import: `time_ms() -> i64`, the log's clock.
pub const IMPORT_TIME_MS: &str = "time_ms";
/// Import: `random(ptr: i32, len: i32)`, deterministic random bytes.
pub const IMPORT_RANDOM: &str = "random";
/// Import: `emit(topic_ptr: i32, topic_len: i32, ptr: i32, len: i32)`, an event.
pub const IMPORT_EMIT: &str = "emit";
/// Import: `log(level: i32, ptr: i32, len: i32)`, a line for the host's log.
pub const IMPORT_LOG: &str = "log";

/// Import: `actor(ptr: i32, cap: i32) -> i32`, the name of who gave the command.
pub const IMPORT_ACTOR: &str = "actor";

/// Import: `old_memory_size() -> i64`, size of the memory that `adopt` may read, in bytes.
pub const IMPORT_OLD_MEMORY_SIZE: &str = "old_memory_size";
/// Import: `old_memory(src: i64, ptr: i32, len: i32)`, bytes of the memory that `adopt` may read.
pub const IMPORT_OLD_MEMORY: &str = "old_memory";
/// Import: `old_global(n: i32, ptr: i32) -> i32`, a mutable global of the instance that `adopt` may read.
pub const IMPORT_OLD_GLOBAL: &str = "old_global";

/// Import: `window() -> i32`, how many bytes of the input are in the window.
pub const IMPORT_WINDOW: &str = "window";

/// Size of the window in bytes.
pub const WINDOW_BYTES: usize = 4096;
/// Of these, what comes before the input: pointer and length of the output, four bytes each.
pub const WINDOW_HEADER_BYTES: usize = 8;
/// Longest input that is put into the window.
pub const WINDOW_INPUT_MAX_BYTES: usize = WINDOW_BYTES - WINDOW_HEADER_BYTES;

/// Status: done; the output is the answer.
pub const STATUS_OK: i32 = 0;
/// Status: refused and nothing changed; the output is the reason. Any value above 0 means this.
pub const STATUS_REJECTED: i32 = 1;

/// Longest name of an actor, in bytes.
pub const ACTOR_MAX_BYTES: usize = 64;
/// Longest name of a class of commands, in bytes.
pub const CLASS_MAX_BYTES: usize = 64;

/// Longest name of a format of snapshots, in bytes.
pub const STATE_VERSION_MAX_BYTES: usize = 64;

/// Length of the input of `adopt`: the SHA-256 of the other module.
pub const ADOPT_INPUT_BYTES: usize = 32;
/// Bytes that `old_global` writes: the bits of the global, as a little-endian number.
pub const OLD_GLOBAL_BYTES: usize = 16;
/// What `old_global` returns for a global of type `i32`.
pub const GLOBAL_I32: i32 = 0;
/// See [`GLOBAL_I32`].
pub const GLOBAL_I64: i32 = 1;
/// See [`GLOBAL_I32`].
pub const GLOBAL_F32: i32 = 2;
/// See [`GLOBAL_I32`].
pub const GLOBAL_F64: i32 = 3;
/// See [`GLOBAL_I32`].
pub const GLOBAL_V128: i32 = 4;
/// What `old_global` returns if there is no such global.
pub const NO_GLOBAL: i32 = -1;

/// Levels of `log`.
pub const LOG_ERROR: i32 = 1;
/// See [`LOG_ERROR`].
pub const LOG_WARN: i32 = 2;
/// See [`LOG_ERROR`].
pub const LOG_INFO: i32 = 3;
/// See [`LOG_ERROR`].
pub const LOG_DEBUG: i32 = 4;

/// A wasm value type that the ABI uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A 32-bit integer: a pointer, a length, a status or a level.
    I32,
    /// A 64-bit integer: an index or a time.
    I64,
}

/// The type of a function that crosses the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, in [`IMPORT_MODULE`] or among the exports.
    pub name: &'static str,
    /// Types of its parameters.
    pub params: &'static [ValueType],
    /// Types of its results.
    pub results: &'static [ValueType],
    /// Whether a module without it is refused. Always false for imports.
    pub required: bool,
}

const fn export(
    name: &'static str,
    params: &'static [ValueType],
    results: &'static [ValueType],
    required: bool,
) -> Function {
    Function { name, params, results, required }
}

const fn import(
    name: &'static str,
    params: &'static [ValueType],
    results: &'static [ValueType],
) -> Function {
    Function { name, params, results, required: false }
}

use ValueType::{I32, I64};

/// The functions that the host calls. The marker, the memory and the window are not among them.
pub const EXPORTS: [Function; 12] = [
    export(EXPORT_APPLY, &[I32], &[I32], true),
    export(EXPORT_SNAPSHOT, &[], &[I32], true),
    export(EXPORT_RESTORE, &[I32], &[I32], true),
    export(EXPORT_QUERY, &[I32], &[I32], false),
    export(EXPORT_CLASSIFY, &[I32], &[I32], false),
    export(EXPORT_CHECK, &[], &[I32], false),
    export(EXPORT_STATE_VERSION, &[], &[I32], false),
    export(EXPORT_RESTORES, &[I32], &[I32], false),
    export(EXPORT_ADOPT, &[I32], &[I32], false),
    export(EXPORT_INIT, &[], &[I32], false),
    export(EXPORT_INITIALIZE, &[], &[], false),
    export(EXPORT_START, &[], &[], false),
];

/// The functions that a guest may import from [`IMPORT_MODULE`].
pub const IMPORTS: [Function; 13] = [
    import(IMPORT_READ, &[I32, I32], &[I32]),
    import(IMPORT_WRITE, &[I32, I32], &[]),
    import(IMPORT_INDEX, &[], &[I64]),
    import(IMPORT_ORDINAL, &[], &[I32]),
    import(IMPORT_TIME_MS, &[], &[I64]),
    import(IMPORT_RANDOM, &[I32, I32], &[]),
    import(IMPORT_EMIT, &[I32, I32, I32, I32], &[]),
    import(IMPORT_LOG, &[I32, I32, I32], &[]),
    import(IMPORT_WINDOW, &[], &[I32]),
    import(IMPORT_ACTOR, &[I32, I32], &[I32]),
    import(IMPORT_OLD_MEMORY_SIZE, &[], &[I64]),
    import(IMPORT_OLD_MEMORY, &[I64, I32, I32], &[]),
    import(IMPORT_OLD_GLOBAL, &[I32, I32], &[I32]),
];
