//! A node by itself, in this process, with its threads; its stores survive a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use raft_host::consensus::{ConsensusConfig, Role};
use raft_host::fsm::{LimitChange, Limits, SharedLoader};
use raft_host::machine::{QueryReply, QueryResult, Reply, TakeOver};
use raft_host::node::{
    Command, Committed, Consistency, LimitsFailure, Node, NodeConfig, NodeHandle, NodeOptions,
    ProposeResult, Request, StopReason, Upgrade, UpgradeFailure, Upgraded, bootstrap, channel,
};
use raft_host::storage::Stores;
use raft_host::transport::{Identity, Transport};
use raft_host::types::{ClusterId, GroupId, Index, Member, NodeId, Outcome, PeerMessage};
use tokio::runtime::Runtime;

/// There is nobody to talk to.
struct Nobody;

impl Transport for Nobody {
    fn set_peers(&self, _peers: BTreeMap<NodeId, Member>) {}

    fn send(&self, _messages: Vec<PeerMessage>) {}

    fn disconnect(&self, _peer: NodeId, _why: &str) {}
}

/// See the module. Every call panics, with the reason, once the node has stopped by itself.
pub struct LoneNode {
    runtime: Runtime,
    stores: Stores,
    loader: SharedLoader,
    node: Option<Node>,
}

impl LoneNode {
    /// A cluster of one, without a module.
    pub fn new(loader: SharedLoader, limits: Limits) -> LoneNode {
        let stores = Stores::memory();
        bootstrap(&stores, &identity(), GroupId::MAIN, limits, Arc::clone(&loader))
            .expect("the stores are empty");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut node = LoneNode { runtime, stores, loader, node: None };
        node.start();
        node
    }

    fn start(&mut self) {
        let config = NodeConfig::default();
        let (_inbox, queue) = channel(&config);
        let options = NodeOptions {
            identity: identity(),
            group: GroupId::MAIN,
            config,
            consensus: ConsensusConfig::default(),
            stores: self.stores.clone(),
            loader: Arc::clone(&self.loader),
            introduced: Vec::new(),
            evidence: None,
        };
        let node = Node::start(options, queue, Arc::new(Nobody))
            .unwrap_or_else(|error| panic!("the node does not start: {error}"));
        let mut leadership = node.handle().leadership();
        let mut machine = node.handle().machine();
        self.runtime.block_on(async {
            let leads = leadership.wait_for(|now| now.role == Role::Leader);
            leads.await.expect("a node alone leads");
            machine.wait_for(Option::is_some).await.expect("it has a state from the start");
        });
        self.node = Some(node);
    }

    /// Stops it in order and starts it again from what it has stored.
    pub fn restart(&mut self) {
        self.check_health();
        let reason = self.node.take().expect("it runs").stop();
        assert_eq!(reason, StopReason::Requested);
        self.start();
    }

    /// A handle of the running node.
    pub fn handle(&self) -> NodeHandle {
        self.node.as_ref().expect("it runs").handle()
    }

    /// Panics if the node has stopped.
    pub fn check_health(&self) {
        let handle = self.handle();
        let stopped = handle.stopped().borrow().clone();
        assert_eq!(stopped, None, "the node stopped");
    }

    fn propose(&self, request: Request) -> Committed {
        let result = self.runtime.block_on(self.handle().propose(request));
        self.check_health();
        result.expect("a node alone commits what it is given")
    }

    /// Brings a module in and activates it.
    ///
    /// # Errors
    /// As the node says.
    pub fn upgrade(&self, module: &[u8]) -> Result<Upgraded, UpgradeFailure> {
        self.upgrade_with(module, false)
    }

    /// Brings a module in and activates it; the state before may be given up.
    ///
    /// # Errors
    /// As the node says.
    pub fn upgrade_with(
        &self,
        module: &[u8],
        discard_state: bool,
    ) -> Result<Upgraded, UpgradeFailure> {
        let incumbent = self.runtime.block_on(self.handle().incumbent_now());
        let upgrade = Upgrade {
            module: Bytes::copy_from_slice(module),
            replaces: incumbent.expect("a node alone answers"),
            take_over: match discard_state {
                true => TakeOver::Nothing,
                false => TakeOver::default(),
            },
            ..Upgrade::default()
        };
        let result = self.runtime.block_on(self.handle().upgrade(upgrade));
        self.check_health();
        assert!(!matches!(result, Err(UpgradeFailure::Host(_))), "{result:?}");
        result
    }

    /// Runs a command.
    pub fn apply(&self, command: &[u8]) -> Outcome {
        let data = Bytes::copy_from_slice(command);
        let command = Command { data, session: None };
        match self.propose(command.into()).reply {
            Reply::Command(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Runs commands as one entry.
    pub fn apply_batch(&self, commands: &[&[u8]]) -> Vec<Outcome> {
        let command = |data: &&[u8]| Command { data: Bytes::copy_from_slice(data), session: None };
        let commands = commands.iter().map(command).collect();
        let results = self.runtime.block_on(self.handle().propose_batch(commands));
        self.check_health();
        let outcome = |result: ProposeResult| match result.expect("a node alone commits").reply {
            Reply::Command(outcome) => outcome,
            other => panic!("{other:?}"),
        };
        results.into_iter().map(outcome).collect()
    }

    /// Asks a question.
    pub fn query(&self, query: &[u8]) -> Outcome {
        let query = Bytes::copy_from_slice(query);
        let handle = self.handle();
        let answer = self.runtime.block_on(handle.query(query, Consistency::Linearizable));
        self.check_health();
        match answer.expect("an answer").result {
            QueryResult::Answer(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Asks a question that any state answers.
    pub fn query_stale(&self, query: &[u8]) -> QueryReply {
        let query = Bytes::copy_from_slice(query);
        let answer = self.runtime.block_on(self.handle().query(query, Consistency::Stale));
        answer.expect("an answer")
    }

    /// Asks many such questions at once, runs a command meanwhile, and says how many were answered
    /// before it was. The others are not waited for.
    pub fn answered_before_a_command(&self, query: &[u8], count: usize, command: &[u8]) -> usize {
        let answered = Arc::<AtomicUsize>::default();
        let handle = self.handle();
        let questions: Vec<_> = (0..count)
            .map(|_| {
                let (handle, answered) = (handle.clone(), Arc::clone(&answered));
                let query = Bytes::copy_from_slice(query);
                self.runtime.spawn(async move {
                    handle.query(query, Consistency::Stale).await.expect("an answer");
                    answered.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        while answered.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let already = answered.load(Ordering::SeqCst);
        self.apply(command);
        let before = answered.load(Ordering::SeqCst) - already;
        for question in questions {
            question.abort();
        }
        before
    }

    /// Index of the newest snapshot.
    pub fn snapshot_index(&self) -> Index {
        let status = self.runtime.block_on(self.handle().status());
        status.expect("it runs").snapshot
    }

    /// Writes a snapshot, from which the next start begins.
    pub fn take_snapshot(&self) {
        let taken = self.runtime.block_on(self.handle().take_snapshot());
        self.check_health();
        taken.expect("a snapshot");
    }

    /// Changes limits of the guest.
    ///
    /// # Errors
    /// As the node says.
    pub fn set_limit(&self, change: LimitChange) -> Result<(), LimitsFailure> {
        let result = self.runtime.block_on(self.handle().set_limits(vec![change]));
        self.check_health();
        result.map(|_| ())
    }
}

impl Drop for LoneNode {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
    }
}

fn identity() -> Identity {
    Identity { cluster: ClusterId([7; 16]), node: NodeId(1), address: "alone:1".to_owned() }
}
