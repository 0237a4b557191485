//! The way to the leader: cached connections, and requests marked as passed on.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use raft_host_proto::peer::enrollment_client::EnrollmentClient;
use raft_host_proto::peer::membership_client::MembershipClient;
use raft_host_proto::v1::Reason;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::{FORWARDED_KEY, MESSAGE_MAX_BYTES, mean_for};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::caller::{Caller, name_actor};
use super::config::ApiConfig;
use super::failure::Failure;
use crate::tls::NodeDialer;
use crate::types::{ClusterId, Member, NodeId};

/// Connections to other nodes, by who they are and their address.
pub(super) struct Forwarder {
    channels: Mutex<BTreeMap<(NodeId, String), Channel>>,
    connect_timeout: Duration,
    window_bytes: u32,
    ours: Ours,
    dialer: NodeDialer,
}

/// Says with each request which cluster it is meant for: whoever listens on the address of the last
/// leader may belong to another one by now.
#[derive(Clone)]
pub(super) struct Ours(ClusterId);

impl Interceptor for Ours {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        mean_for(&mut request, self.0.0);
        Ok(request)
    }
}

/// The way to a node of this cluster.
type Way = InterceptedService<Channel, Ours>;

/// Connections kept; leaders are few, so more are left over from members that are gone.
const MAX_CHANNELS: usize = 16;
/// How soon a silent connection is found dead.
const KEEPALIVE: Duration = Duration::from_secs(5);

impl Forwarder {
    pub(super) fn new(config: &ApiConfig, cluster: ClusterId, dialer: NodeDialer) -> Forwarder {
        Forwarder {
            channels: Mutex::default(),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            window_bytes: config.window_bytes,
            ours: Ours(cluster),
            dialer,
        }
    }

    pub(super) fn client(&self, node: &Member) -> Result<ClientClient<Way>, Failure> {
        Ok(ClientClient::with_interceptor(self.channel(node)?, self.ours.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    pub(super) fn admin(&self, node: &Member) -> Result<AdminClient<Way>, Failure> {
        Ok(AdminClient::with_interceptor(self.channel(node)?, self.ours.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    pub(super) fn membership(&self, node: &Member) -> Result<MembershipClient<Way>, Failure> {
        Ok(MembershipClient::with_interceptor(self.channel(node)?, self.ours.clone()))
    }

    pub(super) fn enrollment(&self, node: &Member) -> Result<EnrollmentClient<Way>, Failure> {
        Ok(EnrollmentClient::with_interceptor(self.channel(node)?, self.ours.clone()))
    }

    /// What passes a request on to a leader, by a method of one of the clients above, and takes its
    /// answer.
    pub(super) fn to_leader<'a, C, T, A, M, F>(
        &'a self,
        caller: &'a Caller,
        request: &'a T,
        client: fn(&Forwarder, &Member) -> Result<C, Failure>,
        method: M,
    ) -> impl Fn(Member) -> BoxFuture<'a, Result<A, Failure>>
    where
        C: Send + 'a,
        T: Clone + Send + Sync,
        M: Fn(C, Request<T>) -> F + Copy + Send + 'a,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'a,
    {
        move |leader| {
            async move {
                let client = client(self, &leader)?;
                let request = passed_on(request.clone(), caller, Some(caller.remaining()));
                answered(method(client, request).await)
            }
            .boxed()
        }
    }

    /// A connection that is opened when it is used, and again after it broke.
    fn channel(&self, node: &Member) -> Result<Channel, Failure> {
        let key = (node.id, node.address.clone());
        // Nothing panics under this lock half way.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let address = &node.address;
        let way = self.dialer.to_node(node.id).way(address).map_err(|error| {
            Failure::none(
                Reason::LeaderUnreachable,
                format!("the leader's address {address:?} cannot be dialled: {error}"),
            )
        })?;
        let way = way.tuned(|endpoint| {
            endpoint
                .connect_timeout(self.connect_timeout)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE)
                .initial_stream_window_size(self.window_bytes)
                .initial_connection_window_size(self.window_bytes)
        });
        let channel = way.connect_lazy();
        if channels.len() >= MAX_CHANNELS {
            // Calls on their way hold their own handles.
            channels.clear();
        }
        channels.insert(key, channel.clone());
        Ok(channel)
    }
}

/// What a leader said to a request that was passed on to it.
pub(super) fn answered<A>(answer: Result<Response<A>, Status>) -> Result<A, Failure> {
    answer.map(Response::into_inner).map_err(|status| Failure::from_status(&status))
}

/// Marks a request as passed on in its caller's name, and gives it the time that is left.
pub(super) fn passed_on<T>(message: T, caller: &Caller, remaining: Option<Duration>) -> Request<T> {
    let mut request = passed_on_by_node(message, remaining);
    name_actor(request.metadata_mut(), caller.actor);
    request
}

/// As [`passed_on`], of what a node asks of its own accord.
pub(super) fn passed_on_by_node<T>(message: T, remaining: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED_KEY, MetadataValue::from_static("1"));
    if let Some(remaining) = remaining {
        request.set_timeout(remaining);
    }
    request
}
