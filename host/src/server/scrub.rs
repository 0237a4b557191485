//! Reads everything that is stored now and then, and has mended what is no longer what was written: a restart
//! would refuse it, and the state in memory that it can be mended from would be gone.
//!
//! ```text
//!   snapshot  set aside, and a fresh one taken
//!   log       a snapshot taken as soon as all entries are applied, the log before it let go of
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backup::wall_clock_ms;
use crate::node::{NodeHandle, yield_to_others};
use crate::storage::{
    Damage, DamagedPart, Pace, ScrubBoard, Scrubbed, SnapshotMeta, StorageError, Stores,
    scrub_snapshots,
};
use crate::types::{GroupId, Index};

/// The first scrub of a process comes after this part of the time between two: its start has read the log
/// and the newest snapshot.
const FIRST_PART: u32 = 8;
/// Between two attempts to mend something, at most.
const RETRY: Duration = Duration::from_secs(60);
/// Between two looks at whether reading may go on.
const NAP: Duration = Duration::from_millis(20);
/// Between two looks at what is waited for, and how often.
const POLL: Duration = Duration::from_millis(100);
const POLLS: usize = 100;
const LAST_WAY_OUT: &str = "if that does not change, remove this node and let it join again with an empty directory: a \
                            restart would refuse this file";

/// What a scrub works with.
pub(super) struct Scrub {
    pub(super) handle: NodeHandle,
    pub(super) stores: Stores,
    pub(super) board: Arc<ScrubBoard>,
    pub(super) bytes_per_s: u64,
    /// When the node stops. Nothing reads any more when [`Scrub::run`] returns.
    pub(super) end: CancellationToken,
}

impl Scrub {
    /// Scrubs until the end.
    pub(super) async fn run(self) {
        let every = Duration::from_millis(self.board.every_ms());
        let mut next = Instant::now() + every / FIRST_PART;
        loop {
            let until_next = next.saturating_duration_since(Instant::now());
            let pause =
                if self.board.open().is_empty() { until_next } else { until_next.min(RETRY) };
            if !self.sleep(pause).await {
                return;
            }
            if Instant::now() >= next {
                self.look().await;
                next = Instant::now() + every;
            }
            self.mend().await;
        }
    }

    /// Whether the node goes on.
    async fn sleep(&self, time: Duration) -> bool {
        self.end.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
    }

    async fn look(&self) {
        self.board.update(|report| report.is_running = true);
        let read = self.read().await;
        let now_ms = wall_clock_ms();
        match &read {
            Ok(Scrubbed { damages, is_whole }) => {
                damages.iter().for_each(|damage| self.note(damage, now_ms));
                if *is_whole {
                    self.forget_what_is_gone(damages);
                }
            }
            Err(error) => tracing::warn!("a scrub did not get to its end: {error}"),
        }
        self.board.update(|report| {
            report.is_running = false;
            match read {
                Ok(Scrubbed { is_whole, .. }) => {
                    report.failure = None;
                    report.last_ms = if is_whole { Some(now_ms) } else { report.last_ms };
                }
                Err(error) => report.failure = Some(error),
            }
        });
    }

    fn note(&self, damage: &Damage, now_ms: u64) {
        if self.board.found(damage.clone(), now_ms) {
            tracing::error!(
                file = %damage.file.display(), offset = damage.offset, reason = damage.reason,
                "a file of this node is damaged; look at its disk"
            );
        }
        // It is in the list as long as nobody has done that.
        if let DamagedPart::Snapshot(meta) = &damage.part {
            self.handle.replace_snapshot(meta.index);
        }
    }

    /// Files of the log go by themselves, too.
    fn forget_what_is_gone(&self, damages: &[Damage]) {
        let is_found = |open: &Damage| damages.iter().any(|damage| damage.file == open.file);
        let open = self.board.open();
        for gone in open.iter().filter(|open| open.part == DamagedPart::Log && !is_found(open)) {
            self.became(gone, Ok("the file was not needed any more, and is gone".to_owned()));
        }
    }

    /// Reads on a thread of its own, which yields to all others.
    async fn read(&self) -> Result<Scrubbed, String> {
        let applied = self.applied();
        let stores = self.stores.clone();
        let mut pacer = Pacer {
            handle: self.handle.clone(),
            board: Arc::clone(&self.board),
            end: self.end.clone(),
            bytes_per_s: self.bytes_per_s,
            next: Instant::now(),
        };
        let (sender, read) = oneshot::channel();
        let spawned = std::thread::Builder::new().name("scrub".into()).spawn(move || {
            yield_to_others();
            let read = read_all(&stores, applied, &mut |bytes| pacer.go_on(bytes));
            // Whoever is told may open them again.
            drop(stores);
            // A node that was killed needs no news.
            let _ = sender.send(read.map_err(|error| error.to_string()));
        });
        match spawned {
            Ok(_) => {
                read.await.unwrap_or_else(|_| Err("the thread that reads panicked".to_owned()))
            }
            Err(error) => Err(format!("no thread to read with: {error}")),
        }
    }

