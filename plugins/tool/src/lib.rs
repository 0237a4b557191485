//! Keeps the built sample plugins in step with their sources.
//!
//! The modules are committed, because most people who try the host have no wasm toolchain.
//! `plugins/build` rebuilds them and writes a manifest with the hash of each module and the
//! hash of everything it was built from. A test compares the manifest with the files, so a
//! change of source without a rebuild fails, on any machine.

pub mod manifest;
mod sources;

use std::path::{Path, PathBuf};

/// A sample plugin.
pub struct Plugin {
    /// Its module, below the root of the repository.
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
}

/// Every sample plugin.
pub const PLUGINS: [Plugin; 3] = [
    Plugin {
        module: "plugins/kv/kv.wasm",
        source: Source::Rust { package: "raft-host-plugin-kv", artifact: "kv.wasm" },
    },
    Plugin {
        module: "plugins/kv-v2/kv_v2.wasm",
        source: Source::Rust { package: "raft-host-plugin-kv-v2", artifact: "kv_v2.wasm" },
    },
    Plugin {
        module: "plugins/counter/counter.wasm",
        source: Source::Wat { file: "plugins/counter/counter.wat" },
    },
];

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}
