//! A CA: makes certificates of nodes and clients, and signs what a node asks for.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::host::Host;
use super::identity::{BadCertificate, Facts, Subject, facts_of};
use crate::types::{ActorName, ClusterId, NodeId};

/// How long a CA is valid unless somebody says otherwise, and at most.
pub const CA_DAYS: u32 = 3_650;
/// How long a node's certificate is valid unless somebody says otherwise.
pub const NODE_DAYS: u32 = 397;
/// How long a client's certificate is valid unless somebody says otherwise.
pub const CLIENT_DAYS: u32 = 365;
/// The longest that anything is valid.
pub const MAX_DAYS: u32 = 3_650;
/// The most hosts that one certificate is for.
pub const MAX_HOSTS: usize = 64;

/// Certificates are valid since a while ago: clocks differ.
const SKEW: Duration = Duration::from_secs(300);
const DAY_SECONDS: u64 = 86_400;
/// The largest request for a certificate that is read.
const REQUEST_MAX_BYTES: usize = 64 << 10;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The public key of ECDSA with P-256: uncompressed, two coordinates.
const PUBLIC_KEY_BYTES: usize = 65;

/// From when until when something is valid, in seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: u64,
    /// The last one.
    pub not_after: u64,
}

impl Validity {
    /// So many days from now, and a little before now.
    ///
    /// # Errors
    /// No day, or more than [`MAX_DAYS`].
    pub fn days(now: SystemTime, days: u32) -> Result<Validity, AuthorityError> {
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(AuthorityError::BadDays(days));
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Validity {
            not_before: now.saturating_sub(SKEW).as_secs(),
            not_after: now.as_secs() + u64::from(days) * DAY_SECONDS,
        })
    }

    /// No longer than a CA.
    #[must_use]
    pub fn within(self, authority: &Authority) -> Validity {
        Validity { not_after: self.not_after.min(authority.not_after()), ..self }
    }
}

/// A private key in PEM. It shows itself to nobody who does not ask for it.
#[derive(Clone)]
pub struct PrivateKey(String);

impl PrivateKey {
    /// The text that a file holds.
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(not shown)")
    }
}

/// A private key that signs. It shows itself to nobody.
pub(super) struct Key(KeyPair);

impl Key {
    /// Reads it.
    ///
    /// # Errors
    /// It is none of ECDSA with P-256.
    pub(super) fn from_pem(pem: &str) -> Result<Key, AuthorityError> {
        let key = KeyPair::from_pem_and_sign_algo(pem, &rcgen::PKCS_ECDSA_P256_SHA256);
        key.map(Key).map_err(|_| AuthorityError::BadNodeKey)
    }
}

/// A new key for a node.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn new_key() -> Result<PrivateKey, AuthorityError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(PrivateKey(key.serialize_pem()))
}

/// A request for a certificate, in DER, that asks for nothing but one for this key.
///
/// # Errors
/// The library could not.
pub(super) fn request_of(key: &Key) -> Result<Vec<u8>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key.0)?.der().to_vec())
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate in PEM.
    pub certificate: String,
    /// Its key.
    pub key: PrivateKey,
    /// What it says.
    pub facts: Facts,
}

