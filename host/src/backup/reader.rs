//! Reading a backup: nothing in it is believed before it is checked.

use std::io::{self, Read};

use prost::Message as _;
use raft_host_proto::stored;
use sha2::{Digest as _, Sha256};

use super::{
    BLOCK_BYTES, BackupError, BackupFacts, FORMAT_VERSION, HEADER_MAX_BYTES, MAGIC, SHA_BYTES,
};
use crate::fsm::SharedLoader;
use crate::machine::Machine;
use crate::types::{ClusterId, GroupId, Index, LogPosition, NodeId, StateDigest, Term};

/// Reads the content of a backup. Only whoever has read all of it ([`BackupReader::to_end`]) knows that it
/// is the one that was written.
pub struct BackupReader<R> {
    input: Counted<R>,
    facts: BackupFacts,
    block: Vec<u8>,
    /// Bytes of `block` that were handed out.
    taken: usize,
    is_at_end: bool,
    /// Why it cannot be read on; for [`BackupReader::to_end`], since [`Read`] has no room for it.
    failure: Option<BackupError>,
}

/// Counts and hashes what is read.
struct Counted<R> {
    input: R,
    hasher: Sha256,
    at: u64,
}

impl<R: Read> Counted<R> {
    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => return Err(BackupError::CutShort { at: self.at + filled as u64 }),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BackupError::Io(error)),
            }
        }
        self.hasher.update(&*bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn number(&mut self) -> Result<u32, BackupError> {
        let mut bytes = [0; 4];
        self.exactly(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn damaged(&self, reason: impl Into<String>) -> BackupError {
        BackupError::Damaged { at: self.at, reason: reason.into() }
    }
}

impl<R: Read> BackupReader<R> {
    /// Reads what a backup says of itself.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn open(input: R) -> Result<BackupReader<R>, BackupError> {
        let mut input = Counted { input, hasher: Sha256::new(), at: 0 };
        let mut magic = [0; MAGIC.len()];
        match input.exactly(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Ok(()) | Err(BackupError::CutShort { .. }) => return Err(BackupError::NotABackup),
            Err(error) => return Err(error),
        }
        let version = input.number()?;
        if version > FORMAT_VERSION {
            return Err(BackupError::Newer { found: version });
        }
        let length = input.number()?;
        if length as usize > HEADER_MAX_BYTES {
            return Err(input.damaged(format!("a header of {length} bytes is too long")));
        }
        let mut header = vec![0; length as usize];
        input.exactly(&mut header)?;
        let mut checked = version.to_le_bytes().to_vec();
        checked.extend_from_slice(&length.to_le_bytes());
        checked.extend_from_slice(&header);
        if input.number()? != crc32fast::hash(&checked) || version == 0 {
            return Err(input.damaged("the header does not fit its checksum"));
        }
        let facts = facts(&header).map_err(|reason| input.damaged(reason))?;
        let (block, taken, is_at_end, failure) = (Vec::new(), 0, false, None);
        Ok(BackupReader { input, facts, block, taken, is_at_end, failure })
    }

    /// What it says of itself.
    pub fn facts(&self) -> &BackupFacts {
        &self.facts
    }

    /// Reads the rest; returns how many bytes the backup has. Then it is what was written.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn to_end(mut self) -> Result<u64, BackupError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        while !self.is_at_end {
            self.next_block()?;
        }
        Ok(self.input.at)
    }

    /// Restores the machine that it holds, still one of its own cluster, and checks that the state
    /// is the one that was copied. Reads all of it.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn restore(mut self, loader: SharedLoader) -> Result<Machine, BackupError> {
        let (cluster, position) = (self.facts.cluster, self.facts.position);
        let restored = Machine::restore(&mut self, cluster, GroupId::MAIN, loader);
        // Bytes that are not those that were written explain whatever the machine says of them.
        let expected = self.facts.digest;
        self.to_end()?;
        let mut machine = restored?;
        let found = machine.digest_now().map_err(crate::machine::RestoreError::Host)?;
        if found != expected || machine.applied_index() != position.index {
            return Err(BackupError::OtherState { expected, found });
        }
        Ok(machine)
    }

    fn next_block(&mut self) -> Result<(), BackupError> {
        let length = self.input.number()? as usize;
        if length > BLOCK_BYTES {
            return Err(self.input.damaged(format!("a block of {length} bytes is too long")));
        }
        if length > 0 {
            self.block.resize(length, 0);
            self.taken = 0;
            return self.input.exactly(&mut self.block);
        }
        let expected: [u8; SHA_BYTES] = self.input.hasher.clone().finalize().into();
        let mut found = [0; SHA_BYTES];
        self.input.exactly(&mut found)?;
        if found != expected {
            return Err(self.input.damaged("its bytes do not fit its SHA-256"));
        }
        match self.input.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(self.input.damaged("there are bytes after its end")),
            Err(error) => return Err(BackupError::Io(error)),
        }
        (self.block, self.taken, self.is_at_end) = (Vec::new(), 0, true);
        Ok(())
    }
}

impl<R: Read> Read for BackupReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let is_used_up = self.taken == self.block.len() && !self.is_at_end;
        if is_used_up && let Err(failure) = self.next_block() {
            let words = failure.to_string();
            self.failure = Some(failure);
            return Err(io::Error::other(words));
        }
        let rest = &self.block[self.taken..];
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

fn facts(header: &[u8]) -> Result<BackupFacts, String> {
    let header = stored::BackupHeader::decode(header).map_err(|error| error.to_string())?;
    let cluster = ClusterId::try_from(&header.cluster_id[..]).map_err(|error| error.to_string())?;
    let digest = StateDigest::try_from(&header.digest[..]).map_err(|error| error.to_string())?;
    let position = LogPosition { index: Index(header.index), term: Term(header.term) };
    let stored::BackupHeader { group, saved_ms, node_id, version, .. } = header;
    let node = NodeId(node_id);
    Ok(BackupFacts { cluster, group, position, saved_ms, node, version, digest })
}
