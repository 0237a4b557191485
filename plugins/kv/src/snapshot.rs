//! The snapshot format, shared by all versions of the store.
//!
//! ```text
//! magic "RHKV" · version u32 · entries u64 · entries, in the order of their keys
//! entry, version 1: key · value
//! entry, version 2: key · value · expires_at_ms u64 (0: never)
//! key, value: length u32 · UTF-8
//! ```
//!
//! Numbers are little-endian. There is no checksum: the host, which keeps the bytes, has one.

use raft_fsm_sdk::{Reader, Rejection, Writer};

use crate::{Key, Table};

const MAGIC: [u8; 4] = *b"RHKV";

/// What a snapshot begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the format.
    pub version: u32,
    /// How many follow.
    pub entries: u64,
}

impl Header {
    /// Writes it.
    pub fn write(&self, out: &mut Writer) {
        out.bytes(&MAGIC);
        out.u32(self.version);
        out.u64(self.entries);
    }

    /// Reads it.
    pub fn read(input: &mut Reader) -> Result<Header, Rejection> {
        let mut magic = [0; 4];
        input.fill(&mut magic)?;
        if magic != MAGIC {
            return Err(Rejection::from("this is no snapshot of the kv plugin"));
        }
        Ok(Header { version: input.u32()?, entries: input.u64()? })
    }

    /// Refuses formats that did not exist when the caller was written.
    pub fn require_version_up_to(&self, known: u32) -> Result<(), Rejection> {
        if (1..=known).contains(&self.version) {
            return Ok(());
        }
        Err(Rejection::from(format!(
            "the snapshot has format version {}, and this module knows 1 to {known}",
            self.version
        )))
    }
}

/// Writes a whole snapshot of version 1.
pub fn write_v1<'t>(out: &mut Writer, entries: impl ExactSizeIterator<Item = (&'t str, &'t str)>) {
    Header { version: 1, entries: entries.len() as u64 }.write(out);
    for (key, value) in entries {
        out.sized(key.as_bytes());
        out.sized(value.as_bytes());
    }
}

/// Reads all entries up to the end of the snapshot; `stored` reads what follows a key.
pub fn read_table<V>(
    header: &Header,
    input: &mut Reader,
    mut stored: impl FnMut(&mut Reader) -> Result<V, Rejection>,
) -> Result<Table<V>, Rejection> {
    let mut table = Table::new();
    for _ in 0..header.entries {
        let key = Key::from(read_text(input)?);
        if table.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(Rejection::from("the snapshot is damaged: its keys are out of order"));
        }
        let value = stored(input)?;
        table.insert(key, value);
    }
    input.end()?;
    Ok(table)
}

/// Reads one key or value.
pub fn read_text(input: &mut Reader) -> Result<Box<str>, Rejection> {
    let text = String::from_utf8(input.sized()?)
        .map_err(|_| Rejection::from("the snapshot is damaged: a text is not UTF-8"))?;
    Ok(text.into_boxed_str())
}
