//! Differences as they are found: the first ones of each kind, and how many there are.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::kind::Kind;
use super::report::{Count, Difference, OTHERS};
use crate::types::Position;

/// Differences of a kind that are told; the rest is counted.
pub const TOLD_MAX: usize = 16;
/// Longer commands and answers are cut to so many bytes.
pub const INPUT_MAX_BYTES: usize = 256;
/// Classes of a kind that are counted; the rest is counted together.
const CLASSES_MAX: usize = 64;

/// A number for each of [`Kind::ALL`], in their order.
pub type ByKind = [u64; Kind::ALL.len()];

#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<(Kind, String), u64>,
    told: BTreeMap<Kind, Vec<Difference>>,
    total: u64,
}

/// What a command or query got from both.
pub(super) struct Found<'a> {
    pub(super) kind: Kind,
    pub(super) class: &'a str,
    pub(super) position: Option<Position>,
    pub(super) input: &'a Bytes,
    pub(super) old: String,
    pub(super) new: String,
}

impl Tally {
    pub(super) fn add(&mut self, found: Found<'_>) {
        let Found { kind, class, position, input, old, new } = found;
        self.total += 1;
        let known = self.counts.contains_key(&(kind, class.to_owned()));
        let classes = self.counts.keys().filter(|(other, _)| *other == kind).count();
        let class = if known || classes < CLASSES_MAX { class } else { OTHERS };
        *self.counts.entry((kind, class.to_owned())).or_default() += 1;
        let told = self.told.entry(kind).or_default();
        if told.len() < TOLD_MAX {
            let cut = input.len() > INPUT_MAX_BYTES;
            // A copy: the rest of its entry is not kept for it.
            let input = Bytes::copy_from_slice(&input[..input.len().min(INPUT_MAX_BYTES)]);
            let class = class.to_owned();
            told.push(Difference { kind, class, position, input, input_cut: cut, old, new });
        }
    }

    /// One that is of no command.
    pub(super) fn add_general(
        &mut self,
        kind: Kind,
        old: impl Into<String>,
        new: impl Into<String>,
    ) {
        let (old, new) = (old.into(), new.into());
        self.add(Found { kind, class: "", position: None, input: &Bytes::new(), old, new });
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many there are of each kind.
    pub(super) fn by_kind(&self) -> ByKind {
        let mut counts = ByKind::default();
        for ((kind, _), count) in &self.counts {
            counts[*kind as usize] += count;
        }
        counts
    }

    pub(super) fn finish(self) -> (Vec<Count>, Vec<Difference>) {
        let counts = self.counts.into_iter();
        let counts = counts.map(|((kind, class), count)| Count { kind, class, count }).collect();
        (counts, self.told.into_values().flatten().collect())
    }
}

/// Bytes for people: text as it is, anything else in hexadecimal digits; cut.
pub(super) fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(INPUT_MAX_BYTES)];
    let text = match std::str::from_utf8(cut) {
        Ok(text) => Some(text),
        // The cut may go through a character.
        Err(error) if error.error_len().is_none() && cut.len() < bytes.len() => {
            std::str::from_utf8(&cut[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let is_text = |text: &&str| text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    let mut words = match text.filter(is_text) {
        Some(text) => text.replace(|c: char| c.is_control(), " "),
        None => {
            let digits = cut.iter().map(|byte| format!("{byte:02x}"));
            format!("0x{}", digits.collect::<String>())
        }
    };
    if cut.len() < bytes.len() {
        words.push_str(&format!("… ({} bytes)", bytes.len()));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Index;

    #[test]
    fn the_first_ones_are_told_and_all_are_counted() {
        let mut tally = Tally::default();
        let input = Bytes::from(vec![b'x'; INPUT_MAX_BYTES + 1]);
        for number in 0..TOLD_MAX as u64 + 5 {
            let position = Some(Position::first(Index(number)));
            let (old, new) = (String::new(), String::new());
            let (kind, class) = (Kind::Reply, if number % 2 == 0 { "even" } else { "odd" });
            tally.add(Found { kind, class, position, input: &input, old, new });
        }
        let (counts, told) = tally.finish();
        let counts: Vec<_> = counts.iter().map(|count| (&*count.class, count.count)).collect();
        assert_eq!(counts, [("even", 11), ("odd", 10)]);
        assert_eq!(told.len(), TOLD_MAX);
        assert!(told[0].input_cut && told[0].input.len() == INPUT_MAX_BYTES);
    }

    #[test]
    fn a_guest_that_invents_classes_fills_no_memory() {
        let mut tally = Tally::default();
        for number in 0..1_000 {
            let class = &number.to_string();
            let (old, new) = (String::new(), String::new());
            let (kind, position, input) = (Kind::Event, None, &Bytes::new());
            tally.add(Found { kind, class, position, input, old, new });
        }
        let (counts, _) = tally.finish();
        assert_eq!(counts.len(), CLASSES_MAX + 1);
        let others = counts.iter().find(|count| count.class == OTHERS).expect("there is one");
        assert_eq!(others.count, 1_000 - CLASSES_MAX as u64);
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        assert_eq!(shown(b"two\nlines"), "two lines");
        assert_eq!(shown(&[0xff, 0x00]), "0xff00");
        assert_eq!(shown(b"N\x01"), "0x4e01");
        let long = "ä".repeat(200);
        let words = shown(&long.as_bytes()[1..]);
        assert!(words.starts_with("0xa4c3"), "{words}");
        let words = shown(format!("x{long}").as_bytes());
        assert!(words.ends_with("ä… (401 bytes)"), "{words}");
    }
}
