//! What a client was told to be committed stays committed, as it was told.

use raft_host::machine::Reply;
use raft_host::types::{Index, LogEntry, LogPosition, Position, Term};

use super::Invariant;
use super::notes::{Fingerprint, Map, Set, at, fingerprint};
use crate::sim::model::SharedReplay;
use crate::sim::observe::{AppliedEntry, End, Fact, Micros, Slot};

/// A command of the committed sequence.
#[derive(Debug)]
struct Command {
    term: Term,
    session: Option<(u64, u64)>,
    command: Fingerprint,
    reply: Reply,
}

/// See the module.
#[derive(Debug)]
pub struct NothingLost {
    replay: SharedReplay,
    commands: Map<Position, Command>,
    /// Of everything that was applied.
    terms: Map<Index, Term>,
    /// The highest index that each node ever applied from its log: its disk must not lose it.
    applied: Map<Slot, Index>,
    /// When a client was first told of an index higher than all before; ascending.
    acknowledged: Vec<(Micros, Index)>,
}

impl NothingLost {
    /// Compares what members show with the model of `replay`.
    pub fn new(replay: SharedReplay) -> NothingLost {
        NothingLost {
            replay,
            commands: Map::default(),
            terms: Map::default(),
            applied: Map::default(),
            acknowledged: Vec::new(),
        }
    }

    fn position(&mut self, slot: Slot, position: LogPosition) -> Result<(), String> {
        let term = *self.terms.entry(position.index).or_insert(position.term);
        if term == position.term {
            return Ok(());
        }
        Err(format!("{slot} has {} where term {term} was committed", at(position)))
    }

