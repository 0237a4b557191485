//! Where log lines go: to stderr, for people or as JSON. Lines of guests get a share of it.

mod guest_lines;
mod json_lines;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

pub(super) use self::guest_lines::GuestLines;
use self::json_lines::JsonLines;
use crate::config::{LogConfig, LogFormat};

/// What is to be logged cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{filter:?} is not a log filter (--log-filter, RUST_LOG or log.filter): {source}")]
pub(super) struct BadFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Installs the process's subscriber. What it returns must be polled: it reports dropped lines.
pub(super) fn init(config: &LogConfig) -> anyhow::Result<GuestLines> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| BadFilter { filter: config.filter.clone(), source })?;
    let (limit, guest_lines) = guest_lines::limit(config);
    let base = tracing_subscriber::registry().with(filter).with(limit);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let installed = match config.format {
        LogFormat::Json => base.with(lines.event_format(JsonLines)).try_init(),
        LogFormat::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            base.with(lines.with_ansi(colours).with_target(false)).try_init()
        }
    };
    installed.context("starting the log")?;
    Ok(guest_lines)
}
