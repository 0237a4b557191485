//! What was issued, and what to do with it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::new::typed;
use super::super::output::{hex, human_time};
use crate::certs::{Entry, Facts, Kind, Rotation, Subject};
use crate::types::ClusterId;

/// What an action says, to people and to scripts.
pub(super) struct Words {
    pub(super) text: String,
    pub(super) json: Value,
}

/// What an action has made.
pub(super) struct Told<'a> {
    pub(super) dir: &'a Path,
    pub(super) cluster: ClusterId,
    pub(super) ca: Option<Facts>,
    pub(super) entries: Vec<Entry>,
}

/// Whole days until then; negative: since.
pub(super) fn days_left(facts: &Facts, now: SystemTime) -> i64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (facts.not_after - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(86_400)
}

/// A moment of a certificate, in milliseconds of Unix time.
pub(super) fn ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

fn until(facts: &Facts, now: SystemTime) -> String {
    let day = human_time(ms(facts.not_after));
    format!("valid until {} ({} days)", &day[..10.min(day.len())], days_left(facts, now))
}

pub(super) fn hosts(facts: &Facts) -> Vec<String> {
    let addresses = facts.ip_addresses.iter().map(ToString::to_string);
    facts.dns_names.iter().cloned().chain(addresses).collect()
}

fn line(entry: &Entry, now: SystemTime) -> String {
    let who = match entry.facts.subject {
        Some(Subject::Node { node, .. }) => {
            format!("node {node}: {}, for {}", entry.dir.display(), hosts(&entry.facts).join(", "))
        }
        _ => format!("client {}: {}", entry.name, entry.dir.display()),
    };
    let shorter = if entry.is_shortened { ", as long as the CA" } else { "" };
    format!("{who}, {}{shorter}", until(&entry.facts, now))
}

fn entry_to_json(entry: &Entry) -> Value {
    let node = match entry.facts.subject {
        Some(Subject::Node { node, .. }) => Some(node.0),
        _ => None,
    };
    json!({
        "kind": entry.kind.as_str(),
        "name": entry.name,
        "node_id": node,
        "dir": entry.dir.display().to_string(),
        "hosts": hosts(&entry.facts),
        "not_after_ms": ms(entry.facts.not_after),
        "shortened": entry.is_shortened,
        "fingerprint": hex(&entry.facts.fingerprint),
    })
}

impl Told<'_> {
    fn words(&self, lines: &[String]) -> Words {
        let mut json = json!({
            "dir": self.dir.display().to_string(),
            "cluster_id": self.cluster.to_string(),
            "entries": self.entries.iter().map(entry_to_json).collect::<Vec<_>>(),
        });
        if let Some(ca) = &self.ca {
            json["ca"] = ca_to_json(ca);
        }
        Words { text: lines.join("\n"), json }
    }

    fn lines(&self, now: SystemTime) -> impl Iterator<Item = String> {
        self.entries.iter().map(move |entry| line(entry, now))
    }

    /// How those with a certificate use it.
    fn use_lines(&self) -> Vec<String> {
        let first = |kind| self.entries.iter().find(|entry| entry.kind == kind);
        let mut lines = Vec::new();
        if let Some(node) = first(Kind::Node) {
            lines.push(format!(
                "\nBring {} to its machine, readable for its user only, and start the node with that folder:\n\n    \
                 raft-host --tls {} …\n\nor name its files in the file of settings:\n\n    [tls]\n    mode = \
                 \"mutual\"\n    certificate = \"{1}/certificate.pem\"\n    key = \"{1}/key.pem\"\n    client_ca = \
                 \"{1}/ca.pem\"\n    peer_ca = \"{1}/ca.pem\"",
                if self.entries.len() > 1 { "each folder" } else { "the folder" },
                typed(&node.dir),
            ));
        }
        if let Some(client) = first(Kind::Client) {
            lines.push(format!(
                "\nA client uses its folder in the same way:\n\n    raft-host status --tls {} …",
                typed(&client.dir)
            ));
        }
        lines
    }

    pub(super) fn init(&self, now: SystemTime) -> Words {
        let ca = self.ca.as_ref().expect("one was made");
        let dir = typed(self.dir);
        let mut lines = vec![format!(
            "{} holds a new CA of cluster {}, {}",
            self.dir.display(),
            self.cluster,
            until(ca, now)
        )];
        lines.extend(self.lines(now));
        lines.push(format!(
            "\nKeep {}/ca-key.pem where no node is: who has it can be anybody. Save a copy.",
            self.dir.display()
        ));
        if self.entries.is_empty() {
            lines.push(format!(
                "\nNext, a certificate for each node and each client:\n\n    raft-host certs node {dir} --name n1 \
                 --address HOST\n    raft-host certs client {dir} --name NAME"
            ));
        }
        lines.extend(self.use_lines());
        self.words(&lines)
    }

    pub(super) fn issued(&self, now: SystemTime) -> Words {
        let mut lines: Vec<String> = self.lines(now).collect();
        lines.extend(self.use_lines());
        self.words(&lines)
    }

    pub(super) fn renewed(&self, now: SystemTime) -> Words {
        let mut lines: Vec<String> = self.lines(now).collect();
        lines.push(
            "\nEach has a new key as well. Bring the folders to their machines, in the place of the old ones: nodes \
             read them again by themselves. The old certificates stay good until they expire."
                .to_owned(),
        );
        self.words(&lines)
    }
}

fn ca_to_json(facts: &Facts) -> Value {
    json!({
        "name": facts.name,
        "not_after_ms": ms(facts.not_after),
        "fingerprint": hex(&facts.fingerprint),
    })
}

/// What became of a change of the CA.
pub(super) fn rotated(
    dir: &Path,
    cluster: ClusterId,
    rotation: &Rotation,
    is_finished: bool,
    now: SystemTime,
) -> Words {
    let shown = typed(dir);
    let first = match (is_finished, rotation.is_new) {
        (true, _) => "trusts one CA again",
        (false, true) => "has a new CA, which signs from now on, beside the old one",
        (false, false) => "has a new CA beside the old one already; ca.pem was written again",
    };
    let mut lines = vec![format!(
        "{} {first}: {}, {}",
        dir.display(),
        rotation.authority.name,
        until(&rotation.authority, now)
    )];
    lines.extend(rotation.dirs.iter().map(|dir| format!("{}/ca.pem is new", dir.display())));
    lines.push(match is_finished {
        true => "\nBring each ca.pem to its machine. What the old CA has signed is refused there from then on."
            .to_owned(),
        false => format!(
            "\n1. Bring each ca.pem to its machine, and wait until all nodes and clients have read it.\n2. raft-host \
             certs renew {shown} --all, and bring the folders to their machines.\n3. raft-host certs rotate-ca {shown} \
             --finish, and bring each ca.pem to its machine."
        ),
    });
    let json = json!({
        "dir": dir.display().to_string(),
        "cluster_id": cluster.to_string(),
        "ca": ca_to_json(&rotation.authority),
        "new": rotation.is_new,
        "finished": is_finished,
        "dirs": rotation.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>(),
    });
    Words { text: lines.join("\n"), json }
}
