//! `raft-host status`: one line per node.

mod json;
mod notes;
mod row;

use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use raft_host_proto::v1;
use serde_json::{Value, json};
use tonic::Response;

use self::notes::{
    activity_note, autopilot_note, backup_note, different_clusters, digest_notes, origin_note,
    rehearsal_note, rival_note, scrub_note, tls_note,
};
use self::row::{HEADERS, NodeRow};
use super::exit::{Ended, Exit, Failure};
use super::output::{
    Output, facts, hex, human_duration, print_json, print_text, short_hash, table,
};
use super::remote::{self, RemoteArgs, sentence};
use super::rights::table::status_text as rights_text;

/// How long one node may take to answer, so that a dead one does not hold up the table.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Shows what each node of the cluster knows and how far it is.
///
/// With one endpoint, all members of its cluster are asked; with several, exactly these
/// (--cluster: all members as well). Ends with 6 when no node answers at all, or none of them knows
/// a leader.
#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    /// Ask all members of the cluster, also when several endpoints are given.
    #[arg(long, conflicts_with = "only")]
    cluster: bool,
    /// Ask the given endpoints only.
    #[arg(long)]
    only: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &StatusArgs) -> Ended {
    let rows = remote::block_on(gather(args))?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&rows))?,
        Output::Table => print_text(&to_text(&rows))?,
    }
    Ok(ending(&rows))
}

/// A cluster without a leader takes no commands, which scripts want to know.
fn ending(rows: &[NodeRow]) -> Exit {
    let knows_leader = |row: &NodeRow| row.group().is_some_and(|group| group.leader_id != 0);
    if rows.iter().any(knows_leader) { Exit::Done } else { Exit::Unavailable }
}

async fn gather(args: &StatusArgs) -> Result<Vec<NodeRow>, Failure> {
    let remote = &args.remote;
    let timeout = NODE_TIMEOUT.min(remote.timeout());
    let whole = !args.only && (args.cluster || remote.endpoints.len() == 1);
    let endpoints = &remote.endpoints;
    let alone = join_all(endpoints.iter().map(|address| row(remote, address, None, timeout)));
    let rows = if whole {
        let known = join_all(endpoints.iter().map(|address| members(remote, address, timeout)));
        let (alone, known) = tokio::join!(alone, known);
        match known.into_iter().find(|members| !members.is_empty()) {
            Some(members) => {
                let asked =
                    members.iter().map(|m| row(remote, &m.address, Some(m.clone()), timeout));
                let rows = join_all(asked).await;
                // From here the members may be out of reach: by a socket, or on a port of their own.
                match rows.iter().all(|row| row.status.is_err()) {
                    true => alone,
                    false => rows,
                }
            }
            // A node without a state knows itself only.
            None => alone,
        }
    } else {
        alone.await
    };
    if rows.iter().all(|row| row.status.is_err()) {
        let reasons: Vec<String> = rows
            .iter()
            .map(|row| {
                let reason = row.status.as_ref().err().map_or("", String::as_str);
                format!("{}: {reason}", row.address)
            })
            .collect();
        return Err(Failure {
            exit: Exit::Unavailable,
            message: format!("no node tells how it is ({}); does it run?", reasons.join("; ")),
            effect: String::new(),
            reason: None,
        });
    }
    Ok(rows)
}

/// The members that a node knows of, asked once: one that knows none yet is not waited for.
async fn members(remote: &RemoteArgs, address: &str, timeout: Duration) -> Vec<v1::MemberInfo> {
    let ask = async {
        let mut client = remote.admin(address).await.ok()?;
        client.members(v1::MembersRequest::default()).await.ok()
    };
    let answer = tokio::time::timeout(timeout, ask).await.ok().flatten();
    answer.map(|answer| answer.into_inner().members).unwrap_or_default()
}

