//! What callers may ask to have written into the log, in the words of the project, and how it lies there.
//!
//! Above this nobody knows the records of `raft_host.storage.v1`. A command is encoded once, here, and its bytes
//! are not copied on the way: see `group::pack` for what becomes of them.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{encoded_len_varint, key_len, message};
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;

use crate::fsm::{EngineProfile, LimitChange};
use crate::machine::{
    AccessChange, Incumbent, KeyChange, Receipt, TakeOver, actor_to_log, change_to_log,
    limit_change_to_log, signature_to_log,
};
use crate::node::message::{Commands, Payload};
use crate::signing::ModuleSignature;
use crate::types::{Actor, Index, ModuleHash};

/// An application command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The guest's bytes.
    pub data: Bytes,
    /// `None`: at-least-once, if the caller tries again.
    pub session: Option<SessionPosition>,
}

/// The position of a command in its session (Raft dissertation §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPosition {
    /// The session.
    pub session_id: u64,
    /// 1, 2, 3, …; a retry repeats it, with the same command.
    pub sequence: u64,
    /// The caller has the answers of all numbers up to and including this one.
    pub acknowledged: u64,
    /// In an ordered session: the number is taken, and nothing executed.
    pub skip: bool,
}

/// A part of the bytes of a module, or of a portable state for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleChunk {
    /// Of all of them.
    pub module: ModuleHash,
    /// Its size.
    pub total_bytes: u64,
    /// Where the part begins.
    pub offset: u64,
    /// The part.
    pub data: Bytes,
    /// Of a portable state.
    pub is_state: bool,
}

/// Makes a complete module the active one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivateModule {
    /// The module.
    pub module: ModuleHash,
    /// Its name, for people.
    pub label: String,
    /// What it is to replace; `None`: no module.
    pub replaces: Option<Incumbent>,
    /// How it gets its state.
    pub take_over: TakeOver,
    /// The receipt of the rehearsal that it relies on.
    pub receipt: Option<Index>,
    /// Of publishers.
    pub signatures: Vec<ModuleSignature>,
}

/// See the module. What the leader proposes of its own accord is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Runs a command.
    Command(Command),
    /// Opens a session.
    OpenSession {
        /// How long it lives without being used, in milliseconds of the log's clock; 0: the
        /// cluster's default.
        ttl_ms: u64,
        /// Its commands are executed in the order of their numbers.
        ordered: bool,
    },
    /// Uses a session without a command.
    KeepSession {
        /// The session.
        session_id: u64,
        /// As in [`SessionPosition`].
        acknowledged: u64,
    },
    /// Ends a session.
    CloseSession {
        /// The session.
        session_id: u64,
    },
    /// Stores a part of a module.
    ModuleChunk(ModuleChunk),
    /// Makes a module the active one.
    ActivateModule(ActivateModule),
    /// Keeps the state for a module that is to take over from there.
    ForkState {
        /// The module.
        module: ModuleHash,
        /// What is active; `None`: no module.
        replaces: Option<Incumbent>,
    },
    /// Keeps what came of a rehearsal; its index is that of the entry.
    RecordReceipt(Box<Receipt>),
    /// Drops what is kept for a way back from an activation.
    SettleUpgrade {
        /// Index of the activation.
        activated_at: Index,
    },
    /// Changes budgets of the guest, all or none.
    SetLimits(Vec<LimitChange>),
    /// Changes whose signatures modules need, all or none.
    SetKeys(Vec<KeyChange>),
    /// Changes what must run the guest.
    SetEngine(EngineProfile),
    /// Puts the log's clock forward.
    SetClock {
        /// In milliseconds since the Unix epoch.
        time_ms: u64,
    },
    /// Changes who may do what, all or none.
    SetAccess(Vec<AccessChange>),
}

impl From<Command> for Request {
    fn from(command: Command) -> Request {
        Request::Command(command)
    }
}

impl Command {
    pub(super) fn into_log(self, actor: Actor) -> stored::Command {
        let session = self.session.map(|position| {
            let SessionPosition { session_id, sequence, acknowledged, skip } = position;
            stored::SessionCommand { session_id, sequence, acknowledged, skip }
        });
        stored::Command { data: self.data, session, actor: actor_to_log(actor) }
    }
}

/// A request as the log holds it, before it is encoded: so that its size is known first.
pub(super) enum Draft {
    Command(stored::Command),
    Batch(Vec<stored::Command>),
    Entry(Body, Option<stored::Actor>),
}

