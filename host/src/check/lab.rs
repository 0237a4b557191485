//! Instances of the module under examination, and a tally of what their calls cost.

use std::cell::RefCell;

use super::hints;
use super::listen::{LogLine, listening, without_listening};
use super::words::{ended, quoted};
use crate::fsm::{Call, Context, Fsm, GuestResult, HostFailure, Limits};
use crate::types::{ActorName, ClusterId, Event, Index, Position, StateDigest};
use crate::wasm::{CompiledModules, ModuleReport, Refused, WasmFsm, WasmLoader};

/// The clock of the first entry.
const START_TIME_MS: u64 = 1_700_000_000_000;

/// Why an examination cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The host failed.
    Host(HostFailure),
    /// The module cannot be used at all; the reason.
    Unfit(String),
}

impl From<HostFailure> for Stop {
    fn from(failure: HostFailure) -> Stop {
        Stop::Host(failure)
    }
}

/// The most expensive command so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slowest {
    /// Fuel it used.
    pub fuel: u64,
    /// The command, shortened.
    pub command: String,
}

/// The most that was seen of everything that has a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// The most expensive command.
    pub slowest: Option<Slowest>,
    /// The largest memory, in bytes.
    pub memory_bytes: u64,
    /// The largest snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// The most fuel that a query used.
    pub query_fuel: u64,
}

impl Peaks {
    /// What was seen elsewhere too.
    pub(super) fn include(&mut self, other: Peaks) {
        let fuel = |slowest: &Option<Slowest>| slowest.as_ref().map(|slowest| slowest.fuel);
        if fuel(&other.slowest) > fuel(&self.slowest) {
            self.slowest = other.slowest;
        }
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.snapshot_bytes = self.snapshot_bytes.max(other.snapshot_bytes);
        self.query_fuel = self.query_fuel.max(other.query_fuel);
    }
}

/// Makes instances.
pub(super) struct Lab<'a> {
    loader: WasmLoader,
    pub(super) module: &'a [u8],
    pub(super) limits: &'a Limits,
    peaks: RefCell<Peaks>,
}

/// A finished call with the lines that it logged.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) call: Call,
    pub(super) log: Vec<LogLine>,
    /// Index and clock that the call saw.
    pub(super) context: Context,
}

/// What came of repeated commands.
pub(super) struct Repeated {
    pub(super) fuel: u64,
    pub(super) trapped: bool,
}

impl Done {
    /// What a client sees: the kind of a trap, but not its message.
    pub(super) fn outcome(&self) -> (u8, &[u8], &[Event]) {
        let (kind, bytes) = match &self.call.result {
            GuestResult::Ok(output) => (0, &output[..]),
            GuestResult::Rejected(reason) => (1, &reason[..]),
            GuestResult::Trapped(trap) => (2, trap.kind.name().as_bytes()),
        };
        (kind, bytes, &self.call.events)
    }

    pub(super) fn trapped(&self) -> bool {
        matches!(self.call.result, GuestResult::Trapped(_))
    }

    pub(super) fn ok(&self) -> Option<&[u8]> {
        match &self.call.result {
            GuestResult::Ok(output) => Some(output),
            _ => None,
        }
    }
}

