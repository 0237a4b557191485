//! Classes of commands, and who gives them: they see what the command will, and leave nothing.

use super::*;
use crate::wasm::{CheckError, check_module};

/// The scribe, which classifies a command by doing what it says: `a` and what changes nothing names no class,
/// `r` rejects with itself, `k` names the command without its first byte.
fn scribe_with_classes() -> String {
    let classify = r#"
      (func (export "classify") (param i32) (result i32) (local $len i32)
        (local.set $len (call $take))
        (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 107)) (then
          (call $write (i32.const 1025) (i32.sub (local.get $len) (i32.const 1)))))
        (call $do (local.get $len)))"#;
    format!("{SCRIBE} {classify}")
}

/// What a classification comes to: a class, or none.
type Named = Result<Option<&'static str>, TrapKind>;

/// All that the scribe can be told, and what its classification comes to.
const TOLD: [(&[u8], Named); 14] = [
    (b"ktransfer", Ok(Some("transfer"))),
    (b"k", Ok(None)),
    (b"k two words", Ok(None)),
    (b"k\xff\xfe", Ok(None)),
    (b"a", Ok(None)),
    (b"rejected", Ok(None)),
    (b"u", Err(TrapKind::Unreachable)),
    (b"l", Err(TrapKind::OutOfFuel)),
    (b"z", Err(TrapKind::Arithmetic)),
    (b"o", Err(TrapKind::OutOfBounds)),
    (b"c", Err(TrapKind::BadCall)),
    (b"s", Err(TrapKind::StackOverflow)),
    (b"n", Err(TrapKind::BadStatus)),
    (b"w", Err(TrapKind::OutputLimit)),
];

fn a_command_is_classified_and_the_instance_stays_as_it_was() {
    let body = scribe_with_classes();
    let mut fsm = start_wasm(&body, &small_limits());
    assert!(fsm.has_classes());
    ok(fsm.init(at(1)).unwrap());
    for index in 2..6 {
        ok(fsm.apply(at(index), b"a.").unwrap());
        let (state, digest) = (fsm.state(), fsm.digest().unwrap().digest);
        for (command, expected) in TOLD {
            let call = fsm.classify(at(index), command).unwrap();
            assert!(call.events.is_empty() && call.pages_dirtied.is_none());
            match expected {
                Ok(class) => assert_eq!(call.class(), class, "{command:?}"),
                Err(kind) => assert_eq!(trap(call), kind, "{command:?}"),
            }
            assert_eq!(fsm.state(), state, "{command:?}");
        }
        assert_eq!(fsm.digest().unwrap().digest, digest);
    }
    // What is no text is told as it is; so is a reason.
    let call = fsm.classify(at(6), b"k\xff\xfe").unwrap();
    assert_eq!(call.result, GuestResult::Ok(b"\xff\xfe".to_vec()));
    let call = fsm.classify(at(6), b"rejected").unwrap();
    assert_eq!(call.result, GuestResult::Rejected(b"rejected".to_vec()));
}

fn a_classification_follows_growth_and_its_own_is_undone() {
    let mut fsm = start(&scribe_with_classes());
    let pages = |call: Call| u32::from_le_bytes(ok(call).try_into().unwrap());
    for grown in 2..6 {
        for _ in 0..3 {
            assert_eq!(pages(fsm.classify(at(1), b"g").unwrap()), grown);
        }
        assert_eq!(pages(fsm.apply(at(1), b"g").unwrap()), grown);
    }
    // As far as a command may: up to the limit, and no further.
    let limits = Limits { memory_max_bytes: 3 << 16, ..small_limits() };
    let mut fsm = start_wasm(&scribe_with_classes(), &limits);
    assert_eq!(pages(fsm.classify(at(1), b"g").unwrap()), 2);
    assert_eq!(pages(fsm.apply(at(1), b"g").unwrap()), 2);
    assert_eq!(pages(fsm.classify(at(1), b"g").unwrap()), u32::MAX);
}

