//! What the durable logs must survive, and what they must refuse.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::faults::{Faults, FaultyFileSystem};
use super::*;

const MARK: &str = super::super::mark::FILE_NAME;

/// A log of three batches of five entries in `live`, closed; and the mark and the length of
/// the only log file after each batch (index 0: before the first).
struct ThreeBatches {
    dir: tempfile::TempDir,
    marks: Vec<Vec<u8>>,
    ends: Vec<u64>,
}

impl ThreeBatches {
    fn new() -> ThreeBatches {
        let dir = tempfile::tempdir().expect("tempdir");
        let live = dir.path().join("live");
        let (mut marks, mut ends) = (Vec::new(), Vec::new());
        for batch in 0..4 {
            let store = open_raft_engine(&live).expect("open");
            if batch > 0 {
                let entries = log(batch * 5 - 4..=batch * 5, batch);
                write(
                    store.as_ref(),
                    GroupWrite { hard_state: Some(vote(batch)), ..append(entries) },
                )
                .expect("write");
            }
            drop(store);
            marks.push(std::fs::read(live.join(MARK)).expect("mark"));
            ends.push(std::fs::metadata(live.join(LOG_FILE)).expect("stat").len());
        }
        ThreeBatches { dir, marks, ends }
    }

    /// A copy with other bytes in the log file and the mark of an earlier moment.
    fn copy(&self, log_file: &[u8], mark: usize) -> PathBuf {
        let copy = self.dir.path().join("copy");
        if copy.exists() {
            std::fs::remove_dir_all(&copy).expect("remove");
        }
        copy_dir(&self.dir.path().join("live"), &copy);
        std::fs::write(copy.join(LOG_FILE), log_file).expect("write");
        std::fs::write(copy.join(MARK), &self.marks[mark]).expect("write");
        copy
    }

    fn log_file(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("live").join(LOG_FILE)).expect("read")
    }
}

const LOG_FILE: &str = "0000000000000001.raftlog";

fn batches(count: u64) -> Vec<LogEntry> {
    (1..=count).flat_map(|batch| log(batch * 5 - 4..=batch * 5, batch)).collect()
}

fn refusal(opened: Result<Box<dyn LogStore>, StorageError>, what: &str) -> (PathBuf, u64) {
    match opened.map(|store| all(store.as_ref(), GROUP).len()) {
        Err(StorageError::Corrupt { path, offset, .. }) => (path, offset),
        other => panic!("{what}: expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_survives() {
    let case = ThreeBatches::new();
    let good = case.log_file();
    for length in case.ends[2]..=case.ends[3] {
        for padding in [0, 5000] {
            // Zeros: space that was allocated ahead.
            let mut torn = good[..length as usize].to_vec();
            torn.resize(torn.len() + padding, 0);
            let copy = case.copy(&torn, 2);
            let store = open_raft_engine(&copy).expect("open");
            let expected = batches(if length == case.ends[3] { 3 } else { 2 });
            assert_eq!(all(store.as_ref(), GROUP), expected, "cut at {length}");
            if padding == 0 && length % 16 == 0 {
                write(store.as_ref(), append(log(11..=12, 9))).expect("go on");
                drop(store);
                let store = open_raft_engine(&copy).expect("reopen");
                assert_eq!(all(store.as_ref(), GROUP), [batches(2), log(11..=12, 9)].concat());
            }
        }
    }
}

#[test]
fn a_tail_torn_while_the_file_was_new_is_cut() {
    let case = ThreeBatches::new();
    for length in 0..case.ends[1] {
        let copy = case.copy(&case.log_file()[..length as usize], 0);
        std::fs::write(copy.join(MARK), blank_mark()).expect("write");
        let store = open_raft_engine(&copy).expect("open");
        assert!(all(store.as_ref(), GROUP).is_empty());
    }
}

/// The mark of a store that has never synced anything.
fn blank_mark() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("tempdir");
    super::super::mark::Mark::open(
        &super::super::real_files::RealFiles::default(),
        dir.path(),
        false,
    )
    .expect("mark");
    std::fs::read(dir.path().join(MARK)).expect("read")
}

#[test]
fn what_was_durable_and_is_missing_is_no_torn_tail() {
    let case = ThreeBatches::new();
    for length in (0..case.ends[3]).step_by(3) {
        let copy = case.copy(&case.log_file()[..length as usize], 3);
        let (path, offset) = refusal(open_raft_engine(&copy), "shortened");
        assert!(path.ends_with(LOG_FILE) && offset <= length, "{} at {offset}", path.display());
    }
}

#[test]
fn a_flipped_bit_is_never_skipped() {
    let case = ThreeBatches::new();
    let good = case.log_file();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        // With the mark of the moment nothing can be mistaken for a torn tail.
        if at % 3 == 0 {
            let (path, offset) = refusal(open_raft_engine(&case.copy(&flipped, 3)), "flipped");
            assert!(path.ends_with(LOG_FILE) && offset <= at as u64);
        }
        // With an old mark only the very last record can.
        let copy = case.copy(&flipped, 0);
        if (at as u64) < case.ends[2] {
            let (path, offset) = refusal(open_raft_engine(&copy), "flipped, old mark");
            assert!(path.ends_with(LOG_FILE) && offset <= at as u64, "byte {at}: offset {offset}");
        } else if at % 3 == 0 {
            let store = open_raft_engine(&copy).expect("a torn tail, for all anyone can tell");
            assert_eq!(all(store.as_ref(), GROUP), batches(2));
        }
    }
}

