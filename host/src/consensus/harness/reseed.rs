//! Replicas whose machine is not trusted get a state from their leader, and lose nothing.

use super::*;

impl Cluster {
    fn installed(&self, id: NodeId) -> u64 {
        self.nodes[&id].installed
    }

    fn is_trusted(&self, id: NodeId) -> bool {
        self.nodes[&id].replica.as_ref().is_some_and(|replica| !replica.is_quarantined())
    }

    /// Until it has a state from a leader.
    fn heal(&mut self, id: NodeId) {
        let before = self.installed(id);
        self.run_until("a fresh state", |cluster| {
            cluster.installed(id) > before && cluster.is_trusted(id)
        });
    }

    fn split(&mut self, from: NodeId) {
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.cut.insert((from, other));
            self.cut.insert((other, from));
        }
    }
}

fn other(cluster: &Cluster, than: &[NodeId]) -> NodeId {
    let found = cluster.nodes.keys().find(|id| !than.contains(id));
    *found.expect("enough nodes")
}

#[test]
fn a_follower_is_given_a_state_although_its_log_is_complete() {
    let mut cluster = Cluster::new(31, &[1, 2, 3]);
    let leader = cluster.elect();
    let suspect = other(&cluster, &[leader]);
    cluster.propose_to(leader, 10);
    cluster.run(20);
    cluster.input(suspect, Input::Quarantined);
    cluster.heal(suspect);
    cluster.propose_to(leader, 10);
    cluster.settle();
}

#[test]
fn a_learner_is_given_one_too() {
    let mut cluster = Cluster::new(32, &[1, 2, 3]);
    cluster.add_node(NodeId(4), None);
    cluster.change(ConfChangeOp::AddLearner, 4);
    cluster.run_until("the learner has a state", |c| c.nodes[&NodeId(4)].applied > Index(1));
    cluster.run(50);
    cluster.input(NodeId(4), Input::Quarantined);
    cluster.heal(NodeId(4));
    cluster.settle();
}

#[test]
fn a_follower_is_given_a_state_while_commands_never_stop() {
    let mut cluster = Cluster::new(33, &[1, 2, 3]);
    let leader = cluster.elect();
    let suspect = other(&cluster, &[leader]);
    cluster.faults = Faults { max_delay: 3, ..CALM };
    cluster.input(suspect, Input::Quarantined);
    for _ in 0..100 {
        cluster.propose_to(leader, 3);
        cluster.step();
    }
    assert!(cluster.installed(suspect) > 0, "the log never came to rest");
    assert!(cluster.is_trusted(suspect));
    cluster.settle();
}

/// The others need its acknowledgement of what its log has, and its vote.
#[test]
fn with_one_node_down_the_two_others_go_on() {
    let mut cluster = Cluster::new(34, &[1, 2, 3]);
    let leader = cluster.elect();
    let suspect = other(&cluster, &[leader]);
    cluster.crash(other(&cluster, &[leader, suspect]));
    cluster.propose_to(leader, 5);
    cluster.input(suspect, Input::Quarantined);
    cluster.propose_to(leader, 5);
    cluster.heal(suspect);
    let before = cluster.acknowledged.len();
    cluster.propose_to(leader, 5);
    cluster.run_until("commits", |cluster| cluster.acknowledged.len() >= before + 5);
    cluster.settle();
}

#[test]
fn a_leader_hands_over_and_is_given_a_state_by_its_successor() {
    let mut cluster = Cluster::new(35, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.propose_to(leader, 10);
    cluster.run(20);
    let also_suspect = other(&cluster, &[leader]);
    let successor = other(&cluster, &[leader, also_suspect]);
    cluster.input(leader, Input::Distrusted([leader, also_suspect].into()));
    cluster.input(leader, Input::Quarantined);
    cluster.heal(leader);
    let new = cluster.leader();
    assert_eq!(new, Some(successor), "one that can be trusted leads");
    cluster.settle();
}

/// It was asked for a state that the next leader, which lacks an entry of the last one, may never
/// be able to give: it needs the asking replica to commit anything.
#[test]
fn a_request_does_not_outlive_its_leader() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(3_500 + seed, &[1, 2, 3]);
        let old = cluster.elect();
        let suspect = other(&cluster, &[old]);
        let third = other(&cluster, &[old, suspect]);
        cluster.run(20);
        cluster.split(third);
        cluster.propose_to(old, 4);
        cluster.input(suspect, Input::Quarantined);
        // No snapshot comes of it.
        cluster.cut.insert((old, suspect));
        cluster.run(seed);
        cluster.crash(old);
        cluster.cut.clear();
        cluster.run_until("a new leader that commits, and a fresh state", |cluster| {
            cluster.is_trusted(suspect) && cluster.installed(suspect) > 0
                || cluster.nodes[&suspect].applied > cluster.nodes[&third].applied
                    && cluster.leader().is_none_or(|leader| leader == old)
        });
        cluster.settle();
    }
}

