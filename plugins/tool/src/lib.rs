//! Keeps the committed modules in step with their sources.
//!
//! The modules of the samples and of the SDKs' probes are committed, because most people who try
//! the host have no wasm toolchain, and nobody has all of them. `plugins/build` rebuilds them and
//! writes a manifest with the hash of each module and the hash of everything it was built from. A
//! test compares the manifest with the files, so a change of source without a rebuild fails, on
//! any machine.

pub mod manifest;
mod project;
mod sources;

use std::path::{Path, PathBuf};

/// A module and what it is made of.
pub struct Plugin {
    /// The module, below the root of the repository.
    pub module: &'static str,
    /// What the module is built from.
    pub source: Source,
}

/// What a module is built from.
pub enum Source {
    /// A crate of this workspace.
    Rust {
        /// Its name.
        package: &'static str,
        /// The file that the compiler makes.
        artifact: &'static str,
    },
    /// WebAssembly text.
    Wat {
        /// Below the root of the repository.
        file: &'static str,
    },
    /// A folder that `raft-host build` builds.
    Project {
        /// Below the root of the repository.
        folder: &'static str,
        /// As `raft-host build` and `plugins/build` name it.
        language: &'static str,
        /// What it takes from the SDK: files and folders, below the root of the repository.
        sdk: &'static [&'static str],
    },
}

impl Source {
    /// As `plugins/build` names it.
    pub fn language(&self) -> &'static str {
        match self {
            Source::Rust { .. } => "rust",
            Source::Wat { .. } => "wat",
            Source::Project { language, .. } => language,
        }
    }
}

impl Plugin {
    const fn rust(module: &'static str, package: &'static str, artifact: &'static str) -> Plugin {
        Plugin { module, source: Source::Rust { package, artifact } }
    }

    const fn project(
        folder: &'static str,
        module: &'static str,
        language: &'static str,
        sdk: &'static [&'static str],
    ) -> Plugin {
        Plugin { module, source: Source::Project { folder, language, sdk } }
    }
}

const ASSEMBLYSCRIPT_SDK: &[&str] = &["guest-sdk/assemblyscript/raft_fsm.ts"];
const C_SDK: &[&str] = &["guest-sdk/c/raft_fsm.h"];
const CPP_SDK: &[&str] = &["guest-sdk/c/raft_fsm.h", "guest-sdk/cpp/raft_fsm.hpp"];
const GO_SDK: &[&str] = &["guest-sdk/go"];
const ZIG_SDK: &[&str] = &["guest-sdk/zig/raft_fsm.zig"];

/// Every committed module.
#[rustfmt::skip] // One line each.
pub const PLUGINS: &[Plugin] = &[
    Plugin::rust("plugins/kv/kv.wasm", "raft-host-plugin-kv", "kv.wasm"),
    Plugin::rust("plugins/kv-v2/kv_v2.wasm", "raft-host-plugin-kv-v2", "kv_v2.wasm"),
    Plugin::rust("guest-sdk/rust/probe/probe.wasm", "raft-fsm-probe", "probe.wasm"),
    Plugin::rust("guest-sdk/rust/no-std/no_std.wasm", "raft-fsm-no-std", "no_std.wasm"),
    Plugin {
        module: "plugins/counter/counter.wasm",
        source: Source::Wat { file: "plugins/counter/counter.wat" },
    },
    Plugin::project("plugins/feature-flags", "plugins/feature-flags/feature_flags.wasm", "assemblyscript", ASSEMBLYSCRIPT_SDK),
    Plugin::project("guest-sdk/assemblyscript/probe", "guest-sdk/assemblyscript/probe/probe.wasm", "assemblyscript", ASSEMBLYSCRIPT_SDK),
    Plugin::project("plugins/rate-limiter", "plugins/rate-limiter/rate_limiter.wasm", "c", C_SDK),
    Plugin::project("guest-sdk/c/probe", "guest-sdk/c/probe/probe.wasm", "c", C_SDK),
    Plugin::project("plugins/job-queue", "plugins/job-queue/job_queue.wasm", "cpp", CPP_SDK),
    Plugin::project("guest-sdk/cpp/probe", "guest-sdk/cpp/probe/probe.wasm", "cpp", CPP_SDK),
    Plugin::project("plugins/ledger", "plugins/ledger/ledger.wasm", "go", GO_SDK),
    Plugin::project("guest-sdk/go/probe", "guest-sdk/go/probe/probe.wasm", "go", GO_SDK),
    Plugin::project("plugins/lock", "plugins/lock/lock.wasm", "zig", ZIG_SDK),
    Plugin::project("guest-sdk/zig/probe", "guest-sdk/zig/probe/probe.wasm", "zig", ZIG_SDK),
];

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}
