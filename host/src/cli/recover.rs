//! `raft-host recover`: a new cluster of what is left of one, when too many of its nodes are gone for good.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::backup::Target;
use super::exit::{Ended, Exit, Failure};
use super::output::{Output, facts, human_time, print_json, print_text};
use super::progress::Steps;
use super::successor::certificates_needed;
use crate::backup::wall_clock_ms;
use crate::fsm::on_guest_stack;
use crate::recovery::{Document, Plan, PlanError, Survivor, Watch};
use crate::server::{RecoverFailure, Recovered, inspect_dir, recover, verify};
use crate::types::Index;

/// Makes a new cluster of what is left of one. Asks no running node.
///
/// For a cluster that has lost so many nodes for good that the others are no majority. Stop those that
/// are left, run `inspect` on each, bring the files together, and `plan`: it chooses the node that knows the
/// most and says what that keeps and what may be lost. `apply` makes of that node's directory a new cluster
/// with one voter, which others join; the old contents stay beside it. `now` does all of it where one node is
/// left. Nodes and clients of the new cluster need certificates that name it, if they show any: `apply` says
/// how to make them.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct RecoverArgs {
    #[command(subcommand)]
    action: Action,
    /// Text for people or JSON for scripts.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

#[derive(Args, Clone, Debug)]
struct Place {
    /// The data directory of a stopped node.
    #[arg(
        long,
        value_name = "DIR",
        env = "RAFT_HOST_DATA_DIR",
        default_value = "./raft-host-data"
    )]
    data_dir: PathBuf,
}

