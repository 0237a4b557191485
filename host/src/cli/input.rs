//! Where commands come from: an argument, a file, standard input; whole or line by line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::exit::Failure;
use super::output::human_bytes;
use crate::signing::SignatureFile;
use crate::types::Index;

/// Longest command that is read at all. What a cluster takes is its own limit, and less.
const COMMAND_MAX_BYTES: u64 = 32 << 20;
/// Longest conformance script that is read at all.
const SCRIPT_MAX_BYTES: u64 = 32 << 20;
/// Longest module that is read at all.
const MODULE_MAX_BYTES: u64 = 1 << 30;

/// Where a command comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The argument itself.
    Literal(Vec<u8>),
    /// `@FILE`.
    File(PathBuf),
    /// `-`.
    Stdin,
}

/// Reads an argument: `-` is standard input, `@FILE` a file's content, `@@…` a text that begins
/// with one `@`, anything else the command itself.
pub(super) fn parse_source(argument: &str) -> Source {
    match argument.strip_prefix('@') {
        Some(rest) if rest.starts_with('@') => Source::Literal(rest.as_bytes().to_vec()),
        Some(path) => Source::File(path.into()),
        None if argument == "-" => Source::Stdin,
        None => Source::Literal(argument.as_bytes().to_vec()),
    }
}

impl Source {
    /// All bytes, exactly.
    pub(super) fn read(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Source::Literal(bytes) => Ok(bytes.clone()),
            Source::File(path) => read_file(path, COMMAND_MAX_BYTES),
            Source::Stdin => read_bounded(io::stdin().lock(), COMMAND_MAX_BYTES)
                .map_err(|error| Failure::new(format!("cannot read standard input: {error}"))),
        }
    }
}

/// Reads a module.
pub(super) fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    read_file(path, MODULE_MAX_BYTES)
}

/// Reads the portable state of an export.
pub(super) fn read_state(path: &Path) -> Result<Vec<u8>, Failure> {
    read_file(path, MODULE_MAX_BYTES)
}

/// Longest file with one key that is read at all.
const KEY_MAX_BYTES: u64 = 16 << 10;

/// A place in the log, up to which something is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: Index,
    /// Of the last command of that entry; `None`: all of them.
    pub(super) ordinal: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            None => self.index.fmt(f),
            Some(ordinal) => write!(f, "{}.{ordinal}", self.index),
        }
    }
}

/// `17`, all of entry 17; or `17.3`, up to its fourth command.
pub(super) fn parse_place(text: &str) -> Result<Place, String> {
    let (index, ordinal) = match text.split_once('.') {
        Some((index, ordinal)) => (index, Some(ordinal)),
        None => (text, None),
    };
    let bad = || {
        format!("{text:?} is no position: write 17 for entry 17, or 17.3 for its fourth command")
    };
    let index = index.parse().map(Index).map_err(|_| bad())?;
    let ordinal = ordinal.map(str::parse).transpose().map_err(|_| bad())?;
    Ok(Place { index, ordinal })
}

