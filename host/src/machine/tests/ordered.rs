//! Sessions whose commands are executed in the order of their numbers.

use std::collections::BTreeMap;

use super::*;
use crate::machine::sessions::{SessionLimits, Sessions};

/// The session that `with_session` opens.
const ID: u64 = 4;

fn open_ordered(ttl_ms: u64) -> Body {
    Body::OpenSession(stored::OpenSession { ttl_ms, ordered: true })
}

fn with_session() -> Machine {
    let mut machine = running("test");
    let opened = apply(&mut machine, 0, open_ordered(0)).reply;
    assert!(matches!(opened, Reply::SessionOpened { id: ID, ordered: true, .. }), "{opened:?}");
    machine
}

fn of(session_id: u64, data: &str, sequence: u64, acknowledged: u64) -> stored::Command {
    let session = stored::SessionCommand { session_id, sequence, acknowledged, skip: false };
    stored::Command { data: data.to_owned().into(), session: Some(session), actor: None }
}

fn skip(sequence: u64) -> stored::Command {
    let session = stored::SessionCommand { session_id: ID, sequence, acknowledged: 0, skip: true };
    stored::Command { data: Bytes::new(), session: Some(session), actor: None }
}

fn apply_all(machine: &mut Machine, time_ms: u64, commands: Vec<stored::Command>) -> Vec<Applied> {
    let body = Some(Body::Batch(stored::Batch { commands }));
    apply_data(machine, stored::Entry { time_ms, actor: None, body }.encode_to_vec()).unwrap()
}

fn keep(acknowledged: u64) -> Body {
    Body::KeepSession(stored::KeepSession { session_id: ID, acknowledged })
}

/// What came of an entry with one command of session `ID`, whose name is its number.
fn send(machine: &mut Machine, sequence: u64, acknowledged: u64) -> Vec<Applied> {
    apply_all(machine, 0, vec![of(ID, &format!("c{sequence}"), sequence, acknowledged)])
}

fn waits(sequence: u64) -> Reply {
    Reply::Waiting(SessionNumber { session_id: ID, sequence })
}

fn reply(mut answers: Vec<Applied>) -> Reply {
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0).reply
}

/// The numbers of commands that had waited, in the order in which they were executed.
fn waited(answers: &[Applied]) -> Vec<(u64, u64)> {
    answers.iter().filter_map(|it| it.waited).map(|it| (it.session_id, it.sequence)).collect()
}

