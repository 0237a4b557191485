//! Open files: as many as the system allows, and some kept back.
//!
//! The store opens files at moments of its own, and stops the node when it cannot; peers must be
//! dialled. So connections of clients get what is left after those.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::api::{ApiConfig, LEAVING_PLACES, METRICS_CONNECTIONS, PROBATION_PLACES};

/// For the store, snapshots, modules, the log of the process, peers, and what the runtime needs.
const RESERVED: u64 = 128;
/// The fewest that a node can do with: a few connections beside those.
const FEWEST: u64 = RESERVED + 32;

/// Connections of a port beyond its bound.
const BEYOND: usize = PROBATION_PLACES + LEAVING_PLACES;
/// The fewest connections that are taken.
const CONNECTIONS_MIN: usize = 8;

/// Raises the soft limit of open files to the hard one and bounds the connections by what it is.
/// `has_metrics`: there is a port for these as well.
pub(super) fn provide(api: &mut ApiConfig, has_metrics: bool) {
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
    let left = connections(limit, has_metrics);
    if left < api.max_connections {
        tracing::warn!(
            limit,
            connections = left,
            "the limit of open files allows fewer connections than api.max_connections"
        );
        api.max_connections = left;
    }
}

/// Connections that leave enough of so many files to everything else.
fn connections(limit: u64, has_metrics: bool) -> usize {
    let of_metrics = if has_metrics { METRICS_CONNECTIONS + BEYOND } else { 0 };
    let others = RESERVED + (BEYOND + of_metrics) as u64;
    usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX).max(CONNECTIONS_MIN)
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
    fn whatever_the_limit_is_connections_leave_what_is_kept_back() {
        assert_eq!(connections(1_024, false), 1_024 - 128 - 32);
        for limit in 300..2_048 {
            for has_metrics in [false, true] {
                let of_metrics = if has_metrics { METRICS_CONNECTIONS + BEYOND } else { 0 };
                let most = connections(limit, has_metrics) + BEYOND + of_metrics;
                assert!(most as u64 + RESERVED <= limit, "{limit}");
            }
        }
        assert_eq!(connections(64, true), CONNECTIONS_MIN, "it was warned of");
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise().expect("the system tells");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
        assert_eq!((soft, hard), (limit, limit));
    }
}
