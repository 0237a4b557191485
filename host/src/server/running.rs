//! A server that runs, from its start to its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::form::Resumed;
use super::home::{EmptyHome, Home, place};
use super::intent::Intent;
use super::local::SocketFile;
use super::plugin::Plugin;
use super::restore::Portable;
use super::{
    Join, ServeError, Startup, adopt, autopilot, backups, bind, certificate, descriptors, disk,
    enroll, form, join, late, local, memory, probation, promote, release, relocate, scrub,
    services,
};
use crate::api::{Anteroom, ProcessFacts, Sockets};
use crate::audit::Audit;
use crate::autopilot::AutopilotBoard;
use crate::backup::{BackupBoard, wall_clock_ms};
use crate::config::Config;
use crate::consensus::Role;
use crate::node::{
    self, Drained, MachineView, Node, NodeHandle, NodeOptions, ProposeFailure, Request, StopReason,
    Stragglers,
};
use crate::storage::{DataDir, NodeIdentity, ScrubBoard};
use crate::tls::{NodeDialer, Tls};
use crate::transport::{Identity, NetworkTransport, Opening, TransportFactory as _};
use crate::types::{Actor, GroupId, Member, Rival};
use crate::wasm::CompiledModules;

/// How long a leader is waited for before a plugin is compared with what this node knows by itself.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node that has stopped by itself may take to end in order.
const AFTER_STOP: Duration = Duration::from_secs(3);
/// What closing takes at most beyond that, or beyond `drain_ms`: cutting calls and connections.
const CLOSING: Duration = Duration::from_secs(2);
/// The same, when nobody is left to finish the calls that are open.
const CUTTING: Duration = Duration::from_millis(200);
/// What threads that have been told to end are given at least.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// How long what waits for the audit log may take.
const AUDIT_PATIENCE: Duration = Duration::from_millis(500);
/// The end of a server is in order within `drain_ms` and this, and is not waited for after that.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
const _: () = assert!(SHUTDOWN_GRACE.as_secs() >= CLOSING.as_secs() + LAST_STEPS.as_secs());

/// How a node came to be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// It formed its cluster.
    Formed,
    /// It entered a cluster.
    Joined,
    /// It was there before.
    Restarted,
}

/// A node with its services. Dropping it cuts everything without order; see
/// [`RunningServer::shutdown`].
pub struct RunningServer {
    node: Node,
    handle: NodeHandle,
    bound: SocketAddr,
    began: Began,
    transport: Arc<dyn NetworkTransport>,
    /// Begins the services. Until then connections wait to be accepted, so that the first
    /// command after the start of a new cluster finds a plugin.
    opening: CancellationToken,
    /// Ends the services, letting open calls finish.
    closing: CancellationToken,
    serving: JoinHandle<()>,
    /// Ends with `closing` too.
    metrics: Option<AbortOnDropHandle<()>>,
    metrics_address: Option<SocketAddr>,
    /// Why the services ended by themselves.
    broken: watch::Receiver<Option<String>>,
    /// What a start has left to do.
    chores: TaskTracker,
    chores_end: CancellationToken,
    audit: Option<Arc<Audit>>,
    home: Arc<Home>,
    tls: Option<Arc<Tls>>,
    /// Goes with it.
    socket: Option<SocketFile>,
}

/// Starts a server. When this returns, it answers requests; a cluster that was formed by this
/// start also has its plugin active.
///
/// # Errors
/// See [`ServeError`]. Until a cluster is formed or has taken this node in, nothing is written.
pub async fn start(config: Config, startup: Startup) -> Result<RunningServer, ServeError> {
    let join = startup.join.clone();
    match (begin(config.clone(), startup.clone()).await, join) {
        (Err(error), Some(join)) if error.wants_state() => {
            tracing::error!(%error, "a member is asked for a state");
            let dialer =
                certificate::open_tls(&config).await?.map(|tls| tls.dialer()).unwrap_or_default();
            adopt::a_state(&config, &join, &dialer.to_member()).await?;
            begin(config, startup).await
        }
        (started, _) => started,
    }
}