/// The commands that the guest has executed, without where.
fn executed(machine: &mut Machine) -> String {
    let state = String::from_utf8(guest_state(machine)).unwrap();
    let names = state.trim_start_matches(':').split_terminator(';').skip(1);
    names.map(|it| it.split('@').next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

fn with_limits(limits: SessionLimits) -> Machine {
    let mut machine = running("test");
    machine.state.sessions = Sessions::new(limits);
    apply(&mut machine, 0, open_ordered(0));
    machine
}

#[test]
fn a_command_before_its_turn_waits_and_runs_behind_the_entry_that_closes_the_gap() {
    let mut machine = with_session();
    assert_eq!(reply(send(&mut machine, 3, 0)), waits(3));
    assert_eq!(reply(send(&mut machine, 2, 0)), waits(2));
    assert_eq!(executed(&mut machine), "");
    // Number 4 comes behind 1 in the same entry, and behind 2 and 3 in the session.
    let free = stored::Command { data: "free".into(), session: None, actor: None };
    let all = vec![of(ID, "c1", 1, 0), of(ID, "c4", 4, 0), free];
    let answers = apply_all(&mut machine, 0, all);
    assert_eq!(waited(&answers), [(ID, 2), (ID, 3), (ID, 4)]);
    assert_eq!(answers[1].reply, waits(4));
    let state = String::from_utf8(guest_state(&mut machine)).unwrap();
    assert_eq!(state, ":init@3;c1@7,0;free@7.2,0;c2@7.3,0;c3@7.4,0;c4@7.5,0;");
    assert_eq!(
        reply(send(&mut machine, 5, 4)),
        Reply::Command(Outcome::Ok(
            b"init@3;c1@7,0;free@7.2,0;c2@7.3,0;c3@7.4,0;c4@7.5,0;c5@8,0;".to_vec()
        ))
    );
}

#[test]
fn an_entry_that_is_executed_in_part_lets_no_waiting_command_run_before_its_turn() {
    let executed_of = |most: usize| {
        let mut machine = with_session();
        send(&mut machine, 2, 0);
        // Number 1 lets 2 run, but behind all others of the entry.
        let free = stored::Command { data: "free".into(), session: None, actor: None };
        let batch = stored::Batch { commands: vec![of(ID, "c1", 1, 0), free] };
        let body = Some(Body::Batch(batch));
        let data = stored::Entry { time_ms: 0, actor: None, body }.encode_to_vec().into();
        let (index, mut answers) = (machine.applied_index().next(), 0);
        machine.apply_up_to(index, &data, most, &mut |_, _| answers += 1).unwrap();
        assert_eq!(answers, most.min(3));
        assert_eq!(machine.applied_index(), index);
        executed(&mut machine)
    };
    assert_eq!(executed_of(1), "c1");
    assert_eq!(executed_of(2), "c1 free");
    assert_eq!(executed_of(3), "c1 free c2");
    assert_eq!(executed_of(usize::MAX), "c1 free c2");
}

#[test]
fn a_gap_that_closes_in_its_own_entry_is_no_matter() {
    let mut machine = with_session();
    let all = [3, 1, 2].map(|n| of(ID, &format!("c{n}"), n, 0)).to_vec();
    let answers = apply_all(&mut machine, 0, all);
    assert_eq!(answers[0].reply, waits(3));
    assert_eq!(waited(&answers), [(ID, 3)]);
    assert_eq!(executed(&mut machine), "c1 c2 c3");
}

#[test]
fn each_session_has_an_order_of_its_own_and_the_first_gap_that_closes_is_the_first_to_run() {
    let mut machine = with_session();
    apply(&mut machine, 0, open_ordered(0));
    let other = ID + 1;
    let early = vec![of(ID, "a2", 2, 0), of(other, "b2", 2, 0), of(other, "b3", 3, 0)];
    assert_eq!(waited(&apply_all(&mut machine, 0, early)), []);
    let closers = vec![of(other, "b1", 1, 0), of(ID, "a1", 1, 0)];
    let answers = apply_all(&mut machine, 0, closers);
    assert_eq!(waited(&answers), [(other, 2), (other, 3), (ID, 2)]);
    assert_eq!(executed(&mut machine), "b1 a1 b2 b3 a2");
}

#[test]
fn a_repetition_waits_on_and_another_command_under_its_number_is_refused() {
    let mut machine = with_session();
    for _ in 0..3 {
        assert_eq!(reply(send(&mut machine, 2, 0)), waits(2));
    }
    let other = apply(&mut machine, 0, in_session(b"other", ID, 2, 0)).reply;
    assert_eq!(other, Reply::Refused(CommandRefused::SequenceReused { sequence: 2 }));
    assert_eq!(waited(&send(&mut machine, 1, 0)), [(ID, 2)]);
    let again = reply(send(&mut machine, 2, 0));
    assert!(matches!(again, Reply::Command(Outcome::Duplicate(_))), "{again:?}");
    assert_eq!(executed(&mut machine), "c1 c2");
    assert_eq!(reply(send(&mut machine, 1, 1)), Reply::Refused(CommandRefused::SequenceTooOld));
}

#[test]
fn a_batch_that_is_sent_again_changes_nothing() {
    let mut machine = with_session();
    let batch = || [2, 4, 5].map(|n| of(ID, &format!("c{n}"), n, 0)).to_vec();
    for _ in 0..2 {
        let replies: Vec<_> = apply_all(&mut machine, 0, batch()).into_iter().collect();
        let replies: Vec<_> = replies.into_iter().map(|it| it.reply).collect();
        assert_eq!(replies, [waits(2), waits(4), waits(5)]);
    }
    send(&mut machine, 1, 0);
    let answers = apply_all(&mut machine, 0, batch());
    assert!(matches!(answers[0].reply, Reply::Command(Outcome::Duplicate(_))), "{answers:?}");
    assert_eq!(waited(&send(&mut machine, 3, 0)), [(ID, 4), (ID, 5)]);
    assert_eq!(executed(&mut machine), "c1 c2 c3 c4 c5");
}

#[test]
fn what_was_not_executed_cannot_be_acknowledged() {
    let mut machine = with_session();
    send(&mut machine, 2, 0);
    let before = machine.state.sessions.iter().next().unwrap().1.expires_at_ms;
    let wrong = [in_session(b"c3", ID, 3, 2), in_session(b"c3", ID, 3, 1), keep(1)];
    for body in wrong {
        let Reply::Refused(refused) = apply(&mut machine, 5, body).reply else { panic!() };
        assert!(refused.to_string().contains("up to number 0 only"), "{refused}");
        assert!(refused.surely_not_applied());
    }
    let after = machine.state.sessions.iter().next().unwrap().1;
    assert_eq!((after.expires_at_ms, after.acknowledged), (before, 0), "without effect");
    assert_eq!(waited(&send(&mut machine, 1, 0)), [(ID, 2)]);
    assert!(matches!(apply(&mut machine, 0, keep(2)).reply, Reply::SessionKept { .. }));
    assert_eq!(machine.info().session_bytes, 0);
}

#[test]
fn one_that_waited_and_traps_leaves_no_trace_and_the_next_runs() {
    let mut machine = with_session();
    let early = [("trap", 2), ("reject", 3), ("emit", 4)];
    apply_all(&mut machine, 0, early.map(|(data, n)| of(ID, data, n, 0)).to_vec());
    let answers = send(&mut machine, 1, 0);
    let trapped = Outcome::Trapped(TrapKind::Unreachable);
    assert_eq!(answers[1].reply, Reply::Command(trapped.clone()));
    assert_eq!(answers[2].reply, Reply::Command(Outcome::Rejected(b"no".to_vec())));
    assert_eq!(answers[3].events.len(), 1);
    assert!(answers[1].trap_message.is_some() && answers.iter().all(|it| it.fuel_used > 0));
    assert_eq!(executed(&mut machine), "c1 emit");
    let again = apply(&mut machine, 0, in_session(b"trap", ID, 2, 0)).reply;
    assert_eq!(again, Reply::Command(Outcome::Duplicate(Box::new(trapped))));
}

#[test]
fn what_waits_when_its_session_ends_is_never_executed() {
    for closes in [true, false] {
        let mut machine = with_session();
        send(&mut machine, 2, 0);
        let held = machine.info().session_bytes;
        assert!(held > 0);
        let time_ms = match closes {
            true => {
                let close = Body::CloseSession(stored::CloseSession { session_id: ID });
                apply(&mut machine, 0, close);
                0
            }
            false => SessionLimits::default().ttl_default_ms,
        };
        let late = apply(&mut machine, time_ms, in_session(b"c1", ID, 1, 0)).reply;
        assert_eq!(late, Reply::Refused(CommandRefused::SessionExpired));
        assert_eq!((machine.info().session_bytes, machine.sessions_ended()), (0, 1));
        assert_eq!(machine.sessions_expired(), u64::from(!closes), "the client closed it, or not");
        assert!(!machine.has_session(ID));
        assert_eq!(executed(&mut machine), "");
    }
}

#[test]
fn a_session_full_of_waiting_commands_takes_the_one_that_they_wait_for() {
    let mut machine = with_limits(SessionLimits { responses_max: 3, ..SessionLimits::default() });
    for sequence in 3..=5 {
        assert_eq!(reply(send(&mut machine, sequence, 0)), waits(sequence));
    }
    let full = reply(send(&mut machine, 6, 0));
    assert!(matches!(full, Reply::Refused(CommandRefused::SessionFull { responses: 3, .. })));
    let again = reply(send(&mut machine, 4, 0));
    assert_eq!(again, waits(4), "what is there is there");
    assert_eq!(waited(&send(&mut machine, 1, 0)), []);
    // Three answers are kept after 3; the others wait for the client to acknowledge some.
    assert_eq!(waited(&send(&mut machine, 2, 0)), [(ID, 3)]);
    assert_eq!(waited(&send(&mut machine, 6, 0)), [], "it says nothing new");
    let kept = apply_data(
        &mut machine,
        stored::Entry { time_ms: 0, actor: None, body: Some(keep(1)) }.encode_to_vec(),
    );
    let kept = kept.unwrap();
    assert!(matches!(kept[0].reply, Reply::SessionKept { .. }));
    assert_eq!(waited(&kept), [(ID, 4)]);
    assert_eq!(waited(&send(&mut machine, 6, 4)), [(ID, 5), (ID, 6)]);
    assert_eq!(executed(&mut machine), "c1 c2 c3 c4 c5 c6");
}

#[test]
fn a_client_that_acknowledges_nothing_is_refused_when_its_answers_take_the_room() {
    let mut machine = with_limits(SessionLimits { responses_max: 2, ..SessionLimits::default() });
    send(&mut machine, 1, 0);
    send(&mut machine, 2, 0);
    let full = reply(send(&mut machine, 3, 0));
    assert!(matches!(full, Reply::Refused(CommandRefused::SessionFull { responses: 2, .. })));
    assert!(matches!(reply(send(&mut machine, 3, 2)), Reply::Command(Outcome::Ok(_))));
}

#[test]
fn a_number_that_is_skipped_lets_the_next_ones_run() {
    let mut machine = with_session();
    let long = "x".repeat(65);
    let refused = apply_all(&mut machine, 0, vec![of(ID, &long, 1, 0), of(ID, "c2", 2, 0)]);
    assert_eq!(refused[0].reply, Reply::Refused(CommandRefused::TooLarge { bytes: 65, max: 64 }));
    assert_eq!(refused[1].reply, waits(2));
    let answers = apply_all(&mut machine, 0, vec![skip(1)]);
    assert_eq!(answers[0].reply, Reply::Command(Outcome::Ok(Vec::new())));
    assert_eq!((answers[0].fuel_used, waited(&answers)), (0, vec![(ID, 2)]));
    // One that waits itself, over a snapshot.
    apply_all(&mut machine, 0, vec![skip(4), of(ID, "c5", 5, 0)]);
    let mut machine = restore(&snapshot(&mut machine)).unwrap();
    let taken = reply(apply_all(&mut machine, 0, vec![of(ID, "", 4, 0)]));
    assert_eq!(taken, Reply::Refused(CommandRefused::SequenceReused { sequence: 4 }));
    assert_eq!(waited(&send(&mut machine, 3, 0)), [(ID, 4), (ID, 5)]);
    assert_eq!(executed(&mut machine), "c2 c3 c5");
    let late = reply(apply_all(&mut machine, 0, vec![skip(3)]));
    assert_eq!(late, Reply::Refused(CommandRefused::SequenceReused { sequence: 3 }));
}

#[test]
fn a_skip_with_a_command_or_without_an_order_makes_no_sense() {
    let mut machine = with_session();
    let mut wrong = skip(1);
    wrong.data = "c1".into();
    let Reply::Refused(CommandRefused::Malformed(_)) =
        reply(apply_all(&mut machine, 0, vec![wrong]))
    else {
        panic!("it has a command");
    };
    apply(&mut machine, 0, open_session(0));
    let mut wrong = skip(1);
    wrong.session.as_mut().unwrap().session_id = machine.applied_index().0;
    let Reply::Refused(CommandRefused::Malformed(_)) =
        reply(apply_all(&mut machine, 0, vec![wrong]))
    else {
        panic!("its session has no order");
    };
}

#[test]
fn before_there_is_a_module_nothing_waits() {
    let mut machine = new_machine();
    apply(&mut machine, 0, open_ordered(0));
    for sequence in [2, 1] {
        let session =
            stored::SessionCommand { session_id: 2, sequence, acknowledged: 0, skip: false };
        let body = stored::Command { data: "c".into(), session: Some(session), actor: None }.into();
        assert_eq!(apply(&mut machine, 0, body).reply, Reply::NoModule);
    }
    assert_eq!(machine.info().session_bytes, 0);
}

#[test]
fn one_that_became_too_long_while_it_waited_is_refused_and_holds_up_the_rest() {
    let mut machine = with_session();
    let long = "x".repeat(60);
    apply_all(&mut machine, 0, vec![of(ID, &long, 2, 0), of(ID, "c3", 3, 0)]);
    let set = apply(&mut machine, 0, set_limits(&[Limit::InputMaxBytes(10)])).reply;
    assert!(matches!(set, Reply::LimitsSet { .. }), "{set:?}");
    // It is there, so it is not refused yet.
    assert_eq!(reply(apply_all(&mut machine, 0, vec![of(ID, &long, 2, 0)])), waits(2));
    let answers = send(&mut machine, 1, 0);
    let refused = Reply::Refused(CommandRefused::TooLarge { bytes: 60, max: 10 });
    assert_eq!((waited(&answers), &answers[1].reply), (vec![(ID, 2)], &refused));
    assert_eq!(waited(&apply_all(&mut machine, 0, vec![skip(2)])), [(ID, 3)]);
    assert_eq!(executed(&mut machine), "c1 c3");
}

#[test]
fn a_snapshot_that_contradicts_the_order_is_refused() {
    let sessions = || Sessions::new(SessionLimits::default());
    let waiting = |sequence| crate::machine::sessions::RestoredWaiting {
        sequence,
        data: "c".into(),
        skip: false,
        actor: crate::types::Actor::Nobody,
    };
    let record = |ordered, waiting| crate::machine::sessions::RestoredSession {
        ttl_ms: 1,
        expires_at_ms: 1,
        last_used: Index(1),
        acknowledged: 3,
        completed: Vec::new(),
        ordered,
        waiting,
        owner: None,
    };
    assert!(sessions().restore(1, record(true, vec![waiting(5), waiting(6)])));
    assert!(!sessions().restore(1, record(true, vec![waiting(6), waiting(5)])));
    assert!(!sessions().restore(1, record(true, vec![waiting(3)])), "it is acknowledged");
    assert!(!sessions().restore(1, record(false, vec![waiting(5)])), "nobody waits there");
}

#[test]
#[cfg(feature = "museum")]
fn the_exhibit_overtakes_what_is_missing() {
    let _guard = crate::museum::exhibit(Some(crate::museum::Exhibit::OrderedGapSkipped));
    let mut machine = with_session();
    send(&mut machine, 3, 0);
    send(&mut machine, 1, 0);
    assert_eq!(executed(&mut machine), "c1 c3");
}

proptest! {
    /// Whatever order the commands of two sessions come in, however often and however few the session
    /// keeps: they run once each and in order, and a machine that is restored from snapshots all
    /// the time comes to the same.
    #[test]
    fn commands_run_in_order_whatever_order_they_come_in(
        log in prop::collection::vec(
            prop::collection::vec((0..2u64, 1..12u64, any::<bool>()), 1..6),
            1..60,
        ),
        responses_max in 1..6u64,
    ) {
        let limits = SessionLimits { responses_max, ..SessionLimits::default() };
        let [mut straight, mut restored] = [(); 2].map(|()| {
            let mut machine = with_limits(limits.clone());
            apply(&mut machine, 0, open_ordered(0));
            machine
        });
        let mut done: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in &log {
            let all: Vec<_> = entry
                .iter()
                .map(|(session, number, acknowledges)| {
                    let id = ID + session;
                    let executed = done.get(&id).copied().unwrap_or(0);
                    let sequence = executed.saturating_sub(3) + number;
                    let acknowledged = if *acknowledges { executed } else { 0 };
                    of(id, &format!("{id}.{sequence}"), sequence, acknowledged)
                })
                .collect();
            let answers = apply_all(&mut straight, 7, all.clone());
            for (at, applied) in answers.iter().enumerate() {
                let Reply::Command(Outcome::Ok(_)) = applied.reply else { continue };
                let number = applied.waited.unwrap_or_else(|| {
                    let session = all[at].session.unwrap();
                    SessionNumber { session_id: session.session_id, sequence: session.sequence }
                });
                let before = done.insert(number.session_id, number.sequence).unwrap_or(0);
                prop_assert_eq!(number.sequence, before + 1);
            }
            prop_assert_eq!(&apply_all(&mut restored, 7, all), &answers);
            restored = restore(&snapshot(&mut restored)).unwrap();
        }
        let index = straight.applied_index();
        let digests =
            [&mut straight, &mut restored].map(|machine| machine.take_digest(index).unwrap().digest);
        prop_assert_eq!(digests[0], digests[1]);
        for (_, session) in straight.state.sessions.iter() {
            // Those that waited while the room was full are executed as it becomes free.
            prop_assert!(session.completed.len() as u64 <= responses_max + 1);
            prop_assert!(session.waiting.len() as u64 <= responses_max);
        }
    }
}
