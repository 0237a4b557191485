//! Clients: each does one operation at a time, tries again where that is safe, and writes down
//! what it asked and was told.

use bytes::Bytes;
use raft_host::machine::{QueryResult, Reply};
use raft_host::node::{Committed, Consistency, ProposeFailure};
use raft_host::types::{Index, LogPosition, Member, Outcome};
use raft_host_proto::stored;
use raft_host_proto::stored::entry::Body;

use super::{Event, Stage, World};
use crate::history::{Action, Operation, Outcome as Ending};
use crate::sim::calls::{Answered, Ask, Call, Owner};
use crate::sim::guest::{Effect, key_name};
use crate::sim::observe::{Fact, Micros, Slot};
use crate::sim::random::Random;
use crate::sim::trace::Who;

/// How operations of clients ended.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered.
    pub answered: u64,
    /// Surely did not happen.
    pub failed: u64,
    /// May have happened.
    pub unknown: u64,
    /// Attempts beyond the first.
    pub retries: u64,
}

/// What a client does at the moment.
#[derive(Clone, Debug)]
enum Task {
    /// Gets a session.
    Open,
    /// A command; its bytes, and the action of it that belongs into the history.
    Command { key: u8, effect: Effect, data: Bytes, sequence: u64 },
    /// A query, and the highest acknowledged index when it was asked.
    Query { key: u8, is_linearizable: bool, asked_after: Index },
}

impl Task {
    /// For the trace.
    fn words(&self) -> String {
        match self {
            Task::Open => "open a session".to_owned(),
            Task::Command { key, effect: Effect::Act(action), sequence, .. } => {
                format!("{action:?} of {} (command {sequence})", key_name(*key))
            }
            Task::Command { key, effect, sequence, .. } => {
                format!("{effect:?} at {} (command {sequence})", key_name(*key))
            }
            Task::Query { key, is_linearizable: true, .. } => format!("read {}", key_name(*key)),
            Task::Query { key, .. } => format!("read {}, stale will do", key_name(*key)),
        }
    }
}

struct Job {
    task: Task,
    start: Micros,
    give_up: Micros,
    /// An earlier attempt may have happened.
    is_in_doubt: bool,
}

/// See the module.
pub(super) struct Client {
    id: usize,
    random: Random,
    has_session: bool,
    session: Option<u64>,
    sequence: u64,
    /// Number in the history; another one after an operation without an answer.
    process: u64,
    target: Slot,
    job: Option<Job>,
    attempt: u64,
    started: u64,
    /// Operations begun and answered since everything was mended.
    answered_calm: u64,
    next_value: i64,
    /// Counts wake-ups, so that old ones are void.
    wake: u64,
}

/// Operations that every client must have answered after everything is mended.
const CALM_OPERATIONS: u64 = 2;

impl World {
    pub(super) fn hire_clients(&mut self) {
        let shape = self.plan.shape.clone();
        for id in 0..shape.clients {
            let mut random = Random::stream(self.plan.seed, "client", id as u64);
            let has_session = !random.per_mille(shape.sessionless_per_mille);
            let target = Slot(random.below(self.hosts.len() as u64) as usize);
            let delay = random.between(1, shape.think_us);
            self.clients.push(Client {
                id,
                random,
                has_session,
                session: None,
                sequence: 0,
                process: id as u64,
                target,
                job: None,
                attempt: 0,
                started: 0,
                answered_calm: 0,
                next_value: 1,
                wake: 0,
            });
            self.queue.after(delay, Event::ClientWake(id, 0));
        }
    }

    /// Clients that rest since they did all their operations go on when everything is mended.
    pub(super) fn rouse_clients(&mut self) {
        for id in 0..self.clients.len() {
            if self.clients[id].job.is_none() {
                self.rest(id);
            }
        }
    }

