//! What people should know besides the table: a line or two about a node.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_host_proto::v1::activity::Job;

use super::row::NodeRow;
use crate::cli::output::{hex, human_count, human_duration, human_time, short_hash};

/// What people should know of a node's own backups.
pub(super) fn backup_note(row: &NodeRow) -> Option<String> {
    let backup = row.status.as_ref().ok()?.backup.as_ref()?;
    let words = match (&*backup.alarm, &*backup.last_error) {
        ("", "") => return None,
        ("", error) => format!("its last attempt to take a backup failed: {error}"),
        (alarm, _) => alarm.to_owned(),
    };
    Some(format!("{}: {words}", row.address))
}

/// What the leader waits for before it removes a dead member.
pub(super) fn autopilot_note(row: &NodeRow) -> Option<String> {
    let words = &row.status.as_ref().ok()?.autopilot;
    (!words.is_empty()).then(|| format!("{}: autopilot: {words}", row.address))
}

fn files(count: u64) -> String {
    if count == 1 { "a file".to_owned() } else { format!("{count} files") }
}

/// What people should know of what a node found on its disk.
pub(super) fn scrub_note(row: &NodeRow) -> Option<String> {
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

/// What a person should do about its certificate.
pub(super) fn tls_note(row: &NodeRow) -> Option<String> {
    let tls = row.status.as_ref().ok()?.tls.as_ref()?;
    let alarm = (!tls.alarm.is_empty()).then_some(&tls.alarm)?;
    Some(format!("{}: raises an ALARM: {alarm}", row.address))
}

/// What the cluster was made of last.
pub(super) fn origin_note(row: &NodeRow) -> Option<String> {
    let origin = row.group()?.origins.last()?;
    Some(format!(
        "the cluster was made of cluster {} as of index {} ({} utc): restored from a backup, or recovered after \
         a loss",
        hex(&origin.cluster_id),
        origin.index,
        human_time(origin.time_ms)
    ))
}

/// What a node's commands wait for.
pub(super) fn activity_note(row: &NodeRow) -> Option<String> {
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

/// What module a node tries.
pub(super) fn rehearsal_note(row: &NodeRow) -> Option<String> {
    let rehearsal = row.group()?.rehearsal.as_ref()?;
    let range = rehearsal.range.unwrap_or_default();
    let done = rehearsal.index.saturating_sub(range.base);
    Some(format!(
        "{} rehearses {}: {} of {} entries, {} commands, {} differences",
        row.address,
        short_hash(&rehearsal.module_hash),
        human_count(done),
        human_count(range.until - range.base.min(range.until)),
        human_count(rehearsal.commands),
        human_count(rehearsal.differences)
    ))
}

/// What people should know of another cluster's member that dials a node.
pub(super) fn rival_note(row: &NodeRow) -> Option<String> {
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

/// What people should know of a node's state.
pub(super) fn digest_notes(row: &NodeRow) -> Vec<String> {
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

/// Who belongs where, if not all to one cluster.
pub(super) fn different_clusters(rows: &[NodeRow]) -> Option<String> {
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
