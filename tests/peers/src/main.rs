//! raft-host beside etcd: three nodes of each on loopback, in turns, the same load, and the ratios.
//!
//! ```text
//!   round ─► callers ─► raft-host, then etcd (the next round the other way round):
//!                         fresh data, three nodes ─► writes ─► reads ─► ended, data removed
//! ```
//!
//! Each turn has a cluster of its own, so that no other one takes a part of the machine meanwhile. Load
//! comes from a process of its own as well: `raft-host bench` for one, `peers etcd-load` for the other.

mod cluster;
mod etcd;
mod etcd_load;
mod measure;
mod process;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Cluster, Ports};
use crate::etcd_load::LoadArgs;
use crate::measure::{Case, Measured, Way};
use crate::report::Report;

/// Measures raft-host beside etcd and prints the ratios.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: BenchArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Loads an etcd that runs already and prints what was measured, as JSON.
    EtcdLoad(LoadArgs),
}

#[derive(Clone, Debug, Args)]
struct BenchArgs {
    /// The program to measure, a release build.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/raft-host"), hide_default_value = true)]
    raft_host: PathBuf,
    /// The module that it runs: the sample key-value store.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/kv/kv.wasm"), hide_default_value = true)]
    plugin: PathBuf,
    /// The etcd to measure.
    #[arg(long, value_name = "FILE", default_value = "etcd")]
    etcd: PathBuf,
    /// Numbers of callers, each of which waits for its answer before it asks again.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1_000], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: Vec<u32>,
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Op::Write, Op::Read])]
    op: Vec<Op>,
    /// How raft-host is asked. shared: all callers use one client of its library, as programs do.
    /// unary: a request for each operation, over four connections. stream: as many commands in flight
    /// as there are callers, over four streams (writes only).
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Shared])]
    mode: Vec<Mode>,
    /// How often each is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Seconds before that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=600))]
    warmup: u32,
    /// Length of a value in bytes.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Number of different keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Connections to each node of etcd that is asked, which its callers share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,
    /// An existing directory on the disk to measure: both keep their data in it, in turns.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.."), hide_default_value = true)]
    on_disk: PathBuf,
    /// The first of nine ports on loopback.
    #[arg(long, default_value_t = 23_790, value_parser = clap::value_parser!(u16).range(1..=65_526))]
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Op {
    Write,
    Read,
}

/// How raft-host is asked; always where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Shared,
    Unary,
    Stream,
}

/// Which nodes of etcd are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// The one that leads.
    Leader,
    /// All alike, as etcd's own client does it.
    All,
}

/// A turn may take so much longer than it measures: two clusters are formed, and every key written.
const SLACK: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match (runtime, &cli.command) {
        (Err(error), _) => Err(error).context("starting a runtime"),
        (Ok(runtime), Some(Command::EtcdLoad(args))) => runtime.block_on(etcd_load::run(args)),
        (Ok(runtime), None) => runtime.block_on(until_signalled(bench(&cli.bench))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the work when somebody asks for that; what it has started is ended with it.
async fn until_signalled(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("asked to end"),
        _ = hangup.recv() => bail!("the terminal is gone"),
    }
}

async fn bench(args: &BenchArgs) -> Result<()> {
    let versions = [
        process::version_of(&args.raft_host).context(
            "build raft-host first (cargo build --release) or say where it is with --raft-host",
        )?,
        process::version_of(&args.etcd).context(
            "install etcd first (Debian: apt-get install etcd-server) or say where it is with --etcd",
        )?,
    ];
    if !args.plugin.is_file() {
        bail!("there is no plugin {}", args.plugin.display());
    }
    let ports = Ports::from(args.port);
    ports.are_free()?;
    let data = data_directory(&args.on_disk)?;
    let mut report = Report::new(args, versions);
    for round in 0..args.rounds {
        for callers in &args.callers {
            // Whoever goes second finds the disk busier: alternate.
            let both = if round % 2 == 0 { [true, false] } else { [false, true] };
            for is_ours in both {
                let bound = turn_bound(args);
                let turn = turn(args, is_ours, *callers, ports, data.path());
                let measured = tokio::time::timeout(bound, turn)
                    .await
                    .with_context(|| format!("a turn took longer than {bound:?}"))??;
                for (case, measured) in measured {
                    eprintln!("round {}: {case}: {measured}", round + 1);
                    report.add(case, measured);
                }
            }
        }
    }
    print!("{report}");
    data.close().context("removing the data")
}

fn turn_bound(args: &BenchArgs) -> Duration {
    let loads = (args.op.len() * args.mode.len().max(To::value_variants().len())) as u32;
    SLACK + loads * Duration::from_secs(u64::from(2 * (args.warmup + args.seconds)))
}

/// A new directory, which goes when it is dropped.
fn data_directory(on_disk: &Path) -> Result<tempfile::TempDir> {
    let name = || on_disk.display().to_string();
    let is_in_memory = process::is_in_memory(on_disk).with_context(name)?;
    if is_in_memory {
        bail!("{} is kept in memory, where nothing is durable: say another --on-disk", name());
    }
    tempfile::Builder::new().prefix("peers-").tempdir_in(on_disk).with_context(name)
}

/// One cluster, and all that is measured of it with so many callers.
async fn turn(
    args: &BenchArgs,
    is_ours: bool,
    callers: u32,
    ports: Ports,
    data: &Path,
) -> Result<Vec<(Case, Measured)>> {
    let dir = tempfile::tempdir_in(data).context("a directory for a cluster")?;
    let mut cluster = match is_ours {
        true => Cluster::of_raft_host(args, ports, dir.path()).await?,
        false => Cluster::of_etcd(args, ports, dir.path()).await?,
    };
    let mut all = Vec::new();
    for op in &args.op {
        let ways: Vec<Way> = match is_ours {
            true => args.mode.iter().copied().map(Way::RaftHost).collect(),
            false => To::value_variants().iter().copied().map(Way::Etcd).collect(),
        };
        for way in ways.into_iter().filter(|way| way.can_do(*op)) {
            let case = Case { op: *op, callers, way };
            let measured = measure::measure(args, &mut cluster, case);
            all.push((case, measured.await.with_context(|| case.to_string())?));
        }
    }
    drop(cluster);
    dir.close().context("removing a cluster's data")?;
    Ok(all)
}
