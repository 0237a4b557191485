//! A level that a node raises, and one that its program does not offer.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use raft_host_proto::stored;
use tokio::sync::oneshot;

use super::*;
use crate::consensus::Role;
use crate::fsm::Offering;
use crate::machine::RestoreError;
use crate::node::{ProposeFailure, StopReason};
use crate::types::Level;

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
