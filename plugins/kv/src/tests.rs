//! The store as its users see it.

use raft_fsm_sdk::testing::{Random, RestoreProperty, Runner};

use crate::Kv;

fn store(commands: &[&str]) -> Runner<Kv> {
    let mut node = Runner::new();
    for command in commands {
        node.apply_text(command).unwrap();
    }
    node
}

/// Runs `command` on a store with `a` = `1` and compares the answer and then `a` and `b`.
#[track_caller]
fn check(command: &str, answer: &str, a: &str, b: &str) {
    let mut node = store(&[r#"{"op":"set","key":"a","value":"1"}"#]);
    assert_eq!(node.apply_text(command).as_deref(), Ok(answer));
    assert_eq!(node.query_text(r#"{"op":"get","key":"a"}"#).as_deref(), Ok(a));
    assert_eq!(node.query_text(r#"{"op":"get","key":"b"}"#).as_deref(), Ok(b));
}

const ONE: &str = r#"{"value":"1"}"#;
const TWO: &str = r#"{"value":"2"}"#;
const NONE: &str = r#"{"value":null}"#;
const OK: &str = r#"{"ok":true}"#;

#[test]
fn set_stores_and_replaces() {
    check(r#"{"op":"set","key":"a","value":"2"}"#, OK, TWO, NONE);
    check(r#"{"op":"set","key":"b","value":"2"}"#, OK, ONE, TWO);
}

#[test]
fn fields_come_in_any_order_and_may_be_escaped() {
    check(r#" { "value" : "\u0032", "key":"\u0062","op":"\u0073et"} "#, OK, ONE, TWO);
}

#[test]
fn values_come_back_as_they_went_in() {
    let mut node = store(&[r#"{"op":"set","key":"a","value":"line\n\"quoted\" \\ é 🦀"}"#]);
    let answer = node.query_text(r#"{"op":"get","key":"a"}"#);
    assert_eq!(answer.as_deref(), Ok(r#"{"value":"line\n\"quoted\" \\ é 🦀"}"#));
}

#[test]
fn delete_tells_whether_there_was_something_to_delete() {
    check(r#"{"op":"delete","key":"a"}"#, OK, NONE, NONE);
    check(r#"{"op":"delete","key":"b"}"#, r#"{"ok":false}"#, ONE, NONE);
}

#[test]
fn cas_stores_only_what_was_expected() {
    check(r#"{"op":"cas","key":"a","expected":"1","value":"2"}"#, OK, TWO, NONE);
    check(r#"{"op":"cas","key":"b","expected":null,"value":"2"}"#, OK, ONE, TWO);
    let differs = r#"{"ok":false,"current":"1"}"#;
    check(r#"{"op":"cas","key":"a","expected":"9","value":"2"}"#, differs, ONE, NONE);
    check(r#"{"op":"cas","key":"a","expected":null,"value":"2"}"#, differs, ONE, NONE);
    let absent = r#"{"ok":false,"current":null}"#;
    check(r#"{"op":"cas","key":"b","expected":"1","value":"2"}"#, absent, ONE, NONE);
}

#[test]
fn a_bad_command_is_rejected_with_the_reason() {
    let check = |command: &str, reason: &str| {
        let error = Runner::<Kv>::new().apply_text(command).unwrap_err();
        assert!(error.contains(reason), "{command}: {error}");
    };
    check("", "the command is empty; it must be JSON");
    check("nonsense", "the command is malformed: expected ident at line 1 column 2");
    check("[]", "the command is malformed");
    check(r#"{"op":"set","key":"a"}"#, "set needs `value`");
    check(r#"{"op":"set","key":"a","value":null}"#, "set needs `value`");
    check(r#"{"op":"set","key":"a","value":1}"#, "invalid type: integer `1`, expected a string");
    check(r#"{"op":"set","value":"a"}"#, "missing field `key`");
    check(r#"{"key":"a","value":"a"}"#, "missing field `op`");
    check(r#"{"op":"set","key":"a","value":"b","expected":null}"#, "set has no `expected`");
    check(r#"{"op":"set","key":"a","key":"b","value":"b"}"#, "duplicate field `key`");
    check(r#"{"op":"set","key":"a","value":"b","ttl_ms":5}"#, "unknown field `ttl_ms`");
    check(r#"{"op":"delete","key":"a","value":"b"}"#, "delete has no `value`");
    check(r#"{"op":"cas","key":"a","value":"b"}"#, "cas needs `expected`");
    check(r#"{"op":"get","key":"a"}"#, "unknown variant `get`, expected one of `set`, `delete`");
    check(r#"{"op":"delete","key":"a"} {}"#, "trailing characters");
}

#[test]
fn a_bad_query_is_rejected_with_the_reason() {
    let check = |query: &str, reason: &str| {
        let error = Runner::<Kv>::new().query_text(query).unwrap_err();
        assert!(error.contains(reason), "{query}: {error}");
    };
    check("", "the query is empty; it must be JSON");
    check(r#"{"op":"get"}"#, "missing field `key`");
    check(r#"{"op":"set"}"#, "unknown variant `set`");
    check(r#"{"op":"count","key":"a"}"#, "unknown field `key`");
    check(r#"{"op":"get","key":"a","limit":1}"#, "unknown field `limit`");
    check(r#"{"op":"range","from":"a"}"#, "unknown field `from`");
    check(r#"{"op":"range","limit":-1}"#, "invalid value");
}

#[test]
fn ranges_are_ordered_and_bounded() {
    let set = |key: &str| format!(r#"{{"op":"set","key":"{key}","value":"v{key}"}}"#);
    let mut node = Runner::<Kv>::new();
    for key in ["b", "aa", "a", "c", "ab", "é"] {
        node.apply_text(&set(key)).unwrap();
    }
    let mut check = |query: &str, keys: &[&str], next: &str| {
        let entries: Vec<String> =
            keys.iter().map(|key| format!(r#"{{"key":"{key}","value":"v{key}"}}"#)).collect();
        let expected = format!(r#"{{"entries":[{}],"next":{next}}}"#, entries.join(","));
        assert_eq!(node.query_text(query), Ok(expected), "{query}");
    };
    check(r#"{"op":"range"}"#, &["a", "aa", "ab", "b", "c", "é"], "null");
    check(r#"{"op":"range","start":"aa","end":"c"}"#, &["aa", "ab", "b"], "null");
    check(r#"{"op":"range","prefix":"a"}"#, &["a", "aa", "ab"], "null");
    check(r#"{"op":"range","prefix":"a","limit":2}"#, &["a", "aa"], r#""ab""#);
    check(r#"{"op":"range","prefix":"a","start":"ab","limit":2}"#, &["ab"], "null");
    check(r#"{"op":"range","start":"z","end":"a"}"#, &[], "null");
    check(r#"{"op":"range","limit":0}"#, &[], r#""a""#);
    assert_eq!(node.query_text(r#"{"op":"count"}"#).as_deref(), Ok(r#"{"count":6}"#));
}

#[test]
fn a_page_of_large_values_ends_early_and_says_where_to_go_on() {
    let mut node = Runner::<Kv>::new().without_checks();
    let value = "x".repeat(400_000);
    for key in ["a", "b", "c", "d"] {
        let command = format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#);
        node.apply_text(&command).unwrap();
    }
    let page = node.query_text(r#"{"op":"range"}"#).unwrap();
    assert!(page.ends_with(r#""next":"d"}"#), "{}", &page[page.len() - 40..]);
}

#[test]
fn a_snapshot_holds_everything_and_does_not_depend_on_the_order_of_commands() {
    let set = |n: u32| format!(r#"{{"op":"set","key":"key {n}","value":"{}"}}"#, "v".repeat(99));
    let mut forward = Runner::<Kv>::new().without_checks();
    let mut backward = Runner::<Kv>::new().without_checks();
    for n in 0..1000 {
        forward.apply_text(&set(n)).unwrap();
        backward.apply_text(&set(999 - n)).unwrap();
    }
    let snapshot = forward.snapshot();
    assert!(snapshot == backward.snapshot());
    let mut copy = Runner::<Kv>::restored(&snapshot).unwrap();
    assert!(copy.snapshot() == snapshot);
    assert_eq!(copy.query_text(r#"{"op":"count"}"#).as_deref(), Ok(r#"{"count":1000}"#));
}

/// Any command, on few keys, so that they meet.
fn any_command(random: &mut Random) -> String {
    let key = *random.pick(&["a", "b", "c", "", "é", "a\\u0000b"]);
    let value = "v".repeat(random.below(3) as usize);
    let expected = *random.pick(&["null", r#""""#, r#""v""#, r#""vv""#]);
    match random.below(8) {
        0 => format!(r#"{{"op":"delete","key":"{key}"}}"#),
        1 | 2 => format!(r#"{{"op":"cas","key":"{key}","expected":{expected},"value":"{value}"}}"#),
        3 => format!(r#"{{"op":"set","key":"{key}"}}"#),
        _ => format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#),
    }
}

#[test]
fn a_restored_store_behaves_as_the_one_that_was_never_restored() {
    let property = RestoreProperty::<Kv>::new()
        .query(r#"{"op":"range"}"#)
        .query(r#"{"op":"count"}"#)
        .query(r#"{"op":"get","key":"a"}"#);
    property.holds_for_random(20, any_command);
    property.holds_for_random(5, |random| random.bytes(40));
}

#[test]
fn the_snapshot_format_stays_as_it_is() {
    let bytes = b"RHKV\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0a\x02\0\0\0bc";
    assert_eq!(store(&[r#"{"op":"set","key":"a","value":"bc"}"#]).snapshot(), bytes);
}

#[test]
fn the_store_names_its_format_and_takes_no_other() {
    let mut node = Runner::<Kv>::new();
    assert_eq!(node.state_version(), "kv/1");
    assert_eq!(node.restores("kv/1"), Ok(()));
    assert!(node.restores("kv/2").is_err() && node.restores("ledger/1").is_err());
}

#[test]
fn a_damaged_or_foreign_snapshot_is_refused_with_the_reason() {
    let good =
        store(&[r#"{"op":"set","key":"a","value":"1"}"#, r#"{"op":"set","key":"b","value":"2"}"#])
            .snapshot();
    let check = |bytes: &[u8], reason: &str| {
        let error = Runner::<Kv>::restored(bytes).err().expect(reason).to_string();
        assert!(error.contains(reason), "{error}");
    };
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for len in 0..good.len() {
        check(&good[..len], "the snapshot ends too early");
    }
    check(&[&good[..], b"x"].concat(), "1 bytes more than its contents account for");
    check(&changed(0, b'x'), "no snapshot of the kv plugin");
    check(&changed(4, 2), "format version 2, and this module knows 1 to 1");
    check(&changed(4, 0), "format version 0");
    check(&changed(20, b'c'), "keys are out of order");
    check(&changed(20, 0xff), "not UTF-8");
}
