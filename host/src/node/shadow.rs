//! A shadow of this node: another module that executes what the machine does, on a thread of its own, and the queue
//! between the two.
//!
//! ```text
//!   apply thread ─ state ─ 42 ─ 43 ─ 44 ─… state   puts in each entry with its answers, or ends it; waits for nothing
//!   shadow           └ snapshot, restore ─ 42 ─ …  takes out, executes, compares; asks queries of the last state
//! ```
//!
//! It is of this node only: nothing of it is replicated, and it decides nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::fsm::{HostFailure, SharedLoader, loader_beside};
use crate::machine::MachineSnapshot;
use crate::node::metrics::NodeMetrics;
use crate::rehearsal::{Answered, Begun, ByKind, RehearsalError, Report, Shadow};
use crate::text::human_bytes;
use crate::types::Index;

/// What may wait for a shadow: as much as some seconds of a busy node, which it takes for a module to take a
/// large state over.
pub(super) const WAITING_MAX: Room = Room { bytes: 128 << 20, commands: 500_000 };

/// Longest time that one runs for.
pub const SHADOW_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Why a shadow came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShadowEnd {
    /// Its time was over.
    Elapsed,
    /// The module does not take the state over; the report says why.
    NotTakenOver,
    /// Another activation took place at this index.
    Activated(Index),
    /// Other rules decide from this index on how commands end.
    RulesChanged(Index),
    /// A snapshot of the leader, as of this index, replaced the state.
    Installed(Index),
    /// So much waited for it.
    Behind(Room),
    /// So many bytes of memory are left on this node.
    Short(u64),
    /// This node's own state is not trusted any more, and why.
    Doubted(String),
}

impl ShadowEnd {
    /// It ended as it was to.
    pub fn is_complete(&self) -> bool {
        *self == ShadowEnd::Elapsed
    }
}

impl fmt::Display for ShadowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShadowEnd::Elapsed => write!(f, "its time was over"),
            ShadowEnd::NotTakenOver => write!(f, "the module does not take the state over"),
            ShadowEnd::Activated(index) => write!(
                f,
                "another activation took place at index {index}, so what it was compared with is not active \
                 any more"
            ),
            ShadowEnd::RulesChanged(index) => write!(
                f,
                "limits or the engine profile changed at index {index}: commands may end otherwise from there on"
            ),
            ShadowEnd::Installed(index) => write!(
                f,
                "a snapshot of the leader took the place of this node's state, as of index {index}"
            ),
            ShadowEnd::Behind(Room { bytes, commands }) => write!(
                f,
                "it could not keep up: {commands} commands ({}) waited for it; shadow when there is less to do, \
                 or on a node with more processors (--on)",
                human_bytes(*bytes)
            ),
            ShadowEnd::Short(available) => write!(
                f,
                "this node has {} of memory left: give it more, or shadow on another one (--on)",
                human_bytes(*available)
            ),
            ShadowEnd::Doubted(why) => write!(f, "{why}"),
        }
    }
}

/// How much waits, or may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// In bytes.
    pub bytes: u64,
    /// Commands, and entries that hold none.
    pub commands: u64,
}

/// What both ends of the queue know.
#[derive(Debug, Default)]
struct Line {
    bytes: AtomicU64,
    commands: AtomicU64,
    ended: OnceLock<ShadowEnd>,
}

impl Line {
    fn waiting(&self) -> Room {
        let (bytes, commands) = (&self.bytes, &self.commands);
        Room { bytes: bytes.load(Ordering::Acquire), commands: commands.load(Ordering::Acquire) }
    }
}

/// What a shadow is shown.
enum Shown {
    Entry(Answered),
    /// The state behind all entries, for queries; it shares what the machine has not changed since.
    Last(Box<MachineSnapshot>),
}

/// The end of the queue that the machine has.
pub(super) struct ShadowFeed {
    queue: Sender<Shown>,
    line: Arc<Line>,
    max: Room,
}

impl ShadowFeed {
    /// A queue in which there may be so much.
    pub(super) fn new(max: Room) -> (ShadowFeed, ShadowSource) {
        let ((queue, receiver), line) = (mpsc::channel(), Arc::new(Line::default()));
        let source = ShadowSource { queue: receiver, line: Arc::clone(&line) };
        (ShadowFeed { queue, line, max }, source)
    }

    /// Whether nobody takes anything any more.
    pub(super) fn has_ended(&self) -> bool {
        self.line.ended.get().is_some()
    }

    /// Whether so much more has room; if not, that is its end.
    pub(super) fn has_room(&self, more: Room) -> bool {
        let Room { bytes, commands } = self.line.waiting();
        let all = Room { bytes: bytes + more.bytes, commands: commands + more.commands };
        let fits = all.bytes <= self.max.bytes && all.commands <= self.max.commands;
        if !fits {
            self.end(ShadowEnd::Behind(all));
        }
        fits
    }

    /// Puts an entry in. `false`: it has ended, and why is known to whoever takes.
    pub(super) fn put(&self, answered: Answered) -> bool {
        let more = room_of(&answered);
        if self.has_ended() || !self.has_room(more) {
            return false;
        }
        self.line.bytes.fetch_add(more.bytes, Ordering::AcqRel);
        self.line.commands.fetch_add(more.commands, Ordering::AcqRel);
        self.queue.send(Shown::Entry(answered)).is_ok()
    }

    /// Its time is over, and this is the machine's state then.
    pub(super) fn conclude(&self, state: MachineSnapshot) {
        // Whoever has gone asks nothing. Before its end, so that it is found there.
        let _ = self.queue.send(Shown::Last(Box::new(state)));
        self.end(ShadowEnd::Elapsed);
    }

