//! Every deliberate bug is caught, and every invariant catches one.

use std::collections::BTreeSet;

use raft_host::museum::Exhibit;
use raft_host_tests::sim::invariants;
use raft_host_tests::sim::museum::{CATCHES, Catch, NOT_CAUGHT, NOT_TRIPPED};
use raft_host_tests::sim::runner::{loader, with_stack};

#[test]
fn every_exhibit_is_caught_by_its_seed_or_listed_with_the_reason() {
    let is_caught =
        |exhibit: &Exhibit| CATCHES.iter().any(|caught: &Catch| caught.exhibit == *exhibit);
    let is_excused = |exhibit: &Exhibit| NOT_CAUGHT.iter().any(|(other, _)| other == exhibit);
    let wrong: Vec<&Exhibit> =
        Exhibit::ALL.iter().filter(|exhibit| is_caught(exhibit) == is_excused(exhibit)).collect();
    assert!(wrong.is_empty(), "caught by nothing, or listed twice: {wrong:?}");
    let loader = loader();
    let wrong: Vec<String> = with_stack(|| {
        CATCHES
            .iter()
            .filter_map(|caught: &Catch| {
                let violation = caught.run(&loader, true);
                let found = violation.as_ref().map(|violation| violation.invariant);
                (found != Some(caught.invariant)).then(|| format!("{caught:?}: {violation:?}"))
            })
            .collect()
    });
    assert!(wrong.is_empty(), "not caught as recorded:\n{}", wrong.join("\n"));
}

#[test]
fn the_same_seeds_are_well_without_the_bugs() {
    let loader = loader();
    let wrong: Vec<String> = with_stack(|| {
        let runs = CATCHES.iter().filter_map(|caught| {
            caught.run(&loader, false).map(|violation| format!("{}: {violation:?}", caught.seed))
        });
        runs.collect()
    });
    assert!(wrong.is_empty(), "violations without a bug:\n{}", wrong.join("\n"));
}

#[test]
fn every_invariant_is_tripped_by_an_exhibit() {
    let tripped: BTreeSet<&str> = CATCHES.iter().map(|caught| caught.invariant).collect();
    let untripped: Vec<&str> =
        invariants::names().into_iter().filter(|name| !tripped.contains(name)).collect();
    let untripped: Vec<&str> =
        untripped.into_iter().filter(|name| !NOT_TRIPPED.contains(name)).collect();
    assert!(untripped.is_empty(), "no exhibit trips {untripped:?}");
}
