//! What peers are sent, and how much of it.
//!
//! raft-rs sends what was just proposed at once. All older entries leave from here: from memory, or
//! from what was fetched, and to no peer more than it has acknowledged but for a window in bytes
//! (`consensus.append_window_bytes`). So what is on the way to a peer fits the transport's queue, no
//! message is larger than what a peer takes, and nothing is read that cannot be sent.

use std::collections::VecDeque;

use raft::{ProgressState, StateRole, eraftpb};

use super::Replica;
use crate::consensus::convert;
use crate::consensus::effects::LogReader;
use crate::museum::{self, Exhibit};
use crate::types::{Index, MessageKind, NodeId, PeerMessage, Term};

/// What was sent to a peer and is not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// The last index and the bytes of each message with entries.
    sent: VecDeque<(Index, u64)>,
    bytes: u64,
    /// The highest commit index that an append to it has named.
    told: Index,
}

impl Flow {
    fn add(&mut self, last: Index, bytes: u64) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn acknowledge(&mut self, matched: Index) {
        while self.sent.front().is_some_and(|(last, _)| *last <= matched) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, bytes)) = self.sent.pop_front() {
            self.bytes -= bytes;
        }
    }
}

impl Replica {
    fn window_bytes(&self) -> u64 {
        match museum::is_on(Exhibit::UnboundedAppends) {
            true => u64::MAX,
            false => self.config.limits.append_window_bytes,
        }
    }

    fn is_full(&self, peer: NodeId) -> bool {
        self.flows.get(&peer).is_some_and(|flow| flow.bytes >= self.window_bytes())
    }

    /// A full window whose messages were lost would stay full; raft-rs does the same for its count
    /// of messages. What is sent then shows the peer what it misses.
    pub(super) fn on_heartbeat_response(&mut self, from: NodeId) {
        if self.is_full(from)
            && let Some(flow) = self.flows.get_mut(&from)
        {
            flow.forget_first();
        }
    }

    /// Sends to all peers what they lack and may be sent.
    pub(super) fn feed_peers(&mut self) {
        if self.raw.raft.state != StateRole::Leader {
            self.flows.clear();
            self.fetches.forget_peers();
            return;
        }
        let mut peers: Vec<NodeId> =
            self.raw.raft.prs().iter().map(|(id, _)| NodeId(*id)).collect();
        peers.retain(|peer| *peer != self.config.node);
        peers.sort_unstable();
        self.flows.retain(|peer, _| peers.binary_search(peer).is_ok());
        for peer in peers {
            self.note_progress(peer);
            // Before, because what was acknowledged makes room; after, because it may be used up.
            self.limit_new_entries(peer);
            self.feed(peer);
            self.limit_new_entries(peer);
        }
    }

    fn note_progress(&mut self, peer: NodeId) {
        let flow = self.flows.entry(peer).or_default();
        match self.raw.raft.prs().get(peer.0) {
            Some(progress) if progress.state == ProgressState::Replicate => {
                flow.acknowledge(Index(progress.matched));
            }
            // Looked for anew: raft-rs forgets as well what was on its way.
            _ => *flow = Flow::default(),
        }
    }

    fn feed(&mut self, peer: NodeId) {
        let reader = LogReader::Peer(peer);
        let last = Index(self.raw.raft.raft_log.last_index());
        let fetched = self.fetches.take(reader);
        self.raw.mut_store().begin_sending(fetched);
        let mut missing = None;
        let mut sent = 0;
        while let Some(next) = self.next_for(peer, last) {
            let used = self.flows.get(&peer).map_or(0, |flow| flow.bytes) + sent;
            if used >= self.window_bytes() {
                break;
            }
            if !self.raw.store().can_send(next) {
                missing = Some(next);
                break;
            }
            let before = self.raw.raft.msgs.len();
            self.raw.raft.send_append(peer.0);
            let Some(message) = self.raw.raft.msgs.get(before) else { break };
            sent += message.entries.iter().map(cost_bytes).sum::<u64>();
        }
        let fetched = self.raw.mut_store().end_sending();
        if let Some(next) = missing {
            // What has come is not what this peer needs now.
            self.fetch(reader, next, last);
        } else if let Some(progress) = self.raw.raft.prs().get(peer.0)
            && self.raw.store().needs_fetched(Index(progress.next_idx), &fetched)
        {
            self.fetches.put_back(reader, fetched);
        }
    }

    /// The entry that a peer can be sent next, if there is one and raft-rs would send it.
    fn next_for(&self, peer: NodeId, last: Index) -> Option<Index> {
        let progress = self.raw.raft.prs().get(peer.0)?;
        let next = Index(progress.next_idx);
        let is_waiting = progress.is_paused()
            || progress.pending_request_snapshot != raft::INVALID_INDEX
            || next > last
            // raft-rs sends a snapshot with the next heartbeat.
            || next <= self.raw.store().start().index;
        (!is_waiting).then_some(next)
    }