impl<'a> Lab<'a> {
    pub(super) fn new(
        module: &'a [u8],
        limits: &'a Limits,
        modules: CompiledModules,
    ) -> Result<Lab<'a>, HostFailure> {
        // On one thread a guest's lines arrive where the call is made.
        let loader = WasmLoader::sharing(None, modules)?.with_threads(1);
        Ok(Lab { loader, module, limits, peaks: RefCell::default() })
    }

    pub(super) fn peaks(&self) -> Peaks {
        self.peaks.borrow().clone()
    }

    /// Compiles the module, as a cluster would before it takes it.
    pub(super) fn compile(&self) -> Result<Result<ModuleReport, Refused>, HostFailure> {
        self.loader.describe(self.module, self.limits)
    }

    /// An instance that has not run `init`, as one for a snapshot.
    pub(super) fn blank(&self, context: Context) -> Result<WasmFsm, Stop> {
        let start = || self.loader.start(self.module, self.limits, Some(context));
        let (fresh, _) = listening(start);
        fresh?.map_err(|refused| Stop::Unfit(format!("{refused}; {}", hints::START)))
    }

    /// A new cluster: `init` has run.
    pub(super) fn founded(&self) -> Result<Subject<'_>, Stop> {
        let context = Context {
            cluster: ClusterId(*b"raft-host  check"),
            position: Position::first(Index(1)),
            time_ms: START_TIME_MS,
            actor: ActorName::NONE,
        };
        let mut fsm = self.blank(context)?;
        let (call, log) = listening(|| fsm.init(context));
        let init = Done { call: call?, log, context };
        if init.ok().is_none() {
            let reason = format!("`init` ended: {}; {}", ended(&init), hints::INIT);
            return Err(Stop::Unfit(reason));
        }
        Ok(Subject { lab: self, fsm, context, pending_ms: 0 })
    }
}

/// One instance with its place in the log.
pub(super) struct Subject<'a> {
    lab: &'a Lab<'a>,
    fsm: WasmFsm,
    context: Context,
    /// Seen from the next command on.
    pending_ms: u64,
}

