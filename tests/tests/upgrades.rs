//! Upgrades on real processes: staged, rehearsed on what the cluster has done, activated, refused, undone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use raft_host_tests::{Cluster, Load, block_on, kv, kv_v2, ledger, workspace};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What a command prints for scripts, and its exit code.
fn json(cluster: &Cluster, arguments: &[&str]) -> (Value, i32) {
    let output = cluster.cli().run(&[arguments, &["-o", "json"]].concat());
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (value, output.code.expect("no signal"))
}

fn active(cluster: &Cluster) -> String {
    let (modules, _) = json(cluster, &["modules"]);
    let history = modules["history"].as_array().expect("a list");
    history.last().expect("one is active")["module_hash"].as_str().expect("text").to_owned()
}

#[test]
fn a_module_is_staged_rehearsed_on_every_voter_and_activated_under_load() {
    let cluster = Cluster::new(PROGRAM, 3, &[]);
    cluster.wait_for_voters(3);
    let load = Load::start(cluster.client(), 1_500);
    cluster.eventually("some progress", || (load.answered() > 300).then_some(()));
    let before = active(&cluster);
    let next = kv_v2();
    let (staged, code) = json(&cluster, &["stage", text(&next)]);
    assert_eq!((code, staged["ready"].as_array().map(Vec::len)), (0, Some(3)), "{staged}");
    let hash = staged["module_hash"].as_str().expect("text").to_owned();
    assert_eq!(active(&cluster), before, "to stage a module changes nothing");
    // It uses more fuel, which somebody has to mean.
    let (refused, code) = json(&cluster, &["upgrade", &hash[..12]]);
    assert_eq!((code, &refused["index"]), (3, &Value::Null), "{refused}");
    assert_eq!(active(&cluster), before, "what is refused changes nothing");
    let allowed =
        ["upgrade", &hash[..12], "--label", "kv-v2", "--allow", "fuel:3x", "--wait", "all"];
    let (upgraded, code) = json(&cluster, &allowed);
    assert_eq!(code, 0, "{upgraded}");
    let rehearsal = &upgraded["rehearsal"];
    assert!(rehearsal["passed"] == true, "{upgraded}");
    assert!(rehearsal["report"]["commands"].as_u64() >= Some(300), "{upgraded}");
    let nodes = rehearsal["nodes"].as_array().expect("a list");
    let hashes: Vec<&Value> = nodes.iter().map(|node| &node["report_hash"]).collect();
    assert_eq!(hashes.len(), 3, "{upgraded}");
    assert!(hashes.iter().all(|hash| *hash == hashes[0] && **hash != ""), "{upgraded}");
    assert_eq!(active(&cluster), hash);
    load.finish(1_500);
    cluster.wait_for_agreement();
    let (modules, _) = json(&cluster, &["modules"]);
    let receipts = modules["receipts"].as_array().expect("a list");
    assert_eq!(receipts.len(), 2, "{modules}");
    assert_eq!(receipts[1]["index"], rehearsal["receipt"], "{modules}");
    assert_eq!(receipts[1]["voters"].as_array().map(Vec::len), Some(3), "{modules}");
    let text = cluster.cli().run(&["modules"]).ok();
    assert!(text.contains("fuel:3x") && text.contains("can be undone until"), "{text}");
    // A receipt that fits no more: of another incumbent.
    let receipt = rehearsal["receipt"].to_string();
    let said = cluster.cli().run(&["activate", &before[..12], "--receipt", &receipt]).failed();
    assert!(said.contains("receipt"), "{said}");
}

/// The same module with other bytes: it answers everything as before.
fn with_note(module: &Path, note: &str, dir: &Path) -> PathBuf {
    let mut bytes = std::fs::read(module).expect("it is built");
    // A custom section.
    let name = note.as_bytes();
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name);
    let file = dir.join(format!("{note}.wasm"));
    std::fs::write(&file, bytes).expect("written");
    file
}

