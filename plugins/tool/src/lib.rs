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

const ASSEMBLYSCRIPT_SDK: &[&str] = &["guest-sdk/assemblyscript/raft_fsm.ts"];
const C_SDK: &[&str] = &["guest-sdk/c/raft_fsm.h"];
const CPP_SDK: &[&str] = &["guest-sdk/c/raft_fsm.h", "guest-sdk/cpp/raft_fsm.hpp"];
const GO_SDK: &[&str] = &["guest-sdk/go"];
const ZIG_SDK: &[&str] = &["guest-sdk/zig/raft_fsm.zig"];

/// Every committed module.
pub const PLUGINS: &[Plugin] = &[
    Plugin {
        module: "plugins/kv/kv.wasm",
        source: Source::Rust { package: "raft-host-plugin-kv", artifact: "kv.wasm" },
    },
    Plugin {
        module: "plugins/kv-v2/kv_v2.wasm",
        source: Source::Rust { package: "raft-host-plugin-kv-v2", artifact: "kv_v2.wasm" },
    },
    Plugin {
        module: "guest-sdk/rust/probe/probe.wasm",
        source: Source::Rust { package: "raft-fsm-probe", artifact: "probe.wasm" },
    },
    Plugin {
        module: "guest-sdk/rust/no-std/no_std.wasm",
        source: Source::Rust { package: "raft-fsm-no-std", artifact: "no_std.wasm" },
    },
    Plugin {
        module: "plugins/counter/counter.wasm",
        source: Source::Wat { file: "plugins/counter/counter.wat" },
    },
    Plugin {
        module: "plugins/feature-flags/feature_flags.wasm",
        source: Source::Project {
            folder: "plugins/feature-flags",
            language: "assemblyscript",
            sdk: ASSEMBLYSCRIPT_SDK,
        },
    },
    Plugin {
        module: "guest-sdk/assemblyscript/probe/probe.wasm",
        source: Source::Project {
            folder: "guest-sdk/assemblyscript/probe",
            language: "assemblyscript",
            sdk: ASSEMBLYSCRIPT_SDK,
        },
    },
    Plugin {
        module: "plugins/rate-limiter/rate_limiter.wasm",
        source: Source::Project { folder: "plugins/rate-limiter", language: "c", sdk: C_SDK },
    },
    Plugin {
        module: "guest-sdk/c/probe/probe.wasm",
        source: Source::Project { folder: "guest-sdk/c/probe", language: "c", sdk: C_SDK },
    },
    Plugin {
        module: "plugins/job-queue/job_queue.wasm",
        source: Source::Project { folder: "plugins/job-queue", language: "cpp", sdk: CPP_SDK },
    },
    Plugin {
        module: "guest-sdk/cpp/probe/probe.wasm",
        source: Source::Project { folder: "guest-sdk/cpp/probe", language: "cpp", sdk: CPP_SDK },
    },
    Plugin {
        module: "plugins/ledger/ledger.wasm",
        source: Source::Project { folder: "plugins/ledger", language: "go", sdk: GO_SDK },
    },
    Plugin {
        module: "guest-sdk/go/probe/probe.wasm",
        source: Source::Project { folder: "guest-sdk/go/probe", language: "go", sdk: GO_SDK },
    },
    Plugin {
        module: "plugins/lock/lock.wasm",
        source: Source::Project { folder: "plugins/lock", language: "zig", sdk: ZIG_SDK },
    },
    Plugin {
        module: "guest-sdk/zig/probe/probe.wasm",
        source: Source::Project { folder: "guest-sdk/zig/probe", language: "zig", sdk: ZIG_SDK },
    },
];

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}
