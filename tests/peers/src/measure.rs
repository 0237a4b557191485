//! One load on one cluster, and what it cost.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::{BenchArgs, Mode, Op, To};

/// How often processor time is read.
const SAMPLE: Duration = Duration::from_millis(50);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) op: Op,
    pub(crate) callers: u32,
    pub(crate) way: Way,
}

/// Which system is asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    RaftHost(Mode),
    Etcd(To),
}

impl Way {
    /// Whether this can be asked that way.
    pub(crate) fn can_do(self, op: Op) -> bool {
        (self, op) != (Way::RaftHost(Mode::Stream), Op::Read)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            Op::Write => "writes",
            Op::Read => "reads",
        };
        let way = match self.way {
            Way::RaftHost(Mode::Shared) => "raft-host",
            Way::RaftHost(Mode::Unary) => "raft-host, unary",
            Way::RaftHost(Mode::Stream) => "raft-host, stream",
            Way::Etcd(To::Leader) => "etcd, its leader",
            Way::Etcd(To::All) => "etcd, all nodes",
        };
        write!(f, "{op}, {} callers, {way}", self.callers)
    }
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Shared => "shared",
            Mode::Unary => "unary",
            Mode::Stream => "stream",
        }
    }
}

/// What came of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time of all nodes for each operation, in microseconds.
    pub(crate) servers_us: f64,
    /// That of the load generator.
    pub(crate) generator_us: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { per_second, p50_ms, p99_ms, servers_us, generator_us } = self;
        write!(
            f,
            "{per_second:.0}/s, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, processor time for each: \
             servers {servers_us:.1} µs, generator {generator_us:.1} µs"
        )
    }
}

/// Puts a load on a cluster.
pub(crate) async fn measure(
    args: &BenchArgs,
    cluster: &mut Cluster,
    case: Case,
) -> Result<Measured> {
    let dir = tempfile::tempdir().context("a directory for the output of a load")?;
    let output = dir.path().join("output");
    let mut command = match case.way {
        Way::RaftHost(mode) => raft_host_load(args, cluster, case, mode),
        Way::Etcd(to) => etcd_load(args, cluster, case, to)?,
    };
    command.stdout(File::create(&output)?);
    let mut generator = Process::start("load", dir.path(), &mut command)?;
    // What is measured is the last thing that a generator does.
    let mut samples = Samples::of_last(Duration::from_secs(args.seconds.into()));
    let status = loop {
        // A process that has ended has no times any more.
        samples.add([cluster.cpu(), generator.cpu()]);
        if let Some(status) = generator.ended()? {
            break status;
        }
        cluster.must_run()?;
        sleep(SAMPLE).await;
    };
    if !status.success() {
        let said = fs::read_to_string(&output).unwrap_or_default();
        bail!("the load failed ({status}): {}{}", said, generator.last_words());
    }
    read(&output, samples.per_second())
}

/// `raft-host bench` with values of the wanted length, which its `--size` is that of a command.
fn raft_host_load(args: &BenchArgs, cluster: &Cluster, case: Case, mode: Mode) -> Command {
    let endpoints: Vec<String> = cluster.addresses.iter().map(ToString::to_string).collect();
    let mut command = Command::new(&args.raft_host);
    command.args(["bench", "-o", "json", "--endpoint", &endpoints.join(",")]);
    command.args(["--mode", mode.name()]);
    command.args(["--op", if case.op == Op::Write { "write" } else { "read" }]);
    let mut number = |name: &str, number: u32| {
        command.arg(name).arg(number.to_string());
    };
    number("--size", args.size + COMMAND_BYTES);
    number("--keys", args.keys);
    number("--seconds", args.seconds);
    number("--warmup", args.warmup);
    match mode {
        Mode::Shared | Mode::Unary => number("--clients", case.callers),
        Mode::Stream => {
            let streams = case.callers.min(STREAMS);
            let window = case.callers / streams;
            number("--clients", streams);
            number("--window", window);
            number("--batch", window.min(BATCH));
        }
    }
    command
}

