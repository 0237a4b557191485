//! The commands of an entry, executed one after the other.
//!
//! ```text
//!   entry 7 = time, [a, b, c]      a at 7.0 ─► outcome     ok
//!                                  b at 7.1 ─► outcome     trapped: the state is the one after a
//!                                  c at 7.2 ─► outcome     executed on that
//! ```
//!
//! Each command is on its own: it has a position, an outcome, fuel and events, a place in its session,
//! and what becomes of it changes nothing for the others. All of them see the entry's clock. Nobody
//! sees a state between two of them: queries, snapshots and digests are as of an index.
//!
//! Commands that come before their turn in an ordered session wait there. What an entry lets run of
//! them runs behind the entry's own commands, and its ordinals go on counting:
//!
//! ```text
//!   entry 8 = time, [2 of s, x, 1 of s, y]    8.0 waits · 8.1 x · 8.2 1 of s · 8.3 y · 8.4 2 of s
//! ```
//!
//! A batch is read as a whole before anything of it is executed. One without commands, or with more than
//! [`BATCH_COMMANDS_MAX`], is malformed, and changes nothing.

use bytes::{Buf, Bytes};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;

use super::access;
use super::core::{Machine, outcome_of, refused, unknown_kind};
use super::kept::Executed;
use super::reply::{Applied, CommandRefused, Reply, SessionNumber};
use super::rights::{Asked, Judged};
use super::sessions::{Begin, CommandHash, Sessions, Waiting, hash_of};
use crate::fsm::{Call, HostFailure};
use crate::museum::{self, Exhibit};
use crate::types::{Actor, Index, Outcome, Position};

/// Most commands of one entry: replicas must agree on it, so it never changes. What a command costs in
/// memory while its entry is executed is some hundred bytes, whatever little it has on the wire.
pub const BATCH_COMMANDS_MAX: usize = 65_536;

/// Bytes that a command takes in an entry, at least: its tag and its length.
const COMMAND_MIN_BYTES: usize = 2;

/// Most waiting commands that one entry lets run; the rest run when their sessions are used next.
/// Replicas must agree on it.
const RELEASED_MAX: usize = BATCH_COMMANDS_MAX;

/// What an entry holds.
pub(super) enum Read {
    /// The no-op of a new leader.
    Nothing,
    /// No entry, and why.
    Malformed(String),
    /// At least one command, and no more than [`BATCH_COMMANDS_MAX`].
    Batch { time_ms: u64, commands: Vec<stored::Command> },
    /// Anything but commands.
    Other { time_ms: u64, actor: Actor, body: Box<Body> },
}

/// Reads the entry at `index`.
///
/// # Errors
///
/// It holds what this version does not know.
pub(super) fn read(index: Index, data: &Bytes) -> Result<Read, HostFailure> {
    if data.is_empty() {
        return Ok(Read::Nothing);
    }
    if has_too_many_commands(data) {
        return Ok(Read::Malformed(format!(
            "it holds more than the {BATCH_COMMANDS_MAX} commands that an entry may hold"
        )));
    }
    // From `Bytes`, of which the commands become parts: nothing is copied.
    let Ok(entry) = stored::Entry::decode(data.clone()) else {
        return Ok(Read::Malformed(
            "its bytes are not an encoded raft_host.storage.v1.Entry".to_owned(),
        ));
    };
    // A field that this version passes over is one that others take for what it is.
    if entry.encoded_len() != data.len() && !museum::is_on(Exhibit::UnknownFieldIgnored) {
        return Err(unknown_kind(index));
    }
    let time_ms = entry.time_ms;
    let actor = match access::actor_from_log(entry.actor.as_ref()) {
        Ok(actor) => actor,
        Err(reason) => return Ok(Read::Malformed(reason)),
    };
    // An entry's kind that this version does not know decodes as no kind at all.
    match entry.body.ok_or_else(|| unknown_kind(index))? {
        Body::Batch(batch) if batch.commands.is_empty() => {
            Ok(Read::Malformed("it is a batch without commands".to_owned()))
        }
        Body::Batch(_) if entry.actor.is_some() => {
            Ok(Read::Malformed("each command of a batch says for itself who acts".to_owned()))
        }
        Body::Batch(batch) => Ok(Read::Batch { time_ms, commands: batch.commands }),
        body => Ok(Read::Other { time_ms, actor, body: Box::new(body) }),
    }
}