    /// An entry is applied only once it is durable there, so from now on it stays.
    fn kept(&mut self, slot: Slot, position: LogPosition) -> Result<(), String> {
        let highest = self.applied.entry(slot).or_default();
        *highest = position.index.max(*highest);
        self.position(slot, position)
    }

    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        self.kept(entry.slot, entry.position)?;
        for (position, answered) in entry.answers() {
            let Some((session, bytes)) = answered.command else { continue };
            self.commands.entry(position).or_insert_with(|| Command {
                term: entry.position.term,
                session,
                command: fingerprint(&[&bytes]),
                reply: answered.reply,
            });
        }
        Ok(())
    }

    /// Notes the highest index that a client was told of.
    fn told(&mut self, now: Micros, index: Index) {
        if self.acknowledged.last().is_none_or(|(_, highest)| *highest < index) {
            self.acknowledged.push((now, index));
        }
    }

    fn acknowledged(
        &self,
        session: Option<(u64, u64)>,
        position: LogPosition,
        ordinal: u32,
        command: &[u8],
        reply: &Reply,
    ) -> Result<(), String> {
        let told =
            format!("a client was told that its command is number {ordinal} at {}", at(position));
        let Some(committed) = self.commands.get(&Position { index: position.index, ordinal })
        else {
            return Err(format!("{told}, where nobody has applied a command"));
        };
        if committed.term != position.term {
            return Err(format!("{told}, where term {} was committed", committed.term));
        }
        if committed.session != session || committed.command != fingerprint(&[command]) {
            return Err(format!(
                "{told}, where another command is: session {:?}, not {session:?}",
                committed.session
            ));
        }
        if committed.reply != *reply {
            return Err(format!(
                "{told} and answered {reply:?}, where it was answered {:?}",
                committed.reply
            ));
        }
        Ok(())
    }

    fn persisted(
        &self,
        slot: Slot,
        entries: &[LogEntry],
        reset_to: Option<LogPosition>,
    ) -> Result<(), String> {
        let Some(applied) = self.applied.get(&slot).copied() else { return Ok(()) };
        if let Some(start) = reset_to.filter(|start| start.index < applied) {
            return Err(format!(
                "{slot} had applied index {applied} and dropped its log to start after {}",
                at(start)
            ));
        }
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        if first.index > applied {
            return Ok(());
        }
        for entry in entries.iter().take_while(|entry| entry.index <= applied) {
            if let Some(term) = self.terms.get(&entry.index)
                && *term != entry.term
            {
                return Err(format!(
                    "{slot} had applied index {} of term {term} and replaced it by term {}",
                    entry.index, entry.term
                ));
            }
        }
        if last.index < applied {
            return Err(format!(
                "{slot} had applied index {applied} and cut its log off after index {}",
                last.index
            ));
        }
        Ok(())
    }

    fn started(&mut self, slot: Slot, last: LogPosition, restored: Index) -> Result<(), String> {
        let highest = self.applied.entry(slot).or_default();
        if last.index < *highest {
            return Err(format!(
                "{slot} had applied index {highest} and recovered a log up to {}",
                at(last)
            ));
        }
        *highest = restored.max(*highest);
        Ok(())
    }

    fn end(&self, end: &End<'_>) -> Result<(), String> {
        // Clients may go on after that, and followers hear of it a moment later.
        if let Some(converged) = end.converged {
            let told = self.acknowledged.partition_point(|(at, _)| *at <= converged);
            let acknowledged = self.acknowledged[..told].last().map_or(Index(0), |(_, at)| *at);
            for node in end.survey.nodes.iter().filter(|node| node.is_member) {
                if node.applied < acknowledged {
                    return Err(format!(
                        "{} has applied only index {} at the end, but index {acknowledged} was \
                         acknowledged before all had converged",
                        node.slot, node.applied
                    ));
                }
            }
        }
        self.values(end)
    }

    fn values(&self, end: &End<'_>) -> Result<(), String> {
        let replay = self.replay.borrow();
        let mut as_of: Map<Slot, Index> = Map::default();
        as_of.extend(end.survey.nodes.iter().map(|node| (node.slot, node.applied)));
        as_of.extend(end.digests.iter().map(|(slot, index, _)| (*slot, *index)));
        let mut shown: Map<Slot, Set<&str>> = Map::default();
        for (slot, key, value) in end.values {
            shown.entry(*slot).or_default().insert(key);
            let index = as_of.get(slot).copied().unwrap_or(replay.applied());
            let expected = replay.model().value(key, index);
            if *value != expected {
                return Err(format!(
                    "{slot} shows {value:?} for {key:?} at index {index}, the committed commands \
                     give {expected:?}"
                ));
            }
        }
        for (slot, keys) in shown {
            let index = as_of.get(&slot).copied().unwrap_or(replay.applied());
            let missing = replay
                .model()
                .keys()
                .find(|key| !keys.contains(key) && replay.model().value(key, index).is_some());
            if let Some(key) = missing {
                return Err(format!("{slot} does not show {key:?} at the end"));
            }
        }
        Ok(())
    }
}

