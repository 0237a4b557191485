//! Plans in words: the shape of a run, and what goes wrong in it.

use std::fmt;

use super::plan::{Action, Boundary, Pick, Plan, Planned, Quality};

/// A time as people write it.
fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} us"),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

impl Plan {
    /// A few lines on the cluster and its limits.
    pub fn header(&self) -> String {
        let shape = &self.shape;
        let (node, consensus, storage) = (&shape.node, &shape.consensus, &shape.storage);
        let network = &shape.network;
        format!(
            "seed {}: guest {}; {} voters, {} learners; {} clients with {} operations each on {} \
             keys\n\
             clients: pause up to {}; of 1000 operations {} read, of 1000 commands {} are odd, of \
             1000 clients {} have no session; of 1000 sessions {} are ordered; \
             of 1000 entries {} hold 2 to {} commands\n\
             timing: heartbeat {} ms, election {} ms; fsync up to {}, step up to {}; messages \
             {} to {}, of 1000 {} lost and {} doubled\n\
             snapshots: every {} entries or more, growth {} %, {} kept; {} entries and {} bytes \
             trail, those of {} ms as well, {} bytes are held for peers; promotion lag {}\n\
             limits: {} bytes per message, {} messages in flight, {} bytes uncommitted, {} \
             unapplied; {} on their way to a peer; a link takes {} bytes per message, {} bytes and {} \
             messages at a time; entry cache {}, recent entries {}; log files {} bytes, compressed above {}\n\
             digests compared after {} entries, or {} ms (0: never)\n\
             levels {}\n\
             faults for {}: {} actions\n",
            self.seed,
            shape.guest,
            shape.voters,
            shape.learners,
            shape.clients,
            shape.operations,
            shape.keys,
            time(shape.think_us),
            shape.reads_per_mille,
            shape.odd_per_mille,
            shape.sessionless_per_mille,
            shape.ordered_per_mille,
            shape.batches_per_mille,
            shape.batch_max,
            node.heartbeat_ms,
            node.election_ms,
            time(shape.fsync_us),
            time(shape.step_us),
            time(network.delay_min_us),
            time(network.delay_max_us),
            network.loss_per_mille,
            network.duplicate_per_mille,
            node.snapshot.threshold,
            node.snapshot.growth_percent,
            node.snapshot.keep,
            consensus.trailing_logs,
            consensus.trailing_bytes,
            consensus.trailing_ms,
            consensus.held_bytes,
            consensus.promotion_lag,
            consensus.max_append_bytes,
            consensus.max_inflight_messages,
            consensus.max_uncommitted_bytes,
            consensus.max_unapplied_bytes,
            consensus.append_window_bytes,
            shape.link.message_bytes,
            shape.link.queue_bytes,
            shape.link.queue_messages,
            consensus.entry_cache_bytes,
            storage.recent_entries_bytes,
            storage.log_file_bytes,
            storage.compress_above_bytes,
            node.digest.every_commands,
            node.digest.every_ms,
            match (shape.levels, node.level_settle_ms) {
                (false, _) => "are all the same".to_owned(),
                (true, 0) => "differ, and are raised by hand".to_owned(),
                (true, ms) => format!("differ, and are raised after {ms} ms"),
            },
            time(shape.faults_us),
            self.actions.len(),
        )
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.at.0 as f64 / 1e6;
        // Whom it meets is decided when the time comes.
        let words = self.action.words(|_| "some node".to_owned());
        write!(f, "#{}, {after:.3} s into the faults: {words}", self.number)
    }
}

