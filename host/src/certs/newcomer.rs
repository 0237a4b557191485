//! The files of a node that has no certificate yet, and asks a cluster for one.
//!
//! ```text
//! DIR/key.pem           its key, made before it asks
//! DIR/joining           what it is known by while it joins: the same again is the same newcomer
//! DIR/ca.pem            who is to be trusted
//! DIR/certificate.pem   what it was given; written last: where it is, nothing is left to ask for
//! ```
//!
//! Each is written at once or not at all, so that a node that ends anywhere in between goes on from there.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::authority::{
    AuthorityError, Key, Request, certificates_in, has_key, is_issued_by, new_key, request_of,
};
use super::disk::{self, PRIVATE, PUBLIC};
use super::folder::{CA, CERTIFICATE, FolderError, KEY, read, system};
use super::identity::{Subject, facts_of};
use crate::types::{ClusterId, NodeId};

const JOINING: &str = "joining";
const PRIVATE_FOLDER: u32 = 0o700;

/// Why a newcomer does not get its files.
#[derive(Debug, thiserror::Error)]
pub enum NewcomerError {
    /// They cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key is none, or the system gives no randomness.
    #[error("{}: {error}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: AuthorityError,
    },
    /// What it was given is not what it has asked for.
    #[error("what the cluster gave as this node's certificate cannot be used: {0}")]
    Unfit(String),
    /// The two clocks differ.
    #[error(
        "the certificate that the cluster gave is valid from {not_before} on (seconds of Unix time), and this machine's \
         clock is at {now}: set the clock, and start this node again with the same token"
    )]
    Clock {
        /// The first moment.
        not_before: i64,
        /// When it is here.
        now: u64,
    },
}

/// A node that has a key and no certificate.
pub struct Newcomer {
    dir: PathBuf,
    key: Key,
    nonce: [u8; 16],
}

impl std::fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newcomer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Newcomer {
    /// Makes what is not there yet: the folder, a key, and a nonce. `None`: it has its certificate.
    ///
    /// # Errors
    /// See [`NewcomerError`].
    pub fn prepare(dir: &Path) -> Result<Option<Newcomer>, NewcomerError> {
        let path = dir.join(CERTIFICATE);
        if disk::is_there(&path).map_err(|error| system("read", &path, error))? {
            return Ok(None);
        }
        let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(dir);
        made.map_err(|error| system("make", dir, error))?;
        let path = dir.join(KEY);
        let bad = |error| NewcomerError::Key { path: path.clone(), error };
        if !disk::is_there(&path).map_err(|error| system("read", &path, error))? {
            let made = new_key().map_err(bad)?;
            disk::create(dir, KEY, made.pem(), PRIVATE)
                .map_err(|error| system("write", &path, error))?;
        }
        let key = Key::from_pem(&read(&path)?).map_err(bad)?;
        let nonce = match nonce_in(dir)? {
            Some(nonce) => nonce,
            None => {
                let nonce: [u8; 16] = rand::random();
                let text = format!("{:032x}\n", u128::from_be_bytes(nonce));
                disk::create(dir, JOINING, &text, PRIVATE)
                    .map_err(|error| system("write", &dir.join(JOINING), error))?;
                nonce
            }
        };
        Ok(Some(Newcomer { dir: dir.to_owned(), key, nonce }))
    }

    /// What it is known by until it has its data.
    pub fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// A request for a certificate, in DER.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn request(&self) -> Result<Vec<u8>, NewcomerError> {
        let path = self.dir.join(KEY);
        request_of(&self.key).map_err(|error| NewcomerError::Key { path, error })
    }

    /// Takes what it was given, if that is for its key, of that node, and by one of these CAs; both in PEM.
    ///
    /// # Errors
    /// See [`NewcomerError`]; nothing is written then.
    pub fn accept(
        &self,
        cluster: ClusterId,
        node: NodeId,
        certificate: &str,
        authorities: &str,
        now: SystemTime,
    ) -> Result<(), NewcomerError> {
        let unfit = |words: &str| NewcomerError::Unfit(words.to_owned());
        let bad = |_| unfit("it is no certificate, or a damaged one");
        let own = certificates_in(certificate).map_err(bad)?.into_iter().next();
        let own = own.ok_or_else(|| unfit("there is none"))?;
        let facts = facts_of(&own.der).map_err(bad)?;
        if facts.subject != Some(Subject::Node { cluster, node }) {
            return Err(unfit("it is of somebody else"));
        }
        if !has_key(&own.der, &self.key) {
            return Err(unfit("it is for another key than this node's"));
        }
        let authorities = certificates_in(authorities).map_err(bad)?;
        if !authorities.iter().any(|ca| is_issued_by(&own.der, &ca.der)) {
            return Err(unfit("it is by none of the CAs that the cluster trusts"));
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if facts.not_before > i64::try_from(now).unwrap_or(i64::MAX) {
            return Err(NewcomerError::Clock { not_before: facts.not_before, now });
        }
        let trusted: String = authorities.into_iter().map(|ca| ca.pem).collect();
        for (name, text) in [(CA, trusted.as_str()), (CERTIFICATE, own.pem.as_str())] {
            disk::replace(&self.dir, name, text, PUBLIC)
                .map_err(|error| system("write", &self.dir.join(name), error))?;
        }
        Ok(())
    }

    /// What the node with these files is known by while it joins; `None`: it does not.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn joining(dir: &Path) -> Result<Option<[u8; 16]>, NewcomerError> {
        Ok(nonce_in(dir)?)
    }

    /// It has its data: who has lost that is not the same newcomer any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn has_joined(dir: &Path) -> Result<(), NewcomerError> {
        let path = dir.join(JOINING);
        // The folder of others may be one that nobody can write to.
        if !disk::is_there(&path).map_err(|error| system("read", &path, error))? {
            return Ok(());
        }
        fs::remove_file(&path).map_err(|error| system("remove", &path, error))?;
        Ok(disk::sync(dir).map_err(|error| system("write", dir, error))?)
    }
}

