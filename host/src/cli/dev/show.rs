//! How answers read on the prompt: what the state machine said, then index, fuel and time.

use std::time::Duration;

use raft_host_proto::v1::outcome::Kind;

use super::screen::Screen;
use crate::cli::answer::Answer;
use crate::cli::output::{human_count, readable};

/// An answer in one line where it fits.
pub(super) fn answer(answer: &Answer, took: Duration, screen: &Screen) -> String {
    let details =
        format!("[index {}, fuel {}, {}]", answer.index, human_count(answer.fuel_used), time(took));
    let text = match (&answer.kind, answer.complaint()) {
        (_, Some(complaint)) => screen.red(&complaint),
        (Kind::Ok(bytes), None) if bytes.is_empty() => "ok".to_owned(),
        (Kind::Ok(bytes), None) => readable(bytes).trim_end().to_owned(),
        (_, None) => String::new(),
    };
    format!("{text}  {}", screen.dim(&details))
}

/// `2.1 ms`, `1.25 s`.
pub(super) fn time(took: Duration) -> String {
    match took.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use raft_host_proto::v1;

    use super::*;

    #[test]
    fn an_answer_is_told_with_its_index_fuel_and_time() {
        let response = v1::QueryResponse {
            outcome: Some(v1::Outcome {
                kind: Some(Kind::Ok(b"5\n".as_slice().into())),
                ..Default::default()
            }),
            applied_index: 12,
            fuel_used: 1_234,
            ..Default::default()
        };
        let told = Answer::of_query(response).expect("an outcome");
        let text = answer(&told, Duration::from_micros(2_140), &Screen::new(None));
        assert_eq!(text, "5  [index 12, fuel 1,234, 2.1 ms]");
    }
}
