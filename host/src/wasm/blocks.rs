//! A copy of a guest's memory in blocks that copies of the copy share until one of them
//! changes.
//!
//! An image in the making holds such a copy while checkpoints go on: they put the blocks that
//! they change beside the shared list, and move them into it when the image is gone. So a
//! copy is made at once, however large the memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::bits::Bits;
use super::tracking::GRAIN_BYTES;
use super::workers::Workers;
use crate::museum::{self, Exhibit};

/// Size of a block: that in which writes are reported, so that one which changes while an image
/// shares it is replaced without copying more than what was written. (Blocks of 16 KiB made
/// checkpoints during a snapshot four times as long.)
pub(super) const BLOCK_BYTES: usize = GRAIN_BYTES;
/// Blocks that are moved into the shared list at a time: a millisecond or so.
const FOLDED_MAX: usize = 8_192;
/// Blocks that one thread fills in at a time.
const BLOCKS_PER_PART: usize = 256;

/// The bytes of one block. In a box of its own, because allocators have a size class for the
/// bytes, but not for the bytes and a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block(Box<[u8; BLOCK_BYTES]>);

impl Block {
    /// The block of these bytes; `None` if all of them are zero.
    pub(super) fn new(bytes: &[u8]) -> Option<Arc<Block>> {
        if is_zero(bytes) {
            return None;
        }
        let bytes: Box<[u8]> = bytes.into();
        Some(Arc::new(Block(bytes.try_into().expect("a block has this length"))))
    }

    pub(super) fn bytes(&self) -> &[u8; BLOCK_BYTES] {
        &self.0
    }
}

/// The bytes of a memory. Its length is a multiple of [`BLOCK_BYTES`], as wasm's pages are.
/// Two that hold equal bytes may differ in which zero blocks are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    /// `None` is all zeros, and so is what is beyond the end.
    shared: Arc<Vec<Option<Arc<Block>>>>,
    /// What has changed since `shared` could not be.
    newer: BTreeMap<usize, Option<Arc<Block>>>,
    count: usize,
}

impl Blocks {
    /// # Panics
    ///
    /// If `len_bytes` is no multiple of [`BLOCK_BYTES`].
    pub(super) fn zeroed(len_bytes: usize) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.grow_to(len_bytes);
        blocks
    }

    /// Zeros are added at the end.
    pub(super) fn grow_to(&mut self, len_bytes: usize) {
        assert!(len_bytes.is_multiple_of(BLOCK_BYTES) && len_bytes >= self.len_bytes());
        self.count = len_bytes / BLOCK_BYTES;
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.count * BLOCK_BYTES
    }

    /// Whether a copy holds on to the blocks, so that one that changes takes memory of its own.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// `None` if it is all zeros; it may be all zeros otherwise, too.
    pub(super) fn get(&self, number: usize) -> Option<&[u8; BLOCK_BYTES]> {
        assert!(number < self.count);
        let block = match self.newer.get(&number) {
            Some(newer) => newer.as_deref(),
            None => self.shared.get(number).and_then(Option::as_deref),
        };
        block.map(Block::bytes)
    }

    /// Copies the bytes from `at` on, which must be inside.
    pub(super) fn copy_to(&self, at: usize, mut bytes: &mut [u8]) {
        let (mut number, mut skipped) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        while !bytes.is_empty() {
            let len = bytes.len().min(BLOCK_BYTES - skipped);
            let (part, rest) = bytes.split_at_mut(len);
            match self.get(number) {
                Some(block) => part.copy_from_slice(&block[skipped..][..len]),
                None => part.fill(0),
            }
            (bytes, number, skipped) = (rest, number + 1, 0);
        }
    }

    pub(super) fn set(&mut self, number: usize, block: Option<Arc<Block>>) {
        *self.slot(number) = block;
    }

    /// Where a block is that may be replaced.
    fn slot(&mut self, number: usize) -> &mut Option<Arc<Block>> {
        assert!(number < self.count);
        match Arc::get_mut(&mut self.shared) {
            Some(own) if !self.newer.contains_key(&number) => {
                if own.len() <= number {
                    own.resize(self.count, None);
                }
                &mut own[number]
            }
            _ => self.newer.entry(number).or_insert(None),
        }
    }

    /// Moves what is beside the shared list into it, if nobody shares it any more: not too
    /// much at a time.
    fn fold(&mut self) {
        let Some(own) = Arc::get_mut(&mut self.shared) else { return };
        own.resize(self.count, None);
        for _ in 0..FOLDED_MAX {
            let Some((number, block)) = self.newer.pop_first() else { return };
            own[number] = block;
        }
    }

    /// Takes over from `memory` what differs among the blocks `written`. Returns how many did,
    /// and adds them to `changed`.
    pub(super) fn follow(&mut self, memory: &[u8], written: &Bits, changed: &mut Bits) -> u64 {
        assert_eq!(memory.len(), self.len_bytes());
        self.fold();
        let mut differed = 0;
        for number in written.iter() {
            let theirs = &memory[number * BLOCK_BYTES..][..BLOCK_BYTES];
            let same = match self.get(number) {
                Some(ours) => ours == theirs,
                None => is_zero(theirs),
            };
            if !same {
                self.replace(number, theirs);
                changed.insert(number);
                differed += 1;
            }
        }
        differed
    }

    /// Makes a block what `bytes` are; others that share it keep what it was.
    fn replace(&mut self, number: usize, bytes: &[u8]) {
        #[cfg(feature = "museum")]
        if museum::is_on(Exhibit::ImageBlocksShared)
            && let Some(Some(block)) = self.shared.get(number)
        {
            write_in_place(block, bytes);
            return;
        }
        let slot = self.slot(number);
        match slot.as_mut().and_then(Arc::get_mut) {
            Some(own) => own.0.copy_from_slice(bytes),
            None => *slot = Block::new(bytes),
        }
    }

    /// Makes the blocks `written` of `memory` what they are here. Returns how many differed.
    pub(super) fn put_back(&self, memory: &mut [u8], written: &Bits) -> u64 {
        assert_eq!(memory.len(), self.len_bytes());
        let mut differed = 0;
        for number in written.iter() {
            let theirs = &mut memory[number * BLOCK_BYTES..][..BLOCK_BYTES];
            // Comparing is cheaper than writing: not all that was written has changed.
            match self.get(number) {
                Some(ours) if ours == theirs => continue,
                Some(ours) => theirs.copy_from_slice(ours),
                None if is_zero(theirs) => continue,
                None => theirs.fill(0),
            }
            differed += 1;
        }
        differed
    }

    /// Writes everything into `memory`, of which all after the first `dirty` bytes reads as
    /// zeros. What is zero there stays untouched, and so remains a hole.
    pub(super) fn fill(&self, memory: &mut [u8], dirty: usize, workers: &Workers) {
        assert_eq!(memory.len(), self.len_bytes());
        let fill_part = |(part, bytes): (usize, &mut [u8])| {
            for (at, theirs) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
                let number = part * BLOCKS_PER_PART + at;
                let is_dirty = number * BLOCK_BYTES < dirty;
                if is_dirty && museum::is_on(Exhibit::ImageStartSkipped) {
                    continue;
                }
                match self.get(number) {
                    Some(ours) if is_dirty || !is_zero(ours) => theirs.copy_from_slice(ours),
                    None if is_dirty => theirs.fill(0),
                    _ => {}
                }
            }
        };
        const PART_BYTES: usize = BLOCKS_PER_PART * BLOCK_BYTES;
        match workers.pool() {
            Some(pool) if memory.len() > PART_BYTES => pool.install(|| {
                memory.par_chunks_mut(PART_BYTES).enumerate().for_each(fill_part);
            }),
            _ => memory.chunks_mut(PART_BYTES).enumerate().for_each(fill_part),
        }
    }
}

