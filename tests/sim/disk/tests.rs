//! The product's log and snapshots on the simulated disk: whatever a crash interrupts,
//! nothing acknowledged is lost and nothing is invented; and a disk that lies is found out.

use std::collections::BTreeMap;
use std::io::Read as _;

use raft_host::storage::{GroupWrite, WriteBatch};
use raft_host::types::{
    ConfState, EntryKind, GroupId, HardState, Index, LogEntry, LogPosition, NodeId, SnapshotMeta,
    Term,
};
use rand::SeedableRng as _;

use super::names::FileId;
use super::*;

const GROUPS: [GroupId; 2] = [GroupId::MAIN, GroupId(7)];

/// Small files, so that a few entries already fill several.
fn config() -> StorageConfig {
    StorageConfig {
        log_file_bytes: 4 << 10,
        compress_above_bytes: 512,
        recent_entries_bytes: 1 << 10,
        ..StorageConfig::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct GroupModel {
    start: LogPosition,
    hard_state: HardState,
    entries: Vec<LogEntry>,
}

impl GroupModel {
    fn last(&self) -> LogPosition {
        let last = self.entries.last();
        last.map_or(self.start, |last| LogPosition { index: last.index, term: last.term })
    }

    fn apply(&mut self, write: &GroupWrite) {
        if let Some(start) = write.reset_to {
            (self.start, self.entries) = (start, Vec::new());
        }
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(to) = write.compact_to {
            self.start = to;
            self.entries.retain(|entry| entry.index > to.index);
        }
    }
}

type Model = BTreeMap<GroupId, GroupModel>;

/// A disk, the stores on it, and what they must hold.
struct Rig {
    disk: SimDisk,
    rng: ChaCha8Rng,
    stores: Option<Stores>,
    acknowledged: Model,
    /// If the write in flight happened.
    perhaps: Option<Model>,
    snapshots: BTreeMap<u64, Vec<u8>>,
    /// There or not, for it was being written or removed.
    doubtful: BTreeMap<u64, Vec<u8>>,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        Rig {
            disk: SimDisk::new(seed).expect("a real directory"),
            rng: ChaCha8Rng::seed_from_u64(seed),
            stores: None,
            acknowledged: GROUPS.map(|group| (group, GroupModel::default())).into(),
            perhaps: None,
            snapshots: BTreeMap::new(),
            doubtful: BTreeMap::new(),
        }
    }

    fn log(&self) -> &dyn raft_host::storage::LogStore {
        self.stores.as_ref().expect("open").log.as_ref()
    }

    fn open(&mut self) -> Result<(), StorageError> {
        self.stores = Some(self.disk.open_stores(&config())?);
        Ok(())
    }

    fn random_bytes(&mut self, longest: usize) -> Vec<u8> {
        let length = self.rng.random_range(0..=longest);
        match self.rng.random() {
            true => (0..length).map(|_| self.rng.random()).collect(),
            false => vec![self.rng.random(); length],
        }
    }

    fn random_write(&mut self, group: GroupId) -> GroupWrite {
        let model = self.acknowledged[&group].clone();
        let mut write = GroupWrite::default();
        let term = Term(model.hard_state.term.0 + self.rng.random_range(0..2));
        if self.rng.random_bool(0.5) {
            let vote = self.rng.random_bool(0.5).then_some(NodeId(3));
            write.hard_state = Some(HardState { term, vote, commit: model.last().index });
        }
        let mut next = model.last().index.next();
        if self.rng.random_bool(0.03) {
            let index = Index(next.0 + self.rng.random_range(0..20));
            write.reset_to = Some(LogPosition { index, term });
            next = index.next();
        } else if self.rng.random_bool(0.2) {
            next = Index(self.rng.random_range(model.start.index.0 + 1..=next.0));
        }
        for index in next.0..next.0 + self.rng.random_range(0..6) {
            let (kind, data) = (EntryKind::Normal, self.random_bytes(400).into());
            let context = self.random_bytes(8).into();
            write.entries.push(LogEntry { index: Index(index), term, kind, data, context });
        }
        if self.rng.random_bool(0.2) {
            let mut after = model;
            after.apply(&write);
            let at = self.rng.random_range(0..=after.entries.len());
            let entry = at.checked_sub(1).map(|at| &after.entries[at]);
            write.compact_to =
                entry.map(|entry| LogPosition { index: entry.index, term: entry.term });
        }
        write
    }

    fn write_log(&mut self) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        for group in GROUPS {
            if self.rng.random_bool(0.7) {
                let write = self.random_write(group);
                batch.groups.push((group, write));
            }
        }
        let mut after = self.acknowledged.clone();
        for (group, write) in &batch.groups {
            after.get_mut(group).expect("known").apply(write);
        }
        self.perhaps = Some(after);
        self.log().write(&batch)?;
        self.acknowledged = self.perhaps.take().expect("set above");
        Ok(())
    }

    fn write_snapshot(&mut self) -> Result<(), StorageError> {
        let index =
            self.snapshots.keys().chain(self.doubtful.keys()).max().map_or(1, |last| last + 1);
        let content = self.random_bytes(3000);
        let store = self.stores.as_ref().expect("open").snapshots.clone();
        self.doubtful.insert(index, content.clone());
        let meta = SnapshotMeta {
            group: GroupId::MAIN,
            index: Index(index),
            term: Term(1),
            conf_state: ConfState::default(),
            size_bytes: 0,
            checksum: 0,
        };
        let mut sink = store.create(meta)?;
        let written = sink.write_all(&content);
        sink.finish()?;
        written.expect("finished although a write failed");
        self.doubtful.remove(&index);
        self.snapshots.insert(index, content);
        Ok(())
    }

    fn retain_snapshots(&mut self) -> Result<(), StorageError> {
        while self.snapshots.len() > 2 {
            let (index, content) = self.snapshots.pop_first().expect("more than two");
            self.doubtful.insert(index, content);
        }
        let store = self.stores.as_ref().expect("open").snapshots.clone();
        store.retain(GroupId::MAIN, 2, Index(u64::MAX))?;
        let kept = self.snapshots.clone();
        self.doubtful.retain(|index, _| kept.contains_key(index));
        Ok(())
    }

    fn step(&mut self) -> Result<(), StorageError> {
        match self.rng.random_range(0..20) {
            0..=13 => self.write_log(),
            14..=15 => self.log().purge(),
            16 => {
                self.disk.write_back(&mut self.rng);
                Ok(())
            }
            17 | 18 => self.write_snapshot(),
            _ => self.retain_snapshots(),
        }
    }

    fn steps(&mut self, count: usize) -> Result<(), StorageError> {
        (0..count).try_for_each(|_| self.step())
    }

    fn crash(&mut self, crash: Crash) {
        self.disk.crash(&mut self.rng, crash);
        self.stores = None;
    }

    fn any_crash(&mut self) {
        let crash = if self.rng.random() { Crash::Kill } else { Crash::PowerLoss };
        self.crash(crash);
    }

    /// Everything in the log.
    fn read_log(&self) -> Result<Model, StorageError> {
        let log = self.log();
        let mut found = Model::new();
        for group in GROUPS {
            let (start, last) = (log.start(group)?, log.last_index(group)?);
            let entries = match last > start.index {
                true => log.entries(group, start.index.next()..last.next(), u64::MAX)?,
                false => Vec::new(),
            };
            let hard_state = log.hard_state(group)?;
            found.insert(group, GroupModel { start, hard_state, entries });
        }
        Ok(found)
    }

    fn read_snapshots(&self) -> Result<BTreeMap<u64, Vec<u8>>, String> {
        let store = &self.stores.as_ref().expect("open").snapshots;
        // Left out of the list, and said.
        if let Some(damage) = store.damaged(GroupId::MAIN).first() {
            return Err(damage.to_string());
        }
        let mut found = BTreeMap::new();
        for meta in store.list(GroupId::MAIN).map_err(|error| error.to_string())? {
            let (_, mut reader) =
                store.open(GroupId::MAIN, meta.index).map_err(|error| error.to_string())?;
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(|error| error.to_string())?;
            found.insert(meta.index.0, content);
        }
        Ok(found)
    }

    /// The stores hold what was acknowledged, and perhaps what was in flight.
    fn check(&mut self) {
        let found = self.read_log().expect("readable");
        let is_known = found == self.acknowledged || Some(&found) == self.perhaps.as_ref();
        assert!(
            is_known,
            "found {found:#?}\nacknowledged {:#?}\nin flight {:#?}",
            self.acknowledged, self.perhaps
        );
        (self.acknowledged, self.perhaps) = (found, None);
        let found = self.read_snapshots().expect("readable");
        for (index, content) in &self.snapshots {
            assert_eq!(found.get(index), Some(content), "snapshot {index}");
        }
        for (index, content) in &found {
            let known = self.snapshots.get(index).or(self.doubtful.get(index));
            assert_eq!(known, Some(content), "snapshot {index}");
        }
        (self.snapshots, self.doubtful) = (found, BTreeMap::new());
    }

    fn reopen_and_check(&mut self) {
        if let Err(error) = self.open() {
            panic!("{} refused: {error}", self.disk.real.path().display());
        }
        self.check();
    }
}

