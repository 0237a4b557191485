//! What the invariants take their notes with.
//!
//! A run shows tens of thousands of facts and there are very many runs, so notes are looked up
//! by hash with a quick hash function, and long data is noted by its fingerprint. Nobody picks
//! the data to collide.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use raft_host::types::{Index, LogPosition, NodeId, Term};

/// A map with the quick hash.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Folded>>;
/// A set with the quick hash.
pub(super) type Set<K> = HashSet<K, BuildHasherDefault<Folded>>;

/// 64 bits of some data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// The fingerprint of several pieces of data; where one ends and the next begins counts.
pub(super) fn fingerprint(pieces: &[&[u8]]) -> Fingerprint {
    let mut hash = Folded::default();
    for piece in pieces {
        hash.write_usize(piece.len());
        hash.write(piece);
    }
    Fingerprint(hash.finish())
}

/// Folded multiplication, eight bytes at a time.
#[derive(Clone, Copy, Default)]
pub(super) struct Folded(u64);

impl Folded {
    fn fold(&mut self, word: u64) {
        let mixed = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ word;
        let product = u128::from(mixed) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A position for people.
pub(super) fn at(position: LogPosition) -> String {
    format!("index {} of term {}", position.index, position.term)
}

/// A vote for people.
pub(super) fn vote(vote: Option<NodeId>) -> String {
    vote.map_or_else(|| "nobody".to_owned(), |node| format!("node {node}"))
}

/// The index before.
pub(super) fn before(index: Index) -> Index {
    Index(index.0.saturating_sub(1))
}

/// The terms of a log, without its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// What the log starts after.
    pub(super) start: LogPosition,
    /// Of the entries after `start`.
    terms: Vec<Term>,
}

impl Terms {
    /// An empty log.
    pub(super) fn after(start: LogPosition) -> Terms {
        Terms { start, terms: Vec::new() }
    }

    /// Where the log ends.
    pub(super) fn last(&self) -> LogPosition {
        match self.terms.last() {
            Some(term) => LogPosition {
                index: Index(self.start.index.0 + self.terms.len() as u64),
                term: *term,
            },
            None => self.start,
        }
    }

    /// The term at an index from the start on.
    pub(super) fn get(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        let offset = index.0.checked_sub(self.start.index.0 + 1)?;
        self.terms.get(usize::try_from(offset).ok()?).copied()
    }

    /// Replaces what is stored from `first` on.
    ///
    /// # Errors
    /// When that would leave a gap, or the start lies behind it.
    pub(super) fn replace(
        &mut self,
        first: Index,
        terms: impl Iterator<Item = Term>,
    ) -> Result<(), String> {
        let last = self.last().index;
        let length = first.0.checked_sub(self.start.index.0 + 1).map(usize::try_from);
        match length {
            Some(Ok(length)) if length <= self.terms.len() => {
                self.terms.truncate(length);
                self.terms.extend(terms);
                Ok(())
            }
            _ => Err(format!(
                "entries from index {first} on do not fit a log from after index {} to index {last}",
                self.start.index
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_data_lengths_and_borders_apart() {
        let all = [
            fingerprint(&[]),
            fingerprint(&[b""]),
            fingerprint(&[b"\0"]),
            fingerprint(&[b"\0\0"]),
            fingerprint(&[b"ab", b"c"]),
            fingerprint(&[b"a", b"bc"]),
            fingerprint(&[b"abcdefgh", b"i"]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(at));
        }
    }

    #[test]
    fn replaced_terms_start_at_the_first_new_one_and_leave_no_gap() {
        let mut log = Terms::after(LogPosition { index: Index(4), term: Term(1) });
        log.replace(Index(5), [Term(1), Term(1), Term(2)].into_iter()).expect("fits");
        log.replace(Index(6), [Term(3)].into_iter()).expect("fits");
        assert_eq!(log.last(), LogPosition { index: Index(6), term: Term(3) });
        assert_eq!(log.get(Index(4)), Some(Term(1)));
        assert_eq!(log.get(Index(3)), None);
        assert!(log.replace(Index(8), [Term(3)].into_iter()).is_err());
        assert!(log.replace(Index(4), [Term(3)].into_iter()).is_err());
    }
}
