//! The wire contract of raft-host, and the client that speaks it.

/// Generated from `proto/raft_host/v1`.
#[allow(missing_docs, unreachable_pub, clippy::allow_attributes, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("raft_host.v1");

    /// The encoded `FileDescriptorSet`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// Trailer of every failed call: [`EFFECT_NONE`] or [`EFFECT_UNKNOWN`].
pub const EFFECT_METADATA_KEY: &str = "raft-host-effect";
/// The request surely did not and will not change anything.
pub const EFFECT_NONE: &str = "none";
/// The request may have happened, or may still happen.
pub const EFFECT_UNKNOWN: &str = "unknown";
/// Set on requests that one node passes to another, which must not pass them on again.
pub const FORWARDED_METADATA_KEY: &str = "raft-host-forwarded";
