//! `raft-host apply`: one command, or a file of them.

use std::time::Duration;

use clap::Args;
use raft_host_proto::{Client, v1};

use super::answer::{Answer, ShowOptions};
use super::exit::{Ended, Failure};
use super::input::parse_source;
use super::output::AnswerForm;
use super::remote::{self, RemoteArgs};

const SUBJECT: &str = "the command";
/// How long the end of a session is waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Applies a command to the state machine, and prints its answer.
///
/// When this ends with 0 the command is durable on a quorum of the nodes.
#[derive(Args, Clone, Debug)]
pub(super) struct ApplyArgs {
    /// The command; @FILE reads it from a file, - from standard input, @@… is a text that
    /// begins with @.
    #[arg(required_unless_present = "lines")]
    command: Option<String>,
    /// Apply each line of FILE (- for standard input) as a command, exactly once and in their
    /// order, many at a time. Blank lines are skipped. When a line has no answer, no line behind
    /// it is applied before it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "session", "raw"])]
    pub(super) lines: Option<String>,
    /// Apply exactly once, by a session: when a leader is lost half way, ask again until it
    /// is known what happened.
    #[arg(long)]
    session: bool,
    /// Print the answer's bytes and nothing else.
    #[arg(long)]
    raw: bool,
    /// Also show the index and term of the command, the fuel it took, the pages of memory it
    /// wrote (where the node can tell) and how long the node took to apply it.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &ApplyArgs) -> Ended {
    if let Some(path) = &args.lines {
        return super::apply_lines::run(path, &args.remote);
    }
    let command = parse_source(args.command.as_deref().unwrap_or_default()).read()?;
    let response = remote::block_on(async {
        let client = match args.verbose {
            true => args.remote.client_counting_pages().await?,
            false => args.remote.client().await?,
        };
        if args.session {
            return once(&client, command).await;
        }
        client.apply(command).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about(SUBJECT))?;
    let form = if args.raw { AnswerForm::Raw } else { AnswerForm::Readable };
    let options = ShowOptions { output: args.remote.output, form, verbose: args.verbose };
    Answer::of_apply(response).map_err(|failure| failure.about(SUBJECT))?.show(options)
}

/// Exactly once.
async fn once(client: &Client, command: Vec<u8>) -> Result<v1::ApplyResponse, Failure> {
    // Without a session the command is never sent, whatever became of the request for one.
    let opened = client.open_session(None).await;
    let session = opened.map_err(|error| remote::failed_question(&error))?;
    let response = session.apply(command).await.map_err(|error| remote::failure(&error))?;
    // The command is done; a session that is not closed expires.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, session.close()).await;
    Ok(response)
}
