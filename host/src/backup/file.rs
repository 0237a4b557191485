//! A file that is there whole, or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is written aside, synced and renamed. Dropping it before leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    aside: PathBuf,
    file: File,
    unsynced: u64,
    is_done: bool,
}

/// Synced in steps, so that others on the disk never wait for more than that.
const SYNC_BYTES: u64 = 1 << 20;

impl NewFile {
    /// Begins a file that is to have this name.
    ///
    /// # Errors
    /// Those of the system; `AlreadyExists` when there is one, which stays.
    pub fn create(path: &Path) -> io::Result<NewFile> {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut aside = std::ffi::OsString::from(".");
        aside.push(name);
        aside.push(format!(".{}.tmp", std::process::id()));
        let aside = path.with_file_name(aside);
        // What it holds is nobody else's.
        let options = File::options().write(true).create(true).truncate(true).mode(0o600).clone();
        let file = options.open(&aside)?;
        Ok(NewFile { path: path.to_owned(), aside, file, unsynced: 0, is_done: false })
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// Those of the system; the file is not there then.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.aside, &self.path)?;
        self.is_done = true;
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        File::open(dir)?.sync_all()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_done {
            // What is left of it has a name that says so.
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}