    /// Whether every client had enough answers since everything was mended, and is at rest.
    pub(super) fn clients_are_done(&self) -> bool {
        self.clients.iter().all(|c| c.answered_calm >= CALM_OPERATIONS && c.job.is_none())
    }

    pub(super) fn busy_clients(&self) -> usize {
        self.clients.iter().filter(|c| c.answered_calm < CALM_OPERATIONS).count()
    }

    fn patience_us(&self) -> u64 {
        self.plan.shape.node.election_ms * 2_000
    }

    fn rest(&mut self, id: usize) {
        let client = &mut self.clients[id];
        client.wake += 1;
        let wake = client.wake;
        let delay = client.random.between(1, self.plan.shape.think_us);
        self.queue.after(delay, Event::ClientWake(id, wake));
    }

    pub(super) fn client_wakes(&mut self, id: usize, wake: u64) {
        let now = self.now();
        let give_up = Micros(now.0 + self.patience_us() * 10);
        let acknowledged = self.acknowledged;
        let is_calm = matches!(self.stage, Stage::Calm);
        let limit = self.plan.shape.operations;
        let client = &mut self.clients[id];
        if client.wake != wake || client.job.is_some() || self.stage == Stage::Settling {
            return;
        }
        let is_done =
            if is_calm { client.answered_calm >= CALM_OPERATIONS } else { client.started >= limit };
        if is_done {
            return;
        }
        let task = if client.has_session && client.session.is_none() {
            Task::Open
        } else {
            client.started += 1;
            draw(client, &self.plan.shape, self.guest, acknowledged)
        };
        client.job = Some(Job { task, start: now, give_up, is_in_doubt: false });
        self.attempt(id);
    }

    /// Sends the client's request to its target.
    fn attempt(&mut self, id: usize) {
        let patience = self.patience_us();
        let now = self.now();
        let client = &mut self.clients[id];
        client.attempt += 1;
        let attempt = client.attempt;
        // Some wait so long that an old leader comes back with the answer.
        let wait = client.random.magnitude(patience / 4, patience * 8);
        if let Some(job) = &client.job {
            let (target, words) = (client.target, job.task.words());
            let doubt = if job.is_in_doubt { ", perhaps again" } else { "" };
            let who = Who::Client(id);
            self.trace.line(now, who, format_args!("asks {target}: {words}{doubt}"));
        }
        self.queue.after(wait, Event::ClientTimeout(id, attempt));
        if let Some(at) = self.network.send_client(now) {
            self.queue.at(at, Event::ClientAsks(id, attempt));
        }
    }

    /// A request arrives.
    pub(super) fn client_asks(&mut self, id: usize, attempt: u64) {
        let client = &self.clients[id];
        let Some(job) = &client.job else { return };
        // What the network still carries arrives even if nobody waits any more; but what it
        // asks is only known while the client is at it.
        if client.attempt != attempt {
            return;
        }
        let slot = client.target;
        let ask = match &job.task {
            Task::Open => Ask::Propose(Body::OpenSession(stored::OpenSession { ttl_ms: 0 })),
            Task::Command { data, sequence, .. } => {
                let session = client.session.map(|session_id| stored::SessionCommand {
                    session_id,
                    sequence: *sequence,
                    acknowledged: sequence - 1,
                });
                Ask::Propose(Body::Command(stored::Command { data: data.clone(), session }))
            }
            Task::Query { key, is_linearizable, .. } => {
                let consistency = match is_linearizable {
                    true => Consistency::Linearizable,
                    false => Consistency::Stale,
                };
                Ask::Query(self.guest.query(*key), consistency)
            }
        };
        self.ask(slot, Owner::Client(id, attempt), ask);
    }

