//! A node without threads: the same loops, taken one step at a time.
//!
//! The simulator runs a whole cluster of these on one thread and decides when each step
//! happens. What runs is what the threads of [`super::Node`] run: the event loop's turn, the
//! log writer's batch, the apply loop's job, the snapshot thread's job. Nothing here looks at
//! a clock or at anything random.
//!
//! ```text
//!   inbox, handle ─► turn ─┬─► begin_write … finish_write ─► (next turn)
//!                          ├─► read_log ─► (next turn)
//!                          ├─► apply_next ─► save_next ─► (next apply_next)
//!                          └─► transport
//! ```

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::Bytes;

use super::assemble::{Assembled, Common, Loops, assemble, loops};
use super::environment::Environment;
use super::error::StartError;
use super::event_loop::{EventLoop, Seat};
use super::log_reader::{self, ReadRequest};
use super::log_writer::{self, Batch, Batcher, WriteRequest};
use super::options::{GroupOptions, NodeChannel, NodeOptions};
use super::snapshot_writer;
use crate::consensus::{ReplicaStatus, Role};
use crate::fsm::HostFailure;
use crate::machine::Machine;
use crate::node::apply::{ApplyLoop, Witness};
use crate::node::handle::{NodeHandle, RehearsalFailure, Rehearsed};
use crate::node::message::{Event, EventSender, Job, Mail, SaveJob};
use crate::node::shadow::{ShadowEnd, ShadowStatus, Shadowing, Step};
use crate::node::stop::{StopReason, StopSignal};
use crate::rehearsal::Report;
use crate::storage::{GroupWrite, Stores};
use crate::transport::Transport;
use crate::types::{ConfState, GroupId, Index, ModuleHash, NodeId, Term};

/// See the module.
///
/// A step of a node that has a [`SteppedNode::stop_reason`] does nothing. Dropping a node is a
/// crash: what was not written is lost, and whoever waits is told that it stopped.
pub struct SteppedNode {
    group: GroupId,
    common: Common,
    handle: NodeHandle,
    event_loop: EventLoop,
    /// Taken from the queue to see whether there is one.
    next_mail: Option<Mail>,
    apply_loop: ApplyLoop,
    /// Taken from the queue to see whether there is one.
    next_job: Option<Job>,
    writes: Receiver<WriteRequest>,
    batcher: Batcher,
    writing: Option<Batch>,
    purge_due: bool,
    reads: Receiver<ReadRequest>,
    /// Taken from the queue to see whether there is one.
    next_read: Option<ReadRequest>,
    saves: Receiver<SaveJob>,
    saving: Option<SaveJob>,
    events: EventSender,
    stop: StopSignal,
}

/// A shadow of a stepped node, a step at a time. It may outlive the node.
pub struct SteppedShadow(Shadowing);

impl SteppedShadow {
    /// Executes the next entry, if there is one.
    ///
    /// # Errors
    /// [`HostFailure`]: of this host; it is over.
    pub fn step(&mut self) -> Result<bool, HostFailure> {
        Ok(self.0.step(Duration::ZERO)? == Step::Did)
    }

    /// Has these asked of both modules, when [`SteppedNode::end_shadow`] ends it.
    #[cfg(test)]
    pub(in crate::node) fn ask_at_the_end(&mut self, queries: Vec<Bytes>) {
        self.0.ask_at_the_end(queries);
    }

    /// Whether something has ended it.
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }

    /// How far it is.
    pub fn status(&self) -> ShadowStatus {
        self.0.status()
    }

    /// Executes what waits, and says what was found and why it ended; `None`: the node is gone.
    ///
    /// # Errors
    /// [`HostFailure`]: of this host.
    pub fn finish(mut self) -> Result<Option<(Report, ShadowEnd)>, HostFailure> {
        while self.step()? {}
        self.0.finish()
    }

    /// The same, after its time was over.
    ///
    /// # Errors
    /// As [`SteppedShadow::finish`].
    pub fn end(self) -> Result<Option<(Report, ShadowEnd)>, HostFailure> {
        self.0.end(ShadowEnd::Elapsed);
        self.finish()
    }
}

