//! `Access`, `SetAccess`, `CreateToken` and `WhoAmI`: who may do what, and what `Status` says of it.

use std::sync::Arc;

use raft_host_proto::MAIN_GROUP;
use raft_host_proto::v1::{self, Reason};

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::forward::Forwarder;
use super::token::TokenSecret;
use crate::machine::{Access, AccessChange, BUILT_IN, Grant, TokenEnd};
use crate::node::{MachineView, MembershipFailure};
use crate::types::{Actor, ActorName, GroupId, Right, TokenId};

/// Most changes of one request, as of one entry.
const CHANGES_MAX: usize = 1_000;

fn view(context: &Context) -> Result<Arc<MachineView>, Failure> {
    let view = context.handle.machine().borrow().clone();
    Ok(view.ok_or(MembershipFailure::NoState)?)
}

/// For `Status`.
pub(super) fn status(access: &Access) -> v1::AccessStatus {
    v1::AccessStatus {
        in_force: access.is_in_force(),
        revision: access.revision().0,
        principals: access.principals().len() as u64,
        tokens: access.tokens().len() as u64,
        roles: access.roles().len() as u64,
    }
}

/// Who acts, in the words of the history of activations.
pub(super) fn named(actor: Actor, name: ActorName) -> String {
    match actor {
        Actor::Nobody => String::new(),
        Actor::Local(node) => format!("socket of node {node}"),
        Actor::Principal { .. } => name.as_str().to_owned(),
    }
}

/// All of it, as this node has applied it.
pub(super) fn show(context: &Context) -> Result<v1::AccessResponse, Failure> {
    let view = view(context)?;
    let (access, now_ms) = (&view.info.access, view.info.time_ms);
    let text = |name: &ActorName| name.as_str().to_owned();
    let principals = access.principals().iter().map(|(id, principal)| v1::PrincipalInfo {
        id: id.0,
        name: text(&principal.name),
        roles: principal.roles.iter().map(text).collect(),
    });
    let tokens = access.tokens().iter().map(|(id, token)| v1::TokenInfo {
        id: id.0,
        principal: access
            .principals()
            .get(&token.principal)
            .map_or_else(String::new, |principal| text(&principal.name)),
        expires_ms: token.expires_ms,
        note: token.note.clone(),
        expired: token.is_expired(now_ms),
    });
    let built_in = BUILT_IN.iter().map(|role| v1::RoleInfo {
        name: role.name.to_owned(),
        grants: role.rights.iter().map(|right| grant_to_wire(&Grant::of(*right))).collect(),
        built_in: true,
    });
    let own = access.roles().iter().map(|(name, grants)| v1::RoleInfo {
        name: text(name),
        grants: grants.iter().map(grant_to_wire).collect(),
        built_in: false,
    });
    Ok(v1::AccessResponse {
        in_force: access.is_in_force(),
        revision: access.revision().0,
        principals: principals.collect(),
        tokens: tokens.collect(),
        roles: built_in.chain(own).collect(),
        join_tokens: super::join_tokens::list(access, now_ms),
    })
}

/// Who this node takes the caller for.
pub(super) fn who(
    context: &Context,
    caller: &Caller,
    request: &v1::WhoAmIRequest,
) -> Result<v1::WhoAmIResponse, Failure> {
    context.check_group(&request.group)?;
    let view = view(context)?;
    let access = &view.info.access;
    let (principal, token) = match caller.actor {
        Actor::Nobody | Actor::Local(_) => (None, None),
        Actor::Principal { id, token } => (Some(id), token),
    };
    let known = principal.and_then(|id| access.principals().get(&id));
    let roles = known.iter().flat_map(|known| &known.roles);
    Ok(v1::WhoAmIResponse {
        name: access.name_of(caller.actor).as_str().to_owned(),
        principal: principal.map_or(0, |id| id.0),
        token: token.map_or(0, |token| token.0),
        local: matches!(caller.actor, Actor::Local(_)),
        roles: roles.map(|role| role.as_str().to_owned()).collect(),
        in_force: access.is_in_force(),
    })
}

