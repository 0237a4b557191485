//! Portable snapshots, which may be as long as a state: they are written and read in parts, so that nobody needs
//! room for one in a single piece, and what has been read is gone.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

use super::{HostFailure, pause};

/// Most bytes of a part.
const PART_BYTES: usize = 1 << 20;
/// What is kept of the beginning of what is only counted: a guest that rejects has written its reason.
pub const REASON_MAX_BYTES: usize = 1024;
/// Bytes that a [`Difference`] shows.
const SHOWN_BYTES: usize = 16;

/// Bytes in parts. A copy shares them. Whoever reads takes them away, and frees what nobody shares.
#[derive(Clone, Debug, Default)]
pub struct Pile {
    /// None is empty.
    parts: VecDeque<Bytes>,
    bytes: u64,
}

impl Pile {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len() as u64;
            self.parts.push_back(part);
        }
    }

    /// The beginning of the bytes, as far as they are in one piece; empty only if there are none.
    fn front(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    /// Drops so many bytes of [`Pile::front`].
    fn advance(&mut self, bytes: usize) {
        let Some(front) = self.parts.front_mut() else { return };
        front.advance(bytes);
        if front.is_empty() {
            self.parts.pop_front();
        }
        self.bytes -= bytes as u64;
    }

    /// Takes the first bytes out, as many as there are and fit.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        pause::here();
        let mut taken = 0;
        while taken < into.len() && !self.is_empty() {
            let front = self.front();
            let bytes = front.len().min(into.len() - taken);
            into[taken..][..bytes].copy_from_slice(&front[..bytes]);
            self.advance(bytes);
            taken += bytes;
        }
        taken
    }

    /// The parts, in order.
    pub fn into_parts(self) -> impl Iterator<Item = Bytes> {
        self.parts.into_iter()
    }

    /// All in one piece.
    pub fn into_vec(mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0));
        while !self.is_empty() {
            let front = self.front();
            bytes.extend_from_slice(front);
            let taken = front.len();
            self.advance(taken);
        }
        bytes
    }
}

impl From<Bytes> for Pile {
    fn from(bytes: Bytes) -> Pile {
        let mut pile = Pile::default();
        pile.push(bytes);
        pile
    }
}

/// What is kept of a portable snapshot while a guest writes it.
#[derive(Debug, Default)]
pub struct Written {
    bytes: u64,
    /// The first [`REASON_MAX_BYTES`].
    head: Vec<u8>,
    keep: Keep,
}

#[derive(Debug, Default)]
enum Keep {
    #[default]
    Length,
    All {
        pile: Pile,
        /// Less than a part.
        last: Vec<u8>,
    },
    Like {
        /// What is still to come, if nothing differs.
        expected: Pile,
        difference: Option<Difference>,
    },
}

/// Where what was written begins to be something else than was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// So many bytes are equal.
    pub at: u64,
    /// Some bytes that were expected from there on; none: the end.
    pub expected: Vec<u8>,
    /// And some that were written.
    pub found: Vec<u8>,
}

impl Written {
    /// Only how much it is.
    pub fn counted() -> Written {
        Written::default()
    }

    /// All of it.
    pub fn kept() -> Written {
        let keep = Keep::All { pile: Pile::default(), last: Vec::new() };
        Written { keep, ..Written::default() }
    }

    /// Whether it is this.
    pub fn compared_with(expected: Pile) -> Written {
        Written { keep: Keep::Like { expected, difference: None }, ..Written::default() }
    }

    /// How many bytes were written.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The first bytes, [`REASON_MAX_BYTES`] at most.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Takes what is written next.
    ///
    /// # Errors
    ///
    /// There is no memory to keep it in.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), HostFailure> {
        pause::here();
        let room = REASON_MAX_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        let at = self.bytes;
        self.bytes += bytes.len() as u64;
        match &mut self.keep {
            Keep::Length => Ok(()),
            Keep::All { pile, last } => append(pile, last, bytes),
            Keep::Like { expected, difference: difference @ None } => {
                *difference = first_difference(at, bytes, expected);
                Ok(())
            }
            Keep::Like { difference: Some(difference), .. } => {
                let room = SHOWN_BYTES.saturating_sub(difference.found.len()).min(bytes.len());
                difference.found.extend_from_slice(&bytes[..room]);
                Ok(())
            }
        }
    }

    /// All that was written, if it was to be kept.
    pub fn into_pile(self) -> Pile {
        let Keep::All { mut pile, mut last } = self.keep else { return Pile::default() };
        last.shrink_to_fit();
        pile.push(last.into());
        pile
    }

    /// Where it differs from what it was to be compared with, if it does.
    pub fn into_difference(self) -> Option<Difference> {
        let Keep::Like { mut expected, difference } = self.keep else { return None };
        if difference.is_some() || expected.is_empty() {
            return difference;
        }
        let expected = some_of(&mut expected);
        Some(Difference { at: self.bytes, expected, found: Vec::new() })
    }
}

