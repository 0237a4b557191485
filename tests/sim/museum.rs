//! The seeds that catch the exhibits of the museum of bugs.
//!
//! Whoever changes what a seed means (the plan, the scheduler) looks for new ones with
//! `sim --exhibit NAME --stop-early`.

use std::sync::Arc;

use raft_host::fsm::SharedLoader;
use raft_host::museum::Exhibit;

use super::invariants::Violation;
use super::plan::{Fixed, Plan};
use super::runner;

/// An exhibit, and a run that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Catch {
    /// The bug.
    pub exhibit: Exhibit,
    /// The seed.
    pub seed: u64,
    /// What is not left to the seed.
    pub guest: Option<&'static str>,
    /// Bits flip, whatever the seed says.
    pub flips: bool,
    /// What it violates first.
    pub invariant: &'static str,
}

const fn caught(exhibit: Exhibit, seed: u64, invariant: &'static str) -> Catch {
    Catch { exhibit, seed, guest: None, flips: false, invariant }
}

const fn flipped(exhibit: Exhibit, seed: u64, invariant: &'static str) -> Catch {
    Catch { exhibit, seed, guest: Some("native"), flips: true, invariant }
}

/// At least one for each exhibit, and for each invariant.
pub const CATCHES: &[Catch] = &[
    caught(Exhibit::UncheckedPreviousTerm, 315, "state_machine_safety"),
    caught(Exhibit::AcknowledgedBeforeFsync, 1, "leader_per_term"),
    caught(Exhibit::VoteForgottenAtRestart, 4, "leader_per_term"),
    caught(Exhibit::HardStateOnlyWithEntries, 0, "progress"),
    caught(Exhibit::LogNeverCompacted, 0, "bounded_growth"),
    caught(Exhibit::SnapshotsNeverDropped, 0, "bounded_growth"),
    caught(Exhibit::SnapshotNotSynced, 2, "excused_stops"),
    caught(Exhibit::SessionsNotRestored, 0, "state_machine_safety"),
    caught(Exhibit::OutcomeNotRemembered, 1, "sessions_once"),
    caught(Exhibit::BatchRetriedTwice, 3, "sessions_once"),
    caught(Exhibit::OrderedGapSkipped, 1, "ordered_sessions"),
    caught(Exhibit::BatchHalfUndone, 20, "guest_answers"),
    caught(Exhibit::HostTimeInApply, 0, "state_machine_safety"),
    caught(Exhibit::ActivationRedated, 0, "module_at_one_index"),
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::IncumbentUnchecked, 9, "module_at_one_index")
    },
    caught(Exhibit::TrapKeptAfterCheckpoint, 65, "state_machine_safety"),
    caught(Exhibit::ImageStartSkipped, 2, "nothing_lost"),
    caught(Exhibit::ImageStartSkipped, 0, "state_machine_safety"),
    caught(Exhibit::ConfChangeWhenAppended, 10, "state_machine_safety"),
    caught(Exhibit::UnconfirmedRead, 62, "linearizable"),
    caught(Exhibit::TailForgottenAtRestart, 193, "leader_completeness"),
    caught(Exhibit::TailForgottenAtRestart, 7, "nobody_accused"),
    caught(Exhibit::LostSnapshotUnreported, 28, "progress"),
    caught(Exhibit::ReadAskedOnce, 30, "healthy_serves"),
    caught(Exhibit::LogNotSynced, 18, "log_matching"),
    caught(Exhibit::FailedSyncIgnored, 133, "log_matching"),
    caught(Exhibit::FailedSyncIgnored, 204, "recovery_keeps"),
    caught(Exhibit::ResponsesNotRestored, 26, "sessions_once"),
    caught(Exhibit::ResponsesNotRestored, 0, "state_machine_safety"),
    caught(Exhibit::ChunksNotRestored, 10, "state_machine_safety"),
    caught(Exhibit::ReadBeforeApplied, 62, "linearizable"),
    caught(Exhibit::CommitUnbounded, 0, "nobody_accused"),
    caught(Exhibit::FuelOfHost, 0, "state_machine_safety"),
    caught(Exhibit::PastNotRestored, 2, "state_machine_safety"),
    caught(Exhibit::LeadersClockTrusted, 30, "clock_within_majority"),
    caught(Exhibit::LevelRaisedEarly, 4, "level_offered"),
    caught(Exhibit::UnknownFieldIgnored, 52, "state_machine_safety"),
    flipped(Exhibit::DigestAtReport, 3, "digests_agree"),
    flipped(Exhibit::FirstVoteIsTruth, 3, "digests_agree"),
    flipped(Exhibit::QuarantinedSnapshots, 8, "quarantine_keeps_quiet"),
    flipped(Exhibit::QuarantineLiftedUnhealed, 25, "digests_agree"),
    caught(Exhibit::AddressIsIdentity, 7_200_045, "nobody_accused"),
    caught(Exhibit::RecoveryOfLongest, 9_287, "recovery_keeps"),
    caught(Exhibit::RevokedKeyAccepted, 174, "modules_signed"),
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::ReceiptUnchecked, 1, "upgrades_as_promised")
    },
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::WaitedNotKept, 36, "upgrades_as_promised")
    },
    caught(Exhibit::KeptNotInSnapshot, 10, "state_machine_safety"),
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::AheadOfTheFork, 104, "module_at_one_index")
    },
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::StagedPartTwice, 17_531_036, "upgrades_as_promised")
    },
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::RehearsalFromAnotherBase, 17_531_005, "receipts_equal")
    },
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::ReportWithALocalPart, 17_531_005, "receipts_equal")
    },
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::ReceiptOfAMinority, 17_531_015, "receipts_equal")
    },
    caught(Exhibit::ConfirmedTooEarly, 17_535_092, "upgrades_as_promised"),
    Catch { guest: Some("registers"), ..caught(Exhibit::ShadowGoesOn, 15, "receipts_equal") },
    Catch {
        guest: Some("registers"),
        ..caught(Exhibit::RewindWithoutTheLast, 17_531_253, "upgrades_as_promised")
    },
    Catch { guest: Some("native"), ..caught(Exhibit::RightsAtTheDoorOnly, 8, "rights_at_index") },
    Catch {
        guest: Some("native"),
        ..caught(Exhibit::MembersJudgedAtTheDoor, 40, "rights_at_index")
    },
    Catch {
        guest: Some("native"),
        ..caught(Exhibit::AccessNotInSnapshot, 7, "state_machine_safety")
    },
    Catch { guest: Some("native"), ..caught(Exhibit::SessionsReborn, 1, "restore_keeps") },
    Catch {
        guest: Some("native"),
        ..caught(Exhibit::IncarnationUnchecked, 1, "incarnations_apart")
    },
    Catch { guest: Some("native"), ..caught(Exhibit::IdentityNotSynced, 0, "directory_whole") },
    Catch { guest: Some("native"), ..caught(Exhibit::RemovedComesIn, 1, "members_only") },
    Catch { guest: Some("native"), ..caught(Exhibit::TokenSpentLast, 13, "tokens_once") },
    Catch {
        exhibit: Exhibit::StuckDiskUnwatched,
        seed: 2,
        guest: Some("native"),
        flips: false,
        invariant: "hung_disk_yields",
    },
    Catch {
        exhibit: Exhibit::LimitsNotRestored,
        seed: 36,
        guest: Some("native"),
        flips: false,
        invariant: "state_machine_safety",
    },
];

