//! Runs of commands: straight, or with whatever may happen between two of them.

use bytes::Bytes;
use proptest::prelude::*;
use raft_host::fsm::{Call, Context, Fsm, GuestResult, Limits, SharedLoader};
use raft_host::types::{ActorName, ClusterId, Event, Index, Position, StateDigest, TrapKind};

use super::guests::Guest;

/// Something that must change nothing.
#[derive(Clone, Debug)]
pub enum Detour {
    /// A question, which may scribble and trap.
    Query(Vec<u8>),
    /// Several questions at once.
    Queries(Vec<Vec<u8>>),
    /// The guest's own snapshot.
    Snapshot,
    /// A digest.
    Digest,
    /// An image that nobody uses.
    Capture,
    /// The next command's pages are counted.
    CountPages,
    /// Another instance goes on, from an image, as after a restart.
    Restart,
    /// The same instance loads its own image.
    Reload,
    /// A fresh instance takes over, as when limits change.
    Adopt,
    /// A restore from the guest's own snapshot that is refused or traps.
    FailedRestore(Vec<u8>),
}

/// A command, and what happens before it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Changes nothing.
    pub detours: Vec<Detour>,
    /// Changes the state, or is refused, or traps.
    pub command: Vec<u8>,
}

/// What replicas must agree on after a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `Ok` with the answer, `Err` with a reason, or the kind of a trap.
    pub result: Result<Result<Vec<u8>, Vec<u8>>, TrapKind>,
    /// Fuel used.
    pub fuel: u64,
    /// In order.
    pub events: Vec<Event>,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Ended {
    /// Command by command.
    pub seen: Vec<Seen>,
    /// The whole state.
    pub image: Vec<u8>,
    /// The same, shorter.
    pub digest: StateDigest,
}

/// Steps of a guest.
pub fn steps(guest: Guest, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let query = guest.query();
    let detour = prop_oneof![
        4 => query.clone().prop_map(Detour::Query),
        1 => prop::collection::vec(query, 0..6).prop_map(Detour::Queries),
        1 => Just(Detour::Snapshot),
        1 => Just(Detour::Digest),
        1 => Just(Detour::Capture),
        1 => Just(Detour::CountPages),
        2 => Just(Detour::Restart),
        1 => Just(Detour::Reload),
        1 => Just(Detour::Adopt),
        1 => Just(Detour::FailedRestore(b"no snapshot of anything".to_vec())),
    ];
    let step = (prop::collection::vec(detour, 0..3), guest.command())
        .prop_map(|(detours, command)| Step { detours, command });
    prop::collection::vec(step, 1..most)
}

/// Budgets of these runs: some commands exceed them.
pub fn limits() -> Limits {
    Limits {
        apply_fuel: 3_000_000,
        query_fuel: 3_000_000,
        memory_max_bytes: 8 << 20,
        stack_max_bytes: 128 << 10,
        output_max_bytes: 256 << 10,
        ..Limits::default()
    }
}

/// A run without detours.
pub fn straight(loader: &SharedLoader, module: &[u8], steps: &[Step]) -> Ended {
    let mut fsm = start(loader, module);
    let seen = (1..).zip(steps).map(|(number, step)| apply(&mut *fsm, number, step)).collect();
    end(&mut *fsm, seen)
}

/// A run with all of them.
pub fn with_detours(loader: &SharedLoader, module: &[u8], steps: &[Step]) -> Ended {
    let mut fsm = start(loader, module);
    let mut seen = Vec::new();
    for (number, step) in (1..).zip(steps) {
        for detour in &step.detours {
            fsm = take(detour, fsm, loader, module, context(number - 1));
        }
        seen.push(apply(&mut *fsm, number, step));
    }
    end(&mut *fsm, seen)
}