impl Request {
    /// What the newcomer is known by that has this key and this nonce.
    pub fn newcomer(&self, nonce: &[u8; 16]) -> [u8; 32] {
        use sha2::Digest as _;
        let key = self.public_key();
        sha2::Sha256::new().chain_update(nonce).chain_update(key).finalize().into()
    }
}

fn nonce_in(dir: &Path) -> Result<Option<[u8; 16]>, FolderError> {
    let path = dir.join(JOINING);
    if !disk::is_there(&path).map_err(|error| system("read", &path, error))? {
        return Ok(None);
    }
    let text = read(&path)?;
    let digits = text.trim();
    let nonce = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32);
    nonce.map(|nonce| Some(nonce.to_be_bytes())).ok_or_else(|| FolderError::Damaged {
        path,
        why: "32 hexadecimal digits were expected: remove the folder, and join with another token"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::authority::{Authority, Validity};
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn prepare(dir: &Path) -> Newcomer {
        Newcomer::prepare(dir).expect("a folder").expect("no certificate")
    }

    fn days(days: u32) -> Validity {
        Validity::days(SystemTime::now(), days).expect("days")
    }

    fn signed(authority: &Authority, newcomer: &Newcomer, validity: Validity) -> String {
        let request = Request::read(&newcomer.request().expect("a key")).expect("a request");
        let host = "n.example".parse().expect("a host");
        authority.sign_node(&request, CLUSTER, NodeId(5), &[host], validity).expect("signed")
    }

    #[test]
    fn a_newcomer_that_ends_goes_on_as_the_same_one() {
        let around = tempfile::tempdir().expect("a folder");
        let dir = around.path().join("deep/tls");
        let (first, again) = (prepare(&dir), prepare(&dir));
        assert_eq!(first.nonce(), again.nonce());
        let known = |newcomer: &Newcomer| {
            let request = newcomer.request().expect("a key");
            Request::read(&request).expect("a request").newcomer(&newcomer.nonce())
        };
        assert_eq!(known(&first), known(&again));
        for name in [KEY, JOINING] {
            let mode = fs::metadata(dir.join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let authority = Authority::new(CLUSTER, days(9)).expect("randomness");
        let (certificate, ca) = (signed(&authority, &first, days(5)), authority.certificate_pem());
        again
            .accept(CLUSTER, NodeId(5), &certificate, ca, SystemTime::now())
            .expect("it is its own");
        assert!(Newcomer::prepare(&dir).expect("a folder").is_none(), "it has its certificate");
        assert_eq!(Newcomer::joining(&dir).expect("a file"), Some(first.nonce()));
        Newcomer::has_joined(&dir).expect("removed");
        Newcomer::has_joined(&dir).expect("gone already");
        assert_eq!(Newcomer::joining(&dir).expect("none"), None);
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let around = tempfile::tempdir().expect("a folder");
        let (one, other) =
            (prepare(&around.path().join("one")), prepare(&around.path().join("other")));
        let authority = Authority::new(CLUSTER, days(9)).expect("randomness");
        let stranger = Authority::new(CLUSTER, days(9)).expect("randomness");
        let (ca, good) = (authority.certificate_pem(), signed(&authority, &one, days(5)));
        let now = SystemTime::now();
        let refused = |certificate: &str, node, ca: &str, now| {
            let error = one.accept(CLUSTER, NodeId(node), certificate, ca, now);
            error.expect_err("refused").to_string()
        };
        assert!(refused(&signed(&authority, &other, days(5)), 5, ca, now).contains("another key"));
        assert!(refused(&good, 6, ca, now).contains("somebody else"));
        assert!(refused(&good, 5, stranger.certificate_pem(), now).contains("none of the CAs"));
        for nonsense in ["", "-----BEGIN CERTIFICATE-----"] {
            assert!(refused(nonsense, 5, ca, now).contains("cannot be used"));
        }
        let hours_ago = now - std::time::Duration::from_secs(7_200);
        assert!(refused(&good, 5, ca, hours_ago).contains("set the clock"));
        assert!(!around.path().join("one").join(CERTIFICATE).exists());
        fs::write(around.path().join("one").join(JOINING), "x").expect("written");
        assert!(Newcomer::prepare(&around.path().join("one")).is_err());
    }
}
