//! The faces of a node. gRPC: applications, operators, health and reflection, on one port
//! together with the peers' service. HTTP: metrics and health, on a port of their own.
//!
//! Translates between the wire and [`NodeHandle`](crate::node::NodeHandle), and passes to the
//! leader what only the leader can do. Knows nothing of logs, consensus or modules' insides.
//!
//! ```text
//!   client ──► trailers ──► cluster ──► rates ──► door ──► client / streams / admin ──► here? ──► NodeHandle ──► answer
//!                                      └─► leader elsewhere ──► forward (once) ──► that node
//! ```
//!
//! Every failure says whether the request surely had no effect. A request that was passed on is
//! never passed on again: the node that got it from a client is the one that looks for the leader.

mod access;
mod activate;
mod admin;
mod ahead;
mod anteroom;
mod auditing;
mod caller;
mod client;
mod clock;
mod cluster;
mod config;
mod connections;
mod context;
mod convert;
mod copies;
mod digest;
mod door;
mod duty;
mod enroll;
mod failure;
mod forward;
mod freshness;
mod guard;
mod health;
mod http;
mod io;
mod join_tokens;
mod keys;
mod level;
mod limits;
mod members;
mod membership;
mod nodes;
mod prepare;
mod process;
mod query;
mod query_stream;
mod rates;
mod rehearse;
mod report;
mod rights;
mod server;
mod shadow;
mod source;
mod stage;
mod status;
mod stream;
mod streaming;
mod token;
mod traffic;
mod trailers;
mod travel;
mod upgrade;
mod upload;

#[cfg(test)]
mod tests;

pub use anteroom::Anteroom;
pub use caller::forwarded_actor;
pub use config::ApiConfig;
pub(crate) use connections::{LEAVING_PLACES, PROBATION_PLACES};
pub use context::NodeInfo;
pub(crate) use convert::outcome_to_wire;
#[cfg(test)]
pub(crate) use convert::{changes_from_wire, limits_to_wire};
pub(crate) use duty::{status_of, voters_on_duty, voters_with_quick_disks};
pub(crate) use http::METRICS_CONNECTIONS;
pub use http::serve_http;
pub use io::{Presented, Sockets};
pub use nodes::presented;
pub use process::ProcessFacts;
pub(crate) use report::report_to_wire;
pub use server::{ApiError, serve};
pub use token::{JoinTicket, hash_of_token};
pub use traffic::Traffic;
