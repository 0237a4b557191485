//! `Status`: what the asked node knows of itself and of its groups.

use std::time::Duration;

use raft_host_proto::MAIN_GROUP;
use raft_host_proto::v1::{self, Reason};

use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::report::range_to_wire;
use crate::consensus::{PeerProgress, ProgressState, ReplicaStatus, Role};
use crate::node::{Activity, DiskStatus, JobKind, Trying};
use crate::storage::ScrubBoard;
use crate::tls::Tls;
use crate::types::Space;

/// What the apply thread has been at for less is nobody's business.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// The status of this node, with that of the groups that the request names.
pub(super) async fn show(
    context: &Context,
    request: v1::StatusRequest,
) -> Result<v1::StatusResponse, Failure> {
    request.groups.iter().try_for_each(|group| context.check_group(group))?;
    let replica = context.handle.status().await?;
    let info = context.info.clone();
    let measured = tokio::task::spawn_blocking(move || ((info.data_dir_bytes)(), (info.process)()));
    let (data_dir_bytes, process) = measured.await.map_err(|error| {
        Failure::none(Reason::Internal, format!("measuring this node failed: {error}"))
    })?;
    let identity = context.handle.identity();
    Ok(v1::StatusResponse {
        cluster_id: bytes(identity.cluster.0),
        node_id: identity.node.0,
        version: context.info.version.clone(),
        storage: context.info.storage.clone(),
        data_dir_bytes,
        resident_bytes: process.resident_bytes,
        uptime_ms: context.handle.started().elapsed().as_millis() as u64,
        memory_backend: context.handle.memory_backend().to_owned(),
        log_write_stuck_ms: context.handle.stuck_write_ms(),
        rival: super::cluster::rival_to_wire(context),
        disk: context.handle.disk().map(|disk| disk_to_wire(&disk)),
        tls: context.info.tls.as_deref().map(tls_to_wire),
        scrub: context.info.scrubs.as_deref().map(scrubs_to_wire),
        backup: context.info.backups.as_deref().map(super::copies::backups_to_wire),
        drained: context.handle.is_off_duty(),
        autopilot: context.info.autopilot.waits_for().unwrap_or_default(),
        groups: vec![group(context, &replica)],
    })
}

fn disk_to_wire(disk: &DiskStatus) -> v1::DiskStatus {
    use v1::disk_status::Space as Wire;
    let space = match disk.space {
        Space::Ample => Wire::Ample,
        Space::Low => Wire::Low,
        Space::Critical => Wire::Critical,
    };
    v1::DiskStatus {
        space: space.into(),
        free_bytes: disk.free,
        total_bytes: disk.total,
        low_bytes: disk.low,
        critical_bytes: disk.critical,
        reserve_bytes: disk.reserve,
        sync_p99_us: disk.sync_p99.map(|p99| p99.as_micros() as u64),
        alarm: disk.alarm.clone().unwrap_or_default(),
    }
}

fn tls_to_wire(tls: &Tls) -> v1::TlsStatus {
    let report = tls.report();
    v1::TlsStatus {
        mode: report.mode.name().to_owned(),
        subject: report.subject,
        not_after_ms: report.not_after_ms,
        fingerprint: bytes(report.fingerprint),
        alarm: report.alarm.unwrap_or_default(),
        reloaded_ms: report.reloaded_ms,
    }
}

fn scrubs_to_wire(board: &ScrubBoard) -> v1::ScrubStatus {
    let report = board.report();
    let damages = report.damages.into_iter().map(|known| v1::ScrubDamage {
        file: known.damage.file.display().to_string(),
        offset: known.damage.offset,
        reason: known.damage.reason,
        found_ms: known.found_ms,
        mended: known.is_mended,
        outcome: known.words,
    });
    v1::ScrubStatus {
        every_ms: board.every_ms(),
        running: report.is_running,
        last_ms: report.last_ms,
        read_bytes: report.read_bytes,
        found: report.found,
        mended: report.mended,
        damages: damages.collect(),
        last_error: report.failure.unwrap_or_default(),
        alarm: board.alarm().unwrap_or_default(),
    }
}

