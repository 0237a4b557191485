//! The machine: what an entry does to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;

use super::access::Access;
use super::ahead::{AheadJob, Feed};
use super::batch::{self, Read};
use super::digest::Taken;
use super::kept::{Executed, Fork, Kept};
use super::keys::Keys;
use super::level::{self, Unsupported};
use super::membership::Membership;
use super::modules::Modules;
use super::past::Past;
use super::receipts::Receipt;
use super::reply::{
    ActiveModule, Applied, CommandRefused, MachineInfo, ModuleInfo, QueryReply, QueryResult, Reply,
};
use super::sessions::{Opened, Owner, SessionLimits, Sessions};
use super::snapshot::MachineSnapshot;
use super::verdict;
use crate::fsm::{
    Bystander, Call, Context, EngineProfile, Fsm, GuestResult, HostFailure, Limits, SharedLoader,
    Trap, Unanswered, one_of_several,
};
use crate::museum::{self, Exhibit};
use crate::types::{
    Actor, ActorName, ClusterId, ConfChange, ConfState, Event, GroupId, Index, JoinNonce, Level,
    Member, ModuleHash, NodeId, Origin, Outcome, Position,
};

/// Everything replicated except for the guest's own state. A clone is cheap: what is large is
/// shared until it changes.
#[derive(Clone)]
pub(super) struct State {
    pub(super) cluster: ClusterId,
    pub(super) group: GroupId,
    pub(super) applied: Index,
    /// The log's clock at `applied`; never goes back.
    pub(super) time_ms: u64,
    /// Of all that came out until `applied`.
    pub(super) past: Past,
    pub(super) limits: Limits,
    /// What must run the guest from the next entry on.
    pub(super) engine: EngineProfile,
    /// What the log may hold from the next entry on.
    pub(super) level: Level,
    pub(super) membership: Membership,
    pub(super) sessions: Sessions,
    pub(super) modules: Modules,
    /// What the cluster was restored from, oldest first.
    pub(super) origins: Arc<Vec<Origin>>,
    /// Whose signatures modules need.
    pub(super) keys: Keys,
    pub(super) access: Arc<Access>,
    /// Of rehearsals, oldest first.
    pub(super) receipts: Arc<Vec<Receipt>>,
    /// The last entry that changed what decides how commands end.
    pub(super) rules_changed_at: Index,
    /// What it takes to go back from the last activation.
    pub(super) kept: Option<Kept>,
    /// What it takes for a module to take over that is on its way.
    pub(super) fork: Option<Fork>,
}

/// One replicated state machine of a node.
///
/// After a [`HostFailure`] the machine must be dropped: what it holds may be half done.
pub struct Machine {
    pub(super) state: State,
    /// The instance of the active module; present exactly when there is one.
    pub(super) fsm: Option<Box<dyn Fsm>>,
    pub(super) loader: SharedLoader,
    /// Whether the loader's program offers what the state asks for.
    supported: Result<(), Unsupported>,
    /// `modules.infos()`, kept so that `info` is cheap.
    pub(super) module_infos: Arc<Vec<ModuleInfo>>,
    /// What was found at the latest digest points. Of this node only: no part of the state.
    pub(super) taken: Taken,
    /// The pages that the commands of the next entry write are to be counted.
    count_pages: bool,
    /// An instance that takes over from the fork, made ahead. Of this node only, as is the next.
    pub(super) ahead: Option<Box<AheadJob>>,
    /// Whoever makes it is told what comes.
    pub(super) feed: Option<Feed>,
    /// Is told of each command.
    tap: Option<Tap>,
}

/// Is told of each command that the guest has executed: what it was, the events, and the fuel it used.
pub type Tap = Box<dyn FnMut(&Executed, &[Event], u64) + Send>;

