//! What idle groups cost: processor time, memory and threads of nodes that serve one group, then two,
//! and so on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::BenchArgs;
use super::in_process::{Cluster, Place, block_on};
use crate::api::ProcessFacts;
use crate::cli::exit::Failure;
use crate::cli::output::{human_bytes, table};
use crate::types::GroupId;

/// After a group has been formed, until what that cost is over.
const SETTLING: Duration = Duration::from_secs(2);

/// While so many groups were idle.
struct Sample {
    groups: u32,
    /// Of all nodes together, per second.
    processor: Duration,
    resident_bytes: u64,
    threads: u64,
}

pub(super) struct Report {
    nodes: u8,
    samples: Vec<Sample>,
}

/// Measures one group, and after each group that is added.
pub(super) fn measure(args: &BenchArgs, groups: u32) -> Result<Report, Failure> {
    block_on(async {
        let place = Place::new(args)?;
        let cluster = Cluster::form(args, args.in_process.fsm, place.path()).await?;
        let samples = samples(&cluster, args.length(), groups).await;
        cluster.stop().await;
        Ok(Report { nodes: args.in_process.nodes, samples: samples? })
    })
}

async fn samples(cluster: &Cluster, length: Duration, groups: u32) -> Result<Vec<Sample>, Failure> {
    let mut samples = Vec::new();
    for number in 1..=groups {
        if number > 1 {
            cluster.add_group(GroupId(GroupId::MAIN.0 + u64::from(number) - 1)).await?;
        }
        tokio::time::sleep(SETTLING).await;
        let (before, began) = (ProcessFacts::read().processor_time, Instant::now());
        tokio::time::sleep(length).await;
        let (used, took) =
            (ProcessFacts::read().processor_time.saturating_sub(before), began.elapsed());
        let ProcessFacts { resident_bytes, threads, .. } = ProcessFacts::read();
        if resident_bytes == 0 {
            let words = "the system does not say in /proc/self/status what this process has";
            return Err(Failure::new(words));
        }
        let processor = used.div_f64(took.as_secs_f64());
        samples.push(Sample { groups: number, processor, resident_bytes, threads });
    }
    Ok(samples)
}

impl Report {
    pub(super) fn to_json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            json!({
                "groups": sample.groups,
                "processor_us_per_second": sample.processor.as_micros() as u64,
                "resident_bytes": sample.resident_bytes,
                "threads": sample.threads,
            })
        });
        json!({ "nodes": self.nodes, "idle": samples.collect::<Vec<_>>() })
    }

    pub(super) fn to_text(&self) -> String {
        let rows = self.samples.iter().map(|sample| {
            vec![
                sample.groups.to_string(),
                format!("{:.2} %", sample.processor.as_secs_f64() * 100.0),
                human_bytes(sample.resident_bytes),
                sample.threads.to_string(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let headers = ["groups", "processor", "memory", "threads"];
        format!(
            "idle groups of {} nodes in this process; processor time of one core\n\n{}",
            self.nodes,
            table(&headers, &rows)
        )
    }
}
