//! What the files hold, checked as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use raft_host_proto::dial::{
    ClientTls, Pem, TlsError, certificates, cryptography, private_key, roots,
};
use rustls::server::{ParsedCertificate, WantsServerCert};
use rustls::{CertificateError, ClientConfig, ConfigBuilder, ServerConfig, WantsVerifier};
use rustls_pki_types::{CertificateDer, ServerName};

use super::config::{TlsConfig, TlsMode};
use super::newcomer::JOIN_PROTOCOL;
use super::verifier::ByKind;
use crate::certs::{
    Authority, BadCertificate, Facts, FolderError, Subject, authority_in, facts_of, is_issued_by,
    only_certificates,
};
use crate::types::{ClusterId, NodeId};

/// Why the files cannot be used. No key is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    /// A file is not there, or not what it should be.
    #[error("TLS: {0}")]
    File(#[from] TlsError),
    /// The certificate is none that could be understood.
    #[error("TLS: in {}: {error}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: BadCertificate,
    },
    /// The certificate is not of a node.
    #[error(
        "TLS: the certificate in {} is not of a node, but of {whose}: `raft-host certs node` makes one for a node",
        path.display()
    )]
    NotOfNode {
        /// The file.
        path: PathBuf,
        /// Whom it belongs to.
        whose: String,
    },
    /// Other nodes would not accept it.
    #[error(
        "TLS: the certificate in {} is not accepted by the CAs in {}: {reason}",
        path.display(), ca.display()
    )]
    NotTrusted {
        /// The file.
        path: PathBuf,
        /// The file of the CAs.
        ca: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The CA that this node is to sign with cannot be used.
    #[error("TLS: tls.signing_ca: {0}")]
    SigningCa(#[from] FolderError),
    /// Nobody would accept what it signs.
    #[error(
        "TLS: the CA in {} (tls.signing_ca) is none of those in {}, so no node would accept what it signs",
        dir.display(), ca.display()
    )]
    ForeignSigningCa {
        /// Its folder.
        dir: PathBuf,
        /// The file of the CAs of nodes.
        ca: PathBuf,
    },
    /// It is not of the node that runs.
    #[error(
        "TLS: the certificate in {} is of node {found_node} of cluster {found_cluster}, and this is node {node} \
         of cluster {cluster}: `raft-host certs node` makes one for it, with --id and --cluster-id if need be",
        path.display()
    )]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// The cluster in it.
        found_cluster: ClusterId,
        /// The node in it.
        found_node: NodeId,
        /// The cluster of this node.
        cluster: ClusterId,
        /// This node.
        node: NodeId,
    },
    /// Something else.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

/// What connections are made and accepted with.
pub(super) struct Loaded {
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
    /// For newcomers.
    pub(super) joining: Arc<ServerConfig>,
    /// SHA-256 of the CA that this node's certificate is by.
    pub(super) issuer: Option<[u8; 32]>,
    /// The CAs of nodes, in PEM.
    pub(super) trusted: String,
    /// What signs certificates of newcomers.
    pub(super) authority: Option<Authority>,
    pub(super) facts: Facts,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    path: PathBuf,
    certificate: CertificateDer<'static>,
}

/// What changes when a file does: when it was written, its length, and which file it is.
pub(super) type Stamps = Vec<Option<(SystemTime, u64, u64)>>;

/// Of all files that are named.
pub(super) fn stamps(config: &TlsConfig) -> Stamps {
    use std::os::unix::fs::MetadataExt as _;
    let signing = |name| config.signing_ca.as_ref().map(|dir| dir.join(name));
    let (signing_ca, signing_key) = (signing("ca.pem"), signing("ca-key.pem"));
    let files = [
        &config.certificate,
        &config.key,
        &config.client_ca,
        &config.peer_ca,
        &signing_ca,
        &signing_key,
    ];
    let stamp = |path: &PathBuf| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len(), facts.ino()))
    };
    files.into_iter().map(|file| file.as_ref().and_then(stamp)).collect()
}

fn named(file: Option<&Path>) -> Result<&Path, TlsFailure> {
    file.ok_or_else(|| TlsFailure::Unusable("a file that it takes is not named".to_owned()))
}

