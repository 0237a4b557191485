//! Transfers of leadership that end elsewhere.

use super::*;

/// What a transfer to a voter that does not take it comes to when another one does: it fails, and
/// says who leads. It succeeded for whoever asked, whoever won.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_fails_when_another_one_leads_in_the_end() {
    let cluster = Cluster::of(3).await;
    let lost = NodeId(3);
    // The leader asked itself, and a follower that passes the request on.
    for (leader, winner, asked) in [(1, 2, 0), (2, 1, 0)] {
        let old = &cluster.nodes[leader - 1];
        hears_from(&old.handle, lost).await;
        // It goes on being heard, and hears nothing: not that it is to lead.
        cluster.network.cut_one_way(NodeId(leader as u64), lost);
        let request = v1::TransferLeadershipRequest { group: String::new(), node_id: lost.0 };
        let mut admin = cluster.nodes[asked].admin();
        let failing = tokio::spawn(async move { admin.transfer_leadership(request).await });
        while !old.handle.status().await.unwrap().transferring {
            assert!(!failing.is_finished(), "{:?}", failing.await);
            tokio::task::yield_now().await;
        }
        // Another operator has it given to somebody else.
        let request = v1::TransferLeadershipRequest { group: String::new(), node_id: winner };
        let moved = old.admin().transfer_leadership(request).await.unwrap().into_inner();
        assert_eq!(moved.leader_id, winner);
        let words = format!("node {winner} leads now, and not node 3");
        assert_fails(failing.await.unwrap(), Code::FailedPrecondition, "none", &words);
        cluster.network.heal();
    }
    cluster.stop().await;
}

/// Waits until a leader has heard from a voter in its own time.
async fn hears_from(leader: &NodeHandle, voter: NodeId) {
    let started = Instant::now();
    while !leader.status().await.unwrap().is_heard(voter) {
        assert!(started.elapsed() < PATIENCE, "node {voter} is silent");
        tokio::task::yield_now().await;
    }
}
