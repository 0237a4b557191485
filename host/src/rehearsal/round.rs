//! What is decided when all voters of a group rehearse: with which state they can begin, whether they found the
//! same, and what is written down of it.

use std::collections::{BTreeMap, BTreeSet};

use super::allow::Allowances;
use super::report::Report;
use crate::machine::Receipt;
use crate::museum::{self, Exhibit};
use crate::types::{ConfState, Index, NodeId};

/// What the voters have found of the same entries.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// The hash of a voter's report, or why it has none.
    answers: BTreeMap<NodeId, Result<[u8; 32], String>>,
}

/// Why nothing is written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReceipt {
    /// One of them is wrong.
    #[error(
        "voters came to different reports of the same entries (nodes {0}): a node's state or hardware is not to \
         be trusted; look at `raft-host digest`. Nothing was written down"
    )]
    VotersDiffer(String),
    /// Too few of them have a report.
    #[error("fewer than most voters have rehearsed ({0}): see to these nodes, and ask again")]
    TooFew(String),
}

impl Round {
    /// What a voter has found, or why it has found nothing.
    pub fn answered(&mut self, voter: NodeId, answer: Result<[u8; 32], String>) {
        self.answers.insert(voter, answer);
    }

    fn found(&self) -> BTreeSet<NodeId> {
        let is_of_all = museum::is_on(Exhibit::ReceiptOfAMinority);
        let has_found = |(_, answer): &(_, &Result<_, _>)| answer.is_ok() || is_of_all;
        self.answers.iter().filter(has_found).map(|(voter, _)| *voter).collect()
    }

    /// Whether most of these voters have a report.
    pub fn is_of_most(&self, conf_state: &ConfState) -> bool {
        conf_state.is_quorum(&self.found())
    }

    /// What is to be written down of `report`, which is that of one of them.
    ///
    /// # Errors
    ///
    /// The voters of `conf_state` have not agreed on it, see [`NoReceipt`].
    pub fn receipt(
        &self,
        report: &Report,
        allowances: &Allowances,
        conf_state: &ConfState,
    ) -> Result<Receipt, NoReceipt> {
        self.check_agreement()?;
        if !self.is_of_most(conf_state) {
            return Err(NoReceipt::TooFew(self.missing()));
        }
        let verdict = report.verdict(allowances);
        Ok(Receipt {
            index: Index(0),
            module: report.module,
            replaces: report.replaces,
            way: report.way,
            base: report.base,
            until: report.until,
            commands: report.commands,
            refused: verdict.refused,
            allowed: verdict.allowed,
            allowances: allowances.texts(),
            report_hash: report.hash(),
            voters: self.found().into_iter().collect(),
        })
    }

    /// All who have a report must have the same one.
    fn check_agreement(&self) -> Result<(), NoReceipt> {
        let mut found: BTreeMap<&[u8; 32], Vec<String>> = BTreeMap::new();
        for (voter, answer) in &self.answers {
            if let Ok(hash) = answer {
                found.entry(hash).or_default().push(voter.to_string());
            }
        }
        if found.len() < 2 {
            return Ok(());
        }
        let groups: Vec<String> = found.into_values().map(|voters| voters.join(", ")).collect();
        Err(NoReceipt::VotersDiffer(groups.join(" against ")))
    }

    fn missing(&self) -> String {
        let missing = self.answers.iter().filter_map(|(voter, answer)| {
            answer.as_ref().err().map(|why| format!("node {voter}: {why}"))
        });
        missing.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Incumbent;
    use crate::rehearsal::{Count, Kind};
    use crate::types::ModuleHash;

    fn report() -> Report {
        Report {
            module: ModuleHash([2; 32]),
            replaces: Incumbent { hash: ModuleHash([1; 32]), activated_at: Index(3) },
            way: Default::default(),
            base: Index(5),
            until: Index(9),
            commands: 4,
            counts: [(Kind::Reply, 3), (Kind::Fuel, 1)]
                .map(|(kind, count)| Count { kind, class: String::new(), count })
                .to_vec(),
            differences: Vec::new(),
            fuel: Default::default(),
            memory: Default::default(),
            snapshot_before_bytes: 0,
            snapshot_bytes: 0,
            snapshot_fuel: 0,
            restore_fuel: 0,
            way_back: Ok(()),
            names_classes: false,
            switch: Default::default(),
        }
    }

    fn round(answers: &[(u64, Result<u8, &str>)]) -> Round {
        let mut round = Round::default();
        for (voter, answer) in answers {
            let answer = answer.map(|byte| [byte; 32]).map_err(str::to_owned);
            round.answered(NodeId(*voter), answer);
        }
        round
    }

    fn receipt_of(answers: &[(u64, Result<u8, &str>)]) -> Result<Receipt, NoReceipt> {
        let allowances = Allowances::parse(&["reply"]).expect("it is one");
        let voters = BTreeSet::from([1, 2, 3].map(NodeId));
        let conf_state = ConfState { voters, ..ConfState::default() };
        round(answers).receipt(&report(), &allowances, &conf_state)
    }

    #[test]
    fn a_receipt_names_who_found_it_and_what_is_allowed_of_it() {
        let receipt =
            receipt_of(&[(1, Ok(7)), (2, Err("gone")), (3, Ok(7))]).expect("two of three");
        assert_eq!(receipt.voters, [1, 3].map(NodeId));
        assert_eq!((receipt.refused, receipt.allowed, receipt.commands), (1, 3, 4));
        assert_eq!((receipt.base, receipt.until), (Index(5), Index(9)));
        assert_eq!(receipt.report_hash, report().hash());
        assert_eq!(receipt.allowances, ["reply"]);
    }

    #[test]
    fn voters_that_found_something_else_are_named() {
        let error = receipt_of(&[(1, Ok(7)), (2, Ok(7)), (3, Ok(8))]).expect_err("they differ");
        assert!(matches!(error, NoReceipt::VotersDiffer(_)));
        assert!(error.to_string().contains("nodes 1, 2 against 3"), "{error}");
    }

    #[test]
    fn fewer_than_most_are_too_few_and_it_says_who_is_missing() {
        let error = receipt_of(&[(1, Ok(7)), (2, Err("gone")), (3, Err("it is late"))]);
        let missing = "node 2: gone; node 3: it is late".to_owned();
        assert_eq!(error, Err(NoReceipt::TooFew(missing)));
    }
}