/// Adds bytes to the last part, and completes parts.
fn append(pile: &mut Pile, last: &mut Vec<u8>, mut bytes: &[u8]) -> Result<(), HostFailure> {
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at((PART_BYTES - last.len()).min(bytes.len()));
        if last.capacity() - last.len() < now.len() {
            let wanted = (2 * last.capacity()).clamp(last.len() + now.len(), PART_BYTES);
            last.try_reserve_exact(wanted - last.len()).map_err(|_| {
                HostFailure(format!("no memory for {wanted} more bytes of a portable snapshot"))
            })?;
        }
        last.extend_from_slice(now);
        if last.len() == PART_BYTES {
            pile.push(std::mem::take(last).into());
        }
        bytes = later;
    }
    Ok(())
}

/// Takes what equals `bytes` out of `expected`; or tells where that ends.
fn first_difference(mut at: u64, mut bytes: &[u8], expected: &mut Pile) -> Option<Difference> {
    while !bytes.is_empty() {
        let front = expected.front();
        let both = front.len().min(bytes.len());
        let same = match front[..both] == bytes[..both] {
            true => both,
            false => front.iter().zip(bytes).take_while(|(one, other)| one == other).count(),
        };
        let is_end = front.is_empty();
        expected.advance(same);
        (at, bytes) = (at + same as u64, &bytes[same..]);
        if same < both || is_end {
            let found = bytes[..bytes.len().min(SHOWN_BYTES)].to_vec();
            return Some(Difference { at, expected: some_of(expected), found });
        }
    }
    None
}

fn some_of(pile: &mut Pile) -> Vec<u8> {
    let mut bytes = vec![0; SHOWN_BYTES];
    let taken = pile.take(&mut bytes);
    bytes.truncate(taken);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes, no two neighbouring parts alike.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8 ^ (at / PART_BYTES) as u8).collect()
    }

    fn written(mut written: Written, bytes: &[u8], at_a_time: usize) -> Written {
        for part in bytes.chunks(at_a_time) {
            written.take(part).unwrap();
        }
        assert_eq!(written.len(), bytes.len() as u64);
        assert_eq!(written.head(), &bytes[..bytes.len().min(REASON_MAX_BYTES)]);
        written
    }

    #[test]
    fn what_is_written_in_any_parts_is_read_in_any_parts() {
        for count in [0, 1, 1000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 17] {
            let bytes = bytes(count);
            for at_a_time in [7_777, PART_BYTES, 5 * PART_BYTES] {
                let pile = written(Written::kept(), &bytes, at_a_time).into_pile();
                assert_eq!((pile.len(), pile.is_empty()), (count as u64, count == 0));
                assert_eq!(pile.clone().into_vec(), bytes);
                assert_eq!(pile.clone().into_parts().collect::<Vec<_>>().concat(), bytes);
                let (mut reader, mut read, mut buffer) = (pile, Vec::new(), vec![0; 12_345]);
                loop {
                    let taken = reader.take(&mut buffer);
                    if taken == 0 {
                        break;
                    }
                    read.extend_from_slice(&buffer[..taken]);
                    assert_eq!(reader.len(), (count - read.len()) as u64);
                }
                assert_eq!(read, bytes);
            }
        }
    }

    #[test]
    fn what_has_been_read_is_freed_unless_a_copy_has_it() {
        let part = Bytes::from(vec![1; 100]);
        let mut pile = Pile::from(part.clone());
        assert!(!part.is_unique());
        assert_eq!(pile.take(&mut [0; 100]), 100);
        assert!(part.is_unique(), "nothing but this holds it");
    }

    #[test]
    fn a_small_snapshot_takes_little_room() {
        let pile = written(Written::kept(), &[1; 100], 10).into_pile();
        let [part] = &pile.into_parts().collect::<Vec<_>>()[..] else { panic!("one part") };
        let vec = Vec::from(part.clone());
        assert!(vec.capacity() <= 128, "{}", vec.capacity());
    }

    #[test]
    fn what_is_only_counted_keeps_the_reason() {
        let written = written(Written::counted(), &bytes(5_000), 300);
        assert!(written.into_pile().is_empty());
    }

    #[test]
    fn a_difference_is_found_wherever_parts_begin_and_end() {
        let whole = bytes(2 * PART_BYTES + 100);
        let expected = || written(Written::kept(), &whole, 4_000).into_pile();
        let compare = |found: &[u8], at_a_time| {
            written(Written::compared_with(expected()), found, at_a_time).into_difference()
        };
        for at_a_time in [1_000, PART_BYTES, usize::MAX] {
            assert_eq!(compare(&whole, at_a_time), None);
            for at in [0, 999, 1_000, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 99] {
                let mut other = whole.clone();
                other[at] ^= 0xff;
                let until = whole.len().min(at + SHOWN_BYTES);
                let difference = Difference {
                    at: at as u64,
                    expected: whole[at..until].to_vec(),
                    found: other[at..until].to_vec(),
                };
                assert_eq!(compare(&other, at_a_time), Some(difference));

                let found = compare(&whole[..at], at_a_time).expect("it is shorter");
                assert_eq!((found.at, found.found), (at as u64, Vec::new()));
                assert_eq!(found.expected, whole[at..until]);
            }
            let longer = [&whole[..], b"more"].concat();
            let found = compare(&longer, at_a_time).expect("it is longer");
            let more =
                Difference { at: whole.len() as u64, expected: vec![], found: b"more".into() };
            assert_eq!(found, more);
        }
    }
}