    /// Asks a node something, if it is there.
    pub(super) fn ask(&mut self, slot: Slot, owner: Owner, ask: Ask) {
        let now = self.now();
        let host = &mut self.hosts[slot.0];
        host.clock.set(now);
        if host.is_paused(now) && host.is_up() {
            // Nobody answers, and the caller's patience ends some time.
            return;
        }
        let Some(running) = host.running() else {
            return self.answered(owner, Answered::Unreachable);
        };
        let mut call = Call::new(owner, running.node.handle(), ask);
        match call.poll() {
            Some(answer) => self.answered(owner, answer),
            None => {
                running.calls.push(call);
                self.wake(slot);
            }
        }
    }

    /// A node has answered.
    pub(super) fn answered(&mut self, owner: Owner, answer: Answered) {
        match owner {
            Owner::Client(id, attempt) => {
                if let Some(at) = self.network.send_client(self.now()) {
                    self.queue.at(at, Event::ClientHears(id, attempt, Box::new(answer)));
                }
            }
            Owner::Operator(task, attempt) => self.task_hears(task, attempt, answer),
            Owner::Probe(number) => self.probe_hears(number, &answer),
        }
    }

    pub(super) fn client_times_out(&mut self, id: usize, attempt: u64) {
        if self.clients[id].attempt != attempt || self.clients[id].job.is_none() {
            return;
        }
        // The request may still be under way.
        self.try_again(id, true, None);
    }

    /// Another attempt at another node, if that is safe and there is time; else the end.
    fn try_again(&mut self, id: usize, may_have_happened: bool, hint: Option<Member>) {
        let now = self.now();
        let hosts = self.hosts.len() as u64;
        let hint = hint.and_then(|member| self.by_node.get(&member.id)).copied();
        let client = &mut self.clients[id];
        let Some(job) = &mut client.job else { return };
        job.is_in_doubt |= may_have_happened;
        let is_command = matches!(job.task, Task::Command { .. });
        let is_safe = !is_command || client.session.is_some() || !job.is_in_doubt;
        if !is_safe || now >= job.give_up {
            return self.finish_operation(id, None);
        }
        client.target = match hint {
            Some(slot) if client.random.per_mille(900) => slot,
            _ => Slot(client.random.below(hosts) as usize),
        };
        self.counters.clients.retries += 1;
        self.attempt(id);
    }

    pub(super) fn client_hears(&mut self, id: usize, attempt: u64, answer: Answered) {
        let client = &self.clients[id];
        // A late answer to an earlier attempt is as good, if it is about the same operation;
        // but the client has closed that connection.
        if client.attempt != attempt || client.job.is_none() {
            return;
        }
        match answer {
            Answered::Proposed(Ok(committed)) => self.client_committed(id, &committed),
            Answered::Proposed(Err(failure)) => {
                let may_have_happened = !failure.surely_not_applied();
                let hint = match failure {
                    ProposeFailure::NotLeader(leader) => leader,
                    _ => None,
                };
                self.pause_and_retry(id, may_have_happened, hint);
            }
            Answered::Queried(Ok(reply)) => {
                let QueryResult::Answer(outcome) = &reply.result else {
                    return self.pause_and_retry(id, false, None);
                };
                let value = self.guest.value(outcome);
                self.client_read(id, value, reply.applied);
            }
            Answered::Queried(Err(_)) | Answered::Unreachable => {
                self.pause_and_retry(id, false, None);
            }
            Answered::BrokenOff => self.pause_and_retry(id, true, None),
            other => unreachable!("clients do not ask for {other:?}"),
        }
    }

    fn pause_and_retry(&mut self, id: usize, may_have_happened: bool, hint: Option<Member>) {
        let now = self.now();
        let client = &mut self.clients[id];
        if hint.is_some() {
            return self.try_again(id, may_have_happened, hint);
        }
        // Waits a little, as if the attempt had timed out, but sooner.
        if let Some(job) = &mut client.job {
            job.is_in_doubt |= may_have_happened;
        }
        let wait = client.random.between(1_000, 50_000);
        let attempt = client.attempt;
        if may_have_happened {
            return self.try_again(id, true, None);
        }
        // A sure failure leaves no more doubt than there was.
        self.queue.at(Micros(now.0 + wait), Event::ClientRetry(id, attempt));
    }

