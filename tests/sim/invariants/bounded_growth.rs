//! Nothing grows without bound: logs, snapshots, disks, session tables.
//!
//! While things go wrong a log may have to wait for a snapshot that the disk refuses, so only
//! coarse bounds hold. The close ones hold in the calm, for a node that has had the time and
//! the entries to tidy up: a snapshot is due only after so many entries.

use std::collections::BTreeSet;

use raft_host::machine::Reply;
use raft_host::types::Index;

use super::Invariant;
use super::notes::{Map, before};
use crate::sim::observe::{AppliedEntry, Bounds, Fact, Micros, NodeSurvey, Phase, Slot, Survey};

/// Elections' time from the start of the calm until close bounds are looked at.
const SETTLING_ELECTIONS: u64 = 20;
/// Entries that may come while a snapshot is written, besides as many as make one due.
const SLACK_ENTRIES: u64 = 128;
/// Bytes that the growth since a snapshot counts for an entry without data.
const MIN_ENTRY_BYTES: u64 = 32;
/// Bytes of an entry besides its data, as stored.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
/// Log files that are there at any time, besides what holds entries.
const SPARE_LOG_FILES: u64 = 6;
/// Copies of an entry that wait for their file to be released.
const ENTRY_COPIES: u64 = 4;
/// Files besides logs and snapshots: marks, identities, locks.
const OTHER_BYTES: u64 = 1 << 20;
/// Snapshots that may have come from leaders and are not installed yet.
const RECEIVED_SNAPSHOTS: u64 = 3;
/// How much coarser the bounds are that always hold, and what is added to them.
const COARSE_FACTOR: u64 = 64;
const COARSE_ENTRIES: u64 = 100_000;
const COARSE_BYTES: u64 = 256 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct BoundedGrowth {
    sizes: Sizes,
    sessions: Sessions,
    /// What each node had applied when it was first seen in the calm in its present life.
    calm_since: Map<Slot, Index>,
    /// The newest snapshot of each node when it was first seen in its present life.
    first_snapshots: Map<Slot, Index>,
    /// Bytes of the largest snapshot that anybody had.
    largest_snapshot: u64,
}

/// Bytes of the committed entries.
#[derive(Debug, Default)]
struct Sizes {
    /// At each index: the sum up to it.
    sums: Vec<u64>,
    /// The index of `sums[0]`.
    first: u64,
    largest: u64,
}

impl Sizes {
    fn add(&mut self, index: Index, bytes: u64) {
        if self.sums.is_empty() {
            self.first = index.0;
        }
        // What lies between is seen by nobody, or was a membership change, which is small.
        let known = self.first + self.sums.len() as u64;
        let bytes = bytes + ENTRY_OVERHEAD_BYTES;
        if index.0 >= known && index.0 - known <= COARSE_ENTRIES {
            let sum = self.sums.last().copied().unwrap_or(0);
            let between = (known..index.0).zip(1..);
            self.sums.extend(between.map(|(_, count)| sum + count * ENTRY_OVERHEAD_BYTES));
            let before = self.sums.last().copied().unwrap_or(0);
            self.sums.push(before + bytes);
            self.largest = self.largest.max(bytes);
        }
    }

    /// Bytes of the entries `from ..= to`, at most.
    fn between(&self, from: Index, to: Index) -> u64 {
        let Some(last) = (self.sums.len() as u64).checked_sub(1) else { return 0 };
        let sum = |index: Index| match index.0.checked_sub(self.first) {
            Some(offset) => self.sums[offset.min(last) as usize],
            None => 0,
        };
        let unknown = to.0.saturating_sub(self.first + last);
        sum(to).saturating_sub(sum(before(from))) + unknown * self.largest
    }
}

/// The sessions that a machine may hold. Ones that clients closed count until they expire.
#[derive(Debug, Default)]
struct Sessions {
    applied: Index,
    /// Id → time to live and when it ends.
    open: Map<u64, (u64, u64)>,
    /// When it ends, and id.
    by_end: BTreeSet<(u64, u64)>,
    /// Number of them from an index on; ascending.
    counts: Vec<(Index, u64)>,
}

