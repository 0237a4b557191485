//! Histories known good and known bad, and the checker against one that tries every order.

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::checker::{Violation, check, check_within};
use super::{Action, Answer, Operation, Outcome, Value};

const READ: Action = Action::Read;
const DONE: Outcome = Outcome::Answered(Answer::Done);
const YES: Outcome = Outcome::Answered(Answer::Matched(true));
const NO: Outcome = Outcome::Answered(Answer::Matched(false));
const UNKNOWN: Outcome = Outcome::Unknown;

fn saw(value: impl Into<Value>) -> Outcome {
    Outcome::Answered(Answer::Value(value.into()))
}

fn write(value: i64) -> Action {
    Action::Write(value)
}

fn cas(expected: impl Into<Value>, new: i64) -> Action {
    Action::CompareAndSet(expected.into(), new)
}

/// Operations of one process each, on one key.
fn history(operations: &[(u64, u64, Action, Outcome)]) -> Vec<Operation> {
    let with_process = operations.iter().enumerate();
    with_process
        .map(|(process, &(start_ns, end_ns, action, outcome))| Operation {
            process: process as u64,
            key: "k".into(),
            action,
            outcome,
            start_ns,
            end_ns,
        })
        .collect()
}

#[track_caller]
fn good(operations: &[(u64, u64, Action, Outcome)]) {
    let history = history(operations);
    if let Err(violation) = check(&history) {
        panic!("refused: {violation}");
    }
    assert!(brute_force(&history), "the slow checker disagrees");
}

