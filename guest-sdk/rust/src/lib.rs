//! Write a replicated state machine for `raft-host` in Rust.
//!
//! Implement [`StateMachine`] for a type that holds your state, name it in [`export!`], and
//! build for `wasm32-unknown-unknown`. On every other target the same code runs under plain
//! `cargo test` with [`testing::Runner`].
//!
//! ```
//! use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Writer};
//!
//! /// Adds numbers.
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, _: &Context, command: &[u8]) -> Result<Answer, Rejection> {
//!         let text = core::str::from_utf8(command).map_err(Rejection::display)?;
//!         let number: u64 = text.parse().map_err(Rejection::display)?;
//!         self.0 = self.0.checked_add(number).ok_or("the sum would overflow")?;
//!         Ok(self.0.to_string().into())
//!     }
//!
//!     fn query(&self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> {
//!         Ok(self.0.to_string().into())
//!     }
//!
//!     fn snapshot(&self, _: &Context, out: &mut Writer) {
//!         out.u64(self.0);
//!     }
//!
//!     fn restore(_: &Context, input: &mut Reader) -> Result<Sum, Rejection> {
//!         Ok(Sum(input.u64()?))
//!     }
//! }
//!
//! raft_fsm_sdk::export!(Sum);
//!
//! let mut node = raft_fsm_sdk::testing::Runner::<Sum>::new();
//! assert_eq!(node.apply_text("40").as_deref(), Ok("40"));
//! assert_eq!(node.apply_text("2").as_deref(), Ok("42"));
//! assert!(node.apply_text("two").is_err());
//! assert_eq!(node.query_text("").as_deref(), Ok("42"));
//! ```
//!
//! # The rules
//!
//! Every replica runs the same commands in the same order and must end in the same state, so:
//!
//! - Time, randomness and the position in the log come from [`Context`] only.
//! - A command that is rejected changed nothing: check first, change after.
//! - A panic is a trap: the host undoes the command and answers `Trapped`. The message reaches
//!   the host's log (feature `std`).
//! - Snapshots are read by later versions of the module: give them a version number.
//!
//! # Features
//!
//! - `std` (default): a panic hook that logs, `std::io` traits for [`Reader`] and [`Writer`].
//!   Without it the crate is `no_std` and needs an allocator and a panic handler of yours;
//!   `guest::log_panic` is there for the latter to call.
//! - `json`: `json::parse`, `json::Names` and `Answer::json`.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod answer;
mod calls;
#[cfg(any(target_arch = "wasm32", test))]
mod compare;
mod context;
mod export;
#[cfg(target_arch = "wasm32")]
pub mod guest;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "json")]
mod plain;
#[cfg(not(target_arch = "wasm32"))]
mod property;
mod stream;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod upgrades;

#[cfg(target_arch = "wasm32")]
use guest::Host;
#[cfg(not(target_arch = "wasm32"))]
use testing::Host;

pub use answer::{Answer, Rejection};
pub use context::{Context, Level};
pub use stream::{Reader, Writer};
#[doc(hidden)]
pub use upgrades::is_state_version;
pub use upgrades::{Adopt, Check, Global, OldInstance, Versions};

/// A state machine whose commands are of classes, so that rights may be given for some of them: `transfer`,
/// say, and not `close-account`. Export it with [`export!(Machine, classes)`](crate::export).
///
/// ```
/// # use raft_fsm_sdk::*;
/// # #[derive(Default)]
/// # struct Bank;
/// # impl StateMachine for Bank {
/// #     fn apply(&mut self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> { Ok("".into()) }
/// #     fn snapshot(&self, _: &Context, _: &mut Writer) {}
/// #     fn restore(_: &Context, _: &mut Reader) -> Result<Bank, Rejection> { Ok(Bank) }
/// # }
/// impl Classes for Bank {
///     fn classify(&self, _: &Context, command: &[u8]) -> Option<&'static str> {
///         match command.split(|byte| *byte == b' ').next()? {
///             b"transfer" => Some("transfer"),
///             b"close" => Some("close-account"),
///             _ => None,
///         }
///     }
/// }
///
/// raft_fsm_sdk::export!(Bank, classes);
/// ```
pub trait Classes: StateMachine {
    /// Names the class of a command: 1 to 64 letters (a to z), digits and any of `.`, `_`, `-`. `None`: it is of
    /// none, and only who may give all commands may give it. So say nothing of what is malformed.
    ///
    /// It runs where a right depends on it, in the state and the context that the command is to have; whatever it
    /// changes is thrown away.
    fn classify(&self, context: &Context, command: &[u8]) -> Option<&'static str>;
}

/// Application logic that `raft-host` replicates.
///
/// [`Default`] is the state of a new instance, before [`init`](StateMachine::init) or
/// [`restore`](StateMachine::restore).
pub trait StateMachine: Default + 'static {
    /// Runs once in the life of a cluster, before the first command.
    fn init(&mut self, _context: &Context) -> Result<(), Rejection> {
        Ok(())
    }

    /// Runs one command. `Err` promises that nothing changed.
    fn apply(&mut self, context: &Context, command: &[u8]) -> Result<Answer, Rejection>;

    /// Answers a question. Whatever it changes through interior mutability is thrown away.
    fn query(&self, _context: &Context, _query: &[u8]) -> Result<Answer, Rejection> {
        Err(Rejection::from("this state machine answers no queries"))
    }

    /// Writes the whole state, independent of memory layout: it is restored by this module
    /// and by later ones. Equal states should write equal bytes. A state that cannot be
    /// written is a bug: panic.
    fn snapshot(&self, context: &Context, out: &mut Writer);

    /// Builds the state from a snapshot of this or of an earlier module.
    fn restore(context: &Context, input: &mut Reader) -> Result<Self, Rejection>;
}