#[test]
fn it_votes_but_campaigns_only_when_nobody_else_was_elected_for_long() {
    let mut cluster = Cluster::new(36, &[1, 2, 3]);
    let leader = cluster.elect();
    let suspect = other(&cluster, &[leader]);
    let third = other(&cluster, &[leader, suspect]);
    cluster.run(20);
    cluster.input(suspect, Input::Quarantined);
    cluster.crash(leader);
    cluster.run_until("the third leads, with its vote", |c| c.leader() == Some(third));

    // Alone with its log it may campaign at last, and does not keep what it wins.
    let mut cluster = Cluster::new(37, &[1, 2, 3]);
    let leader = cluster.elect();
    let suspect = other(&cluster, &[leader]);
    let third = other(&cluster, &[leader, suspect]);
    cluster.run(20);
    cluster.split(third);
    cluster.propose_to(leader, 3);
    cluster.run_until("it has what the third has not", |cluster| {
        let status = cluster.replica(suspect).status();
        status.commit == status.last_index && status.commit > Index(4)
    });
    cluster.crash(leader);
    // Nobody answers until the third can be reached again.
    cluster.input(suspect, Input::Quarantined);
    cluster.cut.clear();
    cluster.run_until("the third leads, with all that was acknowledged", |cluster| {
        cluster.leader() == Some(third) && cluster.is_trusted(suspect)
    });
    cluster.settle();
}

#[test]
fn a_quarantined_replica_gives_nobody_its_snapshots() {
    let mut cluster = Cluster::new(38, &[1, 2, 3]);
    let leader = cluster.elect();
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    cluster.propose_to(leader, 5);
    cluster.run(20);
    cluster.take_snapshot(leader);
    cluster.input(leader, Input::Quarantined);
    cluster.add_node(NodeId(4), None);
    let heard = cluster.trace.len();
    cluster.heal(leader);
    let sent = format!(" {leader}->");
    let mut snapshots =
        cluster.trace[heard..].iter().filter(|line| line.contains("InstallSnapshot"));
    assert!(snapshots.all(|line| !line.contains(&sent)), "only others send theirs: {others:?}");
    cluster.settle();
}

/// Suspects everywhere while messages are lost, nodes crash and leaders change: nothing that was
/// acknowledged is lost, and every suspect has a fresh state in the end.
#[test]
fn acknowledged_entries_survive_suspects_in_a_storm() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(4_000 + seed, &[1, 2, 3]);
        cluster.limits.trailing_logs = 1 + seed % 20;
        for id in 1..=3 {
            cluster.crash(NodeId(id));
            cluster.start(NodeId(id));
        }
        cluster.faults = STORMY;
        for _ in 0..6 {
            scenarios::storm(&mut cluster, 60);
            let alive = cluster.alive();
            if let Some(suspect) = alive.get(seed as usize % alive.len().max(1)) {
                // One that is led by a node that can be trusted.
                if alive.iter().all(|id| cluster.is_trusted(*id)) {
                    let (suspect, all) = (*suspect, alive.clone());
                    for id in all {
                        cluster.input(id, Input::Distrusted([suspect].into()));
                    }
                    cluster.input(suspect, Input::Quarantined);
                }
            }
        }
        cluster.settle();
        let nodes = cluster.alive();
        cluster
            .run_until("all are trusted", |cluster| nodes.iter().all(|id| cluster.is_trusted(*id)));
        cluster.settle();
    }
}
