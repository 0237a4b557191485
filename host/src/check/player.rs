//! Plays a script: straight, again in another instance, and renewed before every step.

use super::lab::{Done, Lab, Stop, Subject};
use super::listen::LogLine;
use super::script::{Action, Expectation, Script, Step};
use super::twins::{Came, difference, ended_with_events, listed};
use super::words::{ended, quoted};
use crate::fsm::{Context, GuestResult};

/// Something that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) line: usize,
    /// It is about a command or query that trapped, and about nothing else.
    pub(super) only_a_trap: bool,
    pub(super) message: String,
}

/// What came of a script.
pub(super) struct Played {
    pub(super) steps: usize,
    pub(super) violations: Vec<Violation>,
}

impl Played {
    fn add(&mut self, line: usize, only_a_trap: bool, message: String) {
        self.violations.push(Violation { line, only_a_trap, message });
    }
}

pub(super) fn play(lab: &Lab<'_>, script: &Script) -> Result<Played, Stop> {
    let mut played = Played { steps: script.steps.len(), violations: Vec::new() };
    let first_run = straight(lab, script)?;
    for (step, came) in script.steps.iter().zip(&first_run) {
        if let Some(done) = &came.done {
            judge(step, done, &mut played);
        }
    }
    compare(script, &first_run, &straight(lab, script)?, &mut played);
    renewed(lab, script, &first_run, &mut played)?;
    Ok(played)
}

/// Tells of the first step that another instance took otherwise.
pub(super) fn compare(script: &Script, first_run: &[Came], second_run: &[Came], to: &mut Played) {
    for (step, (first, second)) in script.steps.iter().zip(first_run.iter().zip(second_run)) {
        if let Some(difference) = difference(first, second) {
            let message = format!("a second instance that did the same {difference}");
            to.add(step.line, false, message);
            break;
        }
    }
}

fn straight(lab: &Lab<'_>, script: &Script) -> Result<Vec<Came>, Stop> {
    let mut subject = lab.founded()?;
    script
        .steps
        .iter()
        .map(|step| Ok(Came { done: act(&mut subject, step)?, digest: subject.digest()? }))
        .collect()
}

fn renewed(
    lab: &Lab<'_>,
    script: &Script,
    first_run: &[Came],
    played: &mut Played,
) -> Result<(), Stop> {
    let mut subject = lab.founded()?;
    for (step, first) in script.steps.iter().zip(first_run) {
        let renewal = subject.renew()?;
        if renewal.ok().is_none() && !expects_no_renewal(step) {
            let message = format!("it cannot be renewed before this step: {}", ended(&renewal));
            played.add(step.line, false, message);
            // The rest would say the same again.
            break;
        }
        let (Some(done), Some(first)) = (act(&mut subject, step)?, &first.done) else { continue };
        if done.outcome() != first.outcome() {
            let message = format!(
                "after snapshot and restore it answers otherwise: {}; without: {}",
                ended_with_events(&done),
                ended_with_events(first)
            );
            played.add(step.line, false, message);
            break;
        }
    }
    Ok(())
}

fn expects_no_renewal(step: &Step) -> bool {
    let fails = |expectation: &Expectation| {
        use Expectation as E;
        matches!(
            expectation,
            E::Rejected(_)
                | E::RejectedAny
                | E::RejectedContains(_)
                | E::Trapped(_)
                | E::TrappedAny
                | E::Answered
        )
    };
    step.action == Action::Renew && step.expectations.iter().any(|(_, e)| fails(e))
}

fn act(subject: &mut Subject<'_>, step: &Step) -> Result<Option<Done>, Stop> {
    Ok(match &step.action {
        Action::Apply(command) => Some(subject.apply(command)?),
        Action::Query(query) => Some(subject.query(query)?),
        Action::Classify(command) => Some(subject.classify(command)?),
        Action::Check => Some(subject.check()?),
        Action::StateVersion => Some(subject.state_version()?),
        Action::Restores(version) => Some(subject.restores(version)?),
        Action::Renew => Some(subject.renew()?),
        Action::Actor(name) => {
            subject.act_as(*name);
            None
        }
        Action::Advance(by_ms) => {
            subject.advance(*by_ms);
            None
        }
    })
}

