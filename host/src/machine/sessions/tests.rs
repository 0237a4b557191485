//! The session table by itself.

use super::*;

fn sessions(limits: SessionLimits) -> Sessions {
    Sessions::new(limits)
}

fn command(session_id: u64, sequence: u64, acknowledged: u64) -> stored::SessionCommand {
    stored::SessionCommand { session_id, sequence, acknowledged, skip: false }
}

/// Of the only command that these tests send, but for those that say otherwise.
const HASH: CommandHash = [7; 16];

/// Runs a command the way the machine does and returns what `begin` said.
fn run(sessions: &mut Sessions, index: u64, command: stored::SessionCommand) -> Begin {
    let answer = Outcome::Ok(command.sequence.to_string().into_bytes());
    run_for(sessions, index, command, &answer)
}

fn run_for(
    sessions: &mut Sessions,
    index: u64,
    command: stored::SessionCommand,
    answer: &Outcome,
) -> Begin {
    let begin = sessions.begin(&command, HASH, Index(index), 0);
    if begin == Begin::Run {
        sessions.complete(command.session_id, command.sequence, HASH, answer);
    }
    begin
}

fn open(sessions: &mut Sessions, index: u64) {
    sessions.open(Index(index), 0, &<_>::default(), None).expect("there is room");
}

fn too_old() -> Begin {
    Begin::Refused(CommandRefused::SequenceTooOld)
}

fn duplicate(sequence: u64) -> Begin {
    Begin::Duplicate(Outcome::Ok(sequence.to_string().into_bytes()))
}

#[test]
fn retries_in_any_order_are_answered_once_executed() {
    let mut table = sessions(SessionLimits::default());
    open(&mut table, 1);
    assert_eq!(run(&mut table, 2, command(1, 3, 0)), Begin::Run);
    assert_eq!(run(&mut table, 3, command(1, 1, 0)), Begin::Run);
    assert_eq!(run(&mut table, 4, command(1, 3, 0)), duplicate(3));
    assert_eq!(run(&mut table, 5, command(1, 2, 1)), Begin::Run);
    assert_eq!(run(&mut table, 6, command(1, 1, 0)), too_old());
    assert_eq!(run(&mut table, 7, command(1, 2, 0)), duplicate(2));
    assert_eq!(run(&mut table, 8, command(1, 4, 3)), Begin::Run);
    assert_eq!(table.by_id[&1].completed.len(), 1);
}

#[test]
fn sequence_zero_is_malformed_and_changes_nothing() {
    let mut table = sessions(SessionLimits::default());
    open(&mut table, 1);
    let begin = run(&mut table, 2, command(1, 0, 9));
    assert!(matches!(begin, Begin::Refused(CommandRefused::Malformed(_))));
    assert_eq!(run(&mut table, 3, command(1, 1, 0)), Begin::Run);
}

#[test]
fn a_sequence_number_that_was_used_for_another_command_is_refused() {
    let mut table = sessions(SessionLimits::default());
    open(&mut table, 1);
    assert_eq!(run(&mut table, 2, command(1, 1, 0)), Begin::Run);
    let other = table.begin(&command(1, 1, 0), [8; 16], Index(3), 0);
    let reused = CommandRefused::SequenceReused { sequence: 1 };
    assert_eq!(other, Begin::Refused(reused));
    assert_eq!(run(&mut table, 4, command(1, 1, 0)), duplicate(1));
}