/// Why a CA does not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Too long or not at all.
    #[error("{0} days cannot be: expected 1 to {MAX_DAYS}")]
    BadDays(u32),
    /// The key is none.
    #[error("the key of the CA cannot be read: expected a private key of ECDSA with P-256 in PEM")]
    BadKey,
    /// The key of a node is none.
    #[error(
        "the key of the node cannot be read: expected a private key of ECDSA with P-256 in PEM"
    )]
    BadNodeKey,
    /// No certificate has the key.
    #[error("no certificate of a CA is there that has the CA's key")]
    NoCertificate,
    /// A certificate is damaged.
    #[error(transparent)]
    BadCertificate(#[from] BadCertificate),
    /// The certificate would be worthless before it ends.
    #[error("the CA ends before the certificate would: ask for fewer days, or for a new CA")]
    Outlived,
    /// A node nobody could verify.
    #[error("a node's certificate needs at least one host that it is dialed at")]
    NoHosts,
    /// Too many hosts.
    #[error("{0} hosts are too many for one certificate: at most {MAX_HOSTS}")]
    TooManyHosts(usize),
    /// Ids that no node can have.
    #[error("{0} is no node's id: expected 1 to {highest}", highest = NodeId::HIGHEST)]
    BadNode(NodeId),
    /// The request is none.
    #[error("this is no request for a certificate, or one with extensions that are not for nodes")]
    BadRequest,
    /// Whoever asks has not shown that it has the key.
    #[error("the signature of the request for a certificate is not by its key")]
    BadSignature,
    /// Keys that we do not sign.
    #[error("the request for a certificate has another key than one of ECDSA with P-256")]
    BadRequestKey,
    /// The library could not.
    #[error("the certificate could not be made: {0}")]
    Failed(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> AuthorityError {
        AuthorityError::Failed(error.to_string())
    }
}

/// A request for a certificate (PKCS #10) whose sender has the key. What it asks for beyond the key is
/// nobody's order.
#[derive(Debug)]
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Reads a request in DER and checks its signature.
    ///
    /// # Errors
    /// It is none, is not signed by its key, or the key is not of ECDSA with P-256.
    pub fn read(der: &[u8]) -> Result<Request, AuthorityError> {
        if der.len() > REQUEST_MAX_BYTES {
            return Err(AuthorityError::BadRequest);
        }
        let der = CertificateSigningRequestDer::from(der);
        let request =
            CertificateSigningRequestParams::from_der(&der).map_err(|error| match error {
                rcgen::Error::InvalidCertificationRequestSignature => AuthorityError::BadSignature,
                _ => AuthorityError::BadRequest,
            })?;
        let key = &request.public_key;
        let is_fit = key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256
            && key.der_bytes().len() == PUBLIC_KEY_BYTES;
        if is_fit { Ok(Request(request)) } else { Err(AuthorityError::BadRequestKey) }
    }

    /// Its public key.
    pub(super) fn public_key(&self) -> &[u8] {
        self.0.public_key.der_bytes()
    }

    /// The hosts that it asks for. Whoever signs decides whether it gets them.
    pub fn hosts(&self) -> Vec<Host> {
        let hosts = self.0.params.subject_alt_names.iter().filter_map(|name| match name {
            SanType::DnsName(name) => name.as_str().parse().ok(),
            SanType::IpAddress(address) => Some(Host::Address(*address)),
            _ => None,
        });
        hosts.collect()
    }
}

