//! `raft-host status`: one line per node.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use raft_host_proto::v1;
use raft_host_proto::v1::activity::Job;
use raft_host_proto::v1::member_info::Kind;
use serde_json::{Value, json};
use tonic::Response;

use super::digest::result_to_json;
use super::exit::{Ended, Exit, Failure};
use super::members::kind_name;
use super::output::{
    Output, facts, hex, human_bytes, human_duration, human_time, print_json, print_text,
    short_hash, table,
};
use super::remote::{self, RemoteArgs, sentence};

/// How long one node may take to answer, so that a dead one does not hold up the table.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Shows what each node of the cluster knows and how far it is.
///
/// With one endpoint, all members of its cluster are asked; with several, exactly these
/// (--cluster: all members as well). Ends with 6 when no node answers at all, or none of them knows
/// a leader.
#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    /// Ask all members of the cluster, also when several endpoints are given.
    #[arg(long, conflicts_with = "only")]
    cluster: bool,
    /// Ask the given endpoints only.
    #[arg(long)]
    only: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
struct NodeRow {
    /// Where it was asked.
    address: String,
    /// As its cluster lists it; `None` when only the endpoint was given.
    member: Option<v1::MemberInfo>,
    /// Its own words, or why there are none.
    status: Result<v1::StatusResponse, String>,
}

pub(super) fn run(args: &StatusArgs) -> Ended {
    let rows = remote::block_on(gather(args))?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&rows))?,
        Output::Table => print_text(&to_text(&rows))?,
    }
    Ok(ending(&rows))
}

/// A cluster without a leader takes no commands, which scripts want to know.
fn ending(rows: &[NodeRow]) -> Exit {
    let knows_leader = |row: &NodeRow| row.group().is_some_and(|group| group.leader_id != 0);
    if rows.iter().any(knows_leader) { Exit::Done } else { Exit::Unavailable }
}

async fn gather(args: &StatusArgs) -> Result<Vec<NodeRow>, Failure> {
    let remote = &args.remote;
    let timeout = NODE_TIMEOUT.min(remote.timeout());
    let whole = !args.only && (args.cluster || remote.endpoints.len() == 1);
    let endpoints = &remote.endpoints;
    let alone = join_all(endpoints.iter().map(|address| row(address, None, timeout)));
    let rows = if whole {
        let known = join_all(endpoints.iter().map(|address| members(address, timeout)));
        let (alone, known) = tokio::join!(alone, known);
        match known.into_iter().find(|members| !members.is_empty()) {
            Some(members) => {
                join_all(members.iter().map(|m| row(&m.address, Some(m.clone()), timeout))).await
            }
            // A node without a state knows itself only.
            None => alone,
        }
    } else {
        alone.await
    };
    if rows.iter().all(|row| row.status.is_err()) {
        let reasons: Vec<String> = rows
            .iter()
            .map(|row| {
                let reason = row.status.as_ref().err().map_or("", String::as_str);
                format!("{}: {reason}", row.address)
            })
            .collect();
        return Err(Failure {
            exit: Exit::Unavailable,
            message: format!("no node tells how it is ({}); does it run?", reasons.join("; ")),
            effect: String::new(),
            reason: None,
        });
    }
    Ok(rows)
}

/// The members that a node knows of, asked once: one that knows none yet is not waited for.
async fn members(address: &str, timeout: Duration) -> Vec<v1::MemberInfo> {
    let ask = async {
        let mut client = remote::admin(address).await.ok()?;
        client.members(v1::MembersRequest::default()).await.ok()
    };
    let answer = tokio::time::timeout(timeout, ask).await.ok().flatten();
    answer.map(|answer| answer.into_inner().members).unwrap_or_default()
}

async fn row(address: &str, member: Option<v1::MemberInfo>, timeout: Duration) -> NodeRow {
    let ask = async {
        let mut client = remote::admin(address).await?;
        let answer = client.status(v1::StatusRequest::default()).await;
        answer.map(Response::into_inner).map_err(|status| sentence(&status))
    };
    let status = tokio::time::timeout(timeout, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", human_duration(timeout))));
    NodeRow { address: address.to_owned(), member, status }
}

fn role_name(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Unspecified => "unknown",
        v1::Role::Follower => "follower",
        v1::Role::PreCandidate => "pre-candidate",
        v1::Role::Candidate => "candidate",
        v1::Role::Leader => "leader",
    }
}

