//! How a node lingers before it stops.
//!
//! In doubt, it waits for the voter that decides, and stops late: started again, it executes its log
//! again, which may decide as well.
//!
//! At an engine profile or level that its program does not offer, it leaves its state where the next
//! program finds it, lingers so that the others can learn what is committed, and stops.
//!
//! ```text
//!   apply loop   … entry 41 · SetEngine at 42 · snapshot at 42 saved ─► halted: nothing more
//!   event loop   …………………………………………………… Halted ─► an election timeout of consensus ─► stop
//! ```

use crate::museum::{self, Exhibit};
use crate::node::stop::StopReason;

/// Why to stop, and after how many more ticks.
struct Halting {
    why: String,
    ticks_left: usize,
}

/// Election timeouts for which a node in doubt waits for the voter that decides.
const DOUBT_TIMEOUTS: usize = 64;

/// See the module.
pub(super) struct Lingering {
    /// Nothing says whether the machine's state is right.
    doubting: Option<Halting>,
    /// The machine applies nothing more.
    halting: Option<Halting>,
    /// How long the node then takes part in consensus.
    ticks: usize,
}

impl Lingering {
    pub(super) fn new(ticks: usize) -> Lingering {
        Lingering { doubting: None, halting: None, ticks }
    }

    /// Nothing says whether the machine's state is right, for this reason; or that is over.
    pub(super) fn on_doubted(&mut self, why: Option<String>) {
        let ticks_left = self.ticks * DOUBT_TIMEOUTS;
        self.doubting = why.map(|why| Halting { why, ticks_left });
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubting.is_some() && !museum::is_on(Exhibit::DoubtAnswers)
    }

    /// The machine applies nothing more, for this reason.
    pub(super) fn on_halted(&mut self, why: String) {
        self.halting = Some(Halting { why, ticks_left: self.ticks });
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halting.is_some()
    }

    /// The others must be able to learn that what stops this node is committed, so that they come to
    /// the same end without it. Says why to stop when it is time.
    pub(super) fn on_tick(&mut self) -> Option<StopReason> {
        let mut stop = None;
        if let Some(doubting) = &mut self.doubting {
            match doubting.ticks_left.checked_sub(1) {
                Some(left) => doubting.ticks_left = left,
                None => {
                    let context = "the voter that decides is still missing";
                    stop = Some(StopReason::Failed(format!("{context}: {}", doubting.why)));
                }
            }
        }
        if let Some(halting) = &mut self.halting {
            match halting.ticks_left.checked_sub(1) {
                Some(left) => halting.ticks_left = left,
                None => {
                    let why = StopReason::Program(std::mem::take(&mut halting.why));
                    stop = stop.or(Some(why));
                }
            }
        }
        stop
    }
}
