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
#[derive(Clone)]
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

/// How join tokens begin.
const JOIN_PREFIX: &str = "rhj1.";
/// Characters behind that: 64 bytes.
const JOIN_CHARACTERS: usize = 86;

/// What lets a node in: a secret, and the SHA-256 of the CA by which it knows the cluster. It is shown by
/// whoever makes it only.
#[derive(Clone)]
pub struct JoinTicket {
    secret: TokenSecret,
    ca: [u8; 32],
}

impl fmt::Debug for JoinTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTicket(..)")
    }
}

impl JoinTicket {
    /// One that nobody has.
    ///
    /// # Errors
    /// The operating system has no randomness to give.
    pub(super) fn draw(ca: [u8; 32]) -> Result<JoinTicket, String> {
        Ok(JoinTicket { secret: TokenSecret::draw()?, ca })
    }

    /// Reads one; `None`: it is none, to the letter.
    pub fn read(text: &str) -> Option<JoinTicket> {
        let encoded = text.strip_prefix(JOIN_PREFIX)?;
        let encoded = Some(encoded).filter(|rest| rest.len() == JOIN_CHARACTERS)?;
        let mut bytes = [0; 64];
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).ok()?;
        let (secret, ca) = bytes.split_first_chunk::<32>().filter(|_| length == bytes.len())?;
        Some(JoinTicket { secret: TokenSecret(*secret), ca: ca.try_into().ok()? })
    }

    /// For whoever is to have it.
    pub(super) fn text(&self) -> String {
        let bytes = [self.secret.0, self.ca].concat();
        format!("{JOIN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What clusters keep of it.
    pub(super) fn hash(&self) -> SecretHash {
        self.secret.hash()
    }

    /// What proves it: for the cluster, and nobody else.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret.0
    }

    /// SHA-256 of the CA that nodes of the cluster have their certificates from.
    pub fn ca(&self) -> [u8; 32] {
        self.ca
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
    fn a_join_token_is_read_as_it_is_written_and_nothing_else_is_one() {
        let ticket = JoinTicket::draw([0xab; 32]).expect("there is randomness");
        let text = ticket.text();
        assert_eq!(text.len(), JOIN_PREFIX.len() + JOIN_CHARACTERS, "{text}");
        let read = JoinTicket::read(&text).expect("it is one");
        assert_eq!((read.secret(), read.ca()), (ticket.secret(), [0xab; 32]));
        assert_eq!(read.hash(), ticket.hash());
        assert_eq!(format!("{read:?}"), "JoinTicket(..)");
        assert!(hash_of_token(&text).is_none(), "it is no token of a principal");
        let principal = TokenSecret([1; 32]).text();
        let last = if text.ends_with('w') { "x" } else { "w" };
        for nonsense in [
            "",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}="),
            &format!("{text} "),
            &principal,
            &text.replace("rhj1", "rhj2"),
            &format!("{}+{last}", &text[..text.len() - 2]),
        ] {
            assert!(JoinTicket::read(nonsense).is_none(), "{nonsense}");
        }
        let bits_left_over = format!(
            "{}B",
            JoinTicket { secret: TokenSecret([0; 32]), ca: [0; 32] }.text().trim_end_matches('A')
        );
        assert!(JoinTicket::read(&bits_left_over).is_none());
        let zeros = JoinTicket { secret: TokenSecret([0; 32]), ca: [0; 32] }.text();
        assert!(JoinTicket::read(&format!("{}B", &zeros[..zeros.len() - 1])).is_none());
    }

    #[test]
    fn drawn_secrets_differ_and_are_not_shown() {
        let draw = || TokenSecret::draw().expect("there is randomness");
        let (one, other) = (draw(), draw());
        assert_ne!(one.text(), other.text());
        assert_eq!(format!("{one:?}"), "TokenSecret(..)");
    }
}
