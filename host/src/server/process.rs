//! What the operating system says of this process.

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessFacts {
    /// Memory that it really has.
    pub(crate) resident_bytes: u64,
    /// Its threads.
    pub(crate) threads: u64,
}

impl ProcessFacts {
    /// As Linux reports them; `None` elsewhere.
    pub(crate) fn read() -> Option<ProcessFacts> {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(ProcessFacts {
            resident_bytes: number("VmRSS:")? * 1024,
            threads: number("Threads:")?,
        })
    }
}
