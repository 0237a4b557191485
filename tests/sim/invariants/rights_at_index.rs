//! Nothing is executed, on any node, of somebody who may not do it as of the entry's index; and nobody is
//! denied what it may do.
//!
//! Who may do what is worked out here from the entries that change it, as they are first applied anywhere.
//! Of roles this knows those that the simulator's operators give. Of changes of the members it looks at moves:
//! each is to an address of its own, so that it is known who asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use prost::Message as _;
use raft_host::machine::{CommandRefused, Denied, Reply};
use raft_host::types::{Actor, EntryKind, Index, LogEntry, LogPosition, Outcome};
use raft_host_proto::stored;
use raft_host_proto::stored::access_change::Change;
use raft_host_proto::stored::entry::Body;
use raft_host_proto::stored::membership_step::Kind;

use super::Invariant;
use super::notes::Map;
use crate::sim::observe::{AppliedEntry, Fact, Micros, Slot};

/// Who may do what after some entry.
#[derive(Clone, Debug, Default)]
struct State {
    in_force: bool,
    /// Id and role of each, by name.
    principals: BTreeMap<String, (u64, String)>,
    /// Id of the principal, and when it ends (0: never).
    tokens: BTreeMap<u64, (u64, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct RightsAtIndex {
    /// Up to here it is known who may do what.
    known: Index,
    /// After which entry what was so, ascending.
    states: Vec<(Index, Rc<State>)>,
    /// Who gave the commands that wait in ordered sessions, or did.
    waiting: Map<(u64, u64), Option<stored::Actor>>,
    /// Who asked for a member to move to an address.
    asked: BTreeMap<String, BTreeSet<Actor>>,
    /// To which address a member moves by an entry.
    moves: BTreeMap<LogPosition, String>,
}

impl State {
    /// Makes the changes of the entry at an index.
    fn change(&mut self, index: Index, now_ms: u64, changes: &[stored::AccessChange]) {
        for change in changes.iter().filter_map(|change| change.change.as_ref()) {
            match change {
                Change::InForce(in_force) => self.in_force = *in_force,
                Change::PutPrincipal(put) => {
                    let id = self.principals.get(&put.name).map_or(index.0, |(id, _)| *id);
                    let role = put.roles.first().cloned().unwrap_or_default();
                    self.principals.insert(put.name.clone(), (id, role));
                }
                Change::RemovePrincipal(name) => {
                    if let Some((gone, _)) = self.principals.remove(name) {
                        self.tokens.retain(|_, (principal, _)| *principal != gone);
                    }
                }
                Change::CreateToken(create) => {
                    let end = match create.ttl_ms {
                        0 => create.expires_ms,
                        ttl_ms => now_ms + ttl_ms,
                    };
                    if let Some((id, _)) = self.principals.get(&create.principal) {
                        self.tokens.insert(index.0, (*id, end));
                    }
                }
                Change::RevokeToken(id) => drop(self.tokens.remove(id)),
                Change::PutRole(_)
                | Change::RemoveRole(_)
                | Change::CreateJoinToken(_)
                | Change::ConsumeJoinToken(_)
                | Change::RevokeJoinToken(_) => {}
            }
        }
    }

    /// Whether somebody may do something.
    fn may(&self, actor: Option<&stored::Actor>, now_ms: u64, deed: Deed) -> bool {
        if !self.in_force {
            return true;
        }
        let Some(actor) = actor else { return deed == Deed::Own };
        if actor.local_node != 0 {
            return true;
        }
        let role = self.principals.values().find(|(id, _)| *id == actor.principal);
        let counts = actor.token == 0
            || self.tokens.get(&actor.token).is_some_and(|(principal, end)| {
                *principal == actor.principal && (*end == 0 || *end > now_ms)
            });
        counts
            && role.is_some_and(|(_, role)| match role.as_str() {
                "admin" => true,
                "writer" => deed == Deed::Apply,
                _ => false,
            })
    }
}

/// What an entry does, as far as rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Commands and sessions.
    Apply,
    /// What a cluster does by itself.
    Own,
    /// What only an admin may.
    Rule,
}

fn deed(body: &Body) -> Deed {
    match body {
        Body::Batch(_) | Body::OpenSession(_) | Body::KeepSession(_) | Body::CloseSession(_) => {
            Deed::Apply
        }
        Body::SetLevel(_) | Body::DigestPoint(_) | Body::DigestVerdict(_) => Deed::Own,
        Body::SetAccess(set) if set.changes.iter().all(is_use_of_token) => Deed::Own,
        _ => Deed::Rule,
    }
}

fn is_use_of_token(change: &stored::AccessChange) -> bool {
    matches!(change.change, Some(Change::ConsumeJoinToken(_)))
}

impl RightsAtIndex {
    /// What was so when the entry at an index was applied.
    fn before(&self, index: Index) -> Rc<State> {
        let earlier = self.states.partition_point(|(at, _)| *at < index);
        match earlier.checked_sub(1) {
            Some(last) => Rc::clone(&self.states[last].1),
            None => Rc::default(),
        }
    }

