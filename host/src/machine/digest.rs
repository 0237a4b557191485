//! Digests of everything that is replicated, by which replicas find out that they differ.
//!
//! ```text
//!   digest = SHA-256(tag · machine part · guest part)
//!   machine part = SHA-256(header of a snapshot · each session's digest · modules · uploads)
//!   guest part = what the state machine's instance says of its memory, globals and sizes
//! ```
//!
//! The cost follows what changed: a session's digest is kept until the session changes, a
//! response's for as long as the response is there, and an upload's hash runs along. What was found stays with this node: it is
//! no part of the state, because a node whose state went wrong must not hand it on as right.

use std::collections::VecDeque;
use std::ops::Range;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::access;
use super::core::{Machine, State};
use super::keys::signature_to_log;
use super::sessions::{Response, Session};
use super::snapshot::header;
use crate::fsm::{GuestDigest, HostFailure};
use crate::types::{Index, ModuleHash, StateDigest};

/// Begins what is hashed, so that a digest of this format is equal to none of another.
const TAG: &[u8] = b"raft-host state digest 1";
const MACHINE_TAG: &[u8] = b"raft-host machine digest 1";
/// Latest points whose digests are kept.
const KEPT: usize = 8;
/// Ranges that changed, at most, as of [`GuestDigest::changed`].
const CHANGED_MAX: usize = 1_000;

/// What was found at a digest point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenDigest {
    /// The point.
    pub index: Index,
    /// Of machine and guest.
    pub digest: StateDigest,
    /// Of all that the machine keeps around the guest.
    pub machine: StateDigest,
    /// Of the guest's memory, globals and sizes; `None` when no module is active.
    pub guest: Option<StateDigest>,
    /// Ranges of the guest's memory, in bytes, that may have changed since the point before.
    pub changed: Vec<Range<u64>>,
}

/// The latest of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct Taken {
    latest: VecDeque<TakenDigest>,
    /// What digests between points have found changed since the latest one.
    changed: Vec<Range<u64>>,
}

impl Machine {
    /// What was found at a digest point, if that was here and not long ago.
    pub fn taken_digest(&self, point: Index) -> Option<&TakenDigest> {
        self.taken.latest.iter().rev().find(|taken| taken.index == point)
    }

    /// Digests the state as the one after the entry at `index`, and keeps the result.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub(crate) fn take_digest(&mut self, index: Index) -> Result<&TakenDigest, HostFailure> {
        let machine = machine_part(&self.state, index);
        let guest = self.fsm.as_mut().map(|fsm| fsm.digest()).transpose()?;
        let known = std::mem::take(&mut self.taken.changed);
        let (guest, changed) = match guest {
            Some(GuestDigest { digest, changed }) => (Some(digest), union(known, changed)),
            None => (None, known),
        };
        let digest = whole(machine, guest);
        // Only a mistaken caller takes it again.
        let latest = &mut self.taken.latest;
        latest.retain(|taken| taken.index != index);
        while latest.len() >= KEPT {
            latest.pop_front();
        }
        latest.push_back(TakenDigest { index, digest, machine, guest, changed });
        Ok(latest.back().expect("just pushed"))
    }

    /// Digests the state as it is, for whoever copies it. No digest point: nobody compares it with others.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub fn digest_now(&mut self) -> Result<StateDigest, HostFailure> {
        let machine = machine_part(&self.state, self.state.applied);
        let guest = self.guest_digest()?;
        Ok(whole(machine, guest))
    }

    /// Digests the guest as it is, between points; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub fn guest_digest(&mut self) -> Result<Option<StateDigest>, HostFailure> {
        let Some(fsm) = &mut self.fsm else { return Ok(None) };
        let GuestDigest { digest, changed } = fsm.digest()?;
        // The next point is to know all that changed since the one before.
        let known = std::mem::take(&mut self.taken.changed);
        self.taken.changed = union(known, changed);
        Ok(Some(digest))
    }

    /// Flips a bit of the guest's state behind everybody's back; see [`crate::fsm::Fsm::flip_bit`].
    /// False when there is no guest.
    #[cfg(feature = "museum")]
    pub fn flip_bit(&mut self, at: u64) -> bool {
        self.fsm.as_mut().map(|fsm| fsm.flip_bit(at)).is_some()
    }
}