#[test]
fn a_module_takes_over_ahead_while_a_node_is_killed_and_comes_back_both_ways() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    cluster.wait_for_voters(3);
    let first = active(&cluster);
    let load = Load::start(cluster.client(), 3_000);
    cluster.eventually("some progress", || (load.answered() > 300).then_some(()));
    let next = with_note(&kv(), "next", cluster.dir());
    let (upgraded, code) = json(&cluster, &["upgrade", text(&next)]);
    assert_eq!(code, 0, "{upgraded}");
    assert_eq!(upgraded["rehearsal"]["report"]["counts"], serde_json::json!([]), "{upgraded}");
    let second = active(&cluster);
    assert_ne!(first, second);
    // Nobody waits for one that is dead.
    let follower = (cluster.leader() + 1) % 3;
    cluster.servers[follower].kill();
    let third = with_note(&kv(), "third", cluster.dir());
    let (upgraded, code) = json(&cluster, &["upgrade", text(&third)]);
    assert_eq!(code, 0, "{upgraded}");
    let said = cluster.cli().run(&["upgrade", text(&next), "--wait", "all"]).failed();
    assert!(said.contains("have not compiled it"), "{said}");
    cluster.servers[follower].start(&[]);
    load.finish(3_000);
    cluster.wait_for_agreement();
    // Back, as the state is now; and forth again.
    let (back, code) = json(&cluster, &["upgrade", "--rollback", "convert"]);
    assert_eq!((code, active(&cluster)), (0, second.clone()), "{back}");
    let cli = cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"late","value":"1"}"#]).ok();
    // As if it had never been replaced: asked for without saying that it is meant, it is only listed.
    let third = (json(&cluster, &["modules"]).0)["way_back"]["module_hash"].clone();
    let said = cli.run(&["upgrade", "--rollback", "rewind"]).failed();
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(active(&cluster), second);
    let (rewound, code) = json(&cluster, &["upgrade", "--rollback", "rewind", "--yes"]);
    assert_eq!((code, &rewound["module_hash"]), (0, &third), "{rewound}");
    assert_eq!(rewound["rewound"]["differing"], 0, "{rewound}");
    assert!(cluster.query(0, r#"{"op":"get","key":"late"}"#).contains('1'));
    // There is no way back from a way back.
    let said = cli.run(&["upgrade", "--rollback", "rewind", "--yes"]).failed();
    assert!(said.contains("no module to go back to"), "{said}");
    cluster.wait_for_agreement();
    let (digest, _) = json(&cluster, &["digest", "--timeout", "60s"]);
    assert_eq!(digest["all_agree"], true, "{digest}");
}

#[test]
fn of_two_operators_one_upgrades_and_the_other_is_told() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let [one, two] = ["one", "two"].map(|note| with_note(&kv(), note, cluster.dir()));
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let cli = &cli;
        let threads =
            [&one, &two].map(|file| scope.spawn(move || cli.run(&["upgrade", text(file)])));
        threads.map(|thread| thread.join().expect("it ends")).into_iter().collect()
    });
    let done = outputs.iter().filter(|output| output.code == Some(0)).count();
    assert!(done >= 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| output.code != Some(0)) {
        assert!(output.stderr.contains("raft-host modules"), "{output:?}");
    }
}

