//! The second version of the key-value store: keys may expire on the log's clock.
//!
//! `README.md` is the user's page. It understands every command and query of the first
//! version, answers them in the same words, and reads its snapshots.

mod request;
mod store;
#[cfg(test)]
mod tests;

use kv::{Kv, answer, request::Query, snapshot};
use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Versions, Writer, json};

use crate::request::Command;
pub use crate::store::{Entry, Store};

/// The newest snapshot format that this module reads and writes.
const SNAPSHOT_VERSION: u32 = 2;

/// The replicated store.
#[derive(Default)]
pub struct KvV2 {
    store: Store,
}

impl StateMachine for KvV2 {
    fn apply(&mut self, context: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        let command = Command::parse(command)?;
        let now_ms = context.time_ms();
        let answer = self.run(command, now_ms);
        self.store.sweep(now_ms);
        Ok(answer)
    }

    fn query(&self, context: &Context, query: &[u8]) -> Result<Answer, Rejection> {
        let now_ms = context.time_ms();
        match json::parse::<Query>("the query", query)? {
            Query::Get { key } => Ok(answer::get(self.store.get(&key, now_ms))),
            Query::Range(range) => {
                let entries = range.of(self.store.table());
                Ok(answer::range(entries.filter(|(_, entry)| entry.lives(now_ms)), range.limit))
            }
            Query::Count {} => Ok(answer::count(self.store.count(now_ms))),
        }
    }

    fn snapshot(&self, _: &Context, out: &mut Writer) {
        let table = self.store.table();
        if !self.store.has_deadlines() {
            // The oldest format that holds the data lets the first version take over again.
            return snapshot::write_v1(
                out,
                table.iter().map(|(key, entry)| (&**key, entry.value())),
            );
        }
        snapshot::Header { version: SNAPSHOT_VERSION, entries: table.len() as u64 }.write(out);
        for (key, entry) in table {
            out.sized(key.as_bytes());
            out.sized(entry.value().as_bytes());
            out.u64(entry.expires_at_ms().unwrap_or(0));
        }
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<KvV2, Rejection> {
        let header = snapshot::Header::read(input)?;
        header.require_version_up_to(SNAPSHOT_VERSION)?;
        let table = snapshot::read_table(&header, input, |input| {
            let value = snapshot::read_text(input)?;
            let expires_at_ms = if header.version == 1 { 0 } else { input.u64()? };
            Ok(Entry::new(value, (expires_at_ms > 0).then_some(expires_at_ms)))
        })?;
        Ok(KvV2 { store: Store::from(table) })
    }
}

/// While no key expires it writes what the first version reads, so that the way back is open; and where one does, that
/// version's `restore` says so. The name changes with what no older version can ever read.
impl Versions for KvV2 {
    const STATE_VERSION: &'static str = Kv::STATE_VERSION;
}

impl KvV2 {
    fn run(&mut self, command: Command<'_>, now_ms: u64) -> Answer {
        let store = &mut self.store;
        let deadline = |ttl_ms: u64| now_ms.saturating_add(ttl_ms);
        match command {
            Command::Set { key, value, ttl_ms } => {
                store.put(&key, &value, ttl_ms.map(deadline));
                answer::done()
            }
            Command::Delete { key } => {
                let lived = store.get(&key, now_ms).is_some();
                store.remove(&key);
                answer::deleted(lived)
            }
            Command::Cas { key, expected, value, ttl_ms } => {
                let current = store.get(&key, now_ms).map(Entry::value);
                if current != expected.as_deref() {
                    return answer::mismatch(current);
                }
                store.put(&key, &value, ttl_ms.map(deadline));
                answer::done()
            }
            Command::Expire { key, ttl_ms } => {
                answer_whether(store.set_deadline(&key, Some(deadline(ttl_ms)), now_ms))
            }
            Command::Persist { key } => answer_whether(store.set_deadline(&key, None, now_ms)),
        }
    }
}

fn answer_whether(done: bool) -> Answer {
    if done { answer::done() } else { answer::nothing_done() }
}

raft_fsm_sdk::export!(KvV2, versions);
