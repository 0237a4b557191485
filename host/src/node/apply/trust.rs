//! Whether this node's state can be trusted: what it found at digest points, what the verdicts say,
//! and what a node does whose state is another than its cluster's.
//!
//! A quarantined node keeps its machine, for the log goes on, but answers nothing from it and
//! takes no snapshot of it. It ends with the state that the leader sends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::ApplyError;
use super::evidence;
use super::judge::{Judgement, Own, judge};
use super::queries::Queries;
use crate::machine::{Applied, Machine, Reply, TakenDigest, Verdict};
use crate::museum::{self, Exhibit};
use crate::node::answer::{ProposeFailure, QueryFailure};
use crate::node::message::{Event, EventSender};
use crate::types::{ClusterId, ConfState, GroupId, Index, NodeId, StateDigest};

/// How this node's state compares with its cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestStatus {
    /// The newest digest point applied here since the start, or since the last new state.
    pub last: Option<TakenDigest>,
    /// The newest verdict applied here.
    pub verdict: Option<Verdict>,
    /// The newest point at which this node agreed with the majority; 0: none since the start.
    pub agreed: Index,
    /// Present while the state is not trusted.
    pub quarantine: Option<Quarantine>,
    /// Present while the replicas disagree and nothing says yet who is right.
    pub doubt: Option<Doubt>,
    /// Something that people should look at although the node goes on.
    pub alarm: Option<String>,
    /// Counted since the start of the node.
    pub counters: DigestCounters,
}

/// A state that is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Index of the verdict that began it.
    pub since: Index,
    /// The digest point at which the node differed.
    pub point: Index,
    /// For people.
    pub reason: String,
    /// Where the evidence is, once it is written.
    pub evidence: Option<PathBuf>,
}

/// A state of which nobody knows whether it is right, because as many voters found another and one
/// that has not answered decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Index of the verdict that began it.
    pub since: Index,
    /// The digest point at which the replicas disagreed.
    pub point: Index,
    /// For people, with what to do.
    pub reason: String,
}

/// What happened since the start of the node, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestCounters {
    /// Digest points applied.
    pub points: u64,
    /// Verdicts applied.
    pub verdicts: u64,
    /// Verdicts without a majority.
    pub undecided: u64,
    /// Quarantines begun.
    pub quarantines: u64,
    /// Quarantines ended by a fresh state.
    pub healed: u64,
}

/// What the apply loop knows of it.
pub(in crate::node) struct Trust {
    cluster: ClusterId,
    group: GroupId,
    me: NodeId,
    /// Where the log ended when the node started: what it executes up to there it executes again.
    replayed_to: Index,
    /// Where evidence goes, if anywhere.
    evidence: Option<PathBuf>,
    events: EventSender,
    status: watch::Sender<Arc<DigestStatus>>,
    /// Entries applied since the last point, points and verdicts aside.
    since_point: u64,
    /// A point that [`Exhibit::DigestAtReport`] has yet to digest.
    late_point: Option<Index>,
}

impl Trust {
    /// Of a node in its group. `evidence`: where a state that went wrong is kept, if anywhere.
    pub(in crate::node) fn new(
        (cluster, group, me): (ClusterId, GroupId, NodeId),
        replayed_to: Index,
        evidence: Option<PathBuf>,
        events: EventSender,
    ) -> Trust {
        let status = watch::Sender::new(Arc::default());
        let (since_point, late_point) = (0, None);
        Trust { cluster, group, me, replayed_to, evidence, events, status, since_point, late_point }
    }

    pub(in crate::node) fn watch(&self) -> watch::Receiver<Arc<DigestStatus>> {
        self.status.subscribe()
    }

    /// Entries applied since the last point, points and verdicts aside; one of several commands
    /// counts as so many.
    pub(super) fn since_point(&self) -> u64 {
        self.since_point
    }

    /// Whether this process executes what an earlier one executed before.
    pub(super) fn is_replay(&self, index: Index) -> bool {
        index <= self.replayed_to
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.status.borrow().quarantine.is_some()
    }

    fn is_in_doubt(&self) -> bool {
        self.status.borrow().doubt.is_some() && !museum::is_on(Exhibit::DoubtAnswers)
    }

    /// Why a query is not answered, if it is not.
    pub(super) fn refuses_queries(&self) -> Option<QueryFailure> {
        if self.is_quarantined() && !museum::is_on(Exhibit::QuarantineAnswers) {
            return Some(QueryFailure::Quarantined);
        }
        self.is_in_doubt().then_some(QueryFailure::InDoubt)
    }

    /// Why the machine's answer to an entry is not passed on, if it is not.
    pub(super) fn hides_replies(&self) -> Option<ProposeFailure> {
        let words = match self.refuses_queries()? {
            QueryFailure::InDoubt => {
                "the replicas disagree, and nothing says yet whether this node's answer is right"
            }
            _ => "this node's state differs from its cluster's, so its answers count for nothing",
        };
        Some(ProposeFailure::Unknown(words.into()))
    }

