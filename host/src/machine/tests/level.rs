//! The level that is raised at an index of the log, and never lowered.

use std::sync::Arc;

#[cfg(feature = "museum")]
use bytes::Bytes;

use super::*;
use crate::fsm::{Offering, SharedLoader};
#[cfg(feature = "museum")]
use crate::machine::rehearsal;
use crate::machine::{RestoreError, Unsupported};
use crate::types::Level;

fn offering(level: Level) -> SharedLoader {
    Arc::new(Offering { loader: loader(), profiles: Vec::new(), level })
}

fn restore_with(mut bytes: &[u8], loader: SharedLoader) -> Result<Machine, RestoreError> {
    Machine::restore(&mut bytes, CLUSTER, GroupId::MAIN, loader)
}

fn set_level(level: u32) -> Body {
    Body::SetLevel(stored::SetLevel { level })
}

fn level_set(level: u32, previous: u32) -> Reply {
    Reply::LevelSet { level: Level(level), previous: Level(previous) }
}

#[test]
fn a_new_cluster_has_the_level_of_its_first_program() {
    let machine = Machine::new(CLUSTER, GroupId::MAIN, Limits::default(), offering(Level(7)));
    assert_eq!(machine.info().level, Level(7));
    assert_eq!(new_machine().level(), Level::CURRENT);
}

/// What `proto/contract.txt` says of the fields that are persisted.
#[test]
fn this_program_offers_the_level_of_the_newest_field() {
    let contract = include_str!("../../../../proto/contract.txt");
    let levels = contract.lines().filter_map(|line| line.split_once(" at level "));
    let newest = levels.map(|(_, level)| level.parse::<Level>().expect("a number")).max();
    assert_eq!(newest, Some(Level::CURRENT));
}

#[test]
fn it_is_raised_never_lowered_and_whoever_does_not_offer_it_applies_nothing_more() {
    let mut machine = restore_with(&snapshot(&mut busy_machine()), offering(Level(5))).unwrap();
    assert_eq!(apply(&mut machine, 50, set_level(3)).reply, level_set(3, 1));
    for lower in [0, 1, 3] {
        assert_eq!(apply(&mut machine, 50, set_level(lower)).reply, level_set(3, 3));
    }
    apply(&mut machine, 50, command(b"goes on"));
    assert_eq!(apply(&mut machine, 50, set_level(6)).reply, level_set(6, 3));
    let unsupported = Unsupported::Level { wanted: Level(6), offered: Level(5) };
    assert_eq!(machine.program_supported(), Err(unsupported));
    let failure = apply_data(&mut machine, Vec::new()).unwrap_err().to_string();
    assert!(failure.contains("level is 6, and this program offers 5"), "{failure}");

    let bytes = snapshot(&mut machine);
    let refused = restore_with(&bytes, offering(Level(5))).err().unwrap();
    assert!(matches!(refused, RestoreError::Program(Unsupported::Level { .. })), "{refused}");
    let words = refused.to_string();
    assert!(words.contains("a level is never lowered"), "{words}");
    let mut restored = restore_with(&bytes, offering(Level(9))).unwrap();
    assert_eq!(restored.info(), machine.info());
    apply(&mut restored, 50, command(b"goes on"));
}

#[test]
fn the_level_is_part_of_the_state() {
    let mut machine = restore_with(&snapshot(&mut busy_machine()), offering(Level(2))).unwrap();
    let mut other = restore_with(&snapshot(&mut machine), offering(Level(2))).unwrap();
    apply(&mut machine, 50, set_level(2));
    apply(&mut other, 50, set_level(1));
    let point = machine.applied_index();
    let digest = |machine: &mut Machine| machine.take_digest(point).unwrap().digest;
    assert_ne!(digest(&mut machine), digest(&mut other));
}

#[test]
fn a_snapshot_without_a_level_is_none() {
    let bytes = snapshot(&mut new_machine());
    let header = crate::machine::records::read_record(&mut &bytes[12..], 1 << 20).unwrap();
    let mut changed = stored::SnapshotHeader::decode(header.as_slice()).unwrap();
    changed.level = 0;
    let mut changed_bytes = bytes[..12].to_vec();
    crate::machine::records::write_message(&mut changed_bytes, &changed).unwrap();
    changed_bytes.extend_from_slice(&bytes[12 + 8 + header.len()..]);
    let refused = restore(&changed_bytes).err().unwrap();
    assert!(matches!(refused, RestoreError::Invalid(_)), "{refused}");
}

/// What a later program writes into entries counts from its level on, and stops whoever does not
/// know it at any level.
#[cfg(feature = "museum")]
#[test]
fn a_field_of_the_next_level_counts_there_and_is_never_passed_over() {
    let entry = stored::Entry { time_ms: 50, actor: None, body: Some(command(b"more")) };
    let entry = Bytes::from(entry.encode_to_vec());
    let longer = rehearsal::put(entry.clone(), rehearsal::NEXT);
    assert_eq!(rehearsal::put(entry.clone(), Level::CURRENT), entry);
    assert_ne!(longer, entry);

    let bytes = snapshot(&mut busy_machine());
    for offered in [Level::CURRENT, rehearsal::NEXT] {
        // The level is not raised: no program may know it.
        let mut machine = restore_with(&bytes, offering(offered)).unwrap();
        let failure = apply_data(&mut machine, longer.to_vec()).unwrap_err().to_string();
        assert!(failure.contains("what this version of raft-host does not know"), "{failure}");
    }
    let raised = || {
        let mut machine = restore_with(&bytes, offering(rehearsal::NEXT)).unwrap();
        apply(&mut machine, 50, set_level(rehearsal::NEXT.0));
        machine
    };
    let (mut with, mut without) = (raised(), raised());
    apply_data(&mut with, longer.to_vec()).unwrap();
    apply_data(&mut without, entry.to_vec()).unwrap();
    assert_eq!(with.info(), without.info());
    assert_ne!(snapshot(&mut with), snapshot(&mut without), "it went into the running hash");
}
