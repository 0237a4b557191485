//! Who may do what, as people and scripts read it.

use raft_host_proto::v1;
use serde_json::{Value, json};

use crate::cli::output::{human_time, table};

/// A grant as it is written: `RIGHT[:CLASS][@GROUP]`.
pub(super) fn grant_text(grant: &v1::Grant) -> String {
    let mut text = grant.right.clone();
    for (mark, part) in [(':', &grant.class), ('@', &grant.group)] {
        if !part.is_empty() {
            text.push(mark);
            text.push_str(part);
        }
    }
    text
}

/// Reads what [`grant_text`] writes.
pub(super) fn parse_grant(text: &str) -> Result<v1::Grant, String> {
    let (rest, group) = match text.split_once('@') {
        Some((_, "")) => return Err(format!("{text:?}: a group's name stands behind @")),
        Some((rest, group)) => (rest, group),
        None => (text, ""),
    };
    let (right, class) = match rest.split_once(':') {
        Some((_, "")) => return Err(format!("{text:?}: a class of commands stands behind :")),
        Some((right, class)) => (right, class),
        None => (rest, ""),
    };
    let right: crate::types::Right =
        right.parse().map_err(|error: crate::types::NoRight| error.to_string())?;
    if right != crate::types::Right::Apply && !class.is_empty() {
        return Err(format!("{text:?}: only apply is granted by classes of commands"));
    }
    if !class.is_empty() && crate::fsm::class_name(class.as_bytes()).is_none() {
        return Err(format!(
            "{class:?} is no class of commands: letters, digits and . _ - make one"
        ));
    }
    Ok(v1::Grant {
        right: right.as_str().to_owned(),
        group: group.to_owned(),
        class: class.to_owned(),
    })
}

pub(super) fn principals(access: &v1::AccessResponse) -> String {
    if access.principals.is_empty() {
        return "nobody is known: `raft-host token create --name NAME --role admin` makes the first"
            .to_owned();
    }
    let rows: Vec<Vec<String>> = access
        .principals
        .iter()
        .map(|principal| {
            let tokens = access.tokens.iter().filter(|token| token.principal == principal.name);
            vec![principal.name.clone(), principal.roles.join(", "), tokens.count().to_string()]
        })
        .collect();
    table(&["name", "roles", "tokens"], &rows)
}

pub(super) fn tokens(access: &v1::AccessResponse) -> String {
    let of_principals = tokens_of_principals(access);
    match access.join_tokens.is_empty() {
        true => of_principals,
        false => format!("{of_principals}\n\n{}", join_tokens(access)),
    }
}

fn join_tokens(access: &v1::AccessResponse) -> String {
    let rows: Vec<Vec<String>> = access
        .join_tokens
        .iter()
        .map(|token| {
            let state = match (token.used, token.node_id, token.expired) {
                (true, 0, _) => "used".to_owned(),
                (true, node, _) => format!("used for node {node}"),
                (false, _, true) => "expired".to_owned(),
                (false, _, false) => "for one node".to_owned(),
            };
            let ends = human_time(token.expires_ms);
            vec![token.id.to_string(), state, ends, token.note.clone()]
        })
        .collect();
    table(&["join token", "state", "ends (utc)", "note"], &rows)
}

fn tokens_of_principals(access: &v1::AccessResponse) -> String {
    if access.tokens.is_empty() {
        return "there are no tokens: `raft-host token create --name NAME` makes one".to_owned();
    }
    let rows: Vec<Vec<String>> = access
        .tokens
        .iter()
        .map(|token| {
            let ends = match token.expires_ms {
                0 => "when revoked".to_owned(),
                ms if token.expired => format!("{} (expired)", human_time(ms)),
                ms => human_time(ms),
            };
            vec![token.id.to_string(), token.principal.clone(), ends, token.note.clone()]
        })
        .collect();
    table(&["token", "of", "ends (utc)", "note"], &rows)
}

pub(super) fn roles(access: &v1::AccessResponse) -> String {
    let rows: Vec<Vec<String>> = access
        .roles
        .iter()
        .map(|role| {
            let grants: Vec<String> = role.grants.iter().map(grant_text).collect();
            let kind = if role.built_in { "built in" } else { "own" };
            vec![role.name.clone(), kind.to_owned(), grants.join(" ")]
        })
        .collect();
    table(&["role", "kind", "allows"], &rows)
}

pub(super) fn to_text(access: &v1::AccessResponse) -> String {
    let state = match (access.in_force, access.revision) {
        (true, at) => format!("rights are in force (last changed at index {at})"),
        (false, 0) => "rights are not in force: everybody may do everything".to_owned(),
        (false, at) => {
            format!(
                "rights are not in force: everybody may do everything (last changed at index {at})"
            )
        }
    };
    format!("{state}\n\n{}\n\n{}\n\n{}", principals(access), tokens(access), roles(access))
}

