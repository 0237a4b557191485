//! A node whose state goes wrong is found, answers nothing, and gets a fresh state.

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::oneshot;

use super::super::{
    Command, Consistency, DigestConfig, ProposeResult, QueryFailure, ReplySink, StopReason,
};
use super::*;
use crate::consensus::Role;
use crate::fsm::native;
use crate::transport::memory::{Delivery, MemoryNetwork};
use crate::types::Index;

const GROUP: GroupId = GroupId::MAIN;

struct Cluster {
    network: MemoryNetwork,
    members: Vec<Member>,
    stores: Vec<Stores>,
    nodes: Vec<Option<SteppedNode>>,
    starts: u64,
    evidence: tempfile::TempDir,
}

impl Cluster {
    /// Voters that know each other and run the native key-value store.
    fn new(size: u64) -> Cluster {
        let members: Vec<Member> = (1..=size)
            .map(|id| Member { id: NodeId(id), address: format!("node-{id}:1") })
            .collect();
        let stores: Vec<Stores> = members.iter().map(|_| Stores::memory()).collect();
        for stores in &stores {
            form(stores, GROUP, &members);
        }
        let nodes = members.iter().map(|_| None).collect();
        let network = MemoryNetwork::new(Delivery::Manual, 1);
        let evidence = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster { network, members, stores, nodes, starts: 0, evidence };
        (0..cluster.nodes.len()).for_each(|at| cluster.start(at));
        cluster.load();
        cluster
    }

    fn start(&mut self, at: usize) {
        self.starts += 1;
        let member = self.members[at].clone();
        let digest = DigestConfig { every_commands: 5, every_ms: 0, pause_ms: 0 };
        let config = NodeConfig { digest, ..NodeConfig::default() };
        let (inbox, node_channel) = channel(&config);
        let snapshots = Arc::clone(&self.stores[at].snapshots);
        let transport = self.network.join(member.clone(), snapshots, inbox);
        let options = NodeOptions {
            identity: Identity { cluster: CLUSTER, node: member.id, address: member.address },
            group: GROUP,
            config,
            consensus: ConsensusConfig::default(),
            stores: self.stores[at].clone(),
            loader: Arc::new(NativeLoader),
            introduced: Vec::new(),
            evidence: Some(self.evidence.path().join(at.to_string())),
        };
        let environment = Environment {
            wall_clock_ms: Arc::new(|| 0),
            steady_clock: Arc::new(|| std::time::Duration::ZERO),
            monotonic_clock: Arc::new(|| std::time::Duration::ZERO),
            seed: self.starts,
            incarnation: self.starts,
            compile_ahead: false,
            beside: false,
        };
        let node =
            SteppedNode::start(options, node_channel, transport, environment, Box::new(Nobody));
        self.nodes[at] = Some(node.expect("starts"));
    }

    fn stop(&mut self, at: usize) -> Option<StopReason> {
        self.network.leave(self.members[at].id);
        self.nodes[at].take().and_then(|node| node.stop_reason())
    }

    fn node(&mut self, at: usize) -> &mut SteppedNode {
        self.nodes[at].as_mut().expect("it runs")
    }

    fn status(&self, at: usize) -> Arc<super::super::DigestStatus> {
        let node = self.nodes[at].as_ref().expect("it runs");
        node.handle().digests().borrow().clone()
    }