/// It decides outcomes: what an instance went through must not show.
fn every_replica_classifies_alike_whatever_it_did_before() {
    let body = scribe_with_classes();
    let [mut straight, mut roundabout, mut carried] =
        [(); 3].map(|()| start_wasm(&body, &small_limits()));
    for index in 2..30u64 {
        let command: &[u8] = [&b"a1"[..], b"g", b"e2", b"x", b"u", b"r-"][index as usize % 6];
        for (told, _) in TOLD.iter().chain(&[(&b"g"[..], Ok(None)), (b"x", Ok(None))]) {
            let call = straight.classify(at(index), told).unwrap();
            assert_eq!(roundabout.classify(at(index), told).unwrap(), call, "{told:?}");
            assert_eq!(carried.classify(at(index), told).unwrap(), call, "{told:?}");
        }
        let call = straight.apply(at(index), command).unwrap();
        assert_eq!(roundabout.apply(at(index), command).unwrap(), call);
        assert_eq!(carried.apply(at(index), command).unwrap(), call);
        roundabout.query(at(index), b"g").unwrap();
        trap(roundabout.query(at(index), b"u").unwrap());
        trap(roundabout.apply(at(index), b"z").unwrap());
        roundabout.snapshot(at(index)).unwrap();
        let bytes = image(&mut straight);
        carried = start_wasm(&body, &small_limits());
        carried.load_image(&mut bytes.as_slice()).unwrap();
        assert_eq!(straight.state(), roundabout.state());
    }
}

fn commands_go_as_they_do_without_classifications() {
    let body = scribe_with_classes();
    let mut asked = start_wasm(&body, &small_limits());
    let mut unasked = start_wasm(&body, &small_limits());
    for index in 2..40u64 {
        let command: &[u8] = [&b"a1"[..], b"g", b"e2", b"x", b"u", b"r-"][index as usize % 6];
        asked.count_pages();
        unasked.count_pages();
        for (told, _) in TOLD {
            asked.classify(at(index), told).unwrap();
        }
        let call = asked.apply(at(index), command).unwrap();
        assert_eq!(call, unasked.apply(at(index), command).unwrap());
        assert_eq!(asked.state(), unasked.state());
    }
    let (one, two) = (asked.effort(), unasked.effort());
    assert_eq!((one.undos, one.repeated_commands), (two.undos, two.repeated_commands));
    assert_eq!(asked.digest().unwrap().digest, unasked.digest().unwrap().digest);
}

#[test]
fn it_has_the_fuel_of_a_query_and_the_context_of_the_command() {
    let body = scribe_with_classes();
    let limits = Limits { query_fuel: 5_000, ..small_limits() };
    let mut fsm = start_wasm(&body, &limits);
    assert_eq!(fsm.classify(at(2), b"l").unwrap().fuel_used, 5_000);
    assert_eq!(fsm.apply(at(2), b"l").unwrap().fuel_used, 1_000_000);
    let here = behind(at(9), 3);
    let told = ok(fsm.classify(here, b"t").unwrap());
    assert_eq!(told, ok(fsm.apply(here, b"t").unwrap()));
    // A stream of its own.
    let random = ok(fsm.classify(here, b"x").unwrap());
    assert_eq!(random, ok(fsm.classify(here, b"x").unwrap()));
    for other in [fsm.apply(here, b"x"), Ok(fsm.query(here, b"x").unwrap())] {
        assert_ne!(random, ok(other.unwrap()));
    }
    assert_ne!(random, ok(fsm.classify(at(9), b"x").unwrap()));
    let too_long = fsm.classify(here, &[b'a'; 4097]).unwrap();
    assert_eq!(fsm.apply(here, &[b'a'; 4097]).unwrap(), too_long);
    let GuestResult::Rejected(reason) = too_long.result else { panic!("it is too long") };
    assert!(String::from_utf8(reason).unwrap().contains("4097 bytes; the limit is 4096"));
}

