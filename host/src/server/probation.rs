//! The first minutes of a cluster that was just formed.
//!
//! A node that lost its data and is started with the command line that once formed its cluster forms a
//! second one on the old address. The members of the first one dial it, within seconds if they run; the
//! node then serves nobody until a person confirms the new cluster ([`NodeHandle::begin_probation`]).
//! What it heard is kept in the intent, so that a restart does not forget it.
//!
//! Probation ends with a confirmation, when another node has become a member, or after
//! [`PROBATION`] without such a call: from then on the cluster is established, and nobody can stop it
//! by dialling.

use std::sync::Weak;
use std::time::Duration;

use super::ServeError;
use super::home::Home;
use super::intent::Intent;
use crate::node::NodeHandle;

/// How long a new cluster's node must run without being dialled by another cluster's member. Those
/// look for their peers every few seconds; those that are restarted one after another take minutes.
const PROBATION: Duration = Duration::from_secs(600);

/// Sees a new cluster through it.
pub(super) async fn see_through(handle: NodeHandle, home: Weak<Home>) {
    let mut stopped = handle.stopped();
    tokio::select! {
        _ = stopped.wait_for(Option::is_some) => {}
        ended = until_over(&handle, &home, PROBATION) => if let Err(error) = ended {
            // The node goes on as it is; the next start begins with what is written down.
            tracing::warn!(%error, "what this start has left to do was not written down");
        },
    }
}

async fn until_over(
    handle: &NodeHandle,
    home: &Weak<Home>,
    probation: Duration,
) -> Result<(), ServeError> {
    let (mut rivals, mut machine) = (handle.rivals(), handle.machine());
    let mut over = std::pin::pin!(tokio::time::sleep(probation));
    let mut is_written = false;
    loop {
        let status = rivals.borrow_and_update().clone();
        if !status.is_on_probation {
            return write(home, Home::intent_done).await;
        }
        if let Some(rival) = status.disputed_by {
            if !is_written {
                let intent = Intent::Settle { disputed_by: Some(rival) };
                write(home, move |home| home.intend(&intent)).await?;
                is_written = true;
            }
            if rivals.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        let me = handle.identity().node;
        let has_company = machine.wait_for(|view| {
            view.as_ref().is_some_and(|view| view.members.keys().any(|member| *member != me))
        });
        tokio::select! {
            // Dropping what is heard at the same moment would be dropping it for good.
            biased;
            changed = rivals.changed() => if changed.is_err() {
                return Ok(());
            },
            company = has_company => {
                if company.is_err() {
                    return Ok(());
                }
                handle.end_probation();
            }
            () = &mut over => handle.end_probation(),
        }
    }
}

async fn write(
    home: &Weak<Home>,
    deed: impl FnOnce(&Home) -> Result<(), ServeError> + Send + 'static,
) -> Result<(), ServeError> {
    // Without it the server is gone, and the directory may be another process's.
    let Some(home) = Weak::upgrade(home) else { return Ok(()) };
    tokio::task::spawn_blocking(move || deed(&home)).await?
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::server::home::EmptyHome;
    use crate::server::{RunningServer, Startup, start};
    use crate::types::{ClusterId, NodeId, Rival};

    /// A node without company, in memory.
    async fn node() -> RunningServer {
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            storage_engine: Some("memory".parse().expect("there is one")),
            ..Config::default()
        };
        let plugin = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/counter/counter.wasm");
        let startup = Startup { plugin: Some(plugin.into()), ..Startup::default() };
        start(config, startup).await.expect("it starts")
    }

    /// A directory in which a cluster was formed.
    fn home(dir: &Path) -> Arc<Home> {
        let config = Config { data_dir: dir.to_owned(), ..Config::default() };
        let empty = EmptyHome::lock(&config).expect("nobody has it");
        let settle = Intent::Settle { disputed_by: None };
        let made = empty.initialize(&config, &settle, ClusterId([1; 16]), NodeId(1));
        Arc::new(made.expect("it is empty"))
    }

    fn read(dir: &Path) -> Option<Intent> {
        Intent::peek(dir).expect("readable")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_cluster_that_nobody_disputes_is_established_after_a_while() {
        let (server, dir) = (node().await, tempfile::tempdir().expect("a directory"));
        let (handle, home) = (server.handle(), home(dir.path()));
        assert!(handle.rivals().borrow().is_on_probation, "a start that forms begins with it");
        assert_eq!(read(dir.path()), Some(Intent::Settle { disputed_by: None }));
        until_over(&handle, &Arc::downgrade(&home), Duration::ZERO).await.expect("it writes");
        assert!(!handle.rivals().borrow().is_on_probation);
        assert_eq!(read(dir.path()), None);
        server.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dispute_is_kept_on_the_disk_until_a_person_ends_it() {
        let (server, dir) = (node().await, tempfile::tempdir().expect("a directory"));
        let (handle, home) = (server.handle(), home(dir.path()));
        let rival = Rival {
            cluster: ClusterId([9; 16]),
            node: NodeId(2),
            address: "127.0.0.1:1".to_owned(),
            dialled: "127.0.0.1:2".to_owned(),
        };
        handle.begin_probation(Some(rival.clone()));
        let weak = Arc::downgrade(&home);
        let seeing = handle.clone();
        // However long it takes.
        let seen = tokio::spawn(async move { until_over(&seeing, &weak, Duration::ZERO).await });
        let disputed = Some(Intent::Settle { disputed_by: Some(rival) });
        let written = async {
            while read(dir.path()) != disputed {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("it is written");
        assert!(handle.is_unconfirmed() && !seen.is_finished());
        handle.end_probation();
        seen.await.expect("no panic").expect("it writes");
        assert_eq!(read(dir.path()), None);
        server.shutdown().await;
    }
}
