//! Replicas of one log, over ten thousand commands of which a tenth breaks in every way.

use std::io::Cursor;

use bytes::Bytes;
use prost::Message as _;
use raft_host::fsm::{Context, Fsm, SharedLoader};
use raft_host::machine::{Machine, Reply};
use raft_host::types::{
    ActorName, ClusterId, ConfState, GroupId, Index, Member, ModuleHash, NodeId, Outcome, Position,
    TrapKind,
};
use raft_host_proto::stored;
use raft_host_tests::hostile;
use raft_host_tests::properties::guests::{Guest, loaders};
use raft_host_tests::properties::runs;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const COMMANDS: u64 = 10_000;
/// Entries between two looks at the replicas.
const CHECK_EVERY: u64 = 100;
const CLUSTER: ClusterId = ClusterId([9; 16]);

/// A command; every tenth traps, each in one of eight ways.
fn command(random: &mut ChaCha8Rng, number: u64) -> Vec<u8> {
    let ops: &[u8] = if number % 10 == 9 { b"ulzoshwn" } else { b"aaaagrtxe" };
    let mut command = vec![ops[random.random_range(0..ops.len())]];
    let len = random.random_range(0..200);
    command.extend((0..len).map(|_| random.random::<u8>()));
    command
}

fn entry(number: u64, body: stored::entry::Body) -> Bytes {
    stored::Entry { time_ms: 1_700_000_000_000 + number, actor: None, body: Some(body) }
        .encode_to_vec()
        .into()
}

/// The log: a module, and commands for it.
fn log() -> Vec<Bytes> {
    let module = Guest::Wat.module();
    let hash = ModuleHash::of(&module);
    let chunk = stored::ModuleChunk {
        module_hash: hash.0.to_vec().into(),
        total_bytes: module.len() as u64,
        offset: 0,
        data: module.into(),
        ..Default::default()
    };
    let activate =
        stored::ActivateModule { module_hash: hash.0.to_vec().into(), ..Default::default() };
    let mut log = vec![
        entry(0, stored::entry::Body::ModuleChunk(chunk)),
        entry(0, stored::entry::Body::ActivateModule(activate)),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut number = 0;
    while number < COMMANDS {
        // Half of the entries hold several commands.
        let count = if random.random() { 1 } else { random.random_range(2..=40) };
        let numbers = number..(number + count).min(COMMANDS);
        let commands = numbers.map(|number| stored::Command {
            data: command(&mut random, number).into(),
            session: None,
            actor: None,
        });
        let batch = stored::Batch { commands: commands.collect() };
        log.push(entry(number, stored::entry::Body::Batch(batch)));
        number += count;
    }
    log
}

fn machine(loader: SharedLoader) -> Machine {
    let mut machine = Machine::new(CLUSTER, GroupId::MAIN, runs::limits(), loader);
    let me = Member { id: NodeId(1), address: "one:1".to_owned() };
    let conf_state = ConfState { voters: [NodeId(1)].into_iter().collect(), ..Default::default() };
    machine.bootstrap_members(Index(1), vec![me], conf_state);
    machine
}

/// Everything that is replicated.
fn state(machine: &mut Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    let snapshot = machine.capture().expect("no host failure");
    snapshot.write_to(&mut bytes).expect("a vector takes everything");
    bytes
}

#[test]
fn three_replicas_agree_over_ten_thousand_commands_of_which_a_tenth_traps() {
    let mut replicas: Vec<Machine> = loaders().into_iter().map(machine).collect();
    assert_eq!(replicas.len(), 3);
    let mut kinds = std::collections::BTreeSet::new();
    let mut trapped = 0;
    let log = log();
    let half = log.len() / 2;
    for (number, entry) in log.into_iter().enumerate() {
        let index = Index(number as u64 + 2);
        let mut applied = replicas.iter_mut().map(|replica| {
            let mut answers = Vec::new();
            replica
                .apply(index, &entry, &mut |position, applied| {
                    answers.push((position, applied.reply, applied.fuel_used, applied.events));
                })
                .expect("no host failure");
            answers
        });
        let first = applied.next().expect("there are three");
        for other in applied {
            assert_eq!(first, other, "entry {index}");
        }
        for (position, reply, ..) in first {
            assert_eq!(position.index, index);
            match reply {
                Reply::Command(Outcome::Trapped(kind)) => {
                    kinds.insert(kind as u8);
                    trapped += 1;
                }
                Reply::Command(_) | Reply::ChunkStored { .. } | Reply::Activated { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if (number as u64).is_multiple_of(CHECK_EVERY) {
            let states: Vec<Vec<u8>> = replicas.iter_mut().map(state).collect();
            assert!(states.iter().all(|other| *other == states[0]), "at entry {index}");
        }
        if number == half {
            // One of them is lost, and comes back from another's snapshot, with nothing compiled.
            let snapshot = state(&mut replicas[0]);
            let loader = hostile::loader();
            replicas[2] =
                Machine::restore(&mut Cursor::new(snapshot), CLUSTER, GroupId::MAIN, loader)
                    .expect("a sound snapshot");
        }
    }
    assert_eq!(trapped, COMMANDS / 10);
    let all = [
        TrapKind::OutOfFuel,
        TrapKind::StackOverflow,
        TrapKind::OutOfBounds,
        TrapKind::Unreachable,
        TrapKind::Arithmetic,
        TrapKind::BadHostCall,
        TrapKind::OutputLimit,
        TrapKind::BadStatus,
    ];
    assert_eq!(kinds, all.iter().map(|kind| *kind as u8).collect());
    let states: Vec<Vec<u8>> = replicas.iter_mut().map(state).collect();
    assert!(states.iter().all(|other| *other == states[0]), "at the end");
}

#[test]
fn ten_thousand_questions_that_scribble_change_nothing() {
    const BATCH: u64 = 100;
    let module = Guest::Wat.module();
    let start = || -> Box<dyn Fsm> {
        let fsm = hostile::loader().instantiate(&module, &runs::limits(), context(0));
        fsm.expect("no host failure").expect("it is sound")
    };
    let (mut asked, mut alone) = (start(), start());
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for batch in 0..COMMANDS / BATCH {
        let context = context(batch + 1);
        let command = command(&mut random, batch);
        let answers = [&mut asked, &mut alone]
            .map(|fsm| runs::seen(fsm.apply(context, &command).expect("no host failure")));
        assert_eq!(answers[0], answers[1]);
        // Nine of ten scribble, one of ten scribbles and breaks.
        let questions: Vec<Bytes> =
            (0..BATCH).map(|number| self::command(&mut random, number).into()).collect();
        let answers = asked.query_all(context, &questions).expect("no host failure");
        assert_eq!(answers.len(), questions.len());
        // Each was answered as if it had been the only one.
        for at in [0, 9, 57] {
            let answer = runs::seen(alone.query(context, &questions[at]).expect("no failure"));
            assert_eq!(runs::seen(answers[at].clone()), answer);
        }
        if batch % 10 == 0 {
            let digests =
                [&mut asked, &mut alone].map(|fsm| fsm.digest().expect("no failure").digest);
            assert_eq!(digests[0], digests[1], "batch {batch}");
        }
    }
    assert!(runs::image(&mut *asked) == runs::image(&mut *alone));
}

fn context(number: u64) -> Context {
    let position = Position::first(Index(number));
    Context { cluster: CLUSTER, position, time_ms: 1_000 * number, actor: ActorName::NONE }
}
