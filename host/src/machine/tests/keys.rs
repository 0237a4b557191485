//! Signatures that modules need, and the keys that make them.

use super::*;
use crate::museum::{self, Exhibit};
use crate::signing::{ModuleSignature, SecretKey, Statement};
use crate::types::ActorName;

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn add(seed: u8) -> KeyChange {
    let name: ActorName = format!("key-{seed}").parse().unwrap();
    KeyChange::Add(secret(seed).public(), name)
}

fn revoke(seed: u8) -> KeyChange {
    KeyChange::Revoke(secret(seed).public())
}

fn set(machine: &mut Machine, changes: &[KeyChange]) -> Reply {
    let changes = changes.iter().copied().map(KeyChange::to_log).collect();
    apply(machine, 0, Body::SetKeys(stored::SetKeys { changes })).reply
}

fn refused(reply: Reply) -> String {
    match reply {
        Reply::KeysRefused(reason) | Reply::NotSigned(reason) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn sign(seed: u8, cluster: Option<ClusterId>, module: &str, label: &str) -> ModuleSignature {
    let module = ModuleHash::of(module.as_bytes());
    ModuleSignature::make(&secret(seed), &Statement { cluster, module, label })
}

/// For any cluster, under the label that `activate` gives.
fn plain(seed: u8, module: &str) -> ModuleSignature {
    sign(seed, None, module, module)
}

fn activation(machine: &Machine, module: &str, signatures: &[ModuleSignature]) -> Body {
    let Body::ActivateModule(mut request) = activate(machine, module.as_bytes()) else {
        unreachable!("it is one");
    };
    request.signatures = signatures.iter().map(signature_to_log).collect();
    Body::ActivateModule(request)
}

fn upload(machine: &mut Machine, module: &str) {
    let module = module.as_bytes();
    apply(machine, 0, chunk(module, 0, module.len()));
}

/// Uploads and activates.
fn bring(machine: &mut Machine, module: &str, signatures: &[ModuleSignature]) -> Reply {
    upload(machine, module);
    let body = activation(machine, module, signatures);
    apply(machine, 0, body).reply
}

fn is_active(machine: &Machine, module: &str) -> bool {
    machine.active_module().is_some_and(|(hash, _)| hash == ModuleHash::of(module.as_bytes()))
}

#[test]
fn without_keys_nothing_is_asked_and_nothing_is_written() {
    let mut machine = running("test");
    let before = snapshot(&mut machine);
    assert_eq!(stored::SnapshotHeader::default().keys, None);
    assert!(machine.info().keys.all().is_empty());
    assert_eq!(machine.state.keys.to_record(), None);
    assert_eq!(snapshot(&mut restore(&before).unwrap()), before);
    // What is signed by nobody in particular is no worse than what is not signed.
    assert!(matches!(bring(&mut machine, "test-other", &[plain(1, "x")]), Reply::Activated { .. }));
    assert_eq!(machine.info().history.last().unwrap().signers, []);
}

#[test]
fn keys_and_threshold_are_changed_all_or_none_and_never_beyond_what_can_be_met() {
    let mut machine = running("test");
    let Reply::KeysSet(keys) = set(&mut machine, &[add(1), add(2), KeyChange::Threshold(2)]) else {
        panic!("it can be");
    };
    assert_eq!((keys.threshold(), keys.all().len(), keys.trusted()), (2, 2, 2));
    let before = machine.info().keys;
    for (changes, words) in [
        (&[][..], "1 to 128 changes"),
        (&[add(3), add(3)], "trusted already"),
        (&[add(3), add(1)], "trusted already"),
        (&[revoke(3)], "there is no key"),
        (&[revoke(1)], "lower the threshold with the same change"),
        (&[KeyChange::Threshold(3)], "2 would be trusted"),
        (&[KeyChange::Threshold(17)], "at most 16 signatures"),
        (&[KeyChange::Threshold(u32::MAX)], "at most 16 signatures"),
        (&[add(3), revoke(3), add(3)], "never trusted again"),
        (&[add(3), revoke(3), revoke(3)], "revoked before"),
        (&[KeyChange::Threshold(0); 129], "not 129"),
    ] {
        let reason = refused(set(&mut machine, changes));
        assert!(reason.contains(words), "{reason:?} should contain {words:?}");
        assert_eq!(machine.info().keys, before, "{words}");
    }
    // The order within one change does not matter for the threshold.
    assert!(matches!(set(&mut machine, &[revoke(1), KeyChange::Threshold(1)]), Reply::KeysSet(_)));
    let index = machine.applied_index();
    assert_eq!(machine.info().keys.all()[0].revoked_at, Some(index));
    assert!(refused(set(&mut machine, &[add(1)])).contains("never trusted again"));
    for seed in 3..=64 {
        assert!(matches!(set(&mut machine, &[add(seed)]), Reply::KeysSet(_)), "{seed}");
    }
    assert!(refused(set(&mut machine, &[add(65)])).contains("64 keys"));
}

#[test]
fn what_is_no_key_or_no_name_is_refused_and_an_unknown_change_stops_the_node() {
    use stored::key_change::Change;
    let mut machine = running("test");
    let mut changed = |change: Option<Change>| {
        let changes = vec![stored::KeyChange { change }];
        let body = Some(Body::SetKeys(stored::SetKeys { changes }));
        apply_data(&mut machine, stored::Entry { body, ..Default::default() }.encode_to_vec())
    };
    let key = |name: &str, bytes: &[u8]| {
        let public_key = Bytes::copy_from_slice(bytes);
        Some(Change::Add(stored::PublisherKey { public_key, name: name.to_owned() }))
    };
    let good = secret(1).public().to_bytes();
    for (change, words) in [
        (key("test-a", &good[..31]), "32 bytes"),
        (key("test-a", &[0; 32]), "cannot be trusted"),
        (key("a b", &good), "no name"),
        (key("", &good), "no name"),
        (Some(Change::Revoke(Bytes::new())), "32 bytes"),
    ] {
        let reason = refused(only(changed(change).unwrap()).reply);
        assert!(reason.contains(words), "{reason:?} should contain {words:?}");
    }
    assert!(changed(None).unwrap_err().to_string().contains("does not know"));
}

#[test]
fn a_module_needs_as_many_signatures_as_the_threshold_says() {
    let mut machine = running("test");
    set(&mut machine, &[add(1), add(2), add(3), KeyChange::Threshold(2)]);
    let other = Some(ClusterId([8; 16]));
    let mut damaged = plain(2, "test-new");
    damaged.signature[40] ^= 1;
    let state = guest_state(&mut machine);
    for (signatures, words) in [
        (vec![], vec!["is not signed", "the signatures of 2 keys"]),
        (vec![plain(1, "test-new")], vec!["has 1 of 2"]),
        (vec![plain(1, "test-new"), plain(1, "test-new")], vec!["has 1 of 2"]),
        (
            vec![plain(1, "test-new"), sign(1, Some(CLUSTER), "test-new", "test-new")],
            vec!["has 1 of 2"],
        ),
        (
            vec![plain(1, "test-new"), plain(9, "test-new")],
            vec!["has 1 of 2", "not one of its keys"],
        ),
        (
            vec![plain(1, "test-new"), sign(2, other, "test-new", "test-new")],
            vec!["for cluster 0808"],
        ),
        (
            vec![plain(1, "test-new"), sign(2, None, "test-new", "old")],
            vec!["for the label \"old\""],
        ),
        (
            vec![plain(1, "test-new"), sign(2, None, "old", "test-new")],
            vec!["not one of this module"],
        ),
        (vec![plain(1, "test-new"), damaged], vec!["has 1 of 2", "not one of this module"]),
    ] {
        let reason = refused(bring(&mut machine, "test-new", &signatures));
        for words in words {
            assert!(reason.contains(words), "{reason:?} should contain {words:?}");
        }
        assert!(is_active(&machine, "test"));
        assert_eq!(guest_state(&mut machine), state);
        // The door comes to the same words.
        let hash = ModuleHash::of(b"test-new");
        assert_eq!(machine.info().check_signed(hash, "test-new", &signatures), Err(reason));
    }
    // One fits for this cluster, one for any; what does not fit besides does no harm.
    let signatures = [
        plain(9, "test-new"),
        sign(1, Some(CLUSTER), "test-new", "test-new"),
        plain(3, "test-new"),
        plain(2, "x"),
    ];
    assert!(matches!(bring(&mut machine, "test-new", &signatures), Reply::Activated { .. }));
    let mut signers = vec![secret(1).public(), secret(3).public()];
    signers.sort_unstable();
    assert_eq!(machine.info().history.last().unwrap().signers, signers);
}

#[test]
fn more_signatures_than_there_may_be_or_none_at_all_are_refused() {
    let mut machine = running("test");
    let many = vec![plain(1, "test-new"); 17];
    let Reply::ActivationFailed(reason) = bring(&mut machine, "test-new", &many) else {
        panic!("they are too many");
    };
    assert!(reason.contains("at most 16"), "{reason}");
    let Body::ActivateModule(mut request) = activate(&machine, b"test-new") else { unreachable!() };
    request.signatures = vec![stored::ModuleSignature::default()];
    let reply = apply(&mut machine, 0, Body::ActivateModule(request)).reply;
    assert!(matches!(reply, Reply::ActivationFailed(_)), "{reply:?}");
}

#[test]
fn going_back_asks_todays_keys_about_the_signatures_of_then() {
    let mut machine = running("test");
    set(&mut machine, &[add(1), add(2), KeyChange::Threshold(1)]);
    assert!(matches!(
        bring(&mut machine, "test-a", &[plain(1, "test-a")]),
        Reply::Activated { .. }
    ));
    assert!(matches!(
        bring(&mut machine, "test-b", &[plain(2, "test-b")]),
        Reply::Activated { .. }
    ));
    // Without any signature in the request, also after a restart.
    let mut restarted = restore(&snapshot(&mut machine)).unwrap();
    for machine in [&mut machine, &mut restarted] {
        let body = activation(machine, "test-a", &[]);
        assert!(matches!(apply(machine, 0, body).reply, Reply::Activated { .. }));
        assert_eq!(machine.info().history.last().unwrap().signers, [secret(1).public()]);
    }
    assert_eq!(snapshot(&mut machine), snapshot(&mut restarted));
    assert!(matches!(set(&mut machine, &[revoke(2)]), Reply::KeysSet(_)));
    let body = activation(&machine, "test-b", &[]);
    let reason = refused(apply(&mut machine, 0, body).reply);
    assert!(reason.contains("(key-2) was revoked at index"), "{reason}");
    // What runs goes on, and a fresh signature lets the other one back.
    assert!(is_active(&machine, "test-a"));
    let body = activation(&machine, "test-b", &[plain(1, "test-b")]);
    assert!(matches!(apply(&mut machine, 0, body).reply, Reply::Activated { .. }));
    // What was active before there were keys was signed by nobody.
    assert!(refused(bring(&mut machine, "test", &[])).contains("is not signed"));
}

#[test]
fn no_more_signatures_are_kept_than_come_at_once() {
    let mut machine = running("test");
    let all: Vec<KeyChange> = (1..=40).map(add).collect();
    set(&mut machine, &all);
    for range in [1..=16, 17..=32, 25..=40] {
        let signatures: Vec<_> = range.clone().map(|seed| plain(seed, "test-a")).collect();
        assert!(matches!(bring(&mut machine, "test-a", &signatures), Reply::Activated { .. }));
        let mut expected: Vec<_> = range.map(|seed| secret(seed).public()).collect();
        expected.sort_unstable();
        assert_eq!(machine.info().history.last().unwrap().signers, expected);
        let bytes = snapshot(&mut machine);
        assert_eq!(snapshot(&mut restore(&bytes).unwrap()), bytes);
        bring(&mut machine, "test-b", &[]);
    }
}

#[test]
fn every_label_that_a_module_may_have_can_be_signed() {
    let label = "x".repeat(LABEL_MAX_BYTES);
    let longest = sign(1, None, "test-a", &label);
    let back = |signature: &ModuleSignature| {
        super::super::keys::signatures_from_log(&[signature_to_log(signature)])
    };
    assert_eq!(back(&longest), Ok(vec![longest.clone()]));
    assert!(back(&sign(1, None, "test-a", &format!("{label}x"))).is_err());
}

#[test]
fn a_revoked_key_is_refused_by_who_restored_a_snapshot_too() {
    let mut machine = running("test");
    set(&mut machine, &[add(1), add(2), KeyChange::Threshold(1)]);
    set(&mut machine, &[revoke(1)]);
    let bytes = snapshot(&mut machine);
    let mut restored = restore(&bytes).unwrap();
    assert_eq!(restored.info(), machine.info());
    assert_eq!(snapshot(&mut restored), bytes);
    let digests = [&mut machine, &mut restored].map(|machine| {
        let index = machine.applied_index();
        machine.take_digest(index).unwrap().digest
    });
    assert_eq!(digests[0], digests[1]);
    for machine in [&mut machine, &mut restored] {
        let reason = refused(bring(machine, "test-new", &[plain(1, "test-new")]));
        assert!(reason.contains("(key-1) was revoked at index"), "{reason}");
    }
    assert_eq!(snapshot(&mut restored), snapshot(&mut machine));
}

#[test]
fn digests_tell_keys_and_signatures_apart() {
    let digest = |changes: &[KeyChange], signatures: &[ModuleSignature]| {
        let mut machine = running("test");
        set(&mut machine, changes);
        bring(&mut machine, "test-new", signatures);
        let index = machine.applied_index();
        machine.take_digest(index).unwrap().digest
    };
    let both = [add(1), add(2)];
    let all = [
        digest(&both, &[plain(1, "test-new")]),
        digest(&both, &[plain(2, "test-new")]),
        digest(&both, &[sign(1, Some(CLUSTER), "test-new", "test-new")]),
        digest(&both, &[]),
        digest(&[add(2), add(1)], &[]),
        digest(&[add(1), add(2), KeyChange::Threshold(1)], &[plain(1, "test-new")]),
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn a_snapshot_with_keys_that_cannot_be_is_refused() {
    let mut machine = running("test");
    set(&mut machine, &[add(1), KeyChange::Threshold(1)]);
    let good = machine.state.keys.to_record().unwrap();
    assert_eq!(Keys::from_record(Some(&good)), Ok(machine.info().keys));
    let key = good.keys[0].clone();
    let short = stored::SnapshotKey { public_key: Bytes::new(), ..key.clone() };
    let nameless = stored::SnapshotKey { name: String::new(), ..key.clone() };
    for bad in [
        stored::SnapshotKeys { threshold: 2, ..good.clone() },
        stored::SnapshotKeys { keys: vec![key.clone(), key.clone()], ..good.clone() },
        stored::SnapshotKeys { keys: vec![short], ..good.clone() },
        stored::SnapshotKeys { keys: vec![nameless], ..good.clone() },
        stored::SnapshotKeys { keys: vec![key; 65], ..good },
    ] {
        assert!(Keys::from_record(Some(&bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn a_restored_cluster_keeps_its_keys_and_signatures_for_the_old_one_count_no_more() {
    let mut machine = running("test");
    set(&mut machine, &[add(1), KeyChange::Threshold(1)]);
    let here = sign(1, Some(CLUSTER), "test-a", "test-a");
    assert!(matches!(bring(&mut machine, "test-a", &[here]), Reply::Activated { .. }));
    assert!(matches!(
        bring(&mut machine, "test-b", &[plain(1, "test-b")]),
        Reply::Activated { .. }
    ));
    let origin = crate::types::Origin {
        cluster: CLUSTER,
        position: crate::types::LogPosition {
            index: machine.applied_index(),
            term: crate::types::Term(3),
        },
        time_ms: 0,
    };
    let founder = Member { id: FOUNDER, address: "127.0.0.1:7400".to_owned() };
    machine.reincarnate(ClusterId([9; 16]), founder, origin).unwrap();
    assert_eq!(machine.info().keys.threshold(), 1);
    let body = activation(&machine, "test-a", &[]);
    let reason = refused(apply(&mut machine, 0, body).reply);
    assert!(reason.contains("is for cluster 0707"), "{reason}");
    let body = activation(&machine, "test-a", &[plain(1, "test-a")]);
    assert!(matches!(apply(&mut machine, 0, body).reply, Reply::Activated { .. }));
}

#[cfg(feature = "museum")]
#[test]
fn the_museums_machine_takes_what_a_revoked_key_has_signed() {
    let mut machine = running("test");
    set(&mut machine, &[add(1), add(2), KeyChange::Threshold(1)]);
    set(&mut machine, &[revoke(1)]);
    refused(bring(&mut machine, "test-new", &[plain(1, "test-new")]));
    let _on = museum::exhibit(Some(Exhibit::RevokedKeyAccepted));
    assert!(matches!(
        bring(&mut machine, "test-new", &[plain(1, "test-new")]),
        Reply::Activated { .. }
    ));
}
