//! Rights that are not in force: what is replicated, and what it refuses. `matrix.rs` has those that are.

use raft_host_tests::Cluster;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn principals_roles_and_tokens_are_made_shown_and_taken_away() {
    let cluster = Cluster::new(PROGRAM, 1, &[]);
    let cli = cluster.cli();
    assert!(cli.run(&["rights"]).ok().contains("everybody may do everything"));
    for (arguments, words) in [
        (&["rights", "enable", "--yes"][..], "nodes prove to each other who they are"),
        (&["rights", "enable"], "you are nobody"),
        (&["user", "add", "ann", "--role", "none"], "no role none"),
        (&["user", "set", "ann", "--role", "reader"], "no principal ann"),
        (&["user", "remove", "ann", "--yes"], "no principal ann"),
        (&["role", "add", "reader", "--grant", "query"], "built in"),
        (&["role", "remove", "teller"], "no role teller"),
        (&["token", "create", "--name", "ann"], "no principal ann"),
        (&["token", "revoke", "4"], "no token 4"),
    ] {
        let said = cli.run(arguments).failed();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    cli.run(&["role", "add", "teller", "--grant", "apply:transfer", "--grant", "query@main"]).ok();
    cli.run(&["user", "add", "ann", "--role", "teller"]).ok();
    assert!(cli.run(&["user", "add", "ann", "--role", "teller"]).failed().contains("already"));
    assert!(cli.run(&["role", "remove", "teller"]).failed().contains("ann has it"));

    let file = cluster.dir().join("token");
    let path = file.to_str().expect("UTF-8");
    let create = ["token", "create", "--name", "bob", "--role", "reader", "--ttl", "1h"];
    let said = cli.run(&[&create[..], &["--note", "laptop", "--out", path]].concat()).ok();
    assert!(!said.contains("rh1.") && said.contains("token"), "{said}");
    let token = std::fs::read_to_string(&file).expect("it is there");
    assert!(token.starts_with("rh1.") && token.trim_end().len() == 47, "{}", token.len());
    let again = ["token", "create", "--name", "bob", "--out", path];
    assert!(cli.run(&again).failed().contains("nothing was changed"));
    assert_eq!(std::fs::read_to_string(&file).expect("as before"), token);
    let shown = json(&cli.run(&["token", "create", "--name", "ann", "-o", "json"]).ok());
    let id = shown["id"].as_u64().expect("a number").to_string();
    assert!(shown["token"].as_str().is_some_and(|token| token.starts_with("rh1.")));

    let all = cli.run(&["rights"]).ok();
    for words in ["ann", "bob", "laptop", "apply:transfer", "query@main", "admin"] {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert!(!all.contains("rh1."), "{all}");
    cli.run(&["token", "revoke", &id]).ok();
    cli.run(&["user", "remove", "bob", "--yes"]).ok();
    let tokens = json(&cli.run(&["token", "list", "-o", "json"]).ok());
    assert_eq!(tokens, Value::Array(Vec::new()));
    // From a snapshot, and the log behind it.
    let before = json(&cli.run(&["rights", "-o", "json"]).ok());
    cli.run(&["snapshot", "take"]).ok();
    let mut cluster = cluster;
    cluster.servers[0].kill();
    cluster.servers[0].start(&[]);
    assert_eq!(json(&cluster.cli().run(&["rights", "-o", "json"]).ok()), before);
}
