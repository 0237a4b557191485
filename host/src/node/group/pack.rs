//! Puts commands that come in one turn of the event loop into one entry.
//!
//! ```text
//!   [a] [b, c] [SetLimits] [d]  ──►  entry [a, b, c] · entry SetLimits · entry [d]
//! ```
//!
//! An entry costs much and a command of it little: a header, a place in the log, a turn of the machine. A
//! command that comes alone goes alone, at once: nobody waits for others.
//!
//! Between two entries the machine answers queries, within one it does not. So an entry holds no more
//! commands than take some milliseconds, going by the fuel of those before.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::node::message::{Commands, Cost};
use crate::node::waiter::Waiter;

/// Most commands of one entry: with more, an entry costs next to nothing of a command.
const COMMANDS_MAX: u64 = 256;
/// As long as nobody knows what a command costs.
const COMMANDS_FIRST: u64 = 16;
/// Most bytes of several commands in one entry, so that peers and disks have the first of them while the
/// last are sent.
const BYTES_MAX: usize = 256 << 10;
/// Most fuel that the commands of one entry are expected to use: some five milliseconds.
const FUEL_MAX: u64 = 5_000_000;

/// An entry that more may be added to.
pub(super) struct Open {
    parts: Vec<Bytes>,
    bytes: usize,
    count: u64,
    waiter: Waiter,
}

impl Open {
    /// The entry, encoded, and who waits for it.
    pub(super) fn close(self, time_ms: u64) -> (Bytes, Waiter) {
        (entry(time_ms, &self.parts, self.bytes), self.waiter)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Packer {
    open: Option<Open>,
    /// Fuel of a command, on average, of the most expensive ones lately.
    fuel: Option<u64>,
}

impl Packer {
    /// Commands were applied.
    pub(super) fn learn(&mut self, cost: Cost) {
        let Some(fuel) = cost.fuel.checked_div(cost.commands) else { return };
        let faded = self.fuel.map_or(0, |known| known - known / 8);
        self.fuel = Some(fuel.max(faded));
    }

    /// The entry that is open, if one is: what comes next goes into another.
    pub(super) fn take(&mut self) -> Option<Open> {
        self.open.take()
    }

    fn commands_max(&self) -> u64 {
        match self.fuel {
            None => COMMANDS_FIRST,
            Some(fuel) => (FUEL_MAX / fuel.max(1)).clamp(1, COMMANDS_MAX),
        }
    }

    /// Whether they may go into the entry that is open.
    pub(super) fn fits(&self, commands: &Commands, waiter: &Waiter) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.bytes + commands.encoded.len() <= BYTES_MAX
                && open.count + commands.count <= self.commands_max()
                && open.waiter.count_pages() == waiter.count_pages()
        })
    }

    pub(super) fn add(&mut self, commands: Commands, waiter: Waiter) {
        let Commands { encoded, count } = commands;
        match &mut self.open {
            Some(open) => {
                open.bytes += encoded.len();
                open.count += count;
                open.parts.push(encoded);
                open.waiter.join(waiter);
            }
            None => {
                let bytes = encoded.len();
                self.open = Some(Open { parts: vec![encoded], bytes, count, waiter });
            }
        }
    }
}

/// The entry that holds the commands of all parts.
fn entry(time_ms: u64, parts: &[Bytes], bytes: usize) -> Bytes {
    // Fields 1 and 2 of `raft_host.storage.v1.Entry`; what is 0 is left out.
    let clock = if time_ms == 0 { 0 } else { key_len(1) + encoded_len_varint(time_ms) };
    let batch = key_len(2) + encoded_len_varint(bytes as u64) + bytes;
    let mut entry = BytesMut::with_capacity(clock + batch);
    if time_ms != 0 {
        encode_key(1, WireType::Varint, &mut entry);
        encode_varint(time_ms, &mut entry);
    }
    encode_key(2, WireType::LengthDelimited, &mut entry);
    encode_varint(bytes as u64, &mut entry);
    parts.iter().for_each(|part| entry.put_slice(part));
    entry.freeze()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use raft_host_proto::stored;
    use raft_host_proto::stored::entry::Body;
    use tokio::sync::mpsc;

    use super::*;
    use crate::node::ReplySink;

    fn batch(texts: &[&str]) -> stored::Batch {
        let command = |text: &&str| stored::Command {
            data: Bytes::copy_from_slice(text.as_bytes()),
            session: None,
            actor: None,
        };
        stored::Batch { commands: texts.iter().map(command).collect() }
    }

    fn commands(texts: &[&str]) -> Commands {
        let encoded = batch(texts).encode_to_vec().into();
        Commands { encoded, count: texts.len() as u64 }
    }

    fn waiter() -> Waiter {
        let (sender, _) = mpsc::unbounded_channel();
        Waiter::of(ReplySink::Tagged(0, sender))
    }

    #[test]
    fn parts_of_a_batch_are_one_batch() {
        for time_ms in [0, 1, u64::MAX] {
            let parts = [&["a"][..], &["", "b"], &["c"]].map(|texts| commands(texts).encoded);
            let bytes = parts.iter().map(Bytes::len).sum();
            let whole = stored::Entry {
                time_ms,
                actor: None,
                body: Some(Body::Batch(batch(&["a", "", "b", "c"]))),
            };
            assert_eq!(entry(time_ms, &parts, bytes), whole.encode_to_vec());
        }
    }

    #[test]
    fn an_entry_holds_as_much_as_takes_a_moment() {
        let mut packer = Packer::default();
        let one = || commands(&["x"]);
        assert!(!packer.fits(&one(), &waiter()), "nothing is open");
        let fill = |packer: &mut Packer| {
            packer.open = None;
            packer.add(one(), waiter());
            while packer.fits(&one(), &waiter()) {
                packer.add(one(), waiter());
            }
            packer.open.as_ref().map_or(0, |open| open.count)
        };
        assert_eq!(fill(&mut packer), COMMANDS_FIRST);
        packer.learn(Cost { commands: 10, fuel: 10_000 });
        assert_eq!(fill(&mut packer), COMMANDS_MAX);
        packer.learn(Cost { commands: 2, fuel: 4_000_000 });
        assert_eq!(fill(&mut packer), 2);
        packer.learn(Cost { commands: 1, fuel: 2 * FUEL_MAX });
        assert_eq!(fill(&mut packer), 1);
        // One cheap command proves nothing yet.
        packer.learn(Cost { commands: 1, fuel: 1 });
        packer.learn(Cost::default());
        assert_eq!(fill(&mut packer), 1);
        (0..200).for_each(|_| packer.learn(Cost { commands: 1, fuel: 1 }));
        assert_eq!(fill(&mut packer), COMMANDS_MAX);
    }

    #[test]
    fn long_commands_go_alone_and_what_is_counted_goes_with_what_is_counted() {
        let mut packer = Packer::default();
        let long = "x".repeat(BYTES_MAX);
        packer.add(commands(&[&long]), waiter());
        assert!(!packer.fits(&commands(&["y"]), &waiter()));
        packer.open = None;
        packer.add(commands(&["x"]), waiter());
        let mut counting = waiter();
        counting.set_count_pages(true);
        assert!(!packer.fits(&commands(&["y"]), &counting));
    }
}
