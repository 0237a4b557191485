//! The kinds of faults and operations, by name.

use std::fmt;
use std::str::FromStr;

/// What the run does to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of one node, and a restart.
    Kill,
    /// kill -9 of a majority.
    KillMajority,
    /// kill -9 of all nodes.
    KillAll,
    /// SIGSTOP, later SIGCONT; the leader as often as others.
    Pause,
    /// No space left on the disk of one node.
    FullDisk,
    /// fsync takes up to a second and a half on some nodes.
    SlowFsync,
    /// fsync of the leader does not return; it may be asked to end meanwhile.
    HungFsync,
    /// A rolling restart into another version of the program, or back.
    OtherVersion,
    /// Two groups of nodes do not reach each other.
    Partition,
    /// One node hears others but is not heard, or the other way round.
    OneWay,
    /// Some pairs of nodes do not reach each other.
    Partial,
    /// Some links are slow.
    Delay,
    /// Another version of the plugin is made active, or the earlier one again.
    Upgrade,
    /// Leadership is handed over.
    Transfer,
    /// A member is removed, loses its data and joins again as a new one.
    Rejoin,
    /// A snapshot is taken on some node.
    Snapshot,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 16] = [
        Fault::Kill,
        Fault::KillMajority,
        Fault::KillAll,
        Fault::Pause,
        Fault::FullDisk,
        Fault::SlowFsync,
        Fault::HungFsync,
        Fault::OtherVersion,
        Fault::Partition,
        Fault::OneWay,
        Fault::Partial,
        Fault::Delay,
        Fault::Upgrade,
        Fault::Transfer,
        Fault::Rejoin,
        Fault::Snapshot,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillMajority => "kill-majority",
            Fault::KillAll => "kill-all",
            Fault::Pause => "pause",
            Fault::FullDisk => "full-disk",
            Fault::SlowFsync => "slow-fsync",
            Fault::HungFsync => "hung-fsync",
            Fault::OtherVersion => "other-version",
            Fault::Partition => "partition",
            Fault::OneWay => "one-way",
            Fault::Partial => "partial",
            Fault::Delay => "delay",
            Fault::Upgrade => "upgrade",
            Fault::Transfer => "transfer",
            Fault::Rejoin => "rejoin",
            Fault::Snapshot => "snapshot",
        }
    }

    /// Who does it: faults of one lane follow each other, those of different lanes overlap.
    pub(super) fn lane(self) -> Lane {
        match self {
            Fault::Kill
            | Fault::KillMajority
            | Fault::KillAll
            | Fault::Pause
            | Fault::FullDisk
            | Fault::SlowFsync
            | Fault::HungFsync
            | Fault::OtherVersion => Lane::Processes,
            Fault::Partition | Fault::OneWay | Fault::Partial | Fault::Delay => Lane::Network,
            Fault::Upgrade | Fault::Transfer | Fault::Rejoin | Fault::Snapshot => Lane::Operator,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        Fault::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!("no such fault; there are all, none, {}", names.join(", "))
        })
    }
}

/// Three sources of trouble that go on at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Processes,
    Network,
    Operator,
}

impl Lane {
    pub(super) const ALL: [Lane; 3] = [Lane::Processes, Lane::Network, Lane::Operator];
}
