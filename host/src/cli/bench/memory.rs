//! What the memory of a large guest costs: checkpoints, snapshots, restarts, traps, queries;
//! with the kernel's help and without, in one run.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::load::{Generator, KV_COMMAND, Template};
use super::{MemoryArgs, context};
use crate::cli::exit::Failure;
use crate::cli::output::table;
use crate::fsm::{Call, Fsm, FsmLoader as _, GuestResult, Limits};
use crate::storage::{SnapshotFiles, SnapshotStore as _};
use crate::types::{ConfState, GroupId, Index, SnapshotMeta, Term};
use crate::wasm::{MemoryBackend, WasmLoader};

const KV_MODULE: &[u8] = include_bytes!("../../../../plugins/kv/kv.wasm");
/// Length of a stored value's command in the large guest.
const COMMAND_BYTES: usize = 1_024;
/// What a stored value takes in the guest beyond its command.
const OVERHEAD_BYTES: usize = 32;
/// Enough for what is stored, not for the command that is to trap.
const APPLY_FUEL: u64 = 1_000_000;
const BIG_COMMAND_BYTES: usize = 200 << 10;
/// A command that has memory grow before it traps.
const HUGE_COMMAND_BYTES: usize = 1_000 << 10;
const KV_DELETE: &str = r#"{"op":"delete","key":"{key}"}"#;
/// Keys that are stored last and deleted again.
const SPARE_KEYS: u64 = 4_000;
/// How long a phase without an end of its own is measured.
const PHASE: Duration = Duration::from_secs(4);
const OVERHEAD_ROUNDS: usize = 5;
const QUERIES: usize = 64;

/// Numbers by name, one column for each backend.
pub(super) struct Report {
    heap_mib: u32,
    backends: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    target: &'static str,
    unit: &'static str,
    /// One for each backend.
    values: Vec<f64>,
}

impl Report {
    fn add(
        &mut self,
        column: usize,
        name: &str,
        target: &'static str,
        unit: &'static str,
        value: f64,
    ) {
        let backends = self.backends.len();
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let values = vec![f64::NAN; backends];
            self.rows.push(Row { name: name.to_owned(), target, unit, values });
            self.rows.len() - 1
        });
        self.rows[at].values[column] = value;
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let values = self.backends.iter().zip(&row.values);
            let values: serde_json::Map<String, Value> =
                values.map(|(backend, value)| ((*backend).to_owned(), json!(value))).collect();
            json!({ "name": row.name, "unit": row.unit, "target": row.target, "values": values })
        });
        json!({ "heap_mib": self.heap_mib, "rows": rows.collect::<Vec<_>>() })
    }

    pub(super) fn to_text(&self) -> String {
        let mut headers = vec!["what", "unit", "target"];
        headers.extend(&self.backends);
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let mut cells = vec![row.name.clone(), row.unit.into(), row.target.into()];
                cells.extend(row.values.iter().map(|value| format!("{value:.2}")));
                cells
            })
            .collect();
        format!("{} MiB in the kv plugin\n\n{}", self.heap_mib, table(&headers, &rows))
    }
}

pub(super) fn measure(args: &MemoryArgs) -> Result<Report, Failure> {
    let mut directory = tempfile::Builder::new();
    let directory = directory.prefix("raft-host-bench-");
    let directory = match &args.on_disk {
        Some(place) => directory.tempdir_in(place),
        None => directory.tempdir(),
    }
    .map_err(cannot("make a directory"))?;
    let mut loaders = Vec::new();
    for backend in [MemoryBackend::Userfaultfd, MemoryBackend::PlainCopy] {
        match loader(directory.path())?.with_memory_backend(backend) {
            Ok(loader) => loaders.push((backend, loader)),
            Err(error) => tracing::warn!(%error, "measuring without it"),
        }
    }
    let backends = loaders.iter().map(|(backend, _)| backend.name()).collect();
    let mut report = Report { heap_mib: args.heap_mib, backends, rows: Vec::new() };
    measure_overhead(&mut report, &loaders, directory.path())?;
    for (column, (backend, loader)) in loaders.iter().enumerate() {
        let place = directory.path().join(format!("snapshots-{column}"));
        let subject = Subject::filled(loader, keys(args.heap_mib), COMMAND_BYTES)?;
        measure_large(&mut report, column, subject, &place)?;
        measure_restart(&mut report, column, *backend, directory.path(), &place)?;
        measure_storm(&mut report, column, loader)?;
    }
    Ok(report)
}

