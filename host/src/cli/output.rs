//! Text for people and JSON for scripts: pure functions, and the two ways to print them.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::exit::Failure;
pub(super) use crate::config::Output;
pub(super) use crate::text::{human_bytes, human_count, human_time};

/// How the bytes of an answer are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// UTF-8 as it is, anything else in hexadecimal digits, and a line's end.
    Readable,
    /// The bytes and nothing else.
    Raw,
}

/// Prints one JSON object on a line of its own.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print_bytes(format!("{value}\n").as_bytes())
}

/// Prints lines.
pub(super) fn print_text(text: &str) -> Result<(), Failure> {
    print_bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Prints an answer's bytes.
pub(super) fn print_answer(answer: &[u8], form: AnswerForm) -> Result<(), Failure> {
    match form {
        AnswerForm::Raw => print_bytes(answer),
        AnswerForm::Readable if answer.is_empty() => Ok(()),
        AnswerForm::Readable => print_text(&readable(answer)),
    }
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // `raft-host … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(format!("writing the output: {error}"))),
    }
}

/// UTF-8 as text, anything else as hexadecimal digits.
pub(super) fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => hex(bytes),
    }
}

/// As [`readable`], on one line of at most `max` characters.
pub(super) fn readable_line(bytes: &[u8], max: usize) -> String {
    let line: String =
        readable(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    if line.chars().count() <= max {
        return line.to_owned();
    }
    line.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// The fields that hold bytes in JSON: text if it is UTF-8, and which of the two it is.
pub(super) fn answer_fields(bytes: &[u8]) -> (Value, &'static str) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (json!(text), "utf8"),
        Err(_) => (json!(hex(bytes)), "hex"),
    }
}

/// A hash or an id in hexadecimal digits; empty for none.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A table without borders; columns whose cells are all numbers or sizes go to the right.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.iter().map(|header| header.to_uppercase()));
    for row in rows {
        assert_eq!(row.len(), headers.len(), "each row has each column");
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let numeric = |cell: &String| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit());
        let address = |cell: &String| cell.contains(':') || cell.len() >= 12;
        let cells = || rows.iter().filter_map(|row| row.get(index));
        if cells().all(numeric) && !cells().any(address) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Two columns: names and values.
pub(super) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.iter().map(|(name, value)| format!("{name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `350ms`, `5.2s`, `5m 12s`, `3h 4m`, `2d 3h`.
pub(super) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", (duration.as_millis() / 100) as f64 / 10.0),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// The first twelve digits of a hash; `-` for none.
pub(super) fn short_hash(hash: &[u8]) -> String {
    match hash {
        [] => "-".to_owned(),
        hash => hex(&hash[..hash.len().min(6)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_short_and_readable() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1_023), "1023 B");
        assert_eq!(human_bytes(1_536), "1.5 KiB");
        assert_eq!(human_bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(human_bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(human_duration(Duration::from_millis(350)), "350ms");
        assert_eq!(human_duration(Duration::from_millis(5_290)), "5.2s");
        assert_eq!(human_duration(Duration::from_millis(59_999)), "59.9s");
        assert_eq!(human_duration(Duration::from_secs(312)), "5m 12s");
        assert_eq!(human_duration(Duration::from_secs(3_600 * 27)), "1d 3h");
        assert_eq!(human_count(0), "0");
        assert_eq!(human_count(999), "999");
        assert_eq!(human_count(1_234_567), "1,234,567");
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_in_hex() {
        assert_eq!(readable("grün".as_bytes()), "grün");
        assert_eq!(readable(&[0xff, 0x00]), "ff00");
        assert_eq!(answer_fields(&[0xff]), (json!("ff"), "hex"));
        assert_eq!(answer_fields(b"a"), (json!("a"), "utf8"));
        assert_eq!(readable_line(b"two\nlines\n", 40), "two lines");
        assert_eq!(readable_line("äöüß".as_bytes(), 3), "äö…");
    }

    #[test]
    fn tables_have_no_borders_and_numbers_stand_to_the_right() {
        let rows = vec![
            vec!["1".into(), "127.0.0.1:7400".into(), "9".into()],
            vec!["2".into(), "127.0.0.1:7401".into(), "1000".into()],
        ];
        let text = table(&["node", "address", "term"], &rows);
        assert_eq!(
            text,
            "NODE  ADDRESS         TERM\n   1  127.0.0.1:7400     9\n   2  127.0.0.1:7401  1000"
        );
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
