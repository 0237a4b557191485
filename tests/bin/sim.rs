//! Runs the simulator: many seeds, or one with its trace, or shrinks one that fails.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use raft_host::museum::Exhibit;
use raft_host_tests::sim::disk::remove_stale;
use raft_host_tests::sim::plan::{Fixed, Plan};
use raft_host_tests::sim::runner::{Batch, loader, run, run_batch, with_stack};
use raft_host_tests::sim::shrink::{Budget, Cut, Shrunk, command, shrink};
use raft_host_tests::sim::{Kind, View, golden};

/// A cluster of real nodes in virtual time under faults; one seed decides everything.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// How many seeds to run. Default: 100, or with --seconds as many as there is time for.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed only, and show its trace if it fails.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// With --seed: show the plan, and the whole trace, even if all is well.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Most lines of a trace that are shown, the last ones. Default: 60; all with --trace.
    #[arg(long)]
    lines: Option<usize>,
    /// Kinds of lines that are not shown. Default: heartbeats.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "only_kind")]
    hide: Option<Vec<Kind>>,
    /// Kinds of lines that are shown.
    #[arg(long, value_enum, value_delimiter = ',')]
    only_kind: Option<Vec<Kind>>,
    /// Show lines of all kinds.
    #[arg(long, conflicts_with_all = ["hide", "only_kind"])]
    everything: bool,
    /// The guest: registers, kv or native. Default: the seed decides.
    #[arg(long, value_parser = ["registers", "kv", "native"])]
    guest: Option<String>,
    /// The number of voters. Default: the seed decides.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    voters: Option<u8>,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Nodes compare digests, and bits flip in their memory. Default: neither.
    #[arg(long)]
    flips: bool,
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
    /// Shrink the failing seed: leave out what is not needed to fail.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// With --shrink: runs at most.
    #[arg(long, default_value_t = 1000, requires = "shrink")]
    shrink_runs: u64,
    /// With --shrink: begin no further run after so many seconds.
    #[arg(long, default_value_t = 120, requires = "shrink")]
    shrink_seconds: u64,
    /// Write the hashes of some runs into the file of golden ones, or compare them with it.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "first"])]
    golden: Option<Golden>,
    #[command(flatten)]
    cut: CutArguments,
}

/// What to do about golden hashes.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Golden {
    /// Write them.
    Write,
    /// Compare them.
    Check,
}

/// What is left of a seed's plan.
#[derive(clap::Args)]
struct CutArguments {
    /// Numbers of the actions that stay, as in 3,7,12, or "none".
    #[arg(long, requires = "seed")]
    only: Option<Numbers>,
    /// Clients.
    #[arg(long, requires = "seed")]
    clients: Option<usize>,
    /// Operations of each client while things go wrong.
    #[arg(long, requires = "seed")]
    operations: Option<u64>,
    /// Keys.
    #[arg(long, requires = "seed", value_parser = clap::value_parser!(u8).range(1..))]
    keys: Option<u8>,
    /// Learners.
    #[arg(long, requires = "seed")]
    learners: Option<usize>,
    /// How long things go wrong.
    #[arg(long, requires = "seed", value_parser = clap::value_parser!(u64).range(..=600_000))]
    faults_ms: Option<u64>,
}

/// A list of actions.
#[derive(Clone)]
struct Numbers(BTreeSet<usize>);

