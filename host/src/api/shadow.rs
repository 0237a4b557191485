//! `Shadow`: has a module run beside the active one for a while, on voters' live commands.
//!
//! ```text
//!   whoever is asked ─┬─► its own shadow     ─┐
//!                     ├─► Shadow of a voter  ─┼─► how far each is, every second ─► all have ended: what they found
//!                     └─► Shadow of a voter  ─┘
//! ```
//!
//! Nobody needs to lead for it, and nothing is written down: it decides nothing. When the caller goes, what
//! was asked of others goes with the calls, and the shadows end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::{BoxStream, SelectAll, select_all, unfold};
use raft_host_proto::v1::{self, Reason};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tonic::{Status, Streaming};

use super::activate::held_module;
use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::forward::{answered, passed_on};
use super::prepare::{self, is_quorum};
use super::rehearse::check_queries;
use super::report::report_to_wire;
use crate::node::{
    MembershipFailure, RehearsalFailure, SHADOW_MAX, ShadowFound, ShadowRun, ShadowStatus,
};
use crate::rehearsal::Allowances;
use crate::types::{ConfState, Member, ModuleHash, NodeId};

/// How often it is told how far they are.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to begin: it copies its state.
const START_PATIENCE: Duration = Duration::from_secs(10);

pub(super) type Shadows = BoxStream<'static, Result<v1::ShadowProgress, Status>>;

/// What is known of one node, and what it has to note about allowances.
type Share = (v1::ShadowOnNode, Vec<String>);

/// A request that makes sense.
struct Asked {
    request: v1::ShadowRequest,
    allowances: Allowances,
    duration: Duration,
}

impl Asked {
    fn check(request: v1::ShadowRequest) -> Result<Asked, Failure> {
        let bad = |words: String| Failure::none(Reason::InvalidRequest, words);
        let duration = Duration::from_millis(request.duration_ms);
        if duration.is_zero() || duration > SHADOW_MAX {
            let max_ms = u64::try_from(SHADOW_MAX.as_millis()).unwrap_or(u64::MAX);
            let failure = bad(RehearsalFailure::WrongDuration(duration).to_string());
            return Err(failure.exceeding_if("shadow_duration_ms", request.duration_ms, max_ms));
        }
        check_queries("shadow", &request.queries)?;
        let allowances =
            Allowances::parse(&request.allow).map_err(|error| bad(error.to_string()))?;
        Ok(Asked { request, allowances, duration })
    }
}

/// Begins, and then tells how far it is.
pub(super) async fn run(
    context: &Arc<Context>,
    caller: &Caller,
    request: v1::ShadowRequest,
) -> Result<Shadows, Failure> {
    context.check_group(&request.group)?;
    let asked = Asked::check(request)?;
    let (module, wanted) = caller.within_question(whom(context, caller, &asked)).await?;
    let patience = START_PATIENCE.min(caller.remaining());
    let asked = &asked;
    let begun = wanted.nodes.iter().map(|(node, member)| async move {
        let share = match member {
            None => here(context, module, asked).await,
            Some(Ok(member)) => there(context, caller, module, member, asked, patience).await,
            Some(Err(why)) => Err(Failure::none(Reason::MemberUnreachable, *why)),
        };
        (*node, share)
    });
    let mut gathered = Gathered::default();
    let (mut shares, mut failures) = (Vec::new(), Vec::new());
    for (node, share) in join_all(begun).await {
        let why_not = match share {
            Ok(share) => {
                shares.push(share);
                String::new()
            }
            Err(failure) => {
                let words = failure.message().to_owned();
                failures.push(failure);
                words
            }
        };
        let on_node = v1::ShadowOnNode { node_id: node.0, why_not, ..Default::default() };
        gathered.nodes.insert(node, (on_node, Vec::new()));
    }
    if !wanted.is_enough(&gathered.alive()) {
        // One that is at something else will be done with it.
        let busy = failures.iter().position(|failure| failure.reason() == Reason::Busy);
        return Err(match busy {
            Some(busy) => failures.swap_remove(busy),
            None if failures.len() == 1 && wanted.nodes.len() == 1 => failures.swap_remove(0),
            None => gathered.too_few(),
        });
    }
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (context, shares) = (Arc::clone(context), select_all(shares));
    let is_raw = caller.forwarded;
    let watch = Watch { context, wanted, gathered, shares, ticks, is_raw, is_over: false };
    let tell = |mut watch: Watch| async move { watch.next().await.map(|told| (told, watch)) };
    Ok(unfold(watch, tell).boxed())
}

