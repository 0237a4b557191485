//! What raft-rs has ready: taken out, written, sent and handed to the machine.

use raft::{StateRole, eraftpb};

use super::{PendingWrite, Replica, ReplicaError};
use crate::consensus::effects::{ApplyTask, CommittedEntry, LogReader, Write, WriteNumber};
use crate::consensus::{convert, membership};
use crate::museum::{self, Exhibit};
use crate::storage::GroupWrite;
use crate::types::{
    ConfChange, ConfState, EntryKind, Index, LogEntry, LogPosition, MessageKind, PeerMessage,
};

impl Replica {
    /// Takes out all that is ready.
    pub(super) fn take_ready(&mut self) -> Result<(), ReplicaError> {
        loop {
            self.feed_peers();
            let is_for_machine = self.begin_committed();
            if !is_for_machine && !self.has_ready() {
                return Ok(());
            }
            let result = self.on_ready();
            self.end_committed();
            result?;
            self.redraw_election_timeout();
        }
    }

    /// As raft-rs's `has_ready`, but for committed entries, which may have to wait.
    fn has_ready(&self) -> bool {
        let raft = &self.raw.raft;
        !raft.msgs.is_empty()
            || !raft.read_states.is_empty()
            || !raft.raft_log.unstable_entries().is_empty()
            || self.raw.snap().is_some()
            || self.seen != (raft.soft_state(), raft.hard_state())
    }

    /// Has committed entries handed out if the machine keeps up and they are in memory. What waits
    /// for it otherwise is a range of the log.
    fn begin_committed(&mut self) -> bool {
        let log = &self.raw.raft.raft_log;
        let is_held = self.unapplied_bytes >= self.config.limits.max_unapplied_bytes
            && !museum::is_on(Exhibit::UnboundedApplyQueue);
        if is_held || !log.has_next_entries_since(self.emitted.0) {
            return false;
        }
        let through = Index(log.committed.min(log.persisted));
        let next = self.emitted.max(self.raw.store().start().index).next();
        let fetched = self.fetches.take(LogReader::Machine);
        if self.raw.store().is_in_memory(next, &fetched) {
            self.raw.mut_store().begin_applying(fetched);
            return true;
        }
        self.fetch(LogReader::Machine, next, through);
        false
    }

    fn end_committed(&mut self) {
        let fetched = self.raw.mut_store().end_applying();
        if self.raw.store().needs_fetched(self.emitted.next(), &fetched) {
            self.fetches.put_back(LogReader::Machine, fetched);
        }
    }

    fn on_ready(&mut self) -> Result<(), ReplicaError> {
        self.seen = (self.raw.raft.soft_state(), self.raw.raft.hard_state());
        let mut ready = self.raw.ready();
        self.check_log()?;
        let number = ready.number();
        for state in ready.take_read_states() {
            self.on_read_state(state);
        }
        let messages = self.outgoing(ready.take_messages());
        // The only voter leads a new term at once. What it says in that term must wait until the
        // term is durable, or it could say something else in the same term after a crash.
        let (now, wait): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.term <= self.durable_term);
        self.send(now);

