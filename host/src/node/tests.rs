//! Steps of nodes, alone and together.

#[cfg(feature = "museum")]
mod digests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::apply::Witness;
use super::{Environment, NodeConfig, NodeOptions, SteppedNode, bootstrap, channel};
use crate::consensus::ConsensusConfig;
use crate::fsm::Limits;
use crate::fsm::native::NativeLoader;
use crate::machine::{Applied, Machine};
use crate::storage::{SnapshotMeta, Stores};
use crate::transport::{Identity, Inbox as _, Transport};
use crate::types::{ClusterId, ConfState, GroupId, LogEntry, Member, NodeId, PeerMessage};

/// Remembers whom it may send to.
#[derive(Default)]
struct Peers(Mutex<BTreeMap<NodeId, Member>>);

impl Transport for Peers {
    fn set_peers(&self, peers: BTreeMap<NodeId, Member>) {
        *self.0.lock().expect("lock") = peers;
    }

    fn send(&self, _messages: Vec<PeerMessage>) {}
}

struct Nobody;

impl Witness for Nobody {
    fn applied(&mut self, _: &mut Machine, _: &LogEntry, _: &Applied) {}
    fn membership(&mut self, _: &LogEntry, _: &ConfState) {}
    fn installed(&mut self, _: &mut Machine, _: &SnapshotMeta) {}
}

/// A member that was down while a node joined, and is led by that node when it is back, learns
/// of it only by answering it. It did not, and could neither vote nor catch up.
#[test]
fn a_member_answers_a_peer_that_it_has_not_heard_of() {
    let identity =
        Identity { cluster: ClusterId([7; 16]), node: NodeId(1), address: "one:1".to_owned() };
    let stores = Stores::memory();
    let loader = Arc::new(NativeLoader);
    let limits = Limits::default();
    bootstrap(&stores, &identity, GroupId::MAIN, limits, loader.clone()).expect("empty stores");
    let config = NodeConfig::default();
    let (inbox, node_channel) = channel(&config);
    let options = NodeOptions {
        identity,
        group: GroupId::MAIN,
        config,
        consensus: ConsensusConfig::default(),
        stores,
        loader,
        introduced: Vec::new(),
        evidence: None,
    };
    let environment = Environment {
        wall_clock_ms: Arc::new(|| 0),
        seed: 1,
        incarnation: 1,
        compile_ahead: false,
    };
    let peers = Arc::new(Peers::default());
    let transport = Arc::clone(&peers) as Arc<dyn Transport>;
    let witness = Box::new(Nobody);
    let mut node =
        SteppedNode::start(options, node_channel, transport, environment, witness).expect("starts");
    let newer = Member { id: NodeId(9), address: "nine:1".to_owned() };
    inbox.peer_seen(newer.clone());
    node.turn(false);
    assert_eq!(peers.0.lock().expect("lock").get(&NodeId(9)), Some(&newer));
}
