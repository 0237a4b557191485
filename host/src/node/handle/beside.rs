//! Guests that run beside the node: on a thread that leaves the processor to others, and only if there is memory for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::fsm::{GUEST_STACK_BYTES, Limits};
use crate::node::priority::yield_to_others;
use crate::node::room::MachineMemory;
use crate::node::shadow::SHADOW_MAX;
use crate::node::stop::{StopOnPanic, Stops};
use crate::rehearsal::RehearsalError;
use crate::storage::StorageError;
use crate::text::human_bytes;
use crate::types::{Index, ModuleHash};

/// What such guests may take beside their memory.
pub(super) const REST_BYTES: u64 = 64 << 20;

/// Why there was no rehearsal, or no shadow, on this node.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalFailure {
    /// One at a time.
    #[error("this node is at another rehearsal or shadow: try again when that is done")]
    Busy,
    /// It would take too much memory.
    #[error(
        "a rehearsal or shadow may take {} of memory, and this node has {} left: ask another node for it (--on), \
         or give this one more memory",
        human_bytes(*.takes), human_bytes(*.available)
    )]
    NoRoom {
        /// What it may come to take, in bytes.
        takes: u64,
        /// What there is.
        available: u64,
    },
    /// The group does not hold the module, as far as this node has applied the log.
    #[error("this node has no module {0} yet: try again in a moment")]
    NotHeld(ModuleHash),
    /// No state is stored that the stored log goes on from.
    #[error(
        "this node retains no state to begin with: take a snapshot (`raft-host snapshot take`)"
    )]
    NoState,
    /// Nobody shadows for so long, or for no time at all.
    #[error("a shadow runs for 1 ms to {} h, not for {} ms", SHADOW_MAX.as_secs() / 3_600, .0.as_millis())]
    WrongDuration(Duration),
    /// Its stored state does not become a machine.
    #[error("this node's retained state at index {0} cannot be used: {1}")]
    State(Index, String),
    /// See there.
    #[error(transparent)]
    Rehearsal(#[from] RehearsalError),
    /// The system has no thread to give.
    #[error("no thread for it: {0}")]
    NoThread(#[from] std::io::Error),
    /// No copy of the state can be had.
    #[error("{0}")]
    NoCopy(String),
    /// The active module cannot be undone by a rewind.
    #[error("the way back is not open: {0}")]
    NoWayBack(String),
    /// It broke.
    #[error("the rehearsal broke off; this node's log says why")]
    BrokenOff,
}

impl From<StorageError> for RehearsalFailure {
    fn from(error: StorageError) -> RehearsalFailure {
        RehearsalError::from(error).into()
    }
}

/// Work on a thread of its own. When this goes, the work is told.
pub(super) struct Beside<T> {
    receiver: oneshot::Receiver<Result<T, RehearsalFailure>>,
    _wish: Wish,
}

/// Says that nobody wants it any more when it goes.
struct Wish(Arc<AtomicBool>);

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Beside<T> {
    /// What came of it. May be given up and awaited again.
    pub(super) async fn done(&mut self) -> Result<T, RehearsalFailure> {
        (&mut self.receiver).await.map_err(|_| RehearsalFailure::BrokenOff)?
    }
}

/// Runs guests on a thread that leaves the processor to others. `work` is given what says whether anybody still wants it.
/// If it panics, that stops the groups of `stops`.
pub(super) fn beside<T: Send + 'static>(
    name: &'static str,
    permit: OwnedSemaphorePermit,
    stops: Stops,
    work: impl FnOnce(&AtomicBool) -> Result<T, RehearsalFailure> + Send + 'static,
) -> Result<Beside<T>, RehearsalFailure> {
    let (sender, receiver) = oneshot::channel();
    let unwanted = Arc::new(AtomicBool::new(false));
    let wish = Wish(Arc::clone(&unwanted));
    std::thread::Builder::new().name(name.to_owned()).stack_size(GUEST_STACK_BYTES).spawn(
        move || {
            let _guard = StopOnPanic(stops, name);
            yield_to_others();
            // What guests say is no news of this node's state.
            let silence = tracing::subscriber::NoSubscriber::default();
            let found = tracing::subscriber::with_default(silence, || work(&unwanted));
            // Who hears of it may ask for the next one at once.
            drop(permit);
            // Whoever waited has gone.
            let _ = sender.send(found);
        },
    )?;
    Ok(Beside { receiver, _wish: wish })
}

/// What a portable snapshot of a guest takes at most: hardly one is longer than the memory that it is of.
pub(super) fn snapshot_bytes(guest_bytes: u64, limits: &Limits) -> u64 {
    limits.snapshot_max_bytes.min(guest_bytes)
}

/// What the memory of a guest comes to at most that takes the state over from one of `guest_bytes`: if its `restore`
/// reads all of the snapshot before it goes on, that is there as well, and memory is never given back.
pub(super) fn successor_bytes(guest_bytes: u64, limits: &Limits) -> u64 {
    guest_bytes.saturating_add(snapshot_bytes(guest_bytes, limits))
}

/// Whether so many bytes can be had beside what is there.
pub(super) fn fits(takes: u64) -> Result<(), RehearsalFailure> {
    let Some(memory) = MachineMemory::now() else { return Ok(()) };
    match takes <= memory.available {
        true => Ok(()),
        false => Err(RehearsalFailure::NoRoom { takes, available: memory.available }),
    }
}
