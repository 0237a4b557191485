//! Puts a node together and takes it apart.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::apply::{ApplyLoop, Job};
use super::budget::Budget;
use super::clock::{Clocks, LogClock, Standing};
use super::config::NodeConfig;
use super::digests::Digests;
use super::event_loop::{Event, EventLoop, EventSender};
use super::handle::{Leadership, NodeHandle, Shared};
use super::inbox::{NodeInbox, Roster};
use super::levels::Levels;
use super::metrics::NodeMetrics;
use super::newcomers::Newcomers;
use super::pack::{Cost, Packer};
use super::parked::Parked;
use super::recovery::{Recovered, recover};
use super::removal::Removal;
use super::rivals::Rivals;
use super::snapshots::{self, SaveJob, SnapshotPolicy};
use super::standing::RaftStanding;
use super::stop::{EndJobs, StopOnPanic, StopReason, StopSignal, Stragglers, join_within};
use super::trust::Trust;
use super::waiters::Waiters;
use super::work::{Jobs, MonotonicClock, Watchdog, Work};
use super::{log_reader, log_writer};
use crate::consensus::{
    ConsensusConfig, Input, LogRead, RecoveryError, Replica, ReplicaConfig, ReplicaError, Role,
    Write, bootstrap_write,
};
use crate::fsm::{HostFailure, Limits, STACK_MAX_BYTES, SharedLoader};
use crate::machine::{Machine, RestoreError};
use crate::storage::{SnapshotMeta, StorageError, Stores, WriteBatch};
use crate::transport::{Identity, Transport};
use crate::types::{ConfState, GroupId, Index, Member, NodeId, Term};

/// Guests run on the apply thread's stack; address space only, until it is used.
pub(super) const APPLY_STACK_BYTES: usize = 16 << 20;
/// An unknown peer that is silent for so many election timeouts is forgotten.
const NEWCOMER_ELECTIONS: u64 = 20;
const _: () = assert!(APPLY_STACK_BYTES as u64 > STACK_MAX_BYTES + (4 << 20), "see `Limits`");

/// Why a node does not start. Nothing was changed but what a crash would have changed too.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A store failed or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Log and snapshots do not fit.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The newest snapshot cannot be restored.
    #[error("restoring the snapshot at index {index}: {source}")]
    Restore {
        /// Its index.
        index: Index,
        /// The cause.
        source: RestoreError,
    },
    /// A snapshot is damaged, and the log does not reach back to the one before.
    #[error("{damage}. No older state will do: {without}")]
    NoOlderState {
        /// What is wrong with the newest one.
        damage: Box<StartError>,
        /// Why the others and the log are not enough.
        without: RecoveryError,
    },
    /// Consensus did not start.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The state machine's host failed.
    #[error(transparent)]
    Host(#[from] HostFailure),
    /// No thread.
    #[error("starting a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// There is something already.
    #[error("the stores are not empty: a cluster can only be formed on empty ones")]
    NotEmpty,
    /// This node has no place in its cluster any more.
    #[error(
        "node {0} was removed from its cluster; to join again, give it an empty data directory \
         and --join"
    )]
    Removed(NodeId),
}

/// All that a node needs.
pub struct NodeOptions {
    /// Who it is.
    pub identity: Identity,
    /// The group it serves.
    pub group: GroupId,
    /// Timing and limits of the node.
    pub config: NodeConfig,
    /// Limits of consensus.
    pub consensus: ConsensusConfig,
    /// Its stores.
    pub stores: Stores,
    /// Runs modules.
    pub loader: SharedLoader,
    /// Members to reach before the machine knows any: what a joining node was told.
    pub introduced: Vec<Member>,
    /// Where to keep a state that went wrong, if anywhere.
    pub evidence: Option<PathBuf>,
}

/// The queue into a node that does not run yet.
pub struct NodeChannel {
    events: EventSender,
    receiver: Receiver<Event>,
    roster: Arc<Roster>,
    standing: Arc<RaftStanding>,
    rivals: Arc<Rivals>,
}

/// The inbox comes first: a transport needs it, and a node needs a transport.
pub fn channel(config: &NodeConfig) -> (Arc<NodeInbox>, NodeChannel) {
    let (events, receiver) = mpsc::channel();
    let roster = Arc::<Roster>::default();
    let standing = Arc::<RaftStanding>::default();
    let rivals = Arc::<Rivals>::default();
    let inbox = NodeInbox {
        events: events.clone(),
        budget: Budget::new(config.max_inbox_bytes),
        roster: Arc::clone(&roster),
        raft: Arc::clone(&standing),
        rivals: Arc::clone(&rivals),
    };
    (Arc::new(inbox), NodeChannel { events, receiver, roster, standing, rivals })
}

