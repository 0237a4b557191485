//! `grpc.health.v1`: whether clients should send requests to this node, and whether its process works.

use std::time::Duration;

use raft_host_proto::v1::{admin_server, client_server};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::node::{Check, NodeHandle};

/// The service that stands for the process, as `/livez` does: no service has its name.
pub(super) const LIVENESS: &str = "liveness";
/// The one that stands for what `/readyz` says, as the empty name does.
const READINESS: &str = "readiness";
/// How often it is looked at whether the process works.
const LOOK: Duration = Duration::from_secs(2);
/// How long the event loop may take to answer before the process counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the main group is called among services: its name, which no service has.
const MAIN_GROUP_SERVICE: &str = "group/main";

/// Before anybody asks.
pub(super) async fn begin(reporter: &HealthReporter, handle: &NodeHandle) {
    reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
    set(reporter, handle.is_serving()).await;
}

/// Whether the process works. It does without a leader, a majority, or a disk that answers: to start it
/// again would mend none of these.
pub(super) async fn liveness(handle: &NodeHandle) -> Check {
    let answered = tokio::time::timeout(PATIENCE, handle.status()).await;
    let failure = match answered {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some("this node has stopped; its log says why"),
        Err(_) => Some("the event loop does not answer"),
    };
    Check { name: "event-loop", failure }
}

/// Keeps the reported liveness up to date, until the node has stopped.
pub(super) async fn report_life(reporter: &HealthReporter, handle: &NodeHandle) {
    let mut stopped = handle.stopped();
    let mut reported = true;
    while stopped.borrow().is_none() {
        let works = liveness(handle).await.failure.is_none();
        if works != std::mem::replace(&mut reported, works) {
            let status = if works { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status(LIVENESS, status).await;
        }
        // Out of patience: time to look again.
        let _ = tokio::time::timeout(LOOK, stopped.wait_for(Option::is_some)).await;
    }
    reporter.set_service_status(LIVENESS, ServingStatus::NotServing).await;
}

/// Keeps the reported health up to date, for as long as it is polled.
pub(super) async fn report(reporter: &HealthReporter, handle: &NodeHandle) {
    let mut leadership = handle.leadership();
    let mut machine = handle.machine();
    let mut draining = handle.watch_draining();
    let mut off_duty = handle.watch_off_duty();
    let mut stopped = handle.stopped();
    let mut digests = handle.digests();
    let mut stuck = handle.stuck_write();
    let mut disk = handle.watch_disk();
    let mut expelled = handle.expelled();
    let mut rivals = handle.rivals();
    let mut reported = None;
    loop {
        leadership.mark_unchanged();
        machine.mark_unchanged();
        draining.mark_unchanged();
        off_duty.mark_unchanged();
        stopped.mark_unchanged();
        digests.mark_unchanged();
        stuck.mark_unchanged();
        disk.mark_unchanged();
        expelled.mark_unchanged();
        rivals.mark_unchanged();
        let serving = handle.is_serving();
        if reported != Some(serving) {
            reported = Some(serving);
            set(reporter, serving).await;
        }
        // The machine's view changes with every batch; it matters only until there is one.
        let has_machine = machine.borrow().is_some();
        tokio::select! {
            Ok(()) = leadership.changed() => {}
            Ok(()) = machine.changed(), if !has_machine => {}
            Ok(()) = draining.changed() => {}
            Ok(()) = off_duty.changed() => {}
            Ok(()) = stopped.changed() => {}
            Ok(()) = digests.changed() => {}
            Ok(()) = stuck.changed() => {}
            Ok(()) = disk.changed() => {}
            Ok(()) = expelled.changed() => {}
            Ok(()) = rivals.changed() => {}
            // The node is gone.
            else => return set(reporter, false).await,
        }
    }
}

async fn set(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    let services = [client_server::SERVICE_NAME, admin_server::SERVICE_NAME];
    for name in ["", READINESS, MAIN_GROUP_SERVICE].into_iter().chain(services) {
        reporter.set_service_status(name, status).await;
    }
}
