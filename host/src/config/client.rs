//! The `[client]` part of the configuration: where commands find a cluster, and how they print.
//! And how addresses and times are written, there and on the command line.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DEFAULT_LISTEN;
use crate::types::ClusterId;

/// What commands that ask a cluster do unless their command line or environment says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Nodes of the cluster, `HOST:PORT`.
    #[serde(deserialize_with = "endpoints")]
    pub endpoint: Vec<String>,
    /// The cluster to talk to, and no other; absent: the one of the node that answers first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// How long to try before giving up, such as `"10s"`; absent: each command's own default.
    #[serde(
        serialize_with = "write_time",
        deserialize_with = "read_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
    /// How results are printed.
    pub output: Output,
    /// Speak TLS, with the files of this folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PathBuf>,
    /// Speak TLS, and trust nodes with a certificate of these CAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// File that holds the token to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// Text and tables for people.
    #[default]
    Table,
    /// One JSON object for scripts.
    Json,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            endpoint: vec![DEFAULT_LISTEN.to_owned()],
            cluster_id: None,
            timeout: None,
            output: Output::default(),
            tls: None,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            token_file: None,
        }
    }
}

fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    if texts.is_empty() {
        return Err(D::Error::custom("endpoint names no node: write [\"HOST:PORT\"]"));
    }
    texts.iter().map(|text| parse_endpoint(text).map_err(D::Error::custom)).collect()
}

fn read_time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    parse_duration(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

fn write_time<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_some(&time.map(|time| format!("{}ms", time.as_millis())))
}

/// Checks what a command may ask: `host:port`, the same behind `http://` or `https://`, or `unix:PATH`.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse_endpoint(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with("unix:") {
        return match text.trim_start_matches("unix:").trim_start_matches("//") {
            "" => Err(format!("{text:?} names no socket: write unix:PATH")),
            _ => Ok(text.to_owned()),
        };
    }
    match text.strip_prefix("https://") {
        Some(address) => Ok(format!("https://{}", parse_address(address)?)),
        None => parse_address(text),
    }
}

/// Checks `host:port`; `http://` in front is tolerated.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let address = text.trim();
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} has no port: write HOST:PORT, such as 127.0.0.1:7400"))?;
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !is_ipv6) || host.contains(['/', ' ']) {
        return Err(format!("{host:?} is not a host: write HOST:PORT, such as 127.0.0.1:7400"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(address.to_owned()),
        _ => Err(format!("{port:?} is not a port from 1 to 65535")),
    }
}

/// Reads `250ms`, `1.5s`, `10s`, `2m`, `1h`; a number alone means seconds.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_time(text, (86_400.0, "24h"))
}

/// As [`parse_duration`], of something that lives for up to ten years.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    parse_time(text, (3_650.0 * 86_400.0, "3650d"))
}

fn parse_time(text: &str, (most, most_text): (f64, &str)) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let explain = || format!("{text:?} is not a time: write 500ms, 10s, 2m or 1h");
    let scale = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(explain()),
    };
    let seconds = number.parse::<f64>().map_err(|_| explain())? * scale;
    if !(0.001..=most).contains(&seconds) {
        return Err(format!("{text:?} is out of range: at least 1ms and at most {most_text}"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_anything_is_dialed() {
        assert_eq!(parse_endpoint("127.0.0.1:7400"), Ok("127.0.0.1:7400".into()));
        assert_eq!(parse_endpoint(" http://node-1:7400/ "), Ok("node-1:7400".into()));
        assert_eq!(parse_endpoint("[::1]:7400"), Ok("[::1]:7400".into()));
        assert_eq!(parse_endpoint("https://a:1/"), Ok("https://a:1".into()));
        assert_eq!(parse_endpoint("unix:/a/b"), Ok("unix:/a/b".into()));
        for bad in
            ["", "host", "host:", "host:0", "host:70000", ":7400", "::1:7400", "a/b:1", "unix:"]
        {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3_600)));
        for bad in ["", "s", "10 parsecs", "-1s", "0", "25h", "1..2s", "inf"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let config = ClientConfig {
            endpoint: vec!["a:1".to_owned(), "[::1]:2".to_owned()],
            cluster_id: Some(ClusterId([7; 16])),
            timeout: Some(Duration::from_millis(1_500)),
            output: Output::Json,
            tls_ca: Some("ca.pem".into()),
            ..ClientConfig::default()
        };
        for config in [config, ClientConfig::default()] {
            let text = toml::to_string(&config).expect("TOML holds it");
            assert_eq!(toml::from_str(&text), Ok(config), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        for (line, words) in [
            ("endpoint = [\"a:1\", \"nowhere\"]", "\"nowhere\" has no port"),
            ("endpoint = []", "names no node"),
            ("endpoints = [\"a:1\"]", "unknown field `endpoints`"),
            ("cluster_id = \"c1\"", "expected 32 hexadecimal digits"),
            ("timeout = \"soon\"", "\"soon\" is not a time"),
            ("timeout = 10", "expected a string"),
            ("output = \"yaml\"", "unknown variant `yaml`"),
        ] {
            let message = toml::from_str::<ClientConfig>(line).expect_err(line).to_string();
            assert!(message.contains(words) && message.contains("line 1"), "{line}: {message}");
        }
    }
}
