//! Looks at log files that are in use with the checks of `verify`, and lets go of damaged ones.
//!
//! A file whose successor is durable is never changed again, and what is before the mark in the
//! last one neither: both are read without any lock. A purge may delete a file meanwhile.
//!
//! A damaged file goes like any other, by a purge, once nothing in it is needed: its entries are
//! compacted, and the few values of the groups stand in later records. The file that is being written
//! to never goes. So the log is made to go on in the next one: records of nothing fill it up.

use std::io::{self, Read, Seek as _, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle as _, Permission};
use raft_engine::{Command, LogBatch};

use super::file_system::{LogFileName, Queue};
use super::verify::{
    FILE_HEADER_BYTES, RECORD_HEADER_BYTES, check_file_header, check_record, log_files,
    record_length,
};
use super::{ENGINE, META_KEY, RaftEngineLog, StorageError, UNPOISONED, encode_meta, flatten};
use crate::storage::disk::{Directories, corrupt, io_error};
use crate::storage::scrub::{STEP_BYTES, damage};
use crate::storage::{Damage, DamagedPart, Pace, Scrubbed};

/// A region of raft-engine that is no group's: what it holds is nothing.
const FILLER_REGION: u64 = u64::MAX;
const FILLER_KEY: &[u8] = b"filler";
const FILLER_BYTES: usize = 1 << 20;
/// No more than so many such records are written at a time. A longer file fills up in time.
const FILLERS_MAX: usize = 64;

/// Why a file was not read to its end.
enum Ended {
    /// The pace ended it.
    Paced,
    /// A purge has deleted it.
    Gone,
    Failed(StorageError),
}

impl From<StorageError> for Ended {
    fn from(error: StorageError) -> Ended {
        Ended::Failed(error)
    }
}

/// Reads a file, no faster than it may.
struct Paced<'a, 'b, R> {
    inner: R,
    pace: &'a mut Pace<'b>,
    /// Bytes that may be read before the pace is asked again.
    allowed: usize,
    is_ended: bool,
}

impl<R: Read> Read for Paced<'_, '_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.allowed == 0 {
            if !(self.pace)(STEP_BYTES as u64) {
                self.is_ended = true;
                return Err(io::Error::other("the scrub was ended"));
            }
            self.allowed = STEP_BYTES;
        }
        let most = bytes.len().min(self.allowed);
        let read = self.inner.read(&mut bytes[..most])?;
        self.allowed -= read;
        Ok(read)
    }
}

