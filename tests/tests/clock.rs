//! The log's clock: agreed by the voters, and put forward by an operator's word only.

use raft_host_tests::Cluster;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const HOUR_MS: u64 = 3_600_000;

/// What a node says of clocks.
fn clock(cluster: &Cluster, at: usize) -> Value {
    let said = cluster.cli_of(at).run(&["clock", "-o", "json"]).ok();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn time_ms(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn the_voters_agree_on_the_time_and_an_operator_may_put_it_forward_but_not_back() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let agreed = cluster.eventually("an agreement of all", || {
        let said = clock(&cluster, leader);
        let members = said["members"].as_array().map_or(0, Vec::len);
        (said["agreed"] == true && members == 2).then_some(said)
    });
    assert!(agreed["offset_ms"].as_i64().expect("known").abs() < 1_000, "{agreed}");
    assert_eq!(agreed["alarm"], "");
    let follower = (leader + 1) % 3;
    cluster.eventually("the leader's word", || {
        clock(&cluster, follower)["offset_ms"].as_i64().filter(|offset| offset.abs() < 1_000)
    });

    let modules = cluster.cli().run(&["modules", "-o", "json"]).ok();
    let modules: Value = serde_json::from_str(&modules).expect("JSON");
    let first = time_ms(&modules["history"][0], "time_ms");
    assert!(first > 1_700_000_000_000, "a new cluster does not begin in 1970: {modules}");

    let before = time_ms(&agreed, "log_time_ms");
    let wished = cluster.cli_of(follower).run(&["clock", "set", "+2h"]);
    assert_eq!(wished.code, Some(1), "{wished:?}");
    assert!(wished.stderr.contains("nothing was changed"), "{wished:?}");
    assert!(time_ms(&clock(&cluster, follower), "time_ms") < before + HOUR_MS);
    let set = cluster.cli_of(follower).run(&["clock", "set", "+2h", "--yes"]).ok();
    assert!(set.contains("set at index"), "{set}");
    cluster.eventually("an alarm: the log is ahead of all clocks", || {
        let said = clock(&cluster, leader);
        let alarm = said["alarm"].as_str().unwrap_or_default().to_owned();
        (time_ms(&said, "log_ahead_ms") > HOUR_MS && alarm.contains("half the speed")).then_some(())
    });
    let back = cluster.cli_of(follower).run(&["clock", "set", "2026-01-01T00:00:00Z", "--yes"]);
    assert_eq!(back.code, Some(1), "{back:?}");
    assert!(back.stderr.contains("is not put back"), "{back:?}");
    let absurd = cluster.cli_of(follower).run(&["clock", "set", "18446744073709551615", "--yes"]);
    assert!(absurd.stderr.contains("after the year 9999"), "{absurd:?}");
    let metrics = cluster.cli_of(leader).run(&["status"]).ok();
    assert!(metrics.contains("ALARM about clocks"), "{metrics}");

    for at in 0..3 {
        cluster.servers[at].kill();
        cluster.servers[at].start(&[]);
    }
    cluster.wait_for_agreement();
    let after = clock(&cluster, cluster.leader());
    assert!(time_ms(&after, "time_ms") > before + HOUR_MS, "it is in the log: {after}");
}
