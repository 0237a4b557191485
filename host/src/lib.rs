//! raft-host: run a WebAssembly state machine, replicated with Raft and stored durably.
//!
//! One room per module; `host/docs/architecture.md` says who may know whom, and a test
//! holds the rooms to it.

pub mod api;
pub mod audit;
pub mod autopilot;
pub mod backup;
pub mod certs;
pub mod check;
pub mod cli;
pub mod config;
pub mod consensus;
pub mod fsm;
pub mod machine;
pub mod museum;
pub mod node;
pub mod project;
pub mod recovery;
pub mod rehearsal;
pub mod replay;
pub mod server;
pub mod signing;
pub mod storage;
mod text;
pub mod tls;
pub mod transport;
pub mod types;
pub mod wasm;
