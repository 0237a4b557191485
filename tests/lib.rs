//! Whole-system tests of raft-host: real processes on loopback, and a cluster in virtual time.
//!
//! ```text
//!   harness   starts, kills and asks real processes
//!   history   what clients saw, and whether a correct store could have shown it to them
//!   sim       a cluster of nodes on one thread, one seed decides everything
//!   chaos     real processes under real faults
//!   strangers whoever reaches a port and means harm
//! ```

pub mod chaos;
pub mod generate;
mod harness;
pub mod history;
pub mod hostile;
pub mod properties;
pub mod sim;
pub mod strangers;

pub use chaos::disk::SmallDisk;
pub use harness::{
    Cli, Cluster, Load, Output, Running, Server, Started, block_on, free_port, hex,
    lacks_client_tools, lacks_shell, lacks_tools, share_compiled_crates, value,
};

use std::path::{Path, PathBuf};

/// Builds the library that a server whose fsync is to hang preloads.
///
/// # Errors
/// Where there is no C compiler.
pub fn build_fsync_shim(dir: &Path) -> anyhow::Result<PathBuf> {
    chaos::disk::build_slow_fsync(dir)
}

/// Builds the library that a server preloads whose disk is to be small.
///
/// # Errors
/// Where there is no C compiler.
pub fn build_small_disk_shim(dir: &Path) -> anyhow::Result<PathBuf> {
    chaos::disk::build_small_disk(dir)
}

/// A file of the workspace.
pub fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member").join(path)
}

/// The kv plugin.
pub fn kv() -> PathBuf {
    workspace("plugins/kv/kv.wasm")
}

/// The ledger of `tests/upgrades` with lines replaced: a mark, and what stands there instead.
pub fn ledger(changes: &[(&str, &str)]) -> Vec<u8> {
    let text = include_str!("upgrades/ledger.wat");
    let replaced = |line: &str| {
        let mark = line.rsplit_once(";;@").map(|(_, mark)| mark);
        let other = changes.iter().find(|(wanted, _)| mark == Some(*wanted));
        other.map_or(line, |(_, other)| other).to_owned()
    };
    let lines: Vec<String> = text.lines().map(replaced).collect();
    wat::parse_str(lines.join("\n")).expect("the text is a module")
}

/// Its second version.
pub fn kv_v2() -> PathBuf {
    workspace("plugins/kv-v2/kv_v2.wasm")
}
