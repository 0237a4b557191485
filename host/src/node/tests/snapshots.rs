//! Snapshots that are damaged, forged, or not there.

use super::*;
use crate::storage::SnapshotSink;

use crate::types::{Index, SnapshotFate, Term};

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
