//! What is refused at load, and with which words.

use super::*;
use crate::wasm::{CheckError, check_module};

fn refusal(module: &[u8]) -> CheckError {
    check_module(module, &small_limits()).unwrap_err()
}

/// The refusal of a guest that is sound but for `more`.
fn refused_with(more: &str) -> CheckError {
    refusal(&wasm(&format!("{SCRIBE} {more}")))
}

fn text(module: &[u8]) -> String {
    refusal(module).to_string()
}

#[test]
fn a_sound_module_is_described() {
    let module = wasm(&format!("{SCRIBE} (start $begin) (func $begin)"));
    let report = check_module(&module, &small_limits()).unwrap();
    assert!(report.has_query && report.has_init);
    assert_eq!(report.memory_min_bytes, 2 << 16);
    assert_eq!(report.memory_max_bytes, None);
    assert_eq!(report.mutable_globals, [0, 1]);
    assert_eq!(report.initializers, ["the start section"]);
    assert_eq!(report.imports[0], "raft_fsm_v1.read");
}

#[test]
fn what_is_no_core_module_is_told_apart() {
    assert_eq!(refusal(b""), CheckError::NotWasm);
    assert_eq!(refusal(b"(module)"), CheckError::NotWasm);
    assert_eq!(refusal(b"\0asm\x0d\0\x01\0"), CheckError::Component);
    assert!(matches!(refusal(b"\0as"), CheckError::Truncated(_)));
    let module = wasm(SCRIBE);
    assert!(matches!(refusal(&module[..module.len() / 2]), CheckError::Truncated(_)));
    let mut damaged = module.clone();
    damaged[8] = 0x55;
    assert!(matches!(refusal(&damaged), CheckError::Malformed(_)), "{:?}", refusal(&damaged));
    let limits = Limits { module_max_bytes: 10, ..small_limits() };
    let size = module.len() as u64;
    assert_eq!(check_module(&module, &limits), Err(CheckError::TooLarge { size, max: 10 }));
}

