//! What is kept for a way back, in snapshots and in the digest.

use super::*;

#[test]
fn what_is_kept_survives_its_snapshot_and_damage_anywhere_is_noticed() {
    let mut machine = full();
    let bytes = snapshot(&mut machine);
    let mut restored = restore(&bytes).unwrap();
    assert_eq!(restored.info(), machine.info());
    assert_eq!(snapshot(&mut restored), bytes);
    assert_eq!(digest(&mut restored), digest(&mut machine));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(restore(&bad).is_err(), "byte {at} of {}", bytes.len());
    }
    for end in 0..bytes.len() {
        assert!(restore(&bytes[..end]).is_err(), "cut at {end} of {}", bytes.len());
    }
}

/// Damage that comes with right checksums, as a bug or a forger would make it.
#[test]
fn what_a_snapshot_says_of_the_past_is_not_believed() {
    let bytes = {
        let mut machine = full();
        snapshot(&mut machine)
    };
    let header: stored::SnapshotHeader =
        crate::machine::records::read_message(&mut &bytes[12..], 1 << 20).unwrap();
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize + 8;
    let with = |change: &dyn Fn(&mut stored::SnapshotHeader)| {
        let mut header = header.clone();
        change(&mut header);
        let mut changed = bytes[..12].to_vec();
        crate::machine::records::write_message(&mut changed, &header).unwrap();
        changed.extend_from_slice(&bytes[12 + length..]);
        restore(&changed).map(drop)
    };
    with(&|_| {}).unwrap();
    fn kept(header: &mut stored::SnapshotHeader) -> &mut stored::SnapshotKept {
        header.kept.as_mut().unwrap()
    }
    fn fork(header: &mut stored::SnapshotHeader) -> &mut stored::SnapshotKept {
        header.fork.as_mut().unwrap()
    }
    type Change<'a> = (&'a str, &'a dyn Fn(&mut stored::SnapshotHeader));
    let changes: [Change<'_>; 16] = [
        ("another module", &|it| kept(it).module_hash = fork(it).next_module.clone()),
        ("no module", &|it| kept(it).module_hash = Bytes::new()),
        ("to come", &|it| kept(it).index = it.applied_index),
        ("over", &|it| kept(it).expires_ms = it.time_ms),
        ("kept later", &|it| kept(it).time_ms = it.time_ms + 1),
        ("another state", &|it| kept(it).guest_digest = vec![0; 32].into()),
        ("fewer", &|it| kept(it).command_count -= 1),
        ("more", &|it| kept(it).command_count += 1),
        ("other bytes", &|it| kept(it).command_bytes += 1),
        ("too many bytes", &|it| kept(it).command_bytes = u64::MAX),
        ("other commands", &|it| kept(it).commands_digest = vec![0; 32].into()),
        ("of a fork", &|it| kept(it).next_module = it.fork.as_ref().unwrap().next_module.clone()),
        ("another module's", &|it| fork(it).module_hash = it.previous_module.clone()),
        ("for nobody", &|it| fork(it).next_module = vec![9; 32].into()),
        ("receipts", &|it| it.receipts.push(it.receipts[0].clone())),
        ("rules", &|it| it.rules_changed_at = it.applied_index + 1),
    ];
    for (what, change) in changes {
        assert!(matches!(with(change), Err(RestoreError::Invalid(_))), "{what}");
    }
    assert!(with(&|it| it.kept = None).is_err());
}

#[test]
fn each_part_of_what_is_kept_counts_in_the_digest() {
    let reference = digest(&mut full());
    let differs = |what: &str, change: &dyn Fn(&mut Machine)| {
        let mut machine = full();
        change(&mut machine);
        assert_ne!(digest(&mut machine), reference, "{what}");
    };
    differs("way back", &|it| it.state.kept = None);
    differs("its state", &|it| it.state.kept.as_mut().unwrap().guest = StateDigest([1; 32]));
    differs("its time", &|it| it.state.kept.as_mut().unwrap().expires_ms += 1);
    differs("fork", &|it| it.state.fork = None);
    differs("whom it is for", &|it| it.state.fork.as_mut().unwrap().next = ModuleHash([1; 32]));
    differs("a command", &|it| {
        let commands = &mut it.state.kept.as_mut().unwrap().commands;
        let last = commands.iter().last().unwrap().clone();
        commands.push(last);
    });
    differs("receipts", &|it| it.state.receipts = Default::default());
    differs("rules", &|it| it.state.rules_changed_at = Index(1));
    differs("what a state is", &|it| {
        let state = ModuleHash::of(b"state");
        it.state.modules.stored.get_mut(&state).unwrap().is_state = false;
    });
    assert_eq!(digest(&mut full()), reference);
}
