//! Puts the loops of a node and of its groups together. Nobody runs them yet.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

use super::driver::Driver;
use super::environment::Environment;
use super::error::StartError;
use super::event_loop::{Arrivals, EventLoop, Hands, Seat};
use super::inbox::Places;
use super::log_reader::ReadRequest;
use super::log_writer::WriteRequest;
use super::options::{GroupOptions, NodeChannel};
use super::recovery::{Recovered, recover};
use crate::consensus::{Input, Replica, ReplicaConfig, Role};
use crate::node::ahead::AheadBoard;
use crate::node::answer::Leadership;
use crate::node::apply::{ApplyLoop, ApplyParts, Trust};
use crate::node::budget::Budget;
use crate::node::clock::{Clocks, LogClock, Standing};
use crate::node::compilations::Compilations;
use crate::node::config::NodeConfig;
use crate::node::group::{Group, GroupParts};
use crate::node::handle::{NodeHandle, QueueLimits, Shared};
use crate::node::message::{EventSender, Mailbox, SaveJob};
use crate::node::metrics::NodeMetrics;
use crate::node::rivals::Rivals;
use crate::node::stop::{StopSignal, Stops};
use crate::node::work::{Jobs, Work};
use crate::storage::Stores;
use crate::transport::{Identity, Transport};

/// What all groups of a node share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) identity: Identity,
    pub(super) config: NodeConfig,
    pub(super) stores: Stores,
    pub(super) mail: Mailbox,
    pub(super) saver: Sender<SaveJob>,
    pub(super) places: Places,
    pub(super) rivals: Arc<Rivals>,
    pub(super) inbox: Budget,
    pub(super) arrivals: Arrivals,
    pub(super) stops: Stops,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// The loops of a node.
pub(super) struct Loops {
    pub(super) common: Common,
    pub(super) event_loop: EventLoop,
    /// Runs it, once it is started.
    pub(super) driver: Arc<Driver>,
    /// For the log writer.
    pub(super) writes: Receiver<WriteRequest>,
    /// For the log reader.
    pub(super) reads: Receiver<ReadRequest>,
    /// For the thread that saves snapshots.
    pub(super) saves: Receiver<SaveJob>,
}

/// Of a node without groups.
pub(super) fn loops(
    identity: Identity,
    config: NodeConfig,
    stores: Stores,
    channel: NodeChannel,
    transport: Arc<dyn Transport>,
) -> Loops {
    let NodeChannel { mail, driver, receiver, places, rivals, inbox } = channel;
    let (writer, writes) = mpsc::channel();
    let (reader, reads) = mpsc::channel();
    let (saver, saves) = mpsc::channel();
    let arrivals = Arrivals::default();
    let tick = config.tick();
    let common = Common {
        identity,
        config,
        stores,
        mail,
        saver,
        places: places.clone(),
        rivals,
        inbox,
        arrivals: Arc::clone(&arrivals),
        stops: Stops::default(),
        metrics: Arc::default(),
    };
    let metrics = Arc::clone(&common.metrics);
    let hands =
        Hands { mail: receiver, arrivals, places, transport, writer, reader, metrics, tick };
    Loops { common, event_loop: EventLoop::new(hands), driver, writes, reads, saves }
}

/// A recovered group that nobody drives yet.
pub(super) struct Assembled {
    pub(super) handle: NodeHandle,
    pub(super) seat: Seat,
    pub(super) apply_loop: ApplyLoop,
    pub(super) stop: StopSignal,
    /// What the apply loop is doing.
    pub(super) work: Arc<Work>,
}

