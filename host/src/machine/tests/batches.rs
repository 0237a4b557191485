//! Entries of many commands.

use super::*;
use crate::machine::BATCH_COMMANDS_MAX;

fn commands(data: &[&[u8]]) -> Vec<stored::Command> {
    let command =
        |data: &&[u8]| stored::Command { data: data.to_vec().into(), session: None, actor: None };
    data.iter().map(command).collect()
}

fn of_session(data: &[u8], session_id: u64, sequence: u64, acknowledged: u64) -> stored::Command {
    let session = stored::SessionCommand { session_id, sequence, acknowledged, skip: false };
    stored::Command { data: data.to_vec().into(), session: Some(session), actor: None }
}

/// Applies all as one entry.
fn apply_all(machine: &mut Machine, time_ms: u64, commands: Vec<stored::Command>) -> Vec<Applied> {
    let body = Some(Body::Batch(stored::Batch { commands }));
    let data = stored::Entry { time_ms, actor: None, body }.encode_to_vec();
    apply_data(machine, data).unwrap()
}

fn replies(answers: Vec<Applied>) -> Vec<Reply> {
    answers.into_iter().map(|applied| applied.reply).collect()
}

fn ok(answer: &str) -> Reply {
    Reply::Command(Outcome::Ok(answer.into()))
}

#[test]
fn each_command_has_an_outcome_of_its_own_and_the_state_of_all_before_it_that_succeeded() {
    let mut machine = running("test");
    let long = [b'x'; 65];
    let all = commands(&[b"a", b"trap", b"reject", &long, b"emit", b"b"]);
    let answers = apply_all(&mut machine, 50, all);
    let events: Vec<usize> = answers.iter().map(|applied| applied.events.len()).collect();
    assert_eq!(events, [0, 0, 0, 0, 1, 0]);
    let messages: Vec<bool> = answers.iter().map(|it| it.trap_message.is_some()).collect();
    assert_eq!(messages, [false, true, false, false, false, false]);
    let fuel: Vec<u64> = answers.iter().map(|applied| applied.fuel_used).collect();
    assert_eq!(fuel, [15, 15, 15, 0, 27, 36]);
    let expected = [
        ok("init@3;a@4,50;"),
        Reply::Command(Outcome::Trapped(TrapKind::Unreachable)),
        Reply::Command(Outcome::Rejected(b"no".to_vec())),
        Reply::Refused(CommandRefused::TooLarge { bytes: 65, max: 64 }),
        ok("init@3;a@4,50;emit@4.4,50;"),
        ok("init@3;a@4,50;emit@4.4,50;b@4.5,50;"),
    ];
    assert_eq!(replies(answers), expected);
    assert_eq!(machine.applied_index(), Index(4));
    let query = QueryResult::Answer(Outcome::Ok(b"4:init@3;a@4,50;emit@4.4,50;b@4.5,50;".to_vec()));
    assert_eq!(answer(&mut machine, b"?"), query, "as of the index");
}

#[test]
fn a_retry_in_the_same_batch_is_answered_and_not_executed() {
    let mut machine = running("test");
    apply(&mut machine, 0, open_session(0));
    let all = vec![
        of_session(b"a", 4, 1, 0),
        of_session(b"trap", 4, 2, 0),
        of_session(b"a", 4, 1, 0),
        of_session(b"trap", 4, 2, 0),
        of_session(b"b", 4, 1, 0),
        of_session(b"c", 4, 3, 1),
        of_session(b"a", 4, 1, 0),
        of_session(b"c", 5, 1, 0),
    ];
    let once = || Outcome::Ok(b"init@3;a@5,7;".to_vec());
    let trapped = || Outcome::Trapped(TrapKind::Unreachable);
    let again = |outcome| Reply::Command(Outcome::Duplicate(Box::new(outcome)));
    let expected = [
        Reply::Command(once()),
        Reply::Command(trapped()),
        again(once()),
        again(trapped()),
        Reply::Refused(CommandRefused::SequenceReused { sequence: 1 }),
        ok("init@3;a@5,7;c@5.5,7;"),
        Reply::Refused(CommandRefused::SequenceTooOld),
        Reply::Refused(CommandRefused::SessionExpired),
    ];
    assert_eq!(replies(apply_all(&mut machine, 7, all)), expected);
    // And so is one of the batch, whole or in part, in a later entry.
    let all = vec![of_session(b"c", 4, 3, 1), of_session(b"trap", 4, 2, 1)];
    let expected = [again(Outcome::Ok(b"init@3;a@5,7;c@5.5,7;".to_vec())), again(trapped())];
    assert_eq!(replies(apply_all(&mut machine, 8, all)), expected);
    assert_eq!(guest_state(&mut machine), b":init@3;a@5,7;c@5.5,7;");
}

