//! What the store says.
//!
//! JSON is put together by hand: answers are few and small, and constants cost nothing.

use raft_fsm_sdk::Answer;

/// A page of a range ends after this many bytes, so that large values cannot make an answer
/// that the host refuses. The last entry may exceed it.
pub const PAGE_BYTES: usize = 1 << 20;

/// Something stored under a key.
pub trait Stored {
    /// Appends the members that describe it: `"value":"…"` and perhaps more.
    fn members(&self, out: &mut Vec<u8>);
}

impl Stored for Box<str> {
    fn members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"value\":");
        text(out, self);
    }
}

impl<V: Stored> Stored for &V {
    fn members(&self, out: &mut Vec<u8>) {
        (**self).members(out);
    }
}

/// Appends a JSON string.
pub fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always JSON, and a vector takes it");
}

/// The command did what it says.
pub fn done() -> Answer {
    Answer::from(r#"{"ok":true}"#)
}

/// The command had nothing to do it to.
pub fn nothing_done() -> Answer {
    Answer::from(r#"{"ok":false}"#)
}

/// A deletion; `ok` tells whether there was something to delete.
pub fn deleted(deleted: bool) -> Answer {
    if deleted { done() } else { nothing_done() }
}

/// A comparison that failed, with what is there instead.
pub fn mismatch(current: Option<&str>) -> Answer {
    let mut out = br#"{"ok":false,"current":"#.to_vec();
    match current {
        Some(value) => text(&mut out, value),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Answer::from(out)
}

/// What is stored under one key.
pub fn get<V: Stored>(stored: Option<V>) -> Answer {
    let Some(stored) = stored else {
        return Answer::from(r#"{"value":null}"#);
    };
    let mut out = vec![b'{'];
    stored.members(&mut out);
    out.push(b'}');
    Answer::from(out)
}

/// A page of entries, and the key at which the next one starts.
pub fn range<'t, V: Stored>(entries: impl Iterator<Item = (&'t str, V)>, limit: usize) -> Answer {
    let mut out = br#"{"entries":["#.to_vec();
    let mut next = None;
    for (n, (key, stored)) in entries.enumerate() {
        if n == limit || out.len() > PAGE_BYTES {
            next = Some(key);
            break;
        }
        out.extend_from_slice(if n == 0 { b"{\"key\":" } else { b",{\"key\":" });
        text(&mut out, key);
        out.push(b',');
        stored.members(&mut out);
        out.push(b'}');
    }
    out.extend_from_slice(br#"],"next":"#);
    match next {
        Some(key) => text(&mut out, key),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Answer::from(out)
}

/// A number of keys.
pub fn count(count: usize) -> Answer {
    Answer::from(format!(r#"{{"count":{count}}}"#))
}
