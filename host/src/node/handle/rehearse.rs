//! Trying a module on what this node retains of the group's history, beside everything else that it does.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::beside::{REST_BYTES, RehearsalFailure, beside, fits, snapshot_bytes, successor_bytes};
use super::core::NodeHandle;
use super::trial_board::{TrialBoard, Trying};
use crate::fsm::{Limits, SharedLoader, loader_beside, pause};
use crate::machine::{Executed, Machine, MachineSnapshot, RewindPreview, Way};
use crate::museum::{self, Exhibit};
use crate::node::answer::MachineView;
use crate::node::apply::{LoadError, restore};
use crate::node::courtesy::{Courtesy, System};
use crate::node::message::{Event, EventSender};
use crate::node::metrics::NodeMetrics;
use crate::node::stop::StopSignal;
use crate::rehearsal::{
    self, Entries, Floor, Plan, Progress, RehearsalError, Report, RetainedLog, Wanted,
};
use crate::storage::{SnapshotMeta, StorageError, Stores};
use crate::types::{ClusterId, GroupId, Index, LogEntry, ModuleHash, Outcome};

/// What a rehearsal found, and how long that took here.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    /// The same on every node.
    pub report: Report,
    /// All of it.
    pub elapsed: Duration,
}

/// What going back to the module before would change.
#[derive(Clone, Debug)]
pub struct RewindTrial {
    /// What it would do.
    pub preview: RewindPreview,
    /// The first commands that would end otherwise, and how.
    pub differences: Vec<(Executed, Outcome)>,
    /// All of them.
    pub differing: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Entries after the base are kept in memory if they take no more, of [`REST_BYTES`]: the log goes on without them then.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Commands that a trial of the way back tells of.
const TOLD_MAX: usize = 1_000;

/// What a rehearsal needs of the node.
struct Parts {
    stores: Stores,
    cluster: ClusterId,
    group: GroupId,
    loader: SharedLoader,
    events: EventSender,
    board: TrialBoard,
    metrics: Arc<NodeMetrics>,
    stop: StopSignal,
}

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// A module that the group holds.
    pub module: ModuleHash,
    /// How it takes the state over.
    pub way: Way,
    /// See [`Plan::queries`].
    pub queries: Vec<Bytes>,
    /// See [`Plan::classes`].
    pub classes: Vec<String>,
}

/// Has the log kept that a rehearsal reads, as far as there is room for it.
struct LogHold<'a>(&'a EventSender);

impl LogHold<'_> {
    fn after(events: &EventSender, index: Index) -> LogHold<'_> {
        // A node that stops ends the rehearsal as well.
        let _ = events.send(Event::HoldLog(Some(index)));
        LogHold(events)
    }
}

/// The log that a rehearsal reads, held for as long as it needs it.
struct HeldLog<'a> {
    log: RetainedLog,
    hold: Option<LogHold<'a>>,
    /// Whether it takes its time.
    at_leisure: &'a Cell<bool>,
}

impl Entries for HeldLog<'_> {
    fn entry(&mut self, index: Index) -> Result<LogEntry, RehearsalError> {
        self.log.entry(index)
    }

    fn only_after(&mut self, base: Index) -> Result<(), RehearsalError> {
        if self.log.keep_after(base, KEPT_BYTES_MAX)? {
            self.hold = None;
            self.at_leisure.set(true);
        }
        Ok(())
    }
}

impl Drop for LogHold<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(Event::HoldLog(None));
    }
}

