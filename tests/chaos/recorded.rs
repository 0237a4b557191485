//! Clients at work while somebody else does something to the cluster, and what their history says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::workload::{Recorder, Worker, client};
use crate::history::checker;

/// Clients that read, write, compare and count, each in a session, and write down what they were told.
pub struct RecordedClients {
    recorder: Arc<Recorder>,
    stop: watch::Sender<bool>,
    workers: JoinSet<anyhow::Result<()>>,
}

/// What they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Operations of all kinds.
    pub operations: usize,
    /// Those of which nobody knows what became.
    pub unknown: usize,
}

impl RecordedClients {
    /// Lets `clients` of them work on these nodes. The history goes into a file.
    ///
    /// # Errors
    /// When the file cannot be made. Must be called on a runtime.
    pub fn start(
        addresses: &[SocketAddr],
        clients: usize,
        history: &Path,
    ) -> anyhow::Result<RecordedClients> {
        let recorder = Arc::new(Recorder::new(history, Instant::now())?);
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for at in 0..clients {
            let client = client(addresses, at, None)?;
            let worker = Worker::new(&recorder, client, at as u64, Duration::from_millis(20));
            workers.spawn(worker.run(stopped.clone()));
        }
        Ok(RecordedClients { recorder, stop, workers })
    }

    /// Answered operations so far.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub fn operations(&self) -> anyhow::Result<usize> {
        Ok(self.recorder.history()?.len())
    }

    /// Lets them end, and judges what they saw.
    ///
    /// # Errors
    /// What no correct store could have shown them.
    pub async fn finish(mut self) -> anyhow::Result<Recorded> {
        self.stop.send_replace(true);
        while let Some(ended) = self.workers.join_next().await {
            ended??;
        }
        let history = self.recorder.history()?;
        let anomalies = self.recorder.anomalies();
        anyhow::ensure!(anomalies.is_empty(), "{anomalies:?}");
        checker::check(&history).map_err(|violation| anyhow::anyhow!("{violation}"))?;
        let unknown = |operation: &&crate::history::Operation| {
            operation.outcome == crate::history::Outcome::Unknown
        };
        Ok(Recorded { operations: history.len(), unknown: history.iter().filter(unknown).count() })
    }
}
