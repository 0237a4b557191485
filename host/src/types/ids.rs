//! Newtypes for every id, index, term and hash: a swapped `u64` would compile silently.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! u64_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

u64_newtype!(
    /// A member of a cluster. Never zero for a real node, never reused after removal.
    NodeId
);
u64_newtype!(
    /// One replicated state machine of a host. Only [`GroupId::MAIN`] is exposed today.
    GroupId
);
u64_newtype!(
    /// A position in the Raft log. The first entry has index 1; 0 means "before the log".
    Index
);
u64_newtype!(
    /// A Raft term. 0 means "before the first election".
    Term
);

impl NodeId {
    /// The highest that a member may have. Far enough from the end of the numbers that ids can
    /// still be counted up.
    pub const HIGHEST: NodeId = NodeId(1 << 62);
}

impl GroupId {
    /// The group that every cluster has.
    pub const MAIN: GroupId = GroupId(1);
}

impl Index {
    /// No log gets there: what claims to be beyond it is not from a correct peer. Far enough from
    /// the end of the numbers that sums of indexes do not overflow.
    pub const HIGHEST: Index = Index(1 << 62);

    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl Term {
    /// No cluster gets there: what claims to be beyond it is not from a correct peer. Far enough
    /// from the end of the numbers that terms can still be counted up.
    pub const HIGHEST: Term = Term(1 << 62);
}

/// Names a cluster for its whole life; drawn at random when the cluster is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// Drawn at random by a node without data before it asks to be taken in: the same request, sent
/// again because its answer was lost, has the same; a node that lost its data has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinNonce(pub [u8; 16]);

/// SHA-256 of a wasm module's bytes: what `sha256sum plugin.wasm` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleHash(pub [u8; 32]);

/// Digest of a replicated state: replicas that have applied the same entries have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateDigest(pub [u8; 32]);

/// A hex id that cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {expected} hexadecimal digits, found {found:?}")]
pub struct ParseHexError {
    expected: usize,
    found: String,
}

macro_rules! hex_newtype {
    ($name:ident, $bytes:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = ParseHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = || ParseHexError { expected: $bytes * 2, found: text.to_owned() };
                if text.len() != $bytes * 2 || !text.is_ascii() {
                    return Err(error());
                }
                let mut bytes = [0; $bytes];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| error())?;
                }
                Ok($name(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseHexError;
            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map($name).map_err(|_| ParseHexError {
                    expected: $bytes * 2,
                    found: format!("{} bytes", bytes.len()),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                String::deserialize(de)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_newtype!(ClusterId, 16);
hex_newtype!(JoinNonce, 16);
hex_newtype!(ModuleHash, 32);
hex_newtype!(StateDigest, 32);

impl ModuleHash {
    /// Hashes a module's bytes.
    pub fn of(module: &[u8]) -> ModuleHash {
        use sha2::Digest as _;
        ModuleHash(sha2::Sha256::digest(module).into())
    }

    /// The first twelve hexadecimal digits, for tables and log lines.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl StateDigest {
    /// The first twelve hexadecimal digits, for tables and log lines.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_hash_is_what_sha256sum_prints_and_survives_text() {
        let hash = ModuleHash::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        assert!("ba78".parse::<ModuleHash>().is_err());
        assert!("é".repeat(32).parse::<ModuleHash>().is_err());
    }
}
