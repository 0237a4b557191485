//! Drives the groups: collects what happened, has each group take it in, and has done what they want
//! done.
//!
//! One loop for all groups, with one queue and one tick: a group that has nothing to do costs a look at
//! each tick. Who runs it, see `driver`.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::inbox::Places;
use super::log_reader::ReadRequest;
use super::log_writer::WriteRequest;
use super::threads::EndJobs;
use crate::consensus::ReplicaError;
use crate::node::group::{Group, Output};
use crate::node::message::{Job, Mail};
use crate::node::metrics::NodeMetrics;
use crate::transport::Transport;
use crate::types::{GroupId, LogEntry, Member, NodeId};

/// Most events taken in before effects are executed.
const MAX_EVENTS_PER_TURN: usize = 4096;

/// A turn with no more letters, with fewer bytes to write, and with no more entries that somebody waits
/// for, is a calm one.
const CALM_LETTERS: usize = 4;
const CALM_WRITTEN_BYTES: u64 = 4 << 10;
const CALM_WAITING: usize = 2;
/// After so many calm turns in a row the loop counts as calm: some commands of a lone caller, and far
/// more than what lies between two batches of many.
const CALM_AFTER: u32 = 32;

/// A group and the way to its machine.
pub(super) struct Seat {
    id: GroupId,
    group: Group,
    jobs: Sender<Job>,
    peers: BTreeMap<NodeId, Member>,
    /// Something happened to it in this turn.
    is_touched: bool,
    /// Last: nobody waits in the group any more when its machine ends.
    _end: EndJobs,
}

impl Seat {
    pub(super) fn new(id: GroupId, group: Group, jobs: Sender<Job>) -> Seat {
        let (peers, end) = (group.peers(), EndJobs(jobs.clone()));
        Seat { id, group, jobs, peers, is_touched: false, _end: end }
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }
}

/// Groups that the loop is to drive and has not seen yet.
pub(super) type Arrivals = Arc<Mutex<Vec<Seat>>>;

/// What the loop drives the groups with.
pub(super) struct Hands {
    pub(super) mail: Receiver<Mail>,
    pub(super) arrivals: Arrivals,
    pub(super) places: Places,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) writer: Sender<WriteRequest>,
    pub(super) reader: Sender<ReadRequest>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) tick: Duration,
}

/// See the module.
pub(super) struct EventLoop {
    hands: Hands,
    seats: BTreeMap<GroupId, Seat>,
    /// Groups that something happened to in this turn, each once.
    touched: Vec<GroupId>,
    next_tick: Instant,
    has_begun: bool,
    /// Bytes of entries that this turn has handed to the log writer.
    written_bytes: u64,
    calm_turns: u32,
}

impl EventLoop {
    pub(super) fn new(hands: Hands) -> EventLoop {
        let next_tick = Instant::now() + hands.tick;
        EventLoop {
            hands,
            seats: BTreeMap::new(),
            touched: Vec::new(),
            next_tick,
            has_begun: false,
            written_bytes: 0,
            calm_turns: 0,
        }
    }

