//! What speaking TLS takes on the dialling side: whom to trust, and what to show.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// Longest file that is read: bundles of a machine's CAs are shorter.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Certificates or a key in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file, which is read again for a new connection when it has changed.
    File(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Bytes(_) => f.write_str("Bytes(…)"),
        }
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Pem {
        Pem::File(path.to_owned())
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Pem {
        Pem::File(path)
    }
}

/// What a client needs to speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The CAs whose nodes it trusts.
    pub ca: Pem,
    /// Its own certificate, with those between it and the CA, and its key: for nodes that ask for one.
    pub identity: Option<(Pem, Pem)>,
}

impl ClientTls {
    /// Trusts the nodes of these CAs, and shows no certificate.
    pub fn trusting(ca: impl Into<Pem>) -> ClientTls {
        ClientTls { ca: ca.into(), identity: None }
    }

    /// The same, showing a certificate.
    #[must_use]
    pub fn showing(self, certificate: impl Into<Pem>, key: impl Into<Pem>) -> ClientTls {
        ClientTls { identity: Some((certificate.into(), key.into())), ..self }
    }

    /// The files of a folder, as `raft-host certs` makes it: `ca.pem`, and `certificate.pem` and `key.pem` if
    /// they are there.
    pub fn in_folder(dir: &Path) -> ClientTls {
        let trusting = ClientTls::trusting(dir.join("ca.pem"));
        match dir.join("certificate.pem") {
            certificate if certificate.exists() => {
                trusting.showing(certificate, dir.join("key.pem"))
            }
            _ => trusting,
        }
    }

    fn files(&self) -> Vec<&Pem> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        std::iter::once(&self.ca).chain(identity).collect()
    }

    /// What rustls makes of it.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let roots = roots(&self.ca)?;
        let builder = ClientConfig::builder_with_provider(cryptography())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| TlsError::Pair(place(certificate), error.to_string()))?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The cryptography that both ends use: that of `ring`. AES-256, which protects what is said today no better than
/// the others and costs most, is used only with who has nothing else. (RFC 8446, §9.1, requires AES-128.)
pub fn cryptography() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let uses_256 =
        |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("AES_256");
    provider.cipher_suites.sort_by_key(uses_256);
    Arc::new(provider)
}

/// Why TLS cannot be spoken. No key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(String, String),
    /// A file holds something else.
    #[error("{0} holds no {1} in PEM: {2}")]
    NoPem(String, &'static str, String),
    /// A certificate and a key that do not belong together, or of a kind that is not known.
    #[error("the certificate in {0} and its key cannot be used together: {1}")]
    Pair(String, String),
    /// Something else.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

fn place(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Bytes(_) => "the given bytes".to_owned(),
    }
}

fn read(pem: &Pem) -> Result<Vec<u8>, TlsError> {
    let path = match pem {
        Pem::Bytes(bytes) => return Ok(bytes.clone()),
        Pem::File(path) => path,
    };
    let unreadable = |error: io::Error| TlsError::Unreadable(place(pem), error.to_string());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(TlsError::Unreadable(place(pem), "it is too long".to_owned()));
    }
    Ok(bytes)
}

/// The certificates of a file; at least one.
///
/// # Errors
/// There are none, or they cannot be read.
pub fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = |why: String| TlsError::NoPem(place(pem), "certificate", why);
    let found = CertificateDer::pem_slice_iter(&read(pem)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| none(error.to_string()))?;
    match found.is_empty() {
        true => Err(none("there is none".to_owned())),
        false => Ok(found),
    }
}

/// The key of a file.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(pem)?)
        .map_err(|error| TlsError::NoPem(place(pem), "private key", error.to_string()))
}

/// The CAs of a file.
///
/// # Errors
/// There are none, or they cannot be used.
pub fn roots(pem: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::NoPem(place(pem), "CA's certificate", error.to_string()))?;
    }
    Ok(roots)
}

/// Where the settings of new connections come from.
pub struct TlsSource(Kind);

enum Kind {
    /// Looks whether the files have changed before each connection.
    Files { tls: ClientTls, last: Mutex<Last> },
    /// Somebody else looks.
    Given { current: Mutex<Arc<ClientConfig>>, news: watch::Sender<u64> },
}

struct Last {
    config: Arc<ClientConfig>,
    stamps: Vec<Option<Stamp>>,
}

/// What changes when a file does.
type Stamp = (SystemTime, u64);

fn stamps(tls: &ClientTls) -> Vec<Option<Stamp>> {
    let stamp = |pem: &Pem| match pem {
        Pem::Bytes(_) => None,
        Pem::File(path) => {
            let facts = std::fs::metadata(path).ok()?;
            Some((facts.modified().ok()?, facts.len()))
        }
    };
    tls.files().into_iter().map(stamp).collect()
}

impl TlsSource {
    /// Reads the files now, and again when they have changed.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn of_files(tls: &ClientTls) -> Result<TlsSource, TlsError> {
        // A change in between is found when the stamps are older than what was read.
        let stamps = stamps(tls);
        let last = Last { config: Arc::new(tls.config()?), stamps };
        Ok(TlsSource(Kind::Files { tls: tls.clone(), last: Mutex::new(last) }))
    }

    /// What was made elsewhere, until [`TlsSource::replace`].
    pub fn given(config: ClientConfig) -> TlsSource {
        let current = Mutex::new(Arc::new(config));
        TlsSource(Kind::Given { current, news: watch::Sender::new(0) })
    }

    /// New connections use this from now on. Of no effect on one that looks at files itself.
    pub fn replace(&self, config: ClientConfig) {
        if let Kind::Given { current, news } = &self.0 {
            // Nothing panics under this lock.
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
            news.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn news(&self) -> Option<watch::Receiver<u64>> {
        match &self.0 {
            Kind::Files { .. } => None,
            Kind::Given { news, .. } => Some(news.subscribe()),
        }
    }

    /// For a connection that is made now.
    pub(super) fn current(&self) -> io::Result<Arc<ClientConfig>> {
        let (tls, last) = match &self.0 {
            Kind::Given { current, .. } => {
                return Ok(Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner)));
            }
            Kind::Files { tls, last } => (tls, last),
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(tls);
        if now != last.stamps {
            match tls.config() {
                Ok(config) => *last = Last { config: Arc::new(config), stamps: now },
                // Half of them may be new: the next connection looks again.
                Err(error) => tracing::warn!(
                    %error,
                    "the files for TLS have changed and cannot be used: going on with what was read before"
                ),
            }
        }
        Ok(Arc::clone(&last.config))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource(…)")
    }
}
