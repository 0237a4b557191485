//! The state as it was at a position of the log, asked beside everything else that the node does.
//!
//! ```text
//!   oldest retained state … newest one before the position ─► entries of the log ─► position ─► the question
//! ```
//!
//! Entries are executed as the node has executed them, activations included, so the module answers that was active
//! then. What the log says of the state on the way must fit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::beside::{REST_BYTES, RehearsalFailure, beside, fits};
use super::core::NodeHandle;
use crate::fsm::{SharedLoader, loader_beside};
use crate::machine::QueryReply;
use crate::node::answer::{Consistency, QueryFailure};
use crate::node::stop::StopSignal;
use crate::replay::{ReplayError, Replayer, Step};
use crate::storage::Stores;
use crate::text::human_bytes;
use crate::types::{ClusterId, GroupId, Index};

/// When a state was: after all of an entry, or after one of its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The entry.
    pub index: Index,
    /// Which of its commands; `None`: all of them.
    pub ordinal: Option<u32>,
}

impl Moment {
    /// The last entry that a state may hold from which the log leads to this.
    fn base(self) -> Index {
        match self.ordinal {
            None => self.index,
            Some(_) => Index(self.index.0.saturating_sub(1)),
        }
    }
}

/// What the state machine answers from a state that was.
#[derive(Clone, Debug)]
pub struct PastReply {
    /// As of the position.
    pub reply: QueryReply,
    /// Of the state that it was made from; entries after it were executed again.
    pub base: Index,
}

/// Why a state that was is not asked.
#[derive(Debug, thiserror::Error)]
pub enum TravelFailure {
    /// Nothing is asked of this node now.
    #[error(transparent)]
    Query(#[from] QueryFailure),
    /// One at a time.
    #[error(
        "this node is at a rehearsal, or at another question about the past: try again when that is done"
    )]
    Busy,
    /// It would take too much memory.
    #[error(
        "to make a state that was may take {} of memory, and this node has {} left: ask another node, or give this \
         one more memory",
        human_bytes(*.takes), human_bytes(*.available)
    )]
    NoRoom {
        /// What it may come to take, in bytes.
        takes: u64,
        /// What there is.
        available: u64,
    },
    /// There is no such state yet.
    #[error("entry {asked} is not applied yet: the last one on this node is {applied}")]
    NotYet {
        /// The entry that was asked about.
        asked: Index,
        /// The last one that is applied here.
        applied: Index,
    },
    /// What led there is gone.
    #[error(
        "this node retains nothing that leads to entry {asked}: the oldest state that it can be asked about is the one \
         after entry {oldest}. Another node may have more, a backup of that time has"
    )]
    Compacted {
        /// The entry that was asked about.
        asked: Index,
        /// Of the oldest state.
        oldest: Index,
    },
    /// No state is stored that the stored log goes on from.
    #[error(
        "this node retains no state to begin with: take a snapshot (`raft-host snapshot take`)"
    )]
    NoState,
    /// What is stored does not fit together.
    #[error(
        "what this node stores leads to another state at index {0} than its cluster found there, so nothing is known \
         for certain: ask another node, and look at `raft-host digest`"
    )]
    Differs(Index),
    /// Whoever asked is gone, or the node stops.
    #[error("nobody waits for the answer any more")]
    Unwanted,
    /// What is stored cannot be executed again here.
    #[error("this node cannot execute again what it stores: {0}")]
    Replay(#[from] ReplayError),
    /// No thread, or it broke.
    #[error("the question could not be asked: {0}")]
    BrokenOff(String),
}

/// What it needs of the node.
struct Parts {
    stores: Stores,
    cluster: ClusterId,
    group: GroupId,
    loader: SharedLoader,
    stop: StopSignal,
}

