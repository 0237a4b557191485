//! [`PeerMessage`] to the wire and back, field by field.
//!
//! The way back treats its input as hostile: anything that no correct peer would send
//! ([`super::rules`]) is an error, because the consensus core behind it panics on messages that
//! break its rules.

use std::collections::BTreeSet;

use raft_host_proto::peer;

use super::rules;
pub use super::rules::ConvertError;
use crate::storage::SnapshotMeta;
use crate::types::{
    ConfState, EntryKind, GroupId, Index, LogEntry, MessageKind, NodeId, PeerMessage, Space, Term,
};

/// To the wire. Payloads are shared, not copied.
impl From<PeerMessage> for peer::RaftMessage {
    fn from(message: PeerMessage) -> peer::RaftMessage {
        peer::RaftMessage {
            group: message.group.0,
            kind: i32::from(message.kind as u8),
            from: message.from.0,
            to: message.to.0,
            term: message.term.0,
            log_term: message.log_term.0,
            index: message.index.0,
            entries: message.entries.into_iter().map(peer::RaftEntry::from).collect(),
            commit: message.commit.0,
            commit_term: message.commit_term.0,
            snapshot: message.snapshot.map(peer::RaftSnapshot::from),
            request_snapshot: message.request_snapshot.0,
            reject: message.reject,
            reject_hint: message.reject_hint.0,
            context: message.context,
            priority: message.priority,
            space: message.space as i32,
        }
    }
}

impl From<LogEntry> for peer::RaftEntry {
    fn from(entry: LogEntry) -> peer::RaftEntry {
        peer::RaftEntry {
            index: entry.index.0,
            term: entry.term.0,
            kind: i32::from(entry.kind as u8),
            data: entry.data,
            context: entry.context,
        }
    }
}

/// The group does not travel with the snapshot: it is that of the message around it.
impl From<SnapshotMeta> for peer::RaftSnapshot {
    fn from(meta: SnapshotMeta) -> peer::RaftSnapshot {
        peer::RaftSnapshot {
            index: meta.index.0,
            term: meta.term.0,
            conf_state: Some(meta.conf_state.into()),
            size_bytes: meta.size_bytes,
            checksum: meta.checksum,
        }
    }
}

impl From<ConfState> for peer::RaftConfState {
    fn from(state: ConfState) -> peer::RaftConfState {
        let numbers = |nodes: BTreeSet<NodeId>| nodes.into_iter().map(|node| node.0).collect();
        peer::RaftConfState {
            voters: numbers(state.voters),
            learners: numbers(state.learners),
            voters_outgoing: numbers(state.voters_outgoing),
            learners_next: numbers(state.learners_next),
            auto_leave: state.auto_leave,
        }
    }
}

/// From the wire. Payloads are shared, not copied.
impl TryFrom<peer::RaftMessage> for PeerMessage {
    type Error = ConvertError;

    fn try_from(wire: peer::RaftMessage) -> Result<PeerMessage, ConvertError> {
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
            space: space_from_wire(wire.space),
        };
        rules::check(&message)?;
        Ok(message)
    }
}

/// What a later version may say beyond these is worse than low, and not known to be as bad as critical.
fn space_from_wire(space: i32) -> Space {
    let known = usize::try_from(space).ok().and_then(|space| Space::ALL.get(space));
    known.copied().unwrap_or(Space::Low)
}

impl TryFrom<peer::RaftEntry> for LogEntry {
    type Error = ConvertError;

    fn try_from(wire: peer::RaftEntry) -> Result<LogEntry, ConvertError> {
        let index = Index(wire.index);
        let kind = u8::try_from(wire.kind)
            .ok()
            .and_then(EntryKind::from_u8)
            .ok_or(ConvertError::UnknownEntryKind { index, kind: wire.kind })?;
        Ok(LogEntry { index, term: Term(wire.term), kind, data: wire.data, context: wire.context })
    }
}

