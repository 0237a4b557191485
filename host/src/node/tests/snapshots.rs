//! Snapshots that are damaged, forged, or not there.

use super::*;
use crate::node::adopt;
use crate::storage::SnapshotSink;

use crate::transport::SnapshotWish;
use crate::types::{Index, LogPosition, MessageKind, SnapshotFate, Term};

fn clock() -> MonotonicClock {
    Arc::new(|| Duration::ZERO)
}

fn settle(node: &mut SteppedNode) {
    for _ in 0..20 {
        node.turn(true);
        while node.begin_write().is_some() {
            node.finish_write();
        }
        while node.has_log_read() {
            node.read_log();
        }
        while node.has_job() && node.stop_reason().is_none() {
            node.apply_next();
        }
        while node.has_save() {
            node.save_next();
        }
    }
}

fn start_again(stores: &Stores) -> Result<(SteppedNode, Arc<NodeInbox>, Arc<Peers>), StartError> {
    start_on(stores, NodeConfig::default(), Arc::new(NativeLoader), clock())
}

fn put(stores: &Stores, index: u64, term: u64, content: &[u8]) {
    let meta = SnapshotMeta {
        group: GroupId::MAIN,
        index: Index(index),
        term: Term(term),
        conf_state: ConfState { voters: [NodeId(1)].into(), ..ConfState::default() },
        size_bytes: 0,
        checksum: 0,
    };
    let mut sink: Box<dyn SnapshotSink> = stores.snapshots.create(meta).expect("created");
    sink.write_all(content).expect("written");
    sink.finish().expect("finished");
}

fn indexes(stores: &Stores) -> Vec<u64> {
    let listed = stores.snapshots.list(GroupId::MAIN).expect("listed");
    listed.iter().map(|meta| meta.index.0).collect()
}

/// A complete snapshot of anything at a far index, such as a stranger could store, made the node
/// unable to restart: it was the newest one, and the log was reset to it first of all.
#[test]
fn a_forged_or_rotten_newest_snapshot_stops_no_start_that_the_log_allows() {
    let (mut node, ..) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock());
    settle(&mut node);
    let stores = node.stores().clone();
    let (last, applied) = (node.status().last_index, node.machine().expect("one").applied_index());
    drop(node);
    let before = indexes(&stores);
    // A machine's snapshot, but of another index; and no snapshot at all.
    let genuine = {
        let newest = stores.snapshots.list(GroupId::MAIN).expect("listed")[0].clone();
        let (_, mut reader) = stores.snapshots.open(GroupId::MAIN, newest.index).expect("there");
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("read");
        content
    };
    put(&stores, 1 << 40, 7, &genuine);
    put(&stores, 1 << 50, 9, b"no snapshot of anything");

    let (mut node, ..) = start_again(&stores).expect("the state before will do");
    assert_eq!(indexes(&stores), before);
    settle(&mut node);
    assert!(node.status().last_index > last, "it leads again, in a new term");
    assert!(node.machine().expect("one").applied_index() > applied);
}

#[test]
fn a_damaged_snapshot_that_the_log_begins_after_is_named_and_nothing_is_changed() {
    let (mut node, ..) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock());
    settle(&mut node);
    let stores = node.stores().clone();
    drop(node);
    let newest = stores.snapshots.list(GroupId::MAIN).expect("listed")[0].clone();
    put(&stores, newest.index.0, newest.term.0, b"rotten");
    let (start, last) = (
        stores.log.start(GroupId::MAIN).expect("start"),
        stores.log.last_index(GroupId::MAIN).expect("last"),
    );
    let error = start_again(&stores).err().expect("nothing to go on from");
    let words = error.to_string();
    assert!(matches!(error, StartError::NoOlderState { .. }), "{words}");
    let named = format!("restoring the snapshot at index {}", newest.index);
    assert!(words.contains(&named) && words.contains("join again"), "{words}");
    assert_eq!(stores.log.start(GroupId::MAIN).expect("start"), start);
    assert_eq!(stores.log.last_index(GroupId::MAIN).expect("last"), last);
}

#[test]
fn a_members_state_takes_the_place_of_damaged_ones_and_nothing_that_was_voted_is_lost() {
    let (mut node, ..) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock());
    settle(&mut node);
    let (stores, applied) = (node.stores().clone(), node.machine().expect("one").applied_index());
    drop(node);
    let newest = stores.snapshots.list(GroupId::MAIN).expect("listed")[0].clone();
    let (_, mut content) = stores.snapshots.open(GroupId::MAIN, newest.index).expect("opened");
    let mut machine =
        Machine::restore(&mut content, CLUSTER, GroupId::MAIN, Arc::new(NativeLoader))
            .expect("restored");
    drop(content);
    let hard_state = stores.log.hard_state(GroupId::MAIN).expect("a hard state");
    put(&stores, newest.index.0, newest.term.0, b"rotten");
    start_again(&stores).err().expect("nothing to go on from");
    let older = LogPosition { index: Index(newest.index.0 - 1), term: newest.term };
    let error =
        adopt(&stores, GroupId::MAIN, older, &mut machine).expect_err("entries are missing");
    assert!(error.to_string().contains("entries are missing"), "{error}");
    adopt(&stores, GroupId::MAIN, newest.position(), &mut machine).expect("as good as its own");
    assert_eq!(stores.log.hard_state(GroupId::MAIN).expect("a hard state"), hard_state);
    let (mut node, ..) = start_again(&stores).expect("it goes on");
    settle(&mut node);
    assert!(node.machine().expect("one").applied_index() > applied, "with what its log holds");
    assert!(stores.log.hard_state(GroupId::MAIN).expect("a hard state").term > hard_state.term);
}

