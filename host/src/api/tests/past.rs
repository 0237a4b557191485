//! Questions about what was.

use super::*;

async fn count_at(
    node: &TestNode,
    index: u64,
    ordinal: Option<u32>,
) -> Result<v1::QueryAtResponse, Status> {
    let query = Bytes::from_static(br#"{"op":"count"}"#);
    let request = v1::QueryAtRequest { group: String::new(), query, index, ordinal };
    Ok(node.admin().query_at(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_what_it_would_have_answered_then() {
    let cluster = Cluster::of(2).await.with_kv().await;
    let mut places = Vec::new();
    for key in 0..20 {
        let applied = cluster.leader().client().apply(set(key)).await.unwrap().into_inner();
        places.push(applied.position.unwrap());
        if key == 9 {
            let request = v1::TakeSnapshotRequest { group: String::new() };
            cluster.follower().admin().take_snapshot(request).await.unwrap();
        }
    }
    for node in [cluster.leader(), cluster.follower()] {
        for (before, place) in places.iter().enumerate() {
            for ordinal in [None, Some(place.ordinal)] {
                let past = count_at(node, place.index, ordinal).await.unwrap();
                assert_eq!((past.ordinal, past.base_index <= place.index), (ordinal, true));
                let answer = past.answer.unwrap();
                assert_eq!(answer.applied_index, place.index);
                let count = format!(r#"{{"count":{}}}"#, before + 1);
                assert_eq!(answer.outcome.unwrap().kind, Some(Kind::Ok(count.into())));
            }
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_or_not_there_yet_is_refused_with_what_can_be_asked_about() {
    let cluster = Cluster::of(2).await.with_kv().await;
    let old = count_at(cluster.leader(), 0, None).await.unwrap_err();
    let detail = v1::ErrorDetail::of(&old).unwrap();
    assert_eq!((old.code(), detail.reason()), (Code::OutOfRange, v1::Reason::Compacted));
    assert!(detail.index > 0, "{detail:?}");
    let early = count_at(cluster.follower(), 1_000_000, None).await.unwrap_err();
    let detail = v1::ErrorDetail::of(&early).unwrap();
    assert_eq!((early.code(), detail.reason()), (Code::OutOfRange, v1::Reason::NotApplied));
    assert!(detail.index > 0 && detail.index < 1_000, "{detail:?}");
    // The oldest one that is named can be asked about: nothing was active then.
    let index = v1::ErrorDetail::of(&old).unwrap().index;
    let none = count_at(cluster.leader(), index, None).await.unwrap_err();
    assert_eq!(v1::ErrorDetail::of(&none).unwrap().reason(), v1::Reason::NoModule);
    cluster.stop().await;
}
