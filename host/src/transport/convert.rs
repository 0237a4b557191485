//! [`PeerMessage`] to the wire and back, field by field.
//!
//! The way back treats its input as hostile: anything that no correct peer would send is an
//! error, because the consensus core behind it may panic on messages that break its rules.

use std::collections::BTreeSet;

use raft_host_proto::v1;

use crate::storage::SnapshotMeta;
use crate::types::{
    ConfState, EntryKind, GroupId, Index, LogEntry, MessageKind, NodeId, PeerMessage, Term,
};

/// Why a message from the wire is not one that a correct peer sends.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConvertError {
    /// The kind is of no message that this version knows.
    #[error("message kind {0} is unknown; is the peer of a newer version?")]
    UnknownMessageKind(u32),
    /// The kind is of no entry that this version knows.
    #[error("entry {index} has the unknown kind {kind}; is the peer of a newer version?")]
    UnknownEntryKind {
        /// The entry.
        index: Index,
        /// Its kind.
        kind: u32,
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
    /// A DigestReport names a point and holds a digest, and nothing else.
    #[error("a digest report without a point, with entries, or with a digest of {0} bytes")]
    BadDigestReport(usize),
    /// A ClockQuestion holds nothing or an offset, a ClockAnswer a time, and neither holds entries.
    #[error("a message about clocks with entries, or with {0} bytes of time")]
    BadClockMessage(usize),
    /// A configuration names each node at most once per role.
    #[error("node {node} is listed twice as {role}")]
    DuplicateMember {
        /// The node.
        node: NodeId,
        /// The list that holds it twice.
        role: &'static str,
    },
}

/// To the wire. Payloads are shared, not copied.
impl From<PeerMessage> for v1::RaftMessage {
    fn from(message: PeerMessage) -> v1::RaftMessage {
        v1::RaftMessage {
            group: message.group.0,
            kind: u32::from(message.kind as u8),
            from: message.from.0,
            to: message.to.0,
            term: message.term.0,
            log_term: message.log_term.0,
            index: message.index.0,
            entries: message.entries.into_iter().map(v1::RaftEntry::from).collect(),
            commit: message.commit.0,
            commit_term: message.commit_term.0,
            snapshot: message.snapshot.map(v1::RaftSnapshot::from),
            request_snapshot: message.request_snapshot.0,
            reject: message.reject,
            reject_hint: message.reject_hint.0,
            context: message.context,
            priority: message.priority,
        }
    }
}

impl From<LogEntry> for v1::RaftEntry {
    fn from(entry: LogEntry) -> v1::RaftEntry {
        v1::RaftEntry {
            index: entry.index.0,
            term: entry.term.0,
            kind: u32::from(entry.kind as u8),
            data: entry.data,
            context: entry.context,
        }
    }
}

/// The group does not travel with the snapshot: it is that of the message around it.
impl From<SnapshotMeta> for v1::RaftSnapshot {
    fn from(meta: SnapshotMeta) -> v1::RaftSnapshot {
        v1::RaftSnapshot {
            index: meta.index.0,
            term: meta.term.0,
            conf_state: Some(meta.conf_state.into()),
            size_bytes: meta.size_bytes,
            checksum: meta.checksum,
        }
    }
}

impl From<ConfState> for v1::RaftConfState {
    fn from(state: ConfState) -> v1::RaftConfState {
        let numbers = |nodes: BTreeSet<NodeId>| nodes.into_iter().map(|node| node.0).collect();
        v1::RaftConfState {
            voters: numbers(state.voters),
            learners: numbers(state.learners),
            voters_outgoing: numbers(state.voters_outgoing),
            learners_next: numbers(state.learners_next),
            auto_leave: state.auto_leave,
        }
    }
}

/// From the wire. Payloads are shared, not copied.
impl TryFrom<v1::RaftMessage> for PeerMessage {
    type Error = ConvertError;

