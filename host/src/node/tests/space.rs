//! What a node does whose disk has little space left.

use bytes::Bytes;

use super::*;
use crate::fsm::native::NULL;
use crate::node::{Command, Consistency, DiskStatus, NoSpace, ProposeFailure};
use crate::types::Space;

const MIB: u64 = 1 << 20;

fn settle(node: &mut SteppedNode) {
    for _ in 0..20 {
        node.turn(false);
        while node.begin_write().is_some() {
            node.finish_write();
        }
        while node.has_job() && node.stop_reason().is_none() {
            node.apply_next();
        }
        while node.has_save() {
            node.save_next();
        }
    }
    assert_eq!(node.stop_reason(), None);
}

fn command(bytes: usize) -> Request {
    Request::Command(Command { data: Bytes::from(vec![b'x'; bytes]), session: None })
}

/// A node alone in its cluster with a module.
fn alone() -> SteppedNode {
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, ..) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock);
    settle(&mut node);
    for body in module(NULL) {
        let mut answer = propose(&node, body);
        settle(&mut node);
        answer.try_recv().expect("answered").expect("applied");
    }
    node
}

fn report(node: &mut SteppedNode, space: Space, free: u64) {
    let disk = DiskStatus { space, free, low: 128 * MIB, ..DiskStatus::default() };
    node.handle().show_disk(disk);
    node.handle().report_space(space, free);
    settle(node);
}

#[test]
fn new_commands_are_refused_with_the_numbers_and_taken_again_by_itself() {
    let mut node = alone();
    for space in [Space::Low, Space::Critical] {
        report(&mut node, space, 21 * MIB);
        let last = node.status().last_index;
        for request in [
            command(1),
            Request::OpenSession { ttl_ms: 0, ordered: false },
            module(NULL).into_iter().next().expect("a part"),
        ] {
            let mut answer = propose(&node, request);
            let failure = answer.try_recv().expect("at once").expect_err("refused");
            let ProposeFailure::NoSpace(why) = &failure else { panic!("{failure}") };
            let (free, low) = (21 * MIB, 128 * MIB);
            assert_eq!(**why, NoSpace::Leader { node: NodeId(1), free, low });
            assert!(
                failure.to_string().contains("21.0 MiB left, and below 128.0 MiB"),
                "{failure}"
            );
            assert!(failure.surely_not_applied());
        }
        settle(&mut node);
        assert_eq!(node.status().last_index, last, "nothing was appended");
        // What is small and helps is taken.
        let mut answer = propose(&node, Request::CloseSession { session_id: 0 });
        settle(&mut node);
        answer.try_recv().expect("answered").expect("applied");
        assert_eq!(node.handle().not_serving(), None, "who leads answers queries");
    }
    report(&mut node, Space::Ample, 500 * MIB);
    let mut answer = propose(&node, command(1));
    settle(&mut node);
    answer.try_recv().expect("answered").expect("applied");
    assert_eq!(node.handle().not_serving(), None);
}

#[tokio::test]
async fn queries_and_snapshots_work_with_little_space() {
    let mut node = alone();
    report(&mut node, Space::Low, 21 * MIB);
    let handle = node.handle().clone();
    let asked = tokio::spawn(async move {
        handle.query(Bytes::from_static(b"x"), Consistency::Linearizable).await
    });
    while !asked.is_finished() {
        settle(&mut node);
        tokio::task::yield_now().await;
    }
    asked.await.expect("no panic").expect("an answer");
    let (caller, mut taken) = oneshot::channel();
    node.take_snapshot(caller);
    settle(&mut node);
    taken.try_recv().expect("answered").expect("a snapshot");
}

/// Of older snapshots one is kept, and none of the log that a new one covers, where there is room for it.
#[test]
fn what_can_be_freed_is_freed_when_space_is_low() {
    let mut node = alone();
    for _ in 0..3 {
        let mut answer = propose(&node, command(900 << 10));
        settle(&mut node);
        answer.try_recv().expect("answered").expect("applied");
    }
    let snapshots =
        |node: &SteppedNode| node.stores().snapshots.list(GroupId::MAIN).expect("listed").len();
    let before = node.status();
    assert!(before.snapshot < before.commit);
    report(&mut node, Space::Low, 1024);
    assert_eq!(node.status().snapshot, before.snapshot, "there is no room for another one");
    report(&mut node, Space::Low, 64 * MIB);
    let after = node.status();
    assert_eq!(after.snapshot, before.commit, "one is taken for the log");
    assert_eq!(after.first_index, after.snapshot.next());
    assert_eq!(snapshots(&node), 1);
}
