//! How much memory guests may come to take under the cluster's limits, and how much this machine
//! has.
//!
//! For people only. The limits are replicated and decide outcomes; what a machine has must not, so
//! nothing is refused here that others would accept: an operator is told, and sizes machines or
//! limits.
//!
//! ```text
//!   while it runs         the heap                         memory_max_bytes
//!                         the copy that a trap goes back to memory_max_bytes
//!   during an activation  the new guest's heap             memory_max_bytes
//!                         and the portable snapshot, of which is gone what it has read
//!                                                          snapshot_max_bytes
//!              made ahead or then the new guest's copy     memory_max_bytes
//! ```
//!
//! Where nothing is made ahead, the new guest's copy is made once the old guest's heap is gone.

use std::path::{Path, PathBuf};

use crate::fsm::Limits;
use crate::text::human_bytes;

/// Where the system shows processes and control groups.
const ROOT: &str = "/";
/// Deeper is no control group.
const CGROUP_DEPTH_MAX: usize = 64;

/// What guests take at most under some limits, in bytes; beside it there are their code, queries
/// that write, and the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestMemory {
    /// While one runs.
    pub running: u64,
    /// While another takes its place.
    pub activation: u64,
}

impl GuestMemory {
    /// Under these limits.
    pub fn under(limits: &Limits) -> GuestMemory {
        let heap = limits.memory_max_bytes;
        let running = heap.saturating_mul(2);
        let more = heap.max(limits.snapshot_max_bytes).saturating_add(heap);
        GuestMemory { running, activation: running.saturating_add(more) }
    }

    /// What an operator should know, if that is more than `machine` has.
    pub fn shortage(&self, machine: MachineMemory) -> Option<String> {
        let GuestMemory { running, activation } = *self;
        let has = human_bytes(machine.total);
        let (what, takes) = match machine.total {
            total if running > total => ("the guest may come to take", running),
            total if activation > total => ("an activation may come to take", activation),
            _ => return None,
        };
        Some(format!(
            "under these limits {what} {}, and this node's machine has {has}: a node that runs out \
             of memory is killed, and again at the same entry when it comes back; lower \
             memory_max_bytes or snapshot_max_bytes, or give every node more memory",
            human_bytes(takes)
        ))
    }
}

/// The memory of the machine, or of the control group that this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// All of it, in bytes.
    pub total: u64,
    /// What can be had now without swapping, in bytes.
    pub available: u64,
}

impl MachineMemory {
    /// As of now; `None` if the system does not say. Reads a few small files.
    pub fn now() -> Option<MachineMemory> {
        MachineMemory::seen_at(Path::new(ROOT))
    }

    fn seen_at(root: &Path) -> Option<MachineMemory> {
        let info = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let mut memory = MachineMemory {
            total: meminfo(&info, "MemTotal:")?,
            available: meminfo(&info, "MemAvailable:")?,
        };
        for group in groups(root) {
            let number = |names: [&str; 2]| names.iter().find_map(|name| number(&group.join(name)));
            if let Some(max) = number(["memory.max", "memory.limit_in_bytes"]) {
                let used = number(["memory.current", "memory.usage_in_bytes"]).unwrap_or(0);
                memory.total = memory.total.min(max);
                memory.available = memory.available.min(max.saturating_sub(used));
            }
        }
        Some(memory)
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A file that holds one number; `max` is none.
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The control groups that bound the memory of this process, from its own to the outermost that it
/// sees: of version 2 and of version 1.
fn groups(root: &Path) -> Vec<PathBuf> {
    let own = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mount = match controllers {
            "" => root.join("sys/fs/cgroup"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                root.join("sys/fs/cgroup/memory")
            }
            _ => continue,
        };
        // What is mounted in a container may begin below the path that the kernel tells.
        let path = Path::new(path.trim_start_matches('/'));
        groups.extend(path.ancestors().take(CGROUP_DEPTH_MAX).map(|part| mount.join(part)));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn this_machine_has_memory() {
        let memory = MachineMemory::now().expect("Linux tells");
        assert!(memory.available <= memory.total && memory.total > 1 << 20, "{memory:?}");
    }

    #[test]
    fn the_narrowest_control_group_counts_whatever_its_version() {
        for (own, mount, max, current) in [
            ("0::/app/node\n", "", "memory.max", "memory.current"),
            (
                "5:cpu:/app/node\n4:hugetlb,memory:/app/node\n0::/\n",
                "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
        ] {
            let root = tempfile::tempdir().expect("tempdir");
            let write = |path: &str, text: &str| {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
                std::fs::write(path, text).expect("file");
            };
            assert_eq!(MachineMemory::seen_at(root.path()), None);
            write("proc/meminfo", "MemTotal: 8388608 kB\nX: 1\nMemAvailable:  6291456 kB\n");
            let seen = || MachineMemory::seen_at(root.path()).expect("seen");
            assert_eq!(seen(), MachineMemory { total: 8 * GIB, available: 6 * GIB });
            write("proc/self/cgroup", own);
            let group = |at: &str, file: &str, value: &str| {
                write(&format!("sys/fs/cgroup/{mount}/{at}/{file}"), value);
            };
            group("app/node", max, "max\n");
            assert_eq!(seen(), MachineMemory { total: 8 * GIB, available: 6 * GIB });
            group("app", max, "4294967296\n");
            group("app", current, "1073741824\n");
            assert_eq!(seen(), MachineMemory { total: 4 * GIB, available: 3 * GIB });
            group("app/node", max, "2147483648\n");
            group("app/node", current, "3147483648\n");
            assert_eq!(seen(), MachineMemory { total: 2 * GIB, available: 0 });
        }
    }

    #[test]
    fn limits_beyond_the_machine_are_told_and_others_are_not() {
        let limits =
            Limits { memory_max_bytes: GIB, snapshot_max_bytes: GIB / 4, ..Limits::default() };
        let guests = GuestMemory::under(&limits);
        assert_eq!(guests, GuestMemory { running: 2 * GIB, activation: 4 * GIB });
        let on = |total| guests.shortage(MachineMemory { total, available: 0 });
        assert_eq!(on(4 * GIB), None);
        let said = on(3 * GIB).expect("short");
        assert!(said.contains("an activation may come to take 4.0 GiB"), "{said}");
        assert!(said.contains("this node's machine has 3.0 GiB"), "{said}");
        let said = on(GIB).expect("short");
        assert!(said.contains("the guest may come to take 2.0 GiB"), "{said}");
        let long = Limits { snapshot_max_bytes: 2 * GIB, ..limits.clone() };
        assert_eq!(GuestMemory::under(&long).activation, 5 * GIB);
        let most = Limits { memory_max_bytes: u64::MAX, ..limits };
        assert_eq!(GuestMemory::under(&most).activation, u64::MAX);
    }
}