impl NodeRow {
    /// What the node says of the main group.
    fn group(&self) -> Option<&v1::GroupStatus> {
        self.status.as_ref().ok()?.group("")
    }

    fn id(&self) -> u64 {
        match (&self.status, &self.member) {
            (Ok(status), _) => status.node_id,
            (Err(_), Some(member)) => member.node_id,
            (Err(_), None) => 0,
        }
    }

    /// `leader`, `follower`, `learner` …: what it does, unless it is no voter.
    fn role(&self) -> String {
        let kind = self.member.as_ref().map(v1::MemberInfo::kind);
        match (&self.status, self.group().map(v1::GroupStatus::role)) {
            (Err(_), _) => "unreachable".to_owned(),
            (Ok(_), Some(v1::Role::Follower)) if kind == Some(Kind::Learner) => {
                "learner".to_owned()
            }
            (Ok(_), role) => role_name(role.unwrap_or_default()).to_owned(),
        }
    }

    fn cells(&self) -> Vec<String> {
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

    fn to_json(&self) -> Value {
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
                "groups": status.groups.iter().map(group_to_json).collect::<Vec<_>>(),
            }),
        }
    }
}

fn group_to_json(group: &v1::GroupStatus) -> Value {
    json!({
        "group": group.group,
        "role": role_name(group.role()),
        "term": group.term,
        "leader_id": group.leader_id,
        "leader_address": group.leader_address,
        "not_serving": group.not_serving,
        "read_only": group.read_only,
        "first_index": group.first_index,
        "last_index": group.last_index,
        "commit_index": group.commit_index,
        "applied_index": group.applied_index,
        "snapshot_index": group.snapshot_index,
        "module": group.module.as_ref().map(|module| json!({
            "hash": hex(&module.hash),
            "label": module.label,
            "activated_at": module.activated_at,
        })),
        "sessions": group.sessions,
        "time_ms": group.time_ms,
        "profile_hash": hex(&group.profile_hash),
        "clock": group.clock.as_ref().map(super::clock::to_json),
        "level": group.level.as_ref().map(super::level::to_json),
        "origins": group.origins.iter().map(origin_to_json).collect::<Vec<_>>(),
        "activity": activity_to_json(group.activity.as_ref()),
        "digest": digest_to_json(group.digest.as_ref()),
        "peers": group.peers.iter().map(|peer| json!({
            "node_id": peer.node_id,
            "match_index": peer.match_index,
            "state": state_name(peer.state()),
            "recently_active": peer.recently_active,
            "silent_ms": peer.silent_ms,
        })).collect::<Vec<_>>(),
    })
}

fn origin_to_json(origin: &v1::Origin) -> Value {
    json!({
        "cluster_id": hex(&origin.cluster_id),
        "index": origin.index,
        "term": origin.term,
        "time_ms": origin.time_ms,
    })
}

fn backup_to_json(backup: Option<&v1::BackupStatus>) -> Value {
    let Some(backup) = backup else { return Value::Null };
    json!({
        "directory": backup.directory,
        "every_ms": backup.every_ms,
        "running": backup.running,
        "last": backup.last.as_ref().map(|last| json!({
            "file": last.file,
            "bytes": last.bytes,
            "index": last.index,
            "saved_ms": last.saved_ms,
        })),
        "last_error": backup.last_error,
        "newest_ms": backup.newest_ms,
        "alarm": backup.alarm,
    })
}

/// What people should know of a node's own backups.
fn backup_note(row: &NodeRow) -> Option<String> {
    let backup = row.status.as_ref().ok()?.backup.as_ref()?;
    let words = match (&*backup.alarm, &*backup.last_error) {
        ("", "") => return None,
        ("", error) => format!("its last attempt to take a backup failed: {error}"),
        (alarm, _) => alarm.to_owned(),
    };
    Some(format!("{}: {words}", row.address))
}

/// What the leader waits for before it removes a dead member.
fn autopilot_note(row: &NodeRow) -> Option<String> {
    let words = &row.status.as_ref().ok()?.autopilot;
    (!words.is_empty()).then(|| format!("{}: autopilot: {words}", row.address))
}

