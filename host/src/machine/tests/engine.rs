//! Engine profiles that change at an index of the log.

use std::sync::Arc;

use super::super::{calls, clock, kept, modules, receipts, sessions, way_back};
use super::*;
use crate::fsm::{
    EngineFacts, EngineProfile, EngineUnsupported, MACHINE_VERSION, Offering, SharedLoader,
};
use crate::machine::sessions::SessionLimits;
use crate::types::Level;

/// The profile that the test loader has.
fn ours() -> EngineProfile {
    EngineProfile::first()
}

/// That of another program.
fn theirs() -> EngineProfile {
    let facts = ours().facts().expect("version 1");
    EngineProfile::of(&EngineFacts { fuel: facts.fuel + 1, ..facts })
}

fn offering(profiles: &[EngineProfile]) -> SharedLoader {
    Arc::new(Offering { loader: loader(), profiles: profiles.to_vec(), level: Level::CURRENT })
}

fn restore_with(mut bytes: &[u8], loader: SharedLoader) -> Result<Machine, RestoreError> {
    Machine::restore(&mut bytes, CLUSTER, GroupId::MAIN, loader)
}

fn set_engine(profile: &str) -> Body {
    Body::SetEngine(stored::SetEngine { profile: profile.to_owned() })
}

#[test]
fn a_new_cluster_has_the_profile_of_its_first_program() {
    let machine = Machine::new(CLUSTER, GroupId::MAIN, Limits::default(), offering(&[theirs()]));
    assert_eq!(machine.info().engine, theirs());
    assert_eq!(machine.program_supported(), Ok(()));
}

#[test]
fn a_change_is_applied_by_programs_that_do_not_offer_it_but_nothing_after_it() {
    let mut machine = running("test");
    apply(&mut machine, 0, command(b"a"));
    let (before, state) = (machine.info(), guest_state(&mut machine));
    let applied = apply(&mut machine, 7, set_engine(theirs().as_str()));
    let reply = Reply::EngineSet { engine: theirs(), previous: ours() };
    assert_eq!(applied, Applied::without_guest(reply));
    let after = MachineInfo {
        applied: Index(5),
        time_ms: 7,
        engine: theirs(),
        rules_changed_at: Index(5),
        ..before
    };
    assert_eq!(machine.info(), after);
    assert_eq!(guest_state(&mut machine), state);
    let unsupported = EngineUnsupported { wanted: theirs(), offered: ours() };
    assert_eq!(machine.program_supported(), Err(unsupported.into()));

    for data in [
        stored::Entry { time_ms: 8, actor: None, body: Some(command(b"b")) }.encode_to_vec(),
        Vec::new(),
    ] {
        let failure = apply_data(&mut machine, data).unwrap_err().to_string();
        assert!(
            failure.contains(theirs().as_str()) && failure.contains(ours().as_str()),
            "{failure}"
        );
        assert_eq!(machine.applied_index(), Index(5));
    }
}

#[test]
fn the_program_that_offers_it_goes_on_from_the_snapshot_at_the_change() {
    let mut machine = busy_machine();
    let straight = {
        let mut machine = restore_with(&snapshot(&mut machine), offering(&[ours(), theirs()]));
        let machine = machine.as_mut().unwrap();
        apply(machine, 50, set_engine(theirs().as_str()));
        apply(machine, 50, command(b"more"));
        snapshot(machine)
    };
    apply(&mut machine, 50, set_engine(theirs().as_str()));
    let bytes = snapshot(&mut machine);
    let error = restore(&bytes).err().unwrap();
    assert!(matches!(&error, RestoreError::Program(_)), "{error}");
    let words = error.to_string();
    for part in [theirs().as_str(), ours().as_str(), "start a version of raft-host that offers"] {
        assert!(words.contains(part), "{words}");
    }
    let mut restored = restore_with(&bytes, offering(&[theirs()])).unwrap();
    assert_eq!(restored.info(), machine.info());
    assert_eq!(snapshot(&mut restored), bytes);
    apply(&mut restored, 50, command(b"more"));
    // One that offers both needs no restart and comes to the same.
    assert_eq!(snapshot(&mut restored), straight);
}

