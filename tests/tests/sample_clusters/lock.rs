//! lock (Zig).

use std::time::Duration;

use super::{Trial, by_index, json, number};

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
    // A command that was sent again may come late, so anybody may win a round: but at each moment
    // each lock has one owner, and a token is greater than all before it.
    let (mut owners, mut last_token, mut grants) = (vec![None; LOCKS], 0, 0);
    for answer in by_index(&answers) {
        let words: Vec<&str> = answer.command.split(' ').collect();
        let lock: usize = words[1].trim_start_matches("jobs/").parse().expect("a number");
        match (words[0], owners[lock]) {
            ("acquire", None) => {
                let token = number(answer.ok(), "token");
                assert!(token > last_token, "{token} after {last_token}");
                (owners[lock], last_token, grants) = (Some(words[2]), token, grants + 1);
            }
            ("acquire", Some(owner)) => assert!(answer.reason().contains(owner), "{answer:?}"),
            (_, Some(_)) => {
                assert_eq!(json(answer.ok())["state"], "free", "{answer:?}");
                owners[lock] = None;
            }
            (_, None) => assert!(answer.reason().contains("is not held"), "{answer:?}"),
        }
    }
    let stats = trial.query("stats");
    assert_eq!((number(&stats, "grants"), number(&stats, "last_token")), (grants, last_token));

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
