//! What drives the groups of a node: threads, queues, clocks, disk and sockets. Or, in [`SteppedNode`],
//! somebody who takes one step at a time.
//!
//! ```text
//!   transport ─► inbox ─┐                      ┌─► log writer: all groups, one write, one fsync
//!   handles ────────────┼─► event loop: groups ┼─► log reader
//!   tick ───────────────┘                      ├─► transport
//!                                              └─► an apply thread a group ─► snapshot writer
//! ```

mod assemble;
mod bootstrap;
mod driver;
mod environment;
mod error;
mod event_loop;
mod inbox;
mod log_reader;
mod log_writer;
mod node;
mod options;
mod recovery;
mod snapshot_writer;
mod stepped;
mod threads;
mod watchdog;

pub use self::bootstrap::{FIRST, adopt, bootstrap, first_machine, found};
pub use self::environment::Environment;
pub use self::error::StartError;
pub use self::inbox::NodeInbox;
pub use self::node::Node;
pub use self::options::{GroupOptions, NodeChannel, NodeOptions, channel};
pub use self::stepped::{SteppedNode, SteppedShadow};
pub use self::threads::Stragglers;
