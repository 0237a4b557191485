//! One file: what the kernel would show of it, and what is on the medium.
//!
//! ```text
//!   write --> cache --dirty ranges--> sync --> medium
//!   read  <-- cache                             | power loss: the cache is gone, of the
//!                                               v dirty ranges some sectors are there
//! ```

use std::ops::Range;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// What a kernel copies whole or not at all when the process that writes is killed.
pub(super) const PAGE_BYTES: usize = 4096;

/// Content of a file; zeros from the end of `bytes` up to `length`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    length: usize,
}

impl Content {
    fn read(&self, at: usize, into: &mut [u8]) -> usize {
        let taken = into.len().min(self.length.saturating_sub(at));
        let into = &mut into[..taken];
        let stored = self.bytes.get(at..).unwrap_or_default();
        let stored = &stored[..stored.len().min(taken)];
        into[..stored.len()].copy_from_slice(stored);
        into[stored.len()..].fill(0);
        taken
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
        self.length = self.length.max(end);
    }

    fn set_length(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.length = length;
    }

    /// Copies a range, as far as it lies within the other; the length may grow.
    fn copy(&mut self, from: &Content, range: &Range<usize>) {
        let end = range.end.min(from.length);
        if range.start >= end {
            return;
        }
        let stored = end.min(from.bytes.len()).max(range.start);
        if stored > range.start {
            self.write(range.start, &from.bytes[range.start..stored]);
        }
        // What the other does not store is zeros.
        let zeros = self.bytes.len().min(end);
        if zeros > stored {
            self.bytes[stored..zeros].fill(0);
        }
        self.length = self.length.max(end);
    }
}

/// How much of what was not synced is on the medium after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Luck {
    None,
    All,
    /// The first so many sectors, in the order in which they were written.
    Prefix,
    /// Each sector by itself.
    Sectors,
}

impl Luck {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Luck {
        match rng.random_range(0..4) {
            0 => Luck::None,
            1 => Luck::All,
            2 => Luck::Prefix,
            _ => Luck::Sectors,
        }
    }
}

/// One file; see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    cache: Content,
    medium: Content,
    /// Written but not synced, in the order of writing.
    dirty: Vec<Range<usize>>,
    /// Where cache and medium differ and the kernel does not know: it will not write this
    /// again, and may forget the cache at any time.
    untrue: Vec<Range<usize>>,
    /// The file was cut to this length since the last sync.
    cut_to: Option<usize>,
    /// Open handles.
    pub(super) handles: usize,
}

impl SimFile {
    pub(super) fn length(&self) -> usize {
        self.cache.length
    }

    pub(super) fn durable_length(&self) -> usize {
        self.medium.length
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.cut_to.is_some() || self.cache.length != self.medium.length
    }

    pub(super) fn read(&self, at: usize, into: &mut [u8]) -> usize {
        self.cache.read(at, into)
    }

    /// All that a power loss without luck would leave.
    pub(super) fn durable_bytes(&self) -> Vec<u8> {
        let mut bytes = self.medium.bytes.clone();
        bytes.resize(self.medium.length, 0);
        bytes
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.cache.write(at, bytes);
        let range = at..at + bytes.len();
        subtract(&mut self.untrue, &range);
        match self.dirty.last_mut() {
            Some(last) if range.start <= last.end && last.start <= range.end => {
                *last = last.start.min(range.start)..last.end.max(range.end);
            }
            _ => self.dirty.push(range),
        }
    }

    /// A write that the disk acknowledges, now and at the next sync, and forgets.
    pub(super) fn write_and_lose(&mut self, at: usize, bytes: &[u8]) {
        self.cache.write(at, bytes);
        let range = at..at + bytes.len();
        subtract(&mut self.dirty, &range);
        self.untrue.push(range);
    }

    /// Overwrites the medium behind the kernel's back, as far as there is a file.
    pub(super) fn write_by_mistake(&mut self, at: usize, bytes: &[u8]) {
        let room = self.medium.length.saturating_sub(at).min(bytes.len());
        if room > 0 {
            self.medium.write(at, &bytes[..room]);
            self.untrue.push(at..at + room);
        }
    }

