//! Snapshots as streams: any size, in pieces.

use alloc::vec;
use alloc::vec::Vec;

use crate::{Host, Rejection};

/// Bytes that cross the boundary at once.
const BUFFER_BYTES: usize = 16 << 10;

/// Where a snapshot goes. Numbers are little-endian.
pub struct Writer<'a> {
    host: &'a Host,
    /// Not yet given to the host; never longer than `BUFFER_BYTES`.
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(host: &'a Host) -> Writer<'a> {
        Writer { host, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush();
        }
        if bytes.len() > BUFFER_BYTES {
            self.host.write(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Appends one byte.
    pub fn u8(&mut self, number: u8) {
        self.bytes(&[number]);
    }

    /// Appends four bytes.
    pub fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Appends a length of four bytes, then the bytes: what [`Reader::sized`] reads.
    ///
    /// # Panics
    ///
    /// If `bytes` is longer than 4 GiB, which no wasm32 guest can hold.
    pub fn sized(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("a wasm32 guest holds less than 4 GiB"));
        self.bytes(bytes);
    }

    pub(crate) fn flush(&mut self) {
        if !self.buffer.is_empty() {
            self.host.write(&self.buffer);
            self.buffer.clear();
        }
    }
}

/// Where a snapshot comes from. What is missing is a [`Rejection`], so that `?` is enough.
pub struct Reader<'a> {
    host: &'a Host,
    buffer: Vec<u8>,
    /// The unread part of `buffer` is `position..filled`.
    position: usize,
    filled: usize,
    /// Bytes that the host still has.
    beyond: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(host: &'a Host, len: usize) -> Reader<'a> {
        Reader { host, buffer: vec![0; BUFFER_BYTES.min(len)], position: 0, filled: 0, beyond: len }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.filled - self.position + self.beyond
    }

    /// Fills `out` completely.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), Rejection> {
        self.need(out.len())?;
        let mut done = 0;
        while done < out.len() {
            done += self.read_some(&mut out[done..])?;
        }
        Ok(())
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Rejection> {
        let mut bytes = [0; 1];
        self.fill(&mut bytes)?;
        Ok(bytes[0])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Rejection> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Rejection> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// What [`Writer::sized`] wrote. A length beyond the end is refused before anything is
    /// allocated.
    pub fn sized(&mut self) -> Result<Vec<u8>, Rejection> {
        let len = self.u32()? as usize;
        self.need(len)?;
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> Result<Vec<u8>, Rejection> {
        let mut bytes = vec![0; self.remaining()];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Refuses a snapshot that goes on.
    pub fn end(&self) -> Result<(), Rejection> {
        match self.remaining() {
            0 => Ok(()),
            more => Err(Rejection::display(format_args!(
                "the snapshot has {more} bytes more than its contents account for"
            ))),
        }
    }

    fn need(&self, len: usize) -> Result<(), Rejection> {
        let remaining = self.remaining();
        if len <= remaining {
            return Ok(());
        }
        Err(Rejection::display(format_args!(
            "the snapshot ends too early: {len} bytes wanted, {remaining} left"
        )))
    }

    /// At least one byte if any remain and `out` is not empty.
    fn read_some(&mut self, out: &mut [u8]) -> Result<usize, Rejection> {
        if self.position == self.filled {
            if out.len() >= self.buffer.len() {
                return self.pull_into(out);
            }
            let mut buffer = core::mem::take(&mut self.buffer);
            self.position = 0;
            self.filled = 0;
            let pulled = self.pull_into(&mut buffer);
            self.buffer = buffer;
            self.filled = pulled?;
        }
        let len = out.len().min(self.filled - self.position);
        out[..len].copy_from_slice(&self.buffer[self.position..self.position + len]);
        self.position += len;
        Ok(len)
    }

    fn pull_into(&mut self, out: &mut [u8]) -> Result<usize, Rejection> {
        let pulled = self.host.read(out);
        if pulled == 0 && self.beyond > 0 {
            return Err(Rejection::from("the snapshot ends before its announced length"));
        }
        self.beyond -= pulled.min(self.beyond);
        Ok(pulled)
    }
}

#[cfg(feature = "std")]
mod io {
    use std::io::{Read, Result, Write};

    use super::{Reader, Writer};

    impl Write for Writer<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.bytes(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<()> {
            Writer::flush(self);
            Ok(())
        }
    }

    impl Read for Reader<'_> {
        fn read(&mut self, out: &mut [u8]) -> Result<usize> {
            if out.is_empty() || self.remaining() == 0 {
                return Ok(0);
            }
            self.read_some(out).map_err(std::io::Error::other)
        }
    }
}
