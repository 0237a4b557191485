//! A server that misbehaves as told, for the client's tests. It remembers what every session
//! has executed, the way a cluster does.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::kept::cost_bytes;
use super::{Client, ClientOptions, ClusterId};
use crate::v1::admin_server::{Admin, AdminServer};
use crate::v1::client_server::{Client as ClientService, ClientServer};
use crate::{CLUSTER_KEY, EFFECT_KEY, EFFECT_NONE, v1};

/// What the next request meets; nothing planned: it works.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Refused, not executed, and the trailer says so.
    Refuse(Code),
    /// Executed, but the answer is a failure that does not say so.
    LoseAnswer,
    /// On a stream: as `LoseAnswer`, and the stream ends. Otherwise the same.
    DropStream,
    /// On a stream: executed and answered twice. Otherwise ignored.
    AnswerTwice,
    /// Never answered.
    Hang,
    /// Refused as by `Refuse`, after so long.
    RefuseLate(Code, Duration),
}

/// What all nodes of the fake cluster share.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// What its id is made of.
    pub(super) number: Mutex<u8>,
    /// Whether its nodes do not say which cluster they belong to.
    pub(super) is_unconfirmed: Mutex<bool>,
    /// Requests that were meant for another cluster.
    pub(super) refused_foreign: Mutex<u64>,
    pub(super) faults: Mutex<VecDeque<Fault>>,
    /// Every executed command, in order.
    pub(super) executed: Mutex<Vec<Vec<u8>>>,
    sessions: Mutex<BTreeMap<u64, FakeSession>>,
    /// Requests that arrived, with their faults.
    pub(super) requests: Mutex<u64>,
    pub(super) upgrades: Mutex<Vec<v1::UpgradeRequest>>,
    /// Bytes of answers that a session keeps; 0: any number.
    pub(super) kept_max_bytes: Mutex<u64>,
    /// Commands that were refused because their session kept too much.
    pub(super) refused_full: Mutex<u64>,
    /// Requests to keep a session alive.
    pub(super) kept_alive: Mutex<Vec<v1::KeepSessionRequest>>,
    /// Whether its version knows no ordered sessions.
    pub(super) is_old: Mutex<bool>,
    /// Numbers that were skipped.
    pub(super) skipped: Mutex<Vec<u64>>,
    /// Commands that came before their turn.
    pub(super) early: Mutex<u64>,
    /// What the last request but for streams said that it is waited for.
    pub(super) last_timeout: Mutex<Option<String>>,
    /// What the last command of a stream said, in milliseconds.
    pub(super) last_timeout_ms: Mutex<u64>,
    /// Calls, of whatever method; a stream is one.
    pub(super) calls: AtomicU64,
    /// Streams that were opened.
    pub(super) streams: AtomicU64,
    /// Streams that are open.
    pub(super) open_streams: Arc<()>,
    /// Messages that came over streams.
    pub(super) messages: AtomicU64,
}

#[derive(Debug, Default)]
struct FakeSession {
    acknowledged: u64,
    answered: BTreeMap<u64, v1::ApplyResponse>,
    ordered: bool,
    /// Commands that came before their turn.
    waiting: BTreeMap<u64, Vec<u8>>,
}

impl FakeSession {
    fn next(&self) -> u64 {
        self.acknowledged + self.answered.len() as u64 + 1
    }
}

impl Cluster {
    pub(super) fn numbered(number: u8) -> Arc<Cluster> {
        Arc::new(Cluster { number: Mutex::new(number), ..Cluster::default() })
    }

    pub(super) fn id(&self) -> String {
        format!("{:02x}", *self.number.lock().unwrap()).repeat(16)
    }

    fn cluster(&self) -> ClusterId {
        self.id().parse().expect("32 digits")
    }

