//! A level that a node raises, and one that its program does not offer.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use raft_host_proto::stored;
use tokio::sync::oneshot;

use super::replaced::{from_two, lead, stores_of_three};
use super::*;
use crate::consensus::Role;
use crate::fsm::Offering;
use crate::machine::RestoreError;
use crate::node::{ProposeFailure, StopReason};
use crate::types::{Level, MessageKind, Space};

fn offering(level: Level) -> SharedLoader {
    Arc::new(Offering { loader: Arc::new(NativeLoader), profiles: Vec::new(), level })
}

fn leading(stores: &Stores, config: NodeConfig, loader: SharedLoader) -> SteppedNode {
    let (mut node, ..) =
        start_on(stores, config, loader, Arc::new(|| Duration::ZERO)).expect("starts");
    settle(&mut node);
    assert_eq!(node.role(), Role::Leader);
    node
}

fn level(node: &mut SteppedNode) -> Level {
    node.machine().expect("has one").level()
}

fn formed() -> Stores {
    let stores = Stores::memory();
    bootstrap(&stores, &identity(), GroupId::MAIN, Limits::default(), Arc::new(NativeLoader))
        .expect("empty stores");
    stores
}

#[test]
fn an_older_program_can_be_put_back_until_the_level_is_raised() {
    let stores = formed();
    let config = NodeConfig { level_settle_ms: 2_000, ..NodeConfig::default() };
    let mut newer = leading(&stores, config.clone(), offering(Level(2)));
    // A tick is 10 ms.
    for _ in 0..100 {
        step(&mut newer, true);
    }
    assert_eq!(level(&mut newer), Level(1));
    let status = newer.handle().levels().borrow().clone();
    assert_eq!((status.agreed, status.raised_in), (Some(Level(2)), Some(Duration::from_secs(1))));
    drop(newer);

    let mut older = leading(&stores, config.clone(), offering(Level(1)));
    for _ in 0..300 {
        step(&mut older, true);
    }
    assert_eq!(level(&mut older), Level(1));
    drop(older);

    let mut newer = leading(&stores, config.clone(), offering(Level(2)));
    for _ in 0..300 {
        step(&mut newer, true);
    }
    assert_eq!(level(&mut newer), Level(2));
    drop(newer);

    // What the newer one left is read up to where the level was raised, and not beyond.
    let (mut older, ..) =
        start_on(&stores, config, offering(Level(1)), Arc::new(|| Duration::ZERO)).expect("starts");
    for _ in 0..300 {
        step(&mut older, true);
        if older.stop_reason().is_some() {
            break;
        }
    }
    let Some(StopReason::Program(why)) = older.stop_reason() else {
        panic!("{:?}", older.stop_reason())
    };
    for part in ["the cluster's level is 2, and this program offers 1", "A level is never lowered"]
    {
        assert!(why.contains(part), "{why}");
    }
    drop(older);
    let refused =
        start_on(&stores, NodeConfig::default(), offering(Level(1)), Arc::new(|| Duration::ZERO));
    let refused = refused.err().expect("it saved a snapshot at the change");
    assert!(
        matches!(refused, StartError::Restore { source: RestoreError::Program(_), .. }),
        "{refused}"
    );
}

#[test]
fn by_hand_it_is_raised_as_far_as_everybody_offers() {
    let stores = formed();
    let config = NodeConfig { level_settle_ms: 0, ..NodeConfig::default() };
    let mut node = leading(&stores, config, offering(Level(3)));
    let ask = |node: &mut SteppedNode, wanted: Option<u32>| {
        let handle = node.handle().clone();
        let mut asking = Box::pin(async move { handle.raise_level(wanted.map(Level)).await });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..20 {
            if let std::task::Poll::Ready(answer) = asking.as_mut().poll(&mut context) {
                return answer;
            }
            step(node, true);
        }
        panic!("no answer")
    };
    let refused = ask(&mut node, Some(4)).expect_err("it is not offered");
    assert!(matches!(refused, ProposeFailure::Level(_)), "{refused}");
    let raised = ask(&mut node, Some(2)).expect("it is offered");
    assert_eq!((raised.previous, raised.level), (Level(1), Level(2)));
    let raised = ask(&mut node, None).expect("it is offered");
    assert_eq!((raised.previous, raised.level), (Level(2), Level(3)));
    let again = ask(&mut node, None).expect("nothing changes");
    assert_eq!((again.previous, again.level), (Level(3), Level(3)));
    assert_eq!(level(&mut node), Level(3));
    // One that the log holds all the same is never a step back.
    let body = Some(stored::entry::Body::SetLevel(stored::SetLevel { level: 1 }));
    let entry = stored::Entry { time_ms: 0, actor: None, body }.encode_to_vec();
    let (sender, mut lower) = oneshot::channel();
    node.handle().submit_entry(entry.into(), ReplySink::One(sender));
    settle(&mut node);
    lower.try_recv().expect("answered").expect("applied");
    assert_eq!(level(&mut node), Level(3));
}

