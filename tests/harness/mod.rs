//! Real `raft-host` processes on loopback: started, asked, killed.

mod cluster;
mod process;
mod toolchains;

pub use cluster::{Cluster, Load, block_on, hex, value};
pub use process::{Cli, Output, Running, Server, Started, free_port};
pub use toolchains::{lacks_client_tools, lacks_shell, lacks_tools, share_compiled_crates};