#[derive(Args, Clone, Debug)]
struct Address {
    /// Address that others will be told to dial: what the node will be started with [default: the one
    /// that it had].
    #[arg(long, value_name = "HOST:PORT", value_parser = super::remote::parse_address)]
    advertise: Option<String>,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Says what a stopped node holds, and writes it to a small file for `plan`. Changes nothing in the
    /// directory; executes its log, so it takes as long as a start and as much memory.
    Inspect {
        /// Where to write it; - is standard output. A file that is there is left alone.
        #[arg(value_name = "FILE|-")]
        file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Says what a new cluster can be made of, what that keeps and what may be lost, and writes it to a small
    /// file for `apply`. Changes nothing else.
    Plan {
        /// What `inspect` wrote on each node that is left.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where to write the plan; - is standard output. A file that is there is left alone.
        #[arg(long, value_name = "FILE|-")]
        out: Option<PathBuf>,
        /// Make the plan although commands that were acknowledged may be lost.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Makes the new cluster, in the directory of the node that the plan chose. Interrupted, it goes on when
    /// it is run again.
    Apply {
        /// What `plan` wrote.
        plan: PathBuf,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        address: Address,
    },
    /// Checks that the new cluster begins with the state that the old contents lead to. Before it is started.
    Verify {
        /// What `plan` wrote.
        plan: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// All of it, where one node is left: shows the plan, asks, makes the new cluster and checks it.
    Now {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        address: Address,
        /// Go on although commands that were acknowledged may be lost.
        #[arg(long)]
        accept_loss: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: &RecoverArgs) -> Ended {
    let output = args.output;
    match &args.action {
        Action::Inspect { file, place } => inspect(output, file.as_deref(), &place.data_dir),
        Action::Plan { files, out, accept_loss } => {
            make_plan(output, files, out.as_deref(), *accept_loss)
        }
        Action::Apply { plan, place, address } => {
            let plan = read::<Plan>(plan)?;
            let recovered = apply(&place.data_dir, &plan, address)?;
            tell(output, &place.data_dir, &recovered, None)
        }
        Action::Verify { plan, place } => {
            let plan = read::<Plan>(plan)?;
            let (recovered, digest) = watched(|watch| verify(&place.data_dir, &plan, watch))?;
            let digest = digest.to_string();
            match output {
                Output::Json => print_json(&to_json(&place.data_dir, &recovered, Some(&digest)))?,
                Output::Table => print_text(&format!(
                    "{}: cluster {} begins with what node {} of cluster {} held up to entry {} (digest {digest})",
                    place.data_dir.display(),
                    recovered.cluster,
                    plan.chosen.node,
                    plan.chosen.cluster,
                    plan.chosen.last.index,
                ))?,
            }
            Ok(Exit::Done)
        }
        Action::Now { place, address, accept_loss, yes } => {
            now(output, &place.data_dir, address, *accept_loss, *yes)
        }
    }
}

fn inspect(output: Output, file: Option<&Path>, dir: &Path) -> Ended {
    let mut target = file.map(Target::open).transpose()?;
    let survivor = watched(|watch| inspect_dir(dir, watch))?;
    let Some(mut target) = target.take() else {
        match output {
            Output::Json => print_json(&json!(survivor))?,
            Output::Table => print_text(&survivor_text(&survivor))?,
        }
        return Ok(Exit::Done);
    };
    target.put(survivor.to_text().as_bytes())?;
    let is_stdout = matches!(target, Target::Stdout);
    target.finish()?;
    Target::conclude(is_stdout, output, &survivor_text(&survivor), &json!(survivor))
}

fn survivor_text(survivor: &Survivor) -> String {
    let Survivor { cluster, node, committed, last, digest, .. } = survivor;
    let configuration = survivor.configuration();
    let ids = |set: &std::collections::BTreeSet<_>| match set.is_empty() {
        true => "-".to_owned(),
        false => set.iter().map(crate::types::NodeId::to_string).collect::<Vec<_>>().join(", "),
    };
    facts(&[
        ("node", format!("{node} of cluster {cluster}")),
        ("term", format!("{}, vote {}", survivor.term, survivor.vote.unwrap_or_default())),
        (
            "snapshot",
            format!("entry {} of term {}", survivor.snapshot.index, survivor.snapshot.term),
        ),
        (
            "committed",
            format!("entry {} of term {}, as far as it knew", committed.index, committed.term),
        ),
        ("last", format!("entry {} of term {}", last.index, last.term)),
        ("voters", ids(&configuration.voters)),
        ("learners", ids(&configuration.learners)),
        ("digest", digest.to_string()),
        ("inspected", format!("{} utc", human_time(survivor.inspected_ms))),
    ])
}

fn make_plan(output: Output, files: &[PathBuf], out: Option<&Path>, accept_loss: bool) -> Ended {
    let survivors = files.iter().map(|file| read::<Survivor>(file));
    let survivors = survivors.collect::<Result<Vec<_>, _>>()?;
    let mut target = out.map(Target::open).transpose()?;
    let plan = plan_of(output, survivors, accept_loss)?;
    let mut is_stdout = false;
    if let Some(mut target) = target.take() {
        target.put(plan.to_text().as_bytes())?;
        is_stdout = matches!(target, Target::Stdout);
        target.finish()?;
    }
    let mut text = plan.words().join("\n");
    if let Some(file) = out.filter(|_| !is_stdout) {
        let file = file.display();
        text.push_str(&format!(
            "\n\nThe plan is in {file}. To go on, where node {} was ({}):\n\n  raft-host recover apply {file} \
             --data-dir {}",
            plan.chosen.node, plan.chosen.data_dir, plan.chosen.data_dir
        ));
    }
    Target::conclude(is_stdout, output, &text, &plan_json(&plan))
}

/// A plan, or why not; what would be lost is shown before it is refused.
fn plan_of(output: Output, survivors: Vec<Survivor>, accept_loss: bool) -> Result<Plan, Failure> {
    let id = format!("{:016x}", rand::random::<u64>());
    Plan::of(survivors, accept_loss, id, wall_clock_ms()).map_err(|error| {
        if let (PlanError::Loss(plan), Output::Table) = (&error, output) {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "{}\n", plan.words().join("\n"));
        }
        Failure::new(error.to_string())
    })
}

fn plan_json(plan: &Plan) -> Value {
    json!({
        "plan": plan.id,
        "cluster_id": plan.chosen.cluster.to_string(),
        "chosen_node": plan.chosen.node.0,
        "data_dir": plan.chosen.data_dir,
        "certain_index": plan.certain().0,
        "committed_index": plan.known_committed().0,
        "last_index": plan.chosen.last.index.0,
        "last_term": plan.chosen.last.term.0,
        "may_lose": plan.may_lose,
        "left_behind": plan.left_behind().iter().map(|node| node.0).collect::<Vec<_>>(),
        "digest": plan.chosen.digest.to_string(),
        "words": plan.words(),
    })
}

fn apply(dir: &Path, plan: &Plan, address: &Address) -> Result<Recovered, Failure> {
    watched(|watch| recover(dir, plan, address.advertise.clone(), watch))
}

fn now(output: Output, dir: &Path, address: &Address, accept_loss: bool, yes: bool) -> Ended {
    let survivor = watched(|watch| inspect_dir(dir, watch))?;
    let plan = plan_of(output, vec![survivor], accept_loss)?;
    if output == Output::Table {
        print_text(&plan.words().join("\n"))?;
    }
    if !yes {
        confirm(&plan)?;
    }
    let recovered = apply(dir, &plan, address)?;
    let (recovered, digest) = watched(|watch| {
        let verified = verify(dir, &plan, watch);
        verified
            .map(|(found, digest)| (Recovered { was_done: recovered.was_done, ..found }, digest))
    })?;
    tell(output, dir, &recovered, Some(&digest.to_string()))
}

/// Has a person type what cannot be typed by habit.
fn confirm(plan: &Plan) -> Result<(), Failure> {
    let expected = &plan.chosen.cluster.to_string()[..8];
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "nobody can be asked, as the standard input is no terminal: --yes goes on without",
        ));
    }
    let _ = write!(
        std::io::stderr(),
        "\nType the first eight digits of the cluster's id ({expected}) to go on: "
    );
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::new(format!("nothing could be read: {error}")))?;
    match line.trim() == expected {
        true => Ok(()),
        false => Err(Failure::new("that is something else; nothing was changed")),
    }
}

