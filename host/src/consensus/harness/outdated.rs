//! Old copies of a disk, and messages that only claim that a disk is one.

use super::*;
use crate::storage::{GroupWrite, StableStore as _};

/// Steps until a node refuses to go on, and what it says.
fn until_refused(cluster: &mut Cluster, node: NodeId) -> ReplicaError {
    for _ in 0..200 {
        let now = cluster.now + 1;
        let due: Vec<InFlight> = cluster
            .network
            .extract_if(.., |sent| sent.deliver_at <= now && sent.message.to == node)
            .collect();
        cluster.step();
        for InFlight { message, .. } in due {
            let replica = cluster.nodes.get_mut(&node).expect("known").replica.as_mut();
            if let Err(error) = replica.expect("it runs").step(Input::Message(message)) {
                return error;
            }
            cluster.drain(node);
        }
    }
    panic!("it goes on with a disk that is older than its promises");
}

/// What is on a disk now.
fn copy(log: &MemoryLog) -> MemoryLog {
    let (first, last) =
        (log.first_index(GROUP).expect("memory"), log.last_index(GROUP).expect("memory"));
    let write = GroupWrite {
        reset_to: Some(log.start(GROUP).expect("memory")),
        hard_state: Some(log.hard_state(GROUP).expect("memory")),
        entries: log.entries(GROUP, first..last.next(), u64::MAX).expect("memory"),
        compact_to: None,
    };
    let copy = MemoryLog::new();
    copy.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("memory");
    copy
}

fn heartbeat(from: NodeId, to: NodeId, term: Term, commit: Index) -> Input {
    let mut message = PeerMessage::digest_report(GROUP, from, to, Index(0), StateDigest([0; 32]));
    message.kind = MessageKind::Heartbeat;
    message.term = term;
    message.index = Index(0);
    message.commit = commit;
    message.context = Bytes::new();
    Input::Message(message)
}

#[test]
fn an_old_copy_of_a_disk_is_refused_in_words_and_not_by_a_panic() {
    let mut cluster = Cluster::new(1, &[1, 2, 3]);
    cluster.are_lies_told = true;
    let leader = cluster.elect();
    cluster.propose_to(leader, 5);
    cluster.run(20);
    let victim = cluster.alive().into_iter().find(|id| *id != leader).expect("a follower");
    let old = copy(&cluster.nodes[&victim].log);
    cluster.propose_to(leader, 20);
    cluster.run(20);
    let promised = cluster.replica(victim).status().last_index;
    cluster.crash(victim);
    cluster.nodes.get_mut(&victim).expect("known").log = Arc::new(old);
    cluster.start(victim);
    match until_refused(&mut cluster, victim) {
        ReplicaError::Outdated { leader: named, commit, last } => {
            assert_eq!(named, leader);
            assert!(last < commit && commit <= promised, "{last} {commit} {promised}");
        }
        other => panic!("another reason: {other}"),
    }
}

#[test]
fn a_forged_heartbeat_beyond_the_log_is_lost_on_a_follower_that_hears_its_leader() {
    let mut cluster = Cluster::new(2, &[1, 2, 3]);
    cluster.are_lies_told = true;
    let leader = cluster.elect();
    cluster.propose_to(leader, 5);
    cluster.run(20);
    let victim = cluster.alive().into_iter().find(|id| *id != leader).expect("a follower");
    for _ in 0..50 {
        let term = cluster.replica(victim).term();
        for _ in 0..10 {
            cluster.input(victim, heartbeat(leader, victim, term, Index(1_000_000)));
        }
        cluster.step();
    }
    let status = cluster.replica(victim).status();
    assert_eq!(status.leader, Some(leader));
    assert!(status.commit <= status.last_index);
    cluster.settle();
}