fn keys(heap_mib: u32) -> u64 {
    (u64::from(heap_mib) << 20) / (COMMAND_BYTES + OVERHEAD_BYTES) as u64
}

fn loader(directory: &Path) -> Result<WasmLoader, Failure> {
    WasmLoader::new(Some(directory.join("compiled"))).map_err(cannot("load modules"))
}

fn limits() -> Limits {
    Limits { apply_fuel: APPLY_FUEL, memory_max_bytes: 4 << 30, ..Limits::default() }
}

fn cannot<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::new(format!("cannot {what}: {error}"))
}

/// A guest and the commands for it.
struct Subject {
    fsm: Box<dyn Fsm>,
    commands: Generator,
    keys: u64,
    index: u64,
}

impl Subject {
    fn empty(loader: &WasmLoader, keys: u64, command_bytes: usize) -> Result<Subject, Failure> {
        let mut subject = Subject {
            fsm: loader
                .instantiate(KV_MODULE, &limits(), context(0))
                .map_err(cannot("start the guest"))?
                .map_err(cannot("start the guest"))?,
            commands: Generator::new(Template::parse(KV_COMMAND), command_bytes, keys, 1),
            keys,
            index: 1,
        };
        subject.fsm.init(context(0)).map_err(cannot("start the guest"))?;
        Ok(subject)
    }

    fn filled(loader: &WasmLoader, keys: u64, command_bytes: usize) -> Result<Subject, Failure> {
        let mut subject = Subject::empty(loader, keys, command_bytes)?;
        for key in 0..keys + SPARE_KEYS {
            let command = subject.commands.command(key);
            subject.must_apply(&command)?;
        }
        // Leaves room in one piece, so that the command that traps need not grow memory.
        let mut deletes = Generator::new(Template::parse(KV_DELETE), 0, 1, 1);
        for key in keys..keys + SPARE_KEYS {
            subject.must_apply(&deletes.command(key))?;
        }
        Ok(subject)
    }

    fn apply(&mut self, command: &[u8]) -> Result<Call, Failure> {
        self.index += 1;
        self.fsm.apply(context(self.index), command).map_err(cannot("apply"))
    }

    fn must_apply(&mut self, command: &[u8]) -> Result<(), Failure> {
        match self.apply(command)?.result {
            GuestResult::Ok(_) => Ok(()),
            other => Err(Failure::new(format!("a command of the benchmark failed: {other:?}"))),
        }
    }

    /// Overwrites a random key; how long that took.
    fn overwrite(&mut self) -> Result<Duration, Failure> {
        let command = self.commands.next_command();
        let began = Instant::now();
        self.must_apply(&command)?;
        Ok(began.elapsed())
    }

    fn overwrite_many(&mut self, count: u64) -> Result<Duration, Failure> {
        let mut sum = Duration::ZERO;
        for _ in 0..count {
            sum += self.overwrite()?;
        }
        Ok(sum)
    }

    /// Runs a command that uses up its fuel; how long that took.
    fn trap(&mut self, big: &[u8]) -> Result<Duration, Failure> {
        let began = Instant::now();
        match self.apply(big)?.result {
            GuestResult::Trapped(_) => Ok(began.elapsed()),
            other => Err(Failure::new(format!("the big command did not trap: {other:?}"))),
        }
    }
}

fn command_of(bytes: usize) -> Bytes {
    Generator::new(Template::parse(KV_COMMAND), bytes, 1, 1).command(0)
}

/// The usual workload of the kv plugin, with and without regular checkpoints, in turns.
fn measure_overhead(
    report: &mut Report,
    loaders: &[(MemoryBackend, WasmLoader)],
    directory: &Path,
) -> Result<(), Failure> {
    let rare = loader(directory)?
        .with_memory_backend(MemoryBackend::PlainCopy)
        .map_err(cannot("load modules"))?
        .with_rare_checkpoints();
    let mut subjects = Vec::new();
    for loader in loaders.iter().map(|(_, loader)| loader).chain([&rare]) {
        subjects.push(Subject::filled(loader, 10_000, 256)?);
    }
    let mut spent = vec![Duration::MAX; subjects.len()];
    // The best of several turns: whatever else the machine does only adds.
    for _ in 0..OVERHEAD_ROUNDS {
        for (subject, best) in subjects.iter_mut().zip(&mut spent) {
            *best = (*best).min(subject.overwrite_many(100_000)?);
        }
    }
    let without = spent[loaders.len()].as_secs_f64();
    for (column, spent) in spent[..loaders.len()].iter().enumerate() {
        let share = 100.0 * (spent.as_secs_f64() / without - 1.0);
        report.add(column, "checkpoints, 10,000 keys of 256 bytes", "≤ 5", "%", share);
        let each = spent.as_secs_f64() * 1e6 / 100_000.0;
        report.add(column, "one command, 10,000 keys", "", "µs", each);
        let command = subjects[column].commands.next_command();
        let fuel = subjects[column].apply(&command)?.fuel_used;
        report.add(column, "its fuel", "", "", fuel as f64);
    }
    Ok(())
}

