//! How a node lingers before it stops.
//!
//! In doubt, it waits for the voter that decides, and stops late: started again, it executes its log
//! again, which may decide as well.
//!
//! What a node does at an engine profile or level that its program does not offer: it leaves its state
//! where the next program finds it, lingers so that the others can learn what is committed, and stops.
//!
//! ```text
//!   apply loop   … entry 41 · SetEngine at 42 · snapshot at 42 saved ─► halted: nothing more
//!   event loop   …………………………………………………… Halted ─► an election timeout of consensus ─► stop
//! ```

use super::apply::{ApplyError, ApplyLoop};
use super::event_loop::{Event, EventLoop};
use super::pack::Cost;
use super::snapshots::{self, SaveJob};
use super::stop::StopReason;
use crate::fsm::EngineUnsupported;
use crate::machine::Unsupported;
use crate::museum::{self, Exhibit};

impl ApplyLoop {
    /// Before anybody hears of the new profile or level, the state must be where the program that offers it
    /// finds it. A crash before that repeats the change.
    pub(super) fn halt_unless_supported(&mut self) -> Result<(), ApplyError> {
        let machine = self.machine.as_ref().expect("it has applied something");
        let Err(unsupported) = machine.program_supported() else { return Ok(()) };
        let is_ignored = match &unsupported {
            Unsupported::Engine(_) => museum::is_on(Exhibit::EngineIgnored),
            Unsupported::Level { .. } => museum::is_on(Exhibit::UnknownFieldIgnored),
        };
        if is_ignored {
            return Ok(());
        }
        let index = machine.applied_index();
        let what_to_do = match self.trust.refuses_snapshots() {
            None => {
                let SaveJob { meta, image } = self.snapshot_job()?;
                let meta = snapshots::save(&*self.snapshots, self.policy.keep(), meta, &image)?;
                tracing::info!(
                    %index, bytes = meta.size_bytes, "snapshot saved for another version of the program"
                );
                // An event loop that has ended needs no news.
                let _ = self.events.send(Event::Applied(
                    index,
                    self.trust.since_point,
                    Cost::default(),
                ));
                let _ = self.events.send(Event::SnapshotSaved(meta));
                "start a version of raft-host that offers the former on the same data directory"
                    .to_owned()
            }
            // The next program must not begin with a state that went wrong.
            Some(reason) => format!(
                "{reason}; start this version again, which executes its log again up to this \
                 change, or is sent a state by the others"
            ),
        };
        self.halted = true;
        self.waiting.clear();
        self.asked.clear();
        let why = match unsupported {
            Unsupported::Engine(EngineUnsupported { wanted, offered }) => format!(
                "since entry {index} the cluster's engine profile is {wanted}, and this program \
                 offers {offered}: {what_to_do}"
            ),
            Unsupported::Level { wanted, offered } => format!(
                "since entry {index} the cluster's level is {wanted}, and this program offers \
                 {offered}: {what_to_do}. A level is never lowered"
            ),
        };
        let _ = self.events.send(Event::Halted(why));
        Ok(())
    }
}

/// Why to stop, and after how many more ticks.
pub(super) struct Halting {
    why: String,
    ticks_left: usize,
}

/// Election timeouts for which a node in doubt waits for the voter that decides.
const DOUBT_TIMEOUTS: usize = 64;

impl EventLoop {
    pub(super) fn on_doubted(&mut self, why: Option<String>) {
        let ticks_left = self.linger_ticks * DOUBT_TIMEOUTS;
        self.doubting = why.map(|why| Halting { why, ticks_left });
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubting.is_some() && !museum::is_on(Exhibit::DoubtAnswers)
    }

    pub(super) fn on_halted(&mut self, why: String) {
        self.halting = Some(Halting { why, ticks_left: self.linger_ticks });
    }

    /// The others must be able to learn that what stops this node is committed, so that they come to
    /// the same end without it.
    pub(super) fn linger(&mut self) {
        if let Some(doubting) = &mut self.doubting {
            match doubting.ticks_left.checked_sub(1) {
                Some(left) => doubting.ticks_left = left,
                None => self.stop.fail("the voter that decides is still missing", &doubting.why),
            }
        }
        if let Some(halting) = &mut self.halting {
            match halting.ticks_left.checked_sub(1) {
                Some(left) => halting.ticks_left = left,
                None => self.stop.stop(StopReason::Program(std::mem::take(&mut halting.why))),
            }
        }
    }
}
