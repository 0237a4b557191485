//! Says when somebody has changed the project.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::files::Files;
use crate::project::Project;

/// An editor writes a file in several steps: nothing must happen for so long.
const QUIET: Duration = Duration::from_millis(60);
/// Whatever happens, it is looked at after so long.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// How soon the thread notices that nobody listens any more.
const POLL: Duration = Duration::from_millis(250);

/// Watches from now on: the first message comes with the first change after this returns, and
/// says when it was seen. `except` is not watched.
pub(super) fn watch(project: Project, except: PathBuf) -> anyhow::Result<mpsc::Receiver<Instant>> {
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
    // A folder that cannot be watched is not worth ending for, the project's own is.
    watcher.watch(&project.dir, RecursiveMode::NonRecursive).context("watching the project")?;
    let mut unseen = HashSet::new();
    let mut follow = move |files: &Files| {
        for folder in &files.folders {
            // Once more if it is watched already: another folder may have its name now.
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
                && unseen.insert(folder.clone())
            {
                tracing::warn!(folder = %folder.display(), %error, "changes there are not seen");
            }
        }
    };
    // Looked at after it is watched: what comes between is seen twice, and not never.
    let mut look = move || {
        follow(&Files::of(&project, &except));
        Files::of(&project, &except).fingerprint()
    };
    let mut seen = look();
    let run = move || {
        while !changed.is_closed() {
            match events.recv_timeout(POLL) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let begun = Instant::now();
            while begun.elapsed() < QUIET_MAX && events.recv_timeout(QUIET).is_ok() {}
            let now = look();
            if now != seen {
                seen = now;
                // Full: a build is due already.
                let _ = changed.try_send(begun);
            }
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(run).context("watching the project")?;
    Ok(receiver)
}
