//! The command line as people and scripts use it.

use std::io::Write as _;

use raft_host_tests::{Cli, Cluster};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

#[test]
fn the_demo_tells_its_story_and_verifies_it() {
    let said = Cli::new(PROGRAM, &[]).run(&["demo"]).ok();
    for part in ["formed a cluster", "kill -9", "elected a leader", "upgrade to kv version 2"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn a_file_of_commands_is_applied_line_by_line_and_summed_up() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    let path = cluster.dir().join("commands");
    let mut file = std::fs::File::create(&path).expect("created");
    for n in 0..500 {
        writeln!(file, r#"{{"op":"set","key":"k{n}","value":"v{n}"}}"#).expect("written");
    }
    drop(file);
    let path = path.to_str().expect("UTF-8");
    assert!(cli.run(&["apply", "--lines", path]).ok().contains("500"));
    assert!(cli.run(&["query", r#"{"op":"count"}"#]).ok().contains("500"));

    let bad = cluster.dir().join("bad");
    std::fs::write(&bad, "{\"op\":\"set\",\"key\":\"x\",\"value\":\"1\"}\nnonsense\n")
        .expect("written");
    let output = cli.run(&["apply", "--lines", bad.to_str().expect("UTF-8")]);
    assert_eq!(output.code, Some(3), "{output:?}");
    let said = output.stdout + &output.stderr;
    assert!(said.contains('2'), "the line is not named: {said}");
}

#[test]
fn answers_are_json_for_scripts_and_codes_mean_something() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    assert_eq!(cli.run(&["apply", "nonsense"]).code, Some(3), "rejected by the state machine");
    assert_eq!(cli.run(&["apply"]).code, Some(2), "wrong usage");
    for arguments in [
        &["status", "-o", "json"][..],
        &["members", "list", "-o", "json"],
        &["modules", "-o", "json"],
        &["snapshot", "-o", "json"],
    ] {
        let said = cli.run(arguments).ok();
        let value: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert!(value.is_object() || value.is_array(), "{said}");
    }
    let kv = raft_host_tests::kv();
    Cli::new(PROGRAM, &[]).run(&["check", kv.to_str().expect("UTF-8")]).ok();
    let manifest = raft_host_tests::workspace("Cargo.toml");
    Cli::new(PROGRAM, &[]).run(&["check", manifest.to_str().expect("UTF-8")]).failed();
    for shell in ["bash", "zsh", "fish"] {
        assert!(Cli::new(PROGRAM, &[]).run(&["completions", shell]).ok().contains("raft-host"));
    }
}

#[test]
fn plugins_are_measured_side_by_side() {
    let plugin = |path| raft_host_tests::workspace(path).to_str().expect("UTF-8").to_owned();
    // Nobody listens there, and nobody is asked.
    let cli = Cli::new(PROGRAM, &[([127, 0, 0, 1], 1).into()]);
    let measure = |second: &str| {
        let counter = plugin("plugins/counter/counter.wasm");
        let arguments = ["--command", "5", "--seconds", "1", "-o", "json"];
        cli.run(&[&["bench", "--plugins", &counter, second][..], &arguments].concat())
    };
    let said = measure(&plugin("plugins/counter/counter.wasm")).ok();
    let value: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let rows = value["plugins"].as_array().expect("a list");
    assert_eq!(rows.len(), 2, "{said}");
    for row in rows {
        for field in ["size_bytes", "fuel_per_apply", "ns_per_apply", "ns_ratio", "rounds"] {
            assert!(row[field].as_f64().is_some_and(|number| number > 0.0), "{field}: {row}");
        }
        assert_eq!(row["fuel_ratio"], 1.0, "the same module needs the same fuel: {row}");
    }
    let said = measure(&plugin("plugins/lock/lock.wasm")).failed();
    assert!(said.contains("lock.wasm: the command was rejected: a command is acquire"), "{said}");
    let said = measure(&plugin("Cargo.toml")).failed();
    assert!(said.contains("Cargo.toml would be refused") && said.contains("check"), "{said}");
}
