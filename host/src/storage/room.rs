//! The room that the disk below a data directory has left: measured, judged, and a part of it held in
//! reserve.
//!
//! ```text
//!   free ──────────────── low ─────────────── critical ──────────────── 0
//!         RESERVE is held      no new commands    RESERVE is let go of;
//!                                                 nothing is written that can wait
//! ```
//!
//! Another program may fill a disk between two looks at it. So a write of the log that finds no room lets
//! go of the reserve at once and is tried again, and when there is none, waits until there is room: a
//! write that the system has refused for want of space has changed nothing, unlike a failed fsync. To
//! the rest of the node that is a disk that does not answer.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::StorageConfig;
use crate::text::human_bytes;
use crate::types::Space;

/// In the data directory; holds nothing but room.
pub(super) const RESERVE_FILE: &str = "RESERVE";
/// A disk counts as low at an eighth at the latest, however large the setting.
const LOW_SHARE: u64 = 8;
/// No more of what counts as low is held in reserve than this part.
const RESERVE_SHARE: u64 = 4;
/// Between two attempts of a write that waits for room.
const PAUSE: Duration = Duration::from_millis(50);
/// What is written at once where a file system cannot allocate.
const PIECE_BYTES: usize = 1 << 20;

/// What a file system has, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What this process can still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Measures the file system that a directory is on.
pub(super) fn measure(dir: &Path) -> io::Result<Room> {
    let found = nix::sys::statvfs::statvfs(dir)?;
    let unit = found.fragment_size();
    let bytes = |blocks: u64| blocks.saturating_mul(unit);
    Ok(Room { free: bytes(found.blocks_available()), total: bytes(found.blocks()) })
}

/// Whether a write failed for want of space, and changed nothing.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How much is little, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// With less than this space is low; 0: nobody looks.
    pub low: u64,
    /// With less than this it is critical.
    pub critical: u64,
    /// What is held in reserve.
    pub reserve: u64,
}

impl SpaceLimits {
    /// Those of the settings on a disk of `total` bytes.
    pub fn of(config: &StorageConfig, total: u64) -> SpaceLimits {
        let low = config.low_space_bytes.min(total / LOW_SHARE);
        SpaceLimits {
            low,
            critical: low / 2,
            reserve: config.reserve_bytes.min(low / RESERVE_SHARE),
        }
    }
}

/// Judges how much room is left. Once it is low, it takes a quarter more to be so no longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceGauge {
    now: Space,
}

impl SpaceGauge {
    /// What so many free bytes mean after all that was seen before.
    pub fn judge(&mut self, free: u64, limits: &SpaceLimits) -> Space {
        let bound = |bound: u64, is_below: bool| if is_below { bound + bound / 4 } else { bound };
        let is_critical = free < bound(limits.critical, self.now == Space::Critical);
        let is_low = free < bound(limits.low, self.now != Space::Ample);
        self.now = match (is_low, is_critical) {
            (_, true) => Space::Critical,
            (true, false) => Space::Low,
            (false, false) => Space::Ample,
        };
        self.now
    }
}

/// The room of one data directory.
#[derive(Debug)]
pub struct DiskRoom {
    dir: PathBuf,
    /// Bytes in the file.
    reserve: Mutex<u64>,
    /// Writes wait for room, from now on.
    is_patient: AtomicBool,
    /// Writes that found none.
    refused: AtomicU64,
}