async fn row(
    remote: &RemoteArgs,
    address: &str,
    member: Option<v1::MemberInfo>,
    timeout: Duration,
) -> NodeRow {
    let ask = async {
        let mut client = remote.admin(address).await?;
        let answer = client.status(v1::StatusRequest::default()).await;
        answer.map(Response::into_inner).map_err(|status| sentence(&status))
    };
    let status = tokio::time::timeout(timeout, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", human_duration(timeout))));
    NodeRow { address: address.to_owned(), member, status }
}

fn to_json(rows: &[NodeRow]) -> Value {
    json!({ "nodes": rows.iter().map(NodeRow::to_json).collect::<Vec<_>>() })
}

/// The answer of the highest term: the one that knows most.
fn best(rows: &[NodeRow]) -> Option<(&v1::StatusResponse, &v1::GroupStatus)> {
    let answers = rows.iter().filter_map(|row| row.status.as_ref().ok().zip(row.group()));
    answers.max_by_key(|(_, group)| (group.term, group.leader_id != 0, group.applied_index))
}

fn to_text(rows: &[NodeRow]) -> String {
    let mut text = String::new();
    if let Some((status, group)) = best(rows) {
        text.push_str(&facts(&summary(status, group)));
        text.push_str("\n\n");
    }
    let cells: Vec<Vec<String>> = rows.iter().map(NodeRow::cells).collect();
    text.push_str(&table(&HEADERS, &cells));
    let mut notes: Vec<String> = Vec::new();
    for row in rows {
        if let Err(reason) = &row.status {
            notes.push(format!("{} is unreachable: {reason}", row.address));
        }
        notes.extend(activity_note(row));
        notes.extend(rehearsal_note(row));
        notes.extend(rival_note(row));
        notes.extend(backup_note(row));
        notes.extend(autopilot_note(row));
        notes.extend(scrub_note(row));
        notes.extend(tls_note(row));
        notes.extend(digest_notes(row));
    }
    notes.extend(rows.iter().find_map(origin_note));
    notes.extend(different_clusters(rows));
    if !notes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&notes.join("\n"));
    }
    text
}

fn summary(status: &v1::StatusResponse, group: &v1::GroupStatus) -> Vec<(&'static str, String)> {
    let leader = match group.leader_id {
        0 => "none: the cluster takes no commands now".to_owned(),
        id => format!("node {id} at {}, term {}", group.leader_address, group.term),
    };
    let module = match &group.module {
        _ if group.applied_index == 0 => "unknown: this node has no state yet".to_owned(),
        None => "none yet: give it one with `raft-host upgrade FILE`".to_owned(),
        Some(module) => {
            let label = if module.label.is_empty() { "(no label)" } else { &module.label };
            let hash = short_hash(&module.hash);
            format!("{label} {hash}, active since index {}", module.activated_at)
        }
    };
    let rights = group.access.as_ref().filter(|access| access.in_force);
    let mut facts = vec![
        ("cluster", hex(&status.cluster_id)),
        ("leader", leader),
        ("module", module),
        ("sessions", group.sessions.to_string()),
        ("profile", short_hash(&group.profile_hash)),
        ("digests", compared(group.digest.as_ref())),
    ];
    facts.extend(rights.map(|access| ("rights", rights_text(access))));
    facts
}

