//! Between this room's vocabulary and the records of entries and snapshots.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_host_proto::stored;

use super::change::check_grant;
use super::join::JOIN_TOKENS_MAX;
use super::{
    Access, AccessChange, Grant, JoinToken, Newcomer, Principal, SecretHash, Token, TokenEnd,
    built_in,
};
use super::{GRANTS_MAX, NOTE_MAX_BYTES, PRINCIPALS_MAX, ROLES_MAX, ROLES_OF_ONE_MAX, TOKENS_MAX};
use crate::types::{Actor, ActorName, GroupId, Index, NodeId, PrincipalId, Right, TokenId};

/// Who acts, as entries and snapshots name it.
pub(crate) fn actor_to_log(actor: Actor) -> Option<stored::Actor> {
    match actor {
        Actor::Nobody => None,
        Actor::Local(node) => Some(stored::Actor { local_node: node.0, ..Default::default() }),
        Actor::Principal { id, token } => Some(stored::Actor {
            principal: id.0,
            token: token.map_or(0, |token| token.0),
            local_node: 0,
        }),
    }
}

/// Reads what [`actor_to_log`] made.
///
/// # Errors
/// A sentence; it is nobody that there can be.
pub(crate) fn actor_from_log(record: Option<&stored::Actor>) -> Result<Actor, String> {
    match record {
        None => Ok(Actor::Nobody),
        Some(stored::Actor { principal: 0, token: 0, local_node }) if *local_node != 0 => {
            Ok(Actor::Local(NodeId(*local_node)))
        }
        Some(stored::Actor { principal, token, local_node: 0 }) if *principal != 0 => {
            let token = (*token != 0).then_some(TokenId(*token));
            Ok(Actor::Principal { id: PrincipalId(*principal), token })
        }
        Some(_) => Err("whoever acts is neither a principal nor at a node's socket".to_owned()),
    }
}

/// Why a change cannot be read.
pub(in crate::machine) enum Unreadable {
    /// This version does not know it.
    Unknown,
    /// It means nothing.
    Malformed(String),
}

fn malformed(reason: impl ToString) -> Unreadable {
    Unreadable::Malformed(reason.to_string())
}

/// As entries hold it.
pub(crate) fn change_to_log(change: &AccessChange) -> stored::AccessChange {
    use stored::access_change::Change;
    let text = |name: &ActorName| name.as_str().to_owned();
    let change = match change {
        AccessChange::InForce(in_force) => Change::InForce(*in_force),
        AccessChange::PutPrincipal { name, roles, must_be_new } => {
            let (name, roles) = (text(name), roles.iter().map(text).collect());
            Change::PutPrincipal(stored::PutPrincipal { name, roles, must_be_new: *must_be_new })
        }
        AccessChange::RemovePrincipal(name) => Change::RemovePrincipal(text(name)),
        AccessChange::PutRole { name, grants } => Change::PutRole(role_record(name, grants)),
        AccessChange::RemoveRole(name) => Change::RemoveRole(text(name)),
        AccessChange::CreateToken { principal, hash, end, note } => {
            let (expires_ms, ttl_ms) = match end {
                TokenEnd::Never => (0, 0),
                TokenEnd::At(ms) => (*ms, 0),
                TokenEnd::After(ms) => (0, *ms),
            };
            Change::CreateToken(stored::CreateToken {
                principal: text(principal),
                hash: Bytes::copy_from_slice(&hash.0),
                expires_ms,
                ttl_ms,
                note: note.clone(),
            })
        }
        AccessChange::RevokeToken(id) => Change::RevokeToken(id.0),
        AccessChange::CreateJoinToken { hash, ttl_ms, note } => {
            let hash = Bytes::copy_from_slice(&hash.0);
            Change::CreateJoinToken(stored::CreateJoinToken {
                hash,
                ttl_ms: *ttl_ms,
                note: note.clone(),
            })
        }
        AccessChange::ConsumeJoinToken { hash, newcomer, node } => {
            Change::ConsumeJoinToken(stored::ConsumeJoinToken {
                hash: Bytes::copy_from_slice(&hash.0),
                newcomer: Bytes::copy_from_slice(&newcomer.0),
                node_id: node.map_or(0, |node| node.0),
            })
        }
        AccessChange::RevokeJoinToken(id) => Change::RevokeJoinToken(id.0),
    };
    stored::AccessChange { change: Some(change) }
}

/// From an entry.
pub(in crate::machine) fn changes_from_log(
    record: &stored::SetAccess,
) -> Result<Vec<AccessChange>, Unreadable> {
    record.changes.iter().map(change_from_log).collect()
}