/// Exhibits that no recorded run catches, and why. Whoever finds a seed moves one to `CATCHES`.
pub const NOT_CAUGHT: &[(Exhibit, &str)] = &[
    (
        Exhibit::SupersededAsDone,
        "hundreds of seeds did not show it: who waits is answered when its entry is replaced",
    ),
    (
        Exhibit::UnsettledAsDone,
        "about one seed in 7,000 shows it; consensus/harness has the test of its story",
    ),
    (
        Exhibit::AskedForOthers,
        "hundreds of seeds did not show it; consensus/harness/forwarding.rs has its story",
    ),
    (
        Exhibit::DamagedSnapshotOffered,
        "a few seeds did not show it; host/src/node/tests/snapshots.rs shows what is to be done",
    ),
    (Exhibit::DoubtAnswers, "looked for by host/src/node/tests/digests.rs only"),
    (Exhibit::QuarantineAnswers, "a few seeds did not show it; clients may never ask"),
    (Exhibit::QuarantinedLeads, "a few seeds did not show it"),
    (Exhibit::ReseedAskedOnce, "a few seeds did not show it"),
    (
        Exhibit::CompactionRunsAway,
        "tens of seeds did not show it; exhibits_of_flow_are_caught does, in consensus/harness",
    ),
    (
        Exhibit::UnboundedAppends,
        "tens of seeds did not show it; exhibits_of_flow_are_caught does, in consensus/harness",
    ),
    (
        Exhibit::UnboundedApplyQueue,
        "tens of seeds did not show it; exhibits_of_flow_are_caught does, in consensus/harness",
    ),
    (
        Exhibit::UnpersistedLeads,
        "tens of seeds did not show it; exhibits_of_flow_are_caught does, in consensus/harness",
    ),
    (
        Exhibit::TruncatedAsSuperseded,
        "it takes five voters and two lost leaders; host/src/node/tests/replaced.rs catches it",
    ),
    (Exhibit::EngineIgnored, "no plan changes the engine profile yet"),
    (Exhibit::EngineNotRestored, "no plan changes the engine profile yet"),
    (Exhibit::EngineChangedLate, "no plan changes the engine profile yet"),
    (Exhibit::GrownMemoryKept, "looked for by host/src/wasm/tests/museum.rs only"),
    (Exhibit::CountedPagesForgotten, "no client counts pages; host/src/wasm/tests/museum.rs does"),
    (
        Exhibit::DigestOfLastCheckpoint,
        "no wasm guest is digested; host/src/wasm/tests/museum.rs does",
    ),
    (
        Exhibit::ResponsesForgotten,
        "no session keeps few enough answers; host/src/machine/tests/sessions.rs has such",
    ),
    (
        Exhibit::StartClockKept,
        "it takes a start between two jumps of a clock, and then only one voter is left; \
         host/src/node/clock/tests.rs does that",
    ),
    (
        Exhibit::TrialOfAnswersOnly,
        "tens of seeds did not show it: few commands end otherwise but in their answers; tests/sim/invariants/trials.rs \
         looks for the like",
    ),
    (Exhibit::ImageBlocksShared, "looked for by host/src/wasm/tests/museum.rs only"),
];

/// Invariants that no recorded run trips yet; their own unit tests do.
pub const NOT_TRIPPED: &[&str] = &["quarantine_heals"];

impl Catch {
    /// Runs the seed, with the bug or without.
    pub fn run(&self, loader: &SharedLoader, with_bug: bool) -> Option<Violation> {
        let fixed = Fixed { guest: self.guest, flips: self.flips, ..Fixed::default() };
        let plan = Arc::new(Plan::draw(self.seed, &fixed));
        runner::run(&plan, loader, with_bug.then_some(self.exhibit), None).violation
    }
}