fn scrub_to_json(scrub: Option<&v1::ScrubStatus>) -> Value {
    let Some(scrub) = scrub else { return Value::Null };
    json!({
        "every_ms": scrub.every_ms,
        "running": scrub.running,
        "last_ms": scrub.last_ms,
        "read_bytes": scrub.read_bytes,
        "found": scrub.found,
        "mended": scrub.mended,
        "damages": scrub.damages.iter().map(|damage| json!({
            "file": damage.file,
            "offset": damage.offset,
            "reason": damage.reason,
            "found_ms": damage.found_ms,
            "mended": damage.mended,
            "outcome": damage.outcome,
        })).collect::<Vec<_>>(),
        "last_error": scrub.last_error,
        "alarm": scrub.alarm,
    })
}

fn files(count: u64) -> String {
    if count == 1 { "a file".to_owned() } else { format!("{count} files") }
}

/// What people should know of what a node found on its disk.
fn scrub_note(row: &NodeRow) -> Option<String> {
    let scrub = row.status.as_ref().ok()?.scrub.as_ref()?;
    let words = match (&*scrub.alarm, &*scrub.last_error, scrub.damages.last()) {
        ("", "", None) => return None,
        ("", "", Some(newest)) => format!(
            "found {} damaged and mended {} since it started; look at its disk. The last was {} at offset {}: {}",
            files(scrub.found),
            if scrub.found == 1 { "it" } else { "them" },
            newest.file,
            newest.offset,
            newest.outcome
        ),
        ("", error, _) => format!("its last scrub did not get to its end: {error}"),
        (alarm, _, _) => format!("raises an ALARM: {alarm}"),
    };
    Some(format!("{}: {words}", row.address))
}

/// What the cluster was made of last.
fn origin_note(row: &NodeRow) -> Option<String> {
    let origin = row.group()?.origins.last()?;
    Some(format!(
        "the cluster was made of cluster {} as of index {} ({} utc): restored from a backup, or recovered after \
         a loss",
        hex(&origin.cluster_id),
        origin.index,
        human_time(origin.time_ms)
    ))
}

fn state_name(state: v1::peer_progress::State) -> &'static str {
    use v1::peer_progress::State;
    match state {
        State::Unspecified => "unknown",
        State::Probe => "probe",
        State::Replicate => "replicate",
        State::Snapshot => "snapshot",
    }
}

fn job_name(job: Job) -> &'static str {
    match job {
        Job::Unspecified => "unknown",
        Job::Apply => "apply",
        Job::Activate => "activate",
        Job::Query => "query",
        Job::Capture => "capture",
        Job::Install => "install",
    }
}

fn digest_to_json(digest: Option<&v1::DigestStatus>) -> Value {
    // A node of an older version does not say.
    let Some(digest) = digest else { return Value::Null };
    json!({
        "point_index": digest.point_index,
        "digest": hex(&digest.digest),
        "machine_digest": hex(&digest.machine_digest),
        "guest_digest": hex(&digest.guest_digest),
        "agreed_index": digest.agreed_index,
        "verdict": digest.verdict.as_ref().map(result_to_json),
        "quarantine": digest.quarantine.as_ref().map(|quarantine| json!({
            "since_index": quarantine.since_index,
            "point_index": quarantine.point_index,
            "reason": quarantine.reason,
            "evidence": quarantine.evidence,
        })),
        "alarm": digest.alarm,
        "doubt": digest.doubt,
        "points": digest.points,
        "verdicts": digest.verdicts,
        "quarantines": digest.quarantines,
        "healed": digest.healed,
        "undecided": digest.undecided,
    })
}

/// What a node's commands wait for.
fn activity_note(row: &NodeRow) -> Option<String> {
    let activity = row.group()?.activity.as_ref()?;
    let doing = match activity.job() {
        Job::Activate if activity.name.is_empty() => "changing limits".to_owned(),
        Job::Activate => format!("activating {}", activity.name),
        Job::Install => "installing a snapshot".to_owned(),
        Job::Capture => "copying its state for a snapshot".to_owned(),
        Job::Query => "answering queries".to_owned(),
        Job::Apply => "applying an entry".to_owned(),
        Job::Unspecified => "at a job that this version does not know".to_owned(),
    };
    Some(format!(
        "{} is {doing} since {} (index {}); its commands wait meanwhile",
        row.address,
        human_duration(Duration::from_millis(activity.for_ms)),
        activity.index
    ))
}