fn judge(step: &Step, done: &Done, played: &mut Played) {
    let is_call = step.action != Action::Renew;
    let only_a_trap = done.trapped() && is_call;
    if !step.expectations.iter().any(|(_, expectation)| expectation.is_about_the_end())
        && done.ok().is_none()
    {
        let message = format!("expected ok, but it {}", was(done));
        played.add(step.line, only_a_trap, message);
    }
    let mut log = done.log.iter();
    let mut events = Vec::new();
    for (line, expectation) in &step.expectations {
        if let Expectation::Event(topic, data) = expectation {
            events.push((topic.clone(), fill_in(data, done.context)));
        } else if let Some(message) = violated(expectation, done, &mut log) {
            played.add(*line, only_a_trap && expectation.is_about_the_end(), message);
        }
    }
    if !events.is_empty() {
        let same = events.len() == done.call.events.len()
            && events.iter().zip(&done.call.events).all(|((topic, data), event)| {
                topic.as_bytes() == event.topic && data.as_bytes() == event.data
            });
        if !same {
            let message =
                format!("expected these events and no others, but there were: {}", listed(done));
            played.add(step.expectations[0].0, false, message);
        }
    }
}

fn was(done: &Done) -> String {
    match &done.call.result {
        GuestResult::Ok(_) => format!("ended {}", ended(done)),
        GuestResult::Rejected(_) => format!("was {}", ended(done)),
        GuestResult::Trapped(_) => ended(done),
    }
}

fn fill_in(text: &str, context: Context) -> String {
    text.replace("${index}", &context.position.index.0.to_string())
        .replace("${time_ms}", &context.time_ms.to_string())
}

/// What is wrong, if anything. Lines of the log are taken up to the expected one.
fn violated<'d>(
    expectation: &Expectation,
    done: &'d Done,
    log: &mut impl Iterator<Item = &'d LogLine>,
) -> Option<String> {
    use Expectation as E;
    let result = &done.call.result;
    let full = |text: &str| fill_in(text, done.context);
    let contains = |bytes: &[u8], text: &str| {
        let text = full(text);
        bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes())
    };
    let (holds, wanted) = match expectation {
        E::Ok(text) => (
            matches!(result, GuestResult::Ok(output) if *output == full(text).as_bytes()),
            format!("ok {}", quoted(full(text).as_bytes())),
        ),
        E::OkHex(bytes) => (
            matches!(result, GuestResult::Ok(output) if output == bytes),
            format!("ok {}", quoted(bytes)),
        ),
        E::OkAny => (matches!(result, GuestResult::Ok(_)), "ok".to_owned()),
        E::OkContains(text) => (
            matches!(result, GuestResult::Ok(output) if contains(output, text)),
            format!("ok with {}", quoted(full(text).as_bytes())),
        ),
        E::OkLength(length) => (
            matches!(result, GuestResult::Ok(output) if output.len() == *length),
            format!("ok with {length} bytes"),
        ),
        E::Rejected(text) => (
            matches!(result, GuestResult::Rejected(reason) if *reason == full(text).as_bytes()),
            format!("rejected {}", quoted(full(text).as_bytes())),
        ),
        E::RejectedAny => (matches!(result, GuestResult::Rejected(_)), "rejected".to_owned()),
        E::RejectedContains(text) => (
            matches!(result, GuestResult::Rejected(reason) if contains(reason, text)),
            format!("rejected with {}", quoted(full(text).as_bytes())),
        ),
        E::Trapped(kind) => (
            matches!(result, GuestResult::Trapped(trap) if trap.kind == *kind),
            format!("trapped {}", kind.name()),
        ),
        E::TrappedAny => (done.trapped(), "trapped".to_owned()),
        E::Answered => (!done.trapped(), "an answer or a rejection".to_owned()),
        E::EventNone => {
            let message = || format!("expected no events, but there were: {}", listed(done));
            return (!done.call.events.is_empty()).then(message);
        }
        E::Log(level, text) => {
            let text = full(text);
            let found = log.any(|(heard, line)| heard == level && line.contains(&text));
            let message =
                || format!("expected a line of level {} with {text:?} in the log", level.name());
            return (!found).then(message);
        }
        E::Event(..) => return None,
    };
    (!holds).then(|| format!("expected {wanted}, but it {}", was(done)))
}
