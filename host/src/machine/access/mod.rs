//! Who may do what, as replicated state.
//!
//! ```text
//!   token ──(hash of its secret)──► principal ──► roles ──► grants: right, group, class of commands
//! ```
//!
//! It is asked where an entry is applied, at the entry's index: so that a right that was taken away
//! before is refused on every replica alike, whoever proposed the entry and whatever that node knew. While
//! rights are not in force, nothing is refused.
//!
//! Changes are rare and questions are many: a change copies all of it, and whoever asks shares it.

mod change;
mod join;
mod record;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use raft_host_proto::stored;
use raft_host_proto::stored::access_change::Change;
use sha2::{Digest as _, Sha256};

pub use self::change::{AccessChange, AccessRefused, NOTE_MAX_BYTES, TokenEnd};
use self::change::{GRANTS_MAX, PRINCIPALS_MAX, ROLES_MAX, ROLES_OF_ONE_MAX, TOKENS_MAX};
pub use self::join::{JOIN_TOKEN_TTL_MAX_MS, JoinToken, Newcomer};
pub(super) use self::record::{Unreadable, changes_from_log, from_record, to_record};
pub(crate) use self::record::{actor_from_log, actor_to_log, change_to_log};
use crate::types::{Actor, ActorName, GroupId, Index, PrincipalId, Right, TokenId};

/// The SHA-256 of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Of this secret.
    pub fn of(secret: &[u8; 32]) -> SecretHash {
        SecretHash(Sha256::digest(secret).into())
    }
}

/// Nothing that is made of a secret is shown.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// One thing that a role allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// In this group; `None`: in all.
    pub group: Option<GroupId>,
    /// What may be done.
    pub right: Right,
    /// Of [`Right::Apply`]: only commands of this class. `None`: all.
    pub class: Option<ActorName>,
}

impl Grant {
    /// In all groups, for all commands.
    pub const fn of(right: Right) -> Grant {
        Grant { group: None, right, class: None }
    }

    fn is_for(&self, group: GroupId, right: Right) -> bool {
        self.right == right && self.group.is_none_or(|only| only == group)
    }
}

/// Somebody by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its name: no two have the same.
    pub name: ActorName,
    /// What it may do is what these allow together.
    pub roles: BTreeSet<ActorName>,
}

/// Something that a principal proves itself by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whom it stands for.
    pub principal: PrincipalId,
    /// Of its secret, which nobody keeps.
    pub hash: SecretHash,
    /// When it ends by the log's clock, in milliseconds since the Unix epoch; 0: never.
    pub expires_ms: u64,
    /// For people.
    pub note: String,
}

impl Token {
    /// Whether it has ended.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

/// Which commands are meant, of [`Right::Apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class<'a> {
    /// Some: it is enough that there are any that are allowed. What opens sessions and keeps them.
    Any,
    /// Those of the class that the guest has named; or a command that it names no class for.
    Named(Option<&'a str>),
}

/// Why somebody may not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nothing was said of who it is, or nothing that was true.
    #[error(
        "rights are in force, and this cluster does not know who asks: give a token or a certificate"
    )]
    Nobody,
    /// It was removed.
    #[error("principal {} was removed", .0.0)]
    PrincipalGone(PrincipalId),
    /// It was revoked, or is somebody else's.
    #[error("token {} was revoked, or has expired long ago", .0.0)]
    TokenGone(TokenId),
    /// Its time is over.
    #[error("token {} has expired", .0.0)]
    TokenExpired(TokenId),
    /// None of its roles allows it.
    #[error("{name} may not do this: none of its roles allows {right}{}", class_words(.class.as_ref()))]
    NoRight {
        /// Who.
        name: Box<ActorName>,
        /// What.
        right: Right,
        /// Of a command, where its class matters: the one that the guest has named, if any.
        class: Option<Option<ActorName>>,
    },
    /// Another principal has opened it.
    #[error("session {session_id} is not {name}'s")]
    OthersSession {
        /// Who.
        name: ActorName,
        /// The session.
        session_id: u64,
    },
}

fn class_words(class: Option<&Option<ActorName>>) -> String {
    match class {
        None => String::new(),
        Some(Some(class)) => format!(" for commands of class {class}"),
        Some(None) => " for commands that the module names no class for".to_owned(),
    }
}