/// A CA with its key.
pub struct Authority {
    own: Block,
    facts: Facts,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("name", &self.facts.name).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new CA for a cluster.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(cluster: ClusterId, validity: Validity) -> Result<Authority, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(validity);
        // Two CAs of one cluster, an old one and a new one, have different names.
        let tag: u32 = rand::random();
        params.distinguished_name = named(&format!("raft-host CA {tag:08x}"), Some(cluster));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let certificate = params.self_signed(&key)?;
        Authority::of(Block { der: certificate.der().clone(), pem: certificate.pem() }, key)
    }

    /// The CA whose key this is. Of several certificates it is the one that has the key.
    ///
    /// # Errors
    /// One of both cannot be read, or they do not belong together.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Authority, AuthorityError> {
        let key = KeyPair::from_pem_and_sign_algo(key, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|_| AuthorityError::BadKey)?;
        let certificates = certificates_in(certificates)?;
        let own = certificates.into_iter().find(|block| is_for(&block.der, &key));
        Authority::of(own.ok_or(AuthorityError::NoCertificate)?, key)
    }

    fn of(own: Block, key: KeyPair) -> Result<Authority, AuthorityError> {
        let facts = facts_of(&own.der)?;
        if !facts.is_ca {
            return Err(AuthorityError::NoCertificate);
        }
        let issuer = Issuer::from_ca_cert_der(&own.der, key)?;
        Ok(Authority { own, facts, issuer })
    }

    /// Its certificate in PEM: what others trust.
    pub fn certificate_pem(&self) -> &str {
        &self.own.pem
    }

    /// What its certificate says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Its key.
    pub(super) fn key(&self) -> PrivateKey {
        PrivateKey(self.issuer.key().serialize_pem())
    }

    /// The last moment of its certificate, in seconds of Unix time.
    pub fn not_after(&self) -> u64 {
        u64::try_from(self.facts.not_after).unwrap_or(0)
    }

    /// Whether it has signed a certificate in DER.
    pub fn has_issued(&self, der: &[u8]) -> bool {
        is_issued_by(der, &self.own.der)
    }

    /// A certificate of a node, with a new key.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn issue_node(
        &self,
        cluster: ClusterId,
        node: NodeId,
        hosts: &[Host],
        validity: Validity,
    ) -> Result<Issued, AuthorityError> {
        self.issue(&node_params(cluster, node, hosts, validity)?, validity)
    }

    /// A certificate of a client, with a new key.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn issue_client(
        &self,
        cluster: ClusterId,
        name: ActorName,
        validity: Validity,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(validity);
        params.distinguished_name = named(name.as_str(), None);
        params.subject_alt_names = vec![identity(Subject::Client { name }, cluster)?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params, validity)
    }

    /// A certificate, in PEM, of the node that has the key of a request. The request gives the key and nothing
    /// else: neither whose it is, nor what it is for, nor the hosts.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn sign_node(
        &self,
        request: &Request,
        cluster: ClusterId,
        node: NodeId,
        hosts: &[Host],
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        let params = node_params(cluster, node, hosts, validity)?;
        Ok(self.sign(&params, &request.0.public_key, validity)?.pem())
    }

    fn issue(
        &self,
        params: &CertificateParams,
        validity: Validity,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign(params, &key, validity)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: PrivateKey(key.serialize_pem()),
            facts: facts_of(certificate.der())?,
        })
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        validity: Validity,
    ) -> Result<Certificate, AuthorityError> {
        if validity.not_after > self.not_after() {
            return Err(AuthorityError::Outlived);
        }
        Ok(params.signed_by(key, &self.issuer)?)
    }
}

fn params(validity: Validity) -> CertificateParams {
    let moment = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let mut params = CertificateParams::default();
    params.not_before = moment(validity.not_before);
    params.not_after = moment(validity.not_after);
    params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn node_params(
    cluster: ClusterId,
    node: NodeId,
    hosts: &[Host],
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    if !(NodeId(1)..=NodeId::HIGHEST).contains(&node) {
        return Err(AuthorityError::BadNode(node));
    }
    match hosts.len() {
        0 => return Err(AuthorityError::NoHosts),
        1..=MAX_HOSTS => {}
        many => return Err(AuthorityError::TooManyHosts(many)),
    }
    let mut params = params(validity);
    params.distinguished_name = named(&format!("node {node}"), Some(cluster));
    params.subject_alt_names = vec![identity(Subject::Node { cluster, node }, cluster)?];
    for host in hosts {
        params.subject_alt_names.push(match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(address) => SanType::IpAddress(*address),
        });
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn identity(subject: Subject, cluster: ClusterId) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(subject.uri(cluster).try_into()?))
}

fn named(common_name: &str, cluster: Option<ClusterId>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(cluster) = cluster {
        name.push(DnType::OrganizationName, "raft-host");
        name.push(DnType::OrganizationalUnitName, format!("cluster {cluster}"));
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// A certificate as it stands in a file.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) der: CertificateDer<'static>,
    pub(super) pem: String,
}

/// The certificates of a text in PEM, in their order.
///
/// # Errors
/// One cannot be read.
pub(super) fn certificates_in(mut text: &str) -> Result<Vec<Block>, BadCertificate> {
    let mut found = Vec::new();
    while let Some(begin) = text.find(BEGIN) {
        let end = text[begin..].find(END).ok_or(BadCertificate::Malformed)? + begin + END.len();
        let pem = format!("{}\n", &text[begin..end]);
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| BadCertificate::Malformed)?;
        found.push(Block { der, pem });
        text = &text[end..];
    }
    Ok(found)
}

/// The certificates of a text in PEM, and nothing else of it.
///
/// # Errors
/// One cannot be read.
pub fn only_certificates(text: &str) -> Result<String, BadCertificate> {
    Ok(certificates_in(text)?.into_iter().map(|block| block.pem).collect())
}

