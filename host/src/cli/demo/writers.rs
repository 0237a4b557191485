//! The load: clients that write without pause and remember every acknowledgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use raft_host_proto::client::{Client, Session};
use raft_host_proto::v1;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Each waits for one answer before it sends the next command.
const WRITERS: usize = 16;
/// Every so many commands one is a compare-and-swap on the writer's own counter: executed
/// twice it would fail, lost it would make the next one fail.
const CHAIN_EVERY: u64 = 4;

/// Writers at work.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    tasks: JoinSet<anyhow::Result<Written>>,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Key and value of everything that must be there.
    pub(super) entries: BTreeMap<String, String>,
    /// Commands acknowledged.
    pub(super) commands: u64,
    /// The longest that a writer waited for one answer.
    pub(super) longest_wait: Duration,
}

impl Writers {
    /// Starts them; `name` keeps their keys apart from those of others.
    pub(super) fn start(client: &Client, name: &str) -> Writers {
        let (stop, progress) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, stop, progress) =
                (client.clone(), Arc::clone(&stop), Arc::clone(&progress));
            let prefix = format!("{name}/{writer:02}");
            tasks.spawn(async move { write(client, prefix, &stop, &progress).await });
        }
        Writers { stop, progress, tasks }
    }

    /// Waits until so many commands have been acknowledged since the start.
    pub(super) async fn reach(&mut self, commands: u64) -> anyhow::Result<()> {
        while self.progress.load(Ordering::Relaxed) < commands {
            if let Some(ended) = self.tasks.try_join_next() {
                ended.context("a writer broke")??;
                bail!("a writer ended early");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Commands acknowledged so far.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Lets every writer finish its command, and collects.
    pub(super) async fn finish(mut self) -> anyhow::Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        while let Some(ended) = self.tasks.join_next().await {
            let written = ended.context("a writer broke")??;
            all.entries.extend(written.entries);
            all.commands += written.commands;
            all.longest_wait = all.longest_wait.max(written.longest_wait);
        }
        Ok(all)
    }
}

async fn write(
    client: Client,
    prefix: String,
    stop: &AtomicBool,
    progress: &AtomicU64,
) -> anyhow::Result<Written> {
    let session = client.open_session(None).await.context("opening a session")?;
    let mut written = Written::default();
    let (counter, mut count) = (format!("{prefix}/counter"), 0_u64);
    for n in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let before = Instant::now();
        let (key, value) = if n % CHAIN_EVERY == 0 {
            let expected = (count > 0).then(|| count.to_string());
            count += 1;
            let value = count.to_string();
            let command = json!({
                "op": "cas", "key": counter, "expected": expected, "value": value,
            });
            apply(&session, &command).await?;
            (counter.clone(), value)
        } else {
            let (key, value) = (format!("{prefix}/{n:06}"), format!("value {n} of {prefix}"));
            apply(&session, &json!({ "op": "set", "key": key, "value": value })).await?;
            (key, value)
        };
        written.longest_wait = written.longest_wait.max(before.elapsed());
        written.commands += 1;
        written.entries.insert(key, value);
        progress.fetch_add(1, Ordering::Relaxed);
    }
    // It expires by itself if this fails.
    let _ = session.close().await;
    Ok(written)
}

/// Applies one command exactly once and checks that it did what it says.
pub(super) async fn apply(session: &Session, command: &serde_json::Value) -> anyhow::Result<()> {
    let answer = session.apply(command.to_string()).await.context("a command failed")?;
    let outcome = answer.outcome.and_then(|outcome| outcome.kind);
    match outcome {
        Some(v1::outcome::Kind::Ok(bytes)) => {
            let answer: serde_json::Value =
                serde_json::from_slice(&bytes).context("reading an answer")?;
            if answer["ok"] != true {
                bail!("{command} was answered {answer}: a command was lost or ran twice");
            }
            Ok(())
        }
        other => bail!("{command} was answered {other:?}"),
    }
}
