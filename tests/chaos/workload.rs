//! Clients that read and write a few keys, and write down what they asked and were told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use raft_host_proto::client::{Client, ClientError, ClientOptions, Effect, Session};
use raft_host_proto::dial::ClientTls;
use raft_host_proto::v1;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use crate::history::json_lines::Writer;
use crate::history::{Action, Answer, Operation, Outcome, Value};

/// Keys that are written at one time.
const KEYS: u64 = 5;
/// Keys that are counted up at one time.
const COUNTERS: u64 = 2;
/// Then there are new keys: it bounds the history of each key, so that the checker is quick.
const EPOCH: Duration = Duration::from_secs(30);

/// What all clients share.
pub(super) struct Recorder {
    began: Instant,
    history: Mutex<(Vec<Operation>, Writer<BufWriter<File>>)>,
    processes: AtomicU64,
    values: AtomicI64,
    anomalies: Mutex<Vec<String>>,
}

impl Recorder {
    pub(super) fn new(file: &Path, began: Instant) -> anyhow::Result<Recorder> {
        let out = File::create(file).with_context(|| format!("{}", file.display()))?;
        Ok(Recorder {
            began,
            history: Mutex::new((Vec::new(), Writer::new(BufWriter::new(out)))),
            processes: AtomicU64::new(0),
            values: AtomicI64::new(1),
            anomalies: Mutex::new(Vec::new()),
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("less than centuries")
    }

    fn record(&self, operation: Operation) -> anyhow::Result<()> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.1.write(&operation).context("the history")?;
        history.0.push(operation);
        Ok(())
    }

    /// Something that no fault explains.
    pub(super) fn anomaly(&self, what: String) {
        self.anomalies.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// All anomalies so far.
    pub(super) fn anomalies(&self) -> Vec<String> {
        self.anomalies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything recorded so far; it is in the file too.
    pub(super) fn history(&self) -> anyhow::Result<Vec<Operation>> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.1.flush().context("the history")?;
        Ok(history.0.clone())
    }

    /// A process number that nobody has.
    fn new_process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// One read by one client, recorded.
    pub(super) async fn read(
        &self,
        process: u64,
        client: &Client,
        key: &str,
    ) -> anyhow::Result<Option<Value>> {
        let start_ns = self.now_ns();
        let query = json!({"op": "get", "key": key}).to_string();
        let answer = client.query(query, v1::Consistency::Linearizable).await;
        // A read leaves nothing behind: one that was not answered surely did nothing.
        let seen = match answer {
            Ok(response) => self.value_of(key, response.outcome),
            Err(_) => None,
        };
        let outcome = seen.map_or(Outcome::Failed, |value| Outcome::Answered(Answer::Value(value)));
        let end_ns = self.now_ns();
        let key = key.to_owned();
        self.record(Operation { process, key, action: Action::Read, outcome, start_ns, end_ns })?;
        Ok(seen)
    }

    /// The value that an answer to `get` tells.
    pub(super) fn value_of(&self, key: &str, outcome: Option<v1::Outcome>) -> Option<Value> {
        let value = parse(outcome).and_then(|json| match json.get("value")? {
            Json::Null => Some(None),
            Json::String(text) => text.parse().ok().map(Some),
            _ => None,
        });
        if value.is_none() {
            self.anomaly(format!("a read of {key} was answered with something else"));
        }
        value
    }
}

fn parse(outcome: Option<v1::Outcome>) -> Option<Json> {
    match outcome?.kind? {
        v1::outcome::Kind::Ok(bytes) => serde_json::from_slice(&bytes).ok(),
        _ => None,
    }
}

/// A client of all nodes that asks the one at `first` first.
pub(super) fn client(
    addresses: &[SocketAddr],
    first: usize,
    tls: Option<&ClientTls>,
) -> anyhow::Result<Client> {
    let count = addresses.len();
    let rotated = (0..count).map(|at| addresses[(first + at) % count].to_string());
    let options = ClientOptions {
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(3),
        deadline: Duration::from_secs(10),
        admin_deadline: Duration::from_secs(40),
        backoff_max: Duration::from_millis(300),
        tls: tls.cloned(),
        ..ClientOptions::default()
    };
    Ok(Client::connect(rotated, options)?)
}

/// One client, as one process after the other.
pub(super) struct Worker {
    recorder: Arc<Recorder>,
    client: Client,
    session: Option<Session>,
    process: u64,
    rng: ChaCha8Rng,
    seen: BTreeMap<String, Value>,
    pause_max: Duration,
}

impl Worker {
    pub(super) fn new(
        recorder: &Arc<Recorder>,
        client: Client,
        seed: u64,
        pause_max: Duration,
    ) -> Worker {
        Worker {
            process: recorder.new_process(),
            recorder: Arc::clone(recorder),
            client,
            session: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            seen: BTreeMap::new(),
            pause_max,
        }
    }

    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        while !*stop.borrow() {
            let pause = self.pause_max.mul_f64(self.rng.random_range(0.0..1.0));
            tokio::time::sleep(pause).await;
            let epoch = self.recorder.began.elapsed().as_secs() / EPOCH.as_secs();
            if self.rng.random_bool(0.2) {
                let key = format!("count-{epoch}-{}", self.rng.random_range(0..COUNTERS));
                self.count_up(&key).await?;
            } else {
                let key = format!("key-{epoch}-{}", self.rng.random_range(0..KEYS));
                self.anything(&key).await?;
            }
        }
        Ok(())
    }

    async fn anything(&mut self, key: &str) -> anyhow::Result<()> {
        let new = self.recorder.values.fetch_add(1, Ordering::Relaxed);
        match self.rng.random_range(0..100) {
            0..35 => {
                let seen = self.recorder.read(self.process, &self.client, key).await?;
                if let Some(value) = seen {
                    self.seen.insert(key.to_owned(), value);
                }
            }
            35..65 => drop(self.command(key, Action::Write(new)).await?),
            65..88 => {
                let expected = self.seen.get(key).copied().flatten();
                self.command(key, Action::CompareAndSet(expected, new)).await?;
            }
            88..93 => drop(self.command(key, Action::Delete).await?),
            _ => self.read_stale(key).await,
        }
        Ok(())
    }

    /// Reads and counts on: an increment that is lost or happens twice shows in the history.
    async fn count_up(&mut self, key: &str) -> anyhow::Result<()> {
        let seen = self.recorder.read(self.process, &self.client, key).await?;
        if let Some(value) = seen {
            let next = value.unwrap_or(0) + 1;
            self.command(key, Action::CompareAndSet(value, next)).await?;
        }
        Ok(())
    }

    /// Says nothing about order, so it is not recorded; it must make sense all the same.
    async fn read_stale(&self, key: &str) {
        let query = json!({"op": "get", "key": key}).to_string();
        if let Ok(response) = self.client.query(query, v1::Consistency::Stale).await {
            self.recorder.value_of(key, response.outcome);
        }
    }

    /// Applies one command in the session and records it.
    async fn command(&mut self, key: &str, action: Action) -> anyhow::Result<()> {
        let session = match self.session.take() {
            Some(session) => session,
            // Nothing was asked of the key yet.
            None => match self.client.open_session(None).await {
                Ok(session) => session,
                Err(_) => return Ok(()),
            },
        };
        let command = match action {
            Action::Write(value) => json!({"op": "set", "key": key, "value": value.to_string()}),
            Action::Delete => json!({"op": "delete", "key": key}),
            Action::CompareAndSet(expected, value) => {
                let expected = expected.map(|value| value.to_string());
                json!({"op": "cas", "key": key, "expected": expected, "value": value.to_string()})
            }
            Action::Read | Action::Add(_) => anyhow::bail!("{action:?} is no command of kv"),
        };
        let start_ns = self.recorder.now_ns();
        let answer = session.apply(command.to_string()).await;
        let end_ns = self.recorder.now_ns();
        let outcome = match &answer {
            Ok(response) => self.answered(action, response),
            Err(error) if error.effect() == Effect::None => Outcome::Failed,
            Err(_) => Outcome::Unknown,
        };
        let process = self.process;
        if outcome == Outcome::Unknown {
            self.process = self.recorder.new_process();
        }
        // After an unknown effect sometimes the session goes on, as applications do.
        let lost = matches!(answer, Err(ClientError::SessionExpired { .. }));
        if !lost && (outcome != Outcome::Unknown || self.rng.random()) {
            self.session = Some(session);
        }
        let key = key.to_owned();
        self.recorder.record(Operation { process, key, action, outcome, start_ns, end_ns })
    }

    fn answered(&self, action: Action, response: &v1::ApplyResponse) -> Outcome {
        let ok = parse(response.outcome.clone()).and_then(|json| json.get("ok")?.as_bool());
        match (action, ok) {
            (Action::Write(_), Some(true)) => Outcome::Answered(Answer::Done),
            (Action::Delete | Action::CompareAndSet(..), Some(ok)) => {
                Outcome::Answered(Answer::Matched(ok))
            }
            _ => {
                let what = &response.outcome;
                self.recorder.anomaly(format!("{action:?} was answered with {what:?}"));
                Outcome::Unknown
            }
        }
    }
}

/// Keys of a history.
pub(super) fn keys(history: &[Operation]) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> =
        history.iter().map(|operation| &operation.key).collect();
    keys.into_iter().cloned().collect()
}