#[test]
fn a_missing_or_damaged_mark_is_refused() {
    let case = ThreeBatches::new();
    let copy = case.copy(&case.log_file(), 3);
    for at in [0, 9, 17, 40, 51] {
        let mut mark = case.marks[3].clone();
        mark[at] ^= 4;
        std::fs::write(copy.join(MARK), mark).expect("write");
        let (path, _) = refusal(open_raft_engine(&copy), "damaged mark");
        assert!(path.ends_with(MARK));
    }
    std::fs::remove_file(copy.join(MARK)).expect("remove");
    let (path, _) = refusal(open_raft_engine(&copy), "missing mark");
    assert!(path.ends_with(MARK));
}

#[test]
fn a_missing_log_file_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let live = dir.path().join("live");
    let store = open_raft_engine(&live).expect("open");
    for batch in 0..40 {
        let entries = (batch * 20 + 1..=batch * 20 + 20)
            .map(|index| LogEntry { data: noise(index).into(), ..entry(index, 1) });
        write(store.as_ref(), append(entries.collect())).expect("write");
    }
    drop(store);
    let count = (1..).take_while(|n| live.join(format!("{n:016}.raftlog")).exists()).count();
    assert!(count >= 4, "the test needs several files, has {count}");
    for missing in 1..=count {
        let copy = dir.path().join(format!("without-{missing}"));
        copy_dir(&live, &copy);
        let name = format!("{missing:016}.raftlog");
        std::fs::remove_file(copy.join(&name)).expect("remove");
        let (path, _) = refusal(open_raft_engine(&copy), &name);
        // Without the first file what remains is contiguous; the entries tell.
        assert!(path.ends_with(&name) || missing == 1, "{}", path.display());
    }
    // A flip in a file that is not the last, too.
    let middle = live.join(format!("{:016}.raftlog", 2));
    let mut bytes = std::fs::read(&middle).expect("read");
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&middle, bytes).expect("write");
    let (path, _) = refusal(open_raft_engine(&live), "flip in an older file");
    assert_eq!(path, middle);
}

/// Bytes that do not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..200).map(|_| next()).collect()
}

fn open_faulty(dir: &Path, faults: &Arc<Faults>) -> RaftEngineLog<FaultyFileSystem> {
    let file_system = Arc::new(FaultyFileSystem(faults.clone()));
    RaftEngineLog::open_with_file_system(dir, &config(), file_system).expect("open")
}

