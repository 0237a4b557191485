//! Logs written by hand, and hosts that get one thing wrong.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;

use super::*;
use crate::fsm::native::{KV, NativeLoader};
use crate::fsm::{
    Call, Context, Fsm, FsmLoader, GuestDigest, GuestResult, Image, ImageError, Limits,
    ModuleRefused, QueryError,
};
use crate::node::bootstrap;
use crate::storage::{GroupWrite, WriteBatch};
use crate::transport::Identity;
use crate::types::{HardState, ModuleHash, NodeId, Term};

const CLUSTER: ClusterId = ClusterId([3; 16]);
/// Index of the first command of [`Node::written`].
const FIRST_COMMAND: u64 = 4;

/// What a node left behind.
struct Node {
    stores: Stores,
    loader: SharedLoader,
}

impl Node {
    /// A node of a cluster of one that applied a module and `commands`, with a snapshot at index
    /// 1. Commands begin at [`FIRST_COMMAND`].
    fn written(commands: &[&str]) -> Node {
        let node = NodeId(1);
        let identity = Identity { cluster: CLUSTER, node, address: "one:1".to_owned() };
        let stores = Stores::memory();
        let loader: SharedLoader = Arc::new(NativeLoader);
        let limits = Limits::default();
        bootstrap(&stores, &identity, GroupId::MAIN, limits, Arc::clone(&loader)).expect("empty");
        let module_hash = Bytes::from(ModuleHash::of(KV).0.to_vec());
        let mut bodies = vec![
            Body::ModuleChunk(stored::ModuleChunk {
                module_hash: module_hash.clone(),
                total_bytes: KV.len() as u64,
                offset: 0,
                data: KV.into(),
                ..Default::default()
            }),
            Body::ActivateModule(stored::ActivateModule {
                module_hash,
                label: "kv".to_owned(),
                ..Default::default()
            }),
        ];
        bodies.extend(commands.iter().map(|command| {
            let data = Bytes::copy_from_slice(command.as_bytes());
            stored::Command { data, session: None, actor: None }.into()
        }));
        let written = Node { stores, loader };
        let entries = bodies.into_iter().zip(2..).map(|(body, index)| LogEntry {
            index: Index(index),
            term: Term(1),
            kind: EntryKind::Normal,
            data: stored::Entry { time_ms: index, actor: None, body: Some(body) }
                .encode_to_vec()
                .into(),
            context: Bytes::new(),
        });
        let entries: Vec<_> = entries.collect();
        written.write(entries.len() as u64 + 1, entries);
        written
    }

    /// Makes entries durable, with a commit index.
    fn write(&self, commit: u64, entries: Vec<LogEntry>) {
        let hard_state = HardState { term: Term(1), vote: None, commit: Index(commit) };
        let write = GroupWrite { hard_state: Some(hard_state), entries, ..Default::default() };
        let batch = WriteBatch { groups: vec![(GroupId::MAIN, write)] };
        self.stores.log.write(&batch).expect("memory takes it");
    }

    /// The same node on a host that gets something wrong.
    fn on(self, slip: fn(Context, &mut Call)) -> Node {
        Node { loader: Arc::new(SlippingLoader(slip)), ..self }
    }

    fn replay_from(&self, from: Option<u64>) -> Result<Replayer, ReplayError> {
        let (stores, loader) = (self.stores.clone(), Arc::clone(&self.loader));
        Replayer::new(stores, CLUSTER, GroupId::MAIN, loader, from.map(Index))
    }

    fn replay(&self) -> Replayer {
        self.replay_from(None).expect("begins")
    }

    /// Stores a snapshot of what `other` had at `index`.
    fn take_over_snapshot(&self, other: &Node, index: u64) {
        let mut replayer = other.replay();
        while replayer.applied() < Index(index) {
            replayer.step(false).expect("steps").expect("there is one more");
        }
        let meta = SnapshotMeta {
            group: GroupId::MAIN,
            index: Index(index),
            term: Term(1),
            conf_state: replayer.machine.conf_state().clone(),
            size_bytes: 0,
            checksum: 0,
        };
        let mut sink = self.stores.snapshots.create(meta).expect("memory takes it");
        replayer.machine.capture().expect("native").write_to(&mut sink).expect("memory");
        sink.finish().expect("memory takes it");
    }
}

fn set(key: &str, value: &str) -> String {
    format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#)
}

fn found(left: &Node, right: &Node) -> Comparison {
    compare(&mut left.replay(), &mut right.replay(), None, |_, _| {}).expect("both go on")
}

fn all_steps(replayer: &mut Replayer) -> Vec<Step> {
    std::iter::from_fn(|| replayer.step(false).expect("steps")).collect()
}

