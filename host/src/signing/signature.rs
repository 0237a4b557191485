//! A publisher's word for a module.

use ed25519_dalek::{Signature, Signer as _};

use super::key::{KeyError, PublicKey};
use super::secret::SecretKey;
use super::statement::Statement;
use crate::types::{ClusterId, ModuleHash};

/// Most signatures that come with one activation.
pub const SIGNATURES_MAX: usize = 16;

/// Longest label of a module, in bytes.
const LABEL_MAX_BYTES: usize = 256;

/// A signature, and what it is over but for the module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleSignature {
    /// Whose it is.
    pub key: PublicKey,
    /// The cluster that it is for; `None`: any.
    pub cluster: Option<ClusterId>,
    /// The label that it is for.
    pub label: String,
    /// The signature itself.
    pub signature: [u8; 64],
}

/// What is no signature at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its cluster.
    #[error("a signature is for a cluster, whose id has 16 bytes, or for any; this has {0} bytes")]
    Cluster(usize),
    /// The signature itself.
    #[error("a signature has 64 bytes, not {0}")]
    Length(usize),
    /// Its label.
    #[error(
        "the label of a signature has at most {LABEL_MAX_BYTES} bytes and no control characters"
    )]
    Label,
    /// There are too many.
    #[error("{0} signatures came with the module, at most {SIGNATURES_MAX} may")]
    TooMany(usize),
}

impl ModuleSignature {
    /// Signs a module.
    pub fn make(key: &SecretKey, statement: &Statement<'_>) -> ModuleSignature {
        ModuleSignature {
            key: key.public(),
            cluster: statement.cluster,
            label: statement.label.to_owned(),
            signature: key.signing().sign(&statement.to_bytes()).to_bytes(),
        }
    }

    /// From what a file, a request or an entry holds. An empty `cluster`: any.
    ///
    /// # Errors
    /// It is none. Whether it fits a module is another question: [`ModuleSignature::fits`].
    pub fn from_parts(
        key: &[u8],
        cluster: &[u8],
        label: &str,
        signature: &[u8],
    ) -> Result<ModuleSignature, SignatureError> {
        let cluster = match cluster {
            [] => None,
            id => Some(ClusterId::try_from(id).map_err(|_| SignatureError::Cluster(id.len()))?),
        };
        if label.len() > LABEL_MAX_BYTES || label.contains(char::is_control) {
            return Err(SignatureError::Label);
        }
        Ok(ModuleSignature {
            key: PublicKey::from_bytes(key)?,
            cluster,
            label: label.to_owned(),
            signature: signature.try_into().map_err(|_| SignatureError::Length(signature.len()))?,
        })
    }

    /// Whether its key's owner has signed that this module may be activated under this label, here or
    /// anywhere. The strict rules: no other bytes are taken for the same signature.
    pub fn fits(&self, module: ModuleHash) -> bool {
        let statement = Statement { cluster: self.cluster, module, label: &self.label };
        let signature = Signature::from_bytes(&self.signature);
        self.key.verifying().verify_strict(&statement.to_bytes(), &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: ModuleHash = ModuleHash([3; 32]);

    fn signed() -> ModuleSignature {
        let cluster = Some(ClusterId([9; 16]));
        let statement = Statement { cluster, module: MODULE, label: "kv" };
        ModuleSignature::make(&SecretKey::from_seed([1; 32]), &statement)
    }

    #[test]
    fn a_signature_fits_what_was_signed_and_nothing_else() {
        let signature = signed();
        assert!(signature.fits(MODULE));
        assert!(!signature.fits(ModuleHash([4; 32])));
        let mut others = vec![
            ModuleSignature { cluster: None, ..signed() },
            ModuleSignature { cluster: Some(ClusterId([8; 16])), ..signed() },
            ModuleSignature { label: "kv2".to_owned(), ..signed() },
            ModuleSignature { key: SecretKey::from_seed([2; 32]).public(), ..signed() },
        ];
        for at in 0..64 {
            let mut changed = signed();
            changed.signature[at] ^= 1;
            others.push(changed);
        }
        for other in others {
            assert!(!other.fits(MODULE), "{other:?}");
        }
    }

    /// The order of the group, little endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    #[test]
    fn nobody_makes_another_signature_of_one_by_calculating() {
        // s + order is the same number to the curve: lax rules take it.
        let mut again = signed();
        let mut carry = 0;
        for (digit, order) in again.signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*digit) + u16::from(order) + carry;
            *digit = sum as u8;
            carry = sum >> 8;
        }
        assert_ne!(again, signed());
        assert!(!again.fits(MODULE));
        // A first half of small order, which fits any message under a key of small order.
        let mut small = signed();
        small.signature = [0; 64];
        small.signature[0] = 1;
        assert!(!small.fits(MODULE));
    }

    #[test]
    fn what_is_no_signature_is_told_from_one_that_does_not_fit() {
        let ModuleSignature { key, signature, .. } = signed();
        let key = key.to_bytes();
        let read = |cluster: &[u8], label: &str, signature: &[u8]| {
            ModuleSignature::from_parts(&key, cluster, label, signature)
        };
        assert_eq!(read(&[9; 16], "kv", &signature), Ok(signed()));
        assert_eq!(read(&[], "kv", &signature).map(|it| it.cluster), Ok(None));
        assert_eq!(read(&[9; 15], "kv", &signature), Err(SignatureError::Cluster(15)));
        assert_eq!(read(&[], "kv", &[0; 63]), Err(SignatureError::Length(63)));
        assert_eq!(read(&[], "k\nv", &signature), Err(SignatureError::Label));
        assert_eq!(read(&[], &"k".repeat(257), &signature), Err(SignatureError::Label));
        let no_key = ModuleSignature::from_parts(&[0; 31], &[], "kv", &signature);
        assert_eq!(no_key, Err(SignatureError::Key(KeyError::Malformed)));
    }
}
