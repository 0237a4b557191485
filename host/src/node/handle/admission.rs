//! Newcomers that bring a join token: it is used up, by an entry, before they are taken in.

use super::access::AccessFailure;
use super::core::NodeHandle;
use super::membership::MembershipFailure;
use crate::machine::{AccessChange, AccessRefused, JoinToken, Newcomer, SecretHash};
use crate::museum::{self, Exhibit};
use crate::types::{Actor, JoinNonce, NodeId};

/// Who wants to come in, and by what.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Of the token's secret.
    pub hash: SecretHash,
    /// What the newcomer is known by.
    pub newcomer: Newcomer,
    /// Where it is to be dialled.
    pub address: String,
    /// With which it asks to be taken in.
    pub nonce: JoinNonce,
}

/// Why a newcomer does not come in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionFailure {
    /// Its token does not count.
    #[error(transparent)]
    Refused(#[from] AccessRefused),
    /// It was taken in.
    #[error(
        "by this join token the newcomer was taken in as node {0}, which is no member any more or has another \
         address: start it with the address of then, or remove node {0}, empty the folder of --tls and make \
         another token"
    )]
    Gone(NodeId),
    /// This node has no state to look at.
    #[error(transparent)]
    NoState(MembershipFailure),
}

impl NodeHandle {
    /// The token by which a newcomer may come in, as of what this node has applied.
    ///
    /// # Errors
    /// See [`AdmissionFailure`].
    pub fn check_admission(&self, coming: &Admission) -> Result<JoinToken, AdmissionFailure> {
        let view = self.machine().borrow().clone();
        let view = view.ok_or(AdmissionFailure::NoState(MembershipFailure::NoState))?;
        let access = &view.info.access;
        let (_, token) =
            access.check_join_token(&coming.hash, coming.newcomer, self.log_time_ms())?;
        let by_nonce = view.joins.iter().find(|(_, known)| **known == coming.nonce);
        let known = token.node.or(by_nonce.map(|(node, _)| *node));
        let is_there = |node: NodeId| {
            view.members.get(&node).is_some_and(|member| member.address == coming.address)
        };
        match known.filter(|node| !is_there(*node)) {
            Some(node) => Err(AdmissionFailure::Gone(node)),
            None => Ok(token.clone()),
        }
    }

    /// Uses a token up that counts for a newcomer, which may be taken in then. Leader only.
    ///
    /// # Errors
    /// Another one was faster, or as for any proposal.
    pub async fn use_token_up(
        &self,
        coming: &Admission,
        token: &JoinToken,
    ) -> Result<(), AccessFailure> {
        match token.newcomer {
            None if !museum::is_on(Exhibit::TokenSpentLast) => self.consume(coming, None).await,
            _ => Ok(()),
        }
    }

    /// Notes with a token as which node its newcomer was taken in. Leader only.
    ///
    /// # Errors
    /// As for any proposal.
    pub async fn note_newcomer(
        &self,
        coming: &Admission,
        token: &JoinToken,
        id: NodeId,
    ) -> Result<(), AccessFailure> {
        match token.node {
            None => self.consume(coming, Some(id)).await,
            Some(_) => Ok(()),
        }
    }

    async fn consume(&self, coming: &Admission, node: Option<NodeId>) -> Result<(), AccessFailure> {
        let Admission { hash, newcomer, .. } = *coming;
        let change = AccessChange::ConsumeJoinToken { hash, newcomer, node };
        self.acting_for(Actor::Nobody).set_access(vec![change]).await.map(drop)
    }
}
