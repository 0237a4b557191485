//! How deep a guest gets is the same in every build of the host.

use super::*;

/// Goes as deep as its input says, by a function with the smallest frame there is. A command that
/// begins with `=` is kept, for `snapshot` to go that deep.
fn diver(initial: u32) -> Vec<u8> {
    wasm(&format!(
        r#"
      (memory (export "memory") 1)
      (func $dive (param $left i32)
        (if (local.get $left) (then (call $dive (i32.sub (local.get $left) (i32.const 1))))))
      (func (export "_initialize") (call $dive (i32.const {initial})))
      (func (export "apply") (param i32) (result i32)
        (drop (call $take))
        (if (i32.eq (i32.load8_u (i32.const 1028)) (i32.const 61))
          (then (i32.store (i32.const 0) (i32.load (i32.const 1024))))
          (else (call $dive (i32.load (i32.const 1024)))))
        (i32.const 0))
      (func (export "query") (param i32) (result i32)
        (drop (call $take)) (call $dive (i32.load (i32.const 1024))) (i32.const 0))
      (func (export "snapshot") (result i32) (call $dive (i32.load (i32.const 0))) (i32.const 0))
      (func (export "restore") (param i32) (result i32)
        (drop (call $take)) (call $dive (i32.load (i32.const 1024))) (i32.const 0))"#
    ))
}

fn limits(stack_max_bytes: u64) -> Limits {
    Limits { stack_max_bytes, ..small_limits() }
}

/// The deepest dive that does not trap, by bisection.
fn deepest(mut dive: impl FnMut(u32) -> GuestResult) -> u32 {
    let (mut fits, mut traps) = (0, 1 << 20);
    while traps - fits > 1 {
        let middle = fits + (traps - fits) / 2;
        match dive(middle) {
            GuestResult::Ok(_) => fits = middle,
            GuestResult::Trapped(trap) => {
                assert_eq!(trap.kind, TrapKind::StackOverflow, "{trap:?}");
                traps = middle;
            }
            GuestResult::Rejected(reason) => panic!("{reason:?}"),
        }
    }
    fits
}

fn depths(stack_max_bytes: u64) -> [u32; 5] {
    let limits = limits(stack_max_bytes);
    let mut fsm = try_start(&diver(0), &limits).unwrap();
    let apply = deepest(|depth| fsm.apply(at(1), &depth.to_le_bytes()).unwrap().result);
    let query = deepest(|depth| fsm.query(at(1), &depth.to_le_bytes()).unwrap().result);
    let restore = deepest(|depth| fsm.restore(at(1), &depth.to_le_bytes()).unwrap().result);
    let snapshot = deepest(|depth| {
        let mut command = depth.to_le_bytes().to_vec();
        command.push(b'=');
        ok(fsm.apply(at(1), &command).unwrap());
        fsm.snapshot(at(1)).unwrap().result
    });
    let loader = WasmLoader::new(None).unwrap();
    let initialise =
        deepest(|depth| match loader.instantiate(&diver(depth), &limits, at(1)).unwrap() {
            Ok(_) => GuestResult::Ok(Vec::new()),
            Err(refused) => {
                assert!(refused.0.contains("stack"), "{refused}");
                let kind = TrapKind::StackOverflow;
                GuestResult::Trapped(crate::fsm::Trap { kind, message: refused.0 })
            }
        });
    [apply, query, restore, snapshot, initialise]
}

/// The numbers are those of the dev build and of the release build. Whoever sees others has
/// another compiler of guests (another engine profile), or a host whose frames show again.
#[test]
#[cfg(target_arch = "x86_64")]
fn every_call_gets_exactly_as_deep_in_every_build() {
    // Each frame has 48 bytes, all of them from the stack that the limits give; the functions that
    // the host calls have small frames of their own. Less than 16 bytes more are nothing.
    let small = 64 << 10;
    assert_eq!(depths(small), [1363, 1363, 1363, 1363, 1364]);
    assert_eq!(depths(small + 15), [1363, 1363, 1363, 1363, 1364]);
    assert_eq!(depths(small + 16), [1364, 1364, 1364, 1364, 1364]);
    assert_eq!(depths(small + 32), [1364, 1364, 1364, 1364, 1364]);
    assert_eq!(depths(small + 48), [1364, 1364, 1364, 1364, 1365]);
    assert_eq!(depths(small + 48 * 1000), [2363, 2363, 2363, 2363, 2364]);
}

#[test]
fn neither_the_thread_nor_what_lies_on_its_stack_makes_a_difference() {
    #[inline(never)]
    fn deeper<const BYTES: usize>(levels: u32, dive: &mut dyn FnMut() -> u32) -> u32 {
        let ballast = std::hint::black_box([1u8; BYTES]);
        let depth = if levels == 0 { dive() } else { deeper::<BYTES>(levels - 1, dive) };
        depth + u32::from(ballast[0]) - 1
    }
    let dive = || {
        let mut fsm = try_start(&diver(0), &limits(64 << 10)).unwrap();
        move || deepest(|depth| fsm.apply(at(1), &depth.to_le_bytes()).unwrap().result)
    };
    let here = dive()();
    assert!(here > 1_000, "{here}");
    for levels in 0..5 {
        let mut dive = dive();
        assert_eq!(deeper::<3>(levels, &mut dive), here);
        assert_eq!(deeper::<24>(levels, &mut dive), here);
        assert_eq!(
            std::thread::spawn(move || deeper::<1001>(levels, &mut dive)).join().unwrap(),
            here
        );
    }
}
