//! Who may do what, without a machine around it.

use prost::Message as _;

use super::change::check_grant;
use super::join::JOIN_TOKENS_MAX;
use super::*;
use crate::types::NodeId;

const MAIN: GroupId = GroupId::MAIN;
const LOCAL: Actor = Actor::Local(NodeId(1));

fn name(text: &str) -> ActorName {
    text.parse().expect("a name")
}

fn names(texts: &[&str]) -> Vec<ActorName> {
    texts.iter().map(|text| name(text)).collect()
}

fn put(who: &str, roles: &[&str]) -> AccessChange {
    AccessChange::PutPrincipal { name: name(who), roles: names(roles), must_be_new: false }
}

fn role(who: &str, grants: &[Grant]) -> AccessChange {
    AccessChange::PutRole { name: name(who), grants: grants.to_vec() }
}

fn token(who: &str, secret: u8, end: TokenEnd) -> AccessChange {
    let hash = SecretHash::of(&[secret; 32]);
    AccessChange::CreateToken { principal: name(who), hash, end, note: "for a test".to_owned() }
}

fn join_token(secret: u8, ttl_ms: u64) -> AccessChange {
    let hash = SecretHash::of(&[secret; 32]);
    AccessChange::CreateJoinToken { hash, ttl_ms, note: "n4".to_owned() }
}

fn consume(secret: u8, newcomer: u8) -> AccessChange {
    let hash = SecretHash::of(&[secret; 32]);
    AccessChange::ConsumeJoinToken { hash, newcomer: Newcomer([newcomer; 32]), node: None }
}

fn taken_in(secret: u8, newcomer: u8, node: u64) -> AccessChange {
    let hash = SecretHash::of(&[secret; 32]);
    let node = Some(NodeId(node));
    AccessChange::ConsumeJoinToken { hash, newcomer: Newcomer([newcomer; 32]), node }
}

fn by(id: u64) -> Actor {
    Actor::Principal { id: PrincipalId(id), token: None }
}

/// Changes made one by one, at the indexes from 10 on.
fn after(changes: &[AccessChange]) -> Access {
    let mut access = Access::default();
    for (index, change) in (10..).zip(changes) {
        let changed = access.changed(Index(index), 1_000, LOCAL, std::slice::from_ref(change));
        access = changed.unwrap_or_else(|error| panic!("{change:?}: {error}")).0;
    }
    access
}

fn refused(access: &Access, actor: Actor, changes: &[AccessChange]) -> AccessRefused {
    access.changed(Index(90), 1_000, actor, changes).map(|_| ()).expect_err("must be refused")
}

fn may(access: &Access, actor: Actor, right: Right) -> bool {
    access.allows(actor, 1_000, MAIN, right, Class::Any).is_ok()
}

#[test]
fn nothing_is_refused_before_rights_are_in_force_and_nobody_may_anything_after() {
    let access = after(&[put("root", &["admin"])]);
    assert!(may(&access, Actor::Nobody, Right::Rights));
    let access = after(&[put("root", &["admin"]), AccessChange::InForce(true)]);
    for right in Right::all() {
        assert!(!may(&access, Actor::Nobody, right));
        assert!(!may(&access, by(99), right), "somebody who never was");
        assert!(may(&access, LOCAL, right) && may(&access, by(10), right), "{right}");
    }
}

#[test]
fn the_built_in_roles_allow_what_they_say() {
    let roles = BUILT_IN.map(|role| put(role.name, &[role.name]));
    let access = after(&[&roles[..], &[AccessChange::InForce(true)]].concat());
    for (id, role) in (10..).zip(BUILT_IN) {
        for right in Right::all() {
            assert_eq!(
                may(&access, by(id), right),
                role.rights.contains(&right),
                "{role:?} {right}"
            );
        }
    }
    // The right to see a node gives no data away, and that to read none that is written.
    assert!(!may(&access, by(11), Right::Query) && !may(&access, by(13), Right::Apply));
}