impl Action {
    /// What is done to whom; `name` says who a pick is.
    pub fn words(&self, name: impl Fn(Pick) -> String) -> String {
        match *self {
            Action::Partition { sides, for_us } => {
                let sides: String =
                    (0..8).map(|slot| if sides >> slot & 1 == 1 { 'b' } else { 'a' }).collect();
                format!("partition for {} (n0, n1, … on sides {sides}…)", time(for_us))
            }
            Action::Isolate { node, inbound, outbound, for_us } => {
                let way = match (inbound, outbound) {
                    (true, true) => "neither hears nor is heard",
                    (true, false) => "hears nobody",
                    (false, _) => "is heard by nobody",
                };
                format!("{} {way} for {}", name(node), time(for_us))
            }
            Action::CutLink { from, to, both_ways, for_us } => {
                let way = if both_ways { "and back, " } else { "" };
                format!("link from {} to {} cut, {way}for {}", name(from), name(to), time(for_us))
            }
            Action::SlowLink { from, to, delay_us, for_us } => format!(
                "link from {} to {} takes {} longer for {}",
                name(from),
                name(to),
                time(delay_us),
                time(for_us)
            ),
            Action::Weather { quality, for_us } => weather(&quality, for_us),
            Action::ResetConnections { node } => format!("connections of {} break", name(node)),
            Action::Kill { node, power_loss, when, down_us } => {
                let what = if power_loss { "loses power" } else { "is killed" };
                format!("{} {what} {}, back after {}", name(node), moment(when), time(down_us))
            }
            Action::KillAll { power_loss, down_us } => {
                let what = if power_loss { "lose power" } else { "are killed" };
                format!("all nodes {what}, back after {}", time(down_us))
            }
            Action::Pause { node, for_us } => {
                format!("{} stands still for {}", name(node), time(for_us))
            }
            Action::ClockJump { node, by_ms } => {
                format!("clock of {} jumps {by_ms} ms", name(node))
            }
            Action::ClockDrift { node, ppm } => format!("clock of {} drifts {ppm} ppm", name(node)),
            _ => self.words_on_disks(name),
        }
    }

    fn words_on_disks(&self, name: impl Fn(Pick) -> String) -> String {
        match *self {
            Action::StallDisk { node, for_us } => {
                format!("disk of {} is stuck for {}", name(node), time(for_us))
            }
            Action::StallMachine { node, for_us } => {
                format!("{} applies nothing for {}", name(node), time(for_us))
            }
            Action::HangLeadersDisk { for_us } => {
                format!("the leader's disk hangs for {}", time(for_us))
            }
            Action::SlowDisk { node, fsync_us, for_us } => {
                let (fsync, long) = (time(fsync_us), time(for_us));
                format!("an fsync of {} takes up to {fsync} for {long}", name(node))
            }
            Action::FailSync { node, down_us } => {
                format!("the next fsync of {} fails, back after {}", name(node), time(down_us))
            }
            Action::FillDisk { node, spare_bytes, for_us } => {
                format!("disk of {} has {spare_bytes} bytes left for {}", name(node), time(for_us))
            }
            Action::LittleSpace { node, critical, spare_bytes, for_us } => format!(
                "disk of {} is {} with {spare_bytes} bytes left for {}",
                name(node),
                if critical { "critical" } else { "low" },
                time(for_us)
            ),
            Action::LittleSpaceForAll { critical, spare_bytes, for_us } => format!(
                "all disks are {} with {spare_bytes} bytes left for {}",
                if critical { "critical" } else { "low" },
                time(for_us)
            ),
            Action::Rot { node } => format!("a bit rots on the disk of {}", name(node)),
            Action::MisdirectWrite { node } => {
                format!("the next write of {} goes to another place", name(node))
            }
            Action::LoseWrite { node } => format!("the next write of {} gets lost", name(node)),
            _ => self.words_on_operators(name),
        }
    }

