//! Judges whether a history is linearizable: the search of Wing and Gong, with Lowe's memory of
//! configurations already tried.
//!
//! Keys are independent (linearizability is local), so each is judged alone. For one key the
//! search walks forward from "nothing has happened": a *configuration* is the set of operations
//! that have happened and the value they left. It may continue with any operation that started
//! before every operation still missing has ended. If all answered operations find a place, the
//! history is linearizable; if all ways are exhausted, it is not.
//!
//! What keeps the search short, and why each of these loses nothing:
//!
//! 1. *An answered operation that fits and by its answer never changes a value happens at once*,
//!    without trying anything else. Take any completion of the configuration and move that
//!    operation to its front: it fits there, nobody misses it where it was, and no order of real
//!    time is broken, because it was free to go. (A write of the value that is already there is
//!    no such operation: it may be missed where it was.)
//! 2. *A value that nobody can make again is not left while somebody still has to see it.* The
//!    operations that need exactly that value could never find a place.
//! 3. *Of unknown operations, fewer is better.* They need not happen at all, so whatever
//!    completes a configuration completes the same one with fewer of them spent. A configuration
//!    is therefore skipped if one with the same answered operations, the same value and no more
//!    of each kind of unknown operation spent was tried.
//! 4. *Unknown operations that do the same are spent in the order of their start.* They never
//!    end, so in any completion the first to be used can be exchanged for the first to start.
//! 5. *Of answered operations that ask and answer the same, the first to end goes first.* If a
//!    completion takes another one before it, exchange the two: the first to end is free to go
//!    now, and the other one, in its place, still comes before everything that starts after its
//!    own, later, end.
//! 6. *Values that nobody tells apart are one value.* If the key has no `Add`, an operation can
//!    tell a value only by having read it or by expecting it in a `CompareAndSet`; all other
//!    values behave alike in every operation and are replaced by one stand-in. So unknown writes
//!    whose value was never seen become one kind in the sense of 4. They cannot be dropped: one
//!    of them may be why a `Delete` found something or a `CompareAndSet` did not match.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::{Action, Answer, Operation, Outcome, Value};

/// Steps of the search for one key before it gives up; some seconds and some
/// hundred megabytes.
pub const DEFAULT_STEPS: u64 = 5_000_000;

/// Lines of a linearization that are shown.
const SHOWN: usize = 12;

/// Why a history was not accepted.
#[derive(Debug)]
pub enum Violation {
    /// No order of the operations on the key explains the answers.
    NotLinearizable(Box<Counterexample>),
    /// The search took too long; nothing is known.
    GaveUp {
        /// The key.
        key: String,
        /// Steps taken.
        steps: u64,
    },
    /// No store could be asked or could answer so.
    Malformed {
        /// The operation.
        operation: Box<Operation>,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The furthest that the search came.
#[derive(Debug)]
pub struct Counterexample {
    /// The key.
    pub key: String,
    /// The longest order found that explains its operations; includes unknown operations that it
    /// needs.
    pub prefix: Vec<Operation>,
    /// The value that it leaves.
    pub value: Value,
    /// The operations of which one would have to be next, none of which leads further.
    pub stuck: Vec<Operation>,
    /// Unknown operations that might have happened as well.
    pub unknown: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotLinearizable(found) => found.fmt(f),
            Violation::GaveUp { key, steps } => {
                write!(f, "key {key:?}: gave up after {steps} steps; nothing is known about it")
            }
            Violation::Malformed { operation, why } => write!(f, "{operation}: {why}"),
        }
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {:?} is not linearizable.", self.key)?;
        let hidden = self.prefix.len().saturating_sub(SHOWN);
        writeln!(f, "an order explains {} operations, the last being:", self.prefix.len())?;
        for operation in &self.prefix[hidden..] {
            writeln!(f, "    {operation}")?;
        }
        writeln!(f, "it leaves the value {:?}; next must be one of", self.value)?;
        for operation in self.stuck.iter().take(SHOWN) {
            writeln!(f, "    {operation}")?;
        }
        if self.stuck.len() > SHOWN {
            writeln!(f, "    and {} more", self.stuck.len() - SHOWN)?;
        }
        if self.unknown.is_empty() {
            return write!(f, "and none of them leads on.");
        }
        writeln!(f, "or one of {} that may have happened:", self.unknown.len())?;
        for operation in self.unknown.iter().take(SHOWN) {
            writeln!(f, "    {operation}")?;
        }
        write!(f, "and none of them leads on.")
    }
}

