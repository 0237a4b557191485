//! Receipts of rehearsals: what was found when a module took over a copy of the state and executed what the
//! active one had executed, as most voters found it.

use bytes::Bytes;
use raft_host_proto::stored;

use super::incumbent::{Incumbent, module_hash};
use super::take_over::TakeOver;
use crate::types::{ConfState, Index, ModuleHash, NodeId};

/// Receipts that are kept; the oldest are forgotten.
pub const RECEIPTS_MAX: usize = 64;
/// Most allowances of one receipt.
pub const ALLOWANCES_MAX: usize = 64;
/// Longest allowance.
pub const ALLOWANCE_MAX_BYTES: usize = 128;
/// More voters than any cluster has.
const VOTERS_MAX: usize = 1024;

/// How a module took the state over in a rehearsal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// From the old module's `snapshot`, by its own `restore`.
    #[default]
    Snapshot,
    /// From a portable state that was uploaded.
    PortableState(ModuleHash),
    /// From the old module's memory, by its own `adopt`.
    Image,
}

impl From<Way> for TakeOver {
    fn from(way: Way) -> TakeOver {
        match way {
            Way::Snapshot => TakeOver::default(),
            Way::PortableState(state) => TakeOver::PortableState(state),
            Way::Image => TakeOver::Image,
        }
    }
}

impl Way {
    /// What a rehearsal of an activation in that way does.
    pub(super) fn of(way: TakeOver) -> Way {
        match way {
            TakeOver::PortableState(state) => Way::PortableState(state),
            TakeOver::Image => Way::Image,
            TakeOver::Snapshot { .. }
            | TakeOver::Nothing
            | TakeOver::Rewind
            | TakeOver::Renew { .. } => Way::Snapshot,
        }
    }
}

/// What came of a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Index of the entry that holds it. Of one that is to be recorded: of none.
    pub index: Index,
    /// The module that was rehearsed.
    pub module: ModuleHash,
    /// The one that it was compared with.
    pub replaces: Incumbent,
    /// How it took the state over.
    pub way: Way,
    /// The module took over the state after this entry,
    pub base: Index,
    /// and executed entries up to this one.
    pub until: Index,
    /// Commands among them.
    pub commands: u64,
    /// Differences that no allowance covers.
    pub refused: u64,
    /// Differences that one does.
    pub allowed: u64,
    /// What was said to be intended.
    pub allowances: Vec<String>,
    /// SHA-256 of the report.
    pub report_hash: [u8; 32],
    /// Who found it, ascending.
    pub voters: Vec<NodeId>,
}

impl Receipt {
    /// As entries and snapshots hold it.
    pub(crate) fn to_log(&self) -> stored::RecordReceipt {
        stored::RecordReceipt {
            module_hash: self.module.0.to_vec().into(),
            replaces: Some(self.replaces.to_log()),
            portable_state: match self.way {
                Way::PortableState(state) => state.0.to_vec().into(),
                Way::Snapshot | Way::Image => Bytes::new(),
            },
            from_image: self.way == Way::Image,
            base: self.base.0,
            until: self.until.0,
            commands: self.commands,
            refused: self.refused,
            allowed: self.allowed,
            allowances: self.allowances.clone(),
            report_hash: self.report_hash.to_vec().into(),
            voters: self.voters.iter().map(|id| id.0).collect(),
        }
    }

    /// As snapshots hold it.
    pub(super) fn to_record(&self) -> stored::SnapshotReceipt {
        stored::SnapshotReceipt { index: self.index.0, receipt: Some(self.to_log()) }
    }

    /// Reads what [`Receipt::to_log`] wrote into the entry at `index`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_log(
        index: Index,
        record: &stored::RecordReceipt,
    ) -> Result<Receipt, String> {
        let replaces = record.replaces.as_ref();
        let replaces = replaces.ok_or("a receipt names the module that was compared with")?;
        if record.base > record.until || record.until >= index.0 {
            return Err(format!(
                "a receipt of entries after {} up to {}, recorded at {index}",
                record.base, record.until
            ));
        }
        if record.allowances.len() > ALLOWANCES_MAX
            || record.allowances.iter().any(|it| it.len() > ALLOWANCE_MAX_BYTES)
        {
            return Err(format!(
                "a receipt names at most {ALLOWANCES_MAX} allowances of {ALLOWANCE_MAX_BYTES} bytes"
            ));
        }
        if record.voters.len() > VOTERS_MAX || record.voters.windows(2).any(|it| it[0] >= it[1]) {
            return Err("a receipt whose voters are too many, or out of order".to_owned());
        }
        let way = match (record.from_image, record.portable_state.is_empty()) {
            (false, true) => Way::Snapshot,
            (true, true) => Way::Image,
            (false, false) => Way::PortableState(module_hash(&record.portable_state)?),
            (true, false) => {
                return Err("a receipt of two ways to take over the state".to_owned());
            }
        };
        Ok(Receipt {
            index,
            module: module_hash(&record.module_hash)?,
            replaces: Incumbent::from_log(replaces)?,
            way,
            base: Index(record.base),
            until: Index(record.until),
            commands: record.commands,
            refused: record.refused,
            allowed: record.allowed,
            allowances: record.allowances.clone(),
            report_hash: record.report_hash[..]
                .try_into()
                .map_err(|_| "the hash of a report has 32 bytes".to_owned())?,
            voters: record.voters.iter().copied().map(NodeId).collect(),
        })
    }

    /// Whether most voters found it, in both halves of a joint configuration.
    pub(super) fn is_of_majority(&self, conf_state: &ConfState) -> bool {
        conf_state.is_quorum(&self.voters.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_by(voters: &[u64]) -> Receipt {
        let replaces = Incumbent { hash: ModuleHash([1; 32]), activated_at: Index(3) };
        Receipt {
            index: Index(10),
            module: ModuleHash([2; 32]),
            replaces,
            way: Way::default(),
            base: Index(5),
            until: Index(9),
            commands: 4,
            refused: 0,
            allowed: 0,
            allowances: Vec::new(),
            report_hash: [0; 32],
            voters: voters.iter().copied().map(NodeId).collect(),
        }
    }

    #[test]
    fn a_receipt_is_of_most_voters_before_and_after_a_change_of_them() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        let mut conf_state = ConfState { voters: nodes(&[1, 2, 3]), ..ConfState::default() };
        conf_state.learners = nodes(&[4]);
        for (voters, is_enough) in
            [(&[1, 2][..], true), (&[1, 4], false), (&[3, 4, 5], false), (&[], false)]
        {
            assert_eq!(found_by(voters).is_of_majority(&conf_state), is_enough, "{voters:?}");
        }
        conf_state = ConfState {
            voters: nodes(&[1, 4, 5]),
            voters_outgoing: nodes(&[1, 2, 3]),
            ..conf_state
        };
        // Three of the five are most of one half only.
        for (voters, is_enough) in [
            (&[1, 2, 3][..], false),
            (&[1, 4, 5], false),
            (&[2, 3, 4], false),
            (&[1, 2, 4], true),
            (&[2, 3, 4, 5], true),
        ] {
            assert_eq!(found_by(voters).is_of_majority(&conf_state), is_enough, "{voters:?}");
        }
    }
}
