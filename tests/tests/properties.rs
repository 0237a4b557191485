//! Replicas agree bit for bit, whatever else happened to each of them.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use raft_host_tests::properties::guests::{ALL, Guest, loaders};
use raft_host_tests::properties::runs::{self, Ended};
use raft_host_tests::workspace;
use sha2::{Digest as _, Sha256};

/// Runs of each guest; `RAFT_HOST_PROPERTY_CASES` asks for more.
const CASES: u32 = 64;

fn cases() -> u32 {
    let asked = std::env::var("RAFT_HOST_PROPERTY_CASES").ok();
    asked.map_or(CASES, |cases| cases.parse().expect("RAFT_HOST_PROPERTY_CASES is a number"))
}

/// Whatever happens between its commands, every guest ends where a run without all that ends:
/// in the same outcomes, fuel, image and digest.
fn a_run_with_detours_ends_like_a_straight_one(guest: Guest) {
    let module = guest.module();
    let loaders = loaders();
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng(guest));
    let result = runner.run(&runs::steps(guest, 40), |steps| {
        let straight = runs::straight(&loaders[0], &module, &steps);
        for loader in &loaders {
            let with_detours = runs::with_detours(loader, &module, &steps);
            compare(&straight, &with_detours)?;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{guest:?}: {error}");
    }
}

/// The same cases every time, unless more are asked for.
fn rng(guest: Guest) -> proptest::test_runner::TestRng {
    let mut seed = [0; 32];
    seed[0] = ALL.iter().position(|other| *other == guest).expect("one of them") as u8;
    seed[1..5].copy_from_slice(&cases().to_le_bytes());
    let algorithm = proptest::test_runner::RngAlgorithm::ChaCha;
    proptest::test_runner::TestRng::from_seed(algorithm, &seed)
}

fn compare(straight: &Ended, other: &Ended) -> Result<(), TestCaseError> {
    for (at, (one, two)) in straight.seen.iter().zip(&other.seen).enumerate() {
        prop_assert_eq!(one, two, "command {}", at);
    }
    prop_assert_eq!(straight.seen.len(), other.seen.len());
    prop_assert_eq!(&straight.digest, &other.digest);
    // Not printed: an image is long.
    prop_assert!(straight.image == other.image, "the images differ");
    Ok(())
}

#[test]
fn detours_of_the_rust_plugin_leave_no_trace() {
    a_run_with_detours_ends_like_a_straight_one(Guest::Kv);
}

#[test]
fn detours_of_a_guest_in_text_leave_no_trace() {
    a_run_with_detours_ends_like_a_straight_one(Guest::Wat);
}

#[test]
fn detours_of_a_guest_on_wasi_leave_no_trace() {
    a_run_with_detours_ends_like_a_straight_one(Guest::WasiC);
}

/// Source and module of the C guest lie side by side; `tests/guests/wasi-c/build` makes one of
/// the other.
#[test]
fn the_guest_in_c_was_built_from_the_source_beside_it() {
    let folder = workspace("tests/guests/wasi-c");
    let manifest = std::fs::read_to_string(folder.join("manifest.txt")).expect("a manifest");
    let mut files = Vec::new();
    for line in manifest.lines() {
        let (hash, name) = line.split_once("  ").expect("a hash and a name");
        let bytes = std::fs::read(folder.join(name)).expect("a file beside the manifest");
        let found: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, hash, "{name} has changed: run tests/guests/wasi-c/build");
        files.push(name);
    }
    assert_eq!(files, ["guest.wasm", "guest.c"]);
}