/// What people should know of another cluster's member that dials a node.
fn rival_note(row: &NodeRow) -> Option<String> {
    let rival = row.status.as_ref().ok()?.rival.as_ref()?;
    let when = match rival.silent_ms {
        Some(ms) => format!(", {} ago", human_duration(Duration::from_millis(ms))),
        None => String::new(),
    };
    Some(format!(
        "{} was dialled as {}{when}, by node {} at {} of cluster {}, which has a member with that \
         address{}",
        row.address,
        rival.dialled_address,
        rival.node_id,
        rival.address,
        hex(&rival.cluster_id),
        if rival.unconfirmed { ": it is UNCONFIRMED" } else { "" }
    ))
}

fn rival_to_json(rival: Option<&v1::Rival>) -> Value {
    let Some(rival) = rival else { return Value::Null };
    json!({
        "cluster_id": hex(&rival.cluster_id),
        "node_id": rival.node_id,
        "address": rival.address,
        "dialled_address": rival.dialled_address,
        "silent_ms": rival.silent_ms,
        "hellos": rival.hellos,
        "unconfirmed": rival.unconfirmed,
    })
}

fn disk_to_json(disk: Option<&v1::DiskStatus>) -> Value {
    let Some(disk) = disk else { return Value::Null };
    json!({
        "space": space_name(disk.space()),
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
        "low_bytes": disk.low_bytes,
        "critical_bytes": disk.critical_bytes,
        "reserve_bytes": disk.reserve_bytes,
        "sync_p99_us": disk.sync_p99_us,
        "alarm": disk.alarm,
    })
}

fn space_name(space: v1::disk_status::Space) -> &'static str {
    use v1::disk_status::Space;
    match space {
        Space::Unspecified => "unknown",
        Space::Ample => "ample",
        Space::Low => "low",
        Space::Critical => "critical",
    }
}

fn activity_to_json(activity: Option<&v1::Activity>) -> Value {
    let Some(activity) = activity else { return Value::Null };
    json!({
        "job": job_name(activity.job()),
        "index": activity.index,
        "name": activity.name,
        "for_ms": activity.for_ms,
    })
}

/// What people should know of a node's state.
fn digest_notes(row: &NodeRow) -> Vec<String> {
    let mut notes = Vec::new();
    let (Ok(status), Some(group)) = (&row.status, row.group()) else { return notes };
    if !group.not_serving.is_empty() {
        notes.push(format!("{} does not serve: {}", row.address, group.not_serving));
    }
    if status.memory_backend == "plain copy" {
        notes.push(format!(
            "{} checkpoints its guest by comparing all of its memory: its kernel offers no \
             userfaultfd with asynchronous write protection (Linux 6.7)",
            row.address
        ));
    }
    if status.log_write_stuck_ms > 0 {
        notes.push(format!(
            "{} has a STUCK log write since {}: its disk does not answer; it neither leads nor serves",
            row.address,
            human_duration(Duration::from_millis(status.log_write_stuck_ms))
        ));
    }
    if let Some(disk) = status.disk.as_ref().filter(|disk| !disk.alarm.is_empty()) {
        notes.push(format!("{} raises an ALARM about its disk: {}", row.address, disk.alarm));
    }
    if !group.read_only.is_empty() {
        notes.push(format!("{} leads a READ-ONLY group: {}", row.address, group.read_only));
    }
    if let Some(clock) = group.clock.as_ref().filter(|clock| !clock.alarm.is_empty()) {
        notes.push(format!("{} raises an ALARM about clocks: {}", row.address, clock.alarm));
    }
    let Some(digest) = &group.digest else { return notes };
    if let Some(quarantine) = &digest.quarantine {
        let kept = match quarantine.evidence.as_str() {
            "" => String::new(),
            place => format!("; its state was kept in {place}"),
        };
        notes.push(format!(
            "{} is QUARANTINED since index {} and answers nothing: {}{kept}",
            row.address, quarantine.since_index, quarantine.reason
        ));
    }
    if !digest.doubt.is_empty() {
        notes.push(format!("{} is IN DOUBT: {}", row.address, digest.doubt));
    }
    if !digest.alarm.is_empty() {
        notes.push(format!("{} raises an ALARM: {}", row.address, digest.alarm));
    }
    if digest.quarantine.is_none() && digest.healed > 0 {
        let healed = digest.healed;
        notes.push(format!("{} was quarantined and healed {healed}×", row.address));
    }
    notes
}

const HEADERS: [&str; 12] = [
    "node", "address", "role", "leader", "term", "commit", "applied", "snapshot", "module", "data",
    "memory", "up",
];

