//! A host of the simulated cluster: a disk, a clock, and the node that runs on it, if one does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use raft_host::consensus::Role;
use raft_host::node::{DigestStatus, NodeInbox, SteppedNode, SteppedShadow};
use raft_host::server::Home;
use raft_host::storage::GroupWrite;
use raft_host::transport::Transport;
use raft_host::types::{
    GroupId, Index, Level, LogPosition, Member, NodeId, PeerMessage, Space, Term,
};
use rand_chacha::ChaCha8Rng;

use super::calls::Call;
use super::disk::{Crash, DiskEvent, Fault, SimDisk};
use super::observe::{Citizen, LogView, Micros, Slot};
use super::plan::Boundary;
use super::random::Random;

/// What a node gave its transport to send.
#[derive(Default)]
pub(super) struct Outbox {
    /// In the order of sending.
    pub messages: Vec<PeerMessage>,
    /// Whom it may send to.
    pub peers: BTreeMap<NodeId, Member>,
    /// Whose messages made no sense to it, and why.
    pub accused: Vec<(NodeId, String)>,
}

/// A transport that keeps what it is given until the world takes it.
#[derive(Clone, Default)]
pub(super) struct SimTransport(Arc<Mutex<Outbox>>);

impl SimTransport {
    /// The outbox.
    pub(super) fn outbox(&self) -> std::sync::MutexGuard<'_, Outbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for SimTransport {
    fn set_peers(&self, peers: BTreeMap<NodeId, Member>) {
        self.outbox().peers = peers;
    }

    fn send(&self, messages: Vec<PeerMessage>) {
        self.outbox().messages.extend(messages);
    }

    fn disconnect(&self, peer: NodeId, why: &str) {
        self.outbox().accused.push((peer, why.to_owned()));
    }
}

/// A node that runs.
pub(super) struct Running {
    /// Its loops.
    pub node: SteppedNode,
    /// Where messages are delivered.
    pub inbox: Arc<NodeInbox>,
    /// Where messages come from.
    pub transport: SimTransport,
    /// Requests that wait for it.
    pub calls: Vec<Call>,
    /// A turn, a job, a snapshot, a purge, a read of the log is scheduled.
    pub scheduled: Scheduled,
    /// The batch being written.
    pub writing: Option<GroupWrite>,
    /// When it was begun.
    pub writing_since: Micros,
    /// How it was seen to compare with its cluster.
    pub digests: Arc<DigestStatus>,
    /// Peers that have introduced themselves since this node started.
    pub introduced: Vec<Slot>,
    /// The module in the shadow of its machine.
    pub shadow: Option<Shadowing>,
    /// Its data directory, which nobody else has meanwhile.
    pub home: Home,
    /// Its start has something left to do.
    pub is_settling: bool,
}

impl Running {
    /// One that has just started.
    pub(super) fn new(
        node: SteppedNode,
        inbox: Arc<NodeInbox>,
        transport: SimTransport,
        home: Home,
    ) -> Running {
        Running {
            node,
            inbox,
            transport,
            calls: Vec::new(),
            scheduled: Scheduled::default(),
            writing: None,
            writing_since: Micros(0),
            digests: Arc::default(),
            introduced: Vec::new(),
            shadow: None,
            home,
            is_settling: true,
        }
    }
}

/// A module that runs in the shadow of a node's machine, or is to.
pub(super) struct Shadowing {
    pub module: Bytes,
    pub for_us: u64,
    /// And when it ends.
    pub running: Option<(SteppedShadow, Micros)>,
    pub random: Random,
}

/// Which steps of a node wait for their time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scheduled {
    pub turn: bool,
    pub apply: bool,
    pub save: bool,
    pub purge: bool,
    pub read: bool,
}

/// What a host is doing.
pub(super) enum State {
    /// A node runs.
    Up(Box<Running>),
    /// Killed; somebody will start it again.
    Down,
    /// Its disk is damaged and was refused; it is to be replaced.
    Broken,
    /// Its node was removed from the cluster, or it never became a member.
    Retired,
}

/// A node's clock: real time with an offset and a drift.
pub(super) struct Clock {
    offset_ms: i64,
    drift_ppm: i64,
    /// When it was put back, and how far ahead of now it would be otherwise, in milliseconds.
    put_back: Vec<(Micros, i64)>,
    /// What the node reads; set before each of its steps.
    reading_ms: Arc<AtomicU64>,
    /// Its monotonic time, which drifts and never jumps, when it was looked at last, and when.
    steady_us: (Micros, u64),
    /// What the node reads of it.
    steady_reading: Arc<AtomicU64>,
}

/// Wall-clock time at the start of every run, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

impl Clock {
    fn new() -> Clock {
        Clock {
            offset_ms: 0,
            drift_ppm: 0,
            put_back: Vec::new(),
            reading_ms: Arc::default(),
            steady_us: (Micros(0), 0),
            steady_reading: Arc::default(),
        }
    }

