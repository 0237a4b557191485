//! Public keys of publishers, and how people name them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};

/// An ed25519 public key that signatures can be checked with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// How people name a key: the first 16 hexadecimal digits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

/// What is no public key, or no name of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Of another length, or not hexadecimal.
    #[error("a public key is 32 bytes, 64 hexadecimal digits; this is something else")]
    Malformed,
    /// No point of the curve, or one of the few for which anybody can make a signature.
    #[error("this public key cannot be trusted: no signature of it would prove anything")]
    Weak,
    /// Not 16 hexadecimal digits.
    #[error("{0:?} is no key id: it has 16 hexadecimal digits, as `raft-host keys list` shows it")]
    NoId(String),
}

impl PublicKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// They are none, or one that proves nothing.
    pub fn from_bytes(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Malformed)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Weak)?;
        match key.is_weak() {
            true => Err(KeyError::Weak),
            false => Ok(PublicKey(bytes)),
        }
    }

    /// As it is stored and sent.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Its name, for people.
    pub fn id(self) -> KeyId {
        let digest = Sha256::digest(self.0);
        KeyId(digest[..8].try_into().expect("eight of 32"))
    }

    pub(super) fn verifying(self) -> VerifyingKey {
        VerifyingKey::from_bytes(&self.0).expect("it was one when it was made")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        PublicKey::from_bytes(&parse_hex::<32>(text).ok_or(KeyError::Malformed)?)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<KeyId, KeyError> {
        let no_id = || KeyError::NoId(text.chars().take(80).collect());
        parse_hex::<8>(text).map(KeyId).ok_or_else(no_id)
    }
}

pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Exactly so many bytes, two digits each.
pub(super) fn parse_hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * BYTES)?;
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = (pair[0] << 4) | pair[1];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::SecretKey;
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_named_by_its_hash() {
        let key = SecretKey::from_seed([7; 32]).public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(PublicKey::from_bytes(&key.to_bytes()), Ok(key));
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
        assert_eq!(key.id().to_string(), format!("{:x}", Sha256::digest(key.to_bytes()))[..16]);
    }

    #[test]
    fn what_is_no_key_or_proves_nothing_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError::Malformed), "{text:?}");
        }
        // Points of small order: the neutral element, and one of order 4. No point at all.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut none = [0; 32];
        none[0] = 2;
        for bytes in [neutral, [0; 32], none] {
            assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::Weak), "{bytes:?}");
        }
        assert!(matches!("abc".parse::<KeyId>(), Err(KeyError::NoId(_))));
    }
}
