//! How a node ends when one of its threads does not.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::identity;
use crate::consensus::ConsensusConfig;
use crate::fsm::Limits;
use crate::fsm::native::NativeLoader;
use crate::node::{Node, NodeConfig, NodeOptions, StopReason, bootstrap, channel};
use crate::storage::{LogStore, StableStore, StorageError, Stores, WriteBatch};
use crate::transport::Transport;
use crate::types::{
    GroupId, HardState, Index, LogEntry, LogPosition, Member, NodeId, PeerMessage, Term,
};

/// As long as it takes.
const LONG: Duration = Duration::from_secs(600);

/// Breaks down when the event loop tells it of its peers.
struct Broken;

impl Transport for Broken {
    fn set_peers(&self, _: BTreeMap<NodeId, Member>) {
        panic!("on purpose");
    }

    fn send(&self, _: Vec<PeerMessage>) {}

    fn disconnect(&self, _: NodeId, _: &str) {}
}

struct Nobody;

impl Transport for Nobody {
    fn set_peers(&self, _: BTreeMap<NodeId, Member>) {}

    fn send(&self, _: Vec<PeerMessage>) {}

    fn disconnect(&self, _: NodeId, _: &str) {}
}

/// A log whose writes do not return while the gate is closed.
struct Gated {
    log: Arc<dyn LogStore>,
    /// Closed; writes that wait.
    gate: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gated {
    fn close(&self) {
        self.gate.lock().expect("lock").0 = true;
    }

    fn open(&self) {
        self.gate.lock().expect("lock").0 = false;
        self.changed.notify_all();
    }

    fn wait_for_a_write(&self) {
        let gate = self.gate.lock().expect("lock");
        drop(self.changed.wait_while(gate, |(_, waiting)| *waiting == 0).expect("lock"));
    }
}

impl StableStore for Gated {
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError> {
        self.log.hard_state(group)
    }
}

impl LogStore for Gated {
    fn start(&self, group: GroupId) -> Result<LogPosition, StorageError> {
        self.log.start(group)
    }

    fn last_index(&self, group: GroupId) -> Result<Index, StorageError> {
        self.log.last_index(group)
    }

    fn term(&self, group: GroupId, index: Index) -> Result<Term, StorageError> {
        self.log.term(group, index)
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.log.entries(group, range, max_bytes)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut gate = self.gate.lock().expect("lock");
        gate.1 += 1;
        self.changed.notify_all();
        let mut gate = self.changed.wait_while(gate, |(closed, _)| *closed).expect("lock");
        gate.1 -= 1;
        drop(gate);
        self.log.write(batch)
    }

    fn purge(&self) -> Result<(), StorageError> {
        self.log.purge()
    }

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        self.log.groups()
    }
}

fn start(stores: Stores, transport: Arc<dyn Transport>) -> Node {
    start_with(NodeConfig::default(), stores, transport)
}

pub(super) fn start_with(
    config: NodeConfig,
    stores: Stores,
    transport: Arc<dyn Transport>,
) -> Node {
    let (_, node_channel) = channel(&config);
    let options = NodeOptions {
        identity: identity(),
        group: GroupId::MAIN,
        config,
        consensus: ConsensusConfig::default(),
        stores,
        loader: Arc::new(NativeLoader),
        introduced: Vec::new(),
        evidence: None,
    };
    Node::start(options, node_channel, transport).expect("starts")
}

pub(super) fn formed() -> Stores {
    let stores = Stores::memory();
    let loader = Arc::new(NativeLoader);
    bootstrap(&stores, &identity(), GroupId::MAIN, Limits::default(), loader).expect("empty");
    stores
}

/// The apply thread waited in its queue, of which it holds an end itself, for ever.
#[test]
fn a_panic_of_the_event_loop_ends_all_threads() {
    let node = start(formed(), Arc::new(Broken));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut stopped = node.handle().stopped();
    let told = runtime.block_on(stopped.wait_for(Option::is_some)).expect("the node is there");
    assert!(matches!(&*told, Some(StopReason::Failed(why)) if why.contains("event loop thread")));
    drop(told);
    let (_, stragglers) = node.stop_within(LONG);
    assert!(stragglers.is_none(), "{stragglers:?}");
}

#[test]
fn a_write_that_does_not_return_does_not_keep_a_node_from_ending() {
    let stores = formed();
    let gated = Arc::new(Gated {
        log: Arc::clone(&stores.log),
        gate: Mutex::default(),
        changed: Condvar::new(),
    });
    gated.close();
    let log = Arc::clone(&gated) as Arc<dyn LogStore>;
    let node = start(Stores { log, snapshots: stores.snapshots }, Arc::new(Nobody));
    gated.wait_for_a_write();
    let (reason, stragglers) = node.stop_within(Duration::from_millis(50));
    assert_eq!(reason, StopReason::Requested);
    let stragglers = stragglers.expect("the log writer is stuck");
    assert!(stragglers.names().contains("log-writer"), "{}", stragglers.names());
    gated.open();
    stragglers.wait();
}
