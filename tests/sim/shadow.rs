//! What a node would be like that never upgraded, and instances that are made ahead as a node's spare time
//! allows: both beside the apply loop, from what goes by there.

use bytes::Bytes;
use prost::Message as _;
use raft_host::fsm::SharedLoader;
use raft_host::machine::{AheadJob, Applied, Machine, MachineSnapshot, Reply};
use raft_host::types::{ClusterId, GroupId, Index, LogEntry, Outcome, Position, StateDigest};
use raft_host_proto::stored::{self, entry::Body};

use super::random::Random;

/// How a guest came back, and what it would be if its module had never been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The digest of its state.
    pub is: Option<StateDigest>,
    /// As it would be.
    pub would_be: Option<StateDigest>,
}

/// An entry as it would have gone if the module had never been replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldBe {
    /// The entry that replaced it.
    pub activated_at: Index,
    /// This one.
    pub index: Index,
    /// Commands that it had executed.
    pub commands: u64,
    /// Those that would have ended otherwise, and how.
    pub differing: Vec<(Position, Outcome)>,
}

/// See the module. It knows nothing of what the machine keeps for a way back.
pub(super) struct Shadow {
    cluster: ClusterId,
    loader: SharedLoader,
    random: Random,
    /// The state before the entry that comes next.
    before: Option<MachineSnapshot>,
    /// A machine that has not taken part in the last activation.
    never: Option<Machine>,
    job: Option<AheadJob>,
    /// The fork that one was handed in for.
    handed_in: Option<Index>,
}

impl Shadow {
    pub(super) fn new(cluster: ClusterId, loader: SharedLoader, random: Random) -> Shadow {
        Shadow { cluster, loader, random, before: None, never: None, job: None, handed_in: None }
    }

    /// After an entry.
    ///
    /// # Panics
    ///
    /// If the host fails, which the simulator does not provoke, or a snapshot cannot be read.
    pub(super) fn applied(
        &mut self,
        machine: &mut Machine,
        entry: &LogEntry,
        answers: &[Applied],
    ) -> (Option<Comparison>, Option<WouldBe>) {
        let found = self.compare(machine, entry, answers);
        self.before = Some(machine.capture().expect("a guest can be captured"));
        self.work(machine);
        found
    }

    fn compare(
        &mut self,
        machine: &mut Machine,
        entry: &LogEntry,
        answers: &[Applied],
    ) -> (Option<Comparison>, Option<WouldBe>) {
        let first = answers.first().map(|applied| &applied.reply);
        if let Some(Reply::Activated { hash, previous, rewound, .. }) = first {
            if rewound.is_some() {
                let Some(mut never) = self.never.take() else { return (None, None) };
                pass(&mut never, entry);
                let digest = |of: &mut Machine| of.guest_digest().expect("it can be digested");
                let (is, would_be) = (digest(machine), digest(&mut never));
                return (Some(Comparison { is, would_be }), None);
            }
            if *previous != Some(*hash) {
                self.never = self.before.take().map(|before| self.copy(&before));
            }
        }
        match (&mut self.never, machine.info().way_back) {
            (Some(never), Some(way)) => {
                let would = pass(never, entry);
                (None, Some(would_be(way.activated_at, entry.index, answers, &would)))
            }
            (never, _) => {
                *never = None;
                (None, None)
            }
        }
    }

    fn copy(&self, before: &MachineSnapshot) -> Machine {
        let mut bytes = Vec::new();
        before.write_to(&mut bytes).expect("into memory");
        let loader = SharedLoader::clone(&self.loader);
        let mut copy = Machine::restore(&mut &bytes[..], self.cluster, GroupId::MAIN, loader)
            .expect("its own snapshot");
        copy.forget_kept();
        copy
    }

    /// A membership change.
    pub(super) fn membership(&mut self, entry: &LogEntry) {
        if let Some(never) = &mut self.never {
            never.skip(entry.index, &Bytes::new());
        }
        // As of the entry before that: what follows is no entry for it.
        self.before = None;
    }

    /// The machine is another one.
    pub(super) fn installed(&mut self) {
        (self.before, self.never, self.job) = (None, None, None);
        self.handed_in = None;
    }

    /// Begins to make an instance ahead, goes on with it, or hands it in.
    fn work(&mut self, machine: &mut Machine) {
        let fork = machine.info().fork.map(|fork| fork.index);
        let is_due = fork.is_some() && fork != self.handed_in;
        self.job = match (self.job.take(), self.random.below(8)) {
            // Another one may take the place of one that was handed in.
            (None, 0..3) if is_due => machine.ahead_job(),
            (None, 0) if fork.is_some() => machine.ahead_job(),
            (None, _) => None,
            (Some(_), 0) if self.random.per_mille(300) => None,
            (Some(job), 1..4) => {
                self.handed_in = Some(job.fork());
                machine.take_ahead(job);
                None
            }
            (Some(mut job), commands) => {
                job.advance(commands).expect("the host is fine");
                Some(job)
            }
        };
    }
}

/// What came of an entry, and what would have come of it.
fn would_be(activated_at: Index, index: Index, is: &[Applied], would: &[Applied]) -> WouldBe {
    let (mut commands, mut differing) = (0, Vec::new());
    for (ordinal, (is, would)) in (0..).zip(is.iter().zip(would)) {
        let (Reply::Command(is), Reply::Command(would)) = (&is.reply, &would.reply) else {
            continue;
        };
        if matches!(is, Outcome::Duplicate(_)) {
            continue;
        }
        commands += 1;
        if is != would {
            differing.push((Position { index, ordinal }, would.clone()));
        }
    }
    WouldBe { activated_at, index, commands, differing }
}

/// Has a machine take part in an entry, but for what is about upgrades.
fn pass(never: &mut Machine, entry: &LogEntry) -> Vec<Applied> {
    let data = match stored::Entry::decode(&entry.data[..]) {
        Ok(stored::Entry {
            time_ms,
            body:
                Some(
                    Body::ActivateModule(_)
                    | Body::ForkState(_)
                    | Body::RecordReceipt(_)
                    | Body::SettleUpgrade(_),
                ),
            ..
        }) => {
            // No session has that id.
            let body = Some(Body::CloseSession(stored::CloseSession { session_id: u64::MAX }));
            Bytes::from(stored::Entry { time_ms, actor: None, body }.encode_to_vec())
        }
        _ => entry.data.clone(),
    };
    let mut answers = Vec::new();
    let mut on_answer = |_, applied| answers.push(applied);
    never.apply(entry.index, &data, &mut on_answer).expect("the host is fine");
    answers
}