/// Judges a history; the operations may be in any order.
///
/// # Errors
/// The first key that is wrong, or could not be judged in [`DEFAULT_STEPS`] steps.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    check_within(operations, DEFAULT_STEPS)
}

/// [`check`] with another bound on the steps for each key.
///
/// # Errors
/// See [`check`].
pub fn check_within(operations: &[Operation], steps: u64) -> Result<(), Violation> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        if let Some(why) = malformed(operation) {
            return Err(Violation::Malformed { operation: Box::new(operation.clone()), why });
        }
        keys.entry(&operation.key).or_default().push(operation);
    }
    // A violation says more than a search that gave up, whichever key comes first.
    let mut gave_up = None;
    for (key, operations) in keys {
        match Search::new(&operations, steps).run() {
            Verdict::Linearizable => {}
            Verdict::GaveUp => {
                gave_up.get_or_insert(Violation::GaveUp { key: key.to_owned(), steps });
            }
            Verdict::Stuck(found) => return Err(Violation::NotLinearizable(found)),
        }
    }
    gave_up.map_or(Ok(()), Err)
}

fn malformed(operation: &Operation) -> Option<&'static str> {
    if operation.end_ns < operation.start_ns {
        return Some("it ended before it started");
    }
    let Outcome::Answered(answer) = operation.outcome else { return None };
    match (operation.action, answer) {
        (Action::Read, Answer::Value(_))
        | (Action::Add(_), Answer::Value(Some(_)))
        | (Action::Write(_), Answer::Done)
        | (Action::Delete | Action::CompareAndSet(..), Answer::Matched(_)) => None,
        _ => Some("that is no answer to what was asked"),
    }
}

/// The value after an answered operation, if it fits.
fn after_answered(action: Action, answer: Answer, value: Value) -> Option<Value> {
    match (action, answer) {
        (Action::Read, Answer::Value(seen)) => (seen == value).then_some(value),
        (Action::Write(new), _) => Some(Some(new)),
        (Action::Delete, Answer::Matched(was)) => (was == value.is_some()).then_some(None),
        (Action::CompareAndSet(expected, new), Answer::Matched(matched)) => {
            let fits = matched == (expected == value);
            fits.then_some(if matched { Some(new) } else { value })
        }
        (Action::Add(amount), Answer::Value(sum)) => {
            let new = Some(value.unwrap_or(0).wrapping_add(amount));
            (new == sum).then_some(new)
        }
        _ => None,
    }
}

/// The value after an operation whose answer nobody knows.
fn after_unknown(action: Action, value: Value) -> Value {
    match action {
        Action::Read => value,
        Action::Write(new) => Some(new),
        Action::Delete => None,
        Action::CompareAndSet(expected, new) => {
            if value == expected {
                Some(new)
            } else {
                value
            }
        }
        Action::Add(amount) => Some(value.unwrap_or(0).wrapping_add(amount)),
    }
}

/// The one value that must be there for this answer, if there is one.
fn needed(action: Action, answer: Answer) -> Option<Value> {
    match (action, answer) {
        (Action::Read, Answer::Value(seen)) => Some(seen),
        (Action::CompareAndSet(expected, _), Answer::Matched(true)) => Some(expected),
        // A sum equal to the amount may come from 0 or from no value.
        (Action::Add(amount), Answer::Value(Some(sum))) if sum != amount => {
            Some(Some(sum.wrapping_sub(amount)))
        }
        _ => None,
    }
}