fn tell(output: Output, dir: &Path, recovered: &Recovered, digest: Option<&str>) -> Ended {
    match output {
        Output::Json => print_json(&to_json(dir, recovered, digest))?,
        Output::Table => print_text(&text(dir, recovered))?,
    }
    Ok(Exit::Done)
}

fn to_json(dir: &Path, recovered: &Recovered, digest: Option<&str>) -> Value {
    let Recovered { cluster, position, founder, aside, was_done } = recovered;
    json!({
        "cluster_id": cluster.to_string(),
        "node_id": founder.id.0,
        "address": founder.address,
        "data_dir": dir.display().to_string(),
        "index": position.index.0,
        "term": position.term.0,
        "kept": aside.display().to_string(),
        "was_done": was_done,
        "digest": digest,
    })
}

fn text(dir: &Path, recovered: &Recovered) -> String {
    let Recovered { cluster, position, founder, aside, was_done } = recovered;
    let (dir, aside) = (dir.display(), aside.display());
    let begun = match was_done {
        true => format!("The plan had been applied to {dir} already: it is cluster {cluster}."),
        false => format!("{dir} is a new cluster now: {cluster}."),
    };
    format!(
        "{begun} Its log begins after index {}. Node {} is its only voter, at {}. What was there before is \
         in {aside}; delete it once all is well. To go on:\n\n  \
         raft-host --data-dir {dir} --listen {}\n  raft-host --join {} --data-dir …    (on two more \
         machines, with empty directories)\n\nClients that know the old cluster's id are refused; they need \
         the new one, and new sessions.\n\n{}",
        position.index,
        founder.id,
        founder.address,
        founder.address,
        founder.address,
        certificates_needed(*cluster, founder)
    )
}

fn read<T: Document>(path: &Path) -> Result<T, Failure> {
    T::read(path).map_err(|error| Failure::new(error.to_string()))
}

/// Shows how far the log was executed, and runs where guests can.
fn watched<T: Send>(
    work: impl FnOnce(Watch<'_>) -> Result<T, RecoverFailure> + Send,
) -> Result<T, Failure> {
    let progress = Steps::begin("executing the log");
    let watch = |applied: Index, last: Index| progress.tell(applied.0, last.0);
    on_guest_stack("recover", || work(&watch))
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?
        .map_err(|error| Failure::new(error.to_string()))
}