fn measure_large(
    report: &mut Report,
    column: usize,
    mut subject: Subject,
    place: &Path,
) -> Result<(), Failure> {
    let (mut count, mut longest, mut sum) = (0u64, Duration::ZERO, Duration::ZERO);
    let began = Instant::now();
    while began.elapsed() < PHASE {
        let spent = subject.overwrite()?;
        (count, longest, sum) = (count + 1, longest.max(spent), sum + spent);
    }
    report.add(column, "one command, large", "", "µs", micros(sum) / count as f64);
    report.add(column, "longest gap between applies", "", "ms", millis(longest));

    let store = SnapshotFiles::open(place).map_err(cannot("open the snapshots"))?;
    let mib = heap_mib_of(&mut subject)?;
    // Alone, then beside applies.
    for (beside_applies, rate) in
        [(false, "snapshot to disk, alone"), (true, "snapshot to disk, beside applies")]
    {
        for _ in 0..10_000 {
            subject.overwrite()?;
        }
        let capturing = Instant::now();
        let image = subject.fsm.capture().map_err(cannot("capture"))?;
        let captured = capturing.elapsed();
        let meta = snapshot_meta(subject.index);
        let store = store.clone();
        let writing = std::thread::spawn(move || {
            let began = Instant::now();
            let mut sink = store.create(meta).map_err(cannot("write a snapshot"))?;
            image.write_to(&mut sink).map_err(cannot("write a snapshot"))?;
            let meta = sink.finish().map_err(cannot("write a snapshot"))?;
            Ok::<_, Failure>((began.elapsed(), meta.size_bytes))
        });
        let mut longest = captured;
        while beside_applies && !writing.is_finished() {
            longest = longest.max(subject.overwrite()?);
        }
        let (spent, bytes) =
            writing.join().map_err(|_| Failure::new("the writer of snapshots panicked"))??;
        report.add(column, rate, "≥ 500", "MB/s", mib * 1.048_576 / spent.as_secs_f64());
        if beside_applies {
            report.add(column, "capture", "", "ms", millis(captured));
            report.add(
                column,
                "longest gap while a snapshot is taken",
                "≤ 50",
                "ms",
                millis(longest),
            );
            report.add(column, "snapshot", "", "MB", bytes as f64 / 1e6);
        }
    }

    let began = Instant::now();
    subject.overwrite_many(1_000)?;
    subject.fsm.digest().map_err(cannot("digest"))?;
    let with = began.elapsed();
    report.add(column, "1,000 commands and a digest", "", "ms", millis(with));

    // How much a trap costs that makes commands be repeated.
    let big = command_of(BIG_COMMAND_BYTES);
    for repeated in [0u64, 100, 1_000] {
        let (mut trapping, mut working) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..5 {
            // A checkpoint, after which nothing needs to be repeated.
            subject.fsm.digest().map_err(cannot("digest"))?;
            working += subject.overwrite_many(repeated)?;
            trapping += subject.trap(&big)?;
        }
        let name = format!("a trap after {repeated} commands");
        report.add(column, &name, "", "ms", millis(trapping) / 5.0);
        if repeated > 0 {
            let name = format!("its cost / that of the {repeated} repeated commands");
            let ratio = trapping.as_secs_f64() / working.as_secs_f64();
            report.add(column, &name, "≤ 5", "", ratio);
        }
    }
    subject.fsm.digest().map_err(cannot("digest"))?;
    let growing = subject.trap(&command_of(HUGE_COMMAND_BYTES))?;
    report.add(column, "a trap of a command that grew memory", "", "ms", millis(growing));
    measure_queries(report, column, &mut subject)
}

