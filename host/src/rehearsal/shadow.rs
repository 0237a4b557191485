//! A new module that executes the entries that a node applies, from a state on, and is compared with what the
//! node's own machine answers.
//!
//! ```text
//!   the node's machine ── state ── 42 ── 43 ── 44 ── …
//!                           │       │     │     │   entries, and what they got
//!   new module              └ snapshot / restore, 42, 43, 44, …
//! ```
//!
//! There is no second old machine. So classes of commands are what the *new* module says. For queries another copy
//! of the node's state is taken at the end ([`Shadow::ask`]).

use std::time::Duration;

use bytes::Bytes;

use super::RehearsalError;
use super::answers::{Seen, outcome_words};
use super::asking::ask_both;
use super::compare::{Comparison, Pair};
use super::kind::Kind;
use super::report::Report;
use super::source::Next;
use super::takeover;
use super::taking::{Whose, take};
use super::tally::ByKind;
use crate::fsm::{HostFailure, SharedLoader};
use crate::machine::{Applied, Held, Incumbent, Machine, MachineSnapshot, Reply, Way, commands_of};
use crate::types::{EntryKind, Index, LogEntry, Outcome};

/// What an answer takes beside its bytes.
const ANSWER_OVERHEAD_BYTES: u64 = size_of::<Applied>() as u64;

/// An entry that a node has applied.
#[derive(Debug)]
pub struct Answered {
    /// The entry.
    pub entry: LogEntry,
    /// What its machine answered, in order; of a change of members nothing.
    pub answers: Vec<Applied>,
    /// Its guest's memory then, in bytes.
    pub memory_bytes: u64,
}

impl Answered {
    /// Bytes that it takes while it waits.
    pub fn cost_bytes(&self) -> u64 {
        self.entry.cost_bytes() + self.answers.iter().map(Answered::answer_bytes).sum::<u64>()
    }

    /// The part of one answer in that.
    pub fn answer_bytes(answer: &Applied) -> u64 {
        let reply = match &answer.reply {
            Reply::Command(outcome) => outcome.bytes(),
            _ => 0,
        };
        let events = answer.events.iter().map(|event| event.topic.len() + event.data.len());
        ANSWER_OVERHEAD_BYTES + (reply + events.sum::<usize>()) as u64
    }
}

/// See the module.
pub struct Shadow {
    new: Machine,
    module: Bytes,
    /// The guests' memory at the beginning: the old one's and the new one's.
    began: (u64, u64),
    /// The old one's now.
    before_bytes: u64,
    found: Comparison,
    report: Report,
}

/// What became of the beginning.
pub enum Begun {
    /// The module has taken over.
    Running(Box<Shadow>),
    /// It does not, and the report says why.
    Refused(Box<Report>),
}

impl Shadow {
    /// Has a module take over a copy of the state. `stopwatch` as for [`super::rehearse`].
    ///
    /// # Errors
    ///
    /// No module is active, no cluster would take this one, or this host failed.
    pub fn begin(
        state: MachineSnapshot,
        loader: &SharedLoader,
        (module, label): (&Bytes, &str),
        stopwatch: &dyn Fn() -> Duration,
    ) -> Result<Begun, RehearsalError> {
        let mut machine = state.into_machine(loader)?;
        let (hash, activated_at) = machine.active_module().ok_or(RehearsalError::NoModule)?;
        if let Some(reason) = machine.refuses(module)? {
            return Err(RehearsalError::Refused(reason));
        }
        let replaces = Incumbent { hash, activated_at };
        let base = machine.applied_index();
        let mut found = Comparison::default();
        let mut report = takeover::blank(&machine, (module, Way::Snapshot), replaces, base);
        let before = takeover::measure_old(&mut machine, &mut report)?;
        let before_bytes = machine.guest_memory_bytes();
        let tally = &mut found.tally;
        let module = (module, label);
        let migrated =
            takeover::migrate(&mut machine, module, &before, stopwatch, &mut report, tally)?;
        drop(machine);
        let Some(new) = migrated else {
            (report.counts, report.differences) = found.told();
            return Ok(Begun::Refused(Box::new(report)));
        };
        report.names_classes = new.names_classes();
        let began = (before_bytes, new.guest_memory_bytes());
        let module = module.0.clone();
        let mut shadow = Shadow { new, module, began, before_bytes, found, report };
        shadow.check(base)?;
        Ok(Begun::Running(Box::new(shadow)))
    }

