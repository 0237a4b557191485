//! How the rest of the process talks to a running node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use super::trial_board::TrialBoard;
use crate::consensus::{ReplicaStatus, Role};
use crate::fsm::{HostFailure, SharedLoader, on_guest_stack};
use crate::machine::{Exported, MachineSnapshot, PortableError, QueryReply, Verdict};
use crate::museum::{self, Exhibit};
use crate::node::ahead::AheadBoard;
use crate::node::answer::{
    Check, Consistency, DiskStatus, Leadership, MachineCopy, MachineView, NoSpace, ProposeFailure,
    ProposeResult, QueryFailure, QueryJob, REQUEST_OVERHEAD_BYTES, Shortage, stopped_unknown,
};
use crate::node::apply::DigestStatus;
use crate::node::budget::{Budget, Charge};
use crate::node::clock::{ClockStatus, LogClock, MonotonicClock};
use crate::node::compilations::Compilations;
use crate::node::config::NodeConfig;
use crate::node::group::LevelStatus;
use crate::node::message::{Event, EventSender, Payload, Submission};
use crate::node::metrics::NodeMetrics;
use crate::node::request::{Draft, Request};
use crate::node::rivals::{Rivals, UNCONFIRMED};
use crate::node::stop::{StopReason, StopSignal, Stops};
use crate::node::waiter::{ReplySink, Waiter};
use crate::node::work::{Activity, Work};
use crate::storage::{SnapshotMeta, Stores};
use crate::transport::Identity;
use crate::types::{Actor, Exceeded, GroupId, Index, Space};

/// What to propose, and who waits for what becomes of it.
#[derive(Debug)]
pub struct Submit {
    /// What is asked for.
    pub request: Request,
    /// Where the answer goes.
    pub sink: ReplySink,
    /// Count the pages that the guest writes, if this host can: see [`Committed::pages_dirtied`].
    pub count_pages: bool,
}

impl From<(Request, ReplySink)> for Submit {
    fn from((request, sink): (Request, ReplySink)) -> Submit {
        Submit { request, sink, count_pages: false }
    }
}

/// Bounds of what consensus keeps waiting.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct QueueLimits {
    pub(in crate::node) uncommitted_bytes: u64,
    pub(in crate::node) unapplied_bytes: u64,
}

/// What a handle reaches.
pub(in crate::node) struct Shared {
    pub(in crate::node) identity: Identity,
    pub(in crate::node) group: GroupId,
    pub(in crate::node) config: NodeConfig,
    pub(in crate::node) loader: SharedLoader,
    pub(in crate::node) compilations: Arc<Compilations>,
    /// Read beside the loops: what is retained of the log and of states.
    pub(in crate::node) stores: Stores,
    pub(in crate::node) events: EventSender,
    pub(in crate::node) budget: Budget,
    /// For messages of peers.
    pub(in crate::node) inbox: Budget,
    pub(in crate::node) queue_limits: QueueLimits,
    /// What durations are measured with.
    pub(in crate::node) clock: MonotonicClock,
    pub(in crate::node) leadership: watch::Receiver<Leadership>,
    pub(in crate::node) machine: watch::Receiver<Option<Arc<MachineView>>>,
    pub(in crate::node) digests: watch::Receiver<Arc<DigestStatus>>,
    pub(in crate::node) stuck: watch::Receiver<Option<Duration>>,
    /// What whoever looks after the disk has found.
    pub(in crate::node) disk: watch::Sender<Option<Arc<DiskStatus>>>,
    pub(in crate::node) shortage: watch::Receiver<Option<Shortage>>,
    /// Most of the other voters say that this node was removed.
    pub(in crate::node) expelled: watch::Receiver<bool>,
    pub(in crate::node) rivals: Arc<Rivals>,
    pub(in crate::node) draining: watch::Sender<bool>,
    /// An operator wants others to lead and to serve clients.
    pub(in crate::node) off_duty: watch::Sender<bool>,
    pub(in crate::node) stop: StopSignal,
    pub(in crate::node) started: Instant,
    /// What entries are stamped with; the machine makes it monotonic.
    pub(in crate::node) log_clock: Arc<LogClock>,
    pub(in crate::node) clocks: watch::Receiver<Arc<ClockStatus>>,
    pub(in crate::node) levels: watch::Receiver<Arc<LevelStatus>>,
    pub(in crate::node) metrics: Arc<NodeMetrics>,
    pub(in crate::node) work: Arc<Work>,
    /// How far the instance is that is made ahead of an activation.
    pub(in crate::node) ahead: Arc<AheadBoard>,
    /// For the one rehearsal that there may be at a time.
    pub(in crate::node) rehearsing: Arc<Semaphore>,
    pub(in crate::node) trial_board: TrialBoard,
}