#[test]
fn the_next_program_does_not_start_on_a_state_of_the_one_before() {
    let bytes = snapshot(&mut busy_machine());
    let words = restore_with(&bytes, offering(&[theirs()])).err().unwrap().to_string();
    assert!(words.contains(&format!("raft-host engine set {}", theirs())), "{words}");
}

#[test]
fn what_is_no_profile_changes_nothing() {
    let mut machine = running("test");
    for (text, words) in [
        ("", "empty"),
        ("wasmtime-48", "no engine profile"),
        (&ours().as_str().replace("fuel-1", "fuel-2"), "checksum"),
    ] {
        let before = machine.info();
        let reply = apply(&mut machine, 0, set_engine(text)).reply;
        let Reply::EngineRefused(reason) = &reply else { panic!("{reply:?}") };
        assert!(reason.contains(words), "{reason}");
        let applied = before.applied.next();
        assert_eq!(machine.info(), MachineInfo { applied, ..before });
    }
    let reply = apply(&mut machine, 0, set_engine(ours().as_str())).reply;
    assert_eq!(reply, Reply::EngineSet { engine: ours(), previous: ours() });
    apply(&mut machine, 0, command(b"goes on"));
}

#[test]
fn a_snapshot_without_a_profile_or_with_nonsense_for_one_is_none() {
    let mut machine = new_machine();
    let bytes = snapshot(&mut machine);
    let header = crate::machine::records::read_record(&mut &bytes[12..], 1 << 20).unwrap();
    let mut changed = stored::SnapshotHeader::decode(header.as_slice()).unwrap();
    assert_eq!(changed.engine, ours().as_str());
    let with_header = |changed: &stored::SnapshotHeader| {
        let mut changed_bytes = bytes[..12].to_vec();
        crate::machine::records::write_message(&mut changed_bytes, changed).unwrap();
        changed_bytes.extend_from_slice(&bytes[12 + 8 + header.len()..]);
        changed_bytes
    };
    assert_eq!(restore(&with_header(&changed)).unwrap().info(), machine.info());
    let refused = restore_with(&with_header(&changed), offering(&[theirs()])).err().unwrap();
    assert!(matches!(refused, RestoreError::Program(_)), "{refused}");
    for nonsense in ["", "nonsense"] {
        changed.engine = nonsense.to_owned();
        let refused = restore(&with_header(&changed)).err().unwrap();
        assert!(matches!(refused, RestoreError::Invalid(_)), "{refused}");
    }
}

/// Whoever changes one of them changes what entries do, and must say so in the engine profile.
#[test]
fn these_are_the_constants_of_the_version_that_the_profile_names() {
    assert_eq!(MACHINE_VERSION, 1, "a version that this test does not know: pin its constants");
    let sizes = [
        modules::CHUNK_MAX_BYTES,
        modules::UPLOADS_MAX,
        modules::STAGED_MAX,
        modules::HISTORY_MAX,
        modules::LABEL_MAX_BYTES,
        calls::QUOTE_MAX_BYTES,
        receipts::RECEIPTS_MAX,
        receipts::ALLOWANCES_MAX,
        receipts::ALLOWANCE_MAX_BYTES,
    ];
    assert_eq!(sizes, [1 << 20, 2, 2, 1_024, 256, 1_024, 64, 64, 128]);
    assert_eq!([kept::EXECUTED_OVERHEAD_BYTES, way_back::FORK_TTL_MS], [256, 3_600_000]);
    let amounts = [modules::UPLOAD_TTL_MS, clock::TIME_MAX_MS, sessions::RESPONSE_OVERHEAD_BYTES];
    assert_eq!(amounts, [3_600_000, 253_402_300_799_999, 64]);
    // Kept in snapshots; of new clusters.
    let SessionLimits {
        sessions_max,
        ttl_default_ms,
        ttl_min_ms,
        ttl_max_ms,
        responses_max,
        responses_max_bytes,
        total_max_bytes,
    } = SessionLimits::default();
    let bounds = [sessions_max, ttl_default_ms, ttl_min_ms, ttl_max_ms, responses_max];
    assert_eq!(bounds, [10_000, 600_000, 1_000, 86_400_000, 4_096]);
    assert_eq!([responses_max_bytes, total_max_bytes], [16 << 20, 256 << 20]);
}