    /// The last entry that it has executed.
    pub fn applied_index(&self) -> Index {
        self.new.applied_index()
    }

    /// Commands that were compared.
    pub fn commands(&self) -> u64 {
        self.found.commands()
    }

    /// Differences that were found until now; those of fuel and memory show at the end.
    pub fn differences(&self) -> ByKind {
        self.found.tally.by_kind()
    }

    /// Executes the next entry and compares.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the shadow must be dropped.
    ///
    /// # Panics
    ///
    /// If it is not the entry after [`Shadow::applied_index`].
    pub fn take(&mut self, answered: Answered) -> Result<(), HostFailure> {
        let Answered { entry, answers, memory_bytes } = answered;
        self.before_bytes = memory_bytes;
        let commands = match entry.kind {
            EntryKind::Normal => commands_of(entry.index, &entry.data)?,
            EntryKind::ConfChange => Vec::new(),
        };
        let (mut old, mut waiting) = (Vec::with_capacity(answers.len()), Vec::new());
        for applied in answers {
            let held = applied.waited.and_then(|number| self.new.waiting_command(number));
            waiting.extend(held);
            old.push(Seen::of(applied));
        }
        let mut seen = Vec::with_capacity(old.len());
        let mut on_answer = |_, applied: Applied| seen.push(Seen::of(applied));
        // No receipt is looked at, so nobody asks who votes.
        let next = Next { entry, members: None };
        take(&mut self.new, &next, Whose::New, &mut on_answer)?;
        let entry = next.entry;
        if Whose::New.skips(&entry) {
            return Ok(());
        }
        let (commands, waiting) = (&*commands, &*waiting);
        let pair = Pair { index: entry.index, commands, waiting, old: &old, new: &seen };
        let new = &mut self.new;
        let mut classify = |position, command: &Held| new.class_of(position, command);
        self.found.entry(&pair, &mut classify)
    }

    /// Asks both modules: the old one in `state`, which is the node's after the last entry that this has executed.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the shadow must be dropped.
    ///
    /// # Panics
    ///
    /// If it is the state after another entry.
    pub fn ask(
        &mut self,
        state: MachineSnapshot,
        loader: &SharedLoader,
        queries: &[Bytes],
    ) -> Result<(), HostFailure> {
        let mut old = state.into_machine(loader)?;
        assert_eq!(old.applied_index(), self.applied_index(), "both are at the same entry");
        ask_both((&mut old, &mut self.new), queries, &mut self.found.tally)
    }

    fn check(&mut self, at: Index) -> Result<(), HostFailure> {
        let new = self.new.check_state()?;
        let Some(new @ (Outcome::Rejected(_) | Outcome::Trapped(_))) = new else { return Ok(()) };
        let new = format!("its check after index {at}: {}", outcome_words(&new));
        self.found.tally.add_general(Kind::State, "its check was not asked", new);
        Ok(())
    }

    /// What it found. `Err(why)`: what needs one more guest is not tried, because of that.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: there is no report.
    pub fn finish(mut self, in_full: Result<(), String>) -> Result<Report, HostFailure> {
        let until = self.applied_index();
        self.report.until = until;
        if until > self.report.base {
            self.check(until)?;
        }
        let Shadow { mut new, module, began, before_bytes, mut found, mut report } = self;
        match in_full {
            Ok(()) => takeover::twice_and_back(&mut new, &module, &mut report, &mut found.tally)?,
            Err(why) => report.way_back = Err(format!("it was not tried: {why}")),
        }
        found.conclude(began, (before_bytes, new.guest_memory_bytes()), &mut report);
        Ok(report)
    }
}