impl Draft {
    /// What somebody asks for.
    pub(super) fn new(request: Request, actor: Actor) -> Draft {
        let hash = |module: ModuleHash| Bytes::copy_from_slice(&module.0);
        let body = match request {
            Request::Command(command) => return Draft::Command(command.into_log(actor)),
            Request::OpenSession { ttl_ms, ordered } => {
                Body::OpenSession(stored::OpenSession { ttl_ms, ordered })
            }
            Request::KeepSession { session_id, acknowledged } => {
                Body::KeepSession(stored::KeepSession { session_id, acknowledged })
            }
            Request::CloseSession { session_id } => {
                Body::CloseSession(stored::CloseSession { session_id })
            }
            Request::ModuleChunk(chunk) => {
                let ModuleChunk { module, total_bytes, offset, data, is_state } = chunk;
                Body::ModuleChunk(stored::ModuleChunk {
                    module_hash: hash(module),
                    total_bytes,
                    offset,
                    data,
                    portable_state: is_state,
                })
            }
            Request::ActivateModule(activate) => {
                let ActivateModule { module, label, replaces, take_over, receipt, signatures } =
                    activate;
                Body::ActivateModule(take_over.put(stored::ActivateModule {
                    module_hash: hash(module),
                    label,
                    replaces: replaces.map(Incumbent::to_log),
                    signatures: signatures.iter().map(signature_to_log).collect(),
                    receipt: receipt.map_or(0, |index| index.0),
                    ..Default::default()
                }))
            }
            Request::ForkState { module, replaces } => Body::ForkState(stored::ForkState {
                module_hash: hash(module),
                replaces: replaces.map(Incumbent::to_log),
            }),
            Request::RecordReceipt(receipt) => Body::RecordReceipt(receipt.to_log()),
            Request::SettleUpgrade { activated_at } => {
                Body::SettleUpgrade(stored::SettleUpgrade { activated_at: activated_at.0 })
            }
            Request::SetLimits(changes) => {
                let changes = changes.into_iter().map(limit_change_to_log).collect();
                Body::SetLimits(stored::SetLimits { changes })
            }
            Request::SetKeys(changes) => {
                let changes = changes.into_iter().map(KeyChange::to_log).collect();
                Body::SetKeys(stored::SetKeys { changes })
            }
            Request::SetEngine(profile) => {
                Body::SetEngine(stored::SetEngine { profile: profile.as_str().to_owned() })
            }
            Request::SetClock { time_ms } => Body::SetClock(stored::SetClock { time_ms }),
            Request::SetAccess(changes) => {
                let changes = changes.iter().map(change_to_log).collect();
                Body::SetAccess(stored::SetAccess { changes })
            }
        };
        Draft::Entry(body, actor_to_log(actor))
    }

    /// Whether it is refused when there is little space left: what it needs in the log and in snapshots
    /// is the caller's to choose. What keeps sessions alive, ends them, or sets something is small.
    pub(super) fn takes_space(&self) -> bool {
        match self {
            Draft::Command(_) | Draft::Batch(_) => true,
            Draft::Entry(body, _) => matches!(
                body,
                Body::OpenSession(_)
                    | Body::ModuleChunk(_)
                    | Body::ActivateModule(_)
                    | Body::ForkState(_)
            ),
        }
    }

    /// Length of the entry that holds this and nothing else, with this stamp.
    pub(super) fn entry_bytes(&self, time_ms: u64) -> u64 {
        let clock = if time_ms == 0 { 0 } else { key_len(1) + encoded_len_varint(time_ms) };
        let body = match self {
            Draft::Entry(body, actor) => {
                // Field 13 of `raft_host.storage.v1.Entry`.
                let actor = actor.as_ref().map_or(0, |actor| message::encoded_len(13, actor));
                body.encoded_len() + actor
            }
            Draft::Command(_) | Draft::Batch(_) => {
                let commands = commands_bytes(self.commands());
                // Field 2 of `raft_host.storage.v1.Entry`.
                key_len(2) + encoded_len_varint(commands as u64) + commands
            }
        };
        (clock + body) as u64
    }

    pub(super) fn encode(self, time_ms: u64) -> Payload {
        if let Draft::Entry(body, actor) = self {
            let is_fence = matches!(body, Body::SetAccess(_));
            let entry = stored::Entry { time_ms, actor, body: Some(body) };
            return Payload::Entry { data: entry.encode_to_vec().into(), is_fence };
        }
        let commands = self.commands();
        let mut encoded = BytesMut::with_capacity(commands_bytes(commands));
        commands.iter().for_each(|command| message::encode(1, command, &mut encoded));
        Payload::Commands(Commands { encoded: encoded.freeze(), count: commands.len() as u64 })
    }

