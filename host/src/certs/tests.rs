//! The folder of a CA: what is in it, who may read it, what is never written over.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::types::{ClusterId, NodeId};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn later(days: u64) -> SystemTime {
    now() + Duration::from_secs(days * 86_400)
}

fn name(text: &str) -> EntryName {
    text.parse().expect("a name")
}

fn first(nodes: &[&str], clients: &[&str]) -> First {
    let hosts = |name: &str| vec![name.parse().expect("a host")];
    First {
        cluster: CLUSTER,
        days: None,
        nodes: nodes.iter().map(|node| (name(node), hosts(node))).collect(),
        clients: clients.iter().map(|client| name(client)).collect(),
    }
}

fn node(text: &str, id: Option<u64>) -> NewNode {
    let hosts = vec!["localhost".parse().expect("a host"), "10.0.0.1".parse().expect("one")];
    NewNode { name: name(text), hosts, id: id.map(NodeId), cluster: None, days: None }
}

fn id_of(entry: &Entry) -> u64 {
    match entry.facts.subject {
        Some(Subject::Node { node, .. }) => node.0,
        other => panic!("{other:?}"),
    }
}

/// A folder with nodes and clients, in one that goes away.
fn made(nodes: &[&str], clients: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let around = tempfile::tempdir().expect("a temporary directory");
    let path = around.path().join("certs");
    Folder::create(&path, &first(nodes, clients), now()).expect("made");
    (around, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// All files below, with what they hold.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for file in fs::read_dir(path).expect("readable") {
        let file = file.expect("readable").path();
        match file.is_dir() {
            true => found.extend(contents(&file)),
            false => found.push((file.clone(), fs::read(&file).expect("readable"))),
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("readable")
}

#[test]
fn one_step_makes_all_that_a_cluster_needs_and_nobody_else_reads_the_keys() {
    let (around, path) = made(&["n1", "n2", "n3"], &["alice"]);
    assert_eq!(fs::read_dir(around.path()).expect("readable").count(), 1, "nothing is left aside");
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("ca-key.pem")), 0o600);
    for (at, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let dir = path.join("nodes").join(node);
        assert_eq!((mode(&dir), mode(&dir.join("key.pem"))), (0o700, 0o600));
        assert_eq!(text(&dir.join("ca.pem")), text(&path.join("ca.pem")));
        let seen = look(&dir.join("certificate.pem"));
        let [Item::Certificate(facts)] = &seen[0].items.as_ref().expect("readable")[..] else {
            panic!("{seen:?}");
        };
        let id = NodeId(at as u64 + 1);
        assert_eq!(facts.subject, Some(Subject::Node { cluster: CLUSTER, node: id }));
        assert_eq!(facts.dns_names, [node]);
    }
    assert_eq!(mode(&path.join("clients/alice/key.pem")), 0o600);
    assert_eq!(text(&path.join("cluster-id")), format!("{CLUSTER}\n"));
    assert_eq!(text(&path.join("next-node-id")), "4\n");
    for (file, bytes) in contents(&path) {
        let is_key = file.to_string_lossy().ends_with("key.pem");
        let has_key = bytes.windows(11).any(|part| part == b"PRIVATE KEY");
        assert_eq!(is_key, has_key, "{}", file.display());
    }
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let (around, path) = made(&["n1"], &["alice"]);
    let before = contents(&path);
    let folder = Folder::open(&path).expect("a folder");
    let error = folder.add_node(&node("n1", None), now()).expect_err("taken");
    assert!(matches!(&error, FolderError::Taken(dir) if dir.ends_with("nodes/n1")), "{error}");
    assert!(folder.add_client(name("alice"), None, now()).is_err());
    drop(folder);
    let error = Folder::create(&path, &first(&[], &[]), now()).expect_err("taken");
    assert!(error.to_string().contains("is left alone"), "{error}");
    assert_eq!(contents(&path), before);
    // Neither is a file, a link, or a folder of something else; an empty folder will do.
    let places = ["file", "link", "full", "empty"].map(|name| around.path().join(name));
    fs::write(&places[0], "x").expect("written");
    std::os::unix::fs::symlink(around.path().join("nowhere"), &places[1]).expect("a link");
    fs::create_dir(&places[2]).expect("a folder");
    fs::write(places[2].join("x"), "x").expect("written");
    fs::create_dir(&places[3]).expect("a folder");
    for place in &places[..3] {
        let error = Folder::create(place, &first(&[], &[]), now()).expect_err("taken");
        assert!(matches!(error, FolderError::Taken(_)), "{error}");
    }
    Folder::create(&places[3], &first(&[], &[]), now()).expect("made");
    assert_eq!(mode(&places[3]), 0o700);
    let error = Folder::create(&around.path().join("a/b"), &first(&[], &[]), now());
    assert!(matches!(error.expect_err("no parent"), FolderError::NoParent { .. }));
}

