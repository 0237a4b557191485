//! `/livez`, `/readyz` and `/healthz`, as Kubernetes' own components answer them: 200 and `ok`, or 503; with
//! `?verbose` a line for each check, and without the checks that `?exclude=NAME` names.

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Face;
use crate::api::health::liveness;
use crate::node::Check;

/// Longest query that is read.
const QUERY_MAX_BYTES: usize = 1024;

/// Whether the process works. It does without a leader, a majority, or a disk that answers: to start it
/// again would mend none of these.
pub(super) async fn live(State(face): State<Face>, RawQuery(query): RawQuery) -> impl IntoResponse {
    answer("livez", &[liveness(&face.handle).await], query.as_deref())
}

/// Whether clients should send requests here.
pub(super) async fn ready(
    State(face): State<Face>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    answer("readyz", &face.handle.checks(), query.as_deref())
}

/// Both.
pub(super) async fn healthy(
    State(face): State<Face>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let mut checks = vec![liveness(&face.handle).await];
    checks.extend(face.handle.checks());
    answer("healthz", &checks, query.as_deref())
}

fn answer(what: &str, checks: &[Check], query: Option<&str>) -> impl IntoResponse + use<> {
    let query = query.filter(|query| query.len() <= QUERY_MAX_BYTES).unwrap_or_default();
    let options: Vec<(&str, &str)> =
        query.split('&').map(|option| option.split_once('=').unwrap_or((option, ""))).collect();
    let is_verbose = options.iter().any(|(name, _)| *name == "verbose");
    let is_excluded = |check: &Check| options.contains(&("exclude", check.name));
    let mut text = String::new();
    let mut failed = false;
    for check in checks {
        let line = match check.failure {
            _ if is_excluded(check) => format!("[+]{} excluded: ok\n", check.name),
            None => format!("[+]{} ok\n", check.name),
            Some(why) => {
                failed = true;
                format!("[-]{} failed: {why}\n", check.name)
            }
        };
        text.push_str(&line);
    }
    let status = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = match (failed, is_verbose) {
        (false, false) => "ok".to_owned(),
        (false, true) => format!("{text}{what} check passed\n"),
        (true, _) => format!("{text}{what} check failed\n"),
    };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body)
}
