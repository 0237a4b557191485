//! The table and its deadlines.

use std::collections::BTreeSet;

use kv::{Key, Table, answer::Stored};

/// Most keys that one command removes because they have expired: a bound on its fuel.
const SWEEP_MAX: usize = 32;

/// What is stored under a key.
pub struct Entry {
    value: Box<str>,
    /// From this time of the log's clock on the key is gone.
    expires_at_ms: Option<u64>,
}

impl Entry {
    /// A value that lives until its deadline.
    pub fn new(value: Box<str>, expires_at_ms: Option<u64>) -> Entry {
        Entry { value, expires_at_ms }
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// When the key expires.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }

    /// Whether the deadline has not come yet.
    pub fn lives(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|deadline| now_ms < deadline)
    }
}

impl Stored for Entry {
    fn members(&self, out: &mut Vec<u8>) {
        self.value.members(out);
        if let Some(deadline) = self.expires_at_ms {
            out.extend_from_slice(format!(",\"expires_at_ms\":{deadline}").as_bytes());
        }
    }
}

/// Entries by key, and the ones with a deadline by time.
///
/// Expired entries stay until [`sweep`](Store::sweep) comes to them; until then every reader
/// passes over them.
#[derive(Default)]
pub struct Store {
    table: Table<Entry>,
    /// Exactly the entries of `table` with a deadline.
    deadlines: BTreeSet<(u64, Key)>,
}

impl From<Table<Entry>> for Store {
    fn from(table: Table<Entry>) -> Store {
        let deadlines = table
            .iter()
            .filter_map(|(key, entry)| Some((entry.expires_at_ms?, key.clone())))
            .collect();
        Store { table, deadlines }
    }
}

impl Store {
    /// All entries, expired ones too.
    pub fn table(&self) -> &Table<Entry> {
        &self.table
    }

    /// Whether any entry has a deadline.
    pub fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// A living entry.
    pub fn get(&self, key: &str, now_ms: u64) -> Option<&Entry> {
        self.table.get(key).filter(|entry| entry.lives(now_ms))
    }

    /// The number of living entries.
    pub fn count(&self, now_ms: u64) -> usize {
        let expired = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now_ms);
        self.table.len() - expired.count()
    }

    /// Stores a value; a deadline that the key had before is forgotten.
    pub fn put(&mut self, key: &str, value: &str, expires_at_ms: Option<u64>) {
        let old_deadline = match self.table.get_mut(key) {
            Some(entry) => {
                entry.value = value.into();
                std::mem::replace(&mut entry.expires_at_ms, expires_at_ms)
            }
            None => {
                self.table.insert(key.into(), Entry::new(value.into(), expires_at_ms));
                None
            }
        };
        self.move_deadline(key, old_deadline, expires_at_ms);
    }

    /// Gives a living entry a deadline, or takes it away. False if there is no such entry.
    pub fn set_deadline(&mut self, key: &str, expires_at_ms: Option<u64>, now_ms: u64) -> bool {
        match self.table.get_mut(key) {
            Some(entry) if entry.lives(now_ms) => {
                let old_deadline = std::mem::replace(&mut entry.expires_at_ms, expires_at_ms);
                self.move_deadline(key, old_deadline, expires_at_ms);
                true
            }
            _ => false,
        }
    }

    /// Removes a key, expired or not.
    pub fn remove(&mut self, key: &str) {
        if let Some(entry) = self.table.remove(key) {
            self.move_deadline(key, entry.expires_at_ms, None);
        }
    }

    /// Removes some of what has expired, oldest deadline first.
    pub fn sweep(&mut self, now_ms: u64) {
        for _ in 0..SWEEP_MAX {
            match self.deadlines.first() {
                Some((deadline, _)) if *deadline <= now_ms => {}
                _ => return,
            }
            let (_, key) = self.deadlines.pop_first().expect("looked at just now");
            let removed = self.table.remove(&*key);
            assert!(removed.is_some(), "every deadline belongs to an entry");
        }
    }

    fn move_deadline(&mut self, key: &str, old: Option<u64>, new: Option<u64>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            let removed = self.deadlines.remove(&(old, Key::from(key)));
            assert!(removed, "every deadline of an entry is indexed");
        }
        if let Some(new) = new {
            self.deadlines.insert((new, key.into()));
        }
    }
}
