//! What certificates say.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::exit::{Ended, Exit};
use super::super::output::{Output, facts, hex, human_time, print_json, print_text};
use super::told::{days_left, hosts, ms};
use crate::certs::{Facts, Item, Seen, Subject, look};

/// So many days ahead it is time to renew a certificate.
const WARNING_DAYS: i64 = 30;

pub(super) fn run(output: Output, paths: &[PathBuf], now: SystemTime) -> Ended {
    let seen: Vec<Seen> = paths.iter().flat_map(|path| look(path)).collect();
    match output {
        Output::Json => print_json(&as_json(&seen, now))?,
        Output::Table => print_text(&as_text(&seen, now))?,
    }
    Ok(exit(&seen, now))
}

fn certificates(seen: &[Seen]) -> impl Iterator<Item = (&Path, &Facts)> {
    seen.iter().flat_map(|file| {
        let items = file.items.as_deref().unwrap_or_default();
        items.iter().filter_map(|item| match item {
            Item::Certificate(facts) => Some((file.path.as_path(), &**facts)),
            _ => None,
        })
    })
}

fn exit(seen: &[Seen], now: SystemTime) -> Exit {
    let has_problem = seen.iter().any(|file| file.items.is_err());
    let has_expired = certificates(seen).any(|(_, facts)| is_expired(facts, now));
    if has_problem || has_expired { Exit::Failed } else { Exit::Done }
}

fn seconds(now: SystemTime) -> i64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

fn is_expired(facts: &Facts, now: SystemTime) -> bool {
    facts.not_after < seconds(now)
}

fn warning(facts: &Facts, now: SystemTime) -> Option<String> {
    let left = days_left(facts, now);
    if is_expired(facts, now) {
        Some("it has EXPIRED: renew it".to_owned())
    } else if facts.not_before > seconds(now) {
        Some("it is not valid yet: is a clock wrong?".to_owned())
    } else if left < WARNING_DAYS {
        Some(format!("it expires in {left} days: renew it"))
    } else {
        None
    }
}

fn kind(facts: &Facts) -> &'static str {
    match facts.subject {
        Some(Subject::Node { .. }) => "node",
        Some(Subject::Client { .. }) => "client",
        None if facts.is_ca => "ca",
        None => "other",
    }
}

fn who(found: &Facts) -> String {
    match (found.subject, found.cluster) {
        (Some(subject @ Subject::Client { .. }), Some(cluster)) => {
            format!("{subject} of cluster {cluster}")
        }
        (Some(subject @ Subject::Client { .. }), None) => format!("{subject}, by its common name"),
        (Some(subject), _) => subject.to_string(),
        (None, _) if found.is_ca => "a CA".to_owned(),
        (None, _) => "nobody of a cluster".to_owned(),
    }
}

fn certificate_as_text(path: &Path, found: &Facts, now: SystemTime) -> String {
    let mut pairs = vec![("  belongs to", who(found)), ("  subject", found.name.clone())];
    let names = hosts(found);
    if !names.is_empty() {
        pairs.push(("  for", names.join(", ")));
    }
    pairs.extend([
        ("  issuer", found.issuer.clone()),
        ("  valid from", format!("{} utc", human_time(ms(found.not_before)))),
        (
            "  valid until",
            format!("{} utc, {} days left", human_time(ms(found.not_after)), days_left(found, now)),
        ),
        ("  serial", found.serial.clone()),
        ("  sha-256", hex(&found.fingerprint)),
    ]);
    if let Some(warning) = warning(found, now) {
        pairs.push(("  WARNING", warning));
    }
    format!("{}\n{}", path.display(), facts(&pairs))
}

fn as_text(seen: &[Seen], now: SystemTime) -> String {
    let mut parts = Vec::new();
    for file in seen {
        let path = file.path.display();
        match &file.items {
            Err(problem) => parts.push(format!("{path}\n  PROBLEM: {problem}")),
            Ok(items) if items.is_empty() => parts.push(format!("{path}\n  no certificate")),
            Ok(items) => parts.extend(items.iter().map(|item| match item {
                Item::Certificate(facts) => certificate_as_text(&file.path, facts, now),
                Item::PrivateKey => format!("{path}\n  a private key"),
                Item::Other => format!("{path}\n  something else than a certificate or a key"),
            })),
        }
    }
    parts.join("\n")
}

