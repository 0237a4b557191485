//! The seam between the replicated machine and the application's logic.
//!
//! An [`Fsm`] is deterministic: the same calls in the same order give the same answers, fuel
//! and image on every node. It knows nothing of Raft, sessions or modules. `wasm` implements
//! it with a sandboxed guest; [`native`] is an in-process one for tests and for measuring
//! what wasm costs.

mod limits;
pub mod native;
pub mod pause;
mod portable;
mod profile;
mod stack;

use std::any::Any;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use raft_fsm_abi as abi;

pub use self::limits::{LimitChange, Limits, STACK_MAX_BYTES, STACK_MIN_BYTES};
pub use self::portable::{Difference, Pile, REASON_MAX_BYTES, Written};
pub use self::profile::{
    EngineFacts, EngineProfile, EngineUnsupported, MACHINE_VERSION, Offering, ProfileError,
};
pub use self::stack::{GUEST_STACK_BYTES, on_guest_stack};
use crate::types::{
    ActorName, ClusterId, Event, Level, ModuleHash, Position, StateDigest, TrapKind,
};

/// What a guest may know about the command that it is applying. For queries, snapshots and
/// restores: about the last applied entry, as its first command would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The cluster; seeds `random` together with `position`.
    pub cluster: ClusterId,
    /// Of the command.
    pub position: Position,
    /// The log's clock at the entry: milliseconds since the Unix epoch, never going back.
    pub time_ms: u64,
    /// Who gave the command, where rights are in force; of anything else nobody did.
    pub actor: ActorName,
}

/// How a guest's call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestResult {
    /// Status 0; the output.
    Ok(Vec<u8>),
    /// Status > 0; the output is the reason.
    Rejected(Vec<u8>),
    /// The guest broke and was undone completely.
    Trapped(Trap),
}

/// A trap: `kind` is replicated, `message` is for the people of this node only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The same on every node.
    pub kind: TrapKind,
    /// Details, such as the guest's backtrace. Not replicated.
    pub message: String,
}

/// A finished call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// How it ended.
    pub result: GuestResult,
    /// Fuel it used.
    pub fuel_used: u64,
    /// What it emitted; empty unless `result` is `Ok`.
    pub events: Vec<Event>,
    /// Pages of memory (4 KiB) that it wrote, if that was asked for with
    /// [`Fsm::count_pages`] and this host can tell. Of this node only.
    pub pages_dirtied: Option<u64>,
}

impl Call {
    /// The class that a finished [`Fsm::classify`] has named. `None` if it named none: nothing, or no name
    /// of a class, or it rejected or trapped.
    pub fn class(&self) -> Option<&str> {
        match &self.result {
            GuestResult::Ok(output) => class_name(output),
            GuestResult::Rejected(_) | GuestResult::Trapped(_) => None,
        }
    }

    /// The format of snapshots that a finished [`Fsm::state_version`] has named. `None` if it named none, as
    /// with [`Call::class`].
    pub fn named_state_version(&self) -> Option<&str> {
        match &self.result {
            GuestResult::Ok(output) => state_version_name(output),
            GuestResult::Rejected(_) | GuestResult::Trapped(_) => None,
        }
    }

    /// One that was not made, where there was nothing to do.
    pub(crate) fn nothing() -> Call {
        let result = GuestResult::Ok(Vec::new());
        Call { result, fuel_used: 0, events: Vec::new(), pages_dirtied: None }
    }
}

