//! The state machine around guests: a live instance, forks of it for questions, and a
//! checkpoint to go back to.
//!
//! A trap is undone by going back to the last checkpoint and repeating the calls since, without
//! the one that trapped. Each repeated call must use the same fuel and give
//! the same status as before; otherwise something is wrong with this host, and it stops. When
//! checkpoints are taken, and what a storm of traps costs: see `pace`.
//!
//! A rejected command is *not* undone. The guest promises that it changed nothing a user
//! could see; what it may change is its heap's layout, and it does so identically on every
//! replica, because every replica runs the command. Undoing would make the cheapest answers
//! (a failed compare-and-swap, say) the most expensive ones. `init`, `restore` and `adopt`,
//! which are rare, are undone when rejected.

use std::any::Any;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use raft_fsm_abi as abi;

use super::abi::{CallKind, Given};
use super::check::ModuleReport;
use super::checkpoint::Checkpoint;
use super::guest::{Compiled, Ended, Guest};
#[cfg(test)]
use super::image::GlobalValue;
use super::image::{GuestState, WasmImage, read_state};
#[cfg(test)]
use super::memory::Region;
use super::pace::{Pace, Since};
use super::queries::{Apart, Forks, answered};
use super::tracking::Tracking;
use super::workers::Workers;
use crate::fsm::{
    Bystander, Call, Context, Fsm, GuestDigest, GuestResult, HostFailure, Image, ImageError,
    Limits, ModuleRefused, Pile, QueryError, Trap, Unanswered, Written, one_of_several,
};
use crate::museum::{self, Exhibit};
use crate::types::{Index, ModuleHash};

/// What remembering a command costs beyond its bytes.
const APPLIED_OVERHEAD_BYTES: usize = 64;

/// What a loader lends to all of its instances.
#[derive(Clone)]
pub(super) struct Host {
    /// Where the kernel can track written pages.
    pub(super) tracking: Option<Arc<Tracking>>,
    pub(super) workers: Arc<Workers>,
    /// Checkpoints only where something needs one.
    pub(super) rare_checkpoints: bool,
}

/// What going back has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) undos: u64,
    /// Undos that had to replace the instance.
    pub(super) replaced: u64,
    pub(super) repeated_commands: u64,
    pub(super) repeated_fuel: u64,
    pub(super) checkpoints: u64,
}

/// A command that was applied after the checkpoint.
struct Applied {
    context: Context,
    /// Its end within `WasmFsm::commands`; it starts where the previous one ends.
    end: usize,
    status: i32,
    fuel_used: u64,
}

/// [`Fsm`] by a sandboxed guest.
pub(crate) struct WasmFsm {
    compiled: Arc<Compiled>,
    limits: Arc<Limits>,
    host: Host,
    live: Guest,
    /// Share memory with `live`: dropped whenever `live` is replaced.
    forks: Forks,
    /// The state before the first of `applied`.
    checkpoint: Checkpoint,
    applied: Vec<Applied>,
    /// The bytes of `applied`, one after the other.
    commands: Vec<u8>,
    /// Sum over `applied`.
    applied_fuel: u64,
    pace: Pace,
    effort: Effort,
    /// The next command's pages are to be counted.
    count_pages: bool,
    /// A state was taken over, and `checkpoint` is still that from before. It is a copy of all of it, and
    /// nobody needs one before something changes it.
    taken_over: bool,
    /// Whether `live` may be in the middle of a call that the host failed to finish or undo.
    /// There is no way back from that: every later call fails too.
    broken: bool,
}

