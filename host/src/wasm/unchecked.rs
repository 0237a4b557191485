//! The three promises that wasmtime cannot check itself.
#![expect(unsafe_code, reason = "wasmtime takes these promises in no other way")]

use wasmtime::{Config, Engine, Func, Module, Store, ValRaw};

use super::abi::CallState;

/// Lets compiled code use a CPU feature. wasmtime refuses to run the code on a CPU without it.
pub(super) fn enable_cpu_feature(config: &mut Config, flag: &str) {
    // SAFETY: only flags of the form `has_…` are enabled, which wasmtime checks against the
    // host's CPU before it runs anything; they do not relax any check in compiled code.
    assert!(flag.starts_with("has_"), "{flag} is not a CPU feature");
    unsafe {
        config.cranelift_flag_enable(flag);
    }
}

/// Loads compiled code that [`Module::serialize`] produced on an engine of this profile.
///
/// The caller has checked that `code` is byte for byte what this program wrote (`cache` and
/// `compiler` compare a SHA-256). Whoever can write into the cache directory runs code as the host.
pub(super) fn load_compiled(engine: &Engine, code: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: the caller's duty above; wasmtime itself checks version and settings.
    unsafe { Module::deserialize(engine, code) }
}

/// Calls a function whose parameters and results are, between them, at most one `i32` each, and
/// returns what it leaves: its result, if it has one.
///
/// The caller has the type from a `TypedFunc`. Every call of every guest goes through this very
/// function, so that the host's frames below a guest's are always the same: see `stack`.
#[inline(never)]
pub(super) fn enter(
    store: &mut Store<CallState>,
    function: &Func,
    argument: u32,
) -> wasmtime::Result<u32> {
    let mut value = [ValRaw::u32(argument)];
    // SAFETY: the array has room for one parameter and for one result, each of type `i32`; that
    // the function has no more and no others is the caller's duty above. The pointer is used
    // during the call only. That the function belongs to the store, wasmtime checks.
    unsafe { function.call_unchecked(store, &raw mut value)? };
    Ok(value[0].get_u32())
}
