//! Beginning with a backup, or with an exported state.

use super::super::incarnation::ORIGINS_MAX;
use super::*;
use crate::types::{LogPosition, Origin, Term};

const OTHER: ClusterId = ClusterId([8; 16]);

fn founder() -> Member {
    Member { id: FOUNDER, address: "10.9.9.9:7400".to_owned() }
}

fn origin(machine: &Machine) -> Origin {
    let position = LogPosition { index: machine.applied_index(), term: Term(5) };
    Origin { cluster: CLUSTER, position, time_ms: machine.time_ms() }
}

#[test]
fn a_new_incarnation_has_the_state_and_nobody_of_the_old_one() {
    let mut machine = busy_machine();
    let (state, origin) = (guest_state(&mut machine), origin(&machine));
    let session = machine.state.sessions.iter().next().expect("it has some").0;
    let old = machine.digest_now().unwrap();
    let position = machine.reincarnate(OTHER, founder(), origin).expect("there is an index");
    assert_eq!(position, LogPosition { index: Index(INCARNATION), term: Term(6) });
    assert_eq!(machine.applied_index(), position.index);
    assert_eq!(guest_state(&mut machine), state);
    assert_eq!(machine.members().values().cloned().collect::<Vec<_>>(), [founder()]);
    assert_eq!(machine.conf_state().voters, [FOUNDER].into());
    assert!(machine.joins().is_empty() && machine.state.modules.uploads.is_empty());
    assert_ne!(machine.digest_now().unwrap(), old);
    // What a client of the old cluster holds means nothing here.
    let reply = apply(&mut machine, 50, in_session(b"b", session, 9, 0)).reply;
    assert!(matches!(reply, Reply::Refused(CommandRefused::SessionExpired)), "{reply:?}");
    apply(&mut machine, 50, open_session(0));
    let opened = machine.state.sessions.iter().next().expect("just opened").0;
    assert_eq!(opened, INCARNATION + 2, "no session of before has this id");

    // It survives its own snapshots, and a second time.
    let bytes = snapshot(&mut machine);
    let read = |cluster| Machine::restore(&mut &bytes[..], cluster, GroupId::MAIN, loader());
    assert!(matches!(read(CLUSTER), Err(RestoreError::WrongCluster { .. })));
    let mut again = read(OTHER).expect("its own snapshot");
    assert_eq!(again.info().origins[..], [origin]);
    assert_eq!(again.digest_now().unwrap(), machine.digest_now().unwrap());
    let position = LogPosition { index: again.applied_index(), term: Term(7) };
    let second = Origin { cluster: OTHER, position, time_ms: 50 };
    let begin = again.reincarnate(CLUSTER, founder(), second).expect("there is an index");
    assert_eq!(begin.index, Index(2 * INCARNATION));
    assert_eq!(again.info().origins[..], [origin, second]);
    for _ in 0..ORIGINS_MAX {
        again.reincarnate(CLUSTER, founder(), second).expect("there is an index");
    }
    assert_eq!(again.info().origins[..], [second; ORIGINS_MAX]);
    let position = LogPosition { index: Index(u64::MAX), term: Term(7) };
    let last = Origin { position, ..second };
    assert!(again.reincarnate(OTHER, founder(), last).is_err());
}

#[test]
fn what_a_guest_exports_a_new_cluster_imports() {
    let mut machine = running("test");
    apply(&mut machine, 10, command(b"a"));
    let state = guest_state(&mut machine);
    let exported = machine.capture().unwrap().export(&loader()).expect("it can");
    assert_eq!((exported.index, exported.label.as_str()), (machine.applied_index(), "test"));
    assert_eq!(guest_state(&mut machine), state, "a copy wrote it");

    let import = |module: &'static str| Import {
        time_ms: 77,
        module: module.as_bytes().into(),
        label: "two".to_owned(),
        portable: exported.bytes.clone().into_vec().into(),
    };
    let mut fresh = new_machine();
    let refused = fresh.import(&import("test restore=reject")).unwrap_err().to_string();
    assert!(refused.contains("`restore` of the module refused"), "{refused}");
    assert!(matches!(fresh.capture().unwrap().export(&loader()), Err(PortableError::NoModule)));
    fresh.import(&import("test v=2")).expect("it takes that state");
    assert_eq!(guest_state(&mut fresh), state);
    assert_eq!(fresh.time_ms(), 77);
    let active = fresh.info().active.expect("imported");
    assert_eq!((active.label.as_str(), active.activated_at), ("two", fresh.applied_index()));
    let mut again = restore(&snapshot(&mut fresh)).expect("its own snapshot");
    for machine in [&mut fresh, &mut again] {
        apply(machine, 80, command(b"more"));
    }
    assert_eq!(fresh.digest_now().unwrap(), again.digest_now().unwrap());

    let mut stuck = running("test snapshot=trap");
    let failed = stuck.capture().unwrap().export(&loader()).unwrap_err().to_string();
    assert!(failed.contains("`snapshot` of the module"), "{failed}");
}