#[test]
fn a_first_step_that_fails_leaves_nothing() {
    let around = tempfile::tempdir().expect("a temporary directory");
    let path = around.path().join("certs");
    let error = Folder::create(&path, &first(&["n1", "n1"], &[]), now()).expect_err("twice");
    assert!(matches!(error, FolderError::Taken(_)), "{error}");
    let long = First { days: Some(3_651), ..first(&[], &[]) };
    assert!(Folder::create(&path, &long, now()).is_err());
    assert_eq!(fs::read_dir(around.path()).expect("readable").count(), 0);
}

#[test]
fn two_at_once_get_different_ids() {
    let (_around, path) = made(&[], &[]);
    let ids: Vec<u64> = std::thread::scope(|scope| {
        let path = &path;
        let one = |at: usize| {
            let folder = Folder::open(path).expect("a folder");
            id_of(&folder.add_node(&node(&format!("n{at}"), None), now()).expect("issued"))
        };
        let threads: Vec<_> = (0..8).map(|at| scope.spawn(move || one(at))).collect();
        threads.into_iter().map(|thread| thread.join().expect("ended")).collect()
    });
    assert_eq!(ids.into_iter().collect::<BTreeSet<u64>>(), (1..=8).collect());
}

#[test]
fn ids_may_be_chosen_once_and_each_cluster_has_its_own() {
    let (_around, path) = made(&["n1"], &[]);
    let folder = Folder::open(&path).expect("a folder");
    let id = |node: &NewNode| folder.add_node(node, now()).map(|entry| id_of(&entry));
    assert_eq!(id(&node("n5", Some(5))).expect("issued"), 5);
    let error = id(&node("again", Some(5))).expect_err("taken");
    assert!(matches!(error, FolderError::IdTaken(NodeId(5))), "{error}");
    assert_eq!(id(&node("n3", Some(3))).expect("passed over"), 3);
    // A folder that somebody removed does not make its id free.
    fs::remove_dir_all(path.join("nodes/n5")).expect("removed");
    assert!(id(&node("n5", Some(5))).is_err());
    assert_eq!(id(&node("n6", None)).expect("the next"), 6);
    assert!(id(&node("n0", Some(0))).is_err());
    let restored = NewNode { cluster: Some(ClusterId([8; 16])), ..node("r1", None) };
    assert_eq!(id(&restored).expect("issued"), 1);
    assert_eq!(id(&NewNode { name: name("r2"), ..restored }).expect("issued"), 2);
    fs::write(path.join("next-node-id"), "nonsense").expect("written");
    let error = id(&node("n7", None)).expect_err("damaged");
    assert!(error.to_string().contains("next-node-id"), "{error}");
    fs::remove_file(path.join("next-node-id")).expect("removed");
    assert!(id(&node("n7", None)).is_err(), "ids do not begin anew");
    assert!(!path.join("nodes/n7").exists());
}

#[test]
fn folders_that_cannot_be_used_say_why() {
    let (around, path) = made(&[], &[]);
    for other in [around.path().join("nowhere"), around.path().to_owned()] {
        let error = Folder::open(&other).expect_err("no folder");
        assert!(error.to_string().contains("`raft-host certs init`"), "{error}");
    }
    let folder = Folder::open(&path).expect("a folder");
    let key = path.join("ca-key.pem");
    let add = || folder.add_client(name("alice"), None, now()).expect_err("refused").to_string();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    assert!(add().contains("can be read by others"), "{}", add());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::write(&key, "nonsense").expect("written");
    assert!(add().contains("ca-key.pem: the key of the CA cannot be read"), "{}", add());
    fs::remove_file(&key).expect("removed");
    assert!(add().contains("cannot read") && add().contains("ca-key.pem"), "{}", add());
    assert!(!path.join("clients").exists());
}