    /// An entry that may move a member is in some log.
    fn logged(&mut self, entry: &LogEntry) {
        if entry.kind != EntryKind::ConfChange {
            return;
        }
        let Ok(change) = stored::MembershipChange::decode(entry.context.clone()) else { return };
        let moves = change.steps.into_iter().find(|step| step.kind() == Kind::Move);
        if let Some(step) = moves {
            let position = LogPosition { index: entry.index, term: entry.term };
            self.moves.insert(position, step.address);
        }
    }

    /// It was done.
    fn moved(&self, slot: Slot, position: LogPosition) -> Result<(), String> {
        let Some(address) = self.moves.get(&position) else { return Ok(()) };
        let state = self.before(position.index);
        let asked = self.asked.get(address).into_iter().flatten();
        let actors: Vec<&Actor> = asked.collect();
        // No token is shown here, so the time does not matter.
        let is_right = actors.iter().any(|actor| match actor {
            Actor::Nobody => state.may(None, 0, Deed::Rule),
            Actor::Local(_) => true,
            Actor::Principal { id, .. } => {
                let actor = stored::Actor { principal: id.0, ..Default::default() };
                state.may(Some(&actor), 0, Deed::Rule)
            }
        });
        match is_right {
            true => Ok(()),
            false => Err(format!(
                "{slot} moved a member to {address} at index {} for {actors:?}, who may not do that there",
                position.index
            )),
        }
    }

    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let Ok(stored::Entry { actor, body: Some(body), .. }) =
            stored::Entry::decode(entry.data.clone())
        else {
            return Ok(());
        };
        let index = entry.position.index;
        let state = self.before(index);
        if index > self.known {
            self.known = index;
            if let (Body::SetAccess(set), Reply::AccessSet { .. }) = (&body, &entry.reply) {
                let mut changed = (*state).clone();
                changed.change(index, entry.time_ms, &set.changes);
                self.states.push((index, changed.into()));
            }
        }
        let Body::Batch(batch) = &body else {
            return judge(entry, &state, actor.as_ref(), deed(&body), &entry.reply);
        };
        for (number, (_, answered)) in entry.answers().enumerate() {
            let position = answered.command.as_ref().and_then(|(session, _)| *session);
            let actor = match batch.commands.get(number) {
                Some(command) => command.actor,
                // It waited.
                None => match position.and_then(|position| self.waiting.get(&position)) {
                    Some(actor) => *actor,
                    None => continue,
                },
            };
            if let (Reply::Waiting(_), Some(position)) = (&answered.reply, position) {
                self.waiting.entry(position).or_insert(actor);
            }
            judge(entry, &state, actor.as_ref(), Deed::Apply, &answered.reply)?;
        }
        Ok(())
    }
}

fn judge(
    entry: &AppliedEntry,
    state: &State,
    actor: Option<&stored::Actor>,
    deed: Deed,
    reply: &Reply,
) -> Result<(), String> {
    let may = state.may(actor, entry.time_ms, deed);
    let (slot, index) = (entry.slot, entry.position.index);
    match reply {
        // Whose a session is, is more than is known here.
        Reply::Refused(CommandRefused::Denied(denied))
            if may && !matches!(**denied, Denied::OthersSession { .. }) =>
        {
            Err(format!("{slot} denied {actor:?} at index {index} what it may do: {denied}"))
        }
        // An answer of before, or none.
        Reply::Refused(_) | Reply::Waiting(_) | Reply::Command(Outcome::Duplicate(_)) => Ok(()),
        _ if may => Ok(()),
        reply => Err(format!(
            "{slot} did at index {index} what {actor:?} may not do there, and answered {reply:?}"
        )),
    }
}

impl Invariant for RightsAtIndex {
    fn name(&self) -> &'static str {
        "rights_at_index"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Applied(entry) => self.applied(entry),
            Fact::MoveAsked { address, actor } => {
                self.asked.entry(address.to_owned()).or_default().insert(actor);
                Ok(())
            }
            Fact::Persisted { entries, .. } | Fact::WriteFailed { entries, .. } => {
                entries.iter().for_each(|entry| self.logged(entry));
                Ok(())
            }
            Fact::Membership { slot, position, .. } => self.moved(slot, position),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::{ConfState, NodeId, PrincipalId};

    use super::super::testing::{applied, entry as log_entry, judge, ok, persisted, pos, refused};
    use super::*;

    fn encoded(actor: Option<stored::Actor>, body: Body) -> bytes::Bytes {
        stored::Entry { time_ms: 0, actor, body: Some(body) }.encode_to_vec().into()
    }

    fn entry(slot: usize, index: u64, data: bytes::Bytes, reply: Reply) -> AppliedEntry {
        AppliedEntry { data, time_ms: 1_000 + index, ..applied(slot, pos(index, 1), "", reply) }
    }

    fn local() -> Option<stored::Actor> {
        Some(stored::Actor { local_node: 1, ..Default::default() })
    }

    fn by(principal: u64, token: u64) -> Option<stored::Actor> {
        Some(stored::Actor { principal, token, local_node: 0 })
    }

