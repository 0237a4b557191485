//! Which changes of the members and of the leader are refused.

use super::*;

#[test]
fn membership_changes_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(11, &[1]);
    cluster.elect();
    cluster.change(ConfChangeOp::Remove, 1);
    cluster.change(ConfChangeOp::Remove, 9);
    cluster.change(ConfChangeOp::AddVoter, 1);
    cluster.change(ConfChangeOp::AddVoter, 7);
    let refused: Vec<ProposeError> = [
        ConfChangeError::LastVoter(NodeId(1)),
        ConfChangeError::NotAMember(NodeId(9)),
        ConfChangeError::AlreadyAVoter(NodeId(1)),
        ConfChangeError::NotAMember(NodeId(7)),
    ]
    .map(ProposeError::from)
    .to_vec();
    assert_eq!(cluster.refused, refused);
    cluster.change(ConfChangeOp::AddLearner, 2);
    cluster.change(ConfChangeOp::AddLearner, 3);
    assert_eq!(cluster.refused.last(), Some(&ConfChangeError::InProgress.into()));
}

#[test]
fn a_learner_many_entries_behind_is_not_promoted() {
    refuse_a_laggard(20, u64::MAX);
}

#[test]
fn a_learner_many_bytes_behind_is_not_promoted() {
    refuse_a_laggard(u64::MAX, 400);
}

fn refuse_a_laggard(promotion_lag: u64, promotion_lag_bytes: u64) {
    let mut cluster = Cluster::new(12, &[1]);
    cluster.limits.promotion_lag = promotion_lag;
    cluster.limits.promotion_lag_bytes = promotion_lag_bytes;
    // The limits count from the next start on.
    cluster.crash(NodeId(1));
    cluster.start(NodeId(1));
    let leader = cluster.elect();
    cluster.add_node(NodeId(2), None);
    cluster.change(ConfChangeOp::AddLearner, 2);
    cluster.run_until("the learner's answers", |cluster| {
        let status = cluster.replica(leader).status();
        status.peer(NodeId(2)).is_some_and(|peer| peer.matched > Index(0))
    });
    // It answers heartbeats, and nothing reaches its disk.
    cluster.faults.progress = 0;
    cluster.propose_to(leader, 50);
    for _ in 0..10 {
        cluster.step();
        while !cluster.nodes[&leader].writes.is_empty() {
            cluster.persist_one(leader);
        }
        while !cluster.nodes[&leader].tasks.is_empty() {
            cluster.apply_one(leader);
        }
    }
    cluster.change(ConfChangeOp::AddVoter, 2);
    assert!(
        matches!(
            cluster.refused[..],
            [ProposeError::ConfChange(ConfChangeError::NotCaughtUp { node: NodeId(2), .. })]
        ),
        "{:?}",
        cluster.refused
    );
}

/// A lag of six entries counted as caught up; the quorum of two needs a node that is not there.
#[test]
fn a_learner_that_never_answered_is_not_promoted() {
    let mut cluster = Cluster::new(12, &[1]);
    cluster.elect();
    cluster.change(ConfChangeOp::AddLearner, 2);
    cluster.run(100);
    cluster.change(ConfChangeOp::AddVoter, 2);
    assert_eq!(cluster.refused, [ConfChangeError::NotHeardFrom(NodeId(2)).into()]);
    let leader = cluster.elect();
    cluster.propose_to(leader, 1);
    cluster.run_until("the command", |cluster| !cluster.acknowledged.is_empty());
}