impl WasmFsm {
    /// A fresh instance whose initialisers have run in the context; without one, a blank instance
    /// that must be given a state before anything else.
    pub(super) fn start(
        compiled: Arc<Compiled>,
        limits: &Limits,
        host: Host,
        context: Option<Context>,
    ) -> Result<Result<WasmFsm, ModuleRefused>, HostFailure> {
        let limits = Arc::new(limits.clone());
        let mut live = match Guest::live(&compiled, &limits, host.tracking.clone())? {
            Ok(live) => live,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(context) = context
            && let Err(refused) = live.initialize(&compiled, context)?
        {
            return Ok(Err(refused));
        }
        let checkpoint = Checkpoint::of(&mut live, &host.workers)?;
        let pace = match host.rare_checkpoints {
            true => Pace::rare(),
            false => Pace::new(live.is_watched()),
        };
        let forks = Forks::new(&compiled, &host.workers);
        Ok(Ok(WasmFsm {
            compiled,
            limits,
            host,
            live,
            forks,
            checkpoint,
            applied: Vec::new(),
            commands: Vec::new(),
            applied_fuel: 0,
            pace,
            effort: Effort::default(),
            count_pages: false,
            taken_over: false,
            broken: false,
        }))
    }

    /// Answers a question where what it writes stays, unless it traps: on the live instance, as
    /// no node ever does. Whoever examines a module sees in this way what a query would change.
    pub(crate) fn query_and_keep(
        &mut self,
        context: Context,
        query: &[u8],
    ) -> Result<Call, HostFailure> {
        if let Some(call) = too_long("query", query, self.limits.input_max_bytes) {
            return Ok(call);
        }
        self.enter()?;
        let call = match self.live.call(CallKind::Query, context, Given::Input(query), false)? {
            None => without_query(),
            Some(ended) => {
                let call = finish(&mut self.live, CallKind::Query, ended);
                match call.result {
                    // Going back repeats commands and no queries, so it must not go behind this.
                    GuestResult::Ok(_) | GuestResult::Rejected(_) => self.take_checkpoint()?,
                    GuestResult::Trapped(_) => self.undo()?,
                }
                call
            }
        };
        self.broken = false;
        Ok(call)
    }

    /// What is known of its module.
    pub(crate) fn report(&self) -> &ModuleReport {
        &self.compiled.report
    }

    /// Flips a bit such that nobody can tell of a write, as failing memory does.
    #[cfg(test)]
    pub(super) fn fail_bit(&mut self, at: usize) -> Result<(), HostFailure> {
        self.live.memory_mut()[at] ^= 1;
        self.live.forget_written()
    }

    /// What each idle fork holds of its own, in bytes.
    #[cfg(test)]
    pub(super) fn idle_private_bytes(&self) -> Vec<u64> {
        self.forks.private_bytes()
    }

    /// The live memory as the system sees it.
    #[cfg(test)]
    pub(super) fn region(&self) -> &Region {
        self.live.region()
    }

    /// What going back has cost so far.
    #[cfg(test)]
    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    /// The live memory and the globals.
    #[cfg(test)]
    pub(super) fn state(&mut self) -> (Vec<u8>, Vec<GlobalValue>) {
        (self.live.memory().to_vec(), self.live.globals().unwrap())
    }

    /// Makes the present state the one to go back to.
    fn take_checkpoint(&mut self) -> Result<(), HostFailure> {
        let written = self.checkpoint.take(&mut self.live)?;
        self.pace.learn(self.applied_fuel, written);
        self.effort.checkpoints += 1;
        self.taken_over = false;
        self.forget_applied();
        Ok(())
    }

    fn forget_applied(&mut self) {
        self.applied.clear();
        self.commands.clear();
        self.applied_fuel = 0;
    }

    /// See [`Exhibit::BatchHalfUndone`].
    fn forget_entry(&mut self, index: Index) {
        self.applied.retain(|applied| applied.context.position.index != index);
        self.commands.truncate(self.applied.last().map_or(0, |applied| applied.end));
        self.applied_fuel = self.applied.iter().map(|applied| applied.fuel_used).sum();
    }

    fn since_checkpoint(&self) -> Since {
        let buffered = self.commands.len() + self.applied.len() * APPLIED_OVERHEAD_BYTES;
        Since {
            fuel: self.applied_fuel,
            buffered_bytes: buffered as u64,
            memory_bytes: self.live.memory_bytes() as u64,
            is_shared: self.checkpoint.state().memory.is_shared(),
        }
    }

    /// Goes back to the state after the last of `applied`.
    fn undo(&mut self) -> Result<(), HostFailure> {
        if museum::is_on(Exhibit::TrapKeptAfterCheckpoint) && self.applied.is_empty() {
            return Ok(());
        }
        self.effort.undos += 1;
        let (written, successor) = self.checkpoint.put_back(&mut self.live, &self.compiled)?;
        if let Some(guest) = successor {
            self.effort.replaced += 1;
            self.replace_live(guest);
        }
        let mut start = 0;
        for (position, applied) in self.applied.iter().enumerate() {
            let command = &self.commands[start..applied.end];
            let ended = self
                .live
                .call(CallKind::Apply, applied.context, Given::Input(command), true)?
                .expect("`apply` is required");
            let same = ended.fuel_used == applied.fuel_used
                && ended.status.as_ref().is_ok_and(|status| *status == applied.status);
            if !same {
                return Err(HostFailure(format!(
                    "repeating command {} of {} since the checkpoint (position {}) went otherwise: \
                     fuel {} instead of {}, {:?} instead of status {}",
                    position + 1,
                    self.applied.len(),
                    applied.context.position,
                    ended.fuel_used,
                    applied.fuel_used,
                    ended.status,
                    applied.status
                )));
            }
            start = applied.end;
        }
        self.effort.repeated_commands += self.applied.len() as u64;
        self.effort.repeated_fuel += self.applied_fuel;
        tracing::debug!(effort = ?self.effort, "went back and repeated what came since");
        // The next trap must not repeat much again; where there is little to repeat, repeating
        // is cheaper than a checkpoint.
        if self.pace.is_due_after_undo(self.since_checkpoint(), written) {
            self.take_checkpoint()?;
        }
        Ok(())
    }

    fn replace_state(&mut self, state: GuestState) -> Result<(), ImageError> {
        let mut guest = Guest::live(&self.compiled, &self.limits, self.host.tracking.clone())?
            .map_err(|refused| HostFailure(format!("a fresh instance is refused: {refused}")))?;
        guest.load(&state, &self.host.workers)?.map_err(ImageError::Invalid)?;
        self.checkpoint = Checkpoint::loaded(state, &mut guest, &self.host.workers)?;
        self.replace_live(guest);
        self.forget_applied();
        (self.taken_over, self.broken) = (false, false);
        Ok(())
    }

    fn replace_live(&mut self, guest: Guest) {
        self.forks = Forks::new(&self.compiled, &self.host.workers);
        self.live = guest;
    }

    /// Runs `init`, `restore` or `adopt`: all or nothing.
    fn call_all_or_nothing(
        &mut self,
        kind: CallKind,
        context: Context,
        given: Given<'_>,
    ) -> Result<Option<Call>, HostFailure> {
        self.enter()?;
        let call = match self.live.call(kind, context, given, false)? {
            None => None,
            Some(ended) => {
                let call = finish(&mut self.live, kind, ended);
                self.live.state_mut().rest();
                match call.result {
                    GuestResult::Ok(_) => self.taken_over = true,
                    GuestResult::Rejected(_) | GuestResult::Trapped(_) => self.undo()?,
                }
                Some(call)
            }
        };
        self.broken = false;
        Ok(call)
    }

    /// Begins a call that changes `live`; the one who completes it clears `broken`.
    fn enter(&mut self) -> Result<(), HostFailure> {
        self.prepare()?;
        self.broken = true;
        Ok(())
    }

    fn check_not_broken(&self) -> Result<(), HostFailure> {
        match self.broken {
            true => Err(HostFailure("the state machine did not survive an earlier failure".into())),
            false => Ok(()),
        }
    }

    /// Asks what is no question of a client. Replicas compare what comes of it, so a failure of the
    /// fork is one of the host.
    fn ask(
        &mut self,
        kind: CallKind,
        context: Context,
        input: &[u8],
    ) -> Result<Option<Call>, HostFailure> {
        let finish = |fork: &mut Guest, ended| finish(fork, kind, ended);
        self.call_on_fork(kind, context, Given::Input(input), finish)?
    }

    /// Runs a call that changes nothing where nothing it does remains. The inner failure is that of the
    /// fork.
    fn call_on_fork<T>(
        &mut self,
        kind: CallKind,
        context: Context,
        given: Given<'_>,
        finish: impl Fn(&mut Guest, Ended) -> T,
    ) -> Result<Result<Option<T>, HostFailure>, HostFailure> {
        self.check_not_broken()?;
        let origin = self.live.origin()?;
        Ok(self.forks.call(&origin, kind, context, given, finish))
    }
}

impl Fsm for WasmFsm {
    fn module(&self) -> ModuleHash {
        self.compiled.report.hash
    }

