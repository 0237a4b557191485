//! Clients: each does one operation at a time, tries again where that is safe, and writes down
//! what it asked and was told.

use bytes::Bytes;
use raft_host::machine::{QueryResult, Reply};
use raft_host::node::{
    self, Committed, Consistency, ProposeFailure, ProposeResult, Request, SessionPosition,
};
use raft_host::types::{Index, LogPosition, Member, Outcome, Position};

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
    /// Commands, which are proposed as one entry; some of them, if the client tries again.
    Commands(Vec<Command>),
    /// A query, and the highest acknowledged index when it was asked.
    Query { key: u8, is_linearizable: bool, asked_after: Index },
}

/// A command; its bytes, and the action of it that belongs into the history.
#[derive(Clone, Debug)]
struct Command {
    key: u8,
    effect: Effect,
    data: Bytes,
    sequence: u64,
    /// An attempt may have happened.
    is_in_doubt: bool,
    /// What came of it, once that is known.
    outcome: Option<Outcome>,
}

impl Command {
    /// For the trace.
    fn words(&self) -> String {
        let (key, sequence) = (key_name(self.key), self.sequence);
        match self.effect {
            Effect::Act(action) => format!("{action:?} of {key} (command {sequence})"),
            effect => format!("{effect:?} at {key} (command {sequence})"),
        }
    }
}

