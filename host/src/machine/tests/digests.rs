//! Digest points and verdicts: equal exactly when the state is.

use super::super::test_fsm::WHIM;
use super::*;
use crate::machine::modules::Upload;
use crate::types::{JoinNonce, StateDigest};

fn point() -> Body {
    Body::DigestPoint(stored::DigestPoint {})
}

/// Applies a digest point and returns what was found.
fn take(machine: &mut Machine) -> TakenDigest {
    let reply = apply(machine, 0, point()).reply;
    let index = machine.applied_index();
    let taken = machine.taken_digest(index).expect("just taken").clone();
    assert_eq!(reply, Reply::DigestTaken { index, digest: taken.digest });
    taken
}

/// A machine with some of everything, at the same index each time.
fn full() -> Machine {
    let mut machine = running("test");
    apply(&mut machine, 5, open_session(0));
    let session = machine.applied_index().0;
    for sequence in 1..=3 {
        apply(&mut machine, 6, in_session(b"do", session, sequence, 1));
    }
    apply(&mut machine, 7, chunk(b"test upload", 0, 4));
    apply(&mut machine, 8, chunk(b"test staged", 0, 11));
    machine
}

#[test]
fn the_same_log_gives_the_same_digests_also_through_a_snapshot() {
    let (mut straight, mut restored) = (full(), full());
    assert_eq!(take(&mut straight), take(&mut restored));
    for round in 0..3 {
        let mut fresh = restore(&snapshot(&mut restored)).expect("its own snapshot");
        assert_eq!(fresh.taken_digest(fresh.applied_index()), None, "not part of the state");
        for machine in [&mut straight, &mut fresh] {
            apply(machine, 9, command(b"more"));
            apply(machine, 9, in_session(b"again", 4, 4 + round, 2));
        }
        let (one, other) = (take(&mut straight), take(&mut fresh));
        assert_eq!(
            (one.digest, one.machine, one.guest),
            (other.digest, other.machine, other.guest)
        );
        restored = fresh;
    }
}

#[test]
fn a_digest_between_two_points_hides_no_change_from_the_second() {
    let (mut plain, mut asked) = (full(), full());
    for machine in [&mut plain, &mut asked] {
        take(machine);
        apply(machine, 9, command(b"more"));
    }
    let between = asked.digest_now().unwrap();
    assert_eq!(between, asked.digest_now().unwrap());
    for machine in [&mut plain, &mut asked] {
        apply(machine, 9, command(b"and more"));
    }
    assert_eq!(take(&mut plain), take(&mut asked));
    assert_eq!(asked.taken_digest(Index(asked.applied_index().0 - 2)), None, "it was no point");
}

/// Nobody kept the answer, and no state tells of fuel or events.
#[test]
fn replicas_whose_answers_fuel_or_events_differ_have_other_digests_though_their_states_are_equal() {
    for what in ["whim-answer", "whim-fuel", "whim-event"] {
        let taken = [0, 0, 1].map(|whim| {
            let mut machine = full();
            WHIM.set(whim);
            apply(&mut machine, 9, command(what.as_bytes()));
            WHIM.set(0);
            apply(&mut machine, 9, command(b"more"));
            take(&mut restore(&snapshot(&mut machine)).expect("its own snapshot"))
        });
        assert_eq!(taken[0].digest, taken[1].digest, "{what}");
        assert_ne!(taken[0].digest, taken[2].digest, "{what}");
        assert_eq!(taken[0].guest, taken[2].guest, "{what}");
    }
}

#[test]
fn a_digest_of_a_session_follows_its_changes() {
    let mut machine = full();
    let before = take(&mut machine);
    let session = 4;
    assert!(matches!(
        apply(&mut machine, 8, in_session(b"do", session, 9, 1)).reply,
        Reply::Command(Outcome::Ok(_))
    ));
    let past = machine.state.past;
    let after = take(&mut machine);
    assert_ne!(before.machine, after.machine);
    // From nothing but what the state holds: no cache survives a restore.
    let index = machine.applied_index();
    let mut fresh = restore(&snapshot(&mut machine)).expect("its own snapshot");
    (fresh.state.applied, fresh.state.past) = (Index(index.0 - 1), past);
    assert_eq!(take(&mut fresh).machine, after.machine);
}

