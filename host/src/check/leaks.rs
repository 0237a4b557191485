//! Memory that is never given back: whether it grows for as long as commands come that leave
//! nothing behind.
//!
//! Only commands can leak. Queries and snapshots run on forks, which go back to what the live
//! instance has, and a restore fills a fresh instance once.
//!
//! Memory grows in pages, and in larger steps with a garbage collector, which does not begin
//! before its heap has a size (with Go, 4 MiB). So growth alone says nothing. A leak doubles what
//! it has taken whenever the number of calls doubles; whatever finds its level does not.

use super::lab::{Done, Lab, Stop, Subject};
use super::report::{Section, Weight};
use super::words::quoted;
use crate::fsm::{GuestResult, HostFailure};
use crate::text::{human_bytes, human_count};

/// Calls after which a guest whose memory stays as it is has passed. Pages have 64 KiB, so
/// whoever loses 64 bytes in each is seen, and whoever loses 32 most likely.
const FIRST_CALLS: usize = 2_048;
const CALLS_MAX: usize = FIRST_CALLS << 7;
/// No level is found above this: twice what the largest collector of the SDKs begins with.
const LEAKED_MIN_BYTES: u64 = 8 << 20;
/// Bytes of the snapshot that may come while memory grows: numbers that have more digits now. Who
/// keeps something of each command has more.
const KEPT_MAX_BYTES: usize = 64;
/// More expensive or longer commands are not repeated: it would take long.
const COMMAND_MAX_FUEL: u64 = 20_000;
const COMMAND_MAX_BYTES: usize = 4 << 10;
const COMMANDS_MAX: usize = 64;
/// Fuel that a suspect may use until it is let go.
const SUSPECT_MAX_FUEL: u64 = 2_000_000_000;
/// What makes a collector begin: so many inputs that are large, but not so large that what a
/// sound guest frees of one would hide a small leak.
const LARGE_CALLS: usize = 128;
const LARGE_BYTES: usize = 64 << 10;
const LARGE_MAX_FUEL: u64 = 2_000_000;
const EXAMPLES_MAX: usize = 10;
const COLLECTORS: &str =
    "a garbage collector that waits for a heap of more than 8 MiB looks the same";

/// Commands that left the snapshot as long as it was.
#[derive(Default)]
pub(super) struct Neutral {
    rejected: Vec<Vec<u8>>,
    accepted: Vec<Vec<u8>>,
    /// Accepted, and the length of the snapshot before it; the next command tells.
    pending: Option<(Vec<u8>, usize)>,
}

impl Neutral {
    /// Takes note of a command and the length of the snapshot before it.
    pub(super) fn note(&mut self, command: &[u8], done: &Done, snapshot_bytes: usize) {
        if let Some((accepted, before)) = self.pending.take()
            && before == snapshot_bytes
        {
            add(&mut self.accepted, accepted);
        }
        if command.len() > COMMAND_MAX_BYTES || done.call.fuel_used > COMMAND_MAX_FUEL {
            return;
        }
        match done.call.result {
            GuestResult::Rejected(_) => add(&mut self.rejected, command.to_vec()),
            GuestResult::Ok(_) => self.pending = Some((command.to_vec(), snapshot_bytes)),
            GuestResult::Trapped(_) => {}
        }
    }
}

fn add(commands: &mut Vec<Vec<u8>>, command: Vec<u8>) {
    if commands.len() < COMMANDS_MAX && !commands.contains(&command) {
        commands.push(command);
    }
}

/// Memory that came and did not stop coming.
struct Leak {
    calls: usize,
    from_bytes: u64,
    to_bytes: u64,
}

/// Repeats commands that leave nothing behind.
pub(super) fn run(lab: &Lab<'_>, neutral: &Neutral) -> Result<Section, Stop> {
    let mut section = Section::new("memory");
    let mut repeated = Vec::new();
    for (kind, commands) in [("rejected", &neutral.rejected), ("accepted", &neutral.accepted)] {
        if commands.is_empty() {
            continue;
        }
        let Some(leak) = leak(lab, commands)? else {
            repeated.push(kind);
            continue;
        };
        section.add(
            Weight::Warning,
            leak.told(kind, lab.limits.memory_max_bytes),
            commands
                .iter()
                .take(EXAMPLES_MAX)
                .map(|command| format!("one of them: {}", quoted(command)))
                .chain([COLLECTORS.to_owned()])
                .collect(),
        );
        // Most likely the others lose the same.
        break;
    }
    if !repeated.is_empty() {
        section.good(format!(
            "it does not grow for ever while {} commands that leave nothing behind are repeated",
            repeated.join(" and ")
        ));
    }
    if section.findings.is_empty() {
        section.good("no command was seen that could be repeated for ever");
    }
    Ok(section)
}

