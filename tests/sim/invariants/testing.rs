//! Builders for the facts that the tests of the invariants are made of.

use bytes::Bytes;
use raft_host::machine::Reply;
use raft_host::types::{
    EntryKind, Index, LogEntry, LogPosition, ModuleHash, NodeId, Outcome, Term,
};

use super::Invariant;
use crate::history::{Action, Answer};
use crate::sim::model::{Effect, Guest, ModelCommand};
use crate::sim::observe::{
    Answered, AppliedEntry, Bounds, End, Fact, LogView, Micros, NodeSurvey, Phase, Slot, Survey,
};

pub(super) fn pos(index: u64, term: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(term) }
}

pub(super) fn entry(index: u64, term: u64, data: &str) -> LogEntry {
    LogEntry {
        index: Index(index),
        term: Term(term),
        kind: EntryKind::Normal,
        data: Bytes::copy_from_slice(data.as_bytes()),
        context: Bytes::new(),
    }
}

/// The answer to opening a session at an index.
pub(super) fn session_opened(id: u64, ttl_ms: u64) -> Reply {
    Reply::SessionOpened {
        id,
        ttl_ms,
        responses_max: 4096,
        responses_max_bytes: 16 << 20,
        ordered: false,
    }
}

/// A node's id is its slot's number and one.
pub(super) fn node(slot: usize) -> NodeId {
    NodeId(slot as u64 + 1)
}

pub(super) fn started(
    slot: usize,
    term: u64,
    vote: Option<u64>,
    last: LogPosition,
) -> Fact<'static> {
    Fact::Started {
        slot: Slot(slot),
        node: node(slot),
        term: Term(term),
        vote: vote.map(NodeId),
        last,
        applied: Index(0),
        module: None,
        activated: None,
    }
}

pub(super) fn restored(slot: usize, applied: u64, module: Option<ModuleHash>) -> Fact<'static> {
    Fact::Started {
        slot: Slot(slot),
        node: node(slot),
        term: Term(1),
        vote: None,
        last: pos(applied, 1),
        applied: Index(applied),
        module,
        activated: None,
    }
}

pub(super) fn persisted(slot: usize, previous: LogPosition, entries: &[LogEntry]) -> Fact<'_> {
    Fact::Persisted {
        slot: Slot(slot),
        node: node(slot),
        entries,
        previous: Some(previous),
        reset_to: None,
        hard_state: None,
    }
}

pub(super) fn voted(slot: usize, term: u64, vote: Option<u64>) -> Fact<'static> {
    Fact::Persisted {
        slot: Slot(slot),
        node: node(slot),
        entries: &[],
        previous: None,
        reset_to: None,
        hard_state: Some((Term(term), vote.map(NodeId))),
    }
}

pub(super) fn applied(
    slot: usize,
    position: LogPosition,
    data: &str,
    reply: Reply,
) -> AppliedEntry {
    AppliedEntry {
        slot: Slot(slot),
        position,
        data: Bytes::copy_from_slice(data.as_bytes()),
        commands: 1,
        released: 0,
        command: Some((None, Bytes::copy_from_slice(data.as_bytes()))),
        reply,
        fuel_used: 7,
        events: 0,
        behind: Vec::new(),
        time_ms: 0,
        module: None,
        digest: None,
    }
}

/// A command: its place in a session, what it says, what it is answered.
pub(super) type Scripted<'a> = (Option<(u64, u64)>, &'a str, Reply);

