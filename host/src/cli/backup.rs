//! `raft-host backup`: the whole state in a file, and what such a file holds.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use raft_host_proto::{Client, MAIN_GROUP};
use serde_json::{Map, Value, json};

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, hex, human_bytes, human_time, print_json, print_text, short_hash};
use super::progress::Progress;
use super::remote::{self, RemoteArgs};
use crate::backup::{BackupFacts, NewFile, Passing};
use crate::config::Config;
use crate::fsm::on_guest_stack;
use crate::machine::MachineSummary;
use crate::server::{backup_loader, open_backup};
use crate::types::Origin;

/// Until the node has copied its state.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Until the next part comes.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

/// Saves the whole state of the asked node to a file, and looks at such files.
///
/// A backup is consistent as of one index, holds everything (the state machine's memory, sessions,
/// modules, limits, history), and is made while commands go on. `raft-host restore` makes a new
/// cluster of it.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Saves the state of the asked node; the file appears when it is whole and durable.
    Save {
        /// Where to; - is standard output. A file that is there is left alone.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Says what a backup is of. Reads its beginning only; `verify` reads all of it.
    Show {
        /// The backup.
        file: PathBuf,
    },
    /// Checks that a backup is whole and can be restored here: reads all of it, runs its module with
    /// its memory, and compares the digest of the state with that of where it was saved. Takes as
    /// much memory as a node.
    Verify {
        /// The backup.
        file: PathBuf,
    },
}

impl BackupArgs {
    /// Whether it is about a running cluster.
    pub(super) fn asks_cluster(&self) -> bool {
        matches!(self.action, Action::Save { .. })
    }
}

pub(super) fn run(args: &BackupArgs) -> Ended {
    match &args.action {
        Action::Save { file } => save(&args.remote, file),
        Action::Show { file } => show(args.remote.output, file),
        Action::Verify { file } => verify(args.remote.output, file),
    }
}

/// Where a copy goes.
pub(super) enum Target {
    File(NewFile),
    Stdout,
}

impl Target {
    /// `-` is standard output, unless that is a terminal.
    pub(super) fn open(path: &Path) -> Result<Target, Failure> {
        if path.as_os_str() == "-" {
            return match std::io::stdout().is_terminal() {
                true => Err(Failure::usage(
                    "standard output is a terminal, and this is not for people: write it to a file or \
                     a pipe",
                )),
                false => Ok(Target::Stdout),
            };
        }
        NewFile::create(path).map(Target::File).map_err(|error| {
            let path = path.display();
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => Failure::new(format!(
                    "{path} is there already, and is left alone: give another name, or remove it first"
                )),
                _ => Failure::new(format!("cannot write {path}: {error}")),
            }
        })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Target::File(file) => file.write_all(bytes),
            Target::Stdout => std::io::stdout().write_all(bytes),
        };
        written.map_err(not_written)
    }

    /// Durable from now on, where that is possible.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let finished = match self {
            Target::File(file) => file.finish(),
            Target::Stdout => std::io::stdout().flush(),
        };
        finished.map_err(not_written)
    }

    /// Tells about it where that does not get into it.
    pub(super) fn conclude(is_stdout: bool, output: Output, text: &str, value: &Value) -> Ended {
        match (is_stdout, output) {
            (true, _) => {
                // Nobody is left to tell when stderr is gone.
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            (false, Output::Json) => print_json(value)?,
            (false, Output::Table) => print_text(text)?,
        }
        Ok(Exit::Done)
    }
}

fn not_written(error: std::io::Error) -> Failure {
    Failure::new(format!("it could not be written, and is not there: {error}"))
}

fn save(remote: &RemoteArgs, path: &Path) -> Ended {
    // Before a node begins with anything.
    let mut target = Target::open(path)?;
    let mut passing = Passing::default();
    remote::block_on(async {
        let client = remote.client_with(TIMEOUT).await?;
        let patience = remote.timeout_or(PART_TIMEOUT);
        copy(&client, patience, &mut target, &mut passing).await
    })?;
    let bytes = passing.bytes();
    let facts = passing.finish().map_err(|_| {
        Failure::new(format!("the node broke off after {}; try again", human_bytes(bytes)))
    })?;
    let is_stdout = matches!(target, Target::Stdout);
    target.finish()?;
    let place = if is_stdout { "standard output".to_owned() } else { path.display().to_string() };
    let text = format!(
        "saved the state at index {}, term {} of node {} to {place}: {}",
        facts.position.index,
        facts.position.term,
        facts.node,
        human_bytes(bytes)
    );
    Target::conclude(is_stdout, remote.output, &text, &facts_to_json(path, &facts, bytes).into())
}

async fn copy(
    client: &Client,
    patience: Duration,
    target: &mut Target,
    passing: &mut Passing,
) -> Result<(), Failure> {
    let begun = client.back_up().await;
    let mut parts = begun.map_err(|error| remote::failed_question(&error))?;
    let progress = Progress::begin("saving");
    while let Some(part) = remote::next_part(&mut parts, patience).await? {
        passing.see(&part.data);
        target.put(&part.data)?;
        progress.tell(passing.bytes());
    }
    Ok(())
}

