//! `grpc.health.v1`: whether clients should send requests to this node.

use raft_host_proto::v1::{admin_server, client_server};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::node::NodeHandle;

/// What the main group is called among services: its name, which no service has.
const MAIN_GROUP_SERVICE: &str = "group/main";

/// Keeps the reported health up to date, for as long as it is polled.
pub(super) async fn report(reporter: HealthReporter, handle: NodeHandle) {
    let mut leadership = handle.leadership();
    let mut machine = handle.machine();
    let mut draining = handle.watch_draining();
    let mut off_duty = handle.watch_off_duty();
    let mut stopped = handle.stopped();
    let mut digests = handle.digests();
    let mut stuck = handle.stuck_write();
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
        expelled.mark_unchanged();
        rivals.mark_unchanged();
        let serving = handle.is_serving();
        if reported != Some(serving) {
            reported = Some(serving);
            set(&reporter, serving).await;
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
            Ok(()) = expelled.changed() => {}
            Ok(()) = rivals.changed() => {}
            // The node is gone.
            else => return set(&reporter, false).await,
        }
    }
}

async fn set(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in ["", client_server::SERVICE_NAME, admin_server::SERVICE_NAME, MAIN_GROUP_SERVICE] {
        reporter.set_service_status(name, status).await;
    }
}
