//! Who acts, and what it may do.

use std::fmt;
use std::str::FromStr;

use super::NodeId;

/// Somebody that a cluster knows by name: index of the entry that made it, so that a name that is given away
/// anew is somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalId(pub u64);

/// A token: index of the entry that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

/// Who asks for something, as far as the cluster can know. It travels in the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// Nobody that is known: a stranger, or anybody while no rights are in force.
    #[default]
    Nobody,
    /// Somebody at the Unix socket of a node: may do everything.
    Local(NodeId),
    /// A principal, known by its certificate or by a token.
    Principal {
        /// Who it is.
        id: PrincipalId,
        /// By which token; `None`: by its certificate.
        token: Option<TokenId>,
    },
}

/// Something that a role may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Commands, and sessions for them. A grant may name classes of commands.
    Apply,
    /// Queries.
    Query,
    /// Status, members, modules, limits: to be read.
    Status,
    /// `/metrics` and what else is there for machines.
    Metrics,
    /// Who belongs to the cluster, who leads, at which level.
    Members,
    /// Modules: uploaded, activated, given up.
    Upgrade,
    /// Limits, the engine profile, the log's clock.
    Limits,
    /// Raft snapshots and digests.
    Snapshot,
    /// Backups and exports.
    Backup,
    /// A node taken off duty, and put back.
    Drain,
    /// Principals, tokens and roles.
    Rights,
    /// Keys of publishers.
    Keys,
}

/// How each is written.
const NAMES: [(Right, &str); 12] = [
    (Right::Apply, "apply"),
    (Right::Query, "query"),
    (Right::Status, "status"),
    (Right::Metrics, "metrics"),
    (Right::Members, "members"),
    (Right::Upgrade, "upgrade"),
    (Right::Limits, "limits"),
    (Right::Snapshot, "snapshot"),
    (Right::Backup, "backup"),
    (Right::Drain, "drain"),
    (Right::Rights, "rights"),
    (Right::Keys, "keys"),
];

impl Right {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Right> {
        NAMES.into_iter().map(|(right, _)| right)
    }

    /// As it is written in roles.
    pub fn as_str(self) -> &'static str {
        NAMES.into_iter().find(|(right, _)| *right == self).expect("each has a name").1
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no right: there are {all}", all = NAMES.map(|(_, name)| name).join(", "))]
pub struct NoRight(pub String);

impl FromStr for Right {
    type Err = NoRight;

    fn from_str(text: &str) -> Result<Right, NoRight> {
        let named = NAMES.into_iter().find(|(_, name)| *name == text);
        named.map(|(right, _)| right).ok_or_else(|| NoRight(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Nobody => f.write_str("nobody"),
            Actor::Local(node) => write!(f, "the socket of node {node}"),
            Actor::Principal { id, token: None } => write!(f, "principal {}", id.0),
            Actor::Principal { id, token: Some(token) } => {
                write!(f, "principal {} by token {}", id.0, token.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_is_read_as_it_is_written_and_nothing_else_is_one() {
        for right in Right::all() {
            assert_eq!(right.as_str().parse(), Ok(right));
        }
        let error = "aply".parse::<Right>().expect_err("no right");
        assert!(
            error.to_string().contains("\"aply\"") && error.to_string().contains("apply, query")
        );
    }
}