impl Subject<'_> {
    pub(super) fn context(&self) -> Context {
        self.context
    }

    pub(super) fn has_query(&self) -> bool {
        self.fsm.has_query()
    }

    pub(super) fn has_classes(&self) -> bool {
        self.fsm.has_classes()
    }

    pub(super) fn has_check(&self) -> bool {
        self.fsm.has_check()
    }

    pub(super) fn has_state_version(&self) -> bool {
        self.fsm.report().has_state_version
    }

    pub(super) fn has_restores(&self) -> bool {
        self.fsm.report().has_restores
    }

    /// Who gives the commands from now on.
    pub(super) fn act_as(&mut self, name: ActorName) {
        self.context.actor = name;
    }

    pub(super) fn advance(&mut self, by_ms: u64) {
        self.pending_ms = self.pending_ms.saturating_add(by_ms);
    }

    pub(super) fn apply(&mut self, command: &[u8]) -> Result<Done, HostFailure> {
        self.context.position.index = self.context.position.index.next();
        self.context.time_ms = self.context.time_ms.saturating_add(self.pending_ms);
        self.pending_ms = 0;
        let context = self.context;
        let (call, log) = listening(|| self.fsm.apply(context, command));
        let call = call?;
        let mut peaks = self.lab.peaks.borrow_mut();
        if peaks.slowest.as_ref().is_none_or(|slowest| slowest.fuel < call.fuel_used) {
            let command = quoted(command);
            peaks.slowest = Some(Slowest { fuel: call.fuel_used, command });
        }
        peaks.memory_bytes = peaks.memory_bytes.max(self.fsm.memory_bytes());
        Ok(Done { call, log, context })
    }

    /// The class of a command, as if it came next.
    pub(super) fn classify(&mut self, command: &[u8]) -> Result<Done, HostFailure> {
        let mut context = self.context;
        context.position.index = context.position.index.next();
        context.time_ms = context.time_ms.saturating_add(self.pending_ms);
        let (call, log) = listening(|| self.fsm.classify(context, command));
        Ok(Done { call: call?, log, context })
    }

    pub(super) fn check(&mut self) -> Result<Done, HostFailure> {
        let context = self.context;
        let (call, log) = listening(|| self.fsm.check(context));
        Ok(Done { call: call?, log, context })
    }

    pub(super) fn state_version(&mut self) -> Result<Done, HostFailure> {
        let context = self.context;
        let (call, log) = listening(|| self.fsm.state_version(context));
        Ok(Done { call: call?, log, context })
    }

    /// Of a fresh instance, as a node asks.
    pub(super) fn restores(&self, version: &str) -> Result<Done, Stop> {
        let context = self.context;
        let mut fsm = self.lab.blank(context)?;
        let (call, log) = listening(|| fsm.restores(context, version.as_bytes()));
        Ok(Done { call: call?, log, context })
    }

    pub(super) fn query(&mut self, query: &[u8]) -> Result<Done, HostFailure> {
        let context = self.context;
        let (call, log) = listening(|| self.fsm.query(context, query));
        let call = call?;
        let mut peaks = self.lab.peaks.borrow_mut();
        peaks.query_fuel = peaks.query_fuel.max(call.fuel_used);
        Ok(Done { call, log, context })
    }

    /// As `query`, but what it writes stays.
    pub(super) fn query_and_keep(&mut self, query: &[u8]) -> Result<Done, HostFailure> {
        let context = self.context;
        let (call, log) = listening(|| self.fsm.query_and_keep(context, query));
        Ok(Done { call: call?, log, context })
    }

    /// Applies one command after the other, and the first again after the last, until one traps.
    /// Counts for no peak.
    pub(super) fn repeat(
        &mut self,
        commands: &[&[u8]],
        calls: usize,
    ) -> Result<Repeated, HostFailure> {
        without_listening(|| {
            let mut repeated = Repeated { fuel: 0, trapped: false };
            for command in commands.iter().cycle().take(calls) {
                self.context.position.index = self.context.position.index.next();
                let call = self.fsm.apply(self.context, command)?;
                repeated.fuel = repeated.fuel.saturating_add(call.fuel_used);
                if let GuestResult::Trapped(_) = call.result {
                    repeated.trapped = true;
                    break;
                }
            }
            Ok(repeated)
        })
    }

    /// Length of a snapshot, which counts for no peak either; none is as long as an empty one.
    pub(super) fn snapshot_bytes(&mut self) -> Result<usize, HostFailure> {
        let call = without_listening(|| self.fsm.snapshot(self.context))?;
        Ok(match call.result {
            GuestResult::Ok(snapshot) => snapshot.len(),
            GuestResult::Rejected(_) | GuestResult::Trapped(_) => 0,
        })
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.fsm.memory_bytes()
    }

    pub(super) fn snapshot(&mut self) -> Result<Done, HostFailure> {
        self.snapshot_at(self.context)
    }

    /// As if no entry had come since.
    pub(super) fn snapshot_at(&mut self, context: Context) -> Result<Done, HostFailure> {
        let (call, log) = listening(|| self.fsm.snapshot(context));
        let done = Done { call: call?, log, context };
        let bytes = done.ok().map_or(0, <[u8]>::len) as u64;
        let mut peaks = self.lab.peaks.borrow_mut();
        peaks.snapshot_bytes = peaks.snapshot_bytes.max(bytes);
        Ok(done)
    }

    pub(super) fn digest(&mut self) -> Result<StateDigest, HostFailure> {
        Ok(self.fsm.digest()?.digest)
    }

    /// A fresh instance that is given a snapshot at this one's place in the log; what its
    /// `restore` said, and the instance.
    pub(super) fn copy_from(&self, snapshot: &[u8]) -> Result<(Done, Self), Stop> {
        let (context, pending_ms) = (self.context, self.pending_ms);
        let mut fsm = self.lab.blank(context)?;
        let (call, log) = listening(|| fsm.restore(context, snapshot));
        let done = Done { call: call?, log, context };
        let mut peaks = self.lab.peaks.borrow_mut();
        peaks.memory_bytes = peaks.memory_bytes.max(fsm.memory_bytes());
        Ok((done, Subject { lab: self.lab, fsm, context, pending_ms }))
    }

    /// `snapshot`, then `restore` into a fresh instance, which takes over if both went well.
    /// The call is the one that failed, or `restore` without an output.
    pub(super) fn renew(&mut self) -> Result<Done, Stop> {
        let snapshot = self.snapshot()?;
        let Some(bytes) = snapshot.ok() else { return Ok(snapshot) };
        let (mut restore, copy) = self.copy_from(bytes)?;
        let fuel = snapshot.call.fuel_used.saturating_add(restore.call.fuel_used);
        restore.call.fuel_used = fuel;
        if let GuestResult::Ok(output) = &mut restore.call.result {
            output.clear();
            *self = copy;
        }
        Ok(restore)
    }
}