/// The value that an answered operation leaves, unless it never changes one.
fn made(action: Action, answer: Answer) -> Option<Value> {
    match (action, answer) {
        (Action::Write(new), _) | (Action::CompareAndSet(_, new), Answer::Matched(true)) => {
            Some(Some(new))
        }
        (Action::Delete, Answer::Matched(true)) => Some(None),
        (Action::Add(_), Answer::Value(sum)) => Some(sum),
        _ => None,
    }
}

enum Verdict {
    Linearizable,
    GaveUp,
    Stuck(Box<Counterexample>),
}

/// An answered operation.
struct Known<'a> {
    original: &'a Operation,
    action: Action,
    answer: Answer,
    /// Index of the last operation that starts before this one has ended: as long as this one is
    /// missing, none behind it can have happened.
    reach: usize,
}

/// Unknown operations that do the same, by start.
struct Kind<'a> {
    action: Action,
    originals: Vec<&'a Operation>,
}

/// How many operations that have not happened need a value and could make it.
#[derive(Clone, Copy, Default)]
struct Outlook {
    needed: u32,
    makers: u32,
}

/// What happens next.
#[derive(Clone, Copy)]
enum Step {
    /// The answered operation of that index.
    Known(usize),
    /// The next unknown operation of that kind.
    Unknown(usize),
}

struct Frame {
    taken: Step,
    /// The value before.
    value: Value,
    /// What else could have happened instead, the most promising last.
    others: Vec<Step>,
}

/// Answered operations that have happened: all below `first` and those with a bit.
#[derive(PartialEq, Eq, Hash)]
struct Tried {
    first: usize,
    bits: Box<[u64]>,
    value: Value,
}

struct Search<'a> {
    known: Vec<Known<'a>>,
    kinds: Vec<Kind<'a>>,
    /// Starts and ends of the answered operations that have not happened yet, in the order of
    /// time: a doubly linked list through `2 * index` (start) and `2 * index + 1` (end), so that
    /// taking out and putting back cost nothing.
    next: Vec<u32>,
    previous: Vec<u32>,
    happened: Vec<u64>,
    first: usize,
    /// How many of each kind have happened.
    spent: Vec<u32>,
    value: Value,
    outlook: HashMap<Value, Outlook>,
    /// False if an unknown `Add` could make any value.
    makers_are_known: bool,
    tried: HashMap<Tried, Vec<Box<[u32]>>>,
    stack: Vec<Frame>,
    /// The longest order so far that could not be continued.
    furthest: Vec<Step>,
    steps_left: u64,
}

