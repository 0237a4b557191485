//! Whether bytes that pass by are a whole backup.

use sha2::{Digest as _, Sha256};

use super::{BackupError, BackupFacts, BackupReader, HEADER_MAX_BYTES, SHA_BYTES};

/// Looks at the bytes of a backup on their way elsewhere.
#[derive(Debug, Default)]
pub struct Passing {
    /// As much as a header can be long.
    head: Vec<u8>,
    /// Of everything before `tail`.
    hasher: Sha256,
    /// The last bytes, which may be the hash.
    tail: Vec<u8>,
    bytes: u64,
}

/// Magic, version, length and checksum stand around the header.
const HEAD_BYTES: usize = HEADER_MAX_BYTES + 20;

impl Passing {
    /// These came next.
    pub fn see(&mut self, bytes: &[u8]) {
        let head = bytes.len().min(HEAD_BYTES - self.head.len());
        self.head.extend_from_slice(&bytes[..head]);
        self.bytes += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        let passed = self.tail.len().saturating_sub(SHA_BYTES);
        self.hasher.update(&self.tail[..passed]);
        self.tail.drain(..passed);
    }

    /// How many came.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// That was all.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn finish(self) -> Result<BackupFacts, BackupError> {
        let facts = BackupReader::open(&self.head[..])?.facts().clone();
        match self.hasher.finalize()[..] == self.tail[..] {
            true => Ok(facts),
            false => Err(BackupError::CutShort { at: self.bytes }),
        }
    }
}
