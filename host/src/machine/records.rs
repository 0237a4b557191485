//! How a snapshot's bytes are framed: small checksummed records.
//!
//! ```text
//!   record   length u32 · CRC-32 of length and payload u32 · payload      (little-endian)
//!   stream   records of at most 1 MiB … · one empty record
//! ```
//!
//! A length that is read is checked against a bound first, and memory grows with the bytes that
//! are really there, not with what a length says.

use std::io::{self, Read, Write};

use prost::Message;

use crate::fsm::pause;

/// Payload of a stream's records; the last one before the empty one may be shorter.
const STREAM_RECORD_BYTES: usize = 1 << 20;

pub(super) fn write_record(out: &mut dyn Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .map_err(|_| io::Error::other("a snapshot record of more than 4 GiB"))?
        .to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&checksum(length, payload).to_le_bytes())?;
    out.write_all(payload)
}

pub(super) fn write_message(out: &mut dyn Write, message: &impl Message) -> io::Result<()> {
    write_record(out, &message.encode_to_vec())
}

/// Reads a record of at most `max` bytes.
pub(super) fn read_record(input: &mut dyn Read, max: usize) -> io::Result<Vec<u8>> {
    let (mut length, mut crc) = ([0; 4], [0; 4]);
    input.read_exact(&mut length)?;
    input.read_exact(&mut crc)?;
    let count = u32::from_le_bytes(length);
    if usize::try_from(count).map_or(true, |count| count > max) {
        return Err(invalid(format!("a record of {count} bytes where at most {max} are allowed")));
    }
    let mut payload = Vec::new();
    input.take(u64::from(count)).read_to_end(&mut payload)?;
    if payload.len() as u64 != u64::from(count) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if checksum(length, &payload) != u32::from_le_bytes(crc) {
        return Err(invalid("a record does not match its checksum".to_owned()));
    }
    Ok(payload)
}

pub(super) fn read_message<M: Message + Default>(
    input: &mut dyn Read,
    max: usize,
) -> io::Result<M> {
    M::decode(read_record(input, max)?.as_slice())
        .map_err(|error| invalid(format!("a record that cannot be read: {error}")))
}

/// Writes bytes as a stream.
pub(super) fn write_blob(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(STREAM_RECORD_BYTES) {
        write_record(out, part)?;
    }
    write_record(out, &[])
}

/// Reads a stream that must hold exactly `size` bytes; the caller has bounded `size`.
pub(super) fn read_blob(input: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut stream = StreamReader::new(input);
    // One more than expected, so that a stream which is too long is noticed.
    (&mut stream).take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(invalid(format!("expected {size} bytes of a module, found another number")));
    }
    Ok(bytes)
}

/// Writes a stream of unknown length; `finish` ends it.
pub(super) struct StreamWriter<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl<'a> StreamWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> StreamWriter<'a> {
        StreamWriter { out, buffer: Vec::with_capacity(STREAM_RECORD_BYTES) }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_buffer()?;
        write_record(self.out, &[])
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            write_record(self.out, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Write for StreamWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len().min(STREAM_RECORD_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..count]);
        if self.buffer.len() == STREAM_RECORD_BYTES {
            self.write_buffer()?;
        }
        Ok(count)
    }

    /// Does nothing: records do not depend on when the writer flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a stream up to its end, never beyond.
pub(super) struct StreamReader<'a> {
    input: &'a mut dyn Read,
    record: Vec<u8>,
    /// Bytes of `record` that were handed out.
    taken: usize,
    ended: bool,
}

impl<'a> StreamReader<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> StreamReader<'a> {
        StreamReader { input, record: Vec::new(), taken: 0, ended: false }
    }

    /// Checks that nothing of the stream was left unread.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(invalid("the image ends before its stream does".to_owned())),
        }
    }
}

impl Read for StreamReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.taken == self.record.len() && !self.ended {
            pause::here();
            self.record = read_record(self.input, STREAM_RECORD_BYTES)?;
            self.taken = 0;
            self.ended = self.record.is_empty();
        }
        let rest = &self.record[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

pub(super) fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_length_is_refused_before_anything_is_allocated() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, b"abc").unwrap();
        assert_eq!(read_record(&mut bytes.as_slice(), 3).unwrap(), b"abc");
        assert!(read_record(&mut bytes.as_slice(), 2).is_err());
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let refusal = read_record(&mut bytes.as_slice(), 1 << 20).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut good = Vec::new();
        write_record(&mut good, b"abc").unwrap();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(read_record(&mut bad.as_slice(), 1024).is_err(), "bit {at}");
        }
        for end in 0..good.len() {
            assert!(read_record(&mut &good[..end], 1024).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_stream_of_any_length_survives_and_stops_at_its_end() {
        for length in [0, 1, STREAM_RECORD_BYTES, STREAM_RECORD_BYTES + 1] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut file = Vec::new();
            let mut writer = StreamWriter::new(&mut file);
            for part in bytes.chunks(70_001) {
                writer.write_all(part).unwrap();
            }
            writer.finish().unwrap();
            let mut blob = Vec::new();
            write_blob(&mut blob, &bytes).unwrap();
            assert_eq!(file, blob);
            file.extend_from_slice(b"rest");

            let mut input = file.as_slice();
            let mut stream = StreamReader::new(&mut input);
            let mut read = Vec::new();
            stream.read_to_end(&mut read).unwrap();
            stream.finish().unwrap();
            assert_eq!(read, bytes);
            assert_eq!(input, b"rest");
            assert!(read_blob(&mut file.as_slice(), length as u64 + 1).is_err());
            assert!(length == 0 || read_blob(&mut file.as_slice(), length as u64 - 1).is_err());
        }
    }

    #[test]
    fn a_stream_that_is_not_read_to_its_end_is_an_error() {
        let mut blob = Vec::new();
        write_blob(&mut blob, b"ab").unwrap();
        let mut input = blob.as_slice();
        let mut stream = StreamReader::new(&mut input);
        stream.read_exact(&mut [0]).unwrap();
        assert!(stream.finish().is_err());
    }
}
