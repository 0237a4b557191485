//! Certificates as an operator makes them: with the program, on a disk.

#![allow(missing_docs, reason = "a test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use raft_host_tests::Cli;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn three_commands_make_certificates_that_the_fourth_explains() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let certs = dir.path().join("certs");
    let (cli, name) = (Cli::new(PROGRAM, &[]), certs.to_str().expect("UTF-8"));
    let said = cli.run(&["certs", "init", name, "--node", "n1=127.0.0.1,localhost"]).ok();
    assert!(said.contains("node 1:") && said.contains("raft-host --tls"), "{said}");
    let said = cli.run(&["certs", "node", name, "--name", "n2", "--address", "10.0.0.2"]).ok();
    assert!(said.contains("node 2:") && said.contains("for 10.0.0.2"), "{said}");
    let said = cli.run(&["certs", "client", name, "--name", "alice"]).ok();
    assert!(said.contains("client alice:"), "{said}");
    assert_eq!(mode(&certs), 0o700);
    for key in ["ca-key.pem", "nodes/n1/key.pem", "nodes/n2/key.pem", "clients/alice/key.pem"] {
        assert_eq!(mode(&certs.join(key)), 0o600, "{key}");
    }

    let said = cli.run(&["certs", "show", name, "-o", "json"]).ok();
    let shown: Value = serde_json::from_str(&said).expect("JSON");
    let kinds: Vec<&str> = shown["certificates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["kind"].as_str().expect("a word"))
        .collect();
    assert_eq!(kinds, ["ca", "ca", "client", "ca", "node", "ca", "node"], "{said}");
    let node = &shown["certificates"][4];
    assert_eq!((&node["node_id"], &node["hosts"][0]), (&1.into(), &"localhost".into()));
    assert_eq!(shown["private_keys"].as_array().expect("a list").len(), 4);
    let text = cli.run(&["certs", "show", name]).ok();
    let secret = std::fs::read_to_string(certs.join("ca-key.pem")).expect("readable");
    let secret = secret.lines().nth(1).expect("base64");
    assert!(!text.contains(secret) && !said.contains(secret));
}

#[test]
fn what_cannot_be_done_is_refused_with_a_sentence_and_a_code() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let certs = dir.path().join("certs");
    let (cli, name) = (Cli::new(PROGRAM, &[]), certs.to_str().expect("UTF-8"));
    cli.run(&["certs", "init", name, "--days", "10"]).ok();
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = cli.run(&[&["certs"], arguments].concat());
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
    };
    refused(&["init", name], 1, "is there already");
    refused(&["init", &format!("{name}/a/b")], 2, "make it first");
    refused(&["client", "nowhere", "--name", "a"], 2, "`raft-host certs init` makes one");
    refused(&["client", name, "--name", "a", "--days", "11"], 2, "valid for");
    refused(&["renew", name, "--name", "n1"], 2, "there is no");
    refused(&["rotate-ca", name, "--finish"], 1, "no change of the CA is under way");
    refused(&["node", name, "--name", "../x", "--address", "a"], 2, "is no name");
    let file = dir.path().join("large.pem");
    std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).expect("written");
    let output = cli.run(&["certs", "show", file.to_str().expect("UTF-8")]);
    assert_eq!(output.code, Some(1));
    assert!(output.stdout.contains("larger than 1 MiB"), "{output:?}");
}
