//! Secret keys of publishers. They are written to files with the mode 0600 and shown nowhere else.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use super::key::PublicKey;

/// More than any file with one key.
const FILE_MAX_BYTES: u64 = 16 << 10;

/// A key that makes signatures. It is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// Why a secret key is not made, written or read. Says nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
    /// Nothing is ever overwritten.
    #[error("{0} exists already: no key is ever overwritten, so choose another file")]
    Exists(String),
    /// The file.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// It holds something else.
    #[error(
        "{0} holds no secret key: expected ed25519 as PKCS#8 in PEM, as `raft-host keys generate` writes it"
    )]
    Malformed(String),
}

impl SecretKey {
    /// A new one, of the system's randomness.
    ///
    /// # Errors
    /// The system gives none.
    pub fn generate() -> Result<SecretKey, SecretError> {
        let mut seed = Zeroizing::new([0; 32]);
        OsRng
            .try_fill_bytes(&mut *seed)
            .map_err(|error| SecretError::NoRandomness(error.to_string()))?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    /// The one that these bytes are. Whoever knows them can sign.
    pub fn from_seed(seed: [u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(&seed))
    }

    /// Writes it to a new file that nobody else may read.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), SecretError> {
        let name = path.display().to_string();
        // Without the public key, which some readers of PKCS#8 do not expect there.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let pem = pair.to_pkcs8_pem(LineEnding::LF).expect("a key has an encoding");
        let options = File::options().write(true).create_new(true).mode(0o600).clone();
        let mut file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => SecretError::Exists(name.clone()),
            _ => SecretError::Io(name.clone(), error),
        })?;
        let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| {
            // What is half there is no key; it can be tried again.
            fs::remove_file(path).ok();
            SecretError::Io(name, error)
        })
    }

    /// Reads a file as [`SecretKey::write_new`], or another program, wrote it.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<SecretKey, SecretError> {
        let name = path.display().to_string();
        let failed = |error| SecretError::Io(name.clone(), error);
        // It never grows, so that no copy of it is left, and is wiped when it is dropped.
        let mut pem = Zeroizing::new(String::with_capacity(FILE_MAX_BYTES as usize));
        let file = File::open(path).map_err(failed)?;
        match file.take(FILE_MAX_BYTES).read_to_string(&mut pem) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(SecretError::Malformed(name));
            }
            Err(error) => return Err(SecretError::Io(name, error)),
        }
        let key = SigningKey::from_pkcs8_pem(pem.trim_start());
        key.map(SecretKey).map_err(|_| SecretError::Malformed(name))
    }

    /// What others check its signatures with.
    pub fn public(&self) -> PublicKey {
        let bytes = self.0.verifying_key().to_bytes();
        PublicKey::from_bytes(&bytes).expect("no secret key has a weak public one")
    }

    pub(super) fn signing(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_written_once_for_its_owner_only_and_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        let key = SecretKey::generate().expect("randomness");
        key.write_new(&path).expect("writable");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::read(&path).expect("readable").public(), key.public());
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "it is PKCS#8");
        let again = SecretKey::generate().expect("randomness").write_new(&path);
        assert!(matches!(again, Err(SecretError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).expect("readable"), text);
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        for content in [&b"secret words"[..], b"", b"\xff\xfe", &[b'x'; 40_000]] {
            fs::write(&path, content).expect("writable");
            let error = SecretKey::read(&path).expect_err("no key").to_string();
            assert!(error.contains("holds no secret key") && !error.contains("secret words"));
        }
        assert!(matches!(SecretKey::read(&dir.path().join("none")), Err(SecretError::Io(..))));
        let shown = format!("{:?}", SecretKey::from_seed([7; 32]));
        assert!(!shown.contains("0707") && !shown.contains("7, 7"), "{shown}");
    }
}
