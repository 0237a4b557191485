//! Limits of the guest that change while the cluster runs.

use raft_host_tests::{Cluster, block_on};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// Exit code of a command that trapped.
const TRAPPED: Option<i32> = Some(4);

#[test]
fn a_changed_limit_counts_at_once_and_survives_kill_and_snapshots() {
    let mut cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    let write = |value: &str| {
        cli.run(&["apply", &format!(r#"{{"op":"set","key":"a","value":"{value}"}}"#)])
    };
    let read = || cli.run(&["query", r#"{"op":"get","key":"a"}"#]).ok();
    write("before").ok();
    let said = cli.run(&["limits", "set", "apply_fuel=1_000", "events_max=7"]).ok();
    assert!(said.contains("apply_fuel: 1,000, was 1,000,000,000"), "{said}");
    assert!(said.contains("events_max: 7, was 1,024"), "{said}");

    let out_of_fuel = || {
        let output = write("never");
        assert_eq!(output.code, TRAPPED, "{output:?}");
        let said = output.stdout + &output.stderr;
        assert!(said.contains("fuel"), "{said}");
        assert!(read().contains("before"));
    };
    out_of_fuel();
    // From the log.
    cluster.servers[0].kill();
    cluster.servers[0].start(&[]);
    out_of_fuel();
    // From a snapshot.
    cli.run(&["snapshot", "take"]).ok();
    cluster.servers[0].kill();
    cluster.servers[0].start(&[]);
    out_of_fuel();
    let shown = cli.run(&["limits", "-o", "json"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["limits"]["apply_fuel"], 1_000);
    assert_eq!(shown["limits"]["events_max"], 7);

    cli.run(&["limits", "set", "apply_fuel=1_000_000_000"]).ok();
    write("after").ok();
    assert!(read().contains("after"));
}

#[test]
fn limits_that_cannot_be_are_refused_with_the_reason_and_nothing_changes() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    let before = cli.run(&["limits"]).ok();
    assert!(before.contains("memory_max_bytes    1,073,741,824 (1.0 GiB)"), "{before}");
    for (change, code, words) in [
        ("apply_fuel=0", 1, "apply_fuel is 0, but must be at least 1"),
        ("memory_max_bytes=100000", 1, "multiple of 65536"),
        ("memory_max_bytes=64KiB", 1, "the active module is refused"),
        ("module_max_bytes=1KiB", 1, "the active module is refused"),
        ("input_max_bytes=16MiB", 1, "node.max_entry_bytes"),
        ("fuel=1", 2, "there are apply_fuel, query_fuel"),
        ("apply_fuel=much", 2, "is not a number"),
    ] {
        let output = cli.run(&["limits", "set", "query_fuel=5", change]);
        assert_eq!(output.code, Some(code), "{change}: {output:?}");
        assert!(output.stderr.contains(words), "{change}: {}", output.stderr);
        assert_eq!(cli.run(&["limits"]).ok(), before);
    }
}

#[test]
fn what_limits_may_cost_in_memory_is_told_and_warned_of_where_a_machine_has_less() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    assert!(cli.run(&["limits"]).ok().contains("the guest takes up to 2.0 GiB, an activation 4.0"));
    let most = ["memory_max_bytes=4GiB", "snapshot_max_bytes=4GiB", "-o", "json"];
    let set = cli.run(&[&["limits", "set"][..], &most].concat()).ok();
    let set: serde_json::Value = serde_json::from_str(&set).expect("JSON");
    let shown = cli.run(&["limits", "-o", "json"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["running_memory_bytes"], 8u64 << 30);
    assert_eq!(shown["activation_memory_bytes"], 16u64 << 30);
    let machine = shown["machine_memory_bytes"].as_u64().expect("a number");
    let is_short = 0 < machine && machine < 16 << 30;
    for answer in [&set, &shown] {
        let warning = answer["memory_warning"].as_str().expect("a text");
        assert_eq!(warning.contains("may come to take"), is_short, "{machine}: {warning:?}");
    }
    // Each node says so in its log as well.
    cluster.eventually("the log of it", || {
        let log = cluster.servers[0].log();
        let told = log.lines().filter(|line| line.contains("memory that guests may come to take"));
        let told: Vec<&str> = told.collect();
        let [_, last] = told[..] else { return None };
        assert!(last.contains("16.0 GiB"), "{last}");
        assert_eq!(log.contains("WARN") && log.contains("or give every node more"), is_short);
        Some(())
    });
}

/// Changes how many addresses a process may use.
fn limit_addresses(pid: u32, soft: &str) {
    let status = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--as={soft}:unlimited")])
        .status()
        .expect("prlimit, of util-linux");
    assert!(status.success(), "{status}");
}

#[test]
fn a_query_that_its_node_has_no_addresses_for_is_refused_and_costs_nothing_else() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let (cli, server) = (cluster.cli(), &cluster.servers[0]);
    let write = |value: &str| {
        cli.run(&["apply", &format!(r#"{{"op":"set","key":"a","value":"{value}"}}"#)]).ok()
    };
    write("before");
    // A query runs beside the live guest, in 4 GiB of addresses of its own.
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("VmSize");
    let used_kib: u64 = used.trim().trim_end_matches(" kB").parse().expect("a number");
    limit_addresses(server.pid(), &((used_kib + (1 << 20)) << 10).to_string());
    for round in 0..3 {
        let query = ["query", r#"{"op":"get","key":"a"}"#, "--timeout", "2s"];
        let output = cli.run(&query);
        assert_eq!(output.code, Some(6), "{output:?}");
        assert!(output.stderr.contains("this node could not run the query"), "{output:?}");
        assert!(output.stderr.contains("ulimit -v"), "{output:?}");
        write(&format!("meanwhile {round}"));
    }
    limit_addresses(server.pid(), "unlimited");
    let read = cli.run(&["query", r#"{"op":"get","key":"a"}"#]).ok();
    assert!(read.contains("meanwhile 2"), "{read}");
    assert!(server.log().contains("this node could not run a query"), "{}", server.log());
}

#[test]
fn any_node_takes_the_change_and_all_nodes_have_it_at_the_same_index() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    // More stack than threads have by themselves.
    let set = ["limits", "set", "stack_max_bytes=4MiB", "apply_fuel=1_000", "-o", "json"];
    let said = cluster.cli_of(follower).run(&set).ok();
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["previous"]["stack_max_bytes"], 1 << 20);
    cluster.wait_for_agreement();
    // One that starts from its log, one from its snapshot, and one that never saw the entry.
    cluster.cli_of(follower).run(&["snapshot", "take"]).ok();
    for at in 0..3 {
        cluster.servers[at].kill();
    }
    for at in 0..3 {
        cluster.servers[at].start(&[]);
    }
    let leader = cluster.leader();
    cluster.cli_of(leader).run(&["snapshot", "take"]).ok();
    let joined = cluster.join(&[]);
    cluster.wait_for_voters(4);
    cluster.wait_for_agreement();
    let write = r#"{"op":"set","key":"a","value":"1"}"#;
    assert_eq!(cluster.cli().run(&["apply", write]).code, TRAPPED);
    cluster.cli_of(joined).run(&["limits", "set", "apply_fuel=1_000_000_000"]).ok();
    cluster.cli().run(&["apply", write]).ok();
    cluster.wait_for_agreement();
    let limits = |at: usize| block_on(cluster.client_of(at).limits()).expect("an answer").limits;
    let first = limits(0).expect("limits");
    assert_eq!((first.stack_max_bytes, first.apply_fuel), (4 << 20, 1_000_000_000));
    for at in 0..4 {
        assert_eq!(limits(at), Some(first), "node {at}");
        assert!(cluster.local(at, r#"{"op":"get","key":"a"}"#).contains('1'), "node {at}");
    }
}
