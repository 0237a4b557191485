//! The state machine around guests: a live instance, a fork of it for questions, and a
//! checkpoint to go back to.
//!
//! A trap is undone by going back to the last checkpoint and repeating the calls since, without
//! the one that trapped. Each repeated call must use the same fuel and give
//! the same status as before; otherwise something is wrong with this host, and it stops.
//!
//! A rejected command is *not* undone. The guest promises that it changed nothing a user
//! could see; what it may change is its heap's layout, and it does so identically on every
//! replica, because every replica runs the command. Undoing would make the cheapest answers
//! (a failed compare-and-swap, say) the most expensive ones. `init` and `restore`, which are
//! rare, are undone when rejected.

use std::any::Any;
use std::io::Read;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::abi::CallKind;
use super::guest::{Compiled, Ended, Guest};
use super::image::{GuestState, WasmImage, read_state};
use crate::fsm::{
    Call, Context, Fsm, GuestDigest, GuestResult, HostFailure, Image, ImageError, Limits,
    ModuleRefused, Trap,
};
use crate::museum::{self, Exhibit};
use crate::types::{ModuleHash, StateDigest};

/// A checkpoint is due when the calls since the last one have used this much fuel for each
/// byte of memory. Copying a byte takes about as long as one unit of fuel, so this bounds the
/// cost at one or two percent, and the time that one undo takes at some dozens of copies.
const CHECKPOINT_FUEL_PER_BYTE: u64 = 64;
/// Also due when the commands to repeat take as many bytes as the memory itself, in bounds.
const BUFFERED_BYTES_MIN: usize = 8 << 20;
const BUFFERED_BYTES_MAX: usize = 256 << 20;
/// What remembering a command costs beyond its bytes.
const APPLIED_OVERHEAD_BYTES: usize = 64;

/// A command that was applied after the checkpoint.
struct Applied {
    context: Context,
    /// Its end within `WasmFsm::commands`; it starts where the previous one ends.
    end: usize,
    status: i32,
    fuel_used: u64,
}