/// What a `set` of the kv plugin has besides its value.
const COMMAND_BYTES: u32 = r#"{"op":"set","key":"k00000000","value":""}"#.len() as u32;
/// Streams over which commands go that are in flight at once, and commands in one message.
const STREAMS: u32 = 4;
const BATCH: u32 = 256;

/// This program, as a process of its own.
fn etcd_load(args: &BenchArgs, cluster: &Cluster, case: Case, to: To) -> Result<Command> {
    let endpoints: Vec<String> = cluster.addresses.iter().map(ToString::to_string).collect();
    let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
    command.args(["etcd-load", "--endpoints", &endpoints.join(",")]);
    command.args(["--op", if case.op == Op::Write { "put" } else { "get" }]);
    for (name, number) in [
        ("--callers", case.callers),
        ("--connections", args.connections),
        ("--size", args.size),
        ("--keys", args.keys),
        ("--seconds", args.seconds),
        ("--warmup", args.warmup),
    ] {
        command.arg(name).arg(number.to_string());
    }
    command.args(["--to", if to == To::All { "all" } else { "leader" }]);
    Ok(command)
}

fn read(output: &Path, [servers, generator]: [f64; 2]) -> Result<Measured> {
    let said = fs::read_to_string(output)?;
    let said: Value = serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))?;
    let number = |value: &Value, name: &str| {
        value.as_f64().with_context(|| format!("{name} is missing in {said}"))
    };
    let per_second = number(&said["per_second"], "per_second")?;
    Ok(Measured {
        per_second,
        p50_ms: number(&said["latency_ms"]["p50"], "p50")?,
        p99_ms: number(&said["latency_ms"]["p99"], "p99")?,
        servers_us: 1e6 * servers / per_second,
        generator_us: 1e6 * generator / per_second,
    })
}

/// Processor times of the servers and of the generator, read now and then.
struct Samples {
    last: Duration,
    taken: VecDeque<(Instant, [Duration; 2])>,
}

impl Samples {
    /// Keeps those of so much time before the end.
    fn of_last(last: Duration) -> Samples {
        Samples { last, taken: VecDeque::new() }
    }

    fn add(&mut self, used: [Duration; 2]) {
        self.add_at(Instant::now(), used);
    }

    fn add_at(&mut self, now: Instant, used: [Duration; 2]) {
        // Of a process that has ended nothing is known any more.
        if self.taken.back().is_some_and(|(_, before)| used[1] < before[1]) {
            return;
        }
        self.taken.push_back((now, used));
        while self.taken.get(1).is_some_and(|(second, _)| now - *second >= self.last) {
            self.taken.pop_front();
        }
    }

    /// Seconds of processor time in a second.
    fn per_second(&self) -> [f64; 2] {
        let (Some((began, before)), Some((ended, after))) = (self.taken.front(), self.taken.back())
        else {
            return [0.0; 2];
        };
        let seconds = (*ended - *began).as_secs_f64();
        [0, 1].map(|which| match seconds > 0.0 {
            true => (after[which] - before[which]).as_secs_f64() / seconds,
            false => 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_the_measured_time_before_the_end() {
        let mut samples = Samples::of_last(Duration::from_secs(4));
        let began = Instant::now();
        // Two seconds of preparation with nothing but the generator, then four of load.
        for half in 0..=12_u64 {
            let loaded = Duration::from_millis(half.saturating_sub(4) * 500);
            let generator = Duration::from_millis(half.min(4) * 500) + loaded / 4;
            let at = began + Duration::from_millis(500 * half);
            samples.add_at(at, [loaded * 3 / 2, generator]);
        }
        // It has ended.
        let at = began + Duration::from_secs(7);
        samples.add_at(at, [Duration::from_secs(100), Duration::ZERO]);
        assert_eq!(samples.per_second(), [1.5, 0.25]);
    }
}
