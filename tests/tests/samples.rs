//! Every committed module is one that a cluster would take, and keeps its conformance scripts.

use std::path::PathBuf;
use std::process::{Command, Output};

use raft_host::fsm::{Call, Context, Fsm, GuestResult};
use raft_host::types::{ActorName, ClusterId, Index, ModuleHash, Position};
use raft_host_tests::{hostile, workspace};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
const CONFORMANCE: &str = "guest-sdk/conformance";

fn check(module: &PathBuf, scripts: &[PathBuf]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("check").arg(module);
    for script in scripts {
        command.arg("--script").arg(script);
    }
    command.output().expect("the program starts")
}

fn passes(module: &str, scripts: &[String]) {
    let scripts: Vec<PathBuf> = scripts.iter().map(|script| workspace(script)).collect();
    let output = check(&workspace(module), &scripts);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{module}:\n{stdout}\n{stderr}");
}

fn conformance(name: &str) -> String {
    format!("{CONFORMANCE}/{name}.script")
}

#[test]
fn every_sample_passes_check_and_the_script_for_any_state_machine() {
    let any = conformance("any");
    passes("plugins/counter/counter.wasm", &[any.clone(), conformance("counter")]);
    for folder in ["feature-flags", "job-queue", "kv", "kv-v2", "ledger", "lock", "rate-limiter"] {
        let module = format!("plugins/{folder}/{}.wasm", folder.replace('-', "_"));
        passes(&module, &[any.clone(), format!("plugins/{folder}/check.script")]);
    }
    // The second version does all that the first one does.
    passes("plugins/kv-v2/kv_v2.wasm", &["plugins/kv/check.script".to_owned()]);
}

#[test]
fn every_sdk_does_all_that_the_probe_asks_of_it() {
    for language in ["assemblyscript", "c", "cpp", "go", "rust", "zig"] {
        let module = format!("guest-sdk/{language}/probe/probe.wasm");
        passes(&module, &[conformance("any"), conformance("probe")]);
    }
}

const CONTEXT: Context = Context {
    cluster: ClusterId([5; 16]),
    position: Position { index: Index(2), ordinal: 0 },
    time_ms: 1,
    actor: ActorName::NONE,
};

fn instance(module: &[u8]) -> Box<dyn Fsm> {
    let limits = hostile::limits();
    hostile::loader().instantiate(module, &limits, CONTEXT).expect("the host works").expect("good")
}

fn output(call: Call) -> Vec<u8> {
    match call.result {
        GuestResult::Ok(output) => output,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_sdk_adopts_the_memory_of_another_module() {
    let text = r#"(module
      (memory (export "memory") 2) (data (i32.const 0) "sixteen bytes at the start")
      (global (mut i32) (i32.const -2)) (global i32 (i32.const 7)) (global (mut f64) (f64.const 1.5))
      (func (export "raft_fsm_abi_v1"))
      (func (export "apply") (param i32) (result i32) (i32.const 0))
      (func (export "snapshot") (result i32) (unreachable))
      (func (export "restore") (param i32) (result i32) (unreachable)))"#;
    let module = wat::parse_str(text).expect("it is sound");
    let mut old = instance(&module);
    let image = old.capture().expect("an image");
    let mut expected = ModuleHash::of(&module).0.to_vec();
    expected.extend_from_slice(&(2u64 << 16).to_le_bytes());
    expected.extend_from_slice(b"sixteen bytes at");
    for (ty, bits) in [(0, u128::from(-2i32 as u32)), (3, 1.5f64.to_bits().into())] {
        expected.push(ty);
        expected.extend_from_slice(&bits.to_le_bytes());
    }
    for language in ["assemblyscript", "c", "cpp", "go", "rust", "zig"] {
        let probe = std::fs::read(workspace(&format!("guest-sdk/{language}/probe/probe.wasm")));
        let mut new = instance(&probe.expect("readable"));
        assert!(new.has_take_over(), "{language}");
        output(new.take_over(CONTEXT, &*image).expect("the host works"));
        let state = output(new.query(CONTEXT, b"get").expect("the host works"));
        assert_eq!(state, expected, "{language}");
        let snapshot = output(new.snapshot(CONTEXT).expect("the host works"));
        let c = std::fs::read(workspace("guest-sdk/c/probe/probe.wasm")).expect("readable");
        let mut next = instance(&c);
        output(next.restore(CONTEXT, &snapshot).expect("the host works"));
        assert_eq!(output(next.query(CONTEXT, b"get").expect("the host works")), expected);
    }
}

#[test]
fn a_module_without_the_standard_library_passes_check() {
    let folder = "guest-sdk/rust/no-std";
    let scripts = [conformance("any"), format!("{folder}/check.script")];
    passes(&format!("{folder}/no_std.wasm"), &scripts);
}

#[test]
fn the_complete_guest_of_the_abi_document_passes_check() {
    let document = std::fs::read_to_string(workspace("guest-sdk/ABI.md")).expect("readable");
    let after = document.split("```wat\n").nth(1).expect("section 10 has a guest");
    let text = after.split("```").next().expect("it ends");
    let dir = tempfile::tempdir().expect("a directory");
    let module = dir.path().join("complete.wasm");
    std::fs::write(&module, wat::parse_str(text).expect("it is sound")).expect("written");
    let script = dir.path().join("complete.script");
    let steps = "query\nok\napply hello\nok\nquery\nok hello\nrenew\nquery\nok hello\napply\n\
                 rejected a command must have 1 to 65536 bytes\nquery\nok hello\n";
    std::fs::write(&script, steps).expect("written");
    let output = check(&module, &[script, workspace(&conformance("any"))]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
}

#[test]
fn a_script_that_does_not_hold_is_told_by_file_and_line_and_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("wrong.script");
    std::fs::write(&script, "apply 5\nok 5\napply 1\nok 7\n").expect("written");
    let output = check(&workspace("plugins/counter/counter.wasm"), &[script]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("wrong.script:4"), "{stdout}");
}