fn group(context: &Context, replica: &ReplicaStatus) -> v1::GroupStatus {
    let handle = &context.handle;
    let leader = handle.leadership().borrow().leader.clone();
    let tick = handle.config().tick();
    let activity = handle.activity().filter(|activity| activity.lasting >= WORTH_TELLING);
    let mut status = v1::GroupStatus {
        group: MAIN_GROUP.to_owned(),
        role: role_to_wire(replica.role).into(),
        term: replica.term.0,
        leader_id: replica.leader.map_or(0, |leader| leader.0),
        leader_address: leader.map(|leader| leader.address).unwrap_or_default(),
        not_serving: handle.not_serving().unwrap_or_default().to_owned(),
        first_index: replica.first_index.0,
        last_index: replica.last_index.0,
        commit_index: replica.commit.0,
        snapshot_index: replica.snapshot.0,
        peers: replica.peers.iter().map(|peer| progress_to_wire(peer, tick)).collect(),
        digest: Some(super::digest::status(&handle.digests().borrow())),
        clock: Some(super::clock::status(handle)),
        level: Some(super::level::status(handle)),
        origins: Vec::new(),
        read_only: read_only(context, replica.role),
        activity: activity.map(activity_to_wire),
        rehearsal: handle.trying().map(trying_to_wire),
        ..Default::default()
    };
    if let Some(view) = handle.machine().borrow().clone() {
        let info = &view.info;
        status.applied_index = info.applied.0;
        status.origins = info.origins.iter().map(super::convert::origin_to_wire).collect();
        status.access = Some(super::access::status(&info.access));
        status.sessions = info.sessions;
        status.time_ms = info.time_ms;
        status.profile_hash = bytes(info.engine.hash(&info.limits).0);
        status.module = info.active.as_ref().map(|active| v1::ActiveModule {
            hash: bytes(active.hash.0),
            label: active.label.clone(),
            activated_at: active.activated_at.0,
        });
    }
    status
}

/// Why this node, as the leader, takes no new commands.
fn read_only(context: &Context, role: Role) -> String {
    let why = context.handle.no_space().filter(|_| role == Role::Leader);
    why.map(|why| why.to_string()).unwrap_or_default()
}

fn activity_to_wire(activity: Activity) -> v1::Activity {
    v1::Activity {
        job: job_to_wire(activity.kind).into(),
        index: activity.index.0,
        name: activity.name,
        for_ms: u64::try_from(activity.lasting.as_millis()).unwrap_or(u64::MAX),
    }
}

fn trying_to_wire(Trying { module, base, progress }: Trying) -> v1::RehearsalProgress {
    v1::RehearsalProgress {
        module_hash: bytes(module.0),
        index: progress.index.0,
        range: Some(range_to_wire((base, progress.until))),
        commands: progress.commands,
        differences: progress.differences,
    }
}

fn job_to_wire(kind: JobKind) -> v1::activity::Job {
    use v1::activity::Job;
    match kind {
        JobKind::Apply => Job::Apply,
        JobKind::Activate => Job::Activate,
        JobKind::Query => Job::Query,
        JobKind::Capture => Job::Capture,
        JobKind::Install => Job::Install,
    }
}

fn role_to_wire(role: Role) -> v1::Role {
    match role {
        Role::Follower => v1::Role::Follower,
        Role::PreCandidate => v1::Role::PreCandidate,
        Role::Candidate => v1::Role::Candidate,
        Role::Leader => v1::Role::Leader,
    }
}

fn progress_to_wire(peer: &PeerProgress, tick: Duration) -> v1::PeerProgress {
    use v1::peer_progress::State;
    let state = match peer.state {
        ProgressState::Probe => State::Probe,
        ProgressState::Replicate => State::Replicate,
        ProgressState::Snapshot => State::Snapshot,
    };
    v1::PeerProgress {
        node_id: peer.node.0,
        match_index: peer.matched.0,
        state: state.into(),
        recently_active: peer.recently_active,
        silent_ms: peer
            .silent_ticks
            .map(|ticks| ticks.saturating_mul(tick.as_micros() as u64) / 1000),
    }
}
