//! Tokens by which nodes without a certificate get into the cluster: each of them once.

use std::collections::BTreeMap;

use super::change::{AccessMade, check_note};
use super::{Access, AccessRefused, SecretHash};
use crate::types::{NodeId, TokenId};

/// Most join tokens.
pub(super) const JOIN_TOKENS_MAX: usize = 64;
/// How long a join token lives at most, in milliseconds.
pub const JOIN_TOKEN_TTL_MAX_MS: u64 = 30 * 86_400_000;

/// What a node is known by before it has a certificate: the SHA-256 of its nonce and its public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer(pub [u8; 32]);

/// Something that lets one node in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Of its secret, which nobody keeps.
    pub hash: SecretHash,
    /// When it ends by the log's clock, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// For people.
    pub note: String,
    /// Who has used it.
    pub newcomer: Option<Newcomer>,
    /// As which node that was taken in.
    pub node: Option<NodeId>,
}

impl JoinToken {
    /// Whether it has ended.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms <= now_ms
    }
}

impl Access {
    /// Tokens by which nodes get in; some may have expired.
    pub fn join_tokens(&self) -> &BTreeMap<TokenId, JoinToken> {
        &self.join_tokens
    }

    /// The token by which a newcomer may come in, at this time of the log's clock. It may have used it already.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check_join_token(
        &self,
        hash: &SecretHash,
        newcomer: Newcomer,
        now_ms: u64,
    ) -> Result<(TokenId, &JoinToken), AccessRefused> {
        let (id, token) = self.find_join_token(hash, now_ms)?;
        match token.newcomer {
            Some(other) if other != newcomer => Err(AccessRefused::JoinTokenUsed(id)),
            _ => Ok((id, token)),
        }
    }

    /// The join token that has this secret, if it counts at this time of the log's clock; it may have been used.
    ///
    /// # Errors
    /// There is none, or it has expired.
    pub fn find_join_token(
        &self,
        hash: &SecretHash,
        now_ms: u64,
    ) -> Result<(TokenId, &JoinToken), AccessRefused> {
        let found = self.join_tokens.iter().find(|(_, token)| token.hash == *hash);
        let (id, token) = found.ok_or(AccessRefused::UnknownJoinToken)?;
        match token.is_expired(now_ms) {
            true => Err(AccessRefused::JoinTokenExpired(*id)),
            false => Ok((*id, token)),
        }
    }

    pub(super) fn create_join_token(
        &mut self,
        id: TokenId,
        token: JoinToken,
        now_ms: u64,
        made: &mut AccessMade,
    ) -> Result<(), AccessRefused> {
        check_note(&token.note)?;
        let lifetime = token.expires_ms.saturating_sub(now_ms);
        if !(1..=JOIN_TOKEN_TTL_MAX_MS).contains(&lifetime) {
            let words = "a join token lives for 1 ms to 30 days";
            return Err(AccessRefused::Invalid(words.to_owned()));
        }
        if made.token.is_some() {
            let words = "one entry makes at most one token: make them one by one";
            return Err(AccessRefused::Invalid(words.to_owned()));
        }
        self.join_tokens.retain(|_, token| !token.is_expired(now_ms));
        if self.join_tokens.values().any(|known| known.hash == token.hash) {
            let words = "another join token has the same secret";
            return Err(AccessRefused::Invalid(words.to_owned()));
        }
        if self.join_tokens.len() >= JOIN_TOKENS_MAX {
            return Err(AccessRefused::TooMany { what: "join tokens", max: JOIN_TOKENS_MAX });
        }
        made.token = Some((id, token.expires_ms));
        self.join_tokens.insert(id, token);
        Ok(())
    }

    pub(super) fn consume_join_token(
        &mut self,
        hash: &SecretHash,
        newcomer: Newcomer,
        node: Option<NodeId>,
        now_ms: u64,
    ) -> Result<(), AccessRefused> {
        let (id, token) = self.check_join_token(hash, newcomer, now_ms)?;
        if token.node.is_some() && node.is_some() && token.node != node {
            return Err(AccessRefused::JoinTokenUsed(id));
        }
        if let Some(token) = self.join_tokens.get_mut(&id) {
            token.newcomer = Some(newcomer);
            token.node = token.node.or(node);
        }
        Ok(())
    }
}
