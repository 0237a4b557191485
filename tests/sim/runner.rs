//! Runs seeds: one, or many on all cores, each of them on one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use raft_host::fsm::SharedLoader;
use raft_host::fsm::native::WithNative;
use raft_host::museum::{self, Exhibit};
use raft_host::wasm::WasmLoader;

use super::invariants::Violation;
use super::plan::{Fixed, Plan};
use super::summary::Counters;
use super::trace::View;
use super::world::{Report, World, panic_words};

/// Stack of a thread that runs guests; as that of a node's apply thread.
const STACK_BYTES: usize = 16 << 20;

/// A loader for all runs of a process: what is compiled once serves all.
///
/// # Panics
///
/// If this machine cannot run guests.
pub fn loader() -> SharedLoader {
    let wasm = WasmLoader::new(None).expect("this machine runs guests").with_threads(1);
    Arc::new(WithNative(wasm))
}

/// Does something on a thread whose stack is large enough for [`run`].
///
/// # Panics
///
/// If it panics, or if there is no memory for a thread.
pub fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).expect("a thread");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs one plan; what is to be seen of its trace is in the report. A panic of the simulator
/// itself is a violation, too.
pub fn run(
    plan: &Arc<Plan>,
    loader: &SharedLoader,
    exhibit: Option<Exhibit>,
    view: Option<&View>,
) -> Report {
    let (plan, loader) = (Arc::clone(plan), Arc::clone(loader));
    let guarded = catch_unwind(AssertUnwindSafe(move || {
        let _guard = museum::exhibit(exhibit);
        World::new(plan, loader, view.is_some()).run(view)
    }));
    guarded.unwrap_or_else(|panic| Report {
        violation: Some(Violation {
            invariant: "panic",
            what: format!("the simulator panics: {}", panic_words(panic.as_ref())),
            at: Default::default(),
        }),
        counters: Counters::default(),
        trace_hash: String::new(),
        trace: String::new(),
    })
}

/// Which seeds to run, and how.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Threads.
    pub jobs: usize,
    /// What is not left to the seeds.
    pub fixed: Fixed,
    /// A deliberate bug.
    pub exhibit: Option<Exhibit>,
    /// Start no further seed after that.
    pub deadline: Option<Instant>,
    /// End with the first violation.
    pub stops_early: bool,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Counts of all runs.
    pub counters: Counters,
    /// Seeds with a violation, ascending.
    pub violations: Vec<(u64, Violation)>,
}

/// Runs a batch. `seen` hears of every run that ended.
pub fn run_batch(
    batch: &Batch,
    loader: &SharedLoader,
    seen: &(dyn Fn(u64, &Report) + Sync),
) -> Outcome {
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let outcome = Mutex::new(Outcome::default());
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= batch.count || batch.deadline.is_some_and(|at| Instant::now() >= at) {
                return;
            }
            let seed = batch.first + at;
            let plan = Arc::new(Plan::draw(seed, &batch.fixed));
            let report = run(&plan, loader, batch.exhibit, None);
            seen(seed, &report);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.counters.add(&report.counters);
            if let Some(violation) = report.violation {
                outcome.violations.push((seed, violation));
                if batch.stops_early {
                    is_over.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..batch.jobs {
            std::thread::Builder::new()
                .name(format!("sim-{number}"))
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, work)
                .expect("a thread");
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.violations.sort_by_key(|(seed, _)| *seed);
    outcome
}
