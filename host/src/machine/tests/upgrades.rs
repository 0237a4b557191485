//! Activations that rely on a rehearsal, are made ahead, or are undone.

mod ahead;
mod kept;
mod receipts;

use super::*;
use crate::types::{Actor, StateDigest};

const TWIST: &str = "test twist";

fn upload(machine: &mut Machine, module: &str) {
    let total = module.len() as u64;
    let reply = apply(machine, 0, chunk(module.as_bytes(), 0, module.len())).reply;
    assert_eq!(reply, Reply::ChunkStored { received: total, total });
}

fn incumbent(machine: &Machine) -> Option<stored::Incumbent> {
    machine.state.modules.incumbent().map(Incumbent::to_log)
}

/// An activation in the place of what is active.
fn taking_over(machine: &Machine, module: &str, way: TakeOver, receipt: u64) -> Body {
    let Body::ActivateModule(entry) = activate(machine, module.as_bytes()) else { panic!() };
    Body::ActivateModule(way.put(stored::ActivateModule { receipt, ..entry }))
}

fn rewind(machine: &Machine) -> Body {
    let module = machine.info().way_back.map_or(ModuleHash::of(b"test"), |way| way.module);
    Body::ActivateModule(stored::ActivateModule {
        module_hash: module.0.to_vec().into(),
        replaces: incumbent(machine),
        rewind: true,
        ..Default::default()
    })
}

fn fork(machine: &Machine, module: &str) -> Body {
    Body::ForkState(stored::ForkState {
        module_hash: ModuleHash::of(module.as_bytes()).0.to_vec().into(),
        replaces: incumbent(machine),
    })
}

fn settle(activated_at: u64) -> Body {
    Body::SettleUpgrade(stored::SettleUpgrade { activated_at })
}

/// Of a module that answered as the active one did.
fn receipt(machine: &Machine, module: &str) -> stored::RecordReceipt {
    stored::RecordReceipt {
        module_hash: ModuleHash::of(module.as_bytes()).0.to_vec().into(),
        replaces: incumbent(machine),
        base: machine.applied_index().0,
        until: machine.applied_index().0,
        report_hash: vec![7; 32].into(),
        voters: vec![1],
        ..Default::default()
    }
}

/// Records one and returns its index.
fn record(machine: &mut Machine, receipt: stored::RecordReceipt) -> u64 {
    let index = machine.applied_index().next();
    let reply = apply(machine, 0, Body::RecordReceipt(receipt)).reply;
    assert_eq!(reply, Reply::ReceiptRecorded { index });
    index.0
}

