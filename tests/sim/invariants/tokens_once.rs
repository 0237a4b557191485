//! A join token lets one newcomer in, whoever leads: who is taken in with it has used it up before, in its time; and
//! nobody is refused one that counts.
//!
//! What counts is worked out here from the entries that make tokens, use them and end them.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use raft_host::machine::{Reply, SecretHash};
use raft_host::types::{EntryKind, Index, JoinNonce, LogEntry, LogPosition, NodeId};
use raft_host_proto::stored;
use raft_host_proto::stored::access_change::Change;
use raft_host_proto::stored::entry::Body;

use super::Invariant;
use crate::sim::observe::{AppliedEntry, Fact, Micros};

/// By the hash of its secret.
type Key = Vec<u8>;

/// One token.
#[derive(Clone, Debug)]
struct Token {
    made_at: Index,
    expires_ms: u64,
    newcomer: Option<Vec<u8>>,
    node: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct TokensOnce {
    /// Up to here it is known which tokens there are.
    known: Index,
    tokens: BTreeMap<Key, Token>,
    /// Which token somebody has shown.
    shown: BTreeMap<JoinNonce, Key>,
    /// Who is taken in by an entry, if it comes to that.
    logged: BTreeMap<LogPosition, JoinNonce>,
    /// Who was.
    came: BTreeMap<Key, BTreeSet<JoinNonce>>,
}

impl TokensOnce {
    fn logged(&mut self, entry: &LogEntry) {
        if entry.kind != EntryKind::ConfChange {
            return;
        }
        let Ok(change) = stored::MembershipChange::decode(entry.context.clone()) else { return };
        let nonces = change.steps.iter().map(|step| <[u8; 16]>::try_from(&step.join_nonce[..]));
        if let Some(nonce) = nonces.flatten().next() {
            let position = LogPosition { index: entry.index, term: entry.term };
            self.logged.insert(position, JoinNonce(nonce));
        }
    }

