//! Looks after the disk of the data directory: how much room it has left, and how quick it is.
//!
//! ```text
//!   look ─► free bytes ─► Space ─► the node: commands, leadership, entries; what can be freed
//!                            └───► RESERVE is let go of, or made again
//! ```
//!
//! A write of the log that finds no room does not wait for a look (see `storage`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::{DiskStatus, NodeHandle};
use crate::storage::{DiskRoom, Room, SpaceGauge, SpaceLimits, StorageConfig};
use crate::text::human_bytes;
use crate::types::Space;

/// Between two looks. A disk may fill quickly.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// While space is short, what can be freed is looked for again so often.
const FREE_EVERY: Duration = Duration::from_secs(10);
/// Between two lines in the log about the same trouble.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Goes on until it is dropped.
pub(super) async fn look_after(handle: NodeHandle, room: Arc<DiskRoom>, config: StorageConfig) {
    let mut keeper = Keeper::new(handle, room, config);
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            keeper.look();
            keeper
        });
        // Its only way to fail is a panic, which is on the log, or the end of the process.
        let Ok(back) = looked.await else { return };
        keeper = back;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

struct Keeper {
    handle: NodeHandle,
    room: Arc<DiskRoom>,
    config: StorageConfig,
    gauge: SpaceGauge,
    /// As the node was told last, and when.
    told: Option<(Space, Instant)>,
    /// When the log said something of a disk that cannot be measured, or of its reserve.
    complained: Option<Instant>,
    slowness: Slowness,
}

impl Keeper {
    fn new(handle: NodeHandle, room: Arc<DiskRoom>, config: StorageConfig) -> Keeper {
        let slow = Duration::from_millis(handle.config().slow_sync_ms);
        let slowness = Slowness { slow, said: None };
        let gauge = SpaceGauge::default();
        Keeper { handle, room, config, gauge, told: None, complained: None, slowness }
    }

    fn look(&mut self) {
        let (room, limits) = match self.measure() {
            Ok(found) => found,
            Err(error) => {
                return self.complain("the room on the disk cannot be measured", &error);
            }
        };
        let space = self.gauge.judge(room.free, &limits);
        if let Err(error) = self.see_to_reserve(space, room, &limits) {
            self.complain("the reserve cannot be made", &error);
        }
        self.show(space, room, &limits);
        self.tell(space, room, &limits);
    }

    /// Gives up the reserve when that is needed.
    fn measure(&self) -> std::io::Result<(Room, SpaceLimits)> {
        let room = self.room.measure()?;
        let limits = SpaceLimits::of(&self.config, room.total);
        if room.free >= limits.critical || !self.room.let_go()? {
            return Ok((room, limits));
        }
        tracing::warn!("the disk is all but full: the reserve is let go of");
        Ok((self.room.measure()?, limits))
    }

    /// It is made again when the disk stays ample with it.
    fn see_to_reserve(
        &self,
        space: Space,
        room: Room,
        limits: &SpaceLimits,
    ) -> std::io::Result<()> {
        let held = self.room.reserve_bytes();
        let enough = limits.low + limits.low / 4 + limits.reserve;
        if held == limits.reserve || space != Space::Ample || room.free + held < enough {
            return Ok(());
        }
        self.room.hold_reserve(limits.reserve)
    }

    fn show(&mut self, space: Space, room: Room, limits: &SpaceLimits) {
        let sync_p99 = self.handle.metrics().log_write_pace.p99();
        let is_slow = self.slowness.judge(sync_p99);
        let mut alarms = Vec::new();
        if space != Space::Ample {
            let words = self.room.in_words(room, limits);
            alarms.push(format!("{words}: {}", consequences(space)));
        }
        if is_slow && let Some(p99) = sync_p99 {
            alarms.push(format!(
                "its disk is slow: one in a hundred writes of the log took longer than {p99:.0?} \
                 in the last minute (node.slow_sync_ms is {})",
                self.slowness.slow.as_millis()
            ));
        }
        self.handle.show_disk(DiskStatus {
            space,
            free: room.free,
            total: room.total,
            low: limits.low,
            critical: limits.critical,
            reserve: self.room.reserve_bytes(),
            sync_p99,
            is_slow,
            alarm: (!alarms.is_empty()).then(|| alarms.join("; ")),
        });
    }

    /// At once when it is news, and now and then while space is short.
    fn tell(&mut self, space: Space, room: Room, limits: &SpaceLimits) {
        let before = self.told.map_or(Space::Ample, |(space, _)| space);
        let is_due = |(_, at): (Space, Instant)| at.elapsed() >= FREE_EVERY;
        let is_due = space != Space::Ample && self.told.is_some_and(is_due);
        if space == before && !is_due {
            return;
        }
        self.told = Some((space, Instant::now()));
        self.handle.report_space(space, room.free);
        let words = self.room.in_words(room, limits);
        match space {
            _ if space == before => {}
            Space::Ample => {
                tracing::info!(free = %human_bytes(room.free), "the disk has space again");
            }
            Space::Low => tracing::warn!("{words}: {}", consequences(space)),
            Space::Critical => tracing::error!("{words}: {}", consequences(space)),
        }
    }

    fn complain(&mut self, what: &str, error: &std::io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            self.complained = Some(Instant::now());
            tracing::warn!(disk = %self.room.dir().display(), %error, "{what}");
        }
    }
}

/// What a node does that has so little left.
fn consequences(space: Space) -> &'static str {
    match space {
        Space::Ample => "that is enough",
        Space::Low => {
            "it leaves leading to nodes with more; if it leads, the cluster takes no new commands. Make \
             room on this disk"
        }
        Space::Critical => {
            "it takes next to no entries and leads only if nobody else can; the cluster takes no new \
             commands then. Make room on this disk: it goes on by itself"
        }
    }
}

/// Says when the disk is slow, and when it is so no longer.
struct Slowness {
    /// Zero: nothing is.
    slow: Duration,
    /// Since it is slow: when the log said so last.
    said: Option<Instant>,
}

impl Slowness {
    fn judge(&mut self, p99: Option<Duration>) -> bool {
        let slow = p99.filter(|p99| !self.slow.is_zero() && *p99 > self.slow);
        match (slow, self.said) {
            (Some(_), Some(at)) if at.elapsed() < SAY_EVERY => {}
            (Some(p99), _) => {
                self.said = Some(Instant::now());
                tracing::warn!(
                    p99_ms = p99.as_millis() as u64,
                    slow_sync_ms = self.slow.as_millis() as u64,
                    "the disk is slow: one in a hundred writes of the log took longer in the last \
                     minute; every command waits for such a write"
                );
            }
            (None, Some(_)) => {
                self.said = None;
                tracing::info!("the disk is quick again");
            }
            (None, None) => {}
        }
        slow.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_beyond_the_setting_and_never_without_one() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let mut slowness = Slowness { slow: Duration::from_millis(500), said: None };
        for (p99, is_slow) in [(None, false), (ms(500), false), (ms(501), true), (ms(9), false)] {
            assert_eq!(slowness.judge(p99), is_slow, "{p99:?}");
            assert_eq!(slowness.said.is_some(), is_slow);
        }
        let mut off = Slowness { slow: Duration::ZERO, said: None };
        assert!(!off.judge(ms(60_000)));
    }
}