/// Asked before anything is decoded, because two bytes of an entry become a hundred in memory.
fn has_too_many_commands(data: &[u8]) -> bool {
    data.len() > BATCH_COMMANDS_MAX * COMMAND_MIN_BYTES && commands(data) > BATCH_COMMANDS_MAX
}

/// How many commands an encoded entry holds, as far as it can be read.
fn commands(mut data: &[u8]) -> usize {
    let mut found = 0;
    // Field 2 of an entry is its batch, field 1 of that a command.
    while let Some(batch) = next_of(&mut data, 2) {
        let mut batch = batch;
        while next_of(&mut batch, 1).is_some() {
            found += 1;
        }
    }
    found
}

/// The content of the next field of this number that has a length; `data` goes on behind it.
fn next_of<'a>(data: &mut &'a [u8], number: u32) -> Option<&'a [u8]> {
    while data.has_remaining() {
        let (tag, wire_type) = decode_key(data).ok()?;
        if tag == number && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(data).ok()?).ok()?;
            let (content, rest) = data.split_at_checked(length)?;
            *data = rest;
            return Some(content);
        }
        skip_field(wire_type, tag, data, DecodeContext::default()).ok()?;
    }
    None
}

impl Machine {
    /// Executes the commands of the entry at `index`; answers the position after them.
    pub(super) fn apply_batch(
        &mut self,
        index: Index,
        commands: &[stored::Command],
        count_pages: bool,
        on_answer: &mut dyn FnMut(Position, Applied),
    ) -> Result<Position, HostFailure> {
        let before = museum::is_on(Exhibit::BatchRetriedTwice).then(|| self.state.sessions.clone());
        let mut position = Position::first(index);
        for command in commands {
            if count_pages && let Some(fsm) = &mut self.fsm {
                fsm.count_pages();
            }
            let applied = self.apply_command(position, command, before.as_ref())?;
            self.state.past.advance(position, &applied);
            on_answer(position, applied);
            position.ordinal += 1;
        }
        Ok(position)
    }

    /// Executes commands that waited in ordered sessions and are due, from `position` on; no more than `most`.
    pub(super) fn release(
        &mut self,
        mut position: Position,
        most: usize,
        count_pages: bool,
        on_answer: &mut dyn FnMut(Position, Applied),
    ) -> Result<(), HostFailure> {
        for _ in 0..RELEASED_MAX.min(most) {
            let Some((number, waiting)) = self.state.sessions.next_due() else { break };
            if count_pages && let Some(fsm) = &mut self.fsm {
                fsm.count_pages();
            }
            let (bytes, max) = (waiting.data.len() as u64, self.state.limits.input_max_bytes);
            let applied = match bytes > max {
                // More was allowed when it came.
                true => refused(CommandRefused::TooLarge { bytes, max }),
                false => self.release_one(position, number, &waiting)?,
            };
            let applied = Applied { waited: Some(number), ..applied };
            self.state.past.advance(position, &applied);
            on_answer(position, applied);
            position.ordinal += 1;
        }
        self.state.sessions.end_entry();
        Ok(())
    }

