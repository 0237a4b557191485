//! Between raft-rs's protobuf types and ours, by hand: no bytes from the network ever reach
//! the protobuf 2 parser.

use protobuf::ProtobufEnum as _;
use raft::eraftpb;

use crate::storage::SnapshotMeta;
use crate::types::{
    ConfState, EntryKind, GroupId, HardState, Index, LogEntry, MessageKind, NodeId, PeerMessage,
    Space, Term,
};

pub(super) fn to_raft_entry(entry: LogEntry) -> eraftpb::Entry {
    let entry_type = match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChangeV2,
    };
    eraftpb::Entry {
        entry_type,
        index: entry.index.0,
        term: entry.term.0,
        data: entry.data,
        context: entry.context,
        ..Default::default()
    }
}

pub(super) fn from_raft_entry(entry: eraftpb::Entry) -> LogEntry {
    let kind = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
            EntryKind::ConfChange
        }
    };
    LogEntry {
        index: Index(entry.index),
        term: Term(entry.term),
        kind,
        data: entry.data,
        context: entry.context,
    }
}

pub(super) fn to_raft_hard_state(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term.0,
        vote: state.vote.map_or(raft::INVALID_ID, |vote| vote.0),
        commit: state.commit.0,
        ..Default::default()
    }
}

pub(super) fn from_raft_hard_state(state: &eraftpb::HardState) -> HardState {
    HardState { term: Term(state.term), vote: node(state.vote), commit: Index(state.commit) }
}

/// raft-rs writes "nobody" as 0.
pub(super) fn node(id: u64) -> Option<NodeId> {
    (id != raft::INVALID_ID).then_some(NodeId(id))
}

pub(super) fn to_raft_conf_state(state: &ConfState) -> eraftpb::ConfState {
    let ids = |set: &std::collections::BTreeSet<NodeId>| set.iter().map(|id| id.0).collect();
    eraftpb::ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
        ..Default::default()
    }
}

pub(super) fn from_raft_conf_state(state: &eraftpb::ConfState) -> ConfState {
    let ids = |list: &[u64]| list.iter().copied().map(NodeId).collect();
    ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}

/// The size and checksum travel in the snapshot's data: raft-rs does not look at it.
pub(super) fn to_raft_snapshot(meta: &SnapshotMeta) -> eraftpb::Snapshot {
    let mut data = Vec::with_capacity(12);
    data.extend_from_slice(&meta.size_bytes.to_le_bytes());
    data.extend_from_slice(&meta.checksum.to_le_bytes());
    let mut snapshot = eraftpb::Snapshot { data: data.into(), ..Default::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = meta.index.0;
    metadata.term = meta.term.0;
    metadata.set_conf_state(to_raft_conf_state(&meta.conf_state));
    snapshot
}

pub(super) fn from_raft_snapshot(group: GroupId, snapshot: &eraftpb::Snapshot) -> SnapshotMeta {
    let metadata = snapshot.get_metadata();
    let data: &[u8; 12] =
        snapshot.data[..].try_into().expect("only to_raft_snapshot makes snapshots");
    let (size, checksum) = data.split_at(8);
    SnapshotMeta {
        group,
        index: Index(metadata.index),
        term: Term(metadata.term),
        conf_state: from_raft_conf_state(metadata.get_conf_state()),
        size_bytes: u64::from_le_bytes(size.try_into().expect("eight bytes")),
        checksum: u32::from_le_bytes(checksum.try_into().expect("four bytes")),
    }
}

const KINDS: [(MessageKind, eraftpb::MessageType); 14] = {
    use eraftpb::MessageType as M;
    [
        (MessageKind::AppendEntries, M::MsgAppend),
        (MessageKind::AppendEntriesResponse, M::MsgAppendResponse),
        (MessageKind::RequestVote, M::MsgRequestVote),
        (MessageKind::RequestVoteResponse, M::MsgRequestVoteResponse),
        (MessageKind::InstallSnapshot, M::MsgSnapshot),
        (MessageKind::Heartbeat, M::MsgHeartbeat),
        (MessageKind::HeartbeatResponse, M::MsgHeartbeatResponse),
        (MessageKind::TransferLeader, M::MsgTransferLeader),
        (MessageKind::TimeoutNow, M::MsgTimeoutNow),
        (MessageKind::ReadIndex, M::MsgReadIndex),
        (MessageKind::ReadIndexResponse, M::MsgReadIndexResp),
        (MessageKind::RequestPreVote, M::MsgRequestPreVote),
        (MessageKind::RequestPreVoteResponse, M::MsgRequestPreVoteResponse),
        (MessageKind::Propose, M::MsgPropose),
    ]
};

pub(super) fn to_raft_message(message: PeerMessage) -> eraftpb::Message {
    let (_, msg_type) = KINDS[message.kind as usize - 1];
    let mut raft = eraftpb::Message {
        msg_type,
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: message.entries.into_iter().map(to_raft_entry).collect::<Vec<_>>().into(),
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        request_snapshot: message.request_snapshot.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: message.context,
        priority: message.priority,
        ..Default::default()
    };
    if let Some(meta) = &message.snapshot {
        raft.set_snapshot(to_raft_snapshot(meta));
    }
    raft
}

/// Whether an append says the truth about where its entries belong.
///
/// A message that names one position and carries the entries after another has a follower that
/// has those entries already confirm as many after the named position, which it does not have.
/// raft-rs 0.7 with `batch_append` makes such messages: it adds entries to one that waits to be
/// sent, and takes any for one that has none yet. We do without it, and drop what a peer sends of
/// the kind, which is as good as lost: Raft sends again.
pub(super) fn entries_follow_index(message: &PeerMessage) -> bool {
    if message.kind != MessageKind::AppendEntries {
        // Reads carry their context as an entry.
        return true;
    }
    let expected = message.index.0 + 1..;
    message.entries.iter().zip(expected).all(|(entry, index)| entry.index.0 == index)
}

/// `None` for raft-rs's local messages, which never travel.
pub(super) fn from_raft_message(
    group: GroupId,
    mut message: eraftpb::Message,
) -> Option<PeerMessage> {
    let msg_type = message.get_msg_type();
    let Some(&(kind, _)) = KINDS.iter().find(|(_, raft)| *raft == msg_type) else {
        tracing::debug!(kind = msg_type.value(), "raft-rs asked to send a local message");
        return None;
    };
    Some(PeerMessage {
        group,
        kind,
        from: NodeId(message.from),
        to: NodeId(message.to),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: Index(message.index),
        snapshot: (kind == MessageKind::InstallSnapshot)
            .then(|| from_raft_snapshot(group, message.get_snapshot())),
        entries: message.take_entries().into_iter().map(from_raft_entry).collect(),
        commit: Index(message.commit),
        commit_term: Term(message.commit_term),
        request_snapshot: Index(message.request_snapshot),
        reject: message.reject,
        reject_hint: Index(message.reject_hint),
        context: std::mem::take(&mut message.context),
        priority: message.priority,
        space: Space::Ample,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_kinds_map_one_to_one_in_the_order_of_their_numbers() {
        for (at, kind) in MessageKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at + 1);
            let raft = KINDS.get(at).map(|(kind, _)| *kind);
            assert_eq!(raft, kind.is_of_raft().then_some(kind));
        }
    }
}
