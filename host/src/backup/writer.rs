//! Writing a backup.

use std::io::{self, Write};

use prost::Message as _;
use raft_host_proto::stored;
use sha2::{Digest as _, Sha256};

use super::{BLOCK_BYTES, BackupFacts, FORMAT_VERSION, MAGIC};

/// Takes the content of a backup; [`BackupWriter::finish`] ends it. See the room for the format.
pub struct BackupWriter<W> {
    out: W,
    hasher: Sha256,
    block: Vec<u8>,
    written: u64,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, facts: &BackupFacts) -> io::Result<BackupWriter<W>> {
        let header = stored::BackupHeader {
            cluster_id: facts.cluster.0.to_vec().into(),
            group: facts.group.clone(),
            index: facts.position.index.0,
            term: facts.position.term.0,
            saved_ms: facts.saved_ms,
            node_id: facts.node.0,
            version: facts.version.clone(),
            digest: facts.digest.0.to_vec().into(),
        };
        let header = header.encode_to_vec();
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let mut checked = FORMAT_VERSION.to_le_bytes().to_vec();
        checked.extend_from_slice(&length.to_le_bytes());
        checked.extend_from_slice(&header);
        let checksum = crc32fast::hash(&checked);
        let block = Vec::with_capacity(BLOCK_BYTES);
        let mut writer = BackupWriter { out, hasher: Sha256::new(), block, written: 0 };
        writer.put(&MAGIC)?;
        writer.put(&checked)?;
        writer.put(&checksum.to_le_bytes())?;
        Ok(writer)
    }

    /// Ends the backup; returns how many bytes it has, and where they went.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<(u64, W)> {
        self.put_block()?;
        self.put(&0_u32.to_le_bytes())?;
        let hash = self.hasher.clone().finalize();
        self.put(&hash)?;
        self.out.flush()?;
        Ok((self.written, self.out))
    }

    fn put_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.put(&(block.len() as u32).to_le_bytes())?;
        self.put(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_BYTES {
            self.put_block()?;
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Does nothing: blocks do not depend on when the writer flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
