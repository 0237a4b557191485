//! Cuts a failing run down: fewer faults, clients, operations, keys and members, as long as the
//! same invariant is violated.
//!
//! ```text
//!   drawn plan ─► cut ─► run ─► same invariant? ─ yes ─► keep the cut ─┐
//!                  ▲                            └ no ──► drop it       │
//!                  └──────────── the next idea ◄───────────────────────┘
//! ```
//!
//! A cut never changes what is drawn, it leaves out some of it. So a seed and a cut are all that
//! it takes to run a shrunk plan again, and both fit on one line.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use raft_host::fsm::SharedLoader;
use raft_host::museum::Exhibit;

use super::invariants::Violation;
use super::plan::{Fixed, Plan};
use super::runner;

/// What is left of a drawn plan. The default leaves everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Numbers of the actions that stay. Default: all.
    pub only: Option<BTreeSet<usize>>,
    /// Clients.
    pub clients: Option<usize>,
    /// Operations of each client before everything is mended.
    pub operations: Option<u64>,
    /// Keys, at least one.
    pub keys: Option<u8>,
    /// Voters, at least one.
    pub voters: Option<usize>,
    /// Learners.
    pub learners: Option<usize>,
    /// How long things go wrong.
    pub faults_ms: Option<u64>,
}

/// A cut names an action that the plan does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plan has no action {0}")]
pub struct NoSuchAction(usize);

impl Cut {
    /// The plan without what is cut.
    ///
    /// # Errors
    /// If an action that is to stay is not there.
    pub fn apply(&self, drawn: &Plan) -> Result<Plan, NoSuchAction> {
        let mut plan = drawn.clone();
        if let Some(only) = &self.only {
            let is_there = |number| drawn.actions.iter().any(|action| action.number == number);
            if let Some(missing) = only.iter().find(|number| !is_there(**number)) {
                return Err(NoSuchAction(*missing));
            }
            plan.actions.retain(|action| only.contains(&action.number));
        }
        let shape = &mut plan.shape;
        shape.clients = self.clients.unwrap_or(shape.clients);
        shape.operations = self.operations.unwrap_or(shape.operations);
        shape.keys = self.keys.unwrap_or(shape.keys).max(1);
        shape.voters = self.voters.unwrap_or(shape.voters).max(1);
        shape.learners = self.learners.unwrap_or(shape.learners);
        shape.faults_us = self.faults_ms.map_or(shape.faults_us, |ms| ms * 1000);
        Ok(plan)
    }
}

/// The line that runs a seed again, as it was run or as it was cut.
pub fn command(seed: u64, fixed: &Fixed, cut: &Cut, exhibit: Option<Exhibit>) -> String {
    let mut line = format!("cargo run --release -p raft-host-tests --bin sim -- --seed {seed}");
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(line, " --{name} {value}").expect("strings take anything");
        }
    };
    flag("guest", fixed.guest.map(str::to_owned));
    flag("exhibit", exhibit.map(|exhibit| exhibit.name().to_owned()));
    flag("only", cut.only.as_ref().map(numbers));
    flag("clients", cut.clients.map(|count| count.to_string()));
    flag("operations", cut.operations.map(|count| count.to_string()));
    flag("keys", cut.keys.map(|count| count.to_string()));
    flag("voters", cut.voters.or(fixed.voters).map(|count| count.to_string()));
    flag("learners", cut.learners.map(|count| count.to_string()));
    flag("faults-ms", cut.faults_ms.map(|ms| ms.to_string()));
    if fixed.calm {
        line.push_str(" --calm");
    }
    if fixed.flips {
        line.push_str(" --flips");
    }
    line
}

fn numbers(numbers: &BTreeSet<usize>) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// How much shrinking may cost. With a deadline the result depends on the machine.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Runs, the first one included.
    pub runs: u64,
    /// Begin no run after that.
    pub deadline: Option<Instant>,
}

/// A plan that still fails, and of which nothing more could be cut.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Arc<Plan>,
    /// How to get there from what the seed draws.
    pub cut: Cut,
    /// What the shrunk plan violates.
    pub violation: Violation,
    /// Runs that it took.
    pub runs: u64,
    /// Whether every further cut was tried. Not if the budget ended first.
    pub is_minimal: bool,
}

/// Why nothing was shrunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShrinkError {
    /// There is nothing to find.
    #[error("the run violates nothing")]
    NothingWrong,
    /// The first cut is not one of this plan.
    #[error(transparent)]
    NoSuchAction(#[from] NoSuchAction),
}