/// Whoever removed a live voter while another one was dead was left without a quorum.
#[test]
fn a_removal_that_leaves_no_majority_of_voters_heard_from_is_refused_unless_forced() {
    let mut cluster = Cluster::new(14, &[1, 2, 3]);
    let leader = cluster.elect();
    let others: Vec<NodeId> = cluster.alive().into_iter().filter(|id| *id != leader).collect();
    let [live, dead] = others[..] else { panic!("three voters") };
    let quorum_is_seen = |cluster: &Cluster, count: usize| {
        let status = cluster.replica(leader).status();
        let voters = &status.conf_state.voters;
        let quorum = status.quorum_of(voters);
        voters.len() - quorum.silent.len() == count && !status.is_new_leader
    };
    cluster.run_until("all voters", |cluster| quorum_is_seen(cluster, 3));
    cluster.crash(dead);
    cluster.run_until("the silence", |cluster| quorum_is_seen(cluster, 2));
    cluster.change(ConfChangeOp::Remove, live.0);
    let expected = Quorum { voters: 2, silent: [dead].into() };
    assert_eq!(cluster.refused, [ConfChangeError::NoQuorum(expected).into()]);

    // Nor is leadership handed to who is not there: commands go on being taken.
    cluster.input(leader, Input::TransferLeader(Some(dead)));
    assert!(!cluster.replica(leader).status().transferring);

    // The dead one may go; and whoever knows better may do all.
    cluster.refused.clear();
    cluster.change(ConfChangeOp::Remove, dead.0);
    cluster.run_until("the removal", |cluster| {
        let voters = cluster.replica(leader).status().conf_state.voters;
        voters == ids(&[leader.0, live.0])
    });
    cluster.crash(live);
    cluster.run(3);
    let member = Member { id: live, address: "node:1".to_owned() };
    let change = ConfChange::of(ConfChangeOp::Remove, member);
    let care = Care { decided_at: cluster.nodes[&leader].applied, force: true };
    cluster.input(leader, Input::ProposeConfChange(MEMBERSHIP, change, care));
    assert_eq!(cluster.refused, []);
}