    /// Nothing more comes. The first reason counts.
    pub(super) fn end(&self, why: ShadowEnd) {
        let _ = self.line.ended.set(why);
    }
}

fn room_of(answered: &Answered) -> Room {
    let commands = answered.answers.len().max(1) as u64;
    Room { bytes: answered.cost_bytes(), commands }
}

/// The other end.
pub(super) struct ShadowSource {
    queue: Receiver<Shown>,
    line: Arc<Line>,
}

impl ShadowSource {
    /// Why nothing more comes.
    pub(super) fn end(&self) -> Option<ShadowEnd> {
        self.line.ended.get().cloned()
    }
}

/// A state, and what comes after it.
pub(super) struct ShadowStart {
    pub(super) state: MachineSnapshot,
    pub(super) source: ShadowSource,
    pub(super) loader: SharedLoader,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// How far a shadow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowStatus {
    /// The module has taken over.
    pub is_running: bool,
    /// The last entry that it has executed.
    pub index: Index,
    /// Commands that were compared.
    pub commands: u64,
    /// Differences that were found, but for those that show at the end.
    pub differences: u64,
    /// Commands that wait for it.
    pub waiting: u64,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It has executed an entry, or asked.
    Did,
    /// There was none.
    Idle,
    /// There will be none.
    Ended,
}

/// A module that runs beside the machine.
pub(super) struct Shadowing {
    shadow: Box<Shadow>,
    source: ShadowSource,
    loader: SharedLoader,
    metrics: Arc<NodeMetrics>,
    counted: (u64, ByKind),
    /// For the end.
    queries: Vec<Bytes>,
}

impl Shadowing {
    /// Has the module take over; if it does not, the report says why.
    ///
    /// # Errors
    /// See [`Shadow::begin`].
    pub(super) fn begin(
        start: ShadowStart,
        module: (&Bytes, &str),
        stopwatch: &dyn Fn() -> Duration,
    ) -> Result<Result<Shadowing, Report>, RehearsalError> {
        let ShadowStart { state, source, loader, metrics } = start;
        let loader = loader_beside(&loader);
        let mut shadowing = match Shadow::begin(state, &loader, module, stopwatch)? {
            Begun::Running(shadow) => {
                let (counted, queries) = Default::default();
                Shadowing { shadow, source, loader, metrics, counted, queries }
            }
            Begun::Refused(report) => {
                metrics.on_shadow_differences(ByKind::default(), by_kind(&report));
                return Ok(Err(*report));
            }
        };
        shadowing.count();
        Ok(Ok(shadowing))
    }

    /// Has these asked of both modules at the end, in the state that [`ShadowFeed::conclude`] is given.
    pub(super) fn ask_at_the_end(&mut self, queries: Vec<Bytes>) {
        self.queries = queries;
    }

    pub(super) fn status(&self) -> ShadowStatus {
        ShadowStatus {
            is_running: true,
            index: self.shadow.applied_index(),
            commands: self.shadow.commands(),
            differences: self.shadow.differences().iter().sum(),
            waiting: self.source.line.waiting().commands,
        }
    }

    /// Executes the next entry, or asks the queries, if there is anything within so much time.
    ///
    /// # Errors
    /// [`HostFailure`]: of this host; it is over.
    pub(super) fn step(&mut self, patience: Duration) -> Result<Step, HostFailure> {
        let line = &self.source.line;
        if let Some(ShadowEnd::Behind(_)) = line.ended.get() {
            // What waits would keep it busy for long, and says nothing of the module.
            return Ok(Step::Ended);
        }
        let answered = match self.source.queue.recv_timeout(patience) {
            Ok(Shown::Entry(answered)) => answered,
            Ok(Shown::Last(state)) => {
                self.shadow.ask(*state, &self.loader, &self.queries)?;
                self.count();
                return Ok(Step::Did);
            }
            Err(RecvTimeoutError::Timeout) if line.ended.get().is_none() => return Ok(Step::Idle),
            Err(_) => return Ok(Step::Ended),
        };
        let Room { bytes, commands } = room_of(&answered);
        let done = self.shadow.take(answered);
        line.bytes.fetch_sub(bytes, Ordering::AcqRel);
        line.commands.fetch_sub(commands, Ordering::AcqRel);
        done?;
        self.count();
        Ok(Step::Did)
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.source.end().is_some()
    }

    /// Nobody needs it any longer, for this reason. What waits until now is still executed.
    pub(super) fn end(&self, why: ShadowEnd) {
        let _ = self.source.line.ended.set(why);
    }

    /// What it found, and why it ended; `None`: nothing is known of that, since the machine is gone.
    ///
    /// # Errors
    /// [`HostFailure`]: there is no report.
    pub(super) fn finish(mut self) -> Result<Option<(Report, ShadowEnd)>, HostFailure> {
        let Some(end) = self.source.end() else { return Ok(None) };
        let in_full = match &end {
            ShadowEnd::Short(_) => Err(end.to_string()),
            _ => Ok(()),
        };
        self.count();
        let Shadowing { shadow, metrics, counted: (_, before), .. } = self;
        let report = shadow.finish(in_full)?;
        metrics.on_shadow_differences(before, by_kind(&report));
        Ok(Some((report, end)))
    }

    fn count(&mut self) {
        let now = (self.shadow.commands(), self.shadow.differences());
        self.metrics.shadow_commands.add(now.0 - self.counted.0);
        self.metrics.on_shadow_differences(self.counted.1, now.1);
        self.metrics.shadow_waiting.set(self.source.line.waiting().commands);
        self.counted = now;
    }
}

fn by_kind(report: &Report) -> ByKind {
    let mut found = ByKind::default();
    for count in &report.counts {
        found[count.kind as usize] += count.count;
    }
    found
}