    fn init(&mut self, context: Context) -> Result<Call, HostFailure> {
        let call = self.call_all_or_nothing(CallKind::Init, context, Given::Input(&[]))?;
        Ok(call.unwrap_or_else(|| without_running(GuestResult::Ok(Vec::new()))))
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        if let Some(call) = too_long("command", command, self.limits.input_max_bytes) {
            return Ok(call);
        }
        self.enter()?;
        let count_pages = std::mem::take(&mut self.count_pages) && self.live.is_watched();
        if count_pages {
            self.checkpoint.set_aside(&mut self.live)?;
        }
        let ended = self
            .live
            .call(CallKind::Apply, context, Given::Input(command), false)?
            .expect("`apply` is required");
        let applied = ended.status.as_ref().ok().map(|status| (*status, ended.fuel_used));
        let mut call = finish(&mut self.live, CallKind::Apply, ended);
        if count_pages {
            call.pages_dirtied = Some(self.checkpoint.written_since(&mut self.live)?);
        }
        match applied {
            Some((status, fuel_used)) => {
                self.commands.extend_from_slice(command);
                let end = self.commands.len();
                self.applied.push(Applied { context, end, status, fuel_used });
                self.applied_fuel = self.applied_fuel.saturating_add(fuel_used);
                if self.pace.is_due(self.since_checkpoint()) {
                    self.take_checkpoint()?;
                }
            }
            None => {
                if museum::is_on(Exhibit::BatchHalfUndone) {
                    self.forget_entry(context.position.index);
                }
                self.undo()?;
            }
        }
        self.broken = false;
        Ok(call)
    }

    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, QueryError> {
        if let Some(call) = too_long("query", query, self.limits.input_max_bytes) {
            return Ok(call);
        }
        match self.has_query() {
            true => {
                let (kind, query) = (CallKind::Query, Given::Input(query));
                let finish = |fork: &mut Guest, ended| finish(fork, kind, ended);
                Ok(answered(self.call_on_fork(kind, context, query, finish)?)?)
            }
            false => Ok(without_query()),
        }
    }

