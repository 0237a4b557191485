//! A node's status for scripts.

use raft_host_proto::v1;
use raft_host_proto::v1::activity::Job;
use serde_json::{Value, json};

use crate::cli::digest::result_to_json;
use crate::cli::output::hex;
use crate::cli::rights::table;
use crate::cli::{clock, level};

pub(super) fn group_to_json(group: &v1::GroupStatus) -> Value {
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
        "clock": group.clock.as_ref().map(clock::to_json),
        "level": group.level.as_ref().map(level::to_json),
        "rights": group.access.as_ref().map(table::status_json),
        "origins": group.origins.iter().map(origin_to_json).collect::<Vec<_>>(),
        "activity": activity_to_json(group.activity.as_ref()),
        "rehearsal": group.rehearsal.as_ref().map(rehearsal_to_json),
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

pub(super) fn backup_to_json(backup: Option<&v1::BackupStatus>) -> Value {
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

pub(super) fn tls_to_json(tls: Option<&v1::TlsStatus>) -> Value {
    let Some(tls) = tls else { return Value::Null };
    json!({
        "mode": tls.mode,
        "subject": tls.subject,
        "not_after_ms": tls.not_after_ms,
        "fingerprint": hex(&tls.fingerprint),
        "alarm": tls.alarm,
        "reloaded_ms": tls.reloaded_ms,
    })
}

pub(super) fn scrub_to_json(scrub: Option<&v1::ScrubStatus>) -> Value {
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

pub(super) fn digest_to_json(digest: Option<&v1::DigestStatus>) -> Value {
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

pub(super) fn rival_to_json(rival: Option<&v1::Rival>) -> Value {
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

pub(super) fn disk_to_json(disk: Option<&v1::DiskStatus>) -> Value {
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

fn rehearsal_to_json(rehearsal: &v1::RehearsalProgress) -> Value {
    let range = rehearsal.range.unwrap_or_default();
    json!({
        "module_hash": hex(&rehearsal.module_hash),
        "index": rehearsal.index,
        "range": { "base": range.base, "until": range.until },
        "commands": rehearsal.commands,
        "differences": rehearsal.differences,
    })
}

pub(super) fn activity_to_json(activity: Option<&v1::Activity>) -> Value {
    let Some(activity) = activity else { return Value::Null };
    json!({
        "job": job_name(activity.job()),
        "index": activity.index,
        "name": activity.name,
        "for_ms": activity.for_ms,
    })
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

fn space_name(space: v1::disk_status::Space) -> &'static str {
    use v1::disk_status::Space;
    match space {
        Space::Unspecified => "unknown",
        Space::Ample => "ample",
        Space::Low => "low",
        Space::Critical => "critical",
    }
}

pub(super) fn role_name(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Unspecified => "unknown",
        v1::Role::Follower => "follower",
        v1::Role::PreCandidate => "pre-candidate",
        v1::Role::Candidate => "candidate",
        v1::Role::Leader => "leader",
    }
}
