//! Changing the engine profile.
//!
//! The change counts from the next entry on. Whether an entry makes one must not depend on the
//! program that applies it: a node that offers only the profile of before and one that offers
//! only the next must agree. So any well-formed profile is taken, and whoever does not offer it
//! applies nothing more:
//!
//! ```text
//!   … entry 41 │ 42: SetEngine(B) │ entry 43 …
//!   runs under A, by A's program  │ runs under B, by B's program, restored from the snapshot at 42
//! ```

use raft_host_proto::stored;

use super::core::Machine;
use super::reply::{Applied, Reply};
use crate::fsm::{EngineProfile, HostFailure};
use crate::types::Index;

impl Machine {
    /// Changes the engine profile from the next entry on; refuses what is none.
    pub(super) fn set_engine(
        &mut self,
        index: Index,
        request: &stored::SetEngine,
    ) -> Result<Applied, HostFailure> {
        let engine = match EngineProfile::parse(&request.profile) {
            Ok(engine) => engine,
            Err(reason) => {
                return Ok(Applied::without_guest(Reply::EngineRefused(reason.to_string())));
            }
        };
        let previous = self.replace_engine(engine.clone());
        if engine != previous {
            self.state.on_rules(index);
            self.drop_fork();
            self.refresh_module_infos();
        }
        if engine != previous && self.program_supported().is_ok() {
            // One that offers both goes on by itself. It may not refuse: others cannot know that.
            let limits = self.state.limits.clone();
            self.fsm = self.instance_under(index, &limits)?.map_err(|reason| {
                HostFailure(format!("the engine profile is now {engine}, under which {reason}"))
            })?;
        }
        Ok(Applied::without_guest(Reply::EngineSet { engine, previous }))
    }
}
