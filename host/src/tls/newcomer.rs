//! The first contact of a node that has no certificate: which connections it may make, and how it knows whom it
//! has reached.
//!
//! It names a protocol of its own ([`JOIN_PROTOCOL`]), so that the node asks it for no certificate, whatever it asks
//! of others, and shows the CA behind its own certificate. All that the newcomer has is the CA's fingerprint: it
//! trusts the CA that has it, and no other.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use raft_host_proto::dial::{Dialer, TlsSource, cryptography};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::loaded::TlsFailure;
use crate::certs::{Subject, facts_of};

/// What a newcomer says that it speaks (ALPN).
pub(super) const JOIN_PROTOCOL: &[u8] = b"raft-host-join";

/// Makes connections to nodes of whose CA only the fingerprint is known.
#[derive(Debug)]
pub struct FirstContact {
    dialer: Dialer,
    doubt: Arc<Mutex<Option<String>>>,
}

impl FirstContact {
    /// To nodes with certificates by the CA that has this SHA-256.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(ca: [u8; 32]) -> Result<FirstContact, TlsFailure> {
        let (provider, doubt) = (cryptography(), Arc::default());
        let verifier =
            ByFingerprint { ca, doubt: Arc::clone(&doubt), provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFailure::Unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
        Ok(FirstContact { dialer: Dialer::secured(Arc::new(TlsSource::given(config))), doubt })
    }

    /// What dials them.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Why what answered last is not believed to be a node of the cluster, if that is so; asked once.
    pub fn doubt(&self) -> Option<String> {
        // Nothing panics under this lock.
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct ByFingerprint {
    ca: [u8; 32],
    doubt: Arc<Mutex<Option<String>>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ByFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByFingerprint")
    }
}

impl ByFingerprint {
    fn check(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, (Error, String)> {
        let refused = |error, words: String| Err((Error::InvalidCertificate(error), words));
        let is_it = |shown: &&CertificateDer<'_>| {
            facts_of(shown).is_ok_and(|facts| facts.is_ca && facts.fingerprint == self.ca)
        };
        let Some(ca) = between.iter().find(is_it) else {
            let words = "what answers there does not belong to the CA whose fingerprint is in the join token: it is a \
                         node of another cluster, somebody in between, or the CA was changed since the token was \
                         made. Check the address, or make another token";
            return refused(CertificateError::UnknownIssuer, words.to_owned());
        };
        let mut roots = RootCertStore::empty();
        let unusable =
            |error: &dyn fmt::Display| format!("the CA that was shown cannot be used: {error}");
        roots.add(ca.clone().into_owned()).map_err(|error| {
            let words = unusable(&error);
            (error, words)
        })?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| {
            let words = unusable(&error);
            (Error::General(words.clone()), words)
        })?;
        let verified = verifier.verify_server_cert(own, between, name, ocsp, now);
        let verified = verified.map_err(|error| {
            let words = words(&error, name);
            (error, words)
        })?;
        match facts_of(own).map(|facts| facts.subject) {
            Ok(Some(Subject::Node { .. })) => Ok(verified),
            _ => {
                let words = "what answers there has the certificate of no node";
                refused(CertificateError::ApplicationVerificationFailure, words.to_owned())
            }
        }
    }
}

fn words(error: &Error, name: &ServerName<'_>) -> String {
    match error {
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the node's certificate is not valid yet by the clock of this machine: set the clock, and start again \
              with the same token"
            .to_owned(),
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the node's certificate has expired by the clock of this machine: set the clock if it is wrong, and \
              start again with the same token; else renew that certificate"
            .to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "the node's certificate is not for {}: give --join an address that it has",
            name.to_str()
        ),
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "what answers there shows the CA whose fingerprint is in the join token, and its own certificate is not \
              by that CA: make another token if the CA is just being changed"
            .to_owned(),
        other => format!("the node's certificate is refused: {other}"),
    }
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(own, between, name, ocsp, now).map_err(|(error, words)| {
            *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, SystemTime};

    use rustls_pki_types::pem::PemObject as _;

    use super::*;
    use crate::certs::{Authority, Host, Validity};
    use crate::types::{ClusterId, NodeId};

    #[test]
    fn whose_clock_is_wrong_hears_that_and_nothing_else() {
        let cluster = ClusterId([7; 16]);
        let now = SystemTime::now();
        let days = |days| Validity::days(now, days).expect("days");
        let authority = Authority::new(cluster, days(90)).expect("randomness");
        let hosts = [Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        let issued = authority.issue_node(cluster, NodeId(1), &hosts, days(30)).expect("issued");
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (own, ca) = (der(&issued.certificate), der(authority.certificate_pem()));
        let verifier = ByFingerprint {
            ca: facts_of(&ca).expect("a certificate").fingerprint,
            doubt: Arc::default(),
            provider: cryptography(),
        };
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let at = |moment: SystemTime| {
            let since = moment.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            let moment = UnixTime::since_unix_epoch(since);
            let checked = verifier.check(&own, std::slice::from_ref(&ca), &name, &[], moment);
            checked.map(drop).map_err(|(_, words)| words)
        };
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(at(now), Ok(()));
        assert_eq!(at(now - minutes(4)), Ok(()));
        let behind = at(now - minutes(6)).expect_err("not valid yet");
        assert!(behind.contains("not valid yet by the clock of this machine: set the clock"));
        assert!(behind.contains("start again with the same token"), "{behind}");
        let ahead = at(now + minutes(40 * 24 * 60)).expect_err("over");
        assert!(ahead.contains("has expired by the clock of this machine: set the clock"));
    }
}
