//! Beats a cluster of real processes, or judges a history that somebody wrote down.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use raft_host_tests::chaos::{self, Fault, Options};
use raft_host_tests::history::{checker, json_lines};
use tokio::signal::unix::{SignalKind, signal};

/// Runs a raft-host cluster of real processes under faults and judges what its clients saw.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Judges a history in the format of tests/history/FORMAT.md.
    Check {
        /// JSON lines.
        file: PathBuf,
        /// Steps of the search for each key before it gives up.
        #[arg(long, default_value_t = checker::DEFAULT_STEPS)]
        steps: u64,
    },
}

#[derive(Args)]
struct RunArgs {
    /// How long faults and clients go on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Processes.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Concurrent clients.
    #[arg(long, default_value_t = 10)]
    clients: usize,
    /// Longest pause of a client between operations, in milliseconds.
    #[arg(long, default_value_t = 80)]
    pause_ms: u64,
    /// Longest that one fault lasts, in milliseconds.
    #[arg(long, default_value_t = 8_000)]
    hold_ms: u64,
    /// Decides the faults and what clients ask.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// "all", "none", or names separated by commas.
    #[arg(long, default_value = "all")]
    faults: String,
    /// Nodes and clients show certificates to each other, and rights are in force.
    #[arg(long)]
    tls: bool,
    /// Where the history goes.
    #[arg(long, default_value = "chaos-history.jsonl")]
    history: PathBuf,
    /// Where data, logs and events are kept [default: a directory that is removed].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The server [default: raft-host-under-test beside this program].
    #[arg(long)]
    program: Option<PathBuf>,
    /// Another version of it [default: raft-host-next beside this program].
    #[arg(long)]
    other_program: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Check { file, steps }) => check(&file, steps),
        None => run(&cli.run),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn check(file: &PathBuf, steps: u64) -> anyhow::Result<bool> {
    let input = File::open(file).with_context(|| format!("{}", file.display()))?;
    let history = json_lines::read(BufReader::new(input))?;
    match checker::check_within(&history, steps) {
        Ok(()) => {
            println!("{} operations are linearizable", history.len());
            Ok(true)
        }
        Err(violation) => {
            println!("{violation}");
            Ok(false)
        }
    }
}

fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let faults = match args.faults.as_str() {
        "all" => Fault::ALL.to_vec(),
        "none" => Vec::new(),
        names => names
            .split(',')
            .map(|name| name.trim().parse().map_err(anyhow::Error::msg))
            .collect::<anyhow::Result<_>>()?,
    };
    let beside = |name: &str| -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("this program's path")?;
        Ok(own.with_file_name(name))
    };
    let (temporary, dir) = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
            (None, dir.clone())
        }
        None => {
            let temporary = tempfile::tempdir()?;
            let dir = temporary.path().to_owned();
            (Some(temporary), dir)
        }
    };
    let options = Options {
        program: args.program.clone().map_or_else(|| beside("raft-host-under-test"), Ok)?,
        other_program: args.other_program.clone().map_or_else(|| beside("raft-host-next"), Ok)?,
        time: Duration::from_secs(args.seconds),
        nodes: args.nodes,
        clients: args.clients,
        pause_max: Duration::from_millis(args.pause_ms),
        hold_max: Duration::from_millis(args.hold_ms),
        seed: args.seed,
        faults,
        tls: args.tls,
        dir,
        history: args.history.clone(),
        quiet: false,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    // Dropping the run kills its processes and unmounts its disk.
    let report = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        tokio::select! {
            report = chaos::run(&options) => report,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let report = report?;
    println!("\n{report}");
    println!("\nhistory: {}", options.history.display());
    if !report.passed()
        && let Some(temporary) = temporary
    {
        println!("data, logs and events: {}", temporary.keep().display());
    }
    Ok(report.passed())
}
