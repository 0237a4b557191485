//! Changes of who may do what: taken in order, all or none.

use std::collections::BTreeSet;

use prost::Message as _;

use super::{
    ADMIN, Access, Grant, JoinToken, Newcomer, Principal, SecretHash, Token, built_in, to_record,
};
use crate::fsm::class_name;
use crate::types::{Actor, ActorName, Index, NodeId, PrincipalId, Right, TokenId};

/// Most principals.
pub(super) const PRINCIPALS_MAX: usize = 10_000;
/// Most tokens.
pub(super) const TOKENS_MAX: usize = 10_000;
/// Most roles that are not built in.
pub(super) const ROLES_MAX: usize = 1_000;
/// Most grants of a role.
pub(super) const GRANTS_MAX: usize = 256;
/// Most roles of a principal.
pub(super) const ROLES_OF_ONE_MAX: usize = 64;
/// Longest note of a token.
pub const NOTE_MAX_BYTES: usize = 64;
/// Most changes of one entry.
const CHANGES_MAX: usize = 1_000;
/// Most bytes that all of it takes in a snapshot.
const RECORD_MAX_BYTES: usize = 16 << 20;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessChange {
    /// From the next entry on nobody may do what no role allows; or everybody may do everything.
    InForce(bool),
    /// Makes a principal, or gives one other roles.
    PutPrincipal {
        /// Its name.
        name: ActorName,
        /// Instead of those that it has.
        roles: Vec<ActorName>,
        /// Refused if there is one of this name.
        must_be_new: bool,
    },
    /// Removes a principal with its tokens and sessions.
    RemovePrincipal(ActorName),
    /// Makes a role, or gives one other grants.
    PutRole {
        /// Its name.
        name: ActorName,
        /// Instead of those that it has.
        grants: Vec<Grant>,
    },
    /// Removes a role that nobody has.
    RemoveRole(ActorName),
    /// Makes a token.
    CreateToken {
        /// Whom it stands for.
        principal: ActorName,
        /// Of its secret.
        hash: SecretHash,
        /// When it ends.
        end: TokenEnd,
        /// For people.
        note: String,
    },
    /// Ends a token.
    RevokeToken(TokenId),
    /// Makes a token by which one node gets into the cluster.
    CreateJoinToken {
        /// Of its secret.
        hash: SecretHash,
        /// How long it lives from the entry on.
        ttl_ms: u64,
        /// For people.
        note: String,
    },
    /// Uses one for a newcomer; the same newcomer may use it again.
    ConsumeJoinToken {
        /// Of its secret.
        hash: SecretHash,
        /// For whom.
        newcomer: Newcomer,
        /// As which node it was taken in, once it was.
        node: Option<NodeId>,
    },
    /// Ends one.
    RevokeJoinToken(TokenId),
}

/// When a token ends, by the log's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEnd {
    /// When it is revoked.
    Never,
    /// In milliseconds since the Unix epoch.
    At(u64),
    /// So many milliseconds after the entry that makes it.
    After(u64),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefused {
    /// There is no such principal.
    #[error("there is no principal {0}")]
    NoPrincipal(ActorName),
    /// There is no such role.
    #[error("there is no role {0}")]
    NoRole(ActorName),
    /// There is no such token.
    #[error("there is no token {}: it was revoked, or has expired", .0.0)]
    NoToken(TokenId),
    /// No join token has this secret.
    #[error(
        "this cluster does not know the join token: it was revoked, has expired long ago, or is of another cluster. \
         `raft-host token join` makes one"
    )]
    UnknownJoinToken,
    /// Its time is over.
    #[error("join token {} has expired: `raft-host token join` makes another one", .0.0)]
    JoinTokenExpired(TokenId),
    /// It lets in one node.
    #[error(
        "join token {} was used for another node, and lets in only one: `raft-host token join` makes another one",
        .0.0
    )]
    JoinTokenUsed(TokenId),
    /// Somebody has it.
    #[error("there is a principal {0} already")]
    NameTaken(ActorName),
    /// It is one of those that are there by themselves.
    #[error("role {0} is built in and cannot be changed: choose another name")]
    BuiltIn(ActorName),
    /// Somebody has the role.
    #[error("role {role} cannot be removed: {principal} has it")]
    RoleInUse {
        /// The role.
        role: ActorName,
        /// One of those who have it.
        principal: Box<ActorName>,
    },
    /// Nobody could change anything any more.
    #[error(
        "no principal has the role admin, so nobody could change rights again: give somebody that role first"
    )]
    NoAdmin,
    /// Nobody could change anything any more but at a socket.
    #[error(
        "the last principal with the role admin would lose it, and nobody could change rights again: give \
         somebody else that role first, or do this at the Unix socket of a node"
    )]
    LastAdmin,
    /// There would be too many of something.
    #[error("there would be more than the {max} {what} that there may be")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// It cannot be, whatever there is.
    #[error("this change of rights cannot be: {0}")]
    Invalid(String),
}

