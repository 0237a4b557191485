//! What an address of a node looks like. Members dial what they are told, and the log, snapshots
//! and messages to people carry it: so it is short, and of letters that mean nothing to them.

/// Longest address, in bytes: a host name of 253 (RFC 1035 §2.3.4), a colon and a port.
pub const ADDRESS_MAX_BYTES: usize = 253 + 1 + 5;

/// How much of a bad address a message quotes.
const QUOTE_MAX_CHARS: usize = 64;

/// Why a text is no address that nodes could dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than any host's.
    #[error("an address of {0} bytes: expected HOST:PORT with at most {ADDRESS_MAX_BYTES} bytes")]
    TooLong(usize),
    /// Something else.
    #[error("{0} is not an address: expected HOST:PORT, such as 10.0.0.1:7400 or [::1]:7400")]
    Malformed(String),
    /// It stands for "all addresses of this host".
    #[error("{0} is nobody's address: others cannot dial it; name the host's own")]
    Unspecified(String),
}

/// Checks `HOST:PORT` with a host and a port that others could dial: a name, an IPv4 address, or
/// an IPv6 address in brackets.
///
/// # Errors
/// See [`AddressError`]. Its words are short and printable, whatever `text` is.
pub fn check_address(text: &str) -> Result<(), AddressError> {
    if text.len() > ADDRESS_MAX_BYTES {
        return Err(AddressError::TooLong(text.len()));
    }
    let malformed = || AddressError::Malformed(quoted(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let is_port = !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_unspecified = match bare {
        Some(bare) => {
            // A zone (RFC 4007) means something on one host only.
            let address: std::net::Ipv6Addr = bare.parse().map_err(|_| malformed())?;
            address.is_unspecified()
                || address.to_ipv4_mapped().is_some_and(|v4| v4.is_unspecified())
        }
        None => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if host.is_empty() || !host.chars().all(is_name) {
                return Err(malformed());
            }
            // Resolvers take it for that address.
            host.parse::<std::net::Ipv4Addr>().map_or(host == "0", |v4| v4.is_unspecified())
        }
    };
    if !is_port {
        return Err(malformed());
    }
    if is_unspecified { Err(AddressError::Unspecified(text.to_owned())) } else { Ok(()) }
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTE_MAX_CHARS).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_dial_is_an_address() {
        let long = format!("{}:65535", "a".repeat(253));
        for good in ["127.0.0.1:7400", "node-1.db_x.example:1", "[::1]:7400", "n1:7400", &long] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn nothing_else_is_and_the_words_for_it_are_short_and_printable() {
        let long = format!("{}:65535", "a".repeat(254));
        let longer = format!("{}:1", "\u{1}".repeat(12 << 20));
        let control = format!("{}:1", "\u{1}".repeat(250));
        for bad in [
            "",
            ":",
            "host",
            "host:",
            "host:0",
            "host:+1",
            "host:70000",
            ":7400",
            "::1:7400",
            "[::1:7400",
            "[]:7400",
            "[fe80::1%eth0]:1",
            "http://a:1",
            "a/b:1",
            "a b:1",
            "a:1\n",
            "a\nlevel=error:1",
            " a:1",
            "a:1 ",
            "é:1",
            "a:1:2",
            "0.0.0.0:7400",
            "[::]:7400",
            "0:1",
            "[::ffff:0.0.0.0]:1",
            &long,
            &longer,
            &control,
        ] {
            let words = check_address(bad).expect_err(&quoted(bad)).to_string();
            assert!(words.len() < 500 && !words.contains(char::is_control), "{words:?}");
        }
    }
}
