//! Three and more processes: nothing acknowledged is lost, no error reaches the application.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft_host_proto::client::{Client, ClientOptions};
use raft_host_tests::{Cluster, Load, block_on, free_port, hex, kv, kv_v2, value};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn everything_is_on_every_node(cluster: &Cluster, count: u64) {
    cluster.wait_for_agreement();
    for at in 0..cluster.servers.len() {
        if !cluster.servers[at].is_running() {
            continue;
        }
        let answer = cluster.local(at, r#"{"op":"count"}"#);
        assert!(answer.contains(&count.to_string()), "node {at}: {answer}");
        for n in (0..count).step_by(97) {
            let answer = cluster.local(at, &format!(r#"{{"op":"get","key":"key-{n}"}}"#));
            assert!(answer.contains(&value(n)), "node {at}, key {n}: {answer}");
        }
    }
}

#[test]
fn killing_the_leader_half_way_loses_nothing() {
    let mut cluster =
        Cluster::new(PROGRAM, 3, &["--snapshot-threshold", "300", "--snapshot-pause-ms", "0"]);
    let leader = cluster.leader();
    let load = Load::start(cluster.client(), 2_000);
    cluster.eventually("some progress", || (load.answered() > 400).then_some(()));
    cluster.servers[leader].kill();
    let survivor = cluster.leader();
    assert_ne!(survivor, leader);
    cluster.servers[leader].start(&[]);
    load.finish(2_000);
    everything_is_on_every_node(&cluster, 2_000);
    // A linearizable query works on any node.
    for at in 0..3 {
        assert!(cluster.query(at, r#"{"op":"count"}"#).contains("2000"));
    }
    for server in &mut cluster.servers {
        assert_eq!(server.terminate(), Some(0));
    }
}

#[test]
fn nodes_join_and_leave_and_leadership_moves_during_load_without_an_error() {
    let mut cluster =
        Cluster::new(PROGRAM, 3, &["--snapshot-threshold", "300", "--snapshot-pause-ms", "0"]);
    let load = Load::start(cluster.client(), 4_000);
    cluster.join(&[]);
    cluster.join(&[]);
    cluster.wait_for_voters(5);
    let leader = cluster.leader();
    let target = (leader + 1) % 5;
    let id = cluster.node_id(target).to_string();
    cluster.cli().run(&["members", "transfer", &id]).ok();
    assert_eq!(cluster.leader(), target);
    // Removing the leader itself moves leadership first.
    cluster.cli().run(&["members", "remove", &id]).ok();
    cluster.wait_for_voters(4);
    cluster.servers[target].kill();
    load.finish(4_000);
    everything_is_on_every_node(&cluster, 4_000);
    let listed = cluster.cli().run(&["members", "list"]).ok();
    assert_eq!(listed.matches("voter").count(), 4, "{listed}");
}

#[test]
fn an_upgrade_during_load_happens_at_one_index_everywhere() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let load = Load::start(cluster.client(), 1_500);
    let leader = cluster.leader();
    cluster.eventually("some progress", || (load.answered() > 200).then_some(()));
    let follower = (leader + 1) % 3;
    let file = kv_v2();
    let line = ["upgrade", file.to_str().expect("UTF-8"), "--allow", "fuel:3x"];
    cluster.cli_of(follower).run(&line).ok();
    load.finish(1_500);
    everything_is_on_every_node(&cluster, 1_500);
    let activated: Vec<u64> = (0..3).map(|at| activated_at(&cluster, at)).collect();
    assert!(activated[0] > 0 && activated.iter().all(|at| *at == activated[0]), "{activated:?}");
    let cli = cluster.cli();
    let expiring = r#"{"op":"set","key":"short","value":"lived","ttl_ms":3600000}"#;
    cli.run(&["apply", expiring]).ok();
    // A restart replays across the activation, or starts from a snapshot behind it.
    cluster.servers[follower].kill();
    cluster.servers[follower].start(&[]);
    cluster.wait_for_agreement();
    assert!(cluster.local(follower, r#"{"op":"count"}"#).contains("1501"));
    // Again: nothing to do.
    let again = cluster.cli().run(&["upgrade", file.to_str().expect("UTF-8")]).ok();
    assert!(again.contains("already"), "{again}");
}

#[test]
fn bad_modules_are_refused_with_the_reason_and_the_old_one_serves() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let common = r#"
        (memory (export "memory") 1)
        (func (export "raft_fsm_abi_v1"))
        (func (export "apply") (param i32) (result i32) i32.const 0)
        (func (export "snapshot") (result i32) i32.const 0)"#;
    let restore = r#"(func (export "restore") (param i32) (result i32) i32.const 0)"#;
    let modules = [
        ("text", b"this is not wasm".to_vec(), "WebAssembly"),
        ("no-restore", wat::parse_str(format!("(module {common})")).expect("WAT"), "restore"),
        (
            "import",
            wat::parse_str(format!(
                r#"(module (import "env" "launch_missiles" (func)) {common} {restore})"#
            ))
            .expect("WAT"),
            "launch_missiles",
        ),
        (
            "trap",
            wat::parse_str(format!(
                r#"(module {common}
                    (func (export "restore") (param i32) (result i32) unreachable))"#
            ))
            .expect("WAT"),
            "unreachable",
        ),
    ];
    for (name, bytes, reason) in modules {
        let file = cluster.dir().join(format!("{name}.wasm"));
        std::fs::write(&file, bytes).expect("written");
        let file = file.to_str().expect("UTF-8");
        let said = cli.run(&["upgrade", file, "--no-rehearsal"]).failed();
        assert!(said.contains(reason), "{name}: {said}");
        assert!(cli.run(&["query", r#"{"op":"get","key":"a"}"#]).ok().contains('1'));
        cli.run(&["apply", r#"{"op":"set","key":"b","value":"2"}"#]).ok();
    }
}

#[test]
fn a_node_removed_while_it_was_down_learns_of_it_and_waits_for_a_person() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let leader = cluster.leader();
    let gone = (leader + 1) % 3;
    let id = cluster.node_id(gone).to_string();
    cluster.servers[gone].kill();
    cluster.cli_of(leader).run(&["members", "remove", &id]).ok();
    cluster.servers[gone].start(&[]);
    let said = cluster.eventually("it knows that it was removed", || {
        let status = cluster.group(gone)?;
        status.not_serving.contains("removed").then_some(status)
    });
    assert_ne!(said.role(), raft_host_proto::v1::Role::Leader);
    let log = cluster.servers[gone].log();
    assert!(log.contains("removed from its cluster, say most of the other voters"), "{log}");
    let shown = cluster.cli_of(gone).run(&["status"]);
    assert!(format!("{shown:?}").contains("does not serve: this node was removed"), "{shown:?}");
    assert_eq!(cluster.servers[gone].terminate(), Some(0));
    cluster.cli_of(leader).run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
}

/// All that it lacked was put into one message, which no transport takes; Raft was not told, and it
/// was put together again at each heartbeat.
#[test]
fn a_follower_more_than_64_mib_behind_catches_up_by_log() {
    const COMMANDS: usize = 80;
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let behind = (cluster.leader() + 1) % 3;
    let installed =
        |cluster: &Cluster| cluster.servers[behind].log().matches("installed a snapshot").count();
    cluster.servers[behind].kill();
    let before = installed(&cluster);
    let client = cluster.client();
    let command =
        serde_json::json!({ "op": "set", "key": "large", "value": "x".repeat(900 << 10) });
    let command = command.to_string();
    block_on(async move {
        for _ in 0..COMMANDS {
            client.apply(command.clone()).await.expect("applied");
        }
        let last = serde_json::json!({ "op": "set", "key": "last", "value": "here" });
        client.apply(last.to_string()).await.expect("applied");
    });
    cluster.servers[behind].start(&[]);
    cluster.wait_for_agreement();
    assert!(cluster.local(behind, r#"{"op":"get","key":"last"}"#).contains("here"));
    assert_eq!(installed(&cluster), before, "by log, not by snapshot");
}

/// A learner that lost its data got its old id back, was told of commits beyond its log, and died
/// in a loop; a voter was refused until somebody removed it.
#[test]
fn a_member_that_lost_its_data_joins_again_under_its_address_as_another_one() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let learner = cluster.join(&["--learner"]);
    Load::start(cluster.client(), 200).finish(200);
    let leader = cluster.leader();
    let voter = (leader + 1) % 3;
    let seed = cluster.servers[leader].address.to_string();
    for (at, arguments) in [(learner, &["--learner"][..]), (voter, &[])] {
        let before = cluster.node_id(at);
        cluster.servers[at].kill();
        let data_dir = cluster.servers[at].data_dir.clone();
        std::fs::remove_dir_all(data_dir).expect("it was there");
        let mut all = vec!["--join", &seed];
        all.extend(arguments);
        cluster.servers[at].start(&all);
        assert!(cluster.node_id(at) > before, "it has the id of the member that it was");
    }
    cluster.eventually("three voters and a learner", || {
        let listed = cluster.cli().run(&["members", "list"]).ok();
        let count = |role| listed.matches(role).count();
        ((count("voter"), count("learner")) == (3, 1)).then_some(())
    });
    everything_is_on_every_node(&cluster, 200);
}

/// Clients that know all nodes were answered by a second cluster, which had formed on the old address
/// of a member; commands were acknowledged by both.
#[test]
fn a_wiped_node_with_its_old_command_line_takes_no_clients_from_its_cluster() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let ours = hex(&cluster.status(1).expect("a status").cluster_id);
    let load = Load::start(cluster.client(), 1_500);
    cluster.eventually("some progress", || (load.answered() > 100).then_some(()));
    cluster.servers[0].kill();
    std::fs::remove_dir_all(&cluster.servers[0].data_dir).expect("it was there");
    let plugin = kv();
    let command_line = ["--plugin", plugin.to_str().expect("UTF-8")];
    cluster.servers[0].start(&command_line);
    let disputed = |cluster: &Cluster| {
        cluster.eventually("it says that it is unconfirmed", || {
            cluster.status(0).filter(|it| it.rival.as_ref().is_some_and(|rival| rival.unconfirmed))
        })
    };
    let status = disputed(&cluster);
    let theirs = hex(&status.cluster_id);
    assert_ne!(theirs, ours);
    let rival = status.rival.expect("just seen");
    assert_eq!(hex(&rival.cluster_id), ours);
    assert_eq!(rival.dialled_address, cluster.servers[0].address.to_string());
    let log = cluster.servers[0].log();
    assert!(log.contains("serves nobody until its cluster is confirmed"), "{log}");

    // Who knew the cluster goes on with it; who does not yet finds it.
    load.finish(1_500);
    let newcomer = cluster.client();
    let set = r#"{"op":"set","key":"late","value":"x"}"#;
    block_on(newcomer.apply(set)).expect("the other two are a majority");
    assert_eq!(newcomer.cluster().expect("it has one").to_string(), ours);
    let said = cluster.cli_of(0).run(&["apply", set, "--timeout", "2s"]);
    assert_eq!(said.code, Some(6), "{said:?}");
    assert!(said.stderr.contains("raft-host confirm"), "{said:?}");
    let said = cluster.cli_of(0).run(&["status"]).ok();
    for words in ["UNCONFIRMED", "does not serve", &ours, &theirs] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    // The others start again with what they were once started with.
    let seeds = format!("{},{}", cluster.servers[0].address, cluster.servers[2].address);
    cluster.servers[1].kill();
    cluster.servers[1].start(&["--join", &seeds]);

    // A restart forgets nothing.
    cluster.servers[0].kill();
    cluster.servers[0].start(&command_line);
    assert!(cluster.status(0).expect("a status").rival.is_some_and(|rival| rival.unconfirmed));
    let said = cluster.cli_of(0).run(&["confirm", &ours]).failed();
    assert!(said.contains(&theirs), "{said}");
    cluster.cli_of(0).run(&["confirm", &theirs]).ok();
    for _ in 0..2 {
        assert!(cluster.local(0, r#"{"op":"count"}"#).contains('0'), "nothing was executed here");
        cluster.servers[0].kill();
        cluster.servers[0].start(&command_line);
    }
    // Two clusters by now; whoever says which one is meant gets it.
    let both = cluster.cli();
    let said = both.run(&["query", r#"{"op":"count"}"#, "--cluster-id", &ours]);
    assert!(said.stdout.contains("1501"), "{said:?}");
    let said = both.run(&["query", r#"{"op":"count"}"#, "--cluster-id", &theirs]);
    assert!(said.stdout.contains('0') && !said.stdout.contains("1501"), "{said:?}");
    let said = cluster.cli_of(0).run(&["query", r#"{"op":"count"}"#, "--cluster-id", &ours]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(&theirs) && said.stderr.contains(&ours), "{said:?}");
}

#[test]
fn a_plugin_for_a_node_that_has_a_cluster_is_compared_and_said() {
    let mut cluster = Cluster::new(PROGRAM, 1, &[]);
    let id = hex(&cluster.status(0).expect("a status").cluster_id);
    let (same, other) = (kv(), kv_v2());
    for (plugin, words) in [
        (&same, "the cluster runs this plugin already"),
        (&other, "changes nothing: cluster"),
        (&other, "raft-host upgrade"),
    ] {
        assert_eq!(cluster.servers[0].terminate(), Some(0));
        let before = cluster.servers[0].log().len();
        cluster.servers[0].start(&["--plugin", plugin.to_str().expect("UTF-8")]);
        let log = cluster.servers[0].log();
        let said = &log[before..];
        assert!(said.contains(words) && said.contains(&id), "{said}");
    }
}

/// A client of all the addresses that there will be.
fn client_of_all(addresses: &[SocketAddr]) -> Client {
    let endpoints = addresses.iter().map(SocketAddr::to_string);
    let options = ClientOptions { deadline: Duration::from_secs(90), ..Default::default() };
    Client::connect(endpoints, options).expect("addresses are endpoints")
}

#[test]
fn all_members_move_to_other_addresses_one_after_the_other_under_load() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let mut addresses = cluster.addresses();
    let fresh = [0, 1, 2].map(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
    addresses.extend(fresh);
    let client = client_of_all(&addresses);
    let count = 6_000;
    let load = Load::start(client.clone(), count);
    for (at, address) in fresh.into_iter().enumerate() {
        let before = load.answered();
        cluster.eventually("some load", || {
            (load.answered() > before + 300 || load.answered() == count).then_some(())
        });
        let id = cluster.node_id(at);
        assert_eq!(cluster.servers[at].terminate(), Some(0));
        cluster.servers[at].address = address;
        cluster.servers[at].start(&[]);
        cluster.eventually("the new address", || {
            // As each node knows it, this one included.
            (0..3)
                .all(|asked| {
                    let members = block_on(cluster.client_of(asked).members());
                    let members = members.map(|answer| answer.members).unwrap_or_default();
                    let moved = members.iter().find(|member| member.node_id == id);
                    moved.is_some_and(|member| member.address == address.to_string())
                })
                .then_some(())
        });
        cluster.wait_for_voters(3);
        cluster.wait_for_agreement();
    }
    load.finish(count);
    cluster.wait_for_agreement();
    everything_is_on_every_node(&cluster, count);
    // A node that comes back after that finds the others where they are now.
    cluster.servers[2].kill();
    cluster.servers[2].start(&[]);
    cluster.wait_for_agreement();
    assert!(cluster.servers[0].log().contains("asking to be dialled there"));
}

#[test]
fn nobody_moves_a_member_to_where_it_is_not() {
    let mut cluster = Cluster::new(PROGRAM, 2, &[]);
    let nowhere = format!("127.0.0.1:{}", free_port());
    let arguments = ["--advertise", nowhere.as_str()];
    assert_eq!(cluster.servers[1].terminate(), Some(0));
    let id = 2;
    cluster.servers[1].start(&arguments);
    cluster.eventually("a reason in its log", || {
        let said = "still known under the old address";
        cluster.servers[1].log().contains(said).then_some(())
    });
    let log = cluster.servers[1].log();
    assert!(log.contains(&format!("node {id} is not found at {nowhere}")), "{log}");
    // Another member's address is none for it either.
    cluster.servers[1].kill();
    let taken = cluster.servers[0].address.to_string();
    cluster.servers[1].start(&["--advertise", &taken]);
    cluster.eventually("another reason", || {
        cluster.servers[1].log().contains("another node is there").then_some(())
    });
    cluster.servers[1].kill();
    cluster.servers[1].start(&[]);
    cluster.wait_for_voters(2);
    cluster.wait_for_agreement();
}

#[test]
fn a_member_is_replaced_by_one_change_also_the_leader_and_voters_step_down_if_enough_are_left() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let fourth = cluster.join(&["--learner"]);
    let leader = cluster.leader();
    let (old, new) = (cluster.node_id(leader), cluster.node_id(fourth));
    let load = Load::start(cluster.client(), 3_000);
    cluster.eventually("some load", || (load.answered() > 300).then_some(()));
    let (old, new) = (old.to_string(), new.to_string());
    // Its successor does it, when the learner has caught up.
    let said = cluster.eventually("the change", || {
        let replaced = cluster.cli().run(&["members", "replace", &old, "--with", &new]);
        match replaced.code {
            Some(0) => Some(replaced.stdout),
            _ => {
                let said = replaced.failed();
                assert!(said.contains("caught up") || said.contains("heard from"), "{said}");
                None
            }
        }
    });
    assert!(said.contains("votes in its place"), "{said}");
    assert_eq!(cluster.servers[leader].wait(), Some(0), "it was removed");
    cluster.wait_for_voters(3);
    let again = cluster.cli().run(&["members", "replace", &old, "--with", &new]).ok();
    assert!(again.contains("votes in its place"), "{again}");
    load.finish(3_000);
    everything_is_on_every_node(&cluster, 3_000);

    let follower =
        (0..4).find(|at| *at != leader && *at != cluster.leader()).expect("there are two");
    let id = cluster.node_id(follower).to_string();
    for _ in 0..2 {
        let said = cluster.cli().run(&["members", "demote", &id]).ok();
        assert!(said.contains("is a learner now"), "{said}");
    }
    assert!(cluster.cli().run(&["members", "promote", &id]).ok().contains("a voter now"));
    cluster.wait_for_voters(3);
    // With one of three down, two voters are needed: neither of them may step down.
    cluster.servers[follower].kill();
    let now = cluster.leader();
    let dead = id.parse::<u64>().expect("a number");
    cluster.eventually("the leader misses it", || {
        let peers = cluster.group(now)?.peers;
        let peer = peers.iter().find(|peer| peer.node_id == dead)?;
        (!peer.recently_active).then_some(())
    });
    let other = (0..4).find(|at| ![follower, leader, now].contains(at)).expect("there is one more");
    let id = cluster.node_id(other).to_string();
    let said = cluster.cli().run(&["members", "demote", &id]).failed();
    assert!(said.contains("1 of 2 voters heard from recently, 2 needed"), "{said}");
    let said = cluster.cli().run(&["members", "replace", &id, "--with", &id]).failed();
    assert!(said.contains("cannot take its own place"), "{said}");
    let said = cluster.cli().run(&["members", "replace", &id, "--with", "4711"]).failed();
    assert!(said.contains("node 4711 is not a member"), "{said}");
}

/// The last one has nobody left to finish with what is in flight, and must not wait for that until `drain_ms` is
/// over: the harness does not.
#[test]
fn all_nodes_stop_at_once_under_load_in_order_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[node]\ndrain_ms = 3_600_000\n").expect("written");
    let config = ["--config", config.to_str().expect("UTF-8")];
    let mut cluster = Cluster::new(PROGRAM, 3, &config);
    let client = cluster.client();
    let until = AtomicBool::new(false);
    let acknowledged: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let (client, until, acknowledged) = (&client, &until, &acknowledged);
            scope.spawn(move || {
                for n in (0..).take_while(|_| !until.load(Ordering::Relaxed)) {
                    let key = format!("{writer}-{n}");
                    let set = format!(r#"{{"op":"set","key":"{key}","value":"1"}}"#);
                    if block_on(client.apply(set)).is_ok() {
                        acknowledged.lock().expect("lock").push(key);
                    }
                }
            });
        }
        for _ in 0..3 {
            let before = acknowledged.lock().expect("lock").len();
            cluster.eventually("some load", || {
                (acknowledged.lock().expect("lock").len() > before + 100).then_some(())
            });
            let pids = cluster.servers.iter().map(|server| server.pid().to_string());
            let told = std::process::Command::new("kill").args(pids).status().expect("kill");
            assert!(told.success());
            for server in &mut cluster.servers {
                assert_eq!(server.wait(), Some(0), "{}", server.log());
            }
            for server in &mut cluster.servers {
                server.start(&config);
            }
        }
        until.store(true, Ordering::Relaxed);
    });
    for key in acknowledged.into_inner().expect("lock") {
        let value = cluster.query(0, &format!(r#"{{"op":"get","key":"{key}"}}"#));
        assert_eq!(value, r#"{"value":"1"}"#, "{key} was acknowledged");
    }
}

/// Its activation is not done in this century, nor is it on the next start.
const ENDLESS: &str = r#"(module (memory (export "memory") 1)
  (func (export "raft_fsm_abi_v1"))
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "query") (param i32) (result i32) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (loop $again (br $again)) (i32.const 0)))"#;

#[test]
fn a_request_to_stop_is_heard_while_a_restore_does_not_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[node]\ndrain_ms = 1000\n").expect("written");
    let config = ["--config", config.to_str().expect("UTF-8")];
    let module = dir.path().join("endless.wasm");
    std::fs::write(&module, wat::parse_str(ENDLESS).expect("WAT")).expect("written");
    let mut cluster = Cluster::new(PROGRAM, 1, &config);
    let cli = cluster.cli();
    cli.run(&["limits", "set", "restore_fuel=4_000_000_000_000_000_000"]).ok();
    let activating = |cluster: &Cluster| {
        cluster.eventually("the activation", || {
            let activity = cluster.group(0)?.activity?;
            (activity.job() == raft_host_proto::v1::activity::Job::Activate).then_some(())
        });
    };
    let upgraded = std::thread::scope(|scope| {
        let module = module.to_str().expect("UTF-8");
        let cli = &cli;
        let upgrade = scope.spawn(move || cli.run(&["upgrade", module, "--no-rehearsal"]));
        activating(&cluster);
        assert_eq!(cluster.servers[0].terminate(), Some(1));
        upgrade.join().expect("no panic")
    });
    // It is in the log.
    assert_eq!(upgraded.code, Some(5), "{upgraded:?}");
    assert!(cluster.servers[0].log().contains("left behind"));
    cluster.servers[0].start(&config);
    activating(&cluster);
    assert_eq!(cluster.servers[0].terminate(), Some(1));
}

/// When the active module became active, as one server says.
fn activated_at(cluster: &Cluster, at: usize) -> u64 {
    cluster.group(at).expect("a status").module.map_or(0, |module| module.activated_at)
}
