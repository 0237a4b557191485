//! Many commands as one entry, and who waits for each.

use tokio::sync::mpsc;

use super::metrics::{Driven, node_with_burner};
use crate::machine::{BATCH_COMMANDS_MAX, Reply};
use crate::node::{
    Command, Ending, ProposeFailure, ProposeResult, ReplySink, Request, SubmitBatch,
};
use crate::types::{Outcome, Position, TrapKind};

fn commands(data: &[&'static str]) -> Vec<Command> {
    data.iter().map(|data| Command { data: (*data).into(), session: None }).collect()
}

/// Hands the commands over as one entry; their answers come by the number of each.
fn submit(
    driven: &Driven,
    commands: Vec<Command>,
) -> mpsc::UnboundedReceiver<(u64, ProposeResult)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let commands = commands
        .into_iter()
        .zip(0..)
        .map(|(command, number)| (command, ReplySink::Tagged(number, sender.clone())))
        .collect();
    driven.node.handle().submit_batch(SubmitBatch { commands, count_pages: false });
    receiver
}

fn answers(
    mut receiver: mpsc::UnboundedReceiver<(u64, ProposeResult)>,
) -> Vec<(u64, ProposeResult)> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn each_caller_is_told_what_came_of_its_command_and_where() {
    let mut driven = node_with_burner(0);
    let before = driven.command(b"").position.index;
    let receiver = submit(&driven, commands(&["", "burn", "", "burn"]));
    driven.settle();
    let answers = answers(receiver);
    let index = before.next();
    let expected = [
        Reply::Command(Outcome::Ok(Vec::new())),
        Reply::Command(Outcome::Trapped(TrapKind::OutOfFuel)),
        Reply::Command(Outcome::Ok(Vec::new())),
        Reply::Command(Outcome::Trapped(TrapKind::OutOfFuel)),
    ];
    assert_eq!(answers.len(), expected.len());
    for ((number, result), (ordinal, reply)) in answers.into_iter().zip((0..).zip(expected)) {
        let committed = result.expect("applied");
        assert_eq!(number, u64::from(ordinal));
        assert_eq!(committed.position, Position { index, ordinal });
        assert_eq!(committed.trap_message.is_some(), committed.fuel_used > 1_000);
        assert_eq!(committed.reply, reply);
        assert!(!committed.apply_duration.is_zero());
    }
    let metrics = driven.node.handle().metrics();
    assert_eq!(metrics.applies.of(Ending::Ok).count.get(), 3);
    assert_eq!(metrics.applies.of(Ending::Trapped(TrapKind::OutOfFuel)).count.get(), 2);
    assert_eq!(driven.node.handle().inflight_bytes(), 0, "what they took is given back");
}

#[test]
fn what_is_no_batch_is_refused_before_anything_is_queued() {
    let driven = node_with_burner(0);
    assert!(answers(submit(&driven, Vec::new())).is_empty(), "nobody waits");
    let many = vec![Command::default(); BATCH_COMMANDS_MAX + 1];
    let refused = answers(submit(&driven, many));
    assert_eq!(refused.len(), BATCH_COMMANDS_MAX + 1);
    let failure =
        ProposeFailure::BatchSize { commands: BATCH_COMMANDS_MAX + 1, max: BATCH_COMMANDS_MAX };
    assert!(refused.iter().all(|(_, result)| result.as_ref().err() == Some(&failure)));
    let long = "x".repeat(driven.node.handle().config().max_entry_bytes as usize / 2);
    let long = Command { data: long.into(), session: None };
    let refused = answers(submit(&driven, vec![long.clone(), long]));
    assert!(matches!(refused[..], [(0, Err(_)), (1, Err(ProposeFailure::TooLarge { .. }))]));
}

#[test]
fn all_callers_of_a_batch_are_told_when_the_node_ends_under_it() {
    let driven = node_with_burner(0);
    let receiver = submit(&driven, commands(&["", ""]));
    drop(driven);
    let told = answers(receiver);
    assert!(matches!(
        told[..],
        [(0, Err(ProposeFailure::Unknown(_))), (1, Err(ProposeFailure::Unknown(_)))]
    ));
}

/// Without timers, and without anybody waiting for anybody: what is there when the turn comes.
#[test]
fn commands_of_one_turn_share_entries_and_what_is_no_command_stays_in_its_place() {
    let mut driven = node_with_burner(0);
    let before = driven.command(b"").position.index;
    let (sender, receiver) = mpsc::unbounded_channel();
    let submit = |number: u64, request: Request| {
        driven.node.handle().submit([(request, ReplySink::Tagged(number, sender.clone()))]);
    };
    for number in 0..3 {
        submit(number, Command::default().into());
    }
    submit(3, Request::KeepSession { session_id: 4711, acknowledged: 0 });
    for number in 4..6 {
        submit(number, Command::default().into());
    }
    driven.settle();
    let places: Vec<(u64, Position)> = answers(receiver)
        .into_iter()
        .map(|(number, result)| (number, result.expect("applied").position))
        .collect();
    let (first, second) = (before.next(), before.next().next());
    let at = |index, ordinal| Position { index, ordinal };
    assert_eq!(
        places,
        [
            (0, at(first, 0)),
            (1, at(first, 1)),
            (2, at(first, 2)),
            (3, at(second, 0)),
            (4, at(second.next(), 0)),
            (5, at(second.next(), 1)),
        ]
    );
    assert_eq!(driven.node.handle().inflight_bytes(), 0, "what they took is given back");
}