/// Whether the key of a CA's certificate has signed a certificate; both in DER.
pub fn is_issued_by(der: &[u8], authority: &[u8]) -> bool {
    let parsed = X509Certificate::from_der(der).ok().zip(X509Certificate::from_der(authority).ok());
    parsed.is_some_and(|((_, certificate), (_, authority))| {
        certificate.issuer() == authority.subject()
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
    })
}

/// Whether a certificate is for a key.
pub(super) fn has_key(der: &CertificateDer<'_>, key: &Key) -> bool {
    is_for(der, &key.0)
}

fn is_for(der: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::server::WebPkiClientVerifier;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::certs::subject_of;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn days(days: u32) -> Validity {
        Validity::days(now(), days).expect("a time")
    }

    fn after(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + days * DAY_SECONDS))
    }

    fn authority() -> Authority {
        Authority::new(CLUSTER, days(CA_DAYS)).expect("a CA")
    }

    fn hosts(texts: &[&str]) -> Vec<Host> {
        texts.iter().map(|text| text.parse().expect("a host")).collect()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
    }

    fn roots(authorities: &[&Authority]) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(der(authority.certificate_pem())).expect("a CA");
        }
        Arc::new(roots)
    }

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    /// What a server thinks of a client's certificate.
    fn lets_in(authorities: &[&Authority], pem: &str, at: UnixTime) -> Result<(), rustls::Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(authorities), provider());
        let verifier = verifier.build().expect("a verifier");
        verifier.verify_client_cert(&der(pem), &[], at).map(drop)
    }

    /// What a client thinks of a server's.
    fn trusts(
        authorities: &[&Authority],
        pem: &str,
        host: &str,
        at: UnixTime,
    ) -> Result<(), rustls::Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(authorities), provider());
        let verifier = verifier.build().expect("a verifier");
        let host = ServerName::try_from(host.to_owned()).expect("a host");
        verifier.verify_server_cert(&der(pem), &[], &host, &[], at).map(drop)
    }

    fn node(authority: &Authority) -> Issued {
        let hosts = hosts(&["n1.example", "10.0.0.1", "::1"]);
        authority.issue_node(CLUSTER, NodeId(3), &hosts, days(NODE_DAYS)).expect("issued")
    }

    fn client(authority: &Authority) -> Issued {
        let name = "alice".parse().expect("a name");
        authority.issue_client(CLUSTER, name, days(CLIENT_DAYS)).expect("issued")
    }

    #[test]
    fn a_nodes_certificate_is_good_on_both_ends_of_a_connection_and_for_its_hosts_only() {
        let authority = authority();
        let issued = node(&authority);
        let pem = &issued.certificate;
        assert_eq!(lets_in(&[&authority], pem, after(1)), Ok(()));
        for host in ["n1.example", "10.0.0.1", "::1"] {
            assert_eq!(trusts(&[&authority], pem, host, after(1)), Ok(()), "{host}");
        }
        assert!(trusts(&[&authority], pem, "n2.example", after(1)).is_err());
        assert!(trusts(&[&authority], pem, "10.0.0.2", after(1)).is_err());
        let subject = Subject::Node { cluster: CLUSTER, node: NodeId(3) };
        assert_eq!(subject_of(&der(pem)), Ok(Some(subject)));
        assert_eq!(issued.facts.cluster, Some(CLUSTER));
        assert!(!issued.facts.is_ca && authority.has_issued(&der(pem)));
    }

    #[test]
    fn a_clients_certificate_is_good_for_a_client_and_no_server() {
        let authority = authority();
        let issued = client(&authority);
        assert_eq!(lets_in(&[&authority], &issued.certificate, after(1)), Ok(()));
        assert!(trusts(&[&authority], &issued.certificate, "alice", after(1)).is_err());
        let subject = Subject::Client { name: "alice".parse().expect("a name") };
        assert_eq!(issued.facts.subject, Some(subject));
    }

    #[test]
    fn expired_ones_and_those_of_another_ca_are_good_for_nothing() {
        let (own, other) = (authority(), authority());
        for pem in [node(&own).certificate, client(&own).certificate] {
            assert_eq!(lets_in(&[&own], &pem, after(360)), Ok(()));
            assert!(lets_in(&[&own], &pem, after(400)).is_err(), "expired");
            let early = UnixTime::since_unix_epoch(Duration::from_secs(1_799_999_000));
            assert!(lets_in(&[&own], &pem, early).is_err(), "not yet valid");
            let skewed = UnixTime::since_unix_epoch(Duration::from_secs(1_799_999_800));
            assert_eq!(lets_in(&[&own], &pem, skewed), Ok(()), "a clock that is behind");
            assert!(lets_in(&[&other], &pem, after(1)).is_err(), "another CA");
            assert_eq!(lets_in(&[&other, &own], &pem, after(1)), Ok(()), "both trusted");
            assert!(!other.has_issued(&der(&pem)));
        }
        let pem = node(&own).certificate;
        assert!(trusts(&[&own], &pem, "n1.example", after(400)).is_err());
        assert!(trusts(&[&other], &pem, "n1.example", after(1)).is_err());
    }

    #[test]
    fn a_ca_signs_leaves_only_and_says_which_cluster() {
        let authority = authority();
        let own = der(authority.certificate_pem());
        let (_, parsed) = X509Certificate::from_der(&own).expect("a certificate");
        let constraints = parsed.basic_constraints().expect("readable").expect("there");
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = parsed.key_usage().expect("readable").expect("there").value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert!(authority.facts().name.contains(&format!("cluster {CLUSTER}")));
        assert_eq!(authority.facts().subject, None);
        // Whoever has a node's key cannot make certificates with it.
        let issued = node(&authority);
        let key = KeyPair::from_pem(issued.key.pem()).expect("a key");
        let issuer = Issuer::from_ca_cert_der(&der(&issued.certificate), key).expect("an issuer");
        let forged = KeyPair::generate().expect("a key");
        let forged = params(days(10)).signed_by(&forged, &issuer).expect("signed");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots(&[&authority]), provider());
        let verifier = verifier.build().expect("a verifier");
        let chain = [der(&issued.certificate)];
        assert!(verifier.verify_client_cert(forged.der(), &chain, after(1)).is_err());
    }

    #[test]
    fn serial_numbers_do_not_come_twice() {
        let authority = authority();
        let serials: std::collections::BTreeSet<String> =
            (0..8).map(|_| client(&authority).facts.serial).collect();
        assert_eq!(serials.len(), 8);
        assert!(serials.iter().all(|serial| serial.len() >= 28), "{serials:?}");
    }

    #[test]
    fn a_ca_is_read_from_its_files_among_other_certificates() {
        let (own, other) = (authority(), authority());
        let key = own.key();
        let both = format!("# old\n{}{}", other.certificate_pem(), own.certificate_pem());
        let read = Authority::from_pem(&both, key.pem()).expect("a CA");
        assert_eq!(read.certificate_pem(), own.certificate_pem());
        assert!(read.has_issued(&der(&client(&own).certificate)));
        assert_eq!(lets_in(&[&own], &client(&read).certificate, after(1)), Ok(()));
        let wrong = Authority::from_pem(other.certificate_pem(), key.pem());
        assert_eq!(wrong.expect_err("another's"), AuthorityError::NoCertificate);
        let none = Authority::from_pem(&both, "no key");
        assert_eq!(none.expect_err("no key"), AuthorityError::BadKey);
        let issued = node(&own);
        let leaf = Authority::from_pem(&issued.certificate, issued.key.pem());
        assert_eq!(leaf.expect_err("a leaf"), AuthorityError::NoCertificate);
        let damaged = both.replace("-----END", "-----");
        assert!(Authority::from_pem(&damaged, key.pem()).is_err());
    }

    #[test]
    fn keys_do_not_show_in_debug() {
        let authority = authority();
        let issued = node(&authority);
        let secret = issued.key.pem().lines().nth(1).expect("base64").to_owned();
        assert!(!format!("{issued:?} {authority:?}").contains(&secret));
    }

    #[test]
    fn nothing_is_valid_longer_than_it_can_be() {
        assert_eq!(Validity::days(now(), 0), Err(AuthorityError::BadDays(0)));
        assert_eq!(Validity::days(now(), 3_651), Err(AuthorityError::BadDays(3_651)));
        let authority = Authority::new(CLUSTER, days(100)).expect("a CA");
        let name = "alice".parse().expect("a name");
        let error = authority.issue_client(CLUSTER, name, days(101));
        assert_eq!(error.expect_err("too long"), AuthorityError::Outlived);
        let shorter = days(101).within(&authority);
        let issued = authority.issue_client(CLUSTER, name, shorter).expect("issued");
        assert_eq!(issued.facts.not_after, authority.facts().not_after);
        let many = vec![Host::Name("a".to_owned()); MAX_HOSTS + 1];
        for (node, hosts, error) in [
            (NodeId(0), hosts(&["a"]), AuthorityError::BadNode(NodeId(0))),
            (NodeId(u64::MAX), hosts(&["a"]), AuthorityError::BadNode(NodeId(u64::MAX))),
            (NodeId(1), vec![], AuthorityError::NoHosts),
            (NodeId(1), many, AuthorityError::TooManyHosts(MAX_HOSTS + 1)),
        ] {
            let refused = authority.issue_node(CLUSTER, node, &hosts, days(1));
            assert_eq!(refused.expect_err("refused"), error);
        }
    }

    /// What somebody asks for who would like to be more than it is.
    fn greedy() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("admin", None);
        let another = Subject::Node { cluster: CLUSTER, node: NodeId(1) };
        params.subject_alt_names = vec![
            identity(another, CLUSTER).expect("a name"),
            SanType::DnsName("bank.example".try_into().expect("a name")),
            SanType::IpAddress("10.0.0.9".parse().expect("an address")),
        ];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        params
    }

    #[test]
    fn a_request_gives_its_key_and_nothing_else() {
        let authority = authority();
        let key = KeyPair::generate().expect("a key");
        let request = greedy().serialize_request(&key).expect("a request");
        let request = Request::read(request.der()).expect("a request");
        assert_eq!(request.hosts(), hosts(&["bank.example", "10.0.0.9"]));
        let validity = days(NODE_DAYS);
        let pem = authority
            .sign_node(&request, CLUSTER, NodeId(5), &hosts(&["n5.example"]), validity)
            .expect("signed");
        let facts = facts_of(&der(&pem)).expect("a certificate");
        assert_eq!(facts.subject, Some(Subject::Node { cluster: CLUSTER, node: NodeId(5) }));
        assert_eq!(facts.dns_names, ["n5.example"]);
        assert!(facts.ip_addresses.is_empty() && !facts.is_ca && !facts.name.contains("admin"));
        assert!(is_for(&der(&pem), &key));
        assert_eq!(trusts(&[&authority], &pem, "n5.example", after(1)), Ok(()));
        assert!(trusts(&[&authority], &pem, "bank.example", after(1)).is_err());
    }

    #[test]
    fn a_request_that_its_key_has_not_signed_is_refused() {
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        let good = request.der().to_vec();
        assert!(Request::read(&good).is_ok());
        let mut bad = good.clone();
        *bad.last_mut().expect("bytes") ^= 1;
        assert_eq!(Request::read(&bad).expect_err("refused"), AuthorityError::BadSignature);
        // Somebody else's key in a request signed with one's own.
        let other = KeyPair::generate().expect("a key");
        let (own, others) = (key.public_key_raw(), other.public_key_raw());
        let at = good.windows(own.len()).position(|part| part == own).expect("the key");
        let mut stolen = good.clone();
        stolen[at..at + own.len()].copy_from_slice(others);
        assert_eq!(Request::read(&stolen).expect_err("refused"), AuthorityError::BadSignature);
        for junk in [&[][..], &good[..good.len() / 2], &vec![0x30; REQUEST_MAX_BYTES + 1]] {
            assert_eq!(Request::read(junk).expect_err("refused"), AuthorityError::BadRequest);
        }
    }

    #[test]
    fn a_request_with_another_kind_of_key_is_refused() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let request = CertificateParams::default().serialize_request(&key).expect("a request");
            let error = Request::read(request.der()).expect_err("refused");
            assert_eq!(error, AuthorityError::BadRequestKey);
        }
    }
}
