//! The promise of every snapshot: `restore(snapshot(s))` behaves as `s`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::marker::PhantomData;

use crate::testing::{Event, Runner, split_mix};
use crate::{Answer, Rejection, StateMachine};

/// Commands of one generated run.
const COMMANDS: u64 = 30;
/// Copies that run beside the original; a longer run is restored at points evenly apart.
const MAX_COPIES: usize = 64;
/// Runs that the search for a shorter failure may cost.
const MAX_ATTEMPTS: usize = 2_000;
/// Bytes of a command, an answer or an event in a message.
const MAX_SHOWN: usize = 160;

/// Checks that a state machine loses nothing in a snapshot.
///
/// It runs commands on a node, restores a copy of the node between them, and goes on with all
/// of them side by side. Each copy must give the same answers and events, and write the same
/// snapshots, as the node that was never restored. If one does not, the commands are reduced to
/// few that show it, and the test fails with them.
///
/// ```
/// # use raft_fsm_sdk::{Answer, Context, Reader, Rejection, StateMachine, Writer};
/// # #[derive(Default)]
/// # struct Sum(u64);
/// # impl StateMachine for Sum {
/// #     fn apply(&mut self, _: &Context, command: &[u8]) -> Result<Answer, Rejection> {
/// #         let text = core::str::from_utf8(command).map_err(Rejection::display)?;
/// #         let number: u64 = text.parse().map_err(Rejection::display)?;
/// #         self.0 = self.0.checked_add(number).ok_or("the sum would overflow")?;
/// #         Ok(self.0.to_string().into())
/// #     }
/// #     fn query(&self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> {
/// #         Ok(self.0.to_string().into())
/// #     }
/// #     fn snapshot(&self, _: &Context, out: &mut Writer) {
/// #         out.u64(self.0);
/// #     }
/// #     fn restore(_: &Context, input: &mut Reader) -> Result<Sum, Rejection> {
/// #         Ok(Sum(input.u64()?))
/// #     }
/// # }
/// use raft_fsm_sdk::testing::RestoreProperty;
///
/// let property = RestoreProperty::<Sum>::new().query("");
/// property.holds_for(["40", "2", "two"]);
/// property.holds_for_random(50, |random| random.below(1_000).to_string());
/// ```
pub struct RestoreProperty<M> {
    queries: Vec<Vec<u8>>,
    advance_ms: u64,
    machine: PhantomData<fn() -> M>,
}

impl<M: StateMachine> Default for RestoreProperty<M> {
    fn default() -> RestoreProperty<M> {
        RestoreProperty::new()
    }
}

impl<M: StateMachine> RestoreProperty<M> {
    /// Without queries; the clock moves by up to a second before each command.
    pub fn new() -> RestoreProperty<M> {
        RestoreProperty { queries: Vec::new(), advance_ms: 1_000, machine: PhantomData }
    }

    /// Asks this question too, after each command.
    pub fn query(mut self, query: impl AsRef<[u8]>) -> RestoreProperty<M> {
        self.queries.push(query.as_ref().to_vec());
        self
    }

    /// Moves the clock by up to so many milliseconds before each command.
    pub fn advance_up_to_ms(mut self, advance_ms: u64) -> RestoreProperty<M> {
        self.advance_ms = advance_ms;
        self
    }

    /// Checks one run. Its cost grows with the square of its length: hundreds of commands are
    /// well.
    ///
    /// # Panics
    ///
    /// If a restored node behaves differently.
    #[track_caller]
    pub fn holds_for<C: AsRef<[u8]>>(&self, commands: impl IntoIterator<Item = C>) {
        let mut random = Random::new(0);
        let steps = commands.into_iter().map(|command| self.step(&mut random, command)).collect();
        if let Some(message) = self.counterexample(steps) {
            panic!("{message}");
        }
    }

    /// Checks `runs` runs of generated commands, the same ones each time.
    ///
    /// # Panics
    ///
    /// If a restored node behaves differently.
    #[track_caller]
    pub fn holds_for_random<C: AsRef<[u8]>>(
        &self,
        runs: u64,
        mut command: impl FnMut(&mut Random) -> C,
    ) {
        for run in 0..runs {
            let mut random = Random::new(run);
            let steps = (0..COMMANDS)
                .map(|_| {
                    let command = command(&mut random);
                    self.step(&mut random, command)
                })
                .collect();
            if let Some(message) = self.counterexample(steps) {
                panic!("{message}\n(found in generated run {run})");
            }
        }
    }