/// A cheap, clonable handle to a running node's group.
#[derive(Clone)]
pub struct NodeHandle {
    pub(super) shared: Arc<Shared>,
    /// In whose name it proposes; `None`: in nobody's, as the node itself.
    actor: Option<Actor>,
}

impl NodeHandle {
    pub(in crate::node) fn new(shared: Shared) -> NodeHandle {
        NodeHandle { shared: Arc::new(shared), actor: None }
    }

    /// The same, but whatever is proposed with it is proposed in this one's name, who may be nobody: then
    /// it is done only if everybody may.
    #[must_use]
    pub fn acting_for(&self, actor: Actor) -> NodeHandle {
        NodeHandle { shared: Arc::clone(&self.shared), actor: Some(actor) }
    }

    pub(super) fn actor(&self) -> Actor {
        self.actor.unwrap_or_default()
    }

    /// What a thread stops that panics while it works for this group.
    pub(super) fn stops(&self) -> Stops {
        Stops::of(self.shared.group, self.shared.stop.clone())
    }

    /// Who must have the right to what this does; nobody must for what the node does by itself.
    pub(super) fn asking(&self) -> Option<Actor> {
        self.actor
    }

    /// Why the node stopped, once it has.
    pub(in crate::node) fn stop_reason(&self) -> Option<StopReason> {
        self.shared.stop.reason()
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The group this handle is for.
    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// The node's configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// What the node has counted since it started.
    pub fn metrics(&self) -> &NodeMetrics {
        &self.shared.metrics
    }

    /// What the apply thread is at, if it is at anything.
    pub fn activity(&self) -> Option<Activity> {
        self.shared.work.activity()
    }

    /// Bytes of requests that wait to be proposed, committed or applied; bounded by
    /// [`NodeConfig::max_inflight_bytes`].
    pub fn inflight_bytes(&self) -> u64 {
        self.shared.budget.in_use()
    }

    /// How guests' memory is checkpointed on this host.
    pub fn memory_backend(&self) -> &'static str {
        self.shared.loader.memory_backend()
    }

    /// Since when the node runs.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// Who leads; changes can be awaited.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    /// The machine after the last batch; `None` on a new node until it has a snapshot.
    pub fn machine(&self) -> watch::Receiver<Option<Arc<MachineView>>> {
        self.shared.machine.clone()
    }

