//! The clocks of the members, and what the log's clock makes of them.
//!
//! ```text
//!   leader    ── ClockQuestion (when asked, how far you were off last time) ─►  member
//!             ◄─ ClockAnswer   (when asked, the member's wall clock)       ──
//!             intervals ─► agreement of a majority ─► LogClock ─► time of entries
//! ```
//!
//! The leader asks every election timeout, and at once when it is elected. A wall clock enters the
//! log through the agreement only. The only voter is its own majority, but it takes its clock as it
//! was at the start of the process: a jump in between would be nobody's but its own. If others had a
//! say in between, it goes on from what they last agreed on, or else from where the log is: its clock
//! may have been wrong when it started, and nobody believed it. So it does when an operator has put
//! the log's clock forward.
//!
//! Part of the event loop. Every member learns how far its own clock is off, for people to see.

mod agreement;
mod hands;
mod log_clock;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use self::agreement::{Agreement, Interval, agree};
pub use self::hands::{MonotonicClock, WallClock};
pub(super) use self::log_clock::LogClock;
use super::config::NodeConfig;
use crate::museum::{self, Exhibit};
use crate::types::{ConfState, GroupId, NodeId, PeerMessage};

/// How a node's clock compares with those of its cluster. In milliseconds; positive: fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockStatus {
    /// How far this node's own clock is from what a majority's agree on; `None`: not known now.
    pub offset_ms: Option<i64>,
    /// Whether the clocks of a majority of the voters agree; only a leader can tell.
    pub is_agreed: Option<bool>,
    /// How far the log's clock is ahead of what they allow; only a leader can tell.
    pub log_ahead_ms: Option<u64>,
    /// On the leader: how far each other member's clock is from what is agreed.
    pub members: BTreeMap<NodeId, i64>,
    /// Something that people should look at.
    pub alarm: Option<String>,
}

/// What the group looks like to this node.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) leads: bool,
    pub(super) leader: Option<NodeId>,
    pub(super) conf_state: &'a ConfState,
}

/// A clock that is off by more is worth an alarm, in microseconds.
const ALARM_US: i64 = 1_000_000;
/// Wall clocks show whole milliseconds.
const RESOLUTION_US: i64 = 1_000;
/// An answer counts for so many rounds.
const ROUNDS_KEPT: u64 = 4;

/// What the leader knows of a member's clock.
#[derive(Clone, Copy, Default)]
struct Peer {
    /// By the monotonic clock, in microseconds; the answer is not here yet.
    asked: Option<u64>,
    /// Its wall clock against this node's monotonic one, and the tick in which that was found.
    found: Option<(Interval, u64)>,
}

/// See the module.
pub(super) struct Clocks {
    me: NodeId,
    group: GroupId,
    wall_ms: WallClock,
    steady: MonotonicClock,
    log: Arc<LogClock>,
    /// What the only voter goes by, against the monotonic clock: its own wall clock when the process
    /// started, or what was agreed on since with others. `None`: where the log is.
    anchor: Option<Interval>,
    /// How often the log's clock had been put forward when the anchor was as it is.
    sets: u64,
    /// Ticks between two rounds of questions.
    every: u64,
    /// Answers that took longer say too little, in microseconds.
    round_trip_max: u64,
    tick: u64,
    /// The tick of the next round.
    due: u64,
    peers: BTreeMap<NodeId, Peer>,
    agreement: Option<Agreement>,
    /// When this node was elected, or when a majority last agreed.
    agreed_at: u64,
    /// How far off the leader says that this node's clock is, and the tick in which it said so.
    told: Option<(i64, u64)>,
    status: watch::Sender<Arc<ClockStatus>>,
}

