//! Guests that mean harm: each ends in a typed error, and the node goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft_host::fsm::Limits;
use raft_host::node::UpgradeFailure;
use raft_host::types::Outcome;
use raft_host::wasm::{CheckError, check_module};
use raft_host_tests::hostile::{
    Healthy, LoneNode, Script, assemble, fixtures, healthy, large, limits, loader,
};

#[test]
fn every_hostile_guest_ends_as_its_header_says_and_the_node_goes_on() {
    let loader = loader();
    let healthy = healthy();
    let only = std::env::var("HOSTILE").ok();
    let mut failed = Vec::new();
    for (name, text) in fixtures() {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let played = catch_unwind(AssertUnwindSafe(|| {
            let module = assemble(&text).unwrap_or_else(|error| panic!("{error}"));
            let script = Script::parse(&text);
            let mut node = LoneNode::new(loader.clone(), limits());
            node.upgrade(&healthy).expect("the healthy guest");
            assert!(matches!(node.apply(b""), Outcome::Ok(_)));
            script.play(&mut node, &Healthy { module: &healthy }, &module);
        }));
        if let Err(panic) = played {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            failed.push(format!("{name}: {}", words.unwrap_or("?")));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}