    /// One turn: takes in what has come, and has done what the groups then want done. Says how much mail
    /// it took in.
    pub(super) fn turn(&mut self) -> usize {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.look();
        }
        let mut taken = 0;
        while taken < MAX_EVENTS_PER_TURN
            && let Some(mail) = self.try_mail()
        {
            self.take(mail);
            taken += 1;
        }
        self.leave_stopped();
        let now = Instant::now();
        if now >= self.next_tick {
            self.tick();
            self.next_tick += self.hands.tick;
            if self.next_tick < now {
                // This process was held up. The messages that arrived meanwhile count,
                // not the time in which it could not have looked at them.
                self.next_tick = now + self.hands.tick;
            }
        }
        self.written_bytes = 0;
        self.end_turn();
        let is_calm = taken <= CALM_LETTERS
            && self.written_bytes < CALM_WRITTEN_BYTES
            && self.seats.values().all(|seat| seat.group.waiting() <= CALM_WAITING);
        self.calm_turns = if is_calm { self.calm_turns.saturating_add(1) } else { 0 };
        taken
    }

    /// Whether little goes on, so that nothing is gained by waiting for more to come.
    pub(super) fn is_calm(&self) -> bool {
        self.calm_turns >= CALM_AFTER
    }

    /// When a turn is due even if no mail comes.
    pub(super) fn next_tick(&self) -> Instant {
        self.next_tick
    }

    /// Whether the last group has ended. Dropping the loop ends the log's writer and reader.
    pub(super) fn has_ended(&self) -> bool {
        self.seats.is_empty()
    }

    /// What waits in the queue.
    pub(super) fn try_mail(&mut self) -> Option<Mail> {
        self.hands.mail.try_recv().ok()
    }

    pub(super) fn seat(&self, group: GroupId) -> Option<&Seat> {
        self.seats.get(&group)
    }

    /// Something happened.
    pub(super) fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Event(id, event) => {
                if !self.seats.contains_key(&id) {
                    self.look();
                }
                // Dropping an event answers whoever waits in it.
                let seat = self.seats.get_mut(&id).filter(|seat| !seat.group.is_stopped());
                let Some(seat) = seat else { return };
                let done = seat.group.on_event(event);
                seat.fail_on(done);
                seat.touch(&mut self.touched);
            }
            Mail::Look => self.look(),
        }
    }

    /// Takes in groups that have come.
    fn look(&mut self) {
        let mut arrivals = self.hands.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = std::mem::take(&mut *arrivals);
        drop(arrivals);
        arrived.into_iter().for_each(|seat| self.admit(seat));
    }

    /// Drives this group, too.
    pub(super) fn admit(&mut self, seat: Seat) {
        self.seats.insert(seat.id, seat);
        self.update_peers();
    }

    /// Its turn ends with the others' even if nothing happened to it.
    pub(super) fn touch(&mut self, id: GroupId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.touch(&mut self.touched);
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self) {
        for seat in self.seats.values_mut().filter(|seat| !seat.group.is_stopped()) {
            let done = seat.group.on_tick();
            seat.fail_on(done);
            seat.touch(&mut self.touched);
        }
    }

    /// Has done what the groups want done that something happened to.
    pub(super) fn end_turn(&mut self) {
        while let Some(id) = self.touched.pop() {
            let Some(seat) = self.seats.get_mut(&id) else { continue };
            seat.is_touched = false;
            if seat.group.is_stopped() {
                continue;
            }
            match seat.group.end_turn() {
                Ok(output) => self.execute(id, output),
                Err(error) => seat.group.fail(&error),
            }
        }
    }

    /// Groups that have been stopped end: whoever waits in them is told.
    fn leave_stopped(&mut self) {
        let stopped = self.seats.extract_if(.., |_, seat| seat.group.is_stopped());
        let stopped: Vec<GroupId> = stopped.map(|(id, _)| id).collect();
        if stopped.is_empty() {
            return;
        }
        // Peers hear nothing of the end of the last one but that nobody answers any more.
        if !self.seats.is_empty() {
            stopped.into_iter().for_each(|id| self.hands.places.remove(id));
            self.update_peers();
        }
    }

    fn execute(&mut self, id: GroupId, output: Output) {
        if let Some(peers) = output.peers {
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.peers = peers;
            }
            self.update_peers();
        }
        for (from, why) in output.nonsense {
            self.hands.transport.disconnect(from, &why);
        }
        if !output.messages.is_empty() {
            self.hands.transport.send(output.messages);
        }
        for write in output.writes {
            let bytes = |entry: &LogEntry| entry.cost_bytes();
            let bytes = write.write.entries.iter().map(bytes).sum::<u64>();
            self.written_bytes += bytes;
            self.hands.metrics.log_waiting_bytes.add(bytes);
            // A writer that has ended has stopped the node.
            let _ = self.hands.writer.send((id, write));
        }
        for read in output.log_reads {
            // A reader that has ended has stopped the node.
            let _ = self.hands.reader.send((id, read));
        }
        if let Some(seat) = self.seats.get(&id) {
            for job in output.jobs {
                // An apply thread that has ended has stopped its group.
                let _ = seat.jobs.send(job);
            }
        }
    }

    /// The node talks to whom any of its groups talks to.
    fn update_peers(&self) {
        let mut peers = BTreeMap::new();
        for seat in self.seats.values() {
            peers.extend(seat.peers.iter().map(|(id, member)| (*id, member.clone())));
        }
        self.hands.transport.set_peers(peers);
    }
}

impl Seat {
    fn touch(&mut self, touched: &mut Vec<GroupId>) {
        if !std::mem::replace(&mut self.is_touched, true) {
            touched.push(self.id);
        }
    }

    fn fail_on(&self, done: Result<(), ReplicaError>) {
        if let Err(error) = done {
            self.group.fail(&error);
        }
    }
}
