//! Disks that do not answer, that lost something, and that are older than they may be.

use std::fs;
use std::path::Path;

use raft_host_proto::v1;
use raft_host_tests::{Cluster, Started, build_fsync_shim};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const DATA_UNUSABLE: Option<i32> = Some(7);

fn set(key: &str) -> String {
    format!(r#"{{"op":"set","key":"{key}","value":"1"}}"#)
}

fn leads(status: &v1::StatusResponse) -> bool {
    status.group("").is_some_and(|group| group.role() == v1::Role::Leader)
}

/// A leader whose fsync hung sent heartbeats for ever; all nodes were healthy, nobody could write,
/// and SIGTERM did not end it.
#[test]
fn when_the_leaders_fsync_hangs_another_serves_and_sigterm_still_ends_it() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let shim = build_fsync_shim(cluster.dir()).expect("a C compiler");
    for at in 0..3 {
        cluster.restart_with(at, &shim);
    }
    cluster.cli().run(&["apply", &set("before")]).ok();
    let old = cluster.leader();
    cluster.servers[old].hang_fsync(true);
    // Needs an fsync of everybody; who answers may be the old one or the new.
    let applied = cluster.cli().run(&["apply", "--session", &set("during")]);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    let new = cluster.eventually("another leader", || {
        let others = (0..3).filter(|at| *at != old);
        others.into_iter().find(|at| cluster.status(*at).as_ref().is_some_and(leads))
    });
    assert!(cluster.query(new, r#"{"op":"get","key":"during"}"#).contains('1'));
    let said = cluster.eventually("the stuck one says so", || {
        cluster.status(old).filter(|status| status.log_write_stuck_ms > 0)
    });
    assert!(!leads(&said), "{said:?}");
    assert!(cluster.cli_of(old).run(&["status", "--only"]).ok().contains("STUCK"));
    // What it had been handed is not on its disk, so this is not the end of a healthy node.
    assert_eq!(cluster.servers[old].terminate(), Some(1));
    assert!(cluster.servers[old].log().contains("log-writer"), "{}", cluster.servers[old].log());
    cluster.servers[old].hang_fsync(false);
    cluster.servers[old].start(&[]);
    cluster.wait_for_agreement();
    assert!(cluster.local(old, r#"{"op":"get","key":"during"}"#).contains('1'));
}

/// Ten times in a row: the others serve, whoever asks the stuck one hears nothing that is not so any more, and it
/// takes part again by itself.
#[test]
fn each_time_that_a_leaders_fsync_hangs_the_others_serve_and_it_comes_back() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let shim = build_fsync_shim(cluster.dir()).expect("a C compiler");
    for at in 0..3 {
        cluster.restart_with(at, &shim);
    }
    for round in 1..=10 {
        let old = cluster.leader();
        let set = |value: &str| format!(r#"{{"op":"set","key":"round","value":"{value}"}}"#);
        cluster.cli().run(&["apply", &set(&format!("{round} before"))]).ok();
        cluster.servers[old].hang_fsync(true);
        let value = format!("{round} during");
        let applied = cluster.cli().run(&["apply", "--session", &set(&value)]);
        assert_eq!(applied.code, Some(0), "round {round}: {applied:?}");
        let get = r#"{"op":"get","key":"round"}"#;
        let asked = cluster.cli_of(old).run(&["query", get, "--timeout", "2s"]);
        let is_right = asked.code != Some(0) || asked.stdout.contains(&value);
        assert!(is_right, "round {round}: {asked:?}");
        cluster.eventually("another leader", || {
            let others = (0..3).filter(|at| *at != old);
            others.into_iter().find(|at| cluster.status(*at).as_ref().is_some_and(leads))
        });
        cluster.servers[old].hang_fsync(false);
        cluster.wait_for_agreement();
        assert!(cluster.local(old, get).contains(&value), "round {round}");
        assert!(cluster.servers.iter().all(|server| server.is_running()));
    }
}

/// Every write is slow, and none takes so long that the disk does not answer.
#[test]
fn a_disk_that_is_slow_raises_an_alarm_that_says_how_slow() {
    let mut cluster = Cluster::new(PROGRAM, 1, &[]);
    let shim = build_fsync_shim(cluster.dir()).expect("a C compiler");
    let config = cluster.dir().join("slow.toml");
    fs::write(&config, "[node]\nslow_sync_ms = 100\n").expect("written");
    cluster.servers[0].kill();
    cluster.servers[0].preload(&shim);
    cluster.servers[0].start(&["--config", config.to_str().expect("UTF-8")]);
    let disk = || cluster.status(0).and_then(|status| status.disk);
    cluster.cli().run(&["apply", &set("before")]).ok();
    cluster.cli().run(&["apply", &set("before")]).ok();
    let quick = cluster.eventually("a measure", || disk().filter(|it| it.sync_p99_us.is_some()));
    cluster.servers[0].slow_fsync(300);
    let slow = cluster.eventually("an alarm", || {
        cluster.cli().run(&["apply", &set("slow")]).ok();
        disk().filter(|disk| disk.alarm.contains("slow"))
    });
    assert!(slow.sync_p99_us > Some(300_000) && slow.sync_p99_us > quick.sync_p99_us, "{slow:?}");
    let shown = cluster.cli_of(0).run(&["status", "--only"]).ok();
    assert!(shown.contains("raises an ALARM about its disk: its disk is slow"), "{shown}");
    assert_eq!(cluster.status(0).expect("it answers").log_write_stuck_ms, 0);
}

/// Every command waited for the leader's disk, though the others' were quick.
#[test]
fn a_leader_whose_disk_is_slow_lets_another_lead() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let shim = build_fsync_shim(cluster.dir()).expect("a C compiler");
    let config = cluster.dir().join("slow.toml");
    fs::write(&config, "[node]\nslow_sync_ms = 100\n").expect("written");
    for at in 0..3 {
        cluster.servers[at].kill();
        cluster.servers[at].preload(&shim);
        cluster.servers[at].start(&["--config", config.to_str().expect("UTF-8")]);
    }
    let old = cluster.leader();
    cluster.servers[old].slow_fsync(300);
    let new = cluster.eventually("another leader", || {
        cluster.cli().run(&["apply", &set("slow")]).ok();
        let others = (0..3).filter(|at| *at != old);
        others.into_iter().find(|at| cluster.status(*at).as_ref().is_some_and(leads))
    });
    assert_ne!(new, old);
    let log = cluster.servers[old].log();
    assert!(log.contains("this node's disk is slow, and leadership is handed over"), "{log}");
    cluster.cli().run(&["apply", &set("after")]).ok();
}

fn rot_all(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count += rot_all(&path);
        } else if path.extension().is_some_and(|extension| extension == "snap") {
            let mut bytes = fs::read(&path).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(&path, bytes).expect("written");
            count += 1;
        }
    }
    count
}

/// Its log does not reach back to the beginning, so nothing of its own will do; what it voted and acknowledged is
/// there all the same.
#[test]
fn a_node_whose_states_are_all_rotten_gets_one_of_a_member_and_stays_who_it_is() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    cluster.cli().run(&["apply", &set("before")]).ok();
    cluster.wait_for_agreement();
    let leader = cluster.leader();
    let victim = (leader + 1) % 3;
    let id = cluster.node_id(victim);
    assert_eq!(cluster.servers[victim].terminate(), Some(0));
    assert!(rot_all(&cluster.servers[victim].data_dir.join("snapshots")) > 0);
    cluster.cli().run(&["apply", &set("meanwhile")]).ok();
    let said = cluster.servers[victim].refuses(&[]);
    assert!(said.contains("No older state will do") && said.contains("--join"), "{said}");
    let nobody = cluster.servers[victim].address.to_string();
    let said = cluster.servers[victim].refuses(&["--join", &nobody]);
    assert!(said.contains("no member gave it one"), "{said}");
    let seed = cluster.servers[leader].address.to_string();
    cluster.servers[victim].start(&["--join", &seed]);
    cluster.wait_for_agreement();
    assert_eq!(cluster.node_id(victim), id);
    assert!(cluster.local(victim, r#"{"op":"get","key":"meanwhile"}"#).contains('1'));
    assert!(cluster.servers[victim].log().contains("it goes on with a member's"));
    let compared = cluster.cli().run(&["digest", "-o", "json"]).ok();
    assert!(compared.contains("\"all_agree\":true"), "{compared}");
    // And again, without anybody's help.
    assert_eq!(cluster.servers[victim].terminate(), Some(0));
    cluster.servers[victim].start(&[]);
    cluster.wait_for_agreement();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

fn replace(directory: &Path, by: &Path) {
    fs::remove_dir_all(directory).expect("removed");
    copy(by, directory);
}

/// It panicked in raft-rs, and then the process hung.
#[test]
fn an_old_copy_of_a_voters_directory_ends_the_process_with_the_reason() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    cluster.cli().run(&["apply", &set("before")]).ok();
    cluster.wait_for_agreement();
    let leader = cluster.leader();
    let victim = (0..3).find(|at| *at != leader).expect("three");
    assert_eq!(cluster.servers[victim].terminate(), Some(0));
    let (data, old) = (cluster.servers[victim].data_dir.clone(), cluster.dir().join("old"));
    copy(&data, &old);
    cluster.servers[victim].start(&[]);
    for n in 0..20 {
        cluster.cli_of(leader).run(&["apply", &set(&format!("key-{n}"))]).ok();
    }
    cluster.wait_for_agreement();
    cluster.servers[victim].kill();
    replace(&data, &old);
    let code = match cluster.servers[victim].try_start(&[]) {
        Started::Serving => cluster.servers[victim].wait(),
        Started::Ended(code, _) => code,
    };
    assert_eq!(code, DATA_UNUSABLE);
    let log = cluster.servers[victim].log();
    assert!(log.contains("this directory is older than what its cluster knows of it"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// A voter whose log was emptied while it was down had forgotten its vote and what it had
/// acknowledged; with another voter down, an acknowledged write was gone on all nodes in the end.
#[test]
fn a_voter_whose_log_was_emptied_refuses_to_start_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let (victim, absent) = (others[0], others[1]);
    cluster.servers[absent].kill();
    cluster.cli_of(leader).run(&["apply", &set("acknowledged")]).ok();
    cluster.servers[leader].kill();
    cluster.servers[victim].kill();
    let log_dir = cluster.servers[victim].data_dir.join("log");
    fs::remove_dir_all(&log_dir).expect("removed");
    fs::create_dir(&log_dir).expect("made");
    cluster.servers[absent].start(&[]);
    match cluster.servers[victim].try_start(&[]) {
        Started::Ended(code, log) => {
            assert_eq!(code, DATA_UNUSABLE, "{log}");
            assert!(log.contains("its directory log was emptied or replaced"), "{log}");
            assert!(log.contains("members remove"), "{log}");
        }
        Started::Serving => panic!("it starts without what it has acknowledged"),
    }
    cluster.servers[leader].start(&[]);
    let elected = cluster.leader();
    assert!(cluster.query(elected, r#"{"op":"get","key":"acknowledged"}"#).contains('1'));
}
