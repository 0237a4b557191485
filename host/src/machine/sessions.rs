//! Exactly-once commands (Raft dissertation §6.3) for clients that pipeline.
//!
//! The dissertation keeps the last response of a client. Ours sends many commands at once, and
//! after a change of leader some of them arrive again, in any order, between ones that never
//! arrived. So a session keeps every response above the number that the client acknowledged:
//!
//! ```text
//!   sequence   1  2  3  4  5  6  7  8
//!              └─ acknowledged ─┘        at or below: refused as too old, response forgotten
//!                       5     7          completed: a retry is answered from here
//!                          6     8       not seen: runs
//! ```
//!
//! Everything is bounded, and what a bound does is the same on every replica. Nothing that a
//! client has not acknowledged is ever forgotten to make room: whoever comes too much is refused,
//! surely without effect, and may come again.
//!
//! * A session that keeps as many responses as it may, or as many bytes, runs no new command but
//!   the one right after `acknowledged`: the client needs that answer to acknowledge anything.
//! * The same when all sessions together keep too much. The last quarter of that room is for
//!   commands right after `acknowledged`, so that many busy sessions do not block each other.
//! * With as many sessions as there may be, no further one is opened.
//! * A session that was neither used nor kept alive for its `ttl_ms` of the log's clock is gone.
//!
//! An *ordered* session executes its commands in the order of their numbers:
//!
//! ```text
//!   sequence   1  2  3  4  5  6  7  8
//!              └─ acknowledged ─┘        as above
//!                       5  6             completed: no gaps, so the last one is the last executed
//!                             7          runs, when it comes
//!                                8       waits: its bytes are kept, and it runs behind 7
//! ```
//!
//! * What waits counts as responses do. With no room left it is refused; the number that all wait
//!   for is not, unless responses alone take the room, of which the client has the oldest.
//! * When the gap closes, what waited runs behind the commands of that entry, as far as there is room
//!   for the answers; the rest when the session is used next, which acknowledges some.
//! * Nothing that waits when the session ends was executed.
//! * A number whose command cannot run can be skipped. To acknowledge what was not executed is a
//!   mistake.
//!
//! A response remembers which command it answers: a sequence number that comes again with another
//! command is refused instead of answered.
//!
//! No operation scans the sessions: expiry has an ordered index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use raft_host_proto::stored;
use sha2::{Digest as _, Sha256};

use super::convert;
use super::reply::{CommandRefused, SessionNumber};
use crate::museum::{self, Exhibit};
use crate::types::{Actor, Exceeded, Index, Outcome, PrincipalId};

/// What a kept response costs besides its bytes.
pub(super) const RESPONSE_OVERHEAD_BYTES: u64 = 64;

/// Bounds of the session table: replicated state, because they decide outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionLimits {
    pub(super) sessions_max: u64,
    pub(super) ttl_default_ms: u64,
    pub(super) ttl_min_ms: u64,
    pub(super) ttl_max_ms: u64,
    /// A session that keeps so many responses runs only the command right after `acknowledged`.
    pub(super) responses_max: u64,
    /// The same for their bytes. The response that reaches the bound may be longer than what was
    /// left of it.
    pub(super) responses_max_bytes: u64,
    /// Bytes of responses that all sessions keep together; likewise.
    pub(super) total_max_bytes: u64,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions_max: 10_000,
            ttl_default_ms: 10 * 60 * 1000,
            ttl_min_ms: 1000,
            ttl_max_ms: 24 * 60 * 60 * 1000,
            responses_max: 4096,
            responses_max_bytes: 16 << 20,
            total_max_bytes: 256 << 20,
        }
    }
}

impl SessionLimits {
    /// Bytes of all sessions beyond which only commands right after `acknowledged` run.
    fn ordinary_max_bytes(&self) -> u64 {
        self.total_max_bytes - self.total_max_bytes / 4
    }

    /// The bound that a session with so many responses is at.
    fn reached_by(&self, responses: u64, bytes: u64) -> Exceeded {
        match bytes >= self.responses_max_bytes.max(1) {
            true => Exceeded {
                limit: "responses_max_bytes",
                value: bytes,
                max: self.responses_max_bytes,
            },
            false => {
                let (value, max) = (responses + 1, self.responses_max);
                Exceeded { limit: "responses_max", value, max }
            }
        }
    }
}