    /// What every node does with every request, before it looks at it.
    fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match request.metadata().get(CLUSTER_KEY) {
            Some(meant) if meant.as_bytes() != self.id().as_bytes() => {
                *self.refused_foreign.lock().unwrap() += 1;
                let mut refusal = failure(Code::FailedPrecondition);
                refusal.metadata_mut().insert(CLUSTER_KEY, self.id().parse().unwrap());
                Err(refusal)
            }
            _ => Ok(request),
        }
    }

    pub(super) fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(super) fn executed(&self) -> Vec<String> {
        let executed = self.executed.lock().unwrap();
        executed.iter().map(|command| String::from_utf8_lossy(command).into_owned()).collect()
    }

    pub(super) fn sessions(&self) -> Vec<u64> {
        self.sessions.lock().unwrap().keys().copied().collect()
    }

    pub(super) fn expire_sessions(&self) {
        self.sessions.lock().unwrap().clear();
    }

    /// Responses that the cluster still keeps for a session.
    pub(super) fn kept(&self, session: u64) -> usize {
        self.sessions.lock().unwrap()[&session].answered.len()
    }

    fn fault(&self) -> Option<Fault> {
        *self.requests.lock().unwrap() += 1;
        self.faults.lock().unwrap().pop_front()
    }

    fn apply(&self, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, Status> {
        if request.command == "refuse" {
            return Err(failure(Code::InvalidArgument));
        }
        let mut sessions = self.sessions.lock().unwrap();
        let Some(command) = &request.session else {
            return Ok(self.execute(&request.command));
        };
        let Some(session) = sessions.get_mut(&command.session_id) else {
            return Err(refused(v1::Reason::SessionExpired));
        };
        session.acknowledged = session.acknowledged.max(command.acknowledged);
        let acknowledged = session.acknowledged;
        session.answered.retain(|sequence, _| *sequence > acknowledged);
        if command.sequence <= acknowledged {
            return Err(refused(v1::Reason::SequenceTooOld));
        }
        let kept: u64 = session.answered.values().map(cost_bytes).sum();
        let max = *self.kept_max_bytes.lock().unwrap();
        let is_new = !session.answered.contains_key(&command.sequence);
        if is_new && max > 0 && kept >= max && command.sequence != acknowledged + 1 {
            *self.refused_full.lock().unwrap() += 1;
            return Err(failure(Code::ResourceExhausted));
        }
        if command.skip {
            assert!(session.ordered && request.command.is_empty());
            self.skipped.lock().unwrap().push(command.sequence);
            let skipped = session.answered.entry(command.sequence);
            return Ok(skipped.or_insert_with(|| answered(b"", 0)).clone());
        }
        let response = session.answered.entry(command.sequence);
        Ok(response.or_insert_with(|| self.execute(&request.command)).clone())
    }

    /// Whether a command has to wait in its ordered session, in which it then is.
    fn waits(&self, request: &v1::ApplyRequest) -> bool {
        let Some(command) = &request.session else { return false };
        let mut sessions = self.sessions.lock().unwrap();
        let Some(session) = sessions.get_mut(&command.session_id) else { return false };
        let is_early = session.ordered && command.sequence > session.next();
        if is_early && request.command != "refuse" {
            *self.early.lock().unwrap() += 1;
            session.waiting.insert(command.sequence, request.command.to_vec());
        }
        is_early && request.command != "refuse"
    }

    /// Executes what has waited long enough.
    fn release(&self, session_id: u64) -> Vec<(u64, v1::ApplyResponse)> {
        let mut sessions = self.sessions.lock().unwrap();
        let Some(session) = sessions.get_mut(&session_id) else { return Vec::new() };
        let mut released = Vec::new();
        while let Some(command) = session.waiting.remove(&session.next()) {
            let (sequence, response) = (session.next(), self.execute(&command));
            session.answered.insert(sequence, response.clone());
            released.push((sequence, response));
        }
        released
    }

    fn note_timeout<T>(&self, request: &Request<T>) {
        let said = request.metadata().get("grpc-timeout");
        *self.last_timeout.lock().unwrap() = said.map(|said| said.to_str().unwrap().to_owned());
    }

    fn execute(&self, command: &[u8]) -> v1::ApplyResponse {
        let mut executed = self.executed.lock().unwrap();
        executed.push(command.to_vec());
        // A command that says so is answered with that many bytes.
        let long = command.strip_prefix(b"long ").map(|number| {
            let text = String::from_utf8_lossy(number);
            vec![b'x'; text.split(' ').next().unwrap().parse().unwrap()]
        });
        answered(&long.unwrap_or_else(|| command.to_vec()), executed.len() as u64)
    }
}

