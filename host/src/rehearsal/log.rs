//! Entries of a log that is stored, and which of them a rehearsal takes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entries, RehearsalError};
use crate::machine::{BodyKind, MachineSummary, commands_of, time_of};
use crate::storage::{LogStore, Stores};
use crate::text::human_time;
use crate::types::{EntryKind, GroupId, Index, LogEntry};

/// Entries read from the log at once.
const READ_BYTES: u64 = 1 << 20;
/// Entries looked at in one step backwards.
const STEP: u64 = 1_024;

/// Entries of a log, up to a last one.
pub struct RetainedLog {
    log: Arc<dyn LogStore>,
    group: GroupId,
    last: Index,
    read: VecDeque<LogEntry>,
    /// All to the last one, if they were few enough to be kept.
    kept: Vec<LogEntry>,
}

impl RetainedLog {
    /// `last` is known to be committed.
    pub fn new(log: Arc<dyn LogStore>, group: GroupId, last: Index) -> RetainedLog {
        RetainedLog { log, group, last, read: VecDeque::new(), kept: Vec::new() }
    }

    /// Reads all entries after `base`, if they take no more than so many bytes. Whether they did: whoever asks for no
    /// others does not need the stored log any more.
    ///
    /// # Errors
    ///
    /// They are not there, or cannot be read.
    pub fn keep_after(&mut self, base: Index, bytes_max: u64) -> Result<bool, RehearsalError> {
        let (mut kept, mut bytes, end) = (Vec::new(), 0, self.last.next());
        let mut next = base.next();
        while next < end {
            let read = self.log.entries(self.group, next..end, READ_BYTES)?;
            next = read.last().expect("a log gives at least one entry").index.next();
            bytes += read.iter().map(LogEntry::cost_bytes).sum::<u64>();
            if bytes > bytes_max {
                return Ok(false);
            }
            kept.extend(read);
        }
        self.kept = kept;
        Ok(true)
    }

    fn kept(&self, index: Index) -> Option<&LogEntry> {
        let first = self.kept.first()?.index;
        self.kept.get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }
}

impl Entries for RetainedLog {
    fn entry(&mut self, index: Index) -> Result<LogEntry, RehearsalError> {
        if let Some(entry) = self.kept(index) {
            return Ok(entry.clone());
        }
        while let Some(entry) = self.read.pop_front() {
            if entry.index == index {
                return Ok(entry);
            }
        }
        if index > self.last {
            return Err(RehearsalError::BeyondEnd { until: index, last: self.last });
        }
        self.read = self.log.entries(self.group, index..self.last.next(), READ_BYTES)?.into();
        Ok(self.read.pop_front().expect("a log gives at least one entry"))
    }
}

/// How much of a log is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The last commands; as many as there are if these are fewer.
    AtMost(u64),
    /// The last commands, and no fewer.
    Last(u64),
    /// Entries since then by the log's clock, in milliseconds since the Unix epoch.
    Since(u64),
    /// Everything that is there.
    All,
    /// From an entry on, or the oldest state; up to an entry, or the last.
    Between {
        /// Where it begins.
        base: Option<Index>,
        /// The last entry.
        until: Option<Index>,
    },
    /// Exactly this: the new module takes over after `base`.
    Exactly {
        /// Where it begins.
        base: Index,
        /// The last entry.
        until: Index,
    },
}

impl Wanted {
    /// Whether it begins at one entry and no other.
    pub fn names_its_base(self) -> bool {
        matches!(self, Wanted::Exactly { .. } | Wanted::Between { base: Some(_), .. })
    }
}

/// What a rehearsal must not begin before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The oldest state that a machine can be restored to.
    pub state: Index,
    /// Since when the active module is that, if it is known: what another one answered says nothing.
    pub activated: Option<Index>,
}

impl Floor {
    /// What all can begin with, given since when the active module is that, and the oldest state that each of them
    /// retains.
    pub fn of_all(activated: Index, oldest: impl IntoIterator<Item = Index>) -> Floor {
        let state = oldest.into_iter().fold(Index(0), Index::max);
        Floor { state, activated: Some(activated) }
    }

    fn index(self) -> Index {
        self.activated.map_or(self.state, |activated| activated.max(self.state))
    }

    /// Whether the active module may have executed what is not retained any more.
    fn hides(self) -> bool {
        self.activated.is_none_or(|activated| activated < self.state)
    }
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The new module takes over the state after this entry,
    pub base: Index,
    /// and this is the last one that both execute.
    pub until: Index,
    /// More was wanted, in these words, than a state is retained for.
    pub short: Option<String>,
}

/// What that is in a log whose last committed entry is `last`.
///
/// # Errors
///
/// It is not there; or the log cannot be read.
pub fn range(
    stores: &Stores,
    group: GroupId,
    floor: Floor,
    last: Index,
    wanted: Wanted,
) -> Result<(Index, Index), RehearsalError> {
    let Chosen { base, until, short } = choose(stores, group, floor, last, wanted)?;
    match short {
        None => Ok((base, until)),
        Some(wanted) => Err(compacted(stores, group, floor.state, wanted)?),
    }
}