impl Clocks {
    pub(super) fn new(
        me: NodeId,
        group: GroupId,
        config: &NodeConfig,
        (wall_ms, steady): (WallClock, MonotonicClock),
        log: Arc<LogClock>,
    ) -> Clocks {
        let every = config.election_ticks() as u64;
        let mut clocks = Clocks {
            me,
            group,
            wall_ms,
            steady,
            log,
            anchor: None,
            sets: 0,
            every,
            round_trip_max: config.election_ms.saturating_mul(1_000),
            tick: 0,
            due: 0,
            peers: BTreeMap::new(),
            agreement: None,
            agreed_at: 0,
            told: None,
            status: watch::Sender::default(),
        };
        clocks.anchor = Some(clocks.own());
        clocks
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<ClockStatus>> {
        self.status.subscribe()
    }

    /// Another role, term or leader.
    pub(super) fn on_leadership(&mut self, standing: Standing<'_>) {
        self.peers.clear();
        self.agreement = None;
        self.told = None;
        self.due = self.tick;
        self.agreed_at = self.tick;
        self.log.release();
        self.consider(standing);
    }

    /// Other members, or other voters: they are asked with the next tick.
    pub(super) fn on_members(&mut self, standing: Standing<'_>) {
        self.due = self.tick;
        self.consider(standing);
    }

    /// Members are asked with the next tick, whenever the round would be.
    pub(super) fn ask_soon(&mut self) {
        self.due = self.tick;
    }

    /// Time passes. Returns the questions that are due.
    pub(super) fn on_tick(&mut self, standing: Standing<'_>) -> Vec<PeerMessage> {
        self.tick += 1;
        if self.tick < self.due {
            return Vec::new();
        }
        self.due = self.tick + self.every;
        self.consider(standing);
        if !standing.leads {
            return Vec::new();
        }
        let members = standing.conf_state.nodes();
        self.peers.retain(|node, _| members.contains(node));
        let asked = self.now_us();
        let others = members.into_iter().filter(|node| *node != self.me);
        others
            .collect::<Vec<_>>()
            .into_iter()
            .map(|node| {
                let offset = self.offset_of(node);
                self.peers.entry(node).or_default().asked = Some(asked);
                PeerMessage::clock_question(self.group, self.me, node, asked, offset)
            })
            .collect()
    }

    /// A peer asks for this node's clock, and says how far it was off.
    pub(super) fn on_question(
        &mut self,
        from: NodeId,
        asked: u64,
        offset_us: Option<i64>,
        standing: Standing<'_>,
    ) -> PeerMessage {
        if standing.leader == Some(from) && !standing.leads {
            self.told = offset_us.map(|offset| (offset, self.tick));
            self.go_by(None);
            self.publish(standing, None);
        }
        PeerMessage::clock_answer(self.group, self.me, from, asked, (self.wall_ms)())
    }

    /// A member says what its clock shows.
    pub(super) fn on_answer(
        &mut self,
        from: NodeId,
        asked: u64,
        wall_ms: u64,
        standing: Standing<'_>,
    ) {
        let now = self.now_us();
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.asked == Some(asked)) else {
            return;
        };
        peer.asked = None;
        if now.saturating_sub(asked) > self.round_trip_max {
            return;
        }
        // It was read at some time between the question and the answer.
        let wall = to_us(wall_ms);
        let low = wall.saturating_sub_unsigned(now);
        let high = wall.saturating_add(RESOLUTION_US).saturating_sub_unsigned(asked);
        peer.found = Some((Interval { low, high }, self.tick));
        self.consider(standing);
    }

    /// What an entry is stamped with now.
    pub(super) fn log_now_ms(&self) -> u64 {
        self.log.now_ms()
    }

    fn now_us(&self) -> u64 {
        (self.steady)().as_micros() as u64
    }

    /// The own wall clock against the monotonic one.
    fn own(&self) -> Interval {
        let low = to_us((self.wall_ms)()).saturating_sub_unsigned(self.now_us());
        Interval { low, high: low.saturating_add(RESOLUTION_US) }
    }

    /// Others have a say, and this is what they agree on, as far as this node knows.
    fn go_by(&mut self, agreed: Option<Interval>) {
        self.sets = self.log.sets();
        if !museum::is_on(Exhibit::StartClockKept) {
            self.anchor = agreed;
        }
    }

    /// What the only voter goes by, from now on.
    fn anchor(&mut self) -> Interval {
        let sets = self.log.sets();
        if std::mem::replace(&mut self.sets, sets) != sets {
            // Nobody else can tell it that its clock was wrong.
            self.anchor = None;
        }
        let (log_ms, now) = (self.log.now_ms(), self.now_us());
        *self.anchor.get_or_insert_with(|| {
            let low = to_us(log_ms).saturating_sub_unsigned(now);
            Interval { low, high: low.saturating_add(RESOLUTION_US) }
        })
    }

