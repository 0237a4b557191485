//! Under which names and addresses a node is dialed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls_pki_types::DnsName;

/// How much of a bad name a message quotes.
const QUOTE_MAX_CHARS: usize = 64;

/// A host that a node's certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name, in small letters.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// Text that names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Neither a name nor an address.
    #[error(
        "{0:?} is no host: expected a name or an IP address that the node is dialed at, such as n1.example.org or 10.0.0.1"
    )]
    Malformed(String),
    /// It stands for "all addresses of this host".
    #[error("{0} is nobody's address: name what others dial")]
    Unspecified(IpAddr),
}

impl FromStr for Host {
    type Err = BadHost;

    /// A port behind it is left away: certificates know none.
    fn from_str(text: &str) -> Result<Host, BadHost> {
        let malformed = || BadHost::Malformed(text.chars().take(QUOTE_MAX_CHARS).collect());
        let host = without_port(text).ok_or_else(malformed)?;
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            return match address.is_unspecified() {
                true => Err(BadHost::Unspecified(address)),
                false => Ok(Host::Address(address)),
            };
        }
        let is_name = DnsName::try_from(host).is_ok() && !host.ends_with('.');
        is_name.then(|| Host::Name(host.to_ascii_lowercase())).ok_or_else(malformed)
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT` or `V6`; the brackets go as well.
fn without_port(text: &str) -> Option<&str> {
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        let is_fit = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
        return (is_fit && host.contains(':')).then_some(host);
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => is_port(port).then_some(host),
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts_with_a_port_or_without() {
        for (text, host) in [
            ("n1", "n1"),
            ("N1.Example.org:7400", "n1.example.org"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:7400", "10.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[2001:DB8::1]:7400", "2001:db8::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("node_1-a.internal", "node_1-a.internal"),
        ] {
            assert_eq!(text.parse::<Host>().expect(text).to_string(), host);
        }
    }

    #[test]
    fn nothing_else_is_one() {
        let long = "a.".repeat(200) + "a";
        for bad in [
            "",
            ".",
            "a b",
            "*.example.org",
            "a/b",
            "n1:",
            "n1:x",
            "n1:70000",
            "n1.",
            "-a",
            "http://a",
            "1.2.3",
            "[n1]:7400",
            "[::1",
            "[::1]x",
            "fe80::1%eth0",
            "ä",
            "a,b",
            &long,
            "0.0.0.0",
            "[::]:7400",
        ] {
            let error = bad.parse::<Host>().expect_err(bad).to_string();
            assert!(error.len() < 250, "{error}");
        }
    }
}