async fn begin(mut config: Config, startup: Startup) -> Result<RunningServer, ServeError> {
    ProcessFacts::begin();
    config.validate()?;
    descriptors::provide(&mut config.api, config.metrics_listen.is_some());
    if startup.plugin.is_some() && startup.join.is_some() {
        return Err(ServeError::PluginAndJoin);
    }
    let read = |path: &PathBuf| Plugin::read(path, &config.limits);
    let plugin = startup.plugin.as_ref().map(read).transpose()?;
    let portable = |path: &PathBuf| Portable::read(path, config.limits.snapshot_max_bytes);
    let portable = startup.import.as_ref().map(portable).transpose()?;
    // Before anything else is touched: a second start of the same node ends here.
    let (listener, bound) = bind(&config.listen, "--listen").await?;
    let peers = match &config.peer_listen {
        Some(listen) => Some(bind(listen, "--peer-listen").await?),
        None => None,
    };
    let address = match &peers {
        Some((_, bound)) => config.peer_advertised(*bound),
        None => config.advertised(bound),
    };
    if let Some(join) = &startup.join {
        enroll::certify(&config, join, &address).await?;
    }
    let tls = certificate::open_tls(&config).await?;
    // Until it serves, it says what it is at.
    let tells = |listener, address: &str| {
        Anteroom::open(listener, &config.api, tls.as_ref())
            .map_err(|source| ServeError::Io { action: format!("listening on {address}"), source })
    };
    let (anteroom, clients) = tells(listener, &config.listen)?;
    let (peers, _peers_anteroom) = match peers {
        Some((listener, bound)) => {
            let (anteroom, listener) = tells(listener, &bound.to_string())?;
            (Some(listener), Some(anteroom))
        }
        None => (None, None),
    };
    let metrics = match &config.metrics_listen {
        Some(address) => Some(bind(address, "--metrics-listen").await?),
        None => None,
    };
    if let Some(tls) = &tls {
        tls.check_address(&address).map_err(ServeError::CertificateAddress)?;
    }
    let dialer = tls.as_ref().map(|tls| tls.dialer()).unwrap_or_default();
    let modules = startup.modules;
    let prepared = match (Home::owned(&config)?, &plugin, &startup.join) {
        (Some(owned), plugin, join) => {
            anteroom.say(format!("it reads what is in {}", place(&config)));
            if let Some(plugin) = plugin {
                late::say(&place(&config), owned.1, plugin, portable.is_some());
            }
            if let Some(tls) = &tls {
                certificate::check_owner(&config, owned.1, tls)?;
            }
            come_back(&config, owned, join.as_ref(), address, &modules, &dialer).await?
        }
        (None, Some(plugin), _) => {
            anteroom.say("it forms a cluster".to_owned());
            let formed = form::form(&config, plugin, address, &modules, portable, tls.as_deref());
            let (home, identity) = formed.await?;
            Prepared {
                began: Began::Formed,
                home,
                identity,
                introduced: Vec::new(),
                promote: false,
                probation: Some(None),
            }
        }
        (None, None, Some(join)) => {
            anteroom.say(format!("it asks {} to take it in", join.seeds.join(", ")));
            enter(&config, join, address, tls.as_deref()).await?
        }
        (None, None, None) => {
            return Err(ServeError::NothingToStart { place: place(&config) });
        }
    };
    let sockets = Sockets { clients, peers, local: None };
    let server =
        run(config.clone(), prepared, &modules, (sockets, bound), metrics, tls.clone()).await?;
    if let Some(view) = server.handle.machine().borrow().as_ref() {
        late::say_of_limits(&config, &view.info.limits);
    }
    let prepared = match plugin {
        Some(plugin) => server.introduce(plugin).await,
        None => Ok(()),
    };
    if let Err(error) = prepared {
        // It never serves anybody: whoever was answered would take it for started.
        server.serving.abort();
        server.shutdown().await;
        return Err(error);
    }
    drop((anteroom, _peers_anteroom));
    server.opening.cancel();
    Ok(server)
}