#[test]
fn unsynced_writes_may_vanish_but_nothing_acknowledged_does() {
    for lucky_bytes in [0, 1, 15, 16, 17, 40, 100, 150, 200, 10_000] {
        let dir = tempfile::tempdir().expect("tempdir");
        let (live, image) = (dir.path().join("live"), dir.path().join("image"));
        let faults = Faults::none();
        let store = open_faulty(&live, &faults);
        write(&store, append(batches(2))).expect("acknowledged");
        faults.is_sync_failing.store(true, Ordering::SeqCst);
        write(&store, append(log(11..=15, 3))).expect_err("not acknowledged");
        faults.power_loss(&live, &image, lucky_bytes);
        let found = all(open_raft_engine(&image).expect("open").as_ref(), GROUP);
        assert!(found == batches(2) || found == batches(3), "{lucky_bytes}: {found:?}");
        assert_eq!(found == batches(3), lucky_bytes == 10_000, "{lucky_bytes}");
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().expect("tempdir");
    let faults = Faults::none();
    let store = open_faulty(dir.path(), &faults);
    write(&store, append(batches(1))).expect("write");
    faults.is_sync_failing.store(true, Ordering::SeqCst);
    let error = write(&store, append(log(6..=10, 2))).expect_err("sync fails");
    assert!(
        matches!(&error, StorageError::Io { action: "sync", path, .. } if path.ends_with(LOG_FILE))
    );
    assert_eq!(store.last_index(GROUP).expect("last"), Index(5));
    faults.is_sync_failing.store(false, Ordering::SeqCst);
    let error = write(&store, append(log(6..=10, 2))).expect_err("never again");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    store.purge().expect_err("nor purged");
    drop(store);
    let found = all(open_faulty(dir.path(), &faults).as_ref_store(), GROUP);
    assert!(found == batches(1) || found == batches(2));
}

trait AsRefStore {
    fn as_ref_store(&self) -> &dyn LogStore;
}

impl AsRefStore for RaftEngineLog<FaultyFileSystem> {
    fn as_ref_store(&self) -> &dyn LogStore {
        self
    }
}

#[test]
fn on_a_full_disk_everything_acknowledged_survives() {
    for free_bytes in (0..4000).step_by(97) {
        let dir = tempfile::tempdir().expect("tempdir");
        let faults = Faults::none();
        let store = open_faulty(dir.path(), &faults);
        faults.free_bytes.store(free_bytes, Ordering::SeqCst);
        let mut acknowledged = 0;
        let error = loop {
            let entries = log(acknowledged * 5 + 1..=acknowledged * 5 + 5, acknowledged + 1);
            match write(&store, append(entries)) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StorageError::Io { action: "write", .. }), "{error}");
        faults.free_bytes.store(i64::MAX, Ordering::SeqCst);
        write(&store, append(log(1..=1, 9))).expect_err("poisoned although there is space again");
        drop(store);
        let store = open_raft_engine(dir.path()).expect("reopen");
        assert_eq!(all(store.as_ref(), GROUP), batches(acknowledged));
        write(store.as_ref(), append(log(1..=1, 9))).expect("a restart heals");
    }
}

#[test]
fn a_reset_happens_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("tempdir");
    let live = dir.path().join("live");
    let store = open_raft_engine(&live).expect("open");
    write(store.as_ref(), GroupWrite { hard_state: Some(vote(2)), ..append(batches(3)) })
        .expect("write");
    drop(store);
    let mark = std::fs::read(live.join(MARK)).expect("mark");
    let before = std::fs::metadata(live.join(LOG_FILE)).expect("stat").len();
    let store = open_raft_engine(&live).expect("open");
    write(store.as_ref(), GroupWrite { entries: log(8..=9, 7), ..reset(7, 6) }).expect("reset");
    drop(store);
    let good = std::fs::read(live.join(LOG_FILE)).expect("read");
    std::fs::write(live.join(MARK), mark).expect("write");
    for length in before as usize..=good.len() {
        let copy = dir.path().join(length.to_string());
        copy_dir(&live, &copy);
        std::fs::write(copy.join(LOG_FILE), &good[..length]).expect("write");
        let store = open_raft_engine(&copy).expect("open");
        assert_eq!(store.hard_state(GROUP).expect("hard state"), vote(2));
        if length == good.len() {
            assert_eq!(store.start(GROUP).expect("start"), position(7, 6));
            assert_eq!(all(store.as_ref(), GROUP), log(8..=9, 7));
        } else {
            assert_eq!(store.start(GROUP).expect("start"), position(0, 0));
            assert_eq!(all(store.as_ref(), GROUP), batches(3));
        }
    }
}

// sled has no file system to inject faults into: its files are damaged from outside, and a
// full disk is a limit on the size of files, in a process of its own.

fn sled_of_three_batches(dir: &Path) -> Vec<u8> {
    let store = open_sled(dir).expect("open");
    for batch in 1..=3 {
        let entries = log(batch * 5 - 4..=batch * 5, batch);
        write(store.as_ref(), append(entries)).expect("write");
    }
    drop(store);
    std::fs::read(dir.join("db")).expect("read")
}