/// Writes into a block, whoever else looks at it.
#[cfg(feature = "museum")]
#[expect(unsafe_code, reason = "this is the mistake; nobody makes it without the feature")]
fn write_in_place(block: &Arc<Block>, bytes: &[u8]) {
    // SAFETY: exhibits are on for one thread, on which the simulator runs everything; so no
    // other owner of the block is looking at it now.
    unsafe { (*Arc::as_ptr(block).cast_mut()).0.copy_from_slice(bytes) };
}

/// Whether all bytes are 0: the first is, and each is as the one before.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return true };
    *first == 0 && *rest == bytes[..rest.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(numbers: &[usize]) -> Bits {
        let mut bits = Bits::default();
        numbers.iter().for_each(|number| bits.insert(*number));
        bits
    }

    #[test]
    fn a_copy_keeps_what_the_original_replaces() {
        let mut memory = vec![0; 4 * BLOCK_BYTES];
        let mut blocks = Blocks::zeroed(memory.len());
        memory[BLOCK_BYTES..][..100].fill(1);
        let mut changed = Bits::default();
        assert_eq!(blocks.follow(&memory, &bits(&[0, 1, 2]), &mut changed), 1);
        assert_eq!(changed, bits(&[1]));
        let copy = blocks.clone();
        memory[BLOCK_BYTES + 50..][..100].fill(2);
        memory[0] = 3;
        assert_eq!(blocks.follow(&memory, &bits(&[0, 1]), &mut changed), 2);
        assert_eq!(changed, bits(&[0, 1]));
        assert_eq!(blocks.get(1).unwrap()[49..52], [1, 2, 2]);
        assert_eq!(copy.get(1).unwrap()[49..52], [1, 1, 1]);
        assert!(copy.get(0).is_none());
        // A copy of what is beside the shared list, too; and after both are gone.
        let second = blocks.clone();
        memory[0] = 4;
        assert_eq!(blocks.follow(&memory, &bits(&[0]), &mut changed), 1);
        assert_eq!((second.get(0).unwrap()[0], blocks.get(0).unwrap()[0]), (3, 4));
        assert!(copy.get(0).is_none());
        drop((copy, second));
        memory.resize(5 * BLOCK_BYTES, 5);
        blocks.grow_to(memory.len());
        assert_eq!(blocks.follow(&memory, &bits(&[0, 4]), &mut changed), 1);
        assert!(blocks.newer.is_empty());
        let read = |number| blocks.get(number).map(|block| block[99]);
        assert_eq!([0, 1, 2, 3, 4].map(read), [Some(0), Some(2), None, None, Some(5)]);
    }

    #[test]
    fn putting_back_and_filling_in_restore_all_bytes() {
        let mut memory: Vec<u8> = (0..4 * BLOCK_BYTES).map(|at| (at / 100) as u8).collect();
        memory[2 * BLOCK_BYTES..].fill(0);
        let mut blocks = Blocks::zeroed(memory.len());
        let mut all = Bits::default();
        all.insert_range(0..4);
        blocks.follow(&memory, &all, &mut Bits::default());
        let before = memory.clone();
        memory[77] = 1;
        memory[3 * BLOCK_BYTES + 5] = 1;
        blocks.put_back(&mut memory, &bits(&[0, 1, 3]));
        assert_eq!(memory, before);
        let mut fresh = vec![0; memory.len()];
        fresh[..3 * BLOCK_BYTES].fill(9);
        blocks.fill(&mut fresh, 3 * BLOCK_BYTES, &Workers::new(2));
        assert_eq!(fresh, before);
    }
}
