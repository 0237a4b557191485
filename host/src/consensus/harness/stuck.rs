//! Disks that do not answer.

use super::*;

/// `election_ticks` of the harness.
const ELECTION: u64 = 10;

/// From now on nothing reaches the leader's disk, and something is on its way to it.
fn hang(cluster: &mut Cluster, leader: NodeId) {
    cluster.stuck_disks.insert(leader);
    cluster.propose_to(leader, 3);
    assert!(!cluster.nodes[&leader].writes.is_empty());
}

#[test]
fn within_two_election_timeouts_somebody_else_leads_and_commits() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        let old = cluster.elect();
        cluster.propose_to(old, 5);
        cluster.run(20);
        hang(&mut cluster, old);
        cluster.run(2 * ELECTION);
        let new = cluster.leader().expect("somebody leads");
        assert_ne!(new, old, "seed {seed}: the stuck one leads on");
        assert_ne!(cluster.replica(old).role(), Role::Leader);
        cluster.propose_to(new, 5);
        let before = cluster.acknowledged.len();
        cluster.run(20 * ELECTION);
        assert!(cluster.acknowledged.len() > before, "seed {seed}: the others do not serve");
        assert!(
            !matches!(cluster.replica(old).role(), Role::Candidate | Role::PreCandidate),
            "seed {seed}: who cannot write does not campaign"
        );
        cluster.settle();
    }
}

#[test]
fn a_stuck_leader_that_nobody_relieves_stops_leading() {
    let mut cluster = Cluster::new(1, &[1, 2, 3]);
    let old = cluster.elect();
    cluster.run(20);
    hang(&mut cluster, old);
    // They hear and answer heartbeats, but no hand-over reaches them.
    for _ in 0..2 * ELECTION {
        cluster.network.retain(|sent| sent.message.kind != MessageKind::TimeoutNow);
        cluster.run(1);
    }
    assert_ne!(cluster.replica(old).role(), Role::Leader);
    cluster.run(4 * ELECTION);
    assert!(cluster.leader().is_some_and(|new| new != old), "the others elect");
    cluster.settle();
}

#[test]
fn a_stuck_follower_takes_no_entries_into_memory() {
    let mut cluster = Cluster::new(2, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(20);
    let stuck = cluster.alive().into_iter().find(|id| *id != leader).expect("a follower");
    cluster.stuck_disks.insert(stuck);
    cluster.propose_to(leader, 1);
    cluster.run(2 * ELECTION);
    assert!(cluster.replica(stuck).is_stuck());
    let last = cluster.replica(stuck).status().last_index;
    for _ in 0..50 {
        let leader = cluster.leader().expect("the disks of two answer");
        cluster.propose_to(leader, 5);
        cluster.run(2);
    }
    assert_eq!(cluster.replica(stuck).status().last_index, last);
    cluster.settle();
}

#[test]
fn a_stuck_voter_that_is_alone_goes_on_leading() {
    let mut cluster = Cluster::new(3, &[1]);
    let me = cluster.elect();
    hang(&mut cluster, me);
    cluster.run(10 * ELECTION);
    assert_eq!(cluster.leader(), Some(me));
    assert!(cluster.replica(me).is_stuck());
    cluster.stuck_disks.clear();
    cluster.run(2);
    assert!(!cluster.replica(me).is_stuck());
}