/// A node that is about to run.
struct Prepared {
    began: Began,
    home: Home,
    identity: Identity,
    introduced: Vec<Member>,
    promote: bool,
    /// Its cluster has just been formed, and who has dialled it meanwhile, if somebody has.
    probation: Option<Option<Rival>>,
}

/// Opens what an earlier start made, and completes what it left.
async fn come_back(
    config: &Config,
    (dir, owner): (DataDir, NodeIdentity),
    join: Option<&Join>,
    address: String,
    modules: &CompiledModules,
    dialer: &NodeDialer,
) -> Result<Prepared, ServeError> {
    if let Some(join) = join {
        let seeds: Vec<_> = join.seeds.iter().filter(|seed| **seed != address).cloned().collect();
        if let Some(asked) = join.node_id.filter(|asked| *asked != owner.node) {
            tracing::warn!(
                "--node-id {asked} changes nothing: this node has the id {}",
                owner.node
            );
        }
        match join::cluster_at(&dialer.to_member(), &seeds, owner.cluster).await {
            Some((seed, other)) if other != owner.cluster => {
                let (place, own) = (place(config), owner.cluster);
                return Err(ServeError::OtherCluster { place, own, seed, other });
            }
            Some(_) => tracing::info!("this node belongs to that cluster already: restarting it"),
            None => tracing::info!(
                "this node belongs to a cluster already: restarting it without asking {}",
                join.seeds.join(", ")
            ),
        }
    }
    let identity = Identity { cluster: owner.cluster, node: owner.node, address };
    let (config, modules) = (config.clone(), modules.clone());
    tokio::task::spawn_blocking(move || {
        let (home, intent) = Home::open(&config, dir, owner)?;
        enroll::has_joined(&config)?;
        let loader = || Ok(release::loader(None, &modules)?);
        let resumed = form::resume(&home, intent, &identity, &config, loader)?;
        let Resumed { introduced, promote, probation } = resumed;
        Ok(Prepared { began: Began::Restarted, home, identity, introduced, promote, probation })
    })
    .await?
}

/// Has the cluster take this node in, then writes down that it did.
async fn enter(
    config: &Config,
    join: &Join,
    address: String,
    tls: Option<&Tls>,
) -> Result<Prepared, ServeError> {
    let join = &certificate::certified(join, tls)?;
    let dialer = tls.map(Tls::dialer).unwrap_or_default().to_member();
    let empty = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || EmptyHome::lock(&config)).await??
    };
    let nonce = enroll::nonce(config).await?;
    let admission = match join::ask(&dialer, join, &address, nonce).await {
        Ok(admission) => admission,
        Err(error) => {
            empty.abandon();
            return Err(error);
        }
    };
    let (cluster, node) = (admission.cluster, admission.node);
    if let Some(tls) = tls.filter(|tls| (tls.cluster(), tls.node()) != (cluster, node)) {
        empty.abandon();
        let reason = format!("it was taken in as node {node} of cluster {cluster}");
        return Err(ServeError::CertificateUnfit { node: tls.node(), reason });
    }
    tracing::info!(%cluster, %node, "the cluster has taken this node in");
    let (introduced, promote) = (admission.members, !join.learner);
    let config = config.clone();
    let intent = Intent::Join { introduced: introduced.clone(), promote };
    let made = move || {
        let home = empty.initialize(&config, &intent, cluster, node)?;
        enroll::has_joined(&config)?;
        Ok::<_, ServeError>(home)
    };
    let home = tokio::task::spawn_blocking(made).await??;
    let identity = Identity { cluster, node, address };
    let probation = None;
    Ok(Prepared { began: Began::Joined, home, identity, introduced, promote, probation })
}