fn refused(reply: Reply) -> String {
    match reply {
        Reply::ActivationFailed(reason)
        | Reply::ReceiptStale(reason)
        | Reply::ReceiptRefused(reason)
        | Reply::ForkRefused(reason) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn is_activated(reply: &Reply) -> bool {
    matches!(reply, Reply::Activated { .. })
}

fn guest(machine: &mut Machine) -> Option<StateDigest> {
    machine.guest_digest().unwrap()
}

fn digest(machine: &mut Machine) -> StateDigest {
    machine.digest_now().unwrap()
}

/// What may come between an upgrade and the way back from it: commands of each kind.
fn traffic() -> Vec<Body> {
    let ordered = |sequence| in_session(b"late", 4, sequence, 0);
    let by = |data: &'static [u8]| stored::Command {
        data: data.into(),
        session: None,
        actor: crate::machine::actor_to_log(Actor::Local(NodeId(1))),
    };
    let commands = vec![by(b"b0"), by(b"trap"), by(b"b2")];
    vec![
        command(b"one"),
        command(b"trap"),
        command(b"reject"),
        ordered(2),
        Body::Batch(stored::Batch { commands }),
        ordered(1),
        in_session(b"late", 4, 1, 0),
        command(b"emit"),
        command(&[b'x'; 65]),
    ]
}

/// A machine with an ordered session whose id is 4.
fn begun(module: &str) -> Machine {
    let mut machine = running(module);
    apply(&mut machine, 1, Body::OpenSession(stored::OpenSession { ttl_ms: 0, ordered: true }));
    apply(&mut machine, 2, command(b"before"));
    machine
}

/// Applies an entry as `apply`, of which more than one answer may come.
fn apply_any(machine: &mut Machine, time_ms: u64, body: Body) -> Vec<Applied> {
    let data = stored::Entry { time_ms, actor: None, body: Some(body) }.encode_to_vec();
    apply_data(machine, data).unwrap()
}

#[test]
fn a_rewound_guest_is_one_that_never_upgraded_wherever_nodes_restart() {
    for restarts in 0..12 {
        let mut never = begun("test");
        let mut upgraded = begun("test");
        let mut restarted = begun("test");
        for machine in [&mut never, &mut upgraded, &mut restarted] {
            upload(machine, TWIST);
        }
        let mut step = 0;
        let mut both = |upgraded: &mut Machine, restarted: &mut Machine, body: Body| {
            if step == restarts {
                *restarted = restore(&snapshot(restarted)).expect("its own snapshot");
            }
            step += 1;
            let answers = apply_any(upgraded, 10 + step, body.clone());
            assert_eq!(apply_any(restarted, 10 + step, body), answers);
            assert_eq!(digest(restarted), digest(upgraded), "after step {step}");
            answers
        };
        let body = activate(&upgraded, TWIST.as_bytes());
        assert!(is_activated(&both(&mut upgraded, &mut restarted, body)[0].reply));
        apply_data(&mut never, Vec::new()).unwrap();
        let mut commands = 0;
        for (at, body) in traffic().into_iter().enumerate() {
            let answers = both(&mut upgraded, &mut restarted, body.clone());
            let theirs = apply_any(&mut never, 12 + at as u64, body);
            assert_eq!(answers.len(), theirs.len());
            let reached = |it: &&Applied| matches!(&it.reply, Reply::Command(outcome) if !matches!(outcome, Outcome::Duplicate(_)));
            commands += answers.iter().filter(reached).count() as u64;
        }
        assert_ne!(guest(&mut upgraded), guest(&mut never));
        let way = upgraded.info().way_back.expect("kept");
        assert_eq!((way.module, way.commands), (ModuleHash::of(b"test"), commands));
        let body = rewind(&upgraded);
        let answers = both(&mut upgraded, &mut restarted, body);
        let Reply::Activated { rewound: Some(rewound), .. } = answers[0].reply else {
            panic!("{answers:?}");
        };
        // All but the traps, the rejection and what was too long.
        assert_eq!((rewound.commands, rewound.differing), (commands, commands - 3));
        assert_eq!(rewound.first, Some(Position::first(way.activated_at.next())));
        assert_eq!(guest(&mut upgraded), guest(&mut never));
        assert_eq!(guest_state(&mut upgraded), guest_state(&mut never));
        let info = upgraded.info();
        assert_eq!((info.way_back, info.history.len()), (None, 3), "no way back from a way back");
        // It goes on the same.
        apply_data(&mut never, Vec::new()).unwrap();
        both(&mut upgraded, &mut restarted, command(b"after"));
        apply(&mut never, 10 + step, command(b"after"));
        assert_eq!(guest(&mut upgraded), guest(&mut never));
        assert_eq!(snapshot(&mut restarted), snapshot(&mut upgraded));
    }
}

/// A machine that has replaced its module, and has a way back.
fn upgraded() -> Machine {
    let mut machine = begun("test");
    upload(&mut machine, TWIST);
    let body = activate(&machine, TWIST.as_bytes());
    assert!(is_activated(&apply(&mut machine, 10, body).reply));
    machine
}

#[test]
fn a_way_back_ends_with_too_many_bytes_with_its_time_and_when_it_is_confirmed() {
    let hour = Limits::default().upgrade_keep_ms;
    let mut machine = upgraded();
    assert_eq!(machine.info().way_back.unwrap().expires_ms, 10 + hour);
    apply(&mut machine, 9 + hour, command(b"a"));
    assert!(machine.info().way_back.is_some());
    let mut other = restore(&snapshot(&mut machine)).unwrap();
    for machine in [&mut machine, &mut other] {
        apply(machine, 10 + hour, command(b"a"));
        assert_eq!(machine.info().way_back, None);
        let body = rewind(machine);
        assert!(refused(apply(machine, 0, body).reply).contains("is kept any more"));
    }
    assert_eq!(digest(&mut machine), digest(&mut other));

    let mut machine = upgraded();
    let one = EXECUTED_OVERHEAD_BYTES + 1;
    apply(&mut machine, 0, set_limits(&[Limit::UpgradeKeepBytes(3 * one)]));
    for _ in 0..2 {
        apply(&mut machine, 0, command(b"trap"));
    }
    assert_eq!(machine.info().way_back.unwrap().bytes, 2 * (one + 3));
    apply(&mut machine, 0, set_limits(&[Limit::UpgradeKeepBytes(2 * (one + 3))]));
    assert!(machine.info().way_back.is_some(), "just so many");
    let mut lowered = restore(&snapshot(&mut machine)).unwrap();
    apply(&mut lowered, 0, set_limits(&[Limit::UpgradeKeepBytes(2 * one)]));
    assert_eq!(lowered.info().way_back, None);
    apply(&mut machine, 0, command(b"x"));
    assert_eq!(machine.info().way_back, None, "one too many");

    let mut machine = upgraded();
    let at = machine.info().way_back.unwrap().activated_at.0;
    let settled = |machine: &mut Machine, at| apply(machine, 0, settle(at)).reply;
    assert_eq!(settled(&mut machine, at - 1), Reply::UpgradeSettled { was_open: false });
    assert!(machine.info().way_back.is_some());
    assert_eq!(settled(&mut machine, at), Reply::UpgradeSettled { was_open: true });
    assert_eq!(settled(&mut machine, at), Reply::UpgradeSettled { was_open: false });
    assert_eq!(machine.info().way_back, None);

    let mut machine = begun("test");
    apply(&mut machine, 0, set_limits(&[Limit::UpgradeKeepMs(0)]));
    load(&mut machine, TWIST);
    assert_eq!(machine.info().way_back, None, "they are not kept");
}

#[test]
fn rules_that_change_end_a_way_back_and_a_fork() {
    let changes = [
        set_limits(&[Limit::ApplyFuel(1_000)]),
        Body::SetEngine(stored::SetEngine { profile: theirs() }),
    ];
    for change in changes {
        let mut machine = upgraded();
        let body = fork(&machine, "test");
        apply(&mut machine, 0, body);
        let info = machine.info();
        assert!(info.way_back.is_some() && info.fork.is_some());
        // Nothing changes here, and there is another reason why not.
        apply(&mut machine, 0, set_limits(&[Limit::EventsMax(info.limits.events_max)]));
        apply(&mut machine, 0, set_limits(&[Limit::ApplyFuel(0)]));
        assert!(machine.info().way_back.is_some() && machine.info().fork.is_some());
        apply(&mut machine, 0, change);
        let info = machine.info();
        assert_eq!((info.way_back, info.fork), (None, None));
        assert_eq!(info.rules_changed_at, machine.applied_index());
    }
    let mut machine = upgraded();
    let body = fork(&machine, "test");
    apply(&mut machine, 0, body);
    apply(&mut machine, 0, set_limits(&[Limit::ActivationFuel(1_000)]));
    let info = machine.info();
    assert!(info.way_back.is_some() && info.fork.is_none());
    assert_eq!(info.rules_changed_at, Index(0));
}

fn theirs() -> String {
    use crate::fsm::{EngineFacts, EngineProfile};
    let facts = EngineProfile::first().facts().unwrap();
    EngineProfile::of(&EngineFacts { fuel: facts.fuel + 1, ..facts }).as_str().to_owned()
}

#[test]
fn a_way_back_and_a_fork_that_take_too_much_fuel_are_not_taken() {
    let mut machine = upgraded();
    for _ in 0..3 {
        apply(&mut machine, 0, command(b"a"));
    }
    apply(&mut machine, 0, set_limits(&[Limit::ActivationFuel(50)]));
    let mut other = restore(&snapshot(&mut machine)).unwrap();
    let (body, before) = (rewind(&machine), guest(&mut machine));
    let applied = apply(&mut machine, 0, body.clone());
    assert_eq!(apply(&mut other, 0, body), applied);
    assert!(applied.fuel_used > 50, "that of those up to the one that was too much");
    assert!(refused(applied.reply).contains("activation_fuel"));
    assert_eq!(guest(&mut machine), before);
    assert_eq!(digest(&mut other), digest(&mut machine));
    apply(&mut machine, 0, set_limits(&[Limit::ActivationFuel(5_000)]));
    let body = rewind(&machine);
    assert!(is_activated(&apply(&mut machine, 0, body).reply), "now it may");

    let body = fork(&machine, "test");
    apply(&mut machine, 0, set_limits(&[Limit::ActivationFuel(50)]));
    apply(&mut machine, 0, body);
    let (at, job) = (machine.applied_index(), machine.ahead_job().unwrap());
    for _ in 0..9 {
        apply(&mut machine, 0, command(b"a"));
    }
    machine.take_ahead(job);
    let mut other = restore(&snapshot(&mut machine)).unwrap();
    let body = taking_over(&machine, "test", TakeOver::Renew { fork: Some(at) }, 0);
    let applied = apply(&mut machine, 0, body.clone());
    assert_eq!(apply(&mut other, 0, body), applied);
    assert!(refused(applied.reply).contains("activation_fuel"));
    assert_eq!(machine.info().fork, None, "it would take as much again");
    assert_eq!(snapshot(&mut other), snapshot(&mut machine));
}

#[test]
fn of_two_operators_one_is_done_and_the_other_and_every_retry_change_nothing() {
    let mut machine = upgraded();
    let (one, other) = (rewind(&machine), activate(&machine, b"test"));
    let confirm = settle(machine.info().way_back.unwrap().activated_at.0);
    let forked = fork(&machine, "test");
    assert!(is_activated(&apply(&mut machine, 0, one.clone()).reply));
    let state = guest(&mut machine);
    for late in [one.clone(), other] {
        let reply = apply(&mut machine, 0, late).reply;
        assert!(matches!(reply, Reply::AlreadyActive { .. }), "{reply:?}");
    }
    assert_eq!(apply(&mut machine, 0, confirm).reply, Reply::UpgradeSettled { was_open: false });
    let reply = apply(&mut machine, 0, forked).reply;
    assert!(matches!(reply, Reply::ActivationSuperseded { .. }), "{reply:?}");
    // Forward again, and then the retry of the way back comes.
    let body = activate(&machine, TWIST.as_bytes());
    assert!(is_activated(&apply(&mut machine, 0, body).reply));
    let reply = apply(&mut machine, 0, one).reply;
    assert!(matches!(reply, Reply::ActivationSuperseded { .. }), "{reply:?}");
    assert!(machine.info().way_back.is_some());
    let back = rewind(&machine);
    apply(&mut machine, 0, back);
    assert_eq!(guest(&mut machine), state);
    let nowhere = taking_over(&machine, TWIST, TakeOver::Rewind, 0);
    assert!(refused(apply(&mut machine, 0, nowhere).reply).contains("confirmed"));
}

#[test]
fn a_conversion_back_is_an_activation_with_a_way_back_of_its_own() {
    let mut machine = upgraded();
    apply(&mut machine, 0, command(b"a"));
    let body = activate(&machine, b"test");
    assert!(is_activated(&apply(&mut machine, 0, body).reply));
    assert_eq!(machine.info().way_back.unwrap().module, ModuleHash::of(TWIST.as_bytes()));
    assert!(guest_state(&mut machine).windows(2).any(|it| it == b"a!"), "what it did stays");
}

#[test]
fn a_renewed_module_goes_on_with_its_own_state_and_the_way_back_stays() {
    let mut never = begun("test");
    let mut machine = upgraded();
    apply(&mut machine, 20, command(b"a"));
    let before = guest_state(&mut machine);
    let body = taking_over(&machine, TWIST, TakeOver::Renew { fork: None }, 0);
    let reply = apply(&mut machine, 20, body.clone()).reply;
    assert!(is_activated(&reply), "{reply:?}");
    assert_eq!(guest_state(&mut machine), before);
    let retry = apply(&mut machine, 20, body).reply;
    assert!(matches!(retry, Reply::AlreadyActive { .. }), "{retry:?}");
    let other = taking_over(&machine, "test", TakeOver::Renew { fork: None }, 0);
    assert!(refused(apply(&mut machine, 20, other).reply).contains("not active"));
    let info = machine.info();
    assert_eq!(info.history.len(), 3);
    let way = info.way_back.expect("it leads here as before");
    assert_eq!((way.module, way.commands), (ModuleHash::of(b"test"), 1));
    let mut machine = restore(&snapshot(&mut machine)).unwrap();
    // Ahead, too.
    let body = fork(&machine, TWIST);
    apply(&mut machine, 20, body);
    let (at, job) = (machine.applied_index(), machine.ahead_job().unwrap());
    apply(&mut machine, 20, command(b"b"));
    machine.take_ahead(job);
    let body = taking_over(&machine, TWIST, TakeOver::Renew { fork: Some(at) }, 0);
    assert!(is_activated(&apply(&mut machine, 20, body).reply));
    let body = rewind(&machine);
    assert!(is_activated(&apply(&mut machine, 20, body).reply));
    while never.applied_index() < machine.applied_index() {
        match never.applied_index().next().0 {
            8 => drop(apply(&mut never, 20, command(b"a"))),
            13 => drop(apply(&mut never, 20, command(b"b"))),
            _ => drop(apply_data(&mut never, Vec::new()).unwrap()),
        }
    }
    assert_eq!(guest_state(&mut machine), guest_state(&mut never));
}

#[test]
fn a_module_begins_with_a_portable_state_that_was_uploaded() {
    let mut machine = begun("test");
    apply(&mut machine, 0, set_limits(&[Limit::ModuleMaxBytes(64), Limit::SnapshotMaxBytes(128)]));
    upload(&mut machine, TWIST);
    let state = [b's'; 100];
    let part = |is_state, from: usize, to: usize| {
        let Body::ModuleChunk(part) = chunk(&state, from, to) else { panic!() };
        Body::ModuleChunk(stored::ModuleChunk { portable_state: is_state, ..part })
    };
    let too_large = apply(&mut machine, 0, part(false, 0, 9)).reply;
    assert!(matches!(too_large, Reply::ChunkRefused(_)), "{too_large:?}");
    apply(&mut machine, 0, part(true, 0, 50));
    let mut machine = restore(&snapshot(&mut machine)).unwrap();
    let other = apply(&mut machine, 0, part(false, 50, 100)).reply;
    assert!(matches!(other, Reply::ChunkRefused(_)), "{other:?}");
    let hash = ModuleHash::of(&state);
    let way = TakeOver::PortableState(hash);
    let early = taking_over(&machine, TWIST, way, 0);
    assert!(refused(apply(&mut machine, 0, early).reply).contains("not here"));
    let stored = apply(&mut machine, 0, part(true, 50, 100)).reply;
    assert_eq!(stored, Reply::ChunkStored { received: 100, total: 100 });
    let mut machine = restore(&snapshot(&mut machine)).unwrap();
    assert!(machine.info().modules.iter().any(|it| it.is_state && it.hash == hash));
    assert_eq!(machine.module_bytes(hash), None, "it is no module");
    let as_module = activate(&machine, &state);
    assert!(refused(apply(&mut machine, 0, as_module).reply).contains("not here"));
    let body = taking_over(&machine, TWIST, way, 0);
    assert!(is_activated(&apply(&mut machine, 0, body).reply));
    assert_eq!(guest_state(&mut machine), [b":", &state[..]].concat());
    assert!(machine.info().modules.iter().all(|it| !it.is_state), "it is not needed any more");
    assert!(machine.info().way_back.is_some());
}

#[test]
fn a_module_takes_over_memory_if_it_can() {
    let mut machine = begun("test");
    upload(&mut machine, "test v=2");
    let body = taking_over(&machine, "test v=2", TakeOver::Image, 0);
    assert!(refused(apply(&mut machine, 0, body).reply).contains("no export `adopt`"));
    let before = guest_state(&mut machine);
    for (module, words) in [
        ("test adopts adopt=reject", "adopt says no"),
        ("test adopts adopt=trap", "ran out of fuel"),
    ] {
        upload(&mut machine, module);
        let body = taking_over(&machine, module, TakeOver::Image, 0);
        let reason = refused(apply(&mut machine, 0, body).reply);
        assert!(reason.contains(words), "{reason}");
        assert_eq!(guest_state(&mut machine), before);
    }
    upload(&mut machine, "test adopts");
    let body = taking_over(&machine, "test adopts", TakeOver::Image, 0);
    assert!(is_activated(&apply(&mut machine, 0, body).reply));
    assert_eq!(guest_state(&mut machine), [b":adopted;", &before[1..]].concat());
}

#[test]
fn a_format_that_the_new_module_does_not_take_is_refused_before_anything_is_tried() {
    let mut machine = begun("test names=1");
    let reason = refused(load(&mut machine, "test takes=0 restore=trap"));
    assert!(reason.contains("`restores` of the new module refused: too old"), "{reason}");
    assert!(reason.contains("version \"1\""), "{reason}");
    for module in ["test takes=1", "test names=2"] {
        let mut machine = begun("test names=1");
        assert!(is_activated(&load(&mut machine, module)), "{module}");
    }
    let mut nameless = begun("test");
    assert!(is_activated(&load(&mut nameless, "test takes=0")), "nobody has named it");
}

#[test]
fn whoever_listens_is_told_of_each_command_that_the_guest_executes() {
    use std::sync::{Arc, Mutex};
    let (mut machine, mut plain) = (begun("test"), begun("test"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&told);
    machine.tap(Some(Box::new(move |executed, events, fuel| {
        into.lock().unwrap().push((executed.clone(), events.len(), fuel));
    })));
    for body in traffic() {
        assert_eq!(apply_any(&mut machine, 7, body.clone()), apply_any(&mut plain, 7, body));
    }
    assert_eq!(digest(&mut machine), digest(&mut plain));
    let told = std::mem::take(&mut *told.lock().unwrap());
    let data: Vec<&[u8]> = told.iter().map(|(executed, ..)| &executed.data[..]).collect();
    let late = &b"late"[..];
    let expected: [&[u8]; 9] =
        [b"one", b"trap", b"reject", b"b0", b"trap", b"b2", late, late, b"emit"];
    assert_eq!(data, expected);
    assert_eq!(told.last().map(|(_, events, fuel)| (*events, *fuel > 0)), Some((1, true)));
    machine.tap(None);
    apply(&mut machine, 7, command(b"more"));
}

/// A machine with a way back, a fork, a receipt and a portable state.
fn full() -> Machine {
    let mut machine = upgraded();
    apply(&mut machine, 11, command(b"a"));
    upload(&mut machine, "test v=3");
    let receipt = receipt(&machine, "test v=3");
    record(&mut machine, receipt);
    let body = fork(&machine, "test v=3");
    apply(&mut machine, 12, body);
    apply(&mut machine, 13, command(b"trap"));
    let Body::ModuleChunk(part) = chunk(b"state", 0, 5) else { panic!() };
    apply(
        &mut machine,
        13,
        Body::ModuleChunk(stored::ModuleChunk { portable_state: true, ..part }),
    );
    machine
}

#[test]
fn a_module_on_its_way_is_held_however_many_are_uploaded() {
    let mut machine = full();
    for number in 0..9 {
        upload(&mut machine, &format!("test v=1{number}"));
    }
    let held = |machine: &Machine| machine.module_bytes(ModuleHash::of(b"test v=3")).is_some();
    assert!(held(&machine));
    let mut machine = restore(&snapshot(&mut machine)).unwrap();
    upload(&mut machine, "test v=20");
    assert!(held(&machine));
    let mut activated = restore(&snapshot(&mut machine)).unwrap();
    let (receipt, fork) = (activated.info().receipts[0].index.0, activated.info().fork);
    let way = TakeOver::Snapshot { fork: fork.map(|fork| fork.index) };
    let body = taking_over(&activated, "test v=3", way, receipt);
    assert!(is_activated(&apply(&mut activated, 0, body).reply));
    let hour = way_back_ttl();
    apply(&mut machine, 12 + hour, command(b"late"));
    assert_eq!(machine.info().fork, None);
    assert!(!held(&machine));
}

fn way_back_ttl() -> u64 {
    crate::machine::way_back::FORK_TTL_MS
}

#[test]
fn another_cluster_begins_without_ways_back() {
    let mut machine = full();
    let origin = crate::types::Origin {
        cluster: CLUSTER,
        position: crate::types::LogPosition {
            index: machine.applied_index(),
            term: crate::types::Term(1),
        },
        time_ms: 0,
    };
    let founder = Member { id: FOUNDER, address: "127.0.0.1:1".to_owned() };
    let cluster = ClusterId([9; 16]);
    machine.reincarnate(cluster, founder, origin).unwrap();
    let info = machine.info();
    assert_eq!((info.way_back, info.fork, info.receipts.len()), (None, None, 1));
    let bytes = snapshot(&mut machine);
    Machine::restore(&mut &bytes[..], cluster, GroupId::MAIN, loader()).map(drop).unwrap();
}
