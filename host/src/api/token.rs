//! What a token looks like: `rh1.` and 32 bytes in base64 for URLs, without padding.
//!
//! Whoever has the text may do what its principal may. So it is made from the operating system's
//! randomness, shown once, and nothing of it is kept but a hash.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use crate::machine::SecretHash;

/// How each begins: the version of the format.
const PREFIX: &str = "rh1.";
/// Characters behind that.
const CHARACTERS: usize = 43;

/// What a token is proved by. It is shown by [`TokenSecret::text`] only.
pub(super) struct TokenSecret([u8; 32]);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

impl TokenSecret {
    /// One that nobody has.
    ///
    /// # Errors
    /// The operating system has no randomness to give.
    pub(super) fn draw() -> Result<TokenSecret, String> {
        let mut secret = [0; 32];
        let drawn = OsRng.try_fill_bytes(&mut secret);
        drawn.map_err(|error| format!("the operating system gives no random bytes: {error}"))?;
        Ok(TokenSecret(secret))
    }

    /// What clusters keep of it.
    pub(super) fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }

    /// For whoever is to have it.
    pub(super) fn text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// What the text of a token proves; `None`: it is none, to the letter.
pub fn hash_of_token(text: &str) -> Option<SecretHash> {
    let encoded = text.strip_prefix(PREFIX).filter(|rest| rest.len() == CHARACTERS)?;
    let mut secret = [0; 32];
    // Bits that are left over must say nothing: another text would mean the same.
    let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut secret).ok()?;
    (length == secret.len()).then(|| SecretHash::of(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_nothing_else_is_one() {
        for secret in [[0; 32], [0xff; 32], std::array::from_fn(|at| at as u8 * 7)] {
            let secret = TokenSecret(secret);
            let text = secret.text();
            assert_eq!(text.len(), PREFIX.len() + CHARACTERS, "{text}");
            assert_eq!(hash_of_token(&text), Some(secret.hash()));
            for nonsense in [
                text.to_uppercase().replace("RH1", "rh2"),
                text[1..].to_owned(),
                format!("{text}="),
                format!(" {text}"),
                text[..text.len() - 1].to_owned(),
                text.replacen("rh1.", "rh1.+", 1)[..text.len()].to_owned(),
            ] {
                assert_eq!(hash_of_token(&nonsense), None, "{nonsense}");
            }
        }
        // 43 characters hold two bits more than 32 bytes.
        let text = TokenSecret([0; 32]).text();
        assert!(text.ends_with("AA"));
        assert_eq!(hash_of_token(&format!("{}B", &text[..text.len() - 1])), None);
    }

    #[test]
    fn drawn_secrets_differ_and_are_not_shown() {
        let draw = || TokenSecret::draw().expect("there is randomness");
        let (one, other) = (draw(), draw());
        assert_ne!(one.text(), other.text());
        assert_eq!(format!("{one:?}"), "TokenSecret(..)");
    }
}
