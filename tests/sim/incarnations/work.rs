//! What operators and clients of the new cluster are at: members join, and clients use what they find.

use raft_host::machine::{CommandRefused, QueryReply, QueryResult, Reply};
use raft_host::node::{Command, Consistency, Request, SessionPosition};
use raft_host::transport::Identity;
use raft_host::types::{Actor, JoinNonce, Member, NodeId};

use super::{Beginning, Scene, Show, Told};
use crate::history::{Action, Answer};
use crate::sim::calls::{Answered, Ask, Call, Owner};
use crate::sim::disk::SimDisk;
use crate::sim::guest::{Effect, key_name};
use crate::sim::observe::{Fact, Micros};
use crate::sim::random::Random;
use crate::sim::world::NEXT;

/// Something to be done, one after the other.
#[derive(Clone, Debug)]
enum Job {
    /// A member joins, where a node of the old cluster lives or lived.
    Join(usize),
    /// It is to vote.
    Promote(NodeId),
    /// A client sends again what the old cluster has executed.
    SendAgain(Told),
    /// A client sets a key.
    Write(u8, i64),
    /// A client reads one.
    Read(u8),
}

/// What is under way.
struct Attempt {
    job: Job,
    number: u64,
    give_up: Micros,
}

/// See the module.
pub(super) struct Work {
    /// What is left, the next one last.
    jobs: Vec<Job>,
    attempt: Option<Attempt>,
    next: u64,
    /// What the keys hold, as far as it is known.
    values: Vec<Option<Option<i64>>>,
}

/// An attempt is given up after so many elections.
const PATIENCE: u64 = 4;

impl Work {
    pub(super) fn draw(random: &mut Random, beginning: &Beginning) -> Work {
        let keys = beginning.values.len() as u64;
        let mut jobs: Vec<Job> = (0..random.between(2, 12))
            .map(|number| {
                let key = random.below(keys) as u8;
                match random.per_mille(400) {
                    true => Job::Read(key),
                    false => Job::Write(key, 1_000_000 + number as i64),
                }
            })
            .collect();
        for number in 0..random.below(3) as usize {
            let at = random.below(jobs.len() as u64 + 1) as usize;
            jobs.insert(at, Job::Join(number));
        }
        jobs.extend(beginning.told.clone().map(Job::SendAgain));
        jobs.reverse();
        let values = beginning.values.iter().map(|value| Some(*value)).collect();
        Work { jobs, attempt: None, next: 0, values }
    }

    fn begin(&mut self, job: Job, give_up: Micros) -> u64 {
        self.next += 1;
        self.attempt = Some(Attempt { job, number: self.next, give_up });
        self.next
    }
}

