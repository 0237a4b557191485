//! The wire contract of raft-host, and the client that speaks it.

/// Generated from `proto/raft_host/v1`.
#[allow(missing_docs, unreachable_pub, clippy::allow_attributes, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("raft_host.v1");

    /// The encoded `FileDescriptorSet`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