    fn set(slot: usize, index: u64, change: Change) -> AppliedEntry {
        let change = stored::AccessChange { change: Some(change) };
        let body = Body::SetAccess(stored::SetAccess { changes: vec![change] });
        let made = Reply::AccessSet { principal: None, token: None };
        entry(slot, index, encoded(local(), body), made)
    }

    fn put(index: u64, name: &str, role: &str) -> AppliedEntry {
        let (name, roles) = (name.to_owned(), vec![role.to_owned()]);
        set(
            0,
            index,
            Change::PutPrincipal(stored::PutPrincipal { name, roles, must_be_new: false }),
        )
    }

    fn command(
        slot: usize,
        index: u64,
        actor: Option<stored::Actor>,
        reply: Reply,
    ) -> AppliedEntry {
        let command = stored::Command { data: "x".into(), session: None, actor };
        entry(slot, index, encoded(None, command.into()), reply)
    }

    fn denied() -> Reply {
        Reply::Refused(CommandRefused::Denied(Box::new(Denied::PrincipalGone(PrincipalId(2)))))
    }

    fn begun() -> Vec<AppliedEntry> {
        let token = stored::CreateToken {
            principal: "a".to_owned(),
            hash: vec![1; 32].into(),
            ttl_ms: 10,
            ..Default::default()
        };
        vec![
            put(1, "root", "admin"),
            put(2, "a", "writer"),
            put(3, "b", "reader"),
            set(0, 4, Change::CreateToken(token)),
            set(0, 5, Change::InForce(true)),
        ]
    }

    fn finds(entries: &[AppliedEntry], what: &str) {
        let all = [begun(), entries.to_vec()].concat();
        let facts: Vec<Fact<'_>> = all.iter().map(Fact::Applied).collect();
        refused(&mut RightsAtIndex::default(), &facts, what);
    }

    #[test]
    fn what_is_allowed_is_done_and_what_is_not_is_denied() {
        let gone = set(0, 12, Change::RemovePrincipal("a".to_owned()));
        let entries = [
            command(0, 6, by(2, 0), ok("a")),
            command(0, 7, by(2, 4), ok("a")),
            command(0, 8, by(3, 0), denied()),
            command(0, 9, None, denied()),
            command(0, 10, local(), ok("a")),
            entry(0, 11, encoded(None, Body::DigestPoint(stored::DigestPoint {})), Reply::Nothing),
            gone,
            command(0, 13, by(2, 0), denied()),
            // Another node is where rights were others.
            command(1, 6, by(2, 0), ok("a")),
        ];
        let all = [begun(), entries.to_vec()].concat();
        let facts: Vec<Fact<'_>> = all.iter().map(Fact::Applied).collect();
        assert_eq!(judge(&mut RightsAtIndex::default(), &facts), Ok(()));
    }

    #[test]
    fn a_member_that_is_moved_without_the_right_to_is_found() {
        let (all, conf_state) = (begun(), ConfState::default());
        let step = stored::MembershipStep {
            kind: Kind::Move.into(),
            node_id: 2,
            address: "b:1".to_owned(),
            ..Default::default()
        };
        let change = stored::MembershipChange { steps: vec![step] };
        let entries = [LogEntry {
            kind: EntryKind::ConfChange,
            context: change.encode_to_vec().into(),
            ..log_entry(7, 1, "")
        }];
        let principal = |id| Actor::Principal { id: PrincipalId(id), token: None };
        let judged = |asked: &[Actor]| {
            let asked = asked.iter().map(|actor| Fact::MoveAsked { address: "b:1", actor: *actor });
            let (slot, position) = (Slot(1), pos(7, 1));
            let done = Fact::Membership { slot, position, conf_state: &conf_state };
            let then = asked.chain([persisted(0, pos(6, 1), &entries), done]);
            let facts = all.iter().map(Fact::Applied).chain(then).collect::<Vec<_>>();
            judge(&mut RightsAtIndex::default(), &facts)
        };
        assert_eq!(judged(&[principal(2), principal(1)]), Ok(()));
        assert_eq!(judged(&[Actor::Local(NodeId(1))]), Ok(()));
        for asked in [&[principal(2), Actor::Nobody][..], &[]] {
            let words = judged(asked).expect_err("none of them may");
            assert!(words.contains("may not do that there"), "{words}");
        }
    }

    #[test]
    fn what_is_done_without_the_right_is_found_on_any_node() {
        finds(&[command(0, 6, by(3, 0), ok("a"))], "may not do there");
        finds(&[command(1, 6, None, ok("a"))], "may not do there");
        // The token has ended at 1,014.
        finds(&[command(0, 20, by(2, 4), ok("a"))], "may not do there");
        let gone = set(0, 6, Change::RemovePrincipal("a".to_owned()));
        finds(&[gone, command(1, 7, by(2, 0), ok("a"))], "may not do there");
        finds(&[command(0, 6, by(2, 0), denied())], "what it may do");
        let limits = encoded(by(2, 0), Body::SetLimits(stored::SetLimits::default()));
        finds(&[entry(0, 6, limits, Reply::LimitsRefused(String::new()))], "may not do there");
    }
}