#[test]
fn a_full_session_refuses_what_it_has_no_room_for_and_forgets_nothing() {
    let mut table = sessions(SessionLimits { responses_max: 2, ..SessionLimits::default() });
    open(&mut table, 1);
    for sequence in [2, 3] {
        assert_eq!(run(&mut table, sequence, command(1, sequence, 0)), Begin::Run);
    }
    let full = |responses, bytes| {
        let exceeded = Exceeded { limit: "responses_max", value: responses + 1, max: 2 };
        Begin::Refused(CommandRefused::SessionFull { responses, bytes, exceeded })
    };
    assert_eq!(run(&mut table, 4, command(1, 4, 0)), full(2, 130));
    assert_eq!(run(&mut table, 5, command(1, 2, 0)), duplicate(2));
    // Without its answer nothing could ever be acknowledged.
    assert_eq!(run(&mut table, 6, command(1, 1, 0)), Begin::Run);
    assert_eq!(run(&mut table, 7, command(1, 4, 0)), full(3, 195));
    assert_eq!(run(&mut table, 8, command(1, 4, 2)), Begin::Run);
    assert_eq!(run(&mut table, 9, command(1, 3, 2)), duplicate(3));
}

#[test]
fn a_session_is_full_when_its_bytes_are_and_one_answer_may_be_longer() {
    let mut table =
        sessions(SessionLimits { responses_max_bytes: 100, ..SessionLimits::default() });
    open(&mut table, 1);
    let long = Outcome::Ok(vec![7; 1000]);
    assert_eq!(run_for(&mut table, 2, command(1, 2, 0), &long), Begin::Run);
    let exceeded = Exceeded { limit: "responses_max_bytes", value: 1064, max: 100 };
    let full = CommandRefused::SessionFull { responses: 1, bytes: 1064, exceeded };
    assert_eq!(run(&mut table, 3, command(1, 3, 0)), Begin::Refused(full));
    assert_eq!(run_for(&mut table, 4, command(1, 1, 0), &long), Begin::Run);
    assert_eq!(run(&mut table, 5, command(1, 3, 2)), Begin::Run);
}

#[test]
fn one_session_too_many_is_refused_and_ends_nobody_elses() {
    let mut table = sessions(SessionLimits { sessions_max: 2, ..SessionLimits::default() });
    open(&mut table, 1);
    open(&mut table, 2);
    let refused = CommandRefused::TooManySessions { max: 2 };
    assert_eq!(table.open(Index(3), 0, &<_>::default(), None), Err(refused));
    assert_eq!(run(&mut table, 4, command(1, 1, 0)), Begin::Run);
    table.remove(2);
    open(&mut table, 5);
    assert_eq!(table.by_id.keys().copied().collect::<Vec<_>>(), [1, 5]);
}

#[test]
fn when_all_sessions_keep_too_much_only_the_next_command_of_each_runs() {
    let mut table = sessions(SessionLimits { total_max_bytes: 4000, ..SessionLimits::default() });
    (1..=5).for_each(|id| open(&mut table, id));
    let long = Outcome::Ok(vec![0; 1000]);
    for (index, id) in [(6, 1), (7, 2), (8, 3)] {
        assert_eq!(run_for(&mut table, index, command(id, 2, 0), &long), Begin::Run);
    }
    let full = |bytes, max| Begin::Refused(CommandRefused::SessionsFull { bytes, max });
    assert_eq!(run_for(&mut table, 9, command(4, 2, 0), &long), full(3192, 3000));
    assert_eq!(run_for(&mut table, 10, command(4, 1, 0), &long), Begin::Run);
    assert_eq!(run_for(&mut table, 11, command(5, 1, 0), &long), full(4256, 4000));
    // Everybody is still there, and whoever acknowledges makes room.
    for id in 1..=3 {
        let again = run_for(&mut table, 11 + id, command(id, 2, 0), &long);
        assert_eq!(again, Begin::Duplicate(long.clone()));
    }
    assert_eq!(run_for(&mut table, 15, command(4, 3, 1), &long), full(3192, 3000));
    assert_eq!(run_for(&mut table, 16, command(5, 1, 0), &long), Begin::Run);
    for id in 1..=5 {
        table.remove(id);
    }
    assert_eq!(table.bytes, 0);
    assert!(table.by_expiry.is_empty());
}