/// What changes made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::machine) struct AccessMade {
    /// The principal that was made.
    pub(in crate::machine) principal: Option<PrincipalId>,
    /// The token that was made, and when it ends (0: never).
    pub(in crate::machine) token: Option<(TokenId, u64)>,
    /// Principals that are gone.
    pub(in crate::machine) gone: Vec<PrincipalId>,
}

impl Access {
    /// Of a cluster that is formed with rights in force, by the entry that its log begins after.
    pub(in crate::machine) fn founded(index: Index, admin: ActorName) -> Access {
        let role = ADMIN.parse().expect("the name of a role");
        let changes = [
            AccessChange::PutPrincipal { name: admin, roles: vec![role], must_be_new: true },
            AccessChange::InForce(true),
        ];
        let made = Access::default().changed(index, 0, Actor::Nobody, &changes);
        made.expect("the first principal may do everything").0
    }

    /// This after changes that somebody makes by the entry at `index`.
    ///
    /// # Errors
    /// See [`AccessRefused`].
    pub(in crate::machine) fn changed(
        &self,
        index: Index,
        now_ms: u64,
        actor: Actor,
        changes: &[AccessChange],
    ) -> Result<(Access, AccessMade), AccessRefused> {
        if changes.is_empty() || changes.len() > CHANGES_MAX {
            let words = format!("it has {} parts, and may have 1 to {CHANGES_MAX}", changes.len());
            return Err(AccessRefused::Invalid(words));
        }
        let mut access = self.clone();
        access.prune(now_ms);
        let mut made = AccessMade::default();
        for change in changes {
            access.take(index, now_ms, change, &mut made)?;
        }
        let is_local = matches!(actor, Actor::Local(_));
        if access.in_force && !access.has_admin() {
            if !self.in_force {
                return Err(AccessRefused::NoAdmin);
            }
            if self.has_admin() && !is_local {
                return Err(AccessRefused::LastAdmin);
            }
        }
        access.revision = index;
        if to_record(&access).is_some_and(|record| record.encoded_len() > RECORD_MAX_BYTES) {
            let what = "bytes of principals, tokens and roles together";
            return Err(AccessRefused::TooMany { what, max: RECORD_MAX_BYTES });
        }
        Ok((access, made))
    }

    fn take(
        &mut self,
        index: Index,
        now_ms: u64,
        change: &AccessChange,
        made: &mut AccessMade,
    ) -> Result<(), AccessRefused> {
        match change {
            AccessChange::InForce(in_force) => self.in_force = *in_force,
            AccessChange::PutPrincipal { name, roles, must_be_new } => {
                self.put_principal(index, *name, roles, *must_be_new, made)?;
            }
            AccessChange::RemovePrincipal(name) => {
                let id = self.by_name.remove(name).ok_or(AccessRefused::NoPrincipal(*name))?;
                self.principals.remove(&id);
                self.retain_tokens(|token| token.principal != id);
                made.gone.push(id);
            }
            AccessChange::PutRole { name, grants } => self.put_role(*name, grants)?,
            AccessChange::RemoveRole(name) => self.remove_role(name)?,
            AccessChange::CreateToken { principal, hash, end, note } => {
                let principal = self
                    .principal_named(principal)
                    .ok_or(AccessRefused::NoPrincipal(*principal))?;
                let expires_ms = match end {
                    TokenEnd::Never => 0,
                    TokenEnd::At(ms) => *ms,
                    TokenEnd::After(ms) => now_ms.saturating_add(*ms),
                };
                let note = note.clone();
                let token = Token { principal, hash: *hash, expires_ms, note };
                self.create_token(TokenId(index.0), token, now_ms, made)?;
            }
            AccessChange::RevokeToken(id) => {
                let token = self.tokens.remove(id).ok_or(AccessRefused::NoToken(*id))?;
                self.by_hash.remove(&token.hash);
            }
            AccessChange::CreateJoinToken { hash, ttl_ms, note } => {
                let expires_ms = now_ms.saturating_add(*ttl_ms);
                let token = JoinToken {
                    hash: *hash,
                    expires_ms,
                    note: note.clone(),
                    newcomer: None,
                    node: None,
                };
                self.create_join_token(TokenId(index.0), token, now_ms, made)?;
            }
            AccessChange::ConsumeJoinToken { hash, newcomer, node } => {
                self.consume_join_token(hash, *newcomer, *node, now_ms)?;
            }
            AccessChange::RevokeJoinToken(id) => {
                self.join_tokens.remove(id).ok_or(AccessRefused::NoToken(*id))?;
            }
        }
        Ok(())
    }

