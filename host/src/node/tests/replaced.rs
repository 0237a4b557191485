//! A leader that is deposed, and those who wait for what it appended.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::consensus::Role;
use crate::node::{Command, ProposeFailure};
use crate::storage::{GroupWrite, WriteBatch};
use crate::types::{EntryKind, Index, LogPosition, MessageKind, Term};

/// Stores of a node of three voters, formed at index 1.
pub(super) fn stores_of_three(loader: &SharedLoader) -> Stores {
    let stores = Stores::memory();
    let members: Vec<Member> =
        (1..=3).map(|id| Member { id: NodeId(id), address: format!("node-{id}:1") }).collect();
    let voters = members.iter().map(|member| member.id).collect();
    let conf_state = ConfState { voters, ..Default::default() };
    let mut machine =
        Machine::new(identity().cluster, GroupId::MAIN, Limits::default(), Arc::clone(loader));
    machine.bootstrap_members(Index(1), members, conf_state.clone());
    let meta = SnapshotMeta {
        group: GroupId::MAIN,
        index: Index(1),
        term: Term(1),
        conf_state,
        size_bytes: 0,
        checksum: 0,
    };
    let image = machine.capture().expect("captured");
    let meta = crate::node::apply::save(&*stores.snapshots, 1, meta, &image).expect("saved");
    let write = crate::consensus::bootstrap_write(meta.position());
    stores.log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] }).expect("in memory");
    stores
}

pub(super) fn from_two(kind: MessageKind, term: Term) -> PeerMessage {
    PeerMessage { term, ..PeerMessage::bare(GroupId::MAIN, kind, NodeId(2), NodeId(1)) }
}

pub(super) fn step(node: &mut SteppedNode, tick: bool) {
    node.turn(tick);
    while let Some(GroupWrite { .. }) = node.begin_write() {
        node.finish_write();
    }
    while node.has_job() {
        node.apply_next();
    }
}

pub(super) fn lead(node: &mut SteppedNode, inbox: &NodeInbox) {
    while node.role() != Role::PreCandidate {
        step(node, true);
    }
    inbox.deliver(vec![from_two(MessageKind::RequestPreVoteResponse, Term(node.term().0 + 1))]);
    step(node, false);
    assert_eq!(node.role(), Role::Candidate);
    inbox.deliver(vec![from_two(MessageKind::RequestVoteResponse, node.term())]);
    step(node, false);
    assert_eq!(node.role(), Role::Leader);
}

fn ask(node: &SteppedNode) -> oneshot::Receiver<crate::node::ProposeResult> {
    propose(node, Command { data: Bytes::from_static(b"x"), session: None }.into())
}

/// It waited until its index was applied, which on this node may be never, and kept its share of
/// what may be in flight. What it is told is not that its command surely does not happen: the node
/// that voted may have the entry, and lead next.
#[test]
fn whoever_waits_for_an_entry_that_is_replaced_is_told_at_once_that_its_fate_is_unknown() {
    let loader: SharedLoader = Arc::new(NativeLoader);
    let stores = stores_of_three(&loader);
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, inbox, _) =
        start_on(&stores, NodeConfig::default(), loader, clock).expect("starts");
    lead(&mut node, &inbox);
    let mut answer = ask(&node);
    let mut gone = ask(&node);
    gone.close();
    step(&mut node, false);
    assert!(node.handle().inflight_bytes() > 0);
    assert!(answer.try_recv().is_err(), "not committed yet");

    let term = Term(node.term().0 + 1);
    let before = LogPosition { index: Index(1), term: Term(1) };
    let theirs = LogEntry {
        index: before.index.next(),
        term,
        kind: EntryKind::Normal,
        data: Bytes::new(),
        context: Bytes::new(),
    };
    inbox.deliver(vec![PeerMessage {
        index: before.index,
        log_term: before.term,
        entries: vec![theirs],
        ..from_two(MessageKind::AppendEntries, term)
    }]);
    step(&mut node, false);
    let failure = answer.try_recv().expect("answered").expect_err("not done");
    assert!(matches!(failure, ProposeFailure::Unknown(_)), "{failure}");
    assert!(!failure.surely_not_applied());
    assert_eq!(node.handle().inflight_bytes(), 0);
}

/// An isolated leader's entries may never be applied, nor replaced.
#[test]
fn whoever_went_away_holds_nothing_back() {
    let loader: SharedLoader = Arc::new(NativeLoader);
    let stores = stores_of_three(&loader);
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, inbox, _) =
        start_on(&stores, NodeConfig::default(), loader, clock).expect("starts");
    lead(&mut node, &inbox);
    let gone = ask(&node);
    step(&mut node, false);
    assert!(node.handle().inflight_bytes() > 0);
    drop(gone);
    for _ in 0..NodeConfig::default().election_ticks() {
        step(&mut node, true);
    }
    assert_eq!(node.handle().inflight_bytes(), 0);
}

#[cfg(feature = "museum")]
#[test]
fn to_call_a_replaced_entry_superseded_is_caught() {
    use crate::museum::{self, Exhibit};

    let _on = museum::exhibit(Some(Exhibit::TruncatedAsSuperseded));
    let test = whoever_waits_for_an_entry_that_is_replaced_is_told_at_once_that_its_fate_is_unknown;
    assert!(std::panic::catch_unwind(test).is_err(), "it goes unnoticed");
}
