//! What a publisher signs.
//!
//! ```text
//!   "raft-host module signature 1\n"   29 bytes: nothing else that a key may sign begins so
//!   scope      u8         0: any cluster   1: one cluster
//!   cluster    16 bytes   its id; zeros for any
//!   module     32 bytes   SHA-256 of the .wasm file
//!   length     u16        of the label, big endian
//!   label      …          UTF-8
//! ```
//!
//! Two statements that differ in anything have different bytes.

use crate::types::{ClusterId, ModuleHash};

const DOMAIN: &[u8] = b"raft-host module signature 1\n";

/// That a module may be activated under a label, in one cluster or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// `None`: in any.
    pub cluster: Option<ClusterId>,
    /// The module.
    pub module: ModuleHash,
    /// Its name, for people.
    pub label: &'a str,
}

impl Statement<'_> {
    /// What is signed.
    ///
    /// # Panics
    /// If the label is longer than 65,535 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u16::try_from(self.label.len()).expect("labels are short");
        let (scope, cluster) = match self.cluster {
            None => (0, [0; 16]),
            Some(ClusterId(id)) => (1, id),
        };
        let label = self.label.as_bytes();
        [DOMAIN, &[scope], &cluster, &self.module.0, &length.to_be_bytes(), label].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signatures are kept for years: these bytes never change.
    #[test]
    fn a_statement_has_the_bytes_that_the_picture_shows() {
        let statement = Statement { cluster: None, module: ModuleHash([0xab; 32]), label: "kv v2" };
        let bytes = statement.to_bytes();
        assert_eq!(&bytes[..29], b"raft-host module signature 1\n");
        assert_eq!(bytes[29..46], [0; 17]);
        assert_eq!(bytes[46..78], [0xab; 32]);
        assert_eq!(&bytes[78..], b"\x00\x05kv v2");
        let cluster = Some(ClusterId([0; 16]));
        let of_zeros = Statement { cluster, ..statement }.to_bytes();
        assert_eq!(of_zeros[29], 1, "a cluster with the id 0 is not any cluster");
        assert_ne!(bytes, of_zeros);
    }
}
