//! Random guests, from fixed seeds: whatever they do, the host is not surprised, and two
//! instances agree. Random peers: whatever they send, a replica lives on. `host/fuzz` runs the
//! same with a fuzzer that steers.

use arbitrary::Unstructured;
use raft_host_tests::generate::verdict::{Verdict, judge};
use raft_host_tests::generate::{calls, messages, modules};
use raft_host_tests::hostile;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Guests of each kind; `RAFT_HOST_FUZZ_CASES` asks for more, `RAFT_HOST_FUZZ_FIRST` for others.
const CASES: u64 = 150;

fn number(variable: &str, otherwise: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
}

fn bytes(seed: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = vec![0; 1024 << (seed % 4)];
    random.fill_bytes(&mut bytes);
    bytes
}

/// How many of the cases ran.
fn judge_all(make: fn(&mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>>) -> u64 {
    let (one, two) = (hostile::loader(), hostile::loader());
    let first = number("RAFT_HOST_FUZZ_FIRST", 0);
    let mut ran = 0;
    for seed in first..first + number("RAFT_HOST_FUZZ_CASES", CASES) {
        let bytes = bytes(seed);
        let Ok(module) = make(&mut Unstructured::new(&bytes)) else { continue };
        let verdict =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(&one, &two, &module)));
        match verdict {
            Ok(verdict) => ran += u64::from(verdict == Verdict::Ran),
            Err(_) => panic!("seed {seed}; see above"),
        }
    }
    ran
}

#[test]
fn random_modules_surprise_nobody() {
    let ran = judge_all(modules::module);
    // What is refused or traps at once tests little.
    assert!(ran * 4 > number("RAFT_HOST_FUZZ_CASES", CASES), "only {ran} ran");
}

#[test]
fn random_calls_of_imports_surprise_nobody() {
    let ran = judge_all(calls::module);
    assert_eq!(ran, number("RAFT_HOST_FUZZ_CASES", CASES));
}

#[test]
fn random_messages_of_peers_end_no_replica() {
    let first = number("RAFT_HOST_FUZZ_FIRST", 0);
    // A life takes milliseconds.
    let cases = number("RAFT_HOST_FUZZ_CASES", CASES) * 10;
    let mut tally = messages::Tally::new();
    for seed in first..first + cases {
        let bytes = bytes(seed);
        let lived = std::panic::catch_unwind(|| messages::judge(&mut Unstructured::new(&bytes)));
        let Ok(Ok(seen)) = lived else { panic!("seed {seed}; see above") };
        for (kind, (admitted, refused)) in seen {
            let sum = tally.entry(kind).or_default();
            *sum = (sum.0 + admitted, sum.1 + refused);
        }
    }
    // What never gets in tests nothing behind the door, and what always does nothing at it.
    // Proposals (14) and transfers (8) never travel.
    for kind in 1..=15 {
        let (admitted, refused) = tally.get(&kind).copied().unwrap_or_default();
        assert_eq!(admitted > 0, !matches!(kind, 8 | 14), "kind {kind}: {admitted} got in");
        assert!(refused > 0, "kind {kind}: nothing was refused");
    }
}