    /// Executes a command that waited, if whoever gave it may still do that. If not, its number is not
    /// taken: as that of every command that cannot run, it is for the session's client to skip.
    fn release_one(
        &mut self,
        position: Position,
        number: SessionNumber,
        waiting: &Waiting,
    ) -> Result<Applied, HostFailure> {
        let is_skip = waiting.is_skip();
        let asked = Asked {
            actor: waiting.actor,
            session: Some(number.session_id),
            command: (!is_skip).then_some(&waiting.data[..]),
        };
        let Judged { denied, fuel_used } = self.judge(position, asked)?;
        let applied = match denied {
            Some(denied) => refused(CommandRefused::Denied(Box::new(denied))),
            None => {
                let session = Some((number, waiting.command));
                let unkept = match museum::is_on(Exhibit::WaitedNotKept) {
                    true => self.state.kept.take(),
                    false => None,
                };
                let applied =
                    self.execute(position, waiting.actor, &waiting.data, session, is_skip)?;
                if unkept.is_some() {
                    self.state.kept = unkept;
                }
                applied
            }
        };
        Ok(applied.with_fuel(fuel_used))
    }

    fn apply_command(
        &mut self,
        position: Position,
        command: &stored::Command,
        before: Option<&Sessions>,
    ) -> Result<Applied, HostFailure> {
        let bytes = command.data.len() as u64;
        let max = self.state.limits.input_max_bytes;
        let hash = command.session.as_ref().map(|_| hash_of(command));
        let session = command.session.as_ref().zip(hash);
        let is_skip = command.session.as_ref().is_some_and(|session| session.skip);
        if is_skip && bytes > 0 {
            let reason = "a number is skipped without a command, and this has one".to_owned();
            return Ok(refused(CommandRefused::Malformed(reason)));
        }
        let actor = match access::actor_from_log(command.actor.as_ref()) {
            Ok(actor) => actor,
            Err(reason) => return Ok(refused(CommandRefused::Malformed(reason))),
        };
        let asked = Asked {
            actor,
            session: command.session.as_ref().map(|session| session.session_id),
            command: (bytes <= max && !is_skip).then_some(&command.data[..]),
        };
        let Judged { denied, fuel_used } = self.judge(position, asked)?;
        let applied = match denied {
            Some(denied) => self.deny(denied, actor, session),
            None => self.apply_allowed(position, actor, command, session, before)?,
        };
        Ok(applied.with_fuel(fuel_used))
    }

    /// Runs a command, or answers it from its session.
    fn apply_allowed(
        &mut self,
        position: Position,
        actor: Actor,
        command: &stored::Command,
        session: Option<(&stored::SessionCommand, CommandHash)>,
        before: Option<&Sessions>,
    ) -> Result<Applied, HostFailure> {
        let (bytes, max) = (command.data.len() as u64, self.state.limits.input_max_bytes);
        let time_ms = self.state.time_ms;
        let is_skip = session.is_some_and(|(session, _)| session.skip);
        let sessions = &mut self.state.sessions;
        let begin = match session {
            None => Begin::Run,
            // An earlier attempt may have been run when more was allowed.
            Some((session, hash)) if bytes > max => sessions.look_up(session, hash),
            Some((session, hash))
                if before.is_some_and(|it| it.look_up(session, hash) == Begin::Run) =>
            {
                Begin::Run
            }
            Some((session, hash)) => sessions.begin(session, hash, position.index, time_ms),
        };
        match begin {
            Begin::Run | Begin::Wait { is_new: true } if bytes > max => {
                return Ok(refused(CommandRefused::TooLarge { bytes, max }));
            }
            Begin::Run => {}
            // Not kept: when a module is there, a retry shall come in its turn.
            Begin::Wait { .. } if self.fsm.is_none() => {
                return Ok(Applied::without_guest(Reply::NoModule));
            }
            Begin::Wait { is_new } => {
                let (session, hash) = session.expect("only a session has an order");
                let stored::SessionCommand { session_id, sequence, .. } = *session;
                if is_new {
                    let waiting = Waiting::new(&command.data, hash, actor);
                    self.state.sessions.wait(session_id, sequence, waiting);
                }
                let number = SessionNumber { session_id, sequence };
                return Ok(Applied::without_guest(Reply::Waiting(number)));
            }
            Begin::Refused(reason) => return Ok(refused(reason)),
            Begin::Duplicate(original) => {
                let outcome = Outcome::Duplicate(Box::new(original));
                return Ok(Applied::without_guest(Reply::Command(outcome)));
            }
        }
        let number = session.map(|(session, hash)| {
            let stored::SessionCommand { session_id, sequence, .. } = *session;
            (SessionNumber { session_id, sequence }, hash)
        });
        let applied = self.execute(position, actor, &command.data, number, is_skip)?;
        if let Some((SessionNumber { session_id, .. }, _)) = number {
            self.state.sessions.note_due(session_id);
        }
        Ok(applied)
    }