/// raft-rs takes its own flag back at each of its rounds of checking the quorum.
#[test]
fn who_answers_counts_as_heard_from_at_every_tick() {
    let mut cluster = Cluster::new(15, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run_until("all voters", |cluster| !cluster.replica(leader).status().is_new_leader);
    for _ in 0..200 {
        cluster.step();
        let status = cluster.replica(leader).status();
        assert_eq!(status.role, Role::Leader);
        assert!(status.quorum_of(&status.conf_state.voters).silent.is_empty());
    }
}

/// An address or an id that a leader of this version would never write.
#[test]
fn a_change_with_an_address_or_an_id_out_of_bounds_is_refused() {
    let mut cluster = Cluster::new(16, &[1]);
    let leader = cluster.elect();
    let care = Care { decided_at: cluster.nodes[&leader].applied, force: true };
    let mut refused = |id: u64, address: &str| {
        let member = Member { id: NodeId(id), address: address.to_owned() };
        let change = ConfChange::of(ConfChangeOp::AddLearner, member);
        cluster.input(leader, Input::ProposeConfChange(MEMBERSHIP, change, care));
        cluster.refused.pop()
    };
    let long = "a".repeat(12 << 20) + ":1";
    for address in [&long, "", "a b:1", "0.0.0.0:1"] {
        assert!(
            matches!(
                refused(2, address),
                Some(ProposeError::ConfChange(ConfChangeError::BadAddress { .. }))
            ),
            "{address:.20}"
        );
    }
    let id = NodeId(u64::MAX);
    assert_eq!(refused(u64::MAX, "a:1"), Some(ConfChangeError::IdTooHigh(id).into()));
    let many = (2..=2 + MEMBERS_MAX as u64)
        .map(|id| (ConfChangeOp::AddLearner, Member { id: NodeId(id), address: "a:1".into() }));
    let change = ConfChange { steps: many.collect(), ..Default::default() };
    cluster.input(leader, Input::ProposeConfChange(MEMBERSHIP, change, care));
    let refused = ConfChangeError::TooManyMembers { members: MEMBERS_MAX + 1 };
    assert_eq!(cluster.refused, [refused.into()]);
}

/// Decided on a view from before another change: it may give out an id for the second time.
#[test]
fn a_change_that_was_decided_on_older_members_is_refused() {
    let mut cluster = Cluster::new(17, &[1]);
    let leader = cluster.elect();
    let before = cluster.nodes[&leader].applied;
    cluster.change(ConfChangeOp::AddLearner, 2);
    cluster.run_until("the change", |cluster| {
        cluster.nodes[&leader].conf_state.learners.contains(&NodeId(2))
    });
    cluster.run(10);
    let member = Member { id: NodeId(3), address: "a:1".to_owned() };
    let change = ConfChange::of(ConfChangeOp::AddLearner, member);
    let care = Care { decided_at: before, force: false };
    cluster.input(leader, Input::ProposeConfChange(MEMBERSHIP, change.clone(), care));
    assert_eq!(cluster.refused, [ConfChangeError::InProgress.into()]);
    cluster.refused.clear();
    let care = Care { decided_at: cluster.nodes[&leader].applied, force: false };
    cluster.input(leader, Input::ProposeConfChange(MEMBERSHIP, change, care));
    assert_eq!(cluster.refused, []);
}

/// Whoever decided on it may not be allowed to any more.
#[test]
fn a_change_that_was_decided_on_before_rights_changed_is_refused() {
    let mut cluster = Cluster::new(18, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run_until("all voters", |cluster| !cluster.replica(leader).status().is_new_leader);
    let ask = |cluster: &mut Cluster, leader: NodeId, decided_at: Index| {
        cluster.refused.clear();
        let member = Member { id: NodeId(2), address: "b:1".to_owned() };
        let change = ConfChange::of(ConfChangeOp::Move, member);
        let care = Care { decided_at, force: false };
        cluster.input(leader, Input::ProposeConfChange(MEMBERSHIP, change, care));
        cluster.refused.pop()
    };
    let fenced = Some(ConfChangeError::RightsChanged.into());
    let before = cluster.nodes[&leader].applied;
    // What says nothing of rights is not in the way, committed or not.
    cluster.propose_to(leader, 1);
    let data = Bytes::from_static(b"rights");
    let fence = Proposal { id: ProposalId(u64::MAX), data, is_fence: true };
    cluster.input(leader, Input::Propose(vec![fence]));
    assert_eq!(ask(&mut cluster, leader, before), fenced);
    let at = cluster.replica(leader).status().last_index;
    cluster.run_until("it is applied", |cluster| cluster.nodes[&leader].applied >= at);
    assert_eq!(ask(&mut cluster, leader, before), fenced);
    assert_eq!(ask(&mut cluster, leader, Index(at.0 - 1)), fenced);

    // Of what its predecessors appended, a leader does not know what it is.
    cluster.crash(leader);
    let next = cluster.elect();
    let all = cluster.replica(next).status().last_index;
    cluster.run_until("all is applied", |cluster| cluster.nodes[&next].applied >= all);
    assert_eq!(ask(&mut cluster, next, at), fenced);
    assert_eq!(ask(&mut cluster, next, all), None);
}

/// Three voters that all were heard from, the leader first.
fn three_voters(seed: u64) -> (Cluster, [NodeId; 3]) {
    let mut cluster = Cluster::new(seed, &[1, 2, 3]);
    let leader = cluster.elect();
    cluster.run_until("all voters", |cluster| {
        let status = cluster.replica(leader).status();
        !status.is_new_leader && status.quorum_of(&status.conf_state.voters).silent.is_empty()
    });
    let others: Vec<NodeId> = cluster.alive().into_iter().filter(|id| *id != leader).collect();
    (cluster, [leader, others[0], others[1]])
}

/// It still counts as heard from, and the cluster stood still after another one was removed.
#[test]
fn a_voter_that_died_a_moment_ago_does_not_count_for_what_a_removal_leaves() {
    for (seed, op) in
        (0..20).flat_map(|seed| [(seed, ConfChangeOp::Remove), (seed, ConfChangeOp::AddLearner)])
    {
        let (mut cluster, [leader, live, dead]) = three_voters(seed);
        cluster.faults = Faults { max_delay: 2, ..CALM };
        cluster.run(seed % 7);
        cluster.crash(dead);
        assert!(cluster.replica(leader).status().is_heard(dead));
        cluster.change(op, live.0);
        assert_eq!(cluster.refused, [], "it is not decided at once");
        cluster.run_until("the answer", |cluster| !cluster.refused.is_empty());
        let expected = Quorum { voters: 2, silent: [dead].into() };
        assert_eq!(cluster.refused, [ConfChangeError::NoQuorum(expected).into()], "seed {seed}");
        let leader = cluster.leader().expect("two of three go on");
        assert!(cluster.replica(leader).status().conf_state.voters.contains(&live));
        cluster.propose_to(leader, 1);
        let before = cluster.acknowledged.len();
        cluster.run_until("a command", |cluster| cluster.acknowledged.len() > before);
    }
}

#[test]
fn a_removal_waits_for_those_that_stay_and_nothing_else_waits_for_it() {
    let (mut cluster, [leader, stays, goes]) = three_voters(18);
    cluster.cut.extend([(stays, leader), (goes, leader)]);
    cluster.change(ConfChangeOp::Remove, goes.0);
    cluster.change(ConfChangeOp::Remove, stays.0);
    assert_eq!(cluster.refused, [ConfChangeError::InProgress.into()], "one at a time");
    assert!(cluster.replica(leader).settled_members().is_none(), "the members are about to change");
    let before = cluster.replica(leader).status().last_index;
    cluster.run(5);
    assert_eq!(cluster.replica(leader).status().last_index, before, "nobody has answered");
    cluster.propose_to(leader, 1);
    let after = cluster.replica(leader).status().last_index;
    assert_eq!(after, before.next(), "commands do not wait for it");
    cluster.cut.clear();
    cluster.run_until("the removal", |cluster| {
        cluster.replica(leader).status().conf_state.voters == ids(&[leader.0, stays.0])
    });
    assert_eq!(cluster.refused.len(), 1);
    cluster.nodes.remove(&goes);
    cluster.settle();
}

#[test]
fn a_change_that_waits_ends_with_its_leader() {
    let (mut cluster, [leader, other, _]) = three_voters(19);
    cluster.cut.extend(cluster.alive().into_iter().map(|id| (id, leader)));
    cluster.change(ConfChangeOp::Remove, other.0);
    cluster.run_until("the answer", |cluster| !cluster.refused.is_empty());
    assert!(
        matches!(
            cluster.refused[..],
            [ProposeError::NotLeader(_) | ProposeError::ConfChange(ConfChangeError::NoQuorum(_))]
        ),
        "{:?}",
        cluster.refused
    );
    cluster.cut.clear();
    cluster.settle();
    let leader = cluster.leader().expect("settled");
    assert_eq!(cluster.replica(leader).status().conf_state.voters.len(), 3);
}

#[test]
fn a_learner_counts_as_stable_from_when_it_has_caught_up_and_as_long_as_it_answers() {
    let mut cluster = Cluster::new(20, &[1]);
    let leader = cluster.elect();
    let stable = |cluster: &Cluster| {
        cluster.replica(leader).status().peer(NodeId(2)).and_then(|peer| peer.stable_ticks)
    };
    cluster.change(ConfChangeOp::AddLearner, 2);
    cluster.run(50);
    assert_eq!(stable(&cluster), None, "it is not there");
    let known = cluster.replica(leader).status().peer(NodeId(2)).expect("a member").known_ticks;
    assert!((40..=50).contains(&known), "not silent for longer than it is a member: {known}");
    cluster.add_node(NodeId(2), None);
    cluster.run_until("it has caught up", |cluster| stable(cluster) == Some(0));
    cluster.run(40);
    assert_eq!(stable(&cluster), Some(40));
    cluster.crash(NodeId(2));
    cluster.run(12);
    assert_eq!(stable(&cluster), None, "it is silent");
    cluster.start(NodeId(2));
    cluster.run_until("it is back", |cluster| stable(cluster).is_some());
    assert!(stable(&cluster) < Some(5), "from the beginning");
}
