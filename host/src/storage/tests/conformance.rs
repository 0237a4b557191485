//! One suite for every [`LogStore`].

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BACK_ENDS: [(&str, Open); 3] =
    [("raft-engine", open_raft_engine), ("sled", open_sled), ("memory", open_memory)];

fn on_each(check: impl Fn(&dyn LogStore)) {
    for (name, open) in BACK_ENDS {
        let dir = tempfile::tempdir().expect("tempdir");
        eprintln!("back end: {name}");
        check(open(dir.path()).expect("open").as_ref());
    }
}

#[test]
fn a_new_group_is_empty() {
    on_each(|store| {
        assert_eq!(store.start(GROUP).expect("start"), LogPosition::default());
        assert_eq!(store.first_index(GROUP).expect("first"), Index(1));
        assert_eq!(store.last_index(GROUP).expect("last"), Index(0));
        assert_eq!(store.term(GROUP, Index(0)).expect("term"), Term(0));
        assert_eq!(store.hard_state(GROUP).expect("hard state"), HardState::default());
        assert!(store.groups().expect("groups").is_empty());
        let error = store.entries(GROUP, Index(1)..Index(2), 1).expect_err("empty");
        assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
        store.write(&WriteBatch::default()).expect("an empty batch is fine");
        store.purge().expect("purge");
    });
}

#[test]
fn entries_come_back_unchanged_and_capped_but_at_least_one() {
    on_each(|store| {
        write(store, append(log(1..=100, 1))).expect("write");
        assert_eq!(all(store, GROUP), log(1..=100, 1));
        let read = |range: Range<u64>, cap| {
            store.entries(GROUP, Index(range.start)..Index(range.end), cap).expect("entries")
        };
        assert_eq!(read(10..20, u64::MAX), log(10..=19, 1));
        assert_eq!(read(10..20, 0), log(10..=10, 1));
        for (from, to) in [(1, 50), (60, 101), (95, 101)] {
            let mut cap = 0;
            for count in 0..(to - from) {
                cap += entry(from + count, 1).cost_bytes();
                assert_eq!(read(from..to, cap), log(from..=from + count, 1));
                assert_eq!(read(from..to, cap + 31), log(from..=from + count, 1));
            }
        }
        for index in 1..=100 {
            assert_eq!(store.term(GROUP, Index(index)).expect("term"), Term(1));
        }
    });
}

#[test]
fn a_conflicting_suffix_is_replaced() {
    on_each(|store| {
        write(store, append(log(1..=50, 1))).expect("write");
        write(store, append(log(20..=30, 2))).expect("truncate");
        let expected = [log(1..=19, 1), log(20..=30, 2)].concat();
        assert_eq!(all(store, GROUP), expected);
        assert_eq!(store.last_index(GROUP).expect("last"), Index(30));
        assert_eq!(store.term(GROUP, Index(19)).expect("term"), Term(1));
        assert_eq!(store.term(GROUP, Index(20)).expect("term"), Term(2));
        let error = store.term(GROUP, Index(31)).expect_err("gone");
        assert!(
            matches!(error, StorageError::Unavailable { last_index: Index(30), .. }),
            "{error}"
        );
        write(store, append(log(1..=2, 3))).expect("replace everything");
        assert_eq!(all(store, GROUP), log(1..=2, 3));
    });
}

#[test]
fn a_compacted_prefix_is_gone_but_its_last_term_stays() {
    on_each(|store| {
        write(store, append(log(1..=50, 1))).expect("write");
        write(store, compact(30, 1)).expect("compact");
        store.purge().expect("purge");
        assert_eq!(store.start(GROUP).expect("start"), position(30, 1));
        assert_eq!(store.first_index(GROUP).expect("first"), Index(31));
        assert_eq!(store.term(GROUP, Index(30)).expect("term"), Term(1));
        let error = store.term(GROUP, Index(29)).expect_err("compacted");
        assert!(matches!(error, StorageError::Compacted { first_index: Index(31), .. }));
        let error = store.entries(GROUP, Index(30)..Index(32), 1).expect_err("compacted");
        assert!(matches!(error, StorageError::Compacted { .. }));
        write(store, compact(30, 1)).expect("again");
        write(store, compact(50, 1)).expect("everything");
        store.purge().expect("purge");
        assert!(all(store, GROUP).is_empty());
        write(store, append(log(51..=52, 2))).expect("go on");
        assert_eq!(all(store, GROUP), log(51..=52, 2));
    });
}

