//! The committed modules, and the example of the ABI document, run under a host of a hundred
//! lines that was written from the ABI document alone.

use std::collections::BTreeMap;

use raft_fsm_abi::{
    ABI_MARKER, EXPORT_MEMORY, EXPORT_WINDOW, EXPORTS, Function, IMPORT_MODULE, IMPORT_WINDOW,
    IMPORTS, WINDOW_BYTES, WINDOW_HEADER_BYTES, WINDOW_INPUT_MAX_BYTES,
};
use raft_host_plugins::{PLUGINS, root};
use wasmparser::{ExternalKind, FuncType, Parser, Payload, TypeRef, ValType};
use wasmtime::{AsContextMut, Caller, Engine, Extern, Instance, Linker, Module, Store};

/// What the imports work on.
#[derive(Default)]
struct World {
    time_ms: u64,
    input: Vec<u8>,
    /// Part of `input` that was read.
    position: usize,
    in_window: u32,
    output: Vec<u8>,
    log: Vec<String>,
}

struct Guest {
    store: Store<World>,
    instance: Instance,
    /// Address of its window, if it has one.
    window: Option<usize>,
}

fn bytes<'c>(
    caller: &'c mut Caller<'_, World>,
    ptr: u32,
    len: u32,
) -> (&'c mut [u8], &'c mut World) {
    let Some(Extern::Memory(memory)) = caller.get_export(EXPORT_MEMORY) else {
        panic!("a guest exports its memory");
    };
    let (data, world) = memory.data_and_store_mut(caller.as_context_mut());
    (&mut data[ptr as usize..][..len as usize], world)
}

impl Guest {
    fn new(module: &[u8]) -> Guest {
        let engine = Engine::default();
        let module = Module::new(&engine, module).unwrap();
        let has_window = module.imports().any(|import| import.name() == IMPORT_WINDOW);
        let mut linker = Linker::<World>::new(&engine);
        linker
            .func_wrap(
                IMPORT_MODULE,
                "read",
                |mut caller: Caller<'_, World>, ptr: u32, cap: u32| {
                    let left = caller.data().input.len() - caller.data().position;
                    let len = left.min(cap as usize);
                    let (out, world) = bytes(&mut caller, ptr, len as u32);
                    out.copy_from_slice(&world.input[world.position..][..len]);
                    world.position += len;
                    len as u32
                },
            )
            .unwrap()
            .func_wrap(
                IMPORT_MODULE,
                "write",
                |mut caller: Caller<'_, World>, ptr: u32, len: u32| {
                    let (written, world) = bytes(&mut caller, ptr, len);
                    world.output.extend_from_slice(written);
                },
            )
            .unwrap()
            .func_wrap(IMPORT_MODULE, IMPORT_WINDOW, |caller: Caller<'_, World>| {
                caller.data().in_window
            })
            .unwrap()
            .func_wrap(IMPORT_MODULE, "index", || 7u64)
            .unwrap()
            .func_wrap(IMPORT_MODULE, "time_ms", |caller: Caller<'_, World>| caller.data().time_ms)
            .unwrap()
            .func_wrap(
                IMPORT_MODULE,
                "log",
                |mut caller: Caller<'_, World>, _: i32, ptr: u32, len: u32| {
                    let (line, world) = bytes(&mut caller, ptr, len);
                    world.log.push(String::from_utf8_lossy(line).into_owned());
                },
            )
            .unwrap();
        let mut store = Store::new(&engine, World { time_ms: 1000, ..World::default() });
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let window = has_window.then(|| {
            let global = instance.get_global(&mut store, EXPORT_WINDOW).unwrap();
            global.get(&mut store).unwrap_i32() as usize
        });
        let mut guest = Guest { store, instance, window };
        if let Ok(initialize) =
            guest.instance.get_typed_func::<(), ()>(&mut guest.store, "_initialize")
        {
            initialize.call(&mut guest.store, ()).unwrap();
        }
        guest
    }

    fn call(&mut self, name: &str, input: &[u8]) -> Result<Vec<u8>, String> {
        let world = self.store.data_mut();
        world.input = input.to_vec();
        world.position = 0;
        world.in_window = 0;
        let window = self.window.filter(|_| matches!(name, "apply" | "query" | "classify"));
        if let Some(window) = window {
            let short = if input.len() <= WINDOW_INPUT_MAX_BYTES { input } else { &[] };
            world.position = short.len();
            world.in_window = short.len() as u32;
            let (header, rest) = self.window(window).split_at_mut(WINDOW_HEADER_BYTES);
            header.fill(0);
            rest[..short.len()].copy_from_slice(short);
        }
        let status = if matches!(name, "snapshot" | "init" | "state_version") {
            let export = self.instance.get_typed_func::<(), i32>(&mut self.store, name).unwrap();
            export.call(&mut self.store, ()).unwrap()
        } else {
            let export = self.instance.get_typed_func::<u32, i32>(&mut self.store, name).unwrap();
            export.call(&mut self.store, input.len() as u32).unwrap()
        };
        if let Some(window) = window {
            let number = |at: &[u8]| u32::from_le_bytes(at.try_into().unwrap()) as usize;
            let header = &self.window(window)[..WINDOW_HEADER_BYTES];
            let (ptr, len) = (number(&header[..4]), number(&header[4..]));
            let memory = self.instance.get_memory(&mut self.store, EXPORT_MEMORY).unwrap();
            let (memory, world) = memory.data_and_store_mut(&mut self.store);
            world.output.extend_from_slice(&memory[ptr..ptr + len]);
        }
        let output = std::mem::take(&mut self.store.data_mut().output);
        if status == 0 { Ok(output) } else { Err(String::from_utf8(output).unwrap()) }
    }

    fn window(&mut self, at: usize) -> &mut [u8] {
        let memory = self.instance.get_memory(&mut self.store, EXPORT_MEMORY).unwrap();
        &mut memory.data_mut(&mut self.store)[at..at + WINDOW_BYTES]
    }

    fn text(&mut self, name: &str, input: &str) -> Result<String, String> {
        self.call(name, input.as_bytes()).map(|output| String::from_utf8(output).unwrap())
    }
}