/// A running node.
pub struct Node {
    handle: NodeHandle,
    threads: Vec<JoinHandle<()>>,
    _watchdog: Option<Watchdog>,
}

/// Forms a cluster of one voter in empty stores: a snapshot of the empty machine at index 1.
///
/// # Errors
/// `NotEmpty`, or what the stores report.
pub fn bootstrap(
    stores: &Stores,
    identity: &Identity,
    group: GroupId,
    limits: Limits,
    loader: SharedLoader,
) -> Result<(), StartError> {
    let empty = stores.snapshots.list(group)?.is_empty()
        && stores.log.last_index(group)? == Index(0)
        && stores.log.hard_state(group)? == Default::default();
    if !empty {
        return Err(StartError::NotEmpty);
    }
    let me = Member { id: identity.node, address: identity.address.clone() };
    let conf_state =
        ConfState { voters: [identity.node].into_iter().collect(), ..Default::default() };
    let mut machine = Machine::new(identity.cluster, group, limits, loader);
    machine.bootstrap_members(Index(1), vec![me], conf_state.clone());
    let image = machine.capture()?;
    let meta = SnapshotMeta {
        group,
        index: Index(1),
        term: Term(1),
        conf_state,
        size_bytes: 0,
        checksum: 0,
    };
    let meta = snapshots::save(&*stores.snapshots, 1, meta, &image)?;
    let write = bootstrap_write(meta.position());
    stores.log.write(&WriteBatch { groups: vec![(group, write)] })?;
    Ok(())
}

/// What a node takes from the world around it.
pub struct Environment {
    /// What this node tells its cluster when that agrees on the time.
    pub wall_clock_ms: WallClock,
    /// What durations are measured with, for people; it decides nothing.
    pub monotonic_clock: MonotonicClock,
    /// What the log's clock goes on by while clocks do not agree, and between two agreements.
    pub steady_clock: MonotonicClock,
    /// Seeds the election timeouts.
    pub seed: u64,
    /// Differs between any two starts of a node.
    pub incarnation: u64,
    /// Compile modules that have become complete on a thread of their own.
    pub compile_ahead: bool,
    /// Answer queries on a thread of their own while an activation runs.
    pub beside: bool,
}

/// Milliseconds since the Unix epoch.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Environment {
    /// The real world.
    fn real() -> Environment {
        let started = Instant::now();
        let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH);
        let monotonic_clock: MonotonicClock = Arc::new(move || started.elapsed());
        Environment {
            wall_clock_ms: Arc::new(move || since_epoch().map_or(0, |t| t.as_millis() as u64)),
            steady_clock: Arc::clone(&monotonic_clock),
            monotonic_clock,
            seed: rand::random(),
            incarnation: rand::random(),
            compile_ahead: true,
            beside: true,
        }
    }
}

/// A recovered node whose loops nobody runs yet.
pub(super) struct Parts {
    pub(super) handle: NodeHandle,
    pub(super) event_loop: EventLoop,
    pub(super) apply_loop: ApplyLoop,
    pub(super) metrics: Arc<NodeMetrics>,
    /// What the apply loop is doing.
    pub(super) work: Arc<Work>,
    /// For the log writer.
    pub(super) writes: Receiver<Write>,
    /// For the log reader.
    pub(super) reads: Receiver<LogRead>,
    /// For the thread that saves snapshots; it answers with `jobs`.
    pub(super) saves: Receiver<SaveJob>,
    pub(super) jobs: Sender<Job>,
    pub(super) events: EventSender,
    pub(super) stop: StopSignal,
    pub(super) stores: Stores,
}

