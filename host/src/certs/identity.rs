//! What a certificate says: whose it is, for which names, from when until when.
//!
//! Nothing is verified here. Whoever is to be believed has shown the key and a chain to a trusted CA; that is
//! TLS's part.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::Digest as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use crate::types::{ActorName, ClusterId, NodeId};

/// How the name of somebody of a cluster begins, in a certificate.
const SCHEME: &str = "raft-host:";

/// Longest text of a certificate that is repeated to people.
const QUOTE_MAX_CHARS: usize = 256;

/// Whom a certificate belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A member of a cluster: `raft-host://CLUSTER/node/ID`.
    Node {
        /// The cluster.
        cluster: ClusterId,
        /// Its id there.
        node: NodeId,
    },
    /// Somebody who asks a cluster: `raft-host://CLUSTER/client/NAME`, or the common name NAME of a certificate
    /// that has neither.
    Client {
        /// How it is called.
        name: ActorName,
    },
}

impl Subject {
    /// As a certificate says it.
    pub fn uri(&self, cluster: ClusterId) -> String {
        match self {
            Subject::Node { cluster, node } => format!("raft-host://{cluster}/node/{node}"),
            Subject::Client { name } => format!("raft-host://{cluster}/client/{name}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node { cluster, node } => write!(f, "node {node} of cluster {cluster}"),
            Subject::Client { name } => write!(f, "client {name}"),
        }
    }
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// The bytes are no certificate.
    #[error("this is no X.509 certificate, or a damaged one")]
    Malformed,
    /// The names in it cannot be read, or are there twice.
    #[error("the subject alternative names of the certificate cannot be read, or are there twice")]
    BadNames,
    /// A name of ours that is none.
    #[error(
        "the certificate names {0}: expected raft-host://CLUSTER/node/ID or raft-host://CLUSTER/client/NAME"
    )]
    BadIdentity(String),
    /// More than one name of ours.
    #[error(
        "the certificate has more than one raft-host:// name, and can be of one node or client only"
    )]
    TwoIdentities,
}

/// What there is to say about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whom it belongs to, if to somebody of a cluster.
    pub subject: Option<Subject>,
    /// The cluster that its raft-host:// name has.
    pub cluster: Option<ClusterId>,
    /// The distinguished name of the subject, printable and short.
    pub name: String,
    /// The distinguished name of the issuer, printable and short.
    pub issuer: String,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
    /// Valid from this moment, in seconds of Unix time.
    pub not_before: i64,
    /// Valid up to this moment, in seconds of Unix time.
    pub not_after: i64,
    /// Host names, printable and short.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
}

/// Whom a certificate in DER belongs to; `None`: to nobody of a cluster, as a CA.
///
/// # Errors
/// The bytes are no certificate, or it contradicts itself.
pub fn subject_of(der: &[u8]) -> Result<Option<Subject>, BadCertificate> {
    Ok(identity(&parsed(der)?)?.map(|(subject, _)| subject))
}

/// What a certificate in DER says.
///
/// # Errors
/// The bytes are no certificate, or it contradicts itself.
pub fn facts_of(der: &[u8]) -> Result<Facts, BadCertificate> {
    let certificate = parsed(der)?;
    let identity = identity(&certificate)?;
    let mut facts = Facts {
        subject: identity.map(|(subject, _)| subject),
        cluster: identity.and_then(|(_, cluster)| cluster),
        name: printable(&certificate.subject.to_string()),
        issuer: printable(&certificate.issuer.to_string()),
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: certificate.validity.not_before.timestamp(),
        not_after: certificate.validity.not_after.timestamp(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        is_ca: certificate.is_ca(),
        fingerprint: sha2::Sha256::digest(der).into(),
    };
    for name in names(&certificate)? {
        match name {
            GeneralName::DNSName(name) => facts.dns_names.push(printable(name)),
            GeneralName::IPAddress(bytes) => facts.ip_addresses.extend(ip_address(bytes)),
            _ => {}
        }
    }
    Ok(facts)
}

fn parsed(der: &[u8]) -> Result<X509Certificate<'_>, BadCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(BadCertificate::Malformed),
    }
}

