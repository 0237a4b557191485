//! What things cost is part of the engine profile.

use super::*;

/// A node with other costs than its peers' would run out of fuel at another command. Whoever sees
/// other numbers here raises the version of the fuel schedule in `wasm::engine`, on purpose.
#[test]
fn the_fuel_schedule_is_that_of_its_version() {
    let mut fsm = scribe();
    let mut costs = vec![fsm.init(at(1)).unwrap().fuel_used];
    for command in
        [&b"a-text"[..], b"g", b"u", b"r", b"z", b"o", b"c", b"h", b"e-event", b"x", b"t"]
    {
        costs.push(fsm.apply(at(2), command).unwrap().fuel_used);
    }
    costs.push(fsm.query(at(3), b"q").unwrap().fuel_used);
    let snapshot = fsm.snapshot(at(3)).unwrap();
    costs.push(snapshot.fuel_used);
    costs.push(scribe().restore(at(4), &ok(snapshot)).unwrap().fuel_used);
    let expected = [21, 167, 216, 104, 177, 72, 72, 110, 127, 246, 307, 358, 225, 109, 200];
    assert_eq!(costs, expected);
}