    fn applied(&self) -> Index {
        self.handle.machine().borrow().as_ref().map_or(Index(0), |view| view.info.applied)
    }

    async fn mend(&self) {
        let mut of_log = Vec::new();
        for damage in self.board.open() {
            match damage.part {
                DamagedPart::Log => of_log.push(damage),
                DamagedPart::Snapshot(_) => {
                    let mended = self.snapshot().await;
                    let words = |fresh: SnapshotMeta| {
                        format!("it was replaced by one that was taken at index {}", fresh.index)
                    };
                    self.became(&damage, mended.map(words));
                }
            }
        }
        if of_log.is_empty() {
            return;
        }
        let left = match self.mend_log(&of_log).await {
            Ok((index, left)) => {
                let words =
                    format!("a snapshot was taken at index {index}, and the log before it dropped");
                for damage in of_log.iter().filter(|damage| !is_among(&left, damage)) {
                    self.became(damage, Ok(words.clone()));
                }
                left.into_iter().map(|damage| (damage, "it is still there".to_owned())).collect()
            }
            Err(why) => of_log.into_iter().map(|damage| (damage, why.clone())).collect::<Vec<_>>(),
        };
        for (damage, why) in left {
            self.became(&damage, Err(why));
        }
    }

    fn became(&self, damage: &Damage, mended: Result<String, String>) {
        let file = damage.file.display();
        match mended {
            Ok(words) => {
                tracing::warn!(%file, "the damage is mended: {words}");
                self.board.became(damage, true, words);
            }
            Err(_) if self.end.is_cancelled() => {}
            Err(why) => {
                let words = format!("not mended: {why}; {LAST_WAY_OUT}");
                tracing::error!(%file, "{words}");
                self.board.became(damage, false, words);
            }
        }
    }

    /// Takes one. Another one may be under way, which is waited for.
    async fn snapshot(&self) -> Result<SnapshotMeta, String> {
        let mut taken = self.handle.take_snapshot().await;
        for _ in 0..POLLS {
            if taken.is_ok() || !self.sleep(POLL).await {
                break;
            }
            taken = self.handle.take_snapshot().await;
        }
        taken
    }

    /// Which index the log begins after now, and which files are still damaged.
    async fn mend_log(&self, damages: &[Damage]) -> Result<(Index, Vec<Damage>), String> {
        let log = &self.stores.log;
        // No damaged file holds anything newer that is needed.
        let last = log.last_index(GroupId::MAIN).map_err(|error| error.to_string())?;
        if !self.comes(|| Ok(self.applied() >= last)).await? {
            return Err(format!(
                "its entries may be needed until those up to {last} are applied, and no snapshot covers them"
            ));
        }
        let index = self.snapshot().await?.index;
        self.handle.compact_all();
        if !self.comes(|| Ok(log.start(GroupId::MAIN)?.index >= last)).await? {
            return Err(format!("the log was not compacted up to {last} in time"));
        }
        let (log, damages) = (Arc::clone(log), damages.to_vec());
        let shed = tokio::task::spawn_blocking(move || log.shed(&damages)).await;
        let shed = shed.map_err(|error| error.to_string())?;
        Ok((index, shed.map_err(|error| error.to_string())?))
    }

    /// Waits for something, not for ever.
    async fn comes(
        &self,
        is_there: impl Fn() -> Result<bool, StorageError>,
    ) -> Result<bool, String> {
        for _ in 0..POLLS {
            if is_there().map_err(|error| error.to_string())? {
                return Ok(true);
            }
            if !self.sleep(POLL).await {
                break;
            }
        }
        Ok(false)
    }
}

fn is_among(damages: &[Damage], damage: &Damage) -> bool {
    damages.iter().any(|other| other.file == damage.file)
}

fn read_all(
    stores: &Stores,
    applied: Index,
    pace: &mut Pace<'_>,
) -> Result<Scrubbed, StorageError> {
    let mut all = scrub_snapshots(&*stores.snapshots, GroupId::MAIN, applied, pace)?;
    if all.is_whole {
        let log = stores.log.scrub(pace)?;
        all.damages.extend(log.damages);
        all.is_whole = log.is_whole;
    }
    Ok(all)
}

/// Says when to read on.
struct Pacer {
    handle: NodeHandle,
    board: Arc<ScrubBoard>,
    end: CancellationToken,
    bytes_per_s: u64,
    next: Instant,
}

impl Pacer {
    /// While the disk does not answer, it is left alone.
    fn go_on(&mut self, bytes: u64) -> bool {
        loop {
            if self.end.is_cancelled() || self.handle.draining() {
                return false;
            }
            let now = Instant::now();
            let is_stuck = self.handle.stuck_write_ms() > 0;
            if !is_stuck && now >= self.next {
                self.next = now + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
                self.board.update(|report| report.read_bytes += bytes);
                return true;
            }
            let pause = if is_stuck { NAP } else { self.next - now };
            std::thread::sleep(pause.min(NAP));
        }
    }
}
