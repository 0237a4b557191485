//! `QueryAt`: questions to the state machine as it was.

use raft_host_proto::v1::{self, Reason};

use super::caller::Caller;
use super::context::Context;
use super::failure::Failure;
use super::query::query_response;
use crate::node::{Moment, PastReply, TravelFailure};
use crate::types::Index;

/// Asks this node. If it has not applied the entry, it makes sure first that nobody else has either.
pub(super) async fn ask(
    context: &Context,
    caller: &Caller,
    request: v1::QueryAtRequest,
) -> Result<v1::QueryAtResponse, Failure> {
    let v1::QueryAtRequest { group, query, index, ordinal } = request;
    context.check_group(&group)?;
    let at = Moment { index: Index(index), ordinal };
    let answer = async || match context.handle.query_at(query.clone(), at).await {
        Err(TravelFailure::NotYet { .. }) => {
            context.after_all_committed().await?;
            Ok(context.handle.query_at(query.clone(), at).await?)
        }
        answered => Ok::<PastReply, Failure>(answered?),
    };
    let PastReply { reply, base } = caller.within_question(answer()).await?;
    let answer = query_response(reply)?;
    Ok(v1::QueryAtResponse { answer: Some(answer), ordinal, base_index: base.0 })
}

impl From<TravelFailure> for Failure {
    fn from(failure: TravelFailure) -> Failure {
        let (reason, index) = match &failure {
            TravelFailure::Query(failure) => return failure.clone().into(),
            TravelFailure::Busy => (Reason::Busy, 0),
            TravelFailure::NoRoom { .. } | TravelFailure::NoState => (Reason::CannotAnswer, 0),
            TravelFailure::NotYet { applied, .. } => (Reason::NotApplied, applied.0),
            TravelFailure::Compacted { oldest, .. } => (Reason::Compacted, oldest.0),
            TravelFailure::Differs(index) => (Reason::StateNotTrusted, index.0),
            TravelFailure::Unwanted => (Reason::Stopping, 0),
            TravelFailure::Replay(_) | TravelFailure::BrokenOff(_) => (Reason::Internal, 0),
        };
        Failure::none(reason, failure.to_string()).about(index)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn what_is_too_old_and_what_is_not_there_yet_is_told_with_the_entry_that_can_be_asked_about() {
        let (oldest, asked, applied) = (Index(40), Index(7), Index(90));
        let old = Failure::from(TravelFailure::Compacted { asked, oldest });
        assert_eq!((old.reason(), old.code()), (Reason::Compacted, Code::OutOfRange));
        assert!(old.message().contains("the one after entry 40"), "{}", old.message());
        let early = Failure::from(TravelFailure::NotYet { asked: Index(91), applied });
        assert_eq!((early.reason(), early.code()), (Reason::NotApplied, Code::OutOfRange));
        assert!(early.message().contains("the last one on this node is 90"), "{}", early.message());
        // Another node may know better: these are tried again there.
        let full = Failure::from(TravelFailure::NoRoom { takes: 2, available: 1 });
        for elsewhere in [full, TravelFailure::Differs(oldest).into()] {
            assert!(elsewhere.worth_rerouting(), "{elsewhere:?}");
        }
    }
}