#[test]
fn own_roles_grant_by_group_and_by_class() {
    let class = |class: &str| Grant { class: Some(name(class)), ..Grant::of(Right::Apply) };
    let elsewhere = Grant { group: Some(GroupId(7)), ..Grant::of(Right::Query) };
    let access = after(&[
        put("root", &["admin"]),
        role("teller", &[class("transfer"), class("open"), elsewhere]),
        put("tom", &["teller"]),
        put("both", &["teller", "writer"]),
        AccessChange::InForce(true),
    ]);
    let (tom, both) = (by(12), by(13));
    let asked = |actor, class| access.allows(actor, 1_000, MAIN, Right::Apply, class);
    assert_eq!(asked(tom, Class::Any), Ok(()));
    assert_eq!(asked(tom, Class::Named(Some("transfer"))), Ok(()));
    for class in [Some("close"), Some("trans"), None] {
        let denied = asked(tom, Class::Named(class)).expect_err("not granted");
        let expected = Denied::NoRight {
            name: Box::new(name("tom")),
            right: Right::Apply,
            class: Some(class.map(name)),
        };
        assert_eq!(denied, expected);
        assert_eq!(asked(both, Class::Named(class)), Ok(()), "writers may give any");
    }
    assert!(access.depends_on_class(tom, MAIN) && !access.depends_on_class(both, MAIN));
    assert!(!access.depends_on_class(LOCAL, MAIN) && !access.depends_on_class(by(10), MAIN));
    assert!(!may(&access, tom, Right::Query), "in another group only");
    assert_eq!(access.allows(tom, 1_000, GroupId(7), Right::Query, Class::Any), Ok(()));
}

#[test]
fn a_token_counts_until_its_time_by_the_logs_clock_and_for_its_principal_only() {
    let access = after(&[
        put("root", &["admin"]),
        put("ann", &["reader"]),
        token("ann", 1, TokenEnd::After(500)),
        token("root", 2, TokenEnd::Never),
        AccessChange::InForce(true),
    ]);
    let hash = SecretHash::of(&[1; 32]);
    let actor = access.authenticate_token(&hash, 1_499).expect("it counts");
    assert_eq!(actor, Actor::Principal { id: PrincipalId(11), token: Some(TokenId(12)) });
    assert_eq!(access.name_of(actor), name("ann"));
    assert_eq!(access.authenticate_token(&hash, 1_500), None);
    assert_eq!(access.authenticate_token(&SecretHash::of(&[9; 32]), 0), None);
    let at = |now_ms| access.allows(actor, now_ms, MAIN, Right::Query, Class::Any);
    assert_eq!((at(1_499), at(1_500)), (Ok(()), Err(Denied::TokenExpired(TokenId(12)))));
    let mixed = Actor::Principal { id: PrincipalId(10), token: Some(TokenId(12)) };
    let denied = access.allows(mixed, 1_000, MAIN, Right::Query, Class::Any);
    assert_eq!(denied, Err(Denied::TokenGone(TokenId(12))));
    // Whatever changes next forgets it; who comes with it is refused as before.
    let (later, _) = access.changed(Index(50), 1_500, LOCAL, &[put("new", &[])]).expect("changed");
    assert_eq!(later.tokens().len(), 1);
    let denied = later.allows(actor, 1_500, MAIN, Right::Query, Class::Any);
    assert_eq!(denied, Err(Denied::TokenGone(TokenId(12))));
    let (revoked, _) =
        access.changed(Index(51), 1_000, LOCAL, &[AccessChange::RevokeToken(TokenId(13))]).unwrap();
    assert_eq!(revoked.authenticate_token(&SecretHash::of(&[2; 32]), 0), None);
}

#[test]
fn a_name_that_is_given_away_anew_is_somebody_else() {
    let access = after(&[
        put("root", &["admin"]),
        put("ann", &["reader"]),
        token("ann", 1, TokenEnd::Never),
        AccessChange::RemovePrincipal(name("ann")),
        put("ann", &["writer"]),
        AccessChange::InForce(true),
    ]);
    assert_eq!(access.principal_named(&name("ann")), Some(PrincipalId(14)));
    assert!(access.tokens().is_empty(), "its tokens went with it");
    assert_eq!(
        access.allows(by(11), 0, MAIN, Right::Query, Class::Any),
        Err(Denied::PrincipalGone(PrincipalId(11)))
    );
    assert!(may(&access, by(14), Right::Apply));
    // Other roles make nobody else.
    let (other, made) = access.changed(Index(60), 0, LOCAL, &[put("ann", &["reader"])]).unwrap();
    assert_eq!(made.principal, None);
    assert!(may(&other, by(14), Right::Query) && !may(&other, by(14), Right::Apply));
}

