//! How the switch to another module is made, and from which.

use clap::{Args, ValueEnum};
use raft_host_proto::v1;

/// How the switch is made.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct WayArgs {
    /// Which voters must have compiled the module before it is activated.
    #[arg(long, value_enum, default_value_t)]
    wait: Wait,
    /// The new module's instances are made beside, while commands go on, and only the last commands are executed
    /// at the switch: however large the state, it is short. Only for a module that answers commands as the active
    /// one does.
    #[arg(long)]
    pub(in crate::cli) ahead: bool,
}

/// Which voters are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// More than half of them.
    #[default]
    Quorum,
    /// Each of them.
    All,
}

impl WayArgs {
    pub(in crate::cli) fn wait_all(&self) -> bool {
        self.wait == Wait::All
    }
}

/// What is active.
pub(in crate::cli) fn incumbent(modules: &v1::ModulesResponse) -> Option<v1::Incumbent> {
    modules.history.last().map(|active| v1::Incumbent {
        module_hash: active.module_hash.clone(),
        activated_at: active.index,
    })
}
