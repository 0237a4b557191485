//! lock (Zig).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Trial, json, number};

const ROUNDS: usize = 60;
const LOCKS: usize = 3;

#[test]
fn fencing_tokens_rise_and_leases_end_through_a_killed_leader() {
    let mut trial = Trial::start("plugins/lock/lock.wasm");
    // Somebody takes it, somebody else asks in vain, and it is taken by force.
    let round = |n: usize| {
        let lock = format!("jobs/{}", n % LOCKS);
        [
            format!("acquire {lock} worker-{n} 60000"),
            format!("acquire {lock} thief-{n} 60000"),
            format!("break {lock} round {n} is over"),
        ]
    };
    let answers = trial.apply_through_a_killed_leader((0..ROUNDS).flat_map(round).collect());
    // Anybody may win a round, since commands that are sent again may come late.
    let (mut tokens, mut held) = (BTreeSet::new(), vec![0; LOCKS]);
    for answer in &answers {
        let words: Vec<&str> = answer.command.split(' ').collect();
        let lock: usize = words[1].trim_start_matches("jobs/").parse().expect("a number");
        match (words[0], &answer.result) {
            ("acquire", Ok(output)) => {
                let token = number(output, "token");
                // Not below its place in the log: so tokens rise, whoever leads.
                assert!(token >= answer.index.unwrap_or(token), "{answer:?}");
                assert!(tokens.last().is_none_or(|before| token > *before), "{answer:?}");
                tokens.insert(token);
                held[lock] += 1;
            }
            ("acquire", Err(reason)) => assert!(reason.contains("is held by"), "{answer:?}"),
            (_, Ok(_)) => held[lock] -= 1,
            (_, Err(reason)) => assert!(reason.contains("is not held"), "{answer:?}"),
        }
    }
    for (lock, held) in held.iter().enumerate() {
        let state = json(&trial.query(&format!("get jobs/{lock}")));
        let expected = if *held == 1 { "held" } else { "free" };
        assert_eq!(state["state"], expected, "granted {held} times more often than given back");
    }
    let stats = trial.query("stats");
    let last_token = tokens.last().copied().expect("there were grants");
    assert_eq!(number(&stats, "grants"), tokens.len() as u64, "{stats}");
    assert_eq!(number(&stats, "last_token"), last_token, "{stats}");

    // A lease ends by the log's clock, whoever leads, and the next in line has the lock.
    let first = number(trial.apply("acquire db/leader alice 200").ok(), "token");
    assert!(first > last_token, "{first} after {last_token}");
    let waiting = trial.apply("acquire db/leader bob 3600000 60000");
    assert_eq!(json(waiting.ok())["state"], "waiting", "{waiting:?}");
    trial.cluster.eventually("the end of the lease", || {
        std::thread::sleep(Duration::from_millis(50));
        (number(trial.apply("tick").ok(), "settled") > 0).then_some(())
    });
    assert_eq!(trial.query(&format!("validate db/leader {first}")), r#"{"valid":false}"#);
    let stale = trial.apply(format!("release db/leader alice {first}"));
    assert!(stale.reason().contains("is not held by alice"), "{stale:?}");

    trial.revive_and_compare();
    let state = trial.everywhere("get db/leader");
    assert_eq!(json(&state)["owner"], "bob", "{state}");
    let second = number(&state, "token");
    assert!(second > first, "{second} after {first}");
    let valid = trial.everywhere(&format!("validate db/leader {second}"));
    assert_eq!(json(&valid)["valid"], true, "{valid}");
}
