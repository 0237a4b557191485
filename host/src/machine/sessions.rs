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
//! Everything is bounded, and what a bound does is the same on every replica:
//!
//! * A full session forgets its lowest response and raises `acknowledged` to it. A client that
//!   keeps `sequence - acknowledged` within the bound never meets this; one that never
//!   acknowledges at all still works as long as it retries only its latest commands.
//! * A session that no command used for its `ttl_ms` of the log's clock is gone.
//! * Too many sessions, or too many bytes of responses in all of them: the least recently used
//!   session is gone.
//!
//! No operation scans the sessions: expiry and use have ordered indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use raft_host_proto::v1;

use super::convert;
use super::reply::CommandRefused;
use crate::types::{Index, Outcome};

/// What a kept response costs besides its bytes.
const RESPONSE_OVERHEAD_BYTES: u64 = 64;

/// Bounds of the session table: replicated state, because they decide outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionLimits {
    pub(super) sessions_max: u64,
    pub(super) ttl_default_ms: u64,
    pub(super) ttl_min_ms: u64,
    pub(super) ttl_max_ms: u64,
    /// Most responses that one session keeps.
    pub(super) responses_max: u64,
    /// Most bytes of responses that one session keeps; a single longer one is kept all the same.
    pub(super) responses_max_bytes: u64,
    /// Most bytes of responses that all sessions keep together.
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

/// A digest that is computed when it is first asked for.
pub(super) type Cached = OnceLock<[u8; 32]>;

/// What a command was answered.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) outcome: v1::Outcome,
    pub(super) digest: Cached,
}

/// One client's session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) ttl_ms: u64,
    /// Gone when the log's clock reaches this.
    pub(super) expires_at_ms: u64,
    /// Index of the last entry that used it. Distinct between sessions.
    pub(super) last_used: Index,
    pub(super) acknowledged: u64,
    /// All keys are above `acknowledged`.
    pub(super) completed: BTreeMap<u64, Response>,
    /// Sum of the costs of `completed`.
    bytes: u64,
    /// Of all above; empty since the last change.
    pub(super) digest: Cached,
}

/// What to do with a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Run,
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
    /// `last_used` → id of every session.
    by_use: BTreeMap<Index, u64>,
    /// Sum of `bytes` of every session.
    bytes: u64,
}

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Sessions {
        Sessions {
            limits,
            by_id: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            by_use: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn limits(&self) -> &SessionLimits {
        &self.limits
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
        }
    }

    /// Opens the session of the entry at `index` and returns its time to live.
    pub(super) fn open(&mut self, index: Index, now_ms: u64, wanted_ttl_ms: u64) -> u64 {
        let ttl_ms = match wanted_ttl_ms {
            0 => self.limits.ttl_default_ms,
            wanted => wanted.clamp(self.limits.ttl_min_ms, self.limits.ttl_max_ms),
        };
        while self.len() >= self.limits.sessions_max.max(1) {
            self.remove_least_recently_used();
        }
        let session = Session {
            ttl_ms,
            expires_at_ms: now_ms.saturating_add(ttl_ms),
            last_used: index,
            acknowledged: 0,
            completed: BTreeMap::new(),
            bytes: 0,
            digest: Cached::new(),
        };
        let fresh = self.insert(index.0, session);
        assert!(fresh, "session {index} opened twice");
        ttl_ms
    }

    /// Forgets a session, if it is there.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(session) = self.by_id.remove(&id) {
            let expiry = self.by_expiry.remove(&(session.expires_at_ms, id));
            let used = self.by_use.remove(&session.last_used);
            assert!(expiry && used == Some(id), "the indexes of session {id} are out of step");
            self.bytes -= session.bytes;
        }
    }

    /// Says what to do with a command, and counts it as a use of its session.
    pub(super) fn begin(
        &mut self,
        command: &v1::SessionCommand,
        index: Index,
        now_ms: u64,
    ) -> Begin {
        let begin = self.look_up(command);
        if command.sequence > 0
            && let Some(session) = self.touch(command.session_id, index, now_ms)
        {
            let forgotten = session.acknowledge(command.acknowledged);
            self.bytes -= forgotten;
        }
        begin
    }

    /// What `begin` would say. Changes nothing.
    pub(super) fn look_up(&self, command: &v1::SessionCommand) -> Begin {
        if command.sequence == 0 {
            let reason = "sequence numbers of a session start at 1".to_owned();
            return Begin::Refused(CommandRefused::Malformed(reason));
        }
        let Some(session) = self.by_id.get(&command.session_id) else {
            return Begin::Refused(CommandRefused::SessionExpired);
        };
        if command.sequence <= session.acknowledged.max(command.acknowledged) {
            return Begin::Refused(CommandRefused::SequenceTooOld);
        }
        match session.completed.get(&command.sequence) {
            Some(response) => {
                let outcome = convert::outcome_from_record(&response.outcome);
                Begin::Duplicate(outcome.expect("checked when stored"))
            }
            None => Begin::Run,
        }
    }

    /// Keeps the outcome of a command for which `begin` said `Run`.
    pub(super) fn complete(&mut self, id: u64, sequence: u64, outcome: &Outcome) {
        let session = self.by_id.get_mut(&id).expect("`begin` found it");
        let session = changing(session);
        let before = session.bytes;
        session.store(sequence, convert::outcome_to_record(outcome));
        while session.completed.len() as u64 > self.limits.responses_max.max(1)
            || (session.bytes > self.limits.responses_max_bytes && session.completed.len() > 1)
        {
            let lowest = *session.completed.keys().next().expect("not empty");
            session.acknowledge(lowest);
        }
        self.bytes = self.bytes - before + session.bytes;
        while self.bytes > self.limits.total_max_bytes && self.by_id.len() > 1 {
            self.remove_least_recently_used();
        }
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
            bytes: 0,
            digest: Cached::new(),
        };
        let mut above = record.acknowledged;
        for (sequence, outcome) in record.completed {
            if sequence <= above {
                return false;
            }
            above = sequence;
            session.store(sequence, outcome);
        }
        self.insert(id, session)
    }

    fn insert(&mut self, id: u64, session: Session) -> bool {
        if self.by_id.contains_key(&id) || self.by_use.contains_key(&session.last_used) {
            return false;
        }
        self.by_expiry.insert((session.expires_at_ms, id));
        self.by_use.insert(session.last_used, id);
        self.bytes += session.bytes;
        self.by_id.insert(id, Arc::new(session));
        true
    }

    fn touch(&mut self, id: u64, index: Index, now_ms: u64) -> Option<&mut Session> {
        let session = changing(self.by_id.get_mut(&id)?);
        self.by_expiry.remove(&(session.expires_at_ms, id));
        self.by_use.remove(&session.last_used);
        session.expires_at_ms = now_ms.saturating_add(session.ttl_ms);
        session.last_used = index;
        self.by_expiry.insert((session.expires_at_ms, id));
        self.by_use.insert(index, id);
        Some(session)
    }

    fn remove_least_recently_used(&mut self) {
        let (_, id) = self.by_use.first_key_value().expect("called with sessions only");
        self.remove(*id);
    }
}

