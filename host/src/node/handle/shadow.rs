//! A module that runs beside the active one on this node, fed with what is applied. See `node/shadow.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::beside::{Beside, REST_BYTES, RehearsalFailure, beside, fits};
use super::core::NodeHandle;
use super::rehearse::{at_the_end, both};
use crate::fsm::Limits;
use crate::node::message::{Event, EventSender};
use crate::node::metrics::NodeMetrics;
use crate::node::room::MachineMemory;
use crate::node::shadow::{
    SHADOW_MAX, ShadowEnd, ShadowStart, ShadowStatus, Shadowing, Step, WAITING_MAX,
};
use crate::node::stop::StopSignal;
use crate::rehearsal::{QUERIES_MAX, RehearsalError, Report};
use crate::types::ModuleHash;

/// How long it waits for an entry before it looks whether anybody still wants it.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often it looks whether there is memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A shadow that runs. When this goes, it ends within a moment.
pub struct ShadowRun {
    board: Arc<Board>,
    beside: Beside<ShadowFound>,
}

/// What a shadow found.
#[derive(Clone, Debug)]
pub struct ShadowFound {
    /// Of this node: another one began with another entry.
    pub report: Report,
    /// Why it ended.
    pub end: ShadowEnd,
    /// How long it was there.
    pub elapsed: Duration,
}

impl ShadowRun {
    /// How far it is.
    pub fn status(&self) -> ShadowStatus {
        self.board.status()
    }

    /// Waits until it has ended. May be given up and called again.
    ///
    /// # Errors
    /// See [`RehearsalFailure`].
    pub async fn done(&mut self) -> Result<ShadowFound, RehearsalFailure> {
        self.beside.done().await
    }
}

/// Written by the shadow, read by whoever asks.
#[derive(Debug, Default)]
struct Board(Mutex<ShadowStatus>);

