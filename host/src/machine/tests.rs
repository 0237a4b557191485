//! What the machine promises, entry by entry.

mod batches;
mod digests;
mod engine;
mod incarnation;
mod keys;
mod level;
mod limits;
mod ordered;
mod rights;
mod sessions;
mod upgrades;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;
use raft_host_proto::stored::limit_change::Limit;

use super::test_fsm::loader;
use super::*;
use crate::fsm::{HostFailure, Limits};
use crate::types::{
    ClusterId, ConfChange, ConfChangeOp, ConfState, GroupId, Index, Member, ModuleHash, NodeId,
    Outcome, Position, TrapKind,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn new_machine() -> Machine {
    let limits = Limits { input_max_bytes: 64, module_max_bytes: 4096, ..Limits::default() };
    let mut machine = Machine::new(CLUSTER, GroupId::MAIN, limits, loader());
    let member = Member { id: NodeId(1), address: "127.0.0.1:7400".to_owned() };
    let conf_state = ConfState { voters: [NodeId(1)].into(), ..ConfState::default() };
    machine.bootstrap_members(Index(1), [member], conf_state);
    machine
}

/// Applies an entry at the next index.
fn apply(machine: &mut Machine, time_ms: u64, body: Body) -> Applied {
    let data = stored::Entry { time_ms, actor: None, body: Some(body) }.encode_to_vec();
    only(apply_data(machine, data).unwrap())
}

/// Applies an encoded entry at the next index.
fn apply_data(machine: &mut Machine, data: impl Into<Bytes>) -> Result<Vec<Applied>, HostFailure> {
    let (index, mut answers) = (machine.applied_index().next(), Vec::new());
    machine.apply(index, &data.into(), &mut |position, applied| {
        assert_eq!(position, Position { index, ordinal: answers.len() as u32 });
        answers.push(applied);
    })?;
    Ok(answers)
}

/// The answer of an entry that has one.
fn only(mut answers: Vec<Applied>) -> Applied {
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

fn command(data: &[u8]) -> Body {
    stored::Command { data: data.to_vec().into(), session: None, actor: None }.into()
}

fn in_session(data: &[u8], session_id: u64, sequence: u64, acknowledged: u64) -> Body {
    let session = stored::SessionCommand { session_id, sequence, acknowledged, skip: false };
    stored::Command { data: data.to_vec().into(), session: Some(session), actor: None }.into()
}

fn open_session(ttl_ms: u64) -> Body {
    Body::OpenSession(stored::OpenSession { ttl_ms, ordered: false })
}

fn chunk(module: &[u8], from: usize, to: usize) -> Body {
    Body::ModuleChunk(stored::ModuleChunk {
        module_hash: ModuleHash::of(module).0.to_vec().into(),
        total_bytes: module.len() as u64,
        offset: from as u64,
        data: module[from..to].to_vec().into(),
        ..Default::default()
    })
}

/// In the place of what is active.
fn activate(machine: &Machine, module: &[u8]) -> Body {
    activate_in_place_of(machine.state.modules.incumbent(), module)
}

fn activate_in_place_of(replaces: Option<Incumbent>, module: &[u8]) -> Body {
    Body::ActivateModule(stored::ActivateModule {
        module_hash: ModuleHash::of(module).0.to_vec().into(),
        label: String::from_utf8_lossy(module).into_owned(),
        replaces: replaces.map(Incumbent::to_log),
        ..Default::default()
    })
}

fn set_limits(limits: &[Limit]) -> Body {
    let changes = limits.iter().map(|limit| stored::LimitChange { limit: Some(*limit) }).collect();
    Body::SetLimits(stored::SetLimits { changes })
}

/// Uploads and activates.
fn load(machine: &mut Machine, module: &str) -> Reply {
    let module = module.as_bytes();
    let total = module.len() as u64;
    let stored = apply(machine, 0, chunk(module, 0, module.len())).reply;
    assert_eq!(stored, Reply::ChunkStored { received: total, total });
    let activation = activate(machine, module);
    apply(machine, 0, activation).reply
}

fn running(module: &str) -> Machine {
    let mut machine = new_machine();
    assert!(matches!(load(&mut machine, module), Reply::Activated { .. }));
    machine
}

fn snapshot(machine: &mut Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.capture().unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn restore(mut bytes: &[u8]) -> Result<Machine, RestoreError> {
    Machine::restore(&mut bytes, CLUSTER, GroupId::MAIN, loader())
}

fn answer(machine: &mut Machine, query: &[u8]) -> QueryResult {
    machine.query(query).unwrap().result
}

/// What the guest holds, without the index that its answer begins with.
fn guest_state(machine: &mut Machine) -> Vec<u8> {
    match answer(machine, b"?") {
        QueryResult::Answer(Outcome::Ok(answer)) => {
            let colon = answer.iter().position(|byte| *byte == b':').unwrap();
            answer[colon..].to_vec()
        }
        other => panic!("expected an answer, got {other:?}"),
    }
}

fn reason(reply: Reply) -> String {
    match reply {
        Reply::ActivationFailed(reason) => reason,
        other => panic!("expected a failed activation, got {other:?}"),
    }
}

#[test]
fn a_command_reaches_the_guest_with_index_and_clock() {
    let mut machine = running("test");
    let applied = apply(&mut machine, 50, command(b"emit"));
    assert_eq!(applied.reply, Reply::Command(Outcome::Ok(b"init@3;emit@4,50;".to_vec())));
    assert_eq!(applied.events[0].topic, b"emitted");
    assert_eq!(applied.fuel_used, 18);
    assert_eq!(machine.applied_index(), Index(4));
    assert_eq!(
        answer(&mut machine, b"?"),
        QueryResult::Answer(Outcome::Ok(b"4:init@3;emit@4,50;".to_vec()))
    );
}

#[test]
fn a_query_that_the_host_cannot_run_costs_no_other() {
    let mut machine = running("test");
    let queries = [&b"?"[..], b"short", b"?"].map(Bytes::from_static);
    let replies = machine.query_some(&queries, u64::MAX).unwrap();
    let [first, none, last] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(none.result, QueryResult::Unanswered("no memory".to_owned()));
    assert_eq!(none.applied, Index(3));
    assert!(matches!(first.result, QueryResult::Answer(Outcome::Ok(_))));
    assert_eq!(first, last);
    // A failure of the state machine itself is one of the node.
    machine.query(b"host").unwrap_err();
}

#[test]
fn the_clock_never_goes_back_and_a_no_op_leaves_it() {
    let mut machine = running("test");
    apply(&mut machine, 50, command(b"a"));
    apply(&mut machine, 20, command(b"b"));
    assert_eq!(machine.info().time_ms, 50);
    let no_op = only(apply_data(&mut machine, vec![]).unwrap());
    assert_eq!(no_op.reply, Reply::Nothing);
    assert_eq!(machine.applied_index(), Index(6));
    assert_eq!(machine.info().time_ms, 50);
}

#[test]
#[should_panic(expected = "without gaps")]
fn a_gap_in_the_log_stops_the_node() {
    let _ = new_machine().apply(Index(3), &Bytes::new(), &mut |_, _| {});
}

#[test]
fn without_a_module_commands_and_queries_say_so_and_a_retry_runs_later() {
    let mut machine = new_machine();
    apply(&mut machine, 0, open_session(0));
    assert_eq!(apply(&mut machine, 0, in_session(b"a", 2, 1, 0)).reply, Reply::NoModule);
    assert_eq!(answer(&mut machine, b"?"), QueryResult::NoModule);
    load(&mut machine, "test noquery");
    assert_eq!(answer(&mut machine, b"?"), QueryResult::NoQueryExport);
    let retry = apply(&mut machine, 0, in_session(b"a", 2, 1, 0)).reply;
    assert!(matches!(retry, Reply::Command(Outcome::Ok(_))));
}

#[test]
fn traps_and_rejections_are_outcomes_and_are_remembered_by_the_session() {
    let mut machine = running("test");
    apply(&mut machine, 0, open_session(0));
    let id = machine.applied_index().0;
    let trapped = apply(&mut machine, 0, in_session(b"trap", id, 1, 0));
    assert_eq!(trapped.reply, Reply::Command(Outcome::Trapped(TrapKind::Unreachable)));
    assert_eq!(trapped.trap_message.as_deref(), Some("backtrace"));
    apply(&mut machine, 0, in_session(b"reject", id, 2, 0));
    for (sequence, original) in
        [(1, Outcome::Trapped(TrapKind::Unreachable)), (2, Outcome::Rejected(b"no".to_vec()))]
    {
        let again: &[u8] = if sequence == 1 { b"trap" } else { b"reject" };
        let retry = apply(&mut machine, 0, in_session(again, id, sequence, 0));
        assert_eq!(retry.reply, Reply::Command(Outcome::Duplicate(Box::new(original))));
        assert_eq!((retry.fuel_used, retry.events.len()), (0, 0));
    }
    let state = answer(&mut machine, b"?");
    assert_eq!(state, QueryResult::Answer(Outcome::Ok(b"8:init@3;".to_vec())));
}

#[test]
fn a_closed_or_expired_session_refuses_its_commands() {
    let mut machine = running("test");
    let refused = Reply::Refused(CommandRefused::SessionExpired);
    let opened = apply(&mut machine, 1000, open_session(5000)).reply;
    assert!(matches!(opened, Reply::SessionOpened { id: 4, ttl_ms: 5000, .. }), "{opened:?}");
    apply(&mut machine, 1000, open_session(0));
    let close = Body::CloseSession(stored::CloseSession { session_id: 5 });
    assert_eq!(apply(&mut machine, 1000, close.clone()).reply, Reply::SessionClosed);
    assert_eq!(apply(&mut machine, 1000, close).reply, Reply::SessionClosed);
    assert_eq!(apply(&mut machine, 1000, in_session(b"a", 5, 1, 0)).reply, refused);
    assert_eq!(apply(&mut machine, 6000, in_session(b"a", 4, 1, 0)).reply, refused);
    assert_eq!(machine.info().sessions, 0);
}

#[test]
fn a_command_or_query_over_the_limit_is_refused() {
    let mut machine = running("test");
    let refused = Reply::Refused(CommandRefused::TooLarge { bytes: 65, max: 64 });
    assert_eq!(apply(&mut machine, 0, command(&[b'x'; 65])).reply, refused);
    assert_eq!(answer(&mut machine, &[b'x'; 65]), QueryResult::TooLarge { bytes: 65, max: 64 });
}

#[test]
fn a_malformed_entry_is_refused_and_one_of_an_unknown_kind_stops_the_node() {
    let mut machine = running("test");
    let garbage = only(apply_data(&mut machine, vec![0xff; 9]).unwrap()).reply;
    assert!(matches!(garbage, Reply::Refused(CommandRefused::Malformed(_))));
    // Field 100, of wire type "varint": what a future version might write.
    let failure = apply_data(&mut machine, vec![0xa0, 0x06, 0x01]).unwrap_err();
    assert!(failure.to_string().contains("does not know"), "{failure}");
}

#[test]
fn a_host_failure_is_not_an_outcome() {
    let mut machine = running("test");
    let data =
        stored::Entry { time_ms: 0, actor: None, body: Some(command(b"host")) }.encode_to_vec();
    assert!(apply_data(&mut machine, data).is_err());
    assert_eq!(machine.applied_index(), Index(3));
}

#[test]
fn a_query_that_traps_says_why_and_changes_nothing() {
    let mut machine = running("test");
    let before = snapshot(&mut machine);
    let reply = machine.query(b"trap").unwrap();
    assert_eq!(reply.result, QueryResult::Answer(Outcome::Trapped(TrapKind::OutOfFuel)));
    assert_eq!(reply.trap_message.as_deref(), Some("slow"));
    assert_eq!((reply.applied, reply.fuel_used), (Index(3), 3));
    assert_eq!(snapshot(&mut machine), before);
}

#[test]
fn an_upgrade_carries_the_state_over_without_running_init_again() {
    let mut machine = running("test");
    apply(&mut machine, 0, command(b"a"));
    let (old, new) = (ModuleHash::of(b"test"), ModuleHash::of(b"test v=2"));
    let reply = load(&mut machine, "test v=2");
    assert_eq!(
        reply,
        Reply::Activated { index: Index(6), hash: new, previous: Some(old), rewound: None }
    );
    let state = answer(&mut machine, b"?");
    assert_eq!(state, QueryResult::Answer(Outcome::Ok(b"6:init@3;a@4,0;".to_vec())));

    let info = machine.info();
    let active = info.active.unwrap();
    assert_eq!((active.hash, active.activated_at), (new, Index(6)));
    assert_eq!(active.label, "test v=2");
    assert_eq!(info.history.len(), 2);
    assert_eq!(info.modules.iter().filter(|module| module.active).count(), 1);
    assert_eq!(machine.module_bytes(old).unwrap(), "test");

    let again = {
        let body = activate(&machine, b"test v=2");
        apply(&mut machine, 0, body).reply
    };
    assert_eq!(again, Reply::AlreadyActive { index: Index(6), hash: new });
    let back = {
        let body = activate(&machine, b"test");
        apply(&mut machine, 0, body).reply
    };
    assert_eq!(
        back,
        Reply::Activated { index: Index(8), hash: old, previous: Some(new), rewound: None }
    );
}

#[test]
fn an_activation_that_comes_late_undoes_nothing_and_of_two_at_once_one_is_told_so() {
    let mut machine = running("test");
    let one = machine.state.modules.incumbent();
    load(&mut machine, "test v=2");
    let two = machine.state.modules.incumbent();
    let index = machine.applied_index();
    // Two operators saw the same module; the other one was faster.
    for module in [b"test v=3", b"test v=4"] {
        apply(&mut machine, 0, chunk(module, 0, module.len()));
    }
    let late = apply(&mut machine, 0, activate_in_place_of(one, b"test v=3")).reply;
    assert_eq!(late, Reply::ActivationSuperseded { active: two });
    // As a retry that finds its work done.
    let again = apply(&mut machine, 0, activate_in_place_of(one, b"test v=2")).reply;
    assert_eq!(again, Reply::AlreadyActive { index, hash: ModuleHash::of(b"test v=2") });
    // Somebody goes back to the first module: what was to replace it before is late even so.
    let back = apply(&mut machine, 0, activate_in_place_of(two, b"test")).reply;
    assert!(matches!(back, Reply::Activated { .. }), "{back:?}");
    let active = machine.state.modules.incumbent();
    assert_eq!(active.map(|it| it.hash), one.map(|it| it.hash));
    for replaces in [one, two, None] {
        let late = apply(&mut machine, 0, activate_in_place_of(replaces, b"test v=2")).reply;
        assert_eq!(late, Reply::ActivationSuperseded { active });
    }
    assert_eq!(machine.state.modules.incumbent(), active);
    let nonsense = stored::ActivateModule {
        module_hash: ModuleHash::of(b"test v=2").0.to_vec().into(),
        replaces: Some(stored::Incumbent { module_hash: vec![1].into(), activated_at: 1 }),
        ..Default::default()
    };
    let nonsense = reason(apply(&mut machine, 0, Body::ActivateModule(nonsense)).reply);
    assert!(nonsense.contains("32 bytes"), "{nonsense}");
}

#[test]
fn a_failed_activation_keeps_the_old_module_and_says_why() {
    let mut machine = running("test");
    apply(&mut machine, 0, command(b"a"));
    for (module, expected) in [
        ("garbage", "not a test module"),
        ("test restore=reject", "`restore` of the new module refused: restore says no"),
        ("test restore=trap", "`restore` of the new module ran out of fuel"),
    ] {
        let before = guest_state(&mut machine);
        let failure = reason(load(&mut machine, module));
        assert!(failure.contains(expected), "{failure}");
        assert_eq!(guest_state(&mut machine), before);
        assert_eq!(machine.info().history.len(), 1);
    }
    let missing = reason({
        let body = activate(&machine, b"test nowhere");
        apply(&mut machine, 0, body).reply
    });
    assert!(missing.contains("upload it"), "{missing}");
    let nameless = stored::ActivateModule { module_hash: vec![1, 2].into(), ..Default::default() };
    let nameless = reason(apply(&mut machine, 0, Body::ActivateModule(nameless)).reply);
    assert!(nameless.contains("32 bytes"), "{nameless}");
}

#[test]
fn a_trapping_snapshot_of_the_old_module_fails_the_activation() {
    let mut machine = running("test snapshot=trap");
    let failure = reason(load(&mut machine, "test"));
    assert!(failure.contains("`snapshot` of the active module ran out of fuel"), "{failure}");
}

#[test]
fn a_module_whose_snapshot_traps_can_be_replaced_if_its_state_is_given_up() {
    let mut machine = running("test snapshot=trap");
    apply(&mut machine, 0, command(b"a"));
    let failure = reason(load(&mut machine, "test v=2"));
    assert!(failure.contains("--discard-state"), "{failure}");
    let Body::ActivateModule(activate) = activate(&machine, b"test v=2") else { panic!() };
    let activate = stored::ActivateModule { discard_state: true, ..activate };
    let reply = apply(&mut machine, 0, Body::ActivateModule(activate)).reply;
    assert!(matches!(reply, Reply::Activated { previous: Some(_), .. }), "{reply:?}");
    let index = machine.applied_index();
    let begun = format!("{index}:init@{index};");
    assert_eq!(
        answer(&mut machine, b"?"),
        QueryResult::Answer(Outcome::Ok(begun.into_bytes())),
        "as in a new cluster"
    );
}

#[test]
fn an_activation_that_is_too_expensive_names_the_limit_and_its_value() {
    let mut machine = running("test snapshot=trap");
    let failure = reason(load(&mut machine, "test"));
    let fuel = Limits::default().snapshot_fuel;
    assert!(failure.contains(&format!("snapshot_fuel is {fuel}")), "{failure}");
    let mut machine = running("test");
    let failure = reason(load(&mut machine, "test restore=trap"));
    let fuel = Limits::default().restore_fuel;
    assert!(failure.contains(&format!("restore_fuel is {fuel}")), "{failure}");
    assert!(failure.contains("limits set restore_fuel="), "{failure}");
}

#[test]
fn a_module_whose_init_refuses_is_not_activated_and_another_one_may_follow() {
    let mut machine = new_machine();
    let failure = reason(load(&mut machine, "test init=reject"));
    assert!(failure.contains("init says no"), "{failure}");
    assert!(machine.info().active.is_none());
    assert!(matches!(load(&mut machine, "test"), Reply::Activated { previous: None, .. }));
}

#[test]
fn the_failure_of_a_chunk_is_a_reply() {
    let mut machine = new_machine();
    let refused = apply(&mut machine, 0, chunk(b"test", 1, 3)).reply;
    assert!(matches!(refused, Reply::ChunkRefused(_)));
    let hashless = Body::ModuleChunk(stored::ModuleChunk::default());
    assert!(matches!(apply(&mut machine, 0, hashless).reply, Reply::ChunkRefused(_)));
}

/// A machine with something of everything.
fn busy_machine() -> Machine {
    let mut machine = running("test");
    apply(&mut machine, 10, command(b"a"));
    load(&mut machine, "test v=2");
    apply(&mut machine, 20, chunk(b"test v=3", 0, 8));
    apply(&mut machine, 20, chunk(b"test v=4", 0, 5));
    for sequence in 1..4 {
        apply(&mut machine, 30, open_session(0));
        let id = machine.applied_index().0;
        apply(&mut machine, 30, in_session(b"b", id, sequence, sequence / 2));
        apply(&mut machine, 30, in_session(b"trap", id, sequence + 9, 0));
    }
    let learner = Member { id: NodeId(9), address: "10.0.0.9:7400".to_owned() };
    let change = ConfChange::of(ConfChangeOp::AddLearner, learner);
    let conf_state = ConfState { learners: [NodeId(9)].into(), ..machine.conf_state().clone() };
    machine.apply_membership(machine.applied_index().next(), &change, conf_state);
    machine
}

#[test]
fn a_restored_machine_is_bit_identical_and_goes_on_the_same() {
    let mut machine = busy_machine();
    let bytes = snapshot(&mut machine);
    let mut restored = restore(&bytes).unwrap();
    assert_eq!(snapshot(&mut restored), bytes);
    assert_eq!(restored.info(), machine.info());
    assert_eq!(restored.members(), machine.members());
    assert_eq!(restored.conf_state(), machine.conf_state());
    assert_eq!(restored.next_node_id(), NodeId(10));
    let activation = activate(&machine, b"test v=4");
    for body in [in_session(b"x", 10, 1, 0), chunk(b"test v=4", 5, 8), activation, command(b"y")] {
        assert_eq!(apply(&mut machine, 40, body.clone()), apply(&mut restored, 40, body));
    }
    assert_eq!(snapshot(&mut restored), snapshot(&mut machine));
}

#[test]
fn a_snapshot_is_detached_from_the_machine_it_was_taken_of() {
    let mut machine = busy_machine();
    let captured = machine.capture().unwrap();
    let at_once = snapshot(&mut machine);
    apply(&mut machine, 50, in_session(b"x", 10, 7, 0));
    apply(&mut machine, 50, chunk(b"test v=4", 5, 8));
    let mut later = Vec::new();
    std::thread::spawn(move || {
        captured.write_to(&mut later).unwrap();
        assert_eq!(captured.applied_index(), restore(&later).unwrap().applied_index());
        assert_eq!(later, at_once);
    })
    .join()
    .unwrap();
}

#[test]
fn a_new_machine_survives_its_snapshot() {
    let mut machine = new_machine();
    let bytes = snapshot(&mut machine);
    let mut restored = restore(&bytes).unwrap();
    assert_eq!(restored.applied_index(), Index(1));
    assert_eq!(snapshot(&mut restored), bytes);
}

#[test]
fn the_clock_is_put_forward_on_purpose_and_never_back() {
    let mut machine = running("test");
    apply(&mut machine, 5_000, open_session(60_000));
    let set = |time_ms| Body::SetClock(stored::SetClock { time_ms });
    let before = machine.applied_index();
    match apply(&mut machine, 6_000, set(5_999)).reply {
        Reply::ClockRefused(reason) => assert!(reason.contains("6000 ms"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let absurd = apply(&mut machine, 6_000, set(TIME_MAX_MS + 1)).reply;
    assert!(matches!(absurd, Reply::ClockRefused(_)), "{absurd:?}");
    assert_eq!((machine.time_ms(), machine.info().sessions), (6_000, 1));
    let reply = apply(&mut machine, 6_001, set(90_000)).reply;
    assert_eq!(reply, Reply::ClockSet { time_ms: 90_000, previous_ms: 6_001 });
    assert_eq!((machine.time_ms(), machine.info().sessions), (90_000, 0), "its time was over");
    assert_eq!(machine.applied_index(), Index(before.0 + 3));
    // A stamp of no time that there is, as no correct leader makes.
    apply(&mut machine, u64::MAX, command(b"late"));
    assert_eq!(machine.time_ms(), TIME_MAX_MS);
}

#[test]
fn a_snapshot_of_another_cluster_group_or_version_is_refused_by_name() {
    let bytes = snapshot(&mut busy_machine());
    let refusal = |cluster, group| {
        let restored = Machine::restore(&mut bytes.as_slice(), cluster, group, loader());
        restored.err().expect("refused").to_string()
    };
    let other = ClusterId([8; 16]);
    assert!(refusal(other, GroupId::MAIN).contains(&format!("belongs to cluster {other}")));
    assert!(refusal(CLUSTER, GroupId(2)).contains("expected one of group 2"));
    let mut future = bytes.clone();
    future[8] = 3;
    let refusal = restore(&future).err().expect("refused");
    assert!(matches!(refusal, RestoreError::Version { found: 3, supported: 2 }));
}

#[test]
fn damage_anywhere_in_a_snapshot_is_noticed() {
    let bytes = snapshot(&mut busy_machine());
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(restore(&bad).is_err(), "byte {at} of {}", bytes.len());
    }
    for end in 0..bytes.len() {
        assert!(restore(&bytes[..end]).is_err(), "cut at {end} of {}", bytes.len());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(restore(&longer).is_err());
}

const LIMITS: [Limit; 10] = [
    Limit::UpgradeKeepBytes(1_200),
    Limit::ActivationFuel(300),
    Limit::ApplyFuel(20),
    Limit::ApplyFuel(1_000_000),
    Limit::ApplyFuel(0),
    Limit::InputMaxBytes(4),
    Limit::InputMaxBytes(64),
    Limit::ModuleMaxBytes(8),
    Limit::ModuleMaxBytes(4096),
    Limit::OutputMaxBytes(1),
];

const MODULES: [&str; 5] = ["test", "test v=2", "test twist", "test restore=trap", "garbage"];

fn any_body() -> impl Strategy<Value = Body> {
    let data = prop::sample::select(vec!["a", "trap", "reject", "emit", "longer command"]);
    let module = || prop::sample::select(MODULES.to_vec());
    prop_oneof![
        3 => data.clone().prop_map(|data| command(data.as_bytes())),
        6 => (data, 1..40_u64, 0..6_u64, 0..4_u64)
            .prop_map(|(data, id, sequence, ack)| in_session(data.as_bytes(), id, sequence, ack)),
        2 => (0..5000_u64).prop_map(open_session),
        1 => (1..40_u64)
            .prop_map(|session_id| Body::CloseSession(stored::CloseSession { session_id })),
        1 => (1..30_u64, 0..9_u64).prop_map(|(session_id, acknowledged)| {
            Body::KeepSession(stored::KeepSession { session_id, acknowledged })
        }),
        3 => (module(), any::<bool>(), any::<bool>()).prop_map(|(module, start, end)| {
            let (module, half) = (module.as_bytes(), module.len() / 2);
            match (start, end) {
                (true, true) => chunk(module, 0, module.len()),
                (true, false) => chunk(module, 0, half),
                (false, _) => chunk(module, half, module.len()),
            }
        }),
        2 => module().prop_map(|module| activate_in_place_of(None, module.as_bytes())),
        3 => (module(), 0..6_u8).prop_map(|(module, way)| {
            let Body::ActivateModule(entry) = activate_in_place_of(None, module.as_bytes()) else {
                unreachable!("that is what it makes");
            };
            // What of it depends on the state is filled in by `with_facts`.
            let way = match way {
                0 => TakeOver::Nothing,
                1 => TakeOver::Renew { fork: None },
                2 => TakeOver::Renew { fork: Some(Index(1)) },
                3 => TakeOver::Snapshot { fork: Some(Index(1)) },
                _ => TakeOver::Rewind,
            };
            Body::ActivateModule(way.put(entry))
        }),
        2 => module().prop_map(|module| {
            let module_hash = ModuleHash::of(module.as_bytes()).0.to_vec().into();
            Body::ForkState(stored::ForkState { module_hash, replaces: None })
        }),
        2 => module().prop_map(|module| Body::RecordReceipt(stored::RecordReceipt {
            module_hash: ModuleHash::of(module.as_bytes()).0.to_vec().into(),
            report_hash: vec![1; 32].into(),
            voters: vec![1],
            ..Default::default()
        })),
        1 => any::<bool>().prop_map(|latest| {
            Body::SettleUpgrade(stored::SettleUpgrade { activated_at: u64::from(latest) })
        }),
        2 => prop::sample::subsequence(LIMITS.to_vec(), 1..3)
            .prop_map(|limits| set_limits(&limits)),
    ]
}

/// The entry as somebody asks for it who sees the state.
fn with_facts(machine: &Machine, body: Body) -> Body {
    let info = machine.info();
    let incumbent = machine.state.modules.incumbent().map(Incumbent::to_log);
    match body {
        Body::ActivateModule(mut entry) => {
            entry.replaces = incumbent.clone();
            let module = |hash: ModuleHash| Bytes::copy_from_slice(&hash.0);
            if entry.rewind
                && let Some(way) = &info.way_back
            {
                entry.module_hash = module(way.module);
            }
            if entry.renew
                && let Some(active) = incumbent
            {
                entry.module_hash = active.module_hash;
            }
            if entry.fork > 0 {
                entry.fork = info.fork.as_ref().map_or(1, |fork| fork.index.0);
                if let Some(fork) = info.fork.as_ref().filter(|_| !entry.renew) {
                    entry.module_hash = module(fork.next_module);
                }
                let fits = |it: &&Receipt| it.module.0 == entry.module_hash[..];
                entry.receipt = info.receipts.iter().rfind(fits).map_or(0, |it| it.index.0);
            }
            Body::ActivateModule(entry)
        }
        Body::ForkState(entry) => {
            Body::ForkState(stored::ForkState { replaces: incumbent, ..entry })
        }
        Body::RecordReceipt(entry) => {
            let replaces = incumbent;
            let (base, until) = (1, info.applied.0);
            Body::RecordReceipt(stored::RecordReceipt { replaces, base, until, ..entry })
        }
        Body::SettleUpgrade(entry) if entry.activated_at > 0 => {
            let activated_at = info.way_back.map_or(1, |way| way.activated_at.0);
            Body::SettleUpgrade(stored::SettleUpgrade { activated_at })
        }
        body => body,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_run_with_restarts_from_snapshots_equals_a_straight_run(
        entries in prop::collection::vec((any_body(), 0..400_u64, prop::bool::weighted(0.15), 0..9_u64), 1..120)
    ) {
        let (mut straight, mut restarted) = (new_machine(), new_machine());
        let mut ahead: Option<AheadJob> = None;
        for (index, (body, step_ms, restart, work)) in entries.into_iter().enumerate() {
            let time_ms = index as u64 * 100 + step_ms;
            let mut body = body;
            // But for a few, which come late.
            if index % 9 != 0 {
                body = with_facts(&straight, body);
            }
            // One of them makes instances ahead, or begins to.
            match (&mut ahead, work) {
                (None, 0..5) => ahead = restarted.ahead_job(),
                (Some(job), 0..7) => drop(job.advance(work).unwrap()),
                _ => {}
            }
            if matches!(body, Body::ActivateModule(_))
                && let Some(job) = ahead.take()
            {
                restarted.take_ahead(job);
            }
            let expected = apply(&mut straight, time_ms, body.clone());
            prop_assert_eq!(apply(&mut restarted, time_ms, body), expected);
            if restart {
                restarted = restore(&snapshot(&mut restarted)).unwrap();
                ahead = None;
            }
        }
        prop_assert_eq!(snapshot(&mut restarted), snapshot(&mut straight));
    }
}