    /// Why no snapshot is taken, if none is.
    pub(super) fn refuses_snapshots(&self) -> Option<String> {
        if self.is_quarantined() && !museum::is_on(Exhibit::QuarantinedSnapshots) {
            let words = "this node is quarantined: its state differs from its cluster's and must not be kept";
            return Some(words.to_owned());
        }
        // And what the log before it says must stay, to be executed again.
        self.is_in_doubt().then(|| {
            "the replicas disagree, and nothing says yet whether this node's state is right"
                .to_owned()
        })
    }

    /// Looks at what an entry did.
    pub(super) fn after_entry(
        &mut self,
        machine: &mut Machine,
        queries: &mut Queries,
        applied: &Applied,
        commands: u64,
    ) -> Result<(), ApplyError> {
        match &applied.reply {
            Reply::DigestTaken { index, .. } => {
                self.since_point = 0;
                if museum::is_on(Exhibit::DigestAtReport) {
                    self.late_point = Some(*index);
                } else {
                    self.on_point(machine, *index);
                }
                Ok(())
            }
            Reply::DigestJudged(verdict) => self.on_verdict(machine, queries, verdict),
            _ => {
                self.since_point += commands;
                Ok(())
            }
        }
    }

    /// After a batch of entries.
    pub(super) fn after_batch(&mut self, machine: Option<&mut Machine>) -> Result<(), ApplyError> {
        let Some(point) = self.late_point.take() else { return Ok(()) };
        if let Some(machine) = machine {
            machine.take_digest(point)?;
            self.on_point(machine, point);
        }
        Ok(())
    }

    fn on_point(&mut self, machine: &Machine, point: Index) {
        let taken = machine.taken_digest(point).expect("just taken").clone();
        tracing::debug!(
            index = %point, digest = %taken.digest.short(), machine = %taken.machine.short(),
            guest = taken.guest.map(|guest| guest.short()).unwrap_or_default(),
            "digested the state"
        );
        // An event loop that has ended needs no news.
        let _ = self.events.send(Event::DigestTaken(point, taken.digest));
        self.update(|status| {
            status.last = Some(taken);
            status.counters.points += 1;
        });
        if museum::is_on(Exhibit::QuarantineLiftedUnhealed) && self.is_quarantined() {
            self.update(|status| status.quarantine = None);
            let _ = self.events.send(Event::Trusted);
        }
    }

    fn on_verdict(
        &mut self,
        machine: &mut Machine,
        queries: &mut Queries,
        verdict: &Verdict,
    ) -> Result<(), ApplyError> {
        let conf_state = machine.conf_state();
        let own = machine.taken_digest(verdict.point).map(|taken| Own {
            digest: taken.digest,
            is_reexecuted: verdict.point <= self.replayed_to,
        });
        let judgement = judge(self.me, verdict, conf_state, own);
        let conf_state = conf_state.clone();
        self.update(|status| {
            status.counters.verdicts += 1;
            status.counters.undecided += u64::from(verdict.truth.is_none());
            status.verdict = Some(verdict.clone());
        });
        let distrusted: BTreeSet<NodeId> = verdict.differing().collect();
        // An event loop that has ended needs no news.
        let judged = Event::DigestJudged(verdict.point, verdict.truth.is_some(), distrusted);
        let _ = self.events.send(judged);
        let (point, votes) = (verdict.point, votes(verdict));
        match judgement {
            Judgement::Nothing => {}
            Judgement::Agrees => {
                self.update(|status| {
                    status.agreed = point;
                    status.alarm = None;
                });
                self.end_doubt("this node's state is that of most voters");
            }
            Judgement::Differs(truth) => {
                self.quarantine(machine, queries, verdict, truth);
                self.end_doubt("this node's state is not that of most voters");
            }
            Judgement::Open => self.doubt(queries, verdict, &conf_state),
            Judgement::DiffersFromItself(logged) => self.raise(format!(
                "executing the log again gave another state at index {point} than the first time \
                 (then {}): this node's memory, disk or processor cannot be trusted",
                logged.short()
            )),
            Judgement::Disputed => self.raise(format!(
                "the replicas disagreed at index {point} without a majority ({votes}); this node \
                 has executed its log again and goes on with what that gave"
            )),
            Judgement::InDoubt => {
                return Err(ApplyError::InDoubt { point, votes, voters: voters(&conf_state) });
            }
        }
        Ok(())
    }

    /// Serving goes on only where the state is known to be right, which nobody can prove with as many
    /// votes for as against. The log is not in doubt: the node goes on voting and appending, and the
    /// voter that is missing decides when it is back.
    fn doubt(&mut self, queries: &mut Queries, verdict: &Verdict, conf_state: &ConfState) {
        if self.status.borrow().doubt.is_some() || self.is_quarantined() {
            return;
        }
        let all = conf_state.voters.union(&conf_state.voters_outgoing);
        let missing: Vec<String> = all
            .filter(|voter| verdict.vote_of(**voter).is_none())
            .map(|voter| voter.to_string())
            .collect();
        let (since, point) = (verdict.at, verdict.point);
        let reason = format!(
            "the replicas disagree at index {point} and no state has a majority of the {} voters \
             ({}), so this node answers nothing until node {} has voted, too: start that; or start \
             this one again, which executes its log again from the disk",
            voters(conf_state),
            votes(verdict),
            missing.join(" or ")
        );
        tracing::error!(%reason, "IN DOUBT");
        self.update(|status| {
            status.doubt = Some(Doubt { since, point, reason: reason.clone() });
        });
        // An event loop that has ended needs no news.
        let _ = self.events.send(Event::Doubted(Some(reason)));
        if let Some(failure) = self.refuses_queries() {
            queries.refuse_waiting(&failure);
        }
    }

