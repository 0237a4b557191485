//! What undoing an upgrade would change, as nodes said before, as it went when it was done, and as a guest says whose
//! module was never replaced.
//!
//! All of them tell of one list, that of the commands since the activation, as far as each has come: so each is the
//! beginning of a longer one.

use std::collections::BTreeMap;

use raft_host::machine::{Incumbent, Reply, RewindPreview, Rewound};
use raft_host::node::RewindTrial;
use raft_host::types::{Index, Outcome, Position};
use raft_host_proto::stored;

use crate::sim::observe::Slot;
use crate::sim::shadow::WouldBe;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// By the activation that is, or was to be, undone.
    of: BTreeMap<Index, OfActivation>,
    /// Those that succeeded last as of an entry: what they would replace, and until when.
    open: BTreeMap<Index, (Incumbent, u64)>,
    /// Why there was no way back as of an entry.
    refused: BTreeMap<Index, String>,
}

/// Commands that end otherwise, and how.
type Differing = BTreeMap<Position, Outcome>;

#[derive(Debug, Default)]
struct OfActivation {
    /// As nodes have tried it.
    tried: List,
    /// As the other guest has answered.
    would_be: List,
    /// Trials of more than that one has executed yet.
    waiting: Vec<(Slot, Index, Differing)>,
}

/// Of one activation, as far as it is known.
#[derive(Debug, Default)]
struct List {
    until: Index,
    /// Commands up to there, by where that was.
    commands: BTreeMap<Index, u64>,
    differing: Differing,
}

impl List {
    fn up_to(&self, index: Index) -> Differing {
        let within = |(position, _): &(&Position, &Outcome)| position.index <= index;
        let within = self.differing.iter().take_while(within);
        within.map(|(position, outcome)| (*position, outcome.clone())).collect()
    }
}

/// The first command that two lists do not agree about, in words.
fn difference(said: &Differing, known: &Differing) -> Option<String> {
    let mut positions = said.keys().chain(known.keys()).collect::<Vec<_>>();
    positions.sort();
    let at = positions.into_iter().find(|at| said.get(at) != known.get(at))?;
    let words = |list: &Differing| match list.get(at) {
        Some(outcome) => format!("{outcome:?}"),
        None => "as it did".to_owned(),
    };
    Some(format!("command {at} would end as {}, and not as {}", words(said), words(known)))
}

impl OfActivation {
    fn against_would_be(&self, of: &(Slot, Index, Differing)) -> Result<(), String> {
        let (slot, until, said) = of;
        match difference(said, &self.would_be.up_to(*until)) {
            None => Ok(()),
            Some(why) => Err(format!(
                "{slot} tried what undoing the upgrade would change up to index {until}, and was wrong, as a guest \
                 shows whose module was never replaced: {why}"
            )),
        }
    }

    fn tried(&mut self, slot: Slot, trial: &RewindTrial) -> Result<(), String> {
        let RewindPreview { until, commands, .. } = trial.preview;
        let told = trial.differences.iter();
        let said: Differing =
            told.map(|(executed, outcome)| (executed.position, outcome.clone())).collect();
        if said.len() as u64 != trial.differing {
            return Err(format!(
                "{slot} says that {} commands would end otherwise, and names {}",
                trial.differing,
                said.len()
            ));
        }
        let beside = |other: &(&Index, &u64)| match other.0.cmp(&until) {
            std::cmp::Ordering::Less => *other.1 > commands,
            std::cmp::Ordering::Equal => *other.1 != commands,
            std::cmp::Ordering::Greater => *other.1 < commands,
        };
        if let Some((index, others)) = self.tried.commands.iter().find(beside) {
            return Err(format!(
                "{slot} has {commands} commands to execute again up to index {until}, where another trial had \
                 {others} up to index {index}"
            ));
        }
        self.tried.commands.insert(until, commands);
        let both = until.min(self.tried.until);
        let of_both = List { differing: said.clone(), ..List::default() }.up_to(both);
        if let Some(why) = difference(&of_both, &self.tried.up_to(both)) {
            return Err(format!(
                "{slot} comes to another end up to index {until} than another trial: {why}"
            ));
        }
        if until > self.tried.until {
            (self.tried.until, self.tried.differing) = (until, said.clone());
        }
        let of = (slot, until, said);
        match until <= self.would_be.until {
            true => self.against_would_be(&of)?,
            false => self.waiting.push(of),
        }
        Ok(())
    }

