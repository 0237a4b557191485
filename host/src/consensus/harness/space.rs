//! Disks with little space left.

use super::*;

/// `election_ticks` of the harness.
const ELECTION: u64 = 10;
/// Enough for elections and for what is under way.
const SOME: u64 = 1 << 20;

impl Cluster {
    /// A node's disk has so much left from now on, and the leader hears of it as members tell it.
    fn set_space(&mut self, id: NodeId, space: Space, free: u64) {
        self.input(id, Input::Space(space, free));
    }

    fn tell_leader(&mut self, spaces: &[(NodeId, Space)]) {
        let Some(leader) = self.leader() else { return };
        for (id, space) in spaces.iter().filter(|(id, _)| *id != leader) {
            self.input(leader, Input::PeerSpace(*id, *space));
        }
    }

    fn followers(&self, leader: NodeId) -> Vec<NodeId> {
        self.alive().into_iter().filter(|id| *id != leader).collect()
    }
}

#[test]
fn a_leader_with_little_space_hands_over_to_the_one_with_most() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        let old = cluster.elect();
        cluster.propose_to(old, 5);
        cluster.run(20);
        let [low, ample] = cluster.followers(old)[..] else { panic!("three") };
        cluster.set_space(low, Space::Low, SOME);
        cluster.tell_leader(&[(low, Space::Low)]);
        cluster.set_space(old, Space::Low, SOME);
        cluster.run(ELECTION);
        assert_eq!(cluster.leader(), Some(old), "seed {seed}: nobody has said to have more");
        cluster.tell_leader(&[(ample, Space::Ample), (low, Space::Low)]);
        cluster.run(4 * ELECTION);
        assert_eq!(cluster.leader(), Some(ample), "seed {seed}");
        cluster.settle();
    }
}

#[test]
fn a_leader_leads_on_when_nobody_has_more_space() {
    let mut cluster = Cluster::new(1, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(20);
    for id in [1, 2, 3].map(NodeId) {
        cluster.set_space(id, Space::Critical, 0);
    }
    cluster.tell_leader(&[1, 2, 3].map(|id| (NodeId(id), Space::Critical)));
    cluster.run(10 * ELECTION);
    assert_eq!(cluster.leader(), Some(leader));
    let before = cluster.reads_answered;
    cluster.read(leader);
    cluster.run(ELECTION);
    assert!(cluster.reads_answered > before, "queries are answered");
}

#[test]
fn a_follower_whose_disk_is_full_takes_little_and_the_others_go_on() {
    let mut cluster = Cluster::new(2, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(20);
    let full = cluster.followers(leader)[0];
    cluster.set_space(full, Space::Critical, 0);
    let last = cluster.replica(full).status().last_index;
    for _ in 0..20 {
        cluster.propose_to(leader, 5);
        cluster.run(2);
    }
    cluster.run(ELECTION);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.replica(full).status().last_index, last, "there is no room for any");
    assert!(cluster.acknowledged.len() >= 100, "the others go on");
    cluster.set_space(full, Space::Ample, SOME);
    cluster.settle();
    assert!(cluster.replica(full).status().last_index > last);
}

#[test]
fn what_a_full_disk_still_takes_is_bounded() {
    let mut cluster = Cluster::new(3, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(20);
    let full = cluster.followers(leader)[0];
    cluster.set_space(full, Space::Critical, 4_000);
    let last = cluster.replica(full).status().last_index;
    for _ in 0..100 {
        cluster.propose_to(leader, 5);
        cluster.run(2);
    }
    let taken = cluster.replica(full).status().last_index.0 - last.0;
    assert!(taken > 0 && taken < 100, "a thousand bytes hold no {taken} entries");
    cluster.set_space(full, Space::Ample, SOME);
    cluster.settle();
}

#[test]
fn when_all_disks_are_critical_a_leader_is_found_all_the_same() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        let old = cluster.elect();
        cluster.propose_to(old, 5);
        cluster.run(20);
        for id in [1, 2, 3].map(NodeId) {
            cluster.set_space(id, Space::Critical, SOME);
        }
        cluster.crash(old);
        cluster.run_until("another leads", |cluster| {
            cluster.leader().is_some_and(|leader| leader != old)
        });
        let new = cluster.leader().expect("just seen");
        let before = cluster.reads_answered;
        cluster.read(new);
        cluster.run(4 * ELECTION);
        assert!(cluster.reads_answered > before, "seed {seed}: it has committed what it found");
        cluster.settle();
    }
}

#[test]
fn who_has_nothing_left_neither_votes_nor_campaigns() {
    let mut cluster = Cluster::new(4, &[1, 2, 3]);
    let old = cluster.elect();
    cluster.run(20);
    for id in cluster.followers(old) {
        cluster.set_space(id, Space::Critical, 0);
    }
    cluster.crash(old);
    cluster.run(20 * ELECTION);
    assert_eq!(cluster.leader(), None);
    for id in cluster.alive() {
        assert_eq!(cluster.replica(id).role(), Role::Follower);
        cluster.set_space(id, Space::Ample, SOME);
    }
    cluster.run_until("one leads", |cluster| cluster.leader().is_some());
    cluster.settle();
}

#[test]
fn the_only_voter_goes_on_whatever_its_disk_has() {
    let mut cluster = Cluster::new(5, &[1]);
    let me = cluster.elect();
    cluster.set_space(me, Space::Critical, 0);
    let before = cluster.acknowledged.len();
    cluster.propose_to(me, 5);
    cluster.run(2 * ELECTION);
    assert!(cluster.acknowledged.len() >= before + 5);
    cluster.crash(me);
    cluster.settle();
}

#[test]
fn with_little_space_no_log_is_kept_behind_a_snapshot() {
    let mut cluster = Cluster::new(6, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.propose_to(leader, 40);
    cluster.run(40);
    let follower = cluster.followers(leader)[0];
    cluster.take_snapshot(follower);
    cluster.run(2);
    let status = cluster.replica(follower).status();
    assert!(status.first_index <= status.snapshot, "some is kept for who lags");
    cluster.set_space(follower, Space::Low, SOME);
    cluster.run(2);
    let status = cluster.replica(follower).status();
    assert_eq!(status.first_index, status.snapshot.next());
    cluster.settle();
}
