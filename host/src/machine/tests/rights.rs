//! Who may do what, where entries are applied.

use super::*;
use crate::machine::{
    AccessChange, Class, Grant, SecretHash, TokenEnd, actor_to_log, change_to_log,
};
use crate::types::{Actor, ActorName, PrincipalId, Right, TokenId};

const LOCAL: Actor = Actor::Local(NodeId(1));

fn name(text: &str) -> ActorName {
    text.parse().expect("a name")
}

fn put(who: &str, roles: &[&str]) -> AccessChange {
    let roles = roles.iter().map(|role| name(role)).collect();
    AccessChange::PutPrincipal { name: name(who), roles, must_be_new: false }
}

fn set(changes: &[AccessChange]) -> Body {
    Body::SetAccess(stored::SetAccess { changes: changes.iter().map(change_to_log).collect() })
}

/// Applies an entry that is none of commands, in somebody's name.
fn ask(machine: &mut Machine, actor: Actor, time_ms: u64, body: Body) -> Reply {
    let entry = stored::Entry { time_ms, actor: actor_to_log(actor), body: Some(body) };
    only(apply_data(machine, entry.encode_to_vec()).unwrap()).reply
}

fn give(actor: Actor, data: &str, session: Option<(u64, u64)>) -> stored::Command {
    let session = session.map(|(session_id, sequence)| stored::SessionCommand {
        session_id,
        sequence,
        acknowledged: 0,
        skip: data.is_empty(),
    });
    stored::Command { data: data.to_owned().into(), session, actor: actor_to_log(actor) }
}

fn run(machine: &mut Machine, commands: Vec<stored::Command>) -> Vec<Applied> {
    let body = Some(Body::Batch(stored::Batch { commands }));
    apply_data(machine, stored::Entry { time_ms: 0, actor: None, body }.encode_to_vec()).unwrap()
}

fn run_one(machine: &mut Machine, actor: Actor, data: &str, session: Option<(u64, u64)>) -> Reply {
    only(run(machine, vec![give(actor, data, session)])).reply
}

fn made(machine: &mut Machine, change: AccessChange) -> Actor {
    let reply = ask(machine, LOCAL, 0, set(&[change]));
    assert!(matches!(reply, Reply::AccessSet { principal: Some(_), .. }), "{reply:?}");
    Actor::Principal { id: PrincipalId(machine.applied_index().0), token: None }
}

/// A machine with rights in force, an admin and two writers.
fn guarded(module: &str) -> (Machine, [Actor; 3]) {
    let mut machine = running(module);
    let actors = [("root", "admin"), ("ann", "writer"), ("bob", "writer")]
        .map(|(who, role)| made(&mut machine, put(who, &[role])));
    let reply = ask(&mut machine, LOCAL, 0, set(&[AccessChange::InForce(true)]));
    assert_eq!(reply, Reply::AccessSet { principal: None, token: None });
    (machine, actors)
}

fn denied(reply: Reply) -> Denied {
    match reply {
        Reply::Refused(CommandRefused::Denied(denied)) => *denied,
        other => panic!("expected a denial, got {other:?}"),
    }
}

fn is_done(reply: &Reply) -> bool {
    matches!(reply, Reply::Command(Outcome::Ok(_)))
}

