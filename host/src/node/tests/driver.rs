//! Whoever brings the news takes the turn: nothing that was brought stays lying.

use std::sync::Arc;

use super::ends::{formed, start_with};
use crate::consensus::Role;
use crate::node::priority::yield_to_others;
use crate::node::{NodeConfig, Request};

/// Callers on threads of their own.
const CALLERS: u64 = 4;
const CALLS: u64 = 2_000;
/// So long that no tick comes: a letter that nobody takes in stays there for ever.
const NEVER_MS: u64 = 3_600_000;

#[test]
fn every_letter_is_taken_in_though_no_tick_comes() {
    let config =
        NodeConfig { heartbeat_ms: NEVER_MS, election_ms: 10 * NEVER_MS, ..NodeConfig::default() };
    let node = start_with(config, formed(), Arc::new(super::Peers::default()));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let mut leadership = node.handle().leadership();
    let leads = leadership.wait_for(|now| now.role == Role::Leader);
    runtime.block_on(leads).expect("the only voter leads at once");
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let handle = node.handle();
                for _ in 0..CALLS {
                    runtime.block_on(handle.status()).expect("it runs");
                }
            });
        }
        // One that takes no turn, whatever it brings.
        scope.spawn(|| {
            yield_to_others();
            let handle = node.handle();
            for _ in 0..CALLS / 10 {
                runtime.block_on(handle.status()).expect("it runs");
            }
        });
        // Through the log writer and the apply loop, which bring news as well.
        let handle = node.handle();
        for number in 0..CALLS / 10 {
            let keep = Request::KeepSession { session_id: number, acknowledged: 0 };
            runtime.block_on(handle.propose(keep)).expect("applied, whatever came of it");
        }
    });
    node.stop();
}
