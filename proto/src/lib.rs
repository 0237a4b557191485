//! The wire contract of raft-host, and the client that speaks it.

pub mod client;
pub mod codec;
pub mod dial;
mod errors;
mod secret;

pub use client::{Client, ClientError, ClusterId, Effect};
pub use secret::Secret;

/// What applications and operators see: generated from `proto/raft_host/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("raft_host.v1");

    /// The encoded `FileDescriptorSet`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

impl v1::StatusResponse {
    /// What the node says of a group; empty: of the main one.
    pub fn group(&self, name: &str) -> Option<&v1::GroupStatus> {
        let name = if name.is_empty() { MAIN_GROUP } else { name };
        self.groups.iter().find(|group| group.group == name)
    }
}

impl v1::MemberInfo {
    /// Whether it votes, and goes on to do so.
    pub fn is_voter(&self) -> bool {
        self.kind() == v1::member_info::Kind::Voter
    }
}

/// The name of the group that every cluster has.
pub const MAIN_GROUP: &str = "main";

/// What nodes say to each other: generated from `proto/raft_host/peer/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod peer {
    tonic::include_proto!("raft_host.peer.v1");
}

/// What nodes write down: generated from `proto/raft_host/storage/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod stored {
    tonic::include_proto!("raft_host.storage.v1");
}

/// A command alone: a batch of one.
impl From<stored::Command> for stored::entry::Body {
    fn from(command: stored::Command) -> Self {
        stored::entry::Body::Batch(stored::Batch { commands: vec![command] })
    }
}

/// The encoded `FileDescriptorSet` of all packages.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all_descriptors.bin"));

/// Trailer of a failed call that says whether the request may have had an effect:
/// [`EFFECT_NONE`] or [`EFFECT_UNKNOWN`].
pub const EFFECT_KEY: &str = "raft-host-effect";
/// The request surely had no effect and will have none.
pub const EFFECT_NONE: &str = "none";
/// The request may have had an effect, or may still have one.
pub const EFFECT_UNKNOWN: &str = "unknown";

/// Largest gRPC message that clients and servers send or take.
pub const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Metadata of every answer: the id of the cluster that gave it, 32 hexadecimal digits. On a request:
/// the cluster that it is meant for; every other one refuses it.
pub const CLUSTER_KEY: &str = "raft-host-cluster";

/// Says in a request's metadata which cluster it is meant for; every other one refuses it.
pub fn mean_for<T>(request: &mut tonic::Request<T>, cluster: [u8; 16]) {
    let digits = format!("{:032x}", u128::from_be_bytes(cluster));
    let value = tonic::metadata::MetadataValue::try_from(digits).expect("digits are ASCII");
    request.metadata_mut().insert(CLUSTER_KEY, value);
}

/// Set on requests that one node passes to another, which must not pass them on again.
pub const FORWARDED_KEY: &str = "raft-host-forwarded";

/// Names in whose name a request was made that one node passes to another. It counts only over a connection
/// that has proved to be a node's.
pub const ACTOR_KEY: &str = "raft-host-actor";

/// Nothing of the secret is shown.
impl std::fmt::Debug for v1::CreateTokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateTokenResponse")
            .field("index", &self.index)
            .field("principal", &self.principal)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// Nothing of the secret is shown.
impl std::fmt::Debug for v1::CreateJoinTokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateJoinTokenResponse")
            .field("index", &self.index)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// Nothing of the secret is shown.
impl std::fmt::Debug for peer::EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("join", &self.join)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}