impl DiskRoom {
    pub(super) fn of(dir: &Path) -> DiskRoom {
        let held = std::fs::metadata(dir.join(RESERVE_FILE)).map_or(0, |found| found.len());
        DiskRoom {
            dir: dir.to_owned(),
            reserve: Mutex::new(held),
            is_patient: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What there is now. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn measure(&self) -> io::Result<Room> {
        measure(&self.dir)
    }

    /// How many bytes are held in reserve.
    pub fn reserve_bytes(&self) -> u64 {
        *self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many writes of the log have found no room.
    pub fn refused_writes(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// From now on writes of the log that find no room wait for it. Before, they fail: a start that hangs
    /// says less than one that fails.
    pub fn be_patient(&self) {
        self.is_patient.store(true, Ordering::Relaxed);
    }

    /// Holds so many bytes in reserve, really allocated; nothing else when that cannot be. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn hold_reserve(&self, bytes: u64) -> io::Result<()> {
        let mut held = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == bytes {
            return Ok(());
        }
        self.remove_reserve(&mut held)?;
        if bytes == 0 {
            return Ok(());
        }
        let allocated = allocate(&self.path(), bytes);
        *held = if allocated.is_ok() { bytes } else { 0 };
        if allocated.is_err() {
            // It is in nobody's way, and the next attempt replaces it.
            let _ = std::fs::remove_file(self.path());
        }
        allocated
    }

    /// Gives the reserve to whoever writes. Whether there was any.
    ///
    /// # Errors
    /// Those of the system.
    pub fn let_go(&self) -> io::Result<bool> {
        let mut held = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let was_held = *held > 0;
        self.remove_reserve(&mut held)?;
        Ok(was_held)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(RESERVE_FILE)
    }

    fn remove_reserve(&self, held: &mut u64) -> io::Result<()> {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => *held = 0,
        }
        Ok(())
    }

    /// Does a write of the log; see the module.
    pub(super) fn ride_out<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut waits = false;
        loop {
            match write() {
                Err(error) if is_full(&error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    if self.let_go().unwrap_or(false) {
                        tracing::error!(
                            disk = %self.dir.display(),
                            "the disk is full: the reserve is let go of for the log"
                        );
                        continue;
                    }
                    if !self.is_patient.load(Ordering::Relaxed) {
                        return Err(error);
                    }
                    if !waits {
                        waits = true;
                        tracing::error!(
                            disk = %self.dir.display(),
                            "the disk is full: a write of the log waits for space. Make room on it"
                        );
                    }
                    std::thread::sleep(PAUSE);
                }
                done => {
                    if waits {
                        let disk = self.dir.display();
                        tracing::warn!(%disk, "the disk has space again: the log is written");
                    }
                    return done;
                }
            }
        }
    }

    /// What a person is to do about it, with the numbers.
    pub fn in_words(&self, room: Room, limits: &SpaceLimits) -> String {
        format!(
            "{} has {} of {} left (low: {}, critical: {})",
            self.dir.display(),
            human_bytes(room.free),
            human_bytes(room.total),
            human_bytes(limits.low),
            human_bytes(limits.critical)
        )
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let length = i64::try_from(bytes).map_err(io::Error::other)?;
    match fallocate(file.as_raw_fd(), FallocateFlags::empty(), 0, length) {
        // Not every file system can.
        Err(Errno::EOPNOTSUPP) => {
            let piece = vec![0; PIECE_BYTES];
            let mut left = bytes;
            while left > 0 {
                let next = left.min(PIECE_BYTES as u64);
                file.write_all(&piece[..next as usize])?;
                left -= next;
            }
            file.sync_data()
        }
        allocated => Ok(allocated?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_low_follows_from_the_settings_and_never_exceeds_an_eighth_of_the_disk() {
        let config = StorageConfig::default();
        let on = |total: u64| SpaceLimits::of(&config, total);
        let usual = SpaceLimits { low: 128 * MIB, critical: 64 * MIB, reserve: 32 * MIB };
        assert_eq!((on(1 << 30), on(1 << 40)), (usual, usual));
        let small = SpaceLimits { low: 24 * MIB, critical: 12 * MIB, reserve: 6 * MIB };
        assert_eq!(on(192 * MIB), small);
        let off = StorageConfig { low_space_bytes: 0, ..config };
        assert_eq!(SpaceLimits::of(&off, 1 << 40), SpaceLimits::default());
    }

    #[test]
    fn a_disk_that_was_low_is_so_until_it_has_a_quarter_more() {
        let limits = SpaceLimits { low: 80, critical: 40, reserve: 0 };
        let mut gauge = SpaceGauge::default();
        for (free, space) in [
            (80, Space::Ample),
            (79, Space::Low),
            (80, Space::Low),
            (99, Space::Low),
            (100, Space::Ample),
            (80, Space::Ample),
            (40, Space::Low),
            (39, Space::Critical),
            (49, Space::Critical),
            (50, Space::Low),
            (40, Space::Low),
            (0, Space::Critical),
            (100, Space::Ample),
        ] {
            assert_eq!(gauge.judge(free, &limits), space, "{free}");
        }
        let mut off = SpaceGauge::default();
        assert_eq!(off.judge(0, &SpaceLimits::default()), Space::Ample, "nobody looks");
    }

    #[test]
    fn the_reserve_is_really_allocated_and_found_again() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let room = DiskRoom::of(dir.path());
        assert!(!room.let_go().expect("nothing to do"));
        room.hold_reserve(MIB).expect("room");
        let found = std::fs::metadata(dir.path().join(RESERVE_FILE)).expect("it is there");
        assert!(found.blocks() * 512 >= MIB, "it is sparse: {} blocks", found.blocks());
        let room = DiskRoom::of(dir.path());
        assert_eq!(room.reserve_bytes(), MIB);
        room.hold_reserve(2 * MIB).expect("room");
        assert_eq!(DiskRoom::of(dir.path()).reserve_bytes(), 2 * MIB);
        assert!(room.let_go().expect("removed"));
        assert!(!dir.path().join(RESERVE_FILE).exists());
        assert_eq!(room.reserve_bytes(), 0);
    }

    fn full() -> io::Error {
        Errno::ENOSPC.into()
    }

    #[test]
    fn a_write_that_finds_no_room_takes_the_reserve_and_then_waits_if_it_may() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let room = DiskRoom::of(dir.path());
        room.hold_reserve(4096).expect("room");
        let reserve = dir.path().join(RESERVE_FILE);
        let written = room.ride_out(|| if reserve.exists() { Err(full()) } else { Ok(7) });
        assert_eq!(written.expect("there was room in the reserve"), 7);
        assert_eq!((room.refused_writes(), room.reserve_bytes()), (1, 0));
        let failed = room.ride_out(|| Err::<(), _>(full())).expect_err("a start does not wait");
        assert!(is_full(&failed), "{failed}");
        room.be_patient();
        let mut attempts = 0;
        let written = room.ride_out(|| {
            attempts += 1;
            if attempts < 3 { Err(full()) } else { Ok(()) }
        });
        written.expect("room comes");
        assert_eq!(attempts, 3);
        let other = room.ride_out(|| Err::<(), _>(io::Error::from(Errno::EIO)));
        assert_eq!(other.expect_err("that is no want of space").raw_os_error(), Some(5));
    }
}