/// Tells commands apart that come under one sequence number: the first half of a SHA-256.
pub(super) type CommandHash = [u8; 16];

/// See [`CommandHash`].
pub(super) fn hash_of(command: &stored::Command) -> CommandHash {
    match &command.session {
        Some(session) if session.skip => SKIPPED,
        _ => command_hash(&command.data),
    }
}

fn command_hash(data: &[u8]) -> CommandHash {
    let digest: [u8; 32] = Sha256::digest(data).into();
    let (half, _) = digest.split_first_chunk().expect("32 bytes have a first half");
    *half
}

/// Stands for the hash of a command where a number was skipped.
const SKIPPED: CommandHash = [0; 16];

/// A digest that is computed when it is first asked for.
pub(super) type Cached = OnceLock<[u8; 32]>;

/// What a command was answered.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) outcome: stored::Outcome,
    /// Of the command.
    pub(super) command: CommandHash,
    pub(super) digest: Cached,
}

/// A command whose turn has not come.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Its own copy: it may wait for long, and the entry that it came in is larger.
    pub(super) data: Bytes,
    /// Of `data`, unless the number is skipped.
    pub(super) command: CommandHash,
    /// Who gave it: whether that may be is asked again when it runs.
    pub(super) actor: Actor,
}

impl Waiting {
    pub(super) fn new(data: &[u8], command: CommandHash, actor: Actor) -> Waiting {
        Waiting { data: Bytes::copy_from_slice(data), command, actor }
    }

    /// Whether nothing is to be executed.
    pub(super) fn is_skip(&self) -> bool {
        self.command == SKIPPED
    }

    fn cost_bytes(&self) -> u64 {
        self.data.len() as u64 + RESPONSE_OVERHEAD_BYTES
    }
}

/// One client's session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) ttl_ms: u64,
    /// Gone when the log's clock reaches this.
    pub(super) expires_at_ms: u64,
    /// Index of the last entry that used it.
    pub(super) last_used: Index,
    pub(super) acknowledged: u64,
    /// All keys are above `acknowledged`.
    pub(super) completed: BTreeMap<u64, Response>,
    /// Commands are executed in the order of their numbers. Then the keys of `completed` are without
    /// gaps, from `acknowledged + 1` on.
    pub(super) ordered: bool,
    /// All keys are above those of `completed`. Empty unless `ordered`.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// Who opened it, or was the first to use it while rights were in force.
    pub(super) owner: Option<Owner>,
    /// Sum of the costs of `completed`.
    bytes: u64,
    /// Sum of the costs of `waiting`.
    waiting_bytes: u64,
    /// Of all above; empty since the last change.
    pub(super) digest: Cached,
}

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Principal(PrincipalId),
    /// Somebody at the Unix socket of a node.
    Local,
}

impl Owner {
    pub(super) fn of(actor: Actor) -> Option<Owner> {
        match actor {
            Actor::Nobody => None,
            Actor::Local(_) => Some(Owner::Local),
            Actor::Principal { id, .. } => Some(Owner::Principal(id)),
        }
    }

    pub(super) fn to_record(self) -> u64 {
        match self {
            Owner::Principal(id) => id.0,
            Owner::Local => u64::MAX,
        }
    }

    pub(super) fn from_record(owner: u64) -> Option<Owner> {
        match owner {
            0 => None,
            u64::MAX => Some(Owner::Local),
            id => Some(Owner::Principal(PrincipalId(id))),
        }
    }
}

/// What to do with a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Run,
    /// It waits for its turn: it is among those that wait, or is to be put there by `wait`.
    Wait {
        is_new: bool,
    },
    Duplicate(Outcome),
    Refused(CommandRefused),
}

