//! What a correct peer can send *to this replica*: checks that need its log, term and members.
//!
//! raft-rs trusts its input and panics on much of what a stranger, a broken peer or a peer whose
//! log this one has forgotten may say. What is checked here is what raft-rs relies on, site by
//! site; what one message tells by itself was checked before ([`crate::transport`] does, at the
//! door). Without authentication nobody can be kept from telling well-formed lies in a member's
//! name; they cost at most what that member could cost.
//!
//! ```text
//!   message ─► is it for this group? ─► may its sender say that? ─► is it possible? ─► raft-rs
//!                     │ no                    │ no                       │ no
//!                     ▼                       ▼                          ▼
//!                  dropped             dropped: Raft repeats     dropped, and its sender named
//! ```

use raft::{INVALID_ID, StateRole};

use super::Replica;
use crate::consensus::membership;
use crate::types::{EntryKind, Index, MessageKind, NodeId, PeerMessage, Term};

/// Most terms that a message may be ahead of this replica's: so many elections that it missed.
/// At one a second that is half a year without a leader. A replica without a log knows no term
/// yet, and takes what it is told.
const TERM_JUMP_MAX: u64 = 1 << 24;

/// Most questions of reads that wait for a majority on a leader. A correct peer has one at a
/// time.
const READS_PENDING_MAX: usize = 4_096;

/// Of a read: the node, its incarnation, the number of the read; eight bytes each.
const READ_CONTEXT_BYTES: usize = 24;

/// A message that no correct peer sends to this replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Nobody held so many elections.
    #[error(
        "its term is {term}, and this node's {own}: no cluster holds so many elections while a \
         node is away. If it did, remove this node and let it join again with an empty directory"
    )]
    TermJump {
        /// The message's.
        term: Term,
        /// The replica's.
        own: Term,
    },
    /// The leader counts on entries that this replica does not have.
    #[error(
        "it says that entry {commit} is committed and known here, and this node's log ends at \
         {last}. Either the sender is broken, or this node's directory is older than what its \
         cluster knows of it: then remove the node and let it join again with an empty directory"
    )]
    CommitBeyondLog {
        /// The message's.
        commit: Index,
        /// Where the log ends.
        last: Index,
    },
    /// A follower knows more than its leader has.
    #[error("it names entry {index}, and the log of this node, which leads, ends at {last}")]
    BeyondLeader {
        /// The message's.
        index: Index,
        /// Where the log ends.
        last: Index,
    },
    /// A leader has all committed entries.
    #[error(
        "its entry {index} is of term {term}, and what this node knows to be committed before \
         that is of term {committed}"
    )]
    ForgetsCommitted {
        /// The entry before those that it sends.
        index: Index,
        /// That entry's term.
        term: Term,
        /// Term of the last committed entry.
        committed: Term,
    },
    /// At most one node leads in a term.
    #[error("it leads in term {term}, and so does node {leader}")]
    TwoLeaders {
        /// The term.
        term: Term,
        /// Whom this replica follows in it.
        leader: NodeId,
    },
    /// A membership change that cannot be read.
    #[error("entry {index} is no membership change: {reason}")]
    BadMembership {
        /// The entry.
        index: Index,
        /// What is wrong.
        reason: String,
    },
    /// A read that somebody else asked.
    #[error("it asks a read that is not its own")]
    ForeignRead,
}

/// What becomes of a message.
pub(super) enum Admission {
    /// raft-rs gets it.
    Step,
    /// As good as lost.
    Drop,
}

impl Replica {
    /// Decides about a message to this replica.
    pub(super) fn admit(&self, message: &PeerMessage) -> Result<Admission, Nonsense> {
        self.check_term(message)?;
        if !self.may_say(message) {
            tracing::debug!(from = %message.from, kind = ?message.kind, "not for it to say");
            return Ok(Admission::Drop);
        }
        let is_old = message.term.0 != 0 && message.term.0 < self.raw.raft.term;
        if is_old {
            // raft-rs ignores it, or tells the sender the term.
            return Ok(Admission::Step);
        }
        match message.kind {
            MessageKind::AppendEntries => {
                self.check_leader(message)?;
                self.check_append(message)?;
            }
            MessageKind::Heartbeat => {
                self.check_leader(message)?;
                let (commit, last) = (message.commit, self.last_index());
                if commit > last {
                    return Err(Nonsense::CommitBeyondLog { commit, last });
                }
            }
            MessageKind::InstallSnapshot => {
                self.check_leader(message)?;
                self.check_snapshot(message)?;
            }
            MessageKind::AppendEntriesResponse | MessageKind::HeartbeatResponse => {
                self.check_response(message)?;
            }
            MessageKind::ReadIndex => return self.admit_read(message),
            // This replica has not asked yet: it asks once its term and all before it are durable,
            // and raft-rs relies on that when it makes it leader.
            MessageKind::RequestVoteResponse if self.durable_term.0 != self.raw.raft.term => {
                return Ok(Admission::Drop);
            }
            // Late ones of an earlier leader say nothing any more.
            MessageKind::ReadIndexResponse | MessageKind::TimeoutNow
                if self.raw.raft.leader_id != message.from.0 =>
            {
                return Ok(Admission::Drop);
            }
            _ => {}
        }
        Ok(Admission::Step)
    }