impl<'a> Search<'a> {
    fn new(operations: &[&'a Operation], steps: u64) -> Search<'a> {
        let relabel = Relabel::new(operations);
        let mut known = Vec::new();
        let mut kinds: BTreeMap<Action, Vec<&Operation>> = BTreeMap::new();
        for operation in operations.iter().copied() {
            let action = relabel.action(operation.action);
            match operation.outcome {
                Outcome::Answered(answer) => {
                    known.push(Known { original: operation, action, answer, reach: 0 });
                }
                // A read of which nobody knows the answer says nothing.
                Outcome::Unknown if action == Action::Read => {}
                Outcome::Unknown => kinds.entry(action).or_default().push(operation),
                Outcome::Failed => {}
            }
        }
        known.sort_by_key(|known| (known.original.start_ns, known.original.end_ns));
        for at in 0..known.len() {
            let end = known[at].original.end_ns;
            known[at].reach =
                known.partition_point(|other| other.original.start_ns <= end).saturating_sub(1);
        }
        let kinds: Vec<Kind<'_>> = kinds
            .into_iter()
            .map(|(action, mut originals)| {
                originals.sort_by_key(|operation| operation.start_ns);
                Kind { action, originals }
            })
            .collect();
        let mut search = Search {
            next: Vec::new(),
            previous: Vec::new(),
            happened: vec![0; known.len().div_ceil(64)],
            first: 0,
            spent: vec![0; kinds.len()],
            value: None,
            outlook: HashMap::new(),
            makers_are_known: !kinds.iter().any(|kind| matches!(kind.action, Action::Add(_))),
            tried: HashMap::new(),
            stack: Vec::new(),
            furthest: Vec::new(),
            steps_left: steps,
            known,
            kinds,
        };
        search.link();
        search.look_out();
        search
    }

    /// Builds the list of starts and ends; its head is behind the last of them.
    fn link(&mut self) {
        let count = self.known.len() * 2;
        let time = |event: u32| {
            let original = self.known[event as usize / 2].original;
            if event.is_multiple_of(2) { (original.start_ns, 0) } else { (original.end_ns, 1) }
        };
        let mut events: Vec<u32> = (0..count as u32).collect();
        events.sort_by_key(|event| time(*event));
        let head = count as u32;
        self.next = vec![head; count + 1];
        self.previous = vec![head; count + 1];
        let mut last = head;
        for event in events {
            self.next[last as usize] = event;
            self.previous[event as usize] = last;
            last = event;
        }
        self.next[last as usize] = head;
        self.previous[head as usize] = last;
    }

    fn look_out(&mut self) {
        for known in &self.known {
            if let Some(value) = needed(known.action, known.answer) {
                self.outlook.entry(value).or_default().needed += 1;
            }
            if let Some(value) = made(known.action, known.answer) {
                self.outlook.entry(value).or_default().makers += 1;
            }
        }
        for kind in &self.kinds {
            let value = match kind.action {
                Action::Write(new) | Action::CompareAndSet(_, new) => Some(new),
                _ => None,
            };
            self.outlook.entry(value).or_default().makers += kind.originals.len() as u32;
        }
    }

    fn run(mut self) -> Verdict {
        if let Some(stuck) = self.seen_but_never_made() {
            return Verdict::Stuck(Box::new(stuck));
        }
        loop {
            while let Some(step) = self.free_step() {
                self.take(step, Vec::new());
            }
            if self.is_complete() {
                return Verdict::Linearizable;
            }
            if self.steps_left == 0 {
                return Verdict::GaveUp;
            }
            let dead_end = self.is_doomed() || !self.is_new();
            let mut others = if dead_end { Vec::new() } else { self.steps() };
            if others.is_empty() {
                self.remember_if_furthest();
            }
            while others.is_empty() {
                let Some(frame) = self.stack.pop() else {
                    return Verdict::Stuck(Box::new(self.counterexample()));
                };
                self.undo(frame.taken, frame.value);
                others = frame.others;
            }
            let step = others.pop().expect("not empty");
            self.take(step, others);
        }
    }

    fn is_complete(&self) -> bool {
        self.next[self.head()] as usize == self.head()
    }

    fn head(&self) -> usize {
        self.known.len() * 2
    }

    /// Operations that need a value which nobody makes: no search needed, and none that would
    /// say it as clearly.
    fn seen_but_never_made(&self) -> Option<Counterexample> {
        if !self.makers_are_known {
            return None;
        }
        let impossible = |known: &&Known<'_>| {
            needed(known.action, known.answer).is_some_and(|value| {
                value.is_some() && self.outlook.get(&value).is_none_or(|found| found.makers == 0)
            })
        };
        let first = self.known.iter().find(impossible)?;
        Some(Counterexample {
            key: first.original.key.clone(),
            prefix: Vec::new(),
            value: None,
            stuck: vec![first.original.clone()],
            unknown: Vec::new(),
        })
    }

    /// Whether somebody still needs a value that is not there and that nobody makes any more;
    /// looks only at the value that was left by the last step, the others were looked at before.
    fn is_doomed(&self) -> bool {
        if !self.makers_are_known {
            return false;
        }
        // Steps that do not change the value lie between; they cannot have doomed anything.
        let left = self.stack.iter().rev().map(|frame| frame.value).find(|v| *v != self.value);
        left.and_then(|left| self.outlook.get(&left))
            .is_some_and(|outlook| outlook.needed > 0 && outlook.makers == 0)
    }

    /// The answered operations that may happen next, first to end first.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let mut at = self.next[self.head()] as usize;
        std::iter::from_fn(move || {
            let is_start = at != self.head() && at.is_multiple_of(2);
            let index = is_start.then_some(at / 2)?;
            at = self.next[at] as usize;
            Some(index)
        })
    }

