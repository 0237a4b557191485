//! How much is sent, kept and read, and by whom.

use super::*;
use crate::storage::LogStore as _;

/// Ten entries of the harness to a message, four messages to a window, five entries in memory.
fn tight(cluster: &mut Cluster) {
    cluster.limits.max_append_bytes = 400;
    cluster.limits.append_window_bytes = 1_600;
    cluster.limits.entry_cache_bytes = 200;
    let all: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in all {
        // The limits count from the next start on.
        cluster.crash(id);
        cluster.start(id);
    }
}

fn other_than(leader: NodeId) -> NodeId {
    NodeId(if leader == NodeId(1) { 2 } else { 1 })
}

fn isolate(cluster: &mut Cluster, node: NodeId) {
    let all: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in all {
        cluster.cut.insert((node, id));
        cluster.cut.insert((id, node));
    }
}

/// Bytes of entries that are on their way from one node to another.
fn on_the_way(cluster: &Cluster, from: NodeId, to: NodeId) -> u64 {
    let between = |sent: &&InFlight| sent.message.from == from && sent.message.to == to;
    cluster.network.iter().filter(between).map(|sent| bytes(&sent.message)).sum()
}

/// With `batch_append`, raft-rs joined all that a follower lacked into one message, which no
/// transport took.
#[test]
fn a_follower_far_behind_catches_up_by_log_in_messages_that_a_transport_takes() {
    let mut cluster = Cluster::new(31, &[1, 2, 3]);
    tight(&mut cluster);
    let leader = cluster.elect();
    let follower = other_than(leader);
    isolate(&mut cluster, follower);
    for _ in 0..100 {
        cluster.propose_to(leader, 20);
        cluster.run(3);
    }
    let lag = 2_000 * 40;
    let read_before = cluster.nodes[&leader].read_bytes;
    cluster.cut.clear();
    let last = cluster.replica(leader).status().last_index;
    let mut most = 0;
    while cluster.nodes[&follower].applied < last {
        cluster.step();
        most = most.max(on_the_way(&cluster, leader, follower));
        assert!(cluster.now < 5_000, "it does not catch up");
    }
    assert_eq!(cluster.nodes[&follower].installed, 0, "by log, not by snapshot");
    // Messages that are as long as allowed are asserted wherever one is sent.
    assert!(
        cluster.longest_append > 300,
        "{} bytes: entries travel together",
        cluster.longest_append
    );
    assert!(most <= 1_600 + 400, "{most} bytes are on their way at once");
    let read = cluster.nodes[&leader].read_bytes - read_before;
    assert!(read <= lag + lag / 4, "{read} bytes are read to send {lag}");
    cluster.settle();
}

/// A transport that cannot send says so, and what it dropped is sent again, from where the follower
/// is.
#[test]
fn appends_that_a_transport_drops_are_sent_again() {
    let mut cluster = Cluster::new(32, &[1, 2, 3]);
    tight(&mut cluster);
    let leader = cluster.elect();
    let follower = other_than(leader);
    cluster.propose_to(leader, 200);
    for round in 0..40 {
        cluster.run(1);
        if round % 2 == 0 {
            cluster.network.retain(|sent| {
                sent.message.to != follower || sent.message.kind != MessageKind::AppendEntries
            });
            cluster.input(leader, Input::Unreachable(follower));
        }
    }
    cluster.run_until("the follower has all", |cluster| {
        cluster.nodes[&follower].applied >= cluster.replica(leader).status().last_index
    });
    cluster.settle();
}

/// Committed entries were handed out one by one however full the queue of the machine was.
#[test]
fn what_a_slow_machine_has_yet_to_apply_waits_in_the_log_and_not_in_memory() {
    let mut cluster = Cluster::new(33, &[1, 2, 3]);
    cluster.limits.max_unapplied_bytes = 1_000;
    tight(&mut cluster);
    let leader = cluster.elect();
    let follower = other_than(leader);
    let waiting = |cluster: &Cluster| -> u64 {
        let tasks = cluster.nodes[&follower].tasks.iter();
        tasks
            .map(|task| match task {
                ApplyTask::Entries(entries) => {
                    entries.iter().map(|committed| committed.entry.cost_bytes()).sum()
                }
                ApplyTask::Install(_) => 0,
            })
            .sum()
    };
    cluster.stuck_machines.insert(follower);
    for _ in 0..100 {
        cluster.propose_to(leader, 5);
        cluster.run(4);
        assert!(waiting(&cluster) <= 1_000 + 400, "{} bytes wait", waiting(&cluster));
    }
    assert!(waiting(&cluster) >= 1_000);
    let status = cluster.replica(follower).status();
    assert!(status.commit.0 > cluster.nodes[&follower].applied.0 + 400, "it knows of them");
    cluster.stuck_machines.clear();
    cluster.settle();
}

