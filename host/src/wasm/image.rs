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

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use zstd::bulk::{Compressor, Decompressor};

use super::blocks::{self, Block, Blocks, is_zero};
use super::digest;
use super::workers::Workers;
use crate::fsm::{Image, ImageError};
use crate::types::ModuleHash;

const MAGIC: &[u8; 8] = b"RHGIMAGE";
const VERSION: u32 = 1;
const BLOCK_BYTES: usize = 256 << 10;
const END: u32 = u32::MAX;
const PAGE_BYTES: u64 = 64 << 10;
const COMPRESSION_LEVEL: i32 = 1;
/// Blocks that the workers have in hand at a time, while the next or the last ones are read
/// or written: bounds what an image takes beyond the state itself.
const BATCH_BLOCKS: usize = 32;

/// A global's type and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GlobalValue {
    /// 0 i32, 1 i64, 2 f32, 3 f64, 4 v128, as the guest ABI has them too.
    pub(super) ty: u8,
    pub(super) bits: u128,
}

/// All state of a guest: its tables never change and hold nothing of their own.
/// A clone shares the memory's blocks until one of both changes.
#[derive(Clone, Debug, Default)]
pub(super) struct GuestState {
    pub(super) memory: Blocks,
    pub(super) globals: Vec<GlobalValue>,
}

/// A state on its way out.
pub(super) struct WasmImage {
    pub(super) module: ModuleHash,
    pub(super) state: GuestState,
    pub(super) workers: Arc<Workers>,
}

impl Image for WasmImage {
    fn differing_memory(&self, other: &dyn Image) -> Vec<Range<u64>> {
        let other: &dyn Any = other;
        match other.downcast_ref::<WasmImage>() {
            Some(other) => digest::differing_ranges(&self.state.memory, &other.state.memory),
            None => Vec::new(),
        }
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&head(self.module, &self.state))?;
        let memory = &self.state.memory;
        let mut writer = BlockWriter { out, seen: crc32fast::Hasher::new(), count: 0 };
        let mut packed: Vec<io::Result<Option<Packed>>> = Vec::new();
        let blocks = memory.len_bytes().div_ceil(BLOCK_BYTES);
        for first in (0..blocks).step_by(BATCH_BLOCKS) {
            let batch = first..blocks.min(first + BATCH_BLOCKS);
            let mut next: Vec<io::Result<Option<Packed>>> = Vec::new();
            next.resize_with(batch.len(), || Ok(None));
            let pack = |number: usize| pack(memory, number);
            match self.workers.pool() {
                None => {
                    next = batch.map(pack).collect();
                    writer.write_all(packed)?;
                }
                Some(pool) => pool.in_place_scope(|scope| {
                    // One core is left to the applies that go on meanwhile.
                    let each = batch.len().div_ceil(self.workers.threads() - 1);
                    for (part, slots) in next.chunks_mut(each).enumerate() {
                        let numbers = batch.start + part * each..;
                        scope.spawn(move |_| {
                            for (slot, number) in slots.iter_mut().zip(numbers) {
                                *slot = pack(number);
                            }
                        });
                    }
                    writer.write_all(packed)
                })?,
            }
            packed = next;
        }
        writer.write_all(packed)?;
        writer.finish()
    }
}

fn head(module: ModuleHash, state: &GuestState) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&module.0);
    head.extend_from_slice(&(state.memory.len_bytes() as u64).to_le_bytes());
    head.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    head.extend_from_slice(&(state.globals.len() as u32).to_le_bytes());
    for global in &state.globals {
        head.push(global.ty);
        head.extend_from_slice(&global.bits.to_le_bytes());
    }
    let checksum = crc32fast::hash(&head);
    head.extend_from_slice(&checksum.to_le_bytes());
    head
}

/// A block as it travels.
struct Packed {
    number: u32,
    /// Of the plain bytes.
    checksum: u32,
    compressed: Vec<u8>,
}

struct BlockWriter<'a> {
    out: &'a mut dyn Write,
    /// All blocks as written.
    seen: crc32fast::Hasher,
    count: u32,
}

impl BlockWriter<'_> {
    /// Takes what [`pack`] answered, in order.
    fn write_all(&mut self, packed: Vec<io::Result<Option<Packed>>>) -> io::Result<()> {
        for packed in packed {
            let Some(Packed { number, checksum, compressed }) = packed? else { continue };
            let head = three(number, compressed.len() as u32, checksum);
            self.seen.update(&head);
            self.seen.update(&compressed);
            self.out.write_all(&head)?;
            self.out.write_all(&compressed)?;
            self.count += 1;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        self.out.write_all(&three(END, self.count, self.seen.finalize()))
    }
}

/// What a thread needs to pack and unpack; expensive to make.
struct Packer {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    plain: Vec<u8>,
}

thread_local! {
    static PACKER: RefCell<Option<Packer>> = const { RefCell::new(None) };
}

fn with_packer<R>(work: impl FnOnce(&mut Packer) -> R) -> io::Result<R> {
    PACKER.with_borrow_mut(|packer| {
        if packer.is_none() {
            *packer = Some(Packer {
                compressor: Compressor::new(COMPRESSION_LEVEL)?,
                decompressor: Decompressor::new()?,
                plain: vec![0; BLOCK_BYTES],
            });
        }
        Ok(work(packer.as_mut().expect("just made")))
    })
}

