//! What traps cost the others, counted.

use super::memory::{PAGER, paged};
use super::*;
use crate::wasm::pace::FACTOR;

/// What a checkpoint of a guest this small can be worth, whatever the backend: every page of
/// 256 KiB, looked at, faulted and copied.
const CHECKPOINT_FUEL_MAX: u64 = 64 * (1_500 + 7_500);

fn a_storm_of_traps_repeats_each_command_once_beyond_a_checkpoints_worth() {
    // At the limit of memory, so that no trap costs the instance.
    let limits = Limits { memory_max_bytes: 4 << 16, ..small_limits() };
    let mut fsm = start_wasm(PAGER, &limits);
    let mut good_fuel = 0;
    let mut apply = |fsm: &mut WasmFsm, number: u64| {
        let call = fsm.apply(at(number), &paged(b'w', number as u32 % 60, 1)).unwrap();
        good_fuel += call.fuel_used;
        call.fuel_used
    };
    let command_fuel = apply(&mut fsm, 0);
    let (mut traps, mut number) = (0u64, 0);
    // Calm and storm in turns; in the storm every command is followed by two traps.
    for calm in [0, 10, 3_000, 100, 10_000] {
        for _ in 0..calm {
            number += 1;
            apply(&mut fsm, number);
        }
        for storm in 0..60u64 {
            number += 1;
            apply(&mut fsm, number);
            for _ in 0..2 {
                let before = fsm.effort();
                trap(fsm.apply(at(number), &paged(b't', 3, 1)).unwrap());
                traps += 1;
                let after = fsm.effort();
                let repeated = after.repeated_fuel - before.repeated_fuel;
                // The first trap after the calm may repeat an interval, the others next to
                // nothing.
                let bound = if storm == 0 { FACTOR } else { 1 };
                assert!(repeated <= bound * (CHECKPOINT_FUEL_MAX + command_fuel), "{after:?}");
                // And whoever repeats more than a checkpoint is worth takes one.
                if repeated > CHECKPOINT_FUEL_MAX {
                    assert_eq!(after.checkpoints, before.checkpoints + 1);
                }
            }
        }
    }
    let effort = fsm.effort();
    assert_eq!(effort.undos, traps);
    // Each command once, and a checkpoint's worth for each trap.
    assert!(effort.repeated_fuel <= good_fuel + traps * CHECKPOINT_FUEL_MAX, "{effort:?}");
    // One checkpoint at most for each trap, besides those that the work itself pays for.
    assert!(effort.checkpoints <= traps + good_fuel / FACTOR, "{effort:?}");
}

fn calm_work_pays_for_its_checkpoints() {
    let mut fsm = start_wasm(PAGER, &small_limits());
    let mut fuel = 0;
    for number in 0..30_000 {
        fuel += fsm.apply(at(number), &paged(b'w', number as u32 % 60, 1)).unwrap().fuel_used;
    }
    let effort = fsm.effort();
    // At least one, and none before the work since the last outweighed the cheapest possible.
    assert!(effort.checkpoints > 0);
    assert!(effort.checkpoints <= fuel / (FACTOR * 64 * 18), "{effort:?}");
    assert_eq!((effort.undos, effort.repeated_commands), (0, 0));
}

fn only_memory_that_grew_costs_a_new_instance() {
    let mut fsm = start_wasm(PAGER, &small_limits());
    ok(fsm.apply(at(1), &paged(b'w', 1, 1)).unwrap());
    for _ in 0..10 {
        // Grows, then traps.
        trap(fsm.apply(at(2), &paged(b't', 3, 1)).unwrap());
    }
    assert_eq!((fsm.effort().undos, fsm.effort().replaced), (10, 10));
    // At the limit nothing grows any more.
    let limits = Limits { memory_max_bytes: 4 << 16, ..small_limits() };
    let mut fsm = start_wasm(PAGER, &limits);
    for _ in 0..10 {
        trap(fsm.apply(at(2), &paged(b't', 3, 1)).unwrap());
    }
    assert_eq!((fsm.effort().undos, fsm.effort().replaced), (10, 0));
}

on_each_backend! {
    a_storm_of_traps_repeats_each_command_once_beyond_a_checkpoints_worth
    calm_work_pays_for_its_checkpoints
    only_memory_that_grew_costs_a_new_instance
}
