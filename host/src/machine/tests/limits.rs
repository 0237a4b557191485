//! Limits that change at an index of the log.

use super::*;

fn refusal(reply: Reply) -> String {
    match reply {
        Reply::LimitsRefused(reason) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn trapped(kind: TrapKind) -> Reply {
    Reply::Command(Outcome::Trapped(kind))
}

#[test]
fn a_change_counts_from_the_next_entry_on_and_leaves_the_rest_alone() {
    let mut machine = running("test");
    apply(&mut machine, 0, command(b"a"));
    let (before, state) = (machine.info(), guest_state(&mut machine));
    let applied = apply(&mut machine, 7, set_limits(&[Limit::ApplyFuel(5), Limit::EventsMax(9)]));
    let limits = Limits { apply_fuel: 5, events_max: 9, ..before.limits.clone() };
    let previous = Box::new(before.limits.clone());
    let reply = Reply::LimitsSet { limits: Box::new(limits.clone()), previous };
    assert_eq!(applied, Applied::without_guest(reply));
    let after = machine.info();
    assert_eq!(
        after,
        MachineInfo { applied: Index(5), time_ms: 7, limits, rules_changed_at: Index(5), ..before }
    );
    assert_eq!(guest_state(&mut machine), state);

    assert_eq!(apply(&mut machine, 7, command(b"b")).reply, trapped(TrapKind::OutOfFuel));
    assert_eq!(guest_state(&mut machine), state);
    apply(&mut machine, 7, set_limits(&[Limit::ApplyFuel(1_000)]));
    let answer = apply(&mut machine, 7, command(b"b")).reply;
    assert_eq!(answer, Reply::Command(Outcome::Ok(b"init@3;a@4,0;b@8,7;".to_vec())));
}

#[test]
fn changes_of_different_limits_add_up_whoever_was_first() {
    let orders =
        [[Limit::ApplyFuel(5), Limit::QueryFuel(6)], [Limit::QueryFuel(6), Limit::ApplyFuel(5)]];
    for order in orders {
        let mut machine = running("test");
        for limit in order {
            apply(&mut machine, 0, set_limits(&[limit]));
        }
        let limits = machine.info().limits;
        assert_eq!((limits.apply_fuel, limits.query_fuel), (5, 6));
    }
}

#[test]
fn refused_limits_say_why_and_change_nothing() {
    let mut machine = running("test");
    apply(&mut machine, 0, set_limits(&[Limit::InputMaxBytes(1 << 20)]));
    apply(&mut machine, 0, command(&[b'x'; 65 << 10]));
    let cases = [
        (Limit::ApplyFuel(0), "apply_fuel is 0"),
        (Limit::MemoryMaxBytes(100_000), "multiple of 65536"),
        (Limit::MemoryMaxBytes(64 << 10), "does not fit: too much was taken"),
        (Limit::ModuleMaxBytes(3), "the active module is refused: too large a test module"),
    ];
    for (limit, words) in cases {
        let (before, state) = (machine.info(), guest_state(&mut machine));
        // Neither is the one beside it.
        let reply = apply(&mut machine, 0, set_limits(&[Limit::QueryFuel(5), limit])).reply;
        let reason = refusal(reply);
        assert!(reason.contains(words), "{reason:?} should contain {words:?}");
        let applied = machine.applied_index();
        assert_eq!(machine.info(), MachineInfo { applied, ..before });
        assert_eq!(guest_state(&mut machine), state);
    }
    apply(&mut machine, 0, set_limits(&[Limit::MemoryMaxBytes(128 << 10)]));
    let grown = apply(&mut machine, 0, command(&[b'x'; 65 << 10])).reply;
    assert_eq!(grown, trapped(TrapKind::OutOfBounds));
}

#[test]
fn modules_that_ran_hold_the_limit_up_and_others_are_dropped() {
    let mut machine = running("test noquery");
    load(&mut machine, "test");
    for staged in [&b"test staged"[..], b"test half"] {
        apply(&mut machine, 0, chunk(staged, 0, staged.len()));
    }
    apply(&mut machine, 0, chunk(b"test upload", 0, 3));
    let reason = refusal(apply(&mut machine, 0, set_limits(&[Limit::ModuleMaxBytes(10)])).reply);
    assert!(reason.contains("previously active module"), "{reason}");
    assert!(reason.contains("12 bytes"), "{reason}");
    assert_eq!(machine.info().modules.len(), 4);

    load(&mut machine, "test v=2");
    let refused = refusal(apply(&mut machine, 0, set_limits(&[Limit::ModuleMaxBytes(7)])).reply);
    assert!(refused.contains("the active module is refused"), "{refused}");
    let reply = apply(&mut machine, 0, set_limits(&[Limit::ModuleMaxBytes(9)])).reply;
    assert!(matches!(reply, Reply::LimitsSet { .. }), "{reply:?}");
    let sizes: Vec<u64> = machine.info().modules.iter().map(|held| held.size_bytes).collect();
    assert_eq!(sizes.iter().sum::<u64>(), 8 + 4 + 9, "{sizes:?}");
    let gone = apply(&mut machine, 0, chunk(b"test upload", 3, 11)).reply;
    assert!(matches!(gone, Reply::ChunkRefused(_)), "{gone:?}");
    let bytes = snapshot(&mut machine);
    assert_eq!(snapshot(&mut restore(&bytes).unwrap()), bytes);
}

#[test]
fn a_snapshot_carries_changed_limits_and_the_restored_machine_obeys_them() {
    let mut machine = busy_machine();
    apply(&mut machine, 40, set_limits(&[Limit::ApplyFuel(1), Limit::InputMaxBytes(2)]));
    let bytes = snapshot(&mut machine);
    let mut restored = restore(&bytes).unwrap();
    assert_eq!(restored.info(), machine.info());
    for (body, reply) in [
        (command(b"ab"), trapped(TrapKind::OutOfFuel)),
        (command(b"abc"), Reply::Refused(CommandRefused::TooLarge { bytes: 3, max: 2 })),
    ] {
        assert_eq!(apply(&mut restored, 50, body.clone()).reply, reply);
        assert_eq!(apply(&mut machine, 50, body).reply, reply);
    }
    assert_eq!(snapshot(&mut restored), snapshot(&mut machine));
}

/// The command was applied while it was short enough; then the limit went down. To answer its
/// retry "too large, surely not applied" would be a lie.
#[test]
fn a_retry_is_answered_even_if_its_command_is_too_long_by_now() {
    let mut machine = running("test");
    apply(&mut machine, 0, open_session(5_000));
    let first = apply(&mut machine, 0, in_session(b"abc", 4, 1, 0)).reply;
    let Reply::Command(original) = first else { panic!("{first:?}") };
    apply(&mut machine, 0, set_limits(&[Limit::InputMaxBytes(2)]));
    let again = Reply::Command(Outcome::Duplicate(Box::new(original)));
    assert_eq!(apply(&mut machine, 0, in_session(b"abc", 4, 1, 0)).reply, again);
    let too_large = Reply::Refused(CommandRefused::TooLarge { bytes: 3, max: 2 });
    assert_eq!(apply(&mut machine, 0, in_session(b"abc", 4, 2, 0)).reply, too_large);
    let too_old = Reply::Refused(CommandRefused::SequenceTooOld);
    assert_eq!(apply(&mut machine, 0, in_session(b"abc", 4, 1, 1)).reply, too_old);
    let expired = Reply::Refused(CommandRefused::SessionExpired);
    assert_eq!(apply(&mut machine, 9_000, in_session(b"abc", 4, 1, 0)).reply, expired);
}

/// A session may hold an answer that is longer than what is allowed since. A snapshot with it
/// must stay readable.
#[test]
fn a_long_answer_from_before_a_lower_limit_survives_a_snapshot() {
    let mut machine = running("test");
    let raised = [Limit::InputMaxBytes(20 << 20), Limit::OutputMaxBytes(40 << 20)];
    apply(&mut machine, 0, set_limits(&raised));
    apply(&mut machine, 0, open_session(0));
    let id = machine.applied_index().0;
    apply(&mut machine, 0, in_session(&vec![b'x'; 17 << 20], id, 1, 0));
    apply(&mut machine, 0, set_limits(&[Limit::InputMaxBytes(64), Limit::OutputMaxBytes(1)]));
    let bytes = snapshot(&mut machine);
    assert!(bytes.len() > 34 << 20);
    assert_eq!(restore(&bytes).unwrap().info(), machine.info());
}

#[test]
fn without_a_module_limits_change_too_and_hold_for_the_first_one() {
    let mut machine = new_machine();
    let reply = apply(&mut machine, 0, set_limits(&[Limit::ApplyFuel(1)])).reply;
    assert!(matches!(reply, Reply::LimitsSet { .. }), "{reply:?}");
    load(&mut machine, "test");
    assert_eq!(apply(&mut machine, 0, command(b"a")).reply, trapped(TrapKind::OutOfFuel));
}

#[test]
fn a_limit_that_this_version_does_not_know_stops_the_node() {
    let mut machine = running("test");
    let known = stored::LimitChange { limit: Some(Limit::ApplyFuel(5)) };
    let changes = vec![known, stored::LimitChange { limit: None }];
    let body = Some(Body::SetLimits(stored::SetLimits { changes }));
    let data = stored::Entry { time_ms: 0, actor: None, body }.encode_to_vec();
    let failure = apply_data(&mut machine, data).unwrap_err();
    assert!(failure.to_string().contains("does not know"), "{failure}");
}
