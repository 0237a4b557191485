//! kv and kv-v2 (Rust).

use super::{Trial, json};

const KEYS: usize = 300;

#[test]
fn the_key_value_store_keeps_its_data_through_a_killed_leader_and_an_upgrade() {
    let mut trial = Trial::start("plugins/kv/kv.wasm");
    let set = |n| format!(r#"{{"op":"set","key":"key-{n:03}","value":"value-{n}"}}"#);
    let answers = trial.apply_through_a_killed_leader((0..KEYS).map(set).collect());
    assert!(answers.iter().all(|answer| answer.ok() == r#"{"ok":true}"#), "{answers:?}");
    assert_eq!(trial.query(r#"{"op":"count"}"#), format!(r#"{{"count":{KEYS}}}"#));
    let session = r#"{"op":"set","key":"session","value":"alice","ttl_ms":3600000}"#;
    assert!(trial.apply(session).reason().contains("ttl_ms"), "version 1 knows no expiry");

    // The killed node learns of it from the log, or from a snapshot behind it.
    trial.upgrade("plugins/kv-v2/kv_v2.wasm");
    trial.apply(session).ok();
    let cas = r#"{"op":"cas","key":"key-007","expected":"value-7","value":"changed"}"#;
    assert_eq!(trial.apply(cas).ok(), r#"{"ok":true}"#);
    assert_eq!(trial.apply(cas).ok(), r#"{"ok":false,"current":"changed"}"#);

    trial.revive_and_compare();
    let range = json(&trial.everywhere(r#"{"op":"range","prefix":"key-","limit":1000}"#));
    let entries = range["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), KEYS);
    for (n, entry) in entries.iter().enumerate() {
        let value = if n == 7 { "changed".to_owned() } else { format!("value-{n}") };
        assert_eq!(
            (&entry["key"], &entry["value"]),
            (&format!("key-{n:03}").into(), &value.into())
        );
    }
    let kept = json(&trial.everywhere(r#"{"op":"get","key":"session"}"#));
    assert!(kept["value"] == "alice" && kept["expires_at_ms"].is_u64(), "{kept}");
}