fn committed(module: &str) -> Vec<u8> {
    std::fs::read(root().join("plugins").join(module)).unwrap()
}

fn example() -> Vec<u8> {
    let document = std::fs::read_to_string(root().join("guest-sdk/ABI.md")).unwrap();
    let (_, example) = document.split_once("```wat\n").unwrap();
    wat::parse_str(example.split_once("```").unwrap().0).unwrap()
}

/// Runs commands and queries; `Err` is a rejection.
#[track_caller]
fn check(guest: &mut Guest, name: &str, cases: &[(&str, Result<&str, &str>)]) {
    for (input, expected) in cases {
        let answer = guest.text(name, input);
        assert_eq!(answer.as_deref().map_err(|reason| &**reason), *expected, "{name} {input}");
    }
}

fn restored(guest: &mut Guest, module: &[u8]) -> Guest {
    let snapshot = guest.call("snapshot", b"").unwrap();
    let mut copy = Guest::new(module);
    assert_eq!(copy.call("restore", &snapshot), Ok(Vec::new()));
    assert_eq!(copy.call("snapshot", b""), Ok(snapshot));
    copy
}

#[test]
fn modules_import_and_export_what_the_abi_has_and_nothing_of_wasi() {
    let mut modules: Vec<_> = PLUGINS
        .iter()
        // Go's runtime asks the system, which a cluster answers: see section 9 of the document.
        .filter(|plugin| plugin.source.language() != "go")
        .map(|plugin| std::fs::read(root().join(plugin.module)).unwrap())
        .collect();
    modules.push(example());
    for module in modules {
        let mut types: Vec<FuncType> = Vec::new();
        let mut functions: Vec<u32> = Vec::new();
        let mut exports = BTreeMap::new();
        for payload in Parser::new(0).parse_all(&module) {
            match payload.unwrap() {
                Payload::TypeSection(section) => {
                    types = section.into_iter_err_on_gc_types().map(Result::unwrap).collect();
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.unwrap();
                        assert_eq!(import.module, IMPORT_MODULE, "{}", import.name);
                        let TypeRef::Func(type_index) = import.ty else {
                            panic!("{} is no function", import.name);
                        };
                        assert_type(&IMPORTS, import.name, &types[type_index as usize]);
                        functions.push(type_index);
                    }
                }
                Payload::FunctionSection(section) => {
                    functions.extend(section.into_iter().map(Result::unwrap));
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.unwrap();
                        exports.insert(export.name, (export.kind, export.index as usize));
                    }
                }
                _ => {}
            }
        }
        assert_eq!(exports[EXPORT_MEMORY].0, ExternalKind::Memory);
        assert_eq!(exports[ABI_MARKER].0, ExternalKind::Func);
        for function in EXPORTS {
            match exports.get(function.name) {
                None => assert!(!function.required, "{} is missing", function.name),
                Some((_, index)) => {
                    assert_type(&EXPORTS, function.name, &types[functions[*index] as usize]);
                }
            }
        }
    }
}

#[track_caller]
fn assert_type(known: &[Function], name: &str, actual: &FuncType) {
    let function = known.iter().find(|function| function.name == name).expect(name);
    let wasm = |types: &[raft_fsm_abi::ValueType]| -> Vec<ValType> {
        types
            .iter()
            .map(|value| match value {
                raft_fsm_abi::ValueType::I32 => ValType::I32,
                raft_fsm_abi::ValueType::I64 => ValType::I64,
            })
            .collect()
    };
    assert_eq!(actual.params(), wasm(function.params), "{name}");
    assert_eq!(actual.results(), wasm(function.results), "{name}");
}

