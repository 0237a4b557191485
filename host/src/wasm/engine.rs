//! The engine profile: everything about wasmtime that could change an outcome, in one place.

use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmparser::WasmFeatures;
use wasmtime::{Config, Engine, OptLevel};

use super::memory::Creator;
use super::unchecked;
use crate::fsm::{HostFailure, STACK_MAX_BYTES, STACK_MIN_BYTES};

/// What guests may use. Anything else is refused at load.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST);

/// Version of this profile; raise it with any change here, in `abi` or in `rewrite` that
/// changes what a guest sees or how much fuel it uses.
const PROFILE_VERSION: u32 = 1;

/// All that a 32-bit address can reach is reserved, so that memories never move.
const MEMORY_RESERVATION_BYTES: u64 = 1 << 32;
/// Lets compiled code add a constant offset without a bounds check.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// Native stack that the host itself needs below and above a guest's frames.
pub(super) const HOST_STACK_BYTES: u64 = 256 << 10;

/// CPU features assumed on x86-64: those of x86-64-v2, which every server of the last fifteen
/// years has. Fixed rather than detected, so that code and stack frames are the same on every
/// node. The baseline of aarch64 needs none.
const X86_64_FEATURES: &[&str] = &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"];

const TARGET: Option<&str> = if !cfg!(target_os = "linux") {
    None
} else if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
    Some("x86_64-unknown-linux-gnu")
} else if cfg!(all(target_arch = "x86_64", target_env = "musl")) {
    Some("x86_64-unknown-linux-musl")
} else if cfg!(all(target_arch = "aarch64", target_env = "gnu")) {
    Some("aarch64-unknown-linux-gnu")
} else if cfg!(all(target_arch = "aarch64", target_env = "musl")) {
    Some("aarch64-unknown-linux-musl")
} else {
    None
};

/// An engine for guests with a stack of `stack_max_bytes`.
///
/// Where exactly a runaway recursion overflows is the one thing that is not entirely fixed
/// here: wasmtime counts from the host's own stack pointer at entry, which two *builds* of
/// the host may place some hundred bytes apart. Nodes of one build agree.
pub(super) fn build(stack_max_bytes: u64) -> Result<Engine, HostFailure> {
    let target = TARGET
        .ok_or_else(|| HostFailure("guests run on Linux on x86-64 or aarch64 only".to_owned()))?;
    let stack_bytes = usize::try_from(stack_max_bytes)
        .ok()
        .filter(|_| (STACK_MIN_BYTES..=STACK_MAX_BYTES).contains(&stack_max_bytes))
        .ok_or_else(|| {
            HostFailure(format!(
                "a guest stack of {stack_max_bytes} bytes: choose between {STACK_MIN_BYTES} and \
                 {STACK_MAX_BYTES}"
            ))
        })?;
    let mut config = Config::new();
    config.target(target).map_err(|error| failure("choosing the target", &error))?;
    if cfg!(target_arch = "x86_64") {
        X86_64_FEATURES.iter().for_each(|flag| unchecked::enable_cpu_feature(&mut config, flag));
    }
    config
        .wasm_features(WasmFeatures::all().difference(FEATURES), false)
        .wasm_features(FEATURES, true)
        .consume_fuel(true)
        .epoch_interruption(false)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .concurrency_support(false)
        .max_wasm_stack(stack_bytes)
        .async_stack_size(stack_bytes + (1 << 20))
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_may_move(false)
        .guard_before_linear_memory(false)
        .memory_init_cow(false)
        .with_host_memory(Arc::new(Creator))
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    Engine::new(&config).map_err(|error| failure("starting the engine", &error))
}

/// Names everything that compiled code depends on: equal hashes mean interchangeable code.
pub(super) fn profile_hash(engine: &Engine) -> [u8; 32] {
    let mut text = String::new();
    write!(text, "raft-host wasm profile {PROFILE_VERSION};{TARGET:?};{X86_64_FEATURES:?};")
        .expect("writing to a string cannot fail");
    let mut hasher = StableHasher(Sha256::new());
    hasher.0.update(text.as_bytes());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

fn failure(doing: &str, error: &wasmtime::Error) -> HostFailure {
    HostFailure(format!("{doing}: {error:#}"))
}

/// `std`'s default hasher may change between releases of Rust; SHA-256 does not.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
    }
}
