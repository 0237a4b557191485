//! What each method asks of who calls it. `host/docs/security.md` has the same table for people, and a test
//! compares the two, and another one every method of every service with this.

use crate::types::Right;

/// What a method asks of who calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Nothing beyond what the connection asks.
    Nothing,
    /// To be known: by a certificate, a token, or the Unix socket.
    Identity,
    /// A right.
    Right(Right),
    /// To be a node of the cluster.
    Node,
}

/// By path, ascending.
const METHODS: [(&str, Asks); 61] = [
    ("/grpc.health.v1.Health/Check", Asks::Nothing),
    ("/grpc.health.v1.Health/Watch", Asks::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Asks::Identity),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Asks::Identity),
    ("/raft_host.peer.v1.Enrollment/Enroll", Asks::Nothing),
    ("/raft_host.peer.v1.Membership/Admit", Asks::Node),
    ("/raft_host.peer.v1.Membership/Join", Asks::Node),
    ("/raft_host.peer.v1.Membership/Move", Asks::Node),
    ("/raft_host.peer.v1.Membership/Prepared", Asks::Node),
    ("/raft_host.peer.v1.Peer/Messages", Asks::Node),
    ("/raft_host.peer.v1.Peer/OfferSnapshot", Asks::Node),
    ("/raft_host.peer.v1.Peer/Snapshot", Asks::Node),
    ("/raft_host.v1.Admin/Access", Asks::Right(Right::Rights)),
    ("/raft_host.v1.Admin/Activate", Asks::Right(Right::Upgrade)),
    ("/raft_host.v1.Admin/AddMember", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/Backup", Asks::Right(Right::Backup)),
    ("/raft_host.v1.Admin/Confirm", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/ConfirmUpgrade", Asks::Right(Right::Upgrade)),
    ("/raft_host.v1.Admin/CreateJoinToken", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/CreateToken", Asks::Right(Right::Rights)),
    ("/raft_host.v1.Admin/DemoteMember", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/Digest", Asks::Right(Right::Snapshot)),
    ("/raft_host.v1.Admin/Drain", Asks::Right(Right::Drain)),
    ("/raft_host.v1.Admin/Export", Asks::Right(Right::Backup)),
    ("/raft_host.v1.Admin/Keys", Asks::Right(Right::Status)),
    ("/raft_host.v1.Admin/Limits", Asks::Right(Right::Status)),
    ("/raft_host.v1.Admin/Members", Asks::Right(Right::Status)),
    ("/raft_host.v1.Admin/Modules", Asks::Right(Right::Status)),
    ("/raft_host.v1.Admin/PromoteMember", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/QueryAt", Asks::Right(Right::Backup)),
    ("/raft_host.v1.Admin/RaiseLevel", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/Rehearse", Asks::Right(Right::Upgrade)),
    ("/raft_host.v1.Admin/RemoveMember", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/ReplaceMember", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/RevokeJoinToken", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/SetAccess", Asks::Right(Right::Rights)),
    ("/raft_host.v1.Admin/SetClock", Asks::Right(Right::Limits)),
    ("/raft_host.v1.Admin/SetEngine", Asks::Right(Right::Limits)),
    ("/raft_host.v1.Admin/SetKeys", Asks::Right(Right::Keys)),
    ("/raft_host.v1.Admin/SetLimits", Asks::Right(Right::Limits)),
    ("/raft_host.v1.Admin/Shadow", Asks::Right(Right::Upgrade)),
    ("/raft_host.v1.Admin/StageModule", Asks::Right(Right::Upgrade)),
    ("/raft_host.v1.Admin/Status", Asks::Right(Right::Status)),
    ("/raft_host.v1.Admin/TakeSnapshot", Asks::Right(Right::Snapshot)),
    ("/raft_host.v1.Admin/TransferLeadership", Asks::Right(Right::Members)),
    ("/raft_host.v1.Admin/Upgrade", Asks::Right(Right::Upgrade)),
    ("/raft_host.v1.Admin/WhoAmI", Asks::Identity),
    ("/raft_host.v1.Client/Apply", Asks::Right(Right::Apply)),
    ("/raft_host.v1.Client/ApplyStream", Asks::Right(Right::Apply)),
    ("/raft_host.v1.Client/CloseSession", Asks::Right(Right::Apply)),
    ("/raft_host.v1.Client/Cluster", Asks::Identity),
    ("/raft_host.v1.Client/KeepSession", Asks::Right(Right::Apply)),
    ("/raft_host.v1.Client/OpenSession", Asks::Right(Right::Apply)),
    ("/raft_host.v1.Client/Query", Asks::Right(Right::Query)),
    ("/raft_host.v1.Client/QueryStream", Asks::Right(Right::Query)),
    ("/raft_host.v1.Client/Watch", Asks::Right(Right::Query)),
    // Of the port for HTTP.
    ("/health", Asks::Nothing),
    ("/healthz", Asks::Nothing),
    ("/livez", Asks::Nothing),
    ("/metrics", Asks::Right(Right::Metrics)),
    ("/readyz", Asks::Nothing),
];

/// What a method or a page asks; `None`: nobody serves it.
pub(super) fn asked_by(path: &str) -> Option<Asks> {
    METHODS.iter().find(|(known, _)| *known == path).map(|(_, asks)| *asks)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use raft_host_proto::ALL_DESCRIPTORS;

    use super::*;

    #[test]
    fn every_method_of_every_service_has_a_row_and_no_row_is_of_another() {
        let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
        let mut served: Vec<String> = [ALL_DESCRIPTORS, health]
            .into_iter()
            .flat_map(|set| FileDescriptorSet::decode(set).expect("descriptors").file)
            .flat_map(|file| {
                let package = file.package().to_owned();
                file.service.into_iter().map(move |service| (package.clone(), service))
            })
            .flat_map(|(package, service)| {
                let name = format!("/{package}.{}", service.name());
                service.method.into_iter().map(move |method| format!("{name}/{}", method.name()))
            })
            .collect();
        served.sort();
        served.dedup();
        let is_listed =
            |path: &&str| path.matches('/').count() == 2 && !path.contains("reflection");
        let listed: Vec<&str> = METHODS.iter().map(|(path, _)| *path).filter(is_listed).collect();
        assert_eq!(listed, served);
    }
}
