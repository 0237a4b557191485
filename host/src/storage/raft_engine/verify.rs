//! Reads every log file before raft-engine does, and decides what a broken record means.
//!
//! raft-engine alone would cut the last file at the first record that does not fit, even if
//! good ones follow; would ignore what precedes a missing file; and looks at the checksum of
//! few entry blocks. Here each record of each file is checked. Only what a crash can leave
//! is repaired: a torn tail of the last file of a queue, beyond what the mark calls durable.
//! In the append queue a tail is one record at most, because each write is synced before
//! the next begins; so a good record *after* the broken one proves that it was durable.
//!
//! The files, as raft-engine 0.4 writes them (numbers big-endian unless noted):
//!
//! ```text
//!   file   = magic, 52 bytes | version u64 = 2 | alignment u64 = 0 | record*
//!   record = length u56 | compression u8 | footer offset u64      (offsets from the record)
//!          | entries, CRC-32 u32 little-endian                    (absent when there are none)
//!          | items,   CRC-32 xor file sequence, u32 little-endian
//!   items  = count varint, item*
//!   item   = group varint | 1, count varint, first index varint, end in entries varint *
//!                         | 2, command
//!                         | 3, operation u8, key and value, each with its length as varint
//! ```
//!
//! No checksum covers the record's header: its lengths show in where the checksums lie, its
//! `compression` in whether the entries are as long as the items say.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle as _, Permission};

use super::super::StorageError;
use super::super::disk::{Directories, corrupt, io_error, list, parent_of, sync_dir};
use super::file_system::{GuardedFileSystem, LogFileName, Queue};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
pub(super) const FILE_HEADER_BYTES: usize = MAGIC.len() + 16;
pub(super) const RECORD_HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Where in a record the compression stands.
const COMPRESSION_AT: usize = 7;

/// Whether the directory holds any log files.
pub(super) fn has_log_files(disk: &impl Directories, dir: &Path) -> Result<bool, StorageError> {
    Ok(list(disk, dir)?.iter().any(|path| LogFileName::parse(path).is_some()))
}

/// Checks all files, cuts torn tails, and makes the rest durable.
pub(super) fn verify<F: FileSystem + Directories>(
    file_system: &GuardedFileSystem<F>,
    dir: &Path,
) -> Result<(), StorageError> {
    for queue in [Queue::Append, Queue::Rewrite] {
        verify_queue(file_system, dir, queue)?;
    }
    file_system.failure()
}

