//! feature-flags (AssemblyScript).

use std::collections::BTreeMap;

use super::{Trial, json, number};

const FLAGS: usize = 4;
const UPDATES: usize = 50;

#[test]
fn flags_keep_every_change_and_decide_alike_through_a_killed_leader() {
    let mut trial = Trial::start("plugins/feature-flags/feature_flags.wasm");
    for flag in 0..FLAGS {
        let create = format!(r#"{{"op":"create","flag":"flag-{flag}","by":"ann","salt":"s"}}"#);
        assert_eq!(trial.apply(create).ok(), r#"{"version":1}"#);
    }
    let update = |n: usize| {
        let (flag, rollout) = (n % FLAGS, n * 10 + 10);
        format!(r#"{{"op":"update","flag":"flag-{flag}","by":"bob","rollout":{rollout}}}"#)
    };
    let answers = trial.apply_through_a_killed_leader((0..FLAGS * UPDATES).map(update).collect());
    // By version: the roll-out that it set.
    let mut history = vec![BTreeMap::new(); FLAGS];
    for answer in &answers {
        let command = json(&answer.command);
        let flag = command["flag"].as_str().and_then(|flag| flag.strip_prefix("flag-"));
        let flag: usize = flag.and_then(|flag| flag.parse().ok()).expect("one of these flags");
        let (version, rollout) =
            (number(answer.ok(), "version"), number(&answer.command, "rollout"));
        assert_eq!(history[flag].insert(version, rollout), None, "{answer:?} came twice");
    }
    for (flag, history) in history.iter().enumerate() {
        assert!(history.keys().copied().eq(2..UPDATES as u64 + 2), "{history:?}");
        let settings = trial.query(&format!(r#"{{"op":"get","flag":"flag-{flag}"}}"#));
        let last = (number(&settings, "version"), number(&settings, "rollout"));
        assert_eq!(Some(last), history.last_key_value().map(|(v, r)| (*v, *r)), "{settings}");
    }

    // Who is in a roll-out stays in it when it grows.
    let roll_out = |rollout: u64, version: usize| {
        format!(
            r#"{{"op":"update","flag":"flag-0","by":"ann","expect":{version},"on":true,"rollout":{rollout}}}"#
        )
    };
    let evaluate = |n| format!(r#"{{"op":"evaluate","flag":"flag-0","subject":"user-{n}"}}"#);
    let is_in = |answer: &str| json(answer)["value"] == true;
    trial.apply(roll_out(3_000, UPDATES + 1)).ok();
    let before: Vec<bool> = (0..60).map(|n| is_in(&trial.query(&evaluate(n)))).collect();
    let late = trial.apply(roll_out(1, UPDATES + 1));
    assert!(late.reason().contains("version"), "{late:?}");
    trial.apply(roll_out(6_000, UPDATES + 2)).ok();

    trial.revive_and_compare();
    let after: Vec<bool> = (0..60).map(|n| is_in(&trial.everywhere(&evaluate(n)))).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| !before || *after));
    let count = |all: &[bool]| all.iter().filter(|is_in| **is_in).count();
    assert!(0 < count(&before) && count(&before) < count(&after) && count(&after) < 60);
    let audit = json(&trial.everywhere(r#"{"op":"audit","flag":"flag-0","limit":50}"#));
    let changes = audit.as_array().expect("a list");
    let newest = UPDATES as u64 + 3;
    for (back, change) in changes.iter().enumerate() {
        assert_eq!(change["version"].as_u64(), Some(newest - back as u64), "{change}");
    }
    assert_eq!(changes.len(), 50);
}
