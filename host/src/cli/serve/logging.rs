//! Where log lines go: to stderr, for people or as JSON. Lines of guests get a share of it.

mod guest_lines;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

pub(super) use self::guest_lines::GuestLines;
use crate::config::{LogConfig, LogFormat};

/// Installs the process's subscriber. What it returns must be polled: it reports dropped lines.
pub(super) fn init(config: &LogConfig) -> anyhow::Result<GuestLines> {
    let filter = EnvFilter::try_new(&config.filter).with_context(|| {
        format!("{:?} is not a log filter (--log, RUST_LOG or log.filter)", config.filter)
    })?;
    let (limit, guest_lines) = guest_lines::limit(config);
    let base = tracing_subscriber::registry().with(filter).with(limit);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let installed = match config.format {
        LogFormat::Json => base.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            base.with(lines.with_ansi(colours).with_target(false)).try_init()
        }
    };
    installed.context("starting the log")?;
    Ok(guest_lines)
}
