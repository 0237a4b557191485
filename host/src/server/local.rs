//! The socket on this machine: a way in for whoever may read the node's files, when there is no other.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

use super::ServeError;
use crate::config::Config;

/// Its name in the data directory.
const NAME: &str = "raft-host.sock";
/// Longest path that the system takes for a socket.
const PATH_MAX_BYTES: usize = 107;

/// A socket's file, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody listens there any more; the next start takes its place.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens where it is configured, or in the data directory, if there is one.
pub(super) fn listen(
    config: &Config,
    data_dir: Option<&Path>,
) -> Result<Option<(UnixListener, SocketFile)>, ServeError> {
    let path = match (&config.socket, data_dir) {
        (Some(path), _) => path.clone(),
        (None, Some(dir)) => dir.join(NAME),
        (None, None) => return Ok(None),
    };
    if path.as_os_str().len() > PATH_MAX_BYTES {
        let words = format!(
            "its path has {} bytes, and a socket's may have {PATH_MAX_BYTES}: say with --socket PATH where it \
             shall be",
            path.as_os_str().len()
        );
        if config.socket.is_some() {
            return Err(ServeError::Socket { path, reason: words });
        }
        tracing::warn!(path = %path.display(), "there is no socket on this machine: {words}");
        return Ok(None);
    }
    let listener = bind(&path).map_err(|error| ServeError::Socket {
        path: path.clone(),
        reason: format!("{error}; say with --socket PATH where it shall be"),
    })?;
    Ok(Some((listener, SocketFile(path))))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    clear(path)?;
    // It is nobody else's from its first moment. What other threads create meanwhile is theirs alone, too.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// Takes away what a process that is gone has left. Nothing else.
fn clear(path: &Path) -> io::Result<()> {
    let facts = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        facts => facts?,
    };
    if !facts.file_type().is_socket() {
        return Err(io::Error::other("something is there that is no socket, and is left alone"));
    }
    if facts.uid() != nix::unistd::Uid::effective().as_raw() {
        return Err(io::Error::other("a socket of another user is there, and is left alone"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other("another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(path: PathBuf) -> Config {
        Config { socket: Some(path), ..Config::default() }
    }

    #[tokio::test]
    async fn only_what_a_dead_process_left_makes_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = at(dir.path().join("s"));
        let path = config.socket.clone().expect("given");
        let (listener, file) = listen(&config, None).expect("free").expect("wanted");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = listen(&config, None).unwrap_err().to_string();
        assert!(refused.contains("another process listens"), "{refused}");
        // As after a kill.
        drop(listener);
        std::mem::forget(file);
        let (_listener, file) =
            listen(&config, None).expect("its process is gone").expect("wanted");
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "mine").expect("a file");
        let refused = listen(&config, None).unwrap_err().to_string();
        assert!(refused.contains("no socket, and is left alone"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("still there"), b"mine");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_refused_if_it_was_asked_for() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let refused = listen(&at(long.join("s")), None).unwrap_err().to_string();
        assert!(refused.contains("107") && refused.contains("--socket"), "{refused}");
        assert!(listen(&Config::default(), Some(&long)).expect("only said").is_none());
        assert!(listen(&Config::default(), None).expect("nothing to do").is_none());
    }
}