#[test]
fn nothing_outlives_the_ca() {
    let around = tempfile::tempdir().expect("a temporary directory");
    let path = around.path().join("certs");
    let short = First { days: Some(100), ..first(&["n1"], &[]) };
    let (ca, entries) = Folder::create(&path, &short, now()).expect("made");
    assert!(entries[0].is_shortened);
    assert_eq!(entries[0].facts.not_after, ca.not_after);
    let folder = Folder::open(&path).expect("a folder");
    let error = folder.add_client(name("alice"), Some(101), now()).expect_err("too long");
    assert!(error.to_string().contains("valid for 100 more days"), "{error}");
    assert!(!folder.add_client(name("alice"), Some(99), now()).expect("issued").is_shortened);
    let error = folder.add_client(name("bob"), Some(1), later(101)).expect_err("expired");
    assert!(matches!(error, FolderError::Expired(_)), "{error}");
    assert!(folder.add_client(name("bob"), Some(0), now()).is_err());
}

#[test]
fn names_that_lead_elsewhere_are_none() {
    for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-o", "@a", "ä", "a b", "a\n"] {
        assert!(bad.parse::<EntryName>().is_err(), "{bad:?}");
    }
    for good in ["n1", "alice@example.org", "1", "a..b"] {
        assert_eq!(name(good).as_str(), good);
    }
}

#[test]
fn what_is_renewed_stays_who_it_is() {
    let (_around, path) = made(&["n1", "n2"], &["alice"]);
    let folder = Folder::open(&path).expect("a folder");
    let all = folder.entries().expect("entries");
    assert_eq!(all.len(), 3);
    let before = contents(&path);
    let renewed = folder.renew(&all, &[], None, later(300)).expect("renewed");
    for entry in &renewed {
        assert_eq!(
            entry.facts.not_after,
            1_800_000_000
                + 86_400
                    * match entry.kind {
                        Kind::Node => 697,
                        Kind::Client => 665,
                    }
        );
        assert_eq!(mode(&entry.dir.join("key.pem")), 0o600);
    }
    assert_eq!((id_of(&renewed[0]), id_of(&renewed[1])), (1, 2));
    assert_eq!(renewed[1].facts.dns_names, ["n2"]);
    let changed = contents(&path).iter().zip(&before).filter(|(new, old)| new != old).count();
    assert_eq!(changed, 6, "a key and a certificate each, and nothing else");
    let error = folder.renew(&[(Kind::Node, "n9".to_owned())], &[], None, now()).expect_err("none");
    assert!(matches!(error, FolderError::NoEntry(_)), "{error}");
    let moved = [(Kind::Node, "n1".to_owned())];
    let host = ["10.0.0.9".parse().expect("a host")];
    let moved = &folder.renew(&moved, &host, None, now()).expect("renewed")[0];
    assert_eq!((id_of(moved), moved.facts.dns_names.len()), (1, 0));
    assert_eq!(moved.facts.ip_addresses.len(), 1);
    // One that cannot be renewed keeps the others from being renewed half.
    fs::write(path.join("nodes/n2/certificate.pem"), "nonsense").expect("written");
    let before = contents(&path);
    let error = folder.renew(&all, &[], None, now()).expect_err("damaged").to_string();
    assert!(error.contains("nodes/n2/certificate.pem"), "{error}");
    assert_eq!(contents(&path), before);
}