    /// Steers the log's clock by what is known now.
    fn consider(&mut self, standing: Standing<'_>) {
        if !standing.leads {
            return self.publish(standing, None);
        }
        let conf_state = standing.conf_state;
        let is_alone =
            conf_state.voters.iter().eq([&self.me]) && conf_state.voters_outgoing.is_empty();
        let own = if is_alone { self.anchor() } else { self.own() };
        if museum::is_on(Exhibit::LeadersClockTrusted) {
            self.peers.clear();
        }
        let oldest = self.tick.saturating_sub(ROUNDS_KEPT * self.every);
        let found = |(node, peer): (&NodeId, &Peer)| {
            let fresh = peer.found.filter(|(_, tick)| *tick >= oldest);
            fresh.map(|(interval, _)| (*node, interval))
        };
        let clocks: Vec<(NodeId, Interval)> = std::iter::once((self.me, own))
            .chain(self.peers.iter().filter_map(found))
            .filter(|(node, _)| conf_state.is_voter(*node))
            .collect();
        self.agreement = agree(&clocks, |nodes| {
            conf_state.is_quorum(nodes) || museum::is_on(Exhibit::LeadersClockTrusted)
        });
        if !is_alone {
            self.go_by(self.agreement.as_ref().map(|agreement| agreement.interval));
        }
        let Some(Agreement { interval, .. }) = &self.agreement else {
            self.log.release();
            return self.publish(standing, None);
        };
        self.agreed_at = self.tick;
        let now = self.now_us();
        let steered = self.log.steer(Interval {
            low: interval.low.saturating_add_unsigned(now),
            high: interval.high.saturating_add_unsigned(now),
        });
        if steered.skipped_us > ALARM_US {
            tracing::info!(
                by_ms = steered.skipped_us / 1_000,
                "the log's clock went forward to what the clocks of most voters agree on"
            );
        }
        self.publish(standing, Some(steered.ahead_us));
    }

    /// How far a member's clock is from what is agreed.
    fn offset_of(&self, node: NodeId) -> Option<i64> {
        let agreed = self.agreement.as_ref()?.interval.middle();
        let (found, _) = self.peers.get(&node)?.found?;
        Some(found.middle().saturating_sub(agreed))
    }

    fn publish(&self, standing: Standing<'_>, ahead_us: Option<i64>) {
        let oldest = self.tick.saturating_sub(ROUNDS_KEPT * self.every);
        let agreed = self.agreement.as_ref().filter(|_| standing.leads);
        let offset_us = match agreed {
            Some(agreement) => {
                Some(self.own().middle().saturating_sub(agreement.interval.middle()))
            }
            None => self.told.filter(|(_, tick)| *tick >= oldest).map(|(offset, _)| offset),
        };
        let members = self.peers.keys().filter(|_| standing.leads);
        let now = ClockStatus {
            offset_ms: offset_us.map(|offset| offset / 1_000),
            is_agreed: standing.leads.then_some(agreed.is_some()),
            log_ahead_ms: ahead_us.map(|ahead| (ahead / 1_000).max(0) as u64),
            members: members
                .filter_map(|node| Some((*node, self.offset_of(*node)? / 1_000)))
                .collect(),
            alarm: self.alarm(standing, offset_us, ahead_us),
        };
        self.status.send_if_modified(|status| {
            if **status == now {
                return false;
            }
            match (&status.alarm, &now.alarm) {
                (None, Some(alarm)) => tracing::warn!(%alarm, "clocks"),
                (Some(_), None) => tracing::info!("clocks: all is well again"),
                _ => {}
            }
            *status = Arc::new(now);
            true
        });
    }

    fn alarm(
        &self,
        standing: Standing<'_>,
        offset_us: Option<i64>,
        ahead_us: Option<i64>,
    ) -> Option<String> {
        let mut alarms = Vec::new();
        if let Some(offset) = offset_us.filter(|offset| offset.saturating_abs() > ALARM_US) {
            alarms.push(format!(
                "this node's clock is {} {} what the clocks of most voters agree on: set it",
                seconds(offset),
                if offset > 0 { "ahead of" } else { "behind" },
            ));
        }
        // A new leader has to ask first.
        let since = self.tick.saturating_sub(self.agreed_at);
        if standing.leads && self.agreement.is_none() && since > ROUNDS_KEPT * self.every {
            alarms.push(
                "the clocks of most voters do not agree, so the log's clock goes on by the \
                 leader's monotonic time: set the voters' clocks"
                    .to_owned(),
            );
        }
        if let Some(ahead) = ahead_us.filter(|ahead| *ahead > ALARM_US) {
            alarms.push(format!(
                "the log's clock is {} ahead of the clocks of most voters, and goes at half the \
                 speed until they have caught up",
                seconds(ahead)
            ));
        }
        (!alarms.is_empty()).then(|| alarms.join("; "))
    }
}

fn to_us(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000)
}

fn seconds(us: i64) -> String {
    format!("{:.1} s", us.unsigned_abs() as f64 / 1e6)
}

#[cfg(test)]
mod tests;
