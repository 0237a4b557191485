//! What is printed: medians of the rounds, their spread, and the ratios.

use std::fmt;

use clap::ValueEnum as _;

use crate::measure::{Case, Measured, Way};
use crate::{BenchArgs, Mode, Op, To};

/// All rounds so far.
pub(crate) struct Report {
    args: BenchArgs,
    versions: [String; 2],
    load_before: String,
    rounds: Vec<(Case, Vec<Measured>)>,
}

impl Report {
    pub(crate) fn new(args: &BenchArgs, versions: [String; 2]) -> Report {
        let load_before = load_average();
        Report { args: args.clone(), versions, load_before, rounds: Vec::new() }
    }

    pub(crate) fn add(&mut self, case: Case, measured: Measured) {
        match self.rounds.iter_mut().find(|(known, _)| *known == case) {
            Some((_, rounds)) => rounds.push(measured),
            None => self.rounds.push((case, vec![measured])),
        }
    }

    fn rounds(&self, op: Op, callers: u32, way: Way) -> Option<&[Measured]> {
        let case = Case { op, callers, way };
        self.rounds.iter().find(|(known, _)| *known == case).map(|(_, rounds)| &rounds[..])
    }

    /// The faster way to ask etcd.
    fn best_of_etcd(&self, op: Op, callers: u32) -> Option<(To, &[Measured])> {
        let ways = To::value_variants().iter();
        let known = ways.filter_map(|to| Some((*to, self.rounds(op, callers, Way::Etcd(*to))?)));
        known.max_by(|(_, one), (_, other)| f64::total_cmp(&per_second(one), &per_second(other)))
    }
}

fn per_second(rounds: &[Measured]) -> f64 {
    median(rounds.iter().map(|it| it.per_second))
}

/// How busy the machine is, in the kernel's words.
fn load_average() -> String {
    let said = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    said.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = &self.args;
        let [ours, etcd] = &self.versions;
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        writeln!(
            f,
            "{ours} beside {etcd}; {processors} processors, load {} before and {} after (the benchmark's \
             own included). Three nodes each, values of {} bytes, {} keys, {} rounds of {} s after {} s. \
             Medians (least to most); a ratio is the median of those of the rounds.",
            self.load_before,
            load_average(),
            args.size,
            args.keys,
            args.rounds,
            args.seconds,
            args.warmup,
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "| | callers | raft-host, /s | etcd, /s | ratio | p50, ms | p99, ms | p99 ratio | servers, µs | \
             generator, µs |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        for op in &args.op {
            for callers in &args.callers {
                let Some(etcd) = self.best_of_etcd(*op, *callers) else { continue };
                for mode in &args.mode {
                    if let Some(ours) = self.rounds(*op, *callers, Way::RaftHost(*mode)) {
                        writeln!(f, "{}", row(*op, *callers, *mode, ours, etcd))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn row(
    op: Op,
    callers: u32,
    mode: Mode,
    ours: &[Measured],
    (to, etcd): (To, &[Measured]),
) -> String {
    let what = match (op, mode) {
        (Op::Write, Mode::Shared) => "writes".to_owned(),
        (Op::Read, Mode::Shared) => "linearizable reads".to_owned(),
        (Op::Write, mode) => format!("writes, {}", mode.name()),
        (Op::Read, mode) => format!("linearizable reads, {}", mode.name()),
    };
    let both = |of: fn(&Measured) -> f64, digits: usize| {
        let [ours, etcd] = [ours, etcd].map(|rounds| median(rounds.iter().map(of)));
        format!("{ours:.digits$} / {etcd:.digits$}")
    };
    let ratio = |of: fn(&Measured) -> f64| {
        spread(ours.iter().zip(etcd).map(|(ours, etcd)| of(ours) / of(etcd)), 2)
    };
    let per_second = |rounds: &[Measured]| spread(rounds.iter().map(|it| it.per_second), 0);
    let asked = if to == To::All { "all" } else { "leader" };
    [
        what,
        callers.to_string(),
        per_second(ours),
        format!("{}, {asked}", per_second(etcd)),
        ratio(|it| it.per_second),
        both(|it| it.p50_ms, 2),
        both(|it| it.p99_ms, 2),
        ratio(|it| it.p99_ms),
        both(|it| it.servers_us, 1),
        both(|it| it.generator_us, 1),
    ]
    .iter()
    .fold("|".to_owned(), |row, cell| format!("{row} {cell} |"))
}

/// The median, and in parentheses the least and the most.
fn spread(values: impl Iterator<Item = f64> + Clone, digits: usize) -> String {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values))
}

/// Of an even number the mean of the middle two; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(per_second: f64) -> Measured {
        let ms = 1_000.0 / per_second;
        let (servers_us, generator_us) = (10.0, 2.0);
        Measured { per_second, p50_ms: ms, p99_ms: 2.0 * ms, servers_us, generator_us }
    }

    #[test]
    fn a_row_has_medians_and_the_ratios_of_rounds() {
        let ours = [200.0, 600.0, 400.0].map(measured);
        let etcd = [100.0, 200.0, 400.0].map(measured);
        assert_eq!(
            row(Op::Write, 64, Mode::Unary, &ours, (To::All, &etcd)),
            "| writes, unary | 64 | 400 (200 to 600) | 200 (100 to 400), all | 2.00 (1.00 to 3.00) | \
             2.50 / 5.00 | 5.00 / 10.00 | 0.50 (0.33 to 1.00) | 10.0 / 10.0 | 2.0 / 2.0 |"
        );
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.5);
        assert_eq!(median([3.0].into_iter()), 3.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