    fn put_principal(
        &mut self,
        index: Index,
        name: ActorName,
        roles: &[ActorName],
        must_be_new: bool,
        made: &mut AccessMade,
    ) -> Result<(), AccessRefused> {
        let roles: BTreeSet<ActorName> = roles.iter().copied().collect();
        if roles.len() > ROLES_OF_ONE_MAX {
            return Err(AccessRefused::TooMany {
                what: "roles of one principal",
                max: ROLES_OF_ONE_MAX,
            });
        }
        let is_there =
            |role: &ActorName| built_in(role.as_str()).is_some() || self.roles.contains_key(role);
        if let Some(missing) = roles.iter().find(|role| !is_there(role)) {
            return Err(AccessRefused::NoRole(*missing));
        }
        let id = match self.principal_named(&name) {
            Some(_) if must_be_new => return Err(AccessRefused::NameTaken(name)),
            Some(id) => id,
            None if made.principal.is_some() => {
                let words = "one entry makes at most one principal: make them one by one";
                return Err(AccessRefused::Invalid(words.to_owned()));
            }
            None => {
                let id = PrincipalId(index.0);
                made.principal = Some(id);
                id
            }
        };
        self.principals.insert(id, Principal { name, roles });
        self.by_name.insert(name, id);
        if self.principals.len() > PRINCIPALS_MAX {
            return Err(AccessRefused::TooMany { what: "principals", max: PRINCIPALS_MAX });
        }
        Ok(())
    }

    fn put_role(&mut self, name: ActorName, grants: &[Grant]) -> Result<(), AccessRefused> {
        if built_in(name.as_str()).is_some() {
            return Err(AccessRefused::BuiltIn(name));
        }
        if grants.is_empty() {
            let words = format!("role {name} would allow nothing: name at least one grant");
            return Err(AccessRefused::Invalid(words));
        }
        let distinct: BTreeSet<Grant> = grants.iter().copied().collect();
        if distinct.len() > GRANTS_MAX {
            return Err(AccessRefused::TooMany { what: "grants of one role", max: GRANTS_MAX });
        }
        for grant in &distinct {
            check_grant(grant)?;
        }
        self.roles.insert(name, distinct.into_iter().collect());
        if self.roles.len() > ROLES_MAX {
            return Err(AccessRefused::TooMany { what: "roles", max: ROLES_MAX });
        }
        Ok(())
    }

    fn remove_role(&mut self, name: &ActorName) -> Result<(), AccessRefused> {
        if built_in(name.as_str()).is_some() {
            return Err(AccessRefused::BuiltIn(*name));
        }
        if !self.roles.contains_key(name) {
            return Err(AccessRefused::NoRole(*name));
        }
        let user = self.principals.values().find(|principal| principal.roles.contains(name));
        if let Some(principal) = user {
            return Err(AccessRefused::RoleInUse {
                role: *name,
                principal: Box::new(principal.name),
            });
        }
        self.roles.remove(name);
        Ok(())
    }

    fn create_token(
        &mut self,
        id: TokenId,
        token: Token,
        now_ms: u64,
        made: &mut AccessMade,
    ) -> Result<(), AccessRefused> {
        check_note(&token.note)?;
        if token.is_expired(now_ms) {
            let words = "the token would have expired when it is made";
            return Err(AccessRefused::Invalid(words.to_owned()));
        }
        if made.token.is_some() {
            let words = "one entry makes at most one token: make them one by one";
            return Err(AccessRefused::Invalid(words.to_owned()));
        }
        if self.by_hash.contains_key(&token.hash) {
            let words = "another token has the same secret";
            return Err(AccessRefused::Invalid(words.to_owned()));
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(AccessRefused::TooMany { what: "tokens", max: TOKENS_MAX });
        }
        made.token = Some((id, token.expires_ms));
        self.by_hash.insert(token.hash, id);
        self.tokens.insert(id, token);
        Ok(())
    }

    /// Forgets tokens that have expired.
    fn prune(&mut self, now_ms: u64) {
        self.retain_tokens(|token| !token.is_expired(now_ms));
    }

    fn retain_tokens(&mut self, is_kept: impl Fn(&Token) -> bool) {
        self.tokens.retain(|_, token| is_kept(token));
        let tokens = &self.tokens;
        self.by_hash.retain(|_, id| tokens.contains_key(id));
    }
}

/// Whether people may read it.
pub(super) fn check_note(note: &str) -> Result<(), AccessRefused> {
    if note.len() > NOTE_MAX_BYTES || note.contains(char::is_control) {
        let words = format!(
            "the note of a token has at most {NOTE_MAX_BYTES} bytes and no control characters"
        );
        return Err(AccessRefused::Invalid(words));
    }
    Ok(())
}

/// Whether a grant can mean anything.
pub(super) fn check_grant(grant: &Grant) -> Result<(), AccessRefused> {
    let Some(class) = grant.class else { return Ok(()) };
    if grant.right != Right::Apply {
        let words = format!("only apply is granted by classes of commands, {} is not", grant.right);
        return Err(AccessRefused::Invalid(words));
    }
    if class_name(class.as_str().as_bytes()).is_none() {
        let words = format!("{class} is no class of commands: letters, digits and . _ - make one");
        return Err(AccessRefused::Invalid(words));
    }
    Ok(())
}
