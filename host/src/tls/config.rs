//! The `[tls]` part of the configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who has to prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Nobody can: no TLS is spoken.
    #[default]
    Off,
    /// Nodes; a client may.
    Server,
    /// Everybody.
    Mutual,
}

impl TlsMode {
    /// All of them, with what they mean.
    pub const ALL: [(TlsMode, &str); 3] = [
        (TlsMode::Off, "no TLS: on this machine, or with --insecure"),
        (TlsMode::Server, "TLS; nodes show certificates to each other, clients may"),
        (TlsMode::Mutual, "TLS; nodes and clients show certificates"),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            TlsMode::Off => "off",
            TlsMode::Server => "server",
            TlsMode::Mutual => "mutual",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<TlsMode, String> {
        let found = TlsMode::ALL.iter().find(|(mode, _)| mode.name() == text);
        found
            .map(|(mode, _)| *mode)
            .ok_or_else(|| format!("{text:?} is none of off, server, mutual"))
    }
}

/// The `[tls]` part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Who has to prove who it is.
    pub mode: TlsMode,
    /// This node's certificate in PEM, and those between it and the CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The CAs of clients, in PEM; absent: those of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// The CAs of nodes, in PEM; absent: those of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_ca: Option<PathBuf>,
    /// A folder with the key and the certificate of the CA of nodes (`ca-key.pem`, `ca.pem`): this node signs
    /// certificates of nodes that join with a token. Absent: it signs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_ca: Option<PathBuf>,
    /// A connection is let go when it is so many milliseconds old, so that none goes on for longer with a
    /// certificate, or by a CA, that was replaced.
    pub connection_age_ms: u64,
}

impl Default for TlsConfig {
    fn default() -> TlsConfig {
        TlsConfig {
            mode: TlsMode::Off,
            certificate: None,
            key: None,
            client_ca: None,
            peer_ca: None,
            signing_ca: None,
            connection_age_ms: 3_600_000,
        }
    }
}

impl TlsConfig {
    /// Takes the files of a folder, as `raft-host certs` makes it.
    pub fn use_folder(&mut self, dir: &Path) {
        self.certificate = Some(dir.join("certificate.pem"));
        self.key = Some(dir.join("key.pem"));
        self.client_ca = Some(dir.join("ca.pem"));
        self.peer_ca = Some(dir.join("ca.pem"));
        if self.mode == TlsMode::Off {
            self.mode = TlsMode::Mutual;
        }
    }

    /// What makes no sense, each naming its setting.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let files = [
            ("certificate", &self.certificate),
            ("key", &self.key),
            ("client_ca", &self.client_ca),
            ("peer_ca", &self.peer_ca),
            ("signing_ca", &self.signing_ca),
        ];
        if self.mode == TlsMode::Off {
            let given = files.iter().find(|(_, file)| file.is_some());
            problems.extend(given.map(|(name, _)| {
                format!(
                    "tls.{name} is given, and tls.mode is \"off\": say with tls.mode (--tls-mode mutual, or \
                     server) that TLS is spoken"
                )
            }));
        } else {
            for (name, file) in &files[..2] {
                if file.is_none() {
                    problems.push(format!(
                        "tls.mode is \"{}\", and tls.{name} (--tls-{name} FILE) is missing: `raft-host certs \
                         node` makes one, and --tls DIR takes all its files",
                        self.mode
                    ));
                }
            }
            if self.client_ca.is_none() && self.peer_ca.is_none() {
                problems.push(format!(
                    "tls.mode is \"{}\", and there is no CA to trust: give tls.peer_ca (--tls-peer-ca FILE), and \
                     tls.client_ca (--tls-client-ca FILE) if clients have another",
                    self.mode
                ));
            }
        }
        if !(1_000..=30 * 86_400_000).contains(&self.connection_age_ms) {
            problems.push(format!(
                "tls.connection_age_ms is {}: it must be at least 1000 and at most 2592000000 (30 days)",
                self.connection_age_ms
            ));
        }
        problems
    }

    /// The CAs of clients.
    pub(super) fn client_ca(&self) -> Option<&Path> {
        self.client_ca.as_deref().or(self.peer_ca.as_deref())
    }

    /// The CAs of nodes.
    pub(super) fn peer_ca(&self) -> Option<&Path> {
        self.peer_ca.as_deref().or(self.client_ca.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        assert!(TlsConfig::default().problems().is_empty());
        let bare = TlsConfig { mode: TlsMode::Mutual, ..TlsConfig::default() };
        let problems = bare.problems().join("\n");
        for words in ["tls.certificate", "--tls-key FILE", "--tls-peer-ca FILE", "certs"] {
            assert!(problems.contains(words), "{words}: {problems}");
        }
        let mut off = TlsConfig { key: Some("k".into()), ..TlsConfig::default() };
        assert!(off.problems().join("").contains("tls.mode is \"off\""));
        off.use_folder(Path::new("/d"));
        assert_eq!((off.mode, off.problems()), (TlsMode::Mutual, vec![]));
        let hasty = TlsConfig { connection_age_ms: 1, ..TlsConfig::default() };
        assert!(hasty.problems().join("").contains("connection_age_ms is 1"));
    }

    #[test]
    fn modes_are_written_as_they_are_read() {
        for (mode, _) in TlsMode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert!("on".parse::<TlsMode>().is_err());
    }
}
