//! Callers of very different kinds at one leader: each gets on, and what is too much is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use raft_host_proto::Client;
use raft_host_proto::client::PipelineOptions;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::v1::{self, ErrorDetail, Reason};
use raft_host_tests::{Cluster, block_on};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// With its key it is just within the longest command.
const LARGE_BYTES: usize = (1 << 20) - 256;
const SMALL_CALLERS: usize = 100;

fn set(key: &str, value: &str) -> String {
    serde_json::json!({ "op": "set", "key": key, "value": value }).to_string()
}

/// Who asks, and how many answers that one has.
#[derive(Clone)]
struct Caller {
    answers: Arc<AtomicU64>,
    /// All callers are to end.
    enough: Arc<AtomicBool>,
}

impl Caller {
    fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    fn count(&self, response: Option<v1::ApplyResponse>) {
        let kind = response.and_then(|response| response.outcome?.kind);
        if matches!(kind, Some(v1::outcome::Kind::Ok(_))) {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn has_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// One command after the other.
    async fn one_by_one(self, client: Client, command: String) {
        while !self.has_enough() {
            // A failure is no answer; the next attempt may bring one.
            self.count(client.apply(command.clone()).await.ok());
        }
    }

    /// As many commands as the connection takes.
    async fn at_full_speed(self, client: Client) {
        let session = client.open_session(None).await.expect("a session");
        let (sender, mut results) = session.pipeline(PipelineOptions::default());
        let sending = async {
            let mut number = 0_u64;
            while !self.has_enough() {
                sender.send(set(&format!("stream-{}", number % 64), "x")).await.expect("taken");
                number += 1;
            }
            drop(sender);
        };
        let taking = async {
            while let Some(result) = results.next().await {
                self.count(result.result.ok());
            }
        };
        tokio::join!(sending, taking);
    }
}

#[test]
fn nobody_starves_beside_a_stream_at_full_speed_and_a_caller_with_large_commands() {
    const SMALL_ANSWERS: u64 = 20;
    const LARGE_ANSWERS: u64 = 5;
    const STREAM_ANSWERS: u64 = 5_000;
    /// Between callers of one kind, which go round in turns.
    const SPREAD: u64 = 4;
    let cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let enough = Arc::<AtomicBool>::default();
    let caller = || Caller { answers: Arc::default(), enough: Arc::clone(&enough) };
    let (large, stream) = (caller(), caller());
    let small: Vec<Caller> = (0..SMALL_CALLERS).map(|_| caller()).collect();
    let tasks = block_on(async {
        let mut tasks = JoinSet::new();
        let value = "x".repeat(LARGE_BYTES - set("large", "").len());
        tasks.spawn(large.clone().one_by_one(cluster.client_of(leader), set("large", &value)));
        tasks.spawn(stream.clone().at_full_speed(cluster.client_of(leader)));
        let client = cluster.client_of(leader);
        for (number, caller) in small.iter().enumerate() {
            let command = set(&format!("small-{number}"), "x");
            tasks.spawn(caller.clone().one_by_one(client.clone(), command));
        }
        tasks
    });
    cluster.eventually("everybody's answers", || {
        let all_small = small.iter().all(|caller| caller.answers() >= SMALL_ANSWERS);
        (all_small && large.answers() >= LARGE_ANSWERS && stream.answers() >= STREAM_ANSWERS)
            .then_some(())
    });
    let answers: Vec<u64> = small.iter().map(Caller::answers).collect();
    enough.store(true, Ordering::Relaxed);
    block_on(tasks.join_all());
    let (least, most) = (answers.iter().min(), answers.iter().max());
    let (least, most) = (*least.expect("a hundred"), *most.expect("a hundred"));
    assert!(most <= SPREAD * least, "of callers of one kind one got {least}, one {most}");
    cluster.wait_for_agreement();
}

fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    block_on(endpoint.connect()).expect("it listens")
}

/// All get an answer, and whoever is refused is told why and by which limit: nothing queues.
#[test]
fn what_is_more_than_may_be_in_flight_is_refused_as_busy() {
    const CALLERS: usize = 64;
    /// The least that both settings may be.
    const BYTES: &str = "1126400";
    let settings = ["--max-entry-bytes", BYTES, "--max-inflight-bytes", BYTES];
    let cluster = Cluster::new(PROGRAM, 1, &settings);
    let channel = channel(cluster.servers[0].address);
    let command = bytes::Bytes::from(set("large", &"x".repeat(LARGE_BYTES / 2)));
    let round = || async {
        let mut calls = JoinSet::new();
        for _ in 0..CALLERS {
            let mut client = ClientClient::new(channel.clone());
            let request = v1::ApplyRequest { command: command.clone(), ..Default::default() };
            calls.spawn(async move { client.apply(request).await });
        }
        calls.join_all().await
    };
    let (mut applied, mut refused) = (0, 0);
    cluster.eventually("some applied and some refused", || {
        for answer in block_on(round()) {
            let Err(status) = answer else {
                applied += 1;
                continue;
            };
            let detail = ErrorDetail::of(&status).unwrap_or_else(|| panic!("{status:?}"));
            assert_eq!((status.code(), detail.reason()), (Code::ResourceExhausted, Reason::Busy));
            assert_eq!(detail.effect(), v1::Effect::None);
            assert!(detail.retry_after_ms.is_some(), "{detail:?}");
            let limit = detail.exceeded.map(|exceeded| exceeded.limit).unwrap_or_default();
            refused += usize::from(limit == "node.max_inflight_bytes");
        }
        (applied > 0 && refused > 0).then_some(())
    });
    // What they took is given back.
    block_on(
        ClientClient::new(channel)
            .apply(v1::ApplyRequest { command: set("after", "x").into(), ..Default::default() }),
    )
    .expect("there is room");
}
