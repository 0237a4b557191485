//! Queries that both modules are asked, and where they answer otherwise.

use bytes::Bytes;

use super::answers::query_words;
use super::kind::Kind;
use super::tally::{Found, Tally};
use crate::fsm::HostFailure;
use crate::machine::{Machine, QueryResult};

/// Asks both machines, which have executed the same entries.
pub(super) fn ask_both(
    (old, new): (&mut Machine, &mut Machine),
    queries: &[Bytes],
    tally: &mut Tally,
) -> Result<(), HostFailure> {
    for query in queries {
        let (old, new) = (old.query(query)?.result, new.query(query)?.result);
        for result in [&old, &new] {
            if let QueryResult::Unanswered(reason) = result {
                return Err(HostFailure(reason.clone()));
            }
        }
        if old != new {
            let (old, new) = (query_words(&old), query_words(&new));
            let (kind, class, position) = (Kind::Query, "", None);
            tally.add(Found { kind, class, position, input: query, old, new });
        }
    }
    Ok(())
}
