//! The two promises that wasmtime cannot check itself.
#![expect(unsafe_code, reason = "wasmtime takes these two promises in no other way")]

use wasmtime::{Config, Engine, Module};

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
/// The caller has checked that `code` is byte for byte what this program wrote (`cache`
/// compares a SHA-256). Whoever can write into the cache directory runs code as the host.
pub(super) fn load_compiled(engine: &Engine, code: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: the caller's duty above; wasmtime itself checks version and settings.
    unsafe { Module::deserialize(engine, code) }
}