#[test]
fn nobody_locks_everybody_out_but_at_a_socket() {
    let some = after(&[put("ann", &["reader"])]);
    for actor in [LOCAL, by(10)] {
        assert_eq!(refused(&some, actor, &[AccessChange::InForce(true)]), AccessRefused::NoAdmin);
    }
    let access =
        after(&[put("root", &["admin"]), put("ann", &["reader"]), AccessChange::InForce(true)]);
    let ways_out = [put("root", &["reader"]), AccessChange::RemovePrincipal(name("root"))];
    for change in ways_out {
        assert_eq!(
            refused(&access, by(10), std::slice::from_ref(&change)),
            AccessRefused::LastAdmin
        );
        // With somebody else in its place, in the same entry.
        assert!(
            access.changed(Index(70), 0, by(10), &[change.clone(), put("ann", &["admin"])]).is_ok()
        );
        let (alone, _) = access.changed(Index(70), 0, LOCAL, &[change]).expect("at the socket");
        // What is not made worse is not refused.
        assert!(alone.changed(Index(71), 0, by(11), &[put("ann", &[])]).is_ok());
    }
    let off = [AccessChange::InForce(false), AccessChange::RemovePrincipal(name("root"))];
    assert!(access.changed(Index(72), 0, by(10), &off).is_ok(), "then everybody may everything");
}

#[test]
fn what_cannot_be_is_refused_with_words_and_changes_nothing() {
    let access = after(&[
        put("root", &["admin"]),
        role("own", &[Grant::of(Right::Query)]),
        put("ann", &["own"]),
        token("ann", 1, TokenEnd::Never),
    ]);
    let query_class = Grant { class: Some(name("a")), ..Grant::of(Right::Query) };
    let strange_class = Grant { class: Some(name("a@b")), ..Grant::of(Right::Apply) };
    let long_note = AccessChange::CreateToken {
        principal: name("ann"),
        hash: SecretHash([5; 32]),
        end: TokenEnd::Never,
        note: "x".repeat(NOTE_MAX_BYTES + 1),
    };
    let new = AccessChange::PutPrincipal { name: name("ann"), roles: vec![], must_be_new: true };
    let cases: Vec<(Vec<AccessChange>, &str)> = vec![
        (vec![], "1 to 1000"),
        (vec![new], "there is a principal ann already"),
        (vec![put("bob", &["none"])], "no role none"),
        (vec![AccessChange::RemovePrincipal(name("bob"))], "no principal bob"),
        (vec![role("admin", &[Grant::of(Right::Query)])], "built in"),
        (vec![AccessChange::RemoveRole(name("reader"))], "built in"),
        (vec![AccessChange::RemoveRole(name("own"))], "ann has it"),
        (vec![AccessChange::RemoveRole(name("other"))], "no role other"),
        (vec![role("empty", &[])], "would allow nothing"),
        (vec![role("by-class", &[query_class])], "only apply"),
        (vec![role("by-class", &[strange_class])], "no class"),
        (vec![token("bob", 2, TokenEnd::Never)], "no principal bob"),
        (vec![token("ann", 1, TokenEnd::Never)], "same secret"),
        (vec![token("ann", 2, TokenEnd::At(1_000))], "would have expired"),
        (vec![long_note], "64 bytes"),
        (vec![token("ann", 2, TokenEnd::Never), token("ann", 3, TokenEnd::Never)], "one by one"),
        (vec![put("b", &[]), put("c", &[])], "one by one"),
        (vec![AccessChange::RevokeToken(TokenId(12))], "no token 12"),
        // All or none.
        (vec![put("ann", &["admin"]), AccessChange::RevokeToken(TokenId(12))], "no token 12"),
    ];
    for (changes, words) in cases {
        let error = refused(&access, LOCAL, &changes).to_string();
        assert!(error.contains(words), "{error:?} should contain {words:?}");
    }
}

#[test]
fn there_are_never_more_than_there_may_be() {
    let many: Vec<String> = (0..=ROLES_OF_ONE_MAX).map(|number| format!("r{number}")).collect();
    let roles: Vec<AccessChange> =
        many.iter().map(|name| role(name, &[Grant::of(Right::Query)])).collect();
    let (access, _) = Access::default().changed(Index(5), 0, LOCAL, &roles).expect("made");
    let all: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(refused(&access, LOCAL, &[put("a", &all)]), AccessRefused::TooMany { .. }));
    assert!(access.changed(Index(6), 0, LOCAL, &[put("a", &all[1..])]).is_ok());
    let grants: Vec<Grant> = (0..=GRANTS_MAX as u64)
        .map(|group| Grant { group: Some(GroupId(group + 1)), ..Grant::of(Right::Query) })
        .collect();
    let refusal = refused(&access, LOCAL, &[role("a", &grants)]);
    assert!(matches!(refusal, AccessRefused::TooMany { max: GRANTS_MAX, .. }), "{refusal}");
    assert!(access.changed(Index(6), 0, LOCAL, &[role("a", &grants[1..])]).is_ok());
}

