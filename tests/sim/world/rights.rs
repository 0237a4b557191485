//! Who may do what, in runs where that matters: clients act as principals, and operators give rights and
//! take them away among the faults.
//!
//! Nobody stands at the door here: what a principal asks for without the right gets into the log, and must
//! be refused where it is applied. Operators work at the sockets of nodes, where everything may be done.

use raft_host::machine::{AccessChange, SecretHash, TokenEnd};
use raft_host::node::{AccessFailure, AccessSet};
use raft_host::types::{Actor, ActorName, NodeId, TokenId};

use super::World;
use super::operators::Goal;
use crate::sim::calls::Owner;
use crate::sim::observe::{Micros, Slot};
use crate::sim::plan::Pick;

/// What an operator wants to be so.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// Somebody may do everything.
    Root,
    /// Somebody may do everything, or only ask, and acts as a principal.
    Deputy { rules: bool },
    /// A client's principal may give commands, or only ask.
    Role { client: usize, writes: bool },
    /// There is no principal for a client.
    Gone { client: usize },
    /// A client shows a token, which ends soon.
    Token { client: usize, ttl_ms: u64 },
    /// That token counts no more.
    Revoked { client: usize },
    /// Whether anything is refused.
    InForce(bool),
    /// A token lets a newcomer in, for a while.
    JoinToken { hash: SecretHash, ttl_ms: u64 },
    /// It does not any more.
    JoinTokenRevoked(TokenId),
}

/// Of the clients, the latest token of each, and when all of them were given the right to write.
#[derive(Default)]
pub(super) struct Tokens {
    latest: std::collections::BTreeMap<usize, TokenId>,
    given: Micros,
}

/// How long it takes until what the calm gives is given again.
const AGAIN_US: u64 = 5_000_000;

fn name(text: &str) -> ActorName {
    text.parse().expect("a name")
}

fn deputy() -> ActorName {
    name("deputy")
}

fn client_name(client: usize) -> ActorName {
    name(&format!("client-{client}"))
}

impl World {
    /// Everybody is there who acts later, and rights are in force.
    pub(super) fn grow_rights(&mut self) {
        if !self.plan.shape.rights {
            return;
        }
        self.begin(Goal::SetAccess { wish: Wish::Root }, None);
        self.let_all_write();
        self.begin(Goal::SetAccess { wish: Wish::InForce(true) }, None);
    }

    /// Every client may give commands again, and needs no token for it.
    pub(super) fn let_all_write(&mut self) {
        if !self.plan.shape.rights {
            return;
        }
        self.tokens = Tokens { given: self.now(), ..Tokens::default() };
        self.begin(Goal::SetAccess { wish: Wish::Deputy { rules: true } }, None);
        for client in 0..self.plan.shape.clients {
            self.begin(Goal::SetAccess { wish: Wish::Role { client, writes: true } }, None);
        }
    }

    /// Something that an operator began among the faults may have been done after that, and have taken it
    /// away again. So it is given until no client waits any more.
    pub(super) fn let_all_write_again(&mut self) {
        if self.operators_are_done() && self.now().0 >= self.tokens.given.0 + AGAIN_US {
            self.let_all_write();
        }
    }

    /// What a plan says about rights, for one of the clients.
    pub(super) fn change_rights(&mut self, client: Pick, choice: u64, patience_us: Option<u64>) {
        let client = (client.0 % self.plan.shape.clients as u64) as usize;
        let wish = match choice % 13 {
            0..=2 => Wish::Role { client, writes: false },
            3..=4 => Wish::Role { client, writes: true },
            5 => Wish::Gone { client },
            6 => Wish::Token { client, ttl_ms: 500 + choice / 10 % 20_000 },
            7 => Wish::Revoked { client },
            8 => Wish::InForce(false),
            10..=11 => Wish::Deputy { rules: false },
            12 => Wish::Deputy { rules: true },
            _ => Wish::InForce(true),
        };
        self.begin(Goal::SetAccess { wish }, patience_us);
    }

    /// What is to be asked for; `None`: it is so already, as far as anybody here knows.
    pub(super) fn changes_for(&mut self, wish: Wish) -> Option<Vec<AccessChange>> {
        let put = |who, role: &str| AccessChange::PutPrincipal {
            name: who,
            roles: vec![name(role)],
            must_be_new: false,
        };
        Some(vec![match wish {
            Wish::Root => put(name("root"), "admin"),
            Wish::Deputy { rules: true } => put(deputy(), "admin"),
            Wish::Deputy { rules: false } => put(deputy(), "reader"),
            Wish::Role { client, writes: true } => put(client_name(client), "writer"),
            Wish::Role { client, writes: false } => put(client_name(client), "reader"),
            Wish::Gone { client } => AccessChange::RemovePrincipal(client_name(client)),
            Wish::Token { client, ttl_ms } => {
                let mut secret = [0; 32];
                secret[..8].copy_from_slice(&self.number().to_le_bytes());
                AccessChange::CreateToken {
                    principal: client_name(client),
                    hash: SecretHash::of(&secret),
                    end: TokenEnd::After(ttl_ms),
                    note: String::new(),
                }
            }
            Wish::Revoked { client } => {
                AccessChange::RevokeToken(*self.tokens.latest.get(&client)?)
            }
            Wish::InForce(in_force) => AccessChange::InForce(in_force),
            Wish::JoinToken { hash, ttl_ms } => {
                AccessChange::CreateJoinToken { hash, ttl_ms, note: String::new() }
            }
            Wish::JoinTokenRevoked(id) => AccessChange::RevokeJoinToken(id),
        }])
    }

    /// What a task is told that is about rights: the words that it ends with, if it ends.
    pub(super) fn rights_set(
        &mut self,
        wish: Wish,
        answer: Result<AccessSet, AccessFailure>,
    ) -> Option<String> {
        match answer {
            Ok(set) => {
                if let (Wish::Token { client, .. }, Some((token, _))) = (wish, set.token) {
                    self.tokens.latest.insert(client, token);
                }
                if let (Wish::JoinToken { hash, .. }, Some((token, _))) = (wish, set.token) {
                    self.has_join_token(hash, token);
                }
                Some(format!("done at {}", set.index))
            }
            Err(AccessFailure::Refused(why)) => Some(format!("refused: {why}")),
            Err(AccessFailure::Propose(_)) => None,
        }
    }

    /// In whose name a node is asked: a principal is who the node that is asked takes it for.
    pub(super) fn actor_of(&self, owner: Owner, slot: Slot) -> Actor {
        if !self.plan.shape.rights {
            return Actor::Nobody;
        }
        let node = self.hosts[slot.0].node();
        let view = || node.and_then(|node| node.handle().machine().borrow().clone());
        match owner {
            Owner::Probe(_) | Owner::Backup => Actor::Nobody,
            Owner::Operator(number, _) if self.is_of_deputy(number) => {
                let id = view().and_then(|view| view.info.access.principal_named(&deputy()));
                id.map_or(Actor::Nobody, |id| Actor::Principal { id, token: None })
            }
            Owner::Operator(..) => {
                Actor::Local(node.map_or(NodeId(1), |_| self.hosts[slot.0].node))
            }
            Owner::Client(client, _) => {
                let Some(view) = view() else { return Actor::Nobody };
                let id = view.info.access.principal_named(&client_name(client));
                let token = self.tokens.latest.get(&client).copied();
                id.map_or(Actor::Nobody, |id| Actor::Principal { id, token })
            }
        }
    }
}