fn answered(answer: &[u8], index: u64) -> v1::ApplyResponse {
    let kind = v1::outcome::Kind::Ok(answer.to_vec().into());
    v1::ApplyResponse {
        outcome: Some(v1::Outcome { kind: Some(kind), duplicate: false }),
        position: Some(v1::Position { index, ordinal: 0 }),
        ..v1::ApplyResponse::default()
    }
}

fn failure(code: Code) -> Status {
    let mut status = Status::new(code, "planned");
    status.metadata_mut().insert(EFFECT_KEY, EFFECT_NONE.parse().unwrap());
    status
}

/// One node; stops when dropped.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn node(cluster: &Arc<Cluster>) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Service(Arc::clone(cluster));
    let (one, other) = (Arc::clone(cluster), Arc::clone(cluster));
    let task = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(ClientServer::with_interceptor(service.clone(), move |it| one.check(it)))
            .add_service(AdminServer::with_interceptor(service, move |it| other.check(it)))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    Node { address, task }
}

/// As [`node`], with a runtime of its own: when that is shut down, its connections are gone as well.
pub(super) fn mortal_node(cluster: &Arc<Cluster>) -> (Node, Runtime) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let (cluster, (to, node)) = (Arc::clone(cluster), std::sync::mpsc::channel());
    runtime.spawn(async move { to.send(self::node(&cluster).await).unwrap() });
    (node.recv().unwrap(), runtime)
}

/// An address at which nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A client that does not wait long between attempts.
pub(super) fn client(addresses: &[SocketAddr], options: ClientOptions) -> Client {
    let options = ClientOptions {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..options
    };
    Client::connect(addresses.iter().map(ToString::to_string), options).unwrap()
}

#[derive(Clone)]
struct Service(Arc<Cluster>);

impl Service {
    async fn answer(&self, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, Status> {
        match self.0.fault() {
            None | Some(Fault::AnswerTwice) => self.0.apply(request),
            Some(Fault::Refuse(code)) => Err(failure(code)),
            Some(Fault::RefuseLate(code, time)) => {
                tokio::time::sleep(time).await;
                Err(failure(code))
            }
            Some(Fault::LoseAnswer | Fault::DropStream) => {
                self.0.apply(request)?;
                Err(Status::unavailable("lost"))
            }
            Some(Fault::Hang) => std::future::pending().await,
        }
    }

    /// What a stream answers to its messages.
    fn results(
        self,
        batches: impl Stream<Item = Result<v1::ApplyStreamRequest, Status>> + Send + Unpin + 'static,
    ) -> BoxStream<'static, Result<Vec<v1::TaggedResult>, Status>> {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        let is_open = Arc::clone(&self.0.open_streams);
        let batches = (self, batches, true, is_open);
        let results =
            futures::stream::unfold(batches, |(service, mut batches, open, is_open)| async move {
                let batch = batches.next().await?.ok().filter(|_| open)?;
                // The answers of the batch in which the stream breaks are lost as well.
                let (results, open) = service.answer_batch(batch).await;
                let results = open.then_some(results).ok_or(Status::unavailable("dropped"));
                Some((results, (service, batches, open, is_open)))
            });
        results.boxed()
    }