/// The newest comparison of the nodes' states.
fn compared(digest: Option<&v1::DigestStatus>) -> String {
    let Some(verdict) = digest.and_then(|digest| digest.verdict.as_ref()) else {
        return "not compared since this node started".to_owned();
    };
    let (answered, point) = (verdict.nodes.len(), verdict.point_index);
    let agree = verdict.nodes.iter().filter(|node| node.agrees).count();
    format!("{agree} of {answered} agree at index {point}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_host_proto::v1::member_info::Kind;

    use super::*;

    fn digest() -> v1::DigestStatus {
        let digest = Bytes::from(vec![0xab; 32]);
        let node = |node_id, agrees| v1::NodeDigest { node_id, digest: digest.clone(), agrees };
        let verdict = v1::DigestResult {
            point_index: 118,
            verdict_index: 119,
            digest: digest.clone(),
            nodes: vec![node(1, true), node(2, true), node(3, false)],
        };
        v1::DigestStatus { verdict: Some(verdict), ..Default::default() }
    }

    fn answer(id: u64, role: v1::Role) -> NodeRow {
        let module = v1::ActiveModule {
            hash: vec![0xab; 32].into(),
            label: "kv.wasm".into(),
            activated_at: 7,
        };
        let group = v1::GroupStatus {
            group: "main".into(),
            role: role.into(),
            term: 3,
            leader_id: 1,
            leader_address: "127.0.0.1:7400".into(),
            commit_index: 120,
            applied_index: 119 + id,
            module: Some(module),
            digest: Some(digest()),
            ..Default::default()
        };
        let status = v1::StatusResponse {
            cluster_id: vec![0xc1; 16].into(),
            node_id: id,
            data_dir_bytes: 3 << 20,
            resident_bytes: 40 << 20,
            uptime_ms: 61_000,
            groups: vec![group],
            ..Default::default()
        };
        let member = member(id, Kind::Voter);
        NodeRow { address: member.address.clone(), member: Some(member), status: Ok(status) }
    }

    fn group_of(row: &mut NodeRow) -> &mut v1::GroupStatus {
        &mut row.status.as_mut().expect("it answered").groups[0]
    }

    fn member(id: u64, kind: Kind) -> v1::MemberInfo {
        v1::MemberInfo {
            node_id: id,
            address: format!("127.0.0.1:{}", 7399 + id),
            kind: kind.into(),
            leader: id == 1,
        }
    }

    fn dead(id: u64) -> NodeRow {
        let member = member(id, Kind::Voter);
        NodeRow {
            address: member.address.clone(),
            member: Some(member),
            status: Err("connection refused".into()),
        }
    }

    #[test]
    fn the_table_shows_dead_members_beside_living_ones() {
        let rows = [answer(1, v1::Role::Leader), answer(2, v1::Role::Follower), dead(3)];
        let text = to_text(&rows);
        let expected = "\
cluster   c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1
leader    node 1 at 127.0.0.1:7400, term 3
module    kv.wasm abababababab, active since index 7
sessions  0
profile   -
digests   2 of 3 agree at index 118

NODE  ADDRESS         ROLE         LEADER  TERM  COMMIT  APPLIED  SNAPSHOT  MODULE           DATA    MEMORY     UP
   1  127.0.0.1:7400  leader            1     3     120      120         0  abababababab  3.0 MiB  40.0 MiB  1m 1s
   2  127.0.0.1:7401  follower          1     3     120      121         0  abababababab  3.0 MiB  40.0 MiB  1m 1s
   3  127.0.0.1:7402  unreachable       -     -       -        -         -  -                   -         -      -

127.0.0.1:7402 is unreachable: connection refused";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_learner_and_a_cluster_without_leader_are_called_so() {
        let mut learner = answer(2, v1::Role::Follower);
        learner.member = Some(member(2, Kind::Learner));
        assert_eq!(learner.role(), "learner");
        let mut lost = answer(1, v1::Role::PreCandidate);
        group_of(&mut lost).leader_id = 0;
        group_of(&mut lost).module = None;
        let text = to_text(&[lost]);
        assert!(text.contains("none: the cluster takes no commands now"), "{text}");
        assert!(text.contains("none yet: give it one with `raft-host upgrade FILE`"), "{text}");
    }

    #[test]
    fn a_quarantined_node_an_alarm_and_a_healed_node_are_noticed() {
        let mut rows = [1, 2, 3].map(|id| answer(id, v1::Role::Follower));
        let quarantine = v1::Quarantine {
            since_index: 119,
            point_index: 118,
            reason: "it differs".to_owned(),
            evidence: "/data/evidence/118-119".to_owned(),
        };
        let said = [
            v1::DigestStatus { quarantine: Some(quarantine), ..digest() },
            v1::DigestStatus { alarm: "look at this".to_owned(), ..digest() },
            v1::DigestStatus { healed: 2, ..digest() },
        ];
        for (row, digest) in rows.iter_mut().zip(said) {
            group_of(row).digest = Some(digest);
        }
        let text = to_text(&rows);
        for words in [
            "7400 is QUARANTINED since index 119 and answers nothing: it differs; its state was \
             kept in /data/evidence/118-119",
            "7401 raises an ALARM: look at this",
            "7402 was quarantined and healed 2×",
        ] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        let json = to_json(&rows);
        assert_eq!(json["nodes"][0]["groups"][0]["digest"]["quarantine"]["since_index"], 119);
        assert_eq!(json["nodes"][1]["groups"][0]["digest"]["verdict"]["nodes"][2]["agrees"], false);
    }

    #[test]
    fn a_disk_with_little_space_and_a_group_that_is_read_only_are_noticed() {
        let mut rows = [answer(1, v1::Role::Leader), answer(2, v1::Role::Follower)];
        let disk = v1::DiskStatus {
            space: v1::disk_status::Space::Low.into(),
            free_bytes: 21 << 20,
            sync_p99_us: Some(1_500),
            alarm: "it has 21.0 MiB left".to_owned(),
            ..Default::default()
        };
        rows[0].status.as_mut().expect("it answered").disk = Some(disk);
        group_of(&mut rows[0]).read_only = "the disk of node 1 has little".to_owned();
        let text = to_text(&rows);
        for words in [
            "7400 raises an ALARM about its disk: it has 21.0 MiB left",
            "7400 leads a READ-ONLY group: the disk of node 1 has little",
        ] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        let json = to_json(&rows);
        assert_eq!(json["nodes"][0]["disk"]["space"], "low");
        assert_eq!(json["nodes"][0]["disk"]["sync_p99_us"], 1_500);
        assert_eq!(json["nodes"][1]["disk"], Value::Null);
    }

    #[test]
    fn without_a_leader_it_does_not_succeed() {
        let mut rows = [answer(1, v1::Role::Follower), dead(2)];
        assert_eq!(ending(&rows), Exit::Done);
        group_of(&mut rows[0]).leader_id = 0;
        assert_eq!(ending(&rows), Exit::Unavailable);
    }

    #[test]
    fn nodes_of_different_clusters_are_noticed() {
        let mut other = answer(2, v1::Role::Leader);
        if let Ok(status) = &mut other.status {
            status.cluster_id = vec![0xd2; 16].into();
        }
        let text = to_text(&[answer(1, v1::Role::Leader), other]);
        for words in ["different clusters: 127.0.0.1:7400 to c1c1", "; 127.0.0.1:7401 to d2d2"] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
    }

    #[test]
    fn another_clusters_member_that_dials_a_node_is_noticed() {
        let mut row = answer(1, v1::Role::Leader);
        let rival = v1::Rival {
            cluster_id: vec![0xd2; 16].into(),
            node_id: 2,
            address: "10.0.0.2:7400".to_owned(),
            dialled_address: "10.0.0.1:7400".to_owned(),
            silent_ms: Some(2_000),
            hellos: 3,
            unconfirmed: true,
        };
        row.status.as_mut().expect("it answered").rival = Some(rival);
        let text = to_text(std::slice::from_ref(&row));
        let expected = "127.0.0.1:7400 was dialled as 10.0.0.1:7400, 2.0s ago, by node 2 at \
                        10.0.0.2:7400 of cluster d2d2";
        assert!(text.contains(expected) && text.contains("UNCONFIRMED"), "{text}");
        assert_eq!(row.to_json()["rival"]["hellos"], 3);
    }

    #[test]
    fn what_rots_on_a_disk_is_noticed_mended_or_not() {
        let mut row = answer(1, v1::Role::Follower);
        let damage = v1::ScrubDamage {
            file: "/data/log/1.raftlog".to_owned(),
            offset: 77,
            mended: true,
            outcome: "the log before it dropped".to_owned(),
            ..Default::default()
        };
        let mended = v1::ScrubStatus { found: 2, damages: vec![damage], ..Default::default() };
        let open = v1::ScrubStatus { alarm: "it is not mended".to_owned(), ..mended.clone() };
        let failed = v1::ScrubStatus { last_error: "refused".to_owned(), ..Default::default() };
        for (scrub, words) in [
            (v1::ScrubStatus::default(), None),
            (mended, Some("2 files damaged and mended them")),
            (open, Some("127.0.0.1:7400: raises an ALARM: it is not mended")),
            (failed, Some("did not get to its end: refused")),
        ] {
            row.status.as_mut().expect("it answered").scrub = Some(scrub);
            let note = scrub_note(&row);
            assert_eq!(note.is_some(), words.is_some());
            assert!(note.unwrap_or_default().contains(words.unwrap_or_default()));
        }
        assert_eq!(row.to_json()["scrub"]["last_error"], "refused");
    }

    #[test]
    fn json_has_the_same_fields_for_each_node_that_answered() {
        let value = to_json(&[answer(1, v1::Role::Leader), dead(2)]);
        let nodes = value["nodes"].as_array().expect("a list");
        assert_eq!(nodes[0]["groups"][0]["role"], "leader");
        assert_eq!(nodes[0]["groups"][0]["applied_index"], 120);
        assert_eq!(nodes[0]["reachable"], true);
        assert_eq!(nodes[1]["reachable"], false);
        assert_eq!(nodes[1]["node_id"], 2);
    }
}
