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
fn the_demo_tells_of_certificates_and_rights_as_well() {
    let said = Cli::new(PROGRAM, &[]).run(&["demo", "--secure"]).ok();
    for part in ["certs init", "without a certificate", "one admin token", "revoked"] {
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
        &["snapshot", "take", "-o", "json"],
    ] {
        let said = cli.run(arguments).ok();
        let value: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert!(value.is_object() || value.is_array(), "{said}");
    }
    let kv = raft_host_tests::kv();
    Cli::new(PROGRAM, &[]).run(&["check", kv.to_str().expect("UTF-8")]).ok();
    let manifest = raft_host_tests::workspace("Cargo.toml");
    Cli::new(PROGRAM, &[]).run(&["check", manifest.to_str().expect("UTF-8")]).failed();
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

#[test]
fn misspelt_variables_and_settings_that_cannot_be_are_wrong_usage() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let cli = Cli::new(PROGRAM, &[([127, 0, 0, 1], 1).into()]);
    let misspelt = [("RAFT_HOST_DATADIR", data)];
    for arguments in [&["--plugin", "x"][..], &["status"]] {
        let output = cli.run_with(arguments, &misspelt);
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("RAFT_HOST_DATA_DIR"), "{output:?}");
    }
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[node]\nheartbeet_ms = 5\n").expect("written");
    for arguments in [
        &["--config", file.to_str().expect("UTF-8")][..],
        &["--data-dir", data, "--heartbeat-ms", "500", "--election-ms", "600"],
        &["--data-dir", data, "--log-filter", "no=such=filter"],
        &["--data-dir", data],
        &["--data-dir", data, "--plugin", "x", "--join", "127.0.0.1:1"],
        &["--data-dir", data, "--learner"],
    ] {
        let output = cli.run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
    }
    let output = cli.run(&["--data-dir", data, "--plugin", "/no/such/file"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(output.stderr.matches("No such file").count(), 1, "{output:?}");
}

#[test]
fn commands_find_their_cluster_by_file_environment_and_options_in_that_order() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let address = cluster.servers[0].address.to_string();
    let file = cluster.dir().join("client.toml");
    let path = file.to_str().expect("UTF-8");
    let nobody = format!("127.0.0.1:{}", raft_host_tests::free_port());
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    let cli = Cli::new(PROGRAM, &[]);
    let is_json = |said: &str| serde_json::from_str::<serde_json::Value>(said).is_ok();

    write(&format!("[client]\nendpoint = [\"{address}\"]\noutput = \"json\"\n"));
    assert!(is_json(&cli.run(&["--config", path, "members"]).ok()));
    let named = [("RAFT_HOST_CONFIG", path)];
    assert!(is_json(&cli.run_with(&["members", "list"], &named).ok()));
    assert!(!is_json(&cli.run_with(&["members", "-o", "table"], &named).ok()));

    write(&format!("[client]\nendpoint = [\"{nobody}\"]\ntimeout = \"5s\"\n"));
    let output = cli.run_with(&["members"], &named);
    assert!(output.code == Some(6) && output.stderr.contains(&nobody), "{output:?}");
    let both = [named[0], ("RAFT_HOST_ENDPOINT", &address)];
    cli.run_with(&["members"], &both).ok();
    let output = cli.run_with(&["-e", &nobody, "members"], &both);
    assert!(output.code == Some(6) && output.stderr.contains(&nobody), "{output:?}");
    // It must be the cluster that the file names.
    let other = "00112233445566778899aabbccddeeff";
    write(&format!("[client]\nendpoint = [\"{address}\"]\ncluster_id = \"{other}\"\n"));
    let said = cli.run_with(&["query", r#"{"op":"count"}"#], &named).failed();
    assert!(said.contains(other), "{said}");

    write("[client]\nendpoint = [\"nowhere\"]\n");
    let output = cli.run_with(&["members", "-o", "json"], &named);
    assert_eq!(output.code, Some(2), "{output:?}");
    let error: serde_json::Value = serde_json::from_str(&output.stderr).expect("JSON");
    let message = error["error"]["message"].as_str().expect("a sentence");
    assert!(message.contains(path) && message.contains("line 2"), "{message}");
    // What asks no cluster does not read it, and the server refuses it too.
    cli.run_with(&["engine", "offered"], &named).ok();
    let output = cli.run_with(&["--plugin", "x"], &named);
    assert!(output.code == Some(2) && output.stderr.contains("nowhere"), "{output:?}");
}

#[test]
fn a_servers_options_before_a_command_and_a_commands_without_one_are_wrong_usage() {
    let cli = Cli::new(PROGRAM, &[]);
    for (arguments, words) in [
        (&["--data-dir", "d", "status"][..], "--data-dir in front of a command is the server's"),
        (&["-e", "127.0.0.1:1"], "the server, which does not take --endpoint"),
        (&["demo", "-o", "json"], "`raft-host demo` does not take --output"),
        (&["-e", "a:1", "status", "-e", "b:1"], "--endpoint stands before and after a command"),
        (&["status", "--json"], "write -o json"),
        (&["snapshot"], "take "),
    ] {
        let output = cli.run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
    }
    // A server does not stumble over what is meant for commands.
    let output = cli.run_with(&["--plugin", "/no/such/file"], &[("RAFT_HOST_CLUSTER_ID", "x")]);
    assert!(output.code == Some(1) && output.stderr.contains("No such file"), "{output:?}");
}

#[test]
fn without_a_quorum_nothing_is_in_doubt_that_was_not_tried() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let survivor = cluster.leader();
    for other in [1, 2] {
        cluster.servers[(survivor + other) % 3].kill();
    }
    let cli = cluster.cli_of(survivor);
    // Until it has noticed that it does not lead any more it takes commands, whose fate is open.
    cluster
        .eventually("no leader", || cluster.group(survivor).filter(|status| status.leader_id == 0));
    let set = r#"{"op":"set","key":"a","value":"1"}"#;
    for arguments in [
        &["apply", set, "--timeout", "6s"][..],
        &["apply", set, "--timeout", "1s"],
        &["apply", set, "--session", "--timeout", "1s"],
    ] {
        let output = cli.run(arguments);
        assert_eq!(output.code, Some(6), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("was not applied"), "{output:?}");
    }
    let output = cli.run(&["status"]);
    assert_eq!(output.code, Some(6), "{output:?}");
    assert!(output.stdout.contains("takes no commands"), "{output:?}");
}

/// It was asked for the members again and again, for as long as it may take to answer.
#[test]
fn status_of_a_node_that_waits_for_its_state_says_so_at_once() {
    let mut cluster = Cluster::new(PROGRAM, 1, &[]);
    // Where its leader dials it somebody listens and says nothing, so that no snapshot arrives.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let newcomer = cluster.join(&["--advertise", &address]);
    let cli = cluster.cli_of(newcomer);
    let output = cli.run(&["status"]);
    assert_eq!(output.code, Some(6), "it knows no leader: {output:?}");
    for words in ["it waits for a snapshot", "follower", "this node has no state yet"] {
        assert!(output.stdout.contains(words), "{words:?} is not in: {output:?}");
    }
    // Whoever asks for what it does not have waits as long as it wants.
    let is_sooner = || {
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| cli.run(&["members", "--timeout", "500ms"]));
            cli.run(&["status"]);
            let is_sooner = !patient.is_finished();
            patient.join().expect("no panic").failed();
            is_sooner
        })
    };
    assert!((0..20).any(|_| is_sooner()), "it waits for what it will not hear");
}

