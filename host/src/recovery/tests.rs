use super::*;
use crate::types::{ClusterId, ConfState, Index, Member, NodeId, StateDigest, Term};

fn nodes(ids: &[u64]) -> std::collections::BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn place(term: u64, index: u64) -> Place {
    Place { term: Term(term), index: Index(index) }
}

/// A voter of the given ones whose log ends there; all of terms below begin ten entries earlier each.
fn survivor(node: u64, voters: &[u64], committed: Place, last: Place) -> Survivor {
    let member = |id: &u64| Member { id: NodeId(*id), address: format!("n{id}:1") };
    Survivor {
        cluster: ClusterId([1; 16]),
        node: NodeId(node),
        data_dir: format!("/data/{node}"),
        inspected_ms: 7,
        term: last.term,
        vote: None,
        begins_after: place(1, 1),
        snapshot: place(1, 1),
        committed,
        last,
        terms: vec![place(committed.term.0, 2), last],
        members: voters.iter().map(member).collect(),
        configurations: vec![ConfState { voters: nodes(voters), ..ConfState::default() }],
        module: None,
        digest_committed: StateDigest([committed.index.0 as u8; 32]),
        digest: StateDigest([last.index.0 as u8; 32]),
        has_evidence: false,
    }
}

fn plan(survivors: &[Survivor], accept_loss: bool) -> Result<Plan, PlanError> {
    Plan::of(survivors.to_vec(), accept_loss, "p".to_owned(), 9)
}

#[test]
fn the_log_of_the_highest_term_is_chosen_and_of_those_the_longest() {
    let five = [1, 2, 3, 4, 5];
    let long = survivor(1, &five, place(1, 50), place(1, 90));
    let newer = survivor(2, &five, place(1, 50), place(2, 60));
    let chosen = plan(&[long.clone(), newer.clone()], true).expect("accepted");
    assert_eq!(chosen.chosen.node, NodeId(2), "its last entry has the higher term");
    assert_eq!(chosen.left_behind(), [1, 3, 4, 5].map(NodeId));
    let longer = survivor(3, &five, place(1, 50), place(1, 91));
    let chosen = plan(&[long.clone(), longer], true).expect("accepted");
    assert_eq!(chosen.chosen.node, NodeId(3));
    let same = Survivor { node: NodeId(4), ..long.clone() };
    assert_eq!(plan(&[same, long], true).expect("accepted").chosen.node, NodeId(1));
}

#[test]
fn what_a_majority_without_them_may_have_agreed_on_is_a_loss_that_somebody_has_to_accept() {
    let five = [1, 2, 3, 4, 5];
    let one = survivor(1, &five, place(3, 50), place(3, 60));
    let two = survivor(2, &five, place(3, 55), place(3, 58));
    let Err(PlanError::Loss(refused)) = plan(&[one.clone(), two.clone()], false) else {
        panic!("three of five are gone")
    };
    assert!(refused.may_lose && !refused.loss_accepted);
    let accepted = plan(&[one, two], true).expect("accepted");
    assert!(accepted.may_lose && accepted.loss_accepted);
    // What node 2 knew counts: node 1 holds it, as it holds more.
    assert_eq!((accepted.certain(), accepted.known_committed()), (Index(55), Index(55)));
    let words = accepted.words().join("\n");
    for sentence in [
        "has 5 voters (node 1, 2, 3, 4 and 5): 1 and 2 are here, and 3, 4 and 5 are not here.",
        "Node 1 holds the most: its log ends with entry 60 of term 3, that of node 2 with 58 of term 3.",
        "Kept for certain: every entry up to 55.",
        "Kept as node 1 has them: entries 56 to 60.",
        "May be lost: whatever was acknowledged after entry 60.",
        "Left behind: node 2, 3, 4 and 5.",
    ] {
        assert!(words.contains(sentence), "{sentence} is not in\n{words}");
    }
}

#[test]
fn where_each_majority_had_one_of_them_nothing_is_lost() {
    let four = [1, 2, 3, 4];
    let one = survivor(1, &four, place(3, 50), place(3, 60));
    let two = survivor(2, &four, place(3, 55), place(3, 58));
    let plan = plan(&[one, two], false).expect("three of four are a majority, and two are here");
    assert!(!plan.may_lose);
    assert_eq!((plan.certain(), plan.known_committed()), (Index(60), Index(55)));
    let words = plan.words().join("\n");
    assert!(words.contains("Lost: nothing that was acknowledged"), "{words}");
    assert!(words.contains("Of entries 56 to 60 it is not known"), "{words}");
}

