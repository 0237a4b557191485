//! Closed-loop load on etcd: each caller waits for its answer before it asks again. One thread, as
//! `raft-host bench` has it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::To;
use crate::etcd::{self, Connection, put_body, range_body};

/// Options of the load.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Nodes, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<SocketAddr>,
    #[arg(long, value_enum, default_value_t = Op::Put)]
    op: Op,
    /// Callers at the same time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// Connections to each node, which they share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,
    /// Which of the nodes are asked.
    #[arg(long, value_enum, default_value_t = To::All)]
    to: To,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Seconds before that.
    #[arg(long, default_value_t = 2)]
    warmup: u32,
    /// Length of a value in bytes.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Number of different keys. Before they are read, all are written.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Op {
    Put,
    Get,
}

/// Requests at once while every key is written.
const PRELOADERS: usize = 64;
/// Requests that are open for so long after the end are failures.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all callers share.
struct Load {
    args: LoadArgs,
    from: Instant,
    to: Instant,
    /// Latencies within the measured time, in microseconds.
    latencies_us: RefCell<Vec<u32>>,
}

/// Loads an etcd and prints what was measured.
pub(crate) async fn run(args: &LoadArgs) -> Result<()> {
    LocalSet::new().run_until(load(args.clone())).await
}

async fn load(args: LoadArgs) -> Result<()> {
    let nodes = match args.to {
        To::All => args.endpoints.clone(),
        To::Leader => {
            let leader = etcd::leader_of_all(&args.endpoints).await;
            vec![leader.context("these nodes know no leader, or not the same one")?]
        }
    };
    let mut connections = Vec::new();
    let most = args.connections as usize * nodes.len();
    for node in nodes.iter().cycle().take(most.min(args.callers as usize)) {
        connections.push(Rc::new(Connection::to(*node).await?));
    }
    if args.op == Op::Get {
        preload(&args, &connections).await.context("writing the keys to be read")?;
    }
    let from = Instant::now() + Duration::from_secs(args.warmup.into());
    let to = from + Duration::from_secs(args.seconds.into());
    let callers = args.callers as usize;
    let load = Rc::new(Load { args, from, to, latencies_us: RefCell::default() });
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let connection = Rc::clone(&connections[number % connections.len()]);
        tasks.spawn_local(call(number as u64, Rc::clone(&load), connection));
    }
    sleep(to - Instant::now()).await;
    let ended = timeout(PATIENCE, async {
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        anyhow::Ok(())
    });
    match ended.await {
        Ok(outcome) => outcome?,
        Err(_) => bail!("requests are still open {PATIENCE:?} after the end"),
    }
    print(&load);
    Ok(())
}

/// Writes each key once.
async fn preload(args: &LoadArgs, connections: &[Rc<Connection>]) -> Result<()> {
    let next = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..PRELOADERS {
        let connection = Rc::clone(&connections[number % connections.len()]);
        let (next, keys, bytes) = (Rc::clone(&next), args.keys, args.size as usize);
        tasks.spawn_local(async move {
            while next.get() < keys {
                let key = next.replace(next.get() + 1);
                connection.put(put_body(key, key.into(), bytes)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// One caller. A request that fails ends it all: what is measured is a cluster that is well.
async fn call(number: u64, load: Rc<Load>, connection: Rc<Connection>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(number);
    let (keys, bytes) = (load.args.keys, load.args.size as usize);
    while Instant::now() < load.to {
        let key = random.random_range(0..keys);
        let began = Instant::now();
        match load.args.op {
            Op::Put => connection.put(put_body(key, random.random(), bytes)).await?,
            Op::Get => match connection.range(range_body(key)).await? {
                Some(length) if length == bytes => {}
                found => bail!("key {key} has a value of {bytes} bytes, and {found:?} was read"),
            },
        }
        let ended = Instant::now();
        if (load.from..load.to).contains(&ended) {
            let us = u32::try_from((ended - began).as_micros()).unwrap_or(u32::MAX);
            load.latencies_us.borrow_mut().push(us);
        }
    }
    Ok(())
}

/// The keys are those of `raft-host bench`.
fn print(load: &Load) {
    let mut sorted = load.latencies_us.take();
    sorted.sort_unstable();
    let seconds = (load.to - load.from).as_secs_f64();
    let measured = json!({
        "seconds": seconds,
        "operations": sorted.len(),
        "per_second": sorted.len() as f64 / seconds,
        "latency_ms": {
            "p50": quantile_ms(&sorted, 0.5),
            "p99": quantile_ms(&sorted, 0.99),
            "max": quantile_ms(&sorted, 1.0),
        },
    });
    println!("{measured}");
}

/// Of latencies in microseconds, sorted; 0 if there are none.
fn quantile_ms(sorted: &[u32], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (quantile * last as f64).round() as usize;
    sorted.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_latencies() {
        let sorted: Vec<u32> = (1..=101).map(|n| n * 1_000).collect();
        let found = [0.0, 0.5, 0.99, 1.0].map(|quantile| quantile_ms(&sorted, quantile));
        assert_eq!(found, [1.0, 51.0, 100.0, 101.0]);
        assert_eq!(quantile_ms(&[], 0.5), 0.0);
    }
}