fn names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<&'a [GeneralName<'a>], BadCertificate> {
    let extension = certificate.subject_alternative_name().map_err(|_| BadCertificate::BadNames)?;
    let Some(extension) = extension else { return Ok(&[]) };
    let names = &extension.value.general_names;
    // What one reader takes for a name and another skips is how somebody passes for somebody else.
    match names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        true => Err(BadCertificate::BadNames),
        false => Ok(names),
    }
}

fn identity(
    certificate: &X509Certificate<'_>,
) -> Result<Option<(Subject, Option<ClusterId>)>, BadCertificate> {
    let names = names(certificate)?;
    let mut ours = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if is_ours(uri) => Some(*uri),
        _ => None,
    });
    let (first, second) = (ours.next(), ours.next());
    if second.is_some() {
        return Err(BadCertificate::TwoIdentities);
    }
    if let Some(uri) = first {
        let bad = || BadCertificate::BadIdentity(printable(uri));
        let (subject, cluster) = read_uri(uri).ok_or_else(bad)?;
        return Ok(Some((subject, Some(cluster))));
    }
    // A CA proves others' names, not its own.
    if certificate.is_ca() {
        return Ok(None);
    }
    Ok(common_name(&certificate.subject).map(|name| (Subject::Client { name }, None)))
}