impl FromStr for Numbers {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Numbers, Self::Err> {
        if text.is_empty() || text == "none" {
            return Ok(Numbers(BTreeSet::new()));
        }
        text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>().map(Numbers)
    }
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Arguments {
    fn fixed(&self) -> Fixed {
        Fixed {
            guest: self.guest.as_deref().map(|name| match name {
                "kv" => "kv",
                "native" => "native",
                _ => "registers",
            }),
            voters: self.voters.map(usize::from),
            calm: self.calm,
            flips: self.flips,
        }
    }

    fn cut(&self) -> Cut {
        Cut {
            only: self.cut.only.clone().map(|Numbers(numbers)| numbers),
            clients: self.cut.clients,
            operations: self.cut.operations,
            keys: self.cut.keys,
            // These are fixed when the plan is drawn.
            voters: None,
            learners: self.cut.learners,
            faults_ms: self.cut.faults_ms,
        }
    }

    fn view(&self) -> View {
        let mut view = View::default();
        if self.trace {
            view.lines = usize::MAX;
        }
        view.lines = self.lines.unwrap_or(view.lines);
        if self.everything {
            view.hidden.clear();
        }
        if let Some(hide) = &self.hide {
            view.hidden = hide.iter().copied().collect();
        }
        if let Some(only) = &self.only_kind {
            view.hidden = Kind::ALL.iter().copied().filter(|kind| !only.contains(kind)).collect();
        }
        view
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Panics of nodes are violations and are reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    if let Err(error) = remove_stale() {
        eprintln!("directories of simulators that were killed are left: {error}");
    }
    if let Some(golden) = arguments.golden {
        return with_stack(|| gild(golden));
    }
    match arguments.seed {
        Some(seed) if arguments.shrink => with_stack(|| shrink_one(&arguments, seed)),
        Some(seed) => with_stack(|| one(&arguments, seed)),
        None => many(&arguments),
    }
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let (fixed, cut) = (arguments.fixed(), arguments.cut());
    let plan = match cut.apply(&Plan::draw(seed, &fixed)) {
        Ok(plan) => Arc::new(plan),
        Err(error) => return refuse(&error),
    };
    let report = run(&plan, &loader(), arguments.exhibit, Some(&arguments.view()));
    if arguments.trace {
        print_actions(&plan);
    }
    if arguments.trace || report.violation.is_some() {
        print!("{}\n{}\n", plan.header(), report.trace);
    }
    print!("{}", report.counters);
    println!("seed {seed}: trace {}", report.trace_hash);
    let Some(violation) = report.violation else { return ExitCode::SUCCESS };
    println!("VIOLATION of {}: {}", violation.invariant, violation.what);
    println!("reproduce:  {}", command(seed, &fixed, &cut, arguments.exhibit));
    ExitCode::FAILURE
}

fn shrink_one(arguments: &Arguments, seed: u64) -> ExitCode {
    let (fixed, cut, exhibit) = (arguments.fixed(), arguments.cut(), arguments.exhibit);
    let drawn = Plan::draw(seed, &fixed);
    let loader = loader();
    let deadline = Instant::now() + Duration::from_secs(arguments.shrink_seconds);
    let budget = Budget { runs: arguments.shrink_runs, deadline: Some(deadline) };
    let seen = |runs: u64, plan: &Plan| {
        let shape = &plan.shape;
        eprintln!(
            "run {runs}: {} actions in {} ms; {} voters, {} learners; {} clients, {} operations, \
             {} keys",
            plan.actions.len(),
            shape.faults_us / 1000,
            shape.voters,
            shape.learners,
            shape.clients,
            shape.operations,
            shape.keys
        );
    };
    let shrunk = match shrink(&drawn, &cut, &loader, exhibit, &budget, &seen) {
        Ok(shrunk) => shrunk,
        Err(error) => return refuse(&error),
    };
    let Shrunk { plan, cut, violation, runs, is_minimal } = shrunk;
    let report = run(&plan, &loader, exhibit, Some(&arguments.view()));
    print!("{}\n{}\n", plan.header(), report.trace);
    println!("VIOLATION of {}: {}", violation.invariant, violation.what);
    let end = if is_minimal { "nothing more can be left out" } else { "the budget is spent" };
    println!(
        "shrunk in {runs} runs; {end}; {} of {} actions are left:",
        plan.actions.len(),
        drawn.actions.len()
    );
    print_actions(&plan);
    println!("reproduce:  {}", command(seed, &fixed, &cut, exhibit));
    ExitCode::FAILURE
}

fn gild(what: Golden) -> ExitCode {
    let done = match what {
        Golden::Check => golden::check(&loader()),
        Golden::Write if cfg!(debug_assertions) => {
            Err("golden hashes are written by the release build, for the dev build to compare"
                .into())
        }
        Golden::Write => golden::current(&loader()).and_then(|text| {
            std::fs::write(golden::path(), text).map_err(|error| error.to_string())
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn print_actions(plan: &Plan) {
    for planned in &plan.actions {
        println!("  {planned}");
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(2)
}

fn many(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let fixed = arguments.fixed();
    let batch = Batch {
        first: arguments.first,
        count: arguments.seeds.unwrap_or(if arguments.seconds.is_some() { u64::MAX } else { 100 }),
        jobs: arguments.jobs.max(1),
        fixed: fixed.clone(),
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
        let line = command(*seed, &fixed, &Cut::default(), arguments.exhibit);
        println!("violation of {}; reproduce:  {line}", violation.invariant);
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