    /// raft-rs sends what is proposed without asking here, so it is told when there is too much.
    fn limit_new_entries(&mut self, peer: NodeId) {
        let most = if self.is_full(peer) { 1 } else { self.config.limits.max_inflight_messages };
        self.raw.raft.adjust_max_inflight_msgs(peer.0, most);
    }

    /// Tells peers what is committed that no append has told them since. An append just for that at each
    /// commit would be half of all messages; the next entries say it, too, and so does each heartbeat
    /// that confirms a read. Learned a tick later, it delays nobody but who reads a peer's state as it is.
    pub(super) fn tell_commit(&mut self) {
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        let committed = Index(self.raw.raft.raft_log.committed);
        for (peer, flow) in &self.flows {
            let Some(progress) = self.raw.raft.prs().get(peer.0) else { continue };
            let is_fed = progress.state == ProgressState::Replicate && !progress.is_paused();
            if is_fed && flow.told < committed && flow.told < Index(progress.matched) {
                self.raw.raft.send_append(peer.0);
            }
        }
    }

    /// Messages of raft-rs, as they leave: appends to one peer that follow each other are sent as
    /// one, up to `consensus.max_append_bytes`.
    ///
    /// Only what this node says itself leaves: raft-rs hands reads that reach a follower on in the
    /// name of who asked, which peers refuse. Who asked asks the leader itself once it knows it.
    pub(super) fn outgoing(&mut self, messages: Vec<eraftpb::Message>) -> Vec<PeerMessage> {
        let max_bytes = match museum::is_on(Exhibit::UnboundedAppends) {
            true => u64::MAX,
            false => self.config.limits.max_append_bytes,
        };
        let mut out: Vec<PeerMessage> = Vec::with_capacity(messages.len());
        for message in messages {
            if message.from != self.config.node.0 && !museum::is_on(Exhibit::AskedForOthers) {
                continue;
            }
            let Some(message) = convert::from_raft_message(self.config.group, message) else {
                continue;
            };
            self.note_sent(&message);
            let mut rest = Some(message);
            while let Some(message) = rest {
                let (message, more) = split(message, max_bytes);
                rest = more;
                let earlier = out.iter_mut().rfind(|earlier| earlier.to == message.to);
                let alone = join(earlier, message, max_bytes);
                out.extend(alone);
            }
        }
        out
    }

    fn note_sent(&mut self, message: &PeerMessage) {
        if message.kind != MessageKind::AppendEntries {
            return;
        }
        let flow = self.flows.entry(message.to).or_default();
        flow.told = flow.told.max(message.commit);
        if let Some(last) = message.entries.last() {
            flow.add(last.index, entries_bytes(message));
        }
    }
}

/// As [`crate::types::LogEntry::cost_bytes`].
fn cost_bytes(entry: &eraftpb::Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 32) as u64
}

fn entries_bytes(message: &PeerMessage) -> u64 {
    message.entries.iter().map(|entry| entry.cost_bytes()).sum()
}

/// Where a message's entries end, or the position that it names when it has none.
fn end_of(message: &PeerMessage) -> (Index, Term) {
    message
        .entries
        .last()
        .map_or((message.index, message.log_term), |entry| (entry.index, entry.term))
}

/// Cuts an append off where it becomes too large; one entry always fits. raft-rs counts bytes
/// otherwise than we do.
fn split(mut message: PeerMessage, max_bytes: u64) -> (PeerMessage, Option<PeerMessage>) {
    let mut bytes: u64 = 0;
    let fitting = message.entries.iter().take_while(|entry| {
        bytes = bytes.saturating_add(entry.cost_bytes());
        bytes <= max_bytes
    });
    let count = fitting.count().max(1);
    if message.kind != MessageKind::AppendEntries || message.entries.len() <= count {
        return (message, None);
    }
    let rest = message.entries.split_off(count);
    let (index, log_term) = end_of(&message);
    let more = PeerMessage { index, log_term, entries: rest, ..message.clone() };
    (message, Some(more))
}

/// Adds an append to an earlier one to the same peer. Gives it back if it does not follow that, or
/// if both together were too large.
fn join(
    earlier: Option<&mut PeerMessage>,
    message: PeerMessage,
    max_bytes: u64,
) -> Option<PeerMessage> {
    let Some(earlier) = earlier else { return Some(message) };
    let are_appends = earlier.kind == MessageKind::AppendEntries
        && message.kind == MessageKind::AppendEntries
        && earlier.term == message.term;
    let follows = end_of(earlier) == (message.index, message.log_term);
    let fits = message.entries.is_empty()
        || entries_bytes(earlier).saturating_add(entries_bytes(&message)) <= max_bytes;
    if !(are_appends && follows && fits) {
        return Some(message);
    }
    earlier.entries.extend(message.entries);
    earlier.commit = earlier.commit.max(message.commit);
    None
}