/// The bytes as the name of a class of commands: 1 to 64 letters (a to z), digits and any of `.`, `_`, `-`.
pub fn class_name(bytes: &[u8]) -> Option<&str> {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let is_name = (1..=abi::CLASS_MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(is_fit);
    std::str::from_utf8(bytes).ok().filter(|_| is_name)
}

/// The bytes as the name of a format of portable snapshots, such as `kv/2`: 1 to 64 letters (a to z), digits and
/// any of `.`, `_`, `-`, `/`.
pub fn state_version_name(bytes: &[u8]) -> Option<&str> {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
    let is_name =
        (1..=abi::STATE_VERSION_MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(is_fit);
    std::str::from_utf8(bytes).ok().filter(|_| is_name)
}

/// What [`Fsm::digest`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDigest {
    /// Equal on two nodes exactly when their guests are in the same state, down to the layout
    /// of the heap.
    pub digest: StateDigest,
    /// Ranges of memory, in bytes, that may have changed since the digest before this one;
    /// ascending, and no more than a thousand (the last one then covers the rest).
    pub changed: Vec<Range<u64>>,
}

/// A failure of the host, never of the guest: no outcome exists and the node must stop
/// rather than guess one.
#[derive(Debug, thiserror::Error)]
#[error("host failure while running the state machine: {0}")]
pub struct HostFailure(pub String);

/// A question that this host could not have answered: it lacked what a guest needs to run beside
/// the live one, such as memory. That says nothing of the state, and nothing of other questions: the
/// same one may be answered a moment later, or by another node now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node could not run the query: {0}")]
pub struct Unanswered(pub String);

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It alone has none.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The state machine cannot go on.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

/// For those who cannot do without an answer.
impl From<QueryError> for HostFailure {
    fn from(error: QueryError) -> HostFailure {
        match error {
            QueryError::Unanswered(Unanswered(reason)) => HostFailure(reason),
            QueryError::Host(failure) => failure,
        }
    }
}

/// The answer to a query as one of several: that it has none is no failure of all.
pub fn one_of_several(
    answer: Result<Call, QueryError>,
) -> Result<Result<Call, Unanswered>, HostFailure> {
    match answer {
        Ok(call) => Ok(Ok(call)),
        Err(QueryError::Unanswered(unanswered)) => Ok(Err(unanswered)),
        Err(QueryError::Host(failure)) => Err(failure),
    }
}

/// A running application state machine.
///
/// Calls on one `Fsm` never overlap. A call that traps leaves no trace. So does a rejected
/// `init` or `restore`; for a rejected command it is the guest that promises so, and what it
/// may still change (the layout of its heap) changes in the same way on every node.
pub trait Fsm: Send {
    /// The module this is an instance of.
    fn module(&self) -> ModuleHash;

    /// Once in the life of a cluster, before the first command; a module without `init`
    /// answers `Ok`.
    fn init(&mut self, context: Context) -> Result<Call, HostFailure>;

    /// Runs one command.
    fn apply(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure>;

    /// Answers a question without changing anything, not even the layout of the heap.
    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, QueryError>;

    /// Answers several questions about one state, in parallel where the implementation can.
    /// The answers are in the order of the questions; without one of them there are none.
    fn query_all(&mut self, context: Context, queries: &[Bytes]) -> Result<Vec<Call>, QueryError> {
        queries.iter().map(|query| self.query(context, query)).collect()
    }

    /// As `query_all`, but begins no further query once those before have used `enough` fuel
    /// together: so many answers as there are, at least one, belong to the first questions.
    fn query_some(
        &mut self,
        context: Context,
        queries: &[Bytes],
        enough: u64,
    ) -> Result<Vec<Result<Call, Unanswered>>, HostFailure> {
        let mut answers = Vec::new();
        let mut spent: u64 = 0;
        for query in queries {
            let answer = one_of_several(self.query(context, query))?;
            spent = spent.saturating_add(answer.as_ref().map_or(0, |call| call.fuel_used));
            answers.push(answer);
            if spent >= enough {
                break;
            }
        }
        Ok(answers)
    }

    /// Somebody who answers questions about the state as it is now, on another thread, while this
    /// one takes a snapshot or rests. `None`: there is nobody. It must be dropped before anything
    /// changes the state.
    fn bystander(&mut self) -> Result<Option<Box<dyn Bystander>>, HostFailure> {
        Ok(None)
    }

    /// Whether the module can answer queries at all.
    fn has_query(&self) -> bool;

    /// Whether the module says which class a command is of.
    fn has_classes(&self) -> bool {
        false
    }

    /// Asks which class a command is of, before it is applied or refused, without changing anything, not
    /// even the layout of the heap: see [`Call::class`]. The context is the command's. A module that
    /// has no classes answers nothing. What the answer is (rejections, traps and fuel too) decides outcomes,
    /// so that a host that cannot ask must stop.
    fn classify(&mut self, _context: Context, _command: &[u8]) -> Result<Call, HostFailure> {
        Ok(Call::nothing())
    }

    /// The guest's own portable snapshot (for upgrades and export). Changes nothing.
    fn snapshot(&mut self, context: Context) -> Result<Call, HostFailure>;

    /// As [`Fsm::snapshot`], of a state that may be large: `written` takes what the guest writes, and the call's
    /// output is empty. If it rejects, the reason is the first [`REASON_MAX_BYTES`].
    fn snapshot_into(
        &mut self,
        context: Context,
        written: &mut Written,
    ) -> Result<Call, HostFailure> {
        let mut call = self.snapshot(context)?;
        if let GuestResult::Ok(output) = &mut call.result {
            written.take(&std::mem::take(output))?;
        }
        Ok(call)
    }

    /// Gives a fresh instance the state of a portable snapshot (possibly of an older module).
    /// After `Rejected` or `Trapped` the instance is as before the call.
    fn restore(&mut self, context: Context, snapshot: &[u8]) -> Result<Call, HostFailure>;

    /// As [`Fsm::restore`], of what may be large: what the guest has read is gone.
    fn restore_from(&mut self, context: Context, portable: Pile) -> Result<Call, HostFailure> {
        self.restore(context, &portable.into_vec())
    }

    /// Does now what the first command would wait for: after a large state was taken over, that may be much.
    fn prepare(&mut self) -> Result<(), HostFailure> {
        Ok(())
    }

    /// Whether the module can check its own state.
    fn has_check(&self) -> bool {
        false
    }

    /// Has the guest check the rules of its own state: `Ok`, or `Rejected` and what is wrong. Changes
    /// nothing, not even the layout of the heap. A module that cannot check answers `Ok`.
    fn check(&mut self, _context: Context) -> Result<Call, HostFailure> {
        Ok(Call::nothing())
    }

    /// What the guest calls the format of its portable snapshots; `Ok` without output if it has no
    /// name for it. Changes nothing.
    fn state_version(&mut self, _context: Context) -> Result<Call, HostFailure> {
        Ok(Call::nothing())
    }

    /// Asks a fresh instance whether its `restore` takes portable snapshots of a format that another
    /// module has named: `Ok`, or `Rejected` and why not. One that does not say answers `Ok`.
    fn restores(&mut self, _context: Context, _version: &[u8]) -> Result<Call, HostFailure> {
        Ok(Call::nothing())
    }

    /// Whether the module can take over the exact memory of another one.
    fn has_take_over(&self) -> bool {
        false
    }

    /// Gives a fresh instance the state of another module's instance, of which it reads the exact
    /// memory (its export `adopt`). After `Rejected` or `Trapped` the instance is as before the call.
    fn take_over(&mut self, _context: Context, _from: &dyn Image) -> Result<Call, HostFailure> {
        Err(HostFailure("the state machine cannot take over another one's memory".to_owned()))
    }

    /// Digests the exact state (memory, globals, sizes). The cost follows what was written since
    /// the last digest.
    fn digest(&mut self) -> Result<GuestDigest, HostFailure>;

    /// Has the next `apply` count the pages that it writes, where this host can.
    fn count_pages(&mut self) {}

    /// Size of its memory now, in bytes.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Flips a bit of the state behind everybody's back, as failing memory would: the lowest of
    /// the byte at `at`, modulo the size of the state.
    #[cfg(feature = "museum")]
    fn flip_bit(&mut self, at: u64);

    /// Copies the exact state (memory, globals, sizes), to be written out elsewhere while
    /// applies go on.
    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure>;

    /// Replaces the state by an image that `capture` made on an instance of the same module.
    /// Fails on a damaged or foreign image without changing anything.
    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError>;

    /// Replaces the state by an image that `capture` made in this process on an instance of the
    /// same module, possibly under other limits; nothing is written out meanwhile. Fails on a
    /// foreign image, or one that this instance's limits do not allow, without changing anything.
    fn adopt(&mut self, image: &dyn Image) -> Result<(), ImageError>;
}

/// See [`Fsm::bystander`].
pub trait Bystander: Send {
    /// As [`Fsm::query`].
    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, QueryError>;
}

/// An exact copy of a guest's state, detached from it.
pub trait Image: Any + Send + Sync {
    /// Writes the image in the format that `load_image` reads.
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()>;

    /// Ranges of memory, in bytes, in which another image of the same module differs, as far as
    /// the implementation has a memory; ascending, and no more than a thousand.
    fn differing_memory(&self, _other: &dyn Image) -> Vec<Range<u64>> {
        Vec::new()
    }
}

/// An image that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reader failed.
    #[error("reading the image: {0}")]
    Io(#[from] std::io::Error),
    /// The bytes are not an image, or one of something else.
    #[error("not a usable image: {0}")]
    Invalid(String),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostFailure),
}

/// Why a module is not accepted. Deterministic: every node says the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModuleRefused(pub String);

/// Turns module bytes into running instances. One per node, shared by its groups.
pub trait FsmLoader: Send + Sync + 'static {
    /// The engine profile that new clusters get, and that an operator moves a cluster to.
    fn engine(&self) -> EngineProfile;

    /// Whether what it loads runs exactly as the profile says. Loaders offer one profile; one that
    /// is to offer several must also be told which one each instance is for.
    ///
    /// # Errors
    ///
    /// It does not; says what it offers.
    fn supports(&self, profile: &EngineProfile) -> Result<(), EngineUnsupported> {
        let offered = self.engine();
        match *profile == offered {
            true => Ok(()),
            false => Err(EngineUnsupported { wanted: profile.clone(), offered }),
        }
    }

    /// The level that the program offers: what new clusters begin with, and what it can apply.
    fn level(&self) -> Level {
        Level::CURRENT
    }

    /// The same for work that nobody waits for: its instances do everything on the thread that asks, which may leave
    /// the processor to others, and that frees what it takes. `None`: there is no difference.
    fn beside(&self) -> Option<SharedLoader> {
        None
    }

    /// How guests' memory is checkpointed on this host, for status pages.
    fn memory_backend(&self) -> &'static str {
        "none"
    }

    /// Checks a module as a cluster would (format, features, imports, exports, limits),
    /// compiles it and keeps the result. Slow; call it off the apply path. It may refuse more than
    /// `instantiate` does, which decides about what is in the log: what no cluster should take, and
    /// what this host cannot compile with what it may spend on that.
    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure>;

    /// Whether [`FsmLoader::check`] has found the module good before, so that to instantiate it
    /// takes no long time.
    fn is_prepared(&self, _module: ModuleHash, _limits: &Limits) -> bool {
        true
    }

    /// Forgets what was kept on disk for modules other than these, but for the latest few that
    /// were checked in this process: a check comes before anybody holds the module.
    fn retain(&self, _modules: &[ModuleHash]) {}

    /// A fresh instance, with its initialisers run (but not `init`). Instances that trap in
    /// an initialiser are refused.
    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure>;

    /// As `instantiate`, for an instance that is given an image before anything else: no code of
    /// the module runs, because all that its initialisers have done is in the image.
    fn instantiate_blank(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        self.instantiate(module, limits, context)
    }
}