#[test]
fn sled_with_a_damaged_file_is_refused_or_complete() {
    let dir = tempfile::tempdir().expect("tempdir");
    let live = dir.path().join("live");
    let good = sled_of_three_batches(&live);
    let used = good.iter().rposition(|byte| *byte != 0).expect("data");
    let mut refused = 0;
    for (number, at) in (0..=used).step_by(used / 80).enumerate() {
        let copy = dir.path().join(number.to_string());
        copy_dir(&live, &copy);
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(copy.join("db"), flipped).expect("write");
        match open_sled(&copy) {
            Ok(store) => assert_eq!(all(store.as_ref(), GROUP), batches(3), "byte {at}"),
            Err(error) => {
                assert!(error.to_string().contains("db"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "only {refused} flips were noticed");
}

#[test]
fn sled_that_lost_durable_batches_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let live = dir.path().join("live");
    let store = open_sled(&live).expect("open");
    write(store.as_ref(), append(batches(1))).expect("write");
    let image = dir.path().join("image");
    copy_dir(&live, &image);
    write(store.as_ref(), append(log(6..=10, 2))).expect("write");
    drop(store);
    // An image of the time before the second batch is fine, with its mark ...
    let store = open_sled(&image).expect("open");
    assert_eq!(all(store.as_ref(), GROUP), batches(1));
    drop(store);
    // ... but not with the mark of the time after it.
    std::fs::copy(live.join(MARK), image.join(MARK)).expect("copy");
    let (path, _) = refusal(open_sled(&image), "older than its mark");
    assert!(path.ends_with("db"));
    // A shortened file is noticed before sled sees it.
    let good = std::fs::read(live.join("db")).expect("read");
    std::fs::write(live.join("db"), &good[..good.len() / 2]).expect("write");
    let (path, offset) = refusal(open_sled(&live), "shortened");
    assert!(path.ends_with("db") && offset == good.len() as u64 / 2);
}

const FULL_DISK_DIR: &str = "RAFT_HOST_TEST_FULL_DISK_DIR";

/// Runs in a process whose files may not grow beyond a limit.
#[test]
fn sled_on_a_full_disk_child() {
    let Some(dir) = std::env::var_os(FULL_DISK_DIR) else { return };
    let dir = PathBuf::from(dir);
    let store = SledLog::open(&dir.join("log"), &config()).expect("open");
    let mut acknowledged = 0;
    let error = loop {
        let index = acknowledged + 1;
        let data = noise(index).repeat(100).into();
        match write(&store, append(vec![LogEntry { data, ..entry(index, 1) }])) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    write(&store, append(log(1..=1, 2))).expect_err("poisoned");
    std::fs::write(dir.join("acknowledged"), format!("{acknowledged} {error}")).expect("report");
    // An orderly shutdown of sled would try to write; a node that lost its disk just dies.
    std::process::exit(0);
}

#[test]
fn sled_on_a_full_disk_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().expect("tempdir");
    let status = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", "storage::tests::crash::sled_on_a_full_disk_child", "--nocapture"])
        .env(FULL_DISK_DIR, dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .expect("run");
    assert!(status.success(), "{status}");
    let report = std::fs::read_to_string(dir.path().join("acknowledged")).expect("report");
    let (acknowledged, error) = report.split_once(' ').expect("two fields");
    let acknowledged: u64 = acknowledged.parse().expect("number");
    assert!(acknowledged > 5, "{acknowledged} then {error}");
    let store = open_sled(&dir.path().join("log")).expect("reopen");
    let found = all(store.as_ref(), GROUP);
    assert!(found.len() as u64 >= acknowledged, "{} of {acknowledged}", found.len());
    for entry in &found {
        assert_eq!(entry.data, noise(entry.index.0).repeat(100));
    }
}

/// A dropped sled lives on in its threads for a moment and holds its lock; a store that was
/// opened again at once was refused. Here the test plays the threads.
#[test]
fn sled_waits_until_its_predecessor_has_let_go() {
    let dir = tempfile::tempdir().expect("tempdir");
    drop(SledLog::open(dir.path(), &config()).expect("open"));
    for _ in 0..50 {
        let held = std::fs::File::open(dir.path().join("db")).expect("open");
        held.lock().expect("lock");
        let is_opening = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| {
                is_opening.store(true, Ordering::SeqCst);
                SledLog::open(dir.path(), &config()).map(drop)
            });
            while !is_opening.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(held);
            opened.join().expect("no panic").expect("waits");
        });
    }
}

/// raft-engine's own file system gave the log to every program that the process started: to the
/// tools that `raft-host dev` builds a module with.
#[test]
fn a_program_that_is_started_gets_none_of_the_files_of_a_log() {
    let dir = tempfile::tempdir().expect("tempdir");
    let own = || {
        // Other tests open and close files meanwhile.
        let links = std::fs::read_dir("/proc/self/fd").expect("the system tells").flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        targets.filter(|target| target.starts_with(dir.path())).count()
    };
    let of_a_program = || {
        let listing = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output();
        let output = listing.expect("ls is there");
        assert!(output.status.success(), "{output:?}");
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let dir = dir.path().to_str().expect("UTF-8");
        listed.lines().filter(|line| line.contains(dir)).count()
    };
    let stores = [open_raft_engine, open_sled]
        .into_iter()
        .zip(["raft-engine", "sled"])
        .map(|(store, name)| store(&dir.path().join(name)).expect("open"));
    let stores: Vec<_> = stores.collect();
    let entries = || append(log(1..=5, 1));
    for store in &stores {
        write(store.as_ref(), GroupWrite { hard_state: Some(vote(1)), ..entries() })
            .expect("write");
    }
    assert!(own() > stores.len(), "the stores have files open");
    assert_eq!(of_a_program(), 0, "the program has them as well");
}
