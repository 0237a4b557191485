//! Stands in a node's apply loop and writes down what it sees.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use raft_host::machine::{Applied, Machine, Reply, SessionNumber};
use raft_host::node::Witness;
use raft_host::types::{ConfState, Index, LogEntry, LogPosition, ModuleHash, SnapshotMeta};
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;
use sha2::{Digest as _, Sha256};

use super::observe::{Answered, AppliedEntry, Digest, Slot};
use super::shadow::{Comparison, Shadow, WouldBe};

/// What a node's apply loop did.
#[derive(Debug)]
pub(super) enum Seen {
    /// See [`super::observe::Fact::Applied`].
    Applied(Box<AppliedEntry>),
    /// See [`super::observe::Fact::Membership`].
    Membership(Slot, LogPosition, ConfState),
    /// See [`super::observe::Fact::Installed`].
    Installed(Slot, LogPosition, Digest, Option<(ModuleHash, Index)>),
    /// See [`super::observe::Fact::WouldBe`].
    WouldBe(Slot, WouldBe),
    /// See [`super::observe::Fact::Rewound`].
    Rewound(Slot, Index, Comparison),
}

/// What all witnesses of a run write into.
pub(super) type Notes = Arc<Mutex<Vec<Seen>>>;

/// The bytes of all commands that any node has seen wait in an ordered session: a node that was given
/// them in a snapshot has no entry to read them from.
pub(super) type Early = Arc<Mutex<BTreeMap<SessionNumber, bytes::Bytes>>>;

/// See the module.
pub(super) struct Recorder {
    slot: Slot,
    notes: Notes,
    early: Early,
    digest_every: u64,
    /// Where upgrades are undone.
    shadow: Option<Shadow>,
}

impl Recorder {
    /// A witness in the node of a slot.
    pub(super) fn new(
        slot: Slot,
        notes: Notes,
        early: Early,
        digest_every: u64,
        shadow: Option<Shadow>,
    ) -> Recorder {
        Recorder { slot, notes, early, digest_every, shadow }
    }

    /// Which command an answer is to: the next one that the entry holds, or one that had waited.
    fn command_of(
        &self,
        applied: &Applied,
        held: &mut impl Iterator<Item = Command>,
    ) -> Option<Command> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = applied.waited {
            let session = Some((number.session_id, number.sequence));
            return early.get(&number).map(|bytes| (session, bytes.clone()));
        }
        let command = held.next();
        if let (Reply::Waiting(number), Some((_, bytes))) = (&applied.reply, &command) {
            early.entry(*number).or_insert_with(|| bytes.clone());
        }
        command
    }

    fn note(&self, seen: Seen) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

impl Witness for Recorder {
    fn applied(&mut self, machine: &mut Machine, entry: &LogEntry, answers: &[Applied]) {
        let shadow = self.shadow.as_mut();
        let found = shadow.map(|shadow| shadow.applied(machine, entry, answers));
        let (rewound, would_be) = found.unwrap_or_default();
        let held = commands(&entry.data);
        let commands = held.len();
        let mut held = held.into_iter();
        let released = answers.iter().filter(|applied| applied.waited.is_some()).count();
        let mut answers =
            answers.iter().map(|applied| answered(self.command_of(applied, &mut held), applied));
        let Answered { command, reply, fuel_used, events } =
            answers.next().expect("every entry is answered");
        let is_point = matches!(reply, Reply::DigestTaken { .. });
        let due = is_point || entry.index.0.is_multiple_of(self.digest_every);
        let applied = AppliedEntry {
            slot: self.slot,
            position: LogPosition { index: entry.index, term: entry.term },
            data: entry.data.clone(),
            commands,
            released,
            command,
            reply,
            fuel_used,
            events,
            behind: answers.collect(),
            time_ms: machine.info().time_ms,
            module: machine.active_module().map(|(hash, _)| hash),
            digest: due.then(|| digest(machine)),
        };
        self.note(Seen::Applied(Box::new(applied)));
        if let Some(would_be) = would_be {
            self.note(Seen::WouldBe(self.slot, would_be));
        }
        if let Some(found) = rewound {
            self.note(Seen::Rewound(self.slot, entry.index, found));
        }
    }

    fn membership(&mut self, entry: &LogEntry, conf_state: &ConfState) {
        if let Some(shadow) = &mut self.shadow {
            shadow.membership(entry);
        }
        let position = LogPosition { index: entry.index, term: entry.term };
        self.note(Seen::Membership(self.slot, position, conf_state.clone()));
    }

    fn installed(&mut self, machine: &mut Machine, meta: &SnapshotMeta) {
        if let Some(shadow) = &mut self.shadow {
            shadow.installed();
        }
        let digest = digest(machine);
        let module = machine.active_module();
        self.note(Seen::Installed(self.slot, meta.position(), digest, module));
    }
}

/// Of everything that a machine holds: what its snapshot would hold.
///
/// # Panics
///
/// If the host cannot capture a guest, which the simulator does not provoke.
pub(super) fn digest(machine: &mut Machine) -> Digest {
    let image = machine.capture().expect("a guest can be captured");
    let mut hasher = Sha256::new();
    image.write_to(&mut hasher).expect("a hasher takes anything");
    let whole = hasher.finalize();
    *whole.first_chunk().expect("longer than that")
}

/// Session and sequence number of a command, and its bytes.
type Command = (Option<(u64, u64)>, bytes::Bytes);

/// The commands that an entry holds.
fn commands(data: &[u8]) -> Vec<Command> {
    let Ok(stored::Entry { body: Some(Body::Batch(batch)), .. }) = stored::Entry::decode(data)
    else {
        return Vec::new();
    };
    let command = |command: stored::Command| {
        let session = command.session.map(|session| (session.session_id, session.sequence));
        (session, command.data)
    };
    batch.commands.into_iter().map(command).collect()
}

fn answered(command: Option<Command>, applied: &Applied) -> Answered {
    Answered {
        command,
        reply: applied.reply.clone(),
        fuel_used: applied.fuel_used,
        events: applied.events.iter().fold(0, |hash, event| {
            let mut hasher = crc32fast::Hasher::new_with_initial(hash);
            hasher.update(&event.topic);
            hasher.update(&event.data);
            hasher.finalize()
        }),
    }
}
