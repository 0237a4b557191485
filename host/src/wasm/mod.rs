//! The state machine as a sandboxed guest inside wasmtime: load-time checks, the guest ABI,
//! limits, undo after traps, forks for queries, and exact images of a guest's state.
//!
//! Knows the seam (`fsm`) and the vocabulary (`types`) only: nothing of Raft, sessions,
//! upgrades, storage or networks. wasmtime is known in this room alone. Here, as in all rooms
//! that decide outcomes, there is no wall clock and no ambient randomness.
//!
//! Servers have a child process check and compile (`compiler`).
//!
//! ```text
//! bytes ─ check ─ rewrite ─ compile (engine profile, cache) ─┐
//!                                                            ├─ Guest (one instance)
//! replicated limits ─────────────────────────────────────────┘     │
//!                    ┌─────────────────────────────────────────────┘
//!        WasmFsm:  live ── memory mapped shared ── forks (private views): queries, snapshot
//!                    │ what was written: tracked by the kernel, or compared
//!                    └─ checkpoint (blocks, copy on write) + calls since: undo, digest, images
//! ```

mod abi;
mod bits;
mod blocks;
mod cache;
mod check;
mod checkpoint;
mod compiler;
mod complexity;
mod digest;
mod engine;
mod exports;
mod guest;
mod image;
mod inherited;
mod instance;
mod loader;
mod memory;
mod missing_pages;
mod pace;
mod queries;
mod rewrite;
mod stack;
mod tracking;
mod unchecked;
mod wasi;
mod window;
mod words;
mod workers;

#[cfg(test)]
mod tests;

pub use check::{CheckError, ModuleReport, check_module};
pub use compiler::{CHILD_COMMAND, CompilerConfig, compile_one};
pub use engine::profile;
pub(crate) use instance::WasmFsm;
pub(crate) use loader::Refused;
pub use loader::{CompiledModules, MemoryBackend, WasmLoader};