/// Shrinks a failing plan, beginning at a cut. `seen` hears of every success: the runs so far,
/// and what is left. The calling thread needs the stack of a guest, see
/// [`runner::with_stack`].
///
/// # Errors
/// If the plan does not fail.
pub fn shrink(
    drawn: &Plan,
    cut: &Cut,
    loader: &SharedLoader,
    exhibit: Option<Exhibit>,
    budget: &Budget,
    seen: &dyn Fn(u64, &Plan),
) -> Result<Shrunk, ShrinkError> {
    let plan = Arc::new(cut.apply(drawn)?);
    let first = runner::run(&plan, loader, exhibit, None);
    let violation = first.violation.ok_or(ShrinkError::NothingWrong)?;
    let mut shrinker = Shrinker {
        drawn,
        run: &|plan| runner::run(plan, loader, exhibit, None).violation,
        budget,
        seen,
        best: Shrunk { plan, cut: cut.clone(), violation, runs: 1, is_minimal: false },
        tried: BTreeSet::new(),
    };
    shrinker.shrink();
    Ok(shrinker.best)
}

struct Shrinker<'a> {
    drawn: &'a Plan,
    run: &'a dyn Fn(&Arc<Plan>) -> Option<Violation>,
    budget: &'a Budget,
    seen: &'a dyn Fn(u64, &Plan),
    best: Shrunk,
    /// Cuts that did not do.
    tried: BTreeSet<Cut>,
}

/// One number of a cut that can be made smaller.
struct Dimension {
    least: u64,
    /// Less than that is not worth a run.
    step: u64,
    now: fn(&Plan) -> u64,
    set: fn(&mut Cut, u64),
}

/// In the order of what makes a run easier to read.
const DIMENSIONS: [Dimension; 6] = [
    Dimension {
        least: 0,
        step: 1,
        now: |plan| plan.shape.learners as u64,
        set: |cut, to| cut.learners = Some(to as usize),
    },
    Dimension {
        least: 1,
        step: 1,
        now: |plan| plan.shape.voters as u64,
        set: |cut, to| cut.voters = Some(to as usize),
    },
    Dimension {
        least: 0,
        step: 1,
        now: |plan| plan.shape.clients as u64,
        set: |cut, to| cut.clients = Some(to as usize),
    },
    Dimension {
        least: 0,
        step: 1,
        now: |plan| plan.shape.operations,
        set: |cut, to| cut.operations = Some(to),
    },
    Dimension {
        least: 1,
        step: 1,
        now: |plan| u64::from(plan.shape.keys),
        set: |cut, to| cut.keys = Some(to as u8),
    },
    Dimension {
        least: 0,
        step: 100,
        now: |plan| plan.shape.faults_us / 1000,
        set: |cut, to| cut.faults_ms = Some(to),
    },
];

