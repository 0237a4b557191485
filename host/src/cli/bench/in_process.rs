//! A cluster inside of this process, called without RPC: the shape in which Raft libraries are
//! measured. Logs are on disk with one fsync per batch, and the nodes talk gRPC over loopback,
//! as real ones do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use super::load::Generator;
use super::measure::{Ending, Interval, Measured, Recorder};
use super::turns::{Comparison, take_turns};
use super::{BenchArgs, FsmKind, Op};
use crate::cli::exit::Failure;
use crate::cli::input::read_module;
use crate::consensus::{ConsensusConfig, Role};
use crate::fsm::native::{KV, NULL, WithNative};
use crate::fsm::{Limits, SharedLoader};
use crate::machine::{QueryResult, Reply};
use crate::node::{
    Command, Consistency, GroupOptions, Leadership, Node, NodeConfig, NodeHandle, NodeOptions,
    ProposeFailure, Request, Upgrade, bootstrap, channel,
};
use crate::storage::{DataDir, Engine, NodeIdentity, StorageConfig, Stores};
use crate::tls::NodeDialer;
use crate::transport::grpc::TransportConfig;
use crate::transport::{Identity, NetworkTransport, Opening, TransportFactory as _};
use crate::types::{ClusterId, GroupId, Member, NodeId, Outcome};
use crate::wasm::WasmLoader;

/// The sample plugin, which does what the native store does.
const KV_MODULE: &[u8] = include_bytes!("../../../../plugins/kv/kv.wasm");
/// A caller that was refused waits so long before it asks again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);
/// How long forming the cluster may take.
const FORMING_TIMEOUT: Duration = Duration::from_secs(60);

/// Measures one state machine.
pub(super) fn measure(args: &BenchArgs) -> Result<Measured, Failure> {
    block_on(async {
        let place = Place::new(args)?;
        let cluster = Cluster::form(args, args.in_process.fsm, &place.path).await?;
        let measured = cluster.measure(args).await;
        cluster.stop().await;
        measured
    })
}

/// Measures the native machine and the wasm module in turns.
pub(super) fn compare(args: &BenchArgs) -> Result<Comparison, Failure> {
    block_on(async {
        let place = Place::new(args)?;
        let native = Cluster::form(args, FsmKind::Native, &place.path.join("native")).await?;
        let wasm = Cluster::form(args, FsmKind::Wasm, &place.path.join("wasm")).await?;
        let both = [&native, &wasm];
        let measure = |which: usize| both[which].measure(args);
        let compared = take_turns(["native", "wasm"], args.rounds, measure).await;
        native.stop().await;
        wasm.stop().await;
        compared
    })
}

pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(future)
}

/// Where the data is.
pub(super) struct Place {
    path: PathBuf,
    /// Deleted at the end.
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub(super) fn new(args: &BenchArgs) -> Result<Place, Failure> {
        if let Some(path) = &args.in_process.data_dir {
            return Ok(Place { path: path.clone(), _temporary: None });
        }
        let temporary = tempfile::Builder::new()
            .prefix("raft-host-bench-")
            .tempdir()
            .map_err(|error| Failure::new(format!("cannot make a temporary directory: {error}")))?;
        Ok(Place { path: temporary.path().to_owned(), _temporary: Some(temporary) })
    }
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Nodes of one cluster, the first of which formed it.
pub(super) struct Cluster {
    members: Vec<RunningMember>,
    loader: SharedLoader,
}

struct RunningMember {
    node: Node,
    stores: Stores,
    transport: Arc<dyn NetworkTransport>,
    server: JoinHandle<()>,
    stop_server: CancellationToken,
    /// Locked as long as the node runs.
    _data_dir: DataDir,
}

impl Cluster {
    /// Starts nodes in empty directories and gives them the state machine.
    pub(super) async fn form(
        args: &BenchArgs,
        fsm: FsmKind,
        directory: &Path,
    ) -> Result<Cluster, Failure> {
        let module = match fsm {
            FsmKind::Native => Bytes::from_static(KV),
            FsmKind::Null => Bytes::from_static(NULL),
            FsmKind::Wasm => match &args.in_process.module {
                Some(path) => read_module(path)?.into(),
                None => Bytes::from_static(KV_MODULE),
            },
        };
        let wasm = WasmLoader::new(None).map_err(|error| Failure::new(error.to_string()))?;
        let loader: SharedLoader = Arc::new(WithNative(wasm));
        let cluster = ClusterId(rand::random());
        let mut members = Vec::new();
        let mut first: Option<Member> = None;
        for id in 1..=args.in_process.nodes {
            let listener =
                TcpListener::bind("127.0.0.1:0").await.map_err(|e| cannot("listen", &e))?;
            let address = listener.local_addr().map_err(|e| cannot("listen", &e))?.to_string();
            let identity = Identity { cluster, node: NodeId(id.into()), address };
            let me = Member { id: identity.node, address: identity.address.clone() };
            let directory = directory.join(format!("node-{id}"));
            let (loader, introduced) = (Arc::clone(&loader), first.clone());
            let starting = tokio::task::spawn_blocking(move || {
                start_member(identity, &directory, loader, introduced, listener)
            });
            let started = starting.await.map_err(|error| cannot("start a node", &error))?;
            members.push(started?);
            first.get_or_insert(me);
        }
        let formed = Cluster { members, loader };
        match tokio::time::timeout(FORMING_TIMEOUT, formed.join_up(module, fsm)).await {
            Ok(Ok(())) => Ok(formed),
            Ok(Err(failure)) => {
                formed.stop().await;
                Err(failure)
            }
            Err(_) => {
                formed.stop().await;
                let patience = FORMING_TIMEOUT.as_secs();
                Err(Failure::new(format!("the cluster did not form within {patience} s")))
            }
        }
    }

