//! What has rotted under an open store is found, named, and gone once nothing needs it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn scrub(store: &dyn LogStore) -> Scrubbed {
    store.scrub(&mut |_| true).expect("readable")
}

fn put(store: &dyn LogStore, write: GroupWrite) {
    store.write(&WriteBatch { groups: vec![(GROUP, write)] }).expect("written");
}

fn state(commit: u64) -> HardState {
    HardState { term: Term(1), vote: Some(NodeId(2)), commit: Index(commit) }
}

/// Enough for several files.
fn fill(store: &dyn LogStore, range: std::ops::RangeInclusive<u64>) {
    for first in range.clone().step_by(20) {
        let entries = log(first..=(first + 19).min(*range.end()), 1);
        put(store, GroupWrite { entries, hard_state: Some(state(first)), ..Default::default() });
    }
}

/// What a purge finds alive in the first file, and writes to another one.
fn write_another_group(store: &dyn LogStore) {
    let write = GroupWrite { entries: log(1..=9, 1), ..Default::default() };
    store.write(&WriteBatch { groups: vec![(GroupId(9), write)] }).expect("written");
}

fn compact(store: &dyn LogStore, to: u64) {
    put(store, GroupWrite { compact_to: Some(position(to, 1)), ..Default::default() });
}

/// Files of the log, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path());
    let is_log = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "raftlog" || extension == "rewrite")
    };
    paths.filter(is_log).collect::<BTreeSet<_>>().into_iter().collect()
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ (1 << (at % 8))], at).expect("write");
}

/// What is written in a file, without space that was allocated ahead.
fn used(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("read");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_of_an_open_store_is_found_and_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_raft_engine(dir.path()).expect("open");
    write_another_group(&*store);
    fill(&*store, 1..=3_000);
    compact(&*store, 1_500);
    store.purge().expect("purged");
    fill(&*store, 3_001..=3_400);
    assert_eq!(scrub(&*store), Scrubbed { damages: vec![], is_whole: true });
    let files = files(dir.path());
    let kinds: BTreeSet<_> = files.iter().map(|file| file.extension()).collect();
    assert!(kinds.len() == 2 && files.len() >= 3, "sealed, last and rewritten ones: {files:?}");
    for file in &files {
        let used = used(file);
        assert!(used > 100, "{}: more than a header", file.display());
        // Of the headers of file and record each byte, of the rest some.
        for at in (0..used.min(200)).chain((200..used).step_by(487)).chain([used - 1]) {
            flip(file, at);
            let Scrubbed { damages, is_whole } = scrub(&*store);
            let [found] = &damages[..] else { panic!("{} at {at}: {damages:?}", file.display()) };
            assert!(is_whole && found.file == *file && found.offset <= at, "{at}: {found:?}");
            assert_eq!(found.part, DamagedPart::Log);
            flip(file, at);
        }
        assert_eq!(scrub(&*store).damages, []);
    }
    // A file that has become shorter, and one that is gone: a purge may have deleted it.
    let sealed = files.iter().find(|path| path.extension().is_some_and(|it| it == "raftlog"));
    let sealed = sealed.expect("several");
    let bytes = std::fs::read(sealed).expect("read");
    std::fs::write(sealed, &bytes[..bytes.len() - 1]).expect("write");
    assert_eq!(scrub(&*store).damages.len(), 1);
    std::fs::remove_file(sealed).expect("remove");
    assert_eq!(scrub(&*store), Scrubbed { damages: vec![], is_whole: true });
}

#[test]
fn a_damaged_file_goes_once_its_entries_are_compacted_also_the_one_that_is_written_to() {
    for which in ["first", "last"] {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = open_raft_engine(dir.path()).expect("open");
        fill(&*store, 1..=2_000);
        let paths = files(dir.path());
        assert!(paths.len() >= 3, "{paths:?}");
        let damaged = if which == "first" { &paths[0] } else { &paths[paths.len() - 1] };
        flip(damaged, used(damaged) / 2);
        let Scrubbed { damages, .. } = scrub(&*store);
        assert_eq!(damages.len(), 1, "{which}");
        let copy = tempfile::tempdir().expect("tempdir");
        copy_dir(dir.path(), copy.path());
        open_raft_engine(copy.path()).map(drop).expect_err("a restart would not do");

        compact(&*store, 2_000);
        assert_eq!(store.shed(&damages).expect("purged"), [], "{which}");
        assert!(!damaged.exists(), "{which}");
        assert_eq!(scrub(&*store), Scrubbed { damages: vec![], is_whole: true });
        fill(&*store, 2_001..=2_100);
        drop(store);

        let store = open_raft_engine(dir.path()).expect("all that is left is good");
        assert_eq!(store.groups().expect("groups"), [GROUP]);
        assert_eq!(store.start(GROUP).expect("start"), position(2_000, 1));
        assert_eq!(store.hard_state(GROUP).expect("state"), state(2_081));
        let entries = store.entries(GROUP, Index(2_001)..Index(2_101), u64::MAX).expect("read");
        assert_eq!(entries, log(2_001..=2_100, 1));
    }
}

