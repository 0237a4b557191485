//! What is kept of a state that went wrong, for people to look at.
//!
//! ```text
//!   <dir>/<point>-<verdict>/report.json       what differed from what, and since when
//!                           state.snapshot    machine and guest, in the format of a snapshot
//! ```
//!
//! Written aside and renamed; only the newest two are kept.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::fsm::Limits;
use crate::machine::MachineSnapshot;
use crate::types::{ClusterId, GroupId, Index, ModuleHash, NodeId, StateDigest};

/// Pieces of evidence kept.
const KEPT: usize = 2;

/// The content of `report.json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) cluster: ClusterId,
    pub(super) group: GroupId,
    pub(super) node: NodeId,
    /// Newest point at which this node is known to have agreed; 0: none since its start. What
    /// went wrong did so after it, up to `point`.
    pub(super) agreed: Index,
    pub(super) point: Index,
    pub(super) verdict: Index,
    pub(super) majority: StateDigest,
    pub(super) own: StateDigest,
    pub(super) own_machine: StateDigest,
    pub(super) own_guest: Option<StateDigest>,
    pub(super) votes: Vec<(NodeId, StateDigest)>,
    /// Ranges of the guest's memory, in bytes, that may have changed between the digest before
    /// the point and the point.
    pub(super) changed: Vec<Range<u64>>,
    pub(super) module: Option<ModuleHash>,
    pub(super) limits: Limits,
    /// Index of the last entry in `state.snapshot`.
    pub(super) state_index: Index,
}

/// Writes a piece of evidence and returns where it is. Blocks.
pub(super) fn write(dir: &Path, report: &Report, state: &MachineSnapshot) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let name = format!("{:020}-{}", report.point.0, report.verdict);
    let (place, aside) = (dir.join(&name), dir.join(format!("{name}.tmp")));
    for left in [&aside, &place] {
        match fs::remove_dir_all(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir(&aside)?;
    let text = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
    write_file(&aside.join("report.json"), |out| out.write_all(&text))?;
    write_file(&aside.join("state.snapshot"), |out| state.write_to(out))?;
    fs::rename(&aside, &place)?;
    retain(dir)?;
    Ok(place)
}

fn write_file(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    content(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn retain(dir: &Path) -> io::Result<()> {
    let mut places: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    // Names begin with the point, in as many digits each: they sort by age.
    places.sort();
    let superfluous = places.len().saturating_sub(KEPT);
    places[..superfluous].iter().try_for_each(fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fsm::native::NativeLoader;
    use crate::machine::Machine;

    #[test]
    fn evidence_can_be_read_again_and_only_the_newest_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (cluster, group) = (ClusterId([7; 16]), GroupId::MAIN);
        let loader = Arc::new(NativeLoader);
        let mut machine = Machine::new(cluster, group, Limits::default(), loader.clone());
        let state = machine.capture().expect("captured");
        let mut report = Report {
            version: "1",
            cluster,
            group,
            node: NodeId(1),
            agreed: Index(3),
            point: Index(9),
            verdict: Index(10),
            majority: StateDigest([7; 32]),
            own: StateDigest([9; 32]),
            own_machine: StateDigest([1; 32]),
            own_guest: None,
            votes: vec![(NodeId(1), StateDigest([9; 32]))],
            changed: std::iter::once(0..4096).collect(),
            module: None,
            limits: Limits::default(),
            state_index: Index(0),
        };
        for point in [9, 100, 11] {
            report.point = Index(point);
            write(dir.path(), &report, &state).expect("written");
        }
        let again = write(dir.path(), &report, &state).expect("the same once more");
        let text = fs::read_to_string(again.join("report.json")).expect("readable");
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&read["point"], &read["verdict"]), (&11.into(), &10.into()));
        assert_eq!(read["changed"][0]["end"], 4096);
        let mut image = File::open(again.join("state.snapshot")).expect("there");
        Machine::restore(&mut image, cluster, group, loader).expect("a snapshot");
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["00000000000000000011-10", "00000000000000000100-10"]);
    }
}
