//! All metrics of a node, collected when somebody asks.
//!
//! One table per part of the node: name, what it means, values. Units are in the names;
//! `operations.md` explains which of them to watch.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::page::{Labels, Page};
use super::traffic;
use crate::api::connections::Counts;
use crate::api::context::NodeInfo;
use crate::api::process::ProcessFacts;
use crate::autopilot::AutopilotChange;
use crate::consensus::{ProgressState, ReplicaStatus, Role};
use crate::machine::BodyKind;
use crate::node::{
    Ending, JobKind, MachineView, NodeHandle, NotAsked, NotRun, Refusal, SessionEnd,
};
use crate::rehearsal::Kind;
use crate::types::Space;

/// How long a busy event loop is waited for; the rest is shown without its part.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// What is known at one moment.
pub(super) struct Scrape {
    handle: NodeHandle,
    info: Arc<NodeInfo>,
    view: Option<Arc<MachineView>>,
    status: Option<ReplicaStatus>,
    data_dir_bytes: u64,
    process: ProcessFacts,
    /// Connections of the port that this is asked by.
    own_connections: Counts,
}

impl Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.node(&mut page)?;
        self.guest(&mut page)?;
        self.queries(&mut page)?;
        self.raft(&mut page)?;
        self.digests(&mut page)?;
        self.clocks(&mut page)?;
        self.requests(&mut page)?;
        self.sessions(&mut page)?;
        let info = &self.info;
        traffic::calls(&mut page, &info.traffic)?;
        traffic::connections(&mut page, info.traffic.connections(), self.own_connections)?;
        let here = self.handle.queues(self.status.as_ref());
        traffic::queues(&mut page, &here, &info.traffic.queues(), &(info.peer_queues)())?;
        self.storage(&mut page)?;
        self.backups(&mut page)?;
        self.autopilot(&mut page)?;
        super::audit::written(&mut page, info.audit.as_deref())?;
        self.scrubs(&mut page)?;
        super::tls::tls(&mut page, self.info.tls.as_deref())
    }
}

impl Scrape {
    pub(super) async fn of(
        handle: NodeHandle,
        info: Arc<NodeInfo>,
        own_connections: Counts,
    ) -> Scrape {
        let status = tokio::time::timeout(STATUS_PATIENCE, handle.status()).await;
        let measured = Arc::clone(&info);
        let sizes = move || ((measured.data_dir_bytes)(), (measured.process)());
        // Its only way to fail is a panic, which is on the log.
        let sizes = tokio::task::spawn_blocking(sizes).await.unwrap_or_default();
        Scrape {
            view: handle.machine().borrow().clone(),
            status: status.ok().and_then(Result::ok),
            data_dir_bytes: sizes.0,
            process: sizes.1,
            handle,
            info,
            own_connections,
        }
    }

