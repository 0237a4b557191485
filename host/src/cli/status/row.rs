//! What is known of one node, as a row of the table and as JSON.

use std::time::Duration;

use raft_host_proto::v1;
use raft_host_proto::v1::member_info::Kind;
use serde_json::{Value, json};

use super::json::{
    backup_to_json, disk_to_json, group_to_json, rival_to_json, role_name, scrub_to_json,
    tls_to_json,
};
use crate::cli::members::kind_name;
use crate::cli::output::{hex, human_bytes, human_duration, short_hash};

pub(super) const HEADERS: [&str; 12] = [
    "node", "address", "role", "leader", "term", "commit", "applied", "snapshot", "module", "data",
    "memory", "up",
];

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeRow {
    /// Where it was asked.
    pub(super) address: String,
    /// As its cluster lists it; `None` when only the endpoint was given.
    pub(super) member: Option<v1::MemberInfo>,
    /// Its own words, or why there are none.
    pub(super) status: Result<v1::StatusResponse, String>,
}

impl NodeRow {
    /// What the node says of the main group.
    pub(super) fn group(&self) -> Option<&v1::GroupStatus> {
        self.status.as_ref().ok()?.group("")
    }

    pub(super) fn id(&self) -> u64 {
        match (&self.status, &self.member) {
            (Ok(status), _) => status.node_id,
            (Err(_), Some(member)) => member.node_id,
            (Err(_), None) => 0,
        }
    }

    /// `leader`, `follower`, `learner` …: what it does, unless it is no voter.
    pub(super) fn role(&self) -> String {
        let kind = self.member.as_ref().map(v1::MemberInfo::kind);
        match (&self.status, self.group().map(v1::GroupStatus::role)) {
            (Err(_), _) => "unreachable".to_owned(),
            (Ok(_), Some(v1::Role::Follower)) if kind == Some(Kind::Learner) => {
                "learner".to_owned()
            }
            (Ok(_), role) => role_name(role.unwrap_or_default()).to_owned(),
        }
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let id = match self.id() {
            0 => "-".to_owned(),
            id => id.to_string(),
        };
        let (Ok(status), Some(group)) = (&self.status, self.group()) else {
            let mut cells = vec![id, self.address.clone(), self.role()];
            cells.resize(HEADERS.len(), "-".to_owned());
            return cells;
        };
        let leader = match group.leader_id {
            0 => "-".to_owned(),
            id => id.to_string(),
        };
        vec![
            id,
            self.address.clone(),
            self.role(),
            leader,
            group.term.to_string(),
            group.commit_index.to_string(),
            group.applied_index.to_string(),
            group.snapshot_index.to_string(),
            short_hash(group.module.as_ref().map_or(&[][..], |module| &module.hash)),
            human_bytes(status.data_dir_bytes),
            human_bytes(status.resident_bytes),
            human_duration(Duration::from_millis(status.uptime_ms)),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        let membership = self.member.as_ref().map(|member| kind_name(member.kind()));
        match &self.status {
            Err(reason) => json!({
                "node_id": self.id(),
                "address": self.address,
                "membership": membership,
                "reachable": false,
                "error": reason,
            }),
            Ok(status) => json!({
                "node_id": status.node_id,
                "address": self.address,
                "membership": membership,
                "reachable": true,
                "cluster_id": hex(&status.cluster_id),
                "version": status.version,
                "storage": status.storage,
                "memory_backend": status.memory_backend,
                "data_dir_bytes": status.data_dir_bytes,
                "resident_bytes": status.resident_bytes,
                "uptime_ms": status.uptime_ms,
                "log_write_stuck_ms": status.log_write_stuck_ms,
                "rival": rival_to_json(status.rival.as_ref()),
                "backup": backup_to_json(status.backup.as_ref()),
                "disk": disk_to_json(status.disk.as_ref()),
                "drained": status.drained,
                "autopilot": status.autopilot,
                "scrub": scrub_to_json(status.scrub.as_ref()),
                "tls": tls_to_json(status.tls.as_ref()),
                "groups": status.groups.iter().map(group_to_json).collect::<Vec<_>>(),
            }),
        }
    }
}