pub(super) fn principals_json(access: &v1::AccessResponse) -> Value {
    let row = |principal: &v1::PrincipalInfo| json!({ "id": principal.id, "name": principal.name, "roles": principal.roles });
    access.principals.iter().map(row).collect()
}

pub(super) fn tokens_json(access: &v1::AccessResponse) -> Value {
    let row = |token: &v1::TokenInfo| {
        json!({
            "id": token.id,
            "principal": token.principal,
            "expires_ms": token.expires_ms,
            "expired": token.expired,
            "note": token.note,
        })
    };
    access.tokens.iter().map(row).collect()
}

fn join_tokens_json(access: &v1::AccessResponse) -> Value {
    let row = |token: &v1::JoinTokenInfo| {
        json!({
            "id": token.id,
            "expires_ms": token.expires_ms,
            "expired": token.expired,
            "used": token.used,
            "node_id": (token.node_id != 0).then_some(token.node_id),
            "note": token.note,
        })
    };
    access.join_tokens.iter().map(row).collect()
}

pub(super) fn roles_json(access: &v1::AccessResponse) -> Value {
    let row = |role: &v1::RoleInfo| {
        let grants: Vec<String> = role.grants.iter().map(grant_text).collect();
        json!({ "name": role.name, "built_in": role.built_in, "grants": grants })
    };
    access.roles.iter().map(row).collect()
}

pub(super) fn to_json(access: &v1::AccessResponse) -> Value {
    json!({
        "in_force": access.in_force,
        "revision": access.revision,
        "principals": principals_json(access),
        "tokens": tokens_json(access),
        "roles": roles_json(access),
        "join_tokens": join_tokens_json(access),
    })
}

/// A line of `status`, where rights are in force.
pub(in crate::cli) fn status_text(access: &v1::AccessStatus) -> String {
    format!(
        "in force: {} principals, {} tokens (`raft-host rights`)",
        access.principals, access.tokens
    )
}

/// The object of `status` that says whether rights are in force.
pub(in crate::cli) fn status_json(access: &v1::AccessStatus) -> Value {
    json!({
        "in_force": access.in_force,
        "revision": access.revision,
        "principals": access.principals,
        "tokens": access.tokens,
        "roles": access.roles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_as_it_is_written_and_nonsense_is_none() {
        for text in ["apply", "apply:transfer", "query@main", "apply:close-account@main"] {
            assert_eq!(grant_text(&parse_grant(text).expect(text)), text);
        }
        for (nonsense, words) in [
            ("", "no right"),
            ("fly", "no right"),
            ("query:a", "only apply"),
            ("apply:", "class of commands stands"),
            ("apply@", "group's name"),
            ("apply:a b", "no class"),
        ] {
            let error = parse_grant(nonsense).expect_err(nonsense);
            assert!(error.contains(words), "{error:?} should contain {words:?}");
        }
    }

    #[test]
    fn the_tables_say_who_has_what_until_when() {
        let access = v1::AccessResponse {
            in_force: true,
            revision: 9,
            principals: vec![v1::PrincipalInfo {
                id: 5,
                name: "ann".to_owned(),
                roles: vec!["reader".to_owned(), "teller".to_owned()],
            }],
            tokens: vec![
                v1::TokenInfo { id: 6, principal: "ann".to_owned(), ..Default::default() },
                v1::TokenInfo {
                    id: 7,
                    principal: "ann".to_owned(),
                    expires_ms: 1_709_251_199_999,
                    note: "laptop".to_owned(),
                    expired: true,
                },
            ],
            roles: vec![v1::RoleInfo {
                name: "teller".to_owned(),
                grants: vec![parse_grant("apply:transfer").expect("a grant")],
                built_in: false,
            }],
            join_tokens: vec![v1::JoinTokenInfo {
                id: 8,
                expires_ms: 1_709_251_199_999,
                note: "n4".to_owned(),
                expired: false,
                used: true,
                node_id: 4,
            }],
        };
        let text = to_text(&access);
        for words in [
            "in force (last changed at index 9)",
            "ann   reader, teller       2",
            "6  ann  when revoked",
            "2024-02-29 23:59:59 (expired)  laptop",
            "teller  own   apply:transfer",
            "8  used for node 4  2024-02-29 23:59:59  n4",
        ] {
            assert!(text.contains(words), "{text}\nshould contain {words:?}");
        }
        assert_eq!(to_json(&access)["join_tokens"][0]["used"], true);
        assert_eq!(to_json(&access)["roles"][0]["grants"][0], "apply:transfer");
        let nobody = v1::AccessResponse::default();
        assert!(to_text(&nobody).contains("everybody may do everything\n"));
        assert!(principals(&nobody).contains("--role admin"));
    }
}
