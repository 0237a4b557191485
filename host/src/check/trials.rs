//! What a script cannot say: random input, determinism, queries that change nothing, rejections
//! that change nothing.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::hints;
use super::lab::{Done, Lab, Stop, Subject};
use super::leaks::{self, Neutral};
use super::purity;
use super::report::{Section, Weight};
use super::rules::{self, Rules};
use super::script::Script;
use super::snapshots;
use super::twins::{Came, difference};
use super::words::{ended, quoted};
use crate::fsm::GuestResult;
use crate::text::human_count;

/// The same numbers each time: a finding can be found again.
const SEED: u64 = 0x7261_6674_2d68_6f73;
const RANDOM_COMMANDS: usize = 300;
const RANDOM_QUERIES: usize = 60;
/// Queries of scripts that are put where nothing is undone.
const KEPT_QUERIES_MAX: usize = 100;
/// Commands that an original and its copies run after a restore.
const FURTHER_COMMANDS: usize = 40;
/// Longest input that is mutated.
const MUTATED_MAX_BYTES: usize = 4 << 10;
/// Bytes of snapshots that are compared around rejections.
const COMPARED_MAX_BYTES: usize = 128 << 20;
/// Examples that are kept for details.
const EXAMPLES_MAX: usize = 10;

/// Runs all of it.
pub(super) fn run(
    lab: &Lab<'_>,
    scripts: &[Script],
    commands: &[Vec<u8>],
) -> Result<Vec<Section>, Stop> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let given: Vec<Vec<u8>> = scripts
        .iter()
        .flat_map(Script::commands)
        .map(<[u8]>::to_vec)
        .chain(commands.iter().cloned())
        .collect();
    let mut workload: Vec<Vec<u8>> = given.iter().take(RANDOM_COMMANDS).cloned().collect();
    let known = workload.len();
    workload.extend((0..RANDOM_COMMANDS).map(|_| input(&mut random, &given)));

    let mut sections = Vec::new();
    let mut subject = lab.founded()?;
    let mut twin = lab.founded()?;
    let mut tried = Tried::default();
    for (at, command) in workload.iter().enumerate() {
        tried.command(&mut subject, &mut twin, command, at >= known)?;
    }
    let asked: Vec<Vec<u8>> =
        scripts.iter().flat_map(Script::queries).map(<[u8]>::to_vec).collect();
    let mut purity = Section::new("queries");
    if subject.has_query() {
        let queries: Vec<Vec<u8>> =
            (0..RANDOM_QUERIES).map(|_| input(&mut random, &asked)).collect();
        for query in &queries {
            tried.query(&mut subject, &mut twin, query)?;
        }
        let mut kept = vec![Vec::new()];
        for query in asked.iter().take(KEPT_QUERIES_MAX).chain(&queries) {
            if !kept.contains(query) {
                kept.push(query.clone());
            }
        }
        purity::run(&mut twin, &kept, &mut purity)?;
    }
    // What the queries wrote stayed.
    drop(twin);
    let memory = leaks::run(lab, &tried.neutral)?;
    let on_purpose = scripts.iter().any(Script::breaks_rules);
    let rules = std::mem::take(&mut tried.rules);
    sections.extend(tried.told(subject.has_query(), subject.has_classes(), workload.len()));
    sections[1].findings.extend(purity.findings);
    sections.extend(subject.has_check().then(|| rules.told(on_purpose)));
    sections.extend(rules::formats(lab, &mut subject)?);
    sections.push(memory);

    let mut section = Section::new("snapshot and restore");
    let further: Vec<Vec<u8>> =
        (0..FURTHER_COMMANDS).map(|_| further(&mut random, &given)).collect();
    snapshots::there_and_back(&mut subject, &further, &mut section)?;
    snapshots::damaged(&mut subject, &mut section)?;
    sections.push(section);
    Ok(sections)
}

/// A known command as it is, or a random one.
fn further(random: &mut ChaCha8Rng, given: &[Vec<u8>]) -> Vec<u8> {
    match given.choose(random) {
        Some(command) if random.random() && command.len() <= MUTATED_MAX_BYTES => command.clone(),
        _ => input(random, given),
    }
}

/// Random bytes, random text, or a given input with something changed.
fn input(random: &mut ChaCha8Rng, given: &[Vec<u8>]) -> Vec<u8> {
    let mutated = given.choose(random).filter(|_| random.random_ratio(3, 4));
    let Some(original) = mutated else {
        let length = random.random_range(0..64);
        let text: bool = random.random();
        return (0..length)
            .map(|_| if text { random.random_range(0x20..0x7f) } else { random.random() })
            .collect();
    };
    let mut bytes = original[..original.len().min(MUTATED_MAX_BYTES)].to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.push(b'0' + random.random_range(0..10)),
        }
    }
    bytes
}

/// Counts of how calls ended.
#[derive(Default)]
struct Ends {
    ok: usize,
    rejected: usize,
    trapped: usize,
    traps: Vec<String>,
}