fn snapshot_from_wire(
    group: GroupId,
    wire: peer::RaftSnapshot,
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
    rules::check_conf_state(&conf_state)?;
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
    if wire.len() > rules::MAX_MEMBERS {
        return Err(ConvertError::TooManyMembers { role, count: wire.len() });
    }
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
    use crate::types::{Level, StateDigest};

    fn payload() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn node() -> impl Strategy<Value = NodeId> {
        (1..=u64::MAX).prop_map(NodeId)
    }

    /// Roles exclude each other but for voters of both halves of a joint configuration.
    fn conf_state() -> impl Strategy<Value = ConfState> {
        let members = proptest::collection::btree_map(node(), 0..5_u8, 0..12);
        (node(), members, any::<bool>()).prop_map(|(first, roles, auto_leave)| {
            let mut state = ConfState { voters: [first].into(), ..ConfState::default() };
            for (node, role) in roles.into_iter().filter(|(node, _)| *node != first) {
                if matches!(role, 0 | 1) {
                    state.voters.insert(node);
                }
                if matches!(role, 1..=3) {
                    state.voters_outgoing.insert(node);
                }
                if role == 3 {
                    state.learners_next.insert(node);
                }
                if role == 4 {
                    state.learners.insert(node);
                }
            }
            state.auto_leave = auto_leave && !state.voters_outgoing.is_empty();
            state
        })
    }

    fn snapshot() -> impl Strategy<Value = SnapshotMeta> {
        let high = 1..=Index::HIGHEST.0;
        (high.clone(), high, conf_state(), any::<u64>(), any::<u32>()).prop_map(
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
            kind in proptest::sample::select(&TRAVELLING[..]),
            numbers in proptest::array::uniform6(1..=Index::HIGHEST.0 / 2),
            (from, to, group) in (node(), node(), 1..=u64::MAX),
            reject in any::<bool>(),
        ) -> PeerMessage {
            let [term, log_term, index, commit, commit_term, hint] = numbers;
            PeerMessage {
                group: GroupId(group),
                kind,
                from,
                to,
                term: Term(term + 1),
                log_term: Term(log_term.min(term)),
                index: Index(index),
                entries: Vec::new(),
                commit: Index(commit.min(index)),
                commit_term: Term(commit_term.min(log_term).min(term)),
                snapshot: None,
                request_snapshot: Index(0),
                reject,
                reject_hint: Index(hint.min(index)),
                context: Bytes::new(),
                priority: 0,
                space: Space::Ample,
            }
        }
    }

    /// Kinds that peers send.
    const TRAVELLING: [MessageKind; 16] = {
        use MessageKind as M;
        [
            M::AppendEntries,
            M::AppendEntriesResponse,
            M::RequestVote,
            M::RequestVoteResponse,
            M::InstallSnapshot,
            M::Heartbeat,
            M::HeartbeatResponse,
            M::TimeoutNow,
            M::ReadIndex,
            M::ReadIndexResponse,
            M::RequestPreVote,
            M::RequestPreVoteResponse,
            M::DigestReport,
            M::ClockQuestion,
            M::ClockAnswer,
            M::LevelOffer,
        ]
    };

    /// What a message of this kind leaves out.
    fn bare(message: PeerMessage) -> PeerMessage {
        let empty = PeerMessage::digest_report(
            message.group,
            message.from,
            message.to,
            Index(0),
            StateDigest([0; 32]),
        );
        let empty = PeerMessage { kind: message.kind, context: Bytes::new(), ..empty };
        let with_term = PeerMessage { term: message.term, ..empty.clone() };
        let PeerMessage { log_term, index, commit, commit_term, reject, reject_hint, .. } = message;
        match message.kind {
            MessageKind::AppendEntries => PeerMessage { log_term, index, commit, ..with_term },
            MessageKind::AppendEntriesResponse if reject => {
                PeerMessage { log_term, index, commit, reject, reject_hint, ..with_term }
            }
            MessageKind::AppendEntriesResponse => PeerMessage { index, commit, ..with_term },
            MessageKind::RequestVote | MessageKind::RequestPreVote => {
                PeerMessage { log_term, index, commit, commit_term, ..with_term }
            }
            MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse => {
                PeerMessage { commit, commit_term, reject, ..with_term }
            }
            MessageKind::Heartbeat | MessageKind::HeartbeatResponse => {
                PeerMessage { commit, ..with_term }
            }
            MessageKind::ReadIndexResponse => PeerMessage { index, ..with_term },
            MessageKind::DigestReport | MessageKind::ClockQuestion | MessageKind::ClockAnswer => {
                PeerMessage { index, ..empty }
            }
            MessageKind::LevelOffer => {
                PeerMessage { index: Index(1 + index.0 % u64::from(u32::MAX)), ..empty }
            }
            MessageKind::ReadIndex => empty,
            _ => with_term,
        }
    }

    prop_compose! {
        /// Messages that obey the rules, of every kind that travels.
        fn message()(
            message in header(),
            payloads in proptest::collection::vec((payload(), payload(), any::<bool>()), 0..6),
            snapshot in snapshot(),
        ) -> PeerMessage {
            let mut message = bare(message);
            match message.kind {
                MessageKind::DigestReport => message.context = Bytes::copy_from_slice(&[7; 32]),
                MessageKind::ClockQuestion | MessageKind::ClockAnswer => {
                    message.context = Bytes::copy_from_slice(&[7; 8]);
                }
                MessageKind::Heartbeat => message.context = Bytes::copy_from_slice(&[7; 24]),
                MessageKind::InstallSnapshot => {
                    let term = Term(snapshot.term.0.min(message.term.0));
                    let group = message.group;
                    message.snapshot = Some(SnapshotMeta { group, term, ..snapshot });
                }
                MessageKind::ReadIndex | MessageKind::ReadIndexResponse => {
                    message.entries = vec![LogEntry {
                        index: Index(0),
                        term: Term(0),
                        kind: EntryKind::Normal,
                        data: Bytes::copy_from_slice(&[7; 24]),
                        context: Bytes::new(),
                    }];
                }
                MessageKind::AppendEntries => {
                    let first = message.index.0;
                    message.entries = payloads
                        .into_iter()
                        .zip(1..)
                        .map(|((data, context, change), n)| LogEntry {
                            index: Index(first + n),
                            term: message.term,
                            kind: if change { EntryKind::ConfChange } else { EntryKind::Normal },
                            data,
                            context,
                        })
                        .collect();
                }
                _ => {}
            }
            message
        }
    }

    proptest! {
        #[test]
        fn a_message_survives_the_wire(message in message()) {
            let bytes = peer::RaftMessage::from(message.clone()).encode_to_vec();
            let wire = peer::RaftMessage::decode(bytes.as_slice()).expect("own encoding");
            prop_assert_eq!(PeerMessage::try_from(wire), Ok(message));
        }

        #[test]
        fn garbage_bytes_are_refused_or_obey_the_rules(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(wire) = peer::RaftMessage::decode(bytes.as_slice())
                && let Ok(message) = PeerMessage::try_from(wire)
            {
                prop_assert_ne!(message.from, NodeId(0));
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(message in message(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = peer::RaftMessage::from(message).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(wire) = peer::RaftMessage::decode(bytes.as_slice()) {
                // Any answer will do, a panic will not.
                drop(PeerMessage::try_from(wire));
            }
        }
    }

    fn append(index: u64, entries: &[(u64, u64)]) -> peer::RaftMessage {
        peer::RaftMessage {
            group: 1,
            kind: MessageKind::AppendEntries as i32,
            from: 1,
            to: 2,
            term: 5,
            log_term: 3,
            index,
            entries: entries
                .iter()
                .map(|&(index, term)| peer::RaftEntry { index, term, ..Default::default() })
                .collect(),
            ..Default::default()
        }
    }

    fn refused(wire: peer::RaftMessage) -> ConvertError {
        PeerMessage::try_from(wire).expect_err("must be refused")
    }

    #[test]
    fn payloads_are_shared_and_not_copied() {
        let data = Bytes::from(vec![7; 64]);
        let wire = peer::RaftEntry { index: 1, term: 1, data: data.clone(), ..Default::default() };
        let entry = LogEntry::try_from(wire).expect("valid");
        assert_eq!(entry.data.as_ptr(), data.as_ptr());
        assert_eq!(peer::RaftEntry::from(entry).data.as_ptr(), data.as_ptr());
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
            refused(append(Index::HIGHEST.0 - 1, &[(Index::HIGHEST.0, 3), (0, 3)])),
            ConvertError::IndexOverflow(Index(Index::HIGHEST.0 - 1))
        );
        assert_eq!(
            refused(append(u64::MAX, &[])),
            ConvertError::TooHigh { field: "the index", value: u64::MAX }
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
        for kind in [0, 19, 256 + 1, -1, i32::MAX] {
            assert_eq!(
                refused(peer::RaftMessage { kind, ..base() }),
                ConvertError::UnknownMessageKind(kind)
            );
        }
        let mut wire = base();
        wire.entries[0].kind = 258;
        assert_eq!(refused(wire), ConvertError::UnknownEntryKind { index: Index(9), kind: 258 });
        assert_eq!(
            refused(peer::RaftMessage { from: 0, ..base() }),
            ConvertError::ZeroNode("from")
        );
        assert_eq!(refused(peer::RaftMessage { to: 0, ..base() }), ConvertError::ZeroNode("to"));
        assert_eq!(refused(peer::RaftMessage { group: 0, ..base() }), ConvertError::ZeroGroup);
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
        let good = peer::RaftMessage::from(report.clone());
        let read = PeerMessage::try_from(good.clone()).expect("whole");
        assert_eq!(read.as_digest_report(), Some((Index(9), StateDigest([3; 32]))));
        let short = Bytes::from_static(&[3; 31]);
        for bad in [
            peer::RaftMessage { index: 0, ..good.clone() },
            peer::RaftMessage { context: short, ..good.clone() },
        ] {
            assert!(matches!(refused(bad), ConvertError::BadDigestReport(_)));
        }
        for bad in [
            peer::RaftMessage { entries: append(8, &[(9, 3)]).entries, ..good.clone() },
            peer::RaftMessage { term: 3, ..good },
        ] {
            assert!(matches!(refused(bad), ConvertError::BreaksRule { .. }));
        }
        let other = PeerMessage { kind: MessageKind::Heartbeat, ..report };
        assert_eq!(other.as_digest_report(), None);
    }

    /// A member of the version before says nothing of its disk.
    #[test]
    fn how_much_space_is_left_is_told_and_what_is_unknown_counts_as_little() {
        let (one, two) = (NodeId(1), NodeId(2));
        let read = |wire| PeerMessage::try_from(wire).expect("it obeys the rules").space;
        for space in Space::ALL {
            let offer = PeerMessage::level_offer(GroupId(1), one, two, Level(3), space);
            assert_eq!(read(offer.into()), space);
        }
        let offer = PeerMessage::level_offer(GroupId(1), one, two, Level(3), Space::Ample);
        let offer = peer::RaftMessage::from(offer);
        assert_eq!(offer.space, 0);
        for space in [3, -1, i32::MAX] {
            assert_eq!(read(peer::RaftMessage { space, ..offer.clone() }), Space::Low);
        }
        let answer = PeerMessage::clock_answer(GroupId(1), two, one, 9, 1);
        let answer = peer::RaftMessage { space: 1, ..answer.into() };
        assert!(PeerMessage::try_from(answer).is_err(), "that is not for it to say");
    }

    #[test]
    fn messages_about_clocks_are_whole_or_refused() {
        let (one, two) = (NodeId(1), NodeId(2));
        let read = |message: &PeerMessage| {
            PeerMessage::try_from(peer::RaftMessage::from(message.clone())).expect("whole")
        };
        for offset in [None, Some(-7), Some(i64::MAX)] {
            let question = PeerMessage::clock_question(GroupId(1), one, two, 9, offset);
            assert_eq!(read(&question).as_clock_question(), Some((9, offset)));
            assert_eq!(read(&question).as_clock_answer(), None);
        }
        let answer = PeerMessage::clock_answer(GroupId(1), two, one, 9, 1_700_000_000_000);
        assert_eq!(read(&answer).as_clock_answer(), Some((9, 1_700_000_000_000)));
        assert_eq!(read(&answer).as_clock_question(), None);
        let good = peer::RaftMessage::from(answer);
        let question = MessageKind::ClockQuestion as i32;
        for bad in [
            peer::RaftMessage { context: Bytes::new(), ..good.clone() },
            peer::RaftMessage { context: Bytes::from_static(&[3; 7]), ..good.clone() },
            peer::RaftMessage {
                kind: question,
                context: Bytes::from_static(&[3; 9]),
                ..good.clone()
            },
        ] {
            assert!(matches!(refused(bad), ConvertError::BadClockMessage(_)));
        }
        for bad in [
            peer::RaftMessage { entries: append(8, &[(9, 3)]).entries, ..good.clone() },
            peer::RaftMessage { term: 3, ..good },
        ] {
            assert!(matches!(refused(bad), ConvertError::BreaksRule { .. }));
        }
    }

    #[test]
    fn a_snapshot_stands_in_install_snapshot_only_and_must_be_whole() {
        let install = |snapshot| peer::RaftMessage {
            kind: MessageKind::InstallSnapshot as i32,
            snapshot,
            log_term: 0,
            ..append(0, &[])
        };
        let voters = |voters: &[u64]| {
            Some(peer::RaftConfState { voters: voters.to_vec(), ..Default::default() })
        };
        let whole = peer::RaftSnapshot {
            index: 3,
            term: 2,
            conf_state: voters(&[1, 2]),
            ..Default::default()
        };
        assert!(PeerMessage::try_from(install(Some(whole.clone()))).is_ok());
        assert_eq!(refused(install(None)), ConvertError::MissingSnapshot);
        assert_eq!(
            refused(peer::RaftMessage { snapshot: Some(whole.clone()), ..append(8, &[]) }),
            ConvertError::UnexpectedSnapshot(MessageKind::AppendEntries)
        );
        for (broken, lacks) in [
            (peer::RaftSnapshot { index: 0, ..whole.clone() }, "index"),
            (peer::RaftSnapshot { term: 0, ..whole.clone() }, "term"),
            (peer::RaftSnapshot { conf_state: None, ..whole.clone() }, "configuration"),
            (peer::RaftSnapshot { conf_state: voters(&[]), ..whole.clone() }, "voters"),
        ] {
            assert_eq!(refused(install(Some(broken))), ConvertError::EmptySnapshot(lacks));
        }
        let twice = peer::RaftSnapshot { conf_state: voters(&[4, 4]), ..whole };
        assert_eq!(
            refused(install(Some(twice))),
            ConvertError::DuplicateMember { node: NodeId(4), role: "voter" }
        );
    }

    #[test]
    fn what_raft_rs_panics_on_is_refused_kind_by_kind() {
        let base = |kind: MessageKind| peer::RaftMessage {
            group: 1,
            kind: kind as i32,
            from: 1,
            to: 2,
            term: 5,
            ..Default::default()
        };
        let read = |data: &'static [u8], context: &'static [u8]| peer::RaftEntry {
            data: Bytes::from_static(data),
            context: Bytes::from_static(context),
            ..Default::default()
        };
        use MessageKind as M;
        let cases = [
            (
                "its term cannot be counted up",
                peer::RaftMessage { term: u64::MAX, ..base(M::Heartbeat) },
            ),
            ("no term", peer::RaftMessage { term: 0, ..base(M::Heartbeat) }),
            ("a read without its context", peer::RaftMessage { term: 0, ..base(M::ReadIndex) }),
            (
                "a read with a term",
                peer::RaftMessage { entries: vec![read(&[1; 24], &[])], ..base(M::ReadIndex) },
            ),
            (
                "a read with a second context",
                peer::RaftMessage {
                    term: 0,
                    entries: vec![read(&[1; 24], &[1])],
                    ..base(M::ReadIndex)
                },
            ),
            ("a transfer with a term", base(M::TransferLeader)),
            ("a transfer", peer::RaftMessage { term: 0, ..base(M::TransferLeader) }),
            ("a proposal", peer::RaftMessage { term: 0, ..base(M::Propose) }),
            (
                "an answer without a context",
                peer::RaftMessage { index: 3, ..base(M::ReadIndexResponse) },
            ),
            (
                "a hint that overflows",
                peer::RaftMessage {
                    reject: true,
                    reject_hint: u64::MAX,
                    ..base(M::AppendEntriesResponse)
                },
            ),
            (
                "a hint beyond the question",
                peer::RaftMessage {
                    reject: true,
                    index: 3,
                    reject_hint: 4,
                    ..base(M::AppendEntriesResponse)
                },
            ),
            (
                "a candidate of the term of its log",
                peer::RaftMessage { index: 3, log_term: 5, ..base(M::RequestVote) },
            ),
            (
                "a vote that commits beyond its log",
                peer::RaftMessage {
                    index: 3,
                    log_term: 4,
                    commit: 4,
                    commit_term: 4,
                    ..base(M::RequestVote)
                },
            ),
            ("a priority", peer::RaftMessage { priority: -1, ..base(M::RequestVote) }),
            (
                "a heartbeat with entries",
                peer::RaftMessage { entries: vec![read(&[1], &[])], ..base(M::Heartbeat) },
            ),
        ];
        for (what, wire) in cases {
            let error = PeerMessage::try_from(wire).expect_err(what);
            let expected =
                matches!(error, ConvertError::BreaksRule { .. } | ConvertError::TooHigh { .. });
            assert!(expected, "{what}: {error}");
        }
    }

    #[test]
    fn a_configuration_that_raft_rs_cannot_restore_is_refused() {
        let nodes = |list: &[u64]| list.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let state = |voters: &[u64], learners: &[u64], outgoing: &[u64], next: &[u64]| ConfState {
            voters: nodes(voters),
            learners: nodes(learners),
            voters_outgoing: nodes(outgoing),
            learners_next: nodes(next),
            auto_leave: false,
        };
        for good in [
            state(&[1], &[], &[], &[]),
            state(&[1, 2], &[3], &[], &[]),
            state(&[1, 2], &[3], &[1, 4], &[4]),
            ConfState { auto_leave: true, ..state(&[1, 2], &[], &[1], &[]) },
        ] {
            assert_eq!(rules::check_conf_state(&good), Ok(()), "{good:?}");
        }
        for bad in [
            state(&[], &[1], &[], &[]),
            state(&[1], &[1], &[], &[]),
            state(&[1], &[2], &[2], &[]),
            state(&[1], &[], &[], &[2]),
            state(&[1, 2], &[], &[2], &[2]),
            state(&[1], &[2], &[2], &[2]),
            ConfState { auto_leave: true, ..state(&[1], &[], &[], &[]) },
        ] {
            assert!(rules::check_conf_state(&bad).is_err(), "{bad:?}");
        }
    }
}