#[test]
fn nothing_of_the_machine_that_built_a_module_is_in_it() {
    for plugin in PLUGINS {
        let module = std::fs::read(root().join(plugin.module)).unwrap();
        let text = String::from_utf8_lossy(&module);
        for trace in ["/home/", "/root/", "/usr/", ".cargo", "registry/src", "/rustup/"] {
            assert!(!text.contains(trace), "{} contains {trace}", plugin.module);
        }
    }
}

#[test]
fn the_example_of_the_abi_document_works() {
    let mut guest = Guest::new(&example());
    check(
        &mut guest,
        "apply",
        &[("first", Ok("")), ("", Err("a command must have 1 to 65536 bytes")), ("second", Ok(""))],
    );
    check(&mut guest, "query", &[("", Ok("second"))]);
    check(&mut restored(&mut guest, &example()), "query", &[("", Ok("second"))]);
    restored(&mut Guest::new(&example()), &example());
}

#[test]
fn the_counter_counts_and_refuses_nonsense() {
    const BAD: Result<&str, &str> =
        Err("a command is a decimal number of at most 18 digits, such as 5 or -3");
    let module = committed("counter/counter.wasm");
    let mut guest = Guest::new(&module);
    check(&mut guest, "query", &[("", Ok("0")), ("?", Err("a query of the counter is empty"))]);
    check(
        &mut guest,
        "apply",
        &[
            ("5", Ok("5")),
            ("-8", Ok("-3")),
            ("0", Ok("-3")),
            ("-0", Ok("-3")),
            ("000000000000000003", Ok("0")),
            ("-999999999999999999", Ok("-999999999999999999")),
            ("", BAD),
            ("-", BAD),
            ("+1", BAD),
            ("1 ", BAD),
            ("--1", BAD),
            ("1234567890123456789", BAD),
            ("-1234567890123456789", BAD),
            (&"1".repeat(100_000), BAD),
        ],
    );
    check(&mut restored(&mut guest, &module), "query", &[("", Ok("-999999999999999999"))]);
    let foreign = Err("this is no snapshot of the counter plugin".to_owned());
    for snapshot in [&b""[..], b"CNT1", b"CNT2\0\0\0\0\0\0\0\0", b"CNT1\0\0\0\0\0\0\0\0\0"] {
        assert_eq!(guest.call("restore", snapshot), foreign);
    }
    for (edge, step) in [(i64::MAX, "1"), (i64::MIN, "-1")] {
        let snapshot = [&b"CNT1"[..], &edge.to_le_bytes()].concat();
        guest.call("restore", &snapshot).unwrap();
        check(&mut guest, "apply", &[(step, Err("the counter would overflow"))]);
        check(&mut guest, "query", &[("", Ok(&edge.to_string()))]);
    }
}

#[test]
fn kv_stores_and_kv_v2_takes_over() {
    let module = committed("kv/kv.wasm");
    let mut guest = Guest::new(&module);
    assert_eq!(guest.call("init", b""), Ok(Vec::new()));
    for n in 0..1000 {
        let command = format!(r#"{{"op":"set","key":"key {n:03}","value":"{n}\n"}}"#);
        assert_eq!(guest.text("apply", &command).as_deref(), Ok(r#"{"ok":true}"#));
    }
    let get = r#"{"op":"get","key":"key 007"}"#;
    check(&mut guest, "query", &[(get, Ok(r#"{"value":"7\n"}"#))]);
    check(&mut guest, "apply", &[("", Err("the command is empty; it must be JSON"))]);
    let long = "v".repeat(1 << 20);
    let set = format!(r#"{{"op":"set","key":"long","value":"{long}"}}"#);
    check(&mut guest, "apply", &[(&set, Ok(r#"{"ok":true}"#))]);
    restored(&mut guest, &module);
    check(
        &mut guest,
        "restores",
        &[("kv/1", Ok("")), ("kv/2", Err("it restores kv/1, and this is kv/2"))],
    );

    let mut second = restored(&mut guest, &committed("kv-v2/kv_v2.wasm"));
    let expire = r#"{"op":"expire","key":"key 007","ttl_ms":500}"#;
    check(&mut second, "apply", &[(expire, Ok(r#"{"ok":true}"#))]);
    check(&mut second, "query", &[(get, Ok(r#"{"value":"7\n","expires_at_ms":1500}"#))]);
    second.store.data_mut().time_ms = 1500;
    check(&mut second, "query", &[(get, Ok(r#"{"value":null}"#))]);
    let version = second.text("state_version", "").unwrap();
    check(&mut second, "restores", &[("kv/1", Ok("")), (&version, Ok(""))]);
    let too_new = second.call("snapshot", b"").unwrap();
    let refused = "the snapshot has format version 2, and this module knows 1 to 1".to_owned();
    assert_eq!(guest.call("restore", &too_new), Err(refused));
    check(&mut guest, "query", &[(r#"{"op":"count"}"#, Ok(r#"{"count":1001}"#))]);
}
