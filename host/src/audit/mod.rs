//! The audit log: who changed what, and who was refused, a line of JSON each.
//!
//! Whoever notes something never waits: events go into a queue with a bound, and a thread of its own writes
//! them. What finds no room is counted, and the next line says how many were lost. What cannot be written
//! is an alarm and is tried again. Refusals are many when somebody tries: of each source a few lines a
//! second are written, and then how many more there were.
//!
//! ```text
//!   api ──► Audit::note ──► queue (bounded; few refusals a second of each source) ──► thread ──► file,
//!                             └─ full: counted, and said by the next line                     syslog, stderr
//! ```

mod config;
mod event;
mod file;
mod flood;
mod sink;
mod writer;

pub use self::config::{AuditConfig, AuditSink};
pub use self::event::{AuditEffect, Credential, Event, Who};
pub use self::sink::AuditError;
pub use self::writer::{Audit, AuditCounts, NotWritable, Place};