fn change_from_log(record: &stored::AccessChange) -> Result<AccessChange, Unreadable> {
    use stored::access_change::Change;
    Ok(match record.change.as_ref().ok_or(Unreadable::Unknown)? {
        Change::InForce(in_force) => AccessChange::InForce(*in_force),
        Change::PutPrincipal(put) => AccessChange::PutPrincipal {
            name: name(&put.name)?,
            roles: put.roles.iter().map(|role| name(role)).collect::<Result<_, _>>()?,
            must_be_new: put.must_be_new,
        },
        Change::RemovePrincipal(principal) => AccessChange::RemovePrincipal(name(principal)?),
        Change::PutRole(role) => {
            let (name, grants) = role_from_record(role)?;
            AccessChange::PutRole { name, grants }
        }
        Change::RemoveRole(role) => AccessChange::RemoveRole(name(role)?),
        Change::CreateToken(create) => AccessChange::CreateToken {
            principal: name(&create.principal)?,
            hash: secret_hash(&create.hash)?,
            end: match (create.expires_ms, create.ttl_ms) {
                (0, 0) => TokenEnd::Never,
                (at, 0) => TokenEnd::At(at),
                (0, after) => TokenEnd::After(after),
                _ => return Err(malformed("a token ends either at a time or after some time")),
            },
            note: create.note.clone(),
        },
        Change::RevokeToken(id) => AccessChange::RevokeToken(TokenId(*id)),
        Change::CreateJoinToken(create) => AccessChange::CreateJoinToken {
            hash: secret_hash(&create.hash)?,
            ttl_ms: create.ttl_ms,
            note: create.note.clone(),
        },
        Change::ConsumeJoinToken(consume) => AccessChange::ConsumeJoinToken {
            hash: secret_hash(&consume.hash)?,
            newcomer: newcomer(&consume.newcomer)?,
            node: node(consume.node_id),
        },
        Change::RevokeJoinToken(id) => AccessChange::RevokeJoinToken(TokenId(*id)),
    })
}

fn name(text: &str) -> Result<ActorName, Unreadable> {
    text.parse().map_err(malformed)
}

fn secret_hash(bytes: &[u8]) -> Result<SecretHash, Unreadable> {
    let hash = <[u8; 32]>::try_from(bytes);
    hash.map(SecretHash).map_err(|_| malformed("the hash of a secret has 32 bytes"))
}

fn newcomer(bytes: &[u8]) -> Result<Newcomer, Unreadable> {
    let hash = <[u8; 32]>::try_from(bytes);
    hash.map(Newcomer).map_err(|_| malformed("what a newcomer is known by has 32 bytes"))
}

