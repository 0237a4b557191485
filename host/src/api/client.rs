//! The service that applications use.

use std::sync::Arc;

use futures::stream::BoxStream;
use raft_host_proto::v1;
use raft_host_proto::v1::Reason;
use raft_host_proto::v1::client_server::Client;
use tonic::{Response, Status, Streaming};

use super::auditing::Witness;
use super::caller::Caller;
use super::context::{Again, Context};
use super::convert::{command_from_wire, index_of};
use super::failure::{Failure, apply_response, unexpected};
use super::forward::Forwarder;
use super::streaming::Terms;
use super::{query_stream, stream};
use crate::machine::Reply;
use crate::node::Request;

/// See `client.proto`.
#[derive(Clone)]
pub(super) struct ClientService {
    pub(super) context: Arc<Context>,
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
            let command = command_from_wire(&request).into();
            let handle = context.handle.acting_for(caller.actor);
            apply_response(handle.propose_counting(command, request.count_pages).await?)
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
            let v1::OpenSessionRequest { ttl_ms, ordered, .. } = request;
            let open = Request::OpenSession { ttl_ms, ordered };
            match context.handle.acting_for(caller.actor).propose(open).await?.reply {
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
            let keep = Request::KeepSession { session_id, acknowledged };
            match context.handle.acting_for(caller.actor).propose(keep).await?.reply {
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
            let close = Request::CloseSession { session_id: request.session_id };
            match context.handle.acting_for(caller.actor).propose(close).await?.reply {
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
}

#[tonic::async_trait]
impl Client for ClientService {
    async fn cluster(
        &self,
        _request: tonic::Request<v1::ClusterRequest>,
    ) -> Result<Response<v1::ClusterResponse>, Status> {
        Ok(Response::new(super::cluster::name(&self.context)?))
    }

    async fn apply(
        &self,
        request: tonic::Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let witness = Witness::of(&request);
        witness.hears(request.get_ref());
        let caller = Caller::of(&request, self.context.request_timeout());
        let response = self.apply_one(&caller, request.into_inner()).await?;
        Ok(witness.answer(response, index_of))
    }

    type ApplyStreamStream = stream::Responses;

    async fn apply_stream(
        &self,
        request: tonic::Request<Streaming<v1::ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        let terms = Terms::of(&request);
        let (context, incoming) = (Arc::clone(&self.context), request.into_inner());
        let answers = stream::run(context, caller, terms, incoming);
        Ok(Response::new(answers))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        _request: tonic::Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let words = "this version of raft-host does not let anybody watch events yet";
        Err(Failure::none(Reason::UnknownMethod, words).into())
    }

    async fn query(
        &self,
        request: tonic::Request<v1::QueryRequest>,
    ) -> Result<Response<v1::QueryResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.context.ask(&caller, request.into_inner()).await?))
    }

    type QueryStreamStream = query_stream::Responses;

    async fn query_stream(
        &self,
        request: tonic::Request<Streaming<v1::QueryStreamRequest>>,
    ) -> Result<Response<Self::QueryStreamStream>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        let (context, terms) = (Arc::clone(&self.context), Terms::of(&request));
        let answers = query_stream::run(context, caller, terms, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn open_session(
        &self,
        request: tonic::Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.open(&caller, request.into_inner()).await?))
    }

    async fn keep_session(
        &self,
        request: tonic::Request<v1::KeepSessionRequest>,
    ) -> Result<Response<v1::KeepSessionResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.keep(&caller, request.into_inner()).await?))
    }

    async fn close_session(
        &self,
        request: tonic::Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let caller = Caller::of(&request, self.context.request_timeout());
        Ok(Response::new(self.close(&caller, request.into_inner()).await?))
    }
}