/// `None` if the block is all zeros.
fn pack(memory: &Blocks, number: usize) -> io::Result<Option<Packed>> {
    let parts = parts(memory.len_bytes(), number);
    if parts.clone().all(|part| memory.get(part).is_none_or(|bytes| is_zero(bytes))) {
        return Ok(None);
    }
    with_packer(|packer| {
        let plain = &mut packer.plain[..parts.len() * blocks::BLOCK_BYTES];
        for (part, to) in parts.zip(plain.chunks_mut(blocks::BLOCK_BYTES)) {
            match memory.get(part) {
                Some(bytes) => to.copy_from_slice(bytes),
                None => to.fill(0),
            }
        }
        let compressed = packer.compressor.compress(plain)?;
        let checksum = crc32fast::hash(plain);
        Ok(Some(Packed { number: number as u32, checksum, compressed }))
    })?
}

/// The blocks of memory that a block of the image is made of.
fn parts(memory_bytes: usize, number: usize) -> std::ops::Range<usize> {
    let end = memory_bytes.min((number + 1) * BLOCK_BYTES);
    number * BLOCK_BYTES / blocks::BLOCK_BYTES..end / blocks::BLOCK_BYTES
}

/// Reads an image of `module` whose memory has at most `memory_max_bytes`.
pub(super) fn read_state(
    input: &mut dyn Read,
    module: ModuleHash,
    memory_max_bytes: u64,
    workers: &Workers,
) -> Result<GuestState, ImageError> {
    let (memory_bytes, globals) = read_head(input, module)?;
    if memory_bytes > memory_max_bytes || memory_bytes % PAGE_BYTES != 0 {
        return invalid(format!(
            "its memory has {memory_bytes} bytes; whole pages up to {memory_max_bytes} are allowed"
        ));
    }
    let memory_bytes = usize::try_from(memory_bytes)
        .map_err(|_| ImageError::Invalid("too large for this host".to_owned()))?;
    let mut memory = Blocks::zeroed(memory_bytes);
    let mut reader =
        BlockReader { input, memory_bytes, seen: crc32fast::Hasher::new(), count: 0, next: 0 };
    let mut batch = reader.read_batch()?;
    while !batch.is_empty() {
        let mut unpacked: Vec<Result<Unpacked, ImageError>> = Vec::new();
        unpacked.resize_with(batch.len(), || Ok(Vec::new()));
        let (this, following) = match workers.pool() {
            None => {
                unpacked = batch.iter().map(|packed| unpack(packed, memory_bytes)).collect();
                (batch, reader.read_batch())
            }
            Some(pool) => {
                let following = pool.in_place_scope(|scope| {
                    for (slot, packed) in unpacked.iter_mut().zip(&batch) {
                        scope.spawn(move |_| *slot = unpack(packed, memory_bytes));
                    }
                    reader.read_batch()
                });
                (batch, following)
            }
        };
        for (packed, unpacked) in this.iter().zip(unpacked) {
            for (part, block) in parts(memory_bytes, packed.number as usize).zip(unpacked?) {
                memory.set(part, block);
            }
        }
        batch = following?;
    }
    Ok(GuestState { memory, globals })
}

/// The blocks of memory that a block of an image has become.
type Unpacked = Vec<Option<Arc<Block>>>;

fn unpack(packed: &Packed, memory_bytes: usize) -> Result<Unpacked, ImageError> {
    let number = packed.number;
    let len = parts(memory_bytes, number as usize).len() * blocks::BLOCK_BYTES;
    with_packer(|packer| {
        let plain = &mut packer.plain[..len];
        let size = packer
            .decompressor
            .decompress_to_buffer(&packed.compressed, plain)
            .map_err(|error| ImageError::Invalid(format!("block {number}: {error}")))?;
        if size != plain.len() || crc32fast::hash(plain) != packed.checksum {
            return invalid(format!("block {number} fails its checksum"));
        }
        Ok(plain.chunks(blocks::BLOCK_BYTES).map(Block::new).collect())
    })?
}

struct BlockReader<'a> {
    input: &'a mut dyn Read,
    memory_bytes: usize,
    /// All blocks as read.
    seen: crc32fast::Hasher,
    count: u32,
    /// Numbers below are behind; `END` when all are.
    next: u32,
}

impl BlockReader<'_> {
    /// The next blocks, still compressed; none if there are no more.
    fn read_batch(&mut self) -> Result<Vec<Packed>, ImageError> {
        let mut batch = Vec::new();
        while self.next != END && batch.len() < BATCH_BLOCKS {
            let head: [u8; 12] = read_array(self.input)?;
            let [number, len, checksum] = split_three(&head);
            if number == END {
                if (len, checksum) != (self.count, self.seen.clone().finalize()) {
                    return invalid("blocks are missing or damaged".to_owned());
                }
                self.next = END;
                break;
            }
            if number < self.next || number as usize >= self.memory_bytes.div_ceil(BLOCK_BYTES) {
                return invalid(format!("block {number} is out of place"));
            }
            if len as usize > zstd::zstd_safe::compress_bound(BLOCK_BYTES) {
                return invalid(format!("block {number} has an impossible length of {len}"));
            }
            let mut compressed = vec![0; len as usize];
            self.input.read_exact(&mut compressed)?;
            self.seen.update(&head);
            self.seen.update(&compressed);
            self.count += 1;
            self.next = number + 1;
            batch.push(Packed { number, checksum, compressed });
        }
        Ok(batch)
    }
}

type Head = (u64, Vec<GlobalValue>);

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
    Ok((memory_bytes, globals))
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
