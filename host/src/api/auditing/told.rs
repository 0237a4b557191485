//! What requests that are noted ask for, in a few words.

use std::fmt::Write as _;

use raft_host_proto::{peer, v1};

/// A request of operators or of nodes.
pub(in crate::api) trait Told {
    /// The group that it is for; empty: it names none.
    fn group(&self) -> &str {
        ""
    }

    /// What it asks for.
    fn what(&self) -> String {
        String::new()
    }
}

/// Those that ask for nothing but what their method says.
macro_rules! nothing_more {
    ($($request:ident)*) => {
        $(
            impl Told for v1::$request {
                fn group(&self) -> &str {
                    &self.group
                }
            }
        )*
    };
}

nothing_more! {
    AccessRequest KeysRequest WhoAmIRequest MembersRequest ModulesRequest LimitsRequest TakeSnapshotRequest BackupRequest ExportRequest
    DigestRequest
}

impl Told for v1::StatusRequest {}

fn node(id: u64, more: &[(bool, &str)]) -> String {
    let mut text = format!("node {id}");
    for (_, words) in more.iter().filter(|(is_so, _)| *is_so) {
        text.push_str(words);
    }
    text
}

impl Told for v1::AddMemberRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        format!("node {} at {}", self.node_id, self.address)
    }
}

impl Told for v1::PromoteMemberRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        node(self.node_id, &[(self.when_stable, ", when it is stable")])
    }
}

impl Told for v1::RemoveMemberRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        node(self.node_id, &[(self.force, ", forced")])
    }
}

impl Told for v1::DemoteMemberRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        node(self.node_id, &[(self.force, ", forced")])
    }
}

impl Told for v1::ReplaceMemberRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        let successor = format!(" by node {}", self.successor_id);
        node(self.node_id, &[(true, &successor), (self.force, ", forced")])
    }
}

impl Told for v1::TransferLeadershipRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        format!("to node {}", self.node_id)
    }
}

impl Told for v1::DrainRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        if self.undrain { "back on duty" } else { "off duty" }.to_owned()
    }
}

impl Told for v1::SetLimitsRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        let changes = self.changes.iter().filter_map(|change| change.limit.as_ref());
        let mut text = String::new();
        // There are not many more limits than that; who sends more is not listened to for longer.
        for limit in changes.take(32) {
            // To write to a text does not fail.
            let _ = write!(text, "{}{limit:?}", if text.is_empty() { "" } else { ", " });
        }
        text
    }
}

impl Told for v1::SetAccessRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        use v1::access_change::Change;
        // An entry takes not many more; who sends more is not listened to for longer.
        let changes = self.changes.iter().take(32).filter_map(|change| change.change.as_ref());
        let words = changes.map(|change| match change {
            Change::InForce(true) => "in force".to_owned(),
            Change::InForce(false) => "not in force".to_owned(),
            Change::PutPrincipal(put) => format!("{} is {}", put.name, put.roles.join(" and ")),
            Change::RemovePrincipal(name) => format!("remove {name}"),
            Change::PutRole(role) => format!("role {}: {} grants", role.name, role.grants.len()),
            Change::RemoveRole(name) => format!("remove role {name}"),
            Change::RevokeToken(id) => format!("revoke token {id}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Told for v1::CreateTokenRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        format!("a token of {}", self.principal)
    }
}

impl Told for v1::CreateJoinTokenRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        "a join token".to_owned()
    }
}

impl Told for v1::RevokeJoinTokenRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        format!("revoke join token {}", self.id)
    }
}

impl Told for v1::SetKeysRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        use v1::key_change::Change;
        // An entry takes not many more; who sends more is not listened to for longer.
        let changes = self.changes.iter().take(32).filter_map(|change| change.change.as_ref());
        let words = changes.map(|change| match change {
            Change::Add(key) => format!("add {} ({})", hex(&key.public_key), key.name),
            Change::Revoke(key) => format!("revoke {}", hex(key)),
            Change::Threshold(threshold) => format!("threshold {threshold}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// A public key, of which there is no more than it should be.
fn hex(key: &[u8]) -> String {
    key.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

impl Told for v1::SetEngineRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        self.profile.chars().take(256).collect()
    }
}

impl Told for v1::RaiseLevelRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        match self.level {
            Some(level) => format!("to {level}"),
            None => "as far as all offer".to_owned(),
        }
    }
}

impl Told for v1::SetClockRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        format!("to {} ms", self.time_ms)
    }
}

impl Told for v1::ConfirmRequest {}

impl Told for v1::ApplyRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        match &self.session {
            Some(session) => format!(
                "{} bytes, session {}, number {}",
                self.command.len(),
                session.session_id,
                session.sequence
            ),
            None => format!("{} bytes", self.command.len()),
        }
    }
}

impl Told for v1::UpgradeHeader {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        let mut text = format!("{:?} {}", self.label, hex(&self.module_hash));
        if self.discard_state {
            text.push_str(", discarding the state");
        }
        text
    }
}

impl Told for v1::ActivateRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        let mut text = format!("{:?} {}", self.label, hex(&self.module_hash));
        let more = [
            (self.receipt != 0, format!(", receipt {}", self.receipt)),
            (self.ahead, ", ahead".to_owned()),
            (self.rewind, ", rewinding".to_owned()),
            (!self.portable_state.is_empty(), format!(", state {}", hex(&self.portable_state))),
            (self.from_image, ", from its memory".to_owned()),
            (self.renew, ", renewing".to_owned()),
        ];
        text.extend(more.into_iter().filter_map(|(is_so, words)| is_so.then_some(words)));
        text
    }
}

impl Told for v1::ShadowRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        let mut text = format!("{} for {} ms", hex(&self.module_hash), self.duration_ms);
        if self.on_node != 0 {
            // To write to a text does not fail.
            let _ = write!(text, " on node {}", self.on_node);
        }
        text
    }
}

impl Told for v1::RehearseRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        let mut text = match self.rewind {
            true => "the way back".to_owned(),
            false => hex(&self.module_hash),
        };
        if self.on_node != 0 {
            // To write to a text does not fail.
            let _ = write!(text, " on node {}", self.on_node);
        }
        if self.from_image {
            text.push_str(", from its memory");
        }
        if !self.portable_state.is_empty() {
            let _ = write!(text, ", from the state {}", hex(&self.portable_state));
        }
        for allowance in self.allow.iter().take(8) {
            let allowance: String = allowance.chars().take(80).collect();
            let _ = write!(text, ", allowing {allowance:?}");
        }
        text
    }
}

impl Told for v1::QueryAtRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        match self.ordinal {
            None => format!("the state after entry {}", self.index),
            Some(ordinal) => format!("the state after {}.{ordinal}", self.index),
        }
    }
}

impl Told for v1::ConfirmUpgradeRequest {
    fn group(&self) -> &str {
        &self.group
    }

    fn what(&self) -> String {
        format!("the activation at {}", self.activated_at)
    }
}

impl Told for peer::JoinRequest {
    fn what(&self) -> String {
        match self.node_id {
            0 => format!("at {}", self.address),
            id => format!("node {id} at {}", self.address),
        }
    }
}

impl Told for peer::EnrollRequest {
    fn what(&self) -> String {
        let address = self.join.as_ref().map_or("", |join| &join.address);
        format!("at {address} with a join token")
    }
}

impl Told for peer::AdmitRequest {
    fn what(&self) -> String {
        let address = self.join.as_ref().map_or("", |join| &join.address);
        format!("at {address} with a join token")
    }
}

impl Told for peer::MoveRequest {
    fn what(&self) -> String {
        format!("node {} to {}", self.node_id, self.address)
    }
}