impl NodeHandle {
    /// Index of the oldest state that is stored here and that the stored log goes on from. Reads from the disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn oldest_state(&self) -> Result<Option<Index>, StorageError> {
        Ok(usable_states(&self.shared.stores, self.shared.group)?.last().map(|meta| meta.index))
    }

    /// Which entries are meant by that. They end with what this node has applied. Reads from the disk.
    ///
    /// # Errors
    /// They are not there.
    pub fn rehearsal_range(
        &self,
        floor: Floor,
        wanted: Wanted,
    ) -> Result<(Index, Index), RehearsalError> {
        let applied = self.applied();
        if floor.state > applied {
            let (base, until) = (floor.state, applied);
            return Err(RehearsalError::WrongRange { base, until });
        }
        rehearsal::range(&self.shared.stores, self.shared.group, floor, applied, wanted)
    }

    /// How far the rehearsal is that runs on this node, if one does.
    pub fn trying(&self) -> Option<Trying> {
        self.shared.trial_board.look()
    }

    fn applied(&self) -> Index {
        self.shared.machine.borrow().as_ref().map_or(Index(0), |view| view.info.applied)
    }

    /// Rehearses a module that the group holds, on a thread of its own that leaves the processor to others. If
    /// the caller goes, it ends.
    ///
    /// # Errors
    /// See [`RehearsalFailure`].
    pub async fn rehearse(
        &self,
        candidate: Candidate,
        (base, until): (Index, Index),
    ) -> Result<Rehearsed, RehearsalFailure> {
        let permit = Arc::clone(&self.shared.rehearsing);
        let permit = permit.try_acquire_owned().map_err(|_| RehearsalFailure::Busy)?;
        let mut views = self.shared.machine.clone();
        let view = views.wait_for(|view| has_applied(view.as_deref(), until)).await;
        let view = view.map_err(|_| RehearsalFailure::BrokenOff)?.clone().expect("waited for");
        let Candidate { module, way, queries, classes } = candidate;
        let module = view.modules.get(&module).ok_or(RehearsalFailure::NotHeld(module))?.clone();
        check_room(view.info.guest_memory_bytes, &view.info.limits)?;
        let parts = self.parts();
        let plan = Plan { base, until, module, label: String::new(), way, queries, classes };
        let stops = self.stops();
        let work = move |unwanted: &AtomicBool| {
            let at_leisure = Rc::new(Cell::new(false));
            let mut courtesy = Courtesy::new(System::new());
            let wish = Rc::clone(&at_leisure);
            let pause = move || courtesy.offer(wish.get());
            pause::during(pause, || run(&parts, plan, unwanted, &at_leisure))
        };
        beside("rehearsal", permit, stops, work)?.done().await
    }

    /// As [`NodeHandle::rehearse`], at once and on the caller's thread, which must have the stack that guests need;
    /// `None`: this node has not applied the last of the entries yet.
    pub(in crate::node) fn rehearse_at_once(
        &self,
        module: ModuleHash,
        (base, until): (Index, Index),
        queries: Vec<Bytes>,
    ) -> Result<Option<Rehearsed>, RehearsalFailure> {
        let view = self.shared.machine.borrow().clone();
        let Some(view) = view.filter(|view| has_applied(Some(view), until)) else {
            return Ok(None);
        };
        let module = view.modules.get(&module).ok_or(RehearsalFailure::NotHeld(module))?.clone();
        let plan = Plan {
            base,
            until,
            module,
            label: String::new(),
            way: Way::Snapshot,
            queries,
            classes: Vec::new(),
        };
        run(&self.parts(), plan, &AtomicBool::new(false), &Cell::default()).map(Some)
    }

    fn parts(&self) -> Parts {
        let shared = &self.shared;
        Parts {
            stores: shared.stores.clone(),
            cluster: shared.identity.cluster,
            group: shared.group,
            loader: loader_beside(&shared.loader),
            events: shared.events.clone(),
            board: shared.trial_board.clone(),
            metrics: Arc::clone(&shared.metrics),
            stop: shared.stop.clone(),
        }
    }
}

impl NodeHandle {
    /// Tries on a copy of the state what going back to the module before would change.
    ///
    /// # Errors
    /// See [`RehearsalFailure`].
    pub async fn try_rewind(&self) -> Result<RewindTrial, RehearsalFailure> {
        let permit = Arc::clone(&self.shared.rehearsing);
        let permit = permit.try_acquire_owned().map_err(|_| RehearsalFailure::Busy)?;
        let view = self.shared.machine.borrow().clone();
        if let Some(view) = view {
            check_room(view.info.guest_memory_bytes, &view.info.limits)?;
        }
        let state = self.copy().await.map_err(RehearsalFailure::NoCopy)?.state;
        let loader = loader_beside(&self.shared.loader);
        beside("rehearsal", permit, self.stops(), move |_| try_on(&state, &loader))?.done().await
    }

    /// As [`NodeHandle::try_rewind`], on the thread of whoever polls it when the copy is there. That one must have the
    /// stack that guests need.
    ///
    /// # Errors
    /// See [`RehearsalFailure`].
    pub async fn try_rewind_here(&self) -> Result<RewindTrial, RehearsalFailure> {
        let state = self.copy().await.map_err(RehearsalFailure::NoCopy)?.state;
        try_on(&state, &self.shared.loader)
    }
}

/// What a rewind of that state would do.
fn try_on(state: &MachineSnapshot, loader: &SharedLoader) -> Result<RewindTrial, RehearsalFailure> {
    let began = Instant::now();
    let (mut differences, mut differing) = (Vec::new(), 0);
    let mut on_difference = |executed: &Executed, outcome: &Outcome| {
        if museum::is_on(Exhibit::TrialOfAnswersOnly) && !matches!(outcome, Outcome::Ok(_)) {
            return;
        }
        differing += 1;
        if differences.len() < TOLD_MAX {
            differences.push((executed.clone(), outcome.clone()));
        }
    };
    let preview = state.preview_rewind(loader, &mut on_difference);
    let preview = preview.map_err(RehearsalError::from)?;
    let preview = preview.map_err(RehearsalFailure::NoWayBack)?;
    Ok(RewindTrial { preview, differences, differing, elapsed: began.elapsed() })
}

/// Snapshots that the stored log goes on from, newest first.
fn usable_states(stores: &Stores, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
    let begins = stores.log.start(group)?.index;
    let mut states = stores.snapshots.list(group)?;
    states.retain(|meta| meta.index >= begins);
    Ok(states)
}