    /// Executes a command whose turn it is.
    fn execute(
        &mut self,
        position: Position,
        actor: Actor,
        data: &Bytes,
        session: Option<(SessionNumber, CommandHash)>,
        is_skip: bool,
    ) -> Result<Applied, HostFailure> {
        let context = self.context_of(position, actor);
        // Not remembered in the session: when a module is there, a retry shall run.
        let Some(fsm) = &mut self.fsm else {
            return Ok(Applied::without_guest(Reply::NoModule));
        };
        let call = match is_skip {
            true => Call::nothing(),
            false => fsm.apply(context, data)?,
        };
        let (outcome, trap_message) = outcome_of(call.result);
        if !is_skip {
            let executed = || Executed {
                position,
                time_ms: context.time_ms,
                actor: context.actor,
                data: data.clone(),
                outcome: outcome.clone(),
            };
            self.executed(executed, &call.events, call.fuel_used);
        }
        if let Some((SessionNumber { session_id, sequence }, hash)) = session
            && !museum::is_on(Exhibit::OutcomeNotRemembered)
        {
            self.state.sessions.complete(session_id, sequence, hash, &outcome);
        }
        let fuel_used = match museum::is_on(Exhibit::FuelOfHost) {
            true => call.fuel_used + museum::host_time_ms() % 2,
            false => call.fuel_used,
        };
        Ok(Applied {
            reply: Reply::Command(outcome),
            fuel_used,
            events: call.events,
            trap_message,
            pages_dirtied: call.pages_dirtied,
            waited: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(commands: usize) -> Bytes {
        let body = Body::Batch(stored::Batch { commands: vec![<_>::default(); commands] });
        stored::Entry { time_ms: 7, actor: None, body: Some(body) }.encode_to_vec().into()
    }

    #[test]
    fn an_entry_holds_as_many_commands_as_it_may_and_not_one_more() {
        for held in [1, 2, BATCH_COMMANDS_MAX] {
            let Ok(Read::Batch { time_ms: 7, commands }) = read(Index(1), &entry(held)) else {
                panic!("{held} commands are a batch");
            };
            assert_eq!(commands.len(), held);
        }
        for held in [0, BATCH_COMMANDS_MAX + 1] {
            assert!(matches!(read(Index(1), &entry(held)), Ok(Read::Malformed(_))), "{held}");
        }
    }

    #[test]
    fn commands_are_counted_however_the_bytes_that_hold_them_are_split() {
        let half = entry(BATCH_COMMANDS_MAX / 2 + 1);
        assert_eq!(commands(&half), BATCH_COMMANDS_MAX / 2 + 1);
        // A decoder joins what comes twice.
        let twice = [half.clone(), half].concat();
        assert!(has_too_many_commands(&twice));
        // A long command that happens to read like a batch.
        let data = b"\x12\x02\x0a\x00".repeat(BATCH_COMMANDS_MAX).into();
        let body = stored::Command { data, session: None, actor: None }.into();
        let long = stored::Entry { time_ms: 7, actor: None, body: Some(body) }.encode_to_vec();
        assert_eq!(commands(&long), 1);
        assert!(!has_too_many_commands(&long));
    }
}
