//! job-queue (C++).

use std::collections::BTreeMap;

use super::{Trial, json, number};

const JOBS: u64 = 150;

#[test]
fn jobs_come_out_in_order_once_and_none_is_lost_through_a_killed_leader() {
    let mut trial = Trial::start("plugins/job-queue/job_queue.wasm");
    let push = |n| format!("push mail 2 0 letter {n}");
    let answers = trial.apply_through_a_killed_leader((0..JOBS).map(push).collect());
    // By id, which is the order of the log.
    let pushed: BTreeMap<u64, &str> = answers
        .iter()
        .map(|answer| {
            let id = answer.ok().parse().expect("an id");
            (id, answer.command.trim_start_matches("push mail 2 0 "))
        })
        .collect();
    assert!(pushed.keys().copied().eq(1..=JOBS), "every job has an id of its own: {pushed:?}");
    assert_eq!(number(&trial.query("stats"), "ready"), JOBS);

    // All but one are taken for an hour, in order, and every second one is done.
    let hour = "3600000";
    for (id, payload) in pushed.range(..JOBS) {
        let job = trial.apply(format!("take mail worker {hour}"));
        let words: Vec<&str> = job.ok().splitn(4, ' ').collect();
        let expected = (id.to_string(), "1", *payload);
        assert_eq!((words[0].to_owned(), words[1], words[3]), expected, "{job:?}");
        if id % 2 == 0 {
            trial.apply(format!("done {id} 1")).ok();
            assert!(trial.apply(format!("done {id} 1")).reason().contains("has no lease"));
        }
    }

    // The last one is taken by workers that die: its leases end by the log's clock, and it is dead
    // after two tries.
    for attempt in 1..=2 {
        let job = trial.cluster.eventually("the job", || {
            let job = trial.apply("take mail slow 200");
            (job.ok() != "none").then_some(job)
        });
        let expected = format!("{JOBS} {attempt} ");
        assert!(job.ok().starts_with(&expected), "{job:?}");
    }
    trial.cluster.eventually("a dead letter", || {
        trial.apply("tick").ok();
        trial.query("dead mail").starts_with(&format!("{JOBS} ")).then_some(())
    });
    assert!(trial.apply(format!("done {JOBS} 2")).reason().contains("has no lease"));

    trial.revive_and_compare();
    let stats = json(&trial.everywhere("stats"));
    let done = (JOBS - 1) / 2;
    let expected = serde_json::json!({
        "ready": 0, "delayed": 0, "leased": JOBS - 1 - done, "dead": 1, "pushed": JOBS, "done": done
    });
    assert_eq!(stats, expected);
    assert_eq!(trial.everywhere(&format!("payload {JOBS}")), pushed[&JOBS]);
}
