//! What the operating system says of this process.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// When it was first asked; a server asks at its start.
static START: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// See the module. What the system does not say is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Memory that it really has.
    pub resident_bytes: u64,
    /// Addresses that it has reserved.
    pub virtual_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Its open files and sockets.
    pub open_descriptors: u64,
    /// How many it may have.
    pub max_descriptors: u64,
    /// Processor time of all its threads since its start.
    pub processor_time: Duration,
    /// When it began, since the Unix epoch.
    pub start: Duration,
}

impl ProcessFacts {
    /// From now on the start of the process is known.
    pub fn begin() {
        LazyLock::force(&START);
    }

    /// As Linux reports them. May block.
    pub fn read() -> ProcessFacts {
        let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let kilobytes = |name| number(name).unwrap_or(0).saturating_mul(1024);
        // One of them is that of the directory that is being listed.
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64);
        ProcessFacts {
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            threads: number("Threads:").unwrap_or(0),
            open_descriptors: open.saturating_sub(1),
            max_descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
            processor_time: processor_time(),
            start: START.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros =
        |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        ProcessFacts::begin();
        let (first, file) = (ProcessFacts::read(), std::fs::File::open("/proc/self/status"));
        assert!(first.resident_bytes > 0 && first.virtual_bytes >= first.resident_bytes);
        assert!(first.threads > 0 && first.open_descriptors > 0, "{first:?}");
        assert!(first.max_descriptors >= first.open_descriptors);
        drop(file);
        assert_eq!(ProcessFacts::read().start, first.start);
    }
}
