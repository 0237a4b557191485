//! Says when somebody has changed the project.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::files::Files;

/// An editor writes a file in several steps: nothing must happen for so long.
const QUIET: Duration = Duration::from_millis(60);
/// Whatever happens, it is looked at after so long.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// How soon the thread notices that nobody listens any more.
const POLL: Duration = Duration::from_millis(250);

/// Watches from now on: the first message comes with the first change after this returns.
pub(super) fn watch(dir: PathBuf) -> anyhow::Result<mpsc::Receiver<()>> {
    let (changed, receiver) = mpsc::channel(1);
    // What happened does not matter, only that something did: one place is enough.
    let (happened, events) = sync_channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_))) {
            // Full: somebody is told already.
            let _ = happened.try_send(());
        }
    })
    .context("watching the project")?;
    let files = Files::of(&dir);
    let mut watched = HashSet::new();
    // A folder that cannot be watched is not worth ending for, the project's own is.
    watcher.watch(&dir, RecursiveMode::NonRecursive).context("watching the project")?;
    let mut follow = move |files: &Files| {
        for folder in &files.folders {
            if watched.insert(folder.clone())
                && let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
            {
                tracing::warn!(folder = %folder.display(), %error, "changes there are not seen");
            }
        }
        watched.retain(|folder| files.folders.contains(folder));
    };
    follow(&files);
    let mut seen = files.fingerprint();
    let run = move || {
        while !changed.is_closed() {
            match events.recv_timeout(POLL) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let begun = Instant::now();
            while begun.elapsed() < QUIET_MAX && events.recv_timeout(QUIET).is_ok() {}
            let files = Files::of(&dir);
            follow(&files);
            let now = files.fingerprint();
            if now != seen {
                seen = now;
                // Full: a build is due already.
                let _ = changed.try_send(());
            }
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(run).context("watching the project")?;
    Ok(receiver)
}