impl SteppedNode {
    /// As [`super::Node::start`], with a given environment.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        options: NodeOptions,
        channel: NodeChannel,
        transport: Arc<dyn Transport>,
        environment: Environment,
        witness: Box<dyn Witness>,
    ) -> Result<SteppedNode, StartError> {
        let NodeOptions { identity, group, config, consensus, stores, loader, .. } = options;
        let NodeOptions { introduced, evidence, .. } = options;
        let Loops { common, mut event_loop, writes, reads, saves, .. } =
            loops(identity, config, stores, channel, transport);
        let options = GroupOptions { group, consensus, loader, introduced, evidence };
        let Assembled { handle, seat, mut apply_loop, stop, .. } =
            assemble(options, &common, environment)?;
        event_loop.admit(seat);
        apply_loop.show_to(witness);
        apply_loop.begin();
        Ok(SteppedNode {
            group,
            events: EventSender::new(group, common.mail.clone()),
            common,
            handle,
            event_loop,
            next_mail: None,
            apply_loop,
            next_job: None,
            writes,
            batcher: Batcher::default(),
            writing: None,
            purge_due: false,
            reads,
            next_read: None,
            saves,
            saving: None,
            stop,
        })
    }

    /// A handle for callers.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Why the node stopped, once it has.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop.reason()
    }

    /// Whether something waits for the event loop.
    pub fn has_events(&mut self) -> bool {
        if self.next_mail.is_none() {
            self.next_mail = self.event_loop.try_mail();
        }
        self.next_mail.is_some()
    }

    /// One turn of the event loop: takes in all that came since the last, and the tick of the
    /// clock if it is due.
    pub fn turn(&mut self, tick: bool) {
        if self.stop.is_given() {
            return;
        }
        while let Some(mail) = self.next_mail.take().or_else(|| self.event_loop.try_mail()) {
            self.event_loop.take(mail);
        }
        if tick {
            self.event_loop.tick();
        }
        self.event_loop.touch(self.group);
        self.event_loop.end_turn();
    }

    /// Asks the replica to hand leadership over, without waiting for it.
    pub fn transfer_leadership(&mut self, to: Option<NodeId>) {
        // The loop is part of this node, so its queue is open.
        let _ = self.events.send(Event::TransferLeader(to));
    }

    /// Asks for a snapshot, without waiting for it.
    #[cfg(test)]
    pub(in crate::node) fn take_snapshot(
        &mut self,
        caller: tokio::sync::oneshot::Sender<Result<crate::storage::SnapshotMeta, String>>,
    ) {
        // The loop is part of this node, so its queue is open.
        let _ = self.events.send(Event::TakeSnapshot(caller));
    }

    /// Takes the next batch to write, unless one is being written.
    pub fn begin_write(&mut self) -> Option<&GroupWrite> {
        if self.writing.is_some() || self.stop.is_given() {
            return None;
        }
        self.writing = self.batcher.next(&self.writes);
        let batch = self.writing.as_ref()?;
        batch.write.groups.iter().find(|(group, _)| *group == self.group).map(|(_, write)| write)
    }

    /// Writes the batch that [`SteppedNode::begin_write`] took, with its fsync.
    pub fn finish_write(&mut self) {
        let Some(batch) = self.writing.take() else { return };
        if self.stop.is_given() {
            return;
        }
        match self.common.stores.log.write(&batch.write) {
            Ok(()) => {
                self.common.metrics.log_waiting_bytes.take(batch.bytes);
                self.purge_due |= batch.compacts;
                for news in batch.persisted() {
                    // The loop is part of this node, so its queue is open.
                    let _ = self.common.mail.send(news);
                }
            }
            Err(error) => log_writer::fail(&self.common.stops, &error),
        }
    }

    /// Whether compacted space waits to be released.
    pub fn purge_due(&self) -> bool {
        self.purge_due
    }

    /// Releases compacted space, if there is any.
    pub fn purge(&mut self) {
        if std::mem::take(&mut self.purge_due)
            && !self.stop.is_given()
            && let Err(error) = self.common.stores.log.purge()
        {
            log_writer::fail_purge(&self.common.stops, &error);
        }
    }

    /// Whether something is to be read from the log.
    pub fn has_log_read(&mut self) -> bool {
        if self.next_read.is_none() {
            self.next_read = self.reads.try_recv().ok();
        }
        self.next_read.is_some()
    }

    /// Reads from the log what waits to be read.
    pub fn read_log(&mut self) {
        if !self.has_log_read() || self.stop.is_given() {
            return;
        }
        let read = self.next_read.take().expect("just seen");
        // The loop is part of this node, so its queue is open.
        let _ = self.common.mail.send(log_reader::run(&*self.common.stores.log, read));
    }

    /// Whether there is something to apply or to answer.
    pub fn has_job(&mut self) -> bool {
        self.has_queued_job() || self.apply_loop.has_asked()
    }

    fn has_queued_job(&mut self) -> bool {
        if self.next_job.is_none() {
            self.next_job = self.apply_loop.try_job();
        }
        self.next_job.is_some()
    }

    /// Does the apply loop's next job, or answers some queries if there is none.
    pub fn apply_next(&mut self) {
        if !self.has_job() || self.stop.is_given() {
            return;
        }
        let job = match self.apply_loop.answers_are_due() {
            true => None,
            false => self.next_job.take(),
        };
        let done = match job {
            Some(job) => self.apply_loop.on_job(job),
            None => self.apply_loop.answer_some(),
        };
        if let Err(error) = done {
            self.apply_loop.fail(&error);
        }
    }

    /// Whether a snapshot waits to be written.
    pub fn has_save(&mut self) -> bool {
        if self.saving.is_none() {
            self.saving = self.saves.try_recv().ok();
        }
        self.saving.is_some()
    }

    /// Writes the snapshot that waits.
    pub fn save_next(&mut self) {
        if !self.has_save() || self.stop.is_given() {
            return;
        }
        let job = self.saving.take().expect("just seen");
        snapshot_writer::run(&*self.common.stores.snapshots, job);
    }

    /// Rehearses a module that the group holds on what this node retains, in one step; `None`: the node has not
    /// applied the last of the entries yet. The caller's thread must have the stack that guests need.
    ///
    /// # Errors
    /// See [`RehearsalFailure`].
    pub fn rehearse(
        &self,
        module: ModuleHash,
        range: (Index, Index),
        queries: Vec<Bytes>,
    ) -> Result<Option<Rehearsed>, RehearsalFailure> {
        match self.stop.is_given() {
            true => Err(RehearsalFailure::BrokenOff),
            false => self.handle.rehearse_at_once(module, range, queries),
        }
    }

    fn seat(&self) -> &Seat {
        self.event_loop.seat(self.group).expect("nobody takes it from the loop")
    }

    /// The replica's view of its group.
    pub fn status(&self) -> ReplicaStatus {
        self.seat().group().status()
    }

    /// The voters that the event loop goes by: what is agreed about clocks is theirs.
    pub fn conf_state(&self) -> &ConfState {
        self.seat().group().conf_state()
    }

    /// What the replica is.
    pub fn role(&self) -> Role {
        self.seat().group().role()
    }

    /// The replica's term.
    pub fn term(&self) -> Term {
        self.seat().group().term()
    }

    /// The machine, unless the node waits for its first snapshot.
    pub fn machine(&mut self) -> Option<&mut Machine> {
        self.apply_loop.machine()
    }

    /// Has a module run beside the machine, from its state of now on.
    ///
    /// # Errors
    /// A sentence that says why it cannot.
    ///
    /// # Panics
    /// If this host cannot copy the state.
    pub fn shadow(&mut self, module: &Bytes) -> Result<SteppedShadow, String> {
        let start = self.apply_loop.start_shadow().expect("the state is copied")?;
        let stopwatch = || Duration::ZERO;
        let begun = Shadowing::begin(start, (module, ""), &stopwatch);
        match begun.map_err(|error| error.to_string())? {
            Ok(shadowing) => Ok(SteppedShadow(shadowing)),
            Err(report) => {
                let why = report.differences.into_iter().map(|difference| difference.new);
                Err(why.collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// The time of the shadow is over, and it asks its queries of the state of now.
    #[cfg(test)]
    pub(in crate::node) fn end_shadow(&mut self) {
        self.apply_loop.end_shadow().expect("the state is copied");
    }

    /// Flips a bit of the state machine's memory, as failing memory would. False when there is no
    /// state machine.
    #[cfg(feature = "museum")]
    pub fn flip_bit(&mut self, at: u64) -> bool {
        self.machine().is_some_and(|machine| machine.flip_bit(at))
    }

    /// The stores that the node works with.
    pub fn stores(&self) -> &Stores {
        &self.common.stores
    }
}
