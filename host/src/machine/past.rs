//! A running hash over all that ever came out of the machine, by which replicas find out that they
//! differed even when their states do not.
//!
//! ```text
//!   past(0)        = 0
//!   past(position) = SHA-256(tag · past(position before) · index · ordinal · fuel · outcome · events)
//! ```
//!
//! A state tells nothing of an answer that nobody kept, of fuel, or of events. So this is part of
//! the state: of snapshots, and with them of the digest. Texts for people (why a module or a limit
//! was refused) are left out: their wording may change from one version to the next.

use sha2::{Digest as _, Sha256};

use super::access::Denied;
use super::reply::{Applied, CommandRefused, Reply, Rewound, SessionNumber};
use crate::types::{Outcome, Position, StateDigest};

/// Begins what is hashed.
const TAG: &[u8] = b"raft-host past 1";

/// The hash after some position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past(StateDigest);

impl Default for Past {
    /// Before the first entry.
    fn default() -> Past {
        Past(StateDigest([0; 32]))
    }
}

impl From<StateDigest> for Past {
    fn from(digest: StateDigest) -> Past {
        Past(digest)
    }
}

impl Past {
    /// For snapshots.
    pub(super) fn digest(self) -> StateDigest {
        self.0
    }

    /// Takes in what the command at `position` did, or what else its entry holds.
    pub(super) fn advance(&mut self, position: Position, applied: &Applied) {
        let mut hasher = Sha256::new_with_prefix(TAG);
        hasher.update(self.0.0);
        number(&mut hasher, position.index.0);
        number(&mut hasher, position.ordinal.into());
        number(&mut hasher, applied.fuel_used);
        reply(&mut hasher, &applied.reply);
        number(&mut hasher, applied.events.len() as u64);
        for event in &applied.events {
            bytes(&mut hasher, &event.topic);
            bytes(&mut hasher, &event.data);
        }
        // Last, and only where there is one: nothing else is hashed to the same.
        if let Some(waited) = applied.waited {
            session_number(&mut hasher, waited);
        }
        self.0 = StateDigest(hasher.finalize().into());
    }
}

/// Each kind has a number of its own, which never changes.
fn reply(hasher: &mut Sha256, reply: &Reply) {
    match reply {
        Reply::Nothing => hasher.update([0]),
        Reply::Command(result) => {
            hasher.update([1]);
            outcome(hasher, result);
        }
        Reply::Waiting(it) => {
            hasher.update([21]);
            session_number(hasher, *it);
        }
        Reply::NoModule => hasher.update([2]),
        Reply::Refused(reason) => {
            hasher.update([3]);
            refusal(hasher, reason);
        }
        Reply::SessionOpened { id, ttl_ms, responses_max, responses_max_bytes, ordered } => {
            hasher.update([4]);
            for value in [id, ttl_ms, responses_max, responses_max_bytes] {
                number(hasher, *value);
            }
            if *ordered {
                hasher.update([1]);
            }
        }
        Reply::SessionKept { ttl_ms } => {
            hasher.update([20]);
            number(hasher, *ttl_ms);
        }
        Reply::SessionClosed => hasher.update([5]),
        Reply::ChunkStored { received, total } => {
            hasher.update([6]);
            number(hasher, *received);
            number(hasher, *total);
        }
        Reply::ChunkRefused(_) => hasher.update([7]),
        Reply::Activated { hash, rewound, .. } => {
            hasher.update([8]);
            hasher.update(hash.0);
            if let Some(Rewound { commands, differing, first }) = rewound {
                number(hasher, *commands);
                number(hasher, *differing);
                let first = first.unwrap_or_default();
                number(hasher, first.index.0);
                number(hasher, first.ordinal.into());
            }
        }
        Reply::AlreadyActive { hash, .. } => {
            hasher.update([9]);
            hasher.update(hash.0);
        }
        Reply::ActivationFailed(_) => hasher.update([10]),
        Reply::NotSigned(_) => hasher.update([32]),
        Reply::ReceiptStale(_) => hasher.update([33]),
        Reply::ReceiptRecorded { .. } => hasher.update([34]),
        Reply::ReceiptRefused(_) => hasher.update([35]),
        // What it is of is part of the state.
        Reply::Forked { .. } => hasher.update([36]),
        Reply::ForkRefused(_) => hasher.update([37]),
        Reply::UpgradeSettled { was_open } => hasher.update([38, u8::from(*was_open)]),
        // What they are now is part of the state.
        Reply::KeysSet(_) => hasher.update([30]),
        Reply::KeysRefused(_) => hasher.update([31]),
        // What they are now is part of the state.
        Reply::LimitsSet { .. } => hasher.update([11]),
        Reply::LimitsRefused(_) => hasher.update([12]),
        Reply::EngineSet { .. } => hasher.update([13]),
        Reply::EngineRefused(_) => hasher.update([14]),
        Reply::LevelSet { .. } => hasher.update([22]),
        // What was found is no part of the state: see `digest.rs`.
        Reply::DigestTaken { .. } => hasher.update([15]),
        Reply::DigestJudged(_) => hasher.update([16]),
        Reply::ActivationSuperseded { active } => {
            hasher.update([17]);
            if let Some(active) = active {
                hasher.update(active.hash.0);
                number(hasher, active.activated_at.0);
            }
        }
        Reply::ClockSet { .. } => hasher.update([18]),
        Reply::ClockRefused(_) => hasher.update([19]),
        // What was made of it is part of the state.
        Reply::AccessSet { .. } => hasher.update([23]),
        Reply::AccessRefused(_) => hasher.update([24]),
    }
}