#[test]
fn a_module_without_the_export_has_no_classes_and_one_of_another_type_is_refused() {
    let mut fsm = scribe();
    assert!(!fsm.has_classes());
    assert_eq!(fsm.classify(at(1), b"ktransfer").unwrap(), Call::nothing());
    let report = |body: &str| check_module(&wasm(body), &small_limits());
    assert!(!report(SCRIBE).unwrap().has_classes);
    assert!(report(&scribe_with_classes()).unwrap().has_classes);
    for export in [
        r#"(func (export "classify") (result i32) (i32.const 0))"#,
        r#"(func (export "classify") (param i32))"#,
        r#"(global (export "classify") i32 (i32.const 0))"#,
    ] {
        let error = report(&format!("{SCRIBE} {export}")).unwrap_err();
        let CheckError::ExportSignature { name, expected, .. } = error else { panic!("{error}") };
        assert_eq!((&*name, &*expected), ("classify", "(i32) -> (i32)"));
    }
}

/// In a window: answers what lies behind the first byte of its input as the class, and appends it.
const WINDOWED: &str = r#"
  (import "raft_fsm_v1" "window" (func $window (result i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 2)
  (global (export "raft_fsm_window") i32 (i32.const 65000))
  (func $do (param $len i32) (result i32)
    (if (i32.ne (call $window) (local.get $len)) (then (unreachable)))
    (memory.copy (i32.const 0) (i32.const 65008) (local.get $len))
    (i32.store (i32.const 65000) (i32.const 1))
    (i32.store (i32.const 65004) (i32.sub (local.get $len) (i32.const 1)))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $do (local.get 0)))
  (func (export "classify") (param i32) (result i32) (call $do (local.get 0)))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0))"#;

fn a_command_is_classified_through_the_window_too() {
    let module = wat::parse_str(format!("(module {WINDOWED})")).unwrap();
    let mut fsm = loader().start(&module, &small_limits(), Some(at(1))).unwrap().unwrap();
    for command in ["1deposit", "2transfer", "3"] {
        let state = fsm.state();
        let call = fsm.classify(at(2), command.as_bytes()).unwrap();
        let class = Some(&command[1..]).filter(|class| !class.is_empty());
        assert_eq!(call.class(), class);
        assert_eq!(fsm.state(), state);
        assert_eq!(fsm.apply(at(2), command.as_bytes()).unwrap(), call);
    }
}

/// Names the actor: the command's first byte is how much is asked for, and all that was written is told
/// behind the length. `!` asks far away, `*` for more than there is memory, `0` for nothing at nowhere.
const NAMER: &str = r#"
  (memory (export "memory") 2)
  (func $ask (result i32) (local $cap i32)
    (memory.fill (i32.const 0) (i32.const 46) (i32.const 100))
    (local.set $cap (i32.const 64))
    (if (call $take) (then (local.set $cap (i32.load8_u (i32.const 1024)))))
    (if (i32.eq (local.get $cap) (i32.const 33)) (then
      (drop (call $actor (i32.const 0x20000) (i32.const 1)))))
    (if (i32.eq (local.get $cap) (i32.const 42)) (then
      (drop (call $actor (i32.const 0) (i32.const 0x20001)))))
    (if (i32.eq (local.get $cap) (i32.const 48)) (then
      (i32.store (i32.const 512) (call $actor (i32.const -1) (i32.const 0)))
      (call $write (i32.const 512) (i32.const 1))
      (return (i32.const 0))))
    (i32.store (i32.const 512) (call $actor (i32.const 0) (local.get $cap)))
    (call $write (i32.const 512) (i32.const 1))
    (call $write (i32.const 0) (i32.const 66))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $ask))
  (func (export "query") (param i32) (result i32) (call $ask))
  (func (export "classify") (param i32) (result i32) (call $ask))
  (func (export "init") (result i32)
    (if (call $actor (i32.const 0) (i32.const 64)) (then (unreachable)))
    (i32.const 0))
  (func (export "snapshot") (result i32) (call $ask))
  (func (export "restore") (param i32) (result i32)
    (if (call $actor (i32.const 0) (i32.const 64)) (then (unreachable)))
    (i32.const 0))"#;