async fn run(
    config: Config,
    prepared: Prepared,
    modules: &CompiledModules,
    (mut sockets, bound): (Sockets, SocketAddr),
    metrics: Option<(TcpListener, SocketAddr)>,
    tls: Option<Arc<Tls>>,
) -> Result<RunningServer, ServeError> {
    let Prepared { began, home, identity, introduced, promote, probation } = prepared;
    let joining = !introduced.is_empty();
    let loader = release::loader(home.compiled_dir(), modules)?;
    let (inbox, channel) = node::channel(&config.node);
    let transport = config.transport.open(Opening {
        identity: identity.clone(),
        snapshots: Arc::clone(&home.stores().snapshots),
        inbox,
        runtime: tokio::runtime::Handle::current(),
        dialer: tls.as_ref().map(|tls| tls.dialer()).unwrap_or_default(),
    });
    let options = NodeOptions {
        identity,
        group: GroupId::MAIN,
        config: config.node.clone(),
        consensus: config.consensus.clone(),
        stores: home.stores().clone(),
        loader,
        introduced,
        evidence: home.evidence_dir(),
    };
    if let Some(dir) = home.dir().filter(|_| config.storage.low_space_bytes > 0) {
        dir.room().be_patient();
    }
    let (node, home) = {
        let transport = Arc::clone(&transport);
        // Restores a snapshot: slow, and not on the runtime's threads.
        tokio::task::spawn_blocking(move || {
            Node::start(options, channel, transport).map(|node| (node, home))
        })
        .await??
    };
    let handle = node.handle();
    if !home.stores().snapshots.list(GroupId::MAIN)?.is_empty() {
        // It has a state; until the first look at it, nothing can be said about the node. A node
        // that stops meanwhile says so in another way.
        let (mut machine, mut stopped) = (handle.machine(), handle.stopped());
        tokio::select! {
            _ = machine.wait_for(Option::is_some) => {}
            _ = stopped.wait_for(Option::is_some) => {}
        }
    }
    let home = Arc::new(home);
    let (cluster, me) = (handle.identity().cluster, handle.identity().node);
    let audit = Audit::open(&config.audit, home.path(), tls.is_some(), (cluster, me))?;
    let audit = audit.map(Arc::new);
    let backups = config
        .backup
        .directory
        .is_some()
        .then(|| Arc::new(BackupBoard::new(config.backup.clone(), wall_clock_ms())));
    let piloting = Arc::new(AutopilotBoard::new(config.autopilot.clone()));
    let (opening, closing) = (CancellationToken::new(), CancellationToken::new());
    let (broken_sender, broken) = watch::channel(None);
    let scrubs = (home.path().is_some() && config.storage.scrub_every_ms > 0)
        .then(|| Arc::new(ScrubBoard::new(config.storage.scrub_every_ms)));
    let info = services::info(
        &home,
        &transport,
        audit.clone(),
        backups.clone(),
        Arc::clone(&piloting),
        scrubs.clone(),
        tls.clone(),
    );
    let dialer = info.dialer.clone();
    let (local, socket) = local::listen(&config, home.path())?.unzip();
    sockets.local = local;
    let services = services::serve(
        sockets,
        handle.clone(),
        Arc::clone(&transport),
        info.clone(),
        config.api.clone(),
        closing.clone(),
        broken_sender,
    );
    let opened = opening.clone();
    let serving = tokio::spawn(async move {
        opened.cancelled().await;
        services.await;
    });
    let metrics_address = metrics.as_ref().map(|(_, address)| *address);
    let metrics = metrics.map(|(listener, _)| {
        // Not held back until the server opens: health says what is missing.
        tokio::spawn(services::serve_metrics(listener, handle.clone(), info, closing.clone()))
    });
    let server = RunningServer {
        node,
        handle,
        bound,
        began,
        transport,
        opening,
        closing,
        serving,
        metrics: metrics.map(AbortOnDropHandle::new),
        metrics_address,
        broken,
        chores: TaskTracker::new(),
        chores_end: CancellationToken::new(),
        audit: audit.clone(),
        home,
        tls: tls.clone(),
        socket,
    };
    if let Some(tls) = tls {
        server.chore(tls.keep_fresh());
    }
    if joining {
        server.finish_joining(promote, dialer.clone());
    }
    if let Some(disputed_by) = probation {
        server.handle.begin_probation(disputed_by);
        server.chore(probation::see_through(server.handle(), Arc::downgrade(&server.home)));
    }
    if let Some(board) = &backups {
        let end = server.chores_end.clone();
        let (handle, board) = (server.handle(), Arc::clone(board));
        server.chore(backups::take(handle, dialer.clone(), board, audit.clone(), end));
    }
    server.chore(autopilot::leave_slow_disk(
        server.handle(),
        dialer.clone(),
        Arc::clone(&piloting),
    ));
    server.chore(autopilot::act(server.handle(), piloting, audit));
    server.chore(autopilot::be_relieved(server.handle(), dialer.clone()));
    if let Some(board) = scrubs {
        // It looks at the end itself: what reads is not to be left behind.
        server.chores.spawn(
            scrub::Scrub {
                handle: server.handle(),
                stores: server.home.stores().clone(),
                board,
                bytes_per_s: config.storage.scrub_bytes_per_s,
                end: server.chores_end.clone(),
            }
            .run(),
        );
    }
    server.chore(relocate::until_known(server.handle(), dialer));
    server.chore(memory::tell(server.handle()));
    if let Some(dir) = server.home.dir() {
        let room = Arc::clone(dir.room());
        server.chore(disk::look_after(server.handle(), room, config.storage.clone()));
    }
    #[cfg(feature = "museum")]
    server.chore(super::tamper::watch(server.handle()));
    Ok(server)
}

