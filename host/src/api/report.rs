//! What a rehearsal found, on the wire.

use bytes::Bytes;
use raft_host_proto::v1;

use super::convert::{bytes, incumbent_to_wire, position_to_wire};
use crate::machine::{Receipt, WayBack};
use crate::node::{Rehearsed, RewindTrial};
use crate::rehearsal::{
    Allowances, Count, Difference, INPUT_MAX_BYTES, Kind, Report, outcome_words,
};
use crate::types::{Index, NodeId};

/// What this node found.
pub(super) struct Found {
    pub(super) report: Report,
    elapsed_ms: u64,
}

impl Found {
    pub(super) fn of(rehearsed: Rehearsed) -> Found {
        let elapsed_ms = u64::try_from(rehearsed.elapsed.as_millis()).unwrap_or(u64::MAX);
        Found { report: rehearsed.report, elapsed_ms }
    }

    pub(super) fn hash(&self) -> Bytes {
        bytes(self.report.hash())
    }

    /// As the share of a node.
    pub(super) fn by(&self, node: NodeId) -> v1::RehearsedBy {
        v1::RehearsedBy {
            node_id: node.0,
            report_hash: self.hash(),
            why_not: String::new(),
            switch_us: u64::try_from(self.report.switch.as_micros()).unwrap_or(u64::MAX),
            elapsed_ms: self.elapsed_ms,
        }
    }
}

pub(super) fn range_to_wire((base, until): (Index, Index)) -> v1::RehearsalRange {
    v1::RehearsalRange { base: base.0, until: until.0 }
}

/// A report, with what is allowed of it.
pub(crate) fn report_to_wire(report: &Report, allowances: &Allowances) -> v1::RehearsalReport {
    let count = |count: &Count| v1::DifferenceCount {
        kind: count.kind.name().to_owned(),
        class: count.class.clone(),
        count: count.count,
        allowed: allowances.cover(report, count.kind, &count.class),
    };
    let difference = |difference: &Difference| v1::RehearsalDifference {
        kind: difference.kind.name().to_owned(),
        class: difference.class.clone(),
        position: difference.position.map(position_to_wire),
        input: difference.input.clone(),
        input_cut: difference.input_cut,
        old: difference.old.clone(),
        new: difference.new.clone(),
        allowed: allowances.cover(report, difference.kind, &difference.class),
    };
    v1::RehearsalReport {
        module_hash: bytes(report.module.0),
        replaces: Some(incumbent_to_wire(report.replaces)),
        range: Some(range_to_wire((report.base, report.until))),
        commands: report.commands,
        counts: report.counts.iter().map(count).collect(),
        differences: report.differences.iter().map(difference).collect(),
        fuel_median_permille: report.fuel.median_permille,
        fuel_worst_permille: report.fuel.worst_permille,
        fuel_worst_at: report.fuel.worst_at.map(position_to_wire),
        memory_bytes: report.memory.bytes,
        memory_before_bytes: report.memory.before_bytes,
        memory_growth_bytes: report.memory.growth,
        memory_before_growth_bytes: report.memory.before_growth,
        snapshot_before_bytes: report.snapshot_before_bytes,
        snapshot_bytes: report.snapshot_bytes,
        snapshot_fuel: report.snapshot_fuel,
        restore_fuel: report.restore_fuel,
        no_way_back: report.way_back.clone().err().unwrap_or_default(),
    }
}

/// What going back would change, as a report of its own kind: the module before is the new one.
pub(super) fn rewind_to_wire(me: NodeId, trial: &RewindTrial) -> v1::RehearseResponse {
    let RewindTrial { preview, differences, differing, elapsed } = trial;
    let told = differences.iter().map(|(executed, again)| {
        let cut = executed.data.len() > INPUT_MAX_BYTES;
        v1::RehearsalDifference {
            kind: Kind::Reply.name().to_owned(),
            class: String::new(),
            position: Some(position_to_wire(executed.position)),
            input: executed.data.slice(..executed.data.len().min(INPUT_MAX_BYTES)),
            input_cut: cut,
            old: outcome_words(&executed.outcome),
            new: outcome_words(again),
            allowed: false,
        }
    });
    let counts = (*differing > 0).then(|| v1::DifferenceCount {
        kind: Kind::Reply.name().to_owned(),
        class: String::new(),
        count: *differing,
        allowed: false,
    });
    let report = v1::RehearsalReport {
        module_hash: bytes(preview.module.0),
        replaces: Some(incumbent_to_wire(preview.active)),
        range: Some(range_to_wire((preview.base, preview.until))),
        commands: preview.commands,
        counts: counts.into_iter().collect(),
        differences: told.collect(),
        ..v1::RehearsalReport::default()
    };
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    v1::RehearseResponse {
        receipt: 0,
        passed: *differing == 0,
        report: Some(report),
        nodes: vec![v1::RehearsedBy { node_id: me.0, elapsed_ms, ..Default::default() }],
        notes: Vec::new(),
    }
}

/// A receipt that the group keeps.
pub(super) fn receipt_to_wire(receipt: &Receipt) -> v1::Receipt {
    v1::Receipt {
        index: receipt.index.0,
        module_hash: bytes(receipt.module.0),
        replaces: Some(incumbent_to_wire(receipt.replaces)),
        range: Some(range_to_wire((receipt.base, receipt.until))),
        commands: receipt.commands,
        refused: receipt.refused,
        allowed: receipt.allowed,
        allowances: receipt.allowances.clone(),
        report_hash: bytes(receipt.report_hash),
        voters: receipt.voters.iter().map(|voter| voter.0).collect(),
    }
}

/// What the group keeps of the module before.
pub(super) fn way_back_to_wire(way_back: &WayBack) -> v1::WayBack {
    v1::WayBack {
        module_hash: bytes(way_back.module.0),
        activated_at: way_back.activated_at.0,
        expires_ms: way_back.expires_ms,
        commands: way_back.commands,
        bytes: way_back.bytes,
    }
}
