//! Three kinds of callers, each alone and then all at once: who suffers from whom, and how much.

use serde_json::{Value, json};

use super::measure::Measured;
use super::{BenchArgs, Mode, Op, over_grpc};
use crate::cli::exit::Failure;
use crate::cli::output::{human_count, table};

const LARGE_BYTES: u32 = 1 << 20;
/// So few that the state stays small.
const LARGE_KEYS: u32 = 16;
const SMALL_CALLERS: u32 = 100;

/// What one kind of callers did.
struct Share {
    name: &'static str,
    alone: Measured,
    together: Measured,
}

pub(super) struct Report([Share; 3]);

/// One caller with commands of 1 MiB, one stream at full speed, and 100 callers of one client.
fn kinds(args: &BenchArgs) -> [(&'static str, BenchArgs); 3] {
    let of =
        |mode, clients| BenchArgs { op: Op::Write, mode, clients: Some(clients), ..args.clone() };
    let large = BenchArgs { size: LARGE_BYTES, keys: LARGE_KEYS, ..of(Mode::Shared, 1) };
    [
        ("1 caller, 1 MiB", large),
        ("1 stream", of(Mode::Stream, 1)),
        ("100 callers", of(Mode::Shared, SMALL_CALLERS)),
    ]
}

pub(super) async fn measure(args: &BenchArgs) -> Result<Report, Failure> {
    let kinds = kinds(args);
    let [(_, large), (_, stream), (_, small)] = &kinds;
    let alone =
        [over_grpc::run(large).await?, over_grpc::run(stream).await?, over_grpc::run(small).await?];
    let (a, b, c) =
        tokio::try_join!(over_grpc::run(large), over_grpc::run(stream), over_grpc::run(small))?;
    let names = kinds.map(|(name, _)| name);
    let mut shares = names.into_iter().zip(alone).zip([a, b, c]);
    let shares = std::array::from_fn(|_| {
        let ((name, alone), together) = shares.next().expect("three of each");
        Share { name, alone, together }
    });
    Ok(Report(shares))
}

impl Share {
    /// How many times longer the slowest of a hundred take beside the others.
    fn p99_ratio(&self) -> f64 {
        self.together.latency_ms(0.99) / self.alone.latency_ms(0.99)
    }
}

impl Report {
    pub(super) fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.0.iter().flat_map(|share| [&share.alone, &share.together])
    }

    pub(super) fn to_json(&self) -> Value {
        let shares = self.0.iter().map(|share| {
            json!({
                "callers": share.name,
                "alone": share.alone.to_json(),
                "together": share.together.to_json(),
                "p99_ratio": share.p99_ratio(),
            })
        });
        json!({ "fairness": shares.collect::<Vec<_>>() })
    }

    pub(super) fn to_text(&self) -> String {
        let rate = |of: &Measured| human_count(of.per_second().round() as u64);
        let rows = self.0.iter().map(|share| {
            vec![
                share.name.to_owned(),
                rate(&share.alone),
                format!("{:.1} ms", share.alone.latency_ms(0.99)),
                rate(&share.together),
                format!("{:.1} ms", share.together.latency_ms(0.99)),
                format!("{:.1}", share.p99_ratio()),
                human_count(share.together.failed),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let headers = ["callers", "alone/s", "p99", "together/s", "p99", "ratio", "failed"];
        format!("each kind of callers alone, then all at once\n\n{}", table(&headers, &rows))
    }
}
