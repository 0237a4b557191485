//! `raft-host replay`: re-executes the log of a stopped node.

mod module;
mod report;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use raft_host_proto::v1;

use self::report::Report;
use super::answer::{Answer, ShowOptions};
use super::exit::{Ended, Failure};
use super::input::{Place, parse_place, parse_source};
use super::offline::{self, Stopped, restored};
use super::output::{AnswerForm, Output};
use crate::api::outcome_to_wire;
use crate::fsm::{SharedLoader, on_guest_stack};
use crate::machine::{QueryReply, QueryResult};
use crate::replay::{AnyEngine, ReplayError, Replayer, Step, compare};
use crate::types::Index;

/// Re-executes the committed log of a node that does not run, and says where what it stored
/// differs from that.
///
/// Reads the data directory and changes nothing in it; the log is copied to a temporary directory
/// (TMPDIR). Exit code 0 only if nothing differs.
#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArgs {
    /// The data directory of a stopped node; or a backup, which answers --query.
    #[arg(value_name = "DATA_DIR|BACKUP")]
    data_dir: PathBuf,
    /// Begin with the newest snapshot at or before this index [default: the oldest snapshot].
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// End after this entry, such as 17, or after this command of it, such as 17.3 [default: the last one known to
    /// be committed].
    #[arg(long, value_name = "POSITION", value_parser = parse_place, alias = "to")]
    until: Option<Place>,
    /// The data directory of another stopped node of the cluster: re-execute both, and find the
    /// first index at which they differ. Or a module (a .wasm file): find the first command that it answers
    /// otherwise than the active one.
    #[arg(long, value_name = "DATA_DIR|FILE", conflicts_with = "trace")]
    against: Option<PathBuf>,
    /// With a module for --against: go on after the first difference, and count all of them by kind.
    #[arg(long, requires = "against")]
    all: bool,
    /// Execute it with the engine that this program offers, whatever profile the cluster has: tells whether another
    /// version of raft-host comes to the same states, before any node runs it.
    #[arg(long, conflicts_with_all = ["against", "query"])]
    offered_engine: bool,
    /// Show each command with what it is, its answer, its events and its fuel.
    #[arg(long)]
    trace: bool,
    /// Ask the state machine this, as it was at a position, and show nothing but the answer; @FILE reads it from a
    /// file.
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["against", "trace", "verbose", "until"])]
    query: Option<String>,
    /// The position for --query: 17 is after entry 17, 17.3 after its fourth command [default: the last entry known
    /// to be committed].
    #[arg(long, value_name = "POSITION", value_parser = parse_place, requires = "query")]
    at: Option<Place>,
    /// Show each entry, with the digest of the state after it.
    #[arg(short, long)]
    verbose: bool,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

impl ReplayArgs {
    /// How results and failures are printed.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    fn shows_entries(&self) -> bool {
        self.verbose || self.trace
    }
}

pub(super) fn run(args: &ReplayArgs) -> Ended {
    on_guest_stack("replay", || replay(args))
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?
}

fn replay(args: &ReplayArgs) -> Ended {
    if args.data_dir.is_file() {
        return ask_backup(args);
    }
    let node = Stopped::open(&args.data_dir)?;
    match (&args.query, &args.against) {
        (Some(query), _) => ask(args, &node, query),
        (None, Some(module)) if module.is_file() => module::compare(args, &node, module),
        (None, Some(other)) if args.all => Err(Failure::usage(format!(
            "--all is for a module, and {} is none: what two nodes did is compared up to the first difference",
            other.display()
        ))),
        (None, other) => re_execute(args, &node, other.as_deref()),
    }
}

/// Executes what a node did once more, and compares; or what two nodes did.
fn re_execute(args: &ReplayArgs, node: &Stopped, other: Option<&Path>) -> Ended {
    let mut loader = offline::loader()?;
    if args.offered_engine {
        loader = Arc::new(AnyEngine(loader));
    }
    let mut replayer = begin(args, node, &loader)?;
    let mut report = Report::new(args, node.name.clone());
    let until = end(&replayer, &node.name, "--until", args.until)?;
    match other {
        None => {
            let mut each = |step: &Step| report.step(0, step);
            replayer.go_to(until.index, until.ordinal, args.verbose, &mut each)?;
            report.began = replayer.began();
            report.ended = replayer.applied();
        }
        Some(other) => {
            let other = Stopped::open(other)?;
            if other.cluster != node.cluster {
                return Err(Failure::new(format!(
                    "{} is of cluster {} and {} of cluster {}: they have nothing in common",
                    node.name, node.cluster, other.name, other.cluster
                )));
            }
            let mut second = begin(args, &other, &loader)?;
            report.nodes.push(other.name.clone());
            let mut printed = Ok(());
            let each = |side, step: &Step| {
                if printed.is_ok() {
                    printed = report.step(side, step);
                }
            };
            let to = args.until.map(|until| until.index);
            let found = compare(&mut replayer, &mut second, to, each);
            printed?;
            let found = found.map_err(failed)?;
            report.began = found.began;
            report.ended = replayer.applied();
            report.comparison = Some(found);
        }
    }
    report.print()
}