    fn would_be(&mut self, entry: &WouldBe) -> Result<(), String> {
        let list = &mut self.would_be;
        if entry.index <= list.until {
            return Ok(());
        }
        let before = list.commands.last_key_value().map_or(0, |(_, commands)| *commands);
        list.commands.insert(entry.index, before + entry.commands);
        list.differing.extend(entry.differing.iter().cloned());
        list.until = entry.index;
        let is_known = |of: &mut (Slot, Index, Differing)| of.1 <= entry.index;
        let known: Vec<_> = self.waiting.extract_if(.., is_known).collect();
        known.iter().try_for_each(|of| self.against_would_be(of))
    }

    /// It was undone at `index`.
    fn undone(&self, index: Index, rewound: &Rewound) -> Result<(), String> {
        let wrong = |list: &List, by: &str| {
            let (differing, first) =
                (list.differing.len() as u64, list.differing.keys().next().copied());
            Err(format!(
                "the upgrade was undone at index {index}: {rewound:?}, but {by} say that {differing} commands end \
                 otherwise up to index {}, the first of them {first:?}",
                list.until
            ))
        };
        let tried = &self.tried;
        let first = tried.differing.keys().next().copied();
        let nothing_between =
            tried.commands.last_key_value().is_some_and(|(_, it)| *it == rewound.commands);
        let is_beginning = tried.commands.values().all(|commands| *commands <= rewound.commands)
            && tried.differing.len() as u64 <= rewound.differing
            && (first.is_none() || first == rewound.first);
        let is_same = tried.differing.len() as u64 == rewound.differing && first == rewound.first;
        match is_beginning && (is_same || !nothing_between) {
            true => Ok(()),
            false => wrong(tried, "trials"),
        }
    }

    /// As it is on a node with the other guest.
    fn undone_beside(&self, index: Index, rewound: &Rewound) -> Result<(), String> {
        let known = &self.would_be;
        let first = known.differing.keys().next().copied();
        let commands = known.commands.last_key_value().map_or(0, |(_, commands)| *commands);
        let is = (rewound.commands, rewound.differing, rewound.first);
        let would_be = (commands, known.differing.len() as u64, first);
        match is == would_be {
            true => Ok(()),
            false => Err(format!(
                "the upgrade was undone at index {index}: {rewound:?}, but beside a guest whose module was never \
                 replaced {} of {commands} commands end otherwise, the first of them {first:?}",
                known.differing.len()
            )),
        }
    }
}

impl Trials {
    /// A node has tried it.
    pub(super) fn tried(
        &mut self,
        slot: Slot,
        trial: &RewindTrial,
        expires_ms: u64,
    ) -> Result<(), String> {
        let RewindPreview { active, base, until, .. } = trial.preview;
        if let Some(why) = self.refused.get(&until) {
            return Err(format!("{slot} has a way back as of index {until}, and another: {why}"));
        }
        self.open.insert(until, (active, expires_ms));
        self.of.entry(base.next()).or_default().tried(slot, trial)
    }

    /// There was none.
    pub(super) fn refused(&mut self, slot: Slot, until: Index, why: &str) -> Result<(), String> {
        if self.open.contains_key(&until) {
            return Err(format!("another has a way back as of index {until}, and {slot}: {why}"));
        }
        self.refused.insert(until, why.to_owned());
        Ok(())
    }

    /// An entry as it would have gone.
    pub(super) fn would_be(&mut self, entry: &WouldBe) -> Result<(), String> {
        self.of.entry(entry.activated_at).or_default().would_be(entry)
    }

    /// An activation was undone, as a node shows that has the other guest beside it.
    pub(super) fn undone_beside(
        &self,
        (activated_at, index): (Index, Index),
        rewound: &Rewound,
    ) -> Result<(), String> {
        self.of.get(&activated_at).map_or(Ok(()), |of| of.undone_beside(index, rewound))
    }