#[test]
fn when_all_sessions_keep_too_much_what_waited_runs_one_by_one_as_it_is_acknowledged() {
    let mut table = sessions(SessionLimits { total_max_bytes: 4000, ..SessionLimits::default() });
    let request = stored::OpenSession { ttl_ms: 0, ordered: true };
    table.open(Index(1), 0, &request, None).expect("there is room");
    for sequence in [2, 3] {
        let begin = table.begin(&command(1, sequence, 0), HASH, Index(2), 0);
        assert_eq!(begin, Begin::Wait { is_new: true });
        table.wait(1, sequence, Waiting::new(b"data", HASH, Actor::Nobody));
    }
    assert_eq!(table.bytes(), 2 * (4 + RESPONSE_OVERHEAD_BYTES));
    let long = Outcome::Ok(vec![0; 1000]);
    for id in 3..=5 {
        open(&mut table, id);
        assert_eq!(run_for(&mut table, id, command(id, 2, 0), &long), Begin::Run);
    }
    let full = Begin::Refused(CommandRefused::SessionsFull {
        bytes: table.bytes(),
        max: table.limits.ordinary_max_bytes(),
    });
    assert_eq!(table.begin(&command(1, 4, 0), HASH, Index(6), 0), full);

    let due = |table: &mut Sessions| {
        let (number, waiting) = table.next_due()?;
        table.complete(1, number.sequence, waiting.command, &Outcome::Ok(Vec::new()));
        Some(number.sequence)
    };
    assert_eq!(run(&mut table, 7, command(1, 1, 0)), Begin::Run);
    table.note_due(1);
    assert_eq!(due(&mut table), None, "its answer would take what is set aside");
    let keep = |acknowledged| stored::KeepSession { session_id: 1, acknowledged };
    table.keep(&keep(1), Index(8), 0).expect("it is there");
    assert_eq!((due(&mut table), due(&mut table)), (Some(2), None));
    table.end_entry();
    table.remove(3);
    assert_eq!(due(&mut table), None, "nobody has used the session since");
    table.keep(&keep(1), Index(9), 0).expect("it is there");
    assert_eq!((due(&mut table), due(&mut table)), (Some(3), None));
    [1, 4, 5].into_iter().for_each(|id| table.remove(id));
    assert_eq!(table.bytes(), 0);
}

#[test]
fn keeping_a_session_alive_postpones_its_end_and_acknowledges() {
    let mut table = sessions(SessionLimits::default());
    open(&mut table, 1);
    run(&mut table, 2, command(1, 1, 0));
    let ttl_ms = SessionLimits::default().ttl_default_ms;
    let keep = stored::KeepSession { session_id: 1, acknowledged: 1 };
    assert_eq!(table.keep(&keep, Index(3), ttl_ms - 1), Ok(ttl_ms));
    assert_eq!((table.bytes, table.by_id[&1].acknowledged), (0, 1));
    table.expire(2 * ttl_ms - 2);
    assert_eq!(table.len(), 1);
    table.expire(2 * ttl_ms - 1);
    assert_eq!(table.keep(&keep, Index(4), 0), Err(CommandRefused::SessionExpired));
}

#[test]
fn use_postpones_expiry_and_time_to_live_is_clamped() {
    let mut table = sessions(SessionLimits::default());
    let mut ttl = |index, ttl_ms| {
        let request = stored::OpenSession { ttl_ms, ordered: false };
        table.open(Index(index), 0, &request, None).unwrap().ttl_ms
    };
    assert_eq!(ttl(1, 5000), 5000);
    assert_eq!(ttl(2, 1), 1000);
    assert_eq!(ttl(3, u64::MAX), 24 * 60 * 60 * 1000);
    table.begin(&command(1, 1, 0), HASH, Index(4), 4999);
    table.expire(5000);
    assert_eq!(table.by_id.keys().copied().collect::<Vec<_>>(), [1, 3]);
    table.expire(9998);
    assert_eq!(table.len(), 2);
    table.expire(9999);
    assert_eq!(table.len(), 1);
    let begin = table.begin(&command(1, 2, 0), HASH, Index(5), 9999);
    assert_eq!(begin, Begin::Refused(CommandRefused::SessionExpired));
}