    /// Moves it.
    pub(super) fn jump(&mut self, now: Micros, by_ms: i64) {
        self.offset_ms += by_ms;
        if by_ms < 0 {
            self.put_back.push((now, 0));
        }
        for (_, ahead_ms) in &mut self.put_back {
            *ahead_ms -= by_ms;
        }
    }

    /// Lets it run fast or slow.
    pub(super) fn drift(&mut self, now: Micros, ppm: i64) {
        // It goes on from where it is.
        let before = self.read(now);
        self.steady_us = (now, self.steady(now));
        self.drift_ppm = ppm;
        self.offset_ms += before - self.read(now);
    }

    fn steady(&self, now: Micros) -> u64 {
        let (then, reading) = self.steady_us;
        let passed = (now.0 - then.0) as i64;
        reading + (passed + passed * self.drift_ppm / 1_000_000).max(0) as u64
    }

    /// What it shows, in milliseconds since the Unix epoch.
    pub(super) fn reading_ms(&self, now: Micros) -> u64 {
        self.read(now).max(0) as u64
    }

    /// The latest time that it shows, or would if it had not been put back since.
    pub(super) fn latest_reading_ms(&self, now: Micros, since: Micros) -> u64 {
        let fresh = self.put_back.iter().filter(|(then, _)| *then >= since);
        let ahead_ms = fresh.map(|(_, ahead_ms)| *ahead_ms).max().unwrap_or(0).max(0);
        (self.read(now) + ahead_ms).max(0) as u64
    }

    fn read(&self, now: Micros) -> i64 {
        let now = now.0 as i64;
        EPOCH_MS + (now + now * self.drift_ppm / 1_000_000) / 1000 + self.offset_ms
    }

    /// Sets what the node reads.
    pub(super) fn set(&self, now: Micros) -> u64 {
        let reading = self.reading_ms(now);
        self.reading_ms.store(reading, Ordering::Relaxed);
        self.steady_reading.store(self.steady(now), Ordering::Relaxed);
        reading
    }

    /// For the node's environment.
    pub(super) fn reader(&self) -> raft_host::node::WallClock {
        let reading = Arc::clone(&self.reading_ms);
        Arc::new(move || reading.load(Ordering::Relaxed))
    }

    /// For the node's environment.
    pub(super) fn steady_reader(&self) -> raft_host::node::MonotonicClock {
        let reading = Arc::clone(&self.steady_reading);
        Arc::new(move || std::time::Duration::from_micros(reading.load(Ordering::Relaxed)))
    }

    /// How long a tick of this clock takes.
    pub(super) fn tick(&self, nominal_us: u64) -> u64 {
        (nominal_us as i64 * 1_000_000 / (1_000_000 + self.drift_ppm)).max(1) as u64
    }
}

/// A death that waits for its moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doom {
    /// The moment.
    pub when: Boundary,
    /// What dies.
    pub power_loss: bool,
    /// Until the restart.
    pub down_us: u64,
}

/// See the module.
pub(super) struct Host {
    /// Its number.
    pub slot: Slot,
    /// Of its node.
    pub node: NodeId,
    /// Of its node.
    pub address: String,
    /// Survives crashes.
    pub disk: SimDisk,
    /// Whose data directory is on it, once it is somebody's.
    pub owner: Option<Citizen>,
    /// Survives crashes.
    pub clock: Clock,
    /// What it does.
    pub state: State,
    /// Counts starts, so that what was scheduled for an earlier life is recognised.
    pub life: u64,
    /// The level that the program offers which it runs, or is to run.
    pub program: Level,
    /// Members that it was told when it joined.
    pub introduced: Vec<Member>,
    /// Its process is stopped until then.
    pub paused_until: Micros,
    /// No fsync ends before.
    pub stalled_until: Micros,
    /// Its machine is at a long job until then.
    pub machine_stalled_until: Micros,
    /// Since when, if it lasts.
    pub stalled_since: Micros,
    /// Time of an fsync until a moment.
    pub slow_disk: (Micros, u64),
    /// How much room its disk has left, as its node is to see it, in bytes, and until when.
    pub space: (Space, u64, Micros),
    /// It dies at a certain moment.
    pub doom: Option<Doom>,
    /// How long to stay down, if it stops by itself as a consequence of a fault.
    pub down_us: u64,
    /// What its disk holds is not what was written, which may make it stop, or refuse to start.
    pub tampered: Option<String>,
    /// Its disk acknowledges what it does not do, or is about to.
    pub is_lying: bool,
    /// Its disk lied, and then lost power: nobody could notice all that this may have done.
    pub is_untrustworthy: bool,
    /// Role and term when they were looked at last.
    pub last_role: Option<(Role, Term)>,
}

