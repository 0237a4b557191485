//! `raft-host` without a subcommand: start a server, wait for a signal, drain.
//!
//! Exit codes: 0 when asked to stop, and when the node was removed from its cluster; 1 when
//! it did not start or could not go on; 2 when its settings cannot be; 7 when its data directory
//! must not be used any more; 130 when a second signal cut the drain short.

mod args;
mod last_resort;
mod logging;
mod ticket;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) use self::args::{ServeArgs, engines};
pub(super) use self::ticket::JOIN_TOKEN_VARIABLE;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::config::{Config, ConfigError, LogFormat};
use crate::node::StopReason;
use crate::server::{self, Began, RunningServer, ServeError};

/// What a shell reports for a process that SIGINT ended.
const EXIT_IMPATIENT: i32 = 130;

fn exit_code(reason: &StopReason) -> i32 {
    match reason {
        StopReason::Requested | StopReason::Removed => Exit::Done as i32,
        StopReason::Outdated(_) => Exit::DataUnusable as i32,
        StopReason::Program(_) | StopReason::Failed(_) => Exit::Failed as i32,
    }
}

/// Runs a server until it is told to stop.
///
/// # Errors
/// Why it does not start.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = args.config()?;
    let guest_lines = logging::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("runtime")
        .build()
        .context("starting the runtime")?;
    runtime.spawn(guest_lines.report());
    super::environment::warn_of_unknown();
    let startup = args.startup(&config)?;
    let code = runtime.block_on(serve(config, startup));
    // A thread that is stuck in a system call must not keep a stopped server alive.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config, startup: server::Startup) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let server = tokio::select! {
        started = server::start(config.clone(), startup) => match started {
            Err(error) if error.is_data_unusable() => {
                Failure { exit: Exit::DataUnusable, ..Failure::new(error.to_string()) }
                    .report(Output::Table);
                return Ok(Exit::DataUnusable.into());
            }
            started => started?,
        },
        name = signals.next() => {
            eprintln!("{name} while starting: stopped");
            return Ok(ExitCode::SUCCESS);
        }
    };
    tracing::info!(
        node = %server.identity().node, cluster = %server.identity().cluster,
        address = %server.identity().address, listening = %server.address(),
        metrics = server.metrics_address().map(tracing::field::display), "ready"
    );
    if config.log.format == LogFormat::Human {
        announce(&server);
    }
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    let runtime = tokio::runtime::Handle::current();
    last_resort::watch(server.handle().stopped(), runtime).context("starting a thread")?;
    let reason = tokio::select! {
        reason = server.stopped() => reason,
        name = signals.next_but_reloads(&server) => {
            tracing::info!(signal = name, "draining; a second signal stops at once");
            notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
            last_resort::within(server.handle().drain_patience()).context("starting a thread")?;
            tokio::spawn(async move {
                let name = signals.next().await;
                eprintln!("{name} again: stopped without draining");
                std::process::exit(EXIT_IMPATIENT);
            });
            StopReason::Requested
        }
    };
    let ended = server.shutdown().await;
    // What stopped it comes before what was noticed while it stopped.
    let reason = if reason == StopReason::Requested { ended } else { reason };
    tell(&reason);
    Ok(ExitCode::from(u8::try_from(exit_code(&reason)).expect("exit codes are small")))
}

/// Tells systemd, if that started this process and wants to know.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told how this node is");
    }
}

/// The last words.
fn tell(reason: &StopReason) {
    let words = match reason {
        StopReason::Requested => {
            tracing::info!("stopped");
            return;
        }
        StopReason::Removed => "this node was removed from its cluster and has stopped; to use it \
                                again, give it an empty data directory and --join"
            .to_owned(),
        StopReason::Program(why) | StopReason::Failed(why) | StopReason::Outdated(why) => {
            format!("error: this node stopped: {why}")
        }
    };
    // Nobody is left to tell when stderr is gone; the exit code still says it.
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Whether a server did not start because of what it was told, before it tried anything.
pub(super) fn is_wrong_usage(error: &anyhow::Error) -> bool {
    let of_start = error.downcast_ref::<ServeError>().is_some_and(|error| {
        matches!(
            error,
            ServeError::Config(_) | ServeError::PluginAndJoin | ServeError::NothingToStart { .. }
        )
    });
    of_start || error.is::<ConfigError>() || error.is::<logging::BadFilter>()
}

/// Says what runs where, and what to type next.
fn announce(server: &RunningServer) {
    let identity = server.identity();
    let began = match server.began() {
        Began::Formed => "formed a new cluster",
        Began::Joined => "joined the cluster",
        Began::Restarted => "is back in its cluster",
    };
    let machine = server.handle().machine().borrow().clone();
    let active = machine.as_ref().and_then(|view| view.info.active.as_ref());
    let plugin = match active {
        Some(active) => format!("{} ({})", active.label, active.hash.short()),
        None => "comes from the cluster".to_owned(),
    };
    let endpoint = if identity.address == crate::config::DEFAULT_LISTEN {
        String::new()
    } else {
        format!(" --endpoint {}", identity.address)
    };
    let metrics = match server.metrics_address() {
        Some(address) => {
            let scheme = if server.speaks_tls() { "https" } else { "http" };
            format!("\n  metrics   {scheme}://{address}/metrics")
        }
        None => String::new(),
    };
    eprintln!(
        "\n  node {} {began}\n\n  cluster   {}\n  address   {}\n  plugin    {plugin}\n  data      \
         {}{metrics}\n\n  send a command:  raft-host apply{endpoint} COMMAND\n  add a node:      raft-host \
         --join {} --data-dir DIR --listen HOST:PORT\n",
        identity.node,
        identity.cluster,
        identity.address,
        server.place(),
        identity.address,
    );
}

const HANGUP: &str = "SIGHUP";

/// SIGTERM, SIGINT and SIGHUP: the end of a terminal is no reason to drop what is in flight.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// The next one that ends a server. Where TLS is spoken, SIGHUP has its files read again instead.
    async fn next_but_reloads(&mut self, server: &RunningServer) -> &'static str {
        loop {
            match self.next().await {
                HANGUP if server.speaks_tls() => {
                    server.reopen_audit();
                    server.reload_tls().await;
                }
                name => return name,
            }
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => HANGUP,
        }
    }
}