    fn end_doubt(&mut self, why: &'static str) {
        if self.status.borrow().doubt.is_none() {
            return;
        }
        tracing::warn!(why, "no more in doubt");
        self.update(|status| status.doubt = None);
        // An event loop that has ended needs no news.
        let _ = self.events.send(Event::Doubted(None));
    }

    fn raise(&self, alarm: String) {
        tracing::error!(%alarm, "the digests of this node's state");
        self.update(|status| status.alarm = Some(alarm));
    }

    fn quarantine(
        &mut self,
        machine: &mut Machine,
        queries: &mut Queries,
        verdict: &Verdict,
        truth: StateDigest,
    ) {
        if self.is_quarantined() {
            return;
        }
        let own = machine.taken_digest(verdict.point).expect("it was judged").clone();
        let reason = format!(
            "at index {} this node's state had the digest {}, and that of most voters {}",
            verdict.point,
            own.digest.short(),
            truth.short()
        );
        tracing::error!(
            point = %verdict.point, verdict = %verdict.at, own = %own.digest, majority = %truth,
            votes = %votes(verdict),
            "QUARANTINED: this node's state differs from its cluster's; it answers nothing until \
             the leader has sent it a fresh one"
        );
        self.update(|status| {
            let (since, point) = (verdict.at, verdict.point);
            status.quarantine = Some(Quarantine { since, point, reason, evidence: None });
            status.counters.quarantines += 1;
        });
        // First of all: a leader hands over at once.
        let _ = self.events.send(Event::Quarantined);
        if let Some(failure) = self.refuses_queries() {
            queries.refuse_all(&failure);
        }
        match self.keep_evidence(machine, verdict, truth, &own) {
            Ok(None) => {}
            Ok(Some(place)) => {
                tracing::error!(evidence = %place.display(), "kept the state that went wrong");
                self.update(|status| {
                    if let Some(quarantine) = &mut status.quarantine {
                        quarantine.evidence = Some(place);
                    }
                });
            }
            // Healing does not depend on it.
            Err(reason) => tracing::error!(%reason, "the state that went wrong was not kept"),
        }
    }

    /// At once, on the apply thread: the node has nothing to answer meanwhile, and the state is
    /// still the one next to the verdict.
    fn keep_evidence(
        &self,
        machine: &mut Machine,
        verdict: &Verdict,
        majority: StateDigest,
        own: &TakenDigest,
    ) -> Result<Option<PathBuf>, String> {
        let Some(dir) = self.evidence.clone() else { return Ok(None) };
        let report = evidence::Report {
            version: env!("CARGO_PKG_VERSION"),
            cluster: self.cluster,
            group: self.group,
            node: self.me,
            agreed: self.status.borrow().agreed,
            point: verdict.point,
            verdict: verdict.at,
            majority,
            own: own.digest,
            own_machine: own.machine,
            own_guest: own.guest,
            votes: verdict.votes.iter().map(|vote| (vote.node, vote.digest)).collect(),
            changed: own.changed.clone(),
            module: machine.active_module().map(|(hash, _)| hash),
            limits: machine.info().limits,
            state_index: machine.applied_index(),
        };
        let state = machine.capture().map_err(|failure| failure.to_string())?;
        evidence::write(&dir, &report, &state).map(Some).map_err(|error| error.to_string())
    }

    /// The machine was replaced by what the leader sent.
    pub(super) fn on_new_state(&mut self, machine: &Machine) {
        self.since_point = 0;
        self.end_doubt("this node has a fresh state");
        let was_quarantined = self.is_quarantined();
        self.update(|status| {
            status.last = None;
            if status.quarantine.take().is_some() {
                status.counters.healed += 1;
            }
        });
        // An event loop that has ended needs no news.
        let _ = self.events.send(Event::Trusted);
        if was_quarantined {
            let index = machine.applied_index();
            tracing::warn!(%index, "healed: this node has a fresh state and answers again");
        }
    }

    fn update(&self, change: impl FnOnce(&mut DigestStatus)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }
}

fn votes(verdict: &Verdict) -> String {
    let words =
        |vote: &crate::machine::Vote| format!("node {}: {}", vote.node, vote.digest.short());
    verdict.votes.iter().map(words).collect::<Vec<_>>().join(", ")
}

fn voters(conf_state: &ConfState) -> usize {
    conf_state.voters.union(&conf_state.voters_outgoing).count()
}
