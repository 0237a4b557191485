//! `raft-host replay`: re-executes the log of a stopped node.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, human_count, print_json, print_text};
use crate::fsm::{SharedLoader, on_guest_stack};
use crate::machine::Reply;
use crate::replay::{
    Answered, Comparison, Difference, Divergence, ReplayError, Replayer, Source, Step, compare,
};
use crate::storage::{DataDir, StorageConfig};
use crate::types::{GroupId, Index, Outcome, Position, StateDigest};
use crate::wasm::WasmLoader;

/// Re-executes the committed log of a node that does not run, and says where what it stored
/// differs from that.
///
/// Reads the data directory and changes nothing in it; the log is copied to a temporary directory
/// (TMPDIR). Exit code 0 only if nothing differs.
#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArgs {
    /// The data directory of a stopped node.
    data_dir: PathBuf,
    /// Begin with the newest snapshot at or before this index [default: the oldest snapshot].
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// End after this index [default: the last one known to be committed].
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
    /// The data directory of another stopped node of the cluster: re-execute both, and find the
    /// first index at which they differ.
    #[arg(long, value_name = "DATA_DIR")]
    against: Option<PathBuf>,
    /// Show each entry.
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
}

pub(super) fn run(args: &ReplayArgs) -> Ended {
    on_guest_stack("replay", || replay(args))
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?
}

fn replay(args: &ReplayArgs) -> Ended {
    let loader: SharedLoader =
        Arc::new(WasmLoader::new(None).map_err(|error| Failure::new(error.to_string()))?);
    let from = args.from.map(Index);
    let mut node = Stopped::open(&args.data_dir, from, &loader)?;
    let mut report = Report::new(args, node.name.clone());
    let to = node.end(args.to.map(Index))?;
    match &args.against {
        None => {
            while node.replayer.applied() < to {
                let step = node.replayer.step(args.verbose).map_err(failed)?;
                let Some(step) = step else { break };
                report.step(0, &step)?;
            }
            report.began = node.replayer.began();
            report.ended = node.replayer.applied();
        }
        Some(other) => {
            let mut other = Stopped::open(other, from, &loader)?;
            if other.cluster != node.cluster {
                return Err(Failure::new(format!(
                    "{} is of cluster {} and {} of cluster {}: they have nothing in common",
                    node.name, node.cluster, other.name, other.cluster
                )));
            }
            report.nodes.push(other.name.clone());
            let mut printed = Ok(());
            let each = |side, step: &Step| {
                if printed.is_ok() {
                    printed = report.step(side, step);
                }
            };
            let to = args.to.map(Index);
            let found = compare(&mut node.replayer, &mut other.replayer, to, each);
            printed?;
            let found = found.map_err(failed)?;
            report.began = found.began;
            report.ended = node.replayer.applied();
            report.comparison = Some(found);
        }
    }
    report.print()
}

fn failed(error: ReplayError) -> Failure {
    Failure::new(error.to_string())
}

/// A node that does not run, locked so that it stays so.
struct Stopped {
    name: String,
    cluster: crate::types::ClusterId,
    replayer: Replayer,
    /// Dropped after the stores that are in it.
    _scratch: tempfile::TempDir,
    _dir: DataDir,
}

impl Stopped {
    fn open(path: &Path, from: Option<Index>, loader: &SharedLoader) -> Result<Stopped, Failure> {
        let storage = |error: crate::storage::StorageError| Failure::new(error.to_string());
        let dir = DataDir::lock_stopped(path).map_err(storage)?;
        let identity = dir.identity().expect("a stopped node's directory has one");
        let scratch = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("no temporary directory: {error}")))?;
        let stores = dir.open_copies(&StorageConfig::default(), scratch.path()).map_err(storage)?;
        let cluster = identity.cluster;
        let loader = SharedLoader::clone(loader);
        let mut replayer = Replayer::new(stores, cluster, GroupId::MAIN, loader, from)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        replayer.look_at(evidence(&path.join("evidence"))?);
        let name = format!("node {} ({})", identity.node, path.display());
        Ok(Stopped { name, cluster, replayer, _scratch: scratch, _dir: dir })
    }

    fn end(&self, to: Option<Index>) -> Result<Index, Failure> {
        let last = self.replayer.last();
        match to {
            Some(to) if to > last => Err(Failure::usage(format!(
                "--to {to} is beyond the last entry of {} that is known to be committed, {last}",
                self.name
            ))),
            Some(to) if to < self.replayer.began() => Err(Failure::usage(format!(
                "--to {to} is before the snapshot that {} begins with, {}",
                self.name,
                self.replayer.began()
            ))),
            to => Ok(to.unwrap_or(last)),
        }
    }
}

/// What is told at the end.
struct Report<'a> {
    args: &'a ReplayArgs,
    nodes: Vec<String>,
    began: Index,
    ended: Index,
    /// By node.
    differences: Vec<(usize, Difference)>,
    comparison: Option<Comparison>,
    /// For JSON.
    entries: Vec<Value>,
}

