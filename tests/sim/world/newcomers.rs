//! Nodes that nobody has prepared the cluster for: each brings a join token, which may be good, spent, expired, revoked
//! or made up; two may bring the same one. They stay learners.

use std::collections::BTreeMap;

use raft_host::machine::{Newcomer, SecretHash};
use raft_host::node::Admission;
use raft_host::types::{JoinNonce, Level, NodeId, TokenId};

use super::operators::Goal;
use super::rights::Wish;
use super::{World, member};
use crate::sim::observe::{Fact, Slot};

/// What operators and newcomers know of join tokens.
#[derive(Default)]
pub(super) struct Newcomers {
    /// In the order in which somebody wanted them.
    tokens: Vec<SecretHash>,
    /// Those that are known to be there.
    ids: BTreeMap<SecretHash, TokenId>,
    /// Who was turned away. An attempt before that may still let it in.
    left: Vec<Left>,
}

struct Left {
    nonce: JoinNonce,
    address: String,
    offered: Level,
}

fn secret(number: u64) -> SecretHash {
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&number.to_le_bytes());
    SecretHash::of(&secret)
}

impl World {
    /// An operator makes a token.
    pub(super) fn make_join_token(&mut self, ttl_ms: u64, patience_us: Option<u64>) {
        let hash = secret(self.number());
        self.newcomers.tokens.push(hash);
        self.begin(Goal::SetAccess { wish: Wish::JoinToken { hash, ttl_ms } }, patience_us);
    }

    /// An operator ends one of those that were made.
    pub(super) fn end_join_token(&mut self, choice: u64, patience_us: Option<u64>) {
        let ids: Vec<TokenId> = self.newcomers.ids.values().copied().collect();
        if let Some(id) = ids.get(choice as usize % ids.len().max(1)) {
            self.begin(Goal::SetAccess { wish: Wish::JoinTokenRevoked(*id) }, patience_us);
        }
    }

    pub(super) fn has_join_token(&mut self, hash: SecretHash, id: TokenId) {
        self.newcomers.ids.insert(hash, id);
    }

    /// One comes, or two with the same token. Mostly it is a token that was made.
    pub(super) fn bring_token(&mut self, choice: u64, are_two: bool) {
        let tokens = &self.newcomers.tokens;
        let hash = match (choice % 16, tokens.len()) {
            (0, _) | (_, 0) => secret(u64::MAX - self.number()),
            (_, count) => tokens[(choice / 16) as usize % count],
        };
        for _ in 0..1 + u64::from(are_two) {
            self.begin_join_by(Some(hash), false, None);
        }
    }

    /// What it says at the door.
    pub(super) fn coming(
        &mut self,
        hash: SecretHash,
        address: &str,
        nonce: JoinNonce,
    ) -> Admission {
        let mut newcomer = [2; 32];
        newcomer[..16].copy_from_slice(&nonce.0);
        self.fact(&Fact::TokenShown { hash, nonce });
        Admission { hash, newcomer: Newcomer(newcomer), address: address.to_owned(), nonce }
    }

    /// It gives up.
    pub(super) fn turned_away(&mut self, address: String, nonce: JoinNonce, offered: Level) {
        self.counters.tokens_refused += 1;
        self.newcomers.left.push(Left { nonce, address, offered });
    }

    /// A host with an empty disk for who was taken in.
    pub(super) fn move_in(&mut self, node: NodeId, address: String, program: Level) -> Slot {
        let slot = self.add_host(node, address);
        self.introduce_to_members(slot, program);
        slot
    }

    pub(super) fn introduce_to_members(&mut self, slot: Slot, program: Level) {
        let others = self.hosts.iter().filter(|host| host.slot != slot);
        let members = others.filter(|host| self.conf_state.contains(host.node));
        self.hosts[slot.0].introduced = members.map(member).collect();
        self.hosts[slot.0].program = program;
    }

    /// Somebody who was turned away is a member all the same, by an attempt that nobody heard the end of: an operator
    /// sees it in the list, and starts it.
    pub(super) fn look_for_members(&mut self) {
        if self.newcomers.left.is_empty() {
            return;
        }
        let leader = self.leader().and_then(|slot| self.hosts[slot.0].node());
        let Some(view) = leader.and_then(|node| node.handle().machine().borrow().clone()) else {
            return;
        };
        for (node, nonce) in view.joins.iter() {
            let found = self.newcomers.left.iter().position(|left| left.nonce == *nonce);
            if let Some(at) = found.filter(|_| !self.by_node.contains_key(node)) {
                let Left { address, offered, .. } = self.newcomers.left.remove(at);
                let slot = self.move_in(*node, address, offered);
                self.counters.joins += 1;
                self.start(slot);
            }
        }
    }
}