impl Ends {
    fn note(&mut self, input: &[u8], done: &Done) {
        match done.call.result {
            GuestResult::Ok(_) => self.ok += 1,
            GuestResult::Rejected(_) => self.rejected += 1,
            GuestResult::Trapped(_) => {
                self.trapped += 1;
                if self.traps.len() < EXAMPLES_MAX {
                    self.traps.push(format!("{}: {}", quoted(input), ended(done)));
                }
            }
        }
    }

    fn text(&self) -> String {
        format!("{} ok, {} rejected, {} trapped", self.ok, self.rejected, self.trapped)
    }
}

#[derive(Default)]
pub(super) struct Tried {
    random: Ends,
    queries: Ends,
    /// The first command or query after which two instances differed, and in what.
    differed: Option<String>,
    /// A query that changed an instance, although it ran on a fork.
    pub(super) impure: Option<String>,
    broken_promise: Option<String>,
    rejections_compared: usize,
    compared_bytes: usize,
    neutral: Neutral,
    classes: Classes,
    rules: Rules,
}

/// What the module says of the classes of commands.
#[derive(Default)]
struct Classes {
    /// Commands of each.
    named: BTreeMap<String, usize>,
    without: usize,
    /// Commands that were answered with something that is no name.
    wrong: Vec<String>,
    impure: Option<String>,
}

impl Classes {
    fn note(&mut self, command: &[u8], done: &Done) {
        match (done.call.class(), done.ok()) {
            (Some(class), _) => *self.named.entry(class.to_owned()).or_default() += 1,
            (None, Some([])) => self.without += 1,
            (None, _) => self.wrong.push(format!("{}: {}", quoted(command), ended(done))),
        }
    }

    fn told(self) -> Section {
        let mut section = Section::new("classes of commands");
        let named = self.named.iter().map(|(class, commands)| format!("{class} ({commands})"));
        let named: Vec<String> = named.take(EXAMPLES_MAX).collect();
        match self.impure {
            Some(command) => section.fail(format!(
                "to classify the command {command} changed the state; {}",
                hints::QUERY
            )),
            None => section.good(format!(
                "{} commands are of {} class(es){}{}, {} of none",
                self.named.values().sum::<usize>(),
                self.named.len(),
                if named.is_empty() { "" } else { ": " },
                named.join(", "),
                self.without
            )),
        }
        if !self.wrong.is_empty() {
            let text = format!(
                "{} commands have no class because of what `classify` answers; {}",
                self.wrong.len(),
                hints::CLASSIFY
            );
            section.add(Weight::Warning, text, self.wrong.into_iter().take(EXAMPLES_MAX).collect());
        }
        section
    }
}

impl Tried {
    fn command(
        &mut self,
        subject: &mut Subject<'_>,
        twin: &mut Subject<'_>,
        command: &[u8],
        is_random: bool,
    ) -> Result<(), Stop> {
        let compare = self.compared_bytes < COMPARED_MAX_BYTES && self.broken_promise.is_none();
        if subject.has_classes() {
            self.classify(subject, twin, command)?;
        }
        let before_context = subject.context();
        let before = if compare { Some(subject.snapshot()?) } else { None };
        let (done, again) = (subject.apply(command)?, twin.apply(command)?);
        if is_random {
            self.random.note(command, &done);
        }
        let was_rejected = matches!(done.call.result, GuestResult::Rejected(_));
        if let Some(before) = &before {
            let snapshot_bytes = before.ok().map_or(0, <[u8]>::len);
            self.compared_bytes += snapshot_bytes;
            self.neutral.note(command, &done, snapshot_bytes);
        }
        self.compare(&format!("command {}", quoted(command)), (subject, done), (twin, again))?;
        if let Some(before) = before
            && was_rejected
        {
            let after = subject.snapshot_at(before_context)?;
            self.rejections_compared += 1;
            if before.outcome() != after.outcome() {
                self.broken_promise = Some(quoted(command));
            }
        }
        if subject.has_check() && self.rules.wants_more() {
            self.check(subject, twin, command)?;
        }
        Ok(())
    }

    /// What the state machine says of its state after a command.
    fn check(
        &mut self,
        subject: &mut Subject<'_>,
        twin: &mut Subject<'_>,
        command: &[u8],
    ) -> Result<(), Stop> {
        let before = subject.digest()?;
        let (done, other) = (subject.check()?, twin.check()?);
        let after = subject.digest()?;
        self.rules.note(command, &done, before == after);
        let what = format!("the check behind {}", quoted(command));
        let first = Came { done: Some(done), digest: after };
        self.note_difference(&what, &first, &Came { done: Some(other), digest: twin.digest()? });
        Ok(())
    }