fn to_json(rows: &[NodeRow]) -> Value {
    json!({ "nodes": rows.iter().map(NodeRow::to_json).collect::<Vec<_>>() })
}

/// The answer of the highest term: the one that knows most.
fn best(rows: &[NodeRow]) -> Option<(&v1::StatusResponse, &v1::GroupStatus)> {
    let answers = rows.iter().filter_map(|row| row.status.as_ref().ok().zip(row.group()));
    answers.max_by_key(|(_, group)| (group.term, group.leader_id != 0, group.applied_index))
}

fn to_text(rows: &[NodeRow]) -> String {
    let mut text = String::new();
    if let Some((status, group)) = best(rows) {
        text.push_str(&facts(&summary(status, group)));
        text.push_str("\n\n");
    }
    let cells: Vec<Vec<String>> = rows.iter().map(NodeRow::cells).collect();
    text.push_str(&table(&HEADERS, &cells));
    let mut notes: Vec<String> = Vec::new();
    for row in rows {
        if let Err(reason) = &row.status {
            notes.push(format!("{} is unreachable: {reason}", row.address));
        }
        notes.extend(activity_note(row));
        notes.extend(rival_note(row));
        notes.extend(backup_note(row));
        notes.extend(autopilot_note(row));
        notes.extend(scrub_note(row));
        notes.extend(digest_notes(row));
    }
    notes.extend(rows.iter().find_map(origin_note));
    notes.extend(different_clusters(rows));
    if !notes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&notes.join("\n"));
    }
    text
}

/// Who belongs where, if not all to one cluster.
fn different_clusters(rows: &[NodeRow]) -> Option<String> {
    let mut clusters: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Ok(status) = &row.status {
            clusters.entry(hex(&status.cluster_id)).or_default().push(&row.address);
        }
    }
    let lists: Vec<String> = clusters
        .iter()
        .map(|(cluster, nodes)| format!("{} to {cluster}", nodes.join(", ")))
        .collect();
    (lists.len() > 1)
        .then(|| format!("these nodes belong to different clusters: {}", lists.join("; ")))
}

fn summary(status: &v1::StatusResponse, group: &v1::GroupStatus) -> Vec<(&'static str, String)> {
    let leader = match group.leader_id {
        0 => "none: the cluster takes no commands now".to_owned(),
        id => format!("node {id} at {}, term {}", group.leader_address, group.term),
    };
    let module = match &group.module {
        _ if group.applied_index == 0 => "unknown: this node has no state yet".to_owned(),
        None => "none yet: give it one with `raft-host upgrade FILE`".to_owned(),
        Some(module) => {
            let label = if module.label.is_empty() { "(no label)" } else { &module.label };
            let hash = short_hash(&module.hash);
            format!("{label} {hash}, active since index {}", module.activated_at)
        }
    };
    vec![
        ("cluster", hex(&status.cluster_id)),
        ("leader", leader),
        ("module", module),
        ("sessions", group.sessions.to_string()),
        ("profile", short_hash(&group.profile_hash)),
        ("digests", compared(group.digest.as_ref())),
    ]
}

