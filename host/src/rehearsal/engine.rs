//! The rehearsal itself.

use std::time::Duration;

use super::answers::{Seen, outcome_words};
use super::asking::ask_both;
use super::classes;
use super::compare::{Comparison, Pair};
use super::kind::Kind;
use super::report::{First, Report};
use super::source::{Next, Source};
use super::takeover;
use super::taking::{Whose, take};
use super::{Entries, Plan, Progress, QUERIES_MAX, RehearsalError};
use crate::machine::{Applied, Held, Incumbent, Machine, Reply, commands_of};
use crate::museum::{self, Exhibit};
use crate::types::{EntryKind, Index, Outcome};

/// Rehearses. `old` is a machine at or before the plan's base. `stopwatch` says how much time has passed since
/// some moment; only the report's `switch` is of it. `keep_going` is asked after each entry.
///
/// # Errors
///
/// There is no report, see [`RehearsalError`]. That a module does not take over is none of them: the report says it.
pub fn rehearse(
    old: Machine,
    entries: &mut dyn Entries,
    plan: &Plan,
    stopwatch: &dyn Fn() -> Duration,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Report, RehearsalError> {
    let mut source = Source::new(entries, &old)?;
    match begin(old, &mut source, plan, stopwatch, keep_going)? {
        Begun::Refused(report) => Ok(*report),
        Begun::Migrated(mut stage) => {
            stage.go_on(&mut source, plan, keep_going)?;
            stage.finish(plan)
        }
    }
}

/// As [`rehearse`], but ends at the first command that has another answer: the report is of what was found up to
/// there. If there is none, it is that of the whole rehearsal.
///
/// # Errors
///
/// As for [`rehearse`].
pub fn first_difference(
    old: Machine,
    entries: &mut dyn Entries,
    plan: &Plan,
    stopwatch: &dyn Fn() -> Duration,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<(Report, Option<First>), RehearsalError> {
    let mut source = Source::new(entries, &old)?;
    let mut stage = match begin(old, &mut source, plan, stopwatch, keep_going)? {
        Begun::Refused(report) => return Ok((*report, None)),
        Begun::Migrated(stage) => stage,
    };
    stage.found.end_at_first();
    stage.go_on(&mut source, plan, keep_going)?;
    match stage.found.take_first() {
        None => Ok((stage.finish(plan)?, None)),
        Some(first) => Ok((stage.break_off(first.position.index), Some(first))),
    }
}

/// Where both machines begin.
enum Begun {
    /// The new module does not take over.
    Refused(Box<Report>),
    Migrated(Box<Stage>),
}

fn begin(
    mut old: Machine,
    source: &mut Source<'_>,
    plan: &Plan,
    stopwatch: &dyn Fn() -> Duration,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Begun, RehearsalError> {
    check_plan(&old, plan)?;
    let began_at = old.applied_index();
    while old.applied_index() < plan.base {
        let next = source.next(old.applied_index().next())?;
        take(&mut old, &next, Whose::Old { in_range: false }, &mut |_, _| {})?;
        let (index, until) = (next.entry.index, plan.until);
        let progress = Progress { index, until, commands: 0, differences: 0 };
        if !keep_going(progress) {
            return Err(RehearsalError::Cancelled);
        }
    }
    source.entries().only_after(plan.base)?;
    let Some((hash, activated_at)) = old.active_module() else {
        return Err(first_activation(&mut old, source, plan)?);
    };
    if let Some(reason) = old.refuses(&plan.module)? {
        return Err(RehearsalError::Refused(reason));
    }
    classes::check(&mut old, source.entries(), plan, keep_going)?;
    let replaces = Incumbent { hash, activated_at };
    let mut begun = Stage::set(old, plan, replaces, stopwatch)?;
    if museum::is_on(Exhibit::ReportWithALocalPart) {
        match &mut begun {
            Begun::Refused(report) => report.base = began_at,
            Begun::Migrated(stage) => stage.report.base = began_at,
        }
    }
    Ok(begun)
}

/// Why a range cannot be rehearsed that begins before any module was active.
fn first_activation(
    old: &mut Machine,
    source: &mut Source<'_>,
    plan: &Plan,
) -> Result<RehearsalError, RehearsalError> {
    while old.applied_index() < plan.until {
        let next = source.next(old.applied_index().next())?;
        take(old, &next, Whose::Old { in_range: true }, &mut |_, _| {})?;
        if let Some((_, since)) = old.active_module() {
            return Ok(RehearsalError::ActiveSince { since });
        }
    }
    Ok(RehearsalError::NoModule)
}

fn check_plan(old: &Machine, plan: &Plan) -> Result<(), RehearsalError> {
    let Plan { base, until, .. } = *plan;
    if base > until {
        return Err(RehearsalError::WrongRange { base, until });
    }
    if base < old.applied_index() {
        let oldest = old.applied_index();
        let (wanted, begins, time_ms) = (format!("index {base}"), oldest.next(), old.time_ms());
        let time_ms = Some(time_ms).filter(|time_ms| *time_ms > 0);
        return Err(RehearsalError::Compacted { wanted, begins, oldest, time_ms });
    }
    if plan.queries.len() > QUERIES_MAX {
        return Err(RehearsalError::TooManyQueries(plan.queries.len()));
    }
    Ok(())
}

/// Both machines, and what was found.
struct Stage {
    old: Machine,
    new: Machine,
    /// The guests' memory at the base.
    began: (u64, u64),
    found: Comparison,
    report: Report,
}

impl Stage {
    /// Has both execute the entries of the plan.
    fn go_on(
        &mut self,
        source: &mut Source<'_>,
        plan: &Plan,
        keep_going: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), RehearsalError> {
        for index in plan.base.next().0..=plan.until.0 {
            self.execute(&source.next(Index(index))?)?;
            let (commands, differences) = (self.found.commands(), self.found.tally.total());
            let progress =
                Progress { index: Index(index), until: plan.until, commands, differences };
            if !keep_going(progress) {
                return Err(RehearsalError::Cancelled);
            }
            if self.found.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// What was found up to an entry, in the midst of which it ended.
    fn break_off(self, at: Index) -> Report {
        let Stage { found, mut report, .. } = self;
        report.until = at;
        report.way_back = Err("not tried: it ended at the first difference".to_owned());
        report.commands = found.commands();
        (report.counts, report.differences) = found.told();
        report
    }

    /// Has the new module take over.
    fn set(
        mut old: Machine,
        plan: &Plan,
        replaces: Incumbent,
        stopwatch: &dyn Fn() -> Duration,
    ) -> Result<Begun, RehearsalError> {
        let mut found = Comparison::default();
        let mut report = takeover::blank(&old, (&plan.module, plan.way), replaces, plan.until);
        let before = takeover::measure_old(&mut old, &mut report)?;
        let module = (&plan.module, &*plan.label);
        let tally = &mut found.tally;
        let migrated = takeover::migrate(&mut old, module, &before, stopwatch, &mut report, tally)?;
        let Some(new) = migrated else {
            (report.counts, report.differences) = found.told();
            return Ok(Begun::Refused(Box::new(report)));
        };
        let began = (old.guest_memory_bytes(), new.guest_memory_bytes());
        let mut stage = Stage { old, new, began, found, report };
        stage.check(plan.base)?;
        Ok(Begun::Migrated(Box::new(stage)))
    }

    /// Has both check their state.
    fn check(&mut self, at: Index) -> Result<(), RehearsalError> {
        let new = self.new.check_state()?;
        let Some(new @ (Outcome::Rejected(_) | Outcome::Trapped(_))) = new else { return Ok(()) };
        let old = match self.old.check_state()? {
            None => "no check of its own".to_owned(),
            Some(Outcome::Ok(_)) => "its check holds".to_owned(),
            Some(outcome) => format!("its check does not hold either: {}", outcome_words(&outcome)),
        };
        let new = format!("its check after index {at}: {}", outcome_words(&new));
        self.found.tally.add_general(Kind::State, old, new);
        Ok(())
    }

    /// Has both execute an entry.
    fn execute(&mut self, next: &Next) -> Result<(), RehearsalError> {
        let entry = &next.entry;
        let commands = match entry.kind {
            EntryKind::Normal => commands_of(entry.index, &entry.data)?,
            EntryKind::ConfChange => Vec::new(),
        };
        let (mut before, mut waiting, mut activated) = (Vec::new(), Vec::new(), false);
        let new = &self.new;
        let mut on_old = |_, applied: Applied| {
            activated |= matches!(applied.reply, Reply::Activated { .. });
            let held = applied.waited.and_then(|number| new.waiting_command(number));
            waiting.extend(held);
            before.push(Seen::of(applied));
        };
        take(&mut self.old, next, Whose::Old { in_range: true }, &mut on_old)?;
        if activated {
            return Err(RehearsalError::ActiveSince { since: entry.index });
        }
        let mut after = Vec::with_capacity(before.len());
        let mut on_new = |_, applied: Applied| after.push(Seen::of(applied));
        take(&mut self.new, next, Whose::New, &mut on_new)?;
        // What the new machine was spared has no answer there.
        if Whose::New.skips(entry) {
            return Ok(());
        }
        let (commands, waiting) = (&*commands, &*waiting);
        let pair = Pair { index: entry.index, commands, waiting, old: &before, new: &after };
        let old = &mut self.old;
        let mut classify = |position, command: &Held| old.class_of(position, command);
        Ok(self.found.entry(&pair, &mut classify)?)
    }

    fn finish(mut self, plan: &Plan) -> Result<Report, RehearsalError> {
        let both = (&mut self.old, &mut self.new);
        ask_both(both, &plan.queries, &mut self.found.tally)?;
        if plan.until > plan.base {
            self.check(plan.until)?;
        }
        let Stage { old, mut new, began, mut found, mut report } = self;
        let before = old.guest_memory_bytes();
        // Others come, as large as it is.
        drop(old);
        takeover::twice_and_back(&mut new, &plan.module, &mut report, &mut found.tally)?;
        let now = (before, new.guest_memory_bytes());
        found.conclude(began, now, &mut report);
        Ok(report)
    }
}