    fn last_index(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    fn check_term(&self, message: &PeerMessage) -> Result<(), Nonsense> {
        let own = Term(self.raw.raft.term);
        let is_new = own == Term(0) && self.last_index() == Index(0);
        let most = if is_new { Term::HIGHEST } else { Term(own.0.saturating_add(TERM_JUMP_MAX)) };
        if message.term > most.min(Term::HIGHEST) {
            return Err(Nonsense::TermJump { term: message.term, own });
        }
        Ok(())
    }

    /// Members may say what their role allows. A node that this replica does not know may be a
    /// member all the same, added while this one was away: it may lead, and want to lead. What
    /// it counts for, such as a vote, is for members only.
    fn may_say(&self, message: &PeerMessage) -> bool {
        let progress = self.raw.raft.prs();
        match message.kind {
            MessageKind::AppendEntries
            | MessageKind::Heartbeat
            | MessageKind::InstallSnapshot
            | MessageKind::TimeoutNow
            | MessageKind::ReadIndexResponse
            | MessageKind::RequestVote
            | MessageKind::RequestPreVote => true,
            MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse => {
                progress.conf().voters().contains(message.from.0)
            }
            MessageKind::AppendEntriesResponse
            | MessageKind::HeartbeatResponse
            | MessageKind::ReadIndex => progress.get(message.from.0).is_some(),
            MessageKind::TransferLeader
            | MessageKind::Propose
            | MessageKind::DigestReport
            | MessageKind::ClockQuestion
            | MessageKind::ClockAnswer
            | MessageKind::LevelOffer => false,
        }
    }

    fn check_leader(&self, message: &PeerMessage) -> Result<(), Nonsense> {
        let raft = &self.raw.raft;
        let leader = raft.leader_id;
        if message.term.0 == raft.term && leader != INVALID_ID && leader != message.from.0 {
            return Err(Nonsense::TwoLeaders { term: message.term, leader: NodeId(leader) });
        }
        Ok(())
    }

    /// raft-rs looks for where the logs agree, and must find it among what is committed. What
    /// cannot be read is told by [`Replica::check_log`].
    fn check_append(&self, message: &PeerMessage) -> Result<(), Nonsense> {
        let log = &self.raw.raft.raft_log;
        if message.index.0 >= log.committed
            && let Ok(committed) = log.term(log.committed)
            && message.log_term.0 < committed
        {
            return Err(Nonsense::ForgetsCommitted {
                index: message.index,
                term: message.log_term,
                committed: Term(committed),
            });
        }
        let changes = message.entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange);
        for entry in changes {
            membership::check(entry)
                .map_err(|reason| Nonsense::BadMembership { index: entry.index, reason })?;
        }
        Ok(())
    }

    /// A snapshot holds what is committed, so it agrees with what is known to be.
    fn check_snapshot(&self, message: &PeerMessage) -> Result<(), Nonsense> {
        let Some(meta) = &message.snapshot else { return Ok(()) };
        let log = &self.raw.raft.raft_log;
        let Ok(committed) = log.term(log.committed) else { return Ok(()) };
        let agrees = match meta.index.0.cmp(&log.committed) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => meta.term.0 == committed,
            std::cmp::Ordering::Greater => meta.term.0 >= committed,
        };
        if agrees {
            return Ok(());
        }
        let committed = Term(committed);
        Err(Nonsense::ForgetsCommitted { index: meta.index, term: meta.term, committed })
    }

    /// What followers of this leader have, it has.
    fn check_response(&self, message: &PeerMessage) -> Result<(), Nonsense> {
        if self.raw.raft.state != StateRole::Leader || message.term.0 != self.raw.raft.term {
            return Ok(());
        }
        let last = self.last_index();
        // On refusal, `index` repeats what was asked and the hint is bounded by it.
        let matched = if message.reject { Index(0) } else { message.index };
        let index = matched.max(message.commit).max(message.request_snapshot);
        if index > last {
            return Err(Nonsense::BeyondLeader { index, last });
        }
        Ok(())
    }

    /// raft-rs would pass a question on to the leader, in the name of who asked; whoever asked
    /// asks again, and finds the leader by itself.
    fn admit_read(&self, message: &PeerMessage) -> Result<Admission, Nonsense> {
        let context = message.entries.first().map_or(&[][..], |entry| &entry.data[..]);
        let asker = context.first_chunk().copied().map(u64::from_le_bytes);
        if message.entries.len() != 1
            || context.len() != READ_CONTEXT_BYTES
            || asker != Some(message.from.0)
            || message.term != Term(0)
        {
            return Err(Nonsense::ForeignRead);
        }
        let raft = &self.raw.raft;
        let has_room = raft.read_only.pending_read_count() < READS_PENDING_MAX;
        let admitted = raft.state == StateRole::Leader && has_room;
        Ok(if admitted { Admission::Step } else { Admission::Drop })
    }
}
