//! What a benchmark sends: commands and queries made from a template.

use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A `set` of the kv plugin.
pub(super) const KV_COMMAND: &str = r#"{"op":"set","key":"{key}","value":"{value}"}"#;
/// A `get` of the kv plugin.
pub(super) const KV_QUERY: &str = r#"{"op":"get","key":"{key}"}"#;

/// Digits of a key, after its letter.
const KEY_DIGITS: usize = 8;
/// Values are slices of one random text at random offsets: making them costs a copy.
const POOL_EXTRA_BYTES: usize = 4_096;

/// A text with places for a key and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Key,
    Value,
}

impl Template {
    /// Splits at `{key}` and `{value}`; other braces are text.
    pub(super) fn parse(text: &str) -> Template {
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let places = [("{key}", Piece::Key), ("{value}", Piece::Value)];
            let next = places
                .into_iter()
                .filter_map(|(name, piece)| Some((rest.find(name)?, name, piece)))
                .min_by_key(|(position, ..)| *position);
            let Some((position, name, piece)) = next else { break };
            if position > 0 {
                pieces.push(Piece::Text(rest[..position].to_owned()));
            }
            pieces.push(piece);
            rest = &rest[position + name.len()..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Template { pieces }
    }

    /// Length of each value so that the whole is `size` bytes, as far as that is possible.
    fn value_bytes(&self, size: usize) -> usize {
        let fixed: usize = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.len(),
                Piece::Key => KEY_DIGITS + 1,
                Piece::Value => 0,
            })
            .sum();
        let values = self.pieces.iter().filter(|piece| **piece == Piece::Value).count();
        size.saturating_sub(fixed).checked_div(values).unwrap_or(0)
    }
}

/// Makes commands; cheap to clone, one for each client.
#[derive(Clone)]
pub(super) struct Generator {
    template: Arc<Template>,
    pool: Arc<str>,
    value_bytes: usize,
    capacity: usize,
    keys: u64,
    random: StdRng,
}

impl Generator {
    /// Commands of `size` bytes over `keys` (at least 1) different keys.
    pub(super) fn new(template: Template, size: usize, keys: u64, seed: u64) -> Generator {
        assert!(keys > 0, "checked when the arguments were parsed");
        const LETTERS: &[u8; 64] =
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        let mut random = StdRng::seed_from_u64(seed);
        let value_bytes = template.value_bytes(size);
        let pool: String = (0..value_bytes + POOL_EXTRA_BYTES)
            .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
            .collect();
        let capacity = size + 64;
        let template = Arc::new(template);
        Generator { template, pool: pool.into(), value_bytes, capacity, keys, random }
    }

    /// The same commands in another order.
    pub(super) fn for_client(&self, client: u64) -> Generator {
        let mut clone = self.clone();
        clone.random = StdRng::seed_from_u64(client.wrapping_add(1));
        clone
    }

    /// A command with a random key.
    pub(super) fn next_command(&mut self) -> Bytes {
        let key = self.random.random_range(0..self.keys);
        self.command(key)
    }

    /// A command with this key.
    pub(super) fn command(&mut self, key: u64) -> Bytes {
        let mut command = String::with_capacity(self.capacity);
        for piece in &self.template.pieces {
            match piece {
                Piece::Text(text) => command.push_str(text),
                Piece::Key => {
                    command.push('k');
                    push_padded(&mut command, key);
                }
                Piece::Value => {
                    let start = self.random.random_range(0..POOL_EXTRA_BYTES);
                    command.push_str(&self.pool[start..start + self.value_bytes]);
                }
            }
        }
        command.into()
    }

    /// Whether commands differ by key.
    pub(super) fn has_key(&self) -> bool {
        self.template.pieces.contains(&Piece::Key)
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }
}

fn push_padded(text: &mut String, number: u64) {
    let mut digits = [b'0'; KEY_DIGITS];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text.extend(digits.map(char::from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_command_is_json_of_the_size_asked_for() {
        let mut generator = Generator::new(Template::parse(KV_COMMAND), 256, 1_000, 7);
        for _ in 0..100 {
            let command = generator.next_command();
            assert_eq!(command.len(), 256);
            let value: serde_json::Value = serde_json::from_slice(&command).expect("JSON");
            let key = value["key"].as_str().expect("a text");
            assert!(key < "k00001000" && key.len() == 9, "{key}");
        }
    }

    #[test]
    fn a_template_may_have_any_places_or_none() {
        let mut plain = Generator::new(Template::parse("inc {}"), 256, 1, 0);
        assert_eq!(plain.next_command(), "inc {}");
        assert!(!plain.has_key());
        let mut twice = Generator::new(Template::parse("{value}:{key}:{value}"), 21, 1, 0);
        let command = twice.command(3);
        assert_eq!((command.len(), &command[5..14]), (5 + 11 + 5, &b":k0000000"[..]));
        let mut small = Generator::new(Template::parse(KV_COMMAND), 10, 1, 0);
        assert!(serde_json::from_slice::<serde_json::Value>(&small.command(0)).is_ok());
    }

    #[test]
    fn clients_do_not_send_the_same_keys_in_step() {
        let generator = Generator::new(Template::parse(KV_QUERY), 0, 1_000_000, 0);
        let mut first = generator.for_client(0);
        let mut second = generator.for_client(1);
        assert_ne!(first.next_command(), second.next_command());
    }
}
