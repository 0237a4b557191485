//! Real `raft-host` processes on loopback: started, asked, killed.

mod cluster;
mod process;

pub use cluster::{Cluster, Load, block_on, value};
pub use process::{Cli, Output, Server, Started, free_port};
