//! One suite for both [`SnapshotStore`]s, and the crash suite of the one that lasts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::faults::{Faults, FaultyDisk};
use super::*;
use crate::types::ConfState;

fn meta(group: u64, index: u64) -> SnapshotMeta {
    let conf_state = ConfState {
        voters: [NodeId(1), NodeId(2)].into(),
        learners: [NodeId(9)].into(),
        voters_outgoing: [NodeId(1), NodeId(3)].into(),
        learners_next: [NodeId(3)].into(),
        auto_leave: true,
    };
    let (group, index, term) = (GroupId(group), Index(index), Term(4));
    SnapshotMeta { group, index, term, conf_state, size_bytes: 0, checksum: 0 }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn save(store: &dyn SnapshotStore, meta: SnapshotMeta, content: &[u8]) -> SnapshotMeta {
    let mut sink = store.create(meta).expect("create");
    content.chunks(7777).for_each(|part| sink.write_all(part).expect("write"));
    sink.finish().expect("finish")
}

fn load(store: &dyn SnapshotStore, group: u64, index: u64) -> std::io::Result<Vec<u8>> {
    let (meta, mut reader) =
        store.open(GroupId(group), Index(index)).map_err(std::io::Error::other)?;
    let mut content = Vec::new();
    reader.read_to_end(&mut content)?;
    assert_eq!(meta.size_bytes, content.len() as u64);
    assert_eq!(meta.checksum, crc32fast::hash(&content));
    Ok(content)
}

fn indexes(store: &dyn SnapshotStore, group: u64) -> Vec<u64> {
    store.list(GroupId(group)).expect("list").iter().map(|meta| meta.index.0).collect()
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn snapshots_come_back_newest_first_and_surplus_ones_go() {
    let dir = tempfile::tempdir().expect("tempdir");
    let on_disk = SnapshotFiles::open(dir.path()).expect("open");
    let stores: [Box<dyn SnapshotStore>; 2] =
        [Box::new(on_disk.clone()), Box::new(MemorySnapshots::new())];
    for store in &stores {
        let store = store.as_ref();
        assert!(indexes(store, 1).is_empty());
        assert!(store.open(GroupId(1), Index(7)).is_err());
        for (index, size) in [(7, 0), (100, 1), (20, 256 << 10), (3000, (1 << 20) + 17)] {
            let finished = save(store, meta(1, index), &content(size));
            assert_eq!(finished.size_bytes, size as u64);
            assert_eq!(load(store, 1, index).expect("load"), content(size));
        }
        save(store, meta(2, 5), b"other group");
        assert_eq!(indexes(store, 1), [3000, 100, 20, 7]);
        let newest = &store.list(GroupId(1)).expect("list")[0];
        assert_eq!(newest.conf_state, meta(1, 1).conf_state);
        store.retain(GroupId(1), 2, Index(u64::MAX)).expect("retain");
        assert_eq!(indexes(store, 1), [3000, 100]);
        store.retain(GroupId(1), 0, Index(u64::MAX)).expect("at least one stays");
        assert_eq!(indexes(store, 1), [3000]);
        assert_eq!(indexes(store, 2), [5]);
        save(store, meta(1, 3000), b"written again");
        assert_eq!(load(store, 1, 3000).expect("load"), b"written again");
    }
    let reopened = SnapshotFiles::open(dir.path()).expect("reopen");
    assert_eq!(reopened.list(GroupId(1)).expect("list"), on_disk.list(GroupId(1)).expect("list"));
    assert_eq!(load(&reopened, 2, 5).expect("load"), b"other group");
}

/// It was received while the state before it was being saved, and waits to be installed.
#[test]
fn retention_leaves_alone_what_is_newer_than_the_state_that_was_saved() {
    let dir = tempfile::tempdir().expect("tempdir");
    let on_disk = SnapshotFiles::open(dir.path()).expect("open");
    let stores: [Box<dyn SnapshotStore>; 2] = [Box::new(on_disk), Box::new(MemorySnapshots::new())];
    for store in &stores {
        let store = store.as_ref();
        for index in [1, 2, 3, 4, 10, 11, 12] {
            save(store, meta(1, index), b"content");
        }
        store.retain(GroupId(1), 2, Index(4)).expect("retain");
        assert_eq!(indexes(store, 1), [12, 11, 10, 4, 3]);
        store.retain(GroupId(1), 2, Index(11)).expect("retain");
        assert_eq!(indexes(store, 1), [12, 11, 10]);
    }
}

#[test]
fn a_damaged_snapshot_is_left_out_and_goes_when_a_newer_one_is_safe() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = SnapshotFiles::open(dir.path()).expect("open");
    for index in [7, 8, 9] {
        save(&store, meta(1, index), b"content");
    }
    let group_dir = dir.path().join("1");
    let broken = group_dir.join(format!("{:020}-4.snap", 9));
    std::fs::write(&broken, b"nothing of ours").expect("write");
    let foreign = group_dir.join("holiday.snap");
    std::fs::write(&foreign, b"nothing of ours").expect("write");
    let store = SnapshotFiles::open(dir.path()).expect("the others are good");
    assert_eq!(indexes(&store, 1), [8, 7]);
    assert_eq!(store.damaged(GroupId(1)).len(), 2);
    assert_eq!(store.damaged(GroupId(2)).len(), 0);

    // What turns out to be damaged later goes the same way, unless it was replaced meanwhile.
    let finished = store.list(GroupId(1)).expect("list")[0].clone();
    store.set_aside(&SnapshotMeta { checksum: 1, ..finished.clone() });
    assert_eq!(indexes(&store, 1), [8, 7]);
    store.set_aside(&finished);
    assert_eq!(indexes(&store, 1), [7]);
    save(&store, meta(1, 8), b"written again");
    assert_eq!(load(&store, 1, 8).expect("load"), b"written again");

    store.retain(GroupId(1), 2, Index(8)).expect("retain");
    assert!(broken.exists(), "it may be all that is left of index 9");
    save(&store, meta(1, 10), b"content");
    store.retain(GroupId(1), 2, Index(10)).expect("retain");
    assert_eq!(indexes(&store, 1), [10, 8]);
    assert!(!broken.exists());
    assert!(foreign.exists(), "nobody's but whose it is");
}

#[test]
fn an_abandoned_snapshot_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = SnapshotFiles::open(dir.path()).expect("open");
    let mut sink = store.create(meta(1, 7)).expect("create");
    sink.write_all(&content(1 << 20)).expect("write");
    assert_eq!(indexes(&store, 1), [0; 0], "invisible until finished");
    drop(sink);
    assert_eq!(files(&dir.path().join("1")), 0);
}