/// A role that every cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// What it allows, in all groups.
    pub rights: &'static [Right],
}

/// May do everything.
pub const ADMIN: &str = "admin";

/// They cannot be changed.
pub const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn {
        name: ADMIN,
        rights: &[
            Right::Apply,
            Right::Query,
            Right::Status,
            Right::Metrics,
            Right::Members,
            Right::Upgrade,
            Right::Limits,
            Right::Snapshot,
            Right::Backup,
            Right::Drain,
            Right::Rights,
            Right::Keys,
        ],
    },
    BuiltIn {
        name: "operator",
        rights: &[Right::Status, Right::Metrics, Right::Snapshot, Right::Backup, Right::Drain],
    },
    BuiltIn { name: "writer", rights: &[Right::Apply, Right::Query] },
    BuiltIn { name: "reader", rights: &[Right::Query] },
    BuiltIn { name: "metrics", rights: &[Right::Metrics] },
];

fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.name == name)
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    in_force: bool,
    /// Index of the last entry that changed any of it; 0: none did.
    revision: Index,
    principals: BTreeMap<PrincipalId, Principal>,
    by_name: BTreeMap<ActorName, PrincipalId>,
    tokens: BTreeMap<TokenId, Token>,
    by_hash: BTreeMap<SecretHash, TokenId>,
    /// But for those that are built in.
    roles: BTreeMap<ActorName, Vec<Grant>>,
    join_tokens: BTreeMap<TokenId, JoinToken>,
}

impl Access {
    /// Whether anything is refused.
    pub fn is_in_force(&self) -> bool {
        self.in_force
    }

    /// Index of the last entry that changed anything of this; 0: none did. Who has looked at one
    /// revision need not look at it again.
    pub fn revision(&self) -> Index {
        self.revision
    }

    /// All of them.
    pub fn principals(&self) -> &BTreeMap<PrincipalId, Principal> {
        &self.principals
    }

    /// All of them; some may have expired.
    pub fn tokens(&self) -> &BTreeMap<TokenId, Token> {
        &self.tokens
    }

    /// All but those that are built in.
    pub fn roles(&self) -> &BTreeMap<ActorName, Vec<Grant>> {
        &self.roles
    }

    /// Who has this name.
    pub fn principal_named(&self, name: &ActorName) -> Option<PrincipalId> {
        self.by_name.get(name).copied()
    }

    /// Who proves itself by a token, if that counts at this time of the log's clock.
    pub fn authenticate_token(&self, hash: &SecretHash, now_ms: u64) -> Option<Actor> {
        let id = *self.by_hash.get(hash)?;
        let token = self.tokens.get(&id).filter(|token| !token.is_expired(now_ms))?;
        Some(Actor::Principal { id: token.principal, token: Some(id) })
    }

    /// What somebody is called; none: nobody, somebody at the socket of a node, or one who is gone.
    pub fn name_of(&self, actor: Actor) -> ActorName {
        match actor {
            Actor::Nobody | Actor::Local(_) => ActorName::NONE,
            Actor::Principal { id, .. } => {
                self.principals.get(&id).map_or(ActorName::NONE, |principal| principal.name)
            }
        }
    }

