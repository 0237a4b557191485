//! What the second version adds, and that it keeps what the first one promised.

use kv::Kv;
use raft_fsm_sdk::testing::{Runner, START_TIME_MS};

use crate::KvV2;

const OK: &str = r#"{"ok":true}"#;
const NOT_DONE: &str = r#"{"ok":false}"#;
const NONE: &str = r#"{"value":null}"#;
const GET: &str = r#"{"op":"get","key":"a"}"#;
const COUNT: &str = r#"{"op":"count"}"#;
const RANGE: &str = r#"{"op":"range"}"#;

fn store(commands: &[&str]) -> Runner<KvV2> {
    let mut node = Runner::new();
    for command in commands {
        node.apply_text(command).unwrap();
    }
    node
}

#[track_caller]
fn ask(node: &mut Runner<KvV2>, query: &str, answer: &str) {
    assert_eq!(node.query_text(query).as_deref(), Ok(answer));
}

fn dying() -> Runner<KvV2> {
    store(&[r#"{"op":"set","key":"a","value":"1","ttl_ms":100}"#])
}

#[test]
fn the_first_version_s_commands_get_the_first_version_s_answers() {
    let commands = [
        r#"{"op":"set","key":"a","value":"1"}"#,
        r#"{"op":"set","key":"b","value":"2"}"#,
        r#"{"op":"cas","key":"a","expected":"1","value":"3"}"#,
        r#"{"op":"cas","key":"a","expected":null,"value":"4"}"#,
        r#"{"op":"cas","key":"c","expected":"4","value":"4"}"#,
        r#"{"op":"delete","key":"b"}"#,
        r#"{"op":"delete","key":"b"}"#,
        r#"{"op":"delete"}"#,
        r#"{"op":"set","key":"a","value":1}"#,
        "",
    ];
    let mut first = Runner::<Kv>::new();
    let mut second = Runner::<KvV2>::new();
    for command in commands {
        assert_eq!(second.apply_text(command), first.apply_text(command), "{command}");
        for query in [GET, RANGE, COUNT] {
            assert_eq!(second.query_text(query), first.query_text(query), "{query}");
        }
    }
}

#[test]
fn an_expired_key_is_gone_at_its_deadline_and_not_before() {
    let mut node = dying();
    let deadline = START_TIME_MS + 100;
    let entry = format!(r#""value":"1","expires_at_ms":{deadline}"#);
    node.advance_ms(99);
    ask(&mut node, GET, &format!("{{{entry}}}"));
    ask(&mut node, RANGE, &format!(r#"{{"entries":[{{"key":"a",{entry}}}],"next":null}}"#));
    ask(&mut node, COUNT, r#"{"count":1}"#);
    node.advance_ms(1);
    ask(&mut node, GET, NONE);
    ask(&mut node, RANGE, r#"{"entries":[],"next":null}"#);
    ask(&mut node, COUNT, r#"{"count":0}"#);
}

#[test]
fn an_expired_key_does_not_exist_for_commands_either() {
    let check = |command: &str, answer: &str| {
        let mut node = dying();
        node.advance_ms(100);
        assert_eq!(node.apply_text(command).as_deref(), Ok(answer), "{command}");
    };
    check(r#"{"op":"delete","key":"a"}"#, NOT_DONE);
    check(r#"{"op":"expire","key":"a","ttl_ms":100}"#, NOT_DONE);
    check(r#"{"op":"persist","key":"a"}"#, NOT_DONE);
    check(r#"{"op":"cas","key":"a","expected":null,"value":"2"}"#, OK);
    let absent = r#"{"ok":false,"current":null}"#;
    check(r#"{"op":"cas","key":"a","expected":"1","value":"2"}"#, absent);
}

#[test]
fn expire_and_persist_move_the_deadline() {
    let mut node = dying();
    assert_eq!(node.apply_text(r#"{"op":"expire","key":"a","ttl_ms":500}"#).as_deref(), Ok(OK));
    node.advance_ms(499);
    ask(&mut node, COUNT, r#"{"count":1}"#);
    assert_eq!(node.apply_text(r#"{"op":"persist","key":"a"}"#).as_deref(), Ok(OK));
    node.advance_ms(1_000_000);
    ask(&mut node, GET, r#"{"value":"1"}"#);
    let absent = r#"{"op":"expire","key":"b","ttl_ms":1}"#;
    assert_eq!(node.apply_text(absent).as_deref(), Ok(NOT_DONE));
}

#[test]
fn storing_again_forgets_the_old_deadline() {
    for command in [
        r#"{"op":"set","key":"a","value":"2"}"#,
        r#"{"op":"cas","key":"a","expected":"1","value":"2"}"#,
    ] {
        let mut node = dying();
        node.apply_text(command).unwrap();
        node.advance_ms(100);
        ask(&mut node, GET, r#"{"value":"2"}"#);
    }
}

#[test]
fn deadlines_beyond_the_end_of_time_are_its_end() {
    let mut node = store(&[r#"{"op":"set","key":"a","value":"1","ttl_ms":18446744073709551615}"#]);
    ask(&mut node, GET, r#"{"value":"1","expires_at_ms":18446744073709551615}"#);
}

#[test]
fn later_commands_remove_what_has_expired_a_bounded_number_each() {
    let mut node = Runner::<KvV2>::new();
    for n in 0..80 {
        let set = format!(r#"{{"op":"set","key":"key {n}","value":"1","ttl_ms":{}}}"#, n + 10);
        node.apply_text(&set).unwrap();
    }
    node.advance_ms(1000);
    let entries = |node: &mut Runner<KvV2>| {
        let snapshot = node.snapshot();
        u64::from_le_bytes(snapshot[8..16].try_into().unwrap())
    };
    let mut left = vec![entries(&mut node)];
    for _ in 0..4 {
        ask(&mut node, COUNT, r#"{"count":0}"#);
        node.apply_text(r#"{"op":"delete","key":"other"}"#).unwrap();
        left.push(entries(&mut node));
    }
    assert_eq!(left, [80, 48, 16, 0, 0]);
}

#[test]
fn a_rejected_command_removes_nothing() {
    let mut node = dying();
    node.advance_ms(100);
    // The runner itself compares snapshots before and after.
    assert!(node.apply_text(r#"{"op":"expire","key":"a"}"#).is_err());
    assert_eq!(u64::from_le_bytes(node.snapshot()[8..16].try_into().unwrap()), 1);
}

#[test]
fn a_bad_command_is_rejected_with_the_reason() {
    let check = |command: &str, reason: &str| {
        let error = Runner::<KvV2>::new().apply_text(command).unwrap_err();
        assert!(error.contains(reason), "{command}: {error}");
    };
    check("", "the command is empty");
    check(r#"{"op":"expire","key":"a"}"#, "expire needs `ttl_ms`");
    check(r#"{"op":"expire","key":"a","ttl_ms":1,"value":"b"}"#, "expire has no `value`");
    check(r#"{"op":"persist","key":"a","ttl_ms":1}"#, "persist has no `ttl_ms`");
    check(r#"{"op":"delete","key":"a","ttl_ms":1}"#, "delete has no `ttl_ms`");
    check(r#"{"op":"set","key":"a","value":"b","ttl_ms":-1}"#, "invalid value: integer `-1`");
    check(r#"{"op":"expire","key":"a","ttl_ms":0}"#, "`ttl_ms` must be at least 1");
    check(r#"{"op":"set","key":"a","value":"b","ttl":1}"#, "unknown field `ttl`");
}

#[test]
fn a_snapshot_of_the_first_version_is_restored_and_keeps_its_data() {
    let mut first = Runner::<Kv>::new();
    first.apply_text(r#"{"op":"set","key":"a","value":"1"}"#).unwrap();
    first.apply_text(r#"{"op":"set","key":"b","value":"2"}"#).unwrap();
    let mut second = Runner::<KvV2>::restored(&first.snapshot()).unwrap();
    assert_eq!(second.query_text(RANGE), first.query_text(RANGE));
    assert_eq!(second.apply_text(r#"{"op":"expire","key":"a","ttl_ms":5}"#).as_deref(), Ok(OK));
    second.advance_ms(5);
    ask(&mut second, COUNT, r#"{"count":1}"#);
}

#[test]
fn the_first_version_takes_over_again_unless_a_key_expires() {
    let mut second = store(&[r#"{"op":"set","key":"a","value":"1"}"#]);
    let mut first = Runner::<Kv>::restored(&second.snapshot()).unwrap();
    assert_eq!(first.query_text(GET).as_deref(), Ok(r#"{"value":"1"}"#));
    second.apply_text(r#"{"op":"expire","key":"a","ttl_ms":5}"#).unwrap();
    let refused = Runner::<Kv>::restored(&second.snapshot()).err().unwrap().to_string();
    assert_eq!(refused, "the snapshot has format version 2, and this module knows 1 to 1");
}

#[test]
fn its_own_snapshots_keep_the_deadlines() {
    let mut node = store(&[
        r#"{"op":"set","key":"a","value":"1","ttl_ms":100}"#,
        r#"{"op":"set","key":"b","value":"2"}"#,
    ]);
    let snapshot = node.snapshot();
    let mut copy = Runner::<KvV2>::restored(&snapshot).unwrap();
    assert_eq!(copy.snapshot(), snapshot);
    copy.advance_ms(100);
    ask(&mut copy, GET, NONE);
    ask(&mut copy, COUNT, r#"{"count":1}"#);
    copy.apply_text(r#"{"op":"delete","key":"b"}"#).unwrap();
    assert_eq!(copy.snapshot().len(), 16, "nothing but the header is left");
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let snapshot = dying().snapshot();
    for len in 0..snapshot.len() {
        assert!(Runner::<KvV2>::restored(&snapshot[..len]).is_err(), "{len}");
    }
    let mut newer = snapshot.clone();
    newer[4] = 3;
    let refused = Runner::<KvV2>::restored(&newer).err().unwrap().to_string();
    assert_eq!(refused, "the snapshot has format version 3, and this module knows 1 to 2");
}

#[test]
fn each_version_may_take_over_from_the_other_and_not_from_something_else() {
    let mut new = Runner::<KvV2>::new();
    let mut old = Runner::<Kv>::new();
    assert_eq!(new.restores(&old.state_version()), Ok(()));
    let own = new.state_version();
    assert_eq!(new.restores(&own), Ok(()));
    assert_eq!(old.restores(&new.state_version()), Ok(()));
    assert!(new.restores("ledger/1").is_err());
}