/// The newest comparison of the nodes' states.
fn compared(digest: Option<&v1::DigestStatus>) -> String {
    let Some(verdict) = digest.and_then(|digest| digest.verdict.as_ref()) else {
        return "not compared since this node started".to_owned();
    };
    let (answered, point) = (verdict.nodes.len(), verdict.point_index);
    let agree = verdict.nodes.iter().filter(|node| node.agrees).count();
    format!("{agree} of {answered} agree at index {point}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn digest() -> v1::DigestStatus {
        let digest = Bytes::from(vec![0xab; 32]);
        let node = |node_id, agrees| v1::NodeDigest { node_id, digest: digest.clone(), agrees };
        let verdict = v1::DigestResult {
            point_index: 118,
            verdict_index: 119,
            digest: digest.clone(),
            nodes: vec![node(1, true), node(2, true), node(3, false)],
        };
        v1::DigestStatus { verdict: Some(verdict), ..Default::default() }
    }

    fn answer(id: u64, role: v1::Role) -> NodeRow {
        let module = v1::ActiveModule {
            hash: vec![0xab; 32].into(),
            label: "kv.wasm".into(),
            activated_at: 7,
        };
        let group = v1::GroupStatus {
            group: "main".into(),
            role: role.into(),
            term: 3,
            leader_id: 1,
            leader_address: "127.0.0.1:7400".into(),
            commit_index: 120,
            applied_index: 119 + id,
            module: Some(module),
            digest: Some(digest()),
            ..Default::default()
        };
        let status = v1::StatusResponse {
            cluster_id: vec![0xc1; 16].into(),
            node_id: id,
            data_dir_bytes: 3 << 20,
            resident_bytes: 40 << 20,
            uptime_ms: 61_000,
            groups: vec![group],
            ..Default::default()
        };
        let member = member(id, Kind::Voter);
        NodeRow { address: member.address.clone(), member: Some(member), status: Ok(status) }
    }

    fn group_of(row: &mut NodeRow) -> &mut v1::GroupStatus {
        &mut row.status.as_mut().expect("it answered").groups[0]
    }

    fn member(id: u64, kind: Kind) -> v1::MemberInfo {
        v1::MemberInfo {
            node_id: id,
            address: format!("127.0.0.1:{}", 7399 + id),
            kind: kind.into(),
            leader: id == 1,
        }
    }

    fn dead(id: u64) -> NodeRow {
        let member = member(id, Kind::Voter);
        NodeRow {
            address: member.address.clone(),
            member: Some(member),
            status: Err("connection refused".into()),
        }
    }

    #[test]
    fn the_table_shows_dead_members_beside_living_ones() {
        let rows = [answer(1, v1::Role::Leader), answer(2, v1::Role::Follower), dead(3)];
        let text = to_text(&rows);
        let expected = "\
cluster   c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1
leader    node 1 at 127.0.0.1:7400, term 3
module    kv.wasm abababababab, active since index 7
sessions  0
profile   -
digests   2 of 3 agree at index 118

NODE  ADDRESS         ROLE         LEADER  TERM  COMMIT  APPLIED  SNAPSHOT  MODULE           DATA    MEMORY     UP
   1  127.0.0.1:7400  leader            1     3     120      120         0  abababababab  3.0 MiB  40.0 MiB  1m 1s
   2  127.0.0.1:7401  follower          1     3     120      121         0  abababababab  3.0 MiB  40.0 MiB  1m 1s
   3  127.0.0.1:7402  unreachable       -     -       -        -         -  -                   -         -      -

127.0.0.1:7402 is unreachable: connection refused";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_learner_and_a_cluster_without_leader_are_called_so() {
        let mut learner = answer(2, v1::Role::Follower);
        learner.member = Some(member(2, Kind::Learner));
        assert_eq!(learner.role(), "learner");
        let mut lost = answer(1, v1::Role::PreCandidate);
        group_of(&mut lost).leader_id = 0;
        group_of(&mut lost).module = None;
        let text = to_text(&[lost]);
        assert!(text.contains("none: the cluster takes no commands now"), "{text}");
        assert!(text.contains("none yet: give it one with `raft-host upgrade FILE`"), "{text}");
    }

    #[test]
    fn a_quarantined_node_an_alarm_and_a_healed_node_are_noticed() {
        let mut rows = [1, 2, 3].map(|id| answer(id, v1::Role::Follower));
        let quarantine = v1::Quarantine {
            since_index: 119,
            point_index: 118,
            reason: "it differs".to_owned(),
            evidence: "/data/evidence/118-119".to_owned(),
        };
        let said = [
            v1::DigestStatus { quarantine: Some(quarantine), ..digest() },
            v1::DigestStatus { alarm: "look at this".to_owned(), ..digest() },
            v1::DigestStatus { healed: 2, ..digest() },
        ];
        for (row, digest) in rows.iter_mut().zip(said) {
            group_of(row).digest = Some(digest);
        }
        let text = to_text(&rows);
        for words in [
            "7400 is QUARANTINED since index 119 and answers nothing: it differs; its state was \
             kept in /data/evidence/118-119",
            "7401 raises an ALARM: look at this",
            "7402 was quarantined and healed 2×",
        ] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        let json = to_json(&rows);
        assert_eq!(json["nodes"][0]["groups"][0]["digest"]["quarantine"]["since_index"], 119);
        assert_eq!(json["nodes"][1]["groups"][0]["digest"]["verdict"]["nodes"][2]["agrees"], false);
    }

    #[test]
    fn a_disk_with_little_space_and_a_group_that_is_read_only_are_noticed() {
        let mut rows = [answer(1, v1::Role::Leader), answer(2, v1::Role::Follower)];
        let disk = v1::DiskStatus {
            space: v1::disk_status::Space::Low.into(),
            free_bytes: 21 << 20,
            sync_p99_us: Some(1_500),
            alarm: "it has 21.0 MiB left".to_owned(),
            ..Default::default()
        };
        rows[0].status.as_mut().expect("it answered").disk = Some(disk);
        group_of(&mut rows[0]).read_only = "the disk of node 1 has little".to_owned();
        let text = to_text(&rows);
        for words in [
            "7400 raises an ALARM about its disk: it has 21.0 MiB left",
            "7400 leads a READ-ONLY group: the disk of node 1 has little",
        ] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        let json = to_json(&rows);
        assert_eq!(json["nodes"][0]["disk"]["space"], "low");
        assert_eq!(json["nodes"][0]["disk"]["sync_p99_us"], 1_500);
        assert_eq!(json["nodes"][1]["disk"], Value::Null);
    }

    #[test]
    fn without_a_leader_it_does_not_succeed() {
        let mut rows = [answer(1, v1::Role::Follower), dead(2)];
        assert_eq!(ending(&rows), Exit::Done);
        group_of(&mut rows[0]).leader_id = 0;
        assert_eq!(ending(&rows), Exit::Unavailable);
    }

    #[test]
    fn nodes_of_different_clusters_are_noticed() {
        let mut other = answer(2, v1::Role::Leader);
        if let Ok(status) = &mut other.status {
            status.cluster_id = vec![0xd2; 16].into();
        }
        let text = to_text(&[answer(1, v1::Role::Leader), other]);
        for words in ["different clusters: 127.0.0.1:7400 to c1c1", "; 127.0.0.1:7401 to d2d2"] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
    }

    #[test]
    fn another_clusters_member_that_dials_a_node_is_noticed() {
        let mut row = answer(1, v1::Role::Leader);
        let rival = v1::Rival {
            cluster_id: vec![0xd2; 16].into(),
            node_id: 2,
            address: "10.0.0.2:7400".to_owned(),
            dialled_address: "10.0.0.1:7400".to_owned(),
            silent_ms: Some(2_000),
            hellos: 3,
            unconfirmed: true,
        };
        row.status.as_mut().expect("it answered").rival = Some(rival);
        let text = to_text(std::slice::from_ref(&row));
        let expected = "127.0.0.1:7400 was dialled as 10.0.0.1:7400, 2.0s ago, by node 2 at \
                        10.0.0.2:7400 of cluster d2d2";
        assert!(text.contains(expected) && text.contains("UNCONFIRMED"), "{text}");
        assert_eq!(row.to_json()["rival"]["hellos"], 3);
    }

    #[test]
    fn what_rots_on_a_disk_is_noticed_mended_or_not() {
        let mut row = answer(1, v1::Role::Follower);
        let damage = v1::ScrubDamage {
            file: "/data/log/1.raftlog".to_owned(),
            offset: 77,
            mended: true,
            outcome: "the log before it dropped".to_owned(),
            ..Default::default()
        };
        let mended = v1::ScrubStatus { found: 2, damages: vec![damage], ..Default::default() };
        let open = v1::ScrubStatus { alarm: "it is not mended".to_owned(), ..mended.clone() };
        let failed = v1::ScrubStatus { last_error: "refused".to_owned(), ..Default::default() };
        for (scrub, words) in [
            (v1::ScrubStatus::default(), None),
            (mended, Some("2 files damaged and mended them")),
            (open, Some("127.0.0.1:7400: raises an ALARM: it is not mended")),
            (failed, Some("did not get to its end: refused")),
        ] {
            row.status.as_mut().expect("it answered").scrub = Some(scrub);
            let note = scrub_note(&row);
            assert_eq!(note.is_some(), words.is_some());
            assert!(note.unwrap_or_default().contains(words.unwrap_or_default()));
        }
        assert_eq!(row.to_json()["scrub"]["last_error"], "refused");
    }

    #[test]
    fn json_has_the_same_fields_for_each_node_that_answered() {
        let value = to_json(&[answer(1, v1::Role::Leader), dead(2)]);
        let nodes = value["nodes"].as_array().expect("a list");
        assert_eq!(nodes[0]["groups"][0]["role"], "leader");
        assert_eq!(nodes[0]["groups"][0]["applied_index"], 120);
        assert_eq!(nodes[0]["reachable"], true);
        assert_eq!(nodes[1]["reachable"], false);
        assert_eq!(nodes[1]["node_id"], 2);
    }
}