/// Size of the guest's memory, as the digest of a new state tells it.
fn heap_mib_of(subject: &mut Subject) -> Result<f64, Failure> {
    let digest = subject.fsm.digest().map_err(cannot("digest"))?;
    let end = digest.changed.last().map_or(0, |range| range.end);
    Ok(end as f64 / f64::from(1 << 20))
}

fn snapshot_meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        group: GroupId::MAIN,
        index: Index(index),
        term: Term(1),
        conf_state: ConfState::default(),
        size_bytes: 0,
        checksum: 0,
    }
}

fn measure_queries(
    report: &mut Report,
    column: usize,
    subject: &mut Subject,
) -> Result<(), Failure> {
    let query = |number: u64| {
        let from = subject.keys * number / (2 * QUERIES as u64);
        Bytes::from(format!(r#"{{"op":"range","start":"k{from:08}","limit":1000}}"#))
    };
    let queries: Vec<Bytes> = (0..QUERIES as u64).map(query).collect();
    let at = context(subject.index);
    let one_by_one =
        |fsm: &mut dyn Fsm| queries.iter().try_for_each(|query| fsm.query(at, query).map(drop));
    let (mut alone, mut together) = (Duration::MAX, Duration::MAX);
    for _ in 0..4 {
        let began = Instant::now();
        one_by_one(&mut *subject.fsm).map_err(cannot("query"))?;
        alone = alone.min(began.elapsed());
        let began = Instant::now();
        let calls = subject.fsm.query_all(at, &queries).map_err(cannot("query"))?;
        together = together.min(began.elapsed());
        if let Some(call) = calls.iter().find(|call| !matches!(call.result, GuestResult::Ok(_))) {
            return Err(Failure::new(format!("a query failed: {:?}", call.result)));
        }
    }
    report.add(column, "one query of 1,000 keys", "", "µs", micros(alone) / QUERIES as f64);
    let ratio = alone.as_secs_f64() / together.as_secs_f64();
    report.add(column, "64 queries at a time, speed-up", "cores", "", ratio);
    Ok(())
}

/// From files to the first answers, by a loader that has compiled nothing yet.
fn measure_restart(
    report: &mut Report,
    column: usize,
    backend: MemoryBackend,
    directory: &Path,
    place: &Path,
) -> Result<(), Failure> {
    let began = Instant::now();
    let loader = loader(directory)?.with_memory_backend(backend).map_err(cannot("load modules"))?;
    let store = SnapshotFiles::open(place).map_err(cannot("open the snapshots"))?;
    let newest = store.list(GroupId::MAIN).map_err(cannot("list the snapshots"))?;
    let newest = newest.first().ok_or_else(|| Failure::new("no snapshot was written"))?;
    let (meta, mut content) =
        store.open(GroupId::MAIN, newest.index).map_err(cannot("open a snapshot"))?;
    let mut subject = Subject::empty(&loader, 1_000, COMMAND_BYTES)?;
    subject.fsm.load_image(&mut content).map_err(cannot("load a snapshot"))?;
    subject.index = meta.index.0;
    subject.overwrite()?;
    subject.fsm.query(context(subject.index), b"{}").map_err(cannot("query"))?;
    report.add(column, "restart to serving", "≤ 3", "s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    subject.fsm.digest().map_err(cannot("digest"))?;
    report.add(column, "first digest after that", "", "ms", millis(began.elapsed()));
    Ok(())
}

/// Every tenth and every second command traps.
fn measure_storm(report: &mut Report, column: usize, loader: &WasmLoader) -> Result<(), Failure> {
    let big = command_of(BIG_COMMAND_BYTES);
    let mut subject = Subject::filled(loader, 10_000, 256)?;
    subject.overwrite_many(10_000)?;
    // What a command takes up to its trap: after another trap there is nothing to repeat.
    let mut own = Duration::MAX;
    for _ in 0..100 {
        own = own.min(subject.trap(&big)?);
    }
    report.add(column, "a trap, 10,000 keys, its own work included", "", "µs", micros(own));
    for (every, name) in [(10u64, "every tenth command traps"), (2, "every second command traps")] {
        let (mut good, mut trapped, mut traps) = (Duration::ZERO, Duration::ZERO, 0u32);
        for number in 0..20_000 {
            if number % every == 0 {
                trapped += subject.trap(&big)?;
                traps += 1;
            } else {
                good += subject.overwrite()?;
            }
        }
        let factor = (good + trapped).as_secs_f64() / (good + own * traps).as_secs_f64();
        report.add(column, &format!("{name}: slow-down"), "", "×", factor);
    }
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