impl<'a> Report<'a> {
    fn new(args: &'a ReplayArgs, node: String) -> Report<'a> {
        Report {
            args,
            nodes: vec![node],
            began: Index(0),
            ended: Index(0),
            differences: Vec::new(),
            comparison: None,
            entries: Vec::new(),
        }
    }

    fn is_json(&self) -> bool {
        self.args.output() == Output::Json
    }

    fn step(&mut self, side: usize, step: &Step) -> Result<(), Failure> {
        let differences = step.differences.iter().cloned();
        self.differences.extend(differences.map(|difference| (side, difference)));
        if !self.args.verbose {
            return Ok(());
        }
        if self.is_json() {
            self.entries.extend(entry_json(side, step));
            return Ok(());
        }
        let side = if self.nodes.len() > 1 { format!("{} ", side + 1) } else { String::new() };
        entry_text(step).try_for_each(|line| print_text(&format!("{side}{line}")))
    }

    fn agrees(&self) -> bool {
        let diverged = self.comparison.as_ref().is_some_and(|found| found.divergence.is_some());
        self.differences.is_empty() && !diverged
    }

    fn print(&self) -> Ended {
        match self.is_json() {
            true => print_json(&self.to_json())?,
            false => print_text(&self.text())?,
        }
        if self.agrees() { Ok(Exit::Done) } else { Ok(Exit::Failed) }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for (side, difference) in &self.differences {
            lines.push(format!("{}: {}", self.nodes[*side], difference_text(difference)));
        }
        match &self.comparison {
            None if lines.is_empty() => lines.push(format!(
                "{}: re-executed from the snapshot at index {} to index {}; nothing differs",
                self.nodes[0], self.began, self.ended
            )),
            None => {}
            Some(found) => lines.push(self.comparison_text(found)),
        }
        lines.join("\n")
    }

    fn comparison_text(&self, found: &Comparison) -> String {
        let both = self.nodes.join(" and ");
        match &found.divergence {
            None => format!(
                "{both}: agree from index {} up to index {}",
                found.began,
                found.agreed.unwrap_or(found.began)
            ),
            Some(Divergence::Start(index)) => format!(
                "{both}: their states differ already at index {index}, where the comparison \
                 begins: at least one of their snapshots is wrong, or they differed before"
            ),
            Some(Divergence::Entry(index)) => format!(
                "{both}: agree up to index {}; their logs hold different committed entries at \
                 index {index}",
                index.0 - 1
            ),
            Some(Divergence::Execution { index, what }) => format!(
                "{both}: agree up to index {}; the entry at index {index} led to another {}",
                index.0 - 1,
                what.join(", another ")
            ),
        }
    }

    fn to_json(&self) -> Value {
        let differences = self.differences.iter().map(|(side, difference)| {
            let Difference { from, index, agreed, theirs, replayed, memory } = difference;
            let ranges = memory.iter().map(|range| [range.start, range.end]);
            json!({
                "node": self.nodes[*side],
                "kind": from.name(),
                "index": index.0,
                "agreed_index": agreed.0,
                "stored_digest": theirs.to_string(),
                "replayed_digest": replayed.to_string(),
                "memory_ranges": ranges.collect::<Vec<_>>(),
            })
        });
        let mut value = json!({
            "nodes": self.nodes,
            "from_index": self.began.0,
            "to_index": self.ended.0,
            "agrees": self.agrees(),
            "differences": differences.collect::<Vec<_>>(),
        });
        if let Some(found) = &self.comparison {
            let (kind, what) = match &found.divergence {
                None => ("none", vec![]),
                Some(Divergence::Start(_)) => ("start", vec![]),
                Some(Divergence::Entry(_)) => ("entry", vec![]),
                Some(Divergence::Execution { what, .. }) => ("execution", what.clone()),
            };
            value["comparison"] = json!({
                "agreed_index": found.agreed.map(|index| index.0),
                "first_difference": found.divergence.as_ref().map(|it| it.index().0),
                "kind": kind,
                "what": what,
            });
        }
        if self.args.verbose {
            value["entries"] = json!(self.entries);
        }
        value
    }
}

fn difference_text(difference: &Difference) -> String {
    let Difference { from, index, agreed, theirs, replayed, memory } = difference;
    let found = match from {
        Source::Snapshot => "its snapshot holds another state than its log leads to",
        Source::Verdict => "most voters found another state than its log leads to here",
        Source::Evidence => {
            "the state that was quarantined is another than its log leads to: the memory, disk or \
             processor of that node failed, and re-execution mends it"
        }
    };
    let mut text = format!(
        "index {index}: {found}; something went wrong after index {agreed} (there {}, re-executed {})",
        theirs.short(),
        replayed.short()
    );
    if !memory.is_empty() {
        const LISTED_MAX: usize = 8;
        let ranges = memory.iter().take(LISTED_MAX);
        let ranges: Vec<String> =
            ranges.map(|range| format!("{:#x}..{:#x}", range.start, range.end)).collect();
        let more = if memory.len() > LISTED_MAX { ", …" } else { "" };
        text.push_str(&format!("; guest memory differs in {}{more}", ranges.join(", ")));
    }
    text
}

/// A line for each command; the digest is that after the last.
fn entry_text(step: &Step) -> impl Iterator<Item = String> {
    answers(step).map(|(position, answered, digest)| {
        format!(
            "{:>10}  term {:<4}  {:<15}  {:<28}  fuel {:>12}  {}",
            position.to_string(),
            step.position.term.0,
            step.kind,
            reply_text(&answered.reply),
            human_count(answered.fuel_used),
            digest.map_or("-".to_owned(), StateDigest::short),
        )
    })
}

fn entry_json(side: usize, step: &Step) -> impl Iterator<Item = Value> {
    answers(step).map(move |(position, answered, digest)| {
        json!({
            "node": side,
            "index": position.index.0,
            "ordinal": position.ordinal,
            "term": step.position.term.0,
            "kind": step.kind,
            "reply": reply_text(&answered.reply),
            "fuel_used": answered.fuel_used,
            "digest": digest.map(StateDigest::to_string),
        })
    })
}

fn answers(step: &Step) -> impl Iterator<Item = (Position, &Answered, Option<&StateDigest>)> {
    let last = step.answers.len().saturating_sub(1);
    step.answers.iter().enumerate().map(move |(at, answered)| {
        let position = Position { index: step.position.index, ordinal: at as u32 };
        (position, answered, step.digest.as_ref().filter(|_| at == last))
    })
}

/// The quarantined states that a node kept, by the index of their last entry.
fn evidence(dir: &Path) -> Result<BTreeMap<Index, PathBuf>, Failure> {
    let unreadable =
        |path: &Path, error: &dyn Display| Failure::new(format!("{}: {error}", path.display()));
    let places = match std::fs::read_dir(dir) {
        Ok(places) => places,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(dir, &error)),
    };
    let mut found = BTreeMap::new();
    for place in places {
        let place = place.map_err(|error| unreadable(dir, &error))?.path();
        // One that a crash left half written is not evidence.
        if place.extension().is_some() {
            continue;
        }
        let report = place.join("report.json");
        let text = std::fs::read(&report).map_err(|error| unreadable(&report, &error))?;
        let text: Value =
            serde_json::from_slice(&text).map_err(|error| unreadable(&report, &error))?;
        let index = text["state_index"]
            .as_u64()
            .ok_or_else(|| unreadable(&report, &"it has no state_index"))?;
        found.insert(Index(index), place.join("state.snapshot"));
    }
    Ok(found)
}