impl Invariant for NothingLost {
    fn name(&self) -> &'static str {
        "nothing_lost"
    }

    fn observe(&mut self, now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        self.replay.borrow_mut().observe(fact);
        match *fact {
            Fact::Started { slot, last, applied, .. } => self.started(slot, last, applied),
            Fact::Persisted { slot, entries, reset_to, .. } => {
                self.persisted(slot, entries, reset_to)
            }
            Fact::Applied(entry) => self.applied(entry),
            Fact::Membership { slot, position, .. } => self.kept(slot, position),
            // The log may go on to get entries from before the snapshot for a moment.
            Fact::Installed { slot, position, .. } => self.position(slot, position),
            Fact::Acknowledged { session, position, ordinal, command, reply } => {
                self.told(now, position.index);
                self.acknowledged(session, position, ordinal, command, reply)
            }
            Fact::End(end) => self.end(end),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{
        Words, applied, applied_batch, end, entry, judge, node_survey, ok, persisted, pos, refused,
        started, survey,
    };
    use super::*;
    use crate::sim::model::Replay;
    use crate::sim::observe::Phase;

    fn new() -> NothingLost {
        NothingLost::new(Replay::shared(&Words))
    }

    #[test]
    fn what_is_acknowledged_must_be_what_is_committed() {
        let set = applied(0, pos(2, 1), "set k 1", ok(""));
        let command = Bytes::from_static(b"set k 1");
        let (reply, other) = (ok(""), ok("?"));
        let told = |index, term, session, reply| Fact::Acknowledged {
            session,
            position: pos(index, term),
            ordinal: 0,
            command: &command,
            reply,
        };
        let facts = [Fact::Applied(&set), told(2, 1, None, &reply)];
        assert_eq!(judge(&mut new(), &facts), Ok(()));
        let wrong = [
            (told(3, 1, None, &reply), "nobody has applied"),
            (told(2, 2, None, &reply), "where term 1"),
            (told(2, 1, Some((1, 1)), &reply), "another command"),
            (told(2, 1, None, &other), "answered"),
        ];
        for (fact, what) in wrong {
            refused(&mut new(), &[Fact::Applied(&set), fact], what);
        }
    }

    #[test]
    fn each_command_of_an_entry_is_acknowledged_at_its_own_position() {
        let batch = [(None, "set k 1", ok("")), (Some((1, 1)), "set k 2", ok("second"))];
        let entry = applied_batch(0, pos(2, 1), &batch);
        let command = Bytes::from_static(b"set k 2");
        let reply = ok("second");
        let told = |ordinal| Fact::Acknowledged {
            session: Some((1, 1)),
            position: pos(2, 1),
            ordinal,
            command: &command,
            reply: &reply,
        };
        let fine = [Fact::Applied(&entry), told(1)];
        assert_eq!(judge(&mut new(), &fine), Ok(()));
        refused(&mut new(), &[Fact::Applied(&entry), told(0)], "another command");
        refused(&mut new(), &[Fact::Applied(&entry), told(2)], "nobody has applied");
    }

    #[test]
    fn a_node_does_not_lose_what_it_has_applied() {
        let set = applied(0, pos(2, 1), "set k 1", ok(""));
        let same = [entry(2, 1, "set k 1"), entry(3, 2, "")];
        let facts = [
            Fact::Applied(&set),
            persisted(0, pos(1, 1), &same),
            persisted(1, pos(1, 1), &[]),
            started(0, 1, None, pos(2, 1)),
        ];
        assert_eq!(judge(&mut new(), &facts), Ok(()));
        let replaced = [entry(2, 2, "")];
        let facts = [Fact::Applied(&set), persisted(0, pos(1, 1), &replaced)];
        refused(&mut new(), &facts, "replaced it by term 2");
        let facts = [Fact::Applied(&set), started(0, 1, None, pos(1, 1))];
        refused(&mut new(), &facts, "recovered a log up to index 1");
        let other = applied(1, pos(2, 2), "set k 1", ok(""));
        let facts = [Fact::Applied(&set), Fact::Applied(&other)];
        refused(&mut new(), &facts, "where term 1 was committed");
    }

    #[test]
    fn members_that_lack_acknowledged_commands_at_the_end_are_found() {
        let set = applied(0, pos(2, 1), "set k 1", ok(""));
        let command = Bytes::from_static(b"set k 1");
        let reply = ok("");
        let told = || Fact::Acknowledged {
            session: None,
            position: pos(2, 1),
            ordinal: 0,
            command: &command,
            reply: &reply,
        };
        let mut late = node_survey(1);
        late.applied = Index(1);
        let all = survey(0, Phase::Calm, vec![late]);
        let over = end(&all);
        let facts = [Fact::Applied(&set), told(), Fact::End(&over)];
        refused(&mut new(), &facts, "only index 1");
    }

    #[test]
    fn members_show_what_the_committed_commands_give() {
        let set = applied(0, pos(2, 1), "set k 1", ok(""));
        let all = survey(0, Phase::Calm, vec![]);
        let show = |key: &str, value| vec![(Slot(0), key.to_owned(), value)];
        let cases = [
            (show("k", Some(1)), None),
            (show("k", Some(2)), Some("shows Some(2)")),
            (show("other", None), Some("does not show \"k\"")),
        ];
        for (values, wrong) in cases {
            let mut over = end(&all);
            over.values = &values;
            let facts = [Fact::Applied(&set), Fact::End(&over)];
            match wrong {
                Some(what) => refused(&mut new(), &facts, what),
                None => assert_eq!(judge(&mut new(), &facts), Ok(())),
            }
        }
    }
}