    /// Flips a bit of the medium; whoever reads it next sees it.
    pub(super) fn rot(&mut self, at: usize, bit: u8) {
        let mut byte = [0];
        self.medium.read(at, &mut byte);
        self.medium.write(at, &[byte[0] ^ (1 << bit)]);
        if !self.dirty.iter().any(|range| range.contains(&at)) {
            self.cache.copy(&self.medium, &(at..at + 1));
        }
    }

    pub(super) fn allocate(&mut self, length: usize) {
        self.cache.length = self.cache.length.max(length);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        if length < self.cache.length {
            let cut = length..usize::MAX;
            subtract(&mut self.dirty, &cut);
            subtract(&mut self.untrue, &cut);
            self.cut_to = Some(self.cut_to.map_or(length, |before| before.min(length)));
        }
        self.cache.set_length(length);
    }

    pub(super) fn sync(&mut self) {
        if let Some(length) = self.cut_to.take().filter(|length| *length < self.medium.length) {
            self.medium.set_length(length);
        }
        for range in self.dirty.drain(..) {
            self.medium.copy(&self.cache, &range);
        }
        self.medium.set_length(self.cache.length);
    }

    /// A sync that fails: some of it may be on the medium. The kernel takes all of it for
    /// written; no later sync will write it.
    pub(super) fn fail_sync(&mut self, rng: &mut ChaCha8Rng) {
        self.settle(Luck::draw(rng), rng);
        self.untrue.append(&mut self.dirty);
        self.cut_to = None;
    }

    /// What the kernel does in the background: writes out something.
    pub(super) fn write_back(&mut self, rng: &mut ChaCha8Rng) {
        self.settle(Luck::draw(rng), rng);
    }

    /// Memory runs low, or somebody reads past the cache.
    pub(super) fn forget_cache(&mut self, mut is_forgotten: impl FnMut() -> bool) {
        let (forgotten, kept) = self.untrue.drain(..).partition(|_| is_forgotten());
        self.untrue = kept;
        let forgotten: Vec<Range<usize>> = forgotten;
        for mut range in forgotten {
            range.end = range.end.min(self.cache.length);
            if range.start >= range.end {
                continue;
            }
            // Beyond its end the medium reads as zeros.
            let mut bytes = vec![0; range.len()];
            self.medium.read(range.start, &mut bytes);
            self.cache.write(range.start, &bytes);
        }
    }

    /// The cache is gone, and so is what was not synced, but for luck.
    pub(super) fn lose_power(&mut self, luck: Luck, rng: &mut ChaCha8Rng) {
        self.settle(luck, rng);
        self.cache = self.medium.clone();
        self.dirty.clear();
        self.untrue.clear();
        self.cut_to = None;
    }

    /// Brings to the medium what luck allows of what is not synced.
    fn settle(&mut self, luck: Luck, rng: &mut ChaCha8Rng) {
        if !self.is_dirty() {
            return;
        }
        match luck {
            Luck::None => {}
            Luck::All => {
                let dirty = self.dirty.clone();
                let cut_to = self.cut_to;
                self.sync();
                (self.dirty, self.cut_to) = (dirty, cut_to);
            }
            Luck::Prefix => self.settle_prefix(rng),
            Luck::Sectors => self.settle_sectors(rng),
        }
    }

    fn settle_prefix(&mut self, rng: &mut ChaCha8Rng) {
        let total: usize = self.dirty.iter().map(|range| range.len()).sum();
        let mut left = rng.random_range(0..=total);
        if let Some(length) = self.cut_to.filter(|length| *length < self.medium.length) {
            self.medium.set_length(length);
        }
        for range in &self.dirty {
            let end = match left.checked_sub(range.len()) {
                Some(_) => range.end,
                None => (range.start + left) / SECTOR_BYTES * SECTOR_BYTES,
            };
            self.medium.copy(&self.cache, &(range.start..end));
            left = left.saturating_sub(range.len());
        }
    }