#[test]
fn changes_and_actors_survive_their_records_and_nonsense_does_not() {
    let grant = Grant { group: Some(MAIN), right: Right::Apply, class: Some(name("transfer")) };
    let changes = [
        AccessChange::InForce(true),
        AccessChange::PutPrincipal { name: name("a"), roles: names(&["b"]), must_be_new: true },
        AccessChange::RemovePrincipal(name("a")),
        role("r", &[grant, Grant::of(Right::Keys)]),
        AccessChange::RemoveRole(name("r")),
        token("a", 1, TokenEnd::Never),
        token("a", 1, TokenEnd::At(5)),
        token("a", 1, TokenEnd::After(6)),
        AccessChange::RevokeToken(TokenId(7)),
        join_token(3, 60_000),
        consume(3, 4),
        taken_in(3, 4, 2),
        AccessChange::RevokeJoinToken(TokenId(8)),
    ];
    let record = stored::SetAccess { changes: changes.iter().map(change_to_log).collect() };
    let read = changes_from_log(&record).unwrap_or_else(|_| panic!("its own record"));
    assert_eq!(read, changes);
    for actor in [
        Actor::Nobody,
        LOCAL,
        by(3),
        Actor::Principal { id: PrincipalId(3), token: Some(TokenId(4)) },
    ] {
        assert_eq!(actor_from_log(actor_to_log(actor).as_ref()), Ok(actor));
    }
    let nonsense = [
        stored::Actor::default(),
        stored::Actor { token: 5, ..Default::default() },
        stored::Actor { principal: 1, local_node: 1, token: 0 },
        stored::Actor { principal: 0, local_node: 1, token: 1 },
    ];
    for record in nonsense {
        assert!(actor_from_log(Some(&record)).is_err(), "{record:?}");
    }
    let unknown = stored::SetAccess { changes: vec![stored::AccessChange { change: None }] };
    assert!(matches!(changes_from_log(&unknown), Err(Unreadable::Unknown)));
    assert_eq!(format!("{:?}", SecretHash([7; 32])), "SecretHash(..)");
}

#[test]
fn the_state_survives_its_record_and_one_that_contradicts_itself_is_refused() {
    assert_eq!(to_record(&Access::default()), None);
    let access = after(&[
        put("root", &["admin"]),
        role("own", &[Grant::of(Right::Query), Grant::of(Right::Apply)]),
        put("ann", &["own", "metrics"]),
        token("ann", 1, TokenEnd::After(7)),
        token("root", 2, TokenEnd::Never),
        AccessChange::InForce(true),
        join_token(1, 60_000),
        join_token(2, 60_000),
        taken_in(2, 7, 4),
    ]);
    let record = to_record(&access).expect("there is something");
    assert_eq!(from_record(&record, Index(18)), Ok(access));
    assert!(from_record(&record, Index(17)).is_err(), "from the future");
    type Spoil = fn(&mut stored::SnapshotAccess);
    let spoils: [Spoil; 14] = [
        |it| it.join_tokens[0].node_id = 4,
        |it| it.join_tokens[1].hash = it.join_tokens[0].hash.clone(),
        |it| it.join_tokens.reverse(),
        |it| it.join_tokens[1].newcomer = vec![1].into(),
        |it| it.join_tokens[0].id = 99,
        |it| it.revision = 0,
        |it| it.principals[0].name = "ann".to_owned(),
        |it| it.principals[1].id = 10,
        |it| it.principals[1].roles = vec!["none".to_owned()],
        |it| it.principals[1].roles.reverse(),
        |it| it.tokens[0].principal = 99,
        |it| it.tokens[1].hash = it.tokens[0].hash.clone(),
        |it| it.roles[0].name = "admin".to_owned(),
        |it| it.roles[0].grants[0].right = "fly".to_owned(),
    ];
    for spoil in spoils {
        let mut bad = record.clone();
        spoil(&mut bad);
        assert_ne!(bad.encode_to_vec(), record.encode_to_vec());
        assert!(from_record(&bad, Index(18)).is_err(), "{bad:?}");
    }
    assert!(check_grant(&Grant::of(Right::Apply)).is_ok());
}