impl Host {
    /// A host with an empty disk.
    pub(super) fn new(slot: Slot, node: NodeId, address: String, disk: SimDisk) -> Host {
        Host {
            slot,
            node,
            address,
            disk,
            owner: None,
            clock: Clock::new(),
            state: State::Down,
            life: 0,
            program: Level::CURRENT,
            introduced: Vec::new(),
            paused_until: Micros(0),
            stalled_until: Micros(0),
            machine_stalled_until: Micros(0),
            stalled_since: Micros(0),
            slow_disk: (Micros(0), 0),
            space: (Space::Ample, u64::MAX, Micros(0)),
            doom: None,
            down_us: 1_000_000,
            tampered: None,
            is_lying: false,
            is_untrustworthy: false,
            last_role: None,
        }
    }

    /// The node, if it runs.
    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Up(running) => Some(running),
            _ => None,
        }
    }

    /// The node, if it runs.
    pub(super) fn node(&self) -> Option<&SteppedNode> {
        match &self.state {
            State::Up(running) => Some(&running.node),
            _ => None,
        }
    }

    /// Whether a node runs.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether something is wrong with its disk that explains that it stops, or does not start. What strikes once,
    /// as a sync that fails, explains what comes of the step in which it did, and nothing later.
    pub(super) fn is_excused(&self) -> bool {
        self.tampered.is_some() || self.is_lying || self.disk.is_bounded()
    }

    /// Takes in what its disk did, for the trace. Whether that explains that the node stops now.
    pub(super) fn take_disk_events(&mut self, mut show: impl FnMut(&DiskEvent)) -> bool {
        let mut has_struck = false;
        for event in self.disk.take_events() {
            show(&event);
            match event.fault {
                Fault::LostWrite | Fault::MisdirectedWrite | Fault::BitRot => {
                    self.tampered.get_or_insert_with(|| event.to_string());
                }
                Fault::FailedSync | Fault::FullDisk | Fault::Death => has_struck = true,
                Fault::Kill | Fault::PowerLoss => {}
            }
        }
        has_struck
    }

    /// Its disk works again for whoever starts next. What it was about to do is forgotten.
    pub(super) fn crash_disk(&mut self, random: &mut ChaCha8Rng, crash: Crash) -> DiskEvent {
        // A lie that never came to pass.
        self.is_lying &= self.tampered.is_some();
        self.is_untrustworthy |= self.is_lying && crash == Crash::PowerLoss;
        self.disk.crash(random, crash)
    }

    /// Stops its process until then. One that stands still already goes on when both are over.
    pub(super) fn pause(&mut self, until: Micros) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Lets no job of the machine end until then, and until earlier long ones are over.
    pub(super) fn stall_machine(&mut self, until: Micros) {
        self.machine_stalled_until = self.machine_stalled_until.max(until);
    }

    /// Makes fsyncs slow until then. Of two reasons at a time the stronger and the longer count.
    pub(super) fn slow_down_disk(&mut self, now: Micros, until: Micros, fsync_us: u64) {
        let (before, earlier_us) = self.slow_disk;
        let is_slow = before > now;
        let fsync_us = if is_slow { earlier_us.max(fsync_us) } else { fsync_us };
        self.slow_disk = (before.max(until), fsync_us);
    }

    /// Whether its process is stopped for a while.
    pub(super) fn is_paused(&self, now: Micros) -> bool {
        self.paused_until > now
    }

    /// Lets no fsync end until then, and until earlier stalls are over.
    pub(super) fn stall(&mut self, now: Micros, until: Micros) {
        if self.stalled_until <= now {
            self.stalled_since = now;
        }
        self.stalled_until = self.stalled_until.max(until);
    }

    /// Since when a write of its log has waited for a disk that does not answer.
    pub(super) fn stuck_since(&self, now: Micros) -> Option<Micros> {
        let State::Up(running) = &self.state else { return None };
        let is_stuck = self.stalled_until > now && running.writing.is_some();
        is_stuck.then(|| self.stalled_since.max(running.writing_since))
    }

    /// Time that an fsync begun now takes at most, given the usual time.
    pub(super) fn fsync_us(&self, now: Micros, usual_us: u64) -> u64 {
        if self.slow_disk.0 > now { self.slow_disk.1 } else { usual_us }
    }
}

/// A node's log, for the invariants.
#[derive(Clone)]
pub(super) struct StoredLog(pub Arc<dyn raft_host::storage::LogStore>);

impl std::fmt::Debug for StoredLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredLog")
    }
}

impl LogView for StoredLog {
    fn term(&self, index: Index) -> Option<Term> {
        self.0.term(GroupId::MAIN, index).ok()
    }

    fn start(&self) -> LogPosition {
        self.0.start(GroupId::MAIN).unwrap_or_default()
    }
}

