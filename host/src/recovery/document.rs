//! The small files that are carried from machine to machine: JSON that people can read, with a checksum
//! over what it says, so that nothing in it is changed by hand or by accident.
//!
//! ```text
//!   { "raft_host": KIND, "version": 1, "sha256": OF THE BODY WITHOUT SPACES, "body": { … } }
//! ```

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Digest as _;

const VERSION: u64 = 1;
/// No such file is larger: it names 256 members at most, a few times.
const BYTES_MAX: u64 = 4 << 20;

/// What can be written into such a file.
pub trait Document: Serialize + DeserializeOwned {
    /// What the file says that it is.
    const KIND: &'static str;

    /// The contents of the file.
    fn to_text(&self) -> String {
        let body = serde_json::to_value(self).expect("plain data becomes JSON");
        let sha256 = checksum(&body);
        let envelope =
            Envelope { raft_host: Self::KIND.to_owned(), version: VERSION, sha256, body };
        let text = serde_json::to_string_pretty(&envelope).expect("plain data becomes JSON");
        text + "\n"
    }

    /// Reads what `to_text` wrote.
    ///
    /// # Errors
    /// A sentence about the text.
    fn from_text(text: &str) -> Result<Self, String> {
        let whole: Value =
            serde_json::from_str(text).map_err(|error| format!("is not whole: {error}"))?;
        let kind = whole.get("raft_host").and_then(Value::as_str);
        if kind != Some(Self::KIND) {
            let kind = kind.unwrap_or("something else");
            return Err(format!("is not a {} of raft-host, but {kind}", Self::KIND));
        }
        if let Some(version) = whole.get("version").and_then(Value::as_u64)
            && version > VERSION
        {
            return Err(format!(
                "has format version {version}, and this raft-host knows version {VERSION} only: use the \
                 raft-host that wrote it"
            ));
        }
        let envelope: Envelope =
            serde_json::from_value(whole).map_err(|error| format!("is damaged: {error}"))?;
        if envelope.sha256 != checksum(&envelope.body) {
            return Err("was changed since it was written: its checksum does not fit".to_owned());
        }
        serde_json::from_value(envelope.body).map_err(|error| format!("is damaged: {error}"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`DocumentError`].
    fn read(path: &Path) -> Result<Self, DocumentError> {
        let unreadable = |source| DocumentError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let bad = |reason| DocumentError::Bad { path: path.to_owned(), reason };
        if bytes.len() as u64 > BYTES_MAX {
            return Err(bad(format!("has more than {BYTES_MAX} bytes, as no {} has", Self::KIND)));
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| bad(format!("is not a {} of raft-host", Self::KIND)))?;
        Self::from_text(&text).map_err(bad)
    }
}

/// Why such a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file is not there, or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is something else, or damaged.
    #[error("{} {reason}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    raft_host: String,
    version: u64,
    sha256: String,
    body: Value,
}

/// Of the body as it is written without spaces, its fields in the order of the alphabet.
fn checksum(body: &Value) -> String {
    let bytes = serde_json::to_vec(body).expect("JSON becomes text");
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
