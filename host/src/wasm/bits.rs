//! A set of small numbers: of pages, or of blocks.

use std::ops::Range;

/// Numbers, one bit each. Holds as many bits as its largest number needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn insert(&mut self, number: usize) {
        self.insert_range(number..number + 1);
    }

    pub(super) fn insert_range(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let words = range.end.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        let (first, last) = (range.start / 64, (range.end - 1) / 64);
        for (word, bits) in self.words.iter_mut().enumerate().take(last + 1).skip(first) {
            let from = if word == first { range.start % 64 } else { 0 };
            let to = if word == last { (range.end - 1) % 64 } else { 63 };
            *bits |= (u64::MAX << from) & (u64::MAX >> (63 - to));
        }
    }

    pub(super) fn insert_all(&mut self, other: &Bits) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, others) in self.words.iter_mut().zip(&other.words) {
            *mine |= others;
        }
    }

    /// Forgets all numbers, but keeps the room for them.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Forgets the numbers from `end` on.
    pub(super) fn truncate(&mut self, end: usize) {
        self.words.truncate(end.div_ceil(64));
        if let Some(last) = self.words.get_mut(end / 64) {
            *last &= (1 << (end % 64)) - 1;
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// All numbers, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.checked_sub(1)?;
                Some(word * 64 + bit)
            })
        })
    }

    /// All numbers as ranges, ascending and not touching each other; no more than `max`, the
    /// last of which then reaches to the last number.
    pub(super) fn ranges(&self, max: usize) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for number in self.iter() {
            let full = ranges.len() == max;
            match ranges.last_mut() {
                Some(last) if last.end == number || full => last.end = number + 1,
                _ => ranges.push(number..number + 1),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_words_come_back_as_they_were_put_in() {
        let mut bits = Bits::default();
        let ranges = [0..1, 2..3, 60..70, 127..128, 129..400, 511..513];
        for range in ranges.iter().rev() {
            bits.insert_range(range.clone());
        }
        bits.insert_range(7..7);
        assert_eq!(bits.ranges(100), ranges);
        assert_eq!(bits.ranges(2), [0..1, 2..513]);
        assert_eq!(bits.count(), ranges.iter().map(|range| range.len() as u64).sum::<u64>());
        assert!(bits.iter().eq(ranges.into_iter().flatten()));
        bits.clear();
        assert_eq!((bits.count(), bits.ranges(9)), (0, Vec::new()));
    }

    #[test]
    fn what_is_cut_off_does_not_come_back() {
        for end in [0, 1, 63, 64, 65, 127, 128, 200, 300] {
            let mut bits = Bits::default();
            bits.insert_range(0..200);
            bits.truncate(end);
            assert!(bits.iter().eq(0..end.min(200)));
            bits.insert(250);
            assert!(bits.iter().eq((0..end.min(200)).chain([250])));
        }
    }

    #[test]
    fn a_union_has_the_numbers_of_both() {
        let (mut one, mut two) = (Bits::default(), Bits::default());
        one.insert(3);
        two.insert_range(3..5);
        two.insert(1000);
        one.insert_all(&two);
        assert_eq!(one.iter().collect::<Vec<_>>(), [3, 4, 1000]);
        two.insert_all(&one);
        assert_eq!(one, two);
    }
}