/// What an entry says is not known yet where it is only committed. Raft counts the membership changes
/// among such entries before it campaigns; it read them all for that.
#[test]
fn a_node_with_a_membership_change_that_it_has_yet_to_apply_does_not_campaign() {
    let mut cluster = Cluster::new(34, &[1, 2, 3]);
    tight(&mut cluster);
    let leader = cluster.elect();
    let follower = other_than(leader);
    cluster.stuck_machines.insert(follower);
    cluster.add_node(NodeId(4), None);
    cluster.change(ConfChangeOp::AddLearner, 4);
    cluster.run(60);
    assert!(cluster.replica(follower).status().commit > cluster.nodes[&follower].applied);
    for _ in 0..3 {
        cluster.input(follower, Input::Campaign);
    }
    assert_eq!(cluster.replica(follower).role(), Role::Follower);
    // Nor does it know less of it when it starts again.
    cluster.crash(follower);
    cluster.start(follower);
    cluster.stuck_machines.clear();
    cluster.settle();
}

/// At a high rate of commands everything that was compacted behind the snapshot on its way was
/// needed next, so another snapshot followed, and another.
#[test]
fn the_log_behind_a_snapshot_in_flight_is_kept_until_its_receiver_has_caught_up() {
    let mut cluster = Cluster::new(35, &[1, 2, 3]);
    cluster.limits.trailing_logs = 5;
    tight(&mut cluster);
    let leader = cluster.elect();
    let follower = other_than(leader);
    isolate(&mut cluster, follower);
    cluster.propose_to(leader, 100);
    cluster.run(40);
    cluster.take_snapshot(leader);
    cluster.run(5);
    assert!(cluster.replica(leader).status().first_index > Index(50), "compacted");
    cluster.cut.clear();
    cluster.run_until("a snapshot is on its way", |cluster| {
        let peers = cluster.replica(leader).status().peers;
        peers.iter().any(|peer| peer.node == follower && peer.state == ProgressState::Snapshot)
    });
    // It takes its time, and the cluster does not wait.
    let now = cluster.now;
    for sent in &mut cluster.network {
        if sent.message.kind == MessageKind::InstallSnapshot {
            sent.deliver_at = now + 160;
        }
    }
    for _ in 0..40 {
        cluster.propose_to(leader, 10);
        cluster.run(4);
        cluster.take_snapshot(leader);
    }
    cluster.run_until("it has all", |cluster| {
        cluster.nodes[&follower].applied >= cluster.replica(leader).status().last_index
    });
    assert_eq!(cluster.nodes[&follower].installed, 1, "one snapshot is enough");
    cluster.run_until("what was kept for it is compacted", |cluster| {
        let status = cluster.replica(leader).status();
        status.first_index.0 + 10 > status.snapshot.0
    });
    cluster.settle();
}

#[test]
fn the_log_is_not_kept_beyond_its_bound_whoever_needs_it() {
    let mut cluster = Cluster::new(36, &[1, 2, 3]);
    cluster.limits.trailing_logs = 5;
    cluster.limits.held_bytes = 4_000;
    tight(&mut cluster);
    let leader = cluster.elect();
    let follower = other_than(leader);
    // It is there, and takes nothing.
    cluster.stuck_disks.insert(follower);
    for _ in 0..40 {
        cluster.propose_to(leader, 10);
        cluster.run(4);
        cluster.take_snapshot(leader);
        let status = cluster.replica(leader).status();
        let kept = status.snapshot.0 + 1 - status.first_index.0;
        assert!(kept <= 5 + 4_000 / 40 + 10, "{kept} entries are kept");
    }
    assert!(cluster.replica(leader).status().first_index > Index(200));
    cluster.stuck_disks.clear();
    cluster.settle();
}