fn facts_to_json(path: &Path, facts: &BackupFacts, bytes: u64) -> Map<String, Value> {
    let facts = json!({
        "file": path.display().to_string(),
        "bytes": bytes,
        "cluster_id": facts.cluster.to_string(),
        "group": facts.group,
        "index": facts.position.index.0,
        "term": facts.position.term.0,
        "saved_ms": facts.saved_ms,
        "node_id": facts.node.0,
        "version": facts.version,
        "digest": hex(&facts.digest.0),
    });
    facts.as_object().expect("an object").clone()
}

fn show(output: Output, path: &Path) -> Ended {
    let bytes = std::fs::metadata(path).map(|file| file.len()).unwrap_or_default();
    let mut reader = open_backup(path).map_err(|error| Failure::new(error.to_string()))?;
    let facts = reader.facts().clone();
    let summary = MachineSummary::read(&mut reader)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    match output {
        Output::Json => print_json(&shown_as_json(path, &facts, bytes, &summary))?,
        Output::Table => print_text(&shown_as_text(&facts, bytes, &summary))?,
    }
    Ok(Exit::Done)
}

fn shown_as_json(path: &Path, facts: &BackupFacts, bytes: u64, summary: &MachineSummary) -> Value {
    let mut value = facts_to_json(path, facts, bytes);
    let members = summary.members.iter().map(|(member, votes)| {
        json!({ "node_id": member.id.0, "address": member.address, "voter": votes })
    });
    let module = summary.history.last().map(|active| {
        json!({
            "hash": hex(&active.hash.0),
            "label": active.label,
            "activated_at": active.index.0,
        })
    });
    value.insert("time_ms".to_owned(), summary.time_ms.into());
    value.insert("level".to_owned(), summary.level.0.into());
    value.insert("engine".to_owned(), summary.engine.as_str().into());
    value.insert("members".to_owned(), members.collect());
    value.insert("sessions".to_owned(), summary.sessions.into());
    value.insert("modules".to_owned(), summary.modules.into());
    value.insert("module".to_owned(), module.unwrap_or(Value::Null));
    let origins = summary.origins.iter().map(origin_to_json);
    value.insert("origins".to_owned(), origins.collect());
    value.into()
}

fn origin_to_json(origin: &Origin) -> Value {
    json!({
        "cluster_id": origin.cluster.to_string(),
        "index": origin.position.index.0,
        "term": origin.position.term.0,
        "time_ms": origin.time_ms,
    })
}

fn shown_as_text(facts: &BackupFacts, bytes: u64, summary: &MachineSummary) -> String {
    let members: Vec<String> = summary
        .members
        .iter()
        .map(|(member, votes)| {
            let role = if *votes { "" } else { " (learner)" };
            format!("{} at {}{role}", member.id, member.address)
        })
        .collect();
    let module = summary.history.last().map_or("none".to_owned(), |active| {
        format!(
            "{} ({}), active since index {}",
            active.label,
            short_hash(&active.hash.0),
            active.index
        )
    });
    let mut lines = vec![
        ("cluster", facts.cluster.to_string()),
        ("group", facts.group.clone()),
        ("index", format!("{}, term {}", facts.position.index, facts.position.term)),
        (
            "saved",
            format!(
                "{} utc by node {}, raft-host {}",
                human_time(facts.saved_ms),
                facts.node,
                facts.version
            ),
        ),
        ("log's clock", format!("{} utc", human_time(summary.time_ms))),
        ("module", module),
        ("members", members.join(", ")),
        ("sessions", summary.sessions.to_string()),
        ("modules", format!("{} kept, {} activations", summary.modules, summary.history.len())),
        ("level", summary.level.to_string()),
        ("engine", summary.engine.as_str().to_owned()),
        ("digest", hex(&facts.digest.0)),
        ("size", human_bytes(bytes)),
    ];
    for origin in &summary.origins {
        let words = format!("cluster {} as of index {}", origin.cluster, origin.position.index);
        lines.push(("came from", words));
    }
    let line = |(name, value): (&str, String)| format!("{name:<13}{value}");
    lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn verify(output: Output, path: &Path) -> Ended {
    let reader = open_backup(path).map_err(|error| Failure::new(error.to_string()))?;
    let facts = reader.facts().clone();
    let loader =
        backup_loader(&Config::default()).map_err(|error| Failure::new(error.to_string()))?;
    let restored = on_guest_stack("verify", || reader.restore(loader))
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let machine = restored.map_err(|error| Failure::new(format!("{} {error}", path.display())))?;
    let bytes = std::fs::metadata(path).map(|file| file.len()).unwrap_or_default();
    let memory = machine.info().guest_memory_bytes;
    match output {
        Output::Json => {
            let mut value = facts_to_json(path, &facts, bytes);
            value.insert("guest_memory_bytes".to_owned(), memory.into());
            value.insert("verified".to_owned(), true.into());
            print_json(&value.into())?;
        }
        Output::Table => print_text(&format!(
            "{} is whole and can be restored: group {} of cluster {} at index {}; {} of memory, the \
             digest is that of where it was saved",
            path.display(),
            if facts.group.is_empty() { MAIN_GROUP } else { &facts.group },
            facts.cluster,
            facts.position.index,
            human_bytes(memory)
        ))?,
    }
    Ok(Exit::Done)
}