fn node(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

fn role_record(name: &ActorName, grants: &[Grant]) -> stored::AccessRole {
    let grants = grants.iter().map(|grant| stored::AccessGrant {
        group: grant.group.map_or(0, |group| group.0),
        right: grant.right.as_str().to_owned(),
        class: grant.class.unwrap_or_default().as_str().to_owned(),
    });
    stored::AccessRole { name: name.as_str().to_owned(), grants: grants.collect() }
}

fn role_from_record(record: &stored::AccessRole) -> Result<(ActorName, Vec<Grant>), Unreadable> {
    let mut grants = Vec::new();
    for grant in &record.grants {
        grants.push(Grant {
            group: (grant.group != 0).then_some(GroupId(grant.group)),
            // A right that this version does not know is one that others check.
            right: grant.right.parse::<Right>().map_err(|_| Unreadable::Unknown)?,
            class: match grant.class.as_str() {
                "" => None,
                class => Some(name(class)?),
            },
        });
    }
    Ok((name(&record.name)?, grants))
}

/// As snapshots hold it; `None`: nobody has ever said who may do what.
pub(in crate::machine) fn to_record(access: &Access) -> Option<stored::SnapshotAccess> {
    if access.revision == Index(0) {
        return None;
    }
    let text = |name: &ActorName| name.as_str().to_owned();
    let principals = access.principals.iter().map(|(id, principal)| stored::SnapshotPrincipal {
        id: id.0,
        name: text(&principal.name),
        roles: principal.roles.iter().map(text).collect(),
    });
    let tokens = access.tokens.iter().map(|(id, token)| stored::SnapshotToken {
        id: id.0,
        principal: token.principal.0,
        hash: Bytes::copy_from_slice(&token.hash.0),
        expires_ms: token.expires_ms,
        note: token.note.clone(),
    });
    let join_tokens = access.join_tokens.iter().map(|(id, token)| stored::SnapshotJoinToken {
        id: id.0,
        hash: Bytes::copy_from_slice(&token.hash.0),
        expires_ms: token.expires_ms,
        note: token.note.clone(),
        newcomer: token
            .newcomer
            .map_or_else(Bytes::new, |newcomer| Bytes::copy_from_slice(&newcomer.0)),
        node_id: token.node.map_or(0, |node| node.0),
    });
    Some(stored::SnapshotAccess {
        join_tokens: join_tokens.collect(),
        in_force: access.in_force,
        revision: access.revision.0,
        principals: principals.collect(),
        tokens: tokens.collect(),
        roles: access.roles.iter().map(|(name, grants)| role_record(name, grants)).collect(),
    })
}

/// Reads what [`to_record`] made, at an index.
///
/// # Errors
/// A sentence: it contradicts itself, or nobody could have made it.
pub(in crate::machine) fn from_record(
    record: &stored::SnapshotAccess,
    applied: Index,
) -> Result<Access, String> {
    let contradiction = || "it contradicts itself".to_owned();
    let read = |unreadable: Unreadable| match unreadable {
        Unreadable::Unknown => "it grants a right that this version does not know".to_owned(),
        Unreadable::Malformed(reason) => reason,
    };
    let stored::SnapshotAccess { in_force, revision, principals, tokens, roles, join_tokens } =
        record;
    if *revision == 0 || *revision > applied.0 {
        return Err("it was changed after the last entry, or never".to_owned());
    }
    let is_too_much = principals.len() > PRINCIPALS_MAX
        || tokens.len() > TOKENS_MAX
        || roles.len() > ROLES_MAX
        || join_tokens.len() > JOIN_TOKENS_MAX;
    if is_too_much {
        return Err("there is more of it than there may be".to_owned());
    }
    let mut access =
        Access { in_force: *in_force, revision: Index(*revision), ..Access::default() };
    for role in roles {
        let (name, grants) = role_from_record(role).map_err(read)?;
        let is_sound = built_in(name.as_str()).is_none()
            && (1..=GRANTS_MAX).contains(&grants.len())
            && grants.is_sorted_by(|one, next| one < next)
            && grants.iter().all(|grant| check_grant(grant).is_ok())
            && is_last(&access.roles, &name);
        if !is_sound {
            return Err(contradiction());
        }
        access.roles.insert(name, grants);
    }
    for record in principals {
        let id = PrincipalId(record.id);
        let name = name(&record.name).map_err(read)?;
        let mut principal = Principal { name, roles: Default::default() };
        for role in &record.roles {
            let role: ActorName = role.parse().map_err(|_| contradiction())?;
            let is_known = built_in(role.as_str()).is_some() || access.roles.contains_key(&role);
            if !is_known || principal.roles.last().is_some_and(|last| *last >= role) {
                return Err(contradiction());
            }
            principal.roles.insert(role);
        }
        let is_sound = (1..=*revision).contains(&record.id)
            && principal.roles.len() <= ROLES_OF_ONE_MAX
            && is_last(&access.principals, &id)
            && access.by_name.insert(name, id).is_none();
        if !is_sound {
            return Err(contradiction());
        }
        access.principals.insert(id, principal);
    }
    for record in tokens {
        let id = TokenId(record.id);
        let token = Token {
            principal: PrincipalId(record.principal),
            hash: secret_hash(&record.hash).map_err(read)?,
            expires_ms: record.expires_ms,
            note: record.note.clone(),
        };
        let is_sound = (1..=*revision).contains(&record.id)
            && token.note.len() <= NOTE_MAX_BYTES
            && access.principals.contains_key(&token.principal)
            && is_last(&access.tokens, &id)
            && access.by_hash.insert(token.hash, id).is_none();
        if !is_sound {
            return Err(contradiction());
        }
        access.tokens.insert(id, token);
    }
    for record in join_tokens {
        let id = TokenId(record.id);
        let token = JoinToken {
            hash: secret_hash(&record.hash).map_err(read)?,
            expires_ms: record.expires_ms,
            note: record.note.clone(),
            newcomer: match record.newcomer.is_empty() {
                true => None,
                false => Some(newcomer(&record.newcomer).map_err(read)?),
            },
            node: node(record.node_id),
        };
        let is_sound = (1..=*revision).contains(&record.id)
            && token.note.len() <= NOTE_MAX_BYTES
            && (token.node.is_none() || token.newcomer.is_some())
            && is_last(&access.join_tokens, &id)
            && access.join_tokens.values().all(|known| known.hash != token.hash);
        if !is_sound {
            return Err(contradiction());
        }
        access.join_tokens.insert(id, token);
    }
    Ok(access)
}

/// Whether a key comes after all that are there.
fn is_last<K: Ord, V>(map: &BTreeMap<K, V>, key: &K) -> bool {
    map.last_key_value().is_none_or(|(last, _)| last < key)
}