#[test]
fn every_configuration_that_may_count_is_looked_at() {
    // Node 1 has yet to learn whether the cluster has become one of five.
    let mut one = survivor(1, &[1, 2, 3, 4], place(3, 50), place(3, 60));
    let two = survivor(2, &[1, 2, 3, 4], place(3, 50), place(3, 55));
    one.configurations
        .push(ConfState { voters: nodes(&[1, 2, 3, 4, 5, 6, 7]), ..ConfState::default() });
    let refused = plan(&[one.clone(), two.clone()], false).expect_err("four of seven are gone");
    assert!(matches!(refused, PlanError::Loss(_)), "{refused:?}");
    // They are a majority of what the log ends with, and cannot bring that into force.
    let mut fewer = survivor(1, &[1, 2, 3, 4, 5], place(3, 50), place(3, 60));
    fewer.configurations.push(ConfState { voters: nodes(&[1, 2, 3]), ..ConfState::default() });
    let also = survivor(2, &[1, 2, 3, 4, 5], place(3, 50), place(3, 55));
    let refused = plan(&[fewer, also], false).expect_err("three of five are gone");
    assert!(matches!(refused, PlanError::Loss(_)), "{refused:?}");
    // Of a joint one, a majority of each half is needed.
    one.configurations[1] = ConfState {
        voters: nodes(&[1, 5, 6, 7, 8]),
        voters_outgoing: nodes(&[1, 2, 3, 4]),
        ..ConfState::default()
    };
    plan(&[one, two], false).expect("none of the outgoing half without these");
}

#[test]
fn what_makes_no_plan_is_refused_in_words() {
    let five = [1, 2, 3, 4, 5];
    let of = |node| survivor(node, &five, place(3, 50), place(3, 60));
    let refused = |survivors: &[Survivor], words: &str| {
        let error = plan(survivors, true).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&[], "what at least one node holds");
    refused(&[of(1), of(2), of(3)], "nodes 1, 2 and 3 are a majority of the voters: start them");
    refused(&[of(1), of(1)], "node 1 was inspected twice");
    let other = Survivor { cluster: ClusterId([2; 16]), ..of(2) };
    refused(&[of(1), other], "node 1 is of cluster 0101");
    let wrong = Survivor { digest_committed: StateDigest([9; 32]), ..of(2) };
    refused(&[of(1), wrong], "node 1 and node 2 do not hold the same at index 50: the state");
    let strange = survivor(2, &five, place(2, 40), place(2, 45));
    refused(&[of(1), strange], "at index 40: that entry is committed, and is of another term");
    // A tail that nobody agreed on may be another one.
    let mut behind = survivor(2, &five, place(1, 40), place(2, 55));
    behind.terms = vec![place(1, 2), place(2, 41)];
    let mut ahead = of(1);
    ahead.terms = vec![place(1, 2), place(3, 41)];
    plan(&[behind, ahead], true).expect("that of the lower term is given up");
    let learner = survivor(9, &five, place(3, 50), place(3, 60));
    assert_eq!(plan(std::slice::from_ref(&learner), false), Err(PlanError::NoVoter(NodeId(9))));
    plan(&[learner], true).expect("accepted");
}

#[test]
fn files_are_read_back_and_refused_when_anything_in_them_was_changed() {
    let one = survivor(1, &[1, 2, 3, 4], place(3, 50), place(3, 60));
    let text = one.to_text();
    assert_eq!(Survivor::from_text(&text), Ok(one.clone()));
    let plan = plan(&[one], true).expect("accepted");
    assert_eq!(Plan::from_text(&plan.to_text()), Ok(plan));
    let error = |text: &str, words: &str| {
        let error = Survivor::from_text(text).expect_err(words);
        assert!(error.contains(words), "{error}");
    };
    error(&text.replace("\"index\": 60", "\"index\": 61"), "its checksum does not fit");
    error(&text[..text.len() / 2], "is not whole");
    error(&text.replace("\"version\": 1", "\"version\": 2"), "has format version 2");
    error("{}", "is not a survivor of raft-host, but something else");
    assert!(Plan::from_text(&text).expect_err("another kind").contains("but survivor"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("file");
    let missing = Survivor::read(&path).expect_err("not there").to_string();
    assert!(missing.starts_with("cannot read "), "{missing}");
    std::fs::write(&path, vec![b' '; (4 << 20) + 1]).expect("written");
    let large = Survivor::read(&path).expect_err("too large").to_string();
    assert!(large.contains("has more than 4194304 bytes"), "{large}");
    std::fs::write(&path, [0xff, 0xfe]).expect("written");
    Survivor::read(&path).expect_err("no text");
}