    /// The results of one message of a stream, and whether the stream goes on.
    async fn answer_batch(&self, batch: v1::ApplyStreamRequest) -> (Vec<v1::TaggedResult>, bool) {
        let mut results = Vec::new();
        self.0.messages.fetch_add(1, Ordering::Relaxed);
        for v1::TaggedCommand { tag, request, timeout_ms } in batch.commands {
            *self.0.last_timeout_ms.lock().unwrap() = timeout_ms;
            let request = request.unwrap();
            let session_id = request.session.map_or(0, |session| session.session_id);
            let fault = self.0.fault();
            if fault.is_none() && self.0.waits(&request) {
                continue;
            }
            let (answer, twice) = match fault {
                Some(Fault::DropStream | Fault::LoseAnswer | Fault::AnswerTwice)
                    if self.0.waits(&request) =>
                {
                    (Err(Status::unavailable("lost")), false)
                }
                Some(Fault::DropStream) => {
                    self.0.apply(request).unwrap();
                    return (results, false);
                }
                Some(Fault::AnswerTwice) => (self.0.apply(request), true),
                Some(Fault::Refuse(code)) => (Err(failure(code)), false),
                Some(Fault::RefuseLate(code, time)) => {
                    tokio::time::sleep(time).await;
                    (Err(failure(code)), false)
                }
                Some(Fault::LoseAnswer) => {
                    self.0.apply(request).unwrap();
                    (Err(Status::unavailable("lost")), false)
                }
                Some(Fault::Hang) => continue,
                None => (self.0.apply(request), false),
            };
            let result = tagged(tag, answer);
            results.extend(twice.then(|| result.clone()));
            results.push(result);
            let released = self.0.release(session_id);
            // The pipeline's tags are its numbers.
            results.extend(released.into_iter().map(|(tag, response)| tagged(tag, Ok(response))));
        }
        // Any order is allowed.
        results.reverse();
        (results, true)
    }
}

/// Whether an earlier attempt had an effect is not known.
fn refused(reason: v1::Reason) -> Status {
    let detail = v1::ErrorDetail { reason: reason.into(), ..Default::default() };
    let trailer = detail.to_trailer(reason.code(), "refused");
    Status::with_details(reason.code(), "refused", trailer)
}

fn tagged(tag: u64, answer: Result<v1::ApplyResponse, Status>) -> v1::TaggedResult {
    use v1::tagged_result::Result as Tagged;
    let result = match answer {
        Ok(response) => Tagged::Response(response),
        Err(status) => {
            let none = status.metadata().contains_key(EFFECT_KEY);
            let effect = if none { v1::Effect::None } else { v1::Effect::Unknown };
            let said = v1::ErrorDetail::of(&status);
            let detail =
                said.unwrap_or(v1::ErrorDetail { effect: effect.into(), ..Default::default() });
            Tagged::Error(v1::ApplyError {
                code: status.code().into(),
                message: status.message().to_owned(),
                detail: Some(detail),
            })
        }
    };
    v1::TaggedResult { tag, result: Some(result) }
}

#[tonic::async_trait]
impl ClientService for Service {
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;
    type ApplyStreamStream = BoxStream<'static, Result<v1::ApplyStreamResponse, Status>>;
    type QueryStreamStream = BoxStream<'static, Result<v1::QueryStreamResponse, Status>>;

