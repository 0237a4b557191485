//! Ends the process when its orderly end does not come.
//!
//! A thread of its own, which needs neither the runtime nor a lock of anybody: whatever the others
//! are stuck in (a write that never returns, a guest, a lock), what has been decided to stop stops.

use std::process::exit;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::exit_code;
use crate::node::StopReason;
use crate::server::SHUTDOWN_GRACE;

/// Longer than an orderly end takes.
const PATIENCE: Duration = Duration::from_secs(2).saturating_add(SHUTDOWN_GRACE);

/// Watches a node: when it has stopped by itself and the process is still there some seconds later,
/// the process ends as it would have ended.
pub(super) fn watch(
    mut stopped: watch::Receiver<Option<StopReason>>,
    runtime: Handle,
) -> std::io::Result<()> {
    spawn(move || {
        let reason = match runtime.block_on(stopped.wait_for(Option::is_some)) {
            Ok(reason) => reason.clone().expect("waited for"),
            // The node has ended in order.
            Err(_) => return,
        };
        std::thread::sleep(PATIENCE);
        if reason != StopReason::Requested {
            end(&reason);
        }
    })
}

/// Ends the process after `drain` and some seconds, as one that could not end in order.
pub(super) fn within(drain: Duration) -> std::io::Result<()> {
    spawn(move || {
        std::thread::sleep(drain.saturating_add(PATIENCE));
        end(&StopReason::Failed("it was asked to stop and could not end in order".to_owned()));
    })
}

fn end(reason: &StopReason) -> ! {
    super::tell(reason);
    exit(exit_code(reason));
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("last-resort".into()).spawn(work).map(drop)
}