#[test]
fn a_reset_forgets_the_log_but_not_the_vote() {
    on_each(|store| {
        let hard_state = Some(vote(3));
        write(store, GroupWrite { hard_state, ..append(log(1..=50, 1)) }).expect("write");
        for start in [100, 20, 51] {
            write(store, reset(start, 2)).expect("reset");
            store.purge().expect("purge");
            assert_eq!(store.start(GROUP).expect("start"), position(start, 2));
            assert_eq!(store.last_index(GROUP).expect("last"), Index(start));
            assert_eq!(store.term(GROUP, Index(start)).expect("term"), Term(2));
            assert_eq!(store.hard_state(GROUP).expect("hard state"), vote(3));
            let entries = log(start + 1..=start + 9, 4);
            write(store, append(entries.clone())).expect("append");
            assert_eq!(all(store, GROUP), entries);
        }
        let everything = GroupWrite {
            reset_to: Some(position(10, 5)),
            hard_state: Some(vote(6)),
            entries: log(11..=20, 6),
            compact_to: Some(position(15, 6)),
        };
        write(store, everything).expect("everything at once");
        assert_eq!(store.start(GROUP).expect("start"), position(15, 6));
        assert_eq!(all(store, GROUP), log(16..=20, 6));
        assert_eq!(store.hard_state(GROUP).expect("hard state"), vote(6));
    });
}

#[test]
fn gaps_and_steps_back_are_refused_and_change_nothing() {
    on_each(|store| {
        write(store, append(log(1..=10, 1))).expect("write");
        write(store, compact(5, 1)).expect("compact");
        let with_hole = [log(11..=12, 1), log(14..=14, 1)].concat();
        let refused = [
            append(log(12..=13, 1)),
            append(with_hole),
            append(log(5..=6, 1)),
            append(log(1..=20, 1)),
            compact(4, 1),
            compact(11, 1),
            compact(7, 2),
            GroupWrite { entries: log(22..=23, 1), ..reset(20, 1) },
            GroupWrite { entries: log(20..=23, 1), ..reset(20, 1) },
        ];
        for bad in refused {
            let error = write(store, bad.clone()).expect_err("refused");
            assert!(matches!(error, StorageError::InvalidWrite { .. }), "{bad:?}: {error}");
        }
        let twice = WriteBatch { groups: vec![(GROUP, append(log(11..=11, 1))); 2] };
        store.write(&twice).expect_err("one record per group");
        assert_eq!(all(store, GROUP), log(6..=10, 1));
        write(store, append(log(11..=12, 1))).expect("a refusal does no harm");
    });
}

#[test]
fn groups_do_not_see_each_other() {
    on_each(|store| {
        let groups = [GroupId(1), GroupId(2), GroupId(u64::MAX)];
        let writes =
            groups.iter().zip(1..).map(|(group, term)| (*group, append(log(1..=10, term))));
        store.write(&WriteBatch { groups: writes.collect() }).expect("write");
        store
            .write(&WriteBatch {
                groups: vec![(groups[0], compact(9, 1)), (groups[2], append(log(2..=3, 9)))],
            })
            .expect("write");
        store.purge().expect("purge");
        assert_eq!(store.groups().expect("groups"), groups);
        assert_eq!(all(store, groups[0]), log(10..=10, 1));
        assert_eq!(all(store, groups[1]), log(1..=10, 2));
        assert_eq!(all(store, groups[2]), [log(1..=1, 3), log(2..=3, 9)].concat());
        assert_eq!(store.last_index(GroupId(3)).expect("last"), Index(0));
    });
}

#[test]
fn large_and_empty_entries_survive() {
    for (name, open) in BACK_ENDS {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = open(dir.path()).expect("open");
        let sizes = [0, 1, 2 << 20, 0, 300_000];
        let entries: Vec<_> = sizes
            .iter()
            .zip(1..)
            .map(|(size, index)| LogEntry {
                data: vec![index as u8; *size].into(),
                ..entry(index, 1)
            })
            .collect();
        write(store.as_ref(), append(entries.clone())).expect("write");
        assert_eq!(all(store.as_ref(), GROUP), entries);
        if name == "memory" {
            continue;
        }
        drop(store);
        assert_eq!(all(open(dir.path()).expect("reopen").as_ref(), GROUP), entries);
    }
}

#[test]
fn readers_see_whole_states_while_a_writer_truncates() {
    on_each(|store| {
        write(store, append(log(1..=40, 1))).expect("write");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for term in 2..40 {
                    write(store, append(log(10..=40, term))).expect("write");
                }
            });
            while !writer.is_finished() {
                let entries = store.entries(GROUP, Index(5)..Index(41), u64::MAX).expect("read");
                let term = entries[35].term;
                assert_eq!(entries[..5], log(5..=9, 1));
                assert!(entries[5..].iter().all(|entry| entry.term == term), "{entries:?}");
            }
        });
    });
}

#[test]
fn space_of_compacted_entries_is_given_back() {
    for (name, open) in [BACK_ENDS[0], BACK_ENDS[1]] {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = open(dir.path()).expect("open");
        for round in 0..60 {
            write(store.as_ref(), append(log(round * 500 + 1..=round * 500 + 500, 1)))
                .expect("write");
            if round > 0 {
                write(store.as_ref(), compact(round * 500, 1)).expect("compact");
                store.purge().expect("purge");
            }
        }
        let size = super::super::disk::size_bytes(dir.path()).expect("size");
        let limit = if name == "sled" { 4 << 20 } else { 6 * config().log_file_bytes };
        assert!(size < limit, "{name}: {size} bytes left");
        drop(store);
        let store = open(dir.path()).expect("reopen");
        assert_eq!(all(store.as_ref(), GROUP), log(29_501..=30_000, 1));
    }
}