    pub(super) fn client_retries(&mut self, id: usize, attempt: u64) {
        if self.clients[id].attempt == attempt && self.clients[id].job.is_some() {
            self.try_again(id, false, None);
        }
    }

    fn client_committed(&mut self, id: usize, committed: &Committed) {
        let now = self.now();
        let client = &mut self.clients[id];
        let position = LogPosition { index: committed.index, term: committed.term };
        let Some(job) = &client.job else { return };
        let task = job.task.clone();
        match (task, &committed.reply) {
            (Task::Open, Reply::SessionOpened { id: session, .. }) => {
                let who = Who::Client(id);
                self.trace.line(now, who, format_args!("has session {session}"));
                client.session = Some(*session);
                client.sequence = 0;
                client.job = None;
                self.counters.sessions += 1;
                self.acknowledged = self.acknowledged.max(committed.index);
                self.rest(id);
            }
            (Task::Command { effect, data, sequence, .. }, Reply::Command(outcome)) => {
                let session = client.session.map(|session| (session, sequence));
                self.acknowledged = self.acknowledged.max(committed.index);
                let told = match effect {
                    Effect::Act(action) => self.guest.answer(action, outcome),
                    _ => None,
                };
                let words = job.task.words();
                let told = told.map_or(format!("{outcome:?}"), |answer| format!("{answer:?}"));
                let who = Who::Client(id);
                let at = committed.index;
                self.trace.line(now, who, format_args!("{words} done at {at}: {told}"));
                self.fact(&Fact::Acknowledged {
                    session,
                    position,
                    command: &data,
                    reply: &committed.reply,
                });
                self.finish_operation(id, Some(outcome));
            }
            (Task::Command { .. }, Reply::NoModule) => self.pause_and_retry(id, false, None),
            (Task::Command { .. }, Reply::Refused(reason)) => {
                // The session is gone. If an earlier attempt may have run, nobody knows.
                let is_sure = reason.surely_not_applied();
                let job = client.job.as_mut().expect("seen above");
                job.is_in_doubt |= !is_sure;
                client.session = None;
                self.finish_operation(id, None);
            }
            (task, reply) => {
                let what = format!("client {id} asked {task:?} and was told {reply:?}");
                self.violate("guest_answers", what);
            }
        }
    }

    /// The operation is over: with an outcome, or without.
    fn finish_operation(&mut self, id: usize, outcome: Option<&Outcome>) {
        let now = self.now();
        let is_calm = matches!(self.stage, Stage::Calm);
        let calm_since = self.stage_since;
        let processes = self.plan.shape.clients as u64;
        let guest = self.guest;
        let client = &mut self.clients[id];
        let Some(job) = client.job.take() else { return };
        client.attempt += 1;
        let mut record = None;
        let mut ending = Ending::Unknown;
        if let Task::Command { key, effect, .. } = &job.task {
            ending = match (effect, outcome) {
                (Effect::Act(action), Some(outcome)) => match guest.answer(*action, outcome) {
                    Some(answer) => Ending::Answered(answer),
                    // The reference model has its say about that.
                    None => Ending::Unknown,
                },
                (_, Some(_)) => Ending::Failed,
                (_, None) if job.is_in_doubt => Ending::Unknown,
                (_, None) => Ending::Failed,
            };
            if let Effect::Act(action) = effect {
                record = Some((*key, *action));
            }
        } else if outcome.is_none() {
            ending = Ending::Failed;
        }
        if outcome.is_none() {
            let words = job.task.words();
            let end = if job.is_in_doubt { "never knows whether it did" } else { "did not" };
            self.trace.line(now, Who::Client(id), format_args!("{end} {words}"));
        }
        match (&ending, outcome) {
            (_, Some(_)) | (Ending::Answered(_), _) => self.counters.clients.answered += 1,
            (Ending::Failed, None) => self.counters.clients.failed += 1,
            (Ending::Unknown, None) => self.counters.clients.unknown += 1,
        }
        if outcome.is_some() && is_calm && job.start >= calm_since {
            client.answered_calm += 1;
        }
        if let Some((key, action)) = record {
            self.history.push(Operation {
                process: client.process,
                key: key_name(key),
                action,
                outcome: ending,
                start_ns: job.start.0 * 1000,
                end_ns: now.0 * 1000,
            });
        }
        if matches!(ending, Ending::Unknown) {
            // What is in doubt may happen later; the session goes with it.
            client.process += processes;
            client.session = None;
        }
        self.rest(id);
    }