/// Recovers what the stores hold.
pub(super) fn assemble(
    options: NodeOptions,
    channel: NodeChannel,
    transport: Arc<dyn Transport>,
    environment: Environment,
) -> Result<Parts, StartError> {
    let NodeOptions { identity, group, config, consensus, stores, loader, introduced, evidence } =
        options;
    let me = identity.node;
    let Recovered { snapshot, machine } = recover(&stores, identity.cluster, group, &loader)?;
    let replayed_to = stores.log.last_index(group)?;
    if let Some(machine) = &machine
        && !machine.conf_state().contains(me)
    {
        return Err(StartError::Removed(me));
    }
    let tick_us = config.tick().as_micros().max(1) as u64;
    let replica_config = ReplicaConfig {
        node: me,
        group,
        heartbeat_ticks: config.heartbeat_ticks(),
        election_ticks: config.election_ticks(),
        trailing_ticks: consensus.trailing_ms.saturating_mul(1_000) / tick_us,
        seed: environment.seed,
        incarnation: environment.incarnation,
        limits: consensus,
    };
    let mut replica = Replica::new(replica_config, Arc::clone(&stores.log), snapshot.clone())?;
    let alone = machine.as_ref().is_some_and(|machine| {
        machine.conf_state().voters.iter().eq([&me])
            && machine.conf_state().voters_outgoing.is_empty()
    });
    if alone {
        // Nobody else could have been elected; waiting for a timeout would be for nothing.
        replica.step(Input::Campaign)?;
    }

    let metrics = Arc::<NodeMetrics>::default();
    metrics.snapshot_bytes.set(snapshot.as_ref().map_or(0, |meta| meta.size_bytes));
    let work = Arc::new(Work::new(
        Arc::clone(&environment.monotonic_clock),
        config.slow_apply_ms,
        Arc::clone(&metrics),
    ));
    let stop = StopSignal::new();
    let (leadership_sender, leadership) =
        watch::channel(Leadership { role: Role::Follower, term: replica.term(), leader: None });
    let (view_sender, view) = watch::channel(None);
    let (stuck_sender, stuck) = watch::channel(None);
    let (expelled_sender, expelled) = watch::channel(false);
    let NodeChannel { events, receiver, roster, standing, rivals } = channel;
    standing.update(me, &replica);
    let (writer, writes) = mpsc::channel();
    let (reader, reads) = mpsc::channel();
    let (apply, jobs) = mpsc::channel();
    let (saver, saves) = mpsc::channel();
    let last_size = snapshot.as_ref().map_or(0, |meta| meta.size_bytes);
    let trust = Trust::new(me, replayed_to, evidence);
    let digests = trust.status.subscribe();
    let log_clock = Arc::new(LogClock::new(Arc::clone(&environment.steady_clock)));
    let hands = (environment.wall_clock_ms, environment.steady_clock);
    let mut clocks = Clocks::new(me, group, &config, hands, Arc::clone(&log_clock));
    if let Some(machine) = &machine {
        log_clock.follow(machine.time_ms());
        // Before anything is stamped: a new cluster would begin in 1970. Who is alone as of its
        // snapshot may not be as of its log, and does not lead then: its clock alone counts nothing.
        if alone && replica.role() == Role::Leader {
            let conf_state = machine.conf_state();
            clocks.on_leadership(Standing { leads: true, leader: Some(me), conf_state });
        }
    }
    let clock_status = clocks.watch();
    let levels = Levels::new(me, loader.level(), &config);
    let level_status = levels.watch();
    let apply_loop = ApplyLoop {
        cluster: identity.cluster,
        group,
        machine,
        term: snapshot.as_ref().map_or(Term(0), |meta| meta.term),
        loader: Arc::clone(&loader),
        snapshots: Arc::clone(&stores.snapshots),
        jobs,
        events: events.clone(),
        roster,
        view: view_sender,
        members: Arc::default(),
        joins: Arc::default(),
        conf_state: Arc::default(),
        policy: SnapshotPolicy::new(config.snapshot.clone(), last_size),
        saver,
        snapshot_callers: Vec::new(),
        cost: Cost::default(),
        parked: Parked::new(config.max_inflight_bytes),
        waiting: BTreeMap::new(),
        asked: VecDeque::new(),
        jobs_since_answers: 0,
        deferred: VecDeque::new(),
        stop: stop.clone(),
        halted: false,
        trust,
        log_clock: Arc::clone(&log_clock),
        compile_ahead: environment.compile_ahead,
        beside: environment.beside,
        witness: None,
        metrics: Arc::clone(&metrics),
        work: Jobs::new(Arc::clone(&work)),
    };
    let event_loop = EventLoop {
        me,
        group,
        replica,
        standing,
        events: receiver,
        transport,
        writer,
        reader,
        apply: apply.clone(),
        leadership: leadership_sender,
        stop: stop.clone(),
        tick: config.tick(),
        introduced: Newcomers::new(
            introduced.into_iter().filter(|member| member.id != me).collect(),
            config.election_ticks() as u64 * NEWCOMER_ELECTIONS,
        ),
        members: Arc::default(),
        conf_state: Arc::default(),
        clocks,
        levels,
        digests: Digests::new(&config),
        comparers: Vec::new(),
        is_quarantined: false,
        proposals: VecDeque::new(),
        next_proposal: 1,
        waiters: Waiters::new(config.election_ticks()),
        settling: VecDeque::new(),
        queued_queries: Vec::new(),
        stale_queries: Vec::new(),
        asked_queries: None,
        next_read: 1,
        batch: Vec::new(),
        packer: Packer::default(),
        removal: Removal::default(),
        expelled: expelled_sender,
        doubting: None,
        halting: None,
        linger_ticks: config.election_ticks(),
        stuck: stuck_sender,
        metrics: Arc::clone(&metrics),
    };
    let handle = NodeHandle {
        shared: Arc::new(Shared {
            identity,
            group,
            budget: Budget::new(config.max_inflight_bytes),
            config,
            loader,
            events: events.clone(),
            leadership,
            machine: view,
            digests,
            stuck,
            expelled,
            rivals,
            draining: watch::Sender::new(false),
            stop: stop.clone(),
            started: Instant::now(),
            log_clock,
            clocks: clock_status,
            levels: level_status,
            metrics: Arc::clone(&metrics),
            work: Arc::clone(&work),
        }),
    };
    Ok(Parts {
        handle,
        event_loop,
        apply_loop,
        metrics,
        work,
        writes,
        reads,
        saves,
        jobs: apply,
        events,
        stop,
        stores,
    })
}