/// Runs a case for many seeds, more when `DISK_TEST_SEEDS` names a factor; a panic names the
/// seed.
fn for_seeds(count: u64, mut case: impl FnMut(u64)) {
    let factor = std::env::var("DISK_TEST_SEEDS").ok();
    let factor: u64 = factor.map_or(1, |factor| factor.parse().expect("a number"));
    for seed in 0..count * factor {
        let run = std::panic::AssertUnwindSafe(|| case(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_healthy_disk_keeps_everything() {
    for_seeds(20, |seed| {
        let mut rig = Rig::new(seed);
        rig.open().expect("open");
        for _ in 0..4 {
            rig.steps(40).expect("healthy");
            rig.check();
            rig.stores = None;
            rig.reopen_and_check();
        }
        assert!(rig.disk.stats().faults.is_empty());
        assert!(rig.disk.used_bytes() < 200_000, "{}", rig.disk.used_bytes());
    });
}

#[test]
fn whatever_a_crash_interrupts_nothing_acknowledged_is_lost() {
    for_seeds(200, |seed| {
        let mut rig = Rig::new(seed);
        for _ in 0..8 {
            if rig.rng.random_bool(0.9) {
                let operations = rig.rng.random_range(0..150);
                rig.disk.die_after(operations);
            }
            let ended = rig.open().and_then(|()| {
                rig.check();
                rig.steps(25)
            });
            assert!(ended.is_ok() || rig.disk.is_dead(), "{ended:?}");
            rig.any_crash();
        }
        rig.reopen_and_check();
    });
}

#[test]
fn a_crash_at_every_operation_loses_nothing() {
    let script = |rig: &mut Rig| rig.open().and_then(|()| rig.steps(40));
    for crash in [Crash::Kill, Crash::PowerLoss] {
        for operations in 0.. {
            let mut rig = Rig::new(11);
            rig.disk.die_after(operations);
            let ended = script(&mut rig);
            assert_eq!(ended.is_err(), rig.disk.is_dead(), "{ended:?}");
            rig.crash(crash);
            rig.reopen_and_check();
            if ended.is_ok() {
                assert!(operations > 100);
                break;
            }
        }
    }
}

/// Found by the test above: a process that died between renaming a snapshot and syncing the
/// directory left a snapshot that the next process used, and that a power loss took away,
/// perhaps after the log that it covers had been compacted.
#[test]
fn a_snapshot_that_a_restart_showed_survives_a_power_loss() {
    for seed in 0..20 {
        for operations in 0.. {
            let mut rig = Rig::new(seed);
            rig.open().expect("open");
            rig.write_snapshot().expect("healthy");
            rig.disk.die_after(operations);
            let is_finished = rig.write_snapshot().is_ok();
            rig.crash(Crash::Kill);
            rig.reopen_and_check();
            rig.crash(Crash::PowerLoss);
            rig.reopen_and_check();
            if is_finished {
                break;
            }
        }
    }
}

#[test]
fn a_failed_sync_ends_the_process_but_loses_nothing_acknowledged() {
    for_seeds(200, |seed| {
        let mut rig = Rig::new(seed);
        rig.open().expect("open");
        for _ in 0..5 {
            let steps = rig.rng.random_range(0..20);
            rig.steps(steps).expect("healthy");
            rig.disk.fail_syncs(1);
            let ended = rig.steps(60);
            assert!(ended.is_err(), "a failed sync was ignored");
            // Nothing works in the log of that process, and snapshots do no harm.
            rig.any_crash();
            if rig.rng.random_bool(0.3) {
                rig.disk.fail_syncs(1);
                let _ = rig.open();
                rig.any_crash();
            }
            rig.reopen_and_check();
        }
    });
}

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    for_seeds(200, |seed| {
        let mut rig = Rig::new(seed);
        rig.open().expect("open");
        for _ in 0..4 {
            let free = rig.rng.random_range(0..8000);
            rig.disk.set_capacity(rig.disk.used_bytes() + free);
            let ended = rig.steps(100);
            if ended.is_err() {
                assert!(rig.disk.stats().faults.contains_key(&Fault::FullDisk), "{ended:?}");
            }
            rig.disk.set_capacity(u64::MAX);
            rig.any_crash();
            rig.reopen_and_check();
        }
    });
}

/// Whatever the disk did behind the product's back: it says so, naming a file, or everything
/// is as it should be.
fn check_refused_or_whole(rig: &mut Rig) -> bool {
    let opened = rig.open();
    let refused = match opened {
        Err(error) => Some(error),
        Ok(()) => rig.read_log().err(),
    };
    match refused {
        Some(StorageError::Corrupt { path, .. }) => {
            assert!(path.starts_with(rig.disk.real.path()));
            true
        }
        Some(other) => panic!("not called corrupt: {other:?}"),
        None => match rig.read_snapshots() {
            Err(error) => {
                assert!(error.contains("corrupt at offset"), "{error}");
                true
            }
            Ok(_) => {
                rig.check();
                false
            }
        },
    }
}

#[test]
fn a_flipped_bit_at_rest_is_always_noticed() {
    for_seeds(400, |seed| {
        let mut rig = Rig::new(seed);
        rig.open().expect("open");
        let steps = rig.rng.random_range(1..60);
        rig.steps(steps).expect("healthy");
        rig.any_crash();
        let event = rig.disk.rot(&mut rig.rng, true);
        let is_noticed = check_refused_or_whole(&mut rig);
        assert_eq!(is_noticed, event.is_some(), "{event:?}");
    });
}

/// raft-engine covers all of a record by checksums but its header. A flipped compression flag
/// went unnoticed until the entries were read, and then was a panic.
#[test]
fn no_bit_of_the_log_can_flip_unnoticed() {
    let mut rig = Rig::new(5);
    rig.open().expect("open");
    for _ in 0..3 {
        rig.write_log().expect("healthy");
    }
    rig.stores = None;
    let logs: Vec<(FileId, usize)> = {
        let state = rig.disk.state();
        let logs = state.names.files().filter(|(path, _)| FileKind::of(path).is_log());
        logs.map(|(_, id)| (id, state.files[&id].length())).collect()
    };
    assert_eq!(logs.len(), 2);
    for (id, length) in logs {
        for (at, bit) in (0..length).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let flip = || rig.disk.state().file(id).expect("known").rot(at, bit);
            flip();
            match rig.disk.open_stores(&config()).map(drop) {
                Err(StorageError::Corrupt { offset, .. }) => assert!(offset <= at as u64),
                other => panic!("bit {bit} of byte {at}: {other:?}"),
            }
            flip();
        }
    }
    rig.reopen_and_check();
}

#[test]
fn lost_and_misdirected_writes_are_found_out() {
    let mut noticed = 0;
    for_seeds(400, |seed| {
        let mut rig = Rig::new(seed);
        rig.open().expect("open");
        rig.steps(15).expect("healthy");
        let kinds = [FileKind::Append, FileKind::Rewrite, FileKind::Snapshot];
        let kind = kinds[rig.rng.random_range(0..3)];
        match rig.rng.random() {
            true => rig.disk.lose_next_write(kind),
            false => rig.disk.misdirect_next_write(kind),
        }
        rig.steps(30).expect("nobody can know yet");
        rig.any_crash();
        let is_noticed = check_refused_or_whole(&mut rig);
        noticed += u32::from(is_noticed);
        let struck = rig.disk.take_events();
        assert!(!is_noticed || !struck.is_empty(), "refused without a reason");
    });
    assert!(noticed > 100, "only {noticed} were noticed");
}

/// Purging moves old entries to other files: not if they are not what was written.
#[test]
fn damage_under_a_running_process_is_not_carried_along() {
    let mut noticed = [0; 2];
    for_seeds(400, |seed| {
        let mut rig = Rig::new(seed);
        rig.open().expect("open");
        rig.steps(25).expect("healthy");
        match rig.rng.random_range(0..3) {
            0 => rig.disk.lose_next_write(FileKind::Append),
            1 => rig.disk.misdirect_next_write(FileKind::Append),
            _ => drop(rig.disk.rot(&mut rig.rng, true)),
        }
        let mut ended = Ok(());
        for _ in 0..15 {
            rig.disk.drop_caches();
            ended = ended.and_then(|()| rig.steps(2));
            match rig.read_log() {
                Ok(found) => assert_eq!(found, rig.acknowledged),
                Err(error) => assert!(error.to_string().contains("corrupt"), "{error}"),
            }
        }
        noticed[0] += u32::from(ended.is_err());
        rig.any_crash();
        noticed[1] += u32::from(check_refused_or_whole(&mut rig));
    });
    assert!(noticed[0] > 10 && noticed[1] > 100, "{noticed:?}");
}

/// raft-engine keeps the last block it read by its place alone, for the whole thread.
#[test]
fn logs_of_the_same_shape_are_not_mixed_up() {
    let config = StorageConfig { recent_entries_bytes: 0, ..config() };
    let (first, second) = (SimDisk::new(1).expect("disk"), SimDisk::new(2).expect("disk"));
    let open = |disk: &SimDisk, byte| {
        let stores = disk.open_stores(&config).expect("open");
        let (kind, data) = (EntryKind::Normal, vec![byte; 100].into());
        let context = Vec::new().into();
        let entry = LogEntry { index: Index(1), term: Term(1), kind, data, context };
        let write = GroupWrite { entries: vec![entry], ..GroupWrite::default() };
        stores.log.write(&WriteBatch { groups: vec![(GroupId::MAIN, write)] }).expect("write");
        stores
    };
    let (first, second) = (open(&first, 1), open(&second, 2));
    for _ in 0..2 {
        for (stores, byte) in [(&first, 1), (&second, 2)] {
            let range = Index(1)..Index(2);
            let entries = stores.log.entries(GroupId::MAIN, range, u64::MAX).expect("readable");
            assert_eq!(entries[0].data, vec![byte; 100]);
        }
    }
}

/// What the stores of a dead process do while they are dropped must not reach the disk.
#[test]
fn the_dead_do_not_write() {
    let mut rig = Rig::new(1);
    rig.open().expect("open");
    rig.steps(30).expect("healthy");
    let unfinished = rig.stores.as_ref().expect("open").snapshots.create(SnapshotMeta {
        group: GroupId::MAIN,
        index: Index(1000),
        term: Term(1),
        conf_state: ConfState::default(),
        size_bytes: 0,
        checksum: 0,
    });
    rig.disk.crash(&mut rig.rng, Crash::Kill);
    let before = (rig.disk.contents(), rig.disk.used_bytes());
    rig.log().write(&WriteBatch::default()).expect("nothing to write");
    rig.write_log().expect_err("the disk is gone");
    drop(unfinished);
    rig.stores = None;
    assert_eq!((rig.disk.contents(), rig.disk.used_bytes()), before);
    rig.perhaps = None;
    rig.reopen_and_check();
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut rig = Rig::new(seed);
        let mut trace = Vec::new();
        for _ in 0..6 {
            rig.disk.die_after(rig.rng.random_range(20..200));
            let ended = rig.open().and_then(|()| rig.steps(30));
            trace.push(ended.map_err(|error| rig.disk.describe(error)).err().unwrap_or_default());
            let event = rig.disk.crash(&mut rig.rng, Crash::PowerLoss);
            rig.stores = None;
            trace.push(event.to_string());
            trace.extend(rig.disk.take_events().iter().map(ToString::to_string));
            trace.extend(rig.open().err().map(|error| rig.disk.describe(error)));
            rig.check();
        }
        (trace, rig.disk.contents(), rig.disk.stats())
    };
    for seed in 0..10 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.0, second.0);
        assert_eq!(first, second);
        assert!(first.0.iter().all(|line| !line.contains("raft-host-sim-")), "{:?}", first.0);
    }
}
