//! Budgets, the sources of determinism, the cache of compiled code and the WASI shim.

use super::*;

#[test]
fn memory_grows_to_the_replicated_limit_and_no_further() {
    let mut fsm = scribe();
    let grown: Vec<i32> = (0..128)
        .map(|_| i32::from_le_bytes(ok(fsm.apply(at(1), b"g").unwrap()).try_into().unwrap()))
        .collect();
    // 8 MiB are 128 pages, of which the module starts with two.
    assert_eq!(grown[..126], (2..128).collect::<Vec<_>>());
    assert_eq!(grown[126..], [-1, -1]);
}

#[test]
fn a_maximum_of_the_modules_own_holds_as_well() {
    let body =
        SCRIBE.replace(r#"(memory (export "memory") 2)"#, r#"(memory (export "memory") 2 3)"#);
    let mut fsm = start(&body);
    assert_eq!(ok(fsm.apply(at(1), b"g").unwrap()), 2i32.to_le_bytes());
    assert_eq!(ok(fsm.apply(at(1), b"g").unwrap()), (-1i32).to_le_bytes());
    let bytes = image(&mut *fsm);
    let mut other = start(&body);
    other.load_image(&mut bytes.as_slice()).unwrap();
    assert_eq!(image(&mut *other), bytes);
}

#[test]
fn an_input_beyond_the_limit_is_rejected_unrun() {
    let mut fsm = scribe();
    let before = image(&mut *fsm);
    let call = fsm.apply(at(1), &[b'a'; 4097]).unwrap();
    let GuestResult::Rejected(reason) = call.result else { panic!("{call:?}") };
    assert_eq!(String::from_utf8(reason).unwrap(), "the command has 4097 bytes; the limit is 4096");
    assert_eq!(image(&mut *fsm), before);
}

#[test]
fn events_are_limited_in_number_and_bytes() {
    let body = SCRIBE.replace(
        "(call $emit (i32.const 1024) (i32.const 1) (i32.const 1024) (local.get $len))",
        "(loop $again (call $emit (i32.const 1024) (i32.const 1) (i32.const 1024) (local.get $len)) \
         (br $again))",
    );
    let limits = Limits { events_max: 10, ..small_limits() };
    let mut fsm = try_start(&wasm(&body), &limits).unwrap();
    assert_eq!(trap(fsm.apply(at(1), b"e").unwrap()), TrapKind::OutputLimit);
    let limits = Limits { events_max_bytes: 100, ..small_limits() };
    let mut fsm = try_start(&wasm(&body), &limits).unwrap();
    assert_eq!(trap(fsm.apply(at(1), b"e").unwrap()), TrapKind::OutputLimit);
}

#[test]
fn the_hosts_work_for_a_guest_costs_fuel() {
    let mut fsm = scribe();
    let short = fsm.apply(at(1), b"a").unwrap().fuel_used;
    let long = fsm.apply(at(2), &[b'a'; 1001]).unwrap().fuel_used;
    // A thousand bytes read by the import and copied by `memory.copy`.
    assert_eq!(long - short, 2000);
}

#[test]
fn two_loaders_agree_on_everything() {
    let mut one = scribe();
    let mut two = scribe();
    for (index, command) in
        [&b"a1"[..], b"x", b"t", b"g", b"s", b"event", b"l", b"r", b"x"].iter().enumerate()
    {
        let context = at(index as u64);
        assert_eq!(one.apply(context, command).unwrap(), two.apply(context, command).unwrap());
    }
    assert_eq!(image(&mut *one), image(&mut *two));
}

#[test]
fn random_numbers_depend_on_cluster_position_and_kind_of_call_only() {
    let mut fsm = scribe();
    let first = ok(fsm.apply(at(1), b"x").unwrap());
    assert_eq!(ok(fsm.apply(at(1), b"x").unwrap()), first);
    assert_ne!(ok(fsm.apply(at(2), b"x").unwrap()), first);
    let second = ok(fsm.apply(behind(at(1), 1), b"x").unwrap());
    assert_ne!(second, first);
    assert_ne!(ok(fsm.apply(behind(at(1), 2), b"x").unwrap()), second);
    assert_ne!(ok(fsm.query(at(1), b"x").unwrap()), first);
    let elsewhere = Context { cluster: ClusterId([8; 16]), ..at(1) };
    assert_ne!(ok(fsm.apply(elsewhere, b"x").unwrap()), first);
    // Part of the state's history: a change would make old logs replay otherwise.
    assert_eq!(first[..4], EXPECTED_RANDOM);
}

const EXPECTED_RANDOM: [u8; 4] = [206, 26, 220, 118];

#[test]
fn the_guest_sees_the_index_and_the_clock_of_its_entry() {
    let mut fsm = scribe();
    let output = ok(fsm.apply(at(42), b"t").unwrap());
    assert_eq!(output[..8], 42u64.to_le_bytes());
    assert_eq!(output[8..], 1_000_042u64.to_le_bytes());
}

#[test]
fn the_guest_sees_which_of_its_entrys_commands_it_runs() {
    const GUEST: &str = r#"
        (import "raft_fsm_v1" "ordinal" (func $ordinal (result i32)))
        (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
        (memory (export "memory") 1)
        (func $tell (result i32)
            (i32.store (i32.const 0) (call $ordinal))
            (call $write (i32.const 0) (i32.const 4))
            (i32.const 0))
        (func (export "raft_fsm_abi_v1"))
        (func (export "apply") (param i32) (result i32) (call $tell))
        (func (export "query") (param i32) (result i32) (call $tell))
        (func (export "snapshot") (result i32) (i32.const 0))
        (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    let module = wat::parse_str(format!("(module {GUEST})")).unwrap();
    let mut fsm = try_start(&module, &small_limits()).unwrap();
    for ordinal in [0, 1, 65_535] {
        let told = ok(fsm.apply(behind(at(42), ordinal), b"").unwrap());
        assert_eq!(told, ordinal.to_le_bytes());
    }
    assert_eq!(ok(fsm.query(at(42), b"").unwrap()), [0; 4]);
}

#[test]
fn a_length_of_zero_is_good_with_any_pointer() {
    let body = SCRIBE.replace(
        "(call $write (i32.const 0x7fff0000) (i32.const 1))",
        "(call $write (i32.const 0x7fff0000) (i32.const 0))
         (call $log (i32.const 4) (i32.const -1) (i32.const 0))
         (call $random (i32.const -1) (i32.const 0))
         (drop (call $read (i32.const -1) (i32.const 0)))",
    );
    assert_eq!(ok(start(&body).apply(at(1), b"h").unwrap()), b"");
}

#[test]
fn a_thread_with_too_little_stack_is_a_host_failure_not_a_crash() {
    std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(|| {
            let limits = Limits { stack_max_bytes: 4 << 20, ..small_limits() };
            let loader = WasmLoader::new(None).unwrap();
            let failure = loader.instantiate(&wasm(SCRIBE), &limits, at(1)).err().unwrap();
            assert!(failure.0.contains("larger stack"), "{failure}");
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn compiled_code_is_cached_and_a_damaged_file_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let module = wasm(SCRIBE);
    let load = || {
        let loader = WasmLoader::new(Some(directory.path().join("compiled"))).unwrap();
        let mut fsm = loader.instantiate(&module, &small_limits(), at(1)).unwrap().unwrap();
        ok(fsm.apply(at(1), b"a").unwrap());
    };
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(directory.path().join("compiled")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    load();
    let [path] = files().try_into().unwrap();
    let sound = std::fs::read(&path).unwrap();
    load();
    assert_eq!(std::fs::read(&path).unwrap(), sound);
    for (position, name) in [(0, "magic"), (20, "profile"), (200, "code"), (sound.len() - 1, "end")]
    {
        let mut damaged = sound.clone();
        damaged[position] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        load();
        let after = std::fs::read(&path).unwrap();
        assert_ne!(after, damaged, "{name}");
        assert_eq!(after.len(), sound.len(), "{name}");
    }
    std::fs::write(&path, &sound[..50]).unwrap();
    load();
    assert_eq!(files().len(), 1);
    assert_eq!(std::fs::read(&path).unwrap().len(), sound.len());
}

#[test]
fn a_cache_directory_that_cannot_be_made_is_a_failure_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let failure = WasmLoader::new(Some(file.path().join("below"))).err().unwrap();
    assert!(failure.0.contains("below"), "{failure}");
}

#[test]
fn wasi_is_deterministic_and_sleeping_takes_no_time() {
    let body = r#"
      (import "wasi_snapshot_preview1" "clock_time_get"
        (func $clock (param i32 i64 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $again (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (data (i32.const 512) "hello\n")
      (func (export "apply") (param i32) (result i32)
        (if (i32.eq (local.get 0) (i32.const 1)) (then (call $exit (i32.const 3))))
        (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 0)))
        ;; A relative sleep of five seconds.
        (i64.store (i32.const 256) (i64.const 77))
        (i64.store (i32.const 280) (i64.const 5000000000))
        (i32.store (i32.const 400)
          (call $poll (i32.const 256) (i32.const 320) (i32.const 1) (i32.const 24)))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
        (i64.store (i32.const 16) (i64.load (i32.const 320)))
        (i32.store (i32.const 28) (i32.load (i32.const 400)))
        (i32.store (i32.const 420) (i32.const 512))
        (i32.store (i32.const 424) (i32.const 6))
        (i32.store (i32.const 32)
          (call $fd_write (i32.const 2) (i32.const 420) (i32.const 1) (i32.const 36)))
        (i32.store (i32.const 40) (call $open (i32.const 3) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))
        (i32.store (i32.const 44) (call $env (i32.const 600) (i32.const 604)))
        (drop (call $random_get (i32.const 48) (i32.const 8)))
        (call $write (i32.const 0) (i32.const 56))
        (i32.const 0))
      (func (export "snapshot") (result i32) (i32.const 0))
      (func (export "restore") (param i32) (result i32) (i32.const 0))"#;
    let body = body.to_owned();
    // Imports come before everything else.
    let (imports, rest) = body.split_at(body.find("(memory").unwrap());
    let module = wat::parse_str(format!("(module {imports} {PRELUDE} {rest})")).unwrap();
    let mut fsm = try_start(&module, &small_limits()).unwrap();
    let output = ok(fsm.apply(at(1), b"").unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(output[at..at + 4].try_into().unwrap());
    assert_eq!(u64_at(0), 1_000_001_000_000, "the entry's clock");
    assert_eq!(u64_at(8) - u64_at(0), 5_000_000_000, "the sleep");
    assert_eq!((u64_at(16), u32_at(24), u32_at(28)), (77, 1, 0), "one event, the subscriber's");
    assert_eq!((u32_at(32), u32_at(36)), (0, 6), "written");
    assert_eq!((u32_at(40), u32_at(44)), (8, 0), "no files, no environment");
    assert_eq!(ok(fsm.apply(at(1), b"").unwrap()), output);
    assert_eq!(trap(fsm.apply(at(2), b"x").unwrap()), TrapKind::Exit);
}

/// As the machine does it: a fresh instance under the limits takes over the state of the other.
fn relimited(
    loader: &WasmLoader,
    fsm: &mut dyn Fsm,
    limits: &Limits,
) -> Result<Box<dyn Fsm>, String> {
    let fresh = loader.instantiate(&wasm(SCRIBE), limits, at(9)).unwrap();
    let mut fresh = fresh.map_err(|refused| refused.to_string())?;
    let image = fsm.capture().unwrap();
    fresh.adopt(&*image).map_err(|error| error.to_string())?;
    Ok(fresh)
}

#[test]
fn under_other_limits_the_guest_goes_on_with_the_very_same_state() {
    let loader = WasmLoader::new(None).unwrap();
    let mut fsm = scribe();
    for command in [&b"a1"[..], b"g", b"l", b"g", b"u", b"r2", b"a3"] {
        fsm.apply(at(2), command).unwrap();
    }
    let before = image(&mut *fsm);
    let costly = fsm.apply(at(3), b"a4").unwrap().fuel_used;
    let mut fsm = {
        let mut other = scribe();
        other.load_image(&mut before.as_slice()).unwrap();
        other
    };

    let poor = Limits { apply_fuel: costly / 2, ..small_limits() };
    let mut poor_fsm = relimited(&loader, &mut *fsm, &poor).unwrap();
    assert_eq!(image(&mut *poor_fsm), before);
    assert_eq!(contents(&mut *poor_fsm), contents(&mut *fsm));
    assert_eq!(trap(poor_fsm.apply(at(3), b"a4").unwrap()), TrapKind::OutOfFuel);
    assert_eq!(image(&mut *poor_fsm), before);

    // Another stack is another engine; the state does not notice.
    let rich = Limits { apply_fuel: costly, stack_max_bytes: 1 << 20, ..small_limits() };
    let mut rich_fsm = relimited(&loader, &mut *poor_fsm, &rich).unwrap();
    assert_eq!(image(&mut *rich_fsm), before);
    assert_eq!(rich_fsm.apply(at(3), b"a4").unwrap().fuel_used, costly);
    fsm.apply(at(3), b"a4").unwrap();
    assert_eq!(image(&mut *rich_fsm), image(&mut *fsm));
    // What traps afterwards is undone to the state that was taken over, and what came since.
    assert_eq!(trap(rich_fsm.apply(at(4), b"u").unwrap()), TrapKind::Unreachable);
    assert_eq!(image(&mut *rich_fsm), image(&mut *fsm));

    // So would a node that starts from a snapshot under these limits.
    let mut restored = loader.instantiate(&wasm(SCRIBE), &rich, at(1)).unwrap().unwrap();
    restored.load_image(&mut image(&mut *rich_fsm).as_slice()).unwrap();
    for command in [&b"a5"[..], b"l", b"x", b"g", b"u", b"s"] {
        let expected = rich_fsm.apply(at(5), command).unwrap();
        assert_eq!(restored.apply(at(5), command).unwrap(), expected);
    }
    assert_eq!(image(&mut *restored), image(&mut *rich_fsm));
}

#[test]
fn memory_may_be_limited_down_to_what_the_guest_has_and_no_further() {
    let loader = WasmLoader::new(None).unwrap();
    let mut fsm = scribe();
    ok(fsm.apply(at(1), b"g").unwrap());
    let pages = |count: u64| Limits { memory_max_bytes: count << 16, ..small_limits() };
    let refused = relimited(&loader, &mut *fsm, &pages(2)).err().unwrap();
    assert!(refused.contains("grown to 196608 bytes"), "{refused}");
    let refused = relimited(&loader, &mut *fsm, &pages(1)).err().unwrap();
    assert!(refused.contains("starts with 131072 bytes"), "{refused}");
    let mut exact = relimited(&loader, &mut *fsm, &pages(3)).unwrap();
    assert_eq!(ok(exact.apply(at(2), b"g").unwrap()), (-1i32).to_le_bytes());
    let mut more = relimited(&loader, &mut *exact, &pages(4)).unwrap();
    assert_eq!(ok(more.apply(at(2), b"g").unwrap()), 3i32.to_le_bytes());
    assert_eq!(ok(fsm.apply(at(2), b"g").unwrap()), 3i32.to_le_bytes());
}

#[test]
fn an_image_of_another_module_is_not_adopted() {
    let mut fsm = scribe();
    let other = SCRIBE.replace("(i32.const -7)", "(i32.const -8)");
    let foreign = start(&other).capture().unwrap();
    let before = image(&mut *fsm);
    assert!(fsm.adopt(&*foreign).unwrap_err().to_string().contains("not of this module"));
    assert_eq!(image(&mut *fsm), before);
}

#[test]
fn engines_for_many_stack_sizes_do_not_pile_up_and_old_instances_live_on() {
    let loader = WasmLoader::new(None).unwrap();
    let mut first = loader.instantiate(&wasm(SCRIBE), &small_limits(), at(1)).unwrap().unwrap();
    for kib in 100..106 {
        let limits = Limits { stack_max_bytes: kib << 10, ..small_limits() };
        loader.instantiate(&wasm(SCRIBE), &limits, at(1)).unwrap().unwrap();
    }
    ok(first.apply(at(1), b"a").unwrap());
    assert_eq!(trap(first.apply(at(1), b"s").unwrap()), TrapKind::StackOverflow);
}
