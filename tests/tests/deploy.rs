//! What `host/deploy` says is so: settings, metrics, rules, and what systemd is told.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use raft_host::config::Config;
use raft_host_tests::{Cli, Server, kv, workspace};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace(path)).expect(path)
}

/// The names of our metrics in a text, without what a histogram adds.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    let ours = words.filter(|word| word.starts_with("raft_host_") || word.starts_with("process_"));
    ours.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned()).collect()
}

#[test]
fn alerts_and_board_name_metrics_that_there_are() {
    let known = metrics_in(&read("host/docs/operations.md"));
    for file in ["host/deploy/prometheus/alerts.yml", "host/deploy/grafana/raft-host.json"] {
        let used = metrics_in(&read(file));
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} names what no node tells: {unknown:?}");
    }
    let board: Result<serde_json::Value, _> =
        serde_json::from_str(&read("host/deploy/grafana/raft-host.json"));
    assert!(board.expect("JSON")["panels"].as_array().is_some_and(|panels| panels.len() > 5));
}

/// Runs a checker, where there is one.
fn accepts(program: &str, arguments: &[&str]) {
    let Ok(checked) = Command::new(program).args(arguments).output() else {
        assert!(
            std::env::var_os("RAFT_HOST_ALL_TOOLCHAINS").is_none() || program != "promtool",
            "{program} is missing"
        );
        eprintln!("{program} is not here: {arguments:?} is not checked");
        return;
    };
    let words = String::from_utf8_lossy(&checked.stderr).into_owned()
        + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{program} {arguments:?}: {words}");
}

#[test]
fn prometheus_and_systemd_take_their_files() {
    let rules = workspace("host/deploy/prometheus/alerts.yml");
    accepts("promtool", &["check", "rules", rules.to_str().expect("UTF-8")]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let unit = dir.path().join("raft-host.service");
    let text = read("host/deploy/systemd/raft-host.service");
    // It looks whether the program is there.
    let text = text.replace("/usr/local/bin/raft-host", PROGRAM);
    std::fs::write(&unit, text).expect("written");
    accepts("systemd-analyze", &["verify", unit.to_str().expect("UTF-8")]);
    let config = Config::from_file(&workspace("host/deploy/systemd/raft-host.toml")).expect("TOML");
    config.validate().expect("settings that can be");
    assert!(config.backup.directory.is_some() && config.plugin.is_some());
}

#[test]
fn the_unit_restarts_what_a_restart_mends_and_gives_a_drain_its_time() {
    let unit = read("host/deploy/systemd/raft-host.service");
    for line in
        ["Type=notify", "RestartPreventExitStatus=2 7", "TimeoutStopSec=30", "KillMode=mixed"]
    {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    let patience = Config::default().node.drain_ms + 3_000;
    assert!(patience <= 30_000, "TimeoutStopSec must not be less than {patience} ms");
}

#[test]
fn systemd_is_told_when_the_node_serves_and_when_it_drains() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let next = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).expect("it says something");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut server = Server::new(PROGRAM, dir.path(), "node-1");
    server.set_variable("NOTIFY_SOCKET", &path);
    server.start(&["--plugin", kv().to_str().expect("UTF-8")]);
    assert!(next().contains("READY=1"));
    assert_eq!(server.terminate(), Some(0));
    assert!(next().contains("STOPPING=1"));
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let target = dir.path().join("man1");
    Cli::new(PROGRAM, &[]).run(&["man", target.to_str().expect("UTF-8")]).ok();
    let page = |name: &str| std::fs::read_to_string(Path::new(&target).join(name)).expect(name);
    assert!(page("raft-host.1").contains("WebAssembly"));
    for command in ["apply", "backup-save", "restore", "members-add", "upgrade"] {
        let text = page(&format!("raft-host-{command}.1"));
        assert!(text.contains(".SH"), "{command}: {text}");
    }
    let said = Cli::new(PROGRAM, &[]).run(&["man", "/proc/nowhere"]).failed();
    assert!(said.contains("cannot write to /proc/nowhere"), "{said}");
}