    fn query_all(&mut self, context: Context, queries: &[Bytes]) -> Result<Vec<Call>, QueryError> {
        let max = self.limits.input_max_bytes;
        let is_long = |query: &Bytes| query.len() as u64 > max;
        if !self.has_query() || queries.iter().any(is_long) {
            return queries.iter().map(|query| self.query(context, query)).collect();
        }
        let answers = self.query_some(context, queries, u64::MAX)?;
        answers.into_iter().map(|answer| Ok(answer?)).collect()
    }

    fn query_some(
        &mut self,
        context: Context,
        queries: &[Bytes],
        enough: u64,
    ) -> Result<Vec<Result<Call, Unanswered>>, HostFailure> {
        let max = self.limits.input_max_bytes;
        let few = queries.iter().take_while(|query| query.len() as u64 <= max).count();
        if few <= 1 || !self.has_query() {
            // One is enough of an answer; whoever asks knows what is too long.
            let first = queries.iter().take(1);
            return first.map(|query| one_of_several(self.query(context, query))).collect();
        }
        self.check_not_broken()?;
        let origin = self.live.origin()?;
        let finish = |fork: &mut Guest, ended| finish(fork, CallKind::Query, ended);
        Ok(self.forks.query_some(&origin, context, &queries[..few], enough, finish))
    }

