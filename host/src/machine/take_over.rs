//! How a module that is to be active gets its state, as the entry that activates it says.

use bytes::Bytes;
use raft_host_proto::stored;

use super::incumbent::module_hash;
use crate::types::{Index, ModuleHash};

/// Where the state comes from that a module begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// From the old module: its `snapshot`, which the new one's `restore` reads.
    Snapshot {
        /// Of the state at this fork; then it executes what came since. `None`: of the state as it is.
        fork: Option<Index>,
    },
    /// There is none: the old module's is given up, and the new one's `init` runs.
    Nothing,
    /// The module was replaced and comes back, as if it had never been: with what was kept of it, and all
    /// commands since.
    Rewind,
    /// A portable state that was uploaded.
    PortableState(ModuleHash),
    /// From the old module: its memory, which the new one's `adopt` reads.
    Image,
    /// The module is the active one, and gets its own state: `snapshot` and `restore`.
    Renew {
        /// As for a snapshot.
        fork: Option<Index>,
    },
}

impl Default for TakeOver {
    fn default() -> TakeOver {
        TakeOver::Snapshot { fork: None }
    }
}

impl TakeOver {
    /// The entry with this in it.
    #[must_use]
    pub(crate) fn put(self, entry: stored::ActivateModule) -> stored::ActivateModule {
        let fork = |fork: Option<Index>| fork.map_or(0, |index| index.0);
        match self {
            TakeOver::Snapshot { fork: at } => stored::ActivateModule { fork: fork(at), ..entry },
            TakeOver::Nothing => stored::ActivateModule { discard_state: true, ..entry },
            TakeOver::Rewind => stored::ActivateModule { rewind: true, ..entry },
            TakeOver::PortableState(hash) => {
                let portable_state = Bytes::copy_from_slice(&hash.0);
                stored::ActivateModule { portable_state, ..entry }
            }
            TakeOver::Image => stored::ActivateModule { from_image: true, ..entry },
            TakeOver::Renew { fork: at } => {
                stored::ActivateModule { renew: true, fork: fork(at), ..entry }
            }
        }
    }

    /// Reads what [`TakeOver::put`] wrote.
    ///
    /// # Errors
    /// It says two things at once.
    pub(super) fn of(entry: &stored::ActivateModule) -> Result<TakeOver, String> {
        let fork = (entry.fork != 0).then_some(Index(entry.fork));
        let mut all = Vec::new();
        if entry.discard_state {
            all.push(TakeOver::Nothing);
        }
        if entry.rewind {
            all.push(TakeOver::Rewind);
        }
        if !entry.portable_state.is_empty() {
            all.push(TakeOver::PortableState(module_hash(&entry.portable_state)?));
        }
        if entry.from_image {
            all.push(TakeOver::Image);
        }
        if entry.renew {
            all.push(TakeOver::Renew { fork });
        }
        match (&all[..], fork) {
            ([], fork) => Ok(TakeOver::Snapshot { fork }),
            ([renew @ TakeOver::Renew { .. }], _) => Ok(*renew),
            ([one], None) => Ok(*one),
            _ => Err("the entry says in two ways which state the module is to begin with; it can \
                      be one only"
                .to_owned()),
        }
    }

    /// The fork that it goes on from.
    pub fn fork(self) -> Option<Index> {
        match self {
            TakeOver::Snapshot { fork } | TakeOver::Renew { fork } => fork,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_survives_its_entry_and_two_at_once_are_refused() {
        let fork = Some(Index(7));
        let ways = [
            TakeOver::default(),
            TakeOver::Snapshot { fork },
            TakeOver::Nothing,
            TakeOver::Rewind,
            TakeOver::PortableState(ModuleHash([5; 32])),
            TakeOver::Image,
            TakeOver::Renew { fork: None },
            TakeOver::Renew { fork },
        ];
        let entry = stored::ActivateModule::default;
        for way in ways {
            assert_eq!(TakeOver::of(&way.put(entry())), Ok(way));
        }
        for (at, one) in ways.iter().enumerate().skip(1) {
            for other in &ways[at + 1..] {
                let both = one.put(other.put(entry()));
                // From a fork: that is one way.
                let is_renewal = |way: &TakeOver| matches!(way, TakeOver::Renew { .. });
                if is_renewal(other) && (is_renewal(one) || one.fork().is_some()) {
                    continue;
                }
                assert!(TakeOver::of(&both).is_err(), "{one:?} and {other:?}");
            }
        }
        let short = stored::ActivateModule { portable_state: vec![1].into(), ..entry() };
        assert!(TakeOver::of(&short).is_err());
    }
}