impl Sessions {
    fn applied(&mut self, entry: &AppliedEntry) {
        if entry.position.index <= self.applied {
            return;
        }
        self.applied = entry.position.index;
        let now_ms = entry.time_ms;
        while let Some((end, id)) = self.by_end.first().copied().filter(|(end, _)| *end <= now_ms) {
            self.by_end.remove(&(end, id));
            self.open.remove(&id);
        }
        if let Reply::SessionOpened { id, ttl_ms, .. } = entry.reply {
            self.open.insert(id, (ttl_ms, now_ms + ttl_ms));
            self.by_end.insert((now_ms + ttl_ms, id));
        }
        for (_, answered) in entry.answers() {
            if let Some((Some((id, _)), _)) = answered.command
                && let Some((ttl_ms, end)) = self.open.get_mut(&id)
            {
                self.by_end.remove(&(*end, id));
                *end = now_ms + *ttl_ms;
                self.by_end.insert((*end, id));
            }
        }
        let count = self.open.len() as u64;
        if self.counts.last().is_none_or(|(_, before)| *before != count) {
            self.counts.push((self.applied, count));
        }
    }

    /// The most that a machine may hold that has applied `index`.
    fn at(&self, index: Index) -> u64 {
        let after = self.counts.partition_point(|(at, _)| *at <= index);
        after.checked_sub(1).map_or(0, |at| self.counts[at].1)
    }
}

/// A node's bounds.
#[derive(Debug)]
struct Most {
    /// Applied entries in its log.
    entries: u64,
    snapshots: u64,
    log_bytes: u64,
    disk_bytes: u64,
}

impl BoundedGrowth {
    fn survey(&mut self, survey: &Survey) -> Result<(), String> {
        let largest = survey.nodes.iter().map(|node| node.snapshot_bytes).max().unwrap_or(0);
        self.largest_snapshot = self.largest_snapshot.max(largest);
        for node in survey.nodes.iter().filter(|node| node.is_up && !node.is_paused) {
            let most = if self.has_tidied(survey, node) {
                self.close(&survey.bounds, node)
            } else {
                self.coarse(&survey.bounds, node)
            };
            within(node, &most)?;
            self.compacted(&survey.bounds, node)?;
            let unapplied = survey.bounds.unapplied_bytes;
            at_most(node, "bytes in memory to apply", node.unapplied_bytes, unapplied)?;
            let sessions = self.sessions.at(node.applied);
            at_most(node, "sessions", node.sessions, sessions)?;
        }
        Ok(())
    }

    /// A node that has saved or installed a snapshot since it started has dropped what that
    /// covers but for the trailing entries, and the snapshots before it.
    fn compacted(&mut self, bounds: &Bounds, node: &NodeSurvey) -> Result<(), String> {
        let before = *self.first_snapshots.entry(node.slot).or_insert(node.snapshot);
        if node.snapshot <= before {
            return Ok(());
        }
        let trailing = (node.snapshot.0 + 1).saturating_sub(node.first_index.0);
        at_most(node, "entries behind its newest snapshot", trailing, bounds.trailing_logs)?;
        let kept = bounds.snapshots as u64 + RECEIVED_SNAPSHOTS;
        at_most(node, "snapshots", node.snapshots as u64, kept)
    }

    /// Whether a node has had the time and the entries to take a snapshot in the calm.
    fn has_tidied(&mut self, survey: &Survey, node: &NodeSurvey) -> bool {
        if node.is_quarantined {
            // It must not take a snapshot.
            self.calm_since.remove(&node.slot);
            return false;
        }
        if survey.phase != Phase::Calm {
            self.calm_since.clear();
            return false;
        }
        let since = *self.calm_since.entry(node.slot).or_insert(node.applied);
        let entries = node.applied.0.saturating_sub(since.0);
        let settling = survey.bounds.election.0 * SETTLING_ELECTIONS;
        let calm = survey.at.0.saturating_sub(survey.since.0);
        calm >= settling && entries > self.due(&survey.bounds) + SLACK_ENTRIES
    }

