//! Who may do what is asked, where an entry is applied.
//!
//! ```text
//!   entry: who acts, what ──► known? ──► a role grants it? ──► done
//!   command of a session  ──► known? ──► a role grants its class? ──► its own session? ──► done
//! ```
//!
//! What is denied leaves no trace: a session is neither used nor remembers it. An earlier attempt of the
//! same command may have been executed while that was allowed; then its answer is what is known of it.

use raft_host_proto::stored;

use super::access::{self, Class, Denied, Unreadable};
use super::core::{Machine, refused, unknown_kind};
use super::reply::{Applied, CommandRefused, Reply, SessionNumber};
use super::sessions::{Begin, CommandHash, Owner};
use crate::fsm::HostFailure;
use crate::museum::{self, Exhibit};
use crate::types::{Actor, Index, Position, Right};

/// A command that somebody gives.
pub(super) struct Asked<'a> {
    pub(super) actor: Actor,
    pub(super) session: Option<u64>,
    /// Its bytes; `None`: whatever it is, nothing of it is executed.
    pub(super) command: Option<&'a [u8]>,
}

/// Whether it may be given.
pub(super) struct Judged {
    /// Why not.
    pub(super) denied: Option<Denied>,
    /// What it took to find out.
    pub(super) fuel_used: u64,
}

impl Judged {
    fn without_guest(verdict: Result<(), Denied>) -> Judged {
        Judged { denied: verdict.err(), fuel_used: 0 }
    }
}

impl Machine {
    /// Whether somebody may have an entry that holds no commands.
    pub(super) fn may(&mut self, actor: Actor, body: &stored::entry::Body) -> Result<(), Denied> {
        use stored::entry::Body;
        let Some(right) = access::right_for(body).filter(|_| self.is_asking()) else {
            return Ok(());
        };
        if actor == Actor::Nobody && access::is_own(body) {
            return Ok(());
        }
        self.allows(actor, right, Class::Any)?;
        match body {
            Body::KeepSession(keep) => self.check_owner(actor, keep.session_id),
            Body::CloseSession(close) => self.check_owner(actor, close.session_id),
            _ => Ok(()),
        }
    }

    /// Whether somebody may give a command at a position. A session that is nobody's becomes that of the
    /// first who may use it.
    pub(super) fn judge(
        &mut self,
        position: Position,
        asked: Asked<'_>,
    ) -> Result<Judged, HostFailure> {
        if !self.is_asking() {
            return Ok(Judged::without_guest(Ok(())));
        }
        let Asked { actor, session, command } = asked;
        let owns = session.map_or(Ok(()), |session| self.check_owner(actor, session));
        let by_class = self.state.access.depends_on_class(actor, self.state.group);
        let context = self.context_of(position, actor);
        let (verdict, fuel_used) = match (owns, command, &mut self.fsm) {
            (Err(denied), ..) => (Err(denied), 0),
            (Ok(()), Some(command), Some(fsm)) if by_class && fsm.has_classes() => {
                let call = fsm.classify(context, command)?;
                (self.allows(actor, Right::Apply, Class::Named(call.class())), call.fuel_used)
            }
            // Without a module nothing is executed.
            (Ok(()), Some(_), Some(_)) => (self.allows(actor, Right::Apply, Class::Named(None)), 0),
            (Ok(()), ..) => (self.allows(actor, Right::Apply, Class::Any), 0),
        };
        if let (Ok(()), Some(session), Some(owner @ Owner::Principal(_))) =
            (&verdict, session, Owner::of(actor))
        {
            self.state.sessions.adopt(session, owner);
        }
        Ok(Judged { denied: verdict.err(), fuel_used })
    }

    /// The answer to a command that was denied: in its session, what is known of earlier attempts.
    pub(super) fn deny(
        &mut self,
        denied: Denied,
        actor: Actor,
        session: Option<(&stored::SessionCommand, CommandHash)>,
    ) -> Applied {
        let denial = |denied| refused(CommandRefused::Denied(Box::new(denied)));
        let Some((command, hash)) = session else { return denial(denied) };
        let stored::SessionCommand { session_id, sequence, .. } = *command;
        if self.check_owner(actor, session_id).is_err() {
            return denial(denied);
        }
        match self.state.sessions.look_up(command, hash) {
            Begin::Run | Begin::Wait { is_new: true } => denial(denied),
            Begin::Wait { is_new: false } => {
                Applied::without_guest(Reply::Waiting(SessionNumber { session_id, sequence }))
            }
            Begin::Duplicate(original) => Applied::without_guest(Reply::Command(
                crate::types::Outcome::Duplicate(Box::new(original)),
            )),
            Begin::Refused(reason) => refused(reason),
        }
    }

    /// Changes who may do what from the next entry on, or refuses and leaves everything as it is.
    pub(super) fn set_access(
        &mut self,
        index: Index,
        actor: Actor,
        request: &stored::SetAccess,
    ) -> Result<Applied, HostFailure> {
        let changes = match access::changes_from_log(request) {
            Ok(changes) => changes,
            Err(Unreadable::Unknown) => return Err(unknown_kind(index)),
            Err(Unreadable::Malformed(reason)) => {
                return Ok(refused(CommandRefused::Malformed(reason)));
            }
        };
        let changed = self.state.access.changed(index, self.state.time_ms, actor, &changes);
        Ok(Applied::without_guest(match changed {
            Ok((access, made)) => {
                self.state.access = access.into();
                if !made.gone.is_empty() {
                    self.state.sessions.remove_of(&made.gone);
                }
                Reply::AccessSet { principal: made.principal, token: made.token }
            }
            Err(reason) => Reply::AccessRefused(reason),
        }))
    }

    /// Whether anything may be denied.
    fn is_asking(&self) -> bool {
        self.state.access.is_in_force() && !museum::is_on(Exhibit::RightsAtTheDoorOnly)
    }

    fn allows(&self, actor: Actor, right: Right, class: Class<'_>) -> Result<(), Denied> {
        let state = &self.state;
        state.access.allows(actor, state.time_ms, state.group, right, class)
    }

    /// Whether a session is this one's, or nobody's, or gone.
    fn check_owner(&self, actor: Actor, session_id: u64) -> Result<(), Denied> {
        let Some(owner) = self.state.sessions.owner(session_id) else { return Ok(()) };
        if matches!(actor, Actor::Local(_)) || Owner::of(actor) == Some(owner) {
            return Ok(());
        }
        let name = self.state.access.name_of(actor);
        match name.is_none() {
            // Who that is not is what is wrong.
            true => self.allows(actor, Right::Apply, Class::Any).and(Err(Denied::Nobody)),
            false => Err(Denied::OthersSession { name, session_id }),
        }
    }
}
