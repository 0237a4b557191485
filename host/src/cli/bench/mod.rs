//! `raft-host bench`: how fast a cluster is.
//!
//! Closed loop: each client waits for its answer before it asks again, so throughput and
//! latency belong together. The load generator runs on one thread, because it usually shares
//! the machine with the servers.

mod fairness;
mod idle;
mod in_process;
mod load;
mod measure;
mod memory;
mod over_grpc;
mod plugins;
mod turns;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::load::{Generator, KV_COMMAND, KV_QUERY, Template};
use self::measure::Measured;
use self::turns::Comparison;
use super::exit::{Ended, Exit, Failure};
use super::output::{Output, print_json, print_text};
use super::remote::{self, RemoteArgs};
use crate::fsm::Context;
use crate::types::{ActorName, ClusterId, Index, Position};

/// Measures throughput and latency of a cluster.
///
/// Without further options: 256 callers of one client, as a program uses it, that each send one
/// `set` of the kv plugin after the other, 256 bytes long, to the leader. Other state machines take --command and --query.
#[derive(Args, Clone, Debug)]
pub(super) struct BenchArgs {
    /// shared: the clients are callers of one client of the library, whose requests travel together.
    /// unary: each sends one request and waits. stream: each sends batches of commands over one stream.
    #[arg(long, value_enum, default_value_t = Mode::Shared)]
    mode: Mode,
    /// write: commands. read: linearizable queries.
    #[arg(long, value_enum, default_value_t = Op::Write)]
    op: Op,
    /// With --op read: queries that any node answers from what it has applied.
    #[arg(long)]
    stale: bool,
    /// Clients at the same time [default: 256; 4 with --mode stream].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    clients: Option<u32>,
    /// Connections that clients share whose requests are their own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,
    /// Commands of a stream that may wait for their answers.
    #[arg(long, default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    window: u32,
    /// Commands in one message of a stream.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Length of a command in bytes; the value is as long as that needs.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Number of different keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Seconds before that.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    warmup: u32,
    /// The command: a text with {key} and {value} in it.
    #[arg(long, value_name = "TEMPLATE", default_value = KV_COMMAND, hide_default_value = true)]
    command: String,
    /// The query: a text with {key} in it.
    #[arg(long, value_name = "TEMPLATE", default_value = KV_QUERY, hide_default_value = true)]
    query: String,
    /// Spread the clients over the given endpoints, instead of sending all to the leader.
    #[arg(long, conflicts_with = "in_process")]
    spread: bool,
    /// Measure two things in turns and compare them: the modes unary and shared, or with
    /// --in-process the native machine and the wasm module.
    #[arg(long, conflicts_with_all = ["fsm", "memory", "plugins"])]
    compare: bool,
    /// Measure commands of three kinds of callers, each alone and then all at once: one with commands of
    /// 1 MiB, one stream at full speed, and 100 callers of one client.
    #[arg(long, conflicts_with_all = ["fsm", "memory", "plugins", "in_process", "compare", "mode", "op", "clients"])]
    fairness: bool,
    /// With --compare: how often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100), requires = "compare")]
    rounds: u8,
    #[command(flatten)]
    in_process: InProcessArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    plugins: PluginsArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Options of a guest in this process, without a cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The memory of a guest")]
struct MemoryArgs {
    /// Measure what checkpoints, snapshots, restarts, traps and parallel queries cost with a
    /// large guest, beside the same without the kernel's help.
    #[arg(long, conflicts_with_all = ["in_process", "spread"])]
    memory: bool,
    /// What the guest stores, in MiB.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(8..=3_072), requires = "memory")]
    heap_mib: u32,
    /// An existing directory on the disk to measure; that of temporary files if none is given.
    #[arg(long, value_name = "DIR", requires = "memory")]
    on_disk: Option<PathBuf>,
}

/// Options of several modules in this process, without a cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Plugins against each other")]
struct PluginsArgs {
    /// Measure what applying --command costs these modules: time and fuel, beside the first of
    /// them. In turns, so that what else the machine does meets all alike.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "command",
          conflicts_with_all = ["in_process", "spread", "memory", "mode", "op", "stale",
                                "clients", "connections", "warmup"])]
    plugins: Vec<PathBuf>,
}

