//! What a correct peer can send, kind by kind, as far as one message tells by itself.
//!
//! raft-rs trusts its input: a field that its own code never sets to such a value may make it
//! panic, and a term that got in is persisted and panics again after a restart. So each rule
//! here is one that raft-rs keeps when it sends (`raft.rs`, `RaftCore::send` and its callers).
//! What depends on the receiver's own log is checked by `consensus`.

use crate::types::{ConfState, Index, LogEntry, MessageKind, NodeId, PeerMessage, Space, Term};

/// Most nodes in one role of a configuration.
pub(super) const MAX_MEMBERS: usize = 1_024;

/// Longest context: a read's is 24 bytes, a digest 32, the word of a transfer 16.
const MAX_CONTEXT_BYTES: usize = 64;

/// What raft-rs writes into the votes that a leadership transfer asks for.
const TRANSFER: &[u8] = b"CampaignTransfer";

/// Why a message from the wire is not one that a correct peer sends.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConvertError {
    /// The kind is of no message that this version knows.
    #[error("message kind {0} is unknown; is the peer of a newer version?")]
    UnknownMessageKind(i32),
    /// The kind is of no entry that this version knows.
    #[error("entry {index} has the unknown kind {kind}; is the peer of a newer version?")]
    UnknownEntryKind {
        /// The entry.
        index: Index,
        /// Its kind.
        kind: i32,
    },
    /// Node 0 does not exist.
    #[error("`{0}` is node 0, which does not exist")]
    ZeroNode(&'static str),
    /// Group 0 does not exist.
    #[error("the group is 0, which does not exist")]
    ZeroGroup,
    /// The entries of an AppendEntries must follow each other from `index + 1` on.
    #[error("entry {found} stands where entry {expected} should: the entries are not contiguous")]
    NotContiguous {
        /// The index that belongs there.
        expected: Index,
        /// The index found there.
        found: Index,
    },
    /// The log would end beyond the highest index there is.
    #[error("the entries after {0} do not fit below the highest index")]
    IndexOverflow(Index),
    /// Terms in a log never decrease and never exceed the leader's.
    #[error("entry {index} has term {found}, which is not within {least}..={most}")]
    TermOutOfOrder {
        /// The entry.
        index: Index,
        /// Term of the entry before it.
        least: Term,
        /// Term of the message.
        most: Term,
        /// Its term.
        found: Term,
    },
    /// An InstallSnapshot must say which snapshot.
    #[error("an InstallSnapshot message without a snapshot")]
    MissingSnapshot,
    /// Only an InstallSnapshot may come with a snapshot.
    #[error("a {0:?} message with a snapshot")]
    UnexpectedSnapshot(MessageKind),
    /// A snapshot covers at least one entry, has a term and a configuration with voters.
    #[error("the snapshot has no {0}")]
    EmptySnapshot(&'static str),
    /// More members than a configuration has.
    #[error("the snapshot lists {count} nodes as {role}, more than {MAX_MEMBERS}")]
    TooManyMembers {
        /// The list.
        role: &'static str,
        /// Its length.
        count: usize,
    },
    /// A configuration that no change of the members leads to.
    #[error("the configuration of the snapshot is none: {0}")]
    BadConfiguration(&'static str),
    /// A term or an index that no cluster reaches.
    #[error("{field} is {value}, which no cluster reaches")]
    TooHigh {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Something that a message of this kind never has, or always has.
    #[error("a {kind:?} message {what}")]
    BreaksRule {
        /// The kind.
        kind: MessageKind,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A DigestReport names a point and holds a digest.
    #[error("a digest report without a point, or with a digest of {0} bytes")]
    BadDigestReport(usize),
    /// A ClockQuestion holds nothing or an offset, a ClockAnswer a time.
    #[error("a message about clocks with {0} bytes of time")]
    BadClockMessage(usize),
    /// A LevelOffer names a level.
    #[error("an offer of level {0}, which is none")]
    BadLevelOffer(u64),
    /// A configuration names each node at most once per role.
    #[error("node {node} is listed twice as {role}")]
    DuplicateMember {
        /// The node.
        node: NodeId,
        /// The list that holds it twice.
        role: &'static str,
    },
}

/// Checks a message by itself.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn check(message: &PeerMessage) -> Result<(), ConvertError> {
    check_heights(message)?;
    check_fields(message)?;
    match message.kind {
        MessageKind::AppendEntries => check_appended(message),
        MessageKind::AppendEntriesResponse => check_append_response(message),
        MessageKind::RequestVote | MessageKind::RequestPreVote => check_vote(message),
        MessageKind::ReadIndex | MessageKind::ReadIndexResponse => check_read(message),
        MessageKind::InstallSnapshot => check_install(message),
        MessageKind::DigestReport => check_digest_report(message),
        MessageKind::ClockQuestion | MessageKind::ClockAnswer => check_clock(message),
        MessageKind::LevelOffer => match message.as_level_offer() {
            Some(_) => Ok(()),
            None => Err(ConvertError::BadLevelOffer(message.index.0)),
        },
        MessageKind::Propose | MessageKind::TransferLeader => {
            Err(breaks(message, "never travels: who leads is asked in other ways"))
        }
        MessageKind::RequestVoteResponse
        | MessageKind::RequestPreVoteResponse
        | MessageKind::Heartbeat
        | MessageKind::HeartbeatResponse
        | MessageKind::TimeoutNow => Ok(()),
    }
}

/// Checks a configuration: the invariants of raft-rs's `confchange::Changer`, which refuses
/// others in ways that end the process.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_conf_state(state: &ConfState) -> Result<(), ConvertError> {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = state;
    if voters.is_empty() {
        return Err(ConvertError::EmptySnapshot("voters"));
    }
    let bad = |words| Err(ConvertError::BadConfiguration(words));
    if !learners.is_disjoint(voters) || !learners.is_disjoint(voters_outgoing) {
        return bad("a learner is a voter");
    }
    if !learners_next.is_subset(voters_outgoing) {
        return bad("a learner to be is no outgoing voter");
    }
    if !learners_next.is_disjoint(voters) || !learners_next.is_disjoint(learners) {
        return bad("a learner to be is a member otherwise, too");
    }
    if *auto_leave && voters_outgoing.is_empty() {
        return bad("there is no joint configuration to leave");
    }
    Ok(())
}

fn breaks(message: &PeerMessage, what: &'static str) -> ConvertError {
    ConvertError::BreaksRule { kind: message.kind, what }
}

fn check_heights(message: &PeerMessage) -> Result<(), ConvertError> {
    let snapshot = message.snapshot.as_ref();
    let terms = [
        ("the term", message.term),
        ("the term of the log", message.log_term),
        ("the term of the commit index", message.commit_term),
        ("the term of the snapshot", snapshot.map_or(Term(0), |meta| meta.term)),
    ];
    for (field, Term(value)) in terms {
        if Term(value) > Term::HIGHEST {
            return Err(ConvertError::TooHigh { field, value });
        }
    }
    let indexes = [
        ("the index", message.index),
        ("the commit index", message.commit),
        ("the hint", message.reject_hint),
        ("the index of the snapshot asked for", message.request_snapshot),
        ("the index of the snapshot", snapshot.map_or(Index(0), |meta| meta.index)),
    ];
    for (field, Index(value)) in indexes {
        if Index(value) > Index::HIGHEST {
            return Err(ConvertError::TooHigh { field, value });
        }
    }
    Ok(())
}

/// Which fields a kind of message uses; the others are as in an empty message.
#[derive(Default)]
struct Fields {
    log: bool,
    entries: bool,
    commit: bool,
    commit_term: bool,
    reject: bool,
    context: bool,
    index: bool,
    space: bool,
}

fn fields(kind: MessageKind) -> Fields {
    let none = Fields::default;
    match kind {
        MessageKind::AppendEntries => {
            Fields { log: true, index: true, entries: true, commit: true, ..none() }
        }
        MessageKind::AppendEntriesResponse => {
            Fields { log: true, index: true, commit: true, reject: true, ..none() }
        }
        MessageKind::RequestVote | MessageKind::RequestPreVote => {
            let log = Fields { log: true, index: true, ..none() };
            Fields { commit: true, commit_term: true, context: true, ..log }
        }
        MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse => {
            Fields { commit: true, commit_term: true, reject: true, ..none() }
        }
        MessageKind::Heartbeat | MessageKind::HeartbeatResponse => {
            Fields { commit: true, context: true, ..none() }
        }
        MessageKind::ReadIndex => Fields { entries: true, ..none() },
        MessageKind::ReadIndexResponse => Fields { entries: true, index: true, ..none() },
        MessageKind::DigestReport | MessageKind::ClockQuestion | MessageKind::ClockAnswer => {
            Fields { index: true, context: true, ..none() }
        }
        MessageKind::LevelOffer => Fields { index: true, space: true, ..none() },
        MessageKind::InstallSnapshot
        | MessageKind::TimeoutNow
        | MessageKind::TransferLeader
        | MessageKind::Propose => none(),
    }
}

fn check_fields(message: &PeerMessage) -> Result<(), ConvertError> {
    let uses = fields(message.kind);
    let carries_term = message.kind != MessageKind::ReadIndex && message.kind.is_of_raft();
    let is_append_response = message.kind == MessageKind::AppendEntriesResponse;
    let rules = [
        ((message.term != Term(0)) == carries_term, "has a term, or has none"),
        (uses.log || message.log_term == Term(0), "has the term of a log"),
        (uses.index || message.index == Index(0), "has an index"),
        (uses.space || message.space == Space::Ample, "tells how much space is left"),
        (uses.entries || message.entries.is_empty(), "has entries"),
        (uses.commit || message.commit == Index(0), "has a commit index"),
        (uses.commit_term || message.commit_term == Term(0), "has the term of a commit index"),
        (uses.reject || !message.reject, "refuses"),
        (uses.context || message.context.is_empty(), "has a context"),
        (message.context.len() <= MAX_CONTEXT_BYTES, "has a long context"),
        (is_append_response || message.reject_hint == Index(0), "has a hint"),
        (is_append_response || message.request_snapshot == Index(0), "asks for a snapshot"),
        (message.priority == 0, "has a priority"),
        (message.log_term <= message.term || !carries_term, "has a log of a later term"),
        (message.commit_term <= message.term || !carries_term, "commits in a later term"),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(breaks(message, what)),
        None => Ok(()),
    }
}

/// Entries that a leader appends follow `index` without a gap, and their terms never
/// decrease (Raft dissertation §3.5, log matching).
fn check_appended(message: &PeerMessage) -> Result<(), ConvertError> {
    if (message.index == Index(0)) != (message.log_term == Term(0)) {
        return Err(breaks(
            message,
            "names an index without its term, or a term without its index",
        ));
    }
    let count = message.entries.len() as u64;
    if message.index.0 + count > Index::HIGHEST.0 {
        return Err(ConvertError::IndexOverflow(message.index));
    }
    let (mut previous, mut least) = (message.index, message.log_term.max(Term(1)));
    for entry in &message.entries {
        let expected = previous.next();
        if entry.index != expected {
            return Err(ConvertError::NotContiguous { expected, found: entry.index });
        }
        if entry.term < least || entry.term > message.term {
            return Err(ConvertError::TermOutOfOrder {
                index: entry.index,
                least,
                most: message.term,
                found: entry.term,
            });
        }
        (previous, least) = (entry.index, entry.term);
    }
    Ok(())
}

/// Who refuses says where its own log may agree, which is not beyond what was asked, unless it
/// asks for a snapshot of all that it has.
fn check_append_response(message: &PeerMessage) -> Result<(), ConvertError> {
    let PeerMessage { reject, index, reject_hint, request_snapshot, .. } = message;
    if !reject {
        let clean = *reject_hint == Index(0)
            && *request_snapshot == Index(0)
            && message.log_term == Term(0);
        return if clean { Ok(()) } else { Err(breaks(message, "agrees and refuses at once")) };
    }
    let asks = *request_snapshot != Index(0);
    if (asks && request_snapshot > reject_hint) || (!asks && reject_hint > index) {
        return Err(breaks(message, "refuses with a hint beyond what it is about"));
    }
    Ok(())
}

/// A candidate's term is later than any in its log.
fn check_vote(message: &PeerMessage) -> Result<(), ConvertError> {
    let is_transfer = message.kind == MessageKind::RequestVote && message.context == TRANSFER;
    let rules = [
        (message.log_term < message.term, "has a log of its own term already"),
        ((message.index == Index(0)) == (message.log_term == Term(0)), "has half a position"),
        (message.commit <= message.index, "commits beyond its log"),
        (message.commit_term <= message.log_term, "commits in a later term than its log's"),
        (message.context.is_empty() || is_transfer, "has a context"),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(breaks(message, what)),
        None => Ok(()),
    }
}

/// One entry holds the context of the read, and is none of a log.
fn check_read(message: &PeerMessage) -> Result<(), ConvertError> {
    let [LogEntry { index: Index(0), term: Term(0), kind, data, context }] = &message.entries[..]
    else {
        return Err(breaks(message, "does not hold the context of one read"));
    };
    let plain = *kind == crate::types::EntryKind::Normal && context.is_empty();
    if !plain || data.is_empty() || data.len() > MAX_CONTEXT_BYTES {
        return Err(breaks(message, "does not hold the context of one read"));
    }
    Ok(())
}

fn check_install(message: &PeerMessage) -> Result<(), ConvertError> {
    match &message.snapshot {
        Some(meta) if meta.term > message.term => {
            Err(breaks(message, "has a snapshot of a later term"))
        }
        _ => Ok(()),
    }
}

fn check_clock(message: &PeerMessage) -> Result<(), ConvertError> {
    let is_whole = message.as_clock_question().is_some() || message.as_clock_answer().is_some();
    if is_whole { Ok(()) } else { Err(ConvertError::BadClockMessage(message.context.len())) }
}

fn check_digest_report(message: &PeerMessage) -> Result<(), ConvertError> {
    match message.as_digest_report() {
        Some((point, _)) if point != Index(0) => Ok(()),
        _ => Err(ConvertError::BadDigestReport(message.context.len())),
    }
}