    fn taken_in(&mut self, position: LogPosition) -> Result<(), String> {
        let Some(nonce) = self.logged.get(&position) else { return Ok(()) };
        let Some(key) = self.shown.get(nonce) else { return Ok(()) };
        let came = self.came.entry(key.clone()).or_default();
        came.insert(*nonce);
        match came.len() {
            1 => Ok(()),
            count => Err(format!(
                "{count} newcomers came in with one join token, the last of them by the entry at index {}",
                position.index
            )),
        }
    }

    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.position.index;
        if index <= self.known {
            return Ok(());
        }
        self.known = index;
        let decoded = stored::Entry::decode(entry.data.clone());
        let Ok(stored::Entry { body: Some(Body::SetAccess(set)), .. }) = decoded else {
            return Ok(());
        };
        let is_set = matches!(entry.reply, Reply::AccessSet { .. });
        for change in set.changes.iter().filter_map(|change| change.change.as_ref()) {
            match change {
                Change::ConsumeJoinToken(consume)
                    if is_set || matches!(entry.reply, Reply::AccessRefused(_)) =>
                {
                    self.used(entry, consume, is_set)?;
                }
                Change::CreateJoinToken(create) if is_set => {
                    let expires_ms = entry.time_ms.saturating_add(create.ttl_ms);
                    let token = Token { made_at: index, expires_ms, newcomer: None, node: 0 };
                    self.tokens.insert(create.hash.to_vec(), token);
                }
                Change::RevokeJoinToken(id) if is_set => {
                    self.tokens.retain(|_, token| token.made_at.0 != *id);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn used(
        &mut self,
        entry: &AppliedEntry,
        consume: &stored::ConsumeJoinToken,
        is_set: bool,
    ) -> Result<(), String> {
        let (slot, index) = (entry.slot, entry.position.index);
        let token = self.tokens.get_mut(&consume.hash[..]);
        let why = match &token {
            None => Some("there is none"),
            Some(token) if token.expires_ms <= entry.time_ms => Some("its time is over"),
            Some(token) if token.newcomer.as_ref().is_some_and(|it| *it != consume.newcomer) => {
                Some("another one has used it")
            }
            Some(token) if ![0, token.node].contains(&consume.node_id) && token.node != 0 => {
                Some("it has let in another node")
            }
            Some(_) => None,
        };
        match (is_set, why, token) {
            (true, None, Some(token)) => {
                token.newcomer = Some(consume.newcomer.to_vec());
                if consume.node_id != 0 {
                    token.node = consume.node_id;
                }
                Ok(())
            }
            (true, why, _) => Err(format!(
                "{slot} let a newcomer use a join token at index {index}, and {}",
                why.unwrap_or("there is none")
            )),
            (false, None, _) => Err(format!(
                "{slot} refused a newcomer a join token at index {index} that counts: {:?}",
                entry.reply
            )),
            (false, Some(_), _) => Ok(()),
        }
    }

    fn told(&self, hash: SecretHash, node: NodeId) -> Result<(), String> {
        let noted = self.tokens.get(&hash.0[..]).map(|token| token.node);
        match noted {
            // It was ended meanwhile.
            None => Ok(()),
            Some(noted) if noted == node.0 => Ok(()),
            Some(noted) => Err(format!(
                "a newcomer was told that it is node {node}, and its join token is noted to have let in node {noted}"
            )),
        }
    }
}

impl Invariant for TokensOnce {
    fn name(&self) -> &'static str {
        "tokens_once"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::TokenShown { hash, nonce } => {
                self.shown.insert(nonce, hash.0.to_vec());
            }
            Fact::TokenTold { hash, node } => return self.told(hash, node),
            Fact::Persisted { entries, .. } | Fact::WriteFailed { entries, .. } => {
                entries.iter().for_each(|entry| self.logged(entry));
            }
            Fact::Membership { position, .. } => return self.taken_in(position),
            Fact::Applied(entry) => return self.applied(entry),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_host::machine::AccessRefused;
    use raft_host::types::{ConfState, TokenId};

    use super::super::testing::{applied, entry, judge, persisted, pos, refused};
    use super::*;
    use crate::sim::observe::Slot;

    const HASH: SecretHash = SecretHash([5; 32]);

    fn set(index: u64, time_ms: u64, change: Change, is_set: bool) -> AppliedEntry {
        let changes = vec![stored::AccessChange { change: Some(change) }];
        let body = Some(Body::SetAccess(stored::SetAccess { changes }));
        let data = stored::Entry { body, ..Default::default() }.encode_to_vec();
        let reply = match is_set {
            true => Reply::AccessSet { principal: None, token: None },
            false => Reply::AccessRefused(AccessRefused::JoinTokenUsed(TokenId(1))),
        };
        AppliedEntry { data: data.into(), time_ms, ..applied(0, pos(index, 1), "", reply) }
    }

    fn made() -> AppliedEntry {
        let hash = Bytes::copy_from_slice(&HASH.0);
        let create = stored::CreateJoinToken { hash, ttl_ms: 50, ..Default::default() };
        set(1, 100, Change::CreateJoinToken(create), true)
    }

    fn used(index: u64, time_ms: u64, newcomer: u8, node_id: u64, is_set: bool) -> AppliedEntry {
        let consume = stored::ConsumeJoinToken {
            hash: Bytes::copy_from_slice(&HASH.0),
            newcomer: vec![newcomer; 32].into(),
            node_id,
        };
        set(index, time_ms, Change::ConsumeJoinToken(consume), is_set)
    }

    fn look(entries: &[AppliedEntry]) -> Vec<Fact<'_>> {
        entries.iter().map(Fact::Applied).collect()
    }

    #[test]
    fn one_newcomer_uses_a_token_again_and_another_does_not() {
        let well = [
            made(),
            used(2, 110, 1, 0, true),
            used(3, 120, 2, 0, false),
            used(4, 130, 1, 7, true),
            used(5, 140, 1, 7, true),
            used(6, 140, 1, 8, false),
            used(7, 150, 1, 7, false),
        ];
        let mut invariant = TokensOnce::default();
        assert_eq!(judge(&mut invariant, &look(&well)), Ok(()));
        let told = |node| Fact::TokenTold { hash: HASH, node: NodeId(node) };
        assert_eq!(judge(&mut invariant, &[told(7)]), Ok(()));
        refused(&mut invariant, &[told(8)], "to have let in node 7");
    }

    #[test]
    fn what_does_not_count_and_what_does_is_found_out() {
        let revoked = set(2, 110, Change::RevokeJoinToken(1), true);
        for (entries, words) in [
            (vec![made(), used(2, 110, 1, 0, true), used(3, 120, 2, 0, true)], "has used it"),
            (vec![made(), used(2, 150, 1, 0, true)], "its time is over"),
            (vec![used(2, 110, 1, 0, true)], "there is none"),
            (vec![made(), revoked, used(3, 110, 1, 0, true)], "there is none"),
            (vec![made(), used(2, 110, 1, 7, true), used(3, 110, 1, 8, true)], "another node"),
            (vec![made(), used(2, 110, 1, 0, false)], "that counts"),
        ] {
            refused(&mut TokensOnce::default(), &look(&entries), words);
        }
    }

    #[test]
    fn two_who_come_in_with_one_token_are_found() {
        let change = |index: u64, nonce: u8| {
            let step =
                stored::MembershipStep { join_nonce: vec![nonce; 16].into(), ..Default::default() };
            let change = stored::MembershipChange { steps: vec![step] };
            LogEntry {
                kind: EntryKind::ConfChange,
                context: change.encode_to_vec().into(),
                ..entry(index, 1, "")
            }
        };
        let entries = [change(2, 1), change(3, 2), change(4, 1)];
        let shown = |nonce| Fact::TokenShown { hash: HASH, nonce: JoinNonce([nonce; 16]) };
        let conf_state = ConfState::default();
        let in_at = |index| Fact::Membership {
            slot: Slot(0),
            position: pos(index, 1),
            conf_state: &conf_state,
        };
        let before = || vec![shown(1), shown(2), persisted(0, pos(1, 1), &entries)];
        let mut facts = before();
        facts.extend([in_at(2), in_at(4)]);
        assert_eq!(judge(&mut TokensOnce::default(), &facts), Ok(()), "the same one again");
        let mut facts = before();
        facts.extend([in_at(2), in_at(3)]);
        refused(&mut TokensOnce::default(), &facts, "2 newcomers came in");
    }
}
