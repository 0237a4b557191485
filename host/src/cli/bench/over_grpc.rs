//! Load over the client service, as applications would put it on a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_host_proto::Client;
use raft_host_proto::dial::Authorized;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::v1::{self, outcome::Kind, tagged_result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::load::Generator;
use super::measure::{Ending, Interval, Measured, Recorder};
use super::turns::{Comparison, take_turns};
use super::{BenchArgs, Mode, Op};
use crate::cli::exit::{Exit, Failure};
use crate::cli::remote::{self, RemoteArgs, sentence};

/// A client that was refused waits so long before it asks again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// HTTP/2's default of 64 KiB would make streams wait for window updates.
const WINDOW_BYTES: u32 = 8 << 20;

pub(super) async fn run(args: &BenchArgs) -> Result<Measured, Failure> {
    let addresses = targets(args).await?;
    let commands = args.commands();
    if args.op == Op::Read && commands.has_key() {
        prefill(args, &addresses, commands.clone()).await?;
    }
    let load = Load::connect(args, &addresses).await?;
    let interval = Interval::after(args.warmup(), args.length());
    let recorder = Arc::new(Recorder::new(interval));
    let consistency =
        if args.stale { v1::Consistency::Stale } else { v1::Consistency::Linearizable };
    let mut clients = JoinSet::new();
    for client in 0..args.clients() {
        let recorder = Arc::clone(&recorder);
        let commands = commands.for_client(client as u64);
        let queries = args.queries().for_client(client as u64);
        match &load {
            // As a program does it: by the client library, with its attempts.
            Load::Shared(shared) => {
                let shared = shared[client % shared.len()].clone();
                match args.op {
                    Op::Write => {
                        let apply = async move |command| match shared.apply(command).await {
                            Ok(response) => Ok(response.outcome),
                            Err(error) => Err(error.to_string()),
                        };
                        clients.spawn(closed_loop(client, commands, recorder, apply))
                    }
                    Op::Read => {
                        let query = async move |query| match shared.query(query, consistency).await
                        {
                            Ok(response) => Ok(response.outcome),
                            Err(error) => Err(error.to_string()),
                        };
                        clients.spawn(closed_loop(client, queries, recorder, query))
                    }
                };
            }
            Load::Read(channels) => {
                let mut service = channels[client % channels.len()].clone();
                let consistency = consistency.into();
                let query = async move |query| {
                    let request = v1::QueryRequest { query, consistency, ..Default::default() };
                    match service.query(request).await {
                        Ok(response) => Ok(response.into_inner().outcome),
                        Err(status) => Err(sentence(&status)),
                    }
                };
                clients.spawn(closed_loop(client, queries, recorder, query));
            }
            Load::Unary(channels) => {
                let mut service = channels[client % channels.len()].clone();
                let apply = async move |command| {
                    let request = v1::ApplyRequest { command, ..Default::default() };
                    match service.apply(request).await {
                        Ok(response) => Ok(response.into_inner().outcome),
                        Err(status) => Err(sentence(&status)),
                    }
                };
                clients.spawn(closed_loop(client, commands, recorder, apply));
            }
            Load::Stream(channels) => {
                let service = channels[client % channels.len()].clone();
                let (window, batch) = (args.window.max(args.batch).into(), args.batch.into());
                let stream = Stream { commands, window, batch };
                clients.spawn(stream.run(client, service, recorder));
            }
        }
    }
    let patience = args.warmup() + args.length() + args.remote.timeout();
    // Clients that still wait have nothing to say any more.
    let _ = tokio::time::timeout(patience, clients.join_all()).await;
    Ok(recorder.result())
}

/// Measures a request per operation and shared streams in turns.
pub(super) async fn compare(args: &BenchArgs) -> Result<Comparison, Failure> {
    let both = [Mode::Unary, Mode::Shared].map(|mode| BenchArgs { mode, ..args.clone() });
    take_turns(["unary", "shared"], args.rounds, |which| run(&both[which])).await
}

/// What the clients do, and with what.
enum Load {
    /// One client of the library for each address.
    Shared(Vec<Client>),
    Read(Vec<ClientClient<Authorized>>),
    Unary(Vec<ClientClient<Authorized>>),
    Stream(Vec<ClientClient<Authorized>>),
}

impl Load {
    async fn connect(args: &BenchArgs, addresses: &[String]) -> Result<Load, Failure> {
        if args.mode == Mode::Shared {
            let clients = addresses.iter().map(|address| args.remote.client_of(address));
            return clients.collect::<Result<_, _>>().map(Load::Shared);
        }
        let connections = match args.mode {
            Mode::Shared | Mode::Unary => args.clients().min(args.connections as usize),
            Mode::Stream => args.clients(),
        };
        let mut channels = Vec::new();
        for address in addresses.iter().cycle().take(connections.max(addresses.len())) {
            channels.push(dial(&args.remote, address).await?);
        }
        Ok(match (args.op, args.mode) {
            (Op::Read, _) => Load::Read(channels),
            (Op::Write, Mode::Stream) => Load::Stream(channels),
            (Op::Write, _) => Load::Unary(channels),
        })
    }
}

/// Where the load goes: to the leader, or to all endpoints.
async fn targets(args: &BenchArgs) -> Result<Vec<String>, Failure> {
    if args.spread {
        return Ok(args.remote.endpoints.clone());
    }
    let client = args.remote.client().await?;
    let status = client.status().await.map_err(|error| remote::failed_question(&error))?;
    let leader = status.group("").map(|group| group.leader_address.clone()).unwrap_or_default();
    if leader.is_empty() {
        return Err(Failure {
            exit: Exit::Unavailable,
            ..Failure::new(
                "the cluster has no leader now; look at `raft-host status` and try again",
            )
        });
    }
    Ok(vec![leader])
}

async fn dial(remote: &RemoteArgs, address: &str) -> Result<ClientClient<Authorized>, Failure> {
    let way = remote.way(address).map_err(Failure::usage)?;
    let way = way.tuned(|endpoint| {
        endpoint
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
    });
    let bearer = remote.bearer(&way).map_err(Failure::usage)?;
    let channel = way.connect().await.map_err(|error| Failure {
        exit: Exit::Unavailable,
        ..Failure::new(format!("cannot reach {address}: {error}"))
    })?;
    Ok(remote::client_on(bearer.on(channel)))
}

/// Gives every key a value, so that queries find something.
async fn prefill(
    args: &BenchArgs,
    addresses: &[String],
    mut commands: Generator,
) -> Result<(), Failure> {
    const BATCH: u64 = 256;
    const WINDOW: u64 = 8 * BATCH;
    let mut service = dial(&args.remote, &addresses[0]).await?;
    let (sender, receiver) = mpsc::channel((WINDOW / BATCH) as usize);
    let mut next = 0;
    let mut fill = |answered: u64| {
        while next < commands.keys() && next < answered + WINDOW {
            let tags = next..(next + BATCH).min(commands.keys());
            next = tags.end;
            let message = batch(tags.map(|key| (key, commands.command(key))));
            if sender.try_send(message).is_err() {
                return;
            }
        }
    };
    let keys = u64::from(args.keys);
    fill(0);
    let failed = |status: Status| {
        Failure::new(format!("writing the keys to be read: {}", sentence(&status)))
    };
    let mut answers =
        service.apply_stream(ReceiverStream::new(receiver)).await.map_err(failed)?.into_inner();
    let mut answered = 0;
    while answered < keys {
        let Some(message) = answers.message().await.map_err(failed)? else {
            return Err(failed(Status::unavailable("the stream ended early")));
        };
        for result in &message.results {
            if let Some(tagged_result::Result::Error(error)) = &result.result {
                return Err(failed(Status::unknown(error.message.clone())));
            }
        }
        answered += message.results.len() as u64;
        fill(answered);
    }
    Ok(())
}

fn batch(commands: impl Iterator<Item = (u64, Bytes)>) -> v1::ApplyStreamRequest {
    let commands = commands.map(|(tag, command)| v1::TaggedCommand {
        tag,
        timeout_ms: 0,
        request: Some(v1::ApplyRequest { command, ..Default::default() }),
    });
    v1::ApplyStreamRequest { commands: commands.collect() }
}

/// One operation after the other.
async fn closed_loop(
    client: usize,
    mut inputs: Generator,
    recorder: Arc<Recorder>,
    mut operation: impl AsyncFnMut(Bytes) -> Result<Option<v1::Outcome>, String>,
) {
    while !recorder.interval().is_over() {
        let input = inputs.next_command();
        let began = Instant::now();
        let ending = match operation(input).await {
            Ok(outcome) => ending(outcome.and_then(|outcome| outcome.kind)),
            Err(words) => Ending::Failed(words),
        };
        settle(client, &recorder, began, ending).await;
    }
}

async fn settle(client: usize, recorder: &Recorder, began: Instant, ending: Ending) {
    let failed = matches!(ending, Ending::Failed(_));
    recorder.record(client, began, Instant::now(), ending, 1);
    if failed {
        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
    }
}

fn ending(kind: Option<Kind>) -> Ending {
    match kind {
        Some(Kind::Ok(_)) => Ending::Ok,
        Some(Kind::Rejected(_)) => Ending::Rejected,
        Some(Kind::Trapped(_)) => Ending::Trapped,
        None => Ending::Failed("an answer without outcome".to_owned()),
    }
}

/// A client that keeps a window of commands in flight on one stream.
struct Stream {
    commands: Generator,
    /// At least `batch`.
    window: u64,
    batch: u64,
}

impl Stream {
    async fn run(
        mut self,
        client: usize,
        service: ClientClient<Authorized>,
        recorder: Arc<Recorder>,
    ) {
        while !recorder.interval().is_over() {
            if let Err(status) = self.stream(client, service.clone(), &recorder).await {
                let ending = Ending::Failed(sentence(&status));
                settle(client, &recorder, Instant::now(), ending).await;
            }
        }
    }

    async fn stream(
        &mut self,
        client: usize,
        mut service: ClientClient<Authorized>,
        recorder: &Recorder,
    ) -> Result<(), Status> {
        let (sender, receiver) = mpsc::channel((self.window / self.batch) as usize + 1);
        // When each batch was sent and how many of its answers are to come; a tag's batch is
        // its quotient.
        let mut batches: HashMap<u64, (Instant, u64)> = HashMap::new();
        let mut in_flight = 0;
        let mut next_batch = 0;
        let mut answers = None;
        let mut receiver = Some(receiver);
        loop {
            while in_flight + self.batch <= self.window && !recorder.interval().is_over() {
                let first = next_batch * self.batch;
                let tags = first..first + self.batch;
                let message = batch(tags.map(|tag| (tag, self.commands.next_command())));
                if sender.try_send(message).is_err() {
                    // The connection is slower than the window: answers come first.
                    break;
                }
                batches.insert(next_batch, (Instant::now(), self.batch));
                next_batch += 1;
                in_flight += self.batch;
            }
            if in_flight == 0 {
                return Ok(());
            }
            if let Some(receiver) = receiver.take() {
                let stream = service.apply_stream(ReceiverStream::new(receiver)).await?;
                answers = Some(stream.into_inner());
            }
            let answers = answers.as_mut().expect("opened in the first turn");
            let Some(message) = answers.message().await? else {
                return Err(Status::unavailable("the server ended the stream"));
            };
            let ended = Instant::now();
            let mut refused = false;
            let mut done: HashMap<u64, u64> = HashMap::new();
            for result in message.results {
                let number = result.tag / self.batch;
                in_flight = in_flight.saturating_sub(1);
                let ending = match result.result {
                    Some(tagged_result::Result::Response(response)) => {
                        ending(response.outcome.and_then(|outcome| outcome.kind))
                    }
                    Some(tagged_result::Result::Error(error)) => Ending::Failed(error.message),
                    None => Ending::Failed("a result without content".to_owned()),
                };
                if ending == Ending::Ok {
                    *done.entry(number).or_default() += 1;
                } else {
                    refused |= matches!(ending, Ending::Failed(_));
                    settle_batch(client, recorder, &mut batches, number, ended, ending, 1);
                }
            }
            for (number, count) in done {
                settle_batch(client, recorder, &mut batches, number, ended, Ending::Ok, count);
            }
            if refused {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

fn settle_batch(
    client: usize,
    recorder: &Recorder,
    batches: &mut HashMap<u64, (Instant, u64)>,
    number: u64,
    ended: Instant,
    ending: Ending,
    count: u64,
) {
    // An answer to nothing that was sent is not counted.
    let Some((began, waiting)) = batches.get_mut(&number) else { return };
    recorder.record(client, *began, ended, ending, count);
    *waiting = waiting.saturating_sub(count);
    if *waiting == 0 {
        batches.remove(&number);
    }
}
