//! What replicas must survive.

use super::*;
use crate::storage::{LogStore, StableStore, StorageError};

#[test]
fn three_voters_elect_one_leader_and_agree() {
    let mut cluster = Cluster::new(1, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.propose_to(leader, 50);
    cluster.run(20);
    assert!(cluster.acknowledged.len() >= 50);
    cluster.settle();
}

#[test]
fn a_single_voter_leads_at_once_and_acknowledges_only_what_is_durable() {
    let mut cluster = Cluster::new(2, &[1]);
    cluster.faults.progress = 0;
    let me = NodeId(1);
    cluster.input(me, Input::Campaign);
    cluster.persist_one(me);
    cluster.persist_one(me);
    assert_eq!(cluster.leader(), Some(me));
    cluster.apply_one(me);
    cluster.propose_to(me, 3);
    cluster.run(5);
    let before = cluster.nodes[&me].applied;
    assert!(cluster.nodes[&me].tasks.is_empty(), "committed although no disk has it");
    cluster.persist_one(me);
    cluster.apply_one(me);
    assert_eq!(cluster.nodes[&me].applied.0, before.0 + 3);
}

#[test]
fn a_follower_does_not_answer_before_its_disk_has_the_entries() {
    let mut cluster = Cluster::new(3, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run(10);
    let commit = cluster.replica(leader).status().commit;
    // Nothing reaches a disk from now on but the leader's own.
    cluster.faults.progress = 0;
    cluster.propose_to(leader, 5);
    for _ in 0..5 {
        cluster.step();
        while !cluster.nodes[&leader].writes.is_empty() {
            cluster.persist_one(leader);
        }
    }
    assert_eq!(cluster.replica(leader).status().commit, commit, "one disk is no quorum");
    cluster.settle();
}

#[test]
fn acknowledged_entries_survive_loss_delay_crashes_and_compaction() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        cluster.limits.trailing_logs = 1 + seed % 20;
        cluster.limits.entry_cache_bytes = 1 + (seed % 3) * 300;
        for id in 1..=3 {
            // The limits above count from the next start on.
            cluster.crash(NodeId(id));
            cluster.start(NodeId(id));
        }
        cluster.faults = STORMY;
        storm(&mut cluster, 400);
        cluster.settle();
        assert!(!cluster.acknowledged.is_empty(), "seed {seed} made no progress at all");
    }
}

