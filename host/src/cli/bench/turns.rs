//! Two things measured in turns, so that whatever else the machine does disturbs both alike.

use std::future::Future;

use serde_json::{Map, Value, json};

use super::measure::Measured;
use crate::cli::exit::Failure;
use crate::cli::output::table;

/// What two things do in turns. The ratio is the second to the first.
pub(super) struct Comparison {
    names: [&'static str; 2],
    measured: [Measured; 2],
    /// Operations a second of each round.
    rounds: Vec<[f64; 2]>,
}

/// Measures the first and the second of these so many times (at least once).
pub(super) async fn take_turns<F>(
    names: [&'static str; 2],
    rounds: u8,
    measure: impl Fn(usize) -> F,
) -> Result<Comparison, Failure>
where
    F: Future<Output = Result<Measured, Failure>>,
{
    let mut sums: Option<[Measured; 2]> = None;
    let mut per_second = Vec::new();
    for round in 0..rounds {
        // Whoever goes second finds the disk busier: alternate.
        let both = if round % 2 == 0 {
            let first = measure(0).await?;
            [first, measure(1).await?]
        } else {
            let second = measure(1).await?;
            [measure(0).await?, second]
        };
        per_second.push([both[0].per_second(), both[1].per_second()]);
        match &mut sums {
            None => sums = Some(both),
            Some(sums) => sums.iter_mut().zip(&both).for_each(|(sum, it)| sum.add(it)),
        }
    }
    let measured = sums.expect("clap asks for at least one round");
    Ok(Comparison { names, measured, rounds: per_second })
}

impl Comparison {
    /// All rounds of each.
    pub(super) fn measured(&self) -> &[Measured; 2] {
        &self.measured
    }

    fn ratio(&self) -> f64 {
        self.measured[1].per_second() / self.measured[0].per_second()
    }

    pub(super) fn to_text(&self) -> String {
        let [one, other] = self.names;
        let rows: Vec<Vec<String>> = self
            .rounds
            .iter()
            .enumerate()
            .map(|(number, [first, second])| {
                vec![
                    (number + 1).to_string(),
                    format!("{first:.0}"),
                    format!("{second:.0}"),
                    format!("{:.3}", second / first),
                ]
            })
            .collect();
        format!(
            "{one}\n{}\n\n{other}\n{}\n\n{}\n\n{other} does {:.1} % of {one}",
            self.measured[0].to_text(),
            self.measured[1].to_text(),
            table(&["round", &format!("{one}/s"), &format!("{other}/s"), "ratio"], &rows),
            100.0 * self.ratio()
        )
    }

    pub(super) fn to_json(&self) -> Value {
        let rounds = self.rounds.iter().map(|round| {
            let mut value = Map::new();
            for (name, per_second) in self.names.iter().zip(round) {
                value.insert(format!("{name}_per_second"), json!(per_second));
            }
            value.insert("ratio".into(), json!(round[1] / round[0]));
            Value::Object(value)
        });
        let rounds: Vec<Value> = rounds.collect();
        let mut value = json!({ "ratio": self.ratio(), "rounds": rounds });
        for (name, measured) in self.names.iter().zip(&self.measured) {
            value[name] = measured.to_json();
        }
        value
    }
}