/// A rehearsal reads the log for minutes, beside everything else.
#[test]
fn the_log_is_kept_for_who_reads_it_until_he_has_done_or_it_takes_too_much() {
    let mut cluster = Cluster::new(39, &[1]);
    cluster.limits.trailing_logs = 5;
    cluster.limits.held_bytes = 4_000;
    tight(&mut cluster);
    let leader = cluster.elect();
    let go_on = |cluster: &mut Cluster| {
        cluster.propose_to(leader, 10);
        cluster.run(4);
        cluster.take_snapshot(leader);
        cluster.replica(leader).status()
    };
    let reader = go_on(&mut cluster).last_index;
    cluster.input(leader, Input::HoldLog(Some(reader)));
    for _ in 0..8 {
        assert!(go_on(&mut cluster).first_index <= reader.next(), "he still reads it");
    }
    assert_eq!(cluster.replica(leader).status().first_index, reader.next(), "what is before goes");
    cluster.input(leader, Input::HoldLog(None));
    cluster.run_until("what was kept for it is compacted", |cluster| {
        let status = cluster.replica(leader).status();
        status.first_index.0 + 10 > status.snapshot.0
    });
    let reader = cluster.replica(leader).status().last_index;
    cluster.input(leader, Input::HoldLog(Some(reader)));
    for _ in 0..40 {
        let status = go_on(&mut cluster);
        let kept = status.snapshot.0 + 1 - status.first_index.0;
        assert!(kept <= 5 + 4_000 / 40 + 10, "{kept} entries are kept");
    }
    assert!(cluster.replica(leader).status().first_index > reader.next(), "it gave way");
    // Nor is anything kept for it where the disk is short.
    cluster.input(leader, Input::HoldLog(Some(cluster.replica(leader).status().last_index)));
    go_on(&mut cluster);
    cluster.input(leader, Input::Space(crate::types::Space::Low, 1 << 20));
    let status = cluster.replica(leader).status();
    assert_eq!(status.first_index, status.snapshot.next());
}

/// At 50,000 commands a second 10,240 entries are a fifth of a second.
#[test]
fn the_entries_of_the_last_moments_are_kept_however_many_they_are() {
    let mut cluster = Cluster::new(37, &[1]);
    cluster.limits.trailing_logs = 5;
    cluster.trailing_ticks = 20;
    tight(&mut cluster);
    let leader = cluster.elect();
    let kept = |cluster: &Cluster| {
        let status = cluster.replica(leader).status();
        status.snapshot.0 + 1 - status.first_index.0
    };
    for _ in 0..50 {
        cluster.propose_to(leader, 10);
        cluster.run(2);
        cluster.take_snapshot(leader);
    }
    // Ten entries every other tick.
    assert!((80..=200).contains(&kept(&cluster)), "{} entries are kept", kept(&cluster));
    cluster.run(30);
    cluster.propose_to(leader, 1);
    cluster.run(3);
    cluster.take_snapshot(leader);
    // What is older is compacted, to within an election timeout.
    assert!(kept(&cluster) <= 60, "{} entries are kept", kept(&cluster));
}

/// The voters but one are removed while that one's disk is stuck. It is the only voter, and wins an
/// election by itself, at once; raft-rs asserts that its log is durable then.
#[test]
fn a_follower_left_as_the_only_voter_waits_for_its_disk_before_it_leads() {
    let mut cluster = Cluster::new(38, &[1, 2]);
    let leader = cluster.elect();
    let left = other_than(leader);
    // The entry is durable on both; what follows only with the one that goes.
    let change = cluster.change_voters(ConfChangeOp::Remove, leader.0);
    cluster.run_until("the change is durable", |cluster| {
        cluster.nodes[&left].log.last_index(GROUP).expect("memory") >= change
    });
    cluster.stuck_disks.insert(left);
    cluster.propose_to(leader, 10);
    cluster.run_until("the one that is left is alone", |cluster| {
        cluster.nodes[&left].conf_state.voters == [left].into()
    });
    let status = cluster.replica(left).status();
    let durable = cluster.nodes[&left].log.last_index(GROUP).expect("memory");
    assert!(status.last_index > durable, "{} is durable of {}", durable, status.last_index);
    cluster.run(100);
    cluster.input(left, Input::Campaign);
    assert_ne!(cluster.replica(left).role(), Role::Leader);
    cluster.stuck_disks.clear();
    cluster.run_until("it leads", |cluster| cluster.leader() == Some(left));
    cluster.propose_to(left, 1);
    cluster.run(10);
    assert_eq!(cluster.nodes[&left].applied, cluster.replica(left).status().last_index);
}