impl RunningServer {
    /// The node's own face: proposals, queries, membership, without a network in between.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Where it listens; the real port when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.bound
    }

    /// Where metrics and health are, if anywhere; the real port when port 0 was asked for.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The socket on this machine, if there is one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(SocketFile::path)
    }

    /// Whether TLS is spoken on its ports.
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads the files for TLS again, at once.
    pub async fn reload_tls(&self) {
        let Some(tls) = self.tls.clone() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || tls.reload()).await {
            tracing::error!(%error, "a task broke");
        }
    }

    /// Who it is, with the address that others dial.
    pub fn identity(&self) -> &Identity {
        self.handle.identity()
    }

    /// Where its data is, in words.
    pub fn place(&self) -> String {
        let engine = self.home.engine();
        match self.home.path() {
            Some(path) => format!("{} ({engine})", path.display()),
            None => "in memory: nothing survives this process".to_owned(),
        }
    }

    /// How it came to be.
    pub fn began(&self) -> Began {
        self.began
    }

    /// Waits until the server stops by itself.
    pub async fn stopped(&self) -> StopReason {
        let (mut stopped, mut broken) = (self.handle.stopped(), self.broken.clone());
        tokio::select! {
            reason = stopped.wait_for(Option::is_some) => match reason {
                Ok(reason) => reason.clone().expect("waited for"),
                Err(_) => StopReason::Failed("the node is gone".to_owned()),
            },
            why = broken.wait_for(Option::is_some) => StopReason::Failed(match why {
                Ok(why) => why.clone().expect("waited for"),
                Err(_) => "the task that serves requests panicked: a broken invariant; the log \
                           above says which"
                    .to_owned(),
            }),
        }
    }

    /// Opens the audit log anew, if it is a file: somebody has put that aside.
    pub fn reopen_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    /// Stops in order: takes no new requests, hands leadership over, finishes what is in
    /// flight, flushes, lets go of the data directory.
    ///
    /// Takes no longer than `drain_ms` (or three seconds, when the node has stopped by itself) and
    /// [`SHUTDOWN_GRACE`], whatever its threads are at: one that is stuck is left behind, and with it
    /// the lock of the data directory until it ends.
    pub async fn shutdown(self) -> StopReason {
        let has_stopped = self.handle.stopped().borrow().is_some();
        let patience = if has_stopped { AFTER_STOP } else { self.handle.drain_patience() };
        let latest = Instant::now() + patience + CLOSING;
        self.chores_end.cancel();
        let deadline = match self.node.drain().await {
            Drained::InOrder => latest,
            Drained::Abandoned => latest.min(Instant::now() + CUTTING),
        };
        self.closing.cancel();
        self.end(deadline).await
    }

    /// Stops at once, as near to a crash as a process can do to a part of itself: nothing is
    /// handed over, finished or flushed beyond what was durable already.
    pub async fn kill(self) {
        self.chores_end.cancel();
        self.serving.abort();
        self.end(Instant::now() + AFTER_STOP).await;
    }

    async fn end(self, deadline: Instant) -> StopReason {
        let RunningServer {
            node,
            transport,
            serving,
            metrics,
            closing,
            chores,
            audit,
            home,
            socket,
            ..
        } = self;
        let abort = serving.abort_handle();
        let last_calls = async {
            transport.shutdown().await;
            // Aborted or panicked: the log says so.
            let _ = serving.await;
            drop(socket);
            // It ends within a second, or is aborted with the handle when the server is killed.
            if let Some(metrics) = metrics.filter(|_| closing.is_cancelled()) {
                let _ = metrics.await;
            }
            chores.close();
            chores.wait().await;
        };
        if tokio::time::timeout_at(deadline.into(), last_calls).await.is_err() {
            tracing::warn!("cutting calls that did not end");
            abort.abort();
        }
        let stopping = tokio::task::spawn_blocking(move || {
            let patience = deadline.saturating_duration_since(Instant::now()).max(LAST_STEPS);
            if let Some(audit) = audit {
                audit.close(AUDIT_PATIENCE);
            }
            let (reason, stragglers) = node.stop_within(patience);
            match stragglers {
                Some(stragglers) => leave(stragglers, home, reason),
                None => reason,
            }
        });
        stopping.await.unwrap_or_else(|error| StopReason::Failed(error.to_string()))
    }

    /// Gives the cluster its first plugin, or says what the given one is to it.
    async fn introduce(&self, plugin: Plugin) -> Result<(), ServeError> {
        if self.handle.is_unconfirmed() {
            tracing::warn!("nothing is done with --plugin before this node's cluster is confirmed");
            return Ok(());
        }
        if self.began == Began::Formed || self.is_alone() {
            return introduce(&self.handle, &plugin, self.audit.as_deref()).await;
        }
        let (handle, audit) = (self.handle.clone(), self.audit.clone());
        self.chore(async move {
            if let Err(error) = introduce(&handle, &plugin, audit.as_deref()).await {
                tracing::error!(%error, "the plugin was not activated");
            }
        });
        Ok(())
    }

    /// Whether no other node is needed for anything.
    fn is_alone(&self) -> bool {
        let machine = self.handle.machine();
        let view = machine.borrow();
        let me = self.identity().node;
        view.as_ref().is_some_and(|view| view.conf_state.nodes().into_iter().eq([me]))
    }

    fn finish_joining(&self, promote: bool, dialer: NodeDialer) {
        let (handle, home) = (self.handle.clone(), Arc::clone(&self.home));
        self.chore(async move {
            if handle.machine().wait_for(Option::is_some).await.is_err() {
                return;
            }
            tracing::info!("this node has received the cluster's state");
            if promote {
                promote::until_voter(&handle, &dialer).await;
            }
            match tokio::task::spawn_blocking(move || home.intent_done()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the next start looks at it again"),
                Err(error) => tracing::error!(%error, "a task broke"),
            }
        });
    }

    fn chore(&self, work: impl Future<Output = ()> + Send + 'static) {
        let end = self.chores_end.clone();
        self.chores.spawn(async move {
            end.run_until_cancelled(work).await;
        });
    }
}