/// Proposals, reads, crashes, partitions, snapshots and transfers, as the seed has it.
pub(super) fn storm(cluster: &mut Cluster, steps: u64) {
    for _ in 0..steps {
        cluster.step();
        let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        let node = nodes[cluster.rng.random_range(0..nodes.len())];
        let other = nodes[cluster.rng.random_range(0..nodes.len())];
        match cluster.rng.random_range(0..100) {
            0..40 => {
                if let Some(leader) = cluster.leader() {
                    let count = cluster.rng.random_range(1..5);
                    cluster.propose_to(leader, count);
                }
            }
            40..50 if cluster.nodes[&node].replica.is_some() => cluster.read(node),
            50..53 => cluster.crash(node),
            53..63 if cluster.nodes[&node].replica.is_none() => cluster.start(node),
            63..68 => cluster.take_snapshot(node),
            68..70 => drop(cluster.cut.insert((node, other))),
            70..76 => cluster.cut.clear(),
            76..78 => {
                if let Some(leader) = cluster.leader() {
                    cluster.input(leader, Input::TransferLeader(None));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut cluster = Cluster::new(seed, &[1, 2, 3, 4, 5]);
        cluster.faults = STORMY;
        storm(&mut cluster, 600);
        cluster.trace
    };
    for seed in [7, 8] {
        assert!(trace(seed) == trace(seed), "seed {seed} does not replay");
    }
    assert!(trace(7) != trace(8));
}

#[test]
fn a_follower_reads_what_was_acknowledged_before_it_asked() {
    let mut cluster = Cluster::new(5, &[1, 2, 3]);
    let leader = cluster.elect();
    for round in 1..=10 {
        cluster.propose_to(leader, 3);
        cluster.run(8);
        for id in 1..=3 {
            cluster.read(NodeId(id));
        }
        cluster.run(12);
        assert_eq!(cluster.reads_answered, round * 3);
    }
}

#[test]
fn a_deposed_leader_answers_no_reads() {
    let mut cluster = Cluster::new(6, &[1, 2, 3]);
    let old = cluster.elect();
    for id in ids(&[1, 2, 3]) {
        cluster.cut.insert((old, id));
        cluster.cut.insert((id, old));
    }
    cluster.read(old);
    cluster.run_until("a new leader", |cluster| {
        cluster.alive().iter().any(|id| *id != old && cluster.replica(*id).role() == Role::Leader)
    });
    assert_eq!(cluster.reads_answered, 0);
    assert_ne!(cluster.replica(old).role(), Role::Leader, "check-quorum makes it step down");
    cluster.settle();
    cluster.run(50);
    assert_eq!(cluster.reads_answered, 1, "asked again of the new leader");
}

#[test]
fn a_slow_follower_gets_a_snapshot_when_its_entries_are_compacted() {
    let mut cluster = Cluster::new(9, &[1, 2, 3]);
    cluster.limits.trailing_logs = 5;
    for id in 1..=3 {
        cluster.crash(NodeId(id));
        cluster.start(NodeId(id));
    }
    let leader = cluster.elect();
    let slow = *cluster.nodes.keys().find(|id| **id != leader).expect("three nodes");
    cluster.crash(slow);
    for _ in 0..20 {
        cluster.propose_to(leader, 10);
        cluster.run(5);
        for id in cluster.alive() {
            cluster.take_snapshot(id);
        }
    }
    cluster.run(20);
    let first = cluster.replica(leader).status().first_index;
    assert!(first > cluster.nodes[&slow].log.last_index(GROUP).expect("memory").next());
    cluster.settle();
    assert!(cluster.nodes[&slow].snapshots.len() > 1, "it got there without a snapshot");
}

#[test]
fn a_new_node_joins_as_learner_catches_up_is_promoted_and_the_old_leader_leaves() {
    let mut cluster = Cluster::new(10, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.propose_to(leader, 40);
    cluster.add_node(NodeId(4), None);
    cluster.change(ConfChangeOp::AddLearner, 4);
    cluster.run_until("the learner has caught up", |cluster| {
        let leader = cluster.leader().expect("calm");
        cluster.nodes[&NodeId(4)].applied == cluster.replica(leader).status().commit
    });
    // The leader has yet to hear of it.
    cluster.run(10);
    cluster.change(ConfChangeOp::AddVoter, 4);
    cluster.run(30);
    assert_eq!(cluster.refused, []);
    assert!(cluster.replica(leader).status().conf_state.voters.contains(&NodeId(4)));
    cluster.change(ConfChangeOp::Remove, leader.0);
    cluster.run_until("the removed leader steps down and another leads", |cluster| {
        cluster.leader().is_some_and(|now| now != leader)
    });
    assert_eq!(cluster.refused, []);
    cluster.crash(leader);
    cluster.nodes.remove(&leader);
    cluster.settle();
}

/// Two voters are replaced at once, under faults, with leaders that come and go between
/// entering and leaving the joint configuration.
#[test]
fn voters_are_replaced_together_through_a_joint_configuration() {
    for seed in 100..120 {
        let mut cluster = Cluster::new(seed, &[1, 2, 3]);
        let leader = cluster.elect();
        cluster.propose_to(leader, 20);
        for id in [4, 5] {
            cluster.add_node(NodeId(id), None);
            cluster.change(ConfChangeOp::AddLearner, id);
            cluster.run(40);
        }
        let gone: Vec<u64> = [1, 2, 3].into_iter().filter(|id| NodeId(*id) != leader).collect();
        cluster.change_together(&[
            (ConfChangeOp::AddVoter, 4),
            (ConfChangeOp::AddVoter, 5),
            (ConfChangeOp::Remove, gone[0]),
            (ConfChangeOp::Remove, gone[1]),
        ]);
        assert_eq!(cluster.refused, [], "seed {seed}");
        cluster.run(seed % 4);
        if seed % 2 == 0 {
            cluster.crash(leader);
            cluster.run(60);
            cluster.start(leader);
        }
        cluster.faults = STORMY;
        cluster.run(100);
        cluster.settle();
        let now = cluster.elect();
        let conf_state = cluster.replica(now).status().conf_state;
        if conf_state.voters.contains(&NodeId(4)) {
            assert_eq!(conf_state.voters, ids(&[leader.0, 4, 5]), "seed {seed}");
            assert!(conf_state.voters_outgoing.is_empty(), "seed {seed} stayed joint");
        } else {
            // The crash came before the change was replicated.
            assert_eq!(conf_state.voters, ids(&[1, 2, 3]), "seed {seed}");
        }
    }
}

#[test]
fn leadership_moves_to_the_node_that_was_named() {
    let mut cluster = Cluster::new(13, &[1, 2, 3]);
    let leader = cluster.elect();
    for target in cluster.alive().into_iter().filter(|id| *id != leader) {
        let now = cluster.leader().expect("calm");
        cluster.input(now, Input::TransferLeader(Some(target)));
        cluster.propose_to(now, 1);
        cluster.run_until("the transfer", |cluster| cluster.leader() == Some(target));
    }
    assert!(cluster.refused.contains(&ProposeError::Transferring));
    cluster.settle();
}

/// A leader without a file for one more connection: it hears the others and cannot dial them, so it
/// cannot hand leadership over either. It need not.
#[test]
fn a_leader_that_hears_all_and_reaches_no_majority_is_replaced_within_two_election_timeouts() {
    const ELECTION: u64 = 10;
    for (seed, reached) in (0..20).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut cluster = Cluster::new(seed, &[1, 2, 3, 4, 5]);
        let old = cluster.elect();
        cluster.propose_to(old, 5);
        cluster.run(20 + seed);
        let others: Vec<NodeId> = cluster.alive().into_iter().filter(|id| *id != old).collect();
        cluster.cut.extend(others[reached..].iter().map(|other| (old, *other)));
        cluster.propose_to(old, 1);
        // What was on its way is still delivered, and answered.
        cluster.run(2 + 2 * ELECTION);
        assert_ne!(cluster.replica(old).role(), Role::Leader, "seed {seed}, {reached} reached");
        let new = cluster.elect();
        let before = cluster.acknowledged.len();
        cluster.propose_to(new, 5);
        cluster.run(2 * ELECTION);
        assert!(cluster.acknowledged.len() >= before + 5, "seed {seed}: the others do not serve");
        cluster.settle();
    }
}

#[test]
fn a_log_that_lost_committed_entries_is_refused() {
    let log = MemoryLog::new();
    let snapshot = meta(Index(1), Term(1), ConfState { voters: ids(&[1]), ..Default::default() });
    let mut write = bootstrap_write(snapshot.position());
    write.hard_state = Some(HardState { term: Term(3), vote: None, commit: Index(9) });
    log.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("memory");
    let error = reconcile(&log, GROUP, Some(&snapshot)).expect_err("refused");
    assert!(matches!(error, RecoveryError::LostEntries { last: Index(1), commit: Index(9), .. }));
    let error = reconcile(&log, GROUP, None).expect_err("refused");
    assert!(matches!(error, RecoveryError::Gap { log_start: Index(1), .. }));
}

#[test]
fn a_snapshot_that_arrived_before_a_crash_replaces_an_older_log() {
    let log = MemoryLog::new();
    let conf_state = ConfState { voters: ids(&[1, 2, 3]), ..Default::default() };
    let first = meta(Index(1), Term(1), conf_state.clone());
    log.write(&WriteBatch { groups: vec![(GROUP, bootstrap_write(first.position()))] })
        .expect("memory");
    let newer = meta(Index(30), Term(4), conf_state);
    let write = reconcile(&log, GROUP, Some(&newer)).expect("fits").expect("needs a write");
    assert_eq!(write.reset_to, Some(newer.position()));
    assert_eq!(write.hard_state, Some(HardState { term: Term(4), vote: None, commit: Index(30) }));
}

/// Two voters; the leader is removed, and the one that is left loses power. If it has forgotten
/// that the removal is committed it needs the other's vote, and the other is gone for good.
#[test]
fn who_is_left_after_a_removal_needs_nobody_who_was_removed() {
    let mut cluster = Cluster::new(23, &[1, 2]);
    let leader = cluster.elect();
    let left = NodeId(3 - leader.0);
    cluster.change(ConfChangeOp::Remove, leader.0);
    cluster.run_until("both know of it", |cluster| {
        [leader, left].iter().all(|id| !cluster.nodes[id].conf_state.contains(leader))
    });
    cluster
        .run_until("what they know is durable", |cluster| cluster.nodes[&left].writes.is_empty());
    cluster.crash(leader);
    cluster.crash(left);
    cluster.start(left);
    cluster.run_until("the one that is left leads", |cluster| cluster.leader() == Some(left));
}

/// Four voters; one of them breaks and is removed. Whoever was told so may rely on any two of the
/// three that are left, even if power fails right then and takes with it what was not durable.
/// Found by the simulator: only the leader knew that the removal was committed, and told so; then
/// a third disk broke, and the two that were left asked for three votes of four, for ever.
#[test]
fn two_of_three_suffice_once_a_removal_is_settled() {
    for seed in 0..12 {
        for lost in [1, 2, 3] {
            let mut cluster = Cluster::new(seed, &[1, 2, 3, 4]);
            cluster.input(NodeId(1), Input::Campaign);
            cluster.elect();
            cluster.crash(NodeId(4));
            let leader = cluster.elect();
            cluster.faults = Faults { loss: 0, max_delay: 5, progress: 50 };
            let change = cluster.change_voters(ConfChangeOp::Remove, 4);
            cluster.run_until("the removal is settled", |cluster| {
                cluster.replica(leader).settled().is_some_and(|settled| settled >= change)
            });
            for id in cluster.alive() {
                cluster.crash(id);
            }
            for id in [1, 2, 3].into_iter().filter(|id| *id != lost) {
                cluster.start(NodeId(id));
            }
            cluster.run_until("the two that are left have a leader", |cluster| {
                cluster.leader().is_some_and(|id| cluster.replica(id).settled() >= Some(change))
            });
        }
    }
}

/// A follower says that it knows of a commit only when it still will after a crash.
#[test]
fn a_commit_index_that_is_not_durable_settles_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, &[1, 2]);
        let leader = cluster.elect();
        cluster.faults = Faults { loss: 0, max_delay: 3, progress: 15 };
        cluster.change(ConfChangeOp::AddLearner, 3);
        let change = cluster.replica(leader).status().last_index;
        cluster.run_until("the change is settled", |cluster| {
            let Some(settled) = cluster.replica(leader).settled() else { return true };
            let knows = |node: &SimNode| node.log.hard_state(GROUP).expect("memory").commit;
            let known = cluster.nodes.values().map(knows).min().expect("two nodes");
            assert!(settled <= known, "{settled} is settled, and somebody knows of {known} only");
            settled >= change
        });
    }
}