#[test]
fn features_that_replicas_could_disagree_on_are_off() {
    let cases = [
        r#"(memory 1 1 shared)"#,
        r#"(func (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))"#,
        r#"(memory $second 1)"#,
        r#"(type (struct))"#,
        r#"(tag $t)"#,
    ];
    for case in cases {
        let error = refused_with(case);
        assert!(matches!(error, CheckError::UnsupportedFeature(_)), "{case}: {error}");
    }
    let module = wat::parse_str(r#"(module (memory (export "memory") i64 1))"#).unwrap();
    assert!(matches!(refusal(&module), CheckError::UnsupportedFeature(_)));
}

#[test]
fn the_abi_marker_decides_about_the_version() {
    let module = |text: String| wat::parse_str(text).unwrap();
    let without = PRELUDE.replace(r#"(func (export "raft_fsm_abi_v1"))"#, "");
    assert_eq!(refusal(&module(format!("(module {without} {SCRIBE})"))), CheckError::MarkerMissing);
    let other = PRELUDE.replace("raft_fsm_abi_v1", "raft_fsm_abi_v2");
    let error = refusal(&module(format!("(module {other} {SCRIBE})")));
    assert_eq!(error, CheckError::OtherAbi { found: "raft_fsm_abi_v2".to_owned() });
    let global = PRELUDE.replace(
        r#"(func (export "raft_fsm_abi_v1"))"#,
        r#"(global (export "raft_fsm_abi_v1") i32 (i32.const 0))"#,
    );
    let error = refusal(&module(format!("(module {global} {SCRIBE})")));
    assert_eq!(error, CheckError::MarkerNotAFunction);
}

/// A bound that came later must not undo an activation in the log.
#[test]
fn what_a_cluster_has_already_is_loaded_although_it_would_not_be_taken_today() {
    let module = wasm(&format!("{SCRIBE} (func (param {}))", "i32 ".repeat(300)));
    let loader = WasmLoader::new(None).unwrap();
    let refused = loader.check(&module, &small_limits()).unwrap().unwrap_err();
    assert!(refused.to_string().contains("a type of 300 parameters"), "{refused}");
    assert!(loader.instantiate(&module, &small_limits(), at(1)).unwrap().is_ok());
}

/// Saying why a module is malformed takes the validator, and that must not see what the bounds
/// would have refused.
#[test]
fn a_module_with_features_that_are_off_is_weighed_as_well() {
    let results = "i32 ".repeat(1_000);
    let calls = "(call $f)".repeat(100_000);
    let module = format!(
        "(module (type (struct)) (type $t (func (result {results}))) \
         (func $f (type $t) unreachable) (func {calls} unreachable))"
    );
    let error = refusal(&wat::parse_str(module).unwrap());
    assert!(error.to_string().contains("1000 results"), "{error}");
}

#[test]
fn unknown_imports_are_named_with_a_hint() {
    let with =
        |imports: &str| wat::parse_str(format!("(module {imports} {PRELUDE} {SCRIBE})")).unwrap();
    let both = text(&with(r#"(import "env" "abort" (func)) (import "own" "thing" (func))"#));
    assert!(both.contains("`env.abort` (AssemblyScript: build with --use abort=)"), "{both}");
    assert!(both.contains("`own.thing`"), "{both}");
    let cases = [
        (r#"(import "raft_fsm_v1" "sleep" (func))"#, "not part of guest ABI version 1"),
        (r#"(import "raft_fsm_v2" "read" (func))"#, "another version of the guest ABI"),
        (r#"(import "wasi_snapshot_preview1" "fork" (func))"#, "not part of WASI preview 1"),
        (r#"(import "wasi_unstable" "fd_write" (func))"#, "WASI preview 0"),
        (r#"(import "env" "memory" (memory 1))"#, "imports the memory `env.memory`"),
        (r#"(import "env" "table" (table 1 funcref))"#, "imports the table `env.table`"),
        (r#"(import "env" "base" (global i32))"#, "imports the global `env.base`"),
        (
            r#"(import "raft_fsm_v1" "index" (func (result i32)))"#,
            "`raft_fsm_v1.index` is declared as () -> (i32); it is () -> (i64)",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_close" (func (result i32)))"#,
            "`wasi_snapshot_preview1.fd_close` is declared as () -> (i32); it is (i32) -> (i32)",
        ),
    ];
    for (import, expected) in cases {
        let module = match import.contains("(memory") {
            // Two memories would be refused for being two.
            true => wat::parse_str(format!("(module {import} {PRELUDE})")).unwrap(),
            false => with(import),
        };
        let found = text(&module);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn required_exports_must_be_there_with_their_signatures() {
    for name in ["apply", "snapshot", "restore"] {
        let body = SCRIBE.replace(&format!(r#"(export "{name}")"#), "");
        let error = refusal(&wasm(&body));
        assert!(matches!(error, CheckError::ExportMissing { name: found, .. } if found == name));
    }
    let body = SCRIBE.replace(r#"(export "init")"#, "");
    let body = format!(r#"{body} (func (export "init") (param i64))"#);
    assert_eq!(text(&wasm(&body)), "the export `init` is (i64) -> (); it must be () -> (i32)");
    let body = SCRIBE.replace(r#"(func (export "query")"#, "(func ");
    let body = format!(r#"{body} (global (export "query") i32 (i32.const 1))"#);
    assert_eq!(
        text(&wasm(&body)),
        "the export `query` is not a function; it must be (i32) -> (i32)"
    );
    let body = SCRIBE.replace(r#"(memory (export "memory") 2)"#, "(memory 2)");
    assert_eq!(refusal(&wasm(&body)), CheckError::Memory("it is not exported".into()));
}

#[test]
fn memory_and_tables_must_fit_the_limits() {
    let body = SCRIBE.replace(r#"(export "memory") 2)"#, r#"(export "memory") 1000)"#);
    let error = refusal(&wasm(&body));
    assert_eq!(error, CheckError::MemoryMinimum { minimum: 65_536_000, max: 8 << 20 });
    // The same module again, under other limits: what is kept does not outlive its limits.
    let loader = WasmLoader::new(None).unwrap();
    let wide = Limits { memory_max_bytes: 1 << 30, ..small_limits() };
    assert!(loader.check(&wasm(&body), &wide).unwrap().is_ok());
    assert!(loader.check(&wasm(&body), &small_limits()).unwrap().is_err());
    assert!(matches!(
        refused_with("(table 2000000 funcref)"),
        CheckError::TablesTooLarge { elements: 2_000_002, .. }
    ));
}

#[test]
fn state_outside_of_memory_and_number_globals_is_named() {
    let cases = [
        ("(func $f (table.set 0 (i32.const 0) (ref.null func)))", "`table.set` in function"),
        (
            "(func $f (drop (table.grow 0 (ref.null func) (i32.const 1))))",
            "`table.grow` in function",
        ),
        (
            "(func $f (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1)))",
            "`table.fill` in function",
        ),
        (
            "(func $f (table.copy 0 0 (i32.const 0) (i32.const 0) (i32.const 1)))",
            "`table.copy` in function",
        ),
        (
            "(elem $e func) (func $f (table.init 0 $e (i32.const 0) (i32.const 0) (i32.const 0)))",
            "`table.init` in function",
        ),
        ("(elem $e func) (func $f (elem.drop $e))", "`elem.drop` in function"),
        (r#"(data $d "x") (func $f (data.drop $d))"#, "`data.drop` in function"),
        ("(global (mut funcref) (ref.null func))", "the mutable reference global 2"),
    ];
    for (more, expected) in cases {
        let error = refused_with(more);
        assert!(matches!(error, CheckError::HiddenState(_)), "{error}");
        let found = error.to_string();
        assert!(found.contains(expected), "{found}");
        assert!(found.contains("(f)") || more.contains("global"), "{found}");
    }
}

#[test]
fn passive_segments_that_are_never_dropped_are_fine_also_after_undo() {
    let body = format!(
        r#"{SCRIBE} (data $text "from a segment")
        (func (export "use") (memory.init $text (i32.const 0) (i32.const 0) (i32.const 4)))"#
    );
    let mut fsm = start(&body);
    trap(fsm.apply(at(1), b"u").unwrap());
}

#[test]
fn active_segments_are_there_from_the_start_and_keep_their_order() {
    // The later ones win; an offset may be calculated; the indices of passive ones stay.
    let body = format!(
        r#"{SCRIBE}
        (data (i32.const 1024) "abcdef")
        (data $passive "xy")
        (data (offset (i32.add (i32.const 1000) (i32.mul (i32.const 13) (i32.const 2)))) "CD")
        (data (i32.const 131072) "")
        (func $s
          (memory.init $passive (i32.const 1024) (i32.const 0) (i32.const 2))
          (call $append (i32.const 6)))
        (start $s)"#
    );
    let mut fsm = start(&body);
    assert_eq!(contents(&mut *fsm), "xyCDef");
    trap(fsm.apply(at(1), b"u").unwrap());
    assert_eq!(contents(&mut *fsm), "xyCDef");
}

#[test]
fn a_segment_out_of_bounds_is_refused_and_offsets_are_constant() {
    let refused = |more: &str| {
        let module = wasm(&format!("{SCRIBE} {more}"));
        let loader = WasmLoader::new(None).unwrap();
        match loader.instantiate(&module, &Limits::default(), at(1)).unwrap() {
            Ok(_) => panic!("{more} is taken"),
            Err(refused) => refused.to_string(),
        }
    };
    for (offset, range) in [(131_069, "131069 to 131073"), (-1, "4294967295 to 4294967299")] {
        let said = refused(&format!(r#"(data (i32.const {offset}) "four")"#));
        let expected =
            format!("a data segment fills bytes {range} of the memory, which has 131072");
        assert!(said.contains(&expected), "{said}");
    }
    // The rewriting relies on it.
    let said = refused(r#"(global $g i32 (i32.const 0)) (data (global.get $g) "x")"#);
    assert!(said.contains("constant expression required"), "{said}");
}

#[test]
fn exports_that_look_like_the_hosts_own_do_not_collide() {
    let body = format!(
        r#"{SCRIBE} (global (export "raft_host:global_0") i32 (i32.const 5))
        (func (export "raft_host::start")) (func $s (call $append (i32.const 0))) (start $s)"#
    );
    let mut fsm = start(&body);
    fsm.apply(at(1), b"a1").unwrap();
    trap(fsm.apply(at(2), b"u").unwrap());
    assert_eq!(contents(&mut *fsm), "a1");
}