impl Shrinker<'_> {
    /// Goes on until a whole round changes nothing.
    fn shrink(&mut self) {
        loop {
            let before = self.best.cut.clone();
            self.shrink_actions();
            for dimension in &DIMENSIONS {
                self.shrink_number(dimension);
            }
            if self.is_over() {
                return;
            }
            if self.best.cut == before {
                self.best.is_minimal = true;
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        let late = self.budget.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        late || self.best.runs >= self.budget.runs
    }

    /// Leaves out pieces of the list, the last ones first, then smaller pieces, in the manner of
    /// Zeller's delta debugging.
    fn shrink_actions(&mut self) {
        let mut kept: Vec<usize> = self.best.plan.actions.iter().map(|a| a.number).collect();
        let mut size = kept.len();
        while size > 0 && !self.is_over() {
            let mut end = kept.len();
            while end > 0 {
                let from = end.saturating_sub(size);
                let mut candidate = kept.clone();
                candidate.drain(from..end);
                let only = Some(candidate.iter().copied().collect());
                if self.still_fails(Cut { only, ..self.best.cut.clone() }) {
                    kept = candidate;
                }
                end = from;
            }
            size = size.min(kept.len()) / 2;
        }
    }

    /// The least number first; then the middle between what is too little and what does.
    fn shrink_number(&mut self, dimension: &Dimension) {
        let mut enough = (dimension.now)(&self.best.plan);
        let mut too_little = None;
        loop {
            let next = too_little.map_or(dimension.least, |low| low + (enough - low) / 2);
            let is_close = too_little.is_some_and(|low| enough - low <= dimension.step);
            if next >= enough || is_close || self.is_over() {
                return;
            }
            let mut cut = self.best.cut.clone();
            (dimension.set)(&mut cut, next);
            match self.still_fails(cut) {
                true => enough = next,
                false => too_little = Some(next),
            }
        }
    }

    /// Runs a cut, and keeps it if it still does what the first run did.
    fn still_fails(&mut self, cut: Cut) -> bool {
        if self.is_over() || self.tried.contains(&cut) {
            return false;
        }
        let plan = Arc::new(cut.apply(self.drawn).expect("it keeps what an earlier cut kept"));
        self.best.runs += 1;
        match (self.run)(&plan) {
            Some(violation) if violation.invariant == self.best.violation.invariant => {
                (self.seen)(self.best.runs, &plan);
                self.best = Shrunk { plan, cut, violation, ..self.best };
                true
            }
            _ => {
                self.tried.insert(cut);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::observe::Micros;

    /// Shrinks a plan that fails as a function of itself says.
    fn shrink_with(seed: u64, runs: u64, is_bad: impl Fn(&Plan) -> bool) -> Shrunk {
        let drawn = Plan::draw(seed, &Fixed::default());
        let run = |plan: &Arc<Plan>| {
            let words = |invariant| Violation { invariant, what: String::new(), at: Micros(0) };
            // What is not bad violates something else: that must not be taken for the same.
            Some(words(if is_bad(plan) { "bad" } else { "other" }))
        };
        let plan = Arc::new(drawn.clone());
        let violation = run(&plan).expect("given above");
        let cut = Cut::default();
        let mut shrinker = Shrinker {
            drawn: &drawn,
            run: &run,
            budget: &Budget { runs, deadline: None },
            seen: &|_, _| {},
            best: Shrunk { plan, cut, violation, runs: 1, is_minimal: false },
            tried: BTreeSet::new(),
        };
        shrinker.shrink();
        shrinker.best
    }

    /// A seed with many actions.
    fn long() -> (u64, Plan) {
        let plans = (0..).map(|seed| (seed, Plan::draw(seed, &Fixed::default())));
        let mut long = plans.filter(|(_, plan)| plan.actions.len() >= 20);
        long.next().expect("many seeds are long")
    }

    #[test]
    fn only_the_actions_that_matter_are_left() {
        let (seed, _) = long();
        let has = |plan: &Plan, number| plan.actions.iter().any(|a| a.number == number);
        let shrunk = shrink_with(seed, 10_000, |plan| has(plan, 3) && has(plan, 17));
        assert_eq!(shrunk.cut.only, Some(BTreeSet::from([3, 17])));
        assert_eq!(shrunk.cut.clients, Some(0));
        assert_eq!(shrunk.cut.keys.unwrap_or(1), 1);
        assert!(shrunk.is_minimal);
    }

    #[test]
    fn numbers_go_down_to_where_it_still_fails() {
        let (seed, drawn) = long();
        let least = drawn.shape.operations * 2 / 3;
        let shrunk = shrink_with(seed, 10_000, |plan| plan.shape.operations >= least);
        assert_eq!(shrunk.plan.shape.operations, least);
        assert_eq!(shrunk.plan.actions.len(), 0);
        assert_eq!((shrunk.plan.shape.voters, shrunk.plan.shape.learners), (1, 0));
    }

    #[test]
    fn a_small_budget_ends_early_with_something_that_fails() {
        let (seed, _) = long();
        let has = |plan: &Plan, number| plan.actions.iter().any(|a| a.number == number);
        let shrunk = shrink_with(seed, 5, |plan| has(plan, 3));
        assert_eq!(shrunk.runs, 5);
        assert!(!shrunk.is_minimal && has(&shrunk.plan, 3));
    }

    #[test]
    fn a_cut_and_its_command_agree() {
        let (seed, drawn) = long();
        let cut = Cut {
            only: Some(BTreeSet::from([2, 5])),
            clients: Some(1),
            faults_ms: Some(1500),
            ..Cut::default()
        };
        let plan = cut.apply(&drawn).expect("these are there");
        assert_eq!(plan.actions.iter().map(|a| a.number).collect::<Vec<_>>(), [2, 5]);
        assert_eq!((plan.shape.clients, plan.shape.faults_us), (1, 1_500_000));
        let line = command(seed, &Fixed::default(), &cut, Some(Exhibit::LogNotSynced));
        let flags = "--exhibit log-not-synced --only 2,5 --clients 1 --faults-ms 1500";
        assert!(line.ends_with(flags), "{line}");
        let nothing = Cut { only: Some(BTreeSet::new()), ..Cut::default() };
        assert!(command(seed, &Fixed::default(), &nothing, None).ends_with("--only none"));
        let wrong = Cut { only: Some(BTreeSet::from([1000])), ..Cut::default() };
        assert_eq!(wrong.apply(&drawn).err(), Some(NoSuchAction(1000)));
    }

    #[test]
    fn voters_given_to_the_seed_and_cut_afterwards_are_the_same() {
        let (seed, drawn) = long();
        let fixed = Fixed { voters: Some(1), ..Fixed::default() };
        let cut = Cut { voters: Some(1), ..Cut::default() };
        let after = cut.apply(&drawn).expect("no action is named");
        assert_eq!(format!("{:?}", Plan::draw(seed, &fixed)), format!("{after:?}"));
    }
}