/// A log that can be written, and read no more.
struct RottenLog(MemoryLog, std::sync::atomic::AtomicBool);

impl StableStore for RottenLog {
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError> {
        self.0.hard_state(group)
    }
}

impl LogStore for RottenLog {
    fn start(&self, group: GroupId) -> Result<LogPosition, StorageError> {
        self.0.start(group)
    }

    fn last_index(&self, group: GroupId) -> Result<Index, StorageError> {
        self.0.last_index(group)
    }

    fn term(&self, group: GroupId, index: Index) -> Result<Term, StorageError> {
        self.0.term(group, index)
    }

    fn entries(
        &self,
        group: GroupId,
        range: std::ops::Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            let reason = "a bit rotted".to_owned();
            return Err(StorageError::Corrupt { path: "log".into(), offset: 0, reason });
        }
        self.0.entries(group, range, max_bytes)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.0.write(batch)
    }

    fn purge(&self) -> Result<(), StorageError> {
        self.0.purge()
    }

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        self.0.groups()
    }
}

/// A leader reads entries for a learner that lags, and a bit has rotted. raft-rs panics of errors
/// that it does not know. Found by the simulator.
#[test]
fn a_log_that_cannot_be_read_is_an_error_and_no_panic() {
    let conf_state = ConfState { voters: ids(&[1]), learners: ids(&[2]), ..Default::default() };
    let snapshot = meta(Index(1), Term(1), conf_state);
    let log = Arc::new(RottenLog(MemoryLog::new(), false.into()));
    let write = |write| log.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("memory");
    write(bootstrap_write(snapshot.position()));
    let config = ReplicaConfig {
        node: NodeId(1),
        group: GROUP,
        heartbeat_ticks: 2,
        election_ticks: 10,
        trailing_ticks: 0,
        seed: 1,
        incarnation: 1,
        limits: ConsensusConfig { entry_cache_bytes: 1, ..Default::default() },
    };
    let mut replica = Replica::new(config, log.clone(), Some(snapshot)).expect("starts");
    replica.step(Input::Campaign).expect("steps");
    for _ in 0..5 {
        for Write { number, write: batch } in replica.effects().expect("effects").writes {
            write(batch);
            replica.step(Input::Persisted(number)).expect("steps");
        }
    }
    assert_eq!(replica.status().commit, Index(2));
    log.1.store(true, std::sync::atomic::Ordering::Relaxed);
    let alive = PeerMessage {
        group: GROUP,
        kind: MessageKind::HeartbeatResponse,
        from: NodeId(2),
        to: NodeId(1),
        term: replica.term(),
        log_term: Term(0),
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
    };
    // The replica itself reads nothing.
    replica.step(Input::Message(alive)).expect("steps");
    let reads = replica.effects().expect("effects").log_reads;
    let [read] = &reads[..] else { panic!("{reads:?}") };
    let found = read.run(&*log, GROUP);
    let error = replica.step(Input::LogRead(read.clone(), found)).expect_err("it cannot go on");
    assert!(matches!(error, ReplicaError::Storage(StorageError::Corrupt { .. })), "{error}");
}

