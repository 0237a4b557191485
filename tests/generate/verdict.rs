//! Loads a module and runs two instances of it side by side.

use raft_host::fsm::{Context, Fsm, GuestResult, Limits, SharedLoader};
use raft_host::types::{ActorName, ClusterId, Index, Position};

use crate::properties::runs::{Seen, image, seen};

/// Budgets that keep a case short.
fn limits() -> Limits {
    let fuel = 300_000;
    Limits {
        apply_fuel: fuel,
        query_fuel: fuel,
        init_fuel: fuel,
        snapshot_fuel: fuel,
        restore_fuel: fuel,
        memory_max_bytes: 4 << 20,
        stack_max_bytes: 128 << 10,
        snapshot_max_bytes: 4 << 20,
        ..Limits::default()
    }
}

/// What became of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Refused by the check.
    Refused,
    /// Accepted, but it does not start.
    DoesNotStart,
    /// It ran.
    Ran,
}

/// Loads and runs it on both loaders, which may be one.
///
/// # Panics
/// On a host failure, and if the two disagree on anything.
pub fn judge(one: &SharedLoader, two: &SharedLoader, module: &[u8]) -> Verdict {
    let limits = limits();
    let checked = one.check(module, &limits).expect("a module is no reason for a host to fail");
    let checked_again = two.check(module, &limits).expect("a module is no reason to fail");
    assert_eq!(checked, checked_again);
    if checked.is_err() {
        return Verdict::Refused;
    }
    let start = |loader: &SharedLoader| {
        loader.instantiate(module, &limits, context(1)).expect("a module is no reason to fail")
    };
    match (start(one), start(two)) {
        (Ok(mut one), Ok(mut two)) => {
            compare(&mut *one, &mut *two);
            Verdict::Ran
        }
        (Err(one), Err(two)) => {
            assert_eq!(one, two);
            Verdict::DoesNotStart
        }
        (one, two) => panic!("one starts, the other does not: {:?} {:?}", one.err(), two.err()),
    }
}

/// The second gets detours that must not matter.
fn compare(one: &mut dyn Fsm, two: &mut dyn Fsm) {
    const OK: &str = "a guest is no reason for a host to fail";
    assert!(image(one) == image(two), "fresh instances differ");
    same(one.init(context(2)), two.init(context(2)));
    for number in 0..12u64 {
        let command: Vec<u8> = [number as u8, 0].repeat(1 + number as usize * 3);
        let context = context(3 + number);
        if number % 3 == 0 {
            two.query(context, &command).expect(OK);
            two.classify(context, &command).expect(OK);
            two.snapshot(context).expect(OK);
            same(one.check(context), two.check(context));
            same(one.state_version(context), two.state_version(context));
            same(one.restores(context, &command), two.restores(context, &command));
        }
        if number % 4 == 1 {
            let bytes = image(two);
            two.load_image(&mut bytes.as_slice()).expect("its own image");
        }
        if number % 2 == 0 {
            same(one.classify(context, &command), two.classify(context, &command));
        }
        same(one.apply(context, &command), two.apply(context, &command));
        same(one.query(context, &command), two.query(context, &command));
    }
    let context = context(20);
    let portable = one.snapshot(context).expect(OK);
    same(Ok(portable.clone()), two.snapshot(context));
    assert!(image(one) == image(two), "the images differ");
    if let GuestResult::Ok(portable) = portable.result {
        same(one.restore(context, &portable), two.restore(context, &portable));
        assert!(image(one) == image(two), "the images differ after restore");
    }
    let digests = (one.digest().expect(OK).digest, two.digest().expect(OK).digest);
    assert_eq!(digests.0, digests.1);
}

fn same<E: std::fmt::Debug>(
    one: Result<raft_host::fsm::Call, E>,
    two: Result<raft_host::fsm::Call, E>,
) {
    let see = |call: Result<_, E>| -> Seen {
        seen(call.expect("a guest is no reason for a host to fail"))
    };
    assert_eq!(see(one), see(two));
}

fn context(number: u64) -> Context {
    let time_ms = 1_000 * number;
    let actor = match number.is_multiple_of(2) {
        true => ActorName::NONE,
        false => "somebody".parse().expect("a name"),
    };
    Context {
        cluster: ClusterId([3; 16]),
        position: Position::first(Index(number)),
        time_ms,
        actor,
    }
}
