//! A slice of the simulator that fits into every test run: some seeds, and what makes them worth
//! something: the same seed is the same run, everywhere.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_host::museum::Exhibit;
use raft_host_tests::sim::plan::{Fixed, Plan};
use raft_host_tests::sim::regressions::REGRESSIONS;
use raft_host_tests::sim::runner::{self, Batch, loader, run_batch, with_stack};
use raft_host_tests::sim::shrink::{Budget, Cut, command, shrink};
use raft_host_tests::sim::{Kind, Report, View, golden};

/// Seeds with flipped bits.
const FLIPPED: u64 = 16;
/// Seeds of the batch, and the time after which no further one is begun.
const SEEDS: u64 = 150;
const AT_LEAST: u64 = 20;
const SECONDS: u64 = 40;

fn run(plan: &Arc<Plan>, view: Option<&View>) -> Report {
    with_stack(|| runner::run(plan, &loader(), None, view))
}

#[test]
fn the_same_seed_is_the_same_run() {
    let everything = View { lines: usize::MAX, hidden: BTreeSet::new() };
    for (seed, guest) in [(11, "registers"), (12, "native")] {
        let fixed = Fixed { guest: Some(guest), voters: Some(3), calm: false, flips: false };
        // Two loaders: nothing that one run leaves behind may matter to the other.
        let [first, second] =
            [(); 2].map(|()| run(&Arc::new(Plan::draw(seed, &fixed)), Some(&everything)));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert!(first.trace == second.trace, "the traces of seed {seed} differ, their hash not");
        // And it is the same run when nobody looks.
        let unseen = run(&Arc::new(Plan::draw(seed, &fixed)), None);
        assert_eq!((first.trace_hash, ""), (unseen.trace_hash, unseen.trace.as_str()));
    }
}

#[test]
fn runs_are_what_they_were_in_the_other_build() {
    let checked = with_stack(|| golden::check(&loader()));
    if let Err(why) = checked {
        panic!("{why}");
    }
}

#[test]
fn a_slice_of_seeds_violates_nothing() {
    let fixed = Fixed::default();
    let batch = |first, count, seconds: Option<u64>| Batch {
        first,
        count,
        jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        fixed: fixed.clone(),
        exhibit: None,
        deadline: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        stops_early: false,
    };
    let loader = loader();
    let mut outcome = run_batch(&batch(0, AT_LEAST, None), &loader, &|_, _| {});
    let rest = run_batch(&batch(AT_LEAST, SEEDS - AT_LEAST, Some(SECONDS)), &loader, &|_, _| {});
    outcome.counters.add(&rest.counters);
    outcome.violations.extend(rest.violations);
    print!("{}", outcome.counters);
    let wrong: Vec<String> = outcome
        .violations
        .iter()
        .map(|(seed, violation)| {
            let line = command(*seed, &fixed, &Cut::default(), None);
            format!("{}: {}\n  reproduce:  {line}", violation.invariant, violation.what)
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn flipped_bits_are_noticed_and_healed() {
    let fixed = Fixed { guest: Some("native"), flips: true, ..Fixed::default() };
    let batch = Batch {
        first: 0,
        count: FLIPPED,
        jobs: 1,
        fixed: fixed.clone(),
        exhibit: None,
        deadline: None,
        stops_early: false,
    };
    let outcome = run_batch(&batch, &loader(), &|_, _| {});
    print!("{}", outcome.counters);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
}

#[test]
fn seeds_that_once_found_something_stay_quiet() {
    for regression in REGRESSIONS {
        let drawn = Plan::draw(regression.seed, &regression.fixed());
        let plan = regression.cut().apply(&drawn).expect("the plan has these actions");
        let violation = run(&Arc::new(plan), None).violation;
        assert_eq!(violation, None, "seed {}: {}", regression.seed, regression.story);
    }
}

#[test]
fn every_line_of_a_node_has_a_kind() {
    let all_but_run = Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Run);
    let rest = View { lines: usize::MAX, hidden: all_but_run.collect() };
    for seed in [4, 5] {
        let trace = run(&Arc::new(Plan::draw(seed, &Fixed::default())), Some(&rest)).trace;
        let of_nodes: Vec<&str> =
            trace.lines().skip(3).filter(|line| !line.contains("--  ")).collect();
        assert!(of_nodes.is_empty(), "seed {seed}: {of_nodes:?}");
    }
}

#[test]
fn a_shrunk_run_fails_as_the_first_one_did_and_shrinks_the_same_way_again() {
    let exhibit = Some(Exhibit::AcknowledgedBeforeFsync);
    let fixed = Fixed { guest: Some("registers"), ..Fixed::default() };
    with_stack(|| {
        let loader = loader();
        let budget = Budget { runs: 60, deadline: None };
        let successes = Cell::new(0);
        let shrink_seed = |drawn: &Plan| {
            let seen = |_: u64, _: &Plan| successes.set(successes.get() + 1);
            shrink(drawn, &Cut::default(), &loader, exhibit, &budget, &seen)
        };
        let plans = (0..50).map(|seed| Plan::draw(seed, &fixed));
        let (drawn, shrunk) = plans
            .filter(|plan| plan.actions.len() > 1)
            .find_map(|plan| shrink_seed(&plan).ok().map(|shrunk| (plan, shrunk)))
            .expect("every exhibit is found within a few seeds");
        let first = runner::run(&Arc::new(drawn.clone()), &loader, exhibit, None);
        let first = first.violation.expect("it was shrunk because it fails");
        assert_eq!(first.invariant, shrunk.violation.invariant);
        assert!(shrunk.plan.actions.len() <= drawn.actions.len());
        assert!(successes.get() > 0, "nothing at all could be left out");

        // The cut alone leads there again, without the shrinker.
        let plan = Arc::new(shrunk.cut.apply(&drawn).expect("it kept what is there"));
        let again = runner::run(&plan, &loader, exhibit, None);
        assert_eq!(again.violation.as_ref(), Some(&shrunk.violation));
        // And without the bug there is nothing to find.
        let sound = runner::run(&plan, &loader, None, None);
        assert_eq!(sound.violation, None);

        let twice = shrink_seed(&drawn).expect("it failed before");
        assert_eq!((twice.cut, twice.runs), (shrunk.cut, shrunk.runs));
    });
}
