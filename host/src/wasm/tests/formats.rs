//! What a guest says of its own state: whether it keeps the rules, and in which format it writes it.

use super::*;
use crate::wasm::{CheckError, check_module};

/// The scribe, whose rule is that nothing appended ends with `!`: `check` rejects with the last byte. It names
/// what was appended behind the `i` of `init` as its format, and restores formats that it would not reject as
/// a command. All of them scribble before.
fn talker() -> String {
    let exports = r#"
      (func (export "check") (result i32)
        (call $append (i32.const 8))
        (global.set $end (i32.sub (global.get $end) (i32.const 8)))
        (if (i32.eq (i32.load8_u (i32.sub (global.get $end) (i32.const 1))) (i32.const 33)) (then
          (call $write (i32.sub (global.get $end) (i32.const 1)) (i32.const 1))
          (return (i32.const 3))))
        (if (i32.eq (i32.load8_u (i32.sub (global.get $end) (i32.const 1))) (i32.const 63)) (then
          (loop $again (br $again))))
        (drop (memory.grow (i32.const 1)))
        (i32.const 0))
      (func (export "state_version") (result i32)
        (call $write (i32.const 65537) (i32.sub (global.get $end) (i32.const 65537)))
        (call $append (i32.const 8))
        (i32.const 0))
      (func (export "restores") (param i32) (result i32)
        (call $do (call $take)))"#;
    format!("{SCRIBE} {exports}")
}

fn a_state_is_checked_and_stays_as_it_was() {
    let limits = Limits { snapshot_fuel: 20_000, ..small_limits() };
    let mut fsm = start_wasm(&talker(), &limits);
    assert!(fsm.has_check());
    ok(fsm.init(at(1)).unwrap());
    for (appended, expected) in [
        (&b"a."[..], Ok(GuestResult::Ok(Vec::new()))),
        (b"a!", Ok(GuestResult::Rejected(b"!".to_vec()))),
        (b"a?", Err(TrapKind::OutOfFuel)),
        (b"a.", Ok(GuestResult::Ok(Vec::new()))),
    ] {
        ok(fsm.apply(at(2), appended).unwrap());
        let (state, digest) = (fsm.state(), fsm.digest().unwrap().digest);
        for _ in 0..3 {
            let call = fsm.check(at(2)).unwrap();
            assert!(call.fuel_used <= 20_000 && call.events.is_empty());
            match &expected {
                Ok(result) => assert_eq!(call.result, *result),
                Err(kind) => assert_eq!(trap(call), *kind),
            }
            assert_eq!(fsm.state(), state);
        }
        assert_eq!(fsm.digest().unwrap().digest, digest);
    }
}

fn a_format_is_named_and_asked_for_and_the_state_stays_as_it_was() {
    let mut fsm = start_wasm(&talker(), &small_limits());
    ok(fsm.init(at(1)).unwrap());
    let mut appended = String::new();
    for (command, named) in [("a", true), ("a/2", true), ("a ", false)] {
        ok(fsm.apply(at(2), command.as_bytes()).unwrap());
        appended.push_str(command);
        let state = fsm.state();
        let call = fsm.state_version(at(2)).unwrap();
        assert_eq!(call.named_state_version(), Some(&*appended).filter(|_| named));
        assert_eq!(fsm.state(), state);
    }
    let state = fsm.state();
    ok(fsm.restores(at(2), b"append/1").unwrap());
    let refused = fsm.restores(at(2), b"ragtag/1").unwrap();
    assert_eq!(refused.result, GuestResult::Rejected(b"ragtag/1".to_vec()));
    assert_eq!(trap(fsm.restores(at(2), b"u/1").unwrap()), TrapKind::Unreachable);
    assert_eq!(trap(fsm.restores(at(2), b"l/1").unwrap()), TrapKind::OutOfFuel);
    assert_eq!(fsm.restores(at(2), b"l").unwrap().fuel_used, 1_000_000);
    let too_long = fsm.restores(at(2), &[b'a'; 65]).unwrap();
    assert!(matches!(too_long.result, GuestResult::Rejected(_)) && too_long.fuel_used == 0);
    assert_eq!(fsm.state(), state);
}