/// Shared handle to a loader.
pub type SharedLoader = Arc<dyn FsmLoader>;

/// A loader for work that nobody waits for: see [`FsmLoader::beside`].
pub fn loader_beside(loader: &SharedLoader) -> SharedLoader {
    loader.beside().unwrap_or_else(|| Arc::clone(loader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_the_name_of_a_class_that_may_have_slashes() {
        for name in ["kv/2", "/", "a.b/c_d-9", &"x".repeat(64)] {
            let result = GuestResult::Ok(name.as_bytes().to_vec());
            assert_eq!(Call { result, ..Call::nothing() }.named_state_version(), Some(name));
            let result = GuestResult::Rejected(name.as_bytes().to_vec());
            assert_eq!(Call { result, ..Call::nothing() }.named_state_version(), None);
        }
        for nonsense in [&b""[..], b"kv 2", b"kv\\2", b"\xff", "x".repeat(65).as_bytes()] {
            assert_eq!(state_version_name(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_class_has_a_short_plain_name_and_only_an_accepted_answer_names_one() {
        let longest = "x".repeat(abi::CLASS_MAX_BYTES);
        for name in ["a", "close-account", "V2.transfer_all", &longest] {
            assert_eq!(class_name(name.as_bytes()), Some(name));
        }
        let too_long = "x".repeat(abi::CLASS_MAX_BYTES + 1);
        for nonsense in
            [&b""[..], b"a b", b"a:b", b"*", b"a\n", "ä".as_bytes(), b"\xff", too_long.as_bytes()]
        {
            assert_eq!(class_name(nonsense), None, "{nonsense:?}");
        }
        let trap = Trap { kind: crate::types::TrapKind::OutOfFuel, message: "transfer".to_owned() };
        for (result, class) in [
            (GuestResult::Ok(b"transfer".to_vec()), Some("transfer")),
            (GuestResult::Ok(b"trans fer".to_vec()), None),
            (GuestResult::Ok(Vec::new()), None),
            (GuestResult::Rejected(b"transfer".to_vec()), None),
            (GuestResult::Trapped(trap), None),
        ] {
            assert_eq!(Call { result, ..Call::nothing() }.class(), class);
        }
    }
}
