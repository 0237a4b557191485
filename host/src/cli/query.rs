//! `raft-host query`: asks the state machine a question.

use std::time::Duration;

use clap::Args;
use raft_host_proto::client::QueryOptions;
use raft_host_proto::{ClientError, v1};

use super::answer::{Answer, ShowOptions};
use super::exit::Ended;
use super::input::{Place, parse_place, parse_source};
use super::output::AnswerForm;
use super::remote::{self, RemoteArgs};

/// A node may have much to execute again.
const PAST_TIMEOUT: Duration = Duration::from_secs(600);

/// Asks the state machine a question, which changes nothing.
///
/// The answer reflects every command that was acknowledged before; with --stale, whatever the
/// asked node has applied, even when the cluster has no leader; with --at, what was applied then.
#[derive(Args, Clone, Debug)]
pub(super) struct QueryArgs {
    /// The query; @FILE reads it from a file, - from standard input, @@… is a text that
    /// begins with @.
    query: String,
    /// Answer from the asked node's own state, however old.
    #[arg(long)]
    stale: bool,
    /// As --stale, but the node makes sure first that its state is no older than that.
    #[arg(long, value_name = "TIME", value_parser = remote::parse_duration)]
    max_staleness: Option<Duration>,
    /// Wait until the node has applied this entry, as `apply --verbose` shows it: so a script reads
    /// what it has written, from any node.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    min_index: u64,
    /// Ask the state as it was at a position, with the module that was active then: 17 is after entry 17, 17.3 after its
    /// fourth command. The node executes again what it retains for that, for one caller at a time.
    #[arg(
        long, value_name = "POSITION", value_parser = parse_place,
        conflicts_with_all = ["stale", "max_staleness", "min_index"]
    )]
    at: Option<Place>,
    /// Print the answer's bytes and nothing else.
    #[arg(long)]
    raw: bool,
    /// Also show the index that the answer reflects, and the fuel it took.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &QueryArgs) -> Ended {
    let consistency = match args.stale || args.max_staleness.is_some() {
        true => v1::Consistency::Stale,
        false => v1::Consistency::Linearizable,
    };
    let (min_index, max_staleness) = (args.min_index, args.max_staleness);
    let options = QueryOptions { consistency, min_index, max_staleness };
    let query = parse_source(&args.query).read()?;
    let failed = |error: ClientError| remote::failed_question(&error);
    let answer = remote::block_on(async {
        match args.at {
            None => {
                let client = args.remote.client().await?;
                Answer::of_query(client.query_with(query, options).await.map_err(failed)?)
            }
            Some(Place { index, ordinal }) => {
                let client = args.remote.client_with(PAST_TIMEOUT).await?;
                let answer = client.query_at(query, index.0, ordinal).await;
                Answer::of_query_at(answer.map_err(failed)?)
            }
        }
    })?;
    let form = if args.raw { AnswerForm::Raw } else { AnswerForm::Readable };
    let options = ShowOptions { output: args.remote.output, form, verbose: args.verbose };
    answer.show(options)
}