/// All sessions. A clone shares the sessions' contents until they change.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    limits: SessionLimits,
    by_id: BTreeMap<u64, Arc<Session>>,
    /// (`expires_at_ms`, id) of every session.
    by_expiry: BTreeSet<(u64, u64)>,
    /// Sum of `bytes` and `waiting_bytes` of every session.
    bytes: u64,
    /// Sessions that ended since the start of this process: no part of the state.
    ended: u64,
    /// Those of them whose time was over.
    expired: u64,
    /// Sessions in which the next command may be among those that wait, in the order in which that
    /// came to be. Empty between two entries.
    due: VecDeque<u64>,
}

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Sessions {
        Sessions {
            limits,
            by_id: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            bytes: 0,
            ended: 0,
            expired: 0,
            due: VecDeque::new(),
        }
    }

    pub(super) fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired
    }

    pub(super) fn len(&self) -> u64 {
        self.by_id.len() as u64
    }

    /// Ascending by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, session.as_ref()))
    }

    /// Forgets what is over at `now_ms`.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((expires_at_ms, id)) = self.by_expiry.first().copied() {
            if expires_at_ms > now_ms {
                break;
            }
            self.remove(id);
            self.expired += 1;
        }
    }

    /// Bytes of responses and waiting commands that all sessions keep.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens the session of the entry at `index`.
    ///
    /// # Errors
    ///
    /// There are as many as there may be.
    pub(super) fn open(
        &mut self,
        index: Index,
        now_ms: u64,
        request: &stored::OpenSession,
        owner: Option<Owner>,
    ) -> Result<Opened, CommandRefused> {
        let ttl_ms = match request.ttl_ms {
            0 => self.limits.ttl_default_ms,
            wanted => wanted.clamp(self.limits.ttl_min_ms, self.limits.ttl_max_ms),
        };
        let max = self.limits.sessions_max.max(1);
        if self.len() >= max {
            return Err(CommandRefused::TooManySessions { max });
        }
        let session = Session {
            ttl_ms,
            expires_at_ms: now_ms.saturating_add(ttl_ms),
            last_used: index,
            acknowledged: 0,
            completed: BTreeMap::new(),
            ordered: request.ordered,
            waiting: BTreeMap::new(),
            owner,
            bytes: 0,
            waiting_bytes: 0,
            digest: Cached::new(),
        };
        let fresh = self.insert(index.0, session);
        assert!(fresh, "session {index} opened twice");
        let SessionLimits { responses_max, responses_max_bytes, .. } = self.limits;
        let ordered = request.ordered;
        Ok(Opened { ttl_ms, responses_max, responses_max_bytes, ordered })
    }

    /// Forgets a session, if it is there.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(session) = self.by_id.remove(&id) {
            let expiry = self.by_expiry.remove(&(session.expires_at_ms, id));
            assert!(expiry, "the index of session {id} is out of step");
            self.bytes -= session.bytes + session.waiting_bytes;
            self.ended += 1;
        }
    }

    /// Counts as a use of a session, without a command; returns its time to live.
    ///
    /// # Errors
    ///
    /// It is gone; or it acknowledges what was not executed, which has no effect.
    pub(super) fn keep(
        &mut self,
        request: &stored::KeepSession,
        index: Index,
        now_ms: u64,
    ) -> Result<u64, CommandRefused> {
        let id = request.session_id;
        let session = self.by_id.get(&id).ok_or(CommandRefused::SessionExpired)?;
        session.may_acknowledge(request.acknowledged)?;
        let ttl_ms = session.ttl_ms;
        self.use_session(id, request.acknowledged, index, now_ms);
        Ok(ttl_ms)
    }

    /// Says what to do with a command, and counts it as a use of its session.
    pub(super) fn begin(
        &mut self,
        command: &stored::SessionCommand,
        hash: CommandHash,
        index: Index,
        now_ms: u64,
    ) -> Begin {
        let begin = self.look_up(command, hash);
        if !matches!(begin, Begin::Refused(CommandRefused::Malformed(_))) {
            self.use_session(command.session_id, command.acknowledged, index, now_ms);
        }
        let room = match begin {
            Begin::Run => self.make_room(command),
            Begin::Wait { is_new: true } => self.room_to_wait(command.session_id),
            _ => Ok(()),
        };
        room.map_or_else(Begin::Refused, |()| begin)
    }

    /// What is known of a command: `Run` or `Wait` when it never ran. Changes nothing.
    pub(super) fn look_up(&self, command: &stored::SessionCommand, hash: CommandHash) -> Begin {
        if command.sequence == 0 {
            let reason = "sequence numbers of a session start at 1".to_owned();
            return Begin::Refused(CommandRefused::Malformed(reason));
        }
        let Some(session) = self.by_id.get(&command.session_id) else {
            return Begin::Refused(CommandRefused::SessionExpired);
        };
        if let Err(refused) = session.may_acknowledge(command.acknowledged) {
            return Begin::Refused(refused);
        }
        if command.skip && !session.ordered {
            let reason = "only an ordered session skips numbers: acknowledge it instead".to_owned();
            return Begin::Refused(CommandRefused::Malformed(reason));
        }
        if command.sequence <= session.acknowledged.max(command.acknowledged) {
            return Begin::Refused(CommandRefused::SequenceTooOld);
        }
        match session.waiting.get(&command.sequence) {
            Some(waiting) if waiting.command != hash => {
                let sequence = command.sequence;
                return Begin::Refused(CommandRefused::SequenceReused { sequence });
            }
            Some(_) => return Begin::Wait { is_new: false },
            None => {}
        }
        match session.completed.get(&command.sequence) {
            Some(response) if response.command != hash => {
                Begin::Refused(CommandRefused::SequenceReused { sequence: command.sequence })
            }
            Some(response) => {
                let outcome = convert::outcome_from_record(&response.outcome);
                Begin::Duplicate(outcome.expect("checked when stored"))
            }
            None if session.ordered && command.sequence - 1 != session.executed() => {
                Begin::Wait { is_new: true }
            }
            None => Begin::Run,
        }
    }

    /// Whether one more response can be kept, for a command that never ran.
    fn make_room(&mut self, command: &stored::SessionCommand) -> Result<(), CommandRefused> {
        let session = self.by_id.get(&command.session_id).expect("`look_up` found it");
        if museum::is_on(Exhibit::ResponsesForgotten) {
            if self.is_full(session.completed.len() as u64, session.bytes) {
                let session = changing(self.by_id.get_mut(&command.session_id).expect("as above"));
                let lowest = *session.completed.keys().next().expect("it is full");
                let forgotten = session.acknowledge(lowest);
                self.bytes -= forgotten;
            }
            return Ok(());
        }
        self.room_for(session, command.sequence)
    }

    /// Whether a session has room for the response of a command that is to run now. What waits does
    /// not count against the session here: it waits for this one.
    fn room_for(&self, session: &Session, sequence: u64) -> Result<(), CommandRefused> {
        let limits = &self.limits;
        let is_next = sequence == session.acknowledged + 1;
        let (responses, bytes) = (session.completed.len() as u64, session.bytes);
        if self.is_full(responses, bytes) && !is_next {
            let exceeded = limits.reached_by(responses, bytes);
            return Err(CommandRefused::SessionFull { responses, bytes, exceeded });
        }
        let most = if is_next { limits.total_max_bytes } else { limits.ordinary_max_bytes() };
        if self.bytes >= most.max(1) {
            return Err(CommandRefused::SessionsFull { bytes: self.bytes, max: most });
        }
        Ok(())
    }

    /// Whether one more command can wait in a session.
    fn room_to_wait(&self, id: u64) -> Result<(), CommandRefused> {
        let session = self.by_id.get(&id).expect("`look_up` found it");
        let responses = (session.completed.len() + session.waiting.len()) as u64;
        let bytes = session.bytes + session.waiting_bytes;
        if self.is_full(responses, bytes) {
            let exceeded = self.limits.reached_by(responses, bytes);
            return Err(CommandRefused::SessionFull { responses, bytes, exceeded });
        }
        let max = self.limits.ordinary_max_bytes();
        if self.bytes >= max.max(1) {
            return Err(CommandRefused::SessionsFull { bytes: self.bytes, max });
        }
        Ok(())
    }

    fn is_full(&self, responses: u64, bytes: u64) -> bool {
        let limits = &self.limits;
        responses >= limits.responses_max.max(1) || bytes >= limits.responses_max_bytes.max(1)
    }

    /// Keeps a command for which `begin` said `Wait { is_new: true }` until its turn.
    pub(super) fn wait(&mut self, id: u64, sequence: u64, waiting: Waiting) {
        let session = changing(self.by_id.get_mut(&id).expect("`begin` found it"));
        self.bytes += session.put_aside(sequence, waiting);
    }

    /// Whose a session is; `None`: nobody's, or it is gone.
    pub(super) fn owner(&self, id: u64) -> Option<Owner> {
        self.by_id.get(&id).and_then(|session| session.owner)
    }

    /// A session that is nobody's is this one's from now on.
    pub(super) fn adopt(&mut self, id: u64, owner: Owner) {
        if let Some(session) = self.by_id.get_mut(&id).filter(|session| session.owner.is_none()) {
            changing(session).owner = Some(owner);
        }
    }

    /// Ends the sessions of principals that are gone.
    pub(super) fn remove_of(&mut self, gone: &[PrincipalId]) {
        let is_gone = |session: &Session| match session.owner {
            Some(Owner::Principal(id)) => gone.contains(&id),
            Some(Owner::Local) | None => false,
        };
        let theirs = self.iter().filter(|(_, session)| is_gone(session)).map(|(id, _)| id);
        for id in theirs.collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// Takes the next command whose turn has come out of those that wait, if there is one and room
    /// for its response.
    pub(super) fn next_due(&mut self) -> Option<(SessionNumber, Waiting)> {
        while let Some(id) = self.due.front().copied() {
            let next = self.by_id.get(&id).and_then(|session| {
                let sequence = session.next_waiting()?;
                self.room_for(session, sequence).is_ok().then_some(sequence)
            });
            if let Some(sequence) = next {
                let session = changing(self.by_id.get_mut(&id).expect("just seen"));
                let waiting = session.waiting.remove(&sequence).expect("just seen");
                session.waiting_bytes -= waiting.cost_bytes();
                self.bytes -= waiting.cost_bytes();
                return Some((SessionNumber { session_id: id, sequence }, waiting));
            }
            self.due.pop_front();
        }
        None
    }

    /// A command that waits for its turn.
    pub(super) fn waiting(&self, number: SessionNumber) -> Option<&Waiting> {
        self.by_id.get(&number.session_id)?.waiting.get(&number.sequence)
    }

    /// The commands that wait in a session.
    pub(super) fn waiting_in(&self, id: u64) -> impl Iterator<Item = (u64, &Waiting)> {
        let waiting = self.by_id.get(&id).into_iter().flat_map(|session| &session.waiting);
        waiting.map(|(sequence, waiting)| (*sequence, waiting))
    }

    /// The end of an entry: what is due and did not run goes on waiting.
    pub(super) fn end_entry(&mut self) {
        self.due.clear();
    }

    /// Notes that the next command of a session may be one that waits.
    pub(super) fn note_due(&mut self, id: u64) {
        let is_due = self.by_id.get(&id).is_some_and(|session| session.next_waiting().is_some());
        if is_due && self.due.back() != Some(&id) {
            self.due.push_back(id);
        }
    }

    /// Keeps the outcome of a command for which `begin` said `Run`, or that was due.
    pub(super) fn complete(
        &mut self,
        id: u64,
        sequence: u64,
        hash: CommandHash,
        outcome: &Outcome,
    ) {
        let session = self.by_id.get_mut(&id).expect("`begin` found it");
        let session = changing(session);
        let before = session.bytes;
        session.store(sequence, hash, convert::outcome_to_record(outcome));
        self.bytes = self.bytes - before + session.bytes;
    }

    /// Puts a session back from a snapshot. False when it contradicts the ones before it.
    #[must_use]
    pub(super) fn restore(&mut self, id: u64, record: RestoredSession) -> bool {
        let mut session = Session {
            ttl_ms: record.ttl_ms,
            expires_at_ms: record.expires_at_ms,
            last_used: record.last_used,
            acknowledged: record.acknowledged,
            completed: BTreeMap::new(),
            ordered: record.ordered,
            waiting: BTreeMap::new(),
            owner: record.owner,
            bytes: 0,
            waiting_bytes: 0,
            digest: Cached::new(),
        };
        let mut above = record.acknowledged;
        for RestoredResponse { sequence, command, outcome } in record.completed {
            if sequence <= above || (record.ordered && sequence != above + 1) {
                return false;
            }
            above = sequence;
            session.store(sequence, command, outcome);
        }
        for RestoredWaiting { sequence, data, skip, actor } in record.waiting {
            if sequence <= above || !record.ordered || (skip && !data.is_empty()) {
                return false;
            }
            above = sequence;
            let hash = if skip { SKIPPED } else { command_hash(&data) };
            session.put_aside(sequence, Waiting::new(&data, hash, actor));
        }
        self.insert(id, session)
    }

    fn insert(&mut self, id: u64, session: Session) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.by_expiry.insert((session.expires_at_ms, id));
        self.bytes += session.bytes + session.waiting_bytes;
        self.by_id.insert(id, Arc::new(session));
        true
    }

    /// Counts as a use of a session, if it is there, and forgets what is acknowledged.
    fn use_session(&mut self, id: u64, acknowledged: u64, index: Index, now_ms: u64) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let session = changing(session);
        self.by_expiry.remove(&(session.expires_at_ms, id));
        session.expires_at_ms = now_ms.saturating_add(session.ttl_ms);
        session.last_used = index;
        self.by_expiry.insert((session.expires_at_ms, id));
        let forgotten = session.acknowledge(acknowledged);
        self.bytes -= forgotten;
        self.note_due(id);
    }
}