#[test]
fn a_join_token_lets_in_one_newcomer_however_often_that_asks() {
    let access = after(&[join_token(1, 500)]);
    let check = |access: &Access, newcomer, now_ms| {
        let checked =
            access.check_join_token(&SecretHash::of(&[1; 32]), Newcomer([newcomer; 32]), now_ms);
        checked.map(|(id, token)| (id, token.newcomer.is_some()))
    };
    assert_eq!(check(&access, 7, 1_000), Ok((TokenId(10), false)));
    let used = access.changed(Index(11), 1_100, Actor::Nobody, &[consume(1, 7)]).expect("good").0;
    assert_eq!(check(&used, 7, 1_100), Ok((TokenId(10), true)));
    let again = used.changed(Index(12), 1_200, Actor::Nobody, &[consume(1, 7)]).expect("again").0;
    assert_eq!(again.join_tokens(), used.join_tokens());
    let other = Err(AccessRefused::JoinTokenUsed(TokenId(10)));
    assert_eq!(check(&used, 8, 1_100), other);
    assert_eq!(
        refused(&used, Actor::Nobody, &[consume(1, 8)]),
        AccessRefused::JoinTokenUsed(TokenId(10))
    );
    let known =
        used.changed(Index(12), 1_200, Actor::Nobody, &[taken_in(1, 7, 4)]).expect("it is").0;
    assert_eq!(known.join_tokens()[&TokenId(10)].node, Some(NodeId(4)));
    assert!(known.changed(Index(13), 1_200, Actor::Nobody, &[consume(1, 7)]).is_ok());
    let twice = refused(&known, Actor::Nobody, &[taken_in(1, 7, 5)]);
    assert_eq!(twice, AccessRefused::JoinTokenUsed(TokenId(10)));
    // It ends for whoever used it, too, and nobody knows another secret.
    let over = Err(AccessRefused::JoinTokenExpired(TokenId(10)));
    assert_eq!((check(&used, 7, 1_500), check(&access, 7, 1_500)), (over.clone(), over));
    assert_eq!(refused(&access, LOCAL, &[consume(2, 7)]), AccessRefused::UnknownJoinToken);
    let revoke = AccessChange::RevokeJoinToken(TokenId(10));
    let gone = used.changed(Index(13), 1_200, LOCAL, std::slice::from_ref(&revoke)).expect("gone");
    assert_eq!(check(&gone.0, 7, 1_200), Err(AccessRefused::UnknownJoinToken));
    assert_eq!(refused(&gone.0, LOCAL, &[revoke]), AccessRefused::NoToken(TokenId(10)));
    assert!(access.authenticate_token(&SecretHash::of(&[1; 32]), 1_000).is_none());
}

#[test]
fn join_tokens_are_few_and_end_and_those_that_have_make_room() {
    let mut access = Access::default();
    for index in 0..JOIN_TOKENS_MAX as u64 {
        let make = join_token(index as u8, 1_000 + index);
        access = access.changed(Index(10 + index), 0, LOCAL, &[make]).expect("there is room").0;
    }
    let one_more = [join_token(200, 60_000)];
    let refusal = access.changed(Index(90), 999, LOCAL, &one_more).expect_err("full");
    assert!(matches!(refusal, AccessRefused::TooMany { max: JOIN_TOKENS_MAX, .. }), "{refusal}");
    let (access, made) = access.changed(Index(91), 1_000, LOCAL, &one_more).expect("one has ended");
    assert_eq!(made.token, Some((TokenId(91), 61_000)));
    assert_eq!(access.join_tokens().len(), JOIN_TOKENS_MAX);
    assert!(!access.join_tokens().contains_key(&TokenId(10)));
    for (bad, words) in [
        (join_token(201, 0), "30 days"),
        (join_token(201, JOIN_TOKEN_TTL_MAX_MS + 1), "30 days"),
        (join_token(201, u64::MAX), "30 days"),
        (join_token(200, 5), "same secret"),
    ] {
        let error = refused(&access, LOCAL, &[bad]).to_string();
        assert!(error.contains(words), "{error}");
    }
    let two = [join_token(201, 5), join_token(202, 5)];
    let later = access.changed(Index(95), 5_000, LOCAL, &two).expect_err("one each");
    assert!(later.to_string().contains("one by one"), "{later}");
}

#[test]
fn join_tokens_are_for_those_who_may_change_members_and_are_used_in_nobodys_name() {
    let body = |changes: &[AccessChange]| {
        let changes = changes.iter().map(change_to_log).collect();
        stored::entry::Body::SetAccess(stored::SetAccess { changes })
    };
    let revoke = AccessChange::RevokeJoinToken(TokenId(1));
    for alone in [join_token(1, 5), consume(1, 1), revoke.clone()] {
        assert_eq!(right_for(&body(&[alone])), Some(Right::Members));
    }
    let mixed = body(&[join_token(1, 5), put("ann", &["admin"])]);
    assert_eq!((right_for(&mixed), is_own(&mixed)), (Some(Right::Rights), false));
    assert!(is_own(&body(&[consume(1, 1)])));
    for others in [&[join_token(1, 5)][..], &[revoke], &[consume(1, 1), put("a", &[])], &[]] {
        assert!(!is_own(&body(others)), "{others:?}");
    }
}