/// Goes on without threads that do not end. The directory stays locked until they have.
fn leave(stragglers: Stragglers, home: Arc<Home>, reason: StopReason) -> StopReason {
    let what = format!(
        "threads that are stuck were left behind ({}): what they had not written is not on the \
         disk, as after a kill",
        stragglers.names()
    );
    tracing::error!("{what}");
    let waiting = std::thread::Builder::new().name("stragglers".into()).spawn(move || {
        stragglers.wait();
        drop(home);
    });
    if let Err(error) = waiting {
        tracing::error!(%error, "no thread to wait for them; the data directory is let go of");
    }
    match reason {
        StopReason::Requested => StopReason::Failed(what),
        why => why,
    }
}

/// Waits until it is clear whether the cluster has a module, then proposes or compares.
/// A node that stops meanwhile says so in another way.
async fn introduce(
    handle: &NodeHandle,
    plugin: &Plugin,
    audit: Option<&Audit>,
) -> Result<(), ServeError> {
    let mut stopped = handle.stopped();
    tokio::select! {
        _ = stopped.wait_for(Option::is_some) => Ok(()),
        introduced = introduce_to_cluster(handle, plugin, audit) => introduced,
    }
}

/// Whoever starts a node may give its cluster the module that it was started with, as at its socket.
fn in_own_name(handle: &NodeHandle) -> NodeHandle {
    let view = handle.machine().borrow().clone();
    match view.is_some_and(|view| view.info.access.is_in_force()) {
        true => handle.acting_for(Actor::Local(handle.identity().node)),
        false => handle.clone(),
    }
}

