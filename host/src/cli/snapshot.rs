//! `raft-host snapshot`: Raft snapshots of the asked node.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Ended, Exit};
use super::output::{Output, human_bytes, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// A large state takes a while to be written.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Takes Raft snapshots.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Takes a snapshot on the asked node now and compacts its log.
    Take,
}

pub(super) fn run(args: &SnapshotArgs) -> Ended {
    let Action::Take = args.action;
    let answer = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        // A snapshot changes nothing that the cluster agreed on.
        client.take_snapshot().await.map_err(|error| remote::failed_question(&error))
    })?;
    match args.remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "term": answer.term,
            "size_bytes": answer.size_bytes,
        }))?,
        Output::Table => print_text(&format!(
            "snapshot at index {}, term {}: {}",
            answer.index,
            answer.term,
            human_bytes(answer.size_bytes)
        ))?,
    }
    Ok(Exit::Done)
}
