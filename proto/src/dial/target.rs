//! Addresses, as they are written.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A port of a host.
    Tcp {
        /// Its name or address; an IPv6 address stands in brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken there; `None`: as the dialer is set up.
        tls: Option<bool>,
    },
    /// A socket on this machine.
    Unix(PathBuf),
}

/// An address that cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {address:?}: {reason}")]
pub struct BadAddress {
    address: String,
    reason: String,
}

impl BadAddress {
    pub(super) fn new(address: &str, reason: impl Into<String>) -> BadAddress {
        BadAddress { address: address.chars().take(256).collect(), reason: reason.into() }
    }

    pub(super) fn tls_unprepared(address: &str) -> BadAddress {
        let reason =
            "TLS needs to know whom to trust: give the cluster's CA (--tls-ca FILE, or --tls DIR)";
        BadAddress::new(address, reason)
    }
}

impl FromStr for Target {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Target, BadAddress> {
        let bad = |reason: &str| {
            let expected = "expected host:port, https://host:port, http://host:port or unix:PATH";
            BadAddress::new(text, format!("{reason}; {expected}"))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(bad("the path is missing")),
                path => Ok(Target::Unix(path.into())),
            };
        }
        let (rest, tls) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (rest, Some(true)),
            (_, Some(rest)) => (rest, Some(false)),
            _ => (text, None),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let is_ipv6 = host.starts_with('[') && host.ends_with(']');
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@';
        if host.is_empty() || host.contains(is_odd) || (host.contains(':') && !is_ipv6) {
            return Err(bad("that is no host"));
        }
        match port.parse() {
            Ok(port) => Ok(Target::Tcp { host: host.to_owned(), port, tls }),
            Err(_) => Err(bad("the port is no number up to 65535")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// What requests name as whom they are for.
    pub(super) fn uri(&self) -> String {
        match self {
            Target::Tcp { host, port, tls: Some(true) } => format!("https://{host}:{port}"),
            Target::Tcp { host, port, .. } => format!("http://{host}:{port}"),
            Target::Unix(_) => "http://localhost".to_owned(),
        }
    }

    /// Whether nobody but this machine, or whoever has proved to be the one that is wanted, sees what is sent.
    pub fn is_private(&self) -> bool {
        match self {
            Target::Unix(_) | Target::Tcp { tls: Some(true), .. } => true,
            Target::Tcp { host, .. } => is_loopback(host),
        }
    }
}

/// Whether a host of an address is this machine.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: Option<bool>) -> Target {
        Target::Tcp { host: host.to_owned(), port, tls }
    }

    #[test]
    fn addresses_come_with_or_without_a_scheme() {
        for (text, target) in [
            ("a:1", tcp("a", 1, None)),
            ("http://10.0.0.1:7400/", tcp("10.0.0.1", 7400, Some(false))),
            ("https://a:1", tcp("a", 1, Some(true))),
            ("[::1]:7400", tcp("[::1]", 7400, None)),
            ("unix:/a/b", Target::Unix("/a/b".into())),
            ("unix:///a/b", Target::Unix("/a/b".into())),
        ] {
            assert_eq!(text.parse(), Ok(target), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("a", "the port is missing"),
            ("a:b", "the port is no number"),
            ("a b:1", "that is no host"),
            ("::1:1", "that is no host"),
            (":1", "that is no host"),
            ("user@a:1", "that is no host"),
            ("unix:", "the path is missing"),
        ] {
            let words = text.parse::<Target>().unwrap_err().to_string();
            assert!(words.contains(reason) && words.contains("host:port"), "{words}");
        }
    }

    #[test]
    fn what_is_private_is_this_machine_or_tls() {
        for private in ["unix:/a", "https://a:1", "localhost:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(private.parse::<Target>().unwrap().is_private(), "{private}");
        }
        for open in ["a:1", "http://a:1", "10.0.0.1:1", "0.0.0.0:1", "localhost.example:1"] {
            assert!(!open.parse::<Target>().unwrap().is_private(), "{open}");
        }
    }
}