#[test]
fn every_part_of_the_state_counts() {
    let reference = take(&mut full());
    let differs = |what: &str, change: &dyn Fn(&mut Machine)| {
        let mut machine = full();
        change(&mut machine);
        let taken = take(&mut machine);
        assert_ne!(taken.digest, reference.digest, "{what}");
        assert_ne!(taken.machine, reference.machine, "{what}");
        assert_eq!(taken.guest, reference.guest, "{what}");
    };
    differs("what came out", &|machine| {
        let applied = Applied::without_guest(Reply::Nothing);
        machine.state.past.advance(Position::first(Index(1)), &applied);
    });
    differs("time", &|machine| machine.state.time_ms += 1);
    differs("limits", &|machine| machine.state.limits.apply_fuel += 1);
    differs("members", &|machine| {
        let member = Member { id: NodeId(1), address: "elsewhere:1".to_owned() };
        let conf_state = machine.state.membership.conf_state.clone();
        machine.state.membership.set([member], conf_state);
    });
    differs("a join", &|machine| {
        machine.state.membership.joins.insert(NodeId(1), JoinNonce([1; 16]));
    });
    differs("configuration", &|machine| {
        machine.state.membership.conf_state.auto_leave = true;
    });
    differs("a session gone", &|machine| machine.state.sessions.remove(4));
    differs("a session more", &|machine| {
        machine.state.sessions.open(Index(5), 5, &<_>::default(), None).unwrap();
    });
    differs("a response gone", &|machine| {
        let session =
            stored::SessionCommand { session_id: 4, sequence: 9, acknowledged: 2, skip: false };
        machine.state.sessions.begin(&session, [0; 16], Index(7), 6);
    });
    differs("a response more", &|machine| {
        machine.state.sessions.complete(4, 9, [0; 16], &Outcome::Ok(b"x".to_vec()));
    });
    differs("an ordered session", &|machine| {
        machine.state.sessions.remove(4);
        let request = stored::OpenSession { ttl_ms: 0, ordered: true };
        machine.state.sessions.open(Index(4), 5, &request, None).unwrap();
    });
    differs("an upload gone", &|machine| machine.state.modules.uploads.clear());
    differs("an upload's bytes", &|machine| {
        for upload in machine.state.modules.uploads.values_mut() {
            let mut received = upload.received().to_vec();
            received[0] ^= 1;
            *upload = Upload::resume(upload.total, upload.last_chunk, false, received);
        }
    });
    differs("an upload's time", &|machine| {
        for upload in machine.state.modules.uploads.values_mut() {
            upload.last_chunk.time_ms += 1;
        }
    });
    differs("a module's label", &|machine| {
        for module in machine.state.modules.stored.values_mut() {
            module.label.push('x');
        }
    });
    differs("the history", &|machine| {
        std::sync::Arc::make_mut(&mut machine.state.modules.history)[0].time_ms += 1;
    });
    differs("the previous module", &|machine| {
        machine.state.modules.previous = Some(ModuleHash([1; 32]));
    });
}

#[test]
fn the_guest_counts_and_so_does_having_none() {
    let reference = take(&mut full());
    let mut machine = full();
    let mut other = running("test v=2");
    let past = machine.state.past;
    std::mem::swap(&mut machine.fsm, &mut other.fsm);
    let taken = take(&mut machine);
    assert_eq!(taken.machine, reference.machine);
    assert_ne!(taken.guest, reference.guest);
    assert_ne!(taken.digest, reference.digest);
    machine.fsm = None;
    (machine.state.applied, machine.state.past) = (Index(reference.index.0 - 1), past);
    let without = take(&mut machine);
    assert_eq!((without.machine, without.guest), (reference.machine, None));
    assert_ne!(without.digest, reference.digest);
}

#[test]
fn the_latest_digests_are_kept_and_a_point_changes_nothing_else() {
    let mut machine = full();
    let before = machine.info();
    let points: Vec<TakenDigest> = (0..20).map(|_| take(&mut machine)).collect();
    let oldest = points.iter().position(|taken| machine.taken_digest(taken.index).is_some());
    assert_eq!(oldest, Some(12));
    let after = machine.info();
    assert_eq!(
        (before.sessions, before.time_ms, before.limits),
        (after.sessions, after.time_ms, after.limits)
    );
}

#[test]
fn a_verdict_is_answered_with_what_it_says_and_a_broken_one_is_refused() {
    let mut machine = running("test");
    let taken = take(&mut machine);
    let vote = |node_id, digest: StateDigest| stored::DigestVote {
        node_id,
        digest: digest.0.to_vec().into(),
    };
    let judged = |machine: &mut Machine, votes| {
        let verdict = stored::DigestVerdict { index: taken.index.0, votes };
        apply(machine, 0, Body::DigestVerdict(verdict)).reply
    };
    // Node 1 is the only voter.
    let votes = vec![vote(1, taken.digest), vote(2, StateDigest([9; 32]))];
    match judged(&mut machine, votes) {
        Reply::DigestJudged(verdict) => {
            assert_eq!(verdict.at, machine.applied_index());
            assert_eq!(verdict.truth, Some(taken.digest));
            assert_eq!(verdict.differing().collect::<Vec<_>>(), [NodeId(2)]);
        }
        other => panic!("expected a verdict, got {other:?}"),
    }
    let broken = vec![stored::DigestVote { node_id: 1, digest: vec![1; 5].into() }];
    let refusal = judged(&mut machine, broken);
    assert!(matches!(refusal, Reply::Refused(CommandRefused::Malformed(_))), "{refusal:?}");
}
