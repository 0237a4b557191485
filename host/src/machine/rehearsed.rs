//! Where the machine keeps receipts of rehearsals, and asks whether an activation may rely on one.
//!
//! It may while the receipt still says something about what would happen: the module and the one that it
//! replaces are those of the rehearsal, and commands run under the same rules.

use std::sync::Arc;

use raft_host_proto::stored;

use super::core::Machine;
use super::incumbent::Incumbent;
use super::receipts::{RECEIPTS_MAX, Receipt, Way};
use super::reply::Reply;
use super::take_over::TakeOver;
use crate::museum::{self, Exhibit};
use crate::types::{Index, ModuleHash};

impl Machine {
    /// Keeps a receipt, or says why not.
    pub(super) fn record_receipt(&mut self, index: Index, record: &stored::RecordReceipt) -> Reply {
        let receipt = match Receipt::from_log(index, record) {
            Ok(receipt) => receipt,
            Err(reason) => return Reply::ReceiptRefused(reason),
        };
        let active = self.state.modules.incumbent();
        if active != Some(receipt.replaces) {
            return Reply::ActivationSuperseded { active };
        }
        if !receipt.is_of_majority(&self.state.membership.conf_state) {
            return Reply::ReceiptRefused(
                "fewer than most voters have come to the same report; rehearse again when more of \
                 them are there"
                    .to_owned(),
            );
        }
        let receipts = Arc::make_mut(&mut self.state.receipts);
        receipts.push(receipt);
        let forgotten = receipts.len().saturating_sub(RECEIPTS_MAX);
        receipts.drain(..forgotten);
        Reply::ReceiptRecorded { index }
    }

    /// The receipt that an activation relies on, if it still says what would happen.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn valid_receipt(
        &self,
        receipt: Index,
        module: ModuleHash,
        active: Option<Incumbent>,
        way: TakeOver,
    ) -> Result<&Receipt, String> {
        let again = "rehearse again: `raft-host rehearse`";
        let found = self.state.receipts.iter().find(|it| it.index == receipt);
        let found = found.ok_or_else(|| {
            format!("there is no receipt of index {receipt}, or it is too old to be kept; {again}")
        })?;
        if museum::is_on(Exhibit::ReceiptUnchecked) {
            return Ok(found);
        }
        if found.module != module {
            let other = found.module.short();
            return Err(format!("the receipt at index {receipt} is of module {other}; {again}"));
        }
        if Some(found.replaces) != active {
            let then = found.replaces;
            return Err(format!(
                "the receipt at index {receipt} compares with {then}, which is not what is active; {again}"
            ));
        }
        if found.way != Way::of(way) {
            return Err(format!(
                "in the rehearsal with the receipt at index {receipt} the module took the state over in another \
                 way; {again}"
            ));
        }
        if found.refused > 0 {
            return Err(format!(
                "the rehearsal with the receipt at index {receipt} found {} differences that \
                 nothing allows",
                found.refused
            ));
        }
        let changed = self.state.rules_changed_at;
        if changed > found.until {
            return Err(format!(
                "limits or the engine profile changed at index {changed}, after the last entry {} of \
                 the rehearsal; {again}",
                found.until
            ));
        }
        Ok(found)
    }
}