/// Who is to do it.
struct Wanted {
    /// `None`: this node. An error: why it cannot be asked.
    nodes: Vec<(NodeId, Option<Result<Member, &'static str>>)>,
    /// Most voters of these are enough; `None`: all that were asked.
    voters: Option<ConfState>,
}

impl Wanted {
    fn is_enough(&self, nodes: &BTreeSet<NodeId>) -> bool {
        match &self.voters {
            Some(voters) => is_quorum(nodes, voters),
            None => self.nodes.iter().all(|(node, _)| nodes.contains(node)),
        }
    }
}

async fn whom(
    context: &Context,
    caller: &Caller,
    asked: &Asked,
) -> Result<(ModuleHash, Wanted), Failure> {
    let view = || {
        let view = context.handle.machine().borrow().clone();
        view.ok_or_else(|| Failure::from(MembershipFailure::NoState))
    };
    let request = &asked.request;
    let mut now = view()?;
    let module = match held_module(&now, &request.module_hash) {
        Ok(module) => module,
        Err(_) => {
            // It may have been staged a moment ago.
            context.after_all_committed().await?;
            now = view()?;
            held_module(&now, &request.module_hash)?
        }
    };
    let me = context.handle.identity().node;
    let way = |node: NodeId| match now.members.get(&node) {
        _ if node == me => None,
        Some(member) => Some(Ok(member.clone())),
        None => Some(Err("its address is not known")),
    };
    let (nodes, voters) = match request.on_node {
        0 => {
            let voters = prepare::voters(&now.conf_state);
            let nodes = voters.into_iter().map(|voter| (voter, way(voter)));
            (nodes.collect(), Some((*now.conf_state).clone()))
        }
        id if id == me.0 => (vec![(me, None)], None),
        id if now.members.contains_key(&NodeId(id)) && !caller.forwarded => {
            (vec![(NodeId(id), way(NodeId(id)))], None)
        }
        id => {
            let words = format!("node {id} is no member of this cluster");
            return Err(Failure::none(Reason::NoSuchMember, words));
        }
    };
    Ok((module, Wanted { nodes, voters }))
}

/// The shadow of this node.
async fn here(
    context: &Context,
    module: ModuleHash,
    asked: &Asked,
) -> Result<BoxStream<'static, Share>, Failure> {
    let queries = asked.request.queries.clone();
    let run = context.handle.shadow(module, "", queries, asked.duration).await?;
    let (me, allowances) = (context.handle.identity().node, asked.allowances.clone());
    let ticks = interval(TELL_EVERY);
    let next = move |(run, mut ticks): (Option<ShadowRun>, Interval)| {
        let allowances = allowances.clone();
        async move {
            let mut run = run?;
            let share = tokio::select! {
                found = run.done() => {
                    return Some((ended(me, found, &allowances), (None, ticks)));
                }
                _ = ticks.tick() => (under_way(me, run.status()), Vec::new()),
            };
            Some((share, (Some(run), ticks)))
        }
    };
    Ok(unfold((Some(run), ticks), next).boxed())
}

fn under_way(node: NodeId, status: ShadowStatus) -> v1::ShadowOnNode {
    v1::ShadowOnNode {
        node_id: node.0,
        running: status.is_running,
        commands: status.commands,
        differences: status.differences,
        lag_commands: status.waiting,
        ..Default::default()
    }
}

fn ended(
    node: NodeId,
    found: Result<ShadowFound, RehearsalFailure>,
    allowances: &Allowances,
) -> Share {
    let ShadowFound { report, end, elapsed } = match found {
        Ok(found) => found,
        Err(failure) => return failed(node, &failure.to_string()),
    };
    let why_not = if end.is_complete() { String::new() } else { end.to_string() };
    let on_node = v1::ShadowOnNode {
        node_id: node.0,
        running: false,
        commands: report.commands,
        differences: report.counts.iter().map(|count| count.count).sum(),
        lag_commands: 0,
        why_not,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        report: Some(report_to_wire(&report, allowances)),
    };
    (on_node, report.verdict(allowances).unmatched)
}