#[track_caller]
fn bad(operations: &[(u64, u64, Action, Outcome)]) -> String {
    let history = history(operations);
    assert!(!brute_force(&history), "the slow checker disagrees");
    match check(&history) {
        Err(violation @ Violation::NotLinearizable(_)) => violation.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Tries every subset of the unknown operations in every order.
fn brute_force(history: &[Operation]) -> bool {
    let (answered, unknown): (Vec<&Operation>, Vec<&Operation>) = history
        .iter()
        .filter(|operation| operation.outcome != Outcome::Failed)
        .partition(|operation| operation.outcome != Outcome::Unknown);
    (0..1_u32 << unknown.len()).any(|subset| {
        let some = unknown.iter().enumerate().filter(|(at, _)| subset & (1 << at) != 0);
        let mut chosen = answered.clone();
        chosen.extend(some.map(|(_, operation)| *operation));
        some_order_explains(&mut chosen, 0)
    })
}

fn some_order_explains(operations: &mut [&Operation], placed: usize) -> bool {
    if placed == operations.len() {
        return explains(operations);
    }
    (placed..operations.len()).any(|next| {
        operations.swap(placed, next);
        let found = some_order_explains(operations, placed + 1);
        operations.swap(placed, next);
        found
    })
}

fn explains(order: &[&Operation]) -> bool {
    let ended_before = |a: &Operation, b: &Operation| {
        matches!(a.outcome, Outcome::Answered(_)) && a.end_ns < b.start_ns
    };
    let in_time = order
        .iter()
        .enumerate()
        .all(|(at, first)| !order[at..].iter().any(|later| ended_before(later, first)));
    let mut store = None;
    in_time
        && order.iter().all(|operation| {
            let answer = execute(&mut store, operation.action);
            match operation.outcome {
                Outcome::Answered(expected) => answer == expected,
                _ => true,
            }
        })
}

/// A correct store with one key.
fn execute(value: &mut Value, action: Action) -> Answer {
    match action {
        Action::Read => Answer::Value(*value),
        Action::Write(new) => {
            *value = Some(new);
            Answer::Done
        }
        Action::Delete => Answer::Matched(value.take().is_some()),
        Action::CompareAndSet(expected, new) => {
            let matched = *value == expected;
            if matched {
                *value = Some(new);
            }
            Answer::Matched(matched)
        }
        Action::Add(amount) => {
            *value = Some(value.unwrap_or(0) + amount);
            Answer::Value(*value)
        }
    }
}

#[test]
fn what_one_client_does_in_order_is_good() {
    good(&[
        (0, 1, READ, saw(None)),
        (2, 3, write(1), DONE),
        (4, 5, READ, saw(1)),
        (6, 7, cas(1, 2), YES),
        (8, 9, cas(1, 3), NO),
        (10, 11, Action::Delete, YES),
        (12, 13, Action::Delete, NO),
        (14, 15, cas(None, 4), YES),
        (16, 17, READ, saw(4)),
    ]);
}

#[test]
fn operations_that_overlap_may_happen_in_either_order() {
    good(&[(0, 10, write(1), DONE), (0, 10, write(2), DONE), (11, 12, READ, saw(1))]);
    good(&[(0, 10, write(1), DONE), (0, 10, write(2), DONE), (11, 12, READ, saw(2))]);
    good(&[(0, 10, write(1), DONE), (2, 3, READ, saw(None)), (4, 5, READ, saw(1))]);
    // An end and a start at the same moment overlap.
    good(&[(0, 5, write(1), DONE), (5, 6, READ, saw(None))]);
}

#[test]
fn a_stale_read_is_found() {
    let said = bad(&[
        (0, 1, write(1), DONE),
        (2, 3, write(2), DONE),
        (4, 5, READ, saw(1)),
        (6, 7, READ, saw(2)),
    ]);
    assert!(said.contains("Read -> Answered(Value(Some(1))) [4, 5]"), "{said}");
    bad(&[(0, 1, write(1), DONE), (2, 3, READ, saw(None))]);
}

#[test]
fn a_lost_write_is_found() {
    bad(&[(0, 1, write(1), DONE), (2, 3, write(2), DONE), (4, 5, READ, saw(None))]);
    bad(&[(0, 1, Action::Add(1), saw(1)), (2, 3, Action::Add(1), saw(1))]);
}

#[test]
fn reads_that_disagree_about_the_order_are_found() {
    bad(&[
        (0, 20, write(1), DONE),
        (0, 20, write(2), DONE),
        (1, 2, READ, saw(1)),
        (3, 4, READ, saw(2)),
        (5, 6, READ, saw(1)),
    ]);
    // Seen, then unseen, while the write still runs.
    bad(&[(0, 20, write(1), DONE), (1, 2, READ, saw(1)), (3, 4, READ, saw(None))]);
}

#[test]
fn a_command_that_happened_twice_is_found() {
    bad(&[(0, 1, Action::Add(5), saw(5)), (2, 3, READ, saw(10))]);
    bad(&[(0, 1, Action::Add(5), UNKNOWN), (2, 3, READ, saw(10))]);
    good(&[
        (0, 1, Action::Add(5), UNKNOWN),
        (0, 1, Action::Add(5), UNKNOWN),
        (2, 3, READ, saw(10)),
    ]);
    // The same write, again after another one.
    bad(&[
        (0, 1, write(1), DONE),
        (2, 3, READ, saw(1)),
        (4, 5, write(2), DONE),
        (6, 7, READ, saw(1)),
    ]);
}

#[test]
fn a_value_of_a_failed_write_must_not_be_seen() {
    good(&[(0, 1, write(1), Outcome::Failed), (2, 3, READ, saw(None))]);
    bad(&[(0, 1, write(1), Outcome::Failed), (2, 3, READ, saw(1))]);
    bad(&[(0, 1, READ, saw(7))]);
}

#[test]
fn compare_and_set_anomalies_are_found() {
    // Two win from the same value.
    bad(&[
        (0, 1, write(1), DONE),
        (2, 9, cas(1, 2), YES),
        (2, 9, cas(1, 3), YES),
        (10, 11, READ, saw(3)),
    ]);
    // One does not match although nothing else was ever there.
    bad(&[(0, 1, write(1), DONE), (2, 3, cas(1, 2), NO)]);
    // One matched and left nothing.
    bad(&[(0, 1, cas(None, 1), YES), (2, 3, cas(None, 2), YES)]);
    bad(&[(0, 1, Action::Delete, YES)]);
}

#[test]
fn an_unknown_write_may_happen_later_or_never_but_not_come_and_go() {
    let unknown = (0, 1, write(1), UNKNOWN);
    good(&[unknown, (2, 3, READ, saw(None))]);
    good(&[unknown, (2, 3, READ, saw(None)), (4, 5, READ, saw(1))]);
    good(&[unknown, (2, 3, write(2), DONE), (4, 5, READ, saw(2)), (6, 7, READ, saw(1))]);
    bad(&[unknown, (2, 3, READ, saw(1)), (4, 5, READ, saw(None))]);
    bad(&[
        unknown,
        (2, 3, READ, saw(1)),
        (4, 5, write(2), DONE),
        (6, 7, READ, saw(2)),
        (8, 9, READ, saw(1)),
    ]);
    // Not before it was asked for.
    bad(&[(0, 1, READ, saw(1)), (2, 3, write(1), UNKNOWN)]);
}

#[test]
fn an_unknown_write_whose_value_nobody_saw_may_be_why_something_matched() {
    good(&[(0, 1, write(1), UNKNOWN), (2, 3, Action::Delete, YES)]);
    good(&[
        (0, 1, write(1), DONE),
        (2, 3, write(9), UNKNOWN),
        (4, 5, cas(1, 2), NO),
        (6, 7, write(3), DONE),
        (8, 9, READ, saw(3)),
    ]);
    bad(&[(0, 1, write(9), UNKNOWN), (2, 3, Action::Delete, YES), (4, 5, Action::Delete, YES)]);
}

#[test]
fn what_nobody_knows_about_reads_does_not_matter() {
    good(&[(0, 1, READ, UNKNOWN), (2, 3, READ, saw(None)), (4, 5, READ, Outcome::Failed)]);
}

#[test]
fn keys_do_not_affect_each_other() {
    let mut history = history(&[(0, 1, write(1), DONE), (2, 3, READ, saw(None))]);
    assert!(check(&history).is_err());
    history[1].key = "other".into();
    assert!(check(&history).is_ok());
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let wrong = [(0, 1, write(1), saw(1)), (0, 1, READ, DONE), (5, 4, READ, saw(None))];
    for operation in wrong {
        let found = check(&history(&[operation]));
        assert!(matches!(found, Err(Violation::Malformed { .. })), "{found:?}");
    }
}

#[test]
fn a_search_that_gives_up_says_so() {
    let many: Vec<_> = (0..12).map(|n| (0, 100, cas(n, n + 1), NO)).collect();
    let mut hard: Vec<_> = (0..12).map(|n| (0, 100, write(n), DONE)).collect();
    hard.extend(many);
    hard.push((101, 102, Action::Delete, NO));
    let found = check_within(&history(&hard), 1_000);
    assert!(matches!(found, Err(Violation::GaveUp { .. })), "{found:?}");
}

/// How an execution is made.
struct Shape {
    processes: usize,
    operations: usize,
    keys: usize,
    /// Of a hundred operations that change something.
    unknown: u32,
    with_add: bool,
    /// Every value is written once.
    unique: bool,
}

/// Executes random operations on a correct store, each at one moment between its start and its
/// end; some are never answered, and some of those never happen.
fn execution(rng: &mut ChaCha8Rng, shape: &Shape) -> Vec<Operation> {
    struct Running {
        operation: Operation,
        happens_ns: u64,
        answer: Option<Answer>,
        happened: bool,
    }
    let mut stores = vec![None; shape.keys];
    let mut running: Vec<Option<Running>> = (0..shape.processes).map(|_| None).collect();
    let mut ids: Vec<u64> = (0..shape.processes as u64).collect();
    let mut late: Vec<Running> = Vec::new();
    let (mut history, mut now, mut value) = (Vec::new(), 0, 0);
    let key_of = |running: &Running| running.operation.key.parse::<usize>().expect("a number");
    while history.len() < shape.operations {
        now += 1;
        for slot in running.iter_mut().flatten().chain(&mut late) {
            if slot.happens_ns == now && !slot.happened {
                let key = key_of(slot);
                slot.answer = Some(execute(&mut stores[key], slot.operation.action));
                slot.happened = true;
            }
        }
        let at = rng.random_range(0..shape.processes);
        match running[at].take() {
            None => {
                value += 1;
                let known = [value, rng.random_range(0..4)][usize::from(!shape.unique)];
                let key = rng.random_range(0..shape.keys);
                let current: Value = stores[key];
                let expected = if rng.random_bool(0.7) { current } else { Some(value - 3) };
                let action = match rng.random_range(0..if shape.with_add { 6 } else { 5 }) {
                    0 | 1 => Action::Read,
                    2 => Action::Write(known),
                    3 => Action::CompareAndSet(expected, known),
                    4 if rng.random_bool(0.3) => Action::Delete,
                    4 => Action::Read,
                    _ => Action::Add(rng.random_range(1..4)),
                };
                let operation = Operation {
                    process: ids[at],
                    key: key.to_string(),
                    action,
                    outcome: Outcome::Unknown,
                    start_ns: now,
                    end_ns: 0,
                };
                let happens_ns = now + rng.random_range(1..10 * shape.processes as u64);
                running[at] =
                    Some(Running { operation, happens_ns, answer: None, happened: false });
            }
            Some(mut slot) => {
                let lost = rng.random_ratio(shape.unknown, 100);
                if !slot.happened && !lost {
                    running[at] = Some(slot);
                    continue;
                }
                slot.operation.end_ns = now;
                if lost {
                    ids[at] = history.len() as u64 + 1_000_000;
                    history.push(slot.operation.clone());
                    if !slot.happened && rng.random_bool(0.7) {
                        slot.happens_ns = now + rng.random_range(1..200);
                        late.push(slot);
                    }
                } else {
                    let answer = slot.answer.expect("it happened");
                    slot.operation.outcome = Outcome::Answered(answer);
                    history.push(slot.operation);
                }
            }
        }
    }
    // Those that still run may have happened.
    history.extend(
        running.into_iter().flatten().map(|slot| Operation { end_ns: now, ..slot.operation }),
    );
    history
}

#[test]
fn whatever_a_correct_store_does_is_accepted() {
    let mut gave_up = 0;
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape {
            processes: rng.random_range(1..12),
            operations: rng.random_range(1..300),
            keys: rng.random_range(1..4),
            unknown: rng.random_range(0..30),
            with_add: rng.random_bool(0.3),
            unique: rng.random_bool(0.7),
        };
        match check_within(&execution(&mut rng, &shape), 20_000) {
            Ok(()) => {}
            // Unknown additions can add up to anything in too many ways.
            Err(Violation::GaveUp { .. }) if shape.with_add => gave_up += 1,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    assert!(gave_up < 30, "gave up on {gave_up} of 300");
}

#[test]
fn long_histories_of_many_clients_on_one_key_are_judged() {
    for (unique, processes, unknown, operations) in
        [(true, 16, 0, 3_000), (true, 8, 1, 1_000), (false, 4, 0, 1_000)]
    {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let shape = Shape { processes, operations, keys: 1, unknown, with_add: false, unique };
        let mut history = execution(&mut rng, &shape);
        if let Err(violation) = check(&history) {
            panic!("unique {unique}, unknown {unknown}: {violation}");
        }
        // A read of the very end sees something that was overwritten.
        let old = history.iter().rev().find_map(|operation| match operation.outcome {
            Outcome::Answered(Answer::Value(Some(value))) => Some(value),
            _ => None,
        });
        let last = history.iter().map(|operation| operation.end_ns).max().unwrap_or(0);
        let at = |start_ns| Operation {
            process: 9_999_999,
            key: "0".into(),
            action: READ,
            outcome: saw(old),
            start_ns,
            end_ns: start_ns + 1,
        };
        let write = Operation { action: write(-5), outcome: DONE, ..at(last + 1) };
        let stale = Operation { outcome: saw(old), ..at(last + 3) };
        let fresh = Operation { outcome: saw(-5), ..at(last + 5) };
        history.extend([write, stale, fresh]);
        let found = check(&history);
        assert!(
            matches!(found, Err(Violation::NotLinearizable(_))),
            "unique {unique}, unknown {unknown}: {found:?}"
        );
    }
}

#[test]
fn small_histories_are_judged_as_by_trying_every_order() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..6_000 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let with_add = rng.random_bool(0.3);
        let count = rng.random_range(1..7);
        let history: Vec<_> = (0..count).map(|_| anything(&mut rng, with_add)).collect();
        let history = self::history(&history);
        let expected = brute_force(&history);
        match check(&history) {
            Ok(()) => assert!(expected, "seed {seed}: {history:#?}"),
            Err(Violation::NotLinearizable(_)) => assert!(!expected, "seed {seed}: {history:#?}"),
            Err(other) => panic!("seed {seed}: {other}"),
        }
        if expected { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} and {refused}");
}

/// Any operation with any answer, of few values, so that many histories are good by chance.
fn anything(rng: &mut ChaCha8Rng, with_add: bool) -> (u64, u64, Action, Outcome) {
    let start = rng.random_range(0..12);
    let end = start + rng.random_range(0..6);
    let value = |rng: &mut ChaCha8Rng| rng.random_range(1..3);
    let maybe = |rng: &mut ChaCha8Rng| rng.random_bool(0.7).then(|| rng.random_range(1..3));
    let (action, answer) = match rng.random_range(0..if with_add { 6 } else { 5 }) {
        0 => (READ, saw(maybe(rng))),
        1 | 2 => (write(value(rng)), DONE),
        3 => (cas(maybe(rng), value(rng)), [YES, NO][rng.random_range(0..2)]),
        4 => (Action::Delete, [YES, NO][rng.random_range(0..2)]),
        _ => (Action::Add(value(rng)), saw(rng.random_range(1..5))),
    };
    let outcome = match rng.random_range(0..10) {
        0..3 => UNKNOWN,
        3 => Outcome::Failed,
        _ => answer,
    };
    (start, end, action, outcome)
}
