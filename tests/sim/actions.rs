//! What an action is called, and how long it lasts.

use super::plan::Action;

impl Action {
    /// How long it disturbs more than itself, as far as that is planned.
    pub fn lasts_us(&self) -> u64 {
        match self {
            Action::Partition { for_us, .. }
            | Action::Isolate { for_us, .. }
            | Action::CutLink { for_us, .. }
            | Action::SlowLink { for_us, .. }
            | Action::Weather { for_us, .. }
            | Action::Pause { for_us, .. }
            | Action::StallDisk { for_us, .. }
            | Action::HangLeadersDisk { for_us }
            | Action::SlowDisk { for_us, .. }
            | Action::FillDisk { for_us, .. }
            | Action::LittleSpace { for_us, .. }
            | Action::LittleSpaceForAll { for_us, .. } => *for_us,
            Action::Kill { down_us, .. }
            | Action::KillAll { down_us, .. }
            | Action::FailSync { down_us, .. }
            | Action::Install { down_us, .. } => *down_us,
            _ => 0,
        }
    }

    /// For the summary.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Partition { .. } => "partition",
            Action::Isolate { inbound: true, outbound: true, .. } => "isolation",
            Action::Isolate { .. } => "one-way isolation",
            Action::CutLink { both_ways: true, .. } => "cut link",
            Action::CutLink { .. } => "one-way cut link",
            Action::SlowLink { .. } => "slow link",
            Action::Weather { .. } => "bad network",
            Action::ResetConnections { .. } => "connection reset",
            Action::Kill { .. } => "planned kill",
            Action::KillAll { .. } => "kill of all",
            Action::Pause { .. } => "pause",
            Action::ClockJump { .. } => "clock jump",
            Action::ClockDrift { .. } => "clock drift",
            Action::StallDisk { .. } => "stuck disk",
            Action::HangLeadersDisk { .. } => "hung disk of a leader",
            Action::SlowDisk { .. } => "slow disk",
            Action::FailSync { .. } => "failing fsync",
            Action::FillDisk { .. } => "full disk",
            Action::LittleSpace { .. } => "little space",
            Action::LittleSpaceForAll { .. } => "little space for all",
            Action::Rot { .. } => "bit rot",
            Action::MisdirectWrite { .. } => "misdirected write",
            Action::LoseWrite { .. } => "lost write",
            Action::Replace { .. } => "replaced node",
            Action::Rejoin { .. } => "wiped member that rejoins",
            Action::Move { .. } => "move to another address",
            Action::StartTwice { .. } => "second start",
            Action::Join { .. } => "join",
            Action::Remove { .. } => "removal",
            Action::Transfer { .. } => "leadership transfer",
            Action::Snapshot { .. } => "snapshot on demand",
            Action::Upgrade { .. } => "upgrade",
            Action::SetLimits { .. } => "limits changed",
            Action::SetKeys { .. } => "keys changed",
            Action::UpgradeSigned { .. } => "signed upgrade",
            Action::UpgradeRehearsed { .. } => "rehearsed upgrade",
            Action::Shadow { .. } => "shadow",
            Action::Rewind => "upgrade undone",
            Action::TryRewind { .. } => "undoing tried",
            Action::SettleUpgrade => "upgrade confirmed",
            Action::Renew { .. } => "module renewed",
            Action::Install { next: true, .. } => "newer program",
            Action::Install { .. } => "older program",
            Action::RaiseLevel => "level raised by hand",
            Action::SetRights { .. } => "rights changed",
            Action::MakeJoinToken { .. } => "join token",
            Action::EndJoinToken { .. } => "join token revoked",
            Action::BringToken { .. } => "newcomer with a token",
            Action::StallMachine { .. } => "slow apply",
            Action::PlanRecovery { .. } => "recovery planned",
            Action::Recover { .. } => "recovery",
            Action::Backup { .. } => "backup",
            Action::Restore { exported: true, .. } => "import",
            Action::Restore { .. } => "restore",
            Action::FlipBit { .. } => "bit flip",
        }
    }
}