#[test]
fn partial_snapshots_of_a_killed_process_are_removed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (live, image) = (dir.path().join("live"), dir.path().join("image"));
    let store = SnapshotFiles::open(&live).expect("open");
    save(&store, meta(1, 7), b"good");
    let mut sink = store.create(meta(1, 8)).expect("create");
    sink.write_all(&content(1 << 20)).expect("write");
    copy_dir(&live, &image);
    assert_eq!(files(&image.join("1")), 2);
    let store = SnapshotFiles::open(&image).expect("open");
    assert_eq!(indexes(&store, 1), [7]);
    assert_eq!(files(&image.join("1")), 1);
}

#[test]
fn altered_or_shortened_content_never_reads_as_good() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = SnapshotFiles::open(dir.path()).expect("open");
    let good = content(600);
    save(&store, meta(1, 7), &good);
    let group_dir = dir.path().join("1");
    let path =
        std::fs::read_dir(&group_dir).expect("list").next().expect("one").expect("one").path();
    let bytes = std::fs::read(&path).expect("read");
    let check = |damaged: &[u8], what: String| {
        std::fs::write(&path, damaged).expect("write");
        let error = load(&store, 1, 7).expect_err(&what);
        assert!(error.to_string().contains("corrupt at offset"), "{what}: {error}");
        // What is not noticed at the start is noticed by the reader.
        let reopened = SnapshotFiles::open(dir.path()).expect("open");
        let (found, damage) = (indexes(&reopened, 1), reopened.damaged(GroupId(1)));
        assert_eq!(found.len() + damage.len(), 1, "{what}: {found:?}, {damage:?}");
        for error in damage {
            assert!(matches!(error, StorageError::Corrupt { .. }), "{what}: {error}");
        }
    };
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        check(&flipped, format!("flip at {at}"));
        check(&bytes[..at], format!("cut at {at}"));
    }
    check(&[&bytes[..], b"x"].concat(), "one more byte".to_owned());
    std::fs::write(&path, &bytes).expect("write");
    assert_eq!(load(&store, 1, 7).expect("load"), good);
}

/// The log's syncs wait behind those of a snapshot.
#[test]
fn no_sync_finds_much_of_a_large_snapshot() {
    let dir = tempfile::tempdir().expect("tempdir");
    let faults = Faults::none();
    let disk = Arc::new(FaultyDisk(faults.clone()));
    let store = SnapshotFiles::open_with_disk(dir.path(), disk).expect("open");
    save(&store, meta(1, 7), &content(5 << 20));
    let largest = faults.largest_snapshot_sync.load(Ordering::SeqCst);
    assert!((1..3 << 19).contains(&largest), "{largest} bytes");
}

#[test]
fn a_full_disk_or_a_failing_sync_keeps_the_previous_snapshot() {
    let dir = tempfile::tempdir().expect("tempdir");
    let faults = Faults::none();
    let disk = Arc::new(FaultyDisk(faults.clone()));
    let store = SnapshotFiles::open_with_disk(dir.path(), disk).expect("open");
    save(&store, meta(1, 7), b"previous");
    for free_bytes in [0, 10, 100, 300_000, 1 << 20] {
        faults.free_bytes.store(free_bytes, Ordering::SeqCst);
        let attempt = store.create(meta(1, 8)).and_then(|mut sink| {
            let written = sink.write_all(&content(1 << 20));
            // Whoever ignores a failed write learns of it in the end.
            sink.finish().inspect(|_| written.expect("finished although a write failed"))
        });
        let error = attempt.expect_err("full");
        assert!(matches!(error, StorageError::Io { action: "write", .. }), "{error}");
        assert_eq!(indexes(&store, 1), [7]);
        assert_eq!(files(&dir.path().join("1")), 1, "the partial file is gone");
    }
    faults.free_bytes.store(i64::MAX, Ordering::SeqCst);
    let mut sink = store.create(meta(1, 8)).expect("create");
    sink.write_all(b"new").expect("write");
    faults.is_sync_failing.store(true, Ordering::SeqCst);
    sink.finish().expect_err("the sync fails");
    assert_eq!(indexes(&store, 1), [7]);
    assert_eq!(load(&store, 1, 7).expect("load"), b"previous");
    faults.is_sync_failing.store(false, Ordering::SeqCst);
    save(&store, meta(1, 8), b"new");
    assert_eq!(load(&store, 1, 8).expect("load"), b"new");
}