    /// Gives the first node the module and makes the others voters.
    async fn join_up(&self, module: Bytes, fsm: FsmKind) -> Result<(), Failure> {
        let first = self.members[0].node.handle();
        first
            .leadership()
            .wait_for(|leadership| leadership.role == Role::Leader)
            .await
            .map_err(|_| Failure::new("the first node stopped; see its log"))?;
        first.machine().wait_for(Option::is_some).await.map_err(|error| cannot("start", &error))?;
        first
            .upgrade(Upgrade { module, label: format!("{fsm:?}"), ..Upgrade::default() })
            .await
            .map_err(|error| cannot("load the state machine", &error))?;
        for member in &self.members[1..] {
            let identity = member.node.handle().identity().clone();
            // A change is refused while another one ends.
            insist("add a node", || {
                first.add_learner(Some(identity.node), identity.address.clone())
            })
            .await?;
            // A learner is refused as a voter until it has caught up.
            insist("promote a node", || first.promote(identity.node)).await?;
        }
        Ok(())
    }

    /// Warms up, then measures.
    async fn measure(&self, args: &BenchArgs) -> Result<Measured, Failure> {
        let handles: Arc<[NodeHandle]> =
            self.members.iter().map(|member| member.node.handle()).collect();
        let commands = args.commands();
        if args.op == Op::Read && commands.has_key() {
            prefill(&handles, commands.clone()).await?;
        }
        let recorder = Arc::new(Recorder::new(Interval::after(args.warmup(), args.length())));
        let mut callers = JoinSet::new();
        for number in 0..args.clients() {
            let caller = Caller {
                number,
                handles: Arc::clone(&handles),
                leader: leader(&handles),
                recorder: Arc::clone(&recorder),
            };
            if args.op == Op::Write {
                callers.spawn(caller.write(commands.for_client(number as u64)));
            } else {
                let consistency =
                    if args.stale { Consistency::Stale } else { Consistency::Linearizable };
                callers.spawn(caller.read(args.queries().for_client(number as u64), consistency));
            }
        }
        let patience = args.warmup() + args.length() + args.remote.timeout();
        // Callers that still wait have nothing to say any more.
        let _ = tokio::time::timeout(patience, callers.join_all()).await;
        Ok(recorder.result())
    }

    /// Has all nodes serve another group, too.
    pub(super) async fn add_group(&self, group: GroupId) -> Result<(), Failure> {
        let options = |introduced: Vec<Member>| GroupOptions {
            group,
            consensus: ConsensusConfig::default(),
            loader: Arc::clone(&self.loader),
            introduced,
            evidence: None,
        };
        let [first, others @ ..] = &self.members[..] else { return Ok(()) };
        let identity = first.node.handle().identity().clone();
        let loader = Arc::clone(&self.loader);
        bootstrap(&first.stores, &identity, group, Limits::default(), loader)
            .map_err(|error| cannot("form a group", &error))?;
        let open = |member: &RunningMember, introduced| {
            let opened =
                tokio::task::block_in_place(|| member.node.open_group(options(introduced)));
            opened.map_err(|error| cannot("open a group", &error))
        };
        let leader = open(first, Vec::new())?;
        let leads = |now: &Leadership| now.role == Role::Leader;
        leader.leadership().wait_for(leads).await.map_err(|error| cannot("lead", &error))?;
        for member in others {
            let me = Member { id: identity.node, address: identity.address.clone() };
            let joining = open(member, vec![me])?.identity().clone();
            let add = || leader.add_learner(Some(joining.node), joining.address.clone());
            insist("add a node", add).await?;
            insist("promote a node", || leader.promote(joining.node)).await?;
        }
        Ok(())
    }

