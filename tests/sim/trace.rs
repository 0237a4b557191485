//! The story of a run: a line per event, nodes in columns, and a hash over all of it.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::observe::{Micros, Slot};

/// Who an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A host.
    Host(Slot),
    /// A client.
    Client(usize),
    /// Operators, the network, the simulator.
    World,
}

/// What a line of a trace is about; for those who do not want to see all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// Messages between nodes, except heartbeats.
    Messages,
    /// Heartbeats and their answers.
    Heartbeats,
    /// Writes of logs.
    Writes,
    /// Entries applied.
    Applies,
    /// Snapshots saved, sent and installed.
    Snapshots,
    /// Changes of role.
    Roles,
    /// Beginnings and ends of quarantines.
    Digests,
    /// Starts and ends of nodes.
    Life,
    /// What disks do of themselves.
    Disks,
    /// What clients ask and are told.
    Clients,
    /// What operators do.
    Operators,
    /// What goes wrong by plan.
    Faults,
    /// Everything else: phases of the run, and violations.
    Run,
}

impl Kind {
    /// All of them.
    pub const ALL: &[Kind] = &[
        Kind::Messages,
        Kind::Heartbeats,
        Kind::Writes,
        Kind::Applies,
        Kind::Snapshots,
        Kind::Roles,
        Kind::Digests,
        Kind::Life,
        Kind::Disks,
        Kind::Clients,
        Kind::Operators,
        Kind::Faults,
        Kind::Run,
    ];

    /// The kind of a line; lines tell it by how they begin.
    fn of(who: Who, text: &str) -> Kind {
        let beginnings: &[(&str, Kind)] = match who {
            Who::Client(_) => &[("", Kind::Clients)],
            Who::World => {
                &[("#", Kind::Faults), ("operator", Kind::Operators), ("recovery", Kind::Operators)]
            }
            Who::Host(_) => &[
                ("<- ", Kind::Messages),
                ("turns ", Kind::Messages),
                ("writes ", Kind::Writes),
                ("has written", Kind::Writes),
                ("applies ", Kind::Applies),
                ("has saved", Kind::Snapshots),
                ("installs ", Kind::Snapshots),
                ("cannot send its snapshot", Kind::Snapshots),
                ("cannot store the snapshot", Kind::Snapshots),
                ("Leader ", Kind::Roles),
                ("Follower ", Kind::Roles),
                ("Candidate ", Kind::Roles),
                ("PreCandidate ", Kind::Roles),
                ("starts ", Kind::Life),
                ("does not start", Kind::Life),
                ("was removed", Kind::Life),
                ("gets the program", Kind::Life),
                ("stops", Kind::Life),
                ("is killed", Kind::Life),
                ("loses power", Kind::Life),
                ("disk:", Kind::Disks),
                ("rehearses ", Kind::Operators),
                ("does not rehearse", Kind::Operators),
                ("is quarantined", Kind::Digests),
                ("is trusted", Kind::Digests),
                ("is in doubt", Kind::Digests),
                ("is no more in doubt", Kind::Digests),
            ],
        };
        let found = beginnings.iter().find(|(beginning, _)| text.starts_with(beginning));
        match found.map_or(Kind::Run, |(_, kind)| *kind) {
            Kind::Messages if text.contains(" Heartbeat") => Kind::Heartbeats,
            kind => kind,
        }
    }
}

/// Which lines of a trace are shown.
#[derive(Clone, Debug)]
pub struct View {
    /// So many at most, the last ones.
    pub lines: usize,
    /// None of these kinds.
    pub hidden: BTreeSet<Kind>,
}

impl Default for View {
    /// What is good to have after a failure.
    fn default() -> View {
        View { lines: 60, hidden: BTreeSet::from([Kind::Heartbeats]) }
    }
}

struct Line {
    at: Micros,
    who: Who,
    text: String,
}

/// Takes events in; keeps their text only if asked to, their hash always.
pub(super) struct Trace {
    hash: Sha256,
    buffer: String,
    lines: Option<Vec<Line>>,
    count: u64,
}

impl Trace {
    /// A trace that keeps the text of its lines, or does not.
    pub(super) fn new(keeps_lines: bool) -> Trace {
        let lines = keeps_lines.then(Vec::new);
        Trace { hash: Sha256::new(), buffer: String::new(), lines, count: 0 }
    }