    /// The first node has applied an activation. `replaced_at`: what it would undo, if it undoes anything.
    pub(super) fn activated(
        &self,
        index: Index,
        time_ms: u64,
        replaced_at: Option<Index>,
        activate: &stored::ActivateModule,
        reply: &Reply,
    ) -> Result<(), String> {
        if !activate.rewind {
            return Ok(());
        }
        let before = Index(index.0 - 1);
        match reply {
            Reply::Activated { rewound: Some(rewound), .. } => {
                if let Some(why) = self.refused.get(&before) {
                    return Err(format!(
                        "the upgrade was undone at index {index}, right after a trial of that had said: {why}"
                    ));
                }
                let of = replaced_at.and_then(|activated_at| self.of.get(&activated_at));
                of.map_or(Ok(()), |of| of.undone(index, rewound))
            }
            Reply::ActivationFailed(why) => match self.open.get(&before) {
                Some((active, expires_ms))
                    if activate.replaces.as_ref() == Some(&active.to_log())
                        && time_ms < *expires_ms =>
                {
                    Err(format!(
                        "the upgrade was not undone at index {index}, right after a trial of that: {why}"
                    ))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use raft_host::machine::Executed;
    use raft_host::types::{ActorName, ModuleHash};

    use super::*;

    const ACTIVE: Incumbent = Incumbent { hash: ModuleHash([2; 32]), activated_at: Index(4) };

    fn at(index: u64) -> Position {
        Position::first(Index(index))
    }

    fn other(byte: u8) -> Outcome {
        Outcome::Ok(vec![byte])
    }

    /// Up to an entry, with commands at all entries after the activation.
    fn trial(until: u64, differing: &[(u64, u8)]) -> RewindTrial {
        let executed = |index| Executed {
            position: at(index),
            time_ms: 1,
            actor: ActorName::NONE,
            data: Bytes::new(),
            outcome: other(0),
        };
        let differences: Vec<_> =
            differing.iter().map(|(index, byte)| (executed(*index), other(*byte))).collect();
        RewindTrial {
            preview: RewindPreview {
                module: ModuleHash([1; 32]),
                active: ACTIVE,
                base: Index(3),
                until: Index(until),
                commands: until - 4,
            },
            differing: differences.len() as u64,
            differences,
            elapsed: Duration::ZERO,
        }
    }

    fn would_be(index: u64, differs: Option<u8>) -> WouldBe {
        WouldBe {
            activated_at: Index(4),
            index: Index(index),
            commands: u64::from(index > 4),
            differing: differs.map(|byte| (at(index), other(byte))).into_iter().collect(),
        }
    }

    fn found(result: Result<(), String>, words: &str) {
        let why = result.expect_err(words);
        assert!(why.contains(words), "{why}");
    }

    fn rewind(replaces: Incumbent) -> stored::ActivateModule {
        let replaces = Some(replaces.to_log());
        stored::ActivateModule { rewind: true, replaces, ..Default::default() }
    }

    fn undone(commands: u64, differing: u64, first: Option<u64>) -> Reply {
        let rewound = Some(Rewound { commands, differing, first: first.map(at) });
        let (hash, previous) = (ModuleHash([1; 32]), Some(ACTIVE.hash));
        Reply::Activated { index: Index(9), hash, previous, rewound }
    }

    #[test]
    fn trials_that_go_further_begin_as_the_others() {
        let mut trials = Trials::default();
        for (slot, until, differing) in
            [(0, 6, &[(5, 1)][..]), (1, 8, &[(5, 1), (8, 2)]), (2, 5, &[(5, 1)])]
        {
            assert_eq!(trials.tried(Slot(slot), &trial(until, differing), 9), Ok(()));
        }
        found(trials.tried(Slot(2), &trial(8, &[(5, 1)]), 9), "would end as as it did");
        found(trials.tried(Slot(2), &trial(7, &[(5, 2)]), 9), "comes to another end");
        found(trials.tried(Slot(2), &trial(9, &[(8, 2)]), 9), "comes to another end");
        let fewer = RewindTrial { differing: 2, ..trial(9, &[(5, 1)]) };
        found(trials.tried(Slot(2), &fewer, 9), "and names 1");
        let mut long = trial(6, &[(5, 1)]);
        long.preview.commands += 1;
        found(trials.tried(Slot(2), &long, 9), "has 3 commands");
    }

    #[test]
    fn a_trial_says_what_a_guest_says_that_was_never_replaced() {
        for is_early in [true, false] {
            let mut trials = Trials::default();
            let entries = [would_be(4, None), would_be(5, Some(1)), would_be(6, None)];
            let tell =
                |trials: &mut Trials| entries.iter().try_for_each(|entry| trials.would_be(entry));
            if is_early {
                assert_eq!(tell(&mut trials), Ok(()));
                assert_eq!(trials.tried(Slot(0), &trial(6, &[(5, 1)]), 9), Ok(()));
                found(trials.tried(Slot(0), &trial(6, &[]), 9), "comes to another end");
                continue;
            }
            assert_eq!(trials.tried(Slot(0), &trial(6, &[(6, 1)]), 9), Ok(()));
            found(tell(&mut trials), "was wrong");
        }
        let mut trials = Trials::default();
        assert_eq!(trials.would_be(&would_be(5, Some(1))), Ok(()));
        found(trials.tried(Slot(0), &trial(5, &[]), 9), "was wrong");
    }

    #[test]
    fn what_is_undone_is_what_was_tried() {
        let mut trials = Trials::default();
        assert_eq!(trials.tried(Slot(0), &trial(8, &[(5, 1), (8, 2)]), 90), Ok(()));
        let done = |index, reply| {
            trials.activated(Index(index), 50, Some(Index(4)), &rewind(ACTIVE), &reply)
        };
        assert_eq!(done(9, undone(4, 2, Some(5))), Ok(()));
        assert_eq!(done(11, undone(5, 3, Some(5))), Ok(()), "something came between");
        for reply in [undone(4, 1, Some(5)), undone(4, 2, Some(6)), undone(4, 3, Some(5))] {
            found(done(9, reply), "trials say that 2 commands");
        }
        found(done(11, undone(5, 1, Some(5))), "trials say");
        found(done(11, undone(3, 2, Some(5))), "trials say");
        found(done(9, Reply::ActivationFailed("no".to_owned())), "right after a trial");
        assert_eq!(done(10, Reply::ActivationFailed("no".to_owned())), Ok(()));
        let late = Reply::ActivationFailed("its time is over".to_owned());
        let late = trials.activated(Index(9), 90, Some(Index(4)), &rewind(ACTIVE), &late);
        assert_eq!(late, Ok(()));
    }

    #[test]
    fn what_cannot_be_undone_is_not() {
        let mut trials = Trials::default();
        assert_eq!(trials.refused(Slot(0), Index(8), "none"), Ok(()));
        let done =
            trials.activated(Index(9), 50, Some(Index(4)), &rewind(ACTIVE), &undone(4, 0, None));
        found(done, "had said: none");
        found(trials.tried(Slot(1), &trial(8, &[]), 9), "another: none");
        assert_eq!(trials.tried(Slot(1), &trial(7, &[]), 9), Ok(()));
        found(trials.refused(Slot(0), Index(7), "none"), "another has a way back");
    }

    #[test]
    fn what_is_undone_is_what_it_would_be() {
        let mut trials = Trials::default();
        for entry in [would_be(4, None), would_be(5, None), would_be(6, Some(1))] {
            assert_eq!(trials.would_be(&entry), Ok(()));
        }
        let of = (Index(4), Index(7));
        let rewound = Rewound { commands: 2, differing: 1, first: Some(at(6)) };
        assert_eq!(trials.undone_beside(of, &rewound), Ok(()));
        for wrong in [
            Rewound { commands: 1, ..rewound },
            Rewound { differing: 0, ..rewound },
            Rewound { first: Some(at(5)), ..rewound },
        ] {
            found(trials.undone_beside(of, &wrong), "never replaced");
        }
    }
}
