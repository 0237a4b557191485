//! Runs the simulator: many seeds, or one with its trace.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use raft_host::museum::Exhibit;
use raft_host_tests::sim::plan::{Fixed, Plan};
use raft_host_tests::sim::runner::{Batch, loader, run, run_batch};

/// A cluster of real nodes in virtual time under faults; one seed decides everything.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed only, and show its trace if it fails.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// With --seed: show the trace even if all is well.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Most lines of a trace that are shown.
    #[arg(long, default_value_t = 200)]
    lines: usize,
    /// The guest: registers, kv or native. Default: the seed decides.
    #[arg(long, value_parser = ["registers", "kv", "native"])]
    guest: Option<String>,
    /// The number of voters. Default: the seed decides.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    voters: Option<u8>,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Switch on a deliberate bug of the museum.
    #[arg(long)]
    exhibit: Option<Exhibit>,
    /// Threads; each runs one seed at a time.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,
    /// Begin no further seed after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop at the first violation.
    #[arg(long)]
    stop_early: bool,
    /// Print a line per seed, with the hash of its trace.
    #[arg(long)]
    verbose: bool,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Panics of nodes are violations and are reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let fixed = Fixed {
        guest: arguments.guest.as_deref().map(|name| match name {
            "kv" => "kv",
            "native" => "native",
            _ => "registers",
        }),
        voters: arguments.voters.map(usize::from),
        calm: arguments.calm,
    };
    match arguments.seed {
        Some(seed) => one(&arguments, seed, &fixed),
        None => many(&arguments, fixed),
    }
}

fn one(arguments: &Arguments, seed: u64, fixed: &Fixed) -> ExitCode {
    let plan = Arc::new(Plan::draw(seed, fixed));
    let loader = loader();
    let lines = Some(arguments.lines);
    let exhibit = arguments.exhibit;
    let work = move || run(&plan, &loader, exhibit, lines);
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(work);
    let report = thread.expect("a thread").join().expect("panics are caught");
    if arguments.trace || report.violation.is_some() {
        print!("{}", report.trace);
    }
    print!("{}", report.counters);
    println!("seed {seed}: trace {}", report.trace_hash);
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("VIOLATION of {}: {}", violation.invariant, violation.what);
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments, fixed: Fixed) -> ExitCode {
    let begun = Instant::now();
    let batch = Batch {
        first: arguments.first,
        count: arguments.seeds,
        jobs: arguments.jobs.max(1),
        fixed,
        exhibit: arguments.exhibit,
        deadline: arguments.seconds.map(|seconds| begun + Duration::from_secs(seconds)),
        stops_early: arguments.stop_early,
    };
    let verbose = arguments.verbose;
    let outcome = run_batch(&batch, &loader(), &|seed, report| {
        if verbose {
            println!("seed {seed}: trace {}", report.trace_hash);
        }
        if let Some(violation) = &report.violation {
            println!(
                "seed {seed}: VIOLATION of {} after {} us: {}",
                violation.invariant, violation.at.0, violation.what
            );
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    print!("{}", outcome.counters);
    println!(
        "{:.1} s of wall time: {:.0} simulated seconds per second of each of {} threads",
        seconds,
        outcome.counters.simulated_us as f64 / 1e6 / seconds / batch.jobs as f64,
        batch.jobs
    );
    for (seed, violation) in &outcome.violations {
        println!("violation of {}: reproduce with  sim --seed {seed}", violation.invariant);
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