    fn bystander(&mut self) -> Result<Option<Box<dyn Bystander>>, HostFailure> {
        self.check_not_broken()?;
        if !self.has_query() {
            return Ok(None);
        }
        let apart = Apart::from(&self.compiled, &mut self.live, finish)?;
        Ok(Some(Box::new(apart)))
    }

    fn memory_bytes(&self) -> u64 {
        self.live.memory_bytes() as u64
    }

    fn has_query(&self) -> bool {
        self.compiled.report.has_query
    }

    fn has_classes(&self) -> bool {
        self.compiled.report.has_classes
    }

    fn classify(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        if !self.has_classes() {
            return Ok(Call::nothing());
        }
        if let Some(call) = too_long("command", command, self.limits.input_max_bytes) {
            return Ok(call);
        }
        let call = self.ask(CallKind::Classify, context, command)?;
        Ok(call.expect("a module with `classify` was asked"))
    }

    fn snapshot(&mut self, context: Context) -> Result<Call, HostFailure> {
        let mut written = Written::kept();
        let mut call = self.snapshot_into(context, &mut written)?;
        if let GuestResult::Ok(output) = &mut call.result {
            *output = written.into_pile().into_vec();
        }
        Ok(call)
    }

    fn snapshot_into(
        &mut self,
        context: Context,
        written: &mut Written,
    ) -> Result<Call, HostFailure> {
        let (kind, given) = (CallKind::Snapshot, Given::Written(std::mem::take(written)));
        let finish = |fork: &mut Guest, ended| {
            let written = fork.state_mut().take_written().unwrap_or_default();
            (finish(fork, kind, ended), written)
        };
        let called = self.call_on_fork(kind, context, given, finish)??;
        // A guest that writes its state out dirties much of its fork, and a new guest follows.
        self.forks.release();
        let (mut call, all) = called.expect("`snapshot` is required");
        if let GuestResult::Rejected(reason) = &mut call.result {
            *reason = all.head().to_vec();
        }
        *written = all;
        Ok(call)
    }

    fn restore(&mut self, context: Context, snapshot: &[u8]) -> Result<Call, HostFailure> {
        self.restore_from(context, Pile::from(Bytes::copy_from_slice(snapshot)))
    }

    fn restore_from(&mut self, context: Context, portable: Pile) -> Result<Call, HostFailure> {
        let max = self.limits.snapshot_max_bytes.min(u64::from(u32::MAX));
        if let Some(call) = beyond("snapshot", portable.len(), max) {
            return Ok(call);
        }
        let given = Given::Portable(portable);
        let call = self.call_all_or_nothing(CallKind::Restore, context, given)?;
        Ok(call.expect("`restore` is required"))
    }

    fn prepare(&mut self) -> Result<(), HostFailure> {
        self.check_not_broken()?;
        if self.taken_over {
            self.broken = true;
            self.take_checkpoint()?;
            self.broken = false;
        }
        Ok(())
    }

    fn has_check(&self) -> bool {
        self.compiled.report.has_check
    }

    fn check(&mut self, context: Context) -> Result<Call, HostFailure> {
        let call = self.ask(CallKind::Check, context, &[])?;
        // As after a snapshot: it may have collected its garbage.
        self.forks.release();
        Ok(call.unwrap_or_else(Call::nothing))
    }

    fn state_version(&mut self, context: Context) -> Result<Call, HostFailure> {
        let call = self.ask(CallKind::StateVersion, context, &[])?;
        Ok(call.unwrap_or_else(Call::nothing))
    }

    fn restores(&mut self, context: Context, version: &[u8]) -> Result<Call, HostFailure> {
        let max = abi::STATE_VERSION_MAX_BYTES as u64;
        if let Some(call) = too_long("name of a format", version, max) {
            return Ok(call);
        }
        let call = self.ask(CallKind::Restores, context, version)?;
        Ok(call.unwrap_or_else(Call::nothing))
    }