    fn client_read(&mut self, id: usize, value: Option<Option<i64>>, applied: Index) {
        let now = self.now();
        let is_calm = matches!(self.stage, Stage::Calm);
        let calm_since = self.stage_since;
        let client = &mut self.clients[id];
        let Some(job) = client.job.take() else { return };
        client.attempt += 1;
        let Task::Query { key, is_linearizable, asked_after } = job.task else {
            unreachable!("only queries are answered so");
        };
        let slot = client.target;
        let Some(value) = value else {
            let what =
                format!("client {id} asked {slot} for {} and was told no value", key_name(key));
            return self.violate("guest_answers", what);
        };
        if is_calm && job.start >= calm_since {
            client.answered_calm += 1;
        }
        let process = client.process;
        self.counters.clients.answered += 1;
        self.counters.queries += 1;
        let name = key_name(key);
        self.trace.line(
            now,
            Who::Client(id),
            format_args!("reads {name} = {value:?} as of {applied} from {slot}"),
        );
        self.fact(&Fact::Queried {
            slot,
            key: &name,
            value,
            applied,
            is_linearizable,
            asked_after,
        });
        if is_linearizable {
            self.history.push(Operation {
                process,
                key: name,
                action: Action::Read,
                outcome: Ending::Answered(crate::history::Answer::Value(value)),
                start_ns: job.start.0 * 1000,
                end_ns: now.0 * 1000,
            });
        }
        self.rest(id);
    }
}

/// The client's next operation.
fn draw(
    client: &mut Client,
    shape: &crate::sim::plan::Shape,
    guest: &dyn crate::sim::guest::Guest,
    acknowledged: Index,
) -> Task {
    let random = &mut client.random;
    let key = random.below(u64::from(shape.keys)) as u8;
    if random.per_mille(shape.reads_per_mille) {
        let is_linearizable = random.per_mille(700);
        return Task::Query { key, is_linearizable, asked_after: acknowledged };
    }
    let odd = [
        Effect::Trap,
        Effect::Trap,
        Effect::Spin,
        Effect::Reject,
        Effect::Grow,
        Effect::Clock,
        Effect::Random,
    ];
    // Values are unique: a client's number and its count.
    let value = (client.id as i64 + 1) * 1_000_000 + client.next_value;
    client.next_value += 1;
    let mut effect = match random.below(10) {
        0 => Effect::Act(Action::Delete),
        1 | 2 => {
            // Sometimes a value that may well be there.
            let guess = (client.id as i64 + 1) * 1_000_000 + client.next_value - 2;
            let expected = random.per_mille(700).then_some(guess);
            Effect::Act(Action::CompareAndSet(expected, value))
        }
        3 | 4 => Effect::Act(Action::Add(random.between(1, 9) as i64)),
        _ => Effect::Act(Action::Write(value)),
    };
    if random.per_mille(shape.odd_per_mille) {
        effect = *random.pick(&odd);
    }
    if !guest.can(effect) {
        effect = Effect::Act(Action::Write(value));
    }
    client.sequence += 1;
    Task::Command { key, effect, data: guest.command(key, effect), sequence: client.sequence }
}