    fn try_from(wire: v1::RaftMessage) -> Result<PeerMessage, ConvertError> {
        let kind = u8::try_from(wire.kind)
            .ok()
            .and_then(MessageKind::from_u8)
            .ok_or(ConvertError::UnknownMessageKind(wire.kind))?;
        if wire.group == 0 {
            return Err(ConvertError::ZeroGroup);
        }
        let group = GroupId(wire.group);
        let snapshot = match (kind, wire.snapshot) {
            (MessageKind::InstallSnapshot, Some(snapshot)) => {
                Some(snapshot_from_wire(group, snapshot)?)
            }
            (MessageKind::InstallSnapshot, None) => return Err(ConvertError::MissingSnapshot),
            (_, Some(_)) => return Err(ConvertError::UnexpectedSnapshot(kind)),
            (_, None) => None,
        };
        let message = PeerMessage {
            group,
            kind,
            from: node_from_wire("from", wire.from)?,
            to: node_from_wire("to", wire.to)?,
            term: Term(wire.term),
            log_term: Term(wire.log_term),
            index: Index(wire.index),
            entries: wire.entries.into_iter().map(LogEntry::try_from).collect::<Result<_, _>>()?,
            commit: Index(wire.commit),
            commit_term: Term(wire.commit_term),
            snapshot,
            request_snapshot: Index(wire.request_snapshot),
            reject: wire.reject,
            reject_hint: Index(wire.reject_hint),
            context: wire.context,
            priority: wire.priority,
        };
        match kind {
            MessageKind::AppendEntries => check_appended(&message)?,
            MessageKind::DigestReport => check_digest_report(&message)?,
            MessageKind::ClockQuestion | MessageKind::ClockAnswer => check_clock(&message)?,
            _ => {}
        }
        Ok(message)
    }
}

impl TryFrom<v1::RaftEntry> for LogEntry {
    type Error = ConvertError;

    fn try_from(wire: v1::RaftEntry) -> Result<LogEntry, ConvertError> {
        let index = Index(wire.index);
        let kind = u8::try_from(wire.kind)
            .ok()
            .and_then(EntryKind::from_u8)
            .ok_or(ConvertError::UnknownEntryKind { index, kind: wire.kind })?;
        Ok(LogEntry { index, term: Term(wire.term), kind, data: wire.data, context: wire.context })
    }
}

