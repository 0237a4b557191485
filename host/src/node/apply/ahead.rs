//! Makes the instance of a module beside that is to take over from a fork, while entries are applied.
//!
//! ```text
//!   apply thread ─ ForkState ─ 42 ─ 43 ─ 44 ─ ActivateModule: takes the instance, executes what is left
//!   ahead            └─ snapshot, restore ─ 42 ─ 43 ─┘
//! ```
//!
//! A stepped node does without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fsm::{GUEST_STACK_BYTES, HostFailure};
use crate::machine::{self, AheadJob};
use crate::node::ahead::{AheadBoard, AheadStatus};
use crate::node::stop::{StopOnPanic, Stops};

/// Commands between two looks at whether the activation has come.
const STEP: u64 = 64;
/// How long it rests when it has executed all that the machine has.
const REST: Duration = Duration::from_millis(1);

/// An instance that is being made.
pub(super) struct Making {
    thread: JoinHandle<Result<AheadJob, HostFailure>>,
    stop: Arc<AtomicBool>,
}

impl Making {
    /// Begins with it.
    pub(super) fn begin(job: AheadJob, board: &Arc<AheadBoard>, stops: Stops) -> Option<Making> {
        let stop = Arc::new(AtomicBool::new(false));
        let (board, stopped) = (Arc::clone(board), Arc::clone(&stop));
        let spawned = std::thread::Builder::new()
            .name("ahead".into())
            .stack_size(GUEST_STACK_BYTES)
            .spawn(move || {
                let _guard = StopOnPanic(stops, "ahead");
                go_on(job, &board, &stopped)
            });
        match spawned {
            Ok(thread) => Some(Making { thread, stop }),
            Err(error) => not_ahead(&error),
        }
    }

    /// The instance as far as it is.
    pub(super) fn end(self) -> Option<AheadJob> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(Ok(job)) => Some(job),
            Ok(Err(failure)) => not_ahead(&failure),
            // Which stops the node.
            Err(_) => not_ahead(&HostFailure("whoever made it has panicked".to_owned())),
        }
    }

    /// Nobody wants it any more: it ends by itself.
    pub(super) fn leave(self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// It is done at the activation then.
fn not_ahead<T>(error: &dyn std::error::Error) -> Option<T> {
    tracing::warn!(%error, "no instance of the module is made ahead of its activation");
    None
}

fn go_on(
    mut job: AheadJob,
    board: &AheadBoard,
    stop: &AtomicBool,
) -> Result<AheadJob, HostFailure> {
    let fork = job.fork();
    board.show(AheadStatus { fork, ..AheadStatus::default() });
    while !stop.load(Ordering::Acquire) {
        let ahead = job.advance(STEP)?;
        let refused = match &ahead {
            machine::Ahead::Refused(why) => Some(why.clone()),
            _ => None,
        };
        board.show(AheadStatus { fork, has_begun: true, executed: job.commands(), refused });
        match ahead {
            machine::Ahead::Behind => {}
            machine::Ahead::UpToDate => std::thread::sleep(REST),
            machine::Ahead::Refused(_) | machine::Ahead::Gone => break,
        }
    }
    Ok(job)
}