/// What a client is told of its new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) ttl_ms: u64,
    pub(super) responses_max: u64,
    pub(super) responses_max_bytes: u64,
    pub(super) ordered: bool,
}

impl Session {
    /// Of an ordered session: the highest number that was executed.
    fn executed(&self) -> u64 {
        self.acknowledged.saturating_add(self.completed.len() as u64)
    }

    /// The number of the command that runs next, if that waits.
    fn next_waiting(&self) -> Option<u64> {
        let (first, _) = self.waiting.first_key_value()?;
        let is_next = *first - 1 == self.executed() || museum::is_on(Exhibit::OrderedGapSkipped);
        is_next.then_some(*first)
    }

    /// In an ordered session nobody can have the answer of what was not executed.
    fn may_acknowledge(&self, acknowledged: u64) -> Result<(), CommandRefused> {
        if self.ordered && acknowledged > self.executed() {
            let executed = self.executed();
            return Err(CommandRefused::Malformed(format!(
                "it acknowledges the answer of number {acknowledged}, and this ordered session has \
                 executed its commands up to number {executed} only"
            )));
        }
        Ok(())
    }

    /// Returns what it costs.
    fn put_aside(&mut self, sequence: u64, waiting: Waiting) -> u64 {
        let cost = waiting.cost_bytes();
        self.waiting_bytes += cost;
        let before = self.waiting.insert(sequence, waiting);
        assert!(before.is_none(), "sequence {sequence} waits twice");
        cost
    }