impl NodeHandle {
    /// Asks the state machine as it was. If the position is what is applied here now, a fork of the state answers; if
    /// it is an older one, a machine that is made of what the node retains, on a thread that leaves the processor
    /// to others. If the caller goes, it ends.
    ///
    /// # Errors
    /// See [`TravelFailure`].
    pub async fn query_at(&self, query: Bytes, at: Moment) -> Result<PastReply, TravelFailure> {
        // Asks nothing, and is refused like everything that is asked.
        let applied = self.stale_barrier().await?;
        if at.index > applied {
            return Err(TravelFailure::NotYet { asked: at.index, applied });
        }
        if at == (Moment { index: applied, ordinal: None }) {
            let reply = self.query(query.clone(), Consistency::Stale).await?;
            if reply.applied == at.index {
                return Ok(PastReply { reply, base: at.index });
            }
        }
        let permit = Arc::clone(&self.shared.rehearsing);
        let permit = permit.try_acquire_owned().map_err(|_| TravelFailure::Busy)?;
        let view = self.shared.machine.borrow().clone();
        if let Some(view) = view {
            // One machine, with the copy that a trap goes back to.
            let takes = view.info.guest_memory_bytes.saturating_mul(2).saturating_add(REST_BYTES);
            fits(takes).map_err(of_rehearsal)?;
        }
        let shared = &self.shared;
        let parts = Parts {
            stores: shared.stores.clone(),
            cluster: shared.identity.cluster,
            group: shared.group,
            loader: loader_beside(&shared.loader),
            stop: shared.stop.clone(),
        };
        let work = move |unwanted: &AtomicBool| Ok(parts.ask(&query, at, unwanted));
        let asking = beside("travel", permit, self.stops(), work);
        asking.map_err(of_rehearsal)?.done().await.map_err(of_rehearsal)?
    }
}

impl Parts {
    fn ask(
        &self,
        query: &[u8],
        at: Moment,
        unwanted: &AtomicBool,
    ) -> Result<PastReply, TravelFailure> {
        self.check_reach(at)?;
        self.travel(query, at, unwanted).or_else(|failure| match failure {
            // What it needed may have been given up meanwhile.
            TravelFailure::Replay(ReplayError::NoStart(_) | ReplayError::Storage(_)) => {
                self.check_reach(at)?;
                Err(failure)
            }
            failure => Err(failure),
        })
    }

    /// Whether what is retained leads there.
    fn check_reach(&self, at: Moment) -> Result<(), TravelFailure> {
        match Replayer::reach(&self.stores, self.group) {
            Ok((oldest, _)) if at.base() < oldest => {
                Err(TravelFailure::Compacted { asked: at.index, oldest })
            }
            Ok(_) => Ok(()),
            Err(ReplayError::NoStart(_)) => Err(TravelFailure::NoState),
            Err(error) => Err(error.into()),
        }
    }

    fn travel(
        &self,
        query: &[u8],
        at: Moment,
        unwanted: &AtomicBool,
    ) -> Result<PastReply, TravelFailure> {
        let (stores, loader) = (self.stores.clone(), Arc::clone(&self.loader));
        let base = Some(at.base());
        let mut replayer = Replayer::new(stores, self.cluster, self.group, loader, base)?;
        // It is applied here.
        replayer.trust(at.index)?;
        let mut each = |step: &Step| {
            if unwanted.load(Ordering::Relaxed) || self.stop.is_given() {
                return Err(TravelFailure::Unwanted);
            }
            match step.differences.first() {
                Some(difference) => Err(TravelFailure::Differs(difference.index)),
                None => Ok(()),
            }
        };
        replayer.go_to(at.index, at.ordinal, false, &mut each)?;
        if replayer.applied() != at.index {
            let words = format!("the log ends at index {}", replayer.applied());
            return Err(TravelFailure::BrokenOff(words));
        }
        let (reply, base) = (replayer.query(query)?, replayer.began());
        Ok(PastReply { reply, base })
    }
}