pub(super) fn log_files(
    disk: &impl Directories,
    dir: &Path,
    queue: Queue,
) -> Result<Vec<u64>, StorageError> {
    let names = list(disk, dir)?.into_iter().filter_map(|path| LogFileName::parse(&path));
    let mut sequences: Vec<u64> =
        names.filter(|name| name.queue == queue).map(|name| name.sequence).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

fn verify_queue<F: FileSystem + Directories>(
    file_system: &GuardedFileSystem<F>,
    dir: &Path,
    queue: Queue,
) -> Result<(), StorageError> {
    let sequences = log_files(file_system, dir, queue)?;
    let (durable_file, durable_length) = file_system.durable(queue);
    let path = |sequence| LogFileName { queue, sequence }.path(dir);
    let missing = |sequence| {
        let reason = "the file is missing, although it was written and is still needed";
        Err(corrupt(&path(sequence), 0, reason))
    };
    if sequences.last().copied().unwrap_or(0) < durable_file {
        return missing(durable_file);
    }
    for pair in sequences.windows(2) {
        if pair[1] != pair[0] + 1 {
            return missing(pair[0] + 1);
        }
    }
    for &sequence in &sequences {
        let file = LogFile {
            queue,
            sequence,
            is_last: Some(&sequence) == sequences.last(),
            durable_length: if sequence == durable_file { durable_length } else { 0 },
        };
        file.verify(file_system, &path(sequence))?;
    }
    Ok(())
}

struct LogFile {
    queue: Queue,
    sequence: u64,
    is_last: bool,
    durable_length: u64,
}

impl LogFile {
    fn verify<F: FileSystem + Directories>(
        &self,
        file_system: &GuardedFileSystem<F>,
        path: &Path,
    ) -> Result<(), StorageError> {
        let handle = Arc::new(
            file_system.open(path, Permission::ReadWrite).map_err(io_error("open", path))?,
        );
        let mut bytes = Vec::new();
        file_system
            .new_reader(handle.clone())
            .and_then(|mut reader| reader.read_to_end(&mut bytes))
            .map_err(io_error("read", path))?;
        let (good, broken) = scan(&bytes, self.sequence);
        if let Some(reason) = broken {
            if !self.is_last || (good as u64) < self.durable_length {
                return Err(corrupt(path, good as u64, reason));
            }
            // raft-engine allocates ahead; a process that was killed leaves that behind.
            let is_blank = bytes[good..].iter().all(|byte| *byte == 0);
            // A purge syncs several records at once, so there order proves nothing.
            let follower = match self.queue {
                Queue::Append if !is_blank => find_record(&bytes, good + 1, self.sequence),
                _ => None,
            };
            if let Some(follower) = follower {
                let reason = format!("{reason}; this is no torn tail: offset {follower} is intact");
                return Err(corrupt(path, good as u64, reason));
            }
            if is_blank {
                tracing::debug!(file = %path.display(), offset = good, "cutting allocated space");
            } else {
                tracing::warn!(
                    file = %path.display(), offset = good, length = bytes.len(), reason,
                    "cutting a torn tail off the log: a write that a crash interrupted"
                );
            }
            if good == 0 {
                drop(handle);
                file_system.delete(path).map_err(io_error("delete", path))?;
                return sync_dir(file_system, parent_of(path));
            }
            handle.truncate(good).map_err(io_error("truncate", path))?;
        } else if (good as u64) < self.durable_length {
            let reason = format!("the file ends here, but was {} bytes long", self.durable_length);
            return Err(corrupt(path, good as u64, reason));
        }
        if self.is_last {
            self.harden(file_system, path, handle, &bytes[..good])?;
        }
        Ok(())
    }

    /// What is beyond the mark may be in the page cache only: the process died before the
    /// sync, or the sync failed and the kernel forgot about it. Writing it again makes the
    /// next sync mean something.
    fn harden<F: FileSystem + Directories>(
        &self,
        file_system: &GuardedFileSystem<F>,
        path: &Path,
        handle: Arc<<GuardedFileSystem<F> as FileSystem>::Handle>,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let rest = &bytes[self.durable_length as usize..];
        if !rest.is_empty() {
            let mut writer =
                file_system.new_writer(handle.clone()).map_err(io_error("open", path))?;
            writer
                .seek(SeekFrom::Start(self.durable_length))
                .and_then(|_| writer.write_all(rest))
                .map_err(io_error("write", path))?;
        }
        handle.sync().map_err(io_error("sync", path))?;
        file_system.failure()
    }
}

/// Length of the good prefix, and what is wrong after it. 0 if not even the header is good.
fn scan(bytes: &[u8], sequence: u64) -> (usize, Option<String>) {
    if let Err(reason) = check_file_header(bytes) {
        return (0, Some(reason));
    }
    let mut offset = FILE_HEADER_BYTES;
    while offset < bytes.len() {
        match check_record(&bytes[offset..], sequence) {
            Ok(length) => offset += length,
            Err(reason) => return (offset, Some(reason)),
        }
    }
    (offset, None)
}

pub(super) fn check_file_header(bytes: &[u8]) -> Result<(), String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("the file header is broken")?;
    let numbers: &[u8; 16] = rest.first_chunk().ok_or("the file header is cut short")?;
    let (version, alignment) = (big_endian(&numbers[..8]), big_endian(&numbers[8..]));
    if (version, alignment) != (2, 0) {
        return Err(format!("unknown file version {version} with alignment {alignment}"));
    }
    Ok(())
}

