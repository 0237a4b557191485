//! One module for each kind of defect: one message, which names what is wrong and what to do.

use super::super::hints;
use super::*;
use crate::wasm::CheckError;

/// What a module needs, unless the text exports the name itself.
const NEEDED: [(&str, &str); 5] = [
    ("raft_fsm_abi_v1", r#"(func (export "raft_fsm_abi_v1"))"#),
    ("memory", r#"(memory (export "memory") 1)"#),
    ("apply", r#"(func (export "apply") (param i32) (result i32) (i32.const 0))"#),
    ("snapshot", r#"(func (export "snapshot") (result i32) (i32.const 0))"#),
    ("restore", r#"(func (export "restore") (param i32) (result i32) (i32.const 0))"#),
];

/// A module of these fields and what else it needs, but for one name.
fn module_without(left_out: &str, fields: &str) -> Vec<u8> {
    let needed = NEEDED
        .iter()
        .filter(|(name, _)| *name != left_out && !fields.contains(&format!(r#"(export "{name}""#)));
    let needed: String = needed.map(|(_, field)| *field).collect();
    wat::parse_str(format!("(module {fields} {needed})")).unwrap()
}

fn module(fields: &str) -> Vec<u8> {
    module_without("", fields)
}

/// The reason of a refusal; it is one line.
fn refused(module: &[u8], limits: Limits, what: &str) -> String {
    let report = run(module, &Options { limits, ..Options::default() }).unwrap();
    assert!(!report.is_fit(), "{what} is fit");
    let reason = report.refused.unwrap_or_else(|| panic!("{what} is not refused"));
    assert!(!reason.contains('\n'), "{what}: more than one line: {reason}");
    reason
}

#[test]
fn each_defect_that_is_seen_before_it_runs_is_named_with_what_to_do() {
    let sound = module("");
    let globals = "(global (mut i32) (i32.const 0))".repeat(5_000);
    let nested = format!("(func {} {})", "(loop ".repeat(100), ")".repeat(100));
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("a text", b"(module)".to_vec(), "not a WebAssembly binary", "give the .wasm file"),
        (
            "a component",
            wat::parse_str("(component)").unwrap(),
            "WebAssembly component",
            "build a core module, not a component",
        ),
        ("half a file", sound[..sound.len() / 2].to_vec(), "truncated", "build or copy the file"),
        ("half a header", sound[..6].to_vec(), "truncated", "build or copy the file"),
        (
            "garbage",
            [&sound[..8], &[0x50, 0x01, 0x00]].concat(),
            "the module is malformed",
            "build the module again",
        ),
        (
            "threads",
            module(r#"(memory (export "memory") 1 1 shared)"#),
            "threads",
            "switch the feature off in the compiler",
        ),
        (
            "exceptions",
            module("(tag $e) (func (throw $e))"),
            "exceptions",
            "switch the feature off in the compiler",
        ),
        (
            "no marker",
            module_without("raft_fsm_abi_v1", ""),
            "does not say which guest ABI",
            "export an empty function `raft_fsm_abi_v1`",
        ),
        (
            "a marker that is no function",
            module(r#"(global (export "raft_fsm_abi_v1") i32 (i32.const 1))"#),
            "must be a function",
            "export an empty function `raft_fsm_abi_v1`",
        ),
        (
            "another ABI",
            module_without("raft_fsm_abi_v1", r#"(func (export "raft_fsm_abi_v2"))"#),
            "`raft_fsm_abi_v2`",
            "build with the SDK of this version",
        ),
        (
            "a foreign import",
            module(r#"(import "env" "now" (func (result i64)))"#),
            "`env.now`",
            "import only what guest-sdk/ABI.md names",
        ),
        (
            "a memory from outside",
            module_without("memory", r#"(import "env" "memory" (memory 1))"#),
            "imports the memory `env.memory`",
            "export it as `memory` (no --import-memory)",
        ),
        (
            "an import of another type",
            module(r#"(import "raft_fsm_v1" "write" (func (param i64)))"#),
            "`raft_fsm_v1.write` is declared as (i64) -> ()",
            "with the types given there",
        ),
        (
            "a missing export",
            module_without("restore", ""),
            "required function `restore`",
            "export it with this type",
        ),
        (
            "an export of another type",
            module(r#"(func (export "snapshot") (param i32) (result i32) (i32.const 0))"#),
            "`snapshot` is (i32) -> (i32); it must be () -> (i32)",
            "export it with this type",
        ),
        (
            "no memory",
            module_without("memory", ""),
            "must define one linear memory",
            "export it as `memory`; see guest-sdk/ABI.md, section 1",
        ),
        (
            "a large memory",
            module(r#"(memory (export "memory") 65536)"#),
            "starts with 4294967296 bytes",
            "let the memory start smaller and grow, or raise",
        ),
        (
            "a large table",
            module("(table 2000000 funcref)"),
            "2000000 elements",
            "keep state in linear memory",
        ),
        ("many globals", module(&globals), "5000 mutable globals", "keep state in linear memory"),
        (
            "many functions",
            module(&"(func)".repeat(100_000)),
            "100004 functions",
            "split generated code",
        ),
        ("deep loops", module(&nested), "too complex to compile", "split generated code"),
        (
            "state in a table",
            module("(table 1 funcref) (func (table.set (i32.const 0) (ref.null func)))"),
            "`table.set` in function",
            "keep state in linear memory and globals",
        ),
    ];
    for (what, module, says, fix) in cases {
        let reason = refused(&module, Limits::default(), what);
        assert!(reason.contains(says) && reason.contains(fix), "{what}: {reason}");
    }
    let small = Limits { module_max_bytes: 100, ..Limits::default() };
    let reason = refused(&sound, small, "a large module");
    assert!(
        reason.contains("the cluster's limit is 100; build an optimised, stripped"),
        "{reason}"
    );
    let all = CheckError::ModuleTooComplex { reason: String::new() };
    assert!(hints::hint(&all).contains("split generated code"));
}

#[test]
fn a_module_that_cannot_start_is_told_that_nothing_may_fail_then() {
    let trap = "(start $s) (func $s unreachable)";
    let endless = r#"(func (export "_initialize") (loop $again (br $again)))"#;
    let exit = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (func (export "_start") (call $exit (i32.const 0)))"#;
    let outside = r#"(data (i32.const 65535) "too long")"#;
    for (what, fields, says) in [
        ("a start function that traps", trap, "executed `unreachable`"),
        ("an endless initialiser", endless, "ran out of fuel"),
        ("a program", exit, "called proc_exit"),
        ("a segment out of bounds", outside, "it cannot start"),
    ] {
        let limits = Limits { init_fuel: 1_000_000, ..Limits::default() };
        let reason = refused(&module(fields), limits, what);
        assert!(reason.contains(says) && reason.contains("must return"), "{what}: {reason}");
    }
    let init = |body| format!(r#"(func (export "init") (result i32) {body})"#);
    for (body, says) in [("(i32.const 1)", "rejected"), ("unreachable", "trapped unreachable")] {
        let reason = refused(&module(&init(body)), Limits::default(), says);
        assert!(reason.contains("`init` ended"), "{reason}");
        assert!(reason.contains(says) && reason.contains("must return 0"), "{reason}");
    }
}

#[test]
fn a_trap_that_a_limit_made_says_how_to_stay_within_it() {
    let limits = Limits { apply_fuel: 100_000, ..Limits::default() };
    for (defect, fix) in [
        ("(loop $again (br $again))", "do less in one call, or raise"),
        ("(return (i32.const -1))", "return 0, or a positive number to reject"),
        ("(call $write (i32.const -1) (i32.const 1))", "see guest-sdk/ABI.md, section 3"),
    ] {
        let options = Options { limits: limits.clone(), ..options() };
        let report = run(&guest("accept", defect), &options).unwrap();
        let failures = told(&report, Weight::Failure);
        assert!(failures.iter().any(|failure| failure.contains(fix)), "{defect}: {failures:?}");
    }
}
