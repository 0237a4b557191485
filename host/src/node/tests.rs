//! Steps of nodes, alone and together.

mod batches;
#[cfg(feature = "museum")]
mod digests;
mod driver;
mod ends;
mod engine;
mod groups;
mod level;
mod metrics;
mod parked;
mod replaced;
mod rights;
mod shadow;
mod snapshots;
mod space;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    ActivateModule, Environment, ModuleChunk, MonotonicClock, NodeConfig, NodeInbox, NodeOptions,
    ProposeResult, ReplySink, Request, StartError, SteppedNode, Witness, bootstrap, channel,
};
use crate::consensus::{ConsensusConfig, bootstrap_write};
use crate::fsm::native::NativeLoader;
use crate::fsm::{Limits, SharedLoader};
use crate::machine::{Applied, Machine, TakeOver};
use crate::storage::{SnapshotMeta, Stores, WriteBatch};
use crate::transport::{Identity, Inbox as _, Transport};
use crate::types::{
    ClusterId, ConfState, GroupId, Index, LogEntry, Member, ModuleHash, NodeId, PeerMessage, Term,
};

/// Remembers whom it may send to.
#[derive(Default)]
struct Peers(Mutex<BTreeMap<NodeId, Member>>);

impl Transport for Peers {
    fn set_peers(&self, peers: BTreeMap<NodeId, Member>) {
        *self.0.lock().expect("lock") = peers;
    }

    fn send(&self, _messages: Vec<PeerMessage>) {}

    fn disconnect(&self, _peer: NodeId, _why: &str) {}
}

struct Nobody;

impl Witness for Nobody {
    fn applied(&mut self, _: &mut Machine, _: &LogEntry, _: &[Applied]) {}
    fn membership(&mut self, _: &LogEntry, _: &ConfState) {}
    fn installed(&mut self, _: &mut Machine, _: &SnapshotMeta) {}
}

/// A node alone in its cluster, by steps.
fn start(
    config: NodeConfig,
    limits: Limits,
    loader: SharedLoader,
    monotonic_clock: MonotonicClock,
) -> (SteppedNode, Arc<NodeInbox>, Arc<Peers>) {
    let stores = Stores::memory();
    bootstrap(&stores, &identity(), GroupId::MAIN, limits, Arc::clone(&loader)).expect("empty");
    start_on(&stores, config, loader, monotonic_clock).expect("starts")
}

/// Voters of a group that know each other, with the native state machine.
fn form(stores: &Stores, group: GroupId, members: &[Member]) {
    let voters = members.iter().map(|member| member.id).collect();
    let conf_state = ConfState { voters, ..ConfState::default() };
    let mut machine = Machine::new(CLUSTER, group, Limits::default(), Arc::new(NativeLoader));
    machine.bootstrap_members(Index(1), members.to_vec(), conf_state.clone());
    let (index, term) = (Index(1), Term(1));
    let meta = SnapshotMeta { group, index, term, conf_state, size_bytes: 0, checksum: 0 };
    let image = machine.capture().expect("captured");
    let meta = super::apply::save(&*stores.snapshots, 1, meta, &image).expect("memory");
    let groups = vec![(group, bootstrap_write(meta.position()))];
    stores.log.write(&WriteBatch { groups }).expect("memory");
}

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn identity() -> Identity {
    Identity { cluster: CLUSTER, node: NodeId(1), address: "one:1".to_owned() }
}

/// The same on stores that hold something already.
fn start_on(
    stores: &Stores,
    config: NodeConfig,
    loader: SharedLoader,
    monotonic_clock: MonotonicClock,
) -> Result<(SteppedNode, Arc<NodeInbox>, Arc<Peers>), StartError> {
    let (inbox, node_channel) = channel(&config);
    let options = NodeOptions {
        identity: identity(),
        group: GroupId::MAIN,
        config,
        consensus: ConsensusConfig::default(),
        stores: stores.clone(),
        loader,
        introduced: Vec::new(),
        evidence: None,
    };
    let environment = Environment {
        wall_clock_ms: Arc::new(|| 0),
        steady_clock: Arc::new(|| Duration::ZERO),
        monotonic_clock,
        seed: 1,
        incarnation: 1,
        compile_ahead: false,
        beside: false,
    };
    let peers = Arc::new(Peers::default());
    let transport = Arc::clone(&peers) as Arc<dyn Transport>;
    let witness = Box::new(Nobody);
    let node = SteppedNode::start(options, node_channel, transport, environment, witness)?;
    Ok((node, inbox, peers))
}

/// Every loop of the node does what there is to do.
fn step(node: &mut SteppedNode, tick: bool) {
    node.turn(tick);
    while node.begin_write().is_some() {
        node.finish_write();
    }
    while node.has_log_read() {
        node.read_log();
    }
    while node.has_job() && node.stop_reason().is_none() {
        node.apply_next();
    }
    node.save_next();
}

/// Steps until nothing is left to do.
fn settle(node: &mut SteppedNode) {
    for _ in 0..20 {
        step(node, false);
    }
}

fn propose(node: &SteppedNode, request: Request) -> oneshot::Receiver<ProposeResult> {
    let (sender, receiver) = oneshot::channel();
    node.handle().submit([(request, ReplySink::One(sender))]);
    receiver
}

/// The requests that bring a module in.
fn module(module: &[u8]) -> [Request; 2] {
    let hash = ModuleHash::of(module);
    let total_bytes = module.len() as u64;
    let data = Bytes::copy_from_slice(module);
    let (label, replaces) = ("module".to_owned(), None);
    let (take_over, receipt) = (TakeOver::default(), None);
    [
        Request::ModuleChunk(ModuleChunk {
            module: hash,
            total_bytes,
            offset: 0,
            data,
            is_state: false,
        }),
        Request::ActivateModule(ActivateModule {
            module: hash,
            label,
            replaces,
            take_over,
            receipt,
            signatures: Vec::new(),
        }),
    ]
}

/// A member that was down while a node joined, and is led by that node when it is back, learns
/// of it only by answering it. It did not, and could neither vote nor catch up.
#[test]
fn a_member_answers_a_peer_that_it_has_not_heard_of() {
    let clock = Arc::new(|| Duration::ZERO);
    let (mut node, inbox, peers) =
        start(NodeConfig::default(), Limits::default(), Arc::new(NativeLoader), clock);
    let newer = Member { id: NodeId(9), address: "nine:1".to_owned() };
    inbox.peer_seen(newer.clone());
    node.turn(false);
    assert_eq!(peers.0.lock().expect("lock").get(&NodeId(9)), Some(&newer));
}
