//! Where the audit log goes, and what is in it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The `[audit]` part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Where it goes.
    pub sink: AuditSink,
    /// The file; absent: `audit.jsonl` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A file of this many bytes is put aside, and another one begun.
    pub max_bytes: u64,
    /// Files that were put aside and are kept.
    pub keep: u32,
    /// The socket of syslog.
    pub socket: PathBuf,
    /// Requests that would be noted fail while nothing can be written.
    pub required: bool,
    /// Each command is noted as well, without its bytes.
    pub commands: bool,
}

/// Where the audit log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditSink {
    /// A file where it is known who asks, else nowhere.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// A file.
    File,
    /// The system's log: RFC 5424 by a socket, which journald has as well.
    Syslog,
    /// The standard error of the process.
    Stderr,
}

/// The file's name, unless another one is given.
const FILE: &str = "audit.jsonl";
/// Several lines fit into the smallest file.
const MAX_BYTES_MIN: u64 = 64 << 10;
/// More files would be renamed for each that is begun than anybody looks at.
const KEEP_MAX: u32 = 1_000;

impl Default for AuditConfig {
    fn default() -> AuditConfig {
        AuditConfig {
            sink: AuditSink::default(),
            file: None,
            max_bytes: 64 << 20,
            keep: 8,
            socket: PathBuf::from("/dev/log"),
            required: false,
            commands: false,
        }
    }
}

impl AuditConfig {
    /// Says what makes no sense.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_bytes < MAX_BYTES_MIN {
            return Err(format!(
                "audit.max_bytes ({}) must be at least {MAX_BYTES_MIN}",
                self.max_bytes
            ));
        }
        if !(1..=KEEP_MAX).contains(&self.keep) {
            return Err(format!("audit.keep ({}) must be between 1 and {KEEP_MAX}", self.keep));
        }
        if self.file.is_some() && !matches!(self.sink, AuditSink::Auto | AuditSink::File) {
            return Err("audit.file is for audit.sink = \"file\": give one of them only".to_owned());
        }
        if self.sink == AuditSink::Off && (self.required || self.commands) {
            return Err(
                "audit.required and audit.commands need an audit log: audit.sink is \"off\""
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Where it goes for a node with this data directory, if it has one.
    pub(super) fn resolved(&self, data_dir: Option<&Path>, knows_callers: bool) -> Destination {
        let file = || self.file.clone().or_else(|| Some(data_dir?.join(FILE)));
        let is_asked_for = knows_callers || self.file.is_some() || self.required || self.commands;
        let file = || file().map_or(Destination::Nowhere, Destination::File);
        match self.sink {
            AuditSink::Auto if is_asked_for => file(),
            AuditSink::File => file(),
            AuditSink::Auto | AuditSink::Off => Destination::Nowhere,
            AuditSink::Syslog => Destination::Syslog,
            AuditSink::Stderr => Destination::Stderr,
        }
    }
}

/// See [`AuditConfig::resolved`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Nowhere,
    File(PathBuf),
    Syslog,
    Stderr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_itself_there_is_a_file_where_callers_are_known() {
        let (config, dir) = (AuditConfig::default(), Path::new("/data"));
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.resolved(Some(dir), false), Destination::Nowhere);
        let file = Destination::File(PathBuf::from("/data/audit.jsonl"));
        assert_eq!(config.resolved(Some(dir), true), file);
        assert_eq!(config.resolved(None, true), Destination::Nowhere, "nothing of it is on disk");
        let off = AuditConfig { sink: AuditSink::Off, ..config.clone() };
        assert_eq!(off.resolved(Some(dir), true), Destination::Nowhere);
        let own = AuditConfig { file: Some("/log/a".into()), ..config };
        assert_eq!(own.resolved(None, false), Destination::File(PathBuf::from("/log/a")));
    }

    #[test]
    fn nonsense_is_named() {
        let refused = |config: AuditConfig| config.validate().expect_err("refused");
        let config = AuditConfig::default;
        assert!(refused(AuditConfig { max_bytes: 1, ..config() }).contains("audit.max_bytes (1)"));
        assert!(refused(AuditConfig { keep: 0, ..config() }).contains("audit.keep (0)"));
        let off = AuditConfig { sink: AuditSink::Off, required: true, ..config() };
        assert!(refused(off).contains("audit.required"));
        let both = AuditConfig { sink: AuditSink::Syslog, file: Some("/a".into()), ..config() };
        assert!(refused(both).contains("audit.file"));
    }
}
