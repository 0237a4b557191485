//! Header, blocks and footer of a snapshot file; drawn in the module above.

use std::io::{self, Read};
use std::path::Path;

use bytes::{Buf as _, BufMut as _};

use super::super::disk::{corrupt, io_error};
use super::super::{SnapshotMeta, StorageError};
use crate::types::{ConfState, GroupId, Index, NodeId, Term};

const MAGIC: &[u8; 8] = b"RHSNAPSH";
const VERSION: u32 = 1;
const MAX_META_BYTES: usize = 1 << 20;
pub(super) const FOOTER_BYTES: usize = 4 + 8 + 4 + 4;

pub(super) fn encode_header(meta: &SnapshotMeta) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64_le(meta.group.0);
    body.put_u64_le(meta.index.0);
    body.put_u64_le(meta.term.0);
    let conf = &meta.conf_state;
    body.put_u8(u8::from(conf.auto_leave));
    for nodes in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
        body.put_u32_le(u32::try_from(nodes.len()).expect("groups have few members"));
        nodes.iter().for_each(|node| body.put_u64_le(node.0));
    }
    let mut header = Vec::with_capacity(body.len() + 20);
    header.put_slice(MAGIC);
    header.put_u32_le(VERSION);
    header.put_u32_le(u32::try_from(body.len()).expect("groups have few members"));
    header.put_slice(&body);
    header.put_u32_le(crc32fast::hash(&header));
    header
}

/// Reads and checks a header; returns its length too.
pub(super) fn read_header(
    file: &mut impl Read,
    path: &Path,
) -> Result<(SnapshotMeta, u64), StorageError> {
    let mut header = vec![0; 16];
    read_exactly(file, path, &mut header)?;
    if !header.starts_with(MAGIC) {
        return Err(corrupt(path, 0, "this is not a snapshot"));
    }
    let (version, length) = ((&header[8..]).get_u32_le(), (&header[12..]).get_u32_le() as usize);
    if version != VERSION {
        return Err(corrupt(path, 8, format!("unknown snapshot format {version}")));
    }
    if length > MAX_META_BYTES {
        return Err(corrupt(path, 12, "the header is too long"));
    }
    header.resize(16 + length + 4, 0);
    read_exactly(file, path, &mut header[16..])?;
    let (content, expected) = header.split_at(16 + length);
    if expected != crc32fast::hash(content).to_le_bytes() {
        return Err(corrupt(path, 0, "the checksum of the header does not fit"));
    }
    let meta = decode_meta(&content[16..])
        .ok_or_else(|| corrupt(path, 16, "the header's fields do not fit its length"))?;
    Ok((meta, header.len() as u64))
}

fn read_exactly(file: &mut impl Read, path: &Path, bytes: &mut [u8]) -> Result<(), StorageError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => corrupt(path, 0, "the file ends within its header"),
        _ => io_error("read", path)(error),
    })
}

fn decode_meta(mut body: &[u8]) -> Option<SnapshotMeta> {
    let group = GroupId(body.try_get_u64_le().ok()?);
    let index = Index(body.try_get_u64_le().ok()?);
    let term = Term(body.try_get_u64_le().ok()?);
    let auto_leave = body.try_get_u8().ok()? != 0;
    let mut conf_state = ConfState { auto_leave, ..ConfState::default() };
    for nodes in [
        &mut conf_state.voters,
        &mut conf_state.learners,
        &mut conf_state.voters_outgoing,
        &mut conf_state.learners_next,
    ] {
        for _ in 0..body.try_get_u32_le().ok()? {
            nodes.insert(NodeId(body.try_get_u64_le().ok()?));
        }
    }
    let meta = SnapshotMeta { group, index, term, conf_state, size_bytes: 0, checksum: 0 };
    body.is_empty().then_some(meta)
}

pub(super) fn encode_block_header(block: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(8);
    header.put_u32_le(u32::try_from(block.len()).expect("blocks are bounded"));
    header.put_u32_le(crc32fast::hash(block));
    header
}

pub(super) fn encode_footer(size_bytes: u64, checksum: u32) -> Vec<u8> {
    let mut footer = Vec::with_capacity(FOOTER_BYTES);
    footer.put_u32_le(0);
    footer.put_u64_le(size_bytes);
    footer.put_u32_le(checksum);
    footer.put_u32_le(crc32fast::hash(&footer));
    footer
}

/// Length and checksum of the content, if the footer is good.
pub(super) fn decode_footer(footer: &[u8; FOOTER_BYTES]) -> Option<(u64, u32)> {
    let (size_bytes, checksum) = ((&footer[4..]).get_u64_le(), (&footer[12..]).get_u32_le());
    (encode_footer(size_bytes, checksum) == footer).then_some((size_bytes, checksum))
}
