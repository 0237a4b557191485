//! `raft-host restore`: a new cluster of a backup.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, print_json, print_text};
use super::successor::certificates_needed;
use crate::config::Config;
use crate::fsm::on_guest_stack;
use crate::server::{Restored, restore};
use crate::storage::Engine;

/// Makes of a backup a new cluster of one voter, in an empty data directory. Asks no running node.
///
/// The new cluster has an id of its own and the backup's state, modules, limits and history, but none of its members and
/// sessions: whatever was meant for the old cluster is refused, with the index of the backup.
/// Afterwards start `raft-host --data-dir DIR` as usual, and have others join it. Nodes and clients of the new cluster
/// need certificates that name it, if they show any: at the end it says how to make them.
#[derive(Args, Clone, Debug)]
pub(super) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Directory of the new cluster's first node; must be empty or not be there.
    #[arg(
        long,
        value_name = "DIR",
        env = "RAFT_HOST_DATA_DIR",
        default_value = "./raft-host-data"
    )]
    data_dir: PathBuf,
    /// Address that others will be told to dial: what the node will be started with.
    #[arg(
        long, value_name = "HOST:PORT", env = "RAFT_HOST_ADVERTISE",
        default_value = "127.0.0.1:7400", value_parser = super::remote::parse_address
    )]
    advertise: String,
    /// Store of the log.
    #[arg(
        long, value_name = "ENGINE", value_parser = super::serve::engines(),
        env = "RAFT_HOST_STORAGE_ENGINE"
    )]
    storage_engine: Option<Engine>,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

pub(super) fn run(args: &RestoreArgs) -> Ended {
    let config = Config {
        data_dir: args.data_dir.clone(),
        advertise: Some(args.advertise.clone()),
        storage_engine: args.storage_engine,
        ..Config::default()
    };
    let restored = on_guest_stack("restore", || restore(&config, &args.file))
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let restored = restored.map_err(|error| Failure::new(error.to_string()))?;
    match args.output {
        Output::Json => print_json(&json!({
            "cluster_id": restored.cluster.to_string(),
            "node_id": restored.founder.id.0,
            "address": restored.founder.address,
            "data_dir": args.data_dir.display().to_string(),
            "index": restored.position.index.0,
            "term": restored.position.term.0,
            "restored_from": {
                "file": args.file.display().to_string(),
                "cluster_id": restored.facts.cluster.to_string(),
                "index": restored.facts.position.index.0,
                "term": restored.facts.position.term.0,
                "saved_ms": restored.facts.saved_ms,
            },
        }))?,
        Output::Table => print_text(&text(args, &restored))?,
    }
    Ok(Exit::Done)
}

fn text(args: &RestoreArgs, restored: &Restored) -> String {
    let Restored { facts, cluster, position, founder, rights_in_force } = restored;
    let rights = match rights_in_force {
        true => {
            "\n\nRights, principals and tokens are what they were, and nodes and clients need certificates."
        }
        false => "",
    };
    format!(
        "restored {} into {}: new cluster {cluster}, with the state of cluster {} at index {}.\n\
         Its log begins after index {}. Node {} is its only voter, at {}. To go on:\n\n  \
         raft-host --data-dir {} --listen {}\n  raft-host --join {} --data-dir …    (on two more \
         machines)\n\nClients that know the old cluster's id are refused; they need the new one, and new \
         sessions.{rights}\n\n{}",
        args.file.display(),
        args.data_dir.display(),
        facts.cluster,
        facts.position.index,
        position.index,
        founder.id,
        founder.address,
        args.data_dir.display(),
        founder.address,
        founder.address,
        certificates_needed(*cluster, founder),
    )
}
