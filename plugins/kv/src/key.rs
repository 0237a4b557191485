//! Keys of the table, which compare quickly.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Deref;

/// A key, in the order of its UTF-8 bytes.
///
/// It has its first eight bytes with it, so that a search in the table mostly looks at the table alone and
/// not at the texts, which lie anywhere in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// The first eight bytes, the first of them the highest; zeros beyond the end. Two keys with different
    /// ones are in their order; with equal ones the texts decide.
    begin: u64,
    text: Box<str>,
}

impl Key {
    /// Makes it the key of another text; without an allocation if that is as long.
    pub fn set(&mut self, text: &str) {
        self.begin = begin(text);
        replace(&mut self.text, text);
    }
}

/// Stores a text in the place of another; without an allocation if it is as long.
pub fn replace(stored: &mut Box<str>, text: &str) {
    if stored.len() != text.len() {
        *stored = text.into();
        return;
    }
    let mut place = std::mem::take(stored).into_string();
    place.clear();
    place.push_str(text);
    *stored = place.into_boxed_str();
}

fn begin(text: &str) -> u64 {
    let bytes = text.as_bytes();
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(first)
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Key) -> Ordering {
        if self.begin != other.begin {
            return self.begin.cmp(&other.begin);
        }
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The same order, so the table may be asked for a `str` as well.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key::from(Box::from(text))
    }
}

impl From<Box<str>> for Key {
    fn from(text: Box<str>) -> Key {
        Key { begin: begin(&text), text }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, replace};

    #[test]
    fn keys_have_the_order_of_their_text() {
        let mut texts = vec![String::new()];
        let long = "same before ".repeat(3);
        for end in [
            "",
            "a",
            "b",
            "ab",
            "ba",
            "é",
            "🦀",
            "\0",
            "\0\0",
            "\0a",
            "abcdefgh",
            "abcdefghi",
            "abcdEfgh",
        ] {
            texts.extend((0..=long.len()).map(|len| format!("{}{end}", &long[..len])));
        }
        let mut reused = Key::default();
        for left in &texts {
            reused.set(left);
            for right in &texts {
                let right_key = Key::from(right.as_str());
                assert_eq!(reused.cmp(&right_key), left.cmp(right), "{left:?} {right:?}");
                assert_eq!(reused == right_key, left == right, "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn a_text_takes_the_place_of_any_other() {
        let mut stored: Box<str> = "".into();
        for text in ["", "a", "b", "ab", "é", "abc", "", "x"] {
            replace(&mut stored, text);
            assert_eq!(&*stored, text);
        }
    }
}