/// Figure 8 of the Raft paper: what one node's log has lost to a later leader, another node still
/// has, and commits when it leads after that. So who waits for it must not be told that it surely does
/// not happen.
#[test]
fn an_entry_that_was_replaced_in_its_leaders_log_may_be_committed_all_the_same() {
    let mut cluster = Cluster::new(39, &[1, 2, 3, 4, 5]);
    let first = cluster.elect();
    cluster.run(20);
    let others: Vec<NodeId> = (1..=5).map(NodeId).filter(|id| *id != first).collect();
    let (keeper, second) = (others[0], others[1]);
    let only = |cluster: &mut Cluster, together: &[NodeId]| {
        cluster.cut.clear();
        for a in (1..=5).map(NodeId) {
            for b in (1..=5).map(NodeId) {
                if !(together.contains(&a) && together.contains(&b)) {
                    cluster.cut.insert((a, b));
                }
            }
        }
    };
    // The first leader's entry reaches one other node.
    only(&mut cluster, &[first, keeper]);
    cluster.propose_to(first, 1);
    let position = *cluster.proposed.last_key_value().expect("proposed").0;
    cluster.run(5);
    assert!(cluster.nodes[&keeper].log.last_index(GROUP).expect("memory") >= position.0);
    // The second is elected by those who have not got it, and replaces it in the first's log.
    only(&mut cluster, &others[1..]);
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|leader| others[1..].contains(&leader))
    });
    let second_leader = cluster.leader().expect("just seen");
    assert!(others.contains(&second));
    // Nobody but the first hears of what the second has appended in its term.
    for id in &others[1..] {
        if *id != second_leader {
            cluster.stuck_disks.insert(*id);
        }
    }
    only(&mut cluster, &[second_leader, first]);
    cluster.run_until("the first's entry is replaced", |cluster| {
        cluster.truncated.get(&first).is_some_and(|from| *from <= position.0)
    });
    // Then both are gone, and the one that kept it leads.
    cluster.crash(second_leader);
    cluster.crash(first);
    cluster.stuck_disks.clear();
    let rest: Vec<NodeId> = others.iter().copied().filter(|id| *id != second_leader).collect();
    for id in &rest[1..] {
        // Nothing of the second's term reached these.
        cluster.crash(*id);
        cluster.start(*id);
    }
    only(&mut cluster, &rest);
    cluster.run_until("it is committed", |cluster| {
        cluster.history.get(&position.0).is_some_and(|(term, _)| *term == position.1)
    });
    cluster.settle();
}

/// The mistakes that these tests are about are found by them.
#[cfg(feature = "museum")]
#[test]
fn exhibits_of_flow_are_caught() {
    use crate::museum::{self, Exhibit};

    let scenarios: [(Exhibit, fn()); 4] = [
        (
            Exhibit::UnboundedAppends,
            a_follower_far_behind_catches_up_by_log_in_messages_that_a_transport_takes,
        ),
        (
            Exhibit::UnboundedApplyQueue,
            what_a_slow_machine_has_yet_to_apply_waits_in_the_log_and_not_in_memory,
        ),
        (
            Exhibit::CompactionRunsAway,
            the_log_behind_a_snapshot_in_flight_is_kept_until_its_receiver_has_caught_up,
        ),
        (
            Exhibit::UnpersistedLeads,
            a_follower_left_as_the_only_voter_waits_for_its_disk_before_it_leads,
        ),
    ];
    for (exhibit, scenario) in scenarios {
        let _on = museum::exhibit(Some(exhibit));
        let ended = std::panic::catch_unwind(scenario);
        assert!(ended.is_err(), "{exhibit} goes unnoticed");
    }
}

/// Everything on its way arrives, and everything handed out is written, without time passing.
fn without_time(cluster: &mut Cluster) {
    for _ in 0..8 {
        for id in cluster.alive() {
            cluster.persist_one(id);
        }
        for sent in std::mem::take(&mut cluster.network) {
            cluster.input(sent.message.to, Input::Message(sent.message));
        }
    }
}

/// Each commit was followed by an append to each peer that told nothing else, and by its answer.
#[test]
fn the_commit_index_is_told_with_what_is_sent_anyway_or_a_tick_later() {
    let mut cluster = Cluster::new(37, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.settle();
    cluster.run(10);
    without_time(&mut cluster);
    let appends = |cluster: &Cluster| {
        cluster.trace.iter().filter(|line| line.contains("AppendEntries ")).count()
    };
    let commits = |cluster: &Cluster| {
        let commits: BTreeSet<Index> =
            cluster.alive().iter().map(|id| cluster.replica(*id).commit()).collect();
        commits.len()
    };
    let before = appends(&cluster);
    for round in 1..=10 {
        cluster.propose_to(leader, 1);
        without_time(&mut cluster);
        let status = cluster.replica(leader).status();
        assert_eq!(status.commit, status.last_index, "committed in no time");
        assert_eq!(appends(&cluster) - before, 2 * round, "one to each peer");
        assert_eq!(commits(&cluster), 2, "the peers know of all but the last");
    }
    cluster.input(leader, Input::Tick);
    without_time(&mut cluster);
    assert_eq!(commits(&cluster), 1, "all know all");
    let told = appends(&cluster);
    assert_eq!(told - before, 22);
    for _ in 0..10 {
        cluster.input(leader, Input::Tick);
        without_time(&mut cluster);
    }
    assert_eq!(appends(&cluster), told, "what is known is not told again");
}