    /// An event.
    pub(super) fn line(&mut self, at: Micros, who: Who, text: fmt::Arguments<'_>) {
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
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The hash over all events so far.
    pub(super) fn hash(&self) -> String {
        let digest = self.hash.clone().finalize();
        digest.iter().take(16).fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("strings take anything");
            text
        })
    }

    /// What is to be seen, nodes in columns. In the column of a node that has nothing to say
    /// stands what it is at the moment.
    pub(super) fn render(&self, view: &View) -> String {
        let Some(lines) = &self.lines else { return String::new() };
        let is_shown = |line: &Line| !view.hidden.contains(&Kind::of(line.who, &line.text));
        let shown = lines.iter().filter(|line| is_shown(line)).count();
        let mut skipped = shown.saturating_sub(view.lines);
        let hosts = lines.iter().filter_map(|line| match line.who {
            Who::Host(slot) => Some(slot.0 + 1),
            _ => None,
        });
        let mut columns = Columns { marks: vec![' '; hosts.max().unwrap_or(0)] };
        let mut text = String::from(LEGEND);
        writeln!(text, "{skipped} lines are left out here, and these kinds: {:?}", view.hidden)
            .expect("strings take anything");
        writeln!(text, "{:>12}  {}", "seconds", columns.head()).expect("strings take anything");
        for line in lines {
            columns.follow(line);
            if !is_shown(line) {
                continue;
            }
            if skipped > 0 {
                skipped -= 1;
                continue;
            }
            let seconds = format!("{}.{:06}", line.at.0 / 1_000_000, line.at.0 % 1_000_000);
            writeln!(text, "{seconds:>12}  {}{}", columns.cells(line.who), line.text)
                .expect("strings take anything");
        }
        text
    }
}

const LEGEND: &str = "L leads, c campaigns, . follows, x is down; c0: client 0, --: the world\n";

/// What the nodes are at a moment.
struct Columns {
    marks: Vec<char>,
}

impl Columns {
    fn follow(&mut self, line: &Line) {
        let Who::Host(slot) = line.who else { return };
        let mark = match Kind::of(line.who, &line.text) {
            Kind::Roles if line.text.starts_with("Leader ") => 'L',
            Kind::Roles if line.text.contains("andidate ") => 'c',
            Kind::Roles => '.',
            Kind::Life if line.text.starts_with("starts ") => '.',
            Kind::Life => 'x',
            _ => return,
        };
        self.marks[slot.0] = mark;
    }

    fn head(&self) -> String {
        let names = (0..self.marks.len()).map(|slot| format!("{:<4}", format!("n{slot}")));
        names.collect::<String>().trim_end().to_owned()
    }

    /// The columns of a line, and who it is about if that is no node.
    fn cells(&self, who: Who) -> String {
        let cell = |(slot, mark): (usize, &char)| match who {
            Who::Host(host) if host.0 == slot => format!("{:<4}", format!("n{slot}")),
            _ => format!("{mark:<4}"),
        };
        let cells: String = self.marks.iter().enumerate().map(cell).collect();
        match who {
            Who::Host(_) => format!("{cells}    "),
            Who::Client(client) => format!("{cells}{:<4}", format!("c{client}")),
            Who::World => format!("{cells}--  "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let mut trace = Trace::new(true);
        let (first, second) = (Who::Host(Slot(0)), Who::Host(Slot(1)));
        trace.line(Micros(1), first, format_args!("starts as node 1"));
        trace.line(Micros(2), second, format_args!("starts as node 2"));
        trace.line(Micros(1_000_003), first, format_args!("Leader of term 1"));
        trace.line(Micros(4), second, format_args!("<- n0 Heartbeat term 1"));
        trace.line(Micros(5), Who::Client(3), format_args!("reads k0"));
        trace.line(Micros(6), Who::World, format_args!("#7: n0 loses power at once"));
        trace.line(Micros(7), first, format_args!("loses power"));
        trace.line(Micros(8), second, format_args!("Candidate of term 2"));
        trace.line(Micros(9), Who::World, format_args!("VIOLATION"));
        trace
    }

    #[test]
    fn nodes_are_in_columns_with_what_they_are() {
        let text = trace().render(&View::default());
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let expected = [
            "     seconds  n0  n1",
            "    0.000001  n0          starts as node 1",
            "    0.000002  .   n1      starts as node 2",
            "    1.000003  n0  .       Leader of term 1",
            "    0.000005  L   .   c3  reads k0",
            "    0.000006  L   .   --  #7: n0 loses power at once",
            "    0.000007  n0  .       loses power",
            "    0.000008  x   n1      Candidate of term 2",
            "    0.000009  x   c   --  VIOLATION",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_last_lines_of_the_wanted_kinds_are_shown() {
        let view = View { lines: 2, hidden: BTreeSet::from([Kind::Roles, Kind::Run]) };
        let text = trace().render(&view);
        assert!(text.contains("4 lines are left out here"), "{text}");
        let last: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(last.len(), 2);
        assert!(last[0].ends_with("at once") && last[1].ends_with("loses power"), "{text}");
    }

    #[test]
    fn what_is_hidden_counts_for_the_hash() {
        let mut other = trace();
        assert_eq!(trace().hash(), other.hash());
        other.line(Micros(10), Who::Host(Slot(1)), format_args!("<- n0 Heartbeat term 1"));
        assert_ne!(trace().hash(), other.hash());
    }
}