fn has_applied(view: Option<&MachineView>, until: Index) -> bool {
    view.is_some_and(|view| view.info.applied >= until)
}

/// What must fit beside what is there: two machines that execute commands, each with the copy that a trap goes back to;
/// then the one with the new module, its portable snapshot, and a guest that is made of that and executes nothing.
fn check_room(guest_bytes: u64, limits: &Limits) -> Result<(), RehearsalFailure> {
    let most = both(guest_bytes, limits).max(at_the_end(guest_bytes, limits));
    fits(most.saturating_add(REST_BYTES))
}

/// The old module's machine and the new one's, each with that copy.
pub(super) fn both(guest_bytes: u64, limits: &Limits) -> u64 {
    guest_bytes.saturating_add(successor_bytes(guest_bytes, limits)).saturating_mul(2)
}

/// The new module's machine, with that copy, its snapshot, and a guest that restores it.
pub(super) fn at_the_end(guest_bytes: u64, limits: &Limits) -> u64 {
    let successors = successor_bytes(guest_bytes, limits).saturating_mul(3);
    successors.saturating_add(snapshot_bytes(guest_bytes, limits))
}

/// Says by `at_leisure` when nothing is held for it any more.
fn run(
    parts: &Parts,
    mut plan: Plan,
    unwanted: &AtomicBool,
    at_leisure: &Cell<bool>,
) -> Result<Rehearsed, RehearsalFailure> {
    let began = Instant::now();
    let (module, base) = (ModuleHash::of(&plan.module), plan.base);
    let board = parts.board.begin();
    let tell = |progress| board.tell(Trying { module, base, progress });
    tell(Progress { index: base, until: plan.until, commands: 0, differences: 0 });
    let (hold, old) = begin(parts, plan.base)?;
    if museum::is_on(Exhibit::RehearsalFromAnotherBase) {
        plan.base = old.applied_index();
    }
    let log = Arc::clone(&parts.stores.log);
    let log = RetainedLog::new(log, parts.group, plan.until);
    let mut entries = HeldLog { log, hold: Some(hold), at_leisure };
    // Of an activation, which nobody holds up.
    let stopwatch = || began.elapsed().saturating_sub(pause::paused());
    let mut keep_going = |progress| {
        pause::here();
        tell(progress);
        !unwanted.load(Ordering::Relaxed) && !parts.stop.is_given()
    };
    let report = rehearsal::rehearse(old, &mut entries, &plan, &stopwatch, &mut keep_going);
    let report = report.map_err(|error| match error {
        RehearsalError::Storage(StorageError::Compacted { .. }) => gone(parts, base),
        error => error.into(),
    })?;
    let elapsed = began.elapsed();
    parts.metrics.rehearsal_duration.observe(elapsed);
    Ok(Rehearsed { report, elapsed })
}

/// The machine of the newest state that is stored at or before `base`; the log after it is kept for as long.
fn begin(parts: &Parts, base: Index) -> Result<(LogHold<'_>, Machine), RehearsalFailure> {
    loop {
        let state = state_at(parts, base)?;
        let hold = LogHold::after(&parts.events, state.index);
        match machine_of(parts, &state) {
            Ok(machine) => return Ok((hold, machine)),
            Err(failure) if usable_states(&parts.stores, parts.group)?.contains(&state) => {
                return Err(failure);
            }
            // It was dropped just then: what is left is looked at again.
            Err(_) => {}
        }
    }
}

/// Why entries after `base` were not there any more when they were read.
fn gone(parts: &Parts, base: Index) -> RehearsalFailure {
    let Parts { stores, group, .. } = parts;
    let words = || {
        let oldest = usable_states(stores, *group)?.last().ok_or(RehearsalFailure::NoState)?.index;
        let wanted = format!("the log after index {base}");
        Ok(rehearsal::compacted(stores, *group, oldest, wanted)?.into())
    };
    words().unwrap_or_else(|failure| failure)
}

/// The newest state that is stored at or before `base`.
fn state_at(parts: &Parts, base: Index) -> Result<SnapshotMeta, RehearsalFailure> {
    let Parts { stores, group, .. } = parts;
    let mut states = usable_states(stores, *group)?;
    let oldest = states.last().ok_or(RehearsalFailure::NoState)?.index;
    let Some(at) = states.iter().position(|meta| meta.index <= base) else {
        let wanted = format!("index {base}");
        return Err(rehearsal::compacted(stores, *group, oldest, wanted)?.into());
    };
    Ok(states.swap_remove(at))
}

fn machine_of(parts: &Parts, state: &SnapshotMeta) -> Result<Machine, RehearsalFailure> {
    let Parts { stores, cluster, loader, .. } = parts;
    restore(&*stores.snapshots, state, *cluster, loader).map_err(|error| match error {
        LoadError::Storage(error) => error.into(),
        LoadError::Restore(error) => RehearsalFailure::State(state.index, error.to_string()),
    })
}
