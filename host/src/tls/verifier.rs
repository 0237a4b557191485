//! Whose certificates are accepted from those that connect: nodes by the CAs of nodes, clients by the CAs of
//! clients.

use std::fmt;
use std::sync::Arc;

use raft_host_proto::dial::cryptography;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::loaded::TlsFailure;
use crate::certs::{Subject, facts_of};
use crate::types::ClusterId;

/// See the module.
pub(super) struct ByKind {
    nodes: Arc<dyn ClientCertVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    /// Of this node. Clients that name another one belong elsewhere; of nodes more can be said later, in words.
    cluster: ClusterId,
    /// Whether those without a certificate are refused.
    is_required: bool,
    hints: Vec<DistinguishedName>,
}

impl fmt::Debug for ByKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKind").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}

impl ByKind {
    pub(super) fn new(
        nodes: RootCertStore,
        clients: RootCertStore,
        cluster: ClusterId,
    ) -> Result<ByKind, TlsFailure> {
        let verifier = |roots: RootCertStore| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), cryptography())
                .build()
                .map_err(|error| TlsFailure::Unusable(error.to_string()))
        };
        let hints = nodes.subjects().into_iter().chain(clients.subjects()).collect();
        let (nodes, clients) = (verifier(nodes)?, verifier(clients)?);
        Ok(ByKind { nodes, clients, cluster, is_required: false, hints })
    }

    /// The same, requiring a certificate or not.
    pub(super) fn requiring(&self, is_required: bool) -> Arc<ByKind> {
        Arc::new(ByKind {
            nodes: Arc::clone(&self.nodes),
            clients: Arc::clone(&self.clients),
            cluster: self.cluster,
            is_required,
            hints: self.hints.clone(),
        })
    }

    /// Whether other nodes with the same files would accept this certificate.
    pub(super) fn check_own(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (own, between) =
            chain.split_first().ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        self.nodes.verify_client_cert(own, between, UnixTime::now()).map(drop)
    }
}

impl ClientCertVerifier for ByKind {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = |error| Err(Error::InvalidCertificate(error));
        let Ok(facts) = facts_of(certificate) else {
            return refused(CertificateError::BadEncoding);
        };
        match facts.subject {
            Some(Subject::Node { .. }) => self.nodes.verify_client_cert(certificate, between, now),
            Some(Subject::Client { .. })
                if facts.cluster.is_none_or(|cluster| cluster == self.cluster) =>
            {
                self.clients.verify_client_cert(certificate, between, now)
            }
            _ => refused(CertificateError::ApplicationVerificationFailure),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.nodes.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.nodes.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.nodes.supported_verify_schemes()
    }
}