    /// An answered operation that fits here and nowhere changes anything.
    fn free_step(&self) -> Option<Step> {
        self.candidates()
            .find(|index| {
                let known = &self.known[*index];
                made(known.action, known.answer).is_none()
                    && after_answered(known.action, known.answer, self.value).is_some()
            })
            .map(Step::Known)
    }

    /// Everything that may happen next, the most promising last.
    fn steps(&self) -> Vec<Step> {
        let mut candidates: Vec<usize> = self.candidates().collect();
        let deadline = candidates.iter().map(|index| self.known[*index].original.end_ns).min();
        let deadline = deadline.expect("the history is not complete");
        let mut steps: Vec<Step> = (0..self.kinds.len())
            .filter(|kind| {
                let Kind { action, originals } = &self.kinds[*kind];
                let next = originals.get(self.spent[*kind] as usize);
                next.is_some_and(|next| next.start_ns <= deadline)
                    && after_unknown(*action, self.value) != self.value
            })
            .map(Step::Unknown)
            .collect();
        candidates.retain(|index| {
            let known = &self.known[*index];
            after_answered(known.action, known.answer, self.value).is_some()
        });
        let what = |index: usize| (self.known[index].action, self.known[index].answer);
        candidates.sort_by_key(|index| {
            (what(*index), std::cmp::Reverse(self.known[*index].original.end_ns))
        });
        candidates.reverse();
        candidates.dedup_by_key(|index| what(*index));
        candidates.sort_by_key(|index| std::cmp::Reverse(self.known[*index].original.end_ns));
        steps.extend(candidates.into_iter().map(Step::Known));
        steps
    }

    /// Remembers the configuration; false if it, or one that can do more, was tried.
    fn is_new(&mut self) -> bool {
        let last = self.known[self.first].reach;
        let words = self.first / 64..=last / 64;
        let key = Tried { first: self.first, bits: self.happened[words].into(), value: self.value };
        let seen = self.tried.entry(key).or_default();
        let can_do_more = |before: &[u32]| before.iter().zip(&self.spent).all(|(b, s)| b <= s);
        if seen.iter().any(|before| can_do_more(before)) {
            return false;
        }
        seen.retain(|before| !self.spent.iter().zip(before.iter()).all(|(s, b)| s <= b));
        seen.push(self.spent.as_slice().into());
        true
    }

    fn take(&mut self, step: Step, others: Vec<Step>) {
        self.steps_left = self.steps_left.saturating_sub(1);
        self.stack.push(Frame { taken: step, value: self.value, others });
        match step {
            Step::Known(index) => {
                let known = &self.known[index];
                let (action, answer) = (known.action, known.answer);
                self.value =
                    after_answered(action, answer, self.value).expect("only what fits is taken");
                self.happened[index / 64] |= 1 << (index % 64);
                while self.first < self.known.len() && self.has_happened(self.first) {
                    self.first += 1;
                }
                for event in [2 * index, 2 * index + 1] {
                    let (before, after) = (self.previous[event], self.next[event]);
                    self.next[before as usize] = after;
                    self.previous[after as usize] = before;
                }
                self.expect(needed(action, answer), made(action, answer), false);
            }
            Step::Unknown(kind) => {
                let action = self.kinds[kind].action;
                self.value = after_unknown(action, self.value);
                self.spent[kind] += 1;
                self.expect(None, Some(self.value), false);
            }
        }
    }

    fn undo(&mut self, step: Step, value: Value) {
        match step {
            Step::Known(index) => {
                let known = &self.known[index];
                let (action, answer) = (known.action, known.answer);
                self.happened[index / 64] &= !(1 << (index % 64));
                self.first = self.first.min(index);
                for event in [2 * index + 1, 2 * index] {
                    let (before, after) = (self.previous[event], self.next[event]);
                    self.next[before as usize] = event as u32;
                    self.previous[after as usize] = event as u32;
                }
                self.expect(needed(action, answer), made(action, answer), true);
            }
            Step::Unknown(kind) => {
                self.spent[kind] -= 1;
                self.expect(None, Some(self.value), true);
            }
        }
        self.value = value;
    }