/// Options of a cluster in this process.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "In this process")]
struct InProcessArgs {
    /// Start a cluster in this process (durable logs, gRPC between the nodes over loopback)
    /// and call it without RPC: the shape in which Raft libraries are measured.
    #[arg(long)]
    in_process: bool,
    /// The state machine.
    #[arg(long, value_enum, default_value_t = FsmKind::Native, requires = "in_process")]
    fsm: FsmKind,
    /// The module of --fsm wasm; the sample key-value store if none is given.
    #[arg(long, value_name = "FILE", requires = "in_process")]
    module: Option<PathBuf>,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7), requires = "in_process")]
    nodes: u8,
    /// Measure what idle groups cost instead: one, then two, up to so many on the same nodes.
    #[arg(long, value_name = "GROUPS", value_parser = clap::value_parser!(u32).range(1..=256),
          requires = "in_process", conflicts_with = "compare")]
    idle_groups: Option<u32>,
    /// Where the nodes keep their data; must be empty. A temporary directory if none is given,
    /// which measures little where /tmp is kept in memory.
    #[arg(long, value_name = "DIR", requires = "in_process")]
    data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Shared,
    Unary,
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Op {
    Write,
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FsmKind {
    /// The key-value store in the host's own process.
    Native,
    /// A wasm module.
    Wasm,
    /// A native machine that does next to nothing.
    Null,
}

impl InProcessArgs {
    fn fsm_name(&self) -> &'static str {
        match self.fsm {
            FsmKind::Native => "native",
            FsmKind::Wasm => "wasm",
            FsmKind::Null => "null",
        }
    }
}

impl BenchArgs {
    /// How the result is printed.
    pub(super) fn output(&self) -> Output {
        self.remote.output
    }

    /// Whether a cluster is asked, and not modules or nodes in this process.
    pub(super) fn asks_cluster(&self) -> bool {
        !(self.in_process.in_process || self.memory.memory || !self.plugins.plugins.is_empty())
    }

    /// Whether there are callers, who wait for so long.
    pub(super) fn has_callers(&self) -> bool {
        self.asks_cluster() || self.in_process.in_process
    }

    /// Whether the given endpoints are loaded, and not the leader.
    pub(super) fn spreads(&self) -> bool {
        self.spread
    }

    /// What the configuration file may complete.
    pub(super) fn remote_mut(&mut self) -> &mut RemoteArgs {
        &mut self.remote
    }

    fn clients(&self) -> usize {
        let default = match self.mode {
            Mode::Shared | Mode::Unary => 256,
            Mode::Stream => 4,
        };
        self.clients.unwrap_or(default) as usize
    }

    fn fsm_name(&self) -> &'static str {
        match self.compare {
            true => "native and wasm",
            false => self.in_process.fsm_name(),
        }
    }

    fn commands(&self) -> Generator {
        let template = Template::parse(&self.command);
        Generator::new(template, self.size as usize, u64::from(self.keys), 1)
    }

    fn queries(&self) -> Generator {
        Generator::new(Template::parse(&self.query), 0, u64::from(self.keys), 2)
    }

    fn warmup(&self) -> Duration {
        Duration::from_secs(self.warmup.into())
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// What was measured, in the words of the options.
    fn setup(&self) -> Value {
        let mode = match self.mode {
            Mode::Shared if !self.asks_cluster() => "unary",
            Mode::Shared if self.compare => "unary and shared",
            Mode::Shared => "shared",
            Mode::Unary => "unary",
            Mode::Stream => "stream",
        };
        let op = match (self.op, self.stale) {
            (Op::Write, _) => "write",
            (Op::Read, false) => "read",
            (Op::Read, true) => "stale_read",
        };
        let mut setup = json!({
            "mode": mode,
            "op": op,
            "clients": self.clients(),
            "keys": self.keys,
            "warmup_seconds": self.warmup,
        });
        if self.op == Op::Write {
            setup["command_bytes"] = json!(self.commands().command(0).len());
        }
        if self.in_process.in_process {
            setup["in_process"] = json!(true);
            setup["nodes"] = json!(self.in_process.nodes);
            setup["fsm"] = json!(self.fsm_name());
        }
        if mode == "stream" {
            setup["window"] = json!(self.window);
            setup["batch"] = json!(self.batch);
        }
        setup
    }

    fn title(&self) -> String {
        let what = match (self.op, self.stale) {
            (Op::Write, _) => format!("commands of {} bytes", self.commands().command(0).len()),
            (Op::Read, false) => "linearizable queries".to_owned(),
            (Op::Read, true) => "stale queries".to_owned(),
        };
        let clients = self.clients();
        if self.in_process.in_process {
            return format!(
                "{what}, {clients} callers, {} node(s) in this process, {} state machine",
                self.in_process.nodes,
                self.fsm_name()
            );
        }
        match self.mode {
            Mode::Shared => format!("{what}, {clients} callers of one client"),
            Mode::Unary => format!("{what}, {clients} clients"),
            Mode::Stream => format!(
                "{what}, {clients} streams, {} in flight on each, {} in a message",
                self.window, self.batch
            ),
        }
    }
}

