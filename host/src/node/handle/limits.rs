//! Changing the budgets of the guest, and what must run it, through the log.

use super::core::NodeHandle;
use crate::fsm::{EngineProfile, LimitChange, Limits};
use crate::machine::Reply;
use crate::node::answer::{ProposeFailure, unexpected};
use crate::node::config::ENTRY_OVERHEAD_BYTES;
use crate::node::request::Request;
use crate::types::Index;

/// The limits are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsSet {
    /// Index of the change, the same on every node; it counts from the next entry on.
    pub index: Index,
    /// All limits, now.
    pub limits: Limits,
    /// All limits, before.
    pub previous: Limits,
}

/// The engine profile is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSet {
    /// Index of the change, the same on every node; it counts from the next entry on.
    pub index: Index,
    /// The profile, now.
    pub engine: EngineProfile,
    /// The profile, before.
    pub previous: EngineProfile,
}

/// Why the engine profile was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineFailure {
    /// What was given is no profile.
    #[error("this cannot be an engine profile: {0}")]
    Invalid(String),
    /// Nobody has said that this is meant.
    #[error(
        "the engine profile would change from {current} to {wanted}: every node whose program does \
         not offer the latter saves a snapshot and stops, and no program but one that offers it \
         can start on that state again; confirm that this is meant"
    )]
    Unconfirmed {
        /// The profile that is in force.
        current: EngineProfile,
        /// The profile that is wanted.
        wanted: EngineProfile,
    },
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
}

/// Why the limits were not changed. None of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsFailure {
    /// The wish makes no sense, whatever the state machine holds.
    #[error("these limits cannot be: {0}")]
    Invalid(String),
    /// The machine refused it: what it holds does not fit.
    #[error("the limits were not changed: {0}")]
    Refused(String),
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
}

impl NodeHandle {
    /// Changes limits of the guest on all nodes at the same index; what is not named keeps its
    /// value. Leader only.
    ///
    /// Another size of the stack has every node compile the module again when it applies the
    /// change: commands wait that long.
    ///
    /// # Errors
    /// See [`LimitsFailure`].
    pub async fn set_limits(&self, changes: Vec<LimitChange>) -> Result<LimitsSet, LimitsFailure> {
        let view = self.shared.machine.borrow().clone();
        let Some(view) = view else {
            return Err(ProposeFailure::NotLeader(None).into());
        };
        // So that nonsense does not get into the log. The machine looks again, because other
        // changes may be on their way.
        let max_entry_bytes = self.shared.config.max_entry_bytes;
        check(&view.info.limits, &changes, max_entry_bytes).map_err(LimitsFailure::Invalid)?;
        let committed = self.propose(Request::SetLimits(changes)).await?;
        match committed.reply {
            Reply::LimitsSet { limits, previous } => Ok(LimitsSet {
                index: committed.position.index,
                limits: *limits,
                previous: *previous,
            }),
            Reply::LimitsRefused(reason) => Err(LimitsFailure::Refused(reason)),
            other => Err(LimitsFailure::Refused(unexpected(&other))),
        }
    }
}

impl NodeHandle {
    /// Changes the engine profile on all nodes at the same index. Nodes whose program does not
    /// offer it, this one included, stop soon after that: they save a snapshot, and go on for an
    /// election timeout so that the others come to know what is committed. Leader only.
    ///
    /// # Errors
    /// See [`EngineFailure`].
    pub async fn set_engine(
        &self,
        profile: &str,
        confirmed: bool,
    ) -> Result<EngineSet, EngineFailure> {
        let view = self.shared.machine.borrow().clone();
        let Some(view) = view else {
            return Err(ProposeFailure::NotLeader(None).into());
        };
        let wanted = EngineProfile::parse(profile)
            .map_err(|reason| EngineFailure::Invalid(reason.to_string()))?;
        let current = view.info.engine.clone();
        if wanted != current && !confirmed {
            return Err(EngineFailure::Unconfirmed { current, wanted });
        }
        let committed = self.propose(Request::SetEngine(wanted)).await?;
        match committed.reply {
            Reply::EngineSet { engine, previous } => {
                Ok(EngineSet { index: committed.position.index, engine, previous })
            }
            Reply::EngineRefused(reason) => Err(EngineFailure::Invalid(reason)),
            other => Err(EngineFailure::Invalid(unexpected(&other))),
        }
    }

    /// The engine profile that this node's program offers.
    pub fn offered_engine(&self) -> EngineProfile {
        self.shared.loader.engine()
    }
}

fn check(current: &Limits, changes: &[LimitChange], max_entry_bytes: u64) -> Result<(), String> {
    if changes.is_empty() {
        return Err("name at least one".to_owned());
    }
    let limits = current.changed(changes);
    limits.validate().map_err(|problems| problems.join("; "))?;
    if limits.input_max_bytes != current.input_max_bytes
        && limits.input_max_bytes.saturating_add(ENTRY_OVERHEAD_BYTES) > max_entry_bytes
    {
        return Err(format!(
            "input_max_bytes is {}, which with {ENTRY_OVERHEAD_BYTES} bytes of header does not fit \
             into an entry of the log; raise node.max_entry_bytes ({max_entry_bytes}) in every \
             node's configuration first",
            limits.input_max_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: u64 = 1 << 20;

    fn checked(current: &Limits, change: LimitChange) -> Result<(), String> {
        check(current, &[change], ENTRY)
    }

    #[test]
    fn what_makes_no_sense_does_not_reach_the_log() {
        let limits = Limits { input_max_bytes: 1000, ..Limits::default() };
        assert_eq!(checked(&limits, LimitChange::ApplyFuel(7)), Ok(()));
        for (change, words) in [
            (LimitChange::ApplyFuel(0), "apply_fuel is 0"),
            (LimitChange::InputMaxBytes(ENTRY), "node.max_entry_bytes (1048576)"),
        ] {
            let reason = checked(&limits, change).unwrap_err();
            assert!(reason.contains(words), "{reason:?} should contain {words:?}");
        }
        assert!(check(&limits, &[], ENTRY).unwrap_err().contains("at least one"));
    }

    #[test]
    fn a_node_with_short_entries_does_not_stand_in_the_way_of_other_changes() {
        let limits = Limits { input_max_bytes: 2 << 20, ..Limits::default() };
        assert_eq!(checked(&limits, LimitChange::QueryFuel(1)), Ok(()));
    }
}
