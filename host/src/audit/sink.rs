//! Where lines go.

use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::config::{AuditConfig, Destination};
use super::event::rfc3339;
use super::file::RotatingFile;

/// How long syslog may take for a line: whoever reads its socket may be stuck.
const SYSLOG_PATIENCE: Duration = Duration::from_secs(1);
/// Facility `authpriv` (10), severity `notice` (5): RFC 5424 §6.2.1.
const PRIORITY: u8 = 10 * 8 + 5;

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be written.
    #[error("the audit log {} cannot be opened: {source}; see audit.file", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error(
        "the system's log at {} cannot be reached: {source}; see audit.socket, or write to a file \
         (audit.sink = \"file\")",
        path.display()
    )]
    Syslog {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The system has no thread left.
    #[error("starting the thread that writes the audit log: {0}")]
    Thread(io::Error),
}

#[derive(Debug)]
pub(super) enum Sink {
    File(RotatingFile),
    Syslog { path: PathBuf, socket: UnixDatagram },
    Stderr,
}

impl Sink {
    /// `None`: nothing is written.
    pub(super) fn open(
        config: &AuditConfig,
        data_dir: Option<&Path>,
        knows_callers: bool,
    ) -> Result<Option<Sink>, AuditError> {
        match config.resolved(data_dir, knows_callers) {
            Destination::Nowhere => Ok(None),
            Destination::Stderr => Ok(Some(Sink::Stderr)),
            Destination::File(path) => {
                RotatingFile::open(&path, config.max_bytes, config.keep, config.required)
                    .map(|file| Some(Sink::File(file)))
                    .map_err(|source| AuditError::File { path, source })
            }
            Destination::Syslog => {
                let path = config.socket.clone();
                match connect(&path) {
                    Ok(socket) => Ok(Some(Sink::Syslog { path, socket })),
                    Err(source) => Err(AuditError::Syslog { path, source }),
                }
            }
        }
    }

    /// `line` has no end yet.
    pub(super) fn write(&mut self, at: SystemTime, line: &str) -> io::Result<()> {
        match self {
            Sink::File(file) => file.write(&format!("{line}\n")),
            Sink::Syslog { socket, .. } => {
                let message = syslog_message(at, std::process::id(), line);
                socket.send(message.as_bytes()).map(drop)
            }
            Sink::Stderr => writeln!(io::stderr(), "{line}"),
        }
    }

    /// Before a batch.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        match self {
            Sink::File(file) => file.follow(),
            Sink::Syslog { .. } | Sink::Stderr => Ok(()),
        }
    }

    /// After a batch.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::File(file) => file.flush(),
            Sink::Syslog { .. } | Sink::Stderr => Ok(()),
        }
    }

    /// Begins anew, after a failure or because somebody asks for it.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        match self {
            Sink::File(file) => file.reopen(),
            Sink::Syslog { path, socket } => {
                *socket = connect(path)?;
                Ok(())
            }
            Sink::Stderr => Ok(()),
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(SYSLOG_PATIENCE))?;
    Ok(socket)
}

/// RFC 5424 §6: the host's name is left to whoever collects.
fn syslog_message(at: SystemTime, process: u32, line: &str) -> String {
    format!("<{PRIORITY}>1 {} - raft-host {process} audit - {line}", rfc3339(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_gets_one_message_a_line_and_is_found_again_after_it_was_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let config = AuditConfig {
            sink: super::super::AuditSink::Syslog,
            socket: path.clone(),
            ..AuditConfig::default()
        };
        let missing = Sink::open(&config, None, false).expect_err("nobody listens");
        assert!(missing.to_string().contains("audit.socket"), "{missing}");
        let listening = UnixDatagram::bind(&path).expect("bound");
        let mut sink = Sink::open(&config, None, false).expect("there").expect("not off");
        sink.write(SystemTime::UNIX_EPOCH, "{}").expect("sent");
        let mut bytes = [0; 256];
        let length = listening.recv(&mut bytes).expect("received");
        let process = std::process::id();
        let expected = format!("<85>1 1970-01-01T00:00:00.000Z - raft-host {process} audit - {{}}");
        assert_eq!(std::str::from_utf8(&bytes[..length]), Ok(&*expected));
        drop(listening);
        std::fs::remove_file(&path).expect("gone");
        sink.write(SystemTime::UNIX_EPOCH, "{}").expect_err("nobody listens");
        let _listening = UnixDatagram::bind(&path).expect("bound");
        sink.reopen().expect("somebody listens");
        sink.write(SystemTime::UNIX_EPOCH, "{}").expect("sent");
    }
}
