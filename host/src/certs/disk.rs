//! Files of certificates and keys: read with a bound, written aside and renamed, private from the start.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The largest file that is read.
pub(super) const FILE_MAX_BYTES: u64 = 1 << 20;

/// Everybody may read it.
pub(super) const PUBLIC: u32 = 0o644;
/// Its owner may read it.
pub(super) const PRIVATE: u32 = 0o600;
/// Its owner may look into it.
const PRIVATE_FOLDER: u32 = 0o700;

/// The bytes of a regular file of at most [`FILE_MAX_BYTES`].
///
/// # Errors
/// Those of the system; `FileTooLarge`, and `InvalidInput` for what is no file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open a pipe would wait for somebody to write into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_MAX_BYTES {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 1 MiB, and no file of certificates is",
        )),
        false => Ok(bytes),
    }
}

/// As [`read`], for text.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

/// Whether something is there, be it a link to nowhere.
pub(super) fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn written(dir: &Path, text: &str, mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".raft-host-certs-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Writes a file that is not there yet.
///
/// # Errors
/// Those of the system; `AlreadyExists` when it is there, and stays as it is.
pub(super) fn create(dir: &Path, name: &str, text: &str, mode: u32) -> io::Result<()> {
    written(dir, text, mode)?.persist_noclobber(dir.join(name))?;
    sync(dir)
}

/// Writes a file, in the place of one that may be there.
///
/// # Errors
/// Those of the system; what was there stays as it is.
pub(super) fn replace(dir: &Path, name: &str, text: &str, mode: u32) -> io::Result<()> {
    written(dir, text, mode)?.persist(dir.join(name))?;
    sync(dir)
}

/// Makes the names in a folder durable.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A folder that goes away again unless it gets its name.
///
/// # Errors
/// Those of the system.
pub(super) fn draft_in(dir: &Path) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".raft-host-certs-")
        .permissions(Permissions::from_mode(PRIVATE_FOLDER))
        .tempdir_in(dir)
}

/// Gives a draft its name. Nothing, or an empty folder, may have it.
///
/// # Errors
/// Those of the system; the draft is gone then.
pub(super) fn name_draft(draft: tempfile::TempDir, path: &Path) -> io::Result<()> {
    sync(draft.path())?;
    fs::rename(draft.path(), path)?;
    // It is where it belongs, and there is nothing to remove.
    let _ = draft.keep();
    sync(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}