/// Length of the record at the start of `bytes`, if it is good.
pub(super) fn check_record(bytes: &[u8], sequence: u64) -> Result<usize, String> {
    let (length, footer) = check_record_header(bytes)?;
    let entries = &bytes[RECORD_HEADER_BYTES..footer];
    if !entries.is_empty() && !checksum_fits(entries, 0) {
        return Err("the checksum of a record's entries does not fit".to_owned());
    }
    if !checksum_fits(&bytes[footer..length], sequence as u32) {
        return Err("the checksum of a record does not fit".to_owned());
    }
    let entries = &entries[..entries.len().saturating_sub(CHECKSUM_BYTES)];
    let stored_bytes = match bytes[COMPRESSION_AT] {
        0 => Some(entries.len() as u64),
        // An LZ4 block behind its length.
        _ => entries.first_chunk().map(|length| u64::from(u32::from_le_bytes(*length))),
    };
    let items = &bytes[footer..length - CHECKSUM_BYTES];
    let indexed_bytes = entries_bytes(items).ok_or("the items of a record are broken")?;
    if !entries.is_empty() && stored_bytes != Some(indexed_bytes) {
        return Err("the entries of a record are not as long as its items say".to_owned());
    }
    Ok(length)
}

/// Length of the entries of a record, before compression, by its items.
fn entries_bytes(mut items: &[u8]) -> Option<u64> {
    let items = &mut items;
    let mut end = 0;
    for _ in 0..take_varint(items)? {
        let _group = take_varint(items)?;
        match take(items, 1)?[0] {
            1 => {
                let count = take_varint(items)?;
                if count > 0 {
                    let _first_index = take_varint(items)?;
                }
                for _ in 0..count {
                    end = take_varint(items)?;
                }
            }
            2 => {
                const COMPACT: u8 = 2;
                if take(items, 1)?[0] == COMPACT {
                    let _index = take_varint(items)?;
                }
            }
            3 => {
                const PUT: u8 = 1;
                let is_put = take(items, 1)?[0] == PUT;
                for _ in 0..1 + u32::from(is_put) {
                    let length = take_varint(items)?;
                    take(items, usize::try_from(length).ok()?)?;
                }
            }
            _ => return None,
        }
    }
    items.is_empty().then_some(end)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Length of the record that begins with this header, if it fits into the `rest` of the file.
pub(super) fn record_length(
    header: &[u8; RECORD_HEADER_BYTES],
    rest: u64,
) -> Result<usize, String> {
    record_bounds(header, rest).map(|(length, _)| length)
}

fn check_record_header(bytes: &[u8]) -> Result<(usize, usize), String> {
    let header: &[u8; RECORD_HEADER_BYTES] =
        bytes.first_chunk().ok_or("a record header is cut short")?;
    record_bounds(header, bytes.len() as u64)
}

/// Length of a record, and where its items begin.
fn record_bounds(header: &[u8; RECORD_HEADER_BYTES], rest: u64) -> Result<(usize, usize), String> {
    let (length, footer) = (big_endian(&header[..8]), big_endian(&header[8..]));
    let (length, compression) = (length >> 8, length & 0xff);
    let shortest = (RECORD_HEADER_BYTES + CHECKSUM_BYTES) as u64;
    if compression > 1
        || length <= shortest
        || footer < RECORD_HEADER_BYTES as u64
        || footer > length - CHECKSUM_BYTES as u64
    {
        return Err("a record header is broken".to_owned());
    }
    if length > rest {
        return Err(format!("a record of {length} bytes does not fit the remaining {rest}"));
    }
    Ok((length as usize, footer as usize))
}

/// The first good record that starts at `from` or later.
fn find_record(bytes: &[u8], from: usize, sequence: u64) -> Option<usize> {
    let from = from.max(FILE_HEADER_BYTES);
    (from..bytes.len()).find(|&offset| check_record(&bytes[offset..], sequence).is_ok())
}

fn checksum_fits(block: &[u8], signature: u32) -> bool {
    block.split_last_chunk().is_some_and(|(content, expected)| {
        !content.is_empty() && crc32fast::hash(content) ^ signature == u32::from_le_bytes(*expected)
    })
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