/// Changes it, here or at the leader.
pub(super) async fn set(
    context: &Context,
    caller: &Caller,
    request: v1::SetAccessRequest,
) -> Result<v1::SetAccessResponse, Failure> {
    context.check_group(&request.group)?;
    let changes = changes_from_wire(&request.changes)?;
    if changes.contains(&AccessChange::InForce(true)) && context.info.tls.is_none() {
        let words = "rights can be in force only where nodes prove to each other who they are, because they pass \
                     requests on in their clients' names: give each node a certificate first (`raft-host certs`, \
                     --tls)";
        return Err(Failure::none(Reason::RightsImpossible, words));
    }
    let request = &request;
    let here = || async {
        let set = context.handle.acting_for(caller.actor).set_access(changes.clone()).await?;
        let principal = set.principal.map_or(0, |id| id.0);
        Ok(v1::SetAccessResponse { index: set.index.0, principal })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.set_access(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

/// Makes a token, here or at the leader.
pub(super) async fn create_token(
    context: &Context,
    caller: &Caller,
    request: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Failure> {
    context.check_group(&request.group)?;
    let principal = name(&request.principal)?;
    let roles = names(&request.roles)?;
    let request = &request;
    let here = || async {
        // Another one for each attempt: nobody knows what became of the one before.
        let secret = TokenSecret::draw();
        let secret = secret.map_err(|words| Failure::none(Reason::Internal, words))?;
        let put =
            AccessChange::PutPrincipal { name: principal, roles: roles.clone(), must_be_new: true };
        let create = AccessChange::CreateToken {
            principal,
            hash: secret.hash(),
            end: match request.ttl_ms {
                0 => TokenEnd::Never,
                ttl_ms => TokenEnd::After(ttl_ms),
            },
            note: request.note.clone(),
        };
        let mut changes = vec![create];
        if !roles.is_empty() {
            changes.insert(0, put);
        }
        let handle = context.handle.acting_for(caller.actor);
        let set = handle.set_access(changes).await?;
        let access = view(context)?.info.access.clone();
        Ok(v1::CreateTokenResponse {
            index: set.index.0,
            token: secret.text(),
            principal: access.principal_named(&principal).map_or(0, |id| id.0),
            expires_ms: set.token.map_or(0, |(_, expires_ms)| expires_ms),
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.create_token(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

fn invalid(words: impl ToString) -> Failure {
    Failure::none(Reason::InvalidRequest, words.to_string())
}

fn name(text: &str) -> Result<ActorName, Failure> {
    text.parse().map_err(invalid)
}

fn names(texts: &[String]) -> Result<Vec<ActorName>, Failure> {
    texts.iter().map(|text| name(text)).collect()
}

fn grant_to_wire(grant: &Grant) -> v1::Grant {
    v1::Grant {
        right: grant.right.as_str().to_owned(),
        group: match grant.group {
            None => String::new(),
            Some(GroupId::MAIN) => MAIN_GROUP.to_owned(),
            Some(other) => other.to_string(),
        },
        class: grant.class.unwrap_or_default().as_str().to_owned(),
    }
}

fn grant_from_wire(grant: &v1::Grant) -> Result<Grant, Failure> {
    Ok(Grant {
        group: match grant.group.as_str() {
            "" => None,
            MAIN_GROUP => Some(GroupId::MAIN),
            other => {
                let other: String = other.chars().take(64).collect();
                let words =
                    format!("there is no group {other:?}: this cluster has {MAIN_GROUP:?} only");
                return Err(Failure::none(Reason::NoSuchGroup, words));
            }
        },
        right: grant.right.parse::<Right>().map_err(invalid)?,
        class: match grant.class.as_str() {
            "" => None,
            class => Some(name(class)?),
        },
    })
}

fn changes_from_wire(changes: &[v1::AccessChange]) -> Result<Vec<AccessChange>, Failure> {
    if changes.is_empty() || changes.len() > CHANGES_MAX {
        let words = format!("a change of rights has 1 to {CHANGES_MAX} parts");
        let (count, max) = (changes.len() as u64, CHANGES_MAX as u64);
        return Err(invalid(words).exceeding_if("access_changes_max", count, max));
    }
    changes.iter().map(change_from_wire).collect()
}

fn change_from_wire(change: &v1::AccessChange) -> Result<AccessChange, Failure> {
    use v1::access_change::Change;
    let change = change.change.as_ref();
    Ok(
        match change.ok_or_else(|| invalid("a change of rights that this version does not know"))? {
            Change::InForce(in_force) => AccessChange::InForce(*in_force),
            Change::PutPrincipal(put) => AccessChange::PutPrincipal {
                name: name(&put.name)?,
                roles: names(&put.roles)?,
                must_be_new: put.must_be_new,
            },
            Change::RemovePrincipal(principal) => AccessChange::RemovePrincipal(name(principal)?),
            Change::PutRole(role) => AccessChange::PutRole {
                name: name(&role.name)?,
                grants: role.grants.iter().map(grant_from_wire).collect::<Result<_, _>>()?,
            },
            Change::RemoveRole(role) => AccessChange::RemoveRole(name(role)?),
            Change::RevokeToken(id) => AccessChange::RevokeToken(TokenId(*id)),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(change: v1::access_change::Change) -> v1::AccessChange {
        v1::AccessChange { change: Some(change) }
    }

    #[test]
    fn what_means_nothing_does_not_reach_the_log() {
        use v1::access_change::Change;
        let grant = |right: &str, group: &str, class: &str| v1::Grant {
            right: right.to_owned(),
            group: group.to_owned(),
            class: class.to_owned(),
        };
        let role = |grant| {
            change(Change::PutRole(v1::PutRole { name: "r".to_owned(), grants: vec![grant] }))
        };
        for (bad, reason) in [
            (v1::AccessChange { change: None }, Reason::InvalidRequest),
            (change(Change::RemovePrincipal("a b".to_owned())), Reason::InvalidRequest),
            (role(grant("fly", "", "")), Reason::InvalidRequest),
            (role(grant("query", "other", "")), Reason::NoSuchGroup),
            (role(grant("apply", "", "a/b")), Reason::InvalidRequest),
        ] {
            let failure = changes_from_wire(&[bad]).expect_err("must be refused");
            assert_eq!(failure.reason(), reason, "{failure:?}");
        }
        assert!(changes_from_wire(&[]).is_err());
        let good = grant("apply", MAIN_GROUP, "transfer");
        let read = grant_from_wire(&good).expect("a grant");
        assert_eq!((read.group, grant_to_wire(&read)), (Some(GroupId::MAIN), good));
    }
}