impl Machine {
    /// A machine before the first entry: no module, no members.
    pub fn new(
        cluster: ClusterId,
        group: GroupId,
        limits: Limits,
        loader: SharedLoader,
    ) -> Machine {
        let state = State {
            cluster,
            group,
            applied: Index(0),
            time_ms: 0,
            past: Past::default(),
            limits,
            engine: loader.engine(),
            level: loader.level(),
            membership: Membership::default(),
            sessions: Sessions::new(SessionLimits::default()),
            modules: Modules::default(),
            origins: Arc::default(),
            keys: Keys::default(),
            access: Arc::default(),
            receipts: Arc::default(),
            rules_changed_at: Index(0),
            kept: None,
            fork: None,
        };
        Machine::assemble(state, None, loader)
    }

    pub(super) fn assemble(
        state: State,
        fsm: Option<Box<dyn Fsm>>,
        loader: SharedLoader,
    ) -> Machine {
        let running = fsm.as_ref().map(|fsm| fsm.module());
        let active = state.modules.active().map(|activation| activation.hash);
        assert_eq!(running, active, "the instance is not one of the active module");
        let module_infos = Arc::new(state.modules.infos());
        let supported = supported(&state, &loader);
        let taken = Taken::default();
        Machine {
            state,
            fsm,
            loader,
            supported,
            module_infos,
            taken,
            count_pages: false,
            ahead: None,
            feed: None,
            tap: None,
        }
    }

    /// Gives a machine at index 0 the members of a new cluster, as the snapshot at `index` that
    /// the cluster's log begins after.
    ///
    /// # Panics
    ///
    /// If the machine has applied anything.
    pub fn bootstrap_members(
        &mut self,
        index: Index,
        members: impl IntoIterator<Item = Member>,
        conf_state: ConfState,
    ) {
        assert_eq!(self.state.applied, Index(0), "only a new machine can be bootstrapped");
        self.state.membership.set(members, conf_state);
        self.state.applied = index;
    }

    /// Has rights in force from the beginning of a new cluster on, with a principal of this name that may do
    /// everything.
    ///
    /// # Panics
    ///
    /// If somebody has said already who may do what.
    pub fn bootstrap_access(&mut self, admin: ActorName) {
        assert_eq!(*self.state.access, Access::default(), "only a new cluster is founded");
        self.state.access = Arc::new(Access::founded(self.state.applied, admin));
    }

    /// Applies the normal entry at `index`; `data` is an encoded `raft_host.storage.v1.Entry`, or empty.
    /// Hands out what came of each of its commands, in order and as soon as it is known; one answer for
    /// what is no command; and then what came of commands that had waited for this entry in ordered
    /// sessions ([`Applied::waited`]). Until it returns, the machine must not be asked anything: only the state
    /// after the last command is one that anybody may see.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: no outcome exists; the node must stop.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Machine::applied_index`].
    pub fn apply(
        &mut self,
        index: Index,
        data: &Bytes,
        on_answer: &mut dyn FnMut(Position, Applied),
    ) -> Result<(), HostFailure> {
        self.apply_up_to(index, data, usize::MAX, on_answer)
    }

    /// As [`Machine::apply`], but executes no more than the first `most` commands, those that waited for the entry
    /// included. If it holds more, no log goes on from the state, which is as it was between two of its
    /// commands: it can be asked, and that is all.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: no outcome exists.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Machine::applied_index`].
    pub fn apply_up_to(
        &mut self,
        index: Index,
        data: &Bytes,
        most: usize,
        on_answer: &mut dyn FnMut(Position, Applied),
    ) -> Result<(), HostFailure> {
        self.check_next(index);
        self.check_program()?;
        let count_pages = std::mem::take(&mut self.count_pages);
        #[cfg(feature = "museum")]
        let data = &self.rehearse(index, data);
        match batch::read(index, data)? {
            Read::Nothing => self.answer(index, Applied::without_guest(Reply::Nothing), on_answer),
            Read::Malformed(reason) => {
                self.answer(index, refused(CommandRefused::Malformed(reason)), on_answer);
            }
            Read::Batch { time_ms, commands } => {
                self.state.move_clock(time_ms);
                let rest = most.saturating_sub(commands.len());
                let commands = &commands[..commands.len().min(most)];
                let next = self.apply_batch(index, commands, count_pages, on_answer)?;
                self.release(next, rest, count_pages, on_answer)?;
            }
            Read::Other { time_ms, actor, body } => {
                self.state.move_clock(time_ms);
                let applied = match self.may(actor, &body) {
                    Ok(()) => self.apply_other(index, actor, *body)?,
                    Err(denied) => refused(CommandRefused::Denied(Box::new(denied))),
                };
                self.answer(index, applied, on_answer);
                // Room for answers may be all that a command waited for.
                let next = Position { index, ordinal: 1 };
                self.release(next, most.saturating_sub(1), count_pages, on_answer)?;
            }
        }
        self.state.applied = index;
        Ok(())
    }