fn context(number: u64) -> Context {
    let index = 10 + 3 * number;
    let time_ms = 1_700_000_000_000 + 1_000 * number;
    Context {
        cluster: ClusterId([9; 16]),
        position: Position::first(Index(index)),
        time_ms,
        actor: ActorName::NONE,
    }
}

fn start(loader: &SharedLoader, module: &[u8]) -> Box<dyn Fsm> {
    let fsm = loader.instantiate(module, &limits(), context(0)).expect("no host failure");
    let mut fsm = fsm.unwrap_or_else(|refused| panic!("{refused}"));
    let founded = fsm.init(context(0)).expect("no host failure");
    assert!(matches!(founded.result, GuestResult::Ok(_)), "{founded:?}");
    fsm
}

fn apply(fsm: &mut dyn Fsm, number: u64, step: &Step) -> Seen {
    seen(fsm.apply(context(number), &step.command).expect("no host failure"))
}

/// What replicas agree on, of a call.
pub fn seen(call: Call) -> Seen {
    let result = match call.result {
        GuestResult::Ok(bytes) => Ok(Ok(bytes)),
        GuestResult::Rejected(bytes) => Ok(Err(bytes)),
        GuestResult::Trapped(trap) => Err(trap.kind),
    };
    Seen { result, fuel: call.fuel_used, events: call.events }
}

/// The whole state, as snapshots carry it.
pub fn image(fsm: &mut dyn Fsm) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = fsm.capture().expect("no host failure");
    image.write_to(&mut bytes).expect("a vector takes everything");
    bytes
}

fn end(fsm: &mut dyn Fsm, seen: Vec<Seen>) -> Ended {
    let digest = fsm.digest().expect("no host failure").digest;
    Ended { seen, image: image(fsm), digest }
}

fn take(
    detour: &Detour,
    mut fsm: Box<dyn Fsm>,
    loader: &SharedLoader,
    module: &[u8],
    context: Context,
) -> Box<dyn Fsm> {
    match detour {
        Detour::Query(query) => {
            let first = seen(fsm.query(context, query).expect("no host failure"));
            let again = seen(fsm.query(context, query).expect("no host failure"));
            assert_eq!(first, again, "one question has one answer");
        }
        Detour::Queries(queries) => {
            let queries: Vec<Bytes> = queries.iter().cloned().map(Bytes::from).collect();
            let together = fsm.query_all(context, &queries).expect("no host failure");
            for (query, call) in queries.iter().zip(together) {
                let alone = seen(fsm.query(context, query).expect("no host failure"));
                assert_eq!(seen(call), alone, "questions do not see each other");
            }
        }
        Detour::Snapshot => {
            fsm.snapshot(context).expect("no host failure");
        }
        Detour::Digest => {
            fsm.digest().expect("no host failure");
        }
        Detour::Capture => drop(fsm.capture().expect("no host failure")),
        Detour::CountPages => fsm.count_pages(),
        Detour::Restart => {
            let bytes = image(&mut *fsm);
            let fresh = loader.instantiate_blank(module, &limits(), context);
            let mut fresh = fresh.expect("no host failure").expect("accepted before");
            fresh.load_image(&mut bytes.as_slice()).expect("its own image");
            return fresh;
        }
        Detour::Reload => {
            let bytes = image(&mut *fsm);
            fsm.load_image(&mut bytes.as_slice()).expect("its own image");
        }
        Detour::Adopt => {
            let captured = fsm.capture().expect("no host failure");
            let fresh = loader.instantiate(module, &limits(), context);
            let mut fresh = fresh.expect("no host failure").expect("accepted before");
            fresh.adopt(&*captured).expect("its own image");
            return fresh;
        }
        Detour::FailedRestore(snapshot) => {
            let before = image(&mut *fsm);
            let call = fsm.restore(context, snapshot).expect("no host failure");
            if matches!(call.result, GuestResult::Ok(_)) {
                // This guest takes anything: go back.
                fsm.load_image(&mut before.as_slice()).expect("its own image");
            }
        }
    }
    fsm
}