impl Scene<'_> {
    pub(super) fn is_done(&mut self) -> bool {
        self.work.jobs.is_empty() && self.work.attempt.is_none() && self.agrees()
    }

    pub(super) fn missing(&self) -> String {
        let leader = self
            .leader()
            .map_or("nobody".to_owned(), |at| self.residents[at].citizen().to_string());
        let job = self.work.attempt.as_ref().map(|attempt| &attempt.job);
        format!("{leader} leads, {job:?} is under way, {} things are left", self.work.jobs.len())
    }

    /// Begins what is next, if nothing is under way.
    pub(super) fn go_on_with_work(&mut self, show: Show<'_>) {
        self.give_up_in_time();
        if self.work.attempt.is_some() {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let Some(job) = self.work.jobs.pop() else { return };
        let patience = self.plan.shape.node.election_ms * 1_000 * PATIENCE;
        let ask = match &job {
            Job::Join(number) => {
                let nonce = JoinNonce([*number as u8 + 1; 16]);
                Ask::Join(self.address_of_member(*number), nonce, NEXT)
            }
            Job::Promote(node) => Ask::Promote(*node),
            Job::SendAgain((session_id, sequence, data)) => {
                let (session_id, sequence) = (*session_id, *sequence);
                let session =
                    Some(SessionPosition { session_id, sequence, acknowledged: 0, skip: false });
                Ask::Propose(Request::Command(Command { data: data.clone(), session }))
            }
            Job::Write(key, value) => {
                let data = self.guest.command(*key, Effect::Act(Action::Write(*value)));
                Ask::Propose(Request::Command(Command { data, session: None }))
            }
            Job::Read(key) => Ask::Query(self.guest.query(*key), Consistency::Linearizable),
        };
        let number = self.work.begin(job, Micros(self.now.0 + patience));
        let actor = match self.beginning.has_rights {
            true => Actor::Local(self.residents[leader].host.node),
            false => Actor::Nobody,
        };
        let Some(running) = self.residents[leader].host.running() else { return };
        let handle = running.node.handle().acting_for(actor);
        let mut call = Call::new(Owner::Probe(number), &handle, ask);
        match call.poll() {
            Some(answer) => self.hear(call.owner, answer, show),
            None => running.calls.push(call),
        }
    }

    fn give_up_in_time(&mut self) {
        let now = self.now;
        if self.work.attempt.as_ref().is_some_and(|attempt| attempt.give_up <= now)
            && let Some(Attempt { job, .. }) = self.work.attempt.take()
        {
            self.try_again(job, true);
        }
    }

    /// Where a member lives: where a node of the old cluster does, if it has that many.
    fn address_of_member(&self, number: usize) -> String {
        let old = (0..self.residents.len()).filter(|at| !self.is_new(*at));
        let founder = self.residents.iter().find(|it| it.cluster == self.beginning.cluster);
        let taken = founder.map(|founder| founder.host.address.clone());
        let mut free = old
            .map(|at| self.residents[at].host.address.clone())
            .filter(|address| Some(address) != taken.as_ref());
        free.nth(number).unwrap_or_else(|| format!("member{number}:1"))
    }

    /// It may have happened, or not.
    fn try_again(&mut self, job: Job, may_have_happened: bool) {
        if let (Job::Write(key, _), true) = (&job, may_have_happened) {
            // Nobody knows what the key holds, and when that changes once more.
            self.work.values[*key as usize] = None;
            return;
        }
        self.work.jobs.push(job);
    }

    pub(super) fn hear(&mut self, owner: Owner, answer: Answered, show: Show<'_>) {
        let Owner::Probe(number) = owner else { return };
        if self.work.attempt.as_ref().is_none_or(|attempt| attempt.number != number) {
            return;
        }
        let Some(Attempt { job, .. }) = self.work.attempt.take() else { return };
        match (job, answer) {
            (Job::Join(number), Answered::Learner(Ok(node))) => self.joined(number, node, show),
            (Job::Promote(_), Answered::Member(Ok(()))) => {}
            (Job::Promote(node), _) if self.is_voter(node) => {}
            (Job::SendAgain(told), Answered::Proposed(Ok(committed))) => match committed.reply {
                Reply::Refused(CommandRefused::SessionExpired) => {}
                reply => self.fail(
                    "restore_keeps",
                    format!("the new cluster knows the session {} of before: {reply:?}", told.0),
                ),
            },
            (Job::Write(key, value), Answered::Proposed(Ok(committed))) => match committed.reply {
                Reply::Command(outcome) => {
                    let of = self.beginning.cluster;
                    let answer = self.guest.answer(Action::Write(value), &outcome);
                    if answer != Some(Answer::Done) {
                        let what = format!("a write was answered {outcome:?}");
                        return self.fail("guest_answers", what);
                    }
                    let (index, term) = (committed.position.index, committed.term);
                    show(&Fact::ToldBeside { of, index, term });
                    if let Some(known) = &mut self.work.values[key as usize] {
                        *known = Some(value);
                    }
                }
                Reply::NoModule => {}
                reply => {
                    self.fail("guest_answers", format!("a command was answered {reply:?}"));
                }
            },
            (Job::Write(key, value), Answered::Proposed(Err(failure))) => {
                self.try_again(Job::Write(key, value), !failure.surely_not_applied());
            }
            (Job::Read(key), Answered::Queried(Ok(reply))) => self.read(key, &reply),
            (job, answer) => {
                let may_have_happened = Scene::is_gone(&answer);
                self.try_again(job, may_have_happened);
            }
        }
    }

    fn read(&mut self, key: u8, reply: &QueryReply) {
        let found = match &reply.result {
            QueryResult::Answer(outcome) => self.guest.value(outcome),
            _ => return,
        };
        let expected = self.work.values[key as usize];
        if expected.is_some() && found != expected {
            let name = key_name(key);
            let what =
                format!("{name} is {found:?} in the new cluster, and should be {expected:?}");
            self.fail("linearizable", what);
        }
    }

    fn is_voter(&self, node: NodeId) -> bool {
        let leader = self.leader().and_then(|at| self.residents[at].host.node());
        leader.is_some_and(|leader| leader.status().conf_state.is_voter(node))
    }

    /// A member has an id: its host starts, with an empty disk.
    fn joined(&mut self, number: usize, node: NodeId, show: Show<'_>) {
        if self.of_new(node).is_none() {
            let address = self.address_of_member(number);
            let introduced: Vec<Member> = self
                .residents
                .iter()
                .filter(|it| it.cluster == self.beginning.cluster)
                .map(|it| Member { id: it.host.node, address: it.host.address.clone() })
                .collect();
            let disk = SimDisk::new(self.random.number()).expect("a temporary directory");
            let identity = Identity { cluster: self.beginning.cluster, node, address };
            let at = self.settle(identity, disk, introduced);
            let address = self.residents[at].host.address.clone();
            if let Some(other) = self.at_home(&address) {
                self.kill(other, true, self.plan.shape.node.election_ms * 4_000);
            }
            self.start(at, show);
        }
        self.work.jobs.push(Job::Promote(node));
    }
}
