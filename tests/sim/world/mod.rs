//! The world that a run happens in: hosts, network, clients, operators, and the time.
//!
//! ```text
//!   queue ─► event ─► a step of a node ─┬─► messages ─► network ─► queue
//!     ▲                (real code)      ├─► facts ─► invariants
//!     └── what the step made due ◄──────┴─► answers ─► clients, operators
//! ```
//!
//! All is on one thread, and all that is random comes from the seed, so a run is a function
//! of its plan.

mod backups;
mod clients;
mod clocks;
mod delivery;
mod directories;
mod faults;
mod finish;
mod flips;
mod newcomers;
mod operators;
mod programs;
mod publishers;
mod recoveries;
mod rehearsals;
mod rights;
mod rounds;
mod shadows;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft_host::fsm::SharedLoader;
use raft_host::types::{ClusterId, ConfState, Index, Level, Member, NodeId, PeerMessage};

use self::clients::Client;
pub(super) use self::clients::Tally;
use self::delivery::Parcel;
pub(super) use self::delivery::store_snapshot;
pub(super) use self::directories::is_of_directory;
use self::operators::{Superseded, Task};
pub(super) use self::programs::NEXT;
pub(super) use self::steps::panic_words;
use super::guest::{self, Guest};
use super::host::{Host, State};
use super::invariants::{self, Invariant, Violation};
use super::network::{Link, Network};
use super::observe::{Bounds, Fact, Micros, Phase, Slot};
use super::plan::{Boundary, Plan};
use super::queue::Queue;
use super::random::Random;
use super::summary::Counters;
use super::trace::{Trace, View, Who};
use super::witness::{Early, Notes};
use crate::history::Operation;

/// What is scheduled. Steps of a node name its life: they are void in the next one.
enum Event {
    Tick(Slot, u64),
    Turn(Slot, u64),
    WriteDone(Slot, u64),
    Apply(Slot, u64),
    Save(Slot, u64),
    Shadow(Slot, u64),
    Purge(Slot, u64),
    ReadLog(Slot, u64),
    /// A doom that found no moment comes now.
    Doom(Slot, u64),
    Start(Slot),
    Deliver(Box<Parcel>),
    Mend(Mend),
    Action(usize),
    ClientWake(usize, u64),
    ClientAsks(usize, u64),
    ClientHears(usize, u64, Box<super::calls::Answered>),
    ClientTimeout(usize, u64),
    ClientRetry(usize, u64),
    /// An operator goes on with a task after that attempt.
    TaskWake(u64, u64),
    /// A node begins to rehearse, for that attempt of an operator.
    Rehearse(Slot, u64, u64, u64),
    Survey,
}

/// The end of a fault that lasts for a while.
enum Mend {
    Links(Vec<Link>),
    Speed(Link, u64),
    Weather(u64),
    Disk(Slot),
    Space(Slot),
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The cluster is formed and grows.
    Growing,
    /// Things go wrong.
    Faults,
    /// Everything is mended; clients go on until each had an answer.
    Calm,
    /// Clients have stopped; the members catch up.
    Settling,
}

/// How a run ended.
pub struct Report {
    /// What is wrong, if anything is.
    pub violation: Option<Violation>,
    /// What happened, in numbers.
    pub counters: Counters,
    /// Over all events.
    pub trace_hash: String,
    /// The last events, if they were kept.
    pub trace: String,
}

/// See the module.
pub struct World {
    plan: Arc<Plan>,
    guest: &'static dyn Guest,
    loader: SharedLoader,
    cluster: ClusterId,
    queue: Queue<Event>,
    hosts: Vec<Host>,
    by_node: BTreeMap<NodeId, Slot>,
    network: Network,
    clients: Vec<Client>,
    tasks: BTreeMap<u64, Task>,
    /// The highest level that anybody has applied.
    level: Level,
    /// Members that somebody wanted to remove.
    doubtful: BTreeSet<Slot>,
    next_task: u64,
    next_number: u64,
    stage: Stage,
    stage_since: Micros,
    /// Times of steps.
    scheduler: Random,
    /// Times of reads of logs.
    log_reads: Random,
    disk_random: Random,
    /// When the power goes while a data directory is opened.
    cuts: Random,
    /// Times of rehearsals.
    rounds: Random,
    notes: Notes,
    early: Early,
    /// The configuration at the highest index that anybody has applied.
    conf_state: ConfState,
    conf_index: Index,
    /// Voters before, as long as they may count again after a crash. Oldest first.
    superseded: Vec<Superseded>,
    /// Highest index that a client was told of.
    acknowledged: Index,
    history: Vec<Operation>,
    probes: Vec<finish::Probe>,
    flips: flips::Flips,
    tokens: rights::Tokens,
    newcomers: newcomers::Newcomers,
    backups: backups::Backups,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    counters: Counters,
    trace: Trace,
    is_done: bool,
    /// When everything was mended.
    mended: Option<Micros>,
    /// Until when something other than a hung disk was, or is planned to be, wrong.
    disturbed_until: Micros,
}