/// Adds a message to those that leave with it. What is acknowledged up to somewhere is acknowledged up to
/// all before.
pub(super) fn outdo(messages: &mut Vec<PeerMessage>, later: PeerMessage) {
    let says_more = |earlier: &PeerMessage| {
        let accepts = |message: &PeerMessage| {
            message.kind == MessageKind::AppendEntriesResponse && !message.reject
        };
        accepts(earlier)
            && accepts(&later)
            && (earlier.to, earlier.term) == (later.to, later.term)
            && earlier.index <= later.index
    };
    match messages.last_mut() {
        Some(earlier) if says_more(earlier) => *earlier = later,
        _ => messages.push(later),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{EntryKind, GroupId, LogEntry};

    fn message() -> PeerMessage {
        PeerMessage {
            group: GroupId::MAIN,
            kind: MessageKind::AppendEntries,
            from: NodeId(1),
            to: NodeId(2),
            term: Term(3),
            log_term: Term(3),
            index: Index(0),
            entries: Vec::new(),
            commit: Index(0),
            commit_term: Term(0),
            snapshot: None,
            request_snapshot: Index(0),
            reject: false,
            reject_hint: Index(0),
            context: Bytes::new(),
            priority: 0,
            space: Default::default(),
        }
    }

    fn append(after: u64, bytes: &[usize]) -> PeerMessage {
        let entries = (after + 1..).zip(bytes).map(|(index, bytes)| LogEntry {
            index: Index(index),
            term: Term(3),
            kind: EntryKind::Normal,
            data: Bytes::from(vec![0; *bytes]),
            context: Bytes::new(),
        });
        PeerMessage { index: Index(after), entries: entries.collect(), ..message() }
    }

    #[test]
    fn an_append_that_is_too_large_becomes_several_that_follow_each_other() {
        let (first, more) = split(append(4, &[10, 10, 500, 10]), 100);
        let (second, more) = split(more.expect("more than fits"), 100);
        let (third, more) = split(more.expect("more than fits"), 100);
        assert_eq!(more, None);
        let parts: Vec<(u64, usize)> =
            [first, second, third].iter().map(|part| (part.index.0, part.entries.len())).collect();
        assert_eq!(parts, [(4, 2), (6, 1), (7, 1)]);
    }

    #[test]
    fn appends_are_joined_only_where_they_follow_and_fit() {
        let mut first = append(4, &[10, 10]);
        assert_eq!(join(Some(&mut first), append(6, &[10]), 1000), None);
        assert_eq!(first.entries.len(), 3);
        // A gap, or the same entries again.
        assert!(join(Some(&mut first), append(8, &[10]), 1000).is_some());
        assert!(join(Some(&mut first), append(6, &[10]), 1000).is_some());
        // An empty append at the beginning of a position is no place for what comes later.
        assert!(join(Some(&mut append(4, &[])), append(6, &[1]), 1000).is_some());
        // Too large, by a byte.
        assert!(join(Some(&mut first), append(7, &[10]), 4 * 42 - 1).is_some());
        assert_eq!(join(Some(&mut first), append(7, &[10]), 4 * 42), None);
        // News of the commit index cost nothing.
        let news = PeerMessage { commit: Index(8), ..append(8, &[]) };
        assert_eq!(join(Some(&mut first), news, 1), None);
        assert_eq!((first.entries.len(), first.commit), (4, Index(8)));
    }
    #[test]
    fn an_acknowledgement_takes_the_place_of_an_earlier_one_to_the_same_leader() {
        let ack = |index, to, term| PeerMessage {
            kind: MessageKind::AppendEntriesResponse,
            index: Index(index),
            to: NodeId(to),
            term: Term(term),
            ..message()
        };
        let rejection = PeerMessage { reject: true, ..ack(9, 2, 3) };
        let steps = [
            (ack(4, 2, 3), 1),
            (ack(6, 2, 3), 1),
            // Another leader, an earlier index, a rejection, and what follows one.
            (ack(6, 1, 3), 2),
            (ack(7, 1, 4), 3),
            (ack(5, 1, 4), 4),
            (rejection, 5),
            (ack(9, 2, 3), 6),
            (append(4, &[1]), 7),
        ];
        let mut messages = Vec::new();
        for (later, count) in steps {
            outdo(&mut messages, later.clone());
            assert_eq!((messages.len(), messages.last()), (count, Some(&later)));
        }
    }
}