/// A module's name for people, if nobody gives another.
pub(super) fn label_of(module: &Path) -> String {
    module.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where a module's signatures are, if nobody says something else.
pub(super) fn signature_file(module: &Path) -> PathBuf {
    SignatureFile::beside(module)
}

/// Reads a file with signatures.
pub(super) fn read_signatures(path: &Path) -> Result<SignatureFile, Failure> {
    SignatureFile::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// Reads a file that may hold a key.
pub(super) fn read_key_text(path: &Path) -> Result<String, Failure> {
    read_file(path, KEY_MAX_BYTES).map(text_of)
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads a conformance script.
pub(super) fn read_script(path: &Path) -> Result<Vec<u8>, Failure> {
    read_file(path, SCRIPT_MAX_BYTES)
}

/// Reads a file of commands, one a line.
pub(super) fn read_commands(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = |error| cannot_read(path, &error);
    let mut lines = LineReader::new(BufReader::new(File::open(path).map_err(failed)?));
    let mut commands = Vec::new();
    while let Some(line) = lines.next_line().map_err(failed)? {
        commands.push(line.bytes);
    }
    Ok(commands)
}

fn read_file(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    File::open(path)
        .and_then(|file| read_bounded(file, max))
        .map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}

fn read_bounded(from: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(too_long("it is", max));
    }
    Ok(bytes)
}

fn too_long(what: &str, max: u64) -> io::Error {
    let message = format!("{what} longer than {}", human_bytes(max));
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A line with its number, counted from 1 over all lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
    /// Bytes of the input that end with this line, blank lines before it included.
    pub(super) consumed: u64,
}

/// Reads commands, one per line, and never more than one line at a time. A line ends with
/// `\n` or `\r\n`; the last one may end with the input. Blank lines are no commands.
pub(super) struct LineReader<R> {
    from: R,
    number: u64,
    blank: u64,
}

impl LineReader<Box<dyn BufRead + Send>> {
    /// Opens a file, or standard input for `-`; with its length, when it has one.
    pub(super) fn open(path: &str) -> Result<(Self, Option<u64>), Failure> {
        const BUFFER_BYTES: usize = 256 << 10;
        if path == "-" {
            let from = BufReader::with_capacity(BUFFER_BYTES, io::stdin());
            return Ok((LineReader::new(Box::new(from)), None));
        }
        let failure = |error| Failure::new(format!("cannot read {path}: {error}"));
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if metadata.is_dir() {
            return Err(Failure::new(format!("cannot read {path}: it is a directory")));
        }
        let length = metadata.is_file().then_some(metadata.len());
        Ok((LineReader::new(Box::new(BufReader::with_capacity(BUFFER_BYTES, file))), length))
    }
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(from: R) -> LineReader<R> {
        LineReader { from, number: 0, blank: 0 }
    }

    /// Blank lines so far.
    pub(super) fn blank(&self) -> u64 {
        self.blank
    }

    /// The next line that is not blank.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut consumed = 0;
        loop {
            let mut bytes = Vec::new();
            let limit = COMMAND_MAX_BYTES + 2;
            let read = (&mut self.from).take(limit).read_until(b'\n', &mut bytes)? as u64;
            if read == 0 {
                return Ok(None);
            }
            consumed += read;
            self.number += 1;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
            }
            if bytes.len() as u64 > COMMAND_MAX_BYTES {
                return Err(too_long(&format!("line {} is", self.number), COMMAND_MAX_BYTES));
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                self.blank += 1;
                continue;
            }
            return Ok(Some(Line { number: self.number, bytes, consumed }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> (Vec<(u64, Vec<u8>)>, u64, u64) {
        let mut reader = LineReader::new(input);
        let mut lines = Vec::new();
        let mut consumed = 0;
        while let Some(line) = reader.next_line().expect("memory does not fail") {
            consumed += line.consumed;
            lines.push((line.number, line.bytes));
        }
        (lines, reader.blank(), consumed)
    }

    #[test]
    fn lines_keep_their_numbers_when_blank_ones_are_skipped() {
        let (lines, blank, consumed) = lines(b"\none\n  \t\r\ntwo\r\nthree");
        let expected: Vec<(u64, Vec<u8>)> =
            vec![(2, b"one".into()), (4, b"two".into()), (5, b"three".into())];
        assert_eq!(lines, expected);
        assert_eq!(blank, 2);
        assert_eq!(consumed, 20);
    }

    #[test]
    fn bytes_that_are_not_text_and_inner_carriage_returns_are_kept() {
        let (lines, ..) = lines(b"a\rb \xff\n");
        assert_eq!(lines, vec![(1, b"a\rb \xff".to_vec())]);
        assert_eq!(super::LineReader::new(&b""[..]).next_line().expect("empty"), None);
    }

    #[test]
    fn a_line_without_end_is_refused_and_named_instead_of_read() {
        let endless = BufReader::new(io::repeat(b'x'));
        let mut reader = LineReader::new(BufReader::new(io::Cursor::new(b"a\n")).chain(endless));
        assert_eq!(reader.next_line().expect("short").expect("one").number, 1);
        let error = reader.next_line().expect_err("endless").to_string();
        assert_eq!(error, "line 2 is longer than 32.0 MiB");
    }

    #[test]
    fn an_argument_names_a_file_standard_input_or_is_the_command() {
        assert_eq!(parse_source("-"), Source::Stdin);
        assert_eq!(parse_source("@a/b.json"), Source::File("a/b.json".into()));
        assert_eq!(parse_source("@@user"), Source::Literal(b"@user".to_vec()));
        assert_eq!(parse_source(r#"{"op":"x"}"#), Source::Literal(br#"{"op":"x"}"#.to_vec()));
        assert_eq!(parse_source(""), Source::Literal(Vec::new()));
    }

    #[test]
    fn a_place_is_an_entry_or_one_of_its_commands() {
        let place = |index, ordinal| Ok(Place { index: Index(index), ordinal });
        assert_eq!(parse_place("17"), place(17, None));
        assert_eq!(parse_place("17.0"), place(17, Some(0)));
        assert_eq!(parse_place("17.3").expect("one").to_string(), "17.3");
        for nonsense in ["", "x", "17.", ".3", "1.2.3", "-1", "17.-1"] {
            assert!(parse_place(nonsense).expect_err(nonsense).contains("write 17"), "{nonsense}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let failure = parse_source("@/no/such/file").read().expect_err("missing");
        assert!(failure.message.starts_with("cannot read /no/such/file: "), "{failure:?}");
    }
}