    /// The only answer of an entry that holds no commands.
    fn answer(
        &mut self,
        index: Index,
        applied: Applied,
        on_answer: &mut dyn FnMut(Position, Applied),
    ) {
        let position = Position::first(index);
        self.state.past.advance(position, &applied);
        on_answer(position, applied);
    }

    /// Applies the membership change at `index`; `conf_state` is what consensus made of it.
    ///
    /// # Panics
    ///
    /// If `index` is not the one after [`Machine::applied_index`].
    pub fn apply_membership(&mut self, index: Index, change: &ConfChange, conf_state: ConfState) {
        self.check_next(index);
        self.state.membership.apply(change, conf_state);
        self.state.applied = index;
        let applied = Applied::without_guest(Reply::Nothing);
        self.state.past.advance(Position::first(index), &applied);
    }

    /// Answers a question about the state at [`Machine::applied_index`]. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub fn query(&mut self, query: &[u8]) -> Result<QueryReply, HostFailure> {
        let mut replies = self.query_all(&[Bytes::copy_from_slice(query)])?;
        Ok(replies.pop().expect("one answer to one question"))
    }

    /// Answers several questions about the state at [`Machine::applied_index`], in parallel
    /// where the state machine can. The answers are in the order of the questions.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub fn query_all(&mut self, queries: &[Bytes]) -> Result<Vec<QueryReply>, HostFailure> {
        let mut replies = Vec::with_capacity(queries.len());
        while replies.len() < queries.len() {
            replies.extend(self.query_some(&queries[replies.len()..], u64::MAX)?);
        }
        Ok(replies)
    }

    /// As [`Machine::query_all`], but begins no further query once those before have used `enough`
    /// fuel together. So many answers as there are, at least one if there is a question, belong to
    /// the first questions.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub fn query_some(
        &mut self,
        queries: &[Bytes],
        enough: u64,
    ) -> Result<Vec<QueryReply>, HostFailure> {
        let applied = self.state.applied;
        let context = self.context(applied);
        let max = self.state.limits.input_max_bytes;
        let unasked = |result| QueryReply { result, fuel_used: 0, trap_message: None, applied };
        let Some(fsm) = self.fsm.as_mut() else {
            return Ok(queries.iter().map(|_| unasked(QueryResult::NoModule)).collect());
        };
        if !fsm.has_query() {
            return Ok(queries.iter().map(|_| unasked(QueryResult::NoQueryExport)).collect());
        }
        let is_short = |query: &&Bytes| query.len() as u64 <= max;
        let asked: Vec<Bytes> = queries.iter().filter(is_short).cloned().collect();
        let calls = match asked.is_empty() {
            true => Vec::new(),
            false => fsm.query_some(context, &asked, enough)?,
        };
        let mut calls = calls.into_iter();
        let replies = queries.iter().map_while(|query| {
            let bytes = query.len() as u64;
            if bytes > max {
                return Some(unasked(QueryResult::TooLarge { bytes, max }));
            }
            calls.next().map(|answer| match answer {
                Ok(call) => query_reply(call, applied),
                Err(Unanswered(reason)) => unasked(QueryResult::Unanswered(reason)),
            })
        });
        Ok(replies.collect())
    }

    /// Somebody who answers questions about this state on another thread while the next entry,
    /// which must be an activation, is applied. `None`: there is nobody.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub(crate) fn bystander(&mut self) -> Result<Option<MachineBystander>, HostFailure> {
        let context = self.context(self.state.applied);
        let max = self.state.limits.input_max_bytes;
        let Some(fsm) = self.fsm.as_mut() else { return Ok(None) };
        let bystander = fsm.bystander()?;
        Ok(bystander.map(|fsm| MachineBystander { fsm, context, max }))
    }

    /// Has each command of the entry that is applied next count the pages that it writes, where
    /// this host can. Changes no outcome.
    pub fn count_pages(&mut self) {
        self.count_pages = true;
    }

    /// Has somebody told of each command that the guest executes from here on. Changes no outcome.
    pub fn tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// After a command of the guest: whoever wants to know of it is told.
    pub(super) fn executed(
        &mut self,
        executed: impl FnOnce() -> Executed,
        events: &[Event],
        fuel: u64,
    ) {
        if !self.is_keeping() && self.tap.is_none() {
            return;
        }
        let executed = executed();
        if let Some(tap) = &mut self.tap {
            tap(&executed, events, fuel);
        }
        self.keep(executed);
    }

    /// Whether a session is open.
    pub fn has_session(&self, id: u64) -> bool {
        self.state.sessions.contains(id)
    }

    /// How many sessions have ended while this instance was there. Of this node only.
    pub(crate) fn sessions_ended(&self) -> u64 {
        self.state.sessions.ended()
    }

    /// How many of them were not used for too long. Of this node only.
    pub(crate) fn sessions_expired(&self) -> u64 {
        self.state.sessions.expired()
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> Index {
        self.state.applied
    }

    /// The log's clock after the last applied entry, in milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> u64 {
        self.state.time_ms
    }

    /// Members as of the last applied entry.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.state.membership.members
    }

    /// The group whose entries it applies.
    pub fn group(&self) -> GroupId {
        self.state.group
    }

    /// The configuration as of the last applied entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.state.membership.conf_state
    }

    /// Of the members that asked to be taken in themselves, the nonce that they did it with.
    pub fn joins(&self) -> &BTreeMap<NodeId, JoinNonce> {
        &self.state.membership.joins
    }

    /// An id that no member ever had. Every id below it may have been somebody's.
    pub fn next_node_id(&self) -> NodeId {
        self.state.membership.next_id()
    }

    /// The machine's facts, for status pages.
    pub fn info(&self) -> MachineInfo {
        let active = self.state.modules.active().zip(self.fsm.as_ref());
        MachineInfo {
            applied: self.state.applied,
            time_ms: self.state.time_ms,
            active: active.map(|(activation, fsm)| ActiveModule {
                hash: activation.hash,
                label: activation.label.clone(),
                activated_at: activation.index,
                has_query: fsm.has_query(),
            }),
            guest_memory_bytes: self.fsm.as_ref().map_or(0, |fsm| fsm.memory_bytes()),
            sessions: self.state.sessions.len(),
            session_bytes: self.state.sessions.bytes(),
            limits: self.state.limits.clone(),
            engine: self.state.engine.clone(),
            level: self.state.level,
            modules: Arc::clone(&self.module_infos),
            history: Arc::clone(&self.state.modules.history),
            origins: Arc::clone(&self.state.origins),
            cluster: self.state.cluster,
            keys: self.state.keys.clone(),
            access: Arc::clone(&self.state.access),
            receipts: Arc::clone(&self.state.receipts),
            rules_changed_at: self.state.rules_changed_at,
            way_back: self.state.way_back(),
            fork: self.state.fork_info(),
        }
    }

    /// The module that runs commands, and the index since when; if there is one.
    pub fn active_module(&self) -> Option<(ModuleHash, Index)> {
        self.state.modules.incumbent().map(|active| (active.hash, active.activated_at))
    }

    /// The last entry that changed what decides how commands end.
    pub fn rules_changed_at(&self) -> Index {
        self.state.rules_changed_at
    }

    /// The engine profile that the next entry must be applied under.
    pub fn engine(&self) -> &EngineProfile {
        &self.state.engine
    }

    /// Whether this node may apply the next entry.
    ///
    /// # Errors
    ///
    /// An entry has changed the engine profile or the level to one that the loader does not offer.
    pub fn program_supported(&self) -> Result<(), Unsupported> {
        self.supported.clone()
    }

    /// The bytes of a complete module that the machine holds.
    pub fn module_bytes(&self, hash: ModuleHash) -> Option<Bytes> {
        self.state.modules.bytes(hash)
    }

    /// Copies everything, to be written out elsewhere while applies go on.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub fn capture(&mut self) -> Result<MachineSnapshot, HostFailure> {
        let image = self.fsm.as_mut().map(|fsm| fsm.capture()).transpose()?;
        Ok(MachineSnapshot { state: self.state.clone(), image })
    }

    pub(super) fn check_next(&self, index: Index) {
        let expected = self.state.applied.next();
        assert_eq!(index, expected, "entries must be applied in order, without gaps");
    }

    /// The last line of defence: whoever runs the machine stops before this.
    fn check_program(&self) -> Result<(), HostFailure> {
        match &self.supported {
            Err(Unsupported::Level { .. }) if museum::is_on(Exhibit::UnknownFieldIgnored) => Ok(()),
            Err(_)
                if museum::is_on(Exhibit::EngineIgnored)
                    || museum::is_on(Exhibit::EngineChangedLate) =>
            {
                Ok(())
            }
            Err(unsupported) => Err(HostFailure(unsupported.to_string())),
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn context(&self, index: Index) -> Context {
        self.context_at(Position::first(index))
    }

    pub(super) fn context_at(&self, position: Position) -> Context {
        Context {
            cluster: self.state.cluster,
            position,
            time_ms: self.state.time_ms,
            actor: ActorName::NONE,
        }
    }

    /// For a command that somebody gave.
    pub(super) fn context_of(&self, position: Position, actor: Actor) -> Context {
        Context { actor: self.state.access.name_of(actor), ..self.context_at(position) }
    }

    /// Does what an entry without commands says, which whoever asked for it may do.
    fn apply_other(
        &mut self,
        index: Index,
        actor: Actor,
        body: Body,
    ) -> Result<Applied, HostFailure> {
        match body {
            Body::Batch(_) => unreachable!("commands are applied by `apply_batch`"),
            Body::OpenSession(open) => {
                let opened =
                    self.state.sessions.open(index, self.state.time_ms, &open, Owner::of(actor));
                Ok(match opened {
                    Ok(Opened { ttl_ms, responses_max, responses_max_bytes, ordered }) => {
                        Applied::without_guest(Reply::SessionOpened {
                            id: index.0,
                            ttl_ms,
                            responses_max,
                            responses_max_bytes,
                            ordered,
                        })
                    }
                    Err(reason) => refused(reason),
                })
            }
            Body::KeepSession(keep) => {
                let kept = self.state.sessions.keep(&keep, index, self.state.time_ms);
                Ok(match kept {
                    Ok(ttl_ms) => Applied::without_guest(Reply::SessionKept { ttl_ms }),
                    Err(reason) => refused(reason),
                })
            }
            Body::CloseSession(close) => {
                self.state.sessions.remove(close.session_id);
                Ok(Applied::without_guest(Reply::SessionClosed))
            }
            Body::ModuleChunk(chunk) => Ok(Applied::without_guest(self.store_chunk(index, &chunk))),
            Body::ActivateModule(request) => self.activate(index, actor, &request),
            Body::ForkState(request) => self.fork(index, &request),
            Body::RecordReceipt(record) => {
                Ok(Applied::without_guest(self.record_receipt(index, &record)))
            }
            Body::SettleUpgrade(request) => Ok(Applied::without_guest(self.settle(&request))),
            Body::SetLimits(request) => self.set_limits(index, &request),
            Body::SetEngine(request) => self.set_engine(index, &request),
            Body::SetKeys(request) => self.set_keys(index, &request),
            Body::SetLevel(request) => Ok(self.set_level(&request)),
            Body::SetAccess(request) => self.set_access(index, actor, &request),
            Body::SetClock(request) => Ok(Applied::without_guest(self.state.set_clock(&request))),
            Body::DigestPoint(stored::DigestPoint {}) => {
                let digest = self.take_digest(index)?.digest;
                Ok(Applied::without_guest(Reply::DigestTaken { index, digest }))
            }
            Body::DigestVerdict(record) => {
                let conf_state = &self.state.membership.conf_state;
                Ok(match verdict::read(index, &record, conf_state) {
                    Ok(verdict) => Applied::without_guest(Reply::DigestJudged(Box::new(verdict))),
                    Err(reason) => refused(CommandRefused::Malformed(reason)),
                })
            }
        }
    }

    /// Replaces the engine profile; returns the one before.
    pub(super) fn replace_engine(&mut self, engine: EngineProfile) -> EngineProfile {
        let previous = std::mem::replace(&mut self.state.engine, engine);
        self.judge_program();
        previous
    }

    /// After a change of what the state asks of programs.
    pub(super) fn judge_program(&mut self) {
        self.supported = supported(&self.state, &self.loader);
    }

    /// What a program of tests does at the level after this one; see [`super::level::rehearsal`].
    #[cfg(feature = "museum")]
    fn rehearse(&mut self, index: Index, data: &Bytes) -> Bytes {
        // As a program of before, it does not know the field.
        let known = self.state.level.min(self.loader.level());
        let (data, is_longer) = super::level::rehearsal::take(data, known);
        if is_longer {
            let seen = Applied::without_guest(Reply::Nothing);
            self.state.past.advance(Position::first(index), &seen);
        }
        data
    }
}

/// Whether the loader's program can apply the next entry.
fn supported(state: &State, loader: &SharedLoader) -> Result<(), Unsupported> {
    level::check(state.level, &**loader)?;
    Ok(loader.supports(&state.engine)?)
}

/// See [`Machine::bystander`].
pub(crate) struct MachineBystander {
    fsm: Box<dyn Bystander>,
    context: Context,
    max: u64,
}

impl MachineBystander {
    /// The state that it knows.
    pub(crate) fn applied(&self) -> Index {
        self.context.position.index
    }

    /// As [`Machine::query`].
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: the node must stop.
    pub(crate) fn query(&mut self, query: &[u8]) -> Result<QueryReply, HostFailure> {
        let (bytes, max, applied) = (query.len() as u64, self.max, self.applied());
        if bytes > max {
            let result = QueryResult::TooLarge { bytes, max };
            return Ok(QueryReply { result, fuel_used: 0, trap_message: None, applied });
        }
        Ok(match one_of_several(self.fsm.query(self.context, query))? {
            Ok(call) => query_reply(call, applied),
            Err(Unanswered(reason)) => {
                let result = QueryResult::Unanswered(reason);
                QueryReply { result, fuel_used: 0, trap_message: None, applied }
            }
        })
    }
}

fn query_reply(call: Call, applied: Index) -> QueryReply {
    let (outcome, trap_message) = outcome_of(call.result);
    let result = QueryResult::Answer(outcome);
    QueryReply { result, fuel_used: call.fuel_used, trap_message, applied }
}

/// What this version does not know it cannot skip: that would be to diverge from the replicas
/// that know it.
pub(super) fn unknown_kind(index: Index) -> HostFailure {
    HostFailure(format!(
        "entry {index} is, or holds, what this version of raft-host does not know: \
         run the version that the other members run"
    ))
}

pub(super) fn refused(reason: CommandRefused) -> Applied {
    Applied::without_guest(Reply::Refused(reason))
}

pub(super) fn outcome_of(result: GuestResult) -> (Outcome, Option<String>) {
    match result {
        GuestResult::Ok(bytes) => (Outcome::Ok(bytes), None),
        GuestResult::Rejected(bytes) => (Outcome::Rejected(bytes), None),
        GuestResult::Trapped(Trap { kind, message }) => (Outcome::Trapped(kind), Some(message)),
    }
}
