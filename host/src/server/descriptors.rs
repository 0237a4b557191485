//! Open files: as many as the system allows, and some kept back.
//!
//! The store opens files at moments of its own, and stops the node when it cannot; peers must be
//! dialled. So connections of clients get what is left after those.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::api::{ApiConfig, PROBATION_PLACES};

/// For the store, snapshots, modules, the log of the process, peers, and what the runtime needs.
const RESERVED: u64 = 128;
/// The fewest that a node can do with: a few connections beside those.
const FEWEST: u64 = RESERVED + 32;

/// Raises the soft limit of open files to the hard one and bounds the connections by what it is.
pub(super) fn provide(api: &mut ApiConfig) {
    let limit = match raise() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is unknown; trusting that it suffices");
            return;
        }
    };
    if limit < FEWEST {
        tracing::warn!(
            limit,
            "few files may be open at once: raise the limit (ulimit -n) to {FEWEST} or more, or this \
             node may stop when its store needs one"
        );
    }
    let reserved = RESERVED + PROBATION_PLACES as u64;
    let left = usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX).max(8);
    if left < api.max_connections {
        tracing::warn!(
            limit,
            connections = left,
            "the limit of open files allows fewer connections than api.max_connections"
        );
        api.max_connections = left;
    }
}

fn raise() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise().expect("the system tells");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
        assert_eq!((soft, hard), (limit, limit));
    }
}