/// The leader believes that the follower has everything and is about to tell it the commit index
/// with an empty append; before that is on its way, the follower says that it has nothing of it.
/// raft-rs joined the missing entries to the empty append, which names the position of the
/// newest one. Found by real processes behind a link that lost answers.
#[test]
fn entries_are_never_sent_under_the_position_of_an_empty_append() {
    let mut cluster = Cluster::new(21, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.propose_to(leader, 5);
    cluster.run(30);
    let follower = NodeId(if leader == NodeId(1) { 2 } else { 1 });
    let matched = cluster.replica(leader).status().last_index;
    // All that is sent from now on is lost.
    cluster.propose_to(leader, 5);
    cluster.network.clear();
    let last = cluster.replica(leader).status().last_index;
    assert_eq!(last.0, matched.0 + 5);
    let term = cluster.replica(leader).term();
    let answer = |kind, index, reject| PeerMessage {
        group: GROUP,
        kind,
        from: follower,
        to: leader,
        term,
        log_term: Term(0),
        index,
        entries: Vec::new(),
        commit: Index(0),
        commit_term: Term(0),
        snapshot: None,
        request_snapshot: Index(0),
        reject,
        reject_hint: if reject { matched } else { Index(0) },
        context: Bytes::new(),
        priority: 0,
        space: Default::default(),
    };
    let replica = cluster.nodes.get_mut(&leader).expect("known").replica.as_mut().expect("alive");
    let alive = answer(MessageKind::HeartbeatResponse, Index(0), false);
    let behind = answer(MessageKind::AppendEntriesResponse, last, true);
    for message in [alive, behind] {
        replica.step(Input::Message(message)).expect("steps");
    }
    let sent = replica.effects().expect("effects").messages;
    for message in sent.iter().filter(|message| message.kind == MessageKind::AppendEntries) {
        for (at, entry) in message.entries.iter().enumerate() {
            assert_eq!(entry.index.0, message.index.0 + 1 + at as u64, "{message:?}");
        }
    }
    // What was held back is sent again, and the cluster agrees.
    cluster.settle();
}

/// The only voter leads a new term without asking anybody. If a learner hears of the term before
/// the voter's disk does, the voter can lead the same term twice, with other entries.
#[test]
fn an_only_voter_says_nothing_in_a_term_that_is_not_durable() {
    let mut cluster = Cluster::new(24, &[1]);
    let leader = cluster.elect();
    cluster.change(ConfChangeOp::AddLearner, 2);
    cluster.add_node(NodeId(2), None);
    cluster.settle();
    cluster.take_snapshot(leader);
    cluster.crash(leader);
    cluster.start(leader);
    let before = cluster.nodes[&leader].log.hard_state(GROUP).expect("memory").term;
    cluster.network.clear();
    cluster.input(leader, Input::Campaign);
    assert_eq!(cluster.replica(leader).role(), Role::Leader);
    cluster.propose_to(leader, 3);
    let sent = |cluster: &Cluster| {
        cluster.network.iter().any(|sent| sent.message.from == leader && sent.message.term > before)
    };
    assert!(!sent(&cluster), "the term is not durable");
    cluster.run_until("the term is durable and told", sent);
    assert!(cluster.nodes[&leader].log.hard_state(GROUP).expect("memory").term > before);
    cluster.settle();
}

/// A follower whose disk is stuck while it installs a snapshot hears nothing for longer than an
/// election. It campaigned, looked for membership changes in a log that was gone, and panicked.
#[test]
fn a_follower_that_installs_a_snapshot_does_not_campaign() {
    let mut cluster = Cluster::new(25, &[1, 2, 3]);
    cluster.limits.trailing_logs = 1;
    let leader = cluster.elect();
    let follower = NodeId(if leader == NodeId(1) { 2 } else { 1 });
    let behind = cluster.nodes[&follower].applied;
    let (term, index) = (cluster.replica(leader).term(), Index(behind.0 + 50));
    let conf_state = cluster.nodes[&leader].conf_state.clone();
    let snapshot = meta(index, term, conf_state);
    cluster.nodes.get_mut(&follower).expect("known").snapshots.push((snapshot.clone(), Vec::new()));
    let replica = cluster.nodes.get_mut(&follower).expect("known").replica.as_mut().expect("up");
    let message = |kind, snapshot| PeerMessage {
        group: GROUP,
        kind,
        from: leader,
        to: follower,
        term,
        log_term: Term(0),
        index: Index(0),
        entries: Vec::new(),
        commit: Index(0),
        commit_term: Term(0),
        snapshot,
        request_snapshot: Index(0),
        reject: false,
        reject_hint: Index(0),
        context: Bytes::new(),
        priority: 0,
        space: Default::default(),
    };
    replica
        .step(Input::Message(message(MessageKind::InstallSnapshot, Some(snapshot))))
        .expect("steps");
    let effects = replica.effects().expect("effects");
    assert!(effects.writes.iter().any(|write| write.write.reset_to.is_some()));
    for _ in 0..100 {
        replica.step(Input::Tick).expect("steps");
        replica.step(Input::Message(message(MessageKind::TimeoutNow, None))).expect("steps");
        replica.effects().expect("effects");
    }
    assert_eq!(replica.role(), Role::Follower);
    for write in effects.writes {
        replica.step(Input::Persisted(write.number)).expect("steps");
    }
    replica.step(Input::Applied(index)).expect("steps");
    for _ in 0..100 {
        replica.step(Input::Tick).expect("steps");
        replica.effects().expect("effects");
    }
    assert_ne!(replica.role(), Role::Follower, "it campaigns again");
}