impl Leak {
    fn told(&self, kind: &str, limit_bytes: u64) -> String {
        let grown = self.to_bytes - self.from_bytes;
        let each = (grown / self.calls as u64).max(1);
        format!(
            "it grows for as long as {kind} commands are repeated that leave nothing behind: from \
             {} to {} in {} calls, {} bytes in each; after some {} of them it traps at the limit \
             of {}; free what `apply` allocates, the input and the output too",
            human_bytes(self.from_bytes),
            human_bytes(self.to_bytes),
            human_count(self.calls as u64),
            human_count(each),
            human_count(limit_bytes.saturating_sub(self.from_bytes) / each),
            human_bytes(limit_bytes),
        )
    }
}

fn leak(lab: &Lab<'_>, commands: &[Vec<u8>]) -> Result<Option<Leak>, Stop> {
    let mut subject = lab.founded()?;
    if !Climb::new(&mut subject, commands)?.is_suspect() {
        return Ok(None);
    }
    collect(&mut subject)?;
    let mut climb = Climb::new(&mut subject, commands)?;
    while climb.is_suspect() {
        if is_leak(&climb.marks) {
            return Ok(Some(climb.told()));
        }
        if climb.calls() >= CALLS_MAX || climb.fuel >= SUSPECT_MAX_FUEL {
            break;
        }
        climb.call(climb.calls())?;
    }
    Ok(None)
}

/// Gives a garbage collector reason to run, if there is an input that leaves nothing behind.
fn collect(subject: &mut Subject<'_>) -> Result<(), HostFailure> {
    for byte in [b'A', 0xff] {
        let command = vec![byte; LARGE_BYTES];
        let before = subject.snapshot_bytes()?;
        let once = subject.repeat(&[&command], 1)?;
        if !once.trapped && once.fuel <= LARGE_MAX_FUEL && subject.snapshot_bytes()? == before {
            subject.repeat(&[&command], LARGE_CALLS)?;
            return Ok(());
        }
    }
    Ok(())
}

/// What a guest came to after some calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) calls: usize,
    pub(super) memory_bytes: u64,
    pub(super) snapshot_bytes: usize,
}

/// A guest that is called again and again, with a mark at each doubling.
struct Climb<'s, 'l> {
    subject: &'s mut Subject<'l>,
    commands: Vec<&'s [u8]>,
    /// The first before any call, the second after an eighth of the first calls; then doublings.
    marks: Vec<Mark>,
    fuel: u64,
    trapped: bool,
}

impl<'s, 'l> Climb<'s, 'l> {
    fn new(subject: &'s mut Subject<'l>, commands: &'s [Vec<u8>]) -> Result<Self, HostFailure> {
        let commands = commands.iter().map(|command| &command[..]).collect();
        let mut climb = Climb { subject, commands, marks: Vec::new(), fuel: 0, trapped: false };
        climb.mark(0)?;
        climb.call(FIRST_CALLS / 8)?;
        while climb.calls() < FIRST_CALLS {
            climb.call(climb.calls())?;
        }
        Ok(climb)
    }

    fn calls(&self) -> usize {
        self.marks.last().map_or(0, |mark| mark.calls)
    }

    fn call(&mut self, further: usize) -> Result<(), HostFailure> {
        let repeated = self.subject.repeat(&self.commands, further)?;
        self.fuel = self.fuel.saturating_add(repeated.fuel);
        self.trapped |= repeated.trapped;
        self.mark(self.calls() + further)
    }

    fn mark(&mut self, calls: usize) -> Result<(), HostFailure> {
        let memory_bytes = self.subject.memory_bytes();
        let snapshot_bytes = self.subject.snapshot_bytes()?;
        self.marks.push(Mark { calls, memory_bytes, snapshot_bytes });
        Ok(())
    }

    fn is_suspect(&self) -> bool {
        !self.trapped && has_no_level(&self.marks)
    }

    fn told(&self) -> Leak {
        let (first, last) = (self.marks[0], self.marks[self.marks.len() - 1]);
        let (from_bytes, to_bytes) = (first.memory_bytes, last.memory_bytes);
        Leak { calls: last.calls, from_bytes, to_bytes }
    }
}

/// Whether memory grew in the last three quarters of the calls, and no state did.
pub(super) fn has_no_level(marks: &[Mark]) -> bool {
    let [.., quarter, _, last] = marks else { return true };
    quarter.memory_bytes < last.memory_bytes
        && last.snapshot_bytes <= quarter.snapshot_bytes + KEPT_MAX_BYTES
}

/// Whether half of much growth came in the last half of the calls, half of the rest in the half
/// of the rest, and some before.
pub(super) fn is_leak(marks: &[Mark]) -> bool {
    let [start, .., quarter, half, last] = marks else { return false };
    let grown = |mark: &Mark| mark.memory_bytes.saturating_sub(start.memory_bytes);
    // Growth in steps makes it somewhat less than the half.
    let is_steady =
        |earlier: u64, later: u64| later >= earlier && (later - earlier) * 5 >= later * 2;
    grown(quarter) > 0
        && grown(last) >= LEAKED_MIN_BYTES
        && is_steady(grown(half), grown(last))
        && is_steady(grown(quarter), grown(half))
}
