//! The file with signatures that lies beside a module.
//!
//! ```toml
//! version = 1
//!
//! [[signature]]
//! key = "64 hexadecimal digits"
//! cluster = "any"                    # or the id of one
//! module = "64 hexadecimal digits"   # its SHA-256
//! label = "kv"
//! signature = "128 hexadecimal digits"
//! ```

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::key::{parse_hex, write_hex};
use super::signature::{ModuleSignature, SIGNATURES_MAX, SignatureError};
use crate::types::ModuleHash;

/// Longest file that is read, in bytes.
pub const FILE_MAX_BYTES: u64 = 64 << 10;

const VERSION: u32 = 1;
const ANY: &str = "any";

/// What is no file with signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is none, or the system does not give it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Its form.
    #[error("this is no file with signatures: {0}")]
    Malformed(String),
    /// Of a later version.
    #[error("the file has version {0}, and this version of raft-host reads {VERSION}")]
    Version(u32),
    /// One of its signatures.
    #[error("signature {number} of the file: {reason}")]
    Signature {
        /// From 1 on.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// There are too many.
    #[error(transparent)]
    TooMany(SignatureError),
}

/// A signature and the module that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedModule {
    /// SHA-256 of the module.
    pub module: ModuleHash,
    /// Whose word, and for what else.
    pub signature: ModuleSignature,
}

/// All signatures of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignatureFile {
    /// At most 16.
    pub signatures: Vec<SignedModule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    signature: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    key: String,
    cluster: String,
    module: String,
    label: String,
    signature: String,
}

impl SignatureFile {
    /// Where a module's signatures are, if nobody says something else.
    pub fn beside(module: &Path) -> PathBuf {
        let mut path = module.as_os_str().to_owned();
        path.push(".sig");
        path.into()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is none. Whether the signatures fit is not looked at.
    pub fn read(path: &Path) -> Result<SignatureFile, FileError> {
        let mut bytes = Vec::new();
        // Of one that is too long only so much that the check sees it.
        File::open(path)
            .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| FileError::Unreadable(error.to_string()))?;
        SignatureFile::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// It is none. Whether the signatures fit is not looked at.
    pub fn parse(text: &str) -> Result<SignatureFile, FileError> {
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(FileError::Malformed(format!("it has more than {FILE_MAX_BYTES} bytes")));
        }
        let document: Document = toml::from_str(text)
            .map_err(|error| FileError::Malformed(error.message().to_owned()))?;
        if document.version != VERSION {
            return Err(FileError::Version(document.version));
        }
        let count = document.signature.len();
        if count > SIGNATURES_MAX {
            return Err(FileError::TooMany(SignatureError::TooMany(count)));
        }
        let numbered = (1..).zip(document.signature);
        let read = numbered.map(|(number, record)| {
            record.read().map_err(|reason| FileError::Signature { number, reason })
        });
        Ok(SignatureFile { signatures: read.collect::<Result<_, _>>()? })
    }

    /// Adds one, in the place of one of the same key for the same.
    pub fn add(&mut self, added: SignedModule) {
        let is_same = |old: &SignedModule| {
            let (ours, theirs) = (&old.signature, &added.signature);
            old.module == added.module
                && (ours.key, ours.cluster, &ours.label)
                    == (theirs.key, theirs.cluster, &theirs.label)
        };
        self.signatures.retain(|old| !is_same(old));
        self.signatures.push(added);
    }
}

/// As [`SignatureFile::parse`] reads it.
impl fmt::Display for SignatureFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = self.signatures.iter().map(Record::of).collect();
        let document = Document { version: VERSION, signature };
        f.write_str(&toml::to_string(&document).expect("strings and a number"))
    }
}

impl Record {
    fn of(signed: &SignedModule) -> Record {
        let ModuleSignature { key, cluster, label, signature } = &signed.signature;
        Record {
            key: key.to_string(),
            cluster: cluster.map_or_else(|| ANY.to_owned(), |id| id.to_string()),
            module: signed.module.to_string(),
            label: label.clone(),
            signature: Hex(signature).to_string(),
        }
    }

    fn read(&self) -> Result<SignedModule, String> {
        let lacks =
            |what: &str, digits: usize| format!("`{what}` should be {digits} hexadecimal digits");
        let key = parse_hex::<32>(&self.key).ok_or_else(|| lacks("key", 64))?;
        let module = parse_hex::<32>(&self.module).ok_or_else(|| lacks("module", 64))?;
        let signature = parse_hex::<64>(&self.signature);
        let signature = signature.ok_or_else(|| lacks("signature", 128))?;
        let cluster = match self.cluster.as_str() {
            ANY => Vec::new(),
            id => parse_hex::<16>(id)
                .ok_or_else(|| format!("{}, or \"any\"", lacks("cluster", 32)))?
                .to_vec(),
        };
        let signature = ModuleSignature::from_parts(&key, &cluster, &self.label, &signature)
            .map_err(|error| error.to_string())?;
        Ok(SignedModule { module: ModuleHash(module), signature })
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SecretKey, Statement};
    use super::*;
    use crate::types::ClusterId;

    fn signed(seed: u8, cluster: Option<ClusterId>) -> SignedModule {
        let module = ModuleHash([5; 32]);
        let statement = Statement { cluster, module, label: "kv \"2\"" };
        let key = SecretKey::from_seed([seed; 32]);
        SignedModule { module, signature: ModuleSignature::make(&key, &statement) }
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let mut file = SignatureFile::default();
        assert_eq!(SignatureFile::parse(&file.to_string()), Ok(file.clone()));
        file.add(signed(1, None));
        file.add(signed(2, Some(ClusterId([7; 16]))));
        file.add(signed(1, None));
        assert_eq!(file.signatures.len(), 2, "the same one again takes its own place");
        let text = file.to_string();
        assert!(text.contains("cluster = \"any\"") && text.contains("[[signature]]"), "{text}");
        assert_eq!(SignatureFile::parse(&text), Ok(file));
    }

    #[test]
    fn what_is_not_strictly_such_a_file_is_refused_with_words() {
        let mut file = SignatureFile::default();
        file.add(signed(1, None));
        let text = file.to_string();
        let many = text.replacen("version = 1\n", "", 1).repeat(17);
        let long = format!("{text}#{}", "x".repeat(70_000));
        for (text, words) in [
            (String::new(), "version"),
            ("\u{0}".to_owned(), "no file with signatures"),
            (text.replace("version = 1", "version = 2"), "version 2"),
            (format!("more = 1\n{text}"), "unknown field"),
            (text.replace("label", "lable"), "unknown field"),
            (text.replace("\"any\"", "\"all\""), "32 hexadecimal digits, or \"any\""),
            (text.replace("module = \"05", "module = \""), "`module` should be 64"),
            (text.replace("key = \"", "key = \"x"), "`key` should be 64"),
            (format!("version = 1\n{many}"), "at most 16"),
            (long, "65536 bytes"),
        ] {
            let error = SignatureFile::parse(&text).expect_err(words).to_string();
            assert!(error.contains(words), "{error:?} should contain {words:?}");
        }
    }
}