        let mut write = GroupWrite::default();
        let mut must_write = false;
        if !ready.snapshot().is_empty() {
            let meta = convert::from_raft_snapshot(self.config.group, ready.snapshot());
            write.reset_to = Some(meta.position());
            self.raw.mut_store().reset_to(meta.clone());
            self.members_changed_at = meta.index;
            self.log_size.reset(meta.index);
            self.compact_to = None;
            self.emitted = meta.index;
            self.on_replaced(meta.index.next());
            self.effects.apply.push(ApplyTask::Install(meta));
            self.end_reseed();
            must_write = true;
        }
        let entries: Vec<LogEntry> =
            ready.take_entries().into_iter().map(convert::from_raft_entry).collect();
        if !entries.is_empty() {
            if self.raw.mut_store().append(&entries) {
                self.on_replaced(entries[0].index);
            }
            self.count_log_bytes(&entries);
            self.spend_space(&entries);
            write.entries = entries;
            must_write = true;
        }
        // A commit index that advances alone is not worth a write: it is learned again. But not
        // from a member whose removal it commits, and who may be needed for a majority by
        // whoever has forgotten that.
        let is_conf_change =
            |entry: &eraftpb::Entry| entry.get_entry_type() != eraftpb::EntryType::EntryNormal;
        must_write |= ready.hs().is_some() && ready.must_sync();
        must_write |= ready.committed_entries().iter().any(|entry| {
            // The commit index may have advanced in an earlier turn.
            is_conf_change(entry) && entry.index > self.written_commit.0
        });
        if museum::is_on(Exhibit::HardStateOnlyWithEntries) {
            must_write = !write.entries.is_empty() || write.reset_to.is_some();
        }
        let mut later = self.outgoing(ready.take_persisted_messages());
        later.extend(wait);
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        if museum::is_on(Exhibit::AcknowledgedBeforeFsync) {
            self.send(std::mem::take(&mut later));
        }
        if museum::is_on(Exhibit::ConfChangeWhenAppended) {
            let changes = write.entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange);
            changes.map(|entry| self.apply_conf_change(entry)).collect::<Result<Vec<_>, _>>()?;
        }

        if must_write {
            write.hard_state = Some(convert::from_raft_hard_state(&self.raw.raft.hard_state()));
            write.compact_to = self.compact_to.take();
            self.push_write(write, Some(number), later);
        } else if let Some(pending) = self.pending_writes.back_mut() {
            // It may promise what earlier writes have yet to make durable.
            pending.ready = number;
            pending.messages.extend(later);
            Replica::bound_waiting(&mut pending.messages);
        } else {
            self.raw.on_persist_ready(number);
            self.send(later);
        }
        self.emit_committed(committed)
    }

    /// Entries from `first` on are gone, or others stand there.
    fn on_replaced(&mut self, first: Index) {
        self.fetches.forget_all();
        let earlier = self.effects.truncated_from.unwrap_or(first);
        self.effects.truncated_from = Some(first.min(earlier));
    }

    /// A follower's answers tell the leader which commit index it will still know after a
    /// crash: [`Replica::settled`] is made of them. raft-rs only keeps the number.
    pub(super) fn send(&mut self, messages: Vec<PeerMessage>) {
        let durable = self.durable_commit;
        let committed = Index(self.raw.raft.raft_log.committed);
        self.effects.messages.extend(messages.into_iter().map(|mut message| {
            if message.kind == MessageKind::Heartbeat && museum::is_on(Exhibit::CommitUnbounded) {
                message.commit = committed;
            }
            if matches!(
                message.kind,
                MessageKind::AppendEntriesResponse | MessageKind::HeartbeatResponse
            ) {
                message.commit = message.commit.min(durable);
            }
            message
        }));
    }

    pub(super) fn push_write(
        &mut self,
        write: GroupWrite,
        ready: Option<u64>,
        messages: Vec<PeerMessage>,
    ) {
        let number = WriteNumber(self.next_write);
        self.next_write += 1;
        let earlier = self.pending_writes.back().map_or(0, |pending| pending.ready);
        let last = write
            .entries
            .last()
            .map(|entry| LogPosition { index: entry.index, term: entry.term })
            .or(write.reset_to);
        let hard_state = write.hard_state.map(|state| (state.term, state.commit));
        self.written_commit = hard_state.map_or(self.written_commit, |(_, commit)| commit);
        self.pending_writes.push_back(PendingWrite {
            number,
            since: self.tick,
            ready: ready.unwrap_or(earlier),
            hard_state,
            last,
            messages,
        });
        self.effects.writes.push(Write { number, write });
    }

    fn emit_committed(&mut self, committed: Vec<eraftpb::Entry>) -> Result<(), ReplicaError> {
        if committed.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            let entry = convert::from_raft_entry(entry);
            assert!(entry.index > self.emitted, "committed entries are handed out once");
            self.emitted = entry.index;
            let bytes = entry.cost_bytes();
            self.unapplied.push_back((entry.index, bytes));
            self.unapplied_bytes += bytes;
            let membership = match entry.kind {
                EntryKind::Normal => None,
                EntryKind::ConfChange => Some(self.apply_conf_change(&entry)?),
            };
            entries.push(CommittedEntry { entry, membership });
        }
        self.effects.apply.push(ApplyTask::Entries(entries));
        Ok(())
    }

    /// The new configuration counts from the moment its entry is committed here.
    fn apply_conf_change(
        &mut self,
        entry: &LogEntry,
    ) -> Result<(ConfChange, ConfState), ReplicaError> {
        let applied = membership::apply(&mut self.raw, entry)
            .map_err(|reason| ReplicaError::BadEntry { index: entry.index, reason })?;
        self.members_changed_at = entry.index;
        let Some(change) = applied else {
            return Ok((ConfChange::default(), membership::current(&self.raw)));
        };
        let conf_state = membership::current(&self.raw);
        let me = self.config.node;
        if self.raw.raft.state == StateRole::Leader && !conf_state.is_voter(me) {
            // raft-rs leaves a removed leader in charge; others must be able to elect.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        Ok((change, conf_state))
    }
}
