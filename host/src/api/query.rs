//! Questions to the state machine: what an answer must reflect, and why there is none.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_host_proto::v1::{self, Reason};
use tokio::time::Instant;

use super::caller::Caller;
use super::context::{Context, Route, no_leader};
use super::convert::outcome_to_wire;
use super::failure::Failure;
use crate::machine::{QueryReply, QueryResult};
use crate::node::{Consistency, MachineView};
use crate::types::Exceeded;

impl Context {
    /// Asks the state machine a question.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        request: v1::QueryRequest,
    ) -> Result<v1::QueryResponse, Failure> {
        let consistency = self.check_query(&request)?;
        self.until_fit(caller, &request, consistency).await?;
        self.ask_machine(caller, request.query, consistency).await
    }

    /// Refuses what no waiting makes good.
    pub(super) fn check_query(&self, request: &v1::QueryRequest) -> Result<Consistency, Failure> {
        self.check_group(&request.group)?;
        let consistency = match v1::Consistency::try_from(request.consistency) {
            Ok(v1::Consistency::Linearizable) => Consistency::Linearizable,
            Ok(v1::Consistency::Stale) => Consistency::Stale,
            Err(_) => {
                let words = format!("there is no consistency {}", request.consistency);
                return Err(Failure::none(Reason::InvalidRequest, words));
            }
        };
        if consistency == Consistency::Linearizable && request.max_staleness_ms.is_some() {
            let words = "max_staleness_ms is for queries with CONSISTENCY_STALE; a linearizable one \
                         is never stale";
            return Err(Failure::none(Reason::InvalidRequest, words));
        }
        if consistency == Consistency::Stale && self.handle.machine().borrow().is_none() {
            let words = "this node has no state yet: it waits for its leader; ask another one";
            return Err(Failure::none(Reason::NotReady, words));
        }
        Ok(consistency)
    }

    /// Whether this node may be asked at once.
    pub(super) fn is_fit(&self, request: &v1::QueryRequest, consistency: Consistency) -> bool {
        match consistency {
            Consistency::Linearizable => {
                request.min_index == 0 && self.handle.leadership().borrow().leader.is_some()
            }
            Consistency::Stale => request.min_index == 0 && request.max_staleness_ms.is_none(),
        }
    }

    /// Waits until this node may be asked: its state is as new as it shall be, and somebody leads.
    pub(super) async fn until_fit(
        &self,
        caller: &Caller,
        request: &v1::QueryRequest,
        consistency: Consistency,
    ) -> Result<(), Failure> {
        if let Some(max) = request.max_staleness_ms {
            self.be_fresh(caller, Duration::from_millis(max)).await?;
        }
        self.await_applied(caller, request.min_index).await?;
        match consistency {
            Consistency::Linearizable => self.await_leader(caller).await,
            Consistency::Stale => Ok(()),
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask_machine(
        &self,
        caller: &Caller,
        query: Bytes,
        consistency: Consistency,
    ) -> Result<v1::QueryResponse, Failure> {
        let began = Instant::now();
        let asked = self.handle.query(query, consistency);
        match tokio::time::timeout_at(caller.deadline, asked).await {
            Ok(reply) => {
                let response = query_response(reply?)?;
                if consistency == Consistency::Linearizable {
                    self.freshness.note(began);
                }
                let age = self.freshness.age();
                let age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                Ok(v1::QueryResponse { age_ms, ..response })
            }
            Err(_) if self.route() == Route::Nowhere => Err(no_leader()),
            Err(_) => {
                let words = "no leader confirmed in time that it leads; a query changes nothing";
                Err(Failure::none(Reason::DeadlineExceeded, words))
            }
        }
    }

    /// Makes sure that this node's state is no older than that.
    async fn be_fresh(&self, caller: &Caller, max: Duration) -> Result<(), Failure> {
        match self.freshness.age() {
            Some(age) if age <= max => Ok(()),
            _ => caller.within_question(self.after_all_committed()).await,
        }
    }

    /// Waits until this node has applied so much.
    async fn await_applied(&self, caller: &Caller, min: u64) -> Result<(), Failure> {
        let mut machine = self.handle.machine();
        let applied =
            |view: &Option<Arc<MachineView>>| view.as_ref().map_or(0, |view| view.info.applied.0);
        let has = |view: &Option<Arc<MachineView>>| applied(view) >= min;
        if min == 0 || has(&machine.borrow()) {
            return Ok(());
        }
        match tokio::time::timeout_at(caller.deadline, machine.wait_for(has)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::none(Reason::Stopping, "this node has stopped")),
            Err(_) => {
                let at = applied(&self.handle.machine().borrow());
                let words = format!(
                    "this node has applied entry {at}, and not entry {min} yet: another one may have"
                );
                Err(Failure::none(Reason::CannotAnswer, words).about(at))
            }
        }
    }

    /// Without a leader a linearizable query would wait, where the client could ask elsewhere.
    async fn await_leader(&self, caller: &Caller) -> Result<(), Failure> {
        let mut leadership = self.handle.leadership();
        if leadership.borrow().leader.is_some() {
            return Ok(());
        }
        let patience = self.election_patience().min(caller.remaining());
        let known = leadership.wait_for(|now| now.leader.is_some());
        match tokio::time::timeout(patience, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(no_leader()),
        }
    }
}

/// What a client is told.
pub(super) fn query_response(reply: QueryReply) -> Result<v1::QueryResponse, Failure> {
    match reply.result {
        QueryResult::Answer(outcome) => Ok(v1::QueryResponse {
            outcome: Some(outcome_to_wire(outcome)),
            applied_index: reply.applied.0,
            fuel_used: reply.fuel_used,
            trap_message: reply.trap_message.unwrap_or_default(),
            age_ms: None,
        }),
        QueryResult::NoModule => Err(Failure::no_module()),
        QueryResult::NoQueryExport => Err(Failure::none(
            Reason::NoQueries,
            "the active module does not export `query`, so it answers no questions; upgrade to \
             one that does",
        )),
        QueryResult::TooLarge { bytes, max } => Err(Failure::too_large(
            Exceeded { limit: "input_max_bytes", value: bytes, max },
            format!("the query has {bytes} bytes and the cluster allows {max}"),
        )),
        QueryResult::Unanswered(reason) => Err(Failure::none(
            Reason::CannotAnswer,
            format!("this node could not run the query, another may: {reason}"),
        )),
    }
}