    fn store(&mut self, sequence: u64, command: CommandHash, outcome: stored::Outcome) {
        self.bytes += cost_bytes(&outcome);
        let response = Response { outcome, command, digest: Cached::new() };
        let before = self.completed.insert(sequence, response);
        let is_first = before.is_none() || museum::is_on(Exhibit::BatchRetriedTwice);
        assert!(is_first, "sequence {sequence} completed twice");
    }

    /// Forgets the responses up to and including `sequence`; returns the bytes forgotten.
    fn acknowledge(&mut self, sequence: u64) -> u64 {
        if sequence <= self.acknowledged {
            return 0;
        }
        self.acknowledged = sequence;
        let before = self.bytes;
        while let Some(entry) = self.completed.first_entry() {
            if *entry.key() > sequence {
                break;
            }
            self.bytes -= cost_bytes(&entry.remove().outcome);
        }
        before - self.bytes
    }
}

/// A session as a snapshot holds it.
pub(super) struct RestoredSession {
    pub(super) ttl_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) last_used: Index,
    pub(super) acknowledged: u64,
    pub(super) completed: Vec<RestoredResponse>,
    pub(super) ordered: bool,
    pub(super) waiting: Vec<RestoredWaiting>,
    pub(super) owner: Option<Owner>,
}

/// A waiting command as a snapshot holds it.
pub(super) struct RestoredWaiting {
    pub(super) sequence: u64,
    pub(super) data: Bytes,
    pub(super) skip: bool,
    pub(super) actor: Actor,
}

/// A response as a snapshot holds it.
pub(super) struct RestoredResponse {
    pub(super) sequence: u64,
    pub(super) command: CommandHash,
    /// One that `convert::outcome_from_record` reads.
    pub(super) outcome: stored::Outcome,
}

/// The session, to be changed: what was computed of it is void.
fn changing(session: &mut Arc<Session>) -> &mut Session {
    let session = Arc::make_mut(session);
    session.digest = Cached::new();
    session
}

fn cost_bytes(outcome: &stored::Outcome) -> u64 {
    use stored::outcome::Kind;
    let payload = match &outcome.kind {
        Some(Kind::Ok(bytes) | Kind::Rejected(bytes)) => bytes.len() as u64,
        Some(Kind::Trapped(_)) | None => 0,
    };
    payload + RESPONSE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