/// Entries that a leader appends follow `index` without a gap, and their terms never
/// decrease (Raft dissertation §3.5, log matching).
fn check_appended(message: &PeerMessage) -> Result<(), ConvertError> {
    let count = message.entries.len() as u64;
    if message.index.0.checked_add(count).is_none_or(|last| last == u64::MAX) {
        return Err(ConvertError::IndexOverflow(message.index));
    }
    let (mut previous, mut least) = (message.index, message.log_term);
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

fn check_digest_report(message: &PeerMessage) -> Result<(), ConvertError> {
    let whole = message.as_digest_report().is_some_and(|(point, _)| point != Index(0));
    if whole && message.entries.is_empty() {
        return Ok(());
    }
    Err(ConvertError::BadDigestReport(message.context.len()))
}

fn check_clock(message: &PeerMessage) -> Result<(), ConvertError> {
    let is_whole = message.as_clock_question().is_some() || message.as_clock_answer().is_some();
    if is_whole && message.entries.is_empty() {
        return Ok(());
    }
    Err(ConvertError::BadClockMessage(message.context.len()))
}

fn snapshot_from_wire(
    group: GroupId,
    wire: v1::RaftSnapshot,
) -> Result<SnapshotMeta, ConvertError> {
    if wire.index == 0 {
        return Err(ConvertError::EmptySnapshot("index"));
    }
    if wire.term == 0 {
        return Err(ConvertError::EmptySnapshot("term"));
    }
    let state = wire.conf_state.ok_or(ConvertError::EmptySnapshot("configuration"))?;
    let conf_state = ConfState {
        voters: nodes_from_wire("voter", state.voters)?,
        learners: nodes_from_wire("learner", state.learners)?,
        voters_outgoing: nodes_from_wire("outgoing voter", state.voters_outgoing)?,
        learners_next: nodes_from_wire("next learner", state.learners_next)?,
        auto_leave: state.auto_leave,
    };
    if conf_state.voters.is_empty() {
        return Err(ConvertError::EmptySnapshot("voters"));
    }
    Ok(SnapshotMeta {
        group,
        index: Index(wire.index),
        term: Term(wire.term),
        conf_state,
        size_bytes: wire.size_bytes,
        checksum: wire.checksum,
    })
}

fn nodes_from_wire(role: &'static str, wire: Vec<u64>) -> Result<BTreeSet<NodeId>, ConvertError> {
    let mut nodes = BTreeSet::new();
    for number in wire {
        let node = node_from_wire(role, number)?;
        if !nodes.insert(node) {
            return Err(ConvertError::DuplicateMember { node, role });
        }
    }
    Ok(nodes)
}

fn node_from_wire(field: &'static str, number: u64) -> Result<NodeId, ConvertError> {
    if number == 0 { Err(ConvertError::ZeroNode(field)) } else { Ok(NodeId(number)) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::types::StateDigest;

    fn payload() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn node() -> impl Strategy<Value = NodeId> {
        (1..=u64::MAX).prop_map(NodeId)
    }

    fn nodes(least: usize) -> impl Strategy<Value = BTreeSet<NodeId>> {
        proptest::collection::btree_set(node(), least..5)
    }

    fn conf_state() -> impl Strategy<Value = ConfState> {
        (nodes(1), nodes(0), nodes(0), nodes(0), any::<bool>()).prop_map(
            |(voters, learners, voters_outgoing, learners_next, auto_leave)| ConfState {
                voters,
                learners,
                voters_outgoing,
                learners_next,
                auto_leave,
            },
        )
    }

    fn snapshot() -> impl Strategy<Value = SnapshotMeta> {
        (1..=u64::MAX, 1..=u64::MAX, conf_state(), any::<u64>(), any::<u32>()).prop_map(
            |(index, term, conf_state, size_bytes, checksum)| SnapshotMeta {
                group: GroupId::MAIN,
                index: Index(index),
                term: Term(term),
                conf_state,
                size_bytes,
                checksum,
            },
        )
    }

    prop_compose! {
        fn header()(
            kind in proptest::sample::select(&MessageKind::ALL[..]),
            numbers in any::<[u64; 6]>(),
            (from, to, group) in (node(), node(), 1..=u64::MAX),
            reject in any::<bool>(),
            context in payload(),
            priority in any::<i64>(),
        ) -> PeerMessage {
            PeerMessage {
                group: GroupId(group),
                kind,
                from,
                to,
                term: Term(numbers[0]),
                log_term: Term(numbers[1]),
                index: Index(numbers[2]),
                entries: Vec::new(),
                commit: Index(numbers[3]),
                commit_term: Term(numbers[4]),
                snapshot: None,
                request_snapshot: Index(numbers[5]),
                reject,
                reject_hint: Index(numbers[5].rotate_left(7)),
                context,
                priority,
            }
        }
    }

    prop_compose! {
        /// Messages that obey the rules, of every kind.
        fn message()(
            mut message in header(),
            payloads in proptest::collection::vec((payload(), payload(), any::<bool>()), 0..6),
            snapshot in snapshot(),
        ) -> PeerMessage {
            if message.kind == MessageKind::AppendEntries {
                message.index.0 = message.index.0.min(u64::MAX - 10);
                message.log_term = message.log_term.min(message.term);
            }
            if message.kind == MessageKind::DigestReport {
                message.index.0 = message.index.0.max(1);
                message.context = Bytes::copy_from_slice(&[7; 32]);
                return message;
            }
            if matches!(message.kind, MessageKind::ClockQuestion | MessageKind::ClockAnswer) {
                message.context = Bytes::copy_from_slice(&[7; 8]);
                return message;
            }
            if message.kind == MessageKind::InstallSnapshot {
                message.snapshot = Some(SnapshotMeta { group: message.group, ..snapshot });
            }
            let first = message.index.0;
            message.entries = payloads
                .into_iter()
                .zip(1..)
                .map(|((data, context, change), n)| LogEntry {
                    index: Index(first.wrapping_add(n)),
                    term: message.term,
                    kind: if change { EntryKind::ConfChange } else { EntryKind::Normal },
                    data,
                    context,
                })
                .collect();
            message
        }
    }

    proptest! {
        #[test]
        fn a_message_survives_the_wire(message in message()) {
            let bytes = v1::RaftMessage::from(message.clone()).encode_to_vec();
            let wire = v1::RaftMessage::decode(bytes.as_slice()).expect("own encoding");
            prop_assert_eq!(PeerMessage::try_from(wire), Ok(message));
        }

        #[test]
        fn garbage_bytes_are_refused_or_obey_the_rules(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(wire) = v1::RaftMessage::decode(bytes.as_slice())
                && let Ok(message) = PeerMessage::try_from(wire)
            {
                prop_assert_ne!(message.from, NodeId(0));
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(message in message(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = v1::RaftMessage::from(message).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(wire) = v1::RaftMessage::decode(bytes.as_slice()) {
                // Any answer will do, a panic will not.
                drop(PeerMessage::try_from(wire));
            }
        }
    }

    fn append(index: u64, entries: &[(u64, u64)]) -> v1::RaftMessage {
        v1::RaftMessage {
            group: 1,
            kind: MessageKind::AppendEntries as u32,
            from: 1,
            to: 2,
            term: 5,
            log_term: 3,
            index,
            entries: entries
                .iter()
                .map(|&(index, term)| v1::RaftEntry { index, term, ..Default::default() })
                .collect(),
            ..Default::default()
        }
    }

    fn refused(wire: v1::RaftMessage) -> ConvertError {
        PeerMessage::try_from(wire).expect_err("must be refused")
    }

    #[test]
    fn payloads_are_shared_and_not_copied() {
        let data = Bytes::from(vec![7; 64]);
        let wire = v1::RaftEntry { index: 1, term: 1, data: data.clone(), ..Default::default() };
        let entry = LogEntry::try_from(wire).expect("valid");
        assert_eq!(entry.data.as_ptr(), data.as_ptr());
        assert_eq!(v1::RaftEntry::from(entry).data.as_ptr(), data.as_ptr());
    }

    #[test]
    fn entries_with_a_gap_a_wrong_start_or_an_overflow_are_refused() {
        assert!(PeerMessage::try_from(append(8, &[(9, 3), (10, 5)])).is_ok());
        assert_eq!(
            refused(append(8, &[(9, 3), (11, 3)])),
            ConvertError::NotContiguous { expected: Index(10), found: Index(11) }
        );
        assert_eq!(
            refused(append(8, &[(8, 3)])),
            ConvertError::NotContiguous { expected: Index(9), found: Index(8) }
        );
        assert_eq!(
            refused(append(u64::MAX - 1, &[(u64::MAX, 3), (0, 3)])),
            ConvertError::IndexOverflow(Index(u64::MAX - 1))
        );
    }

    #[test]
    fn entries_whose_terms_decrease_or_exceed_the_leaders_are_refused() {
        for entries in [[(9, 2), (10, 3)], [(9, 4), (10, 3)], [(9, 4), (10, 6)]] {
            let error = refused(append(8, &entries));
            assert!(matches!(error, ConvertError::TermOutOfOrder { .. }), "{error}");
        }
    }

    #[test]
    fn unknown_kinds_and_zero_ids_are_refused() {
        let base = || append(8, &[(9, 3)]);
        for kind in [0, 18, 256 + 1, u32::MAX] {
            assert_eq!(
                refused(v1::RaftMessage { kind, ..base() }),
                ConvertError::UnknownMessageKind(kind)
            );
        }
        let mut wire = base();
        wire.entries[0].kind = 258;
        assert_eq!(refused(wire), ConvertError::UnknownEntryKind { index: Index(9), kind: 258 });
        assert_eq!(refused(v1::RaftMessage { from: 0, ..base() }), ConvertError::ZeroNode("from"));
        assert_eq!(refused(v1::RaftMessage { to: 0, ..base() }), ConvertError::ZeroNode("to"));
        assert_eq!(refused(v1::RaftMessage { group: 0, ..base() }), ConvertError::ZeroGroup);
    }

    #[test]
    fn a_digest_report_is_whole_or_refused() {
        let report = PeerMessage::digest_report(
            GroupId(1),
            NodeId(2),
            NodeId(1),
            Index(9),
            StateDigest([3; 32]),
        );
        let good = v1::RaftMessage::from(report.clone());
        let read = PeerMessage::try_from(good.clone()).expect("whole");
        assert_eq!(read.as_digest_report(), Some((Index(9), StateDigest([3; 32]))));
        let short = Bytes::from_static(&[3; 31]);
        for bad in [
            v1::RaftMessage { index: 0, ..good.clone() },
            v1::RaftMessage { context: short, ..good.clone() },
            v1::RaftMessage { entries: append(8, &[(9, 3)]).entries, ..good },
        ] {
            assert!(matches!(refused(bad), ConvertError::BadDigestReport(_)));
        }
        let other = PeerMessage { kind: MessageKind::Heartbeat, ..report };
        assert_eq!(other.as_digest_report(), None);
    }

    #[test]
    fn messages_about_clocks_are_whole_or_refused() {
        let (one, two) = (NodeId(1), NodeId(2));
        let read = |message: &PeerMessage| {
            PeerMessage::try_from(v1::RaftMessage::from(message.clone())).expect("whole")
        };
        for offset in [None, Some(-7), Some(i64::MAX)] {
            let question = PeerMessage::clock_question(GroupId(1), one, two, 9, offset);
            assert_eq!(read(&question).as_clock_question(), Some((9, offset)));
            assert_eq!(read(&question).as_clock_answer(), None);
        }
        let answer = PeerMessage::clock_answer(GroupId(1), two, one, 9, 1_700_000_000_000);
        assert_eq!(read(&answer).as_clock_answer(), Some((9, 1_700_000_000_000)));
        assert_eq!(read(&answer).as_clock_question(), None);
        let good = v1::RaftMessage::from(answer);
        let question = MessageKind::ClockQuestion as u32;
        for bad in [
            v1::RaftMessage { context: Bytes::new(), ..good.clone() },
            v1::RaftMessage { context: Bytes::from_static(&[3; 7]), ..good.clone() },
            v1::RaftMessage {
                kind: question,
                context: Bytes::from_static(&[3; 9]),
                ..good.clone()
            },
            v1::RaftMessage { entries: append(8, &[(9, 3)]).entries, ..good },
        ] {
            assert!(matches!(refused(bad), ConvertError::BadClockMessage(_)));
        }
    }

    #[test]
    fn a_snapshot_stands_in_install_snapshot_only_and_must_be_whole() {
        let install = |snapshot| v1::RaftMessage {
            kind: MessageKind::InstallSnapshot as u32,
            snapshot,
            ..append(0, &[])
        };
        let voters = |voters: &[u64]| {
            Some(v1::RaftConfState { voters: voters.to_vec(), ..Default::default() })
        };
        let whole = v1::RaftSnapshot {
            index: 3,
            term: 2,
            conf_state: voters(&[1, 2]),
            ..Default::default()
        };
        assert!(PeerMessage::try_from(install(Some(whole.clone()))).is_ok());
        assert_eq!(refused(install(None)), ConvertError::MissingSnapshot);
        assert_eq!(
            refused(v1::RaftMessage { snapshot: Some(whole.clone()), ..append(8, &[]) }),
            ConvertError::UnexpectedSnapshot(MessageKind::AppendEntries)
        );
        for (broken, lacks) in [
            (v1::RaftSnapshot { index: 0, ..whole.clone() }, "index"),
            (v1::RaftSnapshot { term: 0, ..whole.clone() }, "term"),
            (v1::RaftSnapshot { conf_state: None, ..whole.clone() }, "configuration"),
            (v1::RaftSnapshot { conf_state: voters(&[]), ..whole.clone() }, "voters"),
        ] {
            assert_eq!(refused(install(Some(broken))), ConvertError::EmptySnapshot(lacks));
        }
        let twice = v1::RaftSnapshot { conf_state: voters(&[4, 4]), ..whole };
        assert_eq!(
            refused(install(Some(twice))),
            ConvertError::DuplicateMember { node: NodeId(4), role: "voter" }
        );
    }
}
