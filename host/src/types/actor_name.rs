//! How a principal is called.

use std::fmt;
use std::str::FromStr;

/// Longest name of a principal, in bytes.
pub const NAME_MAX_BYTES: usize = 64;

/// The name of a principal: 1 to 64 letters, digits and `.`, `_`, `@`, `-`; or none, which is empty. Cheap to
/// copy: it goes with every command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorName {
    /// Zeros behind the name.
    bytes: [u8; NAME_MAX_BYTES],
    length: u8,
}

impl ActorName {
    /// Nobody's.
    pub const NONE: ActorName = ActorName { bytes: [0; NAME_MAX_BYTES], length: 0 };

    /// The name; empty: none.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        std::str::from_utf8(bytes).expect("only ASCII gets in")
    }

    /// Whether it is nobody's.
    pub fn is_none(&self) -> bool {
        self.length == 0
    }
}

impl Default for ActorName {
    fn default() -> ActorName {
        ActorName::NONE
    }
}

impl fmt::Debug for ActorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for ActorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: it must have 1 to {NAME_MAX_BYTES} letters (a to z), digits, and any of . _ @ -"
)]
pub struct NoName(pub String);

impl FromStr for ActorName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<ActorName, NoName> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
        let is_name = (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_fit);
        if !is_name {
            return Err(NoName(text.chars().take(NAME_MAX_BYTES).collect()));
        }
        let mut bytes = [0; NAME_MAX_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(ActorName { bytes, length: u8::try_from(text.len()).expect("at most 64") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain_and_none_is_empty() {
        let longest = "x".repeat(NAME_MAX_BYTES);
        for name in ["a", "alice@example.org", "n-1_b", &longest] {
            assert_eq!(name.parse::<ActorName>().expect(name).as_str(), name);
        }
        for nonsense in ["", "a b", "ä", "a\n", "a/b", &"x".repeat(NAME_MAX_BYTES + 1)] {
            assert!(nonsense.parse::<ActorName>().is_err(), "{nonsense:?}");
        }
        assert!(ActorName::NONE.is_none() && ActorName::default().as_str().is_empty());
    }
}
