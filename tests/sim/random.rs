//! Streams of random numbers, all from one seed.
//!
//! Each part of the simulator draws from its own stream, so that leaving out a fault does not
//! change what the others draw: a shrunk run stays close to the one that failed.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// One stream.
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a name and a number within a seed.
    pub fn stream(seed: u64, name: &str, number: u64) -> Random {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&number.to_le_bytes());
        let name = name.as_bytes();
        assert!(name.len() <= 16, "names of streams are short");
        key[16..16 + name.len()].copy_from_slice(name);
        Random(ChaCha8Rng::from_seed(key))
    }

    /// A number of a half-open range, which must not be empty.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    /// A number of a range, both ends included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// As [`Random::between`], but each doubling of the range is as likely as the next: small
    /// numbers come often.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let bits = |number: u64| u64::from(u64::BITS - number.leading_zeros());
        let octave = self.between(bits(low), bits(high));
        let from = if octave == 0 { 0 } else { 1 << (octave - 1) };
        let to = if octave == 0 { 0 } else { u64::MAX >> (u64::from(u64::BITS) - octave) };
        self.between(from.max(low), to.min(high))
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// The generator itself, for those who need it.
    pub fn generator(&mut self) -> &mut ChaCha8Rng {
        &mut self.0
    }
}