/// An entry of several commands, each with its reply.
pub(super) fn applied_batch(
    slot: usize,
    position: LogPosition,
    commands: &[Scripted<'_>],
) -> AppliedEntry {
    let mut all = commands.iter().map(|(session, data, reply)| Answered {
        command: Some((*session, Bytes::copy_from_slice(data.as_bytes()))),
        reply: reply.clone(),
        fuel_used: 7,
        events: 0,
    });
    let Answered { command, reply, .. } = all.next().expect("at least one");
    let data: Vec<&str> = commands.iter().map(|(_, data, _)| *data).collect();
    AppliedEntry {
        commands: commands.len(),
        command,
        behind: all.collect(),
        ..applied(slot, position, &data.join(";"), reply)
    }
}

pub(super) fn ok(answer: &str) -> Reply {
    Reply::Command(Outcome::Ok(answer.as_bytes().to_vec()))
}

/// A log from after a position on.
#[derive(Debug)]
pub(super) struct Log(pub(super) LogPosition, pub(super) Vec<u64>);

impl LogView for Log {
    fn term(&self, index: Index) -> Option<Term> {
        let offset = index.0.checked_sub(self.0.index.0 + 1)?;
        self.1.get(offset as usize).map(|term| Term(*term))
    }

    fn start(&self) -> LogPosition {
        self.0
    }
}

pub(super) fn node_survey(slot: usize) -> NodeSurvey {
    NodeSurvey {
        slot: Slot(slot),
        node: node(slot),
        is_up: true,
        is_paused: false,
        is_member: true,
        is_healthy: true,
        role: None,
        term: Term(1),
        leader: None,
        first_index: Index(1),
        last_index: Index(0),
        commit: Index(0),
        applied: Index(0),
        snapshot: Index(0),
        unapplied_bytes: 0,
        snapshots: 1,
        log_bytes: 0,
        snapshot_bytes: 0,
        disk_bytes: 0,
        sessions: 0,
        is_quarantined: false,
        must_not_lead: false,
        must_yield: false,
        stopped: None,
    }
}

pub(super) fn survey(at: u64, phase: Phase, nodes: Vec<NodeSurvey>) -> Survey {
    let bounds = Bounds {
        log_entries: 10,
        trailing_logs: 1_000_000,
        growth_percent: 0,
        snapshots: 2,
        log_file_bytes: 1 << 20,
        uncommitted_bytes: 1 << 20,
        unapplied_bytes: 1 << 20,
        election: Micros(1_000_000),
    };
    Survey { at: Micros(at), phase, since: Micros(0), nodes, bounds }
}

pub(super) fn end(survey: &Survey) -> End<'_> {
    End {
        survey,
        history: &[],
        mended: Micros(0),
        converged: Some(Micros(5)),
        missing: "",
        bound: Micros(10),
        digests: &[],
        is_overwhelmed: false,
        values: &[],
    }
}

/// Shows an invariant some facts.
pub(super) fn judge(invariant: &mut dyn Invariant, facts: &[Fact<'_>]) -> Result<(), String> {
    facts.iter().try_for_each(|fact| invariant.observe(Micros(0), fact))
}

/// The last of the facts is a violation, those before are not.
#[track_caller]
pub(super) fn refused(invariant: &mut dyn Invariant, facts: &[Fact<'_>], what: &str) {
    let (last, before) = facts.split_last().expect("at least one fact");
    judge(invariant, before).expect("nothing is wrong before the last fact");
    let error = invariant.observe(Micros(0), last).expect_err("the last fact is wrong");
    assert!(error.contains(what), "{error:?} does not say {what:?}");
}

/// Understands `set k 1`, `add k 1`, `get k`, `trap k` and `noop k`.
#[derive(Debug)]
pub(super) struct Words;

impl Guest for Words {
    fn decode(&self, command: &[u8]) -> Option<ModelCommand> {
        let words: Vec<&str> = std::str::from_utf8(command).ok()?.split(' ').collect();
        let number = || words.get(2).and_then(|number| number.parse().ok());
        let effect = match words[0] {
            "set" => Effect::Act(Action::Write(number()?)),
            "add" => Effect::Act(Action::Add(number()?)),
            "get" => Effect::Act(Action::Read),
            "trap" => Effect::Trap,
            "noop" => Effect::Nothing,
            _ => return None,
        };
        Some(ModelCommand { key: words.get(1)?.to_string(), effect })
    }

    fn answer(&self, action: Action, outcome: &Outcome) -> Option<Answer> {
        let Outcome::Ok(bytes) = outcome else { return None };
        let text = std::str::from_utf8(bytes).ok()?;
        match action {
            Action::Write(_) => text.is_empty().then_some(Answer::Done),
            _ if text.is_empty() => Some(Answer::Value(None)),
            _ => Some(Answer::Value(Some(text.parse().ok()?))),
        }
    }

    fn answers_otherwise(&self, old: ModuleHash, new: ModuleHash, outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Ok(_)) && old != new
    }
}
