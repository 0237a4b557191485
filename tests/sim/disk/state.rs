//! The disk itself: every operation passes here, is counted, and may be made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::file::{Luck, PAGE_BYTES, SimFile};
use super::names::{FileId, Names, Node};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process died; the kernel lives.
    Kill,
    /// The machine lost power.
    PowerLoss,
    /// An operation failed, and every one after it, until the crash that follows.
    Death,
    /// A sync failed.
    FailedSync,
    /// There was no space for a write.
    FullDisk,
    /// A write was acknowledged and forgotten.
    LostWrite,
    /// A write went to another place.
    MisdirectedWrite,
    /// A bit flipped at rest.
    BitRot,
}

/// A fault that took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEvent {
    /// Of which kind.
    pub fault: Fault,
    /// The file, relative to the disk; empty when it concerns the whole disk.
    pub file: String,
    /// Byte offset in the file.
    pub offset: u64,
    /// What happened, in words.
    pub what: String,
}

impl fmt::Display for DiskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.as_str() {
            "" => write!(f, "{:?}: {}", self.fault, self.what),
            file => write!(f, "{:?} at {file}:{}: {}", self.fault, self.offset, self.what),
        }
    }
}

/// What a disk did so far. Faults count when they take place, not when they are ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Writes to files.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// All operations that change something, as [`super::SimDisk::die_after`] counts them.
    pub operations: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<Fault, u64>,
}

/// What kind of data a file holds; decides whose power it is to notice that it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A log file that appends go to.
    Append,
    /// A log file that purging writes.
    Rewrite,
    /// The note of what is durable, beside the log.
    Mark,
    /// A finished snapshot, or a part of one.
    Snapshot,
    /// Anything else: temporary files.
    Other,
}

impl FileKind {
    pub(super) fn of(path: &Path) -> FileKind {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("raftlog") => FileKind::Append,
            Some("rewrite") => FileKind::Rewrite,
            Some("snap") => FileKind::Snapshot,
            Some("tmp") if name != "SYNCED.tmp" => FileKind::Snapshot,
            _ if name == "SYNCED" => FileKind::Mark,
            _ => FileKind::Other,
        }
    }

    /// raft-engine syncs the names of its files itself, where the disk cannot see it.
    pub(super) fn is_log(self) -> bool {
        matches!(self, FileKind::Append | FileKind::Rewrite)
    }
}

/// What is to happen to the next write of a file of some kind.
#[derive(Clone, Debug)]
pub(super) struct Ambush {
    pub(super) kind: FileKind,
    /// Else it is lost.
    pub(super) is_misdirected: bool,
}

/// See the module.
pub(super) struct State {
    root: PathBuf,
    pub(super) names: Names,
    pub(super) files: BTreeMap<FileId, SimFile>,
    next_id: FileId,
    /// Counts crashes; who was there before one has no access any more.
    pub(super) boot: u64,
    is_dead: bool,
    pub(super) operations_left: Option<u64>,
    pub(super) syncs_to_fail: u32,
    pub(super) capacity_bytes: u64,
    pub(super) ambush: Option<Ambush>,
    /// The medium of a log file is not what was acknowledged.
    pub(super) has_lied: bool,
    /// Draws the outcome of faults that strike later than they are ordered.
    rng: ChaCha8Rng,
    pub(super) stats: DiskStats,
    pub(super) events: Vec<DiskEvent>,
    /// Directories that a process has.
    pub(super) held: BTreeSet<PathBuf>,
}

fn gone() -> io::Error {
    io::Error::other("the disk is gone")
}

impl State {
    pub(super) fn new(root: &Path, seed: u64) -> State {
        State {
            root: root.to_owned(),
            names: Names::new(root),
            files: BTreeMap::new(),
            next_id: 0,
            boot: 0,
            is_dead: false,
            operations_left: None,
            syncs_to_fail: 0,
            capacity_bytes: u64::MAX,
            ambush: None,
            has_lied: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
            stats: DiskStats::default(),
            events: Vec::new(),
            held: BTreeSet::new(),
        }
    }

