//! The service that applications use.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use raft_host_proto::stored::entry::Body;
use raft_host_proto::v1::Reason;
use raft_host_proto::v1::client_server::Client;
use raft_host_proto::{stored, v1};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::context::{Again, Context, Route, no_leader};
use super::convert::{outcome_to_wire, session_to_log};
use super::failure::{Failure, apply_response, unexpected};
use super::forward::Forwarder;
use super::stream;
use crate::machine::{QueryReply, QueryResult, Reply};
use crate::node::{Consistency, MachineView};
use crate::types::Exceeded;

/// See `client.proto`.
#[derive(Clone)]
pub(super) struct ClientService {
    pub(super) context: Arc<Context>,
}

/// The entry that holds a command.
pub(super) fn command_entry(request: v1::ApplyRequest) -> Body {
    let session = request.session.map(session_to_log);
    stored::Command { data: request.command, session }.into()
}

impl ClientService {
    async fn apply_one(
        &self,
        caller: &Caller,
        request: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, Failure> {
        let context = &*self.context;
        context.check_group(&request.group)?;
        let here = || async {
            let entry = command_entry(request.clone());
            apply_response(context.handle.propose_counting(entry, request.count_pages).await?)
        };
        let there = context.forwarder.to_leader(
            caller,
            &request,
            Forwarder::client,
            |mut client, request| async move { client.apply(request).await },
        );
        // In a session a second attempt is a retry.
        let again = match request.session {
            Some(_) => Again::Harmless,
            None => Again::Harmful,
        };
        let patience = context.election_patience();
        caller.within(context.on_leaders(caller, patience, again, here, there)).await
    }

    async fn open(
        &self,
        caller: &Caller,
        request: v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionResponse, Failure> {
        let context = &*self.context;
        context.check_group(&request.group)?;
        let here = || async {
            let entry = Body::OpenSession(stored::OpenSession {
                ttl_ms: request.ttl_ms,
                ordered: request.ordered,
            });
            match context.handle.propose(entry).await?.reply {
                Reply::SessionOpened {
                    id,
                    ttl_ms,
                    responses_max,
                    responses_max_bytes,
                    ordered,
                } => Ok(v1::OpenSessionResponse {
                    session_id: id,
                    ttl_ms,
                    responses_max,
                    responses_max_bytes,
                    ordered,
                }),
                Reply::Refused(refused) => Err(refused.into()),
                other => Err(unexpected(&other)),
            }
        };
        let there = context.forwarder.to_leader(
            caller,
            &request,
            Forwarder::client,
            |mut client, request| async move { client.open_session(request).await },
        );
        let (patience, again) = (context.election_patience(), Again::Harmless);
        caller.within(context.on_leaders(caller, patience, again, here, there)).await
    }

    async fn keep(
        &self,
        caller: &Caller,
        request: v1::KeepSessionRequest,
    ) -> Result<v1::KeepSessionResponse, Failure> {
        let context = &*self.context;
        context.check_group(&request.group)?;
        let here = || async {
            let v1::KeepSessionRequest { session_id, acknowledged, .. } = request;
            let entry = Body::KeepSession(stored::KeepSession { session_id, acknowledged });
            match context.handle.propose(entry).await?.reply {
                Reply::SessionKept { ttl_ms } => Ok(v1::KeepSessionResponse { ttl_ms }),
                Reply::Refused(refused) => Err(refused.into()),
                other => Err(unexpected(&other)),
            }
        };
        let there = context.forwarder.to_leader(
            caller,
            &request,
            Forwarder::client,
            |mut client, request| async move { client.keep_session(request).await },
        );
        let (patience, again) = (context.election_patience(), Again::Harmless);
        caller.within(context.on_leaders(caller, patience, again, here, there)).await
    }

    async fn close(
        &self,
        caller: &Caller,
        request: v1::CloseSessionRequest,
    ) -> Result<v1::CloseSessionResponse, Failure> {
        let context = &*self.context;
        context.check_group(&request.group)?;
        let here = || async {
            let entry = Body::CloseSession(stored::CloseSession { session_id: request.session_id });
            match context.handle.propose(entry).await?.reply {
                Reply::SessionClosed => Ok(v1::CloseSessionResponse {}),
                Reply::Refused(refused) => Err(refused.into()),
                other => Err(unexpected(&other)),
            }
        };
        let there = context.forwarder.to_leader(
            caller,
            &request,
            Forwarder::client,
            |mut client, request| async move { client.close_session(request).await },
        );
        let (patience, again) = (context.election_patience(), Again::Harmless);
        caller.within(context.on_leaders(caller, patience, again, here, there)).await
    }

    async fn ask(
        &self,
        caller: &Caller,
        request: v1::QueryRequest,
    ) -> Result<v1::QueryResponse, Failure> {
        let context = &*self.context;
        context.check_group(&request.group)?;
        let consistency = match v1::Consistency::try_from(request.consistency) {
            Ok(v1::Consistency::Linearizable) => Consistency::Linearizable,
            Ok(v1::Consistency::Stale) => Consistency::Stale,
            Err(_) => {
                let words = format!("there is no consistency {}", request.consistency);
                return Err(Failure::none(Reason::InvalidRequest, words));
            }
        };
        if context.handle.machine().borrow().is_none() && consistency == Consistency::Stale {
            let words = "this node has no state yet: it waits for its leader; ask another one";
            return Err(Failure::none(Reason::NotReady, words));
        }
        if let Some(max) = request.max_staleness_ms {
            self.be_fresh(caller, consistency, Duration::from_millis(max)).await?;
        }
        self.await_applied(caller, request.min_index).await?;
        if consistency == Consistency::Linearizable {
            self.await_leader(caller).await?;
        }
        let began = Instant::now();
        let asked = context.handle.query(request.query, consistency);
        match tokio::time::timeout_at(caller.deadline, asked).await {
            Ok(reply) => {
                let response = query_response(reply?)?;
                if consistency == Consistency::Linearizable {
                    context.freshness.note(began);
                }
                let age = context.freshness.age();
                let age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                Ok(v1::QueryResponse { age_ms, ..response })
            }
            Err(_) if context.route() == Route::Nowhere => Err(no_leader()),
            Err(_) => {
                let words = "no leader confirmed in time that it leads; a query changes nothing";
                Err(Failure::none(Reason::DeadlineExceeded, words))
            }
        }
    }

    /// Makes sure that this node's state is no older than that.
    async fn be_fresh(
        &self,
        caller: &Caller,
        consistency: Consistency,
        max: Duration,
    ) -> Result<(), Failure> {
        if consistency == Consistency::Linearizable {
            let words = "max_staleness_ms is for queries with CONSISTENCY_STALE; a linearizable one \
                         is never stale";
            return Err(Failure::none(Reason::InvalidRequest, words));
        }
        match self.context.freshness.age() {
            Some(age) if age <= max => Ok(()),
            _ => caller.within_question(self.context.after_all_committed()).await,
        }
    }

    /// Waits until this node has applied so much.
    async fn await_applied(&self, caller: &Caller, min: u64) -> Result<(), Failure> {
        let mut machine = self.context.handle.machine();
        let applied =
            |view: &Option<Arc<MachineView>>| view.as_ref().map_or(0, |view| view.info.applied.0);
        let has = |view: &Option<Arc<MachineView>>| applied(view) >= min;
        if min == 0 || has(&machine.borrow()) {
            return Ok(());
        }
        match tokio::time::timeout_at(caller.deadline, machine.wait_for(has)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::none(Reason::Stopping, "this node has stopped")),
            Err(_) => {
                let at = applied(&self.context.handle.machine().borrow());
                let words = format!(
                    "this node has applied entry {at}, and not entry {min} yet: another one may have"
                );
                Err(Failure::none(Reason::CannotAnswer, words).about(at))
            }
        }
    }

    /// Without a leader a linearizable query would wait, where the client could ask elsewhere.
    async fn await_leader(&self, caller: &Caller) -> Result<(), Failure> {
        let mut leadership = self.context.handle.leadership();
        if leadership.borrow().leader.is_some() {
            return Ok(());
        }
        let patience = self.context.election_patience().min(caller.remaining());
        let known = leadership.wait_for(|now| now.leader.is_some());
        match tokio::time::timeout(patience, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(no_leader()),
        }
    }
}

fn query_response(reply: QueryReply) -> Result<v1::QueryResponse, Failure> {
    match reply.result {
        QueryResult::Answer(outcome) => Ok(v1::QueryResponse {
            outcome: Some(outcome_to_wire(outcome)),
            applied_index: reply.applied.0,
            fuel_used: reply.fuel_used,
            trap_message: reply.trap_message.unwrap_or_default(),
            age_ms: None,
        }),
        QueryResult::NoModule => Err(Failure::no_module()),
        QueryResult::NoQueryExport => Err(Failure::none(
            Reason::NoQueries,
            "the active module does not export `query`, so it answers no questions; upgrade to \
             one that does",
        )),
        QueryResult::TooLarge { bytes, max } => Err(Failure::too_large(
            Exceeded { limit: "input_max_bytes", value: bytes, max },
            format!("the query has {bytes} bytes and the cluster allows {max}"),
        )),
        QueryResult::Unanswered(reason) => Err(Failure::none(
            Reason::CannotAnswer,
            format!("this node could not run the query, another may: {reason}"),
        )),
    }
}

#[tonic::async_trait]
impl Client for ClientService {
    async fn cluster(
        &self,
        _request: Request<v1::ClusterRequest>,
    ) -> Result<Response<v1::ClusterResponse>, Status> {
        Ok(Response::new(super::cluster::name(&self.context)?))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.apply_one(&caller, request.into_inner()).await?))
    }

    type ApplyStreamStream = stream::Responses;

    async fn apply_stream(
        &self,
        request: Request<Streaming<v1::ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        let answers = stream::run(Arc::clone(&self.context), caller, request.into_inner());
        Ok(Response::new(answers))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let words = "this version of raft-host does not let anybody watch events yet";
        Err(Failure::none(Reason::UnknownMethod, words).into())
    }

    async fn query(
        &self,
        request: Request<v1::QueryRequest>,
    ) -> Result<Response<v1::QueryResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.ask(&caller, request.into_inner()).await?))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.open(&caller, request.into_inner()).await?))
    }

    async fn keep_session(
        &self,
        request: Request<v1::KeepSessionRequest>,
    ) -> Result<Response<v1::KeepSessionResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.keep(&caller, request.into_inner()).await?))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.close(&caller, request.into_inner()).await?))
    }
}
