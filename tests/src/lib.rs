//! Harness for whole-system tests: real `raft-host` processes on loopback.

mod cluster;
mod process;

pub use cluster::{Cluster, Load, block_on, value};
pub use process::{Cli, Output, Server, Started, free_port};

use std::path::{Path, PathBuf};

/// A file of the workspace.
pub fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member").join(path)
}

/// The kv plugin.
pub fn kv() -> PathBuf {
    workspace("plugins/kv/kv.wasm")
}

/// Its second version.
pub fn kv_v2() -> PathBuf {
    workspace("plugins/kv-v2/kv_v2.wasm")
}