#[test]
fn status_of_a_node_that_has_joined_nothing_yet_says_whom_it_asks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nobody = format!("127.0.0.1:{}", raft_host_tests::free_port());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], raft_host_tests::free_port()));
    let mut joining = std::process::Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--listen", &address.to_string(), "--join", &nobody])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let cli = Cli::new(PROGRAM, &[address]);
    let words = format!("this node is starting: it asks {nobody} to take it in");
    let is_told = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let output = cli.run(&["status"]);
        assert_eq!(output.code, Some(6), "{output:?}");
        output.stderr.contains(&words)
    });
    let applied = cli.run(&["apply", "x", "--timeout", "500ms"]);
    joining.kill().expect("it can be killed");
    joining.wait().expect("it can be waited for");
    assert!(is_told);
    assert_eq!(applied.code, Some(6), "{applied:?}");
    let said = applied.stderr;
    assert!(said.contains(&words) && said.contains("was not applied"), "{said}");
}

#[test]
fn a_hangup_drains_as_a_request_to_stop_does() {
    let mut cluster = Cluster::new(PROGRAM, 1, &["--log-format", "json"]);
    assert_eq!(cluster.servers[0].signal("HUP"), Some(0));
    let log = cluster.servers[0].log();
    let drained = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .any(|line| line["signal"] == "SIGHUP" && line["message"].as_str().is_some());
    assert!(drained, "{log}");
}

#[test]
fn the_configuration_file_can_form_a_cluster_and_join_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("config.toml");
    let path = file.to_str().expect("UTF-8").to_owned();
    let kv = raft_host_tests::kv();
    std::fs::write(&file, format!("plugin = {kv:?}\n[log]\nfilter = \"off\"\n")).expect("written");
    let mut first = raft_host_tests::Server::new(PROGRAM, dir.path(), "first");
    first.start(&["--config", &path]);
    assert!(!first.log().contains(" INFO "), "{}", first.log());
    std::fs::write(&file, format!("join = [\"{}\"]\n", first.address)).expect("written");
    let mut second = raft_host_tests::Server::new(PROGRAM, dir.path(), "second");
    second.start(&["--config", &path]);
    let cli = Cli::new(PROGRAM, &[first.address]);
    assert_eq!(cli.run(&["members"]).ok().matches("127.0.0.1").count(), 2);
}
