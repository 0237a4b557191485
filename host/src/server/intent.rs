//! What a start has left to do, kept in the data directory until it is done.
//!
//! Written before the node's identity and removed when nothing is left, so that a crash
//! anywhere in between is completed by the next start, which needs no flags for it.
//!
//! ```text
//!   raft-host-intent 1 <CRC-32 of the rest, 8 hexadecimal digits>\n
//!   "form", "found", {"settle":…} or {"join":…}\n
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ServeError;
use crate::storage::DataDir;
use crate::types::{Member, Rival};

const FILE: &str = "INTENT";
const MAGIC: &str = "raft-host-intent 1";

/// What a start set out to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Intent {
    /// Form a cluster of one voter.
    Form,
    /// Found a cluster with a state from a file; without that it cannot be completed.
    Found,
    /// See a cluster that was formed through its probation.
    Settle {
        /// The other cluster's member that has dialled this node meanwhile, if one has.
        disputed_by: Option<Rival>,
    },
    /// Enter a cluster that has taken this node in.
    Join {
        /// Members to reach before this node's own state says who they are.
        introduced: Vec<Member>,
        /// Become a voter once caught up.
        promote: bool,
    },
}

impl Intent {
    /// What the last start left, if anything.
    pub(super) fn read(dir: &DataDir) -> Result<Option<Intent>, ServeError> {
        let bytes = dir.note(FILE)?;
        bytes.map(|bytes| Intent::of(dir.path(), &bytes)).transpose()
    }

    /// The same of a directory that somebody else may have locked.
    pub(super) fn peek(dir: &Path) -> Result<Option<Intent>, ServeError> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Intent::of(dir, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => {
                let action = format!("reading {}", path.display());
                Err(ServeError::Io { action, source })
            }
        }
    }

    fn of(dir: &Path, bytes: &[u8]) -> Result<Intent, ServeError> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned());
        let bad = |reason| ServeError::BadIntent { path: dir.join(FILE), reason };
        text.and_then(decode).map_err(bad)
    }

    /// Durable when this returns.
    pub(super) fn write(&self, dir: &DataDir) -> Result<(), ServeError> {
        Ok(dir.set_note(FILE, self.encode().as_bytes())?)
    }

    /// Nothing is left to do. Durable when this returns: a loss of power must not bring back what was completed, and
    /// told to be.
    pub(super) fn done(dir: &DataDir) -> Result<(), ServeError> {
        Ok(dir.remove_note(FILE)?)
    }

    fn encode(&self) -> String {
        let body = serde_json::to_string(self).expect("plain data becomes JSON");
        format!("{MAGIC} {:08x}\n{body}\n", crc32fast::hash(body.as_bytes()))
    }
}

fn decode(text: &str) -> Result<Intent, String> {
    let (head, body) = text.split_once('\n').ok_or("it has no second line")?;
    let body = body.strip_suffix('\n').ok_or("it ends early")?;
    let checksum = head
        .strip_prefix(MAGIC)
        .and_then(|rest| u32::from_str_radix(rest.trim_start(), 16).ok())
        .ok_or_else(|| format!("it does not begin with {MAGIC:?} and a checksum"))?;
    if checksum != crc32fast::hash(body.as_bytes()) {
        return Err("its checksum does not fit".to_owned());
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, NodeId};

    fn joining() -> Intent {
        let member = Member { id: NodeId(1), address: "127.0.0.1:7400".to_owned() };
        Intent::Join { introduced: vec![member], promote: true }
    }

    #[test]
    fn an_intent_stays_until_it_is_done() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dir = DataDir::lock(place.path()).expect("nobody's");
        assert_eq!(Intent::read(&dir).expect("absent"), None);
        let rival = Rival {
            cluster: ClusterId([9; 16]),
            node: NodeId(2),
            address: "127.0.0.1:7401".to_owned(),
            dialled: "127.0.0.1:7400".to_owned(),
        };
        let settling = |disputed_by| Intent::Settle { disputed_by };
        for intent in
            [Intent::Form, Intent::Found, settling(None), settling(Some(rival)), joining()]
        {
            intent.write(&dir).expect("written");
            assert_eq!(Intent::peek(dir.path()).expect("readable"), Some(intent.clone()));
            assert_eq!(Intent::read(&dir).expect("readable"), Some(intent));
        }
        Intent::done(&dir).expect("removed");
        Intent::done(&dir).expect("gone already");
        assert_eq!(Intent::read(&dir).expect("absent"), None);
        assert_eq!(Intent::peek(dir.path()).expect("absent"), None);
    }

    #[test]
    fn a_damaged_intent_is_refused_wherever_it_is_damaged() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dir = DataDir::lock(place.path()).expect("nobody's");
        let good = joining().encode();
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 0x02;
            std::fs::write(dir.path().join(FILE), &bad).expect("written");
            let read = Intent::read(&dir);
            // A checksum may be written with capital letters; everything else must be refused.
            assert!(!matches!(&read, Ok(Some(intent)) if *intent != joining()), "byte {at}");
            std::fs::write(dir.path().join(FILE), &good[..at]).expect("written");
            assert!(Intent::read(&dir).is_err(), "cut at {at}");
        }
    }
}
