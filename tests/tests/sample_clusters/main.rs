//! Every sample plugin in a cluster of three processes whose leader is killed while commands are
//! in flight: what a plugin promises must hold on all nodes afterwards.

mod counter;
mod feature_flags;
mod job_queue;
mod kv;
mod languages;
mod ledger;
mod lock;
mod rate_limiter;
mod trial;

use trial::{PROGRAM, Trial};

/// A number in a JSON answer.
fn number(answer: &str, field: &str) -> u64 {
    let value = json(answer)[field].clone();
    value.as_u64().unwrap_or_else(|| panic!("{field:?} is no number in: {answer}"))
}

fn json(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}
