//! What a cluster may do by itself about its members.

use serde::{Deserialize, Serialize};

/// The `[autopilot]` part of the configuration. That of the leader counts, so it is to be the same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutopilotConfig {
    /// Learners that ask for it (nodes that join without `--learner`) become voters by themselves. Without it
    /// only an operator promotes.
    pub promote_learners: bool,
    /// For so many milliseconds such a learner must have been caught up and answered without a break.
    pub stable_ms: u64,
    /// A leader whose disk is slow hands leadership to a voter whose disk is not.
    pub leave_slow_disk: bool,
    /// A member that was silent for so many milliseconds is removed, a voter only if `voters` others are well;
    /// 0: never.
    pub remove_dead_after_ms: u64,
    /// How many voters the cluster is to have; 0: not said.
    pub voters: u64,
}

/// A learner is not kept waiting for longer: its request would end first.
const STABLE_MAX_MS: u64 = 3_600_000;
/// A member may be away for so many election timeouts at least: nobody is dead that soon.
const DEAD_ELECTIONS: u64 = 10;
/// As many members as a cluster may have.
const VOTERS_MAX: u64 = 256;

impl Default for AutopilotConfig {
    fn default() -> AutopilotConfig {
        AutopilotConfig {
            promote_learners: true,
            stable_ms: 1_000,
            leave_slow_disk: true,
            remove_dead_after_ms: 0,
            voters: 0,
        }
    }
}

impl AutopilotConfig {
    /// Says what cannot be. `election_ms`: the node's election timeout.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn validate(&self, election_ms: u64) -> Result<(), String> {
        if self.stable_ms > STABLE_MAX_MS {
            return Err(format!(
                "autopilot.stable_ms ({}) must be at most {STABLE_MAX_MS} (an hour): to promote by hand only, \
                 say promote_learners = false",
                self.stable_ms
            ));
        }
        if self.voters > VOTERS_MAX {
            return Err(format!(
                "autopilot.voters ({}) must be at most {VOTERS_MAX}: a cluster has no more members",
                self.voters
            ));
        }
        if self.remove_dead_after_ms == 0 {
            return Ok(());
        }
        if self.voters == 0 {
            return Err(
                "autopilot.remove_dead_after_ms needs autopilot.voters: how many voters the cluster is to have \
                 decides whether a dead one has been replaced"
                    .to_owned(),
            );
        }
        let least = election_ms.saturating_mul(DEAD_ELECTIONS);
        if self.remove_dead_after_ms < least {
            return Err(format!(
                "autopilot.remove_dead_after_ms ({}) must be at least {least}, {DEAD_ELECTIONS} times \
                 node.election_ms ({election_ms}): a node that restarts is not dead",
                self.remove_dead_after_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_named() {
        let config = AutopilotConfig::default();
        assert_eq!(config.validate(1_000), Ok(()));
        let dead = |after, voters| AutopilotConfig {
            remove_dead_after_ms: after,
            voters,
            ..AutopilotConfig::default()
        };
        assert_eq!(dead(10_000, 3).validate(1_000), Ok(()));
        for (config, words) in [
            (dead(10_000, 0), "autopilot.remove_dead_after_ms needs autopilot.voters"),
            (dead(9_999, 3), "autopilot.remove_dead_after_ms (9999) must be at least 10000"),
            (dead(0, 257), "autopilot.voters (257) must be at most 256"),
            (
                AutopilotConfig { stable_ms: u64::MAX, ..AutopilotConfig::default() },
                "autopilot.stable_ms (18446744073709551615) must be at most",
            ),
        ] {
            let message = config.validate(1_000).unwrap_err();
            assert!(message.starts_with(words), "{message}");
        }
    }
}