    async fn cluster(
        &self,
        _request: Request<v1::ClusterRequest>,
    ) -> Result<Response<v1::ClusterResponse>, Status> {
        match *self.0.is_unconfirmed.lock().unwrap() {
            true => Err(failure(Code::Unavailable)),
            false => {
                Ok(Response::new(v1::ClusterResponse { cluster_id: self.0.cluster().to_bytes() }))
            }
        }
    }

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        self.0.note_timeout(&request);
        self.answer(request.into_inner()).await.map(Response::new)
    }

    async fn apply_stream(
        &self,
        request: Request<Streaming<v1::ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        let responses = self.clone().results(request.into_inner());
        let responses = responses.map(|it| Ok(v1::ApplyStreamResponse { results: it? }));
        Ok(Response::new(responses.boxed()))
    }

    async fn query_stream(
        &self,
        request: Request<Streaming<v1::QueryStreamRequest>>,
    ) -> Result<Response<Self::QueryStreamStream>, Status> {
        let questions = request.into_inner().map(|message| {
            let commands =
                message?.queries.into_iter().map(|v1::TaggedQuery { tag, request, timeout_ms }| {
                    let command = request.unwrap().query;
                    let request = Some(v1::ApplyRequest { command, ..Default::default() });
                    v1::TaggedCommand { tag, request, timeout_ms }
                });
            Ok(v1::ApplyStreamRequest { commands: commands.collect() })
        });
        let answers = self.clone().results(questions).map(|results| {
            let answers = results?.into_iter().map(|v1::TaggedResult { tag, result }| {
                use v1::tagged_answer::Result as Answer;
                use v1::tagged_result::Result as Tagged;
                let result = result.map(|result| match result {
                    Tagged::Response(response) => Answer::Response(v1::QueryResponse {
                        outcome: response.outcome,
                        ..Default::default()
                    }),
                    Tagged::Error(error) => Answer::Error(error),
                });
                v1::TaggedAnswer { tag, result }
            });
            Ok(v1::QueryStreamResponse { answers: answers.collect() })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn query(
        &self,
        request: Request<v1::QueryRequest>,
    ) -> Result<Response<v1::QueryResponse>, Status> {
        let request =
            v1::ApplyRequest { command: request.into_inner().query, ..Default::default() };
        let outcome = self.answer(request).await?.outcome;
        Ok(Response::new(v1::QueryResponse { outcome, ..Default::default() }))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let mut sessions = self.0.sessions.lock().unwrap();
        let session_id = sessions.last_key_value().map_or(1, |(id, _)| id + 1);
        let v1::OpenSessionRequest { ttl_ms, ordered, .. } = request.into_inner();
        let ordered = ordered && !*self.0.is_old.lock().unwrap();
        sessions.insert(session_id, FakeSession { ordered, ..FakeSession::default() });
        let ttl_ms = if ttl_ms == 0 { 600_000 } else { ttl_ms };
        let responses_max_bytes = *self.0.kept_max_bytes.lock().unwrap();
        let opened = v1::OpenSessionResponse {
            session_id,
            ttl_ms,
            responses_max_bytes,
            ordered,
            ..Default::default()
        };
        Ok(Response::new(opened))
    }

    async fn keep_session(
        &self,
        request: Request<v1::KeepSessionRequest>,
    ) -> Result<Response<v1::KeepSessionResponse>, Status> {
        let request = request.into_inner();
        self.0.kept_alive.lock().unwrap().push(request);
        Ok(Response::new(v1::KeepSessionResponse { ttl_ms: 600_000 }))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        self.0.sessions.lock().unwrap().remove(&request.into_inner().session_id);
        Ok(Response::new(v1::CloseSessionResponse {}))
    }
}

/// Methods that no test calls, written out because `async_trait` does not see into a macro.
macro_rules! unplanned {
    ($($method:ident: $request:ident -> $response:ident),* $(,)?) => {
        $(fn $method<'life, 'async_trait>(
            &'life self,
            _request: Request<v1::$request>,
        ) -> BoxFuture<'async_trait, Result<Response<v1::$response>, Status>>
        where
            'life: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not planned")) })
        })*
    };
}

#[tonic::async_trait]
impl Admin for Service {
    unplanned!(
        add_member: AddMemberRequest -> AddMemberResponse,
        promote_member: PromoteMemberRequest -> MembersResponse,
        remove_member: RemoveMemberRequest -> MembersResponse,
        demote_member: DemoteMemberRequest -> MembersResponse,
        replace_member: ReplaceMemberRequest -> MembersResponse,
        transfer_leadership: TransferLeadershipRequest -> TransferLeadershipResponse,
        drain: DrainRequest -> DrainResponse,
        limits: LimitsRequest -> LimitsResponse,
        set_limits: SetLimitsRequest -> SetLimitsResponse,
        keys: KeysRequest -> KeysResponse,
        set_keys: SetKeysRequest -> SetKeysResponse,
        set_engine: SetEngineRequest -> SetEngineResponse,
        raise_level: RaiseLevelRequest -> RaiseLevelResponse,
        set_clock: SetClockRequest -> SetClockResponse,
        take_snapshot: TakeSnapshotRequest -> TakeSnapshotResponse,
        members: MembersRequest -> MembersResponse,
        confirm: ConfirmRequest -> ConfirmResponse,
        access: AccessRequest -> AccessResponse,
        set_access: SetAccessRequest -> SetAccessResponse,
        create_token: CreateTokenRequest -> CreateTokenResponse,
        create_join_token: CreateJoinTokenRequest -> CreateJoinTokenResponse,
        revoke_join_token: RevokeJoinTokenRequest -> RevokeJoinTokenResponse,
        who_am_i: WhoAmIRequest -> WhoAmIResponse,
    );

    type BackupStream = tokio_stream::Empty<Result<v1::BackupResponse, Status>>;

    async fn backup(
        &self,
        _request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    type ExportStream = tokio_stream::Empty<Result<v1::ExportResponse, Status>>;

    async fn export(
        &self,
        _request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    async fn digest(
        &self,
        _request: Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestResponse>, Status> {
        let command = "digest".into();
        self.answer(v1::ApplyRequest { command, ..Default::default() }).await?;
        Ok(Response::new(v1::DigestResponse { all_agree: true, ..Default::default() }))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse { node_id: 7, ..Default::default() }))
    }

    async fn modules(
        &self,
        request: Request<v1::ModulesRequest>,
    ) -> Result<Response<v1::ModulesResponse>, Status> {
        assert!(request.into_inner().linearizable, "another node may not know yet");
        let module_hash = vec![0x0a; 32].into();
        let active = v1::Activation { index: 4, module_hash, ..Default::default() };
        let history = vec![v1::Activation::default(), active];
        Ok(Response::new(v1::ModulesResponse { history, ..Default::default() }))
    }

    async fn stage_module(
        &self,
        _request: Request<Streaming<v1::UpgradeRequest>>,
    ) -> Result<Response<v1::StageModuleResponse>, Status> {
        let command = "stage".into();
        self.answer(v1::ApplyRequest { command, ..Default::default() }).await?;
        Ok(Response::new(v1::StageModuleResponse::default()))
    }

    async fn rehearse(
        &self,
        _request: Request<v1::RehearseRequest>,
    ) -> Result<Response<v1::RehearseResponse>, Status> {
        let command = "rehearse".into();
        self.answer(v1::ApplyRequest { command, ..Default::default() }).await?;
        Ok(Response::new(v1::RehearseResponse { passed: true, ..Default::default() }))
    }

    type ShadowStream = tokio_stream::Empty<Result<v1::ShadowProgress, Status>>;

    async fn shadow(
        &self,
        _request: Request<v1::ShadowRequest>,
    ) -> Result<Response<Self::ShadowStream>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    async fn query_at(
        &self,
        _request: Request<v1::QueryAtRequest>,
    ) -> Result<Response<v1::QueryAtResponse>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    async fn activate(
        &self,
        _request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    async fn confirm_upgrade(
        &self,
        _request: Request<v1::ConfirmUpgradeRequest>,
    ) -> Result<Response<v1::ConfirmUpgradeResponse>, Status> {
        Err(Status::unimplemented("not planned"))
    }

    async fn upgrade(
        &self,
        request: Request<Streaming<v1::UpgradeRequest>>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            self.0.upgrades.lock().unwrap().push(part);
        }
        Ok(Response::new(v1::UpgradeResponse { index: 5, ..Default::default() }))
    }
}