    /// Entries after which a snapshot is due, whatever they hold, and the trailing ones.
    fn due(&self, bounds: &Bounds) -> u64 {
        let growth = self.largest_snapshot.saturating_mul(bounds.growth_percent) / 100;
        bounds.log_entries + growth / MIN_ENTRY_BYTES
    }

    fn close(&self, bounds: &Bounds, node: &NodeSurvey) -> Most {
        let kept = bounds.snapshots as u64;
        let log_bytes = SPARE_LOG_FILES * bounds.log_file_bytes
            + ENTRY_COPIES * self.sizes.between(node.first_index, node.last_index);
        Most {
            entries: 2 * self.due(bounds) + SLACK_ENTRIES,
            // One may just have come from the leader.
            snapshots: kept + 1,
            log_bytes,
            // Another one may be being written or received.
            disk_bytes: log_bytes + (kept + 2) * self.largest_snapshot + OTHER_BYTES,
        }
    }

    fn coarse(&self, bounds: &Bounds, node: &NodeSurvey) -> Most {
        let Most { entries, snapshots, log_bytes, disk_bytes } = self.close(bounds, node);
        Most {
            entries: COARSE_FACTOR * entries + COARSE_ENTRIES,
            snapshots: COARSE_FACTOR * snapshots,
            log_bytes: COARSE_FACTOR * log_bytes + COARSE_BYTES,
            disk_bytes: COARSE_FACTOR * disk_bytes + COARSE_BYTES,
        }
    }
}

fn within(node: &NodeSurvey, most: &Most) -> Result<(), String> {
    let entries = node.applied.next().0.saturating_sub(node.first_index.0);
    at_most(node, "applied entries in its log", entries, most.entries)?;
    at_most(node, "snapshots", node.snapshots as u64, most.snapshots)?;
    at_most(node, "bytes of log files", node.log_bytes, most.log_bytes)?;
    at_most(node, "bytes on its disk", node.disk_bytes, most.disk_bytes)
}

fn at_most(node: &NodeSurvey, what: &str, found: u64, most: u64) -> Result<(), String> {
    if found <= most {
        return Ok(());
    }
    Err(format!(
        "{} has {found} {what} at index {}, there should be at most {most}",
        node.slot, node.applied
    ))
}

impl Invariant for BoundedGrowth {
    fn name(&self) -> &'static str {
        "bounded_growth"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => {
                self.sizes.add(entry.position.index, entry.data.len() as u64);
                self.sessions.applied(entry);
                Ok(())
            }
            Fact::Membership { position, .. } => {
                self.sizes.add(position.index, 0);
                Ok(())
            }
            // A snapshot is due only so many entries after a start.
            Fact::Started { slot, .. } | Fact::Crashed { slot } => {
                self.calm_since.remove(&slot);
                self.first_snapshots.remove(&slot);
                Ok(())
            }
            Fact::Survey(all) => self.survey(all),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{
        applied, judge, node_survey, ok, pos, refused, session_opened, survey,
    };
    use super::*;

    const LATER: u64 = 30_000_000;

    fn node(first: u64, last: u64) -> NodeSurvey {
        let mut node = node_survey(0);
        (node.first_index, node.last_index, node.applied) =
            (Index(first), Index(last), Index(last));
        node
    }

    /// A survey at the start of the calm, and one when the node has had time and entries.
    fn calm(first: NodeSurvey, second: NodeSurvey) -> [Survey; 2] {
        [survey(0, Phase::Calm, vec![first]), survey(LATER, Phase::Calm, vec![second])]
    }

    fn finds(second: NodeSurvey, what: &str) {
        let [first, second] = calm(node(1, 100), second);
        let facts = [Fact::Survey(&first), Fact::Survey(&second)];
        refused(&mut BoundedGrowth::default(), &facts, what);
    }