    /// The same files and names below another directory. What was ordered for this disk is not for
    /// that one.
    pub(super) fn copy(&self, root: &Path, seed: u64) -> State {
        State {
            names: self.names.moved(&self.root, root),
            files: self.files.clone(),
            next_id: self.next_id,
            has_lied: self.has_lied,
            ..State::new(root, seed)
        }
    }

    /// Name of a file for people: without what differs from run to run.
    pub(super) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    pub(super) fn note(
        &mut self,
        fault: Fault,
        file: String,
        offset: u64,
        what: String,
    ) -> DiskEvent {
        *self.stats.faults.entry(fault).or_default() += 1;
        DiskEvent { fault, file, offset, what }
    }

    fn strike(&mut self, fault: Fault, file: String, offset: u64, what: String) {
        let event = self.note(fault, file, offset, what);
        self.events.push(event);
    }

    pub(super) fn name_of(&self, id: FileId) -> String {
        let found = self.names.files().find(|(_, other)| *other == id);
        found.map_or_else(|| "a file without a name".to_owned(), |(path, _)| self.relative(path))
    }

    fn kind_of(&self, id: FileId) -> FileKind {
        let found = self.names.files().find(|(_, other)| *other == id);
        found.map_or(FileKind::Other, |(path, _)| FileKind::of(path))
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.length() as u64).sum()
    }

    pub(super) fn log_bytes(&self) -> u64 {
        let is_log = |path| matches!(FileKind::of(path), FileKind::Append | FileKind::Rewrite);
        let logs = self.names.files().filter(|(path, _)| is_log(path));
        logs.filter_map(|(_, id)| self.files.get(&id)).map(|file| file.length() as u64).sum()
    }

    /// Whether the caller, who came at that boot, may use the disk at all.
    pub(super) fn admit(&self, boot: u64) -> io::Result<()> {
        if self.is_dead || boot != self.boot { Err(gone()) } else { Ok(()) }
    }

    /// Begins an operation that changes something. `true`: it is the one that everything
    /// ends with, and may happen or not before it fails.
    fn begin(&mut self, boot: u64) -> io::Result<bool> {
        self.admit(boot)?;
        self.stats.operations += 1;
        match &mut self.operations_left {
            None => Ok(false),
            Some(0) => {
                self.is_dead = true;
                let number = self.stats.operations;
                let what = format!("from operation {number} on nothing works");
                self.strike(Fault::Death, String::new(), 0, what);
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
        }
    }

    /// Runs a change that happens whole or not at all.
    fn change<T>(
        &mut self,
        boot: u64,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.begin(boot)? {
            return change(self);
        }
        if self.rng.random() {
            change(self)?;
        }
        Err(gone())
    }

    pub(super) fn file(&mut self, id: FileId) -> io::Result<&mut SimFile> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<FileId> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The file of that name, made empty if there is none; an error if `is_new` and there is.
    pub(super) fn create(&mut self, boot: u64, path: &Path, is_new: bool) -> io::Result<FileId> {
        self.change(boot, |state| {
            match state.lookup(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) if is_new => return Err(io::ErrorKind::AlreadyExists.into()),
                found => return found,
            }
            state.parent_exists(path)?;
            let id = state.next_id;
            state.next_id += 1;
            state.files.insert(id, SimFile::default());
            state.names.create(path, Node::File(id), FileKind::of(path).is_log());
            Ok(id)
        })
    }

    pub(super) fn remove(&mut self, boot: u64, path: &Path) -> io::Result<()> {
        self.change(boot, |state| {
            let id = state.lookup(path)?;
            state.names.remove(path, Node::File(id), FileKind::of(path).is_log());
            state.reap(id);
            Ok(())
        })
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&mut self, boot: u64, dir: &Path) -> io::Result<()> {
        self.change(boot, |state| {
            if state.names.get(dir) != Some(Node::Directory) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if !state.names.list(dir).is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            state.names.remove(dir, Node::Directory, false);
            Ok(())
        })
    }

    pub(super) fn rename(&mut self, boot: u64, from: &Path, to: &Path) -> io::Result<()> {
        self.change(boot, |state| {
            state.parent_exists(to)?;
            if state.names.get(from) == Some(Node::Directory) {
                if state.names.get(to).is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                state.names.rename(from, to, Node::Directory);
                return Ok(());
            }
            let id = state.lookup(from)?;
            let replaced = state.lookup(to).ok();
            state.names.rename(from, to, Node::File(id));
            if let Some(replaced) = replaced {
                state.reap(replaced);
            }
            Ok(())
        })
    }

    pub(super) fn create_dir(&mut self, boot: u64, dir: &Path) -> io::Result<()> {
        self.change(boot, |state| {
            if state.names.get(dir).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.parent_exists(dir)?;
            state.names.create(dir, Node::Directory, false);
            Ok(())
        })
    }

    pub(super) fn list(&self, boot: u64, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.admit(boot)?;
        match self.names.get(dir) {
            Some(Node::Directory) => Ok(self.names.list(dir)),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn sync_dir(&mut self, boot: u64, dir: &Path) -> io::Result<()> {
        self.stats.syncs += 1;
        let is_failing = self.is_sync_failing(boot);
        self.change(boot, |state| {
            if is_failing {
                let (name, what) = (state.relative(dir), "the directory may be durable or not");
                state.strike(Fault::FailedSync, name, 0, what.to_owned());
                return Err(io::Error::other("input/output error"));
            }
            state.names.sync(dir);
            state.reap_all();
            Ok(())
        })
    }

    fn is_sync_failing(&mut self, boot: u64) -> bool {
        let is_failing = self.admit(boot).is_ok() && self.syncs_to_fail > 0;
        self.syncs_to_fail -= u32::from(is_failing);
        is_failing
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.names.get(parent)) {
            Some(Node::Directory) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Forgets a file that nobody can reach.
    pub(super) fn reap(&mut self, id: FileId) {
        let is_open = self.files.get(&id).is_some_and(|file| file.handles > 0);
        if !is_open && !self.names.knows(id) {
            self.files.remove(&id);
        }
    }

    fn reap_all(&mut self) {
        let unreachable = |(id, file): (&FileId, &SimFile)| {
            (file.handles == 0 && !self.names.knows(*id)).then_some(*id)
        };
        let unreachable: Vec<FileId> = self.files.iter().filter_map(unreachable).collect();
        for id in unreachable {
            self.files.remove(&id);
        }
    }

    /// As `pwrite`: writes what fits, and fails when nothing does.
    pub(super) fn write(
        &mut self,
        boot: u64,
        id: FileId,
        at: usize,
        bytes: &[u8],
    ) -> io::Result<usize> {
        if self.begin(boot)? {
            // Whole pages, but for the last.
            let pages = at / PAGE_BYTES..=(at + bytes.len()) / PAGE_BYTES + 1;
            let end = self.rng.random_range(pages) * PAGE_BYTES;
            let taken = end.saturating_sub(at).min(bytes.len());
            self.file(id)?.write(at, &bytes[..taken]);
            return Err(gone());
        }
        let taken = self.fitting(id, at, bytes.len())?;
        self.stats.writes += 1;
        self.stats.written_bytes += taken as u64;
        let bytes = &bytes[..taken];
        match self.ambush.clone() {
            Some(ambush) if ambush.kind == self.kind_of(id) && !bytes.is_empty() => {
                self.ambush = None;
                self.lose(id, at, bytes, ambush.is_misdirected)?;
            }
            _ => self.file(id)?.write(at, bytes),
        }
        Ok(taken)
    }

    /// How much of a write there is space for.
    fn fitting(&mut self, id: FileId, at: usize, wanted: usize) -> io::Result<usize> {
        if self.capacity_bytes == u64::MAX {
            return Ok(wanted);
        }
        let free = self.capacity_bytes.saturating_sub(self.used_bytes());
        let length = self.file(id)?.length();
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let fitting = wanted.min(length.saturating_sub(at).saturating_add(free));
        if fitting < wanted {
            let what = format!("{fitting} of {wanted} bytes fit");
            let name = self.name_of(id);
            self.strike(Fault::FullDisk, name, at as u64, what);
            if fitting == 0 {
                // raft-engine looks for this word.
                return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
            }
        }
        Ok(fitting)
    }

    fn lose(
        &mut self,
        id: FileId,
        at: usize,
        bytes: &[u8],
        is_misdirected: bool,
    ) -> io::Result<()> {
        let kind = self.kind_of(id);
        self.has_lied |= kind.is_log();
        self.file(id)?.write_and_lose(at, bytes);
        let (name, length) = (self.name_of(id), bytes.len());
        if !is_misdirected {
            let what = format!("{length} bytes will not be there");
            self.strike(Fault::LostWrite, name, at as u64, what);
            return Ok(());
        }
        let victims: Vec<FileId> = self
            .names
            .files()
            .filter(|(path, _)| FileKind::of(path) == kind)
            .map(|(_, id)| id)
            .filter(|id| self.files[id].durable_length() > 0)
            .collect();
        if victims.is_empty() {
            let what = format!("{length} bytes went nowhere");
            self.strike(Fault::MisdirectedWrite, name, at as u64, what);
            return Ok(());
        }
        let victim = victims[self.rng.random_range(0..victims.len())];
        let mut there = self.rng.random_range(0..self.files[&victim].durable_length());
        if victim == id && there == at {
            there = 0;
        }
        self.file(victim)?.write_by_mistake(there, bytes);
        let what = format!("{length} bytes went to {} at {there}", self.name_of(victim));
        self.strike(Fault::MisdirectedWrite, name, at as u64, what);
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        boot: u64,
        id: FileId,
        at: usize,
        into: &mut [u8],
    ) -> io::Result<usize> {
        self.admit(boot)?;
        Ok(self.file(id)?.read(at, into))
    }

    pub(super) fn truncate(&mut self, boot: u64, id: FileId, length: usize) -> io::Result<()> {
        self.change(boot, |state| {
            state.file(id)?.truncate(length);
            Ok(())
        })
    }

    pub(super) fn allocate(&mut self, boot: u64, id: FileId, length: usize) -> io::Result<()> {
        self.change(boot, |state| {
            let present = state.file(id)?.length();
            let wanted = length.saturating_sub(present);
            if state.capacity_bytes.saturating_sub(state.used_bytes()) < wanted as u64 {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
            }
            state.file(id)?.allocate(length);
            Ok(())
        })
    }

    pub(super) fn sync(&mut self, boot: u64, id: FileId) -> io::Result<()> {
        self.stats.syncs += 1;
        let is_failing = self.is_sync_failing(boot);
        self.change(boot, |state| {
            if is_failing {
                let mut rng = ChaCha8Rng::from_rng(&mut state.rng);
                state.file(id)?.fail_sync(&mut rng);
                let what = "what was written since the last sync may be durable or not";
                let name = state.name_of(id);
                state.strike(Fault::FailedSync, name, 0, what.to_owned());
                return Err(io::Error::other("input/output error"));
            }
            state.file(id)?.sync();
            Ok(())
        })
    }

    /// Lets the disk work again, for those who come from now on.
    fn reboot(&mut self) {
        self.boot += 1;
        self.is_dead = false;
        self.operations_left = None;
        self.syncs_to_fail = 0;
        self.ambush = None;
        self.held.clear();
        // Handles of the dead process; what they close later is not counted.
        for file in self.files.values_mut() {
            file.handles = 0;
        }
        self.reap_all();
    }

    pub(super) fn kill(&mut self, rng: &mut ChaCha8Rng) -> DiskEvent {
        for file in self.files.values_mut() {
            file.forget_cache(|| rng.random());
        }
        self.reboot();
        self.note(Fault::Kill, String::new(), 0, "what was written is in the cache".to_owned())
    }

    pub(super) fn lose_power(&mut self, rng: &mut ChaCha8Rng) -> DiskEvent {
        let mut fates = Vec::new();
        let ids: Vec<(String, FileKind, FileId)> = self
            .names
            .files()
            .map(|(path, id)| (self.relative(path), FileKind::of(path), id))
            .collect();
        let is_named = |id: &FileId| ids.iter().any(|(_, _, named)| named == id);
        let nameless: Vec<FileId> = self.files.keys().copied().filter(|id| !is_named(id)).collect();
        for (name, kind, id) in ids {
            let file = self.files.get_mut(&id).expect("named files exist");
            let mut luck = Luck::draw(rng);
            if kind == FileKind::Mark && self.has_lied {
                // A lie about the last record can be told from a torn tail only by a mark
                // that reached the disk, which takes the kernel half a minute.
                luck = Luck::All;
            }
            let (before, is_dirty) = (file.length(), file.is_dirty());
            file.lose_power(luck, rng);
            if is_dirty {
                let after = file.length();
                fates.push(format!("{name} {luck:?} ({before} -> {after} bytes)"));
            }
        }
        for id in nameless {
            let file = self.files.get_mut(&id).expect("listed above");
            file.lose_power(Luck::draw(rng), rng);
        }
        let lost = self.names.lose_power(rng);
        if lost > 0 {
            fates.push(format!("{lost} changes of names lost"));
        }
        self.reboot();
        let what = if fates.is_empty() { "nothing to lose".to_owned() } else { fates.join(", ") };
        self.note(Fault::PowerLoss, String::new(), 0, what)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead
    }

    pub(super) fn rot(&mut self, rng: &mut ChaCha8Rng, detectable_only: bool) -> Option<DiskEvent> {
        let (mut places, positions) = (Vec::new(), self.mark_positions());
        let mut last = BTreeMap::new();
        for (path, _) in self.names.files() {
            last.insert(FileKind::of(path), path.to_owned());
        }
        for (path, id) in self.names.files() {
            let kind = FileKind::of(path);
            let length = self.files[&id].durable_length();
            let is_last = last.get(&kind).is_some_and(|last| last == path);
            let is_temporary = path.extension().is_some_and(|extension| extension == "tmp");
            let bound = match kind {
                _ if !detectable_only => length,
                FileKind::Append | FileKind::Rewrite if is_last => {
                    let [file, durable] = positions[usize::from(kind == FileKind::Rewrite)];
                    let is_marked = path.file_stem() == Some(format!("{file:016}").as_ref());
                    if is_marked { length.min(durable as usize) } else { 0 }
                }
                FileKind::Append | FileKind::Rewrite => length,
                FileKind::Snapshot if !is_temporary => length,
                // The next sync may write the mark again.
                FileKind::Mark | FileKind::Snapshot | FileKind::Other => 0,
            };
            if bound > 0 {
                places.push((kind, self.relative(path), id, bound));
            }
        }
        if places.is_empty() {
            return None;
        }
        let (kind, name, id, bound) = places.swap_remove(rng.random_range(0..places.len()));
        let (at, bit) = (rng.random_range(0..bound), rng.random_range(0..8));
        self.files.get_mut(&id).expect("named files exist").rot(at, bit);
        self.has_lied |= kind.is_log();
        Some(self.note(Fault::BitRot, name, at as u64, format!("bit {bit} flipped")))
    }

    /// Last durable file and its durable length, of both queues, as the mark has them.
    fn mark_positions(&self) -> [[u64; 2]; 2] {
        let mark = self.names.files().find(|(path, _)| FileKind::of(path) == FileKind::Mark);
        let mut bytes = [0; 52];
        if let Some((_, id)) = mark {
            self.files[&id].read(0, &mut bytes);
        }
        let number =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        [[number(16), number(24)], [number(32), number(40)]]
    }
}