fn begin(args: &ReplayArgs, node: &Stopped, loader: &SharedLoader) -> Result<Replayer, Failure> {
    let mut replayer = node.replayer(loader, args.from.map(Index))?;
    if args.trace {
        replayer.watch();
    }
    Ok(replayer)
}

/// Where to end.
fn end(
    replayer: &Replayer,
    name: &str,
    option: &str,
    until: Option<Place>,
) -> Result<Place, Failure> {
    let (began, last) = (replayer.began(), replayer.last());
    match until {
        Some(until) if until.index > last => Err(Failure::usage(format!(
            "{option} {until} is beyond the last entry of {name} that is known to be committed, {last}"
        ))),
        // Of what led to a state that is retained, nothing is left.
        Some(until) if until.index < began || (until.index == began && until.ordinal.is_some()) => {
            Err(Failure::usage(format!(
                "{option} {until} is before the oldest state that {name} retains, at index {began}: its log begins at \
             index {}",
                began.next()
            )))
        }
        until => Ok(until.unwrap_or(Place { index: last, ordinal: None })),
    }
}

/// Asks the state as it was.
fn ask(args: &ReplayArgs, node: &Stopped, query: &str) -> Ended {
    let query = parse_source(query).read()?;
    let loader = offline::loader()?;
    // The newest state that is not behind it; a position before the oldest one is told as such.
    let from = args.at.map_or(Index(u64::MAX), |at| match at.ordinal {
        None => at.index,
        Some(_) => Index(at.index.0.saturating_sub(1)),
    });
    let from = Some(args.from.map_or(from, |wanted| from.min(Index(wanted))));
    let newest = node.replayer(&loader, from).or_else(|_| node.replayer(&loader, None));
    let mut replayer = newest?;
    let at = end(&replayer, &node.name, "--at", args.at)?;
    let mut each = |step: &Step| match step.differences.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{} stored another state at index {} than its log leads to, so nothing is known for certain: \
             `raft-host replay` says more",
            node.name, step.position.index
        ))),
    };
    replayer.go_to(at.index, at.ordinal, false, &mut each)?;
    answer(args, replayer.query(&query).map_err(failed)?)
}

/// Asks the state in a backup.
fn ask_backup(args: &ReplayArgs) -> Ended {
    let name = args.data_dir.display();
    let Some(query) = &args.query else {
        return Err(Failure::usage(format!(
            "{name} is a file: a backup holds one state and no commands, so ask it with --query QUERY, or try a \
             module with `raft-host rehearse FILE --backup {name}`"
        )));
    };
    let query = parse_source(query).read()?;
    let (_, _, mut machine) = restored(&args.data_dir)?;
    let index = machine.applied_index();
    if let Some(at) = args.at.filter(|at| *at != Place { index, ordinal: None }) {
        return Err(Failure::usage(format!(
            "--at {at}: the backup {name} holds the state after entry {index}, and no other"
        )));
    }
    answer(args, machine.query(&query).map_err(|error| Failure::new(error.to_string()))?)
}

/// Prints it as `raft-host query` does.
fn answer(args: &ReplayArgs, reply: QueryReply) -> Ended {
    let QueryReply { result, fuel_used, trap_message, applied } = reply;
    let outcome = match result {
        QueryResult::Answer(outcome) => outcome,
        QueryResult::NoModule => return Err(Failure::new("no module was active there")),
        QueryResult::NoQueryExport => {
            return Err(Failure::new("the module that was active there answers no queries"));
        }
        QueryResult::TooLarge { bytes, max } => {
            let words = format!("the query has {bytes} bytes, more than the limit of {max} there");
            return Err(Failure::new(words));
        }
        QueryResult::Unanswered(reason) => return Err(Failure::new(reason)),
    };
    let response = v1::QueryResponse {
        outcome: Some(outcome_to_wire(outcome)),
        applied_index: applied.0,
        fuel_used,
        trap_message: trap_message.unwrap_or_default(),
        age_ms: None,
    };
    let (output, form, verbose) = (args.output, AnswerForm::Readable, false);
    Answer::of_query(response)?.show(ShowOptions { output, form, verbose })
}

fn failed(error: ReplayError) -> Failure {
    error.into()
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Failure {
        Failure::new(error.to_string())
    }
}