impl Loaded {
    /// Reads all files; also what this node dials with. One that has expired is taken: who starts with it says so,
    /// and it can be replaced.
    pub(super) fn read(config: &TlsConfig) -> Result<(Loaded, ClientConfig), TlsFailure> {
        let path = named(config.certificate.as_deref())?.to_owned();
        let (certificate, key) = (Pem::File(path.clone()), named(config.key.as_deref())?.into());
        let (node_ca, client_ca) = (named(config.peer_ca())?, named(config.client_ca())?);
        let chain = certificates(&certificate)?;
        let own = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let facts = facts_of(&own)
            .map_err(|error| TlsFailure::Certificate { path: path.clone(), error })?;
        let Some(Subject::Node { cluster, node }) = facts.subject else {
            let whose = match facts.subject {
                Some(subject) => subject.to_string(),
                None => facts.name.clone(),
            };
            return Err(TlsFailure::NotOfNode { path, whose });
        };
        let verifier = ByKind::new(roots(&node_ca.into())?, roots(&client_ca.into())?, cluster)?;
        match verifier.check_own(&chain) {
            Ok(())
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {}
            Err(error) => {
                let (ca, reason) = (node_ca.to_owned(), error.to_string());
                return Err(TlsFailure::NotTrusted { path, ca, reason });
            }
        }
        let server = |is_required, protocol: &[u8]| {
            let key = private_key(&key)?;
            let mut server = builder(verifier.requiring(is_required))?
                .with_single_cert(chain.clone(), key)
                .map_err(|error| TlsError::Pair(path.display().to_string(), error.to_string()))?;
            server.alpn_protocols = vec![protocol.to_vec()];
            Ok::<_, TlsFailure>(Arc::new(server))
        };
        let authorities = certificates(&node_ca.into())?;
        let issuer = chain.last().and_then(|last| {
            authorities.iter().find(|ca| *ca == last || is_issued_by(last, ca)).cloned()
        });
        let authority = signing(config, node_ca, &authorities)?;
        let shown: Vec<_> = chain.iter().chain(&authorities).cloned().collect();
        let mut joining = secure_versions()?
            .with_no_client_auth()
            .with_single_cert(shown, private_key(&key)?)
            .map_err(|error| TlsError::Pair(path.display().to_string(), error.to_string()))?;
        joining.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
        let trusted = std::fs::read_to_string(node_ca).map_err(|error| {
            TlsError::Unreadable(node_ca.display().to_string(), error.to_string())
        })?;
        // Whatever else the file holds is nobody's business.
        let trusted = only_certificates(&trusted)
            .map_err(|error| TlsFailure::Certificate { path: node_ca.to_owned(), error })?;
        let loaded = Loaded {
            joining: Arc::new(joining),
            issuer: issuer.and_then(|ca| facts_of(&ca).ok()).map(|facts| facts.fingerprint),
            trusted,
            authority,
            grpc: server(config.mode == TlsMode::Mutual, b"h2")?,
            http: server(false, b"http/1.1")?,
            facts,
            cluster,
            node,
            certificate: own,
            path: path.clone(),
        };
        let client = ClientTls::trusting(node_ca).showing(certificate, key).config()?;
        Ok((loaded, client))
    }

    /// Whether it can take the place of what the node runs with.
    pub(super) fn replaces(&self, cluster: ClusterId, node: NodeId) -> Result<(), TlsFailure> {
        if (self.cluster, self.node) != (cluster, node) {
            let (found_cluster, found_node) = (self.cluster, self.node);
            let path = self.path.clone();
            return Err(TlsFailure::OfAnother { path, found_cluster, found_node, cluster, node });
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.facts.not_after < i64::try_from(now.as_secs()).unwrap_or(i64::MAX) {
            let words = format!("the certificate in {} has expired", self.path.display());
            return Err(TlsFailure::Unusable(words));
        }
        Ok(())
    }

    /// See [`super::Tls::check_address`].
    pub(super) fn check_address(&self, address: &str) -> Result<(), String> {
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare).map_err(|error| format!("{host:?}: {error}"))?;
        let parsed = ParsedCertificate::try_from(&self.certificate);
        let verified = parsed.and_then(|parsed| rustls::client::verify_server_name(&parsed, &name));
        verified.map_err(|_| {
            format!(
                "the certificate in {} is not for {host}, the address under which this node is dialled, so \
                 nobody would believe that it is this node: make one with `raft-host certs node --address \
                 {host}`, or say with --advertise under which of its names this node is dialled",
                self.path.display()
            )
        })
    }
}

/// The CA that this node signs with, if it is to sign.
fn signing(
    config: &TlsConfig,
    node_ca: &Path,
    trusted: &[CertificateDer<'_>],
) -> Result<Option<Authority>, TlsFailure> {
    let Some(dir) = &config.signing_ca else { return Ok(None) };
    let authority = authority_in(dir)?;
    let fingerprint = authority.facts().fingerprint;
    let is_it =
        |ca: &CertificateDer<'_>| facts_of(ca).is_ok_and(|facts| facts.fingerprint == fingerprint);
    match trusted.iter().any(is_it) {
        true => Ok(Some(authority)),
        false => Err(TlsFailure::ForeignSigningCa { dir: dir.clone(), ca: node_ca.to_owned() }),
    }
}

fn secure_versions() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, TlsFailure> {
    ServerConfig::builder_with_provider(cryptography())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFailure::Unusable(error.to_string()))
}

fn builder(
    verifier: Arc<ByKind>,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, TlsFailure> {
    Ok(secure_versions()?.with_client_cert_verifier(verifier))
}