fn of_rehearsal(failure: RehearsalFailure) -> TravelFailure {
    match failure {
        RehearsalFailure::NoRoom { takes, available } => TravelFailure::NoRoom { takes, available },
        RehearsalFailure::BrokenOff => {
            TravelFailure::BrokenOff("it broke off; this node's log says why".to_owned())
        }
        failure => TravelFailure::BrokenOff(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use raft_host_proto::stored;
    use raft_host_proto::stored::entry::Body;

    use super::*;
    use crate::fsm::Limits;
    use crate::fsm::native::{KV, NativeLoader};
    use crate::machine::QueryResult;
    use crate::node::bootstrap;
    use crate::storage::{GroupWrite, WriteBatch};
    use crate::transport::Identity;
    use crate::types::{EntryKind, LogEntry, ModuleHash, NodeId, Outcome, Term};

    const COUNT: &[u8] = br#"{"op":"count"}"#;

    /// A node whose log holds a module, activated at index 3, then one key, and two more at index 5. It has not
    /// written down that they are committed.
    fn parts() -> Parts {
        let (cluster, node) = (ClusterId([3; 16]), NodeId(1));
        let identity = Identity { cluster, node, address: "one:1".to_owned() };
        let (stores, group) = (Stores::memory(), GroupId::MAIN);
        let loader: SharedLoader = Arc::new(NativeLoader);
        bootstrap(&stores, &identity, group, Limits::default(), Arc::clone(&loader))
            .expect("empty");
        let module_hash = Bytes::from(ModuleHash::of(KV).0.to_vec());
        let set = |key: &str| stored::Command {
            data: format!(r#"{{"op":"set","key":"{key}","value":"x"}}"#).into(),
            session: None,
            actor: None,
        };
        let bodies = [
            Body::ModuleChunk(stored::ModuleChunk {
                module_hash: module_hash.clone(),
                total_bytes: KV.len() as u64,
                data: KV.into(),
                ..Default::default()
            }),
            Body::ActivateModule(stored::ActivateModule { module_hash, ..Default::default() }),
            set("a").into(),
            Body::Batch(stored::Batch { commands: vec![set("b"), set("c")] }),
        ];
        let entries = bodies.into_iter().zip(2..).map(|(body, index)| LogEntry {
            index: Index(index),
            term: Term(1),
            kind: EntryKind::Normal,
            data: stored::Entry { time_ms: index, actor: None, body: Some(body) }
                .encode_to_vec()
                .into(),
            context: Bytes::new(),
        });
        let write = GroupWrite { entries: entries.collect(), ..GroupWrite::default() };
        stores.log.write(&WriteBatch { groups: vec![(group, write)] }).expect("memory");
        Parts { stores, cluster, group, loader, stop: StopSignal::new() }
    }

    fn at(index: u64, ordinal: Option<u32>) -> Moment {
        Moment { index: Index(index), ordinal }
    }

    fn asked(parts: &Parts, at: Moment) -> Result<PastReply, TravelFailure> {
        parts.ask(COUNT, at, &AtomicBool::new(false))
    }

    #[test]
    fn the_state_is_asked_as_it_was_after_each_entry_and_between_its_commands() {
        let parts = parts();
        for (moment, count) in
            [(at(3, None), 0), (at(4, None), 1), (at(5, Some(0)), 2), (at(5, None), 3)]
        {
            let PastReply { reply, base } = asked(&parts, moment).expect("it is retained");
            assert_eq!((reply.applied, base), (moment.index, Index(1)));
            let answer = QueryResult::Answer(Outcome::Ok(format!(r#"{{"count":{count}}}"#).into()));
            assert_eq!(reply.result, answer, "{moment:?}");
        }
        let reply = asked(&parts, at(2, None)).expect("it is retained").reply;
        assert_eq!(reply.result, QueryResult::NoModule, "it was not active then");
    }

    #[test]
    fn what_is_not_retained_is_refused_with_the_oldest_state() {
        let parts = parts();
        for moment in [at(0, None), at(1, Some(0))] {
            match asked(&parts, moment) {
                Err(TravelFailure::Compacted { asked, oldest: Index(1) }) => {
                    assert_eq!(asked, moment.index);
                }
                other => panic!("{other:?}"),
            }
        }
        // It says that the entry is applied, and the log does not hold it.
        assert!(matches!(asked(&parts, at(9, None)), Err(TravelFailure::BrokenOff(_))));
    }

    #[test]
    fn nothing_is_executed_for_nobody() {
        let parts = parts();
        let unwanted = parts.ask(COUNT, at(5, None), &AtomicBool::new(true));
        assert!(matches!(unwanted, Err(TravelFailure::Unwanted)), "{unwanted:?}");
    }
}