fn failed(node: NodeId, why: &str) -> Share {
    let why_not = why.to_owned();
    (v1::ShadowOnNode { node_id: node.0, why_not, ..Default::default() }, Vec::new())
}

/// The shadow of another node.
async fn there(
    context: &Context,
    caller: &Caller,
    module: ModuleHash,
    member: &Member,
    asked: &Asked,
    patience: Duration,
) -> Result<BoxStream<'static, Share>, Failure> {
    let node = member.id;
    let module_hash = bytes(module.0);
    let request = v1::ShadowRequest { on_node: node.0, module_hash, ..asked.request.clone() };
    let mut admin = context.forwarder.admin(member)?;
    let begun = timeout(patience, admin.shadow(passed_on(request, caller, None))).await;
    let begun = begun.map_err(|_| {
        Failure::none(Reason::DeadlineExceeded, format!("node {node} does not answer"))
    })?;
    let next = move |parts: Option<Streaming<v1::ShadowProgress>>| async move {
        let mut parts = parts?;
        let (share, is_last) = match parts.message().await {
            Ok(Some(v1::ShadowProgress { nodes, done, notes, .. })) => {
                match nodes.into_iter().find(|it| it.node_id == node.0) {
                    Some(on_node) => ((on_node, notes), done),
                    None => (failed(node, "it says nothing of itself"), true),
                }
            }
            Ok(None) => (failed(node, "it broke off"), true),
            Err(status) => (failed(node, status.message()), true),
        };
        Some((share, (!is_last).then_some(parts)))
    };
    Ok(unfold(Some(answered(begun)?), next).boxed())
}

/// What is known of all of them.
#[derive(Default)]
struct Gathered {
    nodes: BTreeMap<NodeId, Share>,
}

impl Gathered {
    /// Those that have not ended before their time.
    fn alive(&self) -> BTreeSet<NodeId> {
        let alive = self.nodes.iter().filter(|(_, (on_node, _))| on_node.why_not.is_empty());
        alive.map(|(node, _)| *node).collect()
    }

    /// Whether anything was found that nobody has allowed.
    fn is_refused(&self) -> bool {
        let reports = self.nodes.values().filter_map(|(on_node, _)| on_node.report.as_ref());
        reports.flat_map(|report| &report.counts).any(|count| !count.allowed)
    }

    fn progress(&self) -> v1::ShadowProgress {
        let nodes = self.nodes.values().map(|(on_node, _)| on_node.clone());
        v1::ShadowProgress { nodes: nodes.collect(), ..Default::default() }
    }

    fn last(&self) -> v1::ShadowProgress {
        let passed = !self.is_refused();
        v1::ShadowProgress { done: true, passed, notes: self.notes(), ..self.progress() }
    }

    /// What all that have a report have to note.
    fn notes(&self) -> Vec<String> {
        let mut reported = self.nodes.values().filter(|(on_node, _)| on_node.report.is_some());
        let Some((_, first)) = reported.next() else { return Vec::new() };
        let (mut notes, rest) = (first.clone(), reported.collect::<Vec<_>>());
        notes.retain(|note| rest.iter().all(|(_, theirs)| theirs.contains(note)));
        notes
    }

    fn too_few(&self) -> Failure {
        let why_not = self.nodes.values().map(|(on_node, _)| on_node);
        let why_not = why_not.filter(|on_node| !on_node.why_not.is_empty());
        let why_not = why_not.map(|node| format!("node {}: {}", node.node_id, node.why_not));
        let words = format!(
            "too few nodes have had the module in the shadow for the whole time ({}): see to that, and ask again. \
             Nothing was changed",
            why_not.collect::<Vec<_>>().join("; ")
        );
        Failure::none(Reason::RehearsalRefused, words)
    }
}