/// The simplest thing that could be right.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    start: LogPosition,
    hard_state: HardState,
    entries: Vec<LogEntry>,
}

impl Model {
    fn last(&self) -> u64 {
        self.start.index.0 + self.entries.len() as u64
    }

    fn apply(&mut self, write: &GroupWrite) {
        if let Some(start) = write.reset_to {
            self.start = start;
            self.entries.clear();
        }
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.index.0 - self.start.index.0 - 1) as usize);
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(to) = write.compact_to {
            self.entries.drain(..(to.index.0 - self.start.index.0) as usize);
            self.start = to;
        }
    }

    /// Turns random numbers into a write that is valid here.
    fn write(&self, dice: &Dice) -> GroupWrite {
        let mut write = GroupWrite::default();
        let mut after = self.clone();
        if dice.reset < 4 {
            write.reset_to = Some(position(dice.at % (self.last() + 20), dice.term));
        }
        write.hard_state = (dice.vote < 40).then(|| vote(dice.term));
        after.apply(&write);
        if dice.count > 0 {
            // Mostly at the end, sometimes over a conflicting suffix.
            let from = match dice.truncate < 20 {
                true => after.start.index.0 + 1 + dice.at % (after.entries.len() as u64 + 1),
                false => after.last() + 1,
            };
            write.entries = log(from..=from + dice.count - 1, dice.term);
        }
        after = self.clone();
        after.apply(&write);
        if dice.compact < 15 && !after.entries.is_empty() {
            let to = &after.entries[dice.at as usize % after.entries.len()];
            write.compact_to = Some(position(to.index.0, to.term.0));
        }
        write
    }

    fn check(&self, store: &dyn LogStore, group: GroupId) {
        assert_eq!(store.start(group).expect("start"), self.start);
        assert_eq!(store.last_index(group).expect("last"), Index(self.last()));
        assert_eq!(store.hard_state(group).expect("hard state"), self.hard_state);
        assert_eq!(all(store, group), self.entries);
        for entry in &self.entries {
            assert_eq!(store.term(group, entry.index).expect("term"), entry.term);
        }
    }
}

#[derive(Clone, Debug)]
struct Dice {
    group: u64,
    reset: u32,
    vote: u32,
    truncate: u32,
    compact: u32,
    at: u64,
    term: u64,
    count: u64,
    then: u32,
}

fn dice() -> impl Strategy<Value = Dice> {
    let percent = || 0..100u32;
    let chances = (percent(), percent(), percent(), percent(), percent());
    (1..3u64, chances, any::<u64>(), 1..9u64, 0..120u64).prop_map(
        |(group, (reset, vote, truncate, compact, then), at, term, count)| Dice {
            group,
            reset,
            vote,
            truncate,
            compact,
            at: at % 1000,
            term,
            count,
            then,
        },
    )
}

fn agrees_with_model(open: Open, can_reopen: bool, rolls: &[Dice]) {
    let dir = tempfile::tempdir().expect("tempdir");
    let copies = tempfile::tempdir().expect("tempdir");
    let mut live = dir.path().to_owned();
    let mut store = open(&live).expect("open");
    let mut models = BTreeMap::<GroupId, Model>::new();
    for (step, dice) in rolls.iter().enumerate() {
        let group = GroupId(dice.group);
        let model = models.entry(group).or_default();
        let write = model.write(dice);
        model.apply(&write);
        store.write(&WriteBatch { groups: vec![(group, write)] }).expect("write");
        model.check(store.as_ref(), group);
        match dice.then {
            0..15 => store.purge().expect("purge"),
            15..20 if can_reopen => {
                drop(store);
                store = open(&live).expect("reopen");
            }
            // What kill -9 leaves: the files as they are, without an orderly close.
            20..27 if can_reopen => {
                let next = copies.path().join(step.to_string());
                copy_dir(&live, &next);
                drop(store);
                live = next;
                store = open(&live).expect("reopen after a kill");
            }
            _ => {}
        }
        models.iter().for_each(|(group, model)| model.check(store.as_ref(), *group));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn raft_engine_agrees_with_a_model(rolls in prop::collection::vec(dice(), 1..60)) {
        agrees_with_model(open_raft_engine, true, &rolls);
    }

    #[test]
    fn memory_agrees_with_a_model(rolls in prop::collection::vec(dice(), 1..60)) {
        agrees_with_model(open_memory, false, &rolls);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn sled_agrees_with_a_model(rolls in prop::collection::vec(dice(), 1..40)) {
        agrees_with_model(open_sled, true, &rolls);
    }
}