/// The same; that more is wanted than is retained is told ([`Chosen::short`]) and not refused.
///
/// # Errors
///
/// It is not there; or the log cannot be read.
pub fn choose(
    stores: &Stores,
    group: GroupId,
    floor: Floor,
    last: Index,
    wanted: Wanted,
) -> Result<Chosen, RehearsalError> {
    let (log, oldest) = (&*stores.log, floor.index());
    let first = oldest.next();
    let mut short = None;
    let base = match wanted {
        Wanted::All => oldest,
        Wanted::Exactly { base, until } => {
            if base > until {
                return Err(RehearsalError::WrongRange { base, until });
            }
            if until > last {
                return Err(RehearsalError::BeyondEnd { until, last });
            }
            match floor.activated {
                _ if base < floor.state => short = Some(format!("index {base}")),
                Some(since) if base < since => return Err(RehearsalError::ActiveSince { since }),
                _ => {}
            }
            return Ok(Chosen { base, until, short });
        }
        Wanted::Between { base, until } => {
            let (base, until) = (base.unwrap_or(oldest), until.unwrap_or(last));
            return choose(stores, group, floor, last, Wanted::Exactly { base, until });
        }
        Wanted::AtMost(commands) | Wanted::Last(commands) => {
            let mut left = commands;
            let mut base = last;
            backwards(log, group, first, last, &mut |entry| {
                if left == 0 {
                    return Ok(false);
                }
                let held = commands_of(entry.index, &entry.data)?.len() as u64;
                left = left.saturating_sub(held);
                base = Index(entry.index.0 - 1);
                Ok(true)
            })?;
            if left > 0 && floor.hides() && matches!(wanted, Wanted::Last(_)) {
                let found = commands - left;
                short = Some(format!("{commands} commands (there are {found} after that state)"));
            }
            // Entries before the first command are none of the guest's.
            if left > 0 { oldest } else { base }
        }
        Wanted::Since(since_ms) => {
            let mut base = last;
            let mut is_older = false;
            backwards(log, group, first, last, &mut |entry| {
                is_older = time_of(&entry.data).is_some_and(|time_ms| time_ms < since_ms);
                if !is_older {
                    base = Index(entry.index.0 - 1);
                }
                Ok(!is_older)
            })?;
            if !is_older
                && floor.hides()
                && state_time_ms(stores, group, floor.state)?.is_none_or(|at| at >= since_ms)
            {
                short = Some(human_time(since_ms));
            }
            base
        }
    };
    Ok(Chosen { base: base.max(oldest), until: last, short })
}

/// Says what is retained instead of `wanted`.
///
/// # Errors
///
/// Nothing can be read.
pub fn compacted(
    stores: &Stores,
    group: GroupId,
    oldest: Index,
    wanted: String,
) -> Result<RehearsalError, RehearsalError> {
    let begins = stores.log.start(group)?.index.next();
    let time_ms = state_time_ms(stores, group, oldest)?;
    Ok(RehearsalError::Compacted { wanted, begins, oldest, time_ms })
}

/// The log's clock at a stored state, as far as the log or the state says.
fn state_time_ms(
    stores: &Stores,
    group: GroupId,
    state: Index,
) -> Result<Option<u64>, RehearsalError> {
    let mut found = None;
    let first = stores.log.start(group)?.index.next();
    let last = state.min(stores.log.last_index(group)?);
    backwards(&*stores.log, group, first, last, &mut |entry| {
        found = time_of(&entry.data);
        Ok(found.is_none())
    })?;
    if found.is_some() || stores.snapshots.list(group)?.iter().all(|meta| meta.index != state) {
        return Ok(found);
    }
    let (_, mut content) = stores.snapshots.open(group, state)?;
    // One that cannot be restored is told of where that is tried.
    Ok(MachineSummary::read(&mut content).ok().map(|summary| summary.time_ms))
}

/// Whether a module may have been activated after an entry.
///
/// # Errors
///
/// The log cannot be read.
pub fn activates_after(
    log: &dyn LogStore,
    group: GroupId,
    after: Index,
    last: Index,
) -> Result<bool, RehearsalError> {
    let mut found = false;
    backwards(log, group, after.next(), last, &mut |entry| {
        found = BodyKind::of(&entry.data) == BodyKind::ActivateModule;
        Ok(!found)
    })?;
    Ok(found)
}

/// The log's clock at the end of a log, as far as its entries say.
///
/// # Errors
///
/// The log cannot be read.
pub fn last_time_ms(
    log: &dyn LogStore,
    group: GroupId,
    oldest: Index,
    last: Index,
) -> Result<Option<u64>, RehearsalError> {
    let mut found = None;
    backwards(log, group, oldest.next(), last, &mut |entry| {
        found = time_of(&entry.data);
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// Looks at entries from the last one on, until one is enough.
fn backwards(
    log: &dyn LogStore,
    group: GroupId,
    first: Index,
    last: Index,
    look: &mut dyn FnMut(&LogEntry) -> Result<bool, RehearsalError>,
) -> Result<(), RehearsalError> {
    let mut end = last.next();
    while end > first {
        let begin = Index(end.0.saturating_sub(STEP)).max(first);
        let mut step = Vec::new();
        let mut next = begin;
        while next < end {
            let read = log.entries(group, next..end, READ_BYTES)?;
            next = read.last().expect("a log gives at least one entry").index.next();
            step.extend(read);
        }
        for entry in step.iter().rev().filter(|entry| entry.kind == EntryKind::Normal) {
            if !look(entry)? {
                return Ok(());
            }
        }
        end = begin;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_begin_with_what_everybody_has_and_not_before_the_activation() {
        let earliest = |since, oldest: &[u64]| {
            Floor::of_all(Index(since), oldest.iter().copied().map(Index)).index().0
        };
        assert_eq!(earliest(3, &[1, 7, 5]), 7);
        assert_eq!(earliest(9, &[1, 7, 5]), 9);
    }
}