    /// Whether somebody may do something in a group, at this time of the log's clock.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn allows(
        &self,
        actor: Actor,
        now_ms: u64,
        group: GroupId,
        right: Right,
        class: Class<'_>,
    ) -> Result<(), Denied> {
        if !self.in_force {
            return Ok(());
        }
        let Some(principal) = self.known(actor, now_ms)? else { return Ok(()) };
        let is_enough = |grant: Grant| {
            grant.is_for(group, right)
                && match (grant.class, class) {
                    (None, _) | (Some(_), Class::Any) => true,
                    (Some(only), Class::Named(named)) => named == Some(only.as_str()),
                }
        };
        if self.grants_of(principal).any(is_enough) {
            return Ok(());
        }
        let is_by_class = self.grants_of(principal).any(|grant| grant.is_for(group, right));
        let class = match class {
            Class::Named(named) if is_by_class => {
                Some(named.and_then(|name| name.parse::<ActorName>().ok()))
            }
            Class::Named(_) | Class::Any => None,
        };
        Err(Denied::NoRight { name: Box::new(principal.name), right, class })
    }

    /// Whether it depends on the class of a command if somebody may give it.
    pub fn depends_on_class(&self, actor: Actor, group: GroupId) -> bool {
        let Actor::Principal { id, .. } = actor else { return false };
        let Some(principal) = self.principals.get(&id).filter(|_| self.in_force) else {
            return false;
        };
        let mut of_apply =
            self.grants_of(principal).filter(|grant| grant.is_for(group, Right::Apply)).peekable();
        of_apply.peek().is_some() && of_apply.all(|grant| grant.class.is_some())
    }

    /// The principal that acts; `None`: somebody who may do everything.
    fn known(&self, actor: Actor, now_ms: u64) -> Result<Option<&Principal>, Denied> {
        let (id, token) = match actor {
            Actor::Nobody => return Err(Denied::Nobody),
            Actor::Local(_) => return Ok(None),
            Actor::Principal { id, token } => (id, token),
        };
        let principal = self.principals.get(&id).ok_or(Denied::PrincipalGone(id))?;
        if let Some(token_id) = token {
            let token = self.tokens.get(&token_id).filter(|token| token.principal == id);
            let token = token.ok_or(Denied::TokenGone(token_id))?;
            if token.is_expired(now_ms) {
                return Err(Denied::TokenExpired(token_id));
            }
        }
        Ok(Some(principal))
    }

    fn grants_of<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = Grant> + 'a {
        principal.roles.iter().flat_map(|role| {
            let fixed = built_in(role.as_str()).map_or(&[][..], |role| role.rights);
            let own = self.roles.get(role).map_or(&[][..], |grants| &grants[..]);
            fixed.iter().copied().map(Grant::of).chain(own.iter().copied())
        })
    }

    /// Whether somebody has the role that may do everything.
    fn has_admin(&self) -> bool {
        self.principals
            .values()
            .any(|principal| principal.roles.iter().any(|role| role.as_str() == ADMIN))
    }
}

/// The right that an entry needs; `None`: it is one of commands, each of which needs
/// [`Right::Apply`] on its own.
pub(super) fn right_for(body: &stored::entry::Body) -> Option<Right> {
    use stored::entry::Body;
    Some(match body {
        Body::Batch(_) => return None,
        Body::OpenSession(_) | Body::KeepSession(_) | Body::CloseSession(_) => Right::Apply,
        Body::ModuleChunk(_)
        | Body::ActivateModule(_)
        | Body::ForkState(_)
        | Body::RecordReceipt(_)
        | Body::SettleUpgrade(_) => Right::Upgrade,
        Body::SetLimits(_) | Body::SetEngine(_) | Body::SetClock(_) => Right::Limits,
        Body::SetLevel(_) => Right::Members,
        Body::SetAccess(set) if is_all(set, is_of_join_tokens) => Right::Members,
        Body::SetAccess(_) => Right::Rights,
        Body::SetKeys(_) => Right::Keys,
        Body::DigestPoint(_) | Body::DigestVerdict(_) => Right::Snapshot,
    })
}

/// What a cluster puts into its log of its own accord, in nobody's name.
pub(super) fn is_own(body: &stored::entry::Body) -> bool {
    use stored::entry::Body;
    match body {
        Body::SetLevel(_) | Body::DigestPoint(_) | Body::DigestVerdict(_) => true,
        // Whoever has the secret of a join token may use it, and the cluster does that for it.
        Body::SetAccess(set) => is_all(set, |change| matches!(change, Change::ConsumeJoinToken(_))),
        _ => false,
    }
}

fn is_all(set: &stored::SetAccess, is_so: impl Fn(&Change) -> bool) -> bool {
    let mut changes = set.changes.iter();
    !set.changes.is_empty() && changes.all(|change| change.change.as_ref().is_some_and(&is_so))
}

/// Whether it is about who gets in as a member, and not about who may do what.
fn is_of_join_tokens(change: &Change) -> bool {
    matches!(
        change,
        Change::CreateJoinToken(_) | Change::ConsumeJoinToken(_) | Change::RevokeJoinToken(_)
    )
}