/// No run takes longer, in virtual time: growing, faults, and the bound for progress.
const LONGEST_US: u64 = 600_000_000;

/// No entry counts less for the bounds of a log.
const MIN_ENTRY_BYTES: u64 = 32;

/// Nor does it need more events, unless something goes round in circles.
const MOST_EVENTS: u64 = 5_000_000;

impl World {
    /// A world in which the plan's first node is about to form the cluster.
    pub fn new(plan: Arc<Plan>, loader: SharedLoader, keeps_trace: bool) -> World {
        let seed = plan.seed;
        let guest = guest::by_name(plan.shape.guest).expect("plans name guests that exist");
        let mut id = [0; 16];
        id[..8].copy_from_slice(&seed.to_le_bytes());
        id[15] = 1;
        World {
            guest,
            loader,
            cluster: ClusterId(id),
            queue: Queue::default(),
            hosts: Vec::new(),
            by_node: BTreeMap::new(),
            network: Network::new(seed, plan.shape.network, plan.shape.link),
            clients: Vec::new(),
            tasks: BTreeMap::new(),
            level: Level::CURRENT,
            doubtful: BTreeSet::new(),
            next_task: 0,
            next_number: 0,
            stage: Stage::Growing,
            stage_since: Micros(0),
            scheduler: Random::stream(seed, "scheduler", 0),
            log_reads: Random::stream(seed, "log-reads", 0),
            disk_random: Random::stream(seed, "disk", 0),
            cuts: Random::stream(seed, "cuts", 0),
            rounds: Random::stream(seed, "rounds", 0),
            notes: Notes::default(),
            early: Early::default(),
            conf_state: ConfState::default(),
            conf_index: Index(0),
            superseded: Vec::new(),
            acknowledged: Index(0),
            history: Vec::new(),
            probes: Vec::new(),
            flips: flips::Flips::default(),
            tokens: rights::Tokens::default(),
            newcomers: newcomers::Newcomers::default(),
            backups: backups::Backups::default(),
            invariants: invariants::all(guest),
            violation: None,
            counters: Counters::default(),
            trace: Trace::new(keeps_trace),
            is_done: false,
            mended: None,
            disturbed_until: Micros(0),
            plan,
        }
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self, view: Option<&View>) -> Report {
        self.fact(&Fact::Formed { cluster: self.cluster });
        self.form();
        let mut events = 0;
        while self.violation.is_none() && !self.is_done {
            let Some(event) = self.queue.take() else { break };
            if self.queue.now().0 > LONGEST_US {
                let what = format!("the run does not end: it is {:?}", self.stage);
                self.violate("progress", what);
                break;
            }
            events += 1;
            if events > MOST_EVENTS {
                let what = format!("the run does not end: {events} events, {:?}", self.stage);
                self.violate("progress", what);
                break;
            }
            self.handle(event);
        }
        self.counters.simulated_us = self.queue.now().0;
        self.counters.runs = 1;
        self.counters.trace_lines = self.trace.count();
        for host in &self.hosts {
            self.counters.add_disk(&host.disk);
        }
        Report {
            violation: self.violation,
            counters: self.counters,
            trace_hash: self.trace.hash(),
            trace: view.map_or_else(String::new, |view| self.trace.render(view)),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(slot, life) => self.step(slot, life, event, World::tick),
            Event::Turn(slot, life) => self.step(slot, life, event, World::turn),
            Event::WriteDone(slot, life) => self.step(slot, life, event, World::write_done),
            Event::Apply(slot, life) => self.step(slot, life, event, World::apply),
            Event::Save(slot, life) => self.step(slot, life, event, World::save),
            Event::Shadow(slot, life) => self.step(slot, life, event, World::shadow),
            Event::Purge(slot, life) => self.step(slot, life, event, World::purge),
            Event::ReadLog(slot, life) => self.step(slot, life, event, World::read_log),
            Event::Rehearse(slot, life, task, attempt) => {
                self.rehearsal_begins(slot, life, (task, attempt));
            }
            Event::Doom(slot, life) => {
                if self.hosts[slot.0].life == life && self.hosts[slot.0].doom.is_some() {
                    self.die(slot);
                }
            }
            Event::Start(slot) => self.start(slot),
            Event::Deliver(parcel) => self.deliver(*parcel),
            Event::Mend(mend) => self.mend(mend),
            Event::Action(at) => self.act(at),
            Event::ClientWake(client, number) => self.client_wakes(client, number),
            Event::ClientAsks(client, attempt) => self.client_asks(client, attempt),
            Event::ClientHears(client, attempt, answer) => {
                self.client_hears(client, attempt, *answer);
            }
            Event::ClientTimeout(client, attempt) => self.client_times_out(client, attempt),
            Event::ClientRetry(client, attempt) => self.client_retries(client, attempt),
            Event::TaskWake(task, attempt) => self.task_wakes(task, attempt),
            Event::Survey => self.survey(),
        }
    }