/// All of both, ascending; the last one covers what is too much.
fn union(known: Vec<Range<u64>>, more: Vec<Range<u64>>) -> Vec<Range<u64>> {
    if known.is_empty() {
        return more;
    }
    let mut all = known;
    all.extend(more);
    all.sort_unstable_by_key(|range| range.start);
    let mut union: Vec<Range<u64>> = Vec::new();
    for range in all {
        let is_full = union.len() == CHANGED_MAX;
        match union.last_mut() {
            Some(last) if range.start <= last.end || is_full => last.end = last.end.max(range.end),
            _ => union.push(range),
        }
    }
    union
}

fn whole(machine: StateDigest, guest: Option<StateDigest>) -> StateDigest {
    let mut hasher = Sha256::new_with_prefix(TAG);
    hasher.update(machine.0);
    match guest {
        Some(guest) => {
            hasher.update([1]);
            hasher.update(guest.0);
        }
        None => hasher.update([0]),
    }
    StateDigest(hasher.finalize().into())
}

/// Of what a snapshot after the entry at `index` would hold, but for the guest.
fn machine_part(state: &State, index: Index) -> StateDigest {
    let mut hasher = Sha256::new_with_prefix(MACHINE_TAG);
    let header =
        raft_host_proto::stored::SnapshotHeader { applied_index: index.0, ..header(state) };
    // The counts of all that follows are part of it.
    let header = header.encode_to_vec();
    hasher.update((header.len() as u64).to_le_bytes());
    hasher.update(&header);
    for (id, session) in state.sessions.iter() {
        hasher.update(session.digest.get_or_init(|| session_digest(id, session)));
    }
    for (hash, module) in &state.modules.stored {
        // Its bytes are what the hash says: they were checked when they were complete.
        hash_module(&mut hasher, *hash, module.bytes.len() as u64, module.completed_at);
        hasher.update([u8::from(module.ever_activated) | (u8::from(module.is_state) << 1)]);
        hasher.update((module.label.len() as u64).to_le_bytes());
        hasher.update(&module.label);
        // Nothing, for those without: as when there were no signatures yet.
        for signature in &module.signatures {
            let record = signature_to_log(signature).encode_to_vec();
            hasher.update((record.len() as u64).to_le_bytes());
            hasher.update(&record);
        }
    }
    for (hash, upload) in &state.modules.uploads {
        hash_module(&mut hasher, *hash, upload.total, upload.last_chunk.index);
        if upload.is_state {
            hasher.update(b"state");
        }
        hasher.update(upload.last_chunk.time_ms.to_le_bytes());
        hasher.update((upload.received().len() as u64).to_le_bytes());
        hasher.update(upload.hash().0);
    }
    StateDigest(hasher.finalize().into())
}

fn hash_module(hasher: &mut Sha256, hash: ModuleHash, size: u64, index: Index) {
    hasher.update(hash.0);
    hasher.update(size.to_le_bytes());
    hasher.update(index.0.to_le_bytes());
}

fn session_digest(id: u64, session: &Session) -> [u8; 32] {
    let Session { ttl_ms, expires_at_ms, last_used, acknowledged, completed, .. } = session;
    let Session { ordered, waiting, owner, .. } = session;
    let mut hasher = Sha256::new();
    let count = completed.len() as u64;
    for number in [id, *ttl_ms, *expires_at_ms, last_used.0, *acknowledged, count] {
        hasher.update(number.to_le_bytes());
    }
    for (sequence, response) in completed {
        hasher.update(sequence.to_le_bytes());
        hasher.update(response.command);
        hasher.update(response.digest.get_or_init(|| response_digest(response)));
    }
    if *ordered {
        hasher.update((waiting.len() as u64).to_le_bytes());
        for (sequence, waiting) in waiting {
            hasher.update(sequence.to_le_bytes());
            hasher.update((waiting.data.len() as u64).to_le_bytes());
            hasher.update(waiting.command);
            if let Some(actor) = access::actor_to_log(waiting.actor) {
                hasher.update(b"actor");
                for number in [actor.principal, actor.token, actor.local_node] {
                    hasher.update(number.to_le_bytes());
                }
            }
        }
    }
    if let Some(owner) = owner {
        hasher.update(b"owner");
        hasher.update(owner.to_record().to_le_bytes());
    }
    hasher.finalize().into()
}

fn response_digest(response: &Response) -> [u8; 32] {
    Sha256::digest(response.outcome.encode_to_vec()).into()
}