fn outcome(hasher: &mut Sha256, result: &Outcome) {
    match result {
        Outcome::Ok(answer) => {
            hasher.update([1]);
            bytes(hasher, answer);
        }
        Outcome::Rejected(reason) => {
            hasher.update([2]);
            bytes(hasher, reason);
        }
        Outcome::Trapped(kind) => hasher.update([3, *kind as u8]),
        Outcome::Duplicate(original) => {
            hasher.update([4]);
            outcome(hasher, original);
        }
    }
}

fn refusal(hasher: &mut Sha256, reason: &CommandRefused) {
    match reason {
        CommandRefused::SessionExpired => hasher.update([1]),
        CommandRefused::SequenceTooOld => hasher.update([2]),
        CommandRefused::TooLarge { bytes, max } => {
            hasher.update([3]);
            number(hasher, *bytes);
            number(hasher, *max);
        }
        CommandRefused::Malformed(_) => hasher.update([4]),
        CommandRefused::Denied(denied) => {
            hasher.update([24]);
            denial(hasher, denied);
        }
        CommandRefused::SequenceReused { sequence } => {
            hasher.update([20]);
            number(hasher, *sequence);
        }
        CommandRefused::SessionFull { responses, bytes, .. } => {
            hasher.update([21]);
            number(hasher, *responses);
            number(hasher, *bytes);
        }
        CommandRefused::SessionsFull { bytes, .. } => {
            hasher.update([22]);
            number(hasher, *bytes);
        }
        CommandRefused::TooManySessions { max } => {
            hasher.update([23]);
            number(hasher, *max);
        }
    }
}

fn denial(hasher: &mut Sha256, denied: &Denied) {
    match denied {
        Denied::Nobody => hasher.update([0]),
        Denied::PrincipalGone(id) => {
            hasher.update([1]);
            number(hasher, id.0);
        }
        Denied::TokenGone(id) => {
            hasher.update([2]);
            number(hasher, id.0);
        }
        Denied::TokenExpired(id) => {
            hasher.update([3]);
            number(hasher, id.0);
        }
        Denied::NoRight { name, right, class } => {
            hasher.update([4]);
            bytes(hasher, name.as_str().as_bytes());
            bytes(hasher, right.as_str().as_bytes());
            if let Some(class) = class {
                bytes(hasher, class.unwrap_or_default().as_str().as_bytes());
            }
        }
        Denied::OthersSession { name, session_id } => {
            hasher.update([5]);
            bytes(hasher, name.as_str().as_bytes());
            number(hasher, *session_id);
        }
    }
}

fn session_number(hasher: &mut Sha256, it: SessionNumber) {
    number(hasher, it.session_id);
    number(hasher, it.sequence);
}

fn number(hasher: &mut Sha256, number: u64) {
    hasher.update(number.to_le_bytes());
}

fn bytes(hasher: &mut Sha256, bytes: &[u8]) {
    number(hasher, bytes.len() as u64);
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Event, Index, TrapKind};

    fn answered(answer: &str) -> Applied {
        let reply = Reply::Command(Outcome::Ok(answer.into()));
        Applied { fuel_used: 7, ..Applied::without_guest(reply) }
    }

    fn after(entries: &[Applied]) -> Past {
        let mut past = Past::default();
        for (at, applied) in entries.iter().enumerate() {
            past.advance(Position::first(Index(at as u64 + 1)), applied);
        }
        past
    }

    #[test]
    fn each_part_of_what_came_out_makes_a_difference_for_ever() {
        let event = |topic: &str, data: &str| Event { topic: topic.into(), data: data.into() };
        let with = |events: &[Event]| Applied { events: events.to_vec(), ..answered("a") };
        let others = [
            answered("b"),
            Applied { fuel_used: 8, ..answered("a") },
            Applied { reply: Reply::Command(Outcome::Rejected("a".into())), ..answered("a") },
            Applied { reply: Reply::Command(Outcome::Trapped(TrapKind::Exit)), ..answered("a") },
            Applied { reply: Reply::Nothing, ..answered("a") },
            with(&[event("t", "d")]),
            with(&[event("td", "")]),
            with(&[event("t", ""), event("d", "")]),
        ];
        let mut seen = vec![after(&[answered("a"), answered("z")])];
        for other in others {
            let past = after(&[other.clone(), answered("z")]);
            assert!(!seen.contains(&past), "{other:?}");
            seen.push(past);
        }
        assert_ne!(after(&[answered("z"), answered("a")]), seen[0], "the order counts");
        let mut joined = Past::default();
        for (ordinal, applied) in (0..).zip([answered("a"), answered("z")]) {
            joined.advance(Position { index: Index(1), ordinal }, &applied);
        }
        assert_ne!(joined, seen[0], "so does which entry holds them");
    }

    #[test]
    fn what_only_one_node_knows_makes_none() {
        let told = Applied {
            trap_message: Some("at 0x7f".into()),
            pages_dirtied: Some(3),
            ..answered("a")
        };
        assert_eq!(after(&[told]), after(&[answered("a")]));
        let refused = |words: &str| Applied::without_guest(Reply::LimitsRefused(words.into()));
        assert_eq!(after(&[refused("one wording")]), after(&[refused("another")]));
    }
}
