//! `CreateJoinToken` and `RevokeJoinToken`: what lets a node in that has no certificate.

use raft_host_proto::v1::{self, Reason};

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::forward::Forwarder;
use super::token::JoinTicket;
use crate::machine::{Access, AccessChange};
use crate::types::TokenId;

/// All of them, for `Access`.
pub(super) fn list(access: &Access, now_ms: u64) -> Vec<v1::JoinTokenInfo> {
    let tokens = access.join_tokens().iter().map(|(id, token)| v1::JoinTokenInfo {
        id: id.0,
        expires_ms: token.expires_ms,
        note: token.note.clone(),
        expired: token.is_expired(now_ms),
        used: token.newcomer.is_some(),
        node_id: token.node.map_or(0, |node| node.0),
    });
    tokens.collect()
}

/// Makes one, here or at the leader.
pub(super) async fn create(
    context: &Context,
    caller: &Caller,
    request: v1::CreateJoinTokenRequest,
) -> Result<v1::CreateJoinTokenResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        let ca = context.info.tls.as_ref().and_then(|tls| tls.issuer()).ok_or_else(|| {
            let words = "a join token is for clusters whose nodes have certificates, and this node has none by a CA \
                         that it trusts: without TLS nodes join with --join alone";
            Failure::none(Reason::NoSigningCa, words)
        })?;
        // Another one for each attempt: nobody knows what became of the one before.
        let ticket = JoinTicket::draw(ca);
        let ticket = ticket.map_err(|words| Failure::none(Reason::Internal, words))?;
        let create = AccessChange::CreateJoinToken {
            hash: ticket.hash(),
            ttl_ms: request.ttl_ms,
            note: request.note.clone(),
        };
        let set = context.handle.acting_for(caller.actor).set_access(vec![create]).await?;
        Ok(v1::CreateJoinTokenResponse {
            index: set.index.0,
            token: ticket.text(),
            expires_ms: set.token.map_or(0, |(_, expires_ms)| expires_ms),
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.create_join_token(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

/// Ends one, here or at the leader.
pub(super) async fn revoke(
    context: &Context,
    caller: &Caller,
    request: v1::RevokeJoinTokenRequest,
) -> Result<v1::RevokeJoinTokenResponse, Failure> {
    context.check_group(&request.group)?;
    let request = &request;
    let here = || async {
        let revoke = AccessChange::RevokeJoinToken(TokenId(request.id));
        let set = context.handle.acting_for(caller.actor).set_access(vec![revoke]).await?;
        Ok(v1::RevokeJoinTokenResponse { index: set.index.0 })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.revoke_join_token(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}
