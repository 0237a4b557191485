//! rate-limiter (C).

use std::collections::BTreeSet;

use super::{Trial, json, number};

const KEYS: usize = 2;
const BURST: usize = 60;
/// For each key.
const TAKEN: usize = 90;

#[test]
fn buckets_give_what_they_hold_and_no_more_through_a_killed_leader() {
    let mut trial = Trial::start("plugins/rate-limiter/rate_limiter.wasm");
    // One token in 24 hours: what is taken does not come back while this runs.
    trial.apply(format!("policy api 1 86400000 {BURST}")).ok();
    let take = |n: usize| format!("take api user-{}", n % KEYS);
    let answers = trial.apply_through_a_killed_leader((0..KEYS * TAKEN).map(take).collect());
    for key in 0..KEYS {
        let of_key = answers.iter().filter(|answer| answer.command.ends_with(&key.to_string()));
        let told: Vec<serde_json::Value> = of_key.map(|answer| json(answer.ok())).collect();
        let allowed: Vec<u64> = told
            .iter()
            .filter(|answer| answer["allowed"] == true)
            .map(|answer| answer["remaining"].as_u64().expect("a number"))
            .collect();
        assert_eq!((told.len(), allowed.len()), (TAKEN, BURST));
        let each_once: BTreeSet<u64> = allowed.into_iter().collect();
        assert!(each_once.into_iter().eq(0..BURST as u64), "a token was given twice");
    }
    let stats = trial.query("stats");
    assert_eq!(number(&stats, "allowed"), (KEYS * BURST) as u64, "{stats}");
    assert_eq!(number(&stats, "denied"), (KEYS * (TAKEN - BURST)) as u64, "{stats}");

    // Given back and taken again.
    trial.apply("give api user-0 5").ok();
    let peek = trial.query("peek api user-0 6");
    assert_eq!((json(&peek)["allowed"].as_bool(), number(&peek, "remaining")), (Some(false), 5));
    assert_eq!(number(trial.apply("take api user-0 5").ok(), "remaining"), 0);

    // A bucket fills by the log's clock, whoever leads.
    trial.apply("policy fast 10 1000 5").ok();
    assert_eq!(json(trial.apply("take fast k 5").ok())["allowed"], true);
    let denied = trial.apply("take fast k 5");
    assert!(number(denied.ok(), "retry_after_ms") <= 500, "{denied:?}");
    trial.cluster.eventually("tokens", || {
        let taken = json(trial.apply("take fast k 5").ok());
        (taken["allowed"] == true).then_some(())
    });
    assert!(trial.apply("take slow k").reason().contains("no policy"));

    trial.revive_and_compare();
    let everywhere = trial.everywhere("peek api user-1");
    assert_eq!(number(&everywhere, "remaining"), 0, "{everywhere}");
    assert_eq!(number(&trial.everywhere("stats"), "policies"), 2);
}