/// Recovers what the stores hold of a group.
pub(super) fn assemble(
    options: GroupOptions,
    common: &Common,
    environment: Environment,
) -> Result<Assembled, StartError> {
    let GroupOptions { group, consensus, loader, introduced, evidence } = options;
    let Common { identity, config, stores, .. } = common.clone();
    let (me, cluster) = (identity.node, identity.cluster);
    let stop = StopSignal::new();
    if !common.stops.add(group, stop.clone()) {
        return Err(StartError::GroupOpen(group));
    }
    let Recovered { snapshot, machine } = recover(&stores, cluster, group, &loader)?;
    let replayed_to = stores.log.last_index(group)?;
    if let Some(machine) = &machine
        && !machine.conf_state().contains(me)
    {
        return Err(StartError::Removed(me));
    }
    let tick_us = config.tick().as_micros().max(1) as u64;
    let queue_limits = QueueLimits {
        uncommitted_bytes: consensus.max_uncommitted_bytes,
        unapplied_bytes: consensus.max_unapplied_bytes,
    };
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

    let metrics = Arc::clone(&common.metrics);
    let work = Arc::new(Work::new(
        Arc::clone(&environment.monotonic_clock),
        config.slow_apply_ms,
        Arc::clone(&metrics),
    ));
    let events = EventSender::new(group, common.mail.clone());
    let place = common.places.add(group);
    let (leadership_sender, leadership) =
        watch::channel(Leadership { role: Role::Follower, term: replica.term(), leader: None });
    let (view_sender, view) = watch::channel(None);
    let (stuck_sender, stuck) = watch::channel(None);
    let (expelled_sender, expelled) = watch::channel(false);
    let (apply, jobs) = mpsc::channel();
    let trust = Trust::new((cluster, group, me), replayed_to, evidence, events.clone());
    let digests = trust.watch();
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
    let compilations =
        Arc::new(Compilations::new(Arc::clone(&loader), Stops::of(group, stop.clone())));
    let ahead = Arc::new(AheadBoard::default());
    let apply_parts = ApplyParts {
        cluster,
        group,
        machine,
        snapshot,
        loader: Arc::clone(&loader),
        compilations: Arc::clone(&compilations),
        ahead: Arc::clone(&ahead),
        snapshots: Arc::clone(&stores.snapshots),
        jobs,
        own_jobs: apply.clone(),
        events: events.clone(),
        saver: common.saver.clone(),
        roster: place.roster,
        view: view_sender,
        trust,
        log_clock: Arc::clone(&log_clock),
        compile_ahead: environment.compile_ahead,
        beside: environment.beside,
        stop: stop.clone(),
        metrics: Arc::clone(&metrics),
        work: Jobs::new(Arc::clone(&work)),
    };
    let apply_loop = ApplyLoop::new(&config, apply_parts);
    let group_parts = GroupParts {
        me,
        group,
        replica,
        level: loader.level(),
        introduced,
        clocks,
        standing: place.raft,
        leadership: leadership_sender,
        expelled: expelled_sender,
        stuck: stuck_sender,
        stop: stop.clone(),
        clock: Arc::clone(&environment.monotonic_clock),
        metrics: Arc::clone(&metrics),
    };
    let state = Group::new(&config, group_parts);
    let shortage = state.watch_shortage();
    let handle = NodeHandle::new(Shared {
        identity,
        group,
        budget: Budget::new(config.max_inflight_bytes),
        inbox: common.inbox.clone(),
        queue_limits,
        clock: environment.monotonic_clock,
        config,
        loader,
        compilations,
        stores,
        events,
        leadership,
        machine: view,
        digests,
        stuck,
        disk: watch::Sender::default(),
        shortage,
        expelled,
        rivals: Arc::clone(&common.rivals),
        draining: watch::Sender::new(false),
        off_duty: watch::Sender::new(false),
        stop: stop.clone(),
        started: Instant::now(),
        log_clock,
        clocks: clock_status,
        levels: state.watch_levels(),
        metrics,
        work: Arc::clone(&work),
        ahead,
        rehearsing: Arc::new(Semaphore::new(1)),
        trial_board: Default::default(),
    });
    Ok(Assembled { handle, seat: Seat::new(group, state, apply), apply_loop, stop, work })
}