impl StoredLog {
    /// Where it ends.
    pub(super) fn last(&self) -> LogPosition {
        let index = self.0.last_index(GroupId::MAIN).unwrap_or_default();
        LogPosition { index, term: self.term(index).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::storage::{Engine, NodeIdentity, StorageConfig, WriteBatch};
    use raft_host::types::{ClusterId, HardState};
    use rand::SeedableRng as _;

    use super::*;
    use crate::sim::disk::FileKind;

    fn me() -> NodeIdentity {
        NodeIdentity { cluster: ClusterId([1; 16]), node: NodeId(1), engine: Engine::default() }
    }

    /// A short pause in a long one ended the excuse, while steps went on to wait for the long one.
    #[test]
    fn what_begins_during_a_longer_fault_does_not_end_it() {
        let disk = SimDisk::new(1).expect("a temporary directory");
        let mut host = Host::new(Slot(0), NodeId(1), "a:1".to_owned(), disk);
        host.pause(Micros(100));
        host.pause(Micros(60));
        assert!(host.is_paused(Micros(80)) && !host.is_paused(Micros(100)));
        host.stall(Micros(0), Micros(100));
        host.stall(Micros(10), Micros(60));
        assert_eq!(host.stalled_until, Micros(100));
        host.slow_down_disk(Micros(0), Micros(100), 50);
        host.slow_down_disk(Micros(10), Micros(60), 20);
        assert_eq!(host.fsync_us(Micros(80), 1), 50);
        host.slow_down_disk(Micros(200), Micros(300), 20);
        assert_eq!(host.fsync_us(Micros(250), 1), 20, "what is over counts no more");
    }

    #[test]
    fn a_fault_that_struck_excuses_nothing_that_comes_later() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let disk = SimDisk::new(1).expect("a temporary directory");
        let mut host = Host::new(Slot(0), NodeId(1), "a:1".to_owned(), disk);
        for order in [|disk: &SimDisk| disk.die_after(0), |disk: &SimDisk| disk.fail_syncs(1)] {
            order(&host.disk);
            assert!(!host.is_excused(), "nothing has come of it yet");
            assert!(host.disk.data_dir().and_then(|mut dir| dir.initialize(me())).is_err());
            assert!(host.take_disk_events(|_| {}), "it explains what comes of this");
            assert!(!host.take_disk_events(|_| {}) && !host.is_excused());
            host.crash_disk(&mut random, Crash::Kill);
            assert!(!host.is_excused());
        }
        host.disk.set_capacity(0);
        assert!(host.is_excused());
        host.disk.set_capacity(u64::MAX);
        assert!(!host.is_excused(), "there is room again");
    }

    #[test]
    fn a_disk_that_is_about_to_lie_and_dies_before_has_not_lied() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let disk = SimDisk::new(1).expect("a temporary directory");
        let mut host = Host::new(Slot(0), NodeId(1), "a:1".to_owned(), disk);
        host.disk.lose_next_write(FileKind::Append);
        host.is_lying = true;
        assert!(host.is_excused());
        host.crash_disk(&mut random, Crash::PowerLoss);
        assert!(!host.is_excused() && !host.is_untrustworthy);
        let stores = host.disk.open_as(me(), &StorageConfig::default()).expect("it starts");
        host.disk.lose_next_write(FileKind::Append);
        host.is_lying = true;
        let hard_state = HardState { term: Term(1), vote: None, commit: Index(0) };
        let write = GroupWrite { hard_state: Some(hard_state), ..GroupWrite::default() };
        let batch = WriteBatch { groups: vec![(GroupId::MAIN, write)] };
        stores.log.write(&batch).expect("as if nothing were");
        drop(stores);
        host.take_disk_events(|_| {});
        host.crash_disk(&mut random, Crash::PowerLoss);
        assert!(host.is_excused() && host.is_untrustworthy, "it has");
    }

    #[test]
    fn what_a_clock_showed_before_it_was_put_back_is_known_for_a_while() {
        let mut clock = Clock::new();
        let at = |s: u64| Micros(s * 1_000_000);
        let latest_s = |clock: &Clock, now: u64, since: u64| {
            (clock.latest_reading_ms(at(now), at(since)) as i64 - EPOCH_MS) / 1_000
        };
        clock.jump(at(1), 90_000);
        assert_eq!(latest_s(&clock, 2, 0), 92, "put forward: as it shows");
        clock.jump(at(3), -60_000);
        clock.jump(at(4), -40_000);
        assert_eq!((latest_s(&clock, 5, 0), latest_s(&clock, 5, 4)), (95, 35));
        assert_eq!(latest_s(&clock, 5, 5), -5);
        clock.jump(at(6), 200_000);
        assert_eq!(latest_s(&clock, 7, 0), 197);
    }
}