/// What became of an entry, in a few words.
fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Nothing => "-".to_owned(),
        Reply::Command(outcome) => outcome_text(outcome),
        Reply::Waiting(_) => "waits".to_owned(),
        Reply::NoModule => "no module".to_owned(),
        Reply::Refused(_) => "refused".to_owned(),
        Reply::SessionOpened { .. } => "opened".to_owned(),
        Reply::SessionKept { .. } => "kept".to_owned(),
        Reply::SessionClosed => "closed".to_owned(),
        Reply::ChunkStored { received, total } => format!("{received} of {total} bytes"),
        Reply::ChunkRefused(_)
        | Reply::LimitsRefused(_)
        | Reply::EngineRefused(_)
        | Reply::KeysRefused(_)
        | Reply::ClockRefused(_)
        | Reply::AccessRefused(_) => "refused".to_owned(),
        Reply::Activated { hash, .. } => format!("active: {}", hash.short()),
        Reply::AlreadyActive { .. } => "active already".to_owned(),
        Reply::ActivationFailed(_) => "not activated".to_owned(),
        Reply::NotSigned(_) => "not signed".to_owned(),
        Reply::ActivationSuperseded { .. } => "superseded".to_owned(),
        Reply::LimitsSet { .. }
        | Reply::EngineSet { .. }
        | Reply::KeysSet(_)
        | Reply::LevelSet { .. }
        | Reply::ClockSet { .. }
        | Reply::AccessSet { .. } => "set".to_owned(),
        Reply::DigestTaken { digest, .. } => format!("digest {}", digest.short()),
        Reply::DigestJudged(verdict) => format!("verdict about {}", verdict.point),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(answer) => format!("ok, {} bytes", answer.len()),
        Outcome::Rejected(_) => "rejected".to_owned(),
        Outcome::Trapped(kind) => format!("trapped: {}", kind.name()),
        Outcome::Duplicate(first) => format!("duplicate of {}", outcome_text(first)),
    }
}