/// raft-engine alone decides when what it has rewritten goes.
#[test]
fn a_damaged_file_that_stays_is_named_and_the_store_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_raft_engine(dir.path()).expect("open");
    write_another_group(&*store);
    fill(&*store, 1..=3_000);
    compact(&*store, 2_990);
    store.purge().expect("purged");
    let paths = files(dir.path());
    let rewritten = paths.iter().find(|path| path.extension().is_some_and(|it| it == "rewrite"));
    let rewritten = rewritten.expect("a purge writes one");
    flip(rewritten, used(rewritten) - 1);
    let Scrubbed { damages, .. } = scrub(&*store);
    assert_eq!(damages.len(), 1);
    compact(&*store, 3_000);
    assert_eq!(store.shed(&damages).expect("purged"), damages);
    fill(&*store, 3_001..=3_100);
    let entries = store.entries(GROUP, Index(3_001)..Index(3_101), u64::MAX).expect("read");
    assert_eq!(entries, log(3_001..=3_100, 1));
}

#[test]
fn what_a_purge_deletes_meanwhile_is_no_damage_and_a_scrub_can_be_ended() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_raft_engine(dir.path()).expect("open");
    fill(&*store, 1..=3_000);
    let before = files(dir.path()).len();
    let mut steps = 0;
    let mut purge_first = |_| {
        if steps == 0 {
            compact(&*store, 3_000);
            store.purge().expect("purged");
        }
        steps += 1;
        true
    };
    let scrubbed = store.scrub(&mut purge_first).expect("readable");
    assert_eq!(scrubbed, Scrubbed { damages: vec![], is_whole: true });
    assert!(files(dir.path()).len() < before);

    fill(&*store, 3_001..=5_000);
    flip(&files(dir.path())[0], 60);
    let mut left = 2;
    let mut end_soon = |_| {
        left -= 1;
        left >= 0
    };
    let scrubbed = store.scrub(&mut end_soon).expect("readable");
    assert!(!scrubbed.is_whole);
}

#[test]
fn all_engines_can_be_scrubbed_and_asked_to_shed() {
    for open in [open_raft_engine as Open, open_sled, open_memory] {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = open(dir.path()).expect("open");
        fill(&*store, 1..=500);
        compact(&*store, 100);
        assert_eq!(scrub(&*store), Scrubbed { damages: vec![], is_whole: true });
        assert_eq!(store.shed(&[]).expect("purged"), []);
        let entries = store.entries(GROUP, Index(101)..Index(501), u64::MAX).expect("read");
        assert_eq!(entries, log(101..=500, 1));
    }
}

fn meta(index: u64) -> SnapshotMeta {
    let (size_bytes, checksum) = (0, 0);
    let conf_state = Default::default();
    SnapshotMeta {
        group: GROUP,
        index: Index(index),
        term: Term(1),
        conf_state,
        size_bytes,
        checksum,
    }
}

fn save(store: &SnapshotFiles, index: u64) {
    let mut sink = store.create(meta(index)).expect("create");
    sink.write_all(&[7; 300]).expect("write");
    sink.finish().expect("finish");
}

#[test]
fn a_flipped_bit_anywhere_in_a_snapshot_is_found_unless_it_waits_to_be_installed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = SnapshotFiles::open(dir.path()).expect("open");
    [7, 8, 9].into_iter().for_each(|index| save(&store, index));
    let look = |upto| {
        scrub_snapshots(&store, GROUP, Index(upto), &mut |_| true).expect("readable").damages
    };
    assert_eq!(look(9), []);
    let path = |index: u64| dir.path().join(format!("1/{index:020}-1.snap"));
    for at in 0..std::fs::metadata(path(8)).expect("there").len() {
        flip(&path(8), at);
        let damages = look(9);
        let [found] = &damages[..] else { panic!("{at}: {damages:?}") };
        assert_eq!(found.file, path(8));
        assert!(matches!(&found.part, DamagedPart::Snapshot(meta) if meta.index == Index(8)));
        assert_eq!(look(7), []);
        flip(&path(8), at);
    }
    // It is not needed any more, and goes while it is looked for.
    flip(&path(7), 90);
    let mut steps = 0;
    let mut retain_later = |_| {
        steps += 1;
        if steps == 2 {
            store.retain(GROUP, 1, Index(9)).expect("removed");
        }
        true
    };
    let scrubbed = scrub_snapshots(&store, GROUP, Index(9), &mut retain_later).expect("readable");
    assert_eq!(scrubbed, Scrubbed { damages: vec![], is_whole: true });
    let ended = scrub_snapshots(&store, GROUP, Index(9), &mut |_| false).expect("readable");
    assert!(!ended.is_whole);
}