pub(super) fn run(args: &BenchArgs) -> Ended {
    if args.op == Op::Read && args.mode == Mode::Stream {
        return Err(Failure::usage("--mode stream is for commands: leave it away"));
    }
    if args.stale && args.op == Op::Write {
        return Err(Failure::usage("--stale is for queries: add --op read"));
    }
    if args.memory.memory {
        let report = memory::measure(&args.memory)?;
        print(args, || report.to_json(), || report.to_text())?;
        return Ok(Exit::Done);
    }
    if !args.plugins.plugins.is_empty() {
        let report = plugins::measure(args)?;
        print(args, || report.to_json(), || report.to_text())?;
        return Ok(Exit::Done);
    }
    if !args.in_process.in_process && args.compare {
        if args.mode != Mode::Shared {
            return Err(Failure::usage(
                "--compare measures the modes unary and shared: leave --mode away",
            ));
        }
        return show_comparison(args, &remote::block_on(over_grpc::compare(args))?);
    }
    if args.fairness {
        let report = remote::block_on(fairness::measure(args))?;
        report.measured().try_for_each(must_have_operations)?;
        print(args, || report.to_json(), || report.to_text())?;
        return Ok(Exit::Done);
    }
    if !args.in_process.in_process {
        return show(args, &remote::block_on(over_grpc::run(args))?);
    }
    if args.mode == Mode::Stream {
        return Err(Failure::usage(
            "callers in this process have no streams: leave --mode stream away",
        ));
    }
    if args.compare {
        return show_comparison(args, &in_process::compare(args)?);
    }
    if let Some(groups) = args.in_process.idle_groups {
        let report = idle::measure(args, groups)?;
        print(args, || report.to_json(), || report.to_text())?;
        return Ok(Exit::Done);
    }
    show(args, &in_process::measure(args)?)
}

fn must_have_operations(measured: &Measured) -> Result<(), Failure> {
    if measured.operations() > 0 {
        return Ok(());
    }
    Err(Failure {
        exit: Exit::Unavailable,
        ..Failure::new(match measured.any_error() {
            Some(error) => format!("not one operation ended well: {error}"),
            None => "not one operation ended within the time".to_owned(),
        })
    })
}

/// Prints a report in the form that is asked for.
fn print(
    args: &BenchArgs,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match args.output() {
        Output::Json => print_json(&json()),
        Output::Table => print_text(&text()),
    }
}

/// As [`print`], of a load: with what it was.
fn print_load(
    args: &BenchArgs,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let json = || {
        let mut value = json();
        value["setup"] = args.setup();
        value
    };
    print(args, json, || format!("{}\n\n{}", args.title(), text()))
}

fn show(args: &BenchArgs, measured: &Measured) -> Ended {
    must_have_operations(measured)?;
    print_load(args, || measured.to_json(), || measured.to_text())?;
    Ok(if measured.failed > 0 { Exit::Failed } else { Exit::Done })
}

fn show_comparison(args: &BenchArgs, comparison: &Comparison) -> Ended {
    let measured = comparison.measured();
    measured.iter().try_for_each(must_have_operations)?;
    print_load(args, || comparison.to_json(), || comparison.to_text())?;
    Ok(if measured.iter().any(|it| it.failed > 0) { Exit::Failed } else { Exit::Done })
}

/// Where the entry with this index stands, for guests without a cluster around them.
fn context(index: u64) -> Context {
    let position = Position::first(Index(index));
    Context {
        cluster: ClusterId([7; 16]),
        position,
        time_ms: 1_000 + index,
        actor: ActorName::NONE,
    }
}