fn namer() -> WasmFsm {
    let import = r#"(import "raft_fsm_v1" "actor" (func $actor (param i32 i32) (result i32)))"#;
    let module = wat::parse_str(format!("(module {import} {PRELUDE} {NAMER})")).unwrap();
    loader().start(&module, &small_limits(), Some(at(1))).unwrap().unwrap()
}

fn given_by(context: Context, name: &str) -> Context {
    Context { actor: name.parse().unwrap(), ..context }
}

/// A length, and a name with dots behind it.
fn named(len: u8, name: &str) -> Vec<u8> {
    [&[len], format!("{name:.<66}").as_bytes()].concat()
}

#[test]
fn a_command_knows_who_gave_it_and_other_calls_know_nobody() {
    let mut fsm = namer();
    let alice = given_by(at(2), "alice@example.org");
    ok(fsm.init(alice).unwrap());
    assert_eq!(ok(fsm.apply(alice, b"").unwrap()), named(17, "alice@example.org"));
    assert_eq!(ok(fsm.classify(alice, b"").unwrap()), named(17, "alice@example.org"));
    let longest = "x".repeat(64);
    assert_eq!(ok(fsm.apply(given_by(at(3), &longest), b"").unwrap()), named(64, &longest));
    for nobody in [ok(fsm.query(alice, b"").unwrap()), ok(fsm.snapshot(alice).unwrap())] {
        assert_eq!(nobody, named(0, ""));
    }
    assert_eq!(ok(fsm.apply(at(3), b"").unwrap()), named(0, ""));
    ok(fsm.restore(alice, b"").unwrap());
}

#[test]
fn as_much_of_a_name_is_copied_as_is_asked_for() {
    let mut fsm = namer();
    let alice = given_by(at(2), "alice");
    for (cap, copied) in [(1, "a"), (4, "alic"), (5, "alice"), (6, "alice"), (99, "alice")] {
        let call = fsm.apply(alice, &[cap]).unwrap();
        assert_eq!(ok(call), named(5, copied), "{cap}");
    }
    assert_eq!(ok(fsm.apply(alice, b"0").unwrap()), [5]);
    for beyond in [b"!", b"*"] {
        let state = fsm.state();
        assert_eq!(trap(fsm.apply(alice, beyond).unwrap()), TrapKind::BadHostCall);
        assert_eq!(fsm.state(), state);
        assert_eq!(trap(fsm.apply(at(2), beyond).unwrap()), TrapKind::BadHostCall);
    }
    // Part of the engine profile: a call, and each byte that is copied.
    let mut fuel = |context, cap| fsm.apply(context, &[cap]).unwrap().fuel_used;
    let nobody = fuel(at(2), 9);
    assert_eq!(fuel(alice, 9), nobody + 5);
    assert_eq!(fuel(alice, 3), nobody + 3);
}

fn a_repeated_command_knows_who_gave_it() {
    let mut fsm = namer();
    let mut straight = namer();
    for (index, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let context = given_by(at(index as u64 + 2), name);
        let call = straight.apply(context, b"").unwrap();
        assert_eq!(fsm.apply(context, b"").unwrap(), call);
        // Goes back, and repeats the commands since the checkpoint.
        trap(fsm.apply(given_by(context, "mallory"), b"!").unwrap());
        assert_eq!(fsm.state(), straight.state());
    }
    assert!(fsm.effort().undos >= 3);
}

on_each_backend! {
    a_command_is_classified_and_the_instance_stays_as_it_was
    a_classification_follows_growth_and_its_own_is_undone
    every_replica_classifies_alike_whatever_it_did_before
    commands_go_as_they_do_without_classifications
    a_command_is_classified_through_the_window_too
    a_repeated_command_knows_who_gave_it
}