fn is_ours(uri: &str) -> bool {
    uri.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// Only what [`Subject::uri`] writes, to the letter.
fn read_uri(uri: &str) -> Option<(Subject, ClusterId)> {
    let (cluster, rest) = uri.strip_prefix("raft-host://")?.split_once('/')?;
    let cluster = cluster.parse().ok()?;
    let (kind, name) = rest.split_once('/')?;
    let subject = match kind {
        "node" => Subject::Node { cluster, node: name.parse().ok()? },
        "client" => Subject::Client { name: name.parse().ok()? },
        _ => return None,
    };
    let is_possible = match subject {
        Subject::Node { node, .. } => (NodeId(1)..=NodeId::HIGHEST).contains(&node),
        Subject::Client { .. } => true,
    };
    (is_possible && subject.uri(cluster) == uri).then_some((subject, cluster))
}

/// The only one that there is.
fn common_name(name: &X509Name<'_>) -> Option<ActorName> {
    let mut names = name.iter_common_name();
    let (first, second) = (names.next()?, names.next());
    if second.is_some() {
        return None;
    }
    first.as_str().ok()?.parse().ok()
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(QUOTE_MAX_CHARS).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

    use super::*;

    const CLUSTER: ClusterId = ClusterId([0xab; 16]);

    fn certificate(common_names: &[&str], names: &[SanType], is_ca: bool) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (at, name) in common_names.iter().enumerate() {
            // The library keeps one of each kind.
            let again = DnType::CustomDnType(vec![2, 5, 4, 3]);
            let kind = if at == 0 { DnType::CommonName } else { again };
            params.distinguished_name.push(kind, *name);
        }
        params.subject_alt_names = names.to_vec();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    #[test]
    fn a_certificate_is_of_whom_its_uri_says_and_of_its_common_name_without_one() {
        let node = Subject::Node { cluster: CLUSTER, node: NodeId(7) };
        let client = Subject::Client { name: "alice".parse().expect("a name") };
        for subject in [node, client] {
            let der = certificate(&["somebody"], &[uri(&subject.uri(CLUSTER))], false);
            assert_eq!(subject_of(&der), Ok(Some(subject)));
            let facts = facts_of(&der).expect("a certificate");
            assert_eq!((facts.subject, facts.cluster), (Some(subject), Some(CLUSTER)));
        }
        let foreign = [uri("spiffe://example.org/ns/default")];
        assert_eq!(subject_of(&certificate(&["alice"], &foreign, false)), Ok(Some(client)));
        assert_eq!(facts_of(&certificate(&["alice"], &[], false)).expect("one").cluster, None);
    }

    #[test]
    fn a_certificate_of_nobody_is_of_nobody() {
        for names in [&[][..], &["a name with spaces"], &["alice", "bob"]] {
            assert_eq!(subject_of(&certificate(names, &[], false)), Ok(None), "{names:?}");
        }
        assert_eq!(subject_of(&certificate(&["alice"], &[], true)), Ok(None), "a CA");
    }

    #[test]
    fn what_could_be_taken_for_two_is_an_error() {
        let one = Subject::Node { cluster: CLUSTER, node: NodeId(1) }.uri(CLUSTER);
        let two = Subject::Node { cluster: CLUSTER, node: NodeId(2) }.uri(CLUSTER);
        for names in [[uri(&one), uri(&two)], [uri(&one), uri(&one)]] {
            let der = certificate(&["a"], &names, false);
            assert_eq!(subject_of(&der), Err(BadCertificate::TwoIdentities));
            assert_eq!(facts_of(&der), Err(BadCertificate::TwoIdentities));
        }
    }

    #[test]
    fn a_uri_of_ours_is_as_we_write_it_or_an_error() {
        let cluster = CLUSTER.to_string();
        for bad in [
            "raft-host:".to_owned(),
            "raft-host://".to_owned(),
            format!("raft-host://{cluster}"),
            format!("raft-host://{cluster}/node"),
            format!("raft-host://{cluster}/node/"),
            format!("raft-host://{cluster}/node/0"),
            format!("raft-host://{cluster}/node/01"),
            format!("raft-host://{cluster}/node/+1"),
            format!("raft-host://{cluster}/node/1/"),
            format!("raft-host://{cluster}/node/{}", u64::MAX),
            format!("raft-host://{cluster}/Node/1"),
            format!("raft-host://{cluster}/client/"),
            format!("raft-host://{cluster}/client/a/b"),
            format!("raft-host://{cluster}/client/a%20b"),
            format!("raft-host://{cluster}/admin/a"),
            format!("Raft-Host://{cluster}/node/1"),
            format!("raft-host://{}/node/1", cluster.to_uppercase()),
            format!("raft-host://+{}/node/1", &cluster[1..]),
            "raft-host://ab/node/1".to_owned(),
            format!("raft-host://{cluster}/client/\u{7}"),
        ] {
            let error = subject_of(&certificate(&["alice"], &[uri(&bad)], false));
            let Err(BadCertificate::BadIdentity(quoted)) = error else {
                panic!("{bad:?}: {error:?}");
            };
            assert!(!quoted.contains(char::is_control));
        }
    }

    #[test]
    fn facts_are_what_the_certificate_holds() {
        let addresses: [IpAddr; 2] =
            ["127.0.0.1".parse().expect("one"), "::1".parse().expect("one")];
        let names = [
            SanType::DnsName("n1.example".try_into().expect("a name")),
            SanType::IpAddress(addresses[0]),
            SanType::IpAddress(addresses[1]),
        ];
        let der = certificate(&["a\u{1b}[2J"], &names, true);
        let facts = facts_of(&der).expect("a certificate");
        assert_eq!(facts.dns_names, ["n1.example"]);
        assert_eq!(facts.ip_addresses, addresses);
        assert!(facts.is_ca && !facts.serial.is_empty() && facts.not_before < facts.not_after);
        assert!(!facts.name.contains(char::is_control), "{:?}", facts.name);
        let digest: [u8; 32] = sha2::Sha256::digest(&der).into();
        assert_eq!(facts.fingerprint, digest);
    }

    #[test]
    fn damaged_certificates_are_errors_and_nothing_worse() {
        let der = certificate(&["alice"], &[uri("raft-host:x")], false);
        assert_eq!(subject_of(&[]), Err(BadCertificate::Malformed));
        assert_eq!(subject_of(&der[..der.len() - 1]), Err(BadCertificate::Malformed));
        let longer = [der.as_slice(), &[0]].concat();
        assert_eq!(subject_of(&longer), Err(BadCertificate::Malformed));
        for at in 0..der.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = der.clone();
                damaged[at] ^= flip;
                let _ = (subject_of(&damaged), facts_of(&damaged));
            }
        }
    }
}