    /// Two instances must agree, and an instance with itself.
    fn classify(
        &mut self,
        subject: &mut Subject<'_>,
        twin: &mut Subject<'_>,
        command: &[u8],
    ) -> Result<(), Stop> {
        let before = subject.digest()?;
        let (done, other) = (subject.classify(command)?, twin.classify(command)?);
        self.classes.note(command, &done);
        let again = subject.classify(command)?;
        let after = subject.digest()?;
        if before != after && self.classes.impure.is_none() {
            self.classes.impure = Some(quoted(command));
        }
        let what = format!("the classification of {}", quoted(command));
        let first = Came { done: Some(done), digest: after };
        self.note_difference(&what, &first, &Came { done: Some(again), digest: after });
        self.note_difference(&what, &first, &Came { done: Some(other), digest: twin.digest()? });
        Ok(())
    }

    fn query(
        &mut self,
        subject: &mut Subject<'_>,
        twin: &mut Subject<'_>,
        query: &[u8],
    ) -> Result<(), Stop> {
        let before = subject.digest()?;
        let (done, again) = (subject.query(query)?, twin.query(query)?);
        self.queries.note(query, &done);
        if before != subject.digest()? && self.impure.is_none() {
            self.impure = Some(quoted(query));
        }
        self.compare(&format!("query {}", quoted(query)), (subject, done), (twin, again))
    }

    fn compare(
        &mut self,
        what: &str,
        (subject, done): (&mut Subject<'_>, Done),
        (twin, again): (&mut Subject<'_>, Done),
    ) -> Result<(), Stop> {
        let first = Came { done: Some(done), digest: subject.digest()? };
        let second = Came { done: Some(again), digest: twin.digest()? };
        self.note_difference(what, &first, &second);
        Ok(())
    }

    pub(super) fn note_difference(&mut self, what: &str, first: &Came, second: &Came) {
        if self.differed.is_none()
            && let Some(difference) = difference(first, second)
        {
            self.differed = Some(format!("{what}: the second {difference}"));
        }
    }

    pub(super) fn told(self, has_query: bool, has_classes: bool, commands: usize) -> Vec<Section> {
        let mut determinism = Section::new("determinism");
        match self.differed {
            Some(what) => determinism.fail(format!(
                "two instances that did the same differ after {what}; {}",
                hints::DETERMINISM
            )),
            None => determinism.good(format!(
                "two instances agree on answers, log lines, fuel and memory after each of \
                 {commands} commands"
            )),
        }
        let mut queries = Section::new("queries");
        match (has_query, self.impure) {
            (false, _) => queries.good("it answers none"),
            (true, Some(query)) => {
                queries.fail(format!("the query {query} changed the state; {}", hints::QUERY));
            }
            (true, None) => {
                queries.good(format!("{RANDOM_QUERIES} random ones: {}", self.queries.text()));
            }
        }
        warn_of_traps("queries", &self.queries, &mut queries);
        let mut rejections = Section::new("rejected commands");
        match (self.broken_promise, self.rejections_compared) {
            (Some(command), _) => rejections.fail(format!(
                "{command} was rejected and yet changed the snapshot; check first, change after"
            )),
            (None, 0) => rejections.good("none were seen"),
            (None, compared) => {
                rejections.good(format!("{compared} were compared; none changed the snapshot"));
            }
        }
        let mut random = Section::new("random input");
        random.good(format!("{RANDOM_COMMANDS} commands: {}", self.random.text()));
        warn_of_traps("commands", &self.random, &mut random);
        let mut sections = vec![determinism, queries, rejections, random];
        sections.extend(has_classes.then(|| self.classes.told()));
        sections
    }
}

fn warn_of_traps(what: &str, ends: &Ends, section: &mut Section) {
    if ends.trapped > 0 {
        let text = format!(
            "{} random {what} make it trap; the host undoes that, but rejecting is much cheaper",
            ends.trapped
        );
        section.add(Weight::Warning, text, ends.traps.clone());
    }
}

/// Runs the caller's commands on a state machine of their own.
pub(super) fn commands(lab: &Lab<'_>, commands: &[Vec<u8>]) -> Result<Section, Stop> {
    let mut section = Section::new("commands");
    let mut subject = lab.founded()?;
    let mut ends = Ends::default();
    let mut by_fuel = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        let done = subject.apply(command)?;
        ends.note(command, &done);
        by_fuel.push((done.call.fuel_used, at));
    }
    by_fuel.sort_by(|a, b| b.cmp(a));
    let slowest = by_fuel.iter().take(EXAMPLES_MAX);
    let details = slowest
        .map(|(fuel, at)| {
            format!("command {}: {} fuel, {}", at + 1, human_count(*fuel), quoted(&commands[*at]))
        })
        .collect();
    section.add(Weight::Good, format!("{} commands: {}", commands.len(), ends.text()), details);
    if ends.trapped > 0 {
        section.add(Weight::Warning, format!("{} commands trapped", ends.trapped), ends.traps);
    }
    Ok(section)
}