    fn commands(&self) -> &[stored::Command] {
        match self {
            Draft::Command(command) => std::slice::from_ref(command),
            Draft::Batch(commands) => commands,
            Draft::Entry(..) => &[],
        }
    }
}

/// Encoded as field 1 of `raft_host.storage.v1.Batch`, one behind the other.
fn commands_bytes(commands: &[stored::Command]) -> usize {
    commands.iter().map(|command| message::encoded_len(1, command)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PrincipalId, TokenId};

    const SOMEBODY: Actor = Actor::Principal { id: PrincipalId(300), token: Some(TokenId(7)) };

    fn commands() -> [Command; 3] {
        let session =
            SessionPosition { session_id: 7, sequence: 300, acknowledged: 299, skip: true };
        [
            Command { data: vec![b'x'; 300].into(), session: None },
            Command { data: Bytes::from_static(b"a"), session: Some(session) },
            Command::default(),
        ]
    }

    fn stored(command: Command) -> stored::Command {
        command.into_log(SOMEBODY)
    }

    #[test]
    fn commands_are_encoded_as_the_batch_that_holds_them() {
        let check = |draft: Draft, commands: Vec<stored::Command>| {
            let (count, batch) = (commands.len() as u64, stored::Batch { commands });
            for time_ms in [0, 1, u64::MAX] {
                let body = Some(Body::Batch(batch.clone()));
                let whole = stored::Entry { time_ms, actor: None, body }.encoded_len();
                assert_eq!(draft.entry_bytes(time_ms), whole as u64);
            }
            let Payload::Commands(payload) = draft.encode(1) else { panic!("these are commands") };
            assert_eq!((payload.encoded, payload.count), (batch.encode_to_vec().into(), count));
        };
        for command in commands() {
            check(Draft::new(command.clone().into(), SOMEBODY), vec![stored(command)]);
        }
        let all = commands().map(stored).to_vec();
        check(Draft::Batch(all.clone()), all);
    }

    #[test]
    fn every_other_request_is_an_entry_of_its_own() {
        let module = ModuleHash([3; 32]);
        let replaces = Some(Incumbent { hash: module, activated_at: crate::types::Index(9) });
        let requests = [
            Request::OpenSession { ttl_ms: 5, ordered: true },
            Request::KeepSession { session_id: 5, acknowledged: 4 },
            Request::CloseSession { session_id: 5 },
            Request::ModuleChunk(ModuleChunk {
                module,
                total_bytes: 9,
                offset: 1,
                data: Bytes::from_static(b"part"),
                is_state: true,
            }),
            Request::ActivateModule(ActivateModule {
                module,
                label: "kv".to_owned(),
                replaces,
                take_over: TakeOver::Nothing,
                receipt: Some(Index(7)),
                signatures: Vec::new(),
            }),
            Request::ForkState { module, replaces },
            Request::SettleUpgrade { activated_at: Index(9) },
            Request::SetKeys(vec![KeyChange::Threshold(7)]),
            Request::SetLimits(vec![LimitChange::EventsMax(7)]),
            Request::SetClock { time_ms: 8 },
            Request::SetAccess(vec![AccessChange::InForce(true)]),
        ];
        for request in requests {
            let draft = Draft::new(request, SOMEBODY);
            let bytes = draft.entry_bytes(77);
            let Payload::Entry { data, is_fence } = draft.encode(77) else {
                panic!("these are no commands")
            };
            assert_eq!(data.len() as u64, bytes);
            let entry = stored::Entry::decode(data).expect("an entry");
            assert_eq!((entry.time_ms, entry.actor), (77, actor_to_log(SOMEBODY)));
            let body = entry.body.expect("it holds something");
            assert_eq!(is_fence, matches!(body, Body::SetAccess(_)));
            match body {
                Body::ActivateModule(activate) => {
                    let incumbent = activate.replaces.as_ref().expect("it names one");
                    assert_eq!(Incumbent::from_log(incumbent).ok(), replaces);
                    assert!(activate.discard_state && activate.label == "kv");
                    assert_eq!(activate.receipt, 7);
                }
                Body::KeepSession(kept) => assert_eq!((kept.session_id, kept.acknowledged), (5, 4)),
                _ => {}
            }
        }
    }
}