async fn introduce_to_cluster(
    handle: &NodeHandle,
    plugin: &Plugin,
    audit: Option<&Audit>,
) -> Result<(), ServeError> {
    let handle = &in_own_name(handle);
    let (mut leadership, mut machine) = (handle.leadership(), handle.machine());
    let cluster = handle.identity().cluster;
    let active = || handle.machine().borrow().as_ref().and_then(|view| view.info.active.clone());
    let led = leadership.wait_for(|now| now.leader.is_some());
    let is_led = tokio::time::timeout(LEADER_PATIENCE, led).await.is_ok();
    if !is_led && let Some(active) = active() {
        // As far as this node knows by itself.
        late::say_of_module(cluster, &active, plugin);
        return Ok(());
    }
    // It ends with the node.
    let _ = leadership.wait_for(|now| now.leader.is_some()).await;
    let current = async {
        if leadership.borrow().role == Role::Leader {
            // All that was committed before this leader's term is applied once it answers.
            let nothing = Request::CloseSession { session_id: 0 };
            // Where rights are in force it is denied, and applied all the same.
            let answer = handle.propose(nothing).await;
            matches!(answer, Ok(_) | Err(ProposeFailure::Denied(_)))
        } else {
            let Ok(status) = handle.status().await else { return false };
            let applied = |view: &Option<Arc<MachineView>>| {
                view.as_ref().is_some_and(|view| view.info.applied >= status.commit)
            };
            machine.wait_for(applied).await.is_ok()
        }
    };
    if !current.await {
        tracing::debug!("what the plugin is compared to may be out of date");
    }
    match active() {
        Some(active) => {
            late::say_of_module(cluster, &active, plugin);
            Ok(())
        }
        None if leadership.borrow().role == Role::Leader => plugin.activate(handle, audit).await,
        None => {
            tracing::warn!(
                "the cluster runs no module yet and this node does not lead it: raft-host \
                 upgrade {} brings the plugin in",
                plugin.path.display()
            );
            Ok(())
        }
    }
}
