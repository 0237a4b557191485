//! Exact copies of a guest's state, and the format in which they travel.
//!
//! ```text
//! magic "RHGIMAGE" · version u32 · module [32] · memory bytes u64 · block bytes u32
//! · number of globals u32 · globals: (type u8, bits [16])… · CRC-32 of all this u32
//! · blocks that are not all zeros, ascending:
//!       (number u32, compressed length u32, CRC-32 of the plain bytes u32, zstd frame)…
//! · end: (u32::MAX, number of blocks u32, CRC-32 of all blocks as written u32)
//! ```
//!
//! All numbers are little-endian. Reading takes exactly the image's bytes from the reader.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::fsm::{Image, ImageError};
use crate::types::ModuleHash;

const MAGIC: &[u8; 8] = b"RHGIMAGE";
const VERSION: u32 = 1;
const BLOCK_BYTES: usize = 256 << 10;
const END: u32 = u32::MAX;
const PAGE_BYTES: u64 = 64 << 10;
const COMPRESSION_LEVEL: i32 = 1;

/// A global's type and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GlobalValue {
    /// 0 i32, 1 i64, 2 f32, 3 f64, 4 v128.
    pub(super) ty: u8,
    pub(super) bits: u128,
}

/// All state of a guest: its tables never change and hold nothing of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GuestState {
    pub(super) memory: Vec<u8>,
    pub(super) globals: Vec<GlobalValue>,
}

/// A state on its way out.
pub(super) struct WasmImage {
    pub(super) module: ModuleHash,
    pub(super) state: Arc<GuestState>,
}

impl Image for WasmImage {
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let state = &*self.state;
        let mut head = Vec::new();
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&self.module.0);
        head.extend_from_slice(&(state.memory.len() as u64).to_le_bytes());
        head.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        head.extend_from_slice(&(state.globals.len() as u32).to_le_bytes());
        for global in &state.globals {
            head.push(global.ty);
            head.extend_from_slice(&global.bits.to_le_bytes());
        }
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        out.write_all(&head)?;

        let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?;
        let mut written = crc32fast::Hasher::new();
        let mut count = 0u32;
        for (number, block) in state.memory.chunks(BLOCK_BYTES).enumerate() {
            if is_zero(block) {
                continue;
            }
            let compressed = compressor.compress(block)?;
            let head = three(number as u32, compressed.len() as u32, crc32fast::hash(block));
            written.update(&head);
            written.update(&compressed);
            out.write_all(&head)?;
            out.write_all(&compressed)?;
            count += 1;
        }
        out.write_all(&three(END, count, written.finalize()))
    }
}

/// Whether all bytes are 0: the first is, and each is as the one before.
fn is_zero(block: &[u8]) -> bool {
    let Some((first, rest)) = block.split_first() else { return true };
    *first == 0 && *rest == block[..rest.len()]
}

/// Reads an image of `module` whose memory has at most `memory_max_bytes`.
pub(super) fn read_state(
    input: &mut dyn Read,
    module: ModuleHash,
    memory_max_bytes: u64,
) -> Result<GuestState, ImageError> {
    let (memory_bytes, block_bytes, globals) = read_head(input, module)?;
    if memory_bytes > memory_max_bytes || memory_bytes % PAGE_BYTES != 0 {
        return invalid(format!(
            "its memory has {memory_bytes} bytes; whole pages up to {memory_max_bytes} are allowed"
        ));
    }
    let mut memory = vec![
        0;
        usize::try_from(memory_bytes).map_err(|_| ImageError::Invalid(
            "too large for this host".to_owned()
        ))?
    ];
    let mut seen = crc32fast::Hasher::new();
    let mut count = 0u32;
    let mut next_number = 0u32;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    loop {
        let head: [u8; 12] = read_array(input)?;
        let [number, len, checksum] = split_three(&head);
        if number == END {
            if (len, checksum) != (count, seen.finalize()) {
                return invalid("blocks are missing or damaged".to_owned());
            }
            return Ok(GuestState { memory, globals });
        }
        let start = number as usize * block_bytes;
        if number < next_number || start >= memory.len() {
            return invalid(format!("block {number} is out of place"));
        }
        if len as usize > zstd::zstd_safe::compress_bound(block_bytes) {
            return invalid(format!("block {number} has an impossible length of {len}"));
        }
        let mut compressed = vec![0; len as usize];
        input.read_exact(&mut compressed)?;
        let end = memory.len().min(start + block_bytes);
        let block = &mut memory[start..end];
        let size = decompressor
            .decompress_to_buffer(&compressed, block)
            .map_err(|error| ImageError::Invalid(format!("block {number}: {error}")))?;
        if size != block.len() || crc32fast::hash(block) != checksum {
            return invalid(format!("block {number} fails its checksum"));
        }
        seen.update(&head);
        seen.update(&compressed);
        count += 1;
        next_number = number + 1;
    }
}

type Head = (u64, usize, Vec<GlobalValue>);

fn read_head(input: &mut dyn Read, module: ModuleHash) -> Result<Head, ImageError> {
    // More globals than any real module has; keeps a damaged count from reserving memory.
    const GLOBALS_MAX: u32 = 1 << 20;
    let mut checksum = crc32fast::Hasher::new();
    let fixed: [u8; 60] = read_array(input)?;
    checksum.update(&fixed);
    if &fixed[..8] != MAGIC {
        return invalid("it does not start with RHGIMAGE".to_owned());
    }
    let u32_at = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("4 bytes"));
    if u32_at(8) != VERSION {
        return invalid(format!("version {} is unknown (this is {VERSION})", u32_at(8)));
    }
    let globals_count = u32_at(56);
    if globals_count > GLOBALS_MAX {
        return invalid(format!("{globals_count} globals"));
    }
    let mut globals = Vec::new();
    for _ in 0..globals_count {
        let bytes: [u8; 17] = read_array(input)?;
        checksum.update(&bytes);
        let bits = u128::from_le_bytes(bytes[1..].try_into().expect("16 bytes"));
        globals.push(GlobalValue { ty: bytes[0], bits });
    }
    if u32::from_le_bytes(read_array(input)?) != checksum.finalize() {
        return invalid("its head fails its checksum".to_owned());
    }
    // Only now is the head to be believed.
    let found = ModuleHash(fixed[12..44].try_into().expect("32 bytes"));
    if found != module {
        return invalid(format!("it belongs to module {found}, not {module}"));
    }
    let memory_bytes = u64::from_le_bytes(fixed[44..52].try_into().expect("8 bytes"));
    let block_bytes = u32_at(52) as usize;
    if block_bytes != BLOCK_BYTES {
        return invalid(format!("blocks of {block_bytes} bytes"));
    }
    Ok((memory_bytes, block_bytes, globals))
}

fn invalid<T>(what: String) -> Result<T, ImageError> {
    Err(ImageError::Invalid(what))
}

fn read_array<const N: usize>(input: &mut dyn Read) -> Result<[u8; N], ImageError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn three(a: u32, b: u32, c: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&a.to_le_bytes());
    bytes[4..8].copy_from_slice(&b.to_le_bytes());
    bytes[8..].copy_from_slice(&c.to_le_bytes());
    bytes
}

fn split_three(bytes: &[u8; 12]) -> [u32; 3] {
    [0, 4, 8].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")))
}
