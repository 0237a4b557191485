//! A node at an engine profile that its program does not offer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::consensus::Role;
use crate::fsm::native::KV;
use crate::fsm::{EngineFacts, EngineProfile, Offering};
use crate::machine::{QueryResult, Reply, RestoreError};
use crate::node::{Command, ProposeFailure, StopReason};
use crate::types::{Index, Level, Outcome};

fn start_again(
    stores: &Stores,
    loader: &SharedLoader,
) -> Result<(SteppedNode, Arc<NodeInbox>, Arc<Peers>), StartError> {
    start_on(stores, NodeConfig::default(), Arc::clone(loader), Arc::new(|| Duration::ZERO))
}

fn set_key(key: &str) -> Request {
    let data = format!(r#"{{"op":"set","key":"{key}","value":"1"}}"#);
    Command { data: data.into_bytes().into(), session: None }.into()
}

fn answered(receiver: &mut oneshot::Receiver<ProposeResult>) -> ProposeResult {
    receiver.try_recv().expect("answered by now")
}

fn leading(stores: &Stores, loader: &SharedLoader) -> SteppedNode {
    let (mut node, ..) = start_again(stores, loader).expect("starts");
    settle(&mut node);
    assert_eq!(node.role(), Role::Leader);
    node
}

/// A node whose program does not offer the cluster's new engine profile applies the change and
/// nothing after it, leaves its state where the next program finds it, and gives the others time
/// to learn what is committed before it stops.
#[test]
fn a_node_stops_at_an_engine_profile_that_its_program_does_not_offer() {
    let old: SharedLoader = Arc::new(NativeLoader);
    let facts = old.engine().facts().expect("version 1");
    let next = EngineProfile::of(&EngineFacts { fuel: 9, ..facts });
    let new: SharedLoader = Arc::new(Offering {
        loader: Arc::clone(&old),
        profiles: vec![next.clone()],
        level: Level::CURRENT,
    });
    let stores = Stores::memory();
    bootstrap(&stores, &identity(), GroupId::MAIN, Limits::default(), Arc::clone(&old))
        .expect("empty stores");
    let mut node = leading(&stores, &old);
    let _chunk_and_activation = module(KV).map(|request| propose(&node, request));
    settle(&mut node);
    assert!(node.handle().is_serving());

    let mut before = propose(&node, set_key("before"));
    let mut change = propose(&node, Request::SetEngine(next.clone()));
    let mut after = propose(&node, set_key("after"));
    settle(&mut node);
    let applied = answered(&mut before).expect("applied").reply;
    assert!(matches!(applied, Reply::Command(Outcome::Ok(_))), "{applied:?}");
    let committed = answered(&mut change).expect("applied");
    let at = committed.position.index;
    let previous = old.engine();
    assert_eq!(committed.reply, Reply::EngineSet { engine: next.clone(), previous });
    // It is committed, and the next program will apply it; this one does not know the answer.
    assert!(matches!(answered(&mut after), Err(ProposeFailure::Unknown(_))));
    assert_eq!(node.machine().expect("has one").applied_index(), at);
    assert_eq!(stores.snapshots.list(GroupId::MAIN).expect("listed")[0].index, at);

    // It lingers, serves nobody, and takes part in consensus.
    assert_eq!(node.stop_reason(), None);
    assert!(!node.handle().is_serving());
    let mut late = propose(&node, set_key("late"));
    settle(&mut node);
    assert!(matches!(answered(&mut late), Err(ProposeFailure::Stopping)));
    assert_eq!(node.status().commit, Index(at.0 + 1));
    let ticks = (0..1_000).take_while(|_| {
        step(&mut node, true);
        node.stop_reason().is_none()
    });
    assert_eq!(ticks.count(), NodeConfig::default().election_ticks());
    let Some(StopReason::Program(why)) = node.stop_reason() else {
        panic!("{:?}", node.stop_reason())
    };
    for part in [next.as_str(), old.engine().as_str(), "start a version of raft-host"] {
        assert!(why.contains(part), "{why}");
    }
    drop(node);

    let refused = start_again(&stores, &old).err().expect("must not start");
    let StartError::Restore { index, source: RestoreError::Program(_) } = refused else {
        panic!("{refused}")
    };
    assert_eq!(index, at);
    let mut node = leading(&stores, &new);
    assert!(node.handle().is_serving());
    let query = |node: &mut SteppedNode| {
        let answer = node.machine().expect("has one").query(br#"{"op":"range"}"#).expect("answers");
        match answer.result {
            QueryResult::Answer(Outcome::Ok(keys)) => String::from_utf8(keys).expect("UTF-8"),
            other => panic!("{other:?}"),
        }
    };
    let applied = node.machine().expect("has one").applied_index();
    assert!(applied > Index(at.0 + 1), "{applied}");
    let keys = query(&mut node);
    assert!(keys.contains("before") && keys.contains("after") && !keys.contains("late"), "{keys}");
}
