//! The story of a run: a line per event, nodes in columns, and a hash over all of it.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::observe::{Micros, Slot};

/// Who an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A host.
    Host(Slot),
    /// A client.
    Client(usize),
    /// Operators, the network, the simulator.
    World,
}

struct Line {
    at: Micros,
    who: Who,
    text: String,
}

/// Takes events in; keeps their text only if asked to, their hash always.
pub struct Trace {
    hash: Sha256,
    buffer: String,
    lines: Option<Vec<Line>>,
    count: u64,
}

impl Trace {
    /// A trace that keeps the text of its lines, or does not.
    pub fn new(keeps_lines: bool) -> Trace {
        let lines = keeps_lines.then(Vec::new);
        Trace { hash: Sha256::new(), buffer: String::new(), lines, count: 0 }
    }

    /// An event.
    pub fn line(&mut self, at: Micros, who: Who, text: fmt::Arguments<'_>) {
        self.buffer.clear();
        let (kind, number) = match who {
            Who::Host(slot) => ('n', slot.0),
            Who::Client(client) => ('c', client),
            Who::World => ('w', 0),
        };
        write!(self.buffer, "{} {kind}{number} ", at.0).expect("strings take anything");
        let prefix = self.buffer.len();
        self.buffer.write_fmt(text).expect("strings take anything");
        self.buffer.push('\n');
        self.hash.update(self.buffer.as_bytes());
        self.count += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, who, text: self.buffer[prefix..].trim_end().to_owned() });
        }
    }

    /// Events so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> String {
        let digest = self.hash.clone().finalize();
        digest.iter().take(16).fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("strings take anything");
            text
        })
    }

    /// The last `limit` lines, nodes in columns.
    pub fn render(&self, limit: usize) -> String {
        let Some(lines) = &self.lines else { return String::new() };
        let from = lines.len().saturating_sub(limit);
        let hosts = lines.iter().filter_map(|line| match line.who {
            Who::Host(slot) => Some(slot.0 + 1),
            _ => None,
        });
        let columns = hosts.max().unwrap_or(0);
        let mut text = String::new();
        let head: String = (0..columns).map(|slot| format!("{:<4}", format!("n{slot}"))).collect();
        writeln!(text, "{:>12}  {head}", "seconds").expect("strings take anything");
        for line in &lines[from..] {
            let seconds = format!("{}.{:06}", line.at.0 / 1_000_000, line.at.0 % 1_000_000);
            let (column, mark) = match line.who {
                Who::Host(slot) => (slot.0, format!("n{}", slot.0)),
                Who::Client(client) => (columns, format!("client {client}:")),
                Who::World => (columns, "--".to_owned()),
            };
            let before = ".   ".repeat(column.min(columns));
            let after = ".   ".repeat(columns.saturating_sub(column + 1));
            writeln!(text, "{seconds:>12}  {before}{mark:<4}{after}{}", line.text)
                .expect("strings take anything");
        }
        text
    }
}