impl Board {
    fn show(&self, status: ShadowStatus) {
        // Nothing panics under this lock.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn status(&self) -> ShadowStatus {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows that a shadow runs, however it ends.
struct Counted(Arc<NodeMetrics>);

impl Counted {
    fn begin(metrics: Arc<NodeMetrics>) -> Counted {
        metrics.shadows_running.add(1);
        Counted(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.shadows_running.take(1);
        self.0.shadow_waiting.set(0);
    }
}

/// What a shadow needs.
struct Parts {
    start: ShadowStart,
    module: Bytes,
    label: String,
    queries: Vec<Bytes>,
    duration: Duration,
    events: EventSender,
    stop: StopSignal,
    board: Arc<Board>,
}

impl NodeHandle {
    /// Runs a module that the group holds beside the active one for so long, fed with what is applied from here on,
    /// on a thread of its own that leaves the processor to others. At the end of that time the queries are asked of
    /// both modules, in the same state.
    ///
    /// # Errors
    /// See [`RehearsalFailure`].
    pub async fn shadow(
        &self,
        module: ModuleHash,
        label: &str,
        queries: Vec<Bytes>,
        duration: Duration,
    ) -> Result<ShadowRun, RehearsalFailure> {
        if duration < Duration::from_millis(1) || duration > SHADOW_MAX {
            return Err(RehearsalFailure::WrongDuration(duration));
        }
        if queries.len() > QUERIES_MAX {
            return Err(RehearsalError::TooManyQueries(queries.len()).into());
        }
        let shared = &self.shared;
        let permit = Arc::clone(&shared.rehearsing);
        let permit = permit.try_acquire_owned().map_err(|_| RehearsalFailure::Busy)?;
        let view = shared.machine.borrow().clone().ok_or(RehearsalFailure::NotHeld(module))?;
        let module = view.modules.get(&module).ok_or(RehearsalFailure::NotHeld(module))?.clone();
        check_room(view.info.guest_memory_bytes, &view.info.limits)?;
        let (reply, started) = oneshot::channel();
        shared.events.send(Event::Shadow(reply)).map_err(|_| gone())?;
        let start = started.await.map_err(|_| gone())?.map_err(RehearsalFailure::NoCopy)?;
        let board = Arc::new(Board::default());
        let parts = Parts {
            start,
            module,
            label: label.to_owned(),
            queries,
            duration,
            events: shared.events.clone(),
            stop: shared.stop.clone(),
            board: Arc::clone(&board),
        };
        let metrics = Arc::clone(&shared.metrics);
        let beside = beside("shadow", permit, self.stops(), move |unwanted| {
            let _counted = Counted::begin(metrics);
            run(parts, unwanted)
        })?;
        Ok(ShadowRun { board, beside })
    }
}

/// At first the old module's copy is there, but no copy that a trap of the new one goes back to. For queries at the end both
/// are; then what a rehearsal takes at its end.
fn check_room(guest_bytes: u64, limits: &Limits) -> Result<(), RehearsalFailure> {
    let most = both(guest_bytes, limits).max(at_the_end(guest_bytes, limits));
    fits(most.saturating_add(REST_BYTES + WAITING_MAX.bytes))
}

fn gone() -> RehearsalFailure {
    RehearsalFailure::NoCopy("this node stopped".to_owned())
}

fn run(parts: Parts, unwanted: &AtomicBool) -> Result<ShadowFound, RehearsalFailure> {
    let Parts { start, module, label, queries, duration, events, stop, board } = parts;
    let began = Instant::now();
    let mut shadowing = match Shadowing::begin(start, (&module, &*label), &|| began.elapsed())? {
        Ok(shadowing) => shadowing,
        Err(report) => {
            let end = ShadowEnd::NotTakenOver;
            return Ok(ShadowFound { report, end, elapsed: began.elapsed() });
        }
    };
    let asks = !queries.is_empty();
    shadowing.ask_at_the_end(queries);
    // Its time begins when it has taken over.
    let running = Instant::now();
    let (mut looked, mut is_over) = (running, false);
    loop {
        if unwanted.load(Ordering::Relaxed) {
            return Err(RehearsalError::Cancelled.into());
        }
        if stop.is_given() {
            return Err(gone());
        }
        let now = Instant::now();
        if now - running >= duration && !is_over {
            is_over = true;
            match asks {
                // The machine ends it behind the state that they are asked of.
                true => events.send(Event::ShadowOver).map_err(|_| gone())?,
                false => shadowing.end(ShadowEnd::Elapsed),
            }
        }
        if now - looked >= LOOK_EVERY {
            looked = now;
            if let Some(memory) = MachineMemory::now().filter(|it| it.available < REST_BYTES) {
                shadowing.end(ShadowEnd::Short(memory.available));
            }
        }
        let step = shadowing.step(PATIENCE).map_err(RehearsalError::from)?;
        board.show(shadowing.status());
        if step == Step::Ended {
            break;
        }
    }
    let found = shadowing.finish().map_err(RehearsalError::from)?;
    let (report, end) = found.ok_or_else(gone)?;
    Ok(ShadowFound { report, end, elapsed: began.elapsed() })
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::node::stop::Stops;
    use crate::types::GroupId;

    #[test]
    fn one_that_panics_is_shown_no_longer_and_stops_the_node() {
        let (metrics, stop) = (Arc::<NodeMetrics>::default(), StopSignal::new());
        let places = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&places).try_acquire_owned().expect("one is free");
        let stops = Stops::of(GroupId::MAIN, stop.clone());
        let shown = Arc::clone(&metrics);
        let mut beside = beside::<()>("shadow", permit, stops, move |_| {
            let counted = Counted::begin(shown);
            counted.0.shadow_waiting.set(7);
            panic!("on purpose");
        })
        .expect("a thread");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let found = runtime.block_on(beside.done());
        assert!(matches!(found, Err(RehearsalFailure::BrokenOff)), "{found:?}");
        let why = stop.reason().expect("the node stops");
        assert!(format!("{why:?}").contains("the shadow thread panicked"), "{why:?}");
        assert_eq!((metrics.shadows_running.get(), metrics.shadow_waiting.get()), (0, 0));
    }
}