    #[test]
    fn a_tidy_node_is_fine_and_a_long_log_is_not_yet_wrong_while_things_go_wrong() {
        let [first, second] = calm(node(1, 400), node(780, 800));
        let facts = [Fact::Survey(&first), Fact::Survey(&second)];
        assert_eq!(judge(&mut BoundedGrowth::default(), &facts), Ok(()));
        let untidy = survey(LATER, Phase::Faults, vec![node(1, 9000)]);
        assert_eq!(judge(&mut BoundedGrowth::default(), &[Fact::Survey(&untidy)]), Ok(()));
        let absurd = survey(LATER, Phase::Faults, vec![node(1, 1_000_000)]);
        refused(&mut BoundedGrowth::default(), &[Fact::Survey(&absurd)], "entries in its log");
    }

    #[test]
    fn what_has_grown_in_the_calm_is_found() {
        finds(node(1, 800), "800 applied entries");
        let mut many = node(780, 800);
        many.snapshots = 4;
        finds(many.clone(), "4 snapshots");
        (many.snapshots, many.log_bytes) = (2, 100 << 20);
        finds(many.clone(), "bytes of log files");
        (many.log_bytes, many.disk_bytes) = (0, 100 << 20);
        finds(many, "bytes on its disk");
    }

    #[test]
    fn what_waits_to_be_applied_is_bounded_at_all_times() {
        let mut slow = node(1, 100);
        slow.unapplied_bytes = 1 << 20;
        let fine = survey(0, Phase::Faults, vec![slow.clone()]);
        assert_eq!(judge(&mut BoundedGrowth::default(), &[Fact::Survey(&fine)]), Ok(()));
        slow.unapplied_bytes += 1;
        let wrong = survey(0, Phase::Faults, vec![slow]);
        refused(&mut BoundedGrowth::default(), &[Fact::Survey(&wrong)], "to apply");
    }

    #[test]
    fn a_node_that_has_just_started_gets_the_entries_to_tidy_up_first() {
        let [first, second] = calm(node(1, 100), node(1, 800));
        let started = super::super::testing::restored(0, 100, None);
        let facts = [Fact::Survey(&first), started, Fact::Survey(&second)];
        assert_eq!(judge(&mut BoundedGrowth::default(), &facts), Ok(()));
    }

    #[test]
    fn machines_hold_no_more_sessions_than_are_open() {
        let opened = |index, time_ms| AppliedEntry {
            command: None,
            time_ms,
            ..applied(0, pos(index, 1), "", session_opened(index, 1000))
        };
        let used = AppliedEntry {
            command: Some((Some((1, 1)), Bytes::new())),
            time_ms: 900,
            ..applied(0, pos(3, 1), "", ok(""))
        };
        let (one, two, three) = (opened(1, 0), opened(2, 0), opened(4, 1500));
        let held = |applied, sessions| {
            let mut node = node(1, applied);
            node.sessions = sessions;
            survey(0, Phase::Faults, vec![node])
        };
        let entries =
            || [&one, &two, &used, &three].map(Fact::Applied).into_iter().collect::<Vec<_>>();
        let fine = [held(1, 1), held(2, 2), held(3, 2), held(4, 2)];
        let mut facts = entries();
        facts.extend(fine.iter().map(Fact::Survey));
        assert_eq!(judge(&mut BoundedGrowth::default(), &facts), Ok(()));
        let wrong = held(4, 3);
        let mut facts = entries();
        facts.push(Fact::Survey(&wrong));
        refused(&mut BoundedGrowth::default(), &facts, "3 sessions");
    }

    #[test]
    fn entries_are_measured_also_where_some_are_unknown() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.between(Index(1), Index(9)), 0);
        sizes.add(Index(5), 44);
        sizes.add(Index(7), 144);
        assert_eq!(sizes.between(Index(1), Index(5)), 300);
        assert_eq!(sizes.between(Index(6), Index(7)), 656);
        assert_eq!(sizes.between(Index(7), Index(9)), 1200);
    }
}