    fn step(&self, random: &mut Random, command: impl AsRef<[u8]>) -> Step {
        let advance_ms = random.below(self.advance_ms.saturating_add(1));
        Step { advance_ms, command: command.as_ref().to_vec() }
    }

    /// The message about a run that fails, after making it short.
    fn counterexample(&self, mut steps: Vec<Step>) -> Option<String> {
        let mut difference = self.run(&steps)?;
        let original = steps.len();
        steps.truncate(difference.after);
        let mut attempts = 0;
        let mut size = steps.len().div_ceil(2);
        while size > 0 && attempts < MAX_ATTEMPTS {
            let mut removed = false;
            let mut start = 0;
            while start < steps.len() && attempts < MAX_ATTEMPTS {
                let mut fewer = steps.clone();
                fewer.drain(start..steps.len().min(start + size));
                attempts += 1;
                match self.run(&fewer) {
                    Some(found) => {
                        fewer.truncate(found.after);
                        steps = fewer;
                        difference = found;
                        removed = true;
                    }
                    None => start += size,
                }
            }
            if !removed {
                size /= 2;
            }
        }
        self.stop_the_clock(&mut steps, &mut difference);
        Some(describe(&steps, &difference, original))
    }

    /// Leaves out the waiting that the failure does not need.
    fn stop_the_clock(&self, steps: &mut Vec<Step>, difference: &mut Difference) {
        for at in 0..steps.len() {
            let mut sooner = steps.clone();
            // The steps are cut whenever a shorter run fails as well.
            let Some(step) = sooner.get_mut(at) else { return };
            step.advance_ms = 0;
            if let Some(found) = self.run(&sooner) {
                sooner.truncate(found.after);
                *steps = sooner;
                *difference = found;
            }
        }
    }

    /// The first difference between the node and a copy.
    fn run(&self, steps: &[Step]) -> Option<Difference> {
        let every = (steps.len() + 1).div_ceil(MAX_COPIES);
        let mut node = Runner::<M>::new().without_checks();
        node.take_events();
        let mut copies: Vec<(usize, Runner<M>)> = Vec::new();
        for after in 0..=steps.len() {
            if let Some(step) = after.checked_sub(1).and_then(|at| steps.get(at)) {
                let expected = step.run(&mut node);
                for (restored, copy) in &mut copies {
                    let what = expected.differs_from(&step.run(copy));
                    if let Some(what) = what {
                        return Some(Difference { restored: *restored, after, what });
                    }
                }
            }
            let snapshot = node.snapshot();
            if after % every == 0 {
                match node.restored_here(&snapshot) {
                    Ok(copy) => copies.push((after, copy.without_checks())),
                    Err(reason) => {
                        let what = format!("restore rejects the snapshot: {}", show(&reason));
                        return Some(Difference { restored: after, after, what });
                    }
                }
            }
            for (restored, copy) in &mut copies {
                if let Some(what) = self.compare(&mut node, copy, &snapshot) {
                    return Some(Difference { restored: *restored, after, what });
                }
            }
        }
        None
    }

    fn compare(
        &self,
        node: &mut Runner<M>,
        copy: &mut Runner<M>,
        snapshot: &[u8],
    ) -> Option<String> {
        for query in &self.queries {
            let (expected, found) = (node.query(query), copy.query(query));
            if expected != found {
                let title = format!("the answers to the query {} differ", show(query));
                return Some(two(&title, &outcome(&expected), &outcome(&found)));
            }
        }
        let copied = copy.snapshot();
        if copied == snapshot {
            return None;
        }
        let at = snapshot.iter().zip(&copied).take_while(|(left, right)| left == right).count();
        let title = format!("the snapshots differ from byte {at} on");
        let from = |bytes: &[u8]| format!("{} of {} bytes", show(&bytes[at..]), bytes.len());
        Some(two(&title, &from(snapshot), &from(&copied)))
    }
}