    fn words_on_operators(&self, name: impl Fn(Pick) -> String) -> String {
        match *self {
            Action::Replace { node } => {
                format!("{} loses its disk and is replaced", name(node))
            }
            Action::Rejoin { node } => {
                format!("{} loses its disk and joins again under its address", name(node))
            }
            Action::Move { node } => format!("{} moves to another address", name(node)),
            Action::StartTwice { node } => format!("{} is started while it runs", name(node)),
            Action::Join { promote: true } => "a voter joins".to_owned(),
            Action::Join { promote: false } => "a learner joins".to_owned(),
            Action::Remove { node } => format!("{} is to be removed", name(node)),
            Action::Transfer { to } => format!("leadership is to go to {}", name(to)),
            Action::Snapshot { node } => format!("{} is to take a snapshot", name(node)),
            Action::Upgrade { version } => format!("upgrade to version {version}"),
            Action::Install { node, next, down_us } => {
                let which = if next { "newer" } else { "older" };
                format!("{} gets the {which} program, down for {}", name(node), time(down_us))
            }
            Action::PlanRecovery { .. } => "somebody looks what can be recovered".to_owned(),
            Action::Recover { .. } => {
                "a cluster is made of what can be recovered, beside this one".to_owned()
            }
            Action::Backup { node } => format!("a backup of {}", name(node)),
            Action::Restore { exported: false, .. } => {
                "a cluster is made of a backup, beside this one".to_owned()
            }
            Action::Restore { .. } => {
                "a cluster is made of what a backup exports, beside this one".to_owned()
            }
            Action::RaiseLevel => "an operator raises the level".to_owned(),
            Action::SetRights { client, choice } => {
                format!("rights of client {} change (choice {choice})", client.0)
            }
            Action::MakeJoinToken { ttl_ms } => format!("a join token for {ttl_ms} ms"),
            Action::EndJoinToken { choice } => format!("a join token is revoked (choice {choice})"),
            Action::BringToken { choice, are_two } => {
                let who = if are_two {
                    "two nodes come with one join token"
                } else {
                    "a node comes with a join token"
                };
                format!("{who} (choice {choice})")
            }
            Action::SetLimits { choice } => format!("limits change (choice {choice})"),
            Action::SetKeys { choice } => format!("keys change (choice {choice})"),
            Action::UpgradeSigned { version, choice } => {
                format!("upgrade to version {version}, signed somehow (choice {choice})")
            }
            Action::UpgradeRehearsed { version, choice } => {
                format!("upgrade to version {version}, rehearsed (choice {choice})")
            }
            Action::Shadow { node, version, for_us } => {
                let (node, long) = (name(node), time(for_us));
                format!("version {version} runs in the shadow of {node} for {long}")
            }
            Action::Rewind => "the last upgrade is undone".to_owned(),
            Action::TryRewind { nodes, undoes } => {
                let then = if undoes { ", and it is undone" } else { "" };
                format!("undoing the last upgrade is tried (on nodes {:04b}…){then}", nodes & 15)
            }
            Action::SettleUpgrade => "the last upgrade is confirmed".to_owned(),
            Action::Renew { ahead } => {
                format!("the module is renewed{}", if ahead { ", made ahead" } else { "" })
            }
            Action::FlipBit { node, at } => {
                format!("a bit flips in the memory of {} at {at}", name(node))
            }
            // Whoever adds a kind of action need not come here first.
            _ => format!("{} ({self:?})", self.name()),
        }
    }
}

fn weather(quality: &Quality, for_us: u64) -> String {
    let order = if quality.reorders { ", in any order" } else { "" };
    format!(
        "for {} of 1000 messages {} are lost and {} doubled, they take {} to {}{order}",
        time(for_us),
        quality.loss_per_mille,
        quality.duplicate_per_mille,
        time(quality.delay_min_us),
        time(quality.delay_max_us)
    )
}

fn moment(when: Boundary) -> String {
    match when {
        Boundary::Now => "at once".to_owned(),
        Boundary::InWrite(operations) => format!("{operations} steps into its next log write"),
        Boundary::AfterWrite => "right after its next log write".to_owned(),
        Boundary::InSave(operations) => format!("{operations} steps into its next snapshot"),
        Boundary::AfterApply => "right after it applies next".to_owned(),
        Boundary::InPurge(operations) => {
            format!("{operations} steps into its next release of log space")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Fixed;

    #[test]
    fn every_action_that_seeds_draw_has_words() {
        for seed in 0..200 {
            let plan = Plan::draw(seed, &Fixed::default());
            assert!(plan.header().starts_with(&format!("seed {seed}: guest ")));
            for planned in &plan.actions {
                let words = planned.to_string();
                assert!(!words.contains('{'), "{words}");
            }
        }
    }
}