/// A leader whose newest snapshot had rotted offered it for ever, and a restart would have found
/// nothing to go on from.
#[test]
fn a_snapshot_that_cannot_be_sent_is_replaced_though_nothing_was_applied_since() {
    let (mut node, inbox, _) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock());
    settle(&mut node);
    let stores = node.stores().clone();
    let applied = node.machine().expect("one").applied_index();
    let (sender, mut saved) = tokio::sync::oneshot::channel();
    node.take_snapshot(sender);
    settle(&mut node);
    saved.try_recv().expect("answered").expect("saved");
    assert_eq!(indexes(&stores)[0], applied.0);
    put(&stores, applied.0, 1, b"rotten");

    inbox.snapshot_sent(GroupId::MAIN, NodeId(2), applied, SnapshotFate::Unreadable);
    settle(&mut node);
    assert_eq!(indexes(&stores)[0], applied.0);
    assert_eq!(node.status().snapshot, applied);
    drop(node);
    let (mut node, ..) = start_again(&stores).expect("it is a good one");
    assert_eq!(node.machine().expect("one").applied_index(), applied);
}

/// What is damaged in the log must not be there any more when the node starts again.
#[test]
fn a_log_can_be_dropped_up_to_the_newest_snapshot_whatever_is_kept_behind_it() {
    let (mut node, ..) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock());
    settle(&mut node);
    let stores = node.stores().clone();
    let applied = node.machine().expect("one").applied_index();
    let start_of = |stores: &Stores| stores.log.start(GroupId::MAIN).expect("start").index;
    let before = start_of(&stores);
    node.handle().compact_all();
    settle(&mut node);
    assert_eq!(start_of(&stores), before, "no snapshot covers what came since");
    let (sender, mut saved) = tokio::sync::oneshot::channel();
    node.take_snapshot(sender);
    settle(&mut node);
    saved.try_recv().expect("answered").expect("saved");
    assert_eq!(start_of(&stores), before, "kept for those who are a little behind");
    node.handle().compact_all();
    settle(&mut node);
    assert_eq!(start_of(&stores), applied);
    node.handle().replace_snapshot(applied);
    settle(&mut node);
    assert_eq!(indexes(&stores)[0], applied.0);
    drop(node);
    let (mut node, ..) = start_again(&stores).expect("nothing is missing");
    assert_eq!(node.machine().expect("one").applied_index(), applied);
}

fn announcing(from: u64, term: u64, index: u64, members: &[u64]) -> PeerMessage {
    let voters = members.iter().map(|id| NodeId(*id)).collect();
    PeerMessage {
        kind: MessageKind::InstallSnapshot,
        term: Term(term),
        snapshot: Some(SnapshotMeta {
            group: GroupId::MAIN,
            index: Index(index),
            term: Term(term.min(3)),
            conf_state: ConfState { voters, ..ConfState::default() },
            size_bytes: 1,
            checksum: 1,
        }),
        ..PeerMessage::digest_report(
            GroupId::MAIN,
            NodeId(from),
            NodeId(1),
            Index(0),
            crate::types::StateDigest([0; 32]),
        )
    }
}

/// Any complete snapshot of anybody was stored before Raft was asked.
#[test]
fn only_a_snapshot_that_raft_has_a_use_for_is_wanted() {
    let (mut node, inbox, _) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock());
    settle(&mut node);
    let (term, commit) = (node.term().0, node.status().commit.0);
    assert!(commit > 1 && term > 0);
    let wish = |message: PeerMessage| inbox.wants_snapshot(&message);
    let members = [1, 2];
    for (message, why) in [
        (announcing(2, term - 1, commit + 9, &members), "it is of term"),
        (announcing(2, term, commit + 9, &members), "another node leads"),
        (announcing(2, term + 1, 0, &members), "none that a leader can have"),
        (announcing(2, term + 1, commit + 9, &[1]), "does not name node 2"),
        (announcing(2, term + 1, commit + 9, &[2]), "does not name node 1"),
        (announcing(0, term + 1, commit + 9, &members), "no member"),
    ] {
        let refused = wish(message).expect_err(why);
        assert!(refused.contains(why), "{refused}");
    }
    let newer = announcing(2, term + 1, commit + 9, &members);
    assert_eq!(wish(newer), Ok(SnapshotWish::Content));
    let known = announcing(2, term + 1, commit - 1, &members);
    assert_eq!(wish(known), Ok(SnapshotWish::MessageOnly));
}

#[test]
fn a_node_without_a_state_wants_the_first_snapshot() {
    let (mut node, inbox, _) = start_again(&Stores::memory()).expect("waits for its leader");
    settle(&mut node);
    let first = announcing(2, 7, 900, &[1, 2]);
    assert_eq!(inbox.wants_snapshot(&first), Ok(SnapshotWish::Content));
}