    fn has_take_over(&self) -> bool {
        self.compiled.report.has_adopt
    }

    fn take_over(&mut self, context: Context, from: &dyn Image) -> Result<Call, HostFailure> {
        let from: &dyn Any = from;
        let from = from
            .downcast_ref::<WasmImage>()
            .ok_or_else(|| HostFailure("the image to take over is not of a guest".to_owned()))?;
        self.live.state_mut().lend(Some(from.state.clone()));
        let given = Given::Input(&from.module.0);
        let call = self.call_all_or_nothing(CallKind::Adopt, context, given);
        self.live.state_mut().lend(None);
        call?.ok_or_else(|| HostFailure("a module without `adopt` was told to adopt".to_owned()))
    }

    /// Looks at the live memory even if no command has run since the last checkpoint: what
    /// was written behind everybody's back counts.
    fn digest(&mut self) -> Result<GuestDigest, HostFailure> {
        self.check_not_broken()?;
        self.checkpoint.sweep(&self.live)?;
        self.take_checkpoint()?;
        Ok(self.checkpoint.digest())
    }

    fn count_pages(&mut self) {
        self.count_pages = true;
    }

    #[cfg(feature = "museum")]
    fn flip_bit(&mut self, at: u64) {
        self.live.flip_bit(at);
    }

    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure> {
        self.prepare()?;
        if !self.applied.is_empty() {
            self.take_checkpoint()?;
        }
        let state = self.checkpoint.state().clone();
        let workers = Arc::clone(&self.host.workers);
        Ok(Box::new(WasmImage { module: self.module(), state, workers }))
    }

    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError> {
        let (module, max) = (self.module(), self.limits.memory_max_bytes);
        let state = read_state(image, module, max, &self.host.workers)?;
        self.replace_state(state)
    }

    fn adopt(&mut self, image: &dyn Image) -> Result<(), ImageError> {
        let image: &dyn Any = image;
        let image = image
            .downcast_ref::<WasmImage>()
            .filter(|image| image.module == self.module())
            .ok_or_else(|| ImageError::Invalid("it is not of this module".to_owned()))?;
        let (bytes, max) = (image.state.memory.len_bytes() as u64, self.limits.memory_max_bytes);
        if bytes > max {
            return Err(ImageError::Invalid(format!(
                "its memory has grown to {bytes} bytes already, and memory does not shrink; \
                 {max} would be allowed"
            )));
        }
        self.replace_state(image.state.clone())
    }
}

/// Takes a call's output and events out of the guest.
fn finish(guest: &mut Guest, kind: CallKind, ended: Ended) -> Call {
    let state = guest.state_mut();
    let output = std::mem::take(&mut state.output);
    let events = std::mem::take(&mut state.events);
    let done = matches!(ended.status, Ok(0));
    // Only what replicas do together is announced.
    let announced = done && matches!(kind, CallKind::Apply | CallKind::Init);
    let result = match ended.status {
        Ok(0) => GuestResult::Ok(output),
        Ok(_) => GuestResult::Rejected(output),
        Err(Trap { kind, message }) => GuestResult::Trapped(Trap { kind, message }),
    };
    Call {
        result,
        fuel_used: ended.fuel_used,
        events: if announced { events } else { Vec::new() },
        pages_dirtied: None,
    }
}

fn too_long(what: &str, input: &[u8], max: u64) -> Option<Call> {
    beyond(what, input.len() as u64, max)
}

fn beyond(what: &str, len: u64, max: u64) -> Option<Call> {
    (len > max).then(|| {
        let reason = format!("the {what} has {len} bytes; the limit is {max}");
        without_running(GuestResult::Rejected(reason.into_bytes()))
    })
}

fn without_query() -> Call {
    let reason = "this module answers no queries: it does not export `query`";
    without_running(GuestResult::Rejected(reason.into()))
}

fn without_running(result: GuestResult) -> Call {
    Call { result, fuel_used: 0, events: Vec::new(), pages_dirtied: None }
}