impl Session {
    fn store(&mut self, sequence: u64, outcome: v1::Outcome) {
        self.bytes += cost_bytes(&outcome);
        let response = Response { outcome, digest: Cached::new() };
        let before = self.completed.insert(sequence, response);
        assert!(before.is_none(), "sequence {sequence} completed twice");
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
    /// Outcomes that `convert::outcome_from_record` reads.
    pub(super) completed: Vec<(u64, v1::Outcome)>,
}

/// The session, to be changed: what was computed of it is void.
fn changing(session: &mut Arc<Session>) -> &mut Session {
    let session = Arc::make_mut(session);
    session.digest = Cached::new();
    session
}

fn cost_bytes(outcome: &v1::Outcome) -> u64 {
    use v1::outcome::Kind;
    let payload = match &outcome.kind {
        Some(Kind::Ok(bytes) | Kind::Rejected(bytes)) => bytes.len() as u64,
        Some(Kind::Trapped(_)) | None => 0,
    };
    payload + RESPONSE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(limits: SessionLimits) -> Sessions {
        Sessions::new(limits)
    }

    fn command(session_id: u64, sequence: u64, acknowledged: u64) -> v1::SessionCommand {
        v1::SessionCommand { session_id, sequence, acknowledged }
    }

    /// Runs a command the way the machine does and returns what `begin` said.
    fn run(sessions: &mut Sessions, index: u64, command: v1::SessionCommand) -> Begin {
        let begin = sessions.begin(&command, Index(index), 0);
        if begin == Begin::Run {
            let answer = Outcome::Ok(command.sequence.to_string().into_bytes());
            sessions.complete(command.session_id, command.sequence, &answer);
        }
        begin
    }

    fn too_old() -> Begin {
        Begin::Refused(CommandRefused::SequenceTooOld)
    }

    fn duplicate(sequence: u64) -> Begin {
        Begin::Duplicate(Outcome::Ok(sequence.to_string().into_bytes()))
    }

    #[test]
    fn retries_in_any_order_are_answered_once_executed() {
        let mut table = sessions(SessionLimits::default());
        table.open(Index(1), 0, 0);
        assert_eq!(run(&mut table, 2, command(1, 3, 0)), Begin::Run);
        assert_eq!(run(&mut table, 3, command(1, 1, 0)), Begin::Run);
        assert_eq!(run(&mut table, 4, command(1, 3, 0)), duplicate(3));
        assert_eq!(run(&mut table, 5, command(1, 2, 1)), Begin::Run);
        assert_eq!(run(&mut table, 6, command(1, 1, 0)), too_old());
        assert_eq!(run(&mut table, 7, command(1, 2, 0)), duplicate(2));
        assert_eq!(run(&mut table, 8, command(1, 4, 3)), Begin::Run);
        assert_eq!(table.by_id[&1].completed.len(), 1);
    }

    #[test]
    fn sequence_zero_is_malformed_and_changes_nothing() {
        let mut table = sessions(SessionLimits::default());
        table.open(Index(1), 0, 0);
        let begin = run(&mut table, 2, command(1, 0, 9));
        assert!(matches!(begin, Begin::Refused(CommandRefused::Malformed(_))));
        assert_eq!(run(&mut table, 3, command(1, 1, 0)), Begin::Run);
    }

    #[test]
    fn a_full_session_forgets_its_lowest_response_and_refuses_what_it_forgot() {
        let mut table = sessions(SessionLimits { responses_max: 2, ..SessionLimits::default() });
        table.open(Index(1), 0, 0);
        for sequence in [2, 3, 4] {
            assert_eq!(run(&mut table, sequence, command(1, sequence, 0)), Begin::Run);
        }
        assert_eq!(run(&mut table, 5, command(1, 2, 0)), too_old());
        assert_eq!(run(&mut table, 6, command(1, 1, 0)), too_old());
        assert_eq!(run(&mut table, 7, command(1, 3, 0)), duplicate(3));
        assert_eq!(run(&mut table, 8, command(1, 4, 0)), duplicate(4));
    }

    #[test]
    fn a_session_is_bounded_in_bytes_but_keeps_its_latest_response() {
        let mut table =
            sessions(SessionLimits { responses_max_bytes: 100, ..SessionLimits::default() });
        table.open(Index(1), 0, 0);
        let long = Outcome::Ok(vec![7; 1000]);
        for sequence in [1, 2] {
            let index = Index(sequence + 1);
            assert_eq!(table.begin(&command(1, sequence, 0), index, 0), Begin::Run);
            table.complete(1, sequence, &long);
        }
        assert_eq!(run(&mut table, 4, command(1, 1, 0)), too_old());
        assert_eq!(run(&mut table, 5, command(1, 2, 0)), Begin::Duplicate(long));
    }

    #[test]
    fn use_postpones_expiry_and_time_to_live_is_clamped() {
        let mut table = sessions(SessionLimits::default());
        assert_eq!(table.open(Index(1), 0, 5000), 5000);
        assert_eq!(table.open(Index(2), 0, 1), 1000);
        assert_eq!(table.open(Index(3), 0, u64::MAX), 24 * 60 * 60 * 1000);
        table.begin(&command(1, 1, 0), Index(4), 4999);
        table.expire(5000);
        assert_eq!(table.by_id.keys().copied().collect::<Vec<_>>(), [1, 3]);
        table.expire(9998);
        assert_eq!(table.len(), 2);
        table.expire(9999);
        assert_eq!(table.len(), 1);
        let begin = table.begin(&command(1, 2, 0), Index(5), 9999);
        assert_eq!(begin, Begin::Refused(CommandRefused::SessionExpired));
    }

    #[test]
    fn one_session_too_many_evicts_the_least_recently_used() {
        let mut table = sessions(SessionLimits { sessions_max: 2, ..SessionLimits::default() });
        table.open(Index(1), 0, 0);
        table.open(Index(2), 0, 0);
        run(&mut table, 3, command(1, 1, 0));
        table.open(Index(4), 0, 0);
        assert_eq!(table.by_id.keys().copied().collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn too_many_bytes_in_all_sessions_evict_the_least_recently_used() {
        let mut table =
            sessions(SessionLimits { total_max_bytes: 2500, ..SessionLimits::default() });
        for id in 1..=3 {
            table.open(Index(id), 0, 0);
        }
        for id in 1..=3 {
            table.begin(&command(id, 1, 0), Index(id + 3), 0);
            table.complete(id, 1, &Outcome::Ok(vec![0; 1000]));
        }
        assert_eq!(table.by_id.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(table.bytes, 2128);
        table.remove(2);
        table.remove(3);
        assert_eq!(table.bytes, 0);
        assert!(table.by_expiry.is_empty() && table.by_use.is_empty());
    }
}