#[test]
fn two_nodes_with_the_same_log_agree_to_its_end() {
    let commands = [&*set("a", "1"), "not JSON", &*set("b", "2")];
    let comparison = found(&Node::written(&commands), &Node::written(&commands));
    let end = Some(Index(FIRST_COMMAND + 2));
    assert_eq!(comparison, Comparison { began: Index(1), agreed: end, divergence: None });
}

#[test]
fn a_log_that_ends_earlier_is_compared_to_its_end() {
    let (short, long) = (Node::written(&["x"]), Node::written(&["x", "y", "z"]));
    assert_eq!(found(&short, &long).agreed, Some(Index(FIRST_COMMAND)));
}

#[test]
fn a_changed_entry_is_found_at_its_index() {
    let left = Node::written(&[&set("a", "1"), &set("a", "2"), &set("a", "3")]);
    let right = Node::written(&[&set("a", "1"), &set("a", "!"), &set("a", "3")]);
    let index = Index(FIRST_COMMAND + 1);
    let comparison = found(&left, &right);
    assert_eq!(comparison.divergence, Some(Divergence::Entry(index)));
    assert_eq!(comparison.agreed, Some(Index(FIRST_COMMAND)));
}

#[test]
fn an_entry_that_another_host_executes_otherwise_is_found_with_what_is_other() {
    let commands: Vec<String> = (0..9).map(|n| set("a", &n.to_string())).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let other = |slip| {
        let comparison = found(&Node::written(&commands), &Node::written(&commands).on(slip));
        comparison.divergence.expect("found")
    };
    // The state holds a running hash over what was answered and the fuel for it.
    let fuel =
        other(|context, call| call.fuel_used += u64::from(context.position.index == Index(7)));
    assert_eq!(fuel, Divergence::Execution { index: Index(7), what: vec!["fuel", "state"] });
    let outcome = other(|context, call| {
        if context.position.index == Index(8) {
            call.result = GuestResult::Rejected(b"a slip".to_vec());
        }
    });
    assert_eq!(outcome, Divergence::Execution { index: Index(8), what: vec!["outcome", "state"] });
}

#[test]
fn nodes_that_begin_with_different_states_differ_where_they_begin() {
    let commands = [&*set("a", "1"), &*set("a", "2")];
    let (left, right) = (Node::written(&commands), Node::written(&commands));
    let doctored = Node::written(&[&set("a", "1"), &set("a", "?")]);
    let index = FIRST_COMMAND + 1;
    left.take_over_snapshot(&left, index);
    right.take_over_snapshot(&doctored, index);
    let from = |node: &Node| node.replay_from(Some(index)).expect("begins");
    let comparison = compare(&mut from(&left), &mut from(&right), None, |_, _| {}).expect("runs");
    assert_eq!(comparison.divergence, Some(Divergence::Start(Index(index))));
    assert_eq!(comparison.agreed, None);
}

#[test]
fn a_snapshot_that_does_not_follow_from_the_log_is_found() {
    let commands = [&*set("a", "1"), &*set("a", "2"), &*set("a", "3"), &*set("a", "4")];
    let node = Node::written(&commands);
    let doctored = Node::written(&[&set("a", "1"), &set("a", "2"), &set("a", "!")]);
    node.take_over_snapshot(&node, FIRST_COMMAND);
    let (good, bad) = (Index(FIRST_COMMAND), Index(FIRST_COMMAND + 2));
    assert!(all_steps(&mut node.replay()).iter().all(|step| step.differences.is_empty()));
    node.take_over_snapshot(&doctored, bad.0);
    let steps = all_steps(&mut node.replay());
    let differences: Vec<_> = steps.iter().flat_map(|step| &step.differences).collect();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0].from, Source::Snapshot);
    assert_eq!((differences[0].index, differences[0].agreed), (bad, good));
    assert_ne!(differences[0].theirs, differences[0].replayed);
    // From a snapshot that is wrong everything follows as it should.
    let mut later = node.replay_from(Some(bad.0)).expect("begins");
    assert_eq!(later.began(), bad);
    assert!(all_steps(&mut later).iter().all(|step| step.differences.is_empty()));
}

#[test]
fn only_what_is_known_to_be_committed_is_executed() {
    let node = Node::written(&["a", "b", "c"]);
    node.write(FIRST_COMMAND + 1, Vec::new());
    let mut replayer = node.replay();
    assert_eq!(replayer.last(), Index(FIRST_COMMAND + 1));
    let steps = all_steps(&mut replayer);
    assert_eq!(steps.last().map(|step| step.position.index), Some(Index(FIRST_COMMAND + 1)));
    let kinds: Vec<_> = steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, ["module_chunk", "activate_module", "command", "command"]);
}

