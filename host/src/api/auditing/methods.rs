//! What of each method's calls is noted. A method that is missing fails a test.

/// What is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audited {
    /// Every call: it changes something, or takes data out.
    Always,
    /// Calls that were refused because of who asks, or how often.
    Refusals,
    /// These, and each command where the configuration says so.
    Commands,
}

/// A method and what its events are called.
#[derive(Debug)]
pub(super) struct Method {
    /// `package.Service/Method`.
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    pub(super) audited: Audited,
}

impl Method {
    /// Without the package.
    pub(super) fn name(&self) -> &'static str {
        let service = self.path.find('/').and_then(|slash| self.path[..slash].rfind('.'));
        service.map_or(self.path, |dot| &self.path[dot + 1..])
    }

    /// By the path of a request.
    pub(super) fn of(path: &str) -> &'static Method {
        let path = path.strip_prefix('/').unwrap_or(path);
        METHODS.iter().find(|method| method.path == path).unwrap_or(&UNKNOWN)
    }
}

const fn always(path: &'static str, kind: &'static str) -> Method {
    Method { path, kind, audited: Audited::Always }
}

const fn refusals(path: &'static str) -> Method {
    Method { path, kind: "", audited: Audited::Refusals }
}

const fn commands(path: &'static str) -> Method {
    Method { path, kind: "command", audited: Audited::Commands }
}

/// What nobody serves.
static UNKNOWN: Method = refusals("other");

/// Those that are called most come first.
static METHODS: [Method; 56] = [
    commands("raft_host.v1.Client/Apply"),
    refusals("raft_host.v1.Client/Query"),
    commands("raft_host.v1.Client/ApplyStream"),
    refusals("raft_host.v1.Client/QueryStream"),
    refusals("raft_host.v1.Client/Cluster"),
    refusals("raft_host.v1.Client/OpenSession"),
    refusals("raft_host.v1.Client/KeepSession"),
    refusals("raft_host.v1.Client/CloseSession"),
    refusals("raft_host.v1.Client/Watch"),
    refusals("raft_host.v1.Admin/Status"),
    refusals("raft_host.v1.Admin/Members"),
    always("raft_host.v1.Admin/AddMember", "members.add"),
    always("raft_host.v1.Admin/PromoteMember", "members.promote"),
    always("raft_host.v1.Admin/RemoveMember", "members.remove"),
    always("raft_host.v1.Admin/DemoteMember", "members.demote"),
    always("raft_host.v1.Admin/ReplaceMember", "members.replace"),
    always("raft_host.v1.Admin/TransferLeadership", "members.lead"),
    always("raft_host.v1.Admin/Drain", "members.drain"),
    always("raft_host.v1.Admin/Upgrade", "modules.activate"),
    always("raft_host.v1.Admin/StageModule", "modules.stage"),
    always("raft_host.v1.Admin/Rehearse", "modules.rehearse"),
    always("raft_host.v1.Admin/Shadow", "modules.shadow"),
    always("raft_host.v1.Admin/QueryAt", "query.at"),
    always("raft_host.v1.Admin/Activate", "modules.activate"),
    always("raft_host.v1.Admin/ConfirmUpgrade", "modules.confirm"),
    refusals("raft_host.v1.Admin/Modules"),
    refusals("raft_host.v1.Admin/Limits"),
    always("raft_host.v1.Admin/SetLimits", "limits.set"),
    refusals("raft_host.v1.Admin/Access"),
    always("raft_host.v1.Admin/SetAccess", "rights.set"),
    always("raft_host.v1.Admin/CreateToken", "rights.token"),
    always("raft_host.v1.Admin/CreateJoinToken", "members.token"),
    always("raft_host.v1.Admin/RevokeJoinToken", "members.token"),
    refusals("raft_host.v1.Admin/WhoAmI"),
    refusals("raft_host.v1.Admin/Keys"),
    always("raft_host.v1.Admin/SetKeys", "keys.set"),
    always("raft_host.v1.Admin/SetEngine", "engine.set"),
    always("raft_host.v1.Admin/RaiseLevel", "level.raise"),
    always("raft_host.v1.Admin/TakeSnapshot", "snapshot.take"),
    always("raft_host.v1.Admin/Backup", "backup.save"),
    always("raft_host.v1.Admin/Export", "backup.export"),
    always("raft_host.v1.Admin/SetClock", "clock.set"),
    refusals("raft_host.v1.Admin/Digest"),
    always("raft_host.v1.Admin/Confirm", "cluster.confirm"),
    always("raft_host.peer.v1.Membership/Join", "members.join"),
    always("raft_host.peer.v1.Membership/Move", "members.move"),
    always("raft_host.peer.v1.Membership/Admit", "members.admit"),
    always("raft_host.peer.v1.Enrollment/Enroll", "members.enroll"),
    refusals("raft_host.peer.v1.Membership/Prepared"),
    refusals("raft_host.peer.v1.Peer/Messages"),
    refusals("raft_host.peer.v1.Peer/OfferSnapshot"),
    refusals("raft_host.peer.v1.Peer/Snapshot"),
    refusals("grpc.health.v1.Health/Check"),
    refusals("grpc.health.v1.Health/Watch"),
    refusals("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    refusals("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use raft_host_proto::ALL_DESCRIPTORS;
    use tonic_reflection::pb::{v1, v1alpha};

    use super::*;

    fn served() -> BTreeSet<String> {
        let sets = [
            ALL_DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            v1::FILE_DESCRIPTOR_SET,
            v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut served = BTreeSet::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).expect("made by a build").file {
                for service in &file.service {
                    for method in &service.method {
                        let service = format!("{}.{}", file.package(), service.name());
                        served.insert(format!("{service}/{}", method.name()));
                    }
                }
            }
        }
        served
    }

    #[test]
    fn every_method_has_its_place() {
        let listed: BTreeSet<String> =
            METHODS.iter().map(|method| method.path.to_owned()).collect();
        assert_eq!(listed.len(), METHODS.len(), "each once");
        assert_eq!(served(), listed);
    }

    #[test]
    fn methods_are_found_by_the_path_of_a_request() {
        let method = Method::of("/raft_host.v1.Admin/RemoveMember");
        assert_eq!((method.kind, method.name()), ("members.remove", "Admin/RemoveMember"));
        assert_eq!(Method::of("/x").name(), "other");
        let named = METHODS.iter().filter(|method| method.audited == Audited::Always);
        assert!(named.clone().count() > 10 && named.clone().all(|method| !method.kind.is_empty()));
    }
}
