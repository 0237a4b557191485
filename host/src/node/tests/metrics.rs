//! What a node counts, seen from a guest that burns its fuel.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::node::{Command, Ending, JobKind, ProposeResult, ReplySink, Submit};
use crate::types::TrapKind;
use crate::wasm::WasmLoader;

/// `apply` never ends when the command is not empty.
const BURNER: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "raft_fsm_abi_v1"))
    (func (export "apply") (param i32) (result i32)
        (if (local.get 0) (then (loop $l (br $l)))) (i32.const 0))
    (func (export "query") (param i32) (result i32) (i32.const 0))
    (func (export "snapshot") (result i32) (i32.const 0))
    (func (export "restore") (param i32) (result i32) (i32.const 0)))"#;

pub(super) struct Driven {
    pub(super) node: SteppedNode,
    answers: mpsc::UnboundedReceiver<(u64, ProposeResult)>,
    answer_to: mpsc::UnboundedSender<(u64, ProposeResult)>,
}

impl Driven {
    pub(super) fn settle(&mut self) {
        for _ in 0..16 {
            self.node.turn(false);
            self.node.begin_write();
            self.node.finish_write();
            self.node.read_log();
            while self.node.has_job() {
                self.node.apply_next();
            }
        }
        assert_eq!(self.node.stop_reason(), None);
    }

    fn propose(&mut self, request: Request, count_pages: bool) -> ProposeResult {
        let sink = ReplySink::Tagged(0, self.answer_to.clone());
        self.node.handle().submit([Submit { request, sink, count_pages }]);
        self.settle();
        self.answers.try_recv().expect("answered").1
    }

    pub(super) fn command(&mut self, data: &'static [u8]) -> crate::node::Committed {
        let command = Command { data: data.into(), session: None };
        self.propose(command.into(), false).expect("applied")
    }
}

/// A node alone in its cluster that runs the burner. Its clock shows one millisecond more at
/// each look.
pub(super) fn node_with_burner(slow_apply_ms: u64) -> Driven {
    let looks = AtomicU64::default();
    let clock = move || Duration::from_millis(looks.fetch_add(1, Ordering::Relaxed));
    let config = NodeConfig { slow_apply_ms, ..NodeConfig::default() };
    let limits = Limits { apply_fuel: 10_000, ..Limits::default() };
    let loader = Arc::new(WasmLoader::new(None).expect("this host runs wasm"));
    let node = start(config, limits, loader, Arc::new(clock)).0;
    let (answer_to, answers) = mpsc::unbounded_channel();
    let mut driven = Driven { node, answers, answer_to };
    driven.settle();
    for request in module(&wat::parse_str(BURNER).expect("WAT")) {
        driven.propose(request, false).expect("applied");
    }
    driven
}

#[test]
fn a_guest_that_burns_its_fuel_is_counted_with_all_of_it() {
    let mut driven = node_with_burner(1_000);
    let ok = driven.command(b"");
    let trapped = driven.command(b"burn");
    assert_eq!(ok.apply_duration, Duration::from_millis(1), "one look to the next");
    let metrics = driven.node.handle().metrics();
    let out_of_fuel = metrics.applies.of(Ending::Trapped(TrapKind::OutOfFuel));
    assert_eq!((out_of_fuel.count.get(), out_of_fuel.fuel.get()), (1, trapped.fuel_used));
    assert!(trapped.fuel_used >= 9_990, "{}", trapped.fuel_used);
    let done = metrics.applies.of(Ending::Ok);
    assert_eq!((done.count.get(), done.fuel.get()), (1, ok.fuel_used));
    assert_eq!(metrics.apply_duration.buckets().iter().sum::<u64>(), 5, "all entries");
    assert!(JobKind::ALL.iter().all(|kind| metrics.slow_jobs(*kind) == 0));
    let view = driven.node.handle().machine().borrow().clone().expect("a state");
    assert_eq!(view.info.guest_memory_bytes, 64 << 10);
}

#[test]
fn slow_jobs_are_counted_by_what_they_are() {
    let mut driven = node_with_burner(1);
    driven.command(b"burn");
    let metrics = driven.node.handle().metrics();
    assert_eq!(metrics.slow_jobs(JobKind::Activate), 1);
    assert_eq!(metrics.slow_jobs(JobKind::Apply), 3, "a new leader's entry, a chunk, a command");
}

#[test]
fn asking_for_pages_changes_no_outcome() {
    let mut driven = node_with_burner(0);
    let command = || Request::from(Command::default());
    let plain = driven.propose(command(), false).expect("applied");
    let asked = driven.propose(command(), true).expect("applied");
    assert_eq!((plain.reply, plain.fuel_used), (asked.reply, asked.fuel_used));
    assert_eq!(plain.pages_dirtied, None, "nobody asked");
}

#[test]
fn the_way_of_a_proposal_is_measured_entry_by_entry() {
    let mut driven = node_with_burner(1_000);
    let parts = |driven: &Driven| {
        let metrics = driven.node.handle().metrics();
        [&metrics.commit_duration, &metrics.committed_apply_duration]
            .map(|part| (part.buckets().iter().sum::<u64>(), part.sum_seconds()))
    };
    let [committed, applied] = parts(&driven);
    driven.command(b"");
    driven.command(b"burn");
    let [committed_then, applied_then] = parts(&driven);
    assert_eq!(committed_then.0 - committed.0, 2);
    assert_eq!(applied_then.0 - applied.0, 2);
    // One look when it is submitted, and the next when it is committed.
    assert!((committed_then.1 - committed.1 - 0.002).abs() < 1e-9, "{committed_then:?}");
    assert!(applied_then.1 - applied.1 > 0.002, "{applied_then:?}");
    assert_eq!(driven.node.handle().metrics().log_waiting_bytes.get(), 0, "all is written");
}

#[test]
fn entries_wait_for_the_log_writer_until_they_are_written() {
    let mut driven = node_with_burner(1_000);
    let waiting = |driven: &Driven| {
        let queues = driven.node.handle().queues(Some(&driven.node.status()));
        queues.into_iter().map(|queue| (queue.name, queue.bytes)).collect::<BTreeMap<_, _>>()
    };
    assert!(waiting(&driven).values().all(|bytes| *bytes == 0), "{:?}", waiting(&driven));
    let command = Command { data: vec![0; 1_000].into(), session: None };
    let sink = ReplySink::Tagged(0, driven.answer_to.clone());
    driven.node.handle().submit([(command.into(), sink)]);
    driven.node.turn(false);
    let queues = waiting(&driven);
    for queue in ["in_flight", "log", "uncommitted"] {
        assert!(queues[queue] >= 1_000, "{queue}: {queues:?}");
    }
    assert_eq!(queues["unapplied"], 0);
    driven.node.begin_write();
    driven.node.finish_write();
    assert_eq!(waiting(&driven)["log"], 0);
    driven.node.turn(false);
    let queues = waiting(&driven);
    assert!(queues["unapplied"] >= 1_000, "{queues:?}");
    assert_eq!(queues["uncommitted"], 0);
    driven.settle();
    assert!(waiting(&driven).values().all(|bytes| *bytes == 0), "{:?}", waiting(&driven));
}
