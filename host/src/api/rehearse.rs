//! `Rehearse`: tries a module that the group holds on the group's own history.
//!
//! ```text
//!   leader: which entries? ─► each voter the same ones ─► all found the same? ─► RecordReceipt
//! ```
//!
//! What the voters find is a pure function of what is replicated. Two that differ are a fault of the hardware or
//! of this program, and no module is activated on their word.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use raft_host_proto::v1::{self, Reason, rehearse_request::Range};

use super::activate::held_module;
use super::caller::Caller;
use super::context::Context;
use super::convert::{bytes, module_from_wire};
use super::failure::Failure;
use super::forward::{Forwarder, answered, passed_on};
use super::prepare;
use super::report::{Found, range_to_wire, report_to_wire, rewind_to_wire};
use crate::machine::{Incumbent, Way};
use crate::node::{Candidate, MachineView, MembershipFailure, RehearsalFailure};
use crate::rehearsal::{Allowances, Floor, LAST_COMMANDS, NoReceipt, QUERIES_MAX, Round, Wanted};
use crate::types::{Index, Member, ModuleHash, NodeId};

/// A request that makes sense.
struct Asked {
    request: v1::RehearseRequest,
    way: Way,
    allowances: Allowances,
}

pub(super) async fn run(
    context: &Context,
    caller: &Caller,
    request: v1::RehearseRequest,
) -> Result<v1::RehearseResponse, Failure> {
    context.check_group(&request.group)?;
    if request.rewind {
        return way_back(context, caller, &request).await;
    }
    let asked = &Asked::check(request)?;
    let request = &asked.request;
    let me = context.handle.identity().node;
    if request.on_node == me.0 {
        return here(context, asked).await;
    }
    if request.on_node != 0 {
        let view = context.handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
        let node = view.members.get(&NodeId(request.on_node)).filter(|_| !caller.forwarded);
        let node = node.ok_or_else(|| {
            let words = format!("node {} is no member of this cluster", request.on_node);
            Failure::none(Reason::NoSuchMember, words)
        })?;
        return there(context, caller, node, request.clone()).await;
    }
    let here = || lead(context, caller, asked);
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.rehearse(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

/// Tries the way back, here or at the leader.
async fn way_back(
    context: &Context,
    caller: &Caller,
    request: &v1::RehearseRequest,
) -> Result<v1::RehearseResponse, Failure> {
    let asks_more = !request.module_hash.is_empty()
        || request.range.is_some()
        || !request.queries.is_empty()
        || !request.allow.is_empty()
        || !request.portable_state.is_empty()
        || request.from_image
        || request.on_node != 0;
    if asks_more {
        let words = "to try the way back takes no module, range, queries, allowances or node";
        return Err(Failure::none(Reason::InvalidRequest, words));
    }
    let here = || async {
        // A leader that has just started may not have applied all of it.
        context.after_all_committed().await?;
        let trial = context.handle.try_rewind().await?;
        Ok(rewind_to_wire(context.handle.identity().node, &trial))
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.rehearse(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

impl Asked {
    fn check(request: v1::RehearseRequest) -> Result<Asked, Failure> {
        let bad = |words: String| Failure::none(Reason::InvalidRequest, words);
        check_queries("rehearsal", &request.queries)?;
        let allowances =
            Allowances::parse(&request.allow).map_err(|error| bad(error.to_string()))?;
        let way = match (request.portable_state.is_empty(), request.from_image) {
            (true, false) => Way::Snapshot,
            (true, true) => Way::Image,
            (false, false) => Way::PortableState(module_from_wire(&request.portable_state)?),
            (false, true) => {
                let words = "portable_state and from_image are two ways to get a state: one of them at most";
                return Err(bad(words.to_owned()));
            }
        };
        let executes = match request.range {
            None => false,
            Some(Range::Exactly(range)) => range.base != range.until,
            Some(_) => true,
        };
        if executes && matches!(way, Way::PortableState(_)) {
            let words = "a portable state is not of any entry, so no commands are executed after it: name no range";
            return Err(bad(words.to_owned()));
        }
        Ok(Asked { request, way, allowances })
    }

    fn candidate(&self, module: ModuleHash) -> Candidate {
        let (queries, classes) = (self.request.queries.clone(), self.allowances.classes());
        Candidate { module, way: self.way, queries, classes }
    }

    fn wanted(&self) -> Wanted {
        match self.request.range {
            // Of the state as it is.
            None if matches!(self.way, Way::PortableState(_)) => Wanted::AtMost(0),
            None => Wanted::AtMost(LAST_COMMANDS),
            Some(Range::LastCommands(commands)) => Wanted::Last(commands),
            Some(Range::SinceMs(since_ms)) => Wanted::Since(since_ms),
            Some(Range::AllRetained(_)) => Wanted::All,
            Some(Range::Exactly(v1::RehearsalRange { base, until })) => {
                Wanted::Exactly { base: Index(base), until: Index(until) }
            }
        }
    }
}

/// Has another node rehearse.
async fn there(
    context: &Context,
    caller: &Caller,
    node: &Member,
    request: v1::RehearseRequest,
) -> Result<v1::RehearseResponse, Failure> {
    let mut admin = context.forwarder.admin(node)?;
    answered(admin.rehearse(passed_on(request, caller, Some(caller.remaining()))).await)
}

fn view_of(context: &Context) -> Result<Arc<MachineView>, Failure> {
    let view = context.handle.machine().borrow().clone();
    Ok(view.ok_or(MembershipFailure::NoState)?)
}

/// Since when the active module is that.
fn active_since(view: &MachineView) -> Result<Index, Failure> {
    Ok(view.info.active.as_ref().ok_or_else(Failure::no_module)?.activated_at)
}

/// Rehearses on this node only.
async fn here(context: &Context, asked: &Asked) -> Result<v1::RehearseResponse, Failure> {
    let view = view_of(context)?;
    let module = held_module(&view, &asked.request.module_hash)?;
    let range = match asked.wanted() {
        // As the leader has found it.
        Wanted::Exactly { base, until } => (base, until),
        wanted => {
            let floor =
                Floor { state: oldest_here(context).await?, activated: Some(active_since(&view)?) };
            range_of(context, floor, wanted).await?
        }
    };
    let found = rehearse(context, asked.candidate(module), range).await?;
    let mut response = response(asked, &found);
    response.nodes.push(found.by(context.handle.identity().node));
    Ok(response)
}

async fn oldest_here(context: &Context) -> Result<Index, Failure> {
    let handle = context.handle.clone();
    let oldest = tokio::task::spawn_blocking(move || handle.oldest_state()).await;
    let oldest = oldest.map_err(broken)?;
    let none = RehearsalFailure::NoState;
    Ok(oldest.map_err(RehearsalFailure::from)?.ok_or(none)?)
}

async fn range_of(
    context: &Context,
    floor: Floor,
    wanted: Wanted,
) -> Result<(Index, Index), Failure> {
    let handle = context.handle.clone();
    let range = tokio::task::spawn_blocking(move || handle.rehearsal_range(floor, wanted)).await;
    Ok(range.map_err(broken)?.map_err(RehearsalFailure::from)?)
}

fn broken(error: tokio::task::JoinError) -> Failure {
    Failure::none(Reason::Internal, format!("the log could not be looked at: {error}"))
}

async fn rehearse(
    context: &Context,
    candidate: Candidate,
    range: (Index, Index),
) -> Result<Found, Failure> {
    Ok(Found::of(context.handle.rehearse(candidate, range).await?))
}

/// What was found, before it is known who found it.
fn response(asked: &Asked, found: &Found) -> v1::RehearseResponse {
    let verdict = found.report.verdict(&asked.allowances);
    v1::RehearseResponse {
        receipt: 0,
        passed: verdict.passed(),
        report: Some(report_to_wire(&found.report, &asked.allowances)),
        nodes: Vec::new(),
        notes: verdict.unmatched,
    }
}

/// Has every voter rehearse, compares what they found, and writes down what came of it.
async fn lead(
    context: &Context,
    caller: &Caller,
    asked: &Asked,
) -> Result<v1::RehearseResponse, Failure> {
    let leading = Arc::clone(&context.rehearsing).try_acquire_owned();
    let _leading = leading.map_err(|_| RehearsalFailure::Busy)?;
    // A leader that has just started may not have applied what brought the module in.
    context.after_all_committed().await?;
    let view = view_of(context)?;
    let module = held_module(&view, &asked.request.module_hash)?;
    let active = context.handle.incumbent().ok_or_else(Failure::no_module)?;
    let mut tried = try_all(context, caller, asked, (&view, module, active)).await?;
    if tried.wants_another_range(&view) {
        tried = try_all(context, caller, asked, (&view, module, active)).await?;
    }
    let round = tried.round();
    let found = tried.own?;
    let receipt = round.receipt(&found.report, &asked.allowances, &view.conf_state);
    let receipt = receipt.map_err(|none| {
        let reason = match none {
            NoReceipt::VotersDiffer(_) => Reason::VotersDiffer,
            NoReceipt::TooFew(_) => Reason::RehearsalRefused,
        };
        Failure::none(reason, none.to_string())
    })?;
    let response = response(asked, &found);
    let receipt = context.handle.acting_for(caller.actor).record_receipt(receipt).await?;
    let nodes = tried.answers.into_iter().map(|(voter, answer)| {
        answer.unwrap_or_else(|why_not| v1::RehearsedBy {
            node_id: voter.0,
            why_not,
            ..Default::default()
        })
    });
    Ok(v1::RehearseResponse { receipt: receipt.0, nodes: nodes.collect(), ..response })
}

/// Refuses more queries than a rehearsal or a shadow asks.
pub(super) fn check_queries(of: &str, queries: &[Bytes]) -> Result<(), Failure> {
    if queries.len() <= QUERIES_MAX {
        return Ok(());
    }
    let words = format!("a {of} asks at most {QUERIES_MAX} queries");
    let (wanted, max) = (queries.len() as u64, QUERIES_MAX as u64);
    Err(Failure::none(Reason::InvalidRequest, words).exceeding_if(
        "rehearsal_queries_max",
        wanted,
        max,
    ))
}

/// What another node says that it has found.
fn found_there(answer: v1::RehearseResponse) -> Result<v1::RehearsedBy, String> {
    answer.nodes.into_iter().next().ok_or_else(|| "it says nothing".to_owned())
}

fn hash_of(by: &v1::RehearsedBy) -> Result<[u8; 32], String> {
    let hash = by.report_hash[..].try_into();
    hash.map_err(|_| "it names its report by something else than a SHA-256".to_owned())
}

/// What each voter says, or why it says nothing.
type Answers = BTreeMap<NodeId, Result<v1::RehearsedBy, String>>;

/// What came of it on the voters.
struct Tried {
    /// On the leader.
    own: Result<Found, Failure>,
    answers: Answers,
    /// Somebody did not retain the range any more.
    is_gone: bool,
}

impl Tried {
    fn round(&self) -> Round {
        let mut round = Round::default();
        for (voter, answer) in &self.answers {
            round.answered(*voter, answer.as_ref().map_err(String::clone).and_then(hash_of));
        }
        round
    }

    /// What a voter retains is kept from when it begins. That something goes between its answer and then is seldom: the
    /// range is chosen once more, and nothing is kept for rehearsals that may never begin.
    fn wants_another_range(&self, view: &MachineView) -> bool {
        self.is_gone && (self.own.is_err() || !self.round().is_of_most(&view.conf_state))
    }
}

async fn try_all(
    context: &Context,
    caller: &Caller,
    asked: &Asked,
    (view, module, active): (&MachineView, ModuleHash, Incumbent),
) -> Result<Tried, Failure> {
    let me = context.handle.identity().node;
    let mut answers = Answers::new();
    let mut able = Vec::new();
    for (voter, answer) in oldest_of_others(context, view).await {
        match answer {
            Ok((member, Some(oldest))) => able.push((member, oldest)),
            Ok((_, None)) => {
                let why = "it retains no state to begin with".to_owned();
                answers.insert(voter, Err(why));
            }
            Err(why) => drop(answers.insert(voter, Err(why))),
        }
    }
    let range =
        choose(context, asked, view, active.activated_at, (&mut able, &mut answers)).await?;
    let request = v1::RehearseRequest {
        module_hash: bytes(module.0),
        range: Some(Range::Exactly(range_to_wire(range))),
        ..asked.request.clone()
    };
    let of_others = able.iter().map(|(member, _)| {
        let request = v1::RehearseRequest { on_node: member.id.0, ..request.clone() };
        async { (member.id, there(context, caller, member, request).await) }
    });
    let (own, of_others) =
        futures::join!(rehearse(context, asked.candidate(module), range), join_all(of_others));
    let mut is_gone = false;
    match &own {
        Ok(found) => drop(answers.insert(me, Ok(found.by(me)))),
        Err(failure) => is_gone = failure.reason() == Reason::Compacted,
    }
    for (voter, answer) in of_others {
        is_gone |= answer.as_ref().is_err_and(|failure| failure.reason() == Reason::Compacted);
        let answer = answer.map_err(|failure| failure.message().to_owned());
        answers.insert(voter, answer.and_then(found_there));
    }
    Ok(Tried { own, answers, is_gone })
}

/// Which entries all of `able` retain. Where more is wanted, those that retain the least are left out, with the
/// reason, as long as most voters are not.
async fn choose(
    context: &Context,
    asked: &Asked,
    view: &MachineView,
    activated_at: Index,
    (able, answers): (&mut Vec<(Member, Index)>, &mut Answers),
) -> Result<(Index, Index), Failure> {
    let (own, me) = (oldest_here(context).await?, context.handle.identity().node);
    loop {
        let oldest = able.iter().map(|(_, oldest)| *oldest).chain([own]);
        let floor = Floor::of_all(activated_at, oldest);
        let failure = match range_of(context, floor, asked.wanted()).await {
            Ok(range) => return Ok(range),
            Err(failure) => failure,
        };
        let state = floor.state;
        let least = able.iter().position(|(_, oldest)| *oldest == state && state > own);
        let Some(least) = least.filter(|_| failure.reason() == Reason::Compacted) else {
            return Err(failure);
        };
        let (member, oldest) = able.swap_remove(least);
        let left = able.iter().map(|(member, _)| member.id).chain([me]).collect();
        if !view.conf_state.is_quorum(&left) {
            return Err(failure);
        }
        let why = format!("its oldest retained state is at index {oldest}, which is too late");
        answers.insert(member.id, Err(why));
    }
}

/// The oldest states that the other voters could begin with.
async fn oldest_of_others(
    context: &Context,
    view: &MachineView,
) -> Vec<(NodeId, Result<(Member, Option<Index>), String>)> {
    let me = context.handle.identity().node;
    let others = prepare::voters(&view.conf_state).into_iter().filter(|voter| *voter != me);
    let asked = others.map(|voter| async move {
        let Some(member) = view.members.get(&voter) else {
            return (voter, Err("its address is not known".to_owned()));
        };
        let answer = prepare::ask(context, member, None, None).await;
        let oldest = answer.map(|answer| {
            let oldest = Some(Index(answer.oldest_state)).filter(|index| index.0 != 0);
            (member.clone(), oldest)
        });
        (voter, oldest)
    });
    join_all(asked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_before_anything_is_tried() {
        let refused = |request| Asked::check(request).map(|_| ()).expect_err("nonsense");
        let allow = vec!["repply".to_owned()];
        let failure = refused(v1::RehearseRequest { allow, ..Default::default() });
        assert_eq!(failure.reason(), Reason::InvalidRequest);
        let queries = vec![Bytes::new(); QUERIES_MAX + 1];
        let failure = refused(v1::RehearseRequest { queries, ..Default::default() });
        assert_eq!(failure.reason(), Reason::InvalidRequest);
        let wanted = |range| {
            let request = v1::RehearseRequest { range, ..Default::default() };
            Asked::check(request).expect("fine").wanted()
        };
        assert_eq!(wanted(None), Wanted::AtMost(LAST_COMMANDS));
        assert_eq!(wanted(Some(Range::AllRetained(true))), Wanted::All);
        let of_state = |range, from_image| v1::RehearseRequest {
            range,
            from_image,
            portable_state: vec![7; 32].into(),
            ..Default::default()
        };
        for nonsense in [of_state(Some(Range::AllRetained(true)), false), of_state(None, true)] {
            assert_eq!(refused(nonsense).reason(), Reason::InvalidRequest);
        }
        let asked = Asked::check(of_state(None, false)).expect("fine");
        assert_eq!(asked.way, Way::PortableState(ModuleHash([7; 32])));
        assert_eq!(asked.wanted(), Wanted::AtMost(0));
    }
}
