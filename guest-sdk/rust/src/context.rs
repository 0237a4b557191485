//! What a call may know about the world.

use alloc::string::{String, ToString};

use raft_fsm_abi::{ACTOR_MAX_BYTES, LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_WARN};

use crate::Host;

/// The only way to the outside, the same on every replica.
///
/// In queries, snapshots and restores it tells about the last entry that was applied.
pub struct Context<'a> {
    host: &'a Host,
}

/// Weight of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Level {
    /// Something is broken.
    Error = LOG_ERROR,
    /// Something looks wrong.
    Warn = LOG_WARN,
    /// Worth knowing in operation.
    Info = LOG_INFO,
    /// For the author of the module.
    Debug = LOG_DEBUG,
}

impl<'a> Context<'a> {
    pub(crate) fn new(host: &'a Host) -> Context<'a> {
        Context { host }
    }

    /// Index of the log entry. Never goes back from command to command, but goes on by more than
    /// one at times, and an entry may hold several commands: see [`ordinal`](Context::ordinal).
    pub fn index(&self) -> u64 {
        self.host.index()
    }

    /// Which of its entry's commands this one is, from 0 on. No other command has the same
    /// [`index`](Context::index) and ordinal. 0 in queries, snapshots and restores.
    pub fn ordinal(&self) -> u32 {
        self.host.ordinal()
    }

    /// The log's clock: milliseconds since the Unix epoch, never going back.
    pub fn time_ms(&self) -> u64 {
        self.host.time_ms()
    }

    /// The name of who gave the command, as the cluster knows him; the command itself has no say in it. `None`
    /// if nobody is known, as in a cluster without rights, and in all calls that are about no command.
    pub fn actor(&self) -> Option<String> {
        let mut name = [0; ACTOR_MAX_BYTES];
        let len = self.host.actor(&mut name);
        let name = name.get(..len).expect("the host knows no longer name");
        let name = core::str::from_utf8(name).expect("a name is ASCII");
        if name.is_empty() { None } else { Some(name.to_string()) }
    }

    /// Fills `bytes` with numbers that look random and are the same on every replica. Not
    /// for secrets: every replica knows them.
    pub fn random(&self, bytes: &mut [u8]) {
        self.host.random(bytes);
    }

    /// Eight bytes of [`random`](Context::random).
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Publishes an event. It counts only if the command is accepted, and only in `init` and
    /// `apply`.
    pub fn emit(&self, topic: impl AsRef<[u8]>, data: impl AsRef<[u8]>) {
        self.host.emit(topic.as_ref(), data.as_ref());
    }

    /// Writes a line to the log of the node. Changes no outcome.
    pub fn log(&self, level: Level, line: impl AsRef<str>) {
        self.host.log(level as i32, line.as_ref().as_bytes());
    }
}
