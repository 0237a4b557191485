//! What a module says of its own state: whether it keeps the rules, and in which format it is written.

use super::hints;
use super::lab::{Done, Lab, Stop, Subject};
use super::report::{Section, Weight};
use super::words::{ended, quoted};
use crate::fsm::GuestResult;
use crate::text::human_count;

/// Fuel of checks after which no further one is made, for a check walks the whole state.
const CHECKS_MAX_FUEL: u64 = 20_000_000_000;
/// Names of formats that no module should take, and none trap at.
const FOREIGN: [&str; 3] = ["nobody/1", "raft-host/check", "-"];

/// What the checks said that came after commands.
#[derive(Default)]
pub(super) struct Rules {
    checked: usize,
    fuel: u64,
    broken: Option<String>,
    impure: Option<String>,
}

impl Rules {
    pub(super) fn wants_more(&self) -> bool {
        self.fuel < CHECKS_MAX_FUEL
    }

    pub(super) fn note(&mut self, command: &[u8], done: &Done, is_pure: bool) {
        self.checked += 1;
        self.fuel = self.fuel.saturating_add(done.call.fuel_used);
        if done.ok().is_none() && self.broken.is_none() {
            self.broken =
                Some(format!("after the command {} it ended: {}", quoted(command), ended(done)));
        }
        if !is_pure && self.impure.is_none() {
            self.impure = Some(quoted(command));
        }
    }

    /// `on_purpose`: a script breaks the rules, and says so.
    pub(super) fn told(self, on_purpose: bool) -> Section {
        let mut section = Section::new("rules of the state");
        if let Some(command) = self.impure {
            section.fail(format!(
                "the check after the command {command} changed the state; {}",
                hints::QUERY
            ));
        }
        match self.broken {
            Some(_) if on_purpose => {
                section.good("a script breaks them on purpose, and `check` tells");
            }
            Some(broken) => {
                section.fail(format!("`check` must hold, but {broken}; {}", hints::CHECK));
            }
            None => section.good(format!(
                "`check` holds after each of {} commands, for {} fuel at most in all",
                self.checked,
                human_count(self.fuel)
            )),
        }
        section
    }
}

/// Asks for the name of the format, and a fresh instance for those that it takes. Nothing is told of a module
/// that says neither.
pub(super) fn formats(lab: &Lab<'_>, subject: &mut Subject<'_>) -> Result<Option<Section>, Stop> {
    if !subject.has_state_version() && !subject.has_restores() {
        return Ok(None);
    }
    let mut section = Section::new("format of snapshots");
    let mut fresh = lab.founded()?;
    let before = (subject.digest()?, fresh.digest()?);
    let mut own = None;
    if subject.has_state_version() {
        let (first, last) = (fresh.state_version()?, subject.state_version()?);
        match last.call.named_state_version() {
            None => {
                let text = format!("`state_version` ended: {}; {}", ended(&last), hints::STATE_VERSION);
                section.fail(text);
            }
            Some(name) if first.outcome() != last.outcome() => section.fail(format!(
                "`state_version` names {name} now, and at first it ended: {}; it should be a constant",
                ended(&first)
            )),
            Some(name) => {
                section.good(format!("it is called {name}"));
                own = Some(name.to_owned());
            }
        }
    }
    if subject.has_restores() {
        if let Some(own) = own {
            let done = fresh.restores(&own)?;
            match done.ok() {
                Some(_) => section.good("`restores` takes it"),
                None => section.fail(format!(
                    "`restores` must take the module's own format {own}, but it ended: {}; {}",
                    ended(&done),
                    hints::RESTORES
                )),
            }
        }
        foreign(&mut fresh, &mut section)?;
    }
    if before != (subject.digest()?, fresh.digest()?) {
        section.fail(format!("`state_version` or `restores` changed the state; {}", hints::QUERY));
    }
    Ok(Some(section))
}

fn foreign(fresh: &mut Subject<'_>, section: &mut Section) -> Result<(), Stop> {
    let mut details = Vec::new();
    for name in FOREIGN {
        let done = fresh.restores(name)?;
        if !matches!(done.call.result, GuestResult::Rejected(_)) {
            details.push(format!("{name}: {}", ended(&done)));
        }
    }
    if !details.is_empty() {
        let text = format!("`restores` does not reject foreign formats; {}", hints::RESTORES);
        section.add(Weight::Warning, text, details);
    }
    Ok(())
}
