//! `raft-host apply --lines`: a file of commands, each exactly once and in the file's order.
//!
//! ```text
//!   thread: read lines ─(bounded)─► feeder ─► pipeline of the client library ─► collector
//!                                      └── line numbers, in the same order ────────┘
//! ```
//!
//! Nothing is held but what is in flight, so the input may be of any length.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use raft_host_proto::client::{PipelineOptions, PipelineResults, PipelineSender};
use raft_host_proto::{ClientError, v1};
use tokio::sync::mpsc;
use tonic::Code;

use super::exit::{Ended, Exit, Failure};
use super::input::{Line, LineReader};
use super::lines_summary::{LineAnswer, Summary};
use super::output::{Output, human_count, print_json, print_text};
use super::remote::{self, RemoteArgs};

/// How long one command may take with all its attempts: longer than a cluster needs to
/// replace a leader.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Lines between the reading thread and the feeder.
const LINES_AHEAD: usize = 16;
/// The progress is shown anew after so many answers.
const SHOW_EVERY: u64 = 100;

pub(super) fn run(path: &str, remote: &RemoteArgs) -> Ended {
    let (reader, length) = LineReader::open(path)?;
    let progress = progress_bar(length);
    let result = remote::block_on(import(path, reader, remote, &progress));
    progress.finish_and_clear();
    let summary = result?;
    match remote.output {
        Output::Json => print_json(&summary.to_json())?,
        Output::Table => print_text(&summary.to_text())?,
    }
    Ok(summary.exit())
}

/// Shown on a terminal only, and on stderr.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:30} {bytes}/{total_bytes}, {msg}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}, {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a constant template"))
        .with_message("starting")
}

/// Where a submitted line was, for its answer.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: u64,
    bytes: u64,
    consumed: u64,
}

type Reader = LineReader<Box<dyn std::io::BufRead + Send>>;

async fn import(
    path: &str,
    reader: Reader,
    remote: &RemoteArgs,
    progress: &ProgressBar,
) -> Result<Summary, Failure> {
    let client = remote.client_with(TIMEOUT).await?;
    let session = client
        // Kept alive while the input pauses.
        .open_ordered_session(None)
        .await
        .map_err(|error| remote::failed_question(&error).about("the input"))?;
    let (sender, results) = session.pipeline(PipelineOptions::default());
    let (lines_sender, lines) = mpsc::channel(LINES_AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_lines(reader, &lines_sender));
    // Bounded by the pipeline's window: a place is noted just before its line is submitted.
    let (places_sender, places) = mpsc::unbounded_channel();
    let began = Instant::now();
    let mut collector = Collector { summary: Summary::default(), progress, failed: None };
    tokio::join!(feed(lines, sender, places_sender), collector.collect(results, places));
    let Collector { mut summary, failed, .. } = collector;
    summary.elapsed = began.elapsed();
    if let Some((line, error)) = failed {
        return Err(summary.interrupted(remote::failure(&error), Some(line)));
    }
    let read = reading
        .await
        .map_err(|error| Failure::new(format!("the reading thread failed: {error}")))?;
    match read {
        Ok(blank) => {
            summary.blank = blank;
            Ok(summary)
        }
        Err(error) => {
            let failure = Failure::new(format!("cannot read {path}: {error}"));
            Err(summary.interrupted(failure, None))
        }
    }
}

/// Reads until the end, or until nobody wants lines any more; returns the number of blank ones.
fn read_lines(mut reader: Reader, lines: &mpsc::Sender<Line>) -> std::io::Result<u64> {
    while let Some(line) = reader.next_line()? {
        if lines.blocking_send(line).is_err() {
            break;
        }
    }
    Ok(reader.blank())
}

/// Submits lines until there are none, or the collector has seen that it is no use.
async fn feed(
    mut lines: mpsc::Receiver<Line>,
    sender: PipelineSender,
    places: mpsc::UnboundedSender<Place>,
) {
    while let Some(Line { number, bytes, consumed }) = lines.recv().await {
        let place = Place { line: number, bytes: bytes.len() as u64, consumed };
        if places.send(place).is_err() || sender.send(bytes).await.is_err() {
            return;
        }
    }
}

struct Collector<'a> {
    summary: Summary,
    progress: &'a ProgressBar,
    /// The first line that has no answer, and why.
    failed: Option<(u64, ClientError)>,
}

impl Collector<'_> {
    /// Takes the answers, which come in the order of the lines.
    async fn collect(
        &mut self,
        mut results: PipelineResults,
        mut places: mpsc::UnboundedReceiver<Place>,
    ) {
        while let Some(result) = results.next().await {
            let place = places.recv().await.expect("noted before its line was submitted");
            self.progress.inc(place.consumed);
            match result.result {
                Ok(response) => self.answered(place, response),
                // This line's fault, and no other's.
                Err(ClientError::Refused {
                    code: Code::InvalidArgument | Code::OutOfRange,
                    message,
                    effect: raft_host_proto::Effect::None,
                    ..
                }) => self.summary.refuse(place.line, &message),
                Err(error) => {
                    let effect_is_worse = self.failed.as_ref().is_some_and(|(_, first)| {
                        remote::failure(first).exit != Exit::Unknown
                            && remote::failure(&error).exit == Exit::Unknown
                    });
                    match &mut self.failed {
                        None => self.failed = Some((place.line, error)),
                        Some((_, first)) if effect_is_worse => *first = error,
                        Some(_) => {}
                    }
                    // No further lines; what is in flight is still answered.
                    places.close();
                }
            }
            if self.summary.answered().is_multiple_of(SHOW_EVERY) {
                let answered = human_count(self.summary.answered());
                self.progress.set_message(format!("{answered} commands"));
            }
        }
    }

    fn answered(&mut self, place: Place, response: v1::ApplyResponse) {
        let v1::ApplyResponse { outcome, position, fuel_used, .. } = response;
        let outcome = outcome.unwrap_or_default();
        let Some(kind) = outcome.kind else {
            self.summary.refuse(place.line, "the server's answer has no outcome");
            return;
        };
        self.summary.add(LineAnswer {
            line: place.line,
            bytes: place.bytes,
            index: position.unwrap_or_default().index,
            fuel_used,
            duplicate: outcome.duplicate,
            kind,
        });
    }
}