#[test]
fn a_module_is_renewed_begins_with_an_export_and_stays_when_confirmed() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let export = cluster.dir().join("export");
    cli.run(&["export", text(&export)]).ok();
    cli.run(&["apply", r#"{"op":"set","key":"b","value":"2"}"#]).ok();
    let before = active(&cluster);
    let (renewed, code) = json(&cluster, &["upgrade", "--renew"]);
    assert_eq!((code, active(&cluster)), (0, before.clone()), "{renewed}");
    assert_eq!(renewed["already_active"], false, "{renewed}");
    assert!(cluster.query(0, r#"{"op":"get","key":"b"}"#).contains('2'));
    let next = with_note(&kv(), "next", cluster.dir());
    let (upgraded, code) =
        json(&cluster, &["upgrade", text(&next), "--from-export", text(&export)]);
    assert_eq!(code, 0, "{upgraded}");
    assert!(cluster.query(0, r#"{"op":"count"}"#).contains('1'), "the state is the exported one");
    let (confirmed, code) = json(&cluster, &["upgrade", "--confirm"]);
    assert_eq!((code, &confirmed["already_confirmed"]), (0, &Value::Bool(false)), "{confirmed}");
    let said = cli.run(&["upgrade", "--rollback", "rewind", "--yes"]).failed();
    assert!(said.contains("no module to go back to"), "{said}");
    let (back, code) = json(&cluster, &["upgrade", "--rollback", "convert"]);
    assert_eq!((code, active(&cluster)), (0, before), "{back}");
}

#[test]
fn a_module_that_would_not_take_over_is_refused_with_exit_code_3_and_nothing_changes() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let before = active(&cluster);
    let other = workspace("plugins/counter/counter.wasm");
    let output = cli.run(&["upgrade", text(&other)]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stdout.contains("migration"), "{output:?}");
    assert!(output.stdout.contains("nothing has changed"), "{output:?}");
    assert_eq!(active(&cluster), before);
    cli.run(&["apply", r#"{"op":"set","key":"b","value":"2"}"#]).ok();
    // Activated all the same, the machine refuses it.
    let said = cli.run(&["upgrade", text(&other), "--no-rehearsal"]).failed();
    assert!(said.contains("not activated"), "{said}");
    // Bad input: one clear message each.
    for (arguments, words) in [
        (&["upgrade", "0123456789ab"][..], "holds no module 0123456789ab"),
        (&["upgrade", text(&other), "--allow", "repply"], "no kind of difference"),
        (&["activate", "0123456789ab"], "holds no module"),
    ] {
        let said = cli.run(arguments).failed();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert_eq!(active(&cluster), before);
    cli.run(&["upgrade", text(&kv())]).ok();
}

#[test]
fn of_ten_rehearsals_at_once_each_has_its_turn_or_is_refused_in_words() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = &cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let next = with_note(&kv(), "next", cluster.dir());
    let next = text(&next);
    cli.run(&["stage", next]).ok();
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let rehearse = || scope.spawn(|| cli.run(&["rehearse", next, "--all-retained"]));
        let threads: Vec<_> = (0..10).map(|_| rehearse()).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    assert!(outputs.iter().any(|output| output.code == Some(0)), "{outputs:?}");
    for output in outputs.iter().filter(|output| output.code != Some(0)) {
        assert!(output.stderr.contains("at another rehearsal"), "{output:?}");
    }
    // On one node, nothing is written down.
    let (alone, code) = json(&cluster, &["rehearse", next, "--on", "1"]);
    assert_eq!((code, &alone["receipt"]), (0, &serde_json::json!(0)), "{alone}");
    let said = cli.run(&["rehearse", next, "--on", "7"]).failed();
    assert!(said.contains("node 7 is no member"), "{said}");
}

/// Executes thirty million rounds of a loop before each command.
const SLOW: (&str, &str) = (
    "work",
    "(i64.store (i32.const 0x700) (i64.const 30000000)) (loop $again (i64.store (i32.const 0x700) (i64.sub (i64.load (i32.const 0x700)) (i64.const 1))) (br_if $again (i32.wrap_i64 (i64.load (i32.const 0x700)))))",
);

#[test]
fn how_far_a_rehearsal_is_can_be_seen_and_who_interrupts_it_ends_it_on_all_nodes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [old, slow] = [("old.wasm", &[][..]), ("slow.wasm", &[SLOW])].map(|(name, changes)| {
        let path = dir.path().join(name);
        std::fs::write(&path, ledger(changes)).expect("written");
        path
    });
    let cluster = Cluster::of(PROGRAM, &old, 3, &[]);
    cluster.wait_for_voters(3);
    let client = cluster.client();
    for _ in 0..150 {
        block_on(client.apply(vec![b'd', 2, 5, 0])).expect("applied");
    }
    let cli = cluster.cli();
    let begun = cli.start(&["rehearse", text(&slow), "--allow", "fuel"]);
    let rehearsal = |at| cluster.group(at).and_then(|group| group.rehearsal);
    for at in 0..3 {
        let seen =
            cluster.eventually("it is under way", || rehearsal(at).filter(|it| it.commands > 0));
        let range = seen.range.expect("it has one");
        assert!((range.base..range.until).contains(&seen.index), "{seen:?}");
        assert!(seen.commands <= seen.index - range.base, "{seen:?}");
    }
    let said = cluster.cli().run(&["status"]).ok();
    assert!(said.contains(" rehearses ") && said.contains(" entries, "), "{said}");
    begun.interrupt();
    for at in 0..3 {
        cluster.eventually("it has ended", || rehearsal(at).is_none().then_some(()));
    }
    let (modules, _) = json(&cluster, &["modules"]);
    assert_eq!(modules["receipts"], serde_json::json!([]), "it did not come to its end");
    // Nothing of it is in the way of the next.
    cluster.cli().run(&["rehearse", text(&slow), "--last", "1", "--allow", "fuel"]).ok();
}

/// What one of its metrics shows.
fn metric(cluster: &Cluster, server: usize, name: &str) -> u64 {
    let log = cluster.servers[server].log();
    let (_, rest) = log.rsplit_once("http://").expect("it says where");
    let address = rest.split_once("/metrics").expect("an address").0;
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("text");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).trim().parse().expect("a number")
}

/// Somebody who sets keys, one after the other, until it is enough.
fn while_busy(cluster: &Cluster, work: impl FnOnce()) {
    let (client, is_enough) = (cluster.client(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if is_enough.load(Ordering::Relaxed) {
                    break;
                }
                let command = format!(r#"{{"op":"set","key":"busy-{}","value":"{n}"}}"#, n % 100);
                block_on(client.apply(command)).expect("applied");
            }
        });
        let enough = Enough(&is_enough);
        work();
        drop(enough);
    });
}

/// Ends it however the test ends.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_module_in_the_shadow_executes_live_commands_on_every_voter_and_is_activated_after_that() {
    let cluster = Cluster::new(PROGRAM, 3, &["--metrics-listen", "127.0.0.1:0"]);
    cluster.wait_for_voters(3);
    while_busy(&cluster, || shadow_under_load(&cluster));
    cluster.wait_for_agreement();
    let (digest, _) = json(&cluster, &["digest", "--timeout", "60s"]);
    assert_eq!(digest["all_agree"], true, "{digest}");
}

fn shadow_under_load(cluster: &Cluster) {
    let before = active(cluster);
    let next = kv_v2();
    // What nobody allows is found on each, and ends it with nothing changed.
    let (refused, code) = json(cluster, &["rehearse", text(&next), "--shadow", "1s"]);
    assert_eq!((code, &refused["passed"]), (3, &Value::Bool(false)), "{refused}");
    let nodes = refused["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3, "{refused}");
    for node in nodes {
        let counts = &node["report"]["counts"];
        assert_eq!(counts[0]["kind"], "fuel", "{refused}");
        assert_eq!((counts.as_array().map(Vec::len), &node["why_not"]), (Some(1), &"".into()));
    }
    assert_eq!(active(cluster), before);
    let upgrade = ["upgrade", text(&next), "--shadow", "2s"];
    let (refused, code) = json(cluster, &upgrade);
    assert_eq!((code, &refused["index"]), (3, &Value::Null), "{refused}");
    assert!(refused.get("shadow").is_none(), "the rehearsal has refused it: {refused}");
    let (upgraded, code) = json(cluster, &[&upgrade[..], &["--allow", "fuel:3x"]].concat());
    assert_eq!(code, 0, "{upgraded}");
    assert_eq!(upgraded["shadow"]["passed"], true, "{upgraded}");
    assert_ne!(active(cluster), before);
    for server in 0..3 {
        assert!(metric(cluster, server, "raft_host_shadow_commands_total") > 0, "{server}");
        let fuel = "raft_host_shadow_differences_total{kind=\"fuel\"}";
        assert!(metric(cluster, server, fuel) >= 1, "{server}");
        let replies = "raft_host_shadow_differences_total{kind=\"reply\"}";
        assert_eq!(metric(cluster, server, replies), 0, "{server}");
        assert_eq!(metric(cluster, server, "raft_host_shadow_running"), 0, "{server}");
    }
}

#[test]
fn queries_are_asked_of_both_modules_at_the_end_of_a_shadow_s_time_on_every_voter() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let forgetting = "(i64.store (call $account (i32.const 2)) (i64.const 0))";
    let [old, forgets] = [("old.wasm", &[][..]), ("forgets.wasm", &[("restore", forgetting)])].map(
        |(name, changes)| {
            let path = dir.path().join(name);
            std::fs::write(&path, ledger(changes)).expect("written");
            path
        },
    );
    let cluster = Cluster::of(PROGRAM, &old, 3, &[]);
    cluster.wait_for_voters(3);
    block_on(cluster.client().apply(vec![b'd', 2, 5, 0])).expect("applied");
    cluster.wait_for_agreement();
    let shadow = ["rehearse", text(&forgets), "--shadow", "500ms", "--query", "b\u{3}"];
    let (same, code) = json(&cluster, &shadow);
    assert_eq!((code, &same["passed"]), (0, &Value::Bool(true)), "{same}");
    let asked = [&shadow[..], &["--query", "b\u{2}"]].concat();
    let (refused, code) = json(&cluster, &asked);
    assert_eq!((code, &refused["passed"]), (3, &Value::Bool(false)), "{refused}");
    let nodes = refused["nodes"].as_array().expect("a list");
    for node in nodes {
        let difference = &node["report"]["differences"][0];
        assert_eq!(
            (&difference["kind"], &difference["input"]),
            (&"query".into(), &"b\u{2}".into())
        );
        assert_eq!(
            (&node["report"]["counts"][0]["count"], &node["why_not"]),
            (&1.into(), &"".into())
        );
    }
    assert_eq!(nodes.len(), 3, "{refused}");
    let (allowed, code) = json(&cluster, &[&asked[..], &["--allow", "query"]].concat());
    assert_eq!(code, 0, "{allowed}");
}

#[test]
fn a_shadow_ends_with_whoever_asked_for_it_with_another_activation_and_with_its_node() {
    let mut cluster = Cluster::new(PROGRAM, 3, &["--metrics-listen", "127.0.0.1:0"]);
    cluster.wait_for_voters(3);
    let cli = cluster.cli();
    cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    let next = with_note(&kv(), "next", cluster.dir());
    let (staged, _) = json(&cluster, &["stage", text(&next)]);
    let hash = staged["module_hash"].as_str().expect("text").to_owned();
    let running = |cluster: &Cluster| {
        (0..3).map(|server| metric(cluster, server, "raft_host_shadow_running")).sum::<u64>()
    };
    let shadow = ["rehearse", &hash, "--shadow", "1h"];
    let caller = cli.start(&shadow);
    cluster.eventually("three shadows", || (running(&cluster) == 3).then_some(()));
    // One at a time.
    let said = cli.run(&["rehearse", &hash, "--on", "1", "--timeout", "1s"]).failed();
    assert!(said.contains("at another rehearsal or shadow"), "{said}");
    drop(caller);
    cluster.eventually("no shadow", || (running(&cluster) == 0).then_some(()));
    // Another activation: what it was compared with is gone.
    let caller = cli.start(&shadow);
    cluster.eventually("three shadows", || (running(&cluster) == 3).then_some(()));
    cli.run(&["upgrade", "--renew", "--no-rehearsal"]).ok();
    cli.run(&["apply", r#"{"op":"set","key":"b","value":"1"}"#]).ok();
    let output = caller.finish();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("another activation took place"), "{output:?}");
    // A node that dies leaves two of three, which is enough; the leader may be it.
    let leader = cluster.leader();
    let endpoint = cluster.servers[(leader + 1) % 3].address.to_string();
    let caller = cli.start(&["rehearse", &hash, "--shadow", "10s", "-e", &endpoint, "-o", "json"]);
    cluster.eventually("three shadows", || (running(&cluster) == 3).then_some(()));
    cluster.servers[leader].kill();
    let output = caller.finish();
    assert_eq!(output.code, Some(0), "{output:?}");
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let nodes = found["nodes"].as_array().expect("a list");
    let dead: Vec<&Value> = nodes.iter().filter(|node| node["report"].is_null()).collect();
    assert!(nodes.len() == 3 && dead.len() == 1 && dead[0]["why_not"] != "", "{found}");
    for (arguments, words) in [
        (&["rehearse", &hash, "--shadow", "25h"][..], "at most 24h"),
        (&["rehearse", &hash, "--shadow", "1s", "--on", "7"], "node 7 is no member"),
        (&["rehearse", &hash, "--shadow", "1s", "--allow", "repply"], "no kind of difference"),
    ] {
        let arguments = [arguments, &["-e", &endpoint]].concat();
        let said = cluster.cli().run(&arguments).failed();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_voter_that_retains_too_little_is_left_out_as_long_as_most_are_not() {
    let cluster = Cluster::new(PROGRAM, 3, &["--snapshot-keep", "1"]);
    cluster.wait_for_voters(3);
    let cli = cluster.cli();
    for _ in 0..20 {
        cli.run(&["apply", r#"{"op":"set","key":"a","value":"1"}"#]).ok();
    }
    let next = with_note(&kv(), "next", cluster.dir());
    let next = text(&next);
    cli.run(&["stage", next]).ok();
    cluster.wait_for_agreement();
    let followers = [1, 2].map(|after| (cluster.leader() + after) % 3);
    cluster.cli_of(followers[0]).run(&["snapshot", "take"]).ok();
    let (found, code) = json(&cluster, &["rehearse", next, "--last", "20"]);
    assert_eq!((code, &found["report"]["commands"]), (0, &20.into()), "{found}");
    let nodes = found["nodes"].as_array().expect("a list");
    let left_out = nodes.iter().filter(|node| node["why_not"] != "").collect::<Vec<_>>();
    assert_eq!(left_out.len(), 1, "{found}");
    assert_eq!(left_out[0]["node_id"], cluster.node_id(followers[0]));
    assert!(left_out[0]["why_not"].to_string().contains("too late"), "{found}");
    // Who has not said how much gets what all have.
    let (found, code) = json(&cluster, &["rehearse", next]);
    assert_eq!((code, &found["report"]["commands"]), (0, &0.into()), "{found}");
    cluster.cli_of(followers[1]).run(&["snapshot", "take"]).ok();
    for wanted in [["--last", "20"], ["--since", "1h"]] {
        let output = cli.run(&[&["rehearse", next][..], &wanted].concat());
        assert_eq!(output.code, Some(1), "{output:?}");
        let said = output.failed();
        assert!(said.contains("the oldest retained state is at index"), "{said}");
        assert!(said.contains("--all-retained"), "{said}");
    }
    cli.run(&["rehearse", next, "--all-retained"]).ok();
}

/// The arguments of a line of a shell that quotes with ' only.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let word = |(at, part): (usize, &str)| -> Vec<String> {
        match at % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        }
    };
    parts.flat_map(word).collect()
}

/// What the page walks through, line by line.
#[test]
fn the_change_that_the_page_walks_through_goes_as_it_says() {
    let page = std::fs::read_to_string(workspace("host/docs/upgrades.md")).expect("the page");
    let (_, walk) = page.split_once("\n## A change from start to end\n").expect("the walk");
    let (walk, _) = walk.split_once("\n## ").expect("another section");
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let mut count = 0;
    for line in walk.lines().filter_map(|line| line.strip_prefix("    raft-host ")) {
        let (line, comment) = line.split_once('#').unwrap_or((line, ""));
        let code = comment
            .trim()
            .strip_prefix("exit code ")
            .map_or(0, |code| code.parse().expect("a number"));
        let arguments: Vec<String> = words(line)
            .into_iter()
            .map(|word| match word.starts_with("plugins/") {
                true => text(&workspace(&word)).to_owned(),
                false => word,
            })
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = cluster.cli().run(&arguments);
        assert_eq!(output.code, Some(code), "{line}: {output:?}");
        count += 1;
    }
    assert!(count >= 15, "{count}");
}

/// Probes of all languages read each other's snapshots, so a cluster can go through all of them.
#[test]
fn a_guest_of_each_language_takes_over_and_is_gone_back_from() {
    let probe = |language: &str| workspace(&format!("guest-sdk/{language}/probe/probe.wasm"));
    let cluster = Cluster::of(PROGRAM, &probe("rust"), 1, &[]);
    let cli = cluster.cli();
    let state = |wanted: &str| {
        let found = cluster.query(0, "get");
        assert!(found.contains(wanted), "{found} instead of {wanted}");
    };
    let allowed = ["--allow", "fuel", "--allow", "memory"];
    for language in ["go", "c", "cpp", "zig", "assemblyscript", "rust"] {
        let (module, before) = (probe(language), active(&cluster));
        let set = |text: &str| cli.run(&["apply", &format!("set {language} {text}")]).ok();
        set("one");
        let upgrade = || {
            let arguments = [&["upgrade", text(&module)][..], &allowed].concat();
            let (upgraded, code) = json(&cluster, &arguments);
            assert_eq!(code, 0, "{language}: {upgraded}");
            assert_ne!(active(&cluster), before, "{language}");
            state(&format!("{language} "));
        };
        upgrade();
        set("two");
        cli.run(&["upgrade", "--rollback", "rewind", "--yes"]).ok();
        assert_eq!(active(&cluster), before, "{language}");
        state("two");
        upgrade();
        set("three");
        cli.run(&[&["upgrade", "--rollback", "convert"][..], &allowed].concat()).ok();
        assert_eq!(active(&cluster), before, "{language}");
        state("three");
        upgrade();
    }
}

/// One byte string that commands replace, and what is to be wrong.
fn keeper(wrong: &[(&str, &str)]) -> Vec<u8> {
    let mut text = r#"(module
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (memory (export "memory") 2)
  (global $len (mut i32) (i32.const 0))
  (func (export "raft_fsm_abi_v1"))
  (func $replace
    (global.set $len (call $read (i32.const 65536) (i32.const 65536))))
  (func $tell (result i32)
    (call $write (i32.const 65536) (global.get $len))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $replace) (i32.const 0))
  (func (export "query") (param i32) (result i32) (call $tell))
  (func (export "snapshot") (result i32) (;snapshot;) (call $tell))
  (func (export "restore") (param i32) (result i32) (;restore;) (call $replace) (i32.const 0)))"#
        .to_owned();
    for (from, to) in wrong {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    wat::parse_str(text).expect("the text is a module")
}

/// What cannot take over is found by the rehearsal and refused by the machine; and what cannot hand over does not lock a
/// cluster in.
#[test]
fn guests_that_break_while_they_hand_over_or_take_over_change_nothing_and_lock_nobody_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let module = |name: &str, wrong: &[(&str, &str)]| {
        let file = dir.path().join(format!("{name}.wasm"));
        std::fs::write(&file, keeper(wrong)).expect("written");
        file
    };
    let mut cluster = Cluster::of(PROGRAM, &module("good", &[]), 1, &[]);
    let cli = cluster.cli();
    cli.run(&["apply", "kept"]).ok();
    // An endless loop is to end soon.
    cli.run(&["limits", "set", "restore_fuel=50_000_000"]).ok();
    let good = active(&cluster);
    let grow = "(;restore;) (if (i32.lt_s (memory.grow (i32.const 65000)) (i32.const 0)) (then (unreachable)))";
    for (name, wrong) in [
        ("traps in restore", ("(;restore;)", "unreachable")),
        ("loops in restore", ("(;restore;)", "(loop $on (br $on))")),
        ("needs more memory than there may be", ("(;restore;)", grow)),
        ("traps in snapshot", ("(;snapshot;)", "unreachable")),
    ] {
        let file = module("bad", &[wrong]);
        let output = cli.run(&["upgrade", text(&file)]);
        assert_eq!(output.code, Some(3), "{name}: {output:?}");
        assert!(output.stdout.contains("migration"), "{name}: {output:?}");
        assert_eq!(active(&cluster), good, "{name}");
        if !name.ends_with("snapshot") {
            let said = cli.run(&["upgrade", text(&file), "--no-rehearsal"]).failed();
            assert!(said.contains("restore"), "{name}: {said}");
        }
        assert!(cluster.query(0, "").contains("kept"), "{name}");
    }
    // Somebody means it all the same: from there on, no `snapshot` succeeds.
    cli.run(&[
        "upgrade",
        text(&module("bad", &[("(;snapshot;)", "unreachable")])),
        "--no-rehearsal",
    ])
    .ok();
    let stuck = active(&cluster);
    let next = module("next", &[("(;restore;)", "nop")]);
    let output = cli.run(&["upgrade", text(&next)]);
    assert_eq!((output.code, active(&cluster)), (Some(3), stuck), "{output:?}");
    // As it was before, it can be gone back to.
    cli.run(&["apply", "later"]).ok();
    cli.run(&["upgrade", "--rollback", "rewind", "--yes"]).ok();
    assert_eq!(active(&cluster), good);
    assert!(cluster.query(0, "").contains("later"));
    cluster.servers[0].kill();
    cluster.servers[0].start(&[]);
    assert!(cluster.query(0, "").contains("later"));
    cli.run(&["upgrade", text(&next)]).ok();
    assert!(cluster.query(0, "").contains("later"));
}
