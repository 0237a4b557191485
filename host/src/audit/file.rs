//! A file of lines that is put aside when it is long enough.
//!
//! Lines are only ever appended. A line that a crash or a full disk cut short is ended when the file is opened
//! again, so that it spoils no other. Somebody else may move the file away: the next line begins another.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Nobody else may read who did what.
const MODE: u32 = 0o600;

/// See the module.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    /// Each batch reaches the disk before anything else is done.
    syncs: bool,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    pub(super) fn open(
        path: &Path,
        max_bytes: u64,
        keep: u32,
        syncs: bool,
    ) -> io::Result<RotatingFile> {
        let (file, bytes) = open(path)?;
        Ok(RotatingFile { path: path.to_owned(), max_bytes, keep, syncs, file, bytes })
    }

    /// Appends a line, which has its end.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() as u64;
        if self.bytes > 0 && self.bytes + bytes > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += bytes;
        Ok(())
    }

    /// After the lines of a batch.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.syncs {
            true => self.file.sync_data(),
            false => Ok(()),
        }
    }

    /// Opens what has the name now.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.bytes) = open(&self.path)?;
        Ok(())
    }

    /// As [`RotatingFile::reopen`], if that is another file.
    pub(super) fn follow(&mut self) -> io::Result<()> {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let own = identity(self.file.metadata()?);
        match fs::metadata(&self.path).map(identity) {
            Ok(named) if named == own => Ok(()),
            _ => self.reopen(),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for number in (1..self.keep).rev() {
            rename(&self.aside(number), &self.aside(number + 1))?;
        }
        rename(&self.path, &self.aside(1))?;
        self.reopen()?;
        sync_names(&self.path)
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

/// What is not there has nothing to be moved.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_names(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = File::options();
    let mut file = options.read(true).append(true).create(true).mode(MODE).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable"));
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_long_file_is_put_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        let mut file = RotatingFile::open(&path, 10, 2, true).expect("opened");
        for line in ["11111\n", "22222\n", "33333\n", "44444\n"] {
            file.write(line).expect("written");
            file.flush().expect("flushed");
        }
        assert_eq!(names(dir.path()), ["a", "a.1", "a.2"]);
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).expect("readable");
        assert_eq!([text("a"), text("a.1"), text("a.2")], ["44444\n", "33333\n", "22222\n"]);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_there_stays_and_a_torn_line_is_ended() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        fs::write(&path, "whole\nto").expect("written");
        let mut file = RotatingFile::open(&path, 1_000, 2, false).expect("opened");
        file.write("next\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "whole\nto\nnext\n");
    }

    #[test]
    fn a_file_that_somebody_moves_is_followed_by_another() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        let mut file = RotatingFile::open(&path, 1_000, 2, false).expect("opened");
        file.write("one\n").expect("written");
        fs::rename(&path, dir.path().join("moved")).expect("moved");
        file.follow().expect("opened anew");
        file.write("two\n").expect("written");
        file.follow().expect("the same");
        file.write("three\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "two\nthree\n");
    }
}