#[test]
#[cfg(feature = "museum")]
fn the_exhibit_executes_a_command_twice_that_a_batch_holds_twice() {
    let _guard = crate::museum::exhibit(Some(crate::museum::Exhibit::BatchRetriedTwice));
    let mut machine = running("test");
    apply(&mut machine, 0, open_session(0));
    apply_all(&mut machine, 7, vec![of_session(b"a", 4, 1, 0), of_session(b"a", 4, 1, 0)]);
    assert_eq!(guest_state(&mut machine), b":init@3;a@5,7;a@5.1,7;");
}

#[test]
fn a_batch_of_none_or_too_many_is_malformed_as_a_whole() {
    let mut machine = running("test");
    let before = (machine.info().time_ms, guest_state(&mut machine));
    let many = vec![stored::Command::default(); BATCH_COMMANDS_MAX + 1];
    for (wrong, says) in [(Vec::new(), "without commands"), (many, "more than the 65536")] {
        let mut replies = replies(apply_all(&mut machine, 50, wrong));
        let Some(Reply::Refused(CommandRefused::Malformed(reason))) = replies.pop() else {
            panic!("{replies:?}");
        };
        assert!(replies.is_empty() && reason.contains(says), "{reason}");
        assert_eq!((machine.info().time_ms, guest_state(&mut machine)), before);
    }
    assert_eq!(machine.applied_index(), Index(5), "but they are applied");
}

#[test]
fn a_failure_of_the_host_in_the_middle_leaves_the_entry_unapplied() {
    let mut machine = running("test");
    let body = Some(Body::Batch(stored::Batch { commands: commands(&[b"a", b"host", b"b"]) }));
    let data = stored::Entry { time_ms: 7, actor: None, body }.encode_to_vec();
    let mut told = 0;
    let applied = machine.apply(Index(4), &data.into(), &mut |_, _| told += 1);
    assert!(applied.is_err());
    assert_eq!((told, machine.applied_index()), (1, Index(3)));
}

#[test]
fn the_order_of_commands_and_which_entry_holds_them_are_part_of_the_digest() {
    let digest = |entries: &[&[&[u8]]]| {
        let mut machine = running("test");
        for entry in entries {
            apply_all(&mut machine, 7, commands(entry));
        }
        machine.take_digest(machine.applied_index()).unwrap().digest
    };
    // What no state tells of.
    let (no, trap): (&[u8], &[u8]) = (b"reject", b"trap");
    assert_eq!(digest(&[&[no, trap]]), digest(&[&[no, trap]]));
    let mut seen = vec![digest(&[&[no, trap]])];
    for entries in [&[&[trap, no][..]][..], &[&[no], &[trap]], &[&[no, trap, trap]]] {
        let found = digest(entries);
        assert!(!seen.contains(&found), "{entries:?}");
        seen.push(found);
    }
}

proptest! {
    /// Whatever batches a log holds, retries and traps among them: a machine that is restored from
    /// its snapshots all the time comes to the same as one that never is, and every command of a
    /// session is executed once.
    #[test]
    fn batches_come_to_the_same_through_snapshots_and_sessions_run_once(
        log in prop::collection::vec(
            prop::collection::vec((0..4u8, 1..9u64), 1..6),
            1..8,
        )
    ) {
        let [mut straight, mut restored] = [(); 2].map(|()| {
            let mut machine = running("test");
            apply(&mut machine, 0, open_session(0));
            machine
        });
        let mut executed = std::collections::BTreeSet::new();
        for entry in &log {
            let all: Vec<_> = entry
                .iter()
                .map(|(kind, sequence)| match kind {
                    0 => of_session(b"trap", 4, 100 + sequence, 0),
                    1 => of_session(b"reject", 4, 200 + sequence, 0),
                    _ => of_session(b"a", 4, *sequence, 0),
                })
                .collect();
            let answers = apply_all(&mut straight, 7, all.clone());
            for (command, applied) in all.iter().zip(&answers) {
                let sequence = command.session.expect("each has one").sequence;
                let is_first = executed.insert(sequence);
                let is_retry =
                    matches!(applied.reply, Reply::Command(Outcome::Duplicate(_)));
                prop_assert_eq!(is_first, !is_retry);
            }
            prop_assert_eq!(&apply_all(&mut restored, 7, all), &answers);
            restored = restore(&snapshot(&mut restored)).unwrap();
        }
        let index = straight.applied_index();
        let digests =
            [&mut straight, &mut restored].map(|machine| machine.take_digest(index).unwrap().digest);
        prop_assert_eq!(digests[0], digests[1]);
    }
}
