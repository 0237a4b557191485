//! Runs of guests that must end in the same bits, whatever happened on the way.
//!
//! ```text
//!   guests   what is run: the Rust plugin, a guest in WAT, one in C on WASI
//!   runs     a list of commands, run straight, or with detours
//! ```

pub mod guests;
pub mod runs;
