//! What must hold in every run, one file each.
//!
//! An invariant sees every [`Fact`] in order and says what is wrong as soon as it knows. It
//! keeps its own notes and trusts nothing that a node says about itself beyond the fact.

mod bounded_growth;
mod clock_within_majority;
mod digests_agree;
mod directory_whole;
mod excused_stops;
mod guest_answers;
mod healthy_serves;
mod hung_disk_yields;
mod incarnations_apart;
mod leader_completeness;
mod leader_per_term;
mod level_offered;
mod linearizable;
mod log_matching;
mod members_only;
mod module_at_one_index;
mod modules_signed;
mod nobody_accused;
mod notes;
mod nothing_lost;
mod ordered_sessions;
mod progress;
mod quarantine_heals;
mod quarantine_keeps_quiet;
mod receipts_equal;
mod recovery_keeps;
mod restore_keeps;
mod rights_at_index;
mod sessions_once;
mod state_machine_safety;
#[cfg(test)]
mod testing;
mod tokens_once;
mod trials;
mod upgrades_as_promised;

pub use bounded_growth::BoundedGrowth;
pub use clock_within_majority::ClockWithinMajority;
pub use digests_agree::DigestsAgree;
pub use directory_whole::DirectoryWhole;
pub use excused_stops::ExcusedStops;
pub use guest_answers::GuestAnswers;
pub use healthy_serves::HealthyServes;
pub use hung_disk_yields::HungDiskYields;
pub use incarnations_apart::IncarnationsApart;
pub use leader_completeness::LeaderCompleteness;
pub use leader_per_term::LeaderPerTerm;
pub use level_offered::LevelOffered;
pub use linearizable::Linearizable;
pub use log_matching::LogMatching;
pub use members_only::MembersOnly;
pub use module_at_one_index::ModuleAtOneIndex;
pub use modules_signed::ModulesSigned;
pub use nobody_accused::NobodyAccused;
pub use nothing_lost::NothingLost;
pub use ordered_sessions::OrderedSessions;
pub use progress::Progress;
pub use quarantine_heals::QuarantineHeals;
pub use quarantine_keeps_quiet::QuarantineKeepsQuiet;
pub use receipts_equal::ReceiptsEqual;
pub use recovery_keeps::RecoveryKeeps;
pub use restore_keeps::RestoreKeeps;
pub use rights_at_index::RightsAtIndex;
pub use sessions_once::SessionsOnce;
pub use state_machine_safety::StateMachineSafety;
pub use tokens_once::TokensOnce;
pub use upgrades_as_promised::UpgradesAsPromised;

use std::rc::Rc;

use super::model::{Guest, Replay};
use super::observe::{Fact, Micros};

/// Something that must hold.
pub trait Invariant {
    /// As in the list of invariants in the documents.
    fn name(&self) -> &'static str;

    /// Takes a fact in.
    ///
    /// # Errors
    /// What is violated, for people: one line, or a few when it is about a history.
    fn observe(&mut self, now: Micros, fact: &Fact<'_>) -> Result<(), String>;
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of the invariant; `panic` when a node or the simulator broke down.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
    /// When it showed.
    pub at: Micros,
}

/// All of them, for a run with this guest. Where several find the same thing wrong, the one that
/// says most about the cause comes first.
pub fn all(guest: &'static dyn Guest) -> Vec<Box<dyn Invariant>> {
    let replay = Replay::shared(guest);
    vec![
        Box::new(LeaderPerTerm::default()),
        Box::new(LogMatching::default()),
        Box::new(LeaderCompleteness::default()),
        Box::new(LevelOffered::default()),
        Box::new(ModuleAtOneIndex::default()),
        Box::new(ModulesSigned::default()),
        Box::new(UpgradesAsPromised::default()),
        Box::new(ReceiptsEqual::new(guest)),
        Box::new(RightsAtIndex::default()),
        Box::new(SessionsOnce::default()),
        Box::new(OrderedSessions::default()),
        Box::new(GuestAnswers::new(Rc::clone(&replay))),
        Box::new(DigestsAgree::default()),
        Box::new(QuarantineKeepsQuiet::default()),
        Box::new(StateMachineSafety::default()),
        Box::new(NothingLost::new(Rc::clone(&replay))),
        Box::new(Linearizable::new(Rc::clone(&replay))),
        Box::new(RecoveryKeeps::default()),
        Box::new(RestoreKeeps::new(replay)),
        Box::new(IncarnationsApart::default()),
        Box::new(DirectoryWhole::default()),
        Box::new(ClockWithinMajority::default()),
        Box::new(HealthyServes),
        Box::new(HungDiskYields),
        Box::new(BoundedGrowth::default()),
        Box::new(ExcusedStops),
        Box::new(MembersOnly::default()),
        Box::new(TokensOnce::default()),
        Box::new(NobodyAccused),
        Box::new(QuarantineHeals::default()),
        Box::new(Progress),
    ]
}

/// Their names.
///
/// # Panics
///
/// Never: there is a guest of that name.
pub fn names() -> Vec<&'static str> {
    let guest = super::guest::by_name("registers").expect("it is one of the guests");
    all(guest).iter().map(|invariant| invariant.name()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_invariant_has_its_own_name() {
        let all = super::all(&super::testing::Words);
        let names: BTreeSet<&str> = all.iter().map(|invariant| invariant.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