    /// OpenMetrics text.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn node(&self, page: &mut Page<'_>) -> fmt::Result {
        let identity = self.handle.identity();
        page.info(
            "raft_host",
            "What runs here.",
            &[
                ("version", self.info.version.clone()),
                ("storage", self.info.storage.clone()),
                ("memory_backend", self.handle.memory_backend().to_owned()),
                ("cluster", identity.cluster.to_string()),
                ("node", identity.node.to_string()),
            ],
        )?;
        let serving = u64::from(self.handle.is_serving());
        page.gauge(
            "raft_host_serving",
            "1 when clients should send requests to this node.",
            serving,
        )?;
        let rivals = self.handle.rivals().borrow().clone();
        page.counter(
            "raft_host_rival_hellos",
            "Times that a member of another cluster dialled this node.",
            [(vec![], rivals.hellos)],
        )?;
        page.gauge(
            "raft_host_unconfirmed",
            "1 while this node serves nobody because another cluster has a member with its address.",
            u64::from(rivals.is_unconfirmed()),
        )?;
        page.gauge(
            "raft_host_drained",
            "1 while an operator has taken this node off duty.",
            u64::from(self.handle.is_off_duty()),
        )?;
        let stuck = self.handle.stuck_write().borrow().unwrap_or_default().as_secs_f64();
        page.seconds(
            "raft_host_log_write_stuck",
            "For how long the disk has not answered a write of the log, once that is an election \
             timeout; else 0.",
            stuck,
        )?;
        self.disk(page)?;
        let uptime = self.handle.started().elapsed().as_secs_f64();
        page.seconds("raft_host_uptime", "Time since the node started.", uptime)?;
        page.bytes(
            "process_resident_memory",
            "Memory of the process that is in use, as the system counts it.",
            self.process.resident_bytes,
        )?;
        page.bytes(
            "process_virtual_memory",
            "Addresses that the process has reserved; most are never used.",
            self.process.virtual_bytes,
        )?;
        page.gauge("process_open_fds", "Open files and sockets.", self.process.open_descriptors)?;
        page.gauge("process_max_fds", "How many there may be.", self.process.max_descriptors)?;
        page.gauge("process_threads", "Threads.", self.process.threads)?;
        page.seconds_counter(
            "process_cpu",
            "Processor time of all threads since the start.",
            self.process.processor_time.as_secs_f64(),
        )?;
        page.seconds(
            "process_start_time",
            "When the process began, since the Unix epoch.",
            self.process.start.as_secs_f64(),
        )?;
        page.counter(
            "raft_host_guest_log_lines_dropped",
            "Log lines of the guest that were not written because there were too many.",
            [(vec![], (self.info.guest_lines_dropped)())],
        )
    }

    fn disk(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "raft_host_read_only",
            "1 while this node leads and takes no new commands for want of space.",
            u64::from(self.is_leader() && self.handle.no_space().is_some()),
        )?;
        let Some(disk) = self.handle.disk() else { return Ok(()) };
        page.bytes(
            "raft_host_disk_free",
            "What this node can still write to its disk.",
            disk.free,
        )?;
        page.bytes("raft_host_disk_size", "All of its disk.", disk.total)?;
        page.bytes(
            "raft_host_disk_low_limit",
            "With less free space it takes no new commands, with half of it next to no entries.",
            disk.low,
        )?;
        page.bytes("raft_host_disk_reserve", "What the file RESERVE holds.", disk.reserve)?;
        page.gauges(
            "raft_host_disk_space",
            "1 for what the free space of its disk means to this node.",
            Space::ALL.map(|space| {
                let labels = vec![("state", space.name().to_owned())];
                (labels, u64::from(space == disk.space))
            }),
        )?;
        page.gauge(
            "raft_host_disk_slow",
            "1 while one in a hundred writes of the log takes longer than node.slow_sync_ms.",
            u64::from(disk.is_slow),
        )?;
        let Some(p99) = disk.sync_p99 else { return Ok(()) };
        page.seconds(
            "raft_host_log_write_p99",
            "What one in a hundred writes of the log took longer than in the last minute.",
            p99.as_secs_f64(),
        )
    }

    fn is_leader(&self) -> bool {
        self.handle.leadership().borrow().role == Role::Leader
    }

    fn guest(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.handle.metrics();
        let applies = |value: fn(&crate::node::Applies) -> u64| {
            Ending::all()
                .map(move |ending| (ending_labels(ending), value(metrics.applies.of(ending))))
        };
        page.counter(
            "raft_host_applies",
            "Commands that the guest ran, by how they ended.",
            applies(|applies| applies.count.get()),
        )?;
        page.counter(
            "raft_host_apply_fuel",
            "Fuel that those commands used.",
            applies(|applies| applies.fuel.get()),
        )?;
        page.counter(
            "raft_host_apply_pages_samples",
            "Commands of which the written pages of memory were counted: one in 1024, and those \
             that somebody asked about. None where the host cannot tell.",
            applies(|applies| applies.pages_samples.get()),
        )?;
        page.counter(
            "raft_host_apply_pages_dirtied",
            "Pages of guest memory (4 KiB) that the sampled commands wrote.",
            applies(|applies| applies.pages_dirtied.get()),
        )?;
        page.counter(
            "raft_host_commands_not_run",
            "Commands that were committed but that the guest did not see, by reason.",
            NotRun::ALL.iter().map(|reason| {
                let count = metrics.commands_not_run[*reason as usize].get();
                (vec![("reason", reason.label().to_owned())], count)
            }),
        )?;
        let kinds = BodyKind::ALL.into_iter().map(Some).chain([None]);
        page.counter(
            "raft_host_entries_applied",
            "Entries of the log that were applied since the start, by what they hold.",
            kinds.map(|kind| {
                let name = kind.map_or("membership", BodyKind::name);
                (vec![("kind", name.to_owned())], metrics.entries_applied(kind))
            }),
        )?;
        page.durations(
            "raft_host_apply_duration",
            "Time to apply an entry.",
            &metrics.apply_duration,
        )?;
        page.counter(
            "raft_host_slow_jobs",
            "Jobs of the apply thread that took longer than node.slow_apply_ms.",
            JobKind::ALL
                .map(|kind| (vec![("job", kind.name().to_owned())], metrics.slow_jobs(kind))),
        )?;
        let Some(view) = &self.view else { return Ok(()) };
        if let Some(active) = &view.info.active {
            page.info(
                "raft_host_module",
                "The module that is active.",
                &[("hash", active.hash.to_string()), ("label", active.label.clone())],
            )?;
            let index = active.activated_at.0;
            page.gauge("raft_host_module_index", "Index at which it became active.", index)?;
        }
        page.bytes(
            "raft_host_guest_memory",
            "Size of the guest's memory.",
            view.info.guest_memory_bytes,
        )?;
        page.bytes(
            "raft_host_guest_memory_limit",
            "What the guest's memory may grow to.",
            view.info.limits.memory_max_bytes,
        )?;
        page.gauge("raft_host_sessions", "Open sessions.", view.info.sessions)?;
        page.gauge("raft_host_level", "What the log may hold.", u64::from(view.info.level.0))?;
        page.bytes(
            "raft_host_session_responses",
            "Answers that sessions keep until their clients acknowledge them.",
            view.info.session_bytes,
        )
    }

    fn queries(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.handle.metrics();
        let queries = |value: fn(&crate::node::Queries) -> u64| {
            Ending::all()
                .map(move |ending| (ending_labels(ending), value(metrics.queries.of(ending))))
        };
        page.counter(
            "raft_host_queries",
            "Queries that this node's guest answered, by how they ended.",
            queries(|queries| queries.count.get()),
        )?;
        page.counter(
            "raft_host_query_fuel",
            "Fuel that those queries used.",
            queries(|queries| queries.fuel.get()),
        )?;
        page.counter(
            "raft_host_queries_not_asked",
            "Queries that the guest was not asked, or this host could not run, by reason.",
            NotAsked::ALL.iter().map(|reason| {
                let count = metrics.queries_not_asked[*reason as usize].get();
                (vec![("reason", reason.label().to_owned())], count)
            }),
        )
    }

    fn clocks(&self, page: &mut Page<'_>) -> fmt::Result {
        let clocks = self.handle.clocks().borrow().clone();
        page.seconds(
            "raft_host_log_clock",
            "The log's clock, in seconds since the Unix epoch.",
            self.handle.log_time_ms() as f64 / 1e3,
        )?;
        page.gauge(
            "raft_host_clock_alarm",
            "1 when people should look at what status says about clocks.",
            u64::from(clocks.alarm.is_some()),
        )?;
        if let Some(offset) = clocks.offset_ms {
            page.seconds(
                "raft_host_clock_offset",
                "How far this node's clock is ahead of what the clocks of most voters agree on.",
                offset as f64 / 1e3,
            )?;
        }
        if let Some(is_agreed) = clocks.is_agreed {
            page.gauge(
                "raft_host_clock_agreed",
                "On the leader: 1 while the clocks of most voters agree.",
                u64::from(is_agreed),
            )?;
        }
        if let Some(ahead) = clocks.log_ahead_ms {
            page.seconds(
                "raft_host_log_clock_ahead",
                "On the leader: how far the log's clock is ahead of what they agree on.",
                ahead as f64 / 1e3,
            )?;
        }
        Ok(())
    }

    fn digests(&self, page: &mut Page<'_>) -> fmt::Result {
        let digests = self.handle.digests().borrow().clone();
        let counters = digests.counters;
        let totals = [
            ("raft_host_digest_points", "Digest points that were applied.", counters.points),
            (
                "raft_host_digest_verdicts",
                "Verdicts about them that were applied.",
                counters.verdicts,
            ),
            (
                "raft_host_digest_verdicts_undecided",
                "Verdicts in which no digest had a majority.",
                counters.undecided,
            ),
            (
                "raft_host_quarantines",
                "Times that this node's state was found to differ from its cluster's.",
                counters.quarantines,
            ),
            ("raft_host_quarantines_healed", "Times that a fresh state ended it.", counters.healed),
        ];
        for (name, help, total) in totals {
            page.counter(name, help, [(vec![], total)])?;
        }
        page.gauge(
            "raft_host_quarantined",
            "1 while this node's state is known to differ from its cluster's. It answers nothing.",
            u64::from(digests.quarantine.is_some()),
        )?;
        page.gauge(
            "raft_host_in_doubt",
            "1 while the replicas disagree and nothing says who is right. It answers nothing.",
            u64::from(digests.doubt.is_some()),
        )?;
        page.gauge(
            "raft_host_digest_alarm",
            "1 when people should look at what status says about digests.",
            u64::from(digests.alarm.is_some()),
        )?;
        page.gauge(
            "raft_host_digest_agreed_index",
            "Newest digest point at which this node agreed with the majority; 0: none yet.",
            digests.agreed.0,
        )
    }

    fn raft(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "raft_host_leader_changes",
            "Times that a leader became known here that was not the one before.",
            [(vec![], self.handle.metrics().leader_changes.get())],
        )?;
        page.counter(
            "raft_host_peer_nonsense",
            "Messages that no correct peer sends to this node; the log names who did.",
            [(vec![], self.handle.metrics().nonsense.get())],
        )?;
        if let Some(view) = &self.view {
            page.gauge(
                "raft_host_applied_index",
                "Index of the last applied entry.",
                view.info.applied.0,
            )?;
            page.gauge(
                "raft_host_voters",
                "Voters of the configuration in force.",
                view.conf_state.voters.len() as u64,
            )?;
        }
        let Some(status) = &self.status else { return Ok(()) };
        page.gauges(
            "raft_host_role",
            "1 for what this node is.",
            [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader].map(|role| {
                (vec![("role", role_name(role).to_owned())], u64::from(role == status.role))
            }),
        )?;
        let leader = status.leader.map_or(0, |leader| leader.0);
        page.gauge("raft_host_leader_id", "The leader's node id; 0: none is known.", leader)?;
        page.gauge("raft_host_term", "The current term.", status.term.0)?;
        page.gauge(
            "raft_host_level_offered",
            "The highest level that this program knows.",
            u64::from(self.handle.offered_level().0),
        )?;
        page.gauge(
            "raft_host_commit_index",
            "Highest index known to be committed.",
            status.commit.0,
        )?;
        page.gauge("raft_host_last_index", "Last index in the log.", status.last_index.0)?;
        page.gauge("raft_host_first_index", "First index in the log.", status.first_index.0)?;
        page.gauge("raft_host_snapshot_index", "Index of the newest snapshot.", status.snapshot.0)?;
        let me = self.handle.identity().node;
        let peers = status.peers.iter().filter(|peer| peer.node != me);
        page.gauges(
            "raft_host_peer_matched_index",
            "On the leader: the highest index known to be durable on a peer.",
            peers.map(|peer| {
                let state = match peer.state {
                    ProgressState::Probe => "probe",
                    ProgressState::Replicate => "replicate",
                    ProgressState::Snapshot => "snapshot",
                };
                let labels = vec![("peer", peer.node.to_string()), ("state", state.to_owned())];
                (labels, peer.matched.0)
            }),
        )
    }

    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.handle.metrics();
        page.counter(
            "raft_host_proposals",
            "Requests to append an entry that reached this node.",
            [(vec![], metrics.proposals.get())],
        )?;
        page.counter(
            "raft_host_proposals_failed",
            "Those of them that failed, by reason; unknown: the entry may have been applied.",
            Refusal::ALL.iter().map(|reason| {
                let count = metrics.proposals_failed[*reason as usize].get();
                (vec![("reason", reason.label().to_owned())], count)
            }),
        )?;
        page.durations(
            "raft_host_commit_duration",
            "Time from when what was to be appended reached this node, as leader, until its entry was \
             committed, durable here and handed to the apply thread; of the first command of an entry.",
            &metrics.commit_duration,
        )?;
        page.durations(
            "raft_host_committed_apply_duration",
            "Time from then on until the entry was applied and its commands had their answers.",
            &metrics.committed_apply_duration,
        )?;
        page.bytes(
            "raft_host_inflight",
            "Bytes of requests that wait to be proposed, committed or applied.",
            self.handle.inflight_bytes(),
        )?;
        page.bytes(
            "raft_host_inflight_limit",
            "With more than that in flight, requests are answered \"busy\".",
            self.handle.config().max_inflight_bytes,
        )
    }

    fn sessions(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.handle.metrics();
        page.counter(
            "raft_host_sessions_opened",
            "Sessions that were opened.",
            [(vec![], metrics.sessions_opened.get())],
        )?;
        page.counter(
            "raft_host_sessions_refused",
            "Sessions that were not opened because there were too many.",
            [(vec![], metrics.sessions_refused.get())],
        )?;
        page.counter(
            "raft_host_sessions_ended",
            "Sessions that ended: closed by their clients, or not used for their time to live.",
            SessionEnd::ALL.iter().map(|reason| {
                let count = metrics.sessions_ended[*reason as usize].get();
                (vec![("reason", reason.label().to_owned())], count)
            }),
        )
    }

    /// All 0 on a node that takes none by itself.
    fn backups(&self, page: &mut Page<'_>) -> fmt::Result {
        let report = self.info.backups.as_ref().map(|board| board.report()).unwrap_or_default();
        page.counter(
            "raft_host_backups",
            "Backups on schedule since the start: saved, and failed.",
            [
                (vec![("result", "saved".to_owned())], report.saved),
                (vec![("result", "failed".to_owned())], report.failed),
            ],
        )?;
        page.seconds(
            "raft_host_backup_newest_timestamp",
            "When the newest backup of the cluster was saved that this node knows of; 0: none.",
            report.newest_ms.unwrap_or(0) as f64 / 1_000.0,
        )?;
        page.bytes(
            "raft_host_backup_size",
            "Size of the newest backup in this node's directory; 0: there is none.",
            report.last.map_or(0, |last| last.bytes),
        )
    }

    fn autopilot(&self, page: &mut Page<'_>) -> fmt::Result {
        let board = &self.info.autopilot;
        page.counter(
            "raft_host_autopilot_changes",
            "Changes of the members that this node, as the leader, has made by itself, by what they did.",
            AutopilotChange::ALL.map(|change| {
                (vec![("change", change.label().to_owned())], board.counted(change))
            }),
        )
    }

    /// All 0 on a node that never looks at its disk.
    fn scrubs(&self, page: &mut Page<'_>) -> fmt::Result {
        let board = self.info.scrubs.as_ref();
        let report = board.map(|board| board.report()).unwrap_or_default();
        page.seconds(
            "raft_host_scrub_newest_timestamp",
            "When everything that is stored was last read to its end; 0: not since the start.",
            report.last_ms.unwrap_or(0) as f64 / 1_000.0,
        )?;
        page.byte_counter(
            "raft_host_scrub_read",
            "What scrubs have read since the start.",
            report.read_bytes,
        )?;
        page.counter(
            "raft_host_scrub_damages",
            "Damaged files that scrubs have found since the start.",
            [(vec![], report.found)],
        )?;
        page.counter(
            "raft_host_scrub_damages_mended",
            "Of them, those that were mended.",
            [(vec![], report.mended)],
        )
    }

    fn storage(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.handle.metrics();
        page.durations(
            "raft_host_log_write_duration",
            "Time to write a batch of the log, with its fsync.",
            &metrics.log_write_duration,
        )?;
        page.counter(
            "raft_host_log_entries_written",
            "Entries in those batches.",
            [(vec![], metrics.log_entries_written.get())],
        )?;
        page.byte_counter(
            "raft_host_log_written",
            "Bytes of those entries.",
            metrics.log_bytes_written.get(),
        )?;
        page.counter(
            "raft_host_snapshots",
            "Snapshots since the start: written, failed to be written, and received from a leader.",
            [
                (vec![("result", "saved".to_owned())], metrics.snapshots_saved.get()),
                (vec![("result", "failed".to_owned())], metrics.snapshots_failed.get()),
                (vec![("result", "installed".to_owned())], metrics.snapshots_installed.get()),
            ],
        )?;
        page.bytes(
            "raft_host_snapshot_size",
            "Size of the newest snapshot; 0: there is none.",
            metrics.snapshot_bytes.get(),
        )?;
        page.seconds(
            "raft_host_snapshot_newest_timestamp",
            "The log's clock as of the newest snapshot, since the Unix epoch; 0: there is none, or only \
             that of an empty cluster.",
            metrics.snapshot_time_ms.get() as f64 / 1_000.0,
        )?;
        page.durations(
            "raft_host_snapshot_capture_duration",
            "How long applies stood still for a snapshot.",
            &metrics.snapshot_capture_duration,
        )?;
        page.durations(
            "raft_host_switch_duration",
            "How long applies stood still for another module.",
            &metrics.switch_duration,
        )?;
        page.durations(
            "raft_host_rehearsal_duration",
            "How long rehearsals of a module took, beside the commands.",
            &metrics.rehearsal_duration,
        )?;
        self.shadows(page)?;
        page.durations(
            "raft_host_snapshot_write_duration",
            "Time to write a snapshot, beside applies.",
            &metrics.snapshot_write_duration,
        )?;
        page.bytes(
            "raft_host_data_dir",
            "Length of all files of the data directory; 0 without one.",
            self.data_dir_bytes,
        )
    }
    fn shadows(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.handle.metrics();
        page.gauge(
            "raft_host_shadow_running",
            "Whether another module runs in the shadow of the active one.",
            metrics.shadows_running.get(),
        )?;
        page.counter(
            "raft_host_shadow_commands",
            "Commands that shadows have executed and compared.",
            [(vec![], metrics.shadow_commands.get())],
        )?;
        page.counter(
            "raft_host_shadow_differences",
            "What modules in the shadow did otherwise than the active one, by kind.",
            Kind::ALL.map(|kind| {
                (vec![("kind", kind.name().to_owned())], metrics.shadow_differences(kind))
            }),
        )?;
        page.gauge(
            "raft_host_shadow_lag_commands",
            "Commands that the active module has executed, and the one in the shadow not yet.",
            metrics.shadow_waiting.get(),
        )
    }
}

fn ending_labels(ending: Ending) -> Labels {
    match ending {
        Ending::Ok => vec![("outcome", "ok".to_owned())],
        Ending::Rejected => vec![("outcome", "rejected".to_owned())],
        Ending::Trapped(kind) => {
            vec![("outcome", "trapped".to_owned()), ("trap", kind.name().to_owned())]
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre_candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}