#[test]
fn an_index_before_every_snapshot_is_refused_with_the_oldest() {
    let error = Node::written(&["a"]).replay_from(Some(0)).err().expect("refused").to_string();
    assert!(error.contains("the oldest is at index 1"), "{error}");
}

#[test]
fn what_was_asked_and_emitted_is_seen_if_it_is_wanted() {
    let node = Node::written(&[&set("a", "1"), "not JSON"]);
    assert!(all_steps(&mut node.replay()).iter().all(|step| step.answers[0].watched.is_none()));
    let mut replayer = node.replay();
    replayer.watch();
    let steps = all_steps(&mut replayer);
    let commands: Vec<_> = steps
        .iter()
        .map(|step| step.answers[0].watched.as_ref().expect("wanted").command.clone())
        .map(|held| held.map(|held| held.data))
        .collect();
    assert_eq!(commands, [None, None, Some(set("a", "1").into()), Some("not JSON".into())]);
}

#[test]
fn a_state_can_be_asked_as_it_was_between_two_commands_of_an_entry() {
    let node = Node::written(&[&set("a", "1")]);
    let commands = ["2", "3"].map(|value| stored::Command {
        data: set("a", value).into(),
        session: None,
        actor: None,
    });
    let body = Some(Body::Batch(stored::Batch { commands: commands.into() }));
    let index = Index(FIRST_COMMAND + 1);
    let data = stored::Entry { time_ms: 9, actor: None, body }.encode_to_vec().into();
    let (term, kind, context) = (Term(1), EntryKind::Normal, Bytes::new());
    node.write(index.0, vec![LogEntry { index, term, kind, data, context }]);
    let last = Replayer::reach(&node.stores, GroupId::MAIN).expect("there is a state");
    assert_eq!(last, (Index(1), index));
    let asked = |executed: usize| {
        let mut replayer = node.replay();
        let mut answers = 0;
        let mut each = |step: &Step| -> Result<(), ReplayError> {
            answers = step.answers.len();
            Ok(())
        };
        let ordinal = Some(executed as u32 - 1);
        replayer.go_to(index, ordinal, false, &mut each).expect("steps");
        assert_eq!(answers, executed.min(2));
        assert!(replayer.step(false).expect("steps").is_none(), "it was the last");
        let reply = replayer.query(br#"{"op":"get","key":"a"}"#).expect("answers");
        format!("{:?}", reply.result)
    };
    let (first, whole) = (asked(1), asked(2));
    assert_ne!(first, whole);
    assert_eq!(whole, asked(7));
}

/// Gets calls of `apply` wrong after they were made.
#[derive(Clone, Copy)]
struct SlippingLoader(fn(Context, &mut Call));

struct SlippingFsm {
    right: Box<dyn Fsm>,
    slip: fn(Context, &mut Call),
}

impl FsmLoader for SlippingLoader {
    fn engine(&self) -> crate::fsm::EngineProfile {
        NativeLoader.engine()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        NativeLoader.check(module, limits)
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        let right = NativeLoader.instantiate(module, limits, context)?;
        let slip = self.0;
        Ok(right.map(|right| -> Box<dyn Fsm> { Box::new(SlippingFsm { right, slip }) }))
    }
}

impl Fsm for SlippingFsm {
    fn module(&self) -> ModuleHash {
        self.right.module()
    }

    fn init(&mut self, context: Context) -> Result<Call, HostFailure> {
        self.right.init(context)
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        let mut call = self.right.apply(context, command)?;
        (self.slip)(context, &mut call);
        Ok(call)
    }

    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, QueryError> {
        self.right.query(context, query)
    }

    fn has_query(&self) -> bool {
        self.right.has_query()
    }

    fn has_classes(&self) -> bool {
        self.right.has_classes()
    }

    fn classify(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        self.right.classify(context, command)
    }

    fn snapshot(&mut self, context: Context) -> Result<Call, HostFailure> {
        self.right.snapshot(context)
    }

    fn restore(&mut self, context: Context, snapshot: &[u8]) -> Result<Call, HostFailure> {
        self.right.restore(context, snapshot)
    }

    fn digest(&mut self) -> Result<GuestDigest, HostFailure> {
        self.right.digest()
    }

    #[cfg(feature = "museum")]
    fn flip_bit(&mut self, at: u64) {
        self.right.flip_bit(at);
    }

    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure> {
        self.right.capture()
    }

    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError> {
        self.right.load_image(image)
    }

    fn adopt(&mut self, image: &dyn Image) -> Result<(), ImageError> {
        self.right.adopt(image)
    }
}
