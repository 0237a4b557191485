//! What a backup or an export is restored to is what the cluster had there, whoever was told of it; and the new
//! cluster shares no name with the one before.

use raft_host::types::LogPosition;

use super::Invariant;
use super::notes::{Map, at};
use crate::sim::model::SharedReplay;
use crate::sim::observe::{Digest, Fact, Micros, Restored};

/// See the module.
#[derive(Debug)]
pub struct RestoreKeeps {
    replay: SharedReplay,
    /// Of states that somebody had.
    digests: Map<LogPosition, Digest>,
    /// Of states that were restored.
    restored: Map<LogPosition, Digest>,
}

impl RestoreKeeps {
    /// Judges by what the model made of the entries.
    pub fn new(replay: SharedReplay) -> RestoreKeeps {
        RestoreKeeps { replay, digests: Map::default(), restored: Map::default() }
    }

    fn had(&mut self, position: LogPosition, digest: Digest) -> Result<(), String> {
        self.digests.entry(position).or_insert(digest);
        match self.restored.get(&position) {
            Some(restored) if *restored != digest => {
                Err(format!("another state was restored than that at {}", at(position)))
            }
            _ => Ok(()),
        }
    }

    fn restored(&mut self, made: &Restored) -> Result<(), String> {
        let position = made.position;
        if let Some(digest) = made.digest {
            if self.digests.get(&position).is_some_and(|known| *known != digest) {
                return Err(format!(
                    "another state is restored than others had at {}",
                    at(position)
                ));
            }
            self.restored.insert(position, digest);
        }
        let replay = self.replay.borrow();
        if replay.applied() < position.index {
            return Err(format!("nobody has applied what is restored at {}", at(position)));
        }
        for (key, found) in &made.values {
            let expected = replay.model().value(key, position.index);
            if *found != expected {
                return Err(format!(
                    "{key} is restored as {found:?} at {}, where it was {expected:?}",
                    at(position)
                ));
            }
        }
        if made.cluster == made.of {
            return Err("the new cluster has the id of the old one".to_owned());
        }
        if (made.members, made.sessions) != (1, 0) {
            let Restored { members, sessions, .. } = made;
            return Err(format!("it begins with {members} members and {sessions} sessions"));
        }
        // A new log, with a state that somebody else has written.
        if made.digest.is_none() {
            return Ok(());
        }
        if made.begins.index <= position.index || made.begins.term <= position.term {
            return Err(format!(
                "it begins at {}, and the old one was at {}",
                at(made.begins),
                at(position)
            ));
        }
        match made.origin {
            Some(origin) if origin == (made.of, position) => Ok(()),
            other => Err(format!("it says that it was made of {other:?}")),
        }
    }
}

impl Invariant for RestoreKeeps {
    fn name(&self) -> &'static str {
        "restore_keeps"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        self.replay.borrow_mut().observe(fact);
        match fact {
            Fact::Applied(entry) => {
                entry.digest.map_or(Ok(()), |digest| self.had(entry.position, digest))
            }
            Fact::Installed { position, digest, .. } => self.had(*position, *digest),
            Fact::Restored(made) => self.restored(made),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::ClusterId;

    use super::super::testing::{self, Words, judge, ok, pos, refused};
    use super::*;
    use crate::sim::model::Replay;
    use crate::sim::observe::AppliedEntry;

    fn invariant() -> RestoreKeeps {
        RestoreKeeps::new(Replay::shared(&Words))
    }

    fn made() -> Restored {
        let of = ClusterId([1; 16]);
        Restored {
            of,
            position: pos(9, 2),
            digest: Some([1; 16]),
            values: vec![("k".to_owned(), None)],
            cluster: ClusterId([2; 16]),
            begins: pos(1_000, 3),
            members: 1,
            sessions: 0,
            has_rights: false,
            origin: Some((of, pos(9, 2))),
        }
    }

    fn had(digest: u8) -> AppliedEntry {
        AppliedEntry { digest: Some([digest; 16]), ..testing::applied(0, pos(9, 2), "a", ok("a")) }
    }

    #[test]
    fn what_is_restored_is_what_was_there() {
        let (same, other, good) = (had(1), had(2), made());
        let facts = [Fact::Applied(&same), Fact::Restored(&good)];
        assert_eq!(judge(&mut invariant(), &facts), Ok(()));
        let facts = [Fact::Applied(&other), Fact::Restored(&good)];
        refused(&mut invariant(), &facts, "another state is restored");
        refused(&mut invariant(), &[Fact::Restored(&good)], "nobody has applied");
    }

    #[test]
    fn nothing_of_the_old_cluster_has_a_name_in_the_new_one() {
        let same = had(1);
        let bad = [
            (Restored { cluster: ClusterId([1; 16]), ..made() }, "the id of the old one"),
            (Restored { sessions: 2, ..made() }, "2 sessions"),
            (Restored { begins: pos(9, 3), ..made() }, "it begins"),
            (Restored { begins: pos(1_000, 2), ..made() }, "it begins"),
            (Restored { origin: None, ..made() }, "made of None"),
            (Restored { values: vec![("k".to_owned(), Some(1))], ..made() }, "k is restored"),
        ];
        for (made, words) in bad {
            let facts = [Fact::Applied(&same), Fact::Restored(&made)];
            refused(&mut invariant(), &facts, words);
        }
        // Of an export nothing but the guest's state is there.
        let exported = Restored { digest: None, begins: pos(1, 1), origin: None, ..made() };
        let facts = [Fact::Applied(&same), Fact::Restored(&exported)];
        assert_eq!(judge(&mut invariant(), &facts), Ok(()));
    }
}