fn open(machine: &mut Machine, actor: Actor, ordered: bool) -> u64 {
    let body = Body::OpenSession(stored::OpenSession { ttl_ms: 0, ordered });
    match ask(machine, actor, 0, body) {
        Reply::SessionOpened { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn keep(session_id: u64) -> Body {
    Body::KeepSession(stored::KeepSession { session_id, acknowledged: 0 })
}

fn close(session_id: u64) -> Body {
    Body::CloseSession(stored::CloseSession { session_id })
}

#[test]
fn without_rights_in_force_everybody_may_everything_and_nothing_is_written() {
    let (mut plain, mut named) = (running("test"), running("test"));
    let ann = Actor::Principal { id: PrincipalId(99), token: None };
    assert!(is_done(&run_one(&mut plain, Actor::Nobody, "a", None)));
    assert!(is_done(&run_one(&mut named, ann, "a", None)), "nobody is asked who that is");
    assert_eq!(snapshot(&mut plain), snapshot(&mut named));
    assert_eq!(plain.info().access.revision(), Index(0));
    assert_eq!(super::super::snapshot::header(&plain.state).access, None);
}

#[test]
fn each_kind_of_entry_needs_its_right_and_the_clusters_own_need_none() {
    let (mut machine, [root, ann, _]) = guarded("test");
    let reader = made(&mut machine, put("ray", &["reader"]));
    let verdict = stored::DigestVerdict { index: 1, votes: vec![] };
    let bodies = [
        (open_session(0), Right::Apply),
        (keep(1), Right::Apply),
        (close(1), Right::Apply),
        (chunk(b"test 2", 0, 3), Right::Upgrade),
        (activate(&machine, b"test 2"), Right::Upgrade),
        (set_limits(&[Limit::ApplyFuel(1_000_000)]), Right::Limits),
        (Body::SetEngine(stored::SetEngine { profile: "x".to_owned() }), Right::Limits),
        (Body::SetClock(stored::SetClock { time_ms: 1 }), Right::Limits),
        (Body::SetLevel(stored::SetLevel { level: 1 }), Right::Members),
        (set(&[put("eve", &["admin"])]), Right::Rights),
        (Body::DigestPoint(stored::DigestPoint {}), Right::Snapshot),
        (Body::DigestVerdict(verdict), Right::Snapshot),
    ];
    for (body, right) in bodies {
        let is_own = right == Right::Members || right == Right::Snapshot;
        let before = machine.info();
        for actor in [Actor::Nobody, reader, ann] {
            let reply = ask(&mut machine, actor, 0, body.clone());
            let is_allowed =
                actor == Actor::Nobody && is_own || actor == ann && right == Right::Apply;
            assert_eq!(
                matches!(reply, Reply::Refused(CommandRefused::Denied(_))),
                !is_allowed,
                "{body:?} by {actor}: {reply:?}"
            );
        }
        assert_eq!(machine.info().access, before.access);
        assert_eq!(machine.info().limits, before.limits);
        for actor in [root, LOCAL] {
            let reply = ask(&mut machine, actor, 0, body.clone());
            assert!(!matches!(reply, Reply::Refused(CommandRefused::Denied(_))), "{reply:?}");
        }
    }
    let words = denied(ask(&mut machine, ann, 0, set(&[put("eve", &["admin"])]))).to_string();
    assert_eq!(words, "ann may not do this: none of its roles allows rights");
}

#[test]
fn a_right_that_was_taken_away_is_refused_at_the_index_and_the_guest_knows_who_acts() {
    let (mut machine, [_, ann, bob]) = guarded("test");
    let answers = run(
        &mut machine,
        vec![give(ann, "a", None), give(Actor::Nobody, "b", None), give(LOCAL, "c", None)],
    );
    let Reply::Command(Outcome::Ok(state)) = &answers[2].reply else { panic!("{answers:?}") };
    let state = String::from_utf8_lossy(state);
    assert!(state.contains("a@") && state.contains(" by ann;") && !state.contains("b@"), "{state}");
    assert_eq!(denied(answers[1].reply.clone()), Denied::Nobody);
    ask(&mut machine, LOCAL, 0, set(&[AccessChange::RemovePrincipal(name("ann"))]));
    let before = guest_state(&mut machine);
    let reply = run_one(&mut machine, ann, "a", None);
    assert!(matches!(denied(reply), Denied::PrincipalGone(_)));
    assert_eq!(guest_state(&mut machine), before);
    assert!(is_done(&run_one(&mut machine, bob, "a", None)), "others are not disturbed");
    let off = set(&[AccessChange::InForce(false)]);
    ask(&mut machine, LOCAL, 0, off);
    assert!(is_done(&run_one(&mut machine, ann, "a", None)));
}

#[test]
fn sessions_belong_to_who_opened_them_and_go_with_it() {
    let (mut machine, [_, ann, bob]) = guarded("test");
    let (hers, his) = (open(&mut machine, ann, false), open(&mut machine, bob, false));
    for body in [keep(hers), close(hers)] {
        let reply = denied(ask(&mut machine, bob, 0, body));
        assert_eq!(reply, Denied::OthersSession { name: name("bob"), session_id: hers });
    }
    let reply = denied(run_one(&mut machine, bob, "x", Some((hers, 1))));
    assert!(reply.to_string().contains("is not bob's"), "{reply}");
    assert!(is_done(&run_one(&mut machine, ann, "x", Some((hers, 1)))), "the number is not taken");
    assert_eq!(ask(&mut machine, LOCAL, 0, close(hers)), Reply::SessionClosed);
    assert!(!machine.has_session(hers));
    ask(&mut machine, LOCAL, 0, set(&[put("ann", &["reader"])]));
    assert!(machine.has_session(his), "a change of others' rights ends no session");
    ask(&mut machine, LOCAL, 0, set(&[AccessChange::RemovePrincipal(name("bob"))]));
    assert!(!machine.has_session(his));
}

#[test]
fn a_session_of_before_is_that_of_the_first_who_may_use_it() {
    let mut machine = running("test");
    let session = open(&mut machine, Actor::Nobody, false);
    let [_, ann, bob] = [("root", "admin"), ("ann", "writer"), ("bob", "writer")]
        .map(|(who, role)| made(&mut machine, put(who, &[role])));
    assert!(is_done(&run_one(&mut machine, Actor::Nobody, "x", Some((session, 1)))));
    ask(&mut machine, LOCAL, 0, set(&[AccessChange::InForce(true)]));
    // It was executed, and whoever asks again hears it.
    let again = run_one(&mut machine, Actor::Nobody, "x", Some((session, 1)));
    assert!(matches!(again, Reply::Command(Outcome::Duplicate(_))), "{again:?}");
    assert_eq!(
        denied(run_one(&mut machine, Actor::Nobody, "y", Some((session, 2)))),
        Denied::Nobody
    );
    assert!(is_done(&run_one(&mut machine, ann, "y", Some((session, 2)))));
    denied(run_one(&mut machine, bob, "z", Some((session, 3))));
    assert!(is_done(&run_one(&mut machine, ann, "z", Some((session, 3)))));
}

#[test]
fn a_denied_command_is_not_remembered_and_one_of_before_is_answered() {
    let (mut machine, [_, ann, _]) = guarded("test");
    let session = open(&mut machine, ann, false);
    assert!(is_done(&run_one(&mut machine, ann, "one", Some((session, 1)))));
    let expires = machine.state.sessions.iter().next().expect("hers").1.expires_at_ms;
    ask(&mut machine, LOCAL, 0, set(&[put("ann", &["reader"])]));
    ask(&mut machine, LOCAL, 5_000, open_session(0));
    let reply = run_one(&mut machine, ann, "two", Some((session, 2)));
    assert!(matches!(denied(reply), Denied::NoRight { right: Right::Apply, class: None, .. }));
    let again = run_one(&mut machine, ann, "one", Some((session, 1)));
    assert!(matches!(again, Reply::Command(Outcome::Duplicate(_))), "{again:?}");
    let now = machine.state.sessions.iter().next().expect("hers").1;
    assert_eq!((now.expires_at_ms, now.completed.len()), (expires, 1), "it was not used");
    ask(&mut machine, LOCAL, 0, set(&[put("ann", &["writer"])]));
    assert!(is_done(&run_one(&mut machine, ann, "two", Some((session, 2)))));
    // Of a session that is gone nobody knows what was executed.
    ask(&mut machine, LOCAL, 0, close(session));
    ask(&mut machine, LOCAL, 0, set(&[put("ann", &["reader"])]));
    let reply = run_one(&mut machine, ann, "two", Some((session, 2)));
    assert_eq!(reply, Reply::Refused(CommandRefused::SessionExpired));
}

fn by_class(classes: &[&str]) -> AccessChange {
    let grant = |class: &&str| Grant { class: Some(name(class)), ..Grant::of(Right::Apply) };
    AccessChange::PutRole { name: name("own"), grants: classes.iter().map(grant).collect() }
}

#[test]
fn a_grant_by_class_counts_for_the_class_that_the_guest_names() {
    for (module, has_classes) in [("test classes", true), ("test", false)] {
        let (mut machine, [_, ann, _]) = guarded(module);
        ask(&mut machine, LOCAL, 0, set(&[by_class(&["pay", "move"]), put("ann", &["own"])]));
        let answer = only(run(&mut machine, vec![give(ann, "pay 5", None)]));
        assert_eq!(is_done(&answer.reply), has_classes, "{answer:?}");
        for data in ["close 1", "trap", "?"] {
            let before = guest_state(&mut machine);
            let answer = only(run(&mut machine, vec![give(ann, data, None)]));
            let Denied::NoRight { class: Some(class), .. } = denied(answer.reply) else {
                panic!("no right for the class")
            };
            assert_eq!(class, (has_classes && data == "close 1").then(|| name("close")));
            assert_eq!(answer.fuel_used, if has_classes { 5 } else { 0 });
            assert_eq!(guest_state(&mut machine), before);
        }
        // Sessions, and numbers that are skipped, are of no class.
        let session = open(&mut machine, ann, true);
        let skipped = run_one(&mut machine, ann, "", Some((session, 1)));
        assert_eq!(skipped, Reply::Command(Outcome::Ok(Vec::new())));
        // Whoever may give any is not asked which.
        ask(&mut machine, LOCAL, 0, set(&[put("ann", &["own", "writer"])]));
        let answer = only(run(&mut machine, vec![give(ann, "reject", None)]));
        assert_eq!(answer.reply, Reply::Command(Outcome::Rejected(b"no".to_vec())));
    }
}

#[test]
fn what_waits_is_asked_again_when_its_turn_comes_and_is_skipped_or_sent_again() {
    let (mut machine, [_, ann, _]) = guarded("test classes");
    let own = set(&[by_class(&["pay", "move"]), put("ann", &["own"])]);
    ask(&mut machine, LOCAL, 0, own);
    let session = open(&mut machine, ann, true);
    for (data, sequence) in [("pay 2", 2), ("move 3", 3)] {
        let reply = run_one(&mut machine, ann, data, Some((session, sequence)));
        assert!(matches!(reply, Reply::Waiting(_)), "{reply:?}");
    }
    let mut machine = restore(&snapshot(&mut machine)).expect("its own snapshot");
    ask(&mut machine, LOCAL, 0, set(&[by_class(&["move"])]));
    let answers = run(&mut machine, vec![give(ann, "move 1", Some((session, 1)))]);
    assert!(is_done(&answers[0].reply));
    assert!(matches!(denied(answers[1].reply.clone()), Denied::NoRight { class: Some(_), .. }));
    assert_eq!(answers[1].waited.map(|waited| waited.sequence), Some(2));
    assert_eq!(answers.len(), 2, "number 3 goes on waiting for number 2: {answers:?}");
    let answers = run(&mut machine, vec![give(ann, "", Some((session, 2)))]);
    assert!(is_done(&answers[1].reply) && answers.len() == 2, "{answers:?}");
}

#[test]
fn rights_sessions_owners_and_who_activated_survive_snapshots_and_make_a_difference() {
    let (mut machine, [root, ann, bob]) = guarded("test");
    let token = AccessChange::CreateToken {
        principal: name("ann"),
        hash: SecretHash::of(&[1; 32]),
        end: TokenEnd::After(10_000),
        note: "laptop".to_owned(),
    };
    let reply = ask(&mut machine, root, 50, set(&[token]));
    let id = TokenId(machine.applied_index().0);
    assert_eq!(reply, Reply::AccessSet { principal: None, token: Some((id, 10_050)) });
    let session = open(&mut machine, ann, false);
    assert!(matches!(
        ask(&mut machine, root, 0, chunk(b"test 2", 0, 6)),
        Reply::ChunkStored { .. }
    ));
    let activation = activate(&machine, b"test 2");
    assert!(matches!(ask(&mut machine, root, 0, activation), Reply::Activated { .. }));
    let activated = machine.info().history.last().expect("just now").clone();
    assert_eq!((activated.actor, activated.actor_name), (root, name("root")));

    let mut again = restore(&snapshot(&mut machine)).expect("its own snapshot");
    assert_eq!(again.info(), machine.info());
    assert_eq!(again.digest_now().unwrap(), machine.digest_now().unwrap());
    assert_eq!(snapshot(&mut again), snapshot(&mut machine));
    for machine in [&mut machine, &mut again] {
        denied(run_one(machine, bob, "x", Some((session, 1))));
        assert!(is_done(&run_one(machine, ann, "x", Some((session, 1)))));
    }
    assert_eq!(again.digest_now().unwrap(), machine.digest_now().unwrap());
    // Whatever a replica has else is noticed.
    let digest = machine.digest_now().unwrap();
    std::sync::Arc::make_mut(&mut again.state.access);
    let (other, _) = again
        .state
        .access
        .changed(again.info().access.revision(), 0, LOCAL, &[put("bob", &["reader"])])
        .expect("changed");
    again.state.access = other.into();
    assert_ne!(again.digest_now().unwrap(), digest);

    // A cluster that is made of it has the same rights, and the tokens count there.
    let origin = crate::types::Origin {
        cluster: CLUSTER,
        position: crate::types::LogPosition {
            index: machine.applied_index(),
            term: crate::types::Term(1),
        },
        time_ms: machine.time_ms(),
    };
    let before = machine.info().access;
    let founder = Member { id: FOUNDER, address: "a:1".to_owned() };
    machine.reincarnate(ClusterId([8; 16]), founder, origin).expect("there is an index");
    assert_eq!(machine.info().access, before);
    let actor = before.authenticate_token(&SecretHash::of(&[1; 32]), 100).expect("it counts");
    let now = machine.info().access;
    assert_eq!(now.allows(actor, 100, GroupId::MAIN, Right::Query, Class::Any), Ok(()));
}

#[test]
fn nonsense_is_refused_and_what_is_not_known_stops_the_node() {
    let mut machine = running("test");
    let bad_name = stored::AccessChange {
        change: Some(stored::access_change::Change::RemovePrincipal("a b".to_owned())),
    };
    let reply =
        ask(&mut machine, LOCAL, 0, Body::SetAccess(stored::SetAccess { changes: vec![bad_name] }));
    assert!(matches!(reply, Reply::Refused(CommandRefused::Malformed(_))), "{reply:?}");
    let nobody = Some(stored::Actor::default());
    let command = stored::Command { data: "x".into(), session: None, actor: nobody };
    let reply = only(run(&mut machine, vec![command])).reply;
    assert!(matches!(reply, Reply::Refused(CommandRefused::Malformed(_))), "{reply:?}");
    let batch = Some(Body::Batch(stored::Batch { commands: vec![give(LOCAL, "x", None)] }));
    for (actor, body) in [(actor_to_log(LOCAL), batch), (nobody, Some(open_session(0)))] {
        let entry = stored::Entry { time_ms: 0, actor, body };
        let reply = only(apply_data(&mut machine, entry.encode_to_vec()).unwrap()).reply;
        assert!(matches!(reply, Reply::Refused(CommandRefused::Malformed(_))), "{reply:?}");
    }
    let unknown = stored::SetAccess { changes: vec![stored::AccessChange { change: None }] };
    let body = Some(Body::SetAccess(unknown));
    let entry = stored::Entry { time_ms: 0, actor: None, body }.encode_to_vec();
    assert!(apply_data(&mut machine, entry).is_err());
}

fn any_step() -> impl Strategy<Value = (u8, u8, u8)> {
    (0..8_u8, 0..4_u8, 0..3_u8)
}

/// Whoever applies the same log has the same state, wherever it was restored in between.
fn take_step(machine: &mut Machine, (what, who, which): (u8, u8, u8)) {
    let named = ["root", "ann", "bob"][usize::from(which)];
    let actor = match who {
        0 => Actor::Nobody,
        1 => LOCAL,
        who => machine
            .info()
            .access
            .principal_named(&name(["ann", "bob"][usize::from(who) - 2]))
            .map_or(Actor::Principal { id: PrincipalId(77), token: None }, |id| Actor::Principal {
                id,
                token: None,
            }),
    };
    let session = machine.state.sessions.iter().next().map_or(1, |(id, _)| id);
    let body = match what {
        0 => set(&[put(named, &["writer"])]),
        1 => set(&[put(named, &["reader"])]),
        2 => set(&[AccessChange::RemovePrincipal(name(named))]),
        3 => set(&[AccessChange::InForce(which != 0)]),
        4 => Body::OpenSession(stored::OpenSession { ttl_ms: 0, ordered: true }),
        5 => close(session),
        6 => return drop(run(machine, vec![give(actor, "do", None)])),
        _ => {
            return drop(run(
                machine,
                vec![give(actor, "do", Some((session, u64::from(which) + 1)))],
            ));
        }
    };
    ask(machine, actor, 1, body);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_replay_comes_to_the_same_state(steps in prop::collection::vec(any_step(), 1..40)) {
        let (mut straight, [..]) = guarded("test");
        let (mut other, [..]) = guarded("test");
        for (number, step) in steps.iter().enumerate() {
            take_step(&mut straight, *step);
            take_step(&mut other, *step);
            if number % 5 == 0 {
                other = restore(&snapshot(&mut other)).expect("its own snapshot");
            }
        }
        prop_assert_eq!(straight.digest_now().unwrap(), other.digest_now().unwrap());
        prop_assert_eq!(straight.info(), other.info());
    }
}