/// What the caller is told of.
struct Watch {
    context: Arc<Context>,
    wanted: Wanted,
    gathered: Gathered,
    shares: SelectAll<BoxStream<'static, Share>>,
    ticks: Interval,
    /// Another node asks, and makes of it what it is to mean.
    is_raw: bool,
    is_over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<v1::ShadowProgress, Status>> {
        while !self.is_over {
            tokio::select! {
                share = self.shares.next() => match share {
                    Some(share) => {
                        self.gathered.nodes.insert(NodeId(share.0.node_id), share);
                        // The others need not go on when too few are left.
                        self.is_over = !self.wanted.is_enough(&self.gathered.alive());
                    }
                    None => self.is_over = true,
                },
                _ = self.ticks.tick() => return Some(Ok(self.gathered.progress())),
                () = self.context.stopping.cancelled() => {
                    self.is_over = true;
                    let words = "this node stops, and the shadows with it; nothing was changed";
                    let failure = Failure::none(Reason::Stopping, words);
                    return Some(Err(failure.into_status()));
                }
            }
            if self.is_over {
                let is_known = self.gathered.is_refused()
                    || self.wanted.is_enough(&self.gathered.alive())
                    || self.is_raw;
                return Some(match is_known {
                    true => Ok(self.gathered.last()),
                    false => Err(self.gathered.too_few().into_status()),
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::QUERIES_MAX;

    fn on_node(id: u64, why_not: &str, counts: &[bool]) -> Share {
        let count = |allowed: &bool| v1::DifferenceCount {
            kind: "reply".to_owned(),
            count: 1,
            allowed: *allowed,
            ..Default::default()
        };
        let counts = counts.iter().map(count).collect();
        let report = Some(v1::RehearsalReport { counts, ..Default::default() });
        let why_not = why_not.to_owned();
        (v1::ShadowOnNode { node_id: id, why_not, report, ..Default::default() }, Vec::new())
    }

    fn gathered(shares: Vec<Share>) -> Gathered {
        let nodes = shares.into_iter().map(|share| (NodeId(share.0.node_id), share));
        Gathered { nodes: nodes.collect() }
    }

    #[test]
    fn one_node_that_finds_what_nobody_allows_is_enough_to_refuse() {
        let fine = gathered(vec![on_node(1, "", &[true]), on_node(2, "", &[])]);
        assert!(fine.last().passed);
        let one = gathered(vec![on_node(1, "", &[]), on_node(2, "too late", &[true, false])]);
        assert!(!one.last().passed && one.last().done);
    }

    #[test]
    fn nodes_that_ended_early_count_for_nothing_and_are_named_with_the_reason() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let found = gathered(vec![
            on_node(1, "", &[]),
            on_node(2, "it could not keep up", &[]),
            on_node(3, "no room", &[]),
        ]);
        assert_eq!(found.alive(), ids(&[1]));
        let voters = Some(ConfState { voters: ids(&[1, 2, 3]), ..ConfState::default() });
        let wanted = Wanted { nodes: Vec::new(), voters };
        assert!(!wanted.is_enough(&found.alive()) && wanted.is_enough(&ids(&[1, 3])));
        let words = found.too_few().message().to_owned();
        assert!(words.contains("(node 2: it could not keep up; node 3: no room)"), "{words}");
    }

    #[test]
    fn an_allowance_is_idle_only_if_it_is_on_every_node() {
        let noting = |id, notes: &[&str]| {
            let (on_node, _) = on_node(id, "", &[]);
            (on_node, notes.iter().map(|note| (*note).to_owned()).collect())
        };
        let found = gathered(vec![noting(1, &["a", "b"]), noting(2, &["b"])]);
        assert_eq!(found.notes(), ["b"]);
    }

    #[test]
    fn nonsense_is_refused_before_anything_begins() {
        let refused = |request| Asked::check(request).map(|_| ()).expect_err("nonsense");
        for duration_ms in [0, 24 * 3_600_000 + 1] {
            let failure = refused(v1::ShadowRequest { duration_ms, ..Default::default() });
            assert_eq!(failure.reason(), Reason::InvalidRequest);
            assert!(failure.message().contains("to 24 h"), "{}", failure.message());
        }
        let queries = vec![Default::default(); QUERIES_MAX + 1];
        let failure = refused(v1::ShadowRequest { duration_ms: 1, queries, ..Default::default() });
        assert_eq!(failure.reason(), Reason::InvalidRequest);
        assert!(failure.message().contains("at most 64"), "{}", failure.message());
        let allow = vec!["repply".to_owned()];
        let failure = refused(v1::ShadowRequest { duration_ms: 1, allow, ..Default::default() });
        assert_eq!(failure.reason(), Reason::InvalidRequest);
    }
}