impl Node {
    /// Recovers what the stores hold and starts the threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        options: NodeOptions,
        channel: NodeChannel,
        transport: Arc<dyn Transport>,
    ) -> Result<Node, StartError> {
        let (group, keep) = (options.group, options.config.snapshot.keep);
        let parts = assemble_on_large_stack(options, channel, transport)?;
        let Parts { handle, event_loop, apply_loop, metrics, work, .. } = parts;
        let Parts { writes, reads, saves, jobs, events, stop, stores, .. } = parts;
        let log_reader =
            log_reader::spawn(Arc::clone(&stores.log), group, reads, events.clone(), stop.clone())?;
        let log_writer = log_writer::spawn(
            stores.log,
            group,
            writes,
            events,
            Arc::clone(&metrics),
            stop.clone(),
        )?;
        let end_jobs = EndJobs(jobs.clone());
        let snapshot_writer =
            snapshots::spawn(stores.snapshots, keep, saves, jobs, metrics, stop.clone())?;
        let watchdog = Watchdog::spawn(&work)?;
        let (guard, apply_guard) = (stop.clone(), stop);
        let apply_thread = std::thread::Builder::new()
            .name("apply".into())
            .stack_size(APPLY_STACK_BYTES)
            .spawn(move || {
                let _guard = StopOnPanic(apply_guard, "apply");
                apply_loop.run();
            })?;
        let event_thread =
            std::thread::Builder::new().name("event-loop".into()).spawn(move || {
                let _guard = StopOnPanic(guard, "event loop");
                let _end_jobs = end_jobs;
                event_loop.run();
            })?;
        let threads = vec![event_thread, apply_thread, log_writer, log_reader, snapshot_writer];
        Ok(Node { handle, threads, _watchdog: watchdog })
    }

    /// A handle for callers.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Refuses new requests, hands leadership over when somebody can take it, and waits for
    /// what is in flight, all within `drain_ms`. A node that has stopped has nothing to wait for.
    pub async fn drain(&self) {
        let shared = &self.handle.shared;
        shared.draining.send_replace(true);
        if shared.stop.is_given() {
            return;
        }
        let patience = Duration::from_millis(shared.config.drain_ms);
        let drained = tokio::time::timeout(patience, async {
            if shared.leadership.borrow().role == Role::Leader {
                match self.handle.transfer_leadership(None).await {
                    Ok(to) => tracing::info!(%to, "handed leadership over"),
                    Err(error) => tracing::info!(%error, "leadership not handed over"),
                }
            }
            while shared.budget.in_use() > 0 && !shared.stop.is_given() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!("requests were still in flight when the node stopped");
        }
    }

    /// As [`Node::stop_within`], for who can wait: a stuck disk may hold it up for ever.
    pub fn stop(self) -> StopReason {
        self.stop_within(Duration::MAX).0
    }

    /// Ends the threads; what was handed to the log writer is flushed. Blocks, for as long as
    /// `patience` at most: threads that are stuck by then are returned as they are.
    pub fn stop_within(self, patience: Duration) -> (StopReason, Option<Stragglers>) {
        let shared = &self.handle.shared;
        shared.stop.stop(StopReason::Requested);
        // A loop that has ended needs no waking.
        let _ = shared.events.send(Event::Stop);
        let stragglers = join_within(self.threads, patience);
        (shared.stop.reason().expect("set above"), stragglers)
    }
}

/// On a thread like the one that will apply: to restore a snapshot is to run the module's
/// initialisers, on a stack that the limits may have made larger than the caller's.
fn assemble_on_large_stack(
    options: NodeOptions,
    channel: NodeChannel,
    transport: Arc<dyn Transport>,
) -> Result<Parts, StartError> {
    std::thread::Builder::new()
        .name("recovery".into())
        .stack_size(APPLY_STACK_BYTES)
        .spawn(move || assemble(options, channel, transport, Environment::real()))?
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