    pub(super) async fn stop(self) {
        for member in self.members {
            let node = member.node;
            // A panic of the node's threads was reported as its reason to stop.
            let _ = tokio::task::spawn_blocking(move || node.stop()).await;
            member.transport.shutdown().await;
            member.stop_server.cancel();
            // A server that failed stopped serving, which its peers noticed.
            let _ = member.server.await;
        }
    }
}

/// Tries again what is refused for a reason that passes.
async fn insist<T, E, F>(what: &str, attempt: impl Fn() -> F) -> Result<T, Failure>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    const ATTEMPTS: usize = 200;
    const PAUSE: Duration = Duration::from_millis(50);
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => tracing::debug!(%error, what, "refused; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    attempt().await.map_err(|error| cannot(what, &error))
}

/// Opens the stores and starts the threads. Blocks.
fn start_member(
    identity: Identity,
    directory: &Path,
    loader: SharedLoader,
    introduced: Option<Member>,
    listener: TcpListener,
) -> Result<RunningMember, Failure> {
    let mut data_dir = DataDir::lock(directory).map_err(|error| Failure::new(error.to_string()))?;
    if data_dir.identity().is_some() {
        return Err(Failure::new(format!(
            "{} is not empty; give --data-dir a new directory",
            directory.display()
        )));
    }
    let NodeId(node) = identity.node;
    let owner =
        NodeIdentity { cluster: identity.cluster, node: identity.node, engine: Engine::default() };
    data_dir.initialize(owner).map_err(|error| Failure::new(error.to_string()))?;
    let stores = data_dir
        .open_stores(&StorageConfig::default())
        .map_err(|error| Failure::new(error.to_string()))?;
    let group = GroupId::MAIN;
    if introduced.is_none() {
        bootstrap(&stores, &identity, group, Limits::default(), Arc::clone(&loader))
            .map_err(|error| cannot("form a cluster", &error))?;
    }
    let config = NodeConfig::default();
    let (inbox, events) = channel(&config);
    let transport_config = TransportConfig::default();
    let transport = transport_config.open(Opening {
        identity: identity.clone(),
        snapshots: Arc::clone(&stores.snapshots),
        inbox,
        runtime: Handle::current(),
        dialer: NodeDialer::plain(),
    });
    let stop_server = CancellationToken::new();
    let stopped = stop_server.clone().cancelled_owned();
    let serving = transport_config
        .server_builder()
        .add_routes(transport.routes())
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped);
    let server = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(node, %error, "the server of a node failed");
        }
    });
    let options = NodeOptions {
        identity,
        group,
        config,
        consensus: ConsensusConfig::default(),
        stores: stores.clone(),
        loader,
        introduced: introduced.into_iter().collect(),
        evidence: None,
    };
    let node = Node::start(options, events, Arc::clone(&transport) as Arc<_>)
        .map_err(|error| cannot("start a node", &error))?;
    Ok(RunningMember { node, stores, transport, server, stop_server, _data_dir: data_dir })
}

fn cannot(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("cannot {what}: {error}"))
}

/// Position of the node that says that it leads; the first while nobody does.
fn leader(handles: &[NodeHandle]) -> usize {
    let leads = |handle: &NodeHandle| handle.leadership().borrow().role == Role::Leader;
    handles.iter().position(leads).unwrap_or(0)
}

/// Gives every key a value, so that queries find something.
async fn prefill(handles: &Arc<[NodeHandle]>, mut commands: Generator) -> Result<(), Failure> {
    const CONCURRENT: usize = 512;
    let handle = &handles[leader(handles)];
    let keys = commands.keys();
    let writes = (0..keys).map(|key| handle.propose(request(commands.command(key))));
    let mut answers = futures::stream::iter(writes).buffer_unordered(CONCURRENT);
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| cannot("write the keys to be read", &error))?;
    }
    Ok(())
}

fn request(data: Bytes) -> Request {
    Command { data, session: None }.into()
}

/// One caller in a closed loop.
struct Caller {
    number: usize,
    handles: Arc<[NodeHandle]>,
    /// Position of the node that is asked.
    leader: usize,
    recorder: Arc<Recorder>,
}

impl Caller {
    async fn write(mut self, mut commands: Generator) {
        while !self.recorder.interval().is_over() {
            let request = request(commands.next_command());
            let began = Instant::now();
            let result = self.handles[self.leader].propose(request).await;
            let lost_leader = matches!(result, Err(ProposeFailure::NotLeader(_)));
            let ending = match result {
                Ok(committed) => match committed.reply {
                    Reply::Command(outcome) => ending(outcome),
                    other => Ending::Failed(format!("unexpected answer {other:?}")),
                },
                Err(failure) => Ending::Failed(failure.to_string()),
            };
            self.settle(began, ending).await;
            if lost_leader {
                self.leader = leader(&self.handles);
            }
        }
    }

    async fn read(self, mut queries: Generator, consistency: Consistency) {
        while !self.recorder.interval().is_over() {
            let query = queries.next_command();
            let began = Instant::now();
            let ending = match self.handles[self.leader].query(query, consistency).await {
                Ok(reply) => match reply.result {
                    QueryResult::Answer(outcome) => ending(outcome),
                    other => Ending::Failed(format!("unexpected answer {other:?}")),
                },
                Err(failure) => Ending::Failed(failure.to_string()),
            };
            self.settle(began, ending).await;
        }
    }

    async fn settle(&self, began: Instant, ending: Ending) {
        let failed = matches!(ending, Ending::Failed(_));
        self.recorder.record(self.number, began, Instant::now(), ending, 1);
        if failed {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Ok(_) | Outcome::Duplicate(_) => Ending::Ok,
        Outcome::Rejected(_) => Ending::Rejected,
        Outcome::Trapped(_) => Ending::Trapped,
    }
}