impl Task {
    /// For the trace.
    fn words(&self) -> String {
        match self {
            Task::Open => "open a session".to_owned(),
            Task::Commands(commands) => {
                let all: Vec<String> = commands.iter().map(Command::words).collect();
                all.join(", ")
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
    /// Which of its commands the latest attempt holds, in the order of its entry.
    sent: Vec<usize>,
}

impl Job {
    /// An attempt may have happened.
    fn doubt(&mut self) {
        self.is_in_doubt = true;
        if let Task::Commands(commands) = &mut self.task {
            for at in &self.sent {
                commands[*at].is_in_doubt = true;
            }
        }
    }
}

/// See the module.
pub(super) struct Client {
    id: usize,
    random: Random,
    has_session: bool,
    is_ordered: bool,
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

/// Numbers in the history between commands of one entry: more than there are clients and operations.
const BATCH_PROCESSES: u64 = 1_000_000_000;
/// Operations that every client must have answered after everything is mended.
const CALM_OPERATIONS: u64 = 2;

impl World {
    pub(super) fn hire_clients(&mut self) {
        let shape = self.plan.shape.clone();
        for id in 0..shape.clients {
            let mut random = Random::stream(self.plan.seed, "client", id as u64);
            let has_session = !random.per_mille(shape.sessionless_per_mille);
            let is_ordered = Random::stream(self.plan.seed, "ordered client", id as u64)
                .per_mille(shape.ordered_per_mille);
            let target = Slot(random.below(self.hosts.len() as u64) as usize);
            let delay = random.between(1, shape.think_us);
            self.clients.push(Client {
                id,
                random,
                has_session,
                is_ordered: has_session && is_ordered,
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
        client.job = Some(Job { task, start: now, give_up, is_in_doubt: false, sent: Vec::new() });
        self.attempt(id);
    }

    /// Sends the client's request to its target.
    fn attempt(&mut self, id: usize) {
        let patience = self.patience_us();
        let now = self.now();
        let is_calm = matches!(self.stage, Stage::Calm);
        let client = &mut self.clients[id];
        client.attempt += 1;
        let attempt = client.attempt;
        client.choose_commands(is_calm);
        // Some wait so long that an old leader comes back with the answer.
        let wait = client.random.magnitude(patience / 4, patience * 8);
        if let Some(job) = &client.job {
            let (target, words) = (client.target, job.task.words());
            let doubt = match (job.is_in_doubt, &job.task) {
                (true, Task::Commands(all)) if all.len() > 1 => {
                    format!(", perhaps again; now {:?} of these", job.sent)
                }
                (true, _) => ", perhaps again".to_owned(),
                (false, _) => String::new(),
            };
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
            Task::Open => {
                Ask::Propose(Request::OpenSession { ttl_ms: 0, ordered: client.is_ordered })
            }
            Task::Commands(commands) => {
                let acknowledged = commands[0].sequence - 1;
                let proposed = |at: &usize| {
                    let Command { data, sequence, .. } = &commands[*at];
                    let session = client.session.map(|session_id| SessionPosition {
                        session_id,
                        sequence: *sequence,
                        acknowledged,
                        skip: false,
                    });
                    node::Command { data: data.clone(), session }
                };
                let mut batch: Vec<node::Command> = job.sent.iter().map(proposed).collect();
                match batch.len() {
                    1 => Ask::Propose(batch.remove(0).into()),
                    _ => Ask::ProposeBatch(batch),
                }
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
        let (now, actor) = (self.now(), self.actor_of(owner, slot));
        let host = &mut self.hosts[slot.0];
        host.clock.set(now);
        if host.is_paused(now) && host.is_up() {
            // Nobody answers, and the caller's patience ends some time.
            return;
        }
        let Some(running) = host.running() else {
            return self.answered(owner, Answered::Unreachable);
        };
        let mut call = Call::new(owner, &running.node.handle().acting_for(actor), ask);
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
            Owner::Backup => self.keep_backup(answer),
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
        if may_have_happened {
            job.doubt();
        }
        let is_command = matches!(job.task, Task::Commands(_));
        let is_safe = !is_command || client.session.is_some() || !job.is_in_doubt;
        if !is_safe || now >= job.give_up {
            return self.finish_operation(id);
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
            Answered::Proposed(result) => self.client_proposed(id, vec![result]),
            Answered::BatchProposed(results) => self.client_proposed(id, results),
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
        if let Some(job) = &mut client.job
            && may_have_happened
        {
            job.doubt();
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

    /// What became of the commands of an entry, or of its only proposal.
    fn client_proposed(&mut self, id: usize, results: Vec<ProposeResult>) {
        let Some(job) = &self.clients[id].job else { return };
        let sent = job.sent.clone();
        if results.is_empty() || results.len() != sent.len().max(1) {
            let what = format!("client {id} sent {sent:?} and was told {results:?}");
            return self.violate("guest_answers", what);
        }
        let (mut may_have_happened, mut hint, mut is_refused) = (false, None, false);
        // All of them were sent in it, whatever one of the answers says of it.
        let session = self.clients[id].session;
        for (at, result) in results.into_iter().enumerate() {
            match result {
                Ok(committed) => match sent.get(at) {
                    None => return self.client_has_session(id, &committed),
                    Some(number) => {
                        is_refused |= self.client_committed(id, (session, *number), &committed);
                    }
                },
                Err(failure) => {
                    may_have_happened |= !failure.surely_not_applied();
                    match failure {
                        ProposeFailure::NotLeader(leader) => hint = leader,
                        // Perhaps the session is somebody else's by now.
                        ProposeFailure::Denied(_) => {
                            (is_refused, self.clients[id].session) = (true, None);
                        }
                        _ => {}
                    }
                }
            }
        }
        let Some(job) = &self.clients[id].job else { return };
        let is_done = match &job.task {
            Task::Commands(commands) => commands.iter().all(|command| command.outcome.is_some()),
            _ => false,
        };
        match is_done || is_refused {
            true => self.finish_operation(id),
            false => self.pause_and_retry(id, may_have_happened, hint),
        }
    }

    fn client_has_session(&mut self, id: usize, committed: &Committed) {
        let now = self.now();
        let client = &mut self.clients[id];
        let Reply::SessionOpened { id: session, .. } = &committed.reply else {
            let what = format!("client {id} asked for a session: {:?}", committed.reply);
            return self.violate("guest_answers", what);
        };
        self.trace.line(now, Who::Client(id), format_args!("has session {session}"));
        client.session = Some(*session);
        client.sequence = 0;
        client.job = None;
        self.counters.sessions += 1;
        self.acknowledged = self.acknowledged.max(committed.position.index);
        self.rest(id);
    }

    /// Takes in what came of one command of the job. Whether it will never be executed.
    fn client_committed(
        &mut self,
        id: usize,
        (session, number): (Option<u64>, usize),
        committed: &Committed,
    ) -> bool {
        let now = self.now();
        let Position { index, ordinal } = committed.position;
        let client = &mut self.clients[id];
        let Some(Job { task: Task::Commands(commands), .. }) = &mut client.job else {
            return false;
        };
        let command = &mut commands[number];
        match &committed.reply {
            Reply::Command(outcome) => {
                // A batch may hold a command twice; both answers are looked at.
                command.outcome.get_or_insert_with(|| outcome.clone());
                let Command { data, sequence, effect, .. } = command.clone();
                let session = session.map(|session| (session, sequence));
                let told = match effect {
                    Effect::Act(action) => self.guest.answer(action, outcome),
                    _ => None,
                };
                let words = command.words();
                self.acknowledged = self.acknowledged.max(index);
                self.backups.note_told(index, session, &data);
                let told = told.map_or(format!("{outcome:?}"), |answer| format!("{answer:?}"));
                let at = committed.position;
                self.trace.line(now, Who::Client(id), format_args!("{words} done at {at}: {told}"));
                self.fact(&Fact::Acknowledged {
                    session,
                    position: LogPosition { index, term: committed.term },
                    ordinal,
                    command: &data,
                    reply: &committed.reply,
                });
                false
            }
            Reply::NoModule => false,
            Reply::Refused(reason) => {
                // The session is gone. If an earlier attempt may have run, nobody knows.
                command.is_in_doubt |= !reason.surely_not_applied();
                client.session = None;
                true
            }
            reply => {
                let what = format!("client {id} asked {} and was told {reply:?}", command.words());
                self.violate("guest_answers", what);
                false
            }
        }
    }

    /// The operation is over: with all its outcomes, or without some.
    fn finish_operation(&mut self, id: usize) {
        let now = self.now();
        let is_calm = matches!(self.stage, Stage::Calm);
        let calm_since = self.stage_since;
        let client = &mut self.clients[id];
        let Some(job) = client.job.take() else { return };
        client.attempt += 1;
        let mut is_answered = true;
        let mut is_unknown = false;
        if let Task::Commands(commands) = &job.task {
            for (number, command) in commands.iter().enumerate() {
                is_answered &= command.outcome.is_some();
                is_unknown |= self.end_command(id, number as u64, command, job.start);
            }
        } else {
            is_answered = false;
            self.counters.clients.failed += 1;
            let words = job.task.words();
            self.trace.line(now, Who::Client(id), format_args!("did not {words}"));
        }
        let processes = self.plan.shape.clients as u64;
        let client = &mut self.clients[id];
        if is_answered && is_calm && job.start >= calm_since {
            client.answered_calm += 1;
        }
        if is_unknown {
            // What is in doubt may happen later; the session goes with it.
            client.process += processes;
            client.session = None;
        }
        if client.is_ordered && !is_answered && matches!(job.task, Task::Commands(_)) {
            // Whatever came next there would wait for what is given up.
            client.session = None;
        }
        self.rest(id);
    }

    /// Counts how a command ended, and writes it into the history. Whether that is unknown.
    fn end_command(&mut self, id: usize, number: u64, command: &Command, start: Micros) -> bool {
        let now = self.now();
        let ending = match (command.effect, &command.outcome) {
            (Effect::Act(action), Some(outcome)) => match self.guest.answer(action, outcome) {
                Some(answer) => Ending::Answered(answer),
                // The reference model has its say about that.
                None => Ending::Unknown,
            },
            (_, Some(_)) => Ending::Failed,
            (_, None) if command.is_in_doubt => Ending::Unknown,
            (_, None) => Ending::Failed,
        };
        if command.outcome.is_none() {
            let words = command.words();
            let end = if command.is_in_doubt { "never knows whether it did" } else { "did not" };
            self.trace.line(now, Who::Client(id), format_args!("{end} {words}"));
        }
        match (&ending, &command.outcome) {
            (_, Some(_)) | (Ending::Answered(_), _) => self.counters.clients.answered += 1,
            (Ending::Failed, None) => self.counters.clients.failed += 1,
            (Ending::Unknown, None) => self.counters.clients.unknown += 1,
        }
        let is_unknown = matches!(ending, Ending::Unknown);
        if let Effect::Act(action) = command.effect {
            self.history.push(Operation {
                // The commands of an entry are under way at the same time.
                process: self.clients[id].process + number * BATCH_PROCESSES,
                key: key_name(command.key),
                action,
                outcome: ending,
                start_ns: start.0 * 1000,
                end_ns: now.0 * 1000,
            });
        }
        is_unknown
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

impl Client {
    /// What the next attempt holds of the job's commands: all that have no answer yet, or, when it
    /// is not the first attempt, some of them. Now and then one of them twice, if the session knows.
    fn choose_commands(&mut self, is_calm: bool) {
        if self.is_ordered && self.session.is_some() {
            return self.choose_ordered(is_calm);
        }
        let Some(Job { task: Task::Commands(commands), sent, .. }) = &mut self.job else { return };
        let is_first = sent.is_empty();
        *sent = (0..commands.len()).filter(|at| commands[*at].outcome.is_none()).collect();
        if commands.len() == 1 || self.session.is_none() {
            return;
        }
        if !is_first && self.random.per_mille(500) {
            let from = self.random.below(sent.len() as u64) as usize;
            let count = self.random.between(1, (sent.len() - from) as u64) as usize;
            *sent = sent[from..from + count].to_vec();
        }
        if self.random.per_mille(200) {
            let again = *self.random.pick(sent);
            sent.push(again);
        }
    }

    /// For an ordered session: some of the commands that have no answer, in any order, and perhaps one
    /// twice. Without those before them they wait, and so does the client for a while.
    fn choose_ordered(&mut self, is_calm: bool) {
        let Some(Job { task: Task::Commands(commands), sent, .. }) = &mut self.job else { return };
        *sent = (0..commands.len()).filter(|at| commands[*at].outcome.is_none()).collect();
        for at in (1..sent.len()).rev() {
            sent.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        if !is_calm && self.random.per_mille(500) {
            let count = self.random.between(1, sent.len() as u64) as usize;
            sent.truncate(count);
        }
        if self.random.per_mille(200) {
            let again = *self.random.pick(sent);
            sent.push(again);
        }
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
    let has_several = match client.is_ordered {
        true => random.per_mille(700),
        false => shape.batches_per_mille > 0 && random.per_mille(shape.batches_per_mille),
    };
    let count = if has_several { random.between(2, shape.batch_max) } else { 1 };
    let mut commands = vec![draw_command(client, key, shape, guest)];
    for _ in 1..count {
        let key = client.random.below(u64::from(shape.keys)) as u8;
        commands.push(draw_command(client, key, shape, guest));
    }
    Task::Commands(commands)
}

fn draw_command(
    client: &mut Client,
    key: u8,
    shape: &crate::sim::plan::Shape,
    guest: &dyn crate::sim::guest::Guest,
) -> Command {
    let random = &mut client.random;
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
    let (data, sequence) = (guest.command(key, effect), client.sequence);
    Command { key, effect, data, sequence, is_in_doubt: false, outcome: None }
}
