//! Generates the Rust code of the wire contract without `protoc`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// What applications and operators see.
const PUBLIC: [&str; 4] = [
    "raft_host/v1/common.proto",
    "raft_host/v1/errors.proto",
    "raft_host/v1/client.proto",
    "raft_host/v1/admin.proto",
];
/// What nodes say to each other, and what they write down.
const PRIVATE: [&str; 4] = [
    "raft_host/peer/v1/peer.proto",
    "raft_host/storage/v1/log.proto",
    "raft_host/storage/v1/snapshot.proto",
    "raft_host/storage/v1/backup.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in PUBLIC.iter().chain(&PRIVATE) {
        println!("cargo::rerun-if-changed={file}");
    }
    // Reflection shows nothing else.
    let public = protox::compile(PUBLIC, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), public.encode_to_vec())?;
    let all = protox::compile(PUBLIC.iter().chain(&PRIVATE), ["."])?;
    std::fs::write(out.join("all_descriptors.bin"), all.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // They hold secrets.
        .skip_debug([
            "raft_host.v1.CreateTokenResponse",
            "raft_host.v1.CreateJoinTokenResponse",
            "raft_host.peer.v1.EnrollRequest",
        ])
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(all)?;
    Ok(())
}