    fn step(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
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
            while node.has_save() && node.stop_reason().is_none() {
                node.save_next();
            }
        }
        self.network.deliver_all(10_000);
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&mut Cluster) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not within 20000 steps: {what}");
    }

    fn leader(&mut self) -> usize {
        let leads = |node: &Option<SteppedNode>| {
            node.as_ref().is_some_and(|node| node.role() == Role::Leader)
        };
        self.run_until("a leader", |cluster| cluster.nodes.iter().any(leads));
        self.nodes.iter().position(leads).expect("just seen")
    }

    /// Proposes until it is applied.
    fn propose(&mut self, request: &Request) {
        for _ in 0..100 {
            let leader = self.leader();
            let (sender, mut receiver) = oneshot::channel();
            self.node(leader).handle().submit([(request.clone(), ReplySink::One(sender))]);
            let mut answer: Option<ProposeResult> = None;
            for _ in 0..500 {
                self.step();
                answer = receiver.try_recv().ok();
                if answer.is_some() {
                    break;
                }
            }
            if matches!(answer, Some(Ok(_))) {
                return;
            }
        }
        panic!("cannot be applied: {request:?}");
    }

    fn load(&mut self) {
        for request in &module(native::KV) {
            self.propose(request);
        }
    }

    fn write(&mut self, count: usize) {
        for n in 0..count {
            let data = format!(r#"{{"op":"set","key":"{n}","value":"x"}}"#).into();
            self.propose(&Command { data, session: None }.into());
        }
    }

    /// Proposes, and does not wait for what becomes of it.
    fn submit(&mut self, count: usize) {
        let leader = self.leader();
        for n in 0..count {
            let data = format!(r#"{{"op":"set","key":"{n}","value":"y"}}"#).into();
            let request = Command { data, session: None }.into();
            let (sender, _) = oneshot::channel();
            self.node(leader).handle().submit([(request, ReplySink::One(sender))]);
        }
    }

    /// What a query is refused with at once, if it is.
    fn refused(&mut self, at: usize) -> Option<QueryFailure> {
        let handle = self.node(at).handle().clone();
        let query = Bytes::from_static(br#"{"op":"get","key":"0"}"#);
        let answer = handle.query(query, Consistency::Stale).now_or_never();
        answer.and_then(Result::err)
    }

    fn healed(&mut self, at: usize) {
        self.run_until("a fresh state", |cluster| {
            let status = cluster.status(at);
            status.quarantine.is_none() && status.counters.healed > 0
        });
        self.write(6);
        self.run_until("agreement", |cluster| {
            let newest = (0..cluster.nodes.len()).map(|at| cluster.status(at).agreed).max();
            newest == Some(cluster.status(at).agreed) && newest > Some(Index(0))
        });
        assert!(self.node(at).handle().is_serving());
        assert_eq!(self.refused(at), None);
    }
}

#[test]
fn nodes_that_agree_are_left_in_peace() {
    let mut cluster = Cluster::new(3);
    cluster.write(20);
    cluster.run_until("verdicts everywhere", |cluster| {
        (0..3).all(|at| cluster.status(at).counters.verdicts >= 3)
    });
    for at in 0..3 {
        let status = cluster.status(at);
        assert_eq!((status.counters.quarantines, status.counters.undecided), (0, 0));
        assert_eq!(status.verdict.as_ref().expect("one").votes.len(), 3);
        assert!(status.agreed > Index(0));
    }
}

/// A comparison that somebody asked for and that has not been answered.
type Comparison = std::pin::Pin<
    Box<dyn Future<Output = Result<crate::machine::Verdict, super::super::ProposeFailure>>>,
>;

impl Cluster {
    fn compare(&mut self, at: usize) -> Comparison {
        let handle = self.node(at).handle().clone();
        let mut comparison: Comparison = Box::pin(async move { handle.compare_digests().await });
        assert!(comparison.as_mut().now_or_never().is_none(), "it takes a while");
        comparison
    }

    fn verdict(&mut self, comparison: &mut Comparison) -> crate::machine::Verdict {
        for _ in 0..20_000 {
            if let Some(verdict) = comparison.as_mut().now_or_never() {
                return verdict.expect("the leader stays");
            }
            self.step();
        }
        panic!("no verdict");
    }
}

/// With a member down a verdict takes two election timeouts; impatient callers used to propose a
/// point each, and none was ever judged.
#[test]
fn callers_who_ask_again_and_again_do_not_discard_the_votes_about_the_point_before() {
    let mut cluster = Cluster::new(3);
    cluster.write(1);
    let leader = cluster.leader();
    cluster.stop((leader + 1) % 3);
    let points = cluster.status(leader).counters.points;
    let mut first = cluster.compare(leader);
    let mut impatient = Vec::new();
    for _ in 0..10 {
        impatient.push(cluster.compare(leader));
        (0..15).for_each(|_| cluster.step());
    }
    let verdict = cluster.verdict(&mut first);
    assert_eq!((verdict.votes.len(), verdict.truth.is_some()), (2, true), "{verdict:?}");
    let verdicts: Vec<_> =
        impatient.iter_mut().map(|comparison| cluster.verdict(comparison)).collect();
    let distinct: std::collections::BTreeSet<_> = verdicts.iter().map(|v| v.point).collect();
    assert!(distinct.len() <= 2, "those who come while a point is judged share the next");
    assert!(verdicts.iter().all(|verdict| verdict.truth.is_some()));
    assert!(cluster.status(leader).counters.points - points <= 3);
}

#[test]
fn who_does_not_lead_or_has_left_is_not_waited_for_when_digests_are_compared() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = cluster.node((leader + 1) % 3).handle().clone();
    let refused = follower.compare_digests().now_or_never().expect("at once");
    assert!(
        matches!(refused, Err(super::super::ProposeFailure::NotLeader(Some(_)))),
        "{refused:?}"
    );
    let points = cluster.status(leader).counters.points;
    drop(cluster.compare(leader));
    (0..100).for_each(|_| cluster.step());
    assert_eq!(cluster.status(leader).counters.points, points, "nobody waits any more");
}

fn a_flipped_node_is_caught_and_heals(flip_leader: bool) {
    let mut cluster = Cluster::new(3);
    cluster.write(6);
    let leader = cluster.leader();
    let flipped = if flip_leader { leader } else { (leader + 1) % 3 };
    assert!(cluster.node(flipped).flip_bit(7));
    cluster.submit(6);
    cluster.run_until("a quarantine", |cluster| cluster.status(flipped).quarantine.is_some());
    assert_eq!(cluster.refused(flipped), Some(QueryFailure::Quarantined));
    assert!(!cluster.node(flipped).handle().is_serving());
    let quarantine = cluster.status(flipped).quarantine.clone().expect("just seen");
    let place = quarantine.evidence.expect("there is a directory for it");
    assert!(place.join("report.json").exists() && place.join("state.snapshot").exists());
    cluster.healed(flipped);
    if flip_leader {
        assert_ne!(cluster.leader(), flipped, "it handed over");
    }
    for at in 0..3 {
        let counters = cluster.status(at).counters;
        assert_eq!(counters.quarantines, u64::from(at == flipped), "node {at}");
    }
}

#[test]
fn a_follower_whose_state_goes_wrong_is_caught_at_the_next_point_and_heals() {
    a_flipped_node_is_caught_and_heals(false);
}

#[test]
fn a_leader_whose_state_goes_wrong_poisons_nobody() {
    a_flipped_node_is_caught_and_heals(true);
}

/// It took the snapshot before anybody knew, so a restart brings the wrong state back.
#[test]
fn a_wrong_state_in_a_snapshot_of_its_own_is_caught_after_a_restart_too() {
    let mut cluster = Cluster::new(3);
    cluster.write(6);
    let flipped = (cluster.leader() + 1) % 3;
    assert!(cluster.node(flipped).flip_bit(7));
    let handle = cluster.node(flipped).handle().clone();
    let mut taken = Box::pin(handle.take_snapshot());
    assert!(taken.as_mut().now_or_never().is_none());
    for _ in 0..20 {
        cluster.step();
    }
    drop(taken);
    assert!(cluster.stores[flipped].snapshots.list(GROUP).expect("memory").len() > 1);
    cluster.stop(flipped);
    cluster.start(flipped);
    cluster.submit(6);
    cluster.run_until("a quarantine", |cluster| cluster.status(flipped).quarantine.is_some());
    cluster.stop(flipped);
    cluster.start(flipped);
    let again = |cluster: &mut Cluster| cluster.status(flipped).quarantine.is_some();
    cluster.run_until("a quarantine, since the verdict is executed again", again);
    cluster.healed(flipped);
}

#[test]
fn a_restart_of_a_quarantined_node_mends_a_state_that_only_its_memory_had() {
    let mut cluster = Cluster::new(3);
    cluster.write(6);
    let flipped = (cluster.leader() + 1) % 3;
    assert!(cluster.node(flipped).flip_bit(7));
    cluster.submit(6);
    cluster.run_until("a quarantine", |cluster| cluster.status(flipped).quarantine.is_some());
    cluster.stop(flipped);
    cluster.start(flipped);
    cluster.write(6);
    cluster.run_until("agreement", |cluster| cluster.status(flipped).agreed > Index(0));
    assert_eq!(cluster.status(flipped).counters.quarantines, 0);
}

/// Both of them used to stop at once, though the third would have told who is right.
#[test]
fn two_of_three_that_differ_answer_nothing_until_the_third_is_back_and_go_on_by_themselves() {
    let mut cluster = Cluster::new(3);
    cluster.write(6);
    let leader = cluster.leader();
    let (flipped, down) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(down);
    assert!(cluster.node(flipped).flip_bit(7));
    cluster.submit(6);
    cluster.run_until("doubt", |cluster| {
        [leader, flipped].iter().all(|at| cluster.status(*at).doubt.is_some())
    });
    for at in [leader, flipped] {
        assert_eq!(cluster.refused(at), Some(QueryFailure::InDoubt));
        assert!(!cluster.node(at).handle().is_serving());
        let reason = cluster.status(at).doubt.clone().expect("just seen").reason;
        let missing = cluster.members[down].id;
        assert!(reason.contains(&format!("until node {missing} has voted")), "{reason}");
        let handle = cluster.node(at).handle().clone();
        let mut taken = Box::pin(handle.take_snapshot());
        assert!(taken.as_mut().now_or_never().is_none());
        (0..5).for_each(|_| cluster.step());
        let refused = taken.as_mut().now_or_never().expect("answered");
        assert!(refused.expect_err("refused").contains("nothing says yet"));
    }
    cluster.start(down);
    cluster.run_until("a decision", |cluster| {
        (0..3).all(|at| cluster.status(at).doubt.is_none() && cluster.status(at).agreed > Index(0))
    });
    cluster.healed(flipped);
    assert!((0..3).all(|at| cluster.node(at).stop_reason().is_none()), "nobody stopped");
    let quarantines: Vec<u64> = (0..3).map(|at| cluster.status(at).counters.quarantines).collect();
    assert_eq!(quarantines.iter().sum::<u64>(), quarantines[flipped]);
}

#[test]
fn a_restart_decides_as_well_and_who_waits_in_vain_stops_late() {
    let mut cluster = Cluster::new(3);
    cluster.write(6);
    let leader = cluster.leader();
    let (flipped, down) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(down);
    assert!(cluster.node(flipped).flip_bit(7));
    cluster.submit(6);
    cluster.run_until("doubt", |cluster| {
        [leader, flipped].iter().all(|at| cluster.status(*at).doubt.is_some())
    });
    cluster.run_until("an end of patience", |cluster| {
        [leader, flipped].iter().all(|at| cluster.node(*at).stop_reason().is_some())
    });
    for at in [leader, flipped] {
        match cluster.stop(at) {
            Some(StopReason::Failed(why)) => {
                assert!(why.contains("the replicas disagree"), "{why}")
            }
            other => panic!("{other:?}"),
        }
        cluster.start(at);
    }
    cluster.write(12);
    cluster.run_until("agreement", |cluster| {
        [leader, flipped].iter().all(|at| {
            let status = cluster.status(*at);
            status.agreed > Index(0) && status.alarm.is_none() && status.doubt.is_none()
        })
    });
}

#[test]
fn two_voters_that_differ_stop_and_go_on_with_what_their_logs_say() {
    let mut cluster = Cluster::new(2);
    cluster.write(6);
    assert!(cluster.node(0).flip_bit(7));
    cluster.submit(6);
    cluster.run_until("both stop", |cluster| {
        cluster.nodes.iter().flatten().all(|node| node.stop_reason().is_some())
    });
    for at in 0..2 {
        match cluster.stop(at) {
            Some(StopReason::Failed(why)) => {
                assert!(why.contains("no state has a majority"), "{why}")
            }
            other => panic!("{other:?}"),
        }
        cluster.start(at);
    }
    cluster.write(12);
    cluster.run_until("agreement", |cluster| {
        (0..2).all(|at| cluster.status(at).agreed > Index(0) && cluster.status(at).alarm.is_none())
    });
}

#[test]
fn the_only_voter_notices_that_its_log_gives_another_state_than_it_had() {
    let mut cluster = Cluster::new(1);
    cluster.write(6);
    assert!(cluster.node(0).flip_bit(7));
    cluster.write(6);
    cluster.run_until("a verdict", |cluster| cluster.status(0).counters.verdicts >= 2);
    cluster.stop(0);
    cluster.start(0);
    cluster.run_until("an alarm", |cluster| cluster.status(0).alarm.is_some());
    assert_eq!(cluster.status(0).quarantine, None);
    assert_eq!(cluster.refused(0), None, "it goes on");
}