/// Numbers for the commands of [`RestoreProperty::holds_for_random`]: the same in each test run.
pub struct Random(u64);

impl Random {
    fn new(run: u64) -> Random {
        // Far apart, so that runs do not share their numbers.
        let mut seed = run;
        Random(split_mix(&mut seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        let mixed = split_mix(&mut self.0);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    ///
    /// # Panics
    ///
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below 0");
        self.number() % end
    }

    /// One of `items`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        assert!(!items.is_empty(), "there is nothing to pick from");
        &items[self.below(items.len() as u64) as usize]
    }

    /// Any bytes, at most `max_len`.
    pub fn bytes(&mut self, max_len: usize) -> Vec<u8> {
        let len = self.below(max_len as u64 + 1);
        (0..len).map(|_| self.number() as u8).collect()
    }
}

#[derive(Clone)]
struct Step {
    /// How far the clock moves before the command.
    advance_ms: u64,
    command: Vec<u8>,
}

impl Step {
    fn run<M: StateMachine>(&self, node: &mut Runner<M>) -> Reaction {
        node.advance_ms(self.advance_ms);
        let result = node.apply(&self.command);
        Reaction { result, events: node.take_events() }
    }
}

/// What a command had for an answer.
struct Reaction {
    result: Result<Answer, Rejection>,
    events: Vec<Event>,
}

impl Reaction {
    fn differs_from(&self, found: &Reaction) -> Option<String> {
        if self.result != found.result {
            let title = "the answers to the last command differ";
            return Some(two(title, &outcome(&self.result), &outcome(&found.result)));
        }
        if self.events != found.events {
            let title = "the events of the last command differ";
            return Some(two(title, &list(&self.events), &list(&found.events)));
        }
        None
    }
}

/// How a copy gave itself away.
struct Difference {
    /// Commands before the copy was restored.
    restored: usize,
    /// Commands before it was seen to be different; at least `restored`.
    after: usize,
    what: String,
}

fn describe(steps: &[Step], difference: &Difference, original: usize) -> String {
    let mut message = String::from("restore(snapshot(s)) does not behave as s:\n");
    for after in 0..=steps.len() {
        if let Some(step) = after.checked_sub(1).and_then(|at| steps.get(at)) {
            if step.advance_ms > 0 {
                line(&mut message, &format!("  advance {} ms", step.advance_ms));
            }
            line(&mut message, &format!("  apply {}", show(&step.command)));
        }
        if after == difference.restored {
            line(&mut message, "  snapshot and restore");
        }
    }
    message += &difference.what;
    if steps.len() < original {
        let (few, all) = (steps.len(), original);
        write!(message, "\n({few} of {all} commands are enough)").expect("a string takes it");
    }
    message
}

fn line(message: &mut String, text: &str) {
    message.push_str(text);
    message.push('\n');
}

fn two(title: &str, expected: &str, found: &str) -> String {
    format!("{title}:\n  never restored: {expected}\n  restored:       {found}")
}

fn outcome(result: &Result<Answer, Rejection>) -> String {
    match result {
        Ok(answer) => format!("ok {}", show(answer)),
        Err(reason) => format!("rejected {}", show(reason)),
    }
}

fn list(events: &[Event]) -> String {
    if events.is_empty() {
        return "none".to_string();
    }
    let shown: Vec<String> = events
        .iter()
        .map(|event| format!("{}: {}", show(&event.topic), show(&event.data)))
        .collect();
    shown.join(", ")
}

/// Text as it is, other bytes escaped, both cut where they get long.
fn show(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MAX_SHOWN)];
    // A character that was cut in two is no reason to escape the others.
    let text = match core::str::from_utf8(cut) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && cut.len() < bytes.len() => {
            core::str::from_utf8(&cut[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let mut shown = match text.filter(|text| !text.is_empty() && !text.contains(char::is_control)) {
        Some(text) => text.to_string(),
        None => format!("\"{}\"", cut.escape_ascii()),
    };
    if cut.len() < bytes.len() {
        write!(shown, "… ({} bytes)", bytes.len()).expect("a string takes it");
    }
    shown
}