    /// Why the node stopped, once it has; can be awaited.
    pub fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        self.shared.stop.subscribe()
    }

    /// How this node's state compares with its cluster's; changes can be awaited.
    pub fn digests(&self) -> watch::Receiver<Arc<DigestStatus>> {
        self.shared.digests.clone()
    }

    /// Whether most of the other voters say that this node is no member any more; changes can be
    /// awaited.
    pub fn expelled(&self) -> watch::Receiver<bool> {
        self.shared.expelled.clone()
    }

    /// How this node's clock compares with those of its cluster; changes can be awaited.
    pub fn clocks(&self) -> watch::Receiver<Arc<ClockStatus>> {
        self.shared.clocks.clone()
    }

    /// What this node knows of the members' levels; changes can be awaited.
    pub fn levels(&self) -> watch::Receiver<Arc<LevelStatus>> {
        self.shared.levels.clone()
    }

    /// The log's clock as this node would stamp an entry now, in milliseconds since the Unix epoch.
    pub fn log_time_ms(&self) -> u64 {
        self.shared.log_clock.now_ms()
    }

    /// Whether this node's state is known to differ from its cluster's. It answers nothing then.
    pub fn is_quarantined(&self) -> bool {
        self.shared.digests.borrow().quarantine.is_some()
    }

    /// Whether the replicas disagree and nothing says yet if this node's state is right. It answers
    /// nothing then.
    pub fn is_in_doubt(&self) -> bool {
        self.shared.digests.borrow().doubt.is_some() && !museum::is_on(Exhibit::DoubtAnswers)
    }

    /// Has every node digest its state at one index, and waits for the verdict about it, or about
    /// a later point. Leader only. Callers that come while one point is being judged share the
    /// next.
    ///
    /// # Errors
    /// See [`ProposeFailure`]; a verdict needs more than half of the voters, and may never come.
    pub async fn compare_digests(&self) -> Result<Verdict, ProposeFailure> {
        let mut digests = self.digests();
        self.may_propose(self.shared.leadership.borrow().role == Role::Leader)?;
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter::new(ReplySink::One(sender), self.charge_request()?);
        // When the loop is gone the waiter is dropped, which answers it.
        let _ = self.shared.events.send(Event::CompareDigests(waiter));
        let point = receiver.await.unwrap_or_else(|_| Err(stopped_unknown()))?.position.index;
        let judged = |status: &Arc<DigestStatus>| {
            status.verdict.as_ref().is_some_and(|verdict| verdict.point >= point)
        };
        let status = digests.wait_for(judged).await.map_err(|_| stopped_unknown())?;
        Ok(status.verdict.clone().expect("waited for"))
    }

    /// Flips a bit of the state machine's memory, as failing memory would.
    #[cfg(feature = "museum")]
    pub fn flip_bit(&self, at: u64) {
        // A node that has stopped has no state.
        let _ = self.shared.events.send(Event::FlipBit(at));
    }

    /// Whether clients should send requests to this node: it has a state that is trusted, knows a
    /// leader, and neither stops nor is about to. What health checks report.
    pub fn is_serving(&self) -> bool {
        self.not_serving().is_none()
    }

    /// Why clients should not send requests to this node, for people; `None`: they should.
    pub fn not_serving(&self) -> Option<&'static str> {
        self.checks().into_iter().find_map(|check| check.failure)
    }

    /// What must be so for clients to send requests to this node, the gravest first.
    pub fn checks(&self) -> [Check; 12] {
        let shared = &self.shared;
        let check = |name, fails: bool, why| Check { name, failure: fails.then_some(why) };
        [
            check("running", shared.stop.is_given(), "this node has stopped; its log says why"),
            check("draining", self.draining(), "this node is shutting down"),
            check(
                "disk",
                shared.stuck.borrow().is_some(),
                "a write of this node's log is stuck: its disk does not answer (see status)",
            ),
            check(
                "space",
                self.is_left_behind_for_space(),
                "this node's disk is all but full: it takes next to no entries until there is room (see status)",
            ),
            check(
                "digest",
                self.is_quarantined(),
                "this node is quarantined: its state differs from its cluster's (see status)",
            ),
            check(
                "member",
                *shared.expelled.borrow(),
                "this node was removed from its cluster, say most of the other voters (see its log)",
            ),
            check("confirmed", self.is_unconfirmed(), UNCONFIRMED),
            check(
                "agreement",
                self.is_in_doubt(),
                "this cluster's replicas disagree, and nothing says yet who is right (see status)",
            ),
            check(
                "state",
                shared.machine.borrow().is_none(),
                "this node has no state yet: it waits for a snapshot of its leader",
            ),
            check(
                "program",
                !self.program_is_supported(),
                "this node's program does not offer the cluster's engine profile or level; it stops",
            ),
            check(
                "drained",
                self.is_off_duty(),
                "this node was drained by an operator (`raft-host undrain` ends it)",
            ),
            check(
                "leader",
                shared.leadership.borrow().leader.is_none(),
                "no leader is known: an election is under way, or most voters are out of reach",
            ),
        ]
    }

    /// Who leads answers queries, however full its disk is.
    fn is_left_behind_for_space(&self) -> bool {
        self.disk().is_some_and(|disk| disk.space == Space::Critical)
            && self.shared.leadership.borrow().role != Role::Leader
    }

    fn program_is_supported(&self) -> bool {
        let (view, loader) = (self.shared.machine.borrow(), &self.shared.loader);
        view.as_ref().is_none_or(|view| {
            view.info.level <= loader.level() && loader.supports(&view.info.engine).is_ok()
        })
    }

    /// For how long the disk has not answered, once that is an election timeout; changes can be
    /// awaited.
    pub fn stuck_write(&self) -> watch::Receiver<Option<Duration>> {
        self.shared.stuck.clone()
    }

    /// The same in milliseconds; 0 when the disk answers.
    pub fn stuck_write_ms(&self) -> u64 {
        self.shared.stuck.borrow().map_or(0, |stuck| stuck.as_millis() as u64)
    }

    /// What is known of this node's disk; `None`: it has none, or nobody has looked yet.
    pub fn disk(&self) -> Option<Arc<DiskStatus>> {
        self.shared.disk.borrow().clone()
    }

    /// The same; changes can be awaited.
    pub fn watch_disk(&self) -> watch::Receiver<Option<Arc<DiskStatus>>> {
        self.shared.disk.subscribe()
    }

    /// Whoever looks after the disk says what it has left; what can be freed is when that is little.
    pub fn report_space(&self, space: Space, free: u64) {
        // A node that has stopped needs no space.
        let _ = self.shared.events.send(Event::Space(space, free));
    }

    /// What `status` and health say of the disk from now on.
    pub fn show_disk(&self, disk: DiskStatus) {
        self.shared.disk.send_if_modified(|shown| {
            let is_news = shown.as_deref() != Some(&disk);
            if is_news {
                *shown = Some(Arc::new(disk));
            }
            is_news
        });
    }

    /// Why this node, if it leads, takes no new commands for want of space.
    pub fn no_space(&self) -> Option<NoSpace> {
        match self.shared.shortage.borrow().clone()? {
            Shortage::Voters(nodes) => Some(NoSpace::Voters { nodes }),
            Shortage::Own => {
                let (free, low) = self.disk().map_or((0, 0), |disk| (disk.free, disk.low));
                Some(NoSpace::Leader { node: self.shared.identity.node, free, low })
            }
        }
    }

    /// How long a node that is asked to stop waits for what is in flight (`drain_ms`).
    pub fn drain_patience(&self) -> Duration {
        Duration::from_millis(self.shared.config.drain_ms)
    }

    /// Whether the node refuses new requests because it is shutting down.
    pub fn draining(&self) -> bool {
        *self.shared.draining.borrow()
    }

    /// Whether the node refuses new requests; changes can be awaited.
    pub fn watch_draining(&self) -> watch::Receiver<bool> {
        self.shared.draining.subscribe()
    }

    /// Proposes an entry and waits until it is durable on a quorum and applied here. Only the
    /// leader can.
    ///
    /// # Errors
    /// See [`ProposeFailure`]; the caller may stop waiting, which leaves the effect unknown.
    pub async fn propose(&self, request: Request) -> ProposeResult {
        self.propose_counting(request, false).await
    }

    /// As [`NodeHandle::propose`]; `count_pages`: see [`Submit`].
    ///
    /// # Errors
    /// As [`NodeHandle::propose`].
    pub async fn propose_counting(&self, request: Request, count_pages: bool) -> ProposeResult {
        let (sender, receiver) = oneshot::channel();
        self.submit([Submit { request, sink: ReplySink::One(sender), count_pages }]);
        receiver.await.unwrap_or_else(|_| Err(stopped_unknown()))?.unless_denied()
    }

    /// Hands many proposals over at once and returns; every sink gets exactly one answer.
    pub fn submit(&self, proposals: impl IntoIterator<Item = impl Into<Submit>>) {
        let mut submissions = Vec::new();
        let leads = self.shared.leadership.borrow().role == Role::Leader;
        let now = (self.shared.clock)();
        for proposal in proposals {
            let Submit { request, sink, count_pages } = proposal.into();
            self.shared.metrics.proposals.add(1);
            match self.admit(Draft::new(request, self.actor()), 1, leads) {
                Ok((payload, charge)) => {
                    let mut waiter = Waiter::new(sink, charge);
                    waiter.set_count_pages(count_pages);
                    waiter.sets_out(now);
                    submissions.push(Submission { payload, waiter });
                }
                Err(failure) => {
                    self.shared.metrics.on_refusal(&failure, 1);
                    sink.send(Err(failure));
                }
            }
        }
        if !submissions.is_empty() {
            // When the loop is gone the waiters are dropped, which answers them.
            let _ = self.shared.events.send(Event::Submit(submissions));
        }
    }

    /// Says no before anything is queued, where that is clear.
    pub(super) fn may_propose(&self, leads: bool) -> Result<(), ProposeFailure> {
        if self.draining() {
            return Err(ProposeFailure::Stopping);
        }
        if !leads {
            // Spares a follower the way through its event loop.
            return Err(ProposeFailure::NotLeader(self.shared.leadership.borrow().leader.clone()));
        }
        if self.is_quarantined() && !museum::is_on(Exhibit::QuarantineAnswers) {
            return Err(ProposeFailure::Quarantined);
        }
        if self.is_in_doubt() {
            return Err(ProposeFailure::InDoubt);
        }
        if self.is_unconfirmed() {
            return Err(ProposeFailure::Unconfirmed);
        }
        Ok(())
    }

    pub(super) fn admit(
        &self,
        draft: Draft,
        callers: usize,
        leads: bool,
    ) -> Result<(Payload, Charge), ProposeFailure> {
        self.may_propose(leads)?;
        if draft.takes_space()
            && let Some(why) = self.no_space()
        {
            return Err(ProposeFailure::NoSpace(Box::new(why)));
        }
        let time_ms = self.shared.log_clock.now_ms();
        let bytes = draft.entry_bytes(time_ms);
        let max = self.shared.config.max_entry_bytes;
        if bytes > max {
            return Err(ProposeFailure::TooLarge { bytes, max });
        }
        let cost = bytes + REQUEST_OVERHEAD_BYTES * callers as u64;
        let charge = self.take(cost).map_err(ProposeFailure::Busy)?;
        Ok((draft.encode(time_ms), charge))
    }

    /// Has an entry proposed that callers cannot ask for.
    #[cfg(test)]
    pub(in crate::node) fn submit_entry(&self, entry: Bytes, sink: ReplySink) {
        let (payload, waiter) = (Payload::Entry { data: entry, is_fence: false }, Waiter::of(sink));
        let _ = self.shared.events.send(Event::Submit(vec![Submission { payload, waiter }]));
    }

    /// Asks the state machine. Works on every node; a linearizable query waits until a leader
    /// confirms that it leads, however long that takes.
    ///
    /// # Errors
    /// See [`QueryFailure`].
    pub async fn query(
        &self,
        query: Bytes,
        consistency: Consistency,
    ) -> Result<QueryReply, QueryFailure> {
        self.ask(query, false, consistency).await
    }

    /// Waits until this node has applied, and shows, all that was committed when this was called.
    /// A leader must confirm that it leads, however long that takes.
    ///
    /// # Errors
    /// See [`QueryFailure`].
    pub async fn barrier(&self) -> Result<Index, QueryFailure> {
        let reply = self.ask(Bytes::new(), true, Consistency::Linearizable).await?;
        Ok(reply.applied)
    }

    /// What this node has applied, if anything may be asked of its state now. Asks no other node.
    ///
    /// # Errors
    /// See [`QueryFailure`].
    pub(super) async fn stale_barrier(&self) -> Result<Index, QueryFailure> {
        Ok(self.ask(Bytes::new(), true, Consistency::Stale).await?.applied)
    }

    async fn ask(
        &self,
        query: Bytes,
        is_barrier: bool,
        consistency: Consistency,
    ) -> Result<QueryReply, QueryFailure> {
        if self.draining() {
            return Err(QueryFailure::Stopping);
        }
        if self.is_quarantined() && !museum::is_on(Exhibit::QuarantineAnswers) {
            return Err(QueryFailure::Quarantined);
        }
        if self.is_in_doubt() {
            return Err(QueryFailure::InDoubt);
        }
        if self.is_unconfirmed() {
            return Err(QueryFailure::Unconfirmed);
        }
        let cost = query.len() as u64 + REQUEST_OVERHEAD_BYTES;
        let charge = self.take(cost).map_err(QueryFailure::Busy)?;
        let (reply, receiver) = oneshot::channel();
        let job = QueryJob { is_barrier, query, reply, _charge: charge };
        let event = match consistency {
            Consistency::Linearizable => Event::Query(job),
            Consistency::Stale => Event::StaleQuery(job),
        };
        self.shared.events.send(event).map_err(|_| QueryFailure::Stopped)?;
        receiver.await.map_err(|_| QueryFailure::Stopped)?
    }

    /// The replica's view of its group.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn status(&self) -> Result<ReplicaStatus, QueryFailure> {
        let (reply, receiver) = oneshot::channel();
        self.shared.events.send(Event::Status(reply)).map_err(|_| QueryFailure::Stopped)?;
        receiver.await.map_err(|_| QueryFailure::Stopped)
    }

    /// Takes a snapshot now and compacts the log behind it.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub async fn take_snapshot(&self) -> Result<SnapshotMeta, String> {
        let (reply, receiver) = oneshot::channel();
        let gone = || "this node stopped".to_owned();
        self.shared.events.send(Event::TakeSnapshot(reply)).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Copies the whole state, to be written out elsewhere while applies go on.
    ///
    /// # Errors
    /// A sentence that says why there is no copy.
    pub async fn copy(&self) -> Result<MachineCopy, String> {
        let (reply, receiver) = oneshot::channel();
        let gone = || "this node stopped".to_owned();
        self.shared.events.send(Event::Copy(reply)).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Has a copy of the guest write its own portable snapshot. May take long; blocks.
    ///
    /// # Errors
    /// See [`PortableError`].
    pub fn export(&self, state: MachineSnapshot) -> Result<Exported, PortableError> {
        on_guest_stack("export", move || state.export(&self.shared.loader))
            .map_err(|error| HostFailure(format!("no thread to export: {error}")))?
    }

    fn take(&self, bytes: u64) -> Result<Charge, Exceeded> {
        self.shared.budget.take_of("node.max_inflight_bytes", bytes)
    }

    pub(super) fn charge_request(&self) -> Result<Charge, ProposeFailure> {
        self.take(REQUEST_OVERHEAD_BYTES).map_err(ProposeFailure::Busy)
    }
}
