//! The digest of a guest's state, kept up to date block by block.
//!
//! Each block that is not all zeros contributes the 128-bit XXH3 of its bytes, seeded with its
//! number; the contributions are added up, so that a changed block is taken out and put in
//! again without looking at the others. SHA-256 over the sum, the size and the globals makes
//! the digest. It depends on the bytes alone: not on how they came about, nor on how this host
//! keeps track of them. It finds accidents; it does not withstand somebody who chooses the
//! contents of memory such that two states collide.

use std::ops::Range;

use rayon::ThreadPool;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::bits::Bits;
use super::blocks::{BLOCK_BYTES, Blocks, is_zero};
use super::image::{GlobalValue, GuestState};
use super::workers::Workers;
use crate::fsm::GuestDigest;
use crate::museum::{self, Exhibit};
use crate::types::StateDigest;

const DOMAIN: &[u8] = b"raft-host guest state 1\0";
/// Most ranges of memory that are reported as changed.
const RANGES_MAX: usize = 1000;
/// Fewer blocks than this are hashed on one thread.
const BLOCKS_WORTH_SHARING: usize = 1024;
/// More blocks than this do not wait for the next digest: a few milliseconds on one thread.
const STALE_BLOCKS_MAX: u64 = 4_096;

/// What of a state has been hashed, and what has changed since.
#[derive(Default)]
pub(super) struct Digester {
    /// What each block contributes, unless it is among `stale`.
    contributions: Vec<u128>,
    /// Of `contributions`, modulo 2^128.
    sum: u128,
    /// Blocks that have changed since they were hashed.
    stale: Bits,
    /// Blocks that have changed since the last digest.
    changed: Bits,
    /// Everything counts as changed since the last digest.
    all_changed: bool,
    /// Somebody wants digests.
    asked: bool,
}

impl Digester {
    /// For a state that was just put in the place of another.
    pub(super) fn of_new(state: &GuestState, workers: &Workers) -> Digester {
        let mut digester = Digester { all_changed: true, ..Digester::default() };
        digester.stale.insert_range(0..state.memory.count());
        digester.catch_up(&state.memory, workers.pool());
        digester
    }

    /// Notes blocks of `memory` that have changed. Where digests are asked for, hashing does not
    /// pile up until the next. It is done here and now: other threads may be packing an image, and
    /// the applies would wait for them.
    pub(super) fn note(&mut self, blocks: &Bits, memory: &Blocks) {
        if museum::is_on(Exhibit::DigestOfLastCheckpoint) {
            self.stale.clear();
        }
        self.stale.insert_all(blocks);
        self.changed.insert_all(blocks);
        if self.asked && self.stale.count() > STALE_BLOCKS_MAX {
            self.catch_up(memory, None);
        }
    }

    /// Digests `state`, of which every change since the last time was noted.
    pub(super) fn digest(&mut self, state: &GuestState, workers: &Workers) -> GuestDigest {
        self.catch_up(&state.memory, workers.pool());
        let changed = match self.all_changed {
            true => std::iter::once(0..state.memory.len_bytes() as u64).collect(),
            false => byte_ranges(&self.changed),
        };
        self.all_changed = false;
        self.asked = true;
        self.changed.clear();
        let digest = finish(state.memory.len_bytes(), self.sum, &state.globals);
        GuestDigest { digest, changed }
    }

    fn catch_up(&mut self, memory: &Blocks, pool: Option<&ThreadPool>) {
        self.contributions.resize(memory.count(), 0);
        let stale: Vec<usize> = self.stale.iter().collect();
        let hash = |number: &usize| (*number, contribution(memory, *number));
        let fresh: Vec<(usize, u128)> = match pool {
            Some(pool) if stale.len() >= BLOCKS_WORTH_SHARING => {
                pool.install(|| stale.par_iter().map(hash).collect())
            }
            _ => stale.iter().map(hash).collect(),
        };
        for (number, contribution) in fresh {
            let old = std::mem::replace(&mut self.contributions[number], contribution);
            self.sum = self.sum.wrapping_sub(old).wrapping_add(contribution);
        }
        self.stale.clear();
    }
}

fn contribution(memory: &Blocks, number: usize) -> u128 {
    match memory.get(number) {
        Some(bytes) if !is_zero(bytes) => xxh3_128_with_seed(bytes, number as u64),
        _ => 0,
    }
}

/// Where the bytes of two memories differ; what only one of them has differs from nothing.
pub(super) fn differing_ranges(one: &Blocks, other: &Blocks) -> Vec<Range<u64>> {
    let mut differ = Bits::default();
    let (small, large) = (one.count().min(other.count()), one.count().max(other.count()));
    for number in 0..small {
        let same = match (one.get(number), other.get(number)) {
            (Some(one), Some(other)) => one == other,
            (Some(only), None) | (None, Some(only)) => is_zero(only),
            (None, None) => true,
        };
        if !same {
            differ.insert(number);
        }
    }
    differ.insert_range(small..large);
    byte_ranges(&differ)
}

fn byte_ranges(blocks: &Bits) -> Vec<Range<u64>> {
    let ranges = blocks.ranges(RANGES_MAX).into_iter();
    ranges
        .map(|range| (range.start * BLOCK_BYTES) as u64..(range.end * BLOCK_BYTES) as u64)
        .collect()
}

fn finish(memory_bytes: usize, sum: u128, globals: &[GlobalValue]) -> StateDigest {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    hasher.update((memory_bytes as u64).to_le_bytes());
    hasher.update(sum.to_le_bytes());
    for global in globals {
        hasher.update([global.ty]);
        hasher.update(global.bits.to_le_bytes());
    }
    StateDigest(hasher.finalize().into())
}

/// Digests `memory` and `globals` without remembering anything.
#[cfg(test)]
pub(super) fn from_scratch(memory: &[u8], globals: &[GlobalValue]) -> StateDigest {
    let blocks = memory.chunks(BLOCK_BYTES).enumerate();
    let sum = blocks
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(number, block)| xxh3_128_with_seed(block, number as u64))
        .fold(0, u128::wrapping_add);
    finish(memory.len(), sum, globals)
}
