//! What an upgrade is meant to change: `reply:transfer`, `fuel:3x`.

use std::fmt;

use super::kind::Kind;
use super::report::{
    Count, FUEL_MEDIAN_PERMILLE, FUEL_WORST_PERMILLE, MEMORY_PERMILLE, OTHERS, Report,
};
use crate::fsm::class_name;

/// Most allowances of a rehearsal.
pub const ALLOWANCES_MAX: usize = 64;
/// Longest text of one.
const TEXT_MAX_BYTES: usize = 128;

/// What is intended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowances(Vec<Allowance>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowance {
    kind: Kind,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Any,
    Class(String),
    /// Up to so many thousandths.
    Ratio(u64),
}

/// What is wrong with an allowance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAllowance(String);

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        match &self.what {
            What::Any => write!(f, "{kind}"),
            What::Class(class) => write!(f, "{kind}:{class}"),
            What::Ratio(permille) => write!(f, "{kind}:{}x", *permille as f64 / 1000.0),
        }
    }
}

impl Allowance {
    fn parse(text: &str) -> Result<Allowance, BadAllowance> {
        if text.len() > TEXT_MAX_BYTES {
            let words = format!("an allowance has at most {TEXT_MAX_BYTES} bytes");
            return Err(BadAllowance(words));
        }
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let Some(kind) = Kind::of(name) else {
            let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            return Err(BadAllowance(format!(
                "there is no kind of difference called {name:?}: the kinds are {}",
                kinds.join(", ")
            )));
        };
        let what = match rest {
            None => What::Any,
            Some(ratio) if kind.is_measured() => What::Ratio(permille(ratio).ok_or_else(|| {
                BadAllowance(format!(
                    "{ratio:?} is no ratio: write {name}:3x or {name}:2.5x for so much more, or \
                     {name} for any"
                ))
            })?),
            Some(_) if !kind.is_of_commands() => {
                return Err(BadAllowance(format!(
                    "differences of kind {name} have no classes: write {name}"
                )));
            }
            Some(class) if class_name(class.as_bytes()).is_none() => {
                return Err(BadAllowance(format!(
                    "{class:?} is no name of a class of commands: one has 1 to 64 letters, digits \
                     and . _ -"
                )));
            }
            Some(class) => What::Class(class.to_owned()),
        };
        Ok(Allowance { kind, what })
    }

    fn covers(&self, report: &Report, kind: Kind, class: &str) -> bool {
        self.kind == kind
            && match &self.what {
                What::Any => true,
                What::Class(allowed) => class == allowed && class != OTHERS,
                What::Ratio(ratio) => match kind {
                    Kind::Fuel => {
                        report.fuel.median_permille <= FUEL_MEDIAN_PERMILLE.max(*ratio)
                            && report.fuel.worst_permille <= FUEL_WORST_PERMILLE.max(*ratio)
                    }
                    _ => report.memory.permille <= MEMORY_PERMILLE.max(*ratio),
                },
            }
    }
}

/// `3x` or `2.5x` in thousandths.
fn permille(text: &str) -> Option<u64> {
    let number = text.strip_suffix('x')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str, longest: usize| {
        (1..=longest).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_number(whole, 9) || !is_number(part, 3) {
        return None;
    }
    let part = format!("{part:0<3}");
    let permille = whole.parse::<u64>().ok()? * 1_000 + part.parse::<u64>().ok()?;
    (permille > 0).then_some(permille)
}

impl Allowances {
    /// Reads what is allowed: `KIND`, `KIND:CLASS`, `fuel:3x` or `memory:2x`.
    ///
    /// # Errors
    ///
    /// One is none, or there are too many.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Allowances, BadAllowance> {
        if texts.len() > ALLOWANCES_MAX {
            return Err(BadAllowance(format!("there are at most {ALLOWANCES_MAX} allowances")));
        }
        let parsed = texts.iter().map(|text| Allowance::parse(text.as_ref()));
        parsed.collect::<Result<_, _>>().map(Allowances)
    }

    /// Whether differences of a kind and class are intended.
    pub fn cover(&self, report: &Report, kind: Kind, class: &str) -> bool {
        self.0.iter().any(|allowance| allowance.covers(report, kind, class))
    }

    /// The classes that they name.
    pub fn classes(&self) -> Vec<String> {
        let class = |allowance: &Allowance| match &allowance.what {
            What::Class(class) => Some(class.clone()),
            What::Any | What::Ratio(_) => None,
        };
        self.0.iter().filter_map(class).collect()
    }

    /// As they are written down.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(Allowance::to_string).collect()
    }
}

/// What a report means, given what is intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Differences that nobody has allowed.
    pub refused: u64,
    /// Those that somebody has.
    pub allowed: u64,
    /// Of each allowance that nothing was allowed by, a sentence.
    pub unmatched: Vec<String>,
}

impl Verdict {
    /// Nothing differs but what is allowed.
    pub fn passed(&self) -> bool {
        self.refused == 0
    }
}

impl Report {
    /// What it means, given what is intended.
    pub fn verdict(&self, allowances: &Allowances) -> Verdict {
        let (mut refused, mut allowed) = (0, 0);
        for Count { kind, class, count } in &self.counts {
            match allowances.cover(self, *kind, class) {
                true => allowed += count,
                false => refused += count,
            }
        }
        let matched = |allowance: &Allowance| {
            self.counts.iter().any(|count| allowance.covers(self, count.kind, &count.class))
        };
        let unmatched = allowances.0.iter().filter(|allowance| !matched(allowance));
        let unmatched = unmatched
            .map(|allowance| format!("{allowance} allows nothing: there was no such difference"))
            .collect();
        Verdict { refused, allowed, unmatched }
    }
}
