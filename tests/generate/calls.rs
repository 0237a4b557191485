//! Guests that do nothing but call imports, with values that a host must not trust.

use std::fmt::Write as _;

use arbitrary::{Result, Unstructured};

/// An import: module, name, parameters (`i` 32 bits, `I` 64 bits), result.
type Import = (&'static str, &'static str, &'static str, Option<char>);

const ABI: &str = "raft_fsm_v1";
const WASI: &str = "wasi_snapshot_preview1";

/// Every import that does something, and some that only refuse.
const IMPORTS: &[Import] = &[
    (ABI, "read", "ii", Some('i')),
    (ABI, "write", "ii", None),
    (ABI, "index", "", Some('I')),
    (ABI, "ordinal", "", Some('i')),
    (ABI, "time_ms", "", Some('I')),
    (ABI, "random", "ii", None),
    (ABI, "emit", "iiii", None),
    (ABI, "log", "iii", None),
    (ABI, "window", "", Some('i')),
    (ABI, "actor", "ii", Some('i')),
    (ABI, "old_memory_size", "", Some('I')),
    (ABI, "old_memory", "Iii", None),
    (ABI, "old_global", "ii", Some('i')),
    (WASI, "args_get", "ii", Some('i')),
    (WASI, "args_sizes_get", "ii", Some('i')),
    (WASI, "environ_get", "ii", Some('i')),
    (WASI, "environ_sizes_get", "ii", Some('i')),
    (WASI, "clock_res_get", "ii", Some('i')),
    (WASI, "clock_time_get", "iIi", Some('i')),
    (WASI, "fd_write", "iiii", Some('i')),
    (WASI, "fd_read", "iiii", Some('i')),
    (WASI, "fd_close", "i", Some('i')),
    (WASI, "fd_seek", "iIii", Some('i')),
    (WASI, "fd_fdstat_get", "ii", Some('i')),
    (WASI, "fd_fdstat_set_flags", "ii", Some('i')),
    (WASI, "fd_prestat_get", "ii", Some('i')),
    (WASI, "path_open", "iiiiiIIii", Some('i')),
    (WASI, "poll_oneoff", "iiii", Some('i')),
    (WASI, "random_get", "ii", Some('i')),
    (WASI, "sched_yield", "", Some('i')),
    (WASI, "sock_recv", "iiiiii", Some('i')),
    (WASI, "proc_exit", "i", None),
];

/// Most lists of calls in a guest, and most calls of a list.
const LISTS_MAX: usize = 6;
const CALLS_MAX: usize = 10;

/// A guest with some lists of calls. The first byte of a command or question chooses the list.
///
/// # Errors
/// The bytes do not suffice.
pub fn module(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut text = String::from("(module\n");
    for (number, (module, name, parameters, result)) in IMPORTS.iter().enumerate() {
        let parameters: Vec<&str> = parameters.chars().map(type_of).collect();
        let result = result.map(|ty| format!("(result {})", type_of(ty))).unwrap_or_default();
        writeln!(
            text,
            r#"(import "{module}" "{name}" (func $f{number} (param {}) {result}))"#,
            parameters.join(" ")
        )
        .expect("a string takes everything");
    }
    let window = bytes.int_in_range(0..=61_440)?;
    writeln!(text, r#"(global $window (export "raft_fsm_window") i32 (i32.const {window}))"#)
        .expect("a string takes everything");
    text.push_str(
        r#"(func (export "raft_fsm_abi_v1"))
(memory (export "memory") 1 3)
(func $choose (result i32) (local $list i32)
  (if (i32.eqz (call $f0 (i32.const 0) (i32.const 64)))
    (then (i32.store8 (i32.const 0) (i32.load8_u offset=8 (global.get $window)))))
  (local.set $list (i32.rem_u (i32.load8_u (i32.const 0)) (i32.const 8)))
"#,
    );
    let lists = bytes.int_in_range(1..=LISTS_MAX)?;
    for list in 0..lists {
        writeln!(text, "(if (i32.eq (local.get $list) (i32.const {list})) (then")
            .expect("a string takes everything");
        for _ in 0..bytes.int_in_range(1..=CALLS_MAX)? {
            call(&mut text, bytes)?;
        }
        text.push_str("))\n");
    }
    text.push_str("(i32.load8_s (i32.const 1)))\n");
    for (name, parameter) in [
        ("apply", "(param i32)"),
        ("query", "(param i32)"),
        ("classify", "(param i32)"),
        ("snapshot", ""),
        ("restore", "(param i32)"),
        ("check", ""),
        ("state_version", ""),
        ("restores", "(param i32)"),
        ("adopt", "(param i32)"),
    ] {
        writeln!(text, r#"(func (export "{name}") {parameter} (result i32) (call $choose))"#)
            .expect("a string takes everything");
    }
    text.push(')');
    Ok(wat::parse_str(&text).expect("what is put together here is sound"))
}

/// A call whose result is kept in memory, or a change of memory that later calls will see.
fn call(text: &mut String, bytes: &mut Unstructured<'_>) -> Result<()> {
    if bytes.ratio(1u8, 8u8)? {
        let (ptr, len) = (number(bytes)?, number(bytes)?);
        writeln!(text, "(i32.store (global.get $window) (i32.const {ptr}))")
            .and_then(|()| {
                writeln!(text, "(i32.store offset=4 (global.get $window) (i32.const {len}))")
            })
            .expect("a string takes everything");
        return Ok(());
    }
    if bytes.ratio(1u8, 4u8)? {
        let (at, value) = (bytes.int_in_range(0..=65_532)?, number(bytes)?);
        writeln!(text, "(i32.store (i32.const {at}) (i32.const {value}))")
            .expect("a string takes everything");
        return Ok(());
    }
    let number = bytes.choose_index(IMPORTS.len())?;
    let (_, _, parameters, result) = IMPORTS[number];
    let mut call = format!("(call $f{number}");
    for parameter in parameters.chars() {
        let value = match parameter {
            'i' => format!(" (i32.const {})", self::number(bytes)?),
            _ => format!(" (i64.const {})", bytes.arbitrary::<i64>()?),
        };
        call.push_str(&value);
    }
    call.push(')');
    let at = bytes.int_in_range(0..=65_528)?;
    let kept = match result {
        None => call,
        Some(ty) => format!("({}.store (i32.const {at}) {call})", type_of(ty)),
    };
    writeln!(text, "{kept}").expect("a string takes everything");
    Ok(())
}

/// A pointer, a length, a descriptor, a clock: small, near an edge, or anything.
fn number(bytes: &mut Unstructured<'_>) -> Result<i32> {
    Ok(match bytes.int_in_range(0..=5u8)? {
        0 | 1 => bytes.int_in_range(0..=4)?,
        2 | 3 => bytes.int_in_range(0..=4096)?,
        4 => {
            let edges = [0x1_0000, 0x2_0000, 0x3_0000, 0, i32::MIN, i32::MAX];
            bytes.choose(&edges)?.wrapping_add(bytes.int_in_range(-9..=9)?)
        }
        _ => bytes.arbitrary()?,
    })
}

fn type_of(letter: char) -> &'static str {
    if letter == 'i' { "i32" } else { "i64" }
}