/// Undo goes by checkpoints and commands: these calls are neither.
fn commands_go_as_they_do_without_such_calls() {
    let [mut asked, mut unasked] = [(); 2].map(|()| start_wasm(&talker(), &small_limits()));
    for index in 2..40u64 {
        let command: &[u8] = [&b"a1"[..], b"g", b"e2", b"x", b"u", b"r-"][index as usize % 6];
        asked.check(at(index)).unwrap();
        asked.state_version(at(index)).unwrap();
        asked.restores(at(index), b"g").unwrap();
        let call = asked.apply(at(index), command).unwrap();
        assert_eq!(call, unasked.apply(at(index), command).unwrap());
        assert_eq!(asked.state(), unasked.state());
    }
    let (one, two) = (asked.effort(), unasked.effort());
    assert_eq!((one.undos, one.repeated_commands), (two.undos, two.repeated_commands));
}

#[test]
fn each_kind_of_call_has_random_numbers_of_its_own() {
    let tell = r#"(call $random (i32.const 0) (i32.const 16)) (call $write (i32.const 0) (i32.const 16)) (i32.const 0)"#;
    let body = format!(
        r#"(memory (export "memory") 1)
        (func (export "apply") (param i32) (result i32) {tell})
        (func (export "snapshot") (result i32) {tell})
        (func (export "restore") (param i32) (result i32) (i32.const 0))
        (func (export "check") (result i32) {tell})
        (func (export "state_version") (result i32) {tell})
        (func (export "restores") (param i32) (result i32) {tell})"#
    );
    let mut fsm = start(&body);
    let mut told = vec![
        ok(fsm.check(at(2)).unwrap()),
        ok(fsm.state_version(at(2)).unwrap()),
        ok(fsm.restores(at(2), b"x").unwrap()),
        ok(fsm.snapshot(at(2)).unwrap()),
        ok(fsm.apply(at(2), b"").unwrap()),
    ];
    assert_eq!(told[0], ok(fsm.check(at(2)).unwrap()));
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 5);
}

#[test]
fn a_module_without_the_exports_says_nothing_and_one_with_other_types_is_refused() {
    let mut fsm = scribe();
    assert!(!fsm.has_check() && !fsm.has_take_over());
    assert_eq!(fsm.check(at(1)).unwrap(), Call::nothing());
    assert_eq!(fsm.state_version(at(1)).unwrap(), Call::nothing());
    assert_eq!(fsm.restores(at(1), b"kv/1").unwrap(), Call::nothing());
    let report = |body: &str| check_module(&wasm(body), &small_limits());
    let told = report(SCRIBE).unwrap();
    assert!(!told.has_check && !told.has_state_version && !told.has_restores && !told.has_adopt);
    let told = report(&talker()).unwrap();
    assert!(told.has_check && told.has_state_version && told.has_restores && !told.has_adopt);
    for (name, right, wrong) in [
        ("check", "() -> (i32)", "(param i32) (result i32)"),
        ("state_version", "() -> (i32)", "(result i64)"),
        ("restores", "(i32) -> (i32)", "(result i32)"),
        ("adopt", "(i32) -> (i32)", "(param i64) (result i32)"),
    ] {
        for export in [
            format!(r#"(func (export "{name}") {wrong} (unreachable))"#),
            format!(r#"(global (export "{name}") i32 (i32.const 0))"#),
        ] {
            let error = report(&format!("{SCRIBE} {export}")).unwrap_err();
            let CheckError::ExportSignature { name: told, expected, .. } = error else {
                panic!("{error}")
            };
            assert_eq!((&*told, &*expected), (name, right));
        }
    }
}

on_each_backend! {
    a_state_is_checked_and_stays_as_it_was
    a_format_is_named_and_asked_for_and_the_state_stays_as_it_was
    commands_go_as_they_do_without_such_calls
}
