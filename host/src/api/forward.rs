//! The way to the leader: cached connections, and requests marked as passed on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use raft_host_proto::peer::membership_client::MembershipClient;
use raft_host_proto::v1::Reason;
use raft_host_proto::v1::admin_client::AdminClient;
use raft_host_proto::v1::client_client::ClientClient;
use raft_host_proto::{CLUSTER_KEY, FORWARDED_KEY, MESSAGE_MAX_BYTES};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::config::ApiConfig;
use super::failure::Failure;
use crate::types::ClusterId;

/// Connections to other nodes, by address.
pub(super) struct Forwarder {
    channels: Mutex<BTreeMap<String, Channel>>,
    connect_timeout: Duration,
    window_bytes: u32,
    ours: Ours,
}

/// Says with each request which cluster it is meant for: whoever listens on the address of the last
/// leader may belong to another one by now.
#[derive(Clone)]
pub(super) struct Ours(MetadataValue<Ascii>);

impl Ours {
    fn new(cluster: ClusterId) -> Ours {
        Ours(MetadataValue::try_from(cluster.to_string()).expect("digits are ASCII"))
    }
}

impl Interceptor for Ours {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER_KEY, self.0.clone());
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
    pub(super) fn new(config: &ApiConfig, cluster: ClusterId) -> Forwarder {
        Forwarder {
            channels: Mutex::default(),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            window_bytes: config.window_bytes,
            ours: Ours::new(cluster),
        }
    }

    pub(super) fn client(&self, address: &str) -> Result<ClientClient<Way>, Failure> {
        Ok(ClientClient::with_interceptor(self.channel(address)?, self.ours.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    pub(super) fn admin(&self, address: &str) -> Result<AdminClient<Way>, Failure> {
        Ok(AdminClient::with_interceptor(self.channel(address)?, self.ours.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    pub(super) fn membership(&self, address: &str) -> Result<MembershipClient<Way>, Failure> {
        Ok(MembershipClient::with_interceptor(self.channel(address)?, self.ours.clone()))
    }

    /// A connection that is opened when it is used, and again after it broke.
    fn channel(&self, address: &str) -> Result<Channel, Failure> {
        // Nothing panics under this lock half way.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            Failure::none(
                Reason::LeaderUnreachable,
                format!("the leader's address {address:?} cannot be dialled: {error}"),
            )
        })?;
        let channel = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .initial_stream_window_size(self.window_bytes)
            .initial_connection_window_size(self.window_bytes)
            .connect_lazy();
        if channels.len() >= MAX_CHANNELS {
            // Calls on their way hold their own handles.
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Marks a request as passed on and gives it the time that is left.
pub(super) fn passed_on<T>(message: T, remaining: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED_KEY, MetadataValue::from_static("1"));
    if let Some(remaining) = remaining {
        request.set_timeout(remaining);
    }
    request
}
