//! The short way through JSON that is written plainly.
#![expect(unsafe_code, reason = "what was found to be ASCII is not looked at a second time")]

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// Names of members, made once: a constant, so that the compiler makes it.
#[derive(Clone, Copy, Debug)]
pub struct Names<const N: usize> {
    names: [&'static str; N],
    /// What the first eight bytes of each are as a number.
    words: [u64; N],
}

impl<const N: usize> Names<N> {
    /// Of these members.
    pub const fn new(names: [&'static str; N]) -> Names<N> {
        let (mut words, mut member) = ([0; N], 0);
        while member < N {
            words[member] = word_of(names[member].as_bytes());
            member += 1;
        }
        Names { names, words }
    }

    /// The texts of an object that holds texts only, by the names of its members; `None` for all that is
    /// not written plainly, which is no mistake yet: ask [`parse`](crate::json::parse) then.
    ///
    /// Plain is an object without spaces, with at least one member, each of them with one of the names
    /// that comes once, and a text of ASCII characters without escapes. Of such an object
    /// `parse` would make the same, several times slower.
    ///
    /// ```
    /// # use raft_fsm_sdk::json;
    /// const NAMES: json::Names<3> = json::Names::new(["op", "key", "value"]);
    /// let texts = NAMES.plain_texts(br#"{"op":"set","key":"a"}"#);
    /// assert_eq!(texts, Some([Some("set"), Some("a"), None]));
    /// assert_eq!(NAMES.plain_texts(br#"{"op":"set","key":"\n"}"#), None);
    /// assert_eq!(NAMES.plain_texts(br#"{"op":"set","else":"a"}"#), None);
    /// ```
    pub fn plain_texts<'a>(&self, bytes: &'a [u8]) -> Option<[Option<&'a str>; N]> {
        let mut texts = [None; N];
        let mut expected = 0;
        let mut rest = bytes.strip_prefix(b"{")?;
        loop {
            let (name, behind) = plain_text(rest)?;
            let (text, behind) = plain_text(behind.strip_prefix(b":")?)?;
            let member = self.member(name, expected)?;
            if texts[member].replace(text).is_some() {
                return None;
            }
            expected = member + 1;
            match behind {
                [b',', behind @ ..] => rest = behind,
                [b'}'] => return Some(texts),
                _ => return None,
            }
        }
    }

    /// Which member has the name. They mostly come in their order.
    fn member(&self, name: &str, expected: usize) -> Option<usize> {
        let word = word_of(name.as_bytes());
        let is = |member: &usize| {
            self.words[*member] == word
                && self.names[*member].len() == name.len()
                && (name.len() <= 8 || self.names[*member] == name)
        };
        Some(expected).filter(|member| *member < N && is(member)).or_else(|| (0..N).find(is))
    }
}

/// A plain text in quotes, and what comes behind it.
#[inline]
fn plain_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let bytes = bytes.strip_prefix(b"\"")?;
    let (text, behind) = bytes.split_at_checked(special(bytes))?;
    let behind = behind.strip_prefix(b"\"")?;
    // SAFETY: nothing before the first special byte is anything but ASCII.
    Some((unsafe { str::from_utf8_unchecked(text) }, behind))
}

/// Where the first byte is that ends a text or is not plain; the length if there is none.
#[inline]
fn special(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let found = special_of(u64::from_le_bytes(*word));
        if found != 0 {
            return at * size_of_val(word) + (found.trailing_zeros() / 8) as usize;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ' | 0x80..);
    bytes.len() - rest.len() + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// The first eight bytes, the first of them the lowest; zeros beyond the end.
const fn word_of(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk() {
        return u64::from_le_bytes(*word);
    }
    let (mut word, mut at) = (0, bytes.len());
    while at > 0 {
        at -= 1;
        word = word << 8 | bytes[at] as u64;
    }
    word
}

/// Sets the highest bit of special bytes. The lowest that is set is right, and no other needs to be: a
/// subtraction takes from the bytes above only where it has found one.
fn special_of(word: u64) -> u64 {
    // With this bit turned over the quote is below what is not special, as control characters are.
    let low = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    (low | backslash | word) & HIGH
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use serde::Deserialize;

    use super::{Names, special};
    use crate::testing::split_mix;

    #[test]
    fn every_byte_is_told_from_every_other_at_every_place() {
        for byte in 0..=u8::MAX {
            let is_special = byte == b'"' || byte == b'\\' || !(0x20..0x80).contains(&byte);
            for len in 1..20 {
                for at in 0..len {
                    for around in [b' ', b'!', b'#', b'[', b']', 0x7f] {
                        let mut bytes = std::vec![around; len];
                        bytes[at] = byte;
                        let expected = if is_special { at } else { len };
                        let found = special(&bytes);
                        assert_eq!(found, expected, "{byte} at {at} of {len}");
                    }
                }
            }
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parsed {
        op: Option<String>,
        key: Option<String>,
        #[serde(rename = "a longer name")]
        long: Option<String>,
    }

    /// Whatever the short way takes, the long way takes for the same.
    #[test]
    fn what_is_plain_is_what_a_parser_makes_of_it() {
        const NAMES: [&str; 3] = ["op", "key", "a longer name"];
        const PLAIN: Names<3> = Names::new(NAMES);
        const PARTS: [&str; 16] = [
            "{",
            "}",
            ",",
            ":",
            "\"",
            "\"op\"",
            "\"key\"",
            "\"a longer name\"",
            "\"a\"",
            "\"\"",
            " ",
            "\\n",
            "é",
            "\u{1}",
            "[]",
            "\"some longer text, of thirty-one\"",
        ];
        let mut random = 7;
        let mut pick = |of: usize| (split_mix(&mut random) >> 32) as usize % of;
        let mut plain = 0;
        for _ in 0..200_000 {
            let mut text = String::from("{");
            // Mostly members, so that some of it means something.
            for member in 0..1 + pick(3) {
                text.push_str(if member == 0 { "" } else { "," });
                text.push_str(PARTS[5 + pick(4)]);
                text.push(':');
                text.push_str(PARTS[5 + pick(11)]);
            }
            text.push('}');
            if pick(3) == 0 {
                let places: Vec<usize> =
                    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
                text.insert_str(places[pick(places.len())], PARTS[pick(PARTS.len())]);
            }
            let Some(texts) = PLAIN.plain_texts(text.as_bytes()) else { continue };
            plain += 1;
            let Parsed { op, key, long } = serde_json::from_str(&text).expect(&text);
            assert_eq!(texts, [op.as_deref(), key.as_deref(), long.as_deref()], "{text}");
        }
        assert!(plain > 10_000, "{plain}");
    }

    #[test]
    fn what_is_not_plain_is_left_to_others() {
        const NAMES: Names<2> = Names::new(["op", "key"]);
        for text in [
            "",
            "{",
            "{}",
            "[]",
            r#""op""#,
            r#"{"op":"a""#,
            r#"{"op":"a"} "#,
            r#" {"op":"a"}"#,
            r#"{"op":"a",}"#,
            r#"{"op":"a","op":"a"}"#,
            r#"{"else":"a"}"#,
            r#"{"op":null}"#,
            r#"{"op":"a"}}"#,
            r#"{"op":"a";"key":"b"}"#,
            r#"{"op" :"a"}"#,
            r#"{"op":"\u0061"}"#,
            r#"{"op":"é"}"#,
            "{\"op\":\"\t\"}",
            r#"{op:"a"}"#,
        ] {
            assert_eq!(NAMES.plain_texts(text.as_bytes()), None, "{text}");
        }
    }
}