impl<F: FileSystem + Directories + 'static> RaftEngineLog<F> {
    pub(super) fn scrub_files(&self, pace: &mut Pace<'_>) -> Result<Scrubbed, StorageError> {
        let mut damages = Vec::new();
        for queue in [Queue::Append, Queue::Rewrite] {
            for sequence in log_files(&*self.file_system, &self.dir, queue)? {
                match self.scrub_file(LogFileName { queue, sequence }, pace) {
                    Ok(()) | Err(Ended::Gone) => {}
                    Err(Ended::Paced) => return Ok(Scrubbed { damages, is_whole: false }),
                    Err(Ended::Failed(error)) => damages.push(damage(DamagedPart::Log, error)?),
                }
            }
        }
        Ok(Scrubbed { damages, is_whole: true })
    }

    fn scrub_file(&self, name: LogFileName, pace: &mut Pace<'_>) -> Result<(), Ended> {
        let path = &name.path(&self.dir);
        // Before the length: it only grows.
        let (last, durable_bytes) = self.file_system.durable(name.queue);
        if name.sequence > last {
            return Ok(());
        }
        self.file_system.forget_cached(path);
        let handle = match self.file_system.open(path, Permission::ReadOnly) {
            Ok(handle) => Arc::new(handle),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Ended::Gone),
            Err(error) => return Err(io_error("open", path)(error).into()),
        };
        let bytes = handle.file_size().map_err(io_error("stat", path))? as u64;
        let wanted = if name.sequence == last { durable_bytes } else { bytes };
        if bytes < wanted {
            let reason = format!("the file ends here, but was {wanted} bytes long");
            return Err(corrupt(path, bytes, reason).into());
        }
        let mut reader = self.file_system.new_reader(handle).map_err(io_error("open", path))?;
        reader.seek(SeekFrom::Start(0)).map_err(io_error("seek", path))?;
        let mut reader = Paced { inner: reader, pace, allowed: 0, is_ended: false };
        let read = scrub_records(&mut reader, path, name.sequence, wanted);
        if reader.is_ended {
            return Err(Ended::Paced);
        }
        self.file_system.forget_cached(path);
        Ok(read?)
    }

    pub(super) fn shed_files(&self, damages: &[Damage]) -> Result<Vec<Damage>, StorageError> {
        self.leave_files(damages)?;
        self.purge_files()?;
        let mut left = Vec::new();
        for known in damages {
            let Some(name) = self.name_of(&known.file) else { continue };
            if let Err(Ended::Failed(error)) = self.scrub_file(name, &mut |_| true) {
                left.push(damage(DamagedPart::Log, error)?);
            }
        }
        Ok(left)
    }

    fn name_of(&self, path: &PathBuf) -> Option<LogFileName> {
        LogFileName::parse(path).filter(|name| name.path(&self.dir) == *path)
    }

    /// Goes on in another file, if the last one is damaged, and repeats the groups' values there.
    fn leave_files(&self, damages: &[Damage]) -> Result<(), StorageError> {
        let names = damages.iter().filter_map(|known| self.name_of(&known.file));
        let appended = names.filter(|name| name.queue == Queue::Append);
        let Some(newest) = appended.map(|name| name.sequence).max() else { return Ok(()) };
        for _ in 0..FILLERS_MAX {
            if self.file_system.durable(Queue::Append).0 > newest {
                break;
            }
            let mut record = LogBatch::default();
            let filler = vec![0; FILLER_BYTES];
            self.write_own(&mut record, |record| {
                record.put(FILLER_REGION, FILLER_KEY.to_vec(), filler)
            })?;
        }
        let mut record = LogBatch::default();
        record.add_command(FILLER_REGION, Command::Clean);
        self.write_own(&mut record, |record| {
            let groups = self.groups.read().expect(UNPOISONED);
            for group in groups.ids() {
                let meta = encode_meta(&groups.get(group).meta());
                record.put(group.0, META_KEY.to_vec(), meta)?;
            }
            Ok(())
        })
    }

    /// Writes a record that changes nothing for anybody who reads. Filled in while nobody else writes.
    fn write_own(
        &self,
        record: &mut LogBatch,
        fill: impl FnOnce(&mut LogBatch) -> raft_engine::Result<()>,
    ) -> Result<(), StorageError> {
        let _writer = self.writer.lock().expect(UNPOISONED);
        self.poison.check(ENGINE)?;
        let _purging = self.purging.lock().expect(UNPOISONED);
        let filled = catch_unwind(AssertUnwindSafe(|| fill(record)));
        flatten(&self.dir, filled)?;
        self.write_record(record).map_err(|error| self.poison.set(error))
    }
}

/// Checks the first `bytes` of a file, record by record.
fn scrub_records(
    file: &mut impl Read,
    path: &Path,
    sequence: u64,
    bytes: u64,
) -> Result<(), StorageError> {
    let broken = |offset, reason: String| corrupt(path, offset, reason);
    let mut read = |buffer: &mut [u8], offset| {
        file.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(path, offset, "the file ends too early"),
            _ => io_error("read", path)(error),
        })
    };
    if bytes < FILE_HEADER_BYTES as u64 {
        return Err(broken(0, "the file header is cut short".to_owned()));
    }
    let mut header = [0; FILE_HEADER_BYTES];
    read(&mut header, 0)?;
    check_file_header(&header).map_err(|reason| broken(0, reason))?;
    let mut offset = FILE_HEADER_BYTES as u64;
    let mut record = Vec::new();
    while offset < bytes {
        let rest = bytes - offset;
        if rest < RECORD_HEADER_BYTES as u64 {
            return Err(broken(offset, "a record header is cut short".to_owned()));
        }
        let mut header = [0; RECORD_HEADER_BYTES];
        read(&mut header, offset)?;
        let length = record_length(&header, rest).map_err(|reason| broken(offset, reason))?;
        record.clear();
        record.extend_from_slice(&header);
        record.resize(length, 0);
        read(&mut record[RECORD_HEADER_BYTES..], offset)?;
        check_record(&record, sequence).map_err(|reason| broken(offset, reason))?;
        offset += length as u64;
    }
    Ok(())
}