#[test]
fn a_ca_is_changed_in_steps_and_both_are_trusted_in_between() {
    let (_around, path) = made(&["n1"], &["alice"]);
    let folder = Folder::open(&path).expect("a folder");
    let error = folder.finish_rotation().expect_err("none");
    assert!(matches!(error, FolderError::NotRotating(_)), "{error}");
    let old = text(&path.join("ca.pem"));
    let begun = folder.rotate(None, later(1)).expect("begun");
    assert!(begun.is_new && begun.dirs.len() == 2);
    let both = text(&path.join("ca.pem"));
    assert!(both.ends_with(&old) && both.len() > old.len());
    assert_eq!(mode(&path.join("ca-key.pem")), 0o600);
    assert_eq!(mode(&path.join("old-ca-key.pem")), 0o600);
    for dir in &begun.dirs {
        assert_eq!(text(&dir.join("ca.pem")), both);
    }
    let again = folder.rotate(None, later(1)).expect("under way");
    assert!(!again.is_new && again.authority == begun.authority);
    assert_eq!(text(&path.join("ca.pem")), both);
    // What is issued now is of the new one.
    let added = folder.add_client(name("bob"), None, later(1)).expect("issued");
    assert_eq!(added.facts.issuer, begun.authority.name);
    let error = folder.finish_rotation().expect_err("in use").to_string();
    assert!(error.contains("2 certificates") && error.contains("node n1"), "{error}");
    let all = folder.entries().expect("entries");
    folder.renew(&all, &[], None, later(2)).expect("renewed");
    let done = folder.finish_rotation().expect("done");
    assert_eq!(done.authority, begun.authority);
    let new = text(&path.join("ca.pem"));
    assert_eq!(both, new.clone() + &old);
    assert!(!path.join("old-ca-key.pem").exists());
    for dir in done.dirs {
        assert_eq!(text(&dir.join("ca.pem")), new);
    }
}

#[test]
fn a_change_of_the_ca_that_was_broken_off_goes_on_or_back() {
    let (_around, path) = made(&["n1"], &[]);
    let folder = Folder::open(&path).expect("a folder");
    let old = text(&path.join("ca.pem"));
    let old_key = text(&path.join("ca-key.pem"));
    folder.rotate(None, now()).expect("begun");
    // The last step is missing: the old key signs still, and has its certificate.
    disk::replace(&path, "ca-key.pem", &old_key, 0o600).expect("written");
    let added = folder.add_client(name("alice"), None, now()).expect("issued");
    let [block] = &authority::certificates_in(&old).expect("readable")[..] else { panic!() };
    assert_eq!(added.facts.issuer, facts_of(&block.der).expect("readable").name);
    folder.finish_rotation().expect("back");
    assert_eq!(text(&path.join("ca.pem")), old);
    assert_eq!(text(&path.join("nodes/n1/ca.pem")), old);
    assert!(folder.rotate(None, now()).expect("begun anew").is_new);
}

#[test]
fn what_is_looked_at_is_bounded_and_damage_is_told_of() {
    let (around, path) = made(&["n1"], &["alice"]);
    let seen = look(&path);
    assert_eq!(seen.len(), 8, "{seen:?}");
    let items: Vec<&Item> =
        seen.iter().flat_map(|file| file.items.as_ref().expect("readable")).collect();
    assert_eq!(items.iter().filter(|item| ***item == Item::PrivateKey).count(), 3);
    let secret = text(&path.join("ca-key.pem"));
    assert!(!format!("{seen:?}").contains(secret.lines().nth(1).expect("base64")));
    let file = around.path().join("file.pem");
    let problem = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        look(&file)[0].items.clone().expect_err("a problem")
    };
    let ca = text(&path.join("ca.pem"));
    assert!(problem(ca.repeat(65).as_bytes()).contains("more than 64"));
    assert!(problem(&vec![b'x'; (1 << 20) + 1]).contains("larger than 1 MiB"));
    assert!(problem(b"").contains("no X.509 certificate"));
    assert!(problem(ca.replace("-----END", "END").as_bytes()).contains("damaged"));
    assert!(look(&around.path().join("nowhere"))[0].items.is_err());
    let empty = tempfile::tempdir().expect("a temporary directory");
    assert!(look(empty.path())[0].items.is_err());
    let [block] = &authority::certificates_in(&ca).expect("readable")[..] else { panic!() };
    fs::write(&file, &block.der).expect("written");
    assert!(matches!(look(&file)[0].items.as_deref(), Ok([Item::Certificate(_)])), "DER");
}