/// [`Fsm`] by a sandboxed guest.
pub(super) struct WasmFsm {
    compiled: Arc<Compiled>,
    limits: Arc<Limits>,
    live: Guest,
    /// Shares memory with `live`: dropped whenever `live` is replaced.
    fork: Option<Guest>,
    /// The state before the first of `applied`. Images in the making share it.
    checkpoint: Arc<GuestState>,
    applied: Vec<Applied>,
    /// The bytes of `applied`, one after the other.
    commands: Vec<u8>,
    /// Sum over `applied`.
    applied_fuel: u64,
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
        context: Option<Context>,
    ) -> Result<Result<WasmFsm, ModuleRefused>, HostFailure> {
        let limits = Arc::new(limits.clone());
        let mut live = match Guest::live(&compiled, &limits)? {
            Ok(live) => live,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(context) = context
            && let Err(refused) = live.initialize(&compiled, context)?
        {
            return Ok(Err(refused));
        }
        let mut checkpoint = GuestState::default();
        live.save(&mut checkpoint)?;
        Ok(Ok(WasmFsm {
            compiled,
            limits,
            live,
            fork: None,
            checkpoint: Arc::new(checkpoint),
            applied: Vec::new(),
            commands: Vec::new(),
            applied_fuel: 0,
            broken: false,
        }))
    }

    /// Makes the present state the one to go back to.
    fn take_checkpoint(&mut self) -> Result<(), HostFailure> {
        // An image in the making keeps the old one alive; then its memory cannot be reused.
        if Arc::get_mut(&mut self.checkpoint).is_none() {
            self.checkpoint = Arc::default();
        }
        let checkpoint = Arc::get_mut(&mut self.checkpoint).expect("nobody else has it");
        self.live.save(checkpoint)?;
        self.forget_applied();
        Ok(())
    }

    fn forget_applied(&mut self) {
        self.applied.clear();
        self.commands.clear();
        self.applied_fuel = 0;
    }

    fn checkpoint_is_due(&self) -> bool {
        let memory_bytes = self.live.memory_bytes();
        let buffered = self.commands.len() + self.applied.len() * APPLIED_OVERHEAD_BYTES;
        self.applied_fuel > CHECKPOINT_FUEL_PER_BYTE * memory_bytes as u64
            || buffered > memory_bytes.clamp(BUFFERED_BYTES_MIN, BUFFERED_BYTES_MAX)
    }

    /// A fresh instance in `state`.
    fn instance_in(&self, state: &GuestState) -> Result<Result<Guest, String>, HostFailure> {
        let mut guest = Guest::live(&self.compiled, &self.limits)?
            .map_err(|refused| HostFailure(format!("a fresh instance is refused: {refused}")))?;
        Ok(guest.load(state)?.map(|()| guest))
    }

    /// Goes back to the state after the last of `applied`.
    fn undo(&mut self) -> Result<(), HostFailure> {
        if museum::is_on(Exhibit::TrapKeptAfterCheckpoint) && self.applied.is_empty() {
            return Ok(());
        }
        if !self.live.rewind(&self.checkpoint)? {
            let guest = self
                .instance_in(&self.checkpoint)?
                .map_err(|what| HostFailure(format!("the checkpoint does not fit: {what}")))?;
            self.replace_live(guest);
        }
        let mut start = 0;
        for (position, applied) in self.applied.iter().enumerate() {
            let command = &self.commands[start..applied.end];
            let ended = self
                .live
                .call(CallKind::Apply, applied.context, command, true)?
                .expect("`apply` is required");
            let same = ended.fuel_used == applied.fuel_used
                && ended.status.as_ref().is_ok_and(|status| *status == applied.status);
            if !same {
                return Err(HostFailure(format!(
                    "repeating command {} of {} since the checkpoint (index {}) went otherwise: \
                     fuel {} instead of {}, {:?} instead of status {}",
                    position + 1,
                    self.applied.len(),
                    applied.context.index.0,
                    ended.fuel_used,
                    applied.fuel_used,
                    ended.status,
                    applied.status
                )));
            }
            start = applied.end;
        }
        // The next trap must not repeat much again; where there is little to repeat, repeating
        // is cheaper than copying all of the memory.
        if self.applied_fuel > self.live.memory_bytes() as u64 {
            self.take_checkpoint()?;
        }
        Ok(())
    }

    fn replace_state(&mut self, state: Arc<GuestState>) -> Result<(), ImageError> {
        let guest = self.instance_in(&state)?.map_err(ImageError::Invalid)?;
        self.replace_live(guest);
        self.checkpoint = state;
        self.forget_applied();
        self.broken = false;
        Ok(())
    }

    fn replace_live(&mut self, guest: Guest) {
        self.fork = None;
        self.live = guest;
    }

    /// Runs `init` or `restore`: all or nothing.
    fn call_all_or_nothing(
        &mut self,
        kind: CallKind,
        context: Context,
        input: &[u8],
    ) -> Result<Option<Call>, HostFailure> {
        self.enter()?;
        let call = match self.live.call(kind, context, input, false)? {
            None => None,
            Some(ended) => {
                let call = finish(&mut self.live, kind, ended);
                match call.result {
                    GuestResult::Ok(_) => self.take_checkpoint()?,
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
        self.check_not_broken()?;
        self.broken = true;
        Ok(())
    }

    fn check_not_broken(&self) -> Result<(), HostFailure> {
        match self.broken {
            true => Err(HostFailure("the state machine did not survive an earlier failure".into())),
            false => Ok(()),
        }
    }

    /// Runs `query` or `snapshot` where nothing it does remains.
    fn call_on_fork(
        &mut self,
        kind: CallKind,
        context: Context,
        input: &[u8],
    ) -> Result<Option<Call>, HostFailure> {
        self.check_not_broken()?;
        let mut fork = match self.fork.take() {
            Some(fork) => fork,
            None => self.live.fork(&self.compiled)?,
        };
        if !fork.follow(&mut self.live)? {
            fork = self.live.fork(&self.compiled)?;
            let followed = fork.follow(&mut self.live)?;
            assert!(followed, "a new fork is no larger than the live instance");
        }
        let Some(ended) = fork.call(kind, context, input, false)? else {
            return Ok(None);
        };
        let call = finish(&mut fork, kind, ended);
        // Nothing speaks against reusing an instance that trapped, but nothing is gained.
        if !matches!(call.result, GuestResult::Trapped(_)) {
            self.fork = Some(fork);
        }
        Ok(Some(call))
    }
}

impl Fsm for WasmFsm {
    fn module(&self) -> ModuleHash {
        self.compiled.report.hash
    }

    fn init(&mut self, context: Context) -> Result<Call, HostFailure> {
        let call = self.call_all_or_nothing(CallKind::Init, context, &[])?;
        Ok(call.unwrap_or_else(|| without_running(GuestResult::Ok(Vec::new()))))
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        if let Some(call) = too_long("command", command, self.limits.input_max_bytes) {
            return Ok(call);
        }
        self.enter()?;
        let ended =
            self.live.call(CallKind::Apply, context, command, false)?.expect("`apply` is required");
        let applied = ended.status.as_ref().ok().map(|status| (*status, ended.fuel_used));
        let call = finish(&mut self.live, CallKind::Apply, ended);
        match applied {
            Some((status, fuel_used)) => {
                self.commands.extend_from_slice(command);
                let end = self.commands.len();
                self.applied.push(Applied { context, end, status, fuel_used });
                self.applied_fuel = self.applied_fuel.saturating_add(fuel_used);
                if self.checkpoint_is_due() {
                    self.take_checkpoint()?;
                }
            }
            None => self.undo()?,
        }
        self.broken = false;
        Ok(call)
    }

    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, HostFailure> {
        if let Some(call) = too_long("query", query, self.limits.input_max_bytes) {
            return Ok(call);
        }
        let call = match self.has_query() {
            true => self.call_on_fork(CallKind::Query, context, query)?,
            false => None,
        };
        Ok(call.unwrap_or_else(|| {
            let reason = "this module answers no queries: it does not export `query`";
            without_running(GuestResult::Rejected(reason.into()))
        }))
    }

    fn has_query(&self) -> bool {
        self.compiled.report.has_query
    }

    fn snapshot(&mut self, context: Context) -> Result<Call, HostFailure> {
        let call = self.call_on_fork(CallKind::Snapshot, context, &[])?;
        Ok(call.expect("`snapshot` is required"))
    }

    fn restore(&mut self, context: Context, snapshot: &[u8]) -> Result<Call, HostFailure> {
        let max = self.limits.snapshot_max_bytes.min(u64::from(u32::MAX));
        if let Some(call) = too_long("snapshot", snapshot, max) {
            return Ok(call);
        }
        let call = self.call_all_or_nothing(CallKind::Restore, context, snapshot)?;
        Ok(call.expect("`restore` is required"))
    }

    /// Digests everything each time.
    fn digest(&mut self) -> Result<GuestDigest, HostFailure> {
        self.check_not_broken()?;
        if !self.applied.is_empty() {
            self.take_checkpoint()?;
        }
        let state = &*self.checkpoint;
        let mut hasher = Sha256::new();
        hasher.update(&state.memory);
        for global in &state.globals {
            hasher.update([global.ty]);
            hasher.update(global.bits.to_le_bytes());
        }
        let changed = std::iter::once(0..state.memory.len() as u64).collect();
        Ok(GuestDigest { digest: StateDigest(hasher.finalize().into()), changed })
    }

    #[cfg(feature = "museum")]
    fn flip_bit(&mut self, at: u64) {
        self.live.flip_bit(at);
    }

    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure> {
        self.check_not_broken()?;
        if !self.applied.is_empty() {
            self.take_checkpoint()?;
        }
        let state = Arc::clone(&self.checkpoint);
        Ok(Box::new(WasmImage { module: self.module(), state }))
    }

    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError> {
        let state = read_state(image, self.module(), self.limits.memory_max_bytes)?;
        self.replace_state(Arc::new(state))
    }

    fn adopt(&mut self, image: &dyn Image) -> Result<(), ImageError> {
        let image: &dyn Any = image;
        let image = image
            .downcast_ref::<WasmImage>()
            .filter(|image| image.module == self.module())
            .ok_or_else(|| ImageError::Invalid("it is not of this module".to_owned()))?;
        let (bytes, max) = (image.state.memory.len() as u64, self.limits.memory_max_bytes);
        if bytes > max {
            return Err(ImageError::Invalid(format!(
                "its memory has grown to {bytes} bytes already, and memory does not shrink; \
                 {max} would be allowed"
            )));
        }
        self.replace_state(Arc::clone(&image.state))
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
    let len = input.len() as u64;
    (len > max).then(|| {
        let reason = format!("the {what} has {len} bytes; the limit is {max}");
        without_running(GuestResult::Rejected(reason.into_bytes()))
    })
}

fn without_running(result: GuestResult) -> Call {
    Call { result, fuel_used: 0, events: Vec::new(), pages_dirtied: None }
}