fn as_json(seen: &[Seen], now: SystemTime) -> Value {
    let certificates = certificates(seen).map(|(path, facts)| {
        let node = match facts.subject {
            Some(Subject::Node { node, .. }) => Some(node.0),
            _ => None,
        };
        let client = match facts.subject {
            Some(Subject::Client { name }) => Some(name.to_string()),
            _ => None,
        };
        json!({
            "file": path.display().to_string(),
            "kind": kind(facts),
            "cluster_id": facts.cluster.map(|cluster| cluster.to_string()),
            "node_id": node,
            "client": client,
            "subject": facts.name,
            "issuer": facts.issuer,
            "hosts": hosts(facts),
            "not_before_ms": ms(facts.not_before),
            "not_after_ms": ms(facts.not_after),
            "days_left": days_left(facts, now),
            "expired": is_expired(facts, now),
            "warning": warning(facts, now),
            "serial": facts.serial,
            "fingerprint": hex(&facts.fingerprint),
        })
    });
    let has_key =
        |file: &&Seen| file.items.as_ref().is_ok_and(|items| items.contains(&Item::PrivateKey));
    let keys = seen.iter().filter(has_key).map(|file| file.path.display().to_string());
    let problems = seen.iter().filter_map(|file| {
        let problem = file.items.as_ref().err()?;
        Some(json!({ "file": file.path.display().to_string(), "message": problem }))
    });
    json!({
        "certificates": certificates.collect::<Vec<_>>(),
        "private_keys": keys.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certs::{Authority, Validity, facts_of};
    use crate::types::{ClusterId, NodeId};

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn later(days: u64) -> SystemTime {
        now() + Duration::from_secs(days * 86_400)
    }

    fn seen() -> Vec<Seen> {
        let cluster = ClusterId([0xcd; 16]);
        let days = |days| Validity::days(now(), days).expect("a time");
        let ca = Authority::new(cluster, days(100)).expect("a CA");
        let host = ["n1.example".parse().expect("a host")];
        let node = ca.issue_node(cluster, NodeId(3), &host, days(90)).expect("issued");
        let client = ca.issue_client(cluster, "alice".parse().expect("a name"), days(90));
        let items = [ca.facts().clone(), node.facts, client.expect("issued").facts];
        let certificate = |facts| Item::Certificate(Box::new(facts));
        let items = items.into_iter().map(certificate).chain([Item::PrivateKey]).collect();
        vec![Seen { path: "x.pem".into(), items: Ok(items) }]
    }

    #[test]
    fn certificates_are_told_of_and_keys_only_named() {
        let seen = seen();
        let text = as_text(&seen, now());
        let cluster = "cd".repeat(16);
        for words in [
            "a CA",
            &format!("node 3 of cluster {cluster}"),
            &format!("client alice of cluster {cluster}"),
            "for          n1.example",
            "90 days left",
            "x.pem\n  a private key",
        ] {
            assert!(text.contains(words), "{words:?}: {text}");
        }
        assert!(!text.contains("WARNING"), "{text}");
        let json = as_json(&seen, now());
        assert_eq!(json["certificates"][0]["kind"], "ca");
        assert_eq!(json["certificates"][1]["node_id"], 3);
        assert_eq!(json["certificates"][1]["days_left"], 90);
        assert_eq!(json["certificates"][2]["client"], "alice");
        assert_eq!(json["private_keys"][0], "x.pem");
        assert_eq!(exit(&seen, now()), Exit::Done);
    }

    #[test]
    fn what_ends_soon_is_a_warning_and_what_has_ended_a_failure() {
        let seen = seen();
        let text = as_text(&seen, later(70));
        assert_eq!(text.matches("it expires in 20 days").count(), 2, "{text}");
        assert_eq!(exit(&seen, later(70)), Exit::Done);
        let text = as_text(&seen, later(91));
        assert_eq!(text.matches("it has EXPIRED").count(), 2, "{text}");
        assert_eq!(exit(&seen, later(91)), Exit::Failed);
        assert_eq!(as_json(&seen, later(91))["certificates"][1]["expired"], true);
        let early = now() - Duration::from_secs(3_600);
        assert!(as_text(&seen, early).contains("not valid yet"));
    }

    #[test]
    fn a_problem_is_a_failure_and_does_not_hide_the_rest() {
        let mut seen = seen();
        seen.push(Seen { path: "y.pem".into(), items: Err("this is damaged".to_owned()) });
        let text = as_text(&seen, now());
        assert!(text.contains("y.pem\n  PROBLEM: this is damaged") && text.contains("a CA"));
        assert_eq!(as_json(&seen, now())["problems"][0]["file"], "y.pem");
        assert_eq!(exit(&seen, now()), Exit::Failed);
        assert!(facts_of(b"").is_err());
    }
}