    fn has_happened(&self, index: usize) -> bool {
        self.happened[index / 64] & (1 << (index % 64)) != 0
    }

    fn expect(&mut self, needed: Option<Value>, made: Option<Value>, again: bool) {
        let change = |count: &mut u32| *count = if again { *count + 1 } else { *count - 1 };
        if let Some(outlook) = needed.and_then(|value| self.outlook.get_mut(&value)) {
            change(&mut outlook.needed);
        }
        // Without knowing all makers nobody asks for their number.
        if self.makers_are_known
            && let Some(outlook) = made.and_then(|value| self.outlook.get_mut(&value))
        {
            change(&mut outlook.makers);
        }
    }

    fn remember_if_furthest(&mut self) {
        let is_known = |step: &Step| matches!(step, Step::Known(_));
        let reached = self.stack.iter().filter(|frame| is_known(&frame.taken)).count();
        if self.furthest.iter().filter(|step| is_known(step)).count() < reached {
            self.furthest = self.stack.iter().map(|frame| frame.taken).collect();
        }
    }

    /// Goes once more, after everything was undone, to where the search came furthest.
    fn counterexample(mut self) -> Counterexample {
        let mut prefix = Vec::new();
        for step in std::mem::take(&mut self.furthest) {
            prefix.push(match step {
                Step::Known(index) => self.known[index].original.clone(),
                Step::Unknown(kind) => {
                    self.kinds[kind].originals[self.spent[kind] as usize].clone()
                }
            });
            self.take(step, Vec::new());
        }
        let stuck: Vec<Operation> =
            self.candidates().map(|index| self.known[index].original.clone()).collect();
        let deadline = stuck.iter().map(|operation| operation.end_ns).min().unwrap_or(u64::MAX);
        let unknown = self.kinds.iter().zip(&self.spent).flat_map(|(kind, spent)| {
            let left = &kind.originals[*spent as usize..];
            left.iter().filter(|operation| operation.start_ns <= deadline).copied().cloned()
        });
        Counterexample {
            key: self.known[0].original.key.clone(),
            value: prefix.iter().fold(None, |value, operation: &Operation| {
                match operation.outcome {
                    Outcome::Answered(answer) => after_answered(operation.action, answer, value)
                        .expect("an order that was found fits"),
                    _ => after_unknown(operation.action, value),
                }
            }),
            unknown: unknown.collect(),
            prefix,
            stuck,
        }
    }
}

/// Gives all values that nobody tells apart one name; see the module's sixth point.
struct Relabel {
    /// Values with a name of their own; `None`: all have.
    told_apart: Option<HashSet<i64>>,
    stand_in: i64,
}

impl Relabel {
    fn new(operations: &[&Operation]) -> Relabel {
        let mut told_apart = HashSet::new();
        for operation in operations {
            let seen = match (operation.action, operation.outcome) {
                (_, Outcome::Failed) => continue,
                (Action::Add(_), _) => return Relabel { told_apart: None, stand_in: 0 },
                (Action::Read, Outcome::Answered(Answer::Value(seen))) => seen,
                (Action::CompareAndSet(expected, _), _) => expected,
                _ => continue,
            };
            told_apart.extend(seen);
        }
        let stand_in = (i64::MIN..).find(|value| !told_apart.contains(value));
        Relabel { told_apart: Some(told_apart), stand_in: stand_in.expect("finitely many seen") }
    }

    fn value(&self, value: i64) -> i64 {
        match &self.told_apart {
            Some(told_apart) if !told_apart.contains(&value) => self.stand_in,
            _ => value,
        }
    }

    fn action(&self, action: Action) -> Action {
        match action {
            Action::Write(new) => Action::Write(self.value(new)),
            Action::CompareAndSet(expected, new) => {
                Action::CompareAndSet(expected, self.value(new))
            }
            Action::Read | Action::Delete | Action::Add(_) => action,
        }
    }
}
