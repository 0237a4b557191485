//! The log's clock: as of the last entry, and never going back.

use raft_host_proto::stored;

use super::core::State;
use super::reply::Reply;
use crate::museum::{self, Exhibit};

/// The latest time that the log's clock can show: the end of the year 9999. In milliseconds since
/// the Unix epoch.
pub const TIME_MAX_MS: u64 = 253_402_300_799_999;

impl State {
    /// Takes an entry's time in, and lets go what is over by then.
    pub(super) fn move_clock(&mut self, entry_ms: u64) {
        let now_ms = match museum::is_on(Exhibit::HostTimeInApply) {
            true => museum::host_time_ms(),
            false => entry_ms.min(TIME_MAX_MS),
        };
        self.time_ms = self.time_ms.max(now_ms);
        self.sessions.expire(self.time_ms);
        self.modules.expire_uploads(self.time_ms);
        self.expire_kept();
    }

    /// Puts the clock forward, or refuses.
    pub(super) fn set_clock(&mut self, request: &stored::SetClock) -> Reply {
        let (previous_ms, time_ms) = (self.time_ms, request.time_ms);
        if time_ms < previous_ms {
            return Reply::ClockRefused(format!(
                "the log's clock shows {previous_ms} ms since the Unix epoch and is not put back to \
                 {time_ms}: sessions have ended, and guests have seen it"
            ));
        }
        if time_ms > TIME_MAX_MS {
            return Reply::ClockRefused(format!(
                "{time_ms} ms since the Unix epoch is after the year 9999 ({TIME_MAX_MS})"
            ));
        }
        self.move_clock(time_ms);
        Reply::ClockSet { time_ms, previous_ms }
    }
}
