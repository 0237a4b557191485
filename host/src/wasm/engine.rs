//! The engine profile: everything about wasmtime that could change an outcome, in one place.

use std::hash::{Hash as _, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmparser::WasmFeatures;
use wasmtime::{Config, Engine, OptLevel};

use super::complexity::CHECK_VERSION;
use super::memory::Creator;
use super::{stack, unchecked};
use crate::fsm::{
    EngineFacts, EngineProfile, HostFailure, MACHINE_VERSION, STACK_MAX_BYTES, STACK_MIN_BYTES,
};

/// What guests may use, as profiles name it. Anything else is refused at load.
const NAMED_FEATURES: [(&str, WasmFeatures); 10] = [
    ("mutable-global", WasmFeatures::MUTABLE_GLOBAL),
    ("saturating-float-to-int", WasmFeatures::SATURATING_FLOAT_TO_INT),
    ("sign-extension", WasmFeatures::SIGN_EXTENSION),
    ("reference-types", WasmFeatures::REFERENCE_TYPES),
    ("multi-value", WasmFeatures::MULTI_VALUE),
    ("bulk-memory", WasmFeatures::BULK_MEMORY),
    ("simd", WasmFeatures::SIMD),
    ("tail-call", WasmFeatures::TAIL_CALL),
    ("floats", WasmFeatures::FLOATS),
    ("extended-const", WasmFeatures::EXTENDED_CONST),
];

/// All of them together.
pub(super) const FEATURES: WasmFeatures = {
    let (mut all, mut at) = (WasmFeatures::empty(), 0);
    while at < NAMED_FEATURES.len() {
        all = all.union(NAMED_FEATURES[at].1);
        at += 1;
    }
    all
};

/// The engine. Of its long-term line any release may run beside any other: they mend faults of
/// safety, and what they change in spite of that the digests of the replicas show.
const WASMTIME_MAJOR: u32 = 48;
/// Raise it with any change in `abi` or `wasi` after which a guest sees something else.
const ABI_VERSION: u32 = 1;
/// Raise it with any change after which the same call uses another amount of fuel.
const FUEL_VERSION: u32 = 1;
/// Raise it with any change in `rewrite` after which a guest runs otherwise.
const REWRITE_VERSION: u32 = 1;

/// All that a 32-bit address can reach is reserved, so that memories never move.
const MEMORY_RESERVATION_BYTES: u64 = 1 << 32;
/// Lets compiled code add a constant offset without a bounds check.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// Native stack that the host itself needs below and above a guest's frames.
pub(super) const HOST_STACK_BYTES: u64 = 256 << 10;

/// CPU features assumed on x86-64: those of x86-64-v2, which every server of the last fifteen
/// years has. Fixed rather than detected, so that code and stack frames are the same on every
/// node. The baseline of aarch64 needs none.
/// As profiles name them, and as the compiler does.
const CPU_FEATURES: &[(&str, &str)] = if cfg!(target_arch = "x86_64") {
    &[
        ("sse3", "has_sse3"),
        ("ssse3", "has_ssse3"),
        ("sse4.1", "has_sse41"),
        ("sse4.2", "has_sse42"),
        ("popcnt", "has_popcnt"),
    ]
} else {
    &[]
};

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
/// All of it is the guest's, to the byte (rounded down to 16), whatever the host's own frames take:
/// see `stack`.
pub(super) fn build(stack_max_bytes: u64) -> Result<Engine, HostFailure> {
    let stack_bytes = usize::try_from(stack_max_bytes)
        .ok()
        .filter(|_| (STACK_MIN_BYTES..=STACK_MAX_BYTES).contains(&stack_max_bytes))
        .ok_or_else(|| {
            HostFailure(format!(
                "a guest stack of {stack_max_bytes} bytes: choose between {STACK_MIN_BYTES} and \
                 {STACK_MAX_BYTES}"
            ))
        })?;
    with_native_stack(stack::native_stack_bytes(stack_bytes)?)
}

/// An engine that traps so many bytes below the stack pointer that wasmtime looks at on entry.
pub(super) fn with_native_stack(stack_bytes: usize) -> Result<Engine, HostFailure> {
    let target = TARGET
        .ok_or_else(|| HostFailure("guests run on Linux on x86-64 or aarch64 only".to_owned()))?;
    let mut config = Config::new();
    config.target(target).map_err(|error| failure("choosing the target", &error))?;
    for (_, flag) in CPU_FEATURES {
        unchecked::enable_cpu_feature(&mut config, flag);
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

/// The engine profile of this program.
pub fn profile() -> EngineProfile {
    let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
    EngineProfile::of(&EngineFacts {
        engine: "wasmtime".to_owned(),
        engine_version: WASMTIME_MAJOR,
        abi: ABI_VERSION,
        fuel: FUEL_VERSION,
        rewrite: REWRITE_VERSION,
        check: CHECK_VERSION,
        machine: MACHINE_VERSION,
        cpu: if cfg!(target_arch = "x86_64") { "x86-64" } else { "aarch64" }.to_owned(),
        cpu_features: names(&mut CPU_FEATURES.iter().map(|(name, _)| *name)),
        features: names(&mut NAMED_FEATURES.iter().map(|(name, _)| *name)),
    })
}

/// Names everything that compiled code depends on: equal hashes mean interchangeable code.
pub(super) fn code_hash(engine: &Engine) -> [u8; 32] {
    let mut hasher = StableHasher(Sha256::new());
    hasher.0.update(format!("{};{TARGET:?};", profile()).as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_this_one_until_somebody_means_to_change_it() {
        // A cluster with another profile does not start this program: see the decision record.
        assert_eq!(profile(), EngineProfile::first());
    }

    #[test]
    fn the_profile_names_the_version_of_wasmtime_that_is_linked() {
        let lock = include_str!("../../../Cargo.lock");
        let mut lines = lock.lines().skip_while(|line| *line != "name = \"wasmtime\"");
        let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
        let major = version.and_then(|version| version.split('.').next());
        assert_eq!(major, Some(WASMTIME_MAJOR.to_string().as_str()));
    }
}