    fn now(&self) -> Micros {
        self.queue.now()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn violate(&mut self, invariant: &'static str, what: String) {
        let at = self.now();
        self.trace.line(at, Who::World, format_args!("VIOLATION of {invariant}: {what}"));
        self.violation.get_or_insert(Violation { invariant, what, at });
    }

    /// Shows a fact to all invariants.
    fn fact(&mut self, fact: &Fact<'_>) {
        let now = self.queue.now();
        let mut found = None;
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.observe(now, fact) {
                found.get_or_insert((invariant.name(), what));
            }
        }
        if let Some((invariant, what)) = found {
            self.violate(invariant, what);
        }
    }

    fn phase(&self) -> Phase {
        match self.stage {
            Stage::Growing | Stage::Faults => Phase::Faults,
            Stage::Calm | Stage::Settling => Phase::Calm,
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.stage_since = self.now();
        let now = self.now();
        self.trace.line(now, Who::World, format_args!("{stage:?}"));
    }

    /// Slots of hosts whose node is, or is to be, a member.
    fn living(&self) -> Vec<Slot> {
        let lives = |host: &&Host| matches!(host.state, State::Up(_) | State::Down);
        self.hosts.iter().filter(lives).map(|host| host.slot).collect()
    }

    fn bounds(&self) -> Bounds {
        let shape = &self.plan.shape;
        // What a leader keeps for a peer that needs it, and the distance of what it measures by.
        let held_bytes = shape.consensus.held_bytes + shape.consensus.held_bytes / 8;
        let recent_bytes = match shape.consensus.trailing_ms {
            0 => 0,
            _ => shape.consensus.trailing_bytes + shape.consensus.trailing_bytes / 8,
        };
        let kept_bytes = held_bytes.max(recent_bytes);
        let trailing_logs = shape.consensus.trailing_logs + kept_bytes / MIN_ENTRY_BYTES + 1;
        Bounds {
            log_entries: shape.node.snapshot.threshold + trailing_logs,
            growth_percent: shape.node.snapshot.growth_percent,
            trailing_logs,
            snapshots: shape.node.snapshot.keep,
            log_file_bytes: shape.storage.log_file_bytes,
            uncommitted_bytes: shape.consensus.max_uncommitted_bytes,
            unapplied_bytes: shape.consensus.max_unapplied_bytes
                + shape.consensus.max_append_bytes.max(shape.largest_entry_bytes()),
            election: Micros(shape.node.election_ms * 2_000),
        }
    }
}

/// A message with the content of the snapshot that it is about.
struct Message {
    message: PeerMessage,
    /// Where its receiver was dialled.
    address: String,
    content: Option<Vec<u8>>,
    /// The snapshot carries a flipped bit.
    is_bad: bool,
}

/// Introduces a host to its peers.
fn member(host: &Host) -> Member {
    Member { id: host.node, address: host.address.clone() }
}

/// How many disk operations after which a doomed node dies, if it dies in the middle of one.
fn operations(when: Boundary) -> Option<u64> {
    match when {
        Boundary::InWrite(operations)
        | Boundary::InSave(operations)
        | Boundary::InPurge(operations) => Some(operations),
        Boundary::Now | Boundary::AfterWrite | Boundary::AfterApply => None,
    }
}