/// A leader of three that was elected by node 2, which has all of its log.
fn elected() -> (SteppedNode, Arc<NodeInbox>) {
    // Formed by the program before.
    let stores = stores_of_three(&offering(Level(1)));
    let clock = Arc::new(|| Duration::ZERO);
    let config = NodeConfig { level_settle_ms: 0, ..NodeConfig::default() };
    let started = start_on(&stores, config, offering(Level(2)), clock);
    let (mut node, inbox, _) = started.expect("starts");
    lead(&mut node, &inbox);
    settle(&mut node);
    // The formation and the leader's first entry.
    acknowledge(&mut node, &inbox, Index(2));
    (node, inbox)
}

fn acknowledge(node: &mut SteppedNode, inbox: &NodeInbox, index: Index) {
    let term = node.term();
    let response = from_two(MessageKind::AppendEntriesResponse, term);
    inbox.deliver(vec![PeerMessage { index, ..response }]);
    settle(node);
}

fn offer(node: &mut SteppedNode, inbox: &NodeInbox, from: u64) {
    let (to, space) = (NodeId(1), Space::default());
    let offer = PeerMessage::level_offer(GroupId::MAIN, NodeId(from), to, Level(2), space);
    inbox.deliver(vec![offer]);
    settle(node);
}

/// It was refused, as if a member had not been heard from for long.
#[test]
fn right_after_an_election_an_operator_waits_for_what_members_offer() {
    for wanted in [None, Some(Level(2))] {
        let (mut node, inbox) = elected();
        let handle = node.handle().clone();
        let mut asking = Box::pin(async move { handle.raise_level(wanted).await });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut poll = || asking.as_mut().poll(&mut context);
        for member in [2, 3] {
            assert!(poll().is_pending(), "node {member} has not said what it offers");
            offer(&mut node, &inbox, member);
        }
        acknowledge(&mut node, &inbox, Index(3));
        let std::task::Poll::Ready(raised) = poll() else { panic!("no answer") };
        let raised = raised.expect("all offer it");
        assert_eq!((raised.previous, raised.level), (Level(1), Level(2)));
    }
}

/// Whoever waits is told by a leader that another one takes the place of.
#[test]
fn who_waits_for_a_member_is_refused_when_it_is_dead_or_another_node_leads() {
    for is_deposed in [false, true] {
        let (mut node, inbox) = elected();
        let handle = node.handle().clone();
        let mut asking = Box::pin(async move { handle.raise_level(Some(Level(2))).await });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut poll = || asking.as_mut().poll(&mut context);
        assert!(poll().is_pending());
        offer(&mut node, &inbox, 2);
        if is_deposed {
            let term = Term(node.term().0 + 1);
            inbox.deliver(vec![from_two(MessageKind::Heartbeat, term)]);
            settle(&mut node);
        }
        let mut answer = poll();
        let ticks = 2 * NodeConfig::default().election_ticks();
        for _ in 0..ticks {
            if answer.is_ready() {
                break;
            }
            // It goes on leading.
            acknowledge(&mut node, &inbox, Index(2));
            step(&mut node, true);
            answer = poll();
        }
        let std::task::Poll::Ready(refused) = answer else { panic!("no answer") };
        match (refused.expect_err("node 3 is dead"), is_deposed) {
            (ProposeFailure::Level(refused), false) => {
                assert_eq!(refused.missing, [(NodeId(3), None)]);
            }
            (ProposeFailure::NotLeader(_), true) => {}
            (other, _) => panic!("{other}"),
        }
    }
}