    fn settle_sectors(&mut self, rng: &mut ChaCha8Rng) {
        let cut_to = self.cut_to.filter(|length| *length < self.medium.length);
        if let Some(length) = cut_to.filter(|_| rng.random()) {
            self.medium.set_length(length);
        }
        let (old, new) = (self.medium.length, self.cache.length);
        for range in &self.dirty {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
                if rng.random() {
                    self.medium.copy(&self.cache, &(start..end));
                }
                start = end;
            }
        }
        let length = match rng.random_range(0..3) {
            0 => old,
            1 => new,
            _ => rng.random_range(old.min(new)..=old.max(new)),
        };
        self.medium.set_length(length);
    }
}

/// Removes a range from a list of ranges.
fn subtract(ranges: &mut Vec<Range<usize>>, gone: &Range<usize>) {
    if !ranges.iter().any(|range| range.start < gone.end && gone.start < range.end) {
        return;
    }
    let parts = |range: &Range<usize>| {
        let before = range.start..range.end.min(gone.start).max(range.start);
        let after = range.start.max(gone.end).min(range.end)..range.end;
        [before, after].into_iter().filter(|part| !part.is_empty())
    };
    *ranges = ranges.iter().flat_map(parts).collect();
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn content(file: &SimFile) -> Vec<u8> {
        let mut bytes = vec![0xee; file.length()];
        assert_eq!(file.read(0, &mut bytes), file.length());
        bytes
    }

    #[test]
    fn a_sync_makes_exactly_the_cache_durable() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut file, mut model) = (SimFile::default(), Vec::new());
        for _ in 0..2000 {
            match rng.random_range(0..5) {
                0 | 1 => {
                    let at = rng.random_range(0..=3000);
                    let bytes = vec![rng.random(); rng.random_range(0..700)];
                    if !bytes.is_empty() && model.len() < at + bytes.len() {
                        model.resize(at + bytes.len(), 0);
                    }
                    if !bytes.is_empty() {
                        model[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    file.write(at, &bytes);
                }
                2 => {
                    let length = rng.random_range(0..=3000);
                    model.resize(length, 0);
                    file.truncate(length);
                }
                3 => file.write_back(&mut rng),
                _ => {
                    file.sync();
                    assert_eq!(file.durable_bytes(), model);
                }
            }
            assert_eq!(content(&file), model);
        }
    }

    #[test]
    fn without_luck_a_power_loss_leaves_what_was_synced() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut file = SimFile::default();
        file.write(0, b"durable");
        file.sync();
        file.write(2, b"lost");
        file.write(600, b"lost");
        file.lose_power(Luck::None, &mut rng);
        assert_eq!(content(&file), b"durable");
    }

    #[test]
    fn a_sector_survives_whole_or_not_at_all() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut file = SimFile::default();
            file.write(0, &[1; 2048]);
            file.sync();
            file.write(100, &[2; 1000]);
            file.lose_power(Luck::Sectors, &mut rng);
            let bytes = content(&file);
            let survivors: Vec<bool> =
                [100..512, 512..1024, 1024..1100].map(|range| bytes[range.start] == 2).into();
            for (range, is_new) in [100..512, 512..1024, 1024..1100].into_iter().zip(&survivors) {
                assert!(bytes[range].iter().all(|byte| *byte == 1 + u8::from(*is_new)));
            }
            outcomes.insert(survivors);
        }
        assert_eq!(outcomes.len(), 8);
    }

    #[test]
    fn after_a_failed_sync_the_next_one_saves_nothing() {
        let mut is_lost = [false; 2];
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut file = SimFile::default();
            file.write(0, b"old");
            file.sync();
            file.write(0, b"new");
            file.fail_sync(&mut rng);
            assert_eq!(content(&file), b"new", "the cache still has it");
            file.sync();
            file.lose_power(Luck::All, &mut rng);
            is_lost[usize::from(content(&file) == b"old")] = true;
        }
        assert_eq!(is_lost, [true; 2]);
    }

    #[test]
    fn a_lost_write_is_seen_until_the_cache_is_forgotten() {
        let mut file = SimFile::default();
        file.write(0, b"before");
        file.sync();
        file.write_and_lose(6, b"after");
        file.sync();
        assert_eq!(content(&file), b"beforeafter");
        file.forget_cache(|| true);
        assert_eq!(content(&file), b"before\0\0\0\0\0");
    }
}
