//! Small disks that other programs fill: no process ends, nothing acknowledged is lost, and service comes
//! back by itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raft_host_proto::client::Client;
use raft_host_proto::v1;
use raft_host_proto::v1::disk_status::Space;
use raft_host_tests::{Cluster, Server, SmallDisk, block_on, build_small_disk_shim};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// Each node's disk. An eighth of it counts as low.
const DISK_BYTES: u64 = 128 << 20;

fn set(key: &str) -> String {
    format!(r#"{{"op":"set","key":"{key}","value":"1"}}"#)
}

/// A disk that can be filled.
enum Disk {
    /// The server is told so.
    Told,
    /// It is so.
    Mounted(SmallDisk),
}

/// Three nodes on a small disk each.
struct Nodes {
    cluster: Cluster,
    /// Gone before the directory that they are mounted in, and after the servers.
    disks: Vec<Disk>,
}

impl Nodes {
    fn told() -> Nodes {
        let mut cluster = Cluster::new(PROGRAM, 3, &[]);
        let shim = build_small_disk_shim(cluster.dir()).expect("a C compiler");
        for at in 0..3 {
            cluster.servers[at].kill();
            cluster.servers[at].preload_small_disk(&shim, DISK_BYTES);
            cluster.servers[at].start(&[]);
        }
        Nodes { cluster, disks: vec![Disk::Told, Disk::Told, Disk::Told] }.ready()
    }

    /// `None` where nothing may be mounted.
    fn mounted() -> Option<Nodes> {
        let mut cluster = Cluster::new(PROGRAM, 3, &[]);
        let mut disks = Vec::new();
        for at in 0..3 {
            let server = &mut cluster.servers[at];
            let mount = server.data_dir.with_extension("disk");
            let disk = SmallDisk::mount(&mount).inspect_err(|error| eprintln!("SKIPPED: {error}"));
            disks.push(Disk::Mounted(disk.ok()?));
            server.kill();
            let moved = mount.join("data");
            let copied = Command::new("cp").arg("-a").arg(&server.data_dir).arg(&moved).status();
            assert!(copied.expect("cp").success());
            server.move_data(moved);
            server.start(&[]);
        }
        Some(Nodes { cluster, disks }.ready())
    }

    fn ready(self) -> Nodes {
        for at in 0..3 {
            await_space(&self.cluster, at, Space::Ample);
            let reserve = || (disk(&self.cluster, at)?.reserve_bytes > 0).then_some(());
            self.cluster.eventually("a reserve", reserve);
        }
        self
    }

    /// Somebody else takes all of a node's disk.
    fn fill(&self, at: usize) {
        match &self.disks[at] {
            Disk::Told => fill(&self.cluster, at, 0),
            Disk::Mounted(disk) => disk.fill().expect("filled"),
        }
    }

    /// Of the reserve, too, once the node has let go of it.
    fn fill_all(&self, at: usize) {
        self.fill(at);
        await_space(&self.cluster, at, Space::Critical);
        self.fill(at);
    }

    fn free(&self, at: usize) {
        match &self.disks[at] {
            Disk::Told => self.cluster.servers[at].take_disk(0),
            Disk::Mounted(disk) => disk.free().expect("removed"),
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.cluster.servers.iter_mut().for_each(Server::kill);
        self.disks.clear();
    }
}

fn disk(cluster: &Cluster, at: usize) -> Option<v1::DiskStatus> {
    cluster.status(at)?.disk
}

fn await_space(cluster: &Cluster, at: usize, space: Space) {
    cluster.eventually(&format!("{space:?} of {at}"), || {
        (disk(cluster, at)?.space() == space).then_some(())
    });
}

/// What a node's own files take.
fn used(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let used = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => found.blocks() * 512 + used(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    });
    used.sum()
}

/// Somebody else takes all of a node's disk but `left`.
fn fill(cluster: &Cluster, at: usize, left: u64) {
    let server = &cluster.servers[at];
    server.take_disk(DISK_BYTES.saturating_sub(used(&server.data_dir) + left));
}

/// Writes as fast as it can until it is told to end, and remembers what was acknowledged.
struct Writer {
    end: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<BTreeSet<String>>,
}

impl Writer {
    fn start(client: Client) -> Writer {
        let end = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut acknowledged = BTreeSet::new();
            for n in 0_u64.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("load-{n}");
                let value = "x".repeat(64 << 10);
                let command = format!(r#"{{"op":"set","key":"{key}","value":"{value}"}}"#);
                let one = tokio::time::Duration::from_secs(2);
                let applied =
                    block_on(async { tokio::time::timeout(one, client.apply(command)).await });
                if matches!(applied, Ok(Ok(_))) {
                    acknowledged.insert(key);
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            acknowledged
        });
        Writer { end, thread }
    }

    fn finish(self) -> BTreeSet<String> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// Waits until a command is taken again, asked of any node.
fn serves_again(cluster: &Cluster, key: &str) {
    cluster.eventually("a command is taken", || {
        let applied = cluster.cli().run(&["apply", "--timeout", "5s", &set(key)]);
        (applied.code == Some(0)).then_some(())
    });
}

#[test]
fn leader_follower_and_all_three_disks_fill_up_and_nothing_ends_or_is_lost() {
    fill_up_in_turn(Nodes::told());
}

/// The same with file systems that are full indeed, where that may be tried.
#[test]
fn small_file_systems_fill_up_and_nothing_ends_or_is_lost() {
    if let Some(nodes) = Nodes::mounted() {
        fill_up_in_turn(nodes);
    }
}

fn fill_up_in_turn(mut nodes: Nodes) {
    let cluster = &nodes.cluster;
    let mut keys = vec!["before".to_owned()];
    cluster.cli().run(&["apply", &set("before")]).ok();
    let writer = Writer::start(cluster.client());

    // A follower: the others go on as if nothing were.
    let leader = cluster.leader();
    let follower = (0..3).find(|at| *at != leader).expect("three");
    nodes.fill_all(follower);
    let said = cluster.eventually("it says so", || {
        cluster.group(follower).filter(|group| group.not_serving.contains("all but full"))
    });
    assert_ne!(said.role(), v1::Role::Leader);
    serves_again(cluster, "follower");
    let shown = cluster.cli_of(follower).run(&["status", "--only"]).ok();
    assert!(shown.contains("raises an ALARM about its disk"), "{shown}");
    nodes.free(follower);
    await_space(cluster, follower, Space::Ample);
    cluster.wait_for_agreement();

    // The leader: it hands over.
    let leader = cluster.leader();
    nodes.fill(leader);
    let new = cluster.eventually("another leader", || {
        let mut others = (0..3).filter(|at| *at != leader);
        others.find(|at| cluster.group(*at).is_some_and(|group| group.role() == v1::Role::Leader))
    });
    nodes.fill_all(leader);
    serves_again(cluster, "leader");
    assert!(cluster.query(new, r#"{"op":"get","key":"leader"}"#).contains('1'));
    nodes.free(leader);
    await_space(cluster, leader, Space::Ample);
    cluster.wait_for_agreement();

    // All three: nobody takes anything, and each says why.
    (0..3).for_each(|at| nodes.fill(at));
    (0..3).for_each(|at| await_space(cluster, at, Space::Critical));
    let refused = cluster.eventually("it is refused", || {
        let arguments = ["apply", "-o", "json", "--timeout", "3s", &set("refused")];
        let applied = cluster.cli().run(&arguments);
        assert_ne!(applied.code, Some(0), "{applied:?}");
        applied.stderr.contains("no_space").then_some(applied)
    });
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains("no new commands are taken"), "{}", refused.stderr);
    // To the last byte, and still nobody has ended.
    (0..3).for_each(|at| nodes.fill_all(at));
    let applied = cluster.cli().run(&["apply", "--timeout", "3s", &set("refused")]);
    assert_ne!(applied.code, Some(0), "{applied:?}");
    (0..3).for_each(|at| assert!(cluster.status(at).is_some(), "{at} does not answer"));
    (0..3).for_each(|at| nodes.free(at));
    (0..3).for_each(|at| await_space(cluster, at, Space::Ample));
    serves_again(cluster, "all");

    let acknowledged = writer.finish();
    assert!(!acknowledged.is_empty());
    keys.extend(["follower", "leader", "all"].map(str::to_owned));
    keys.extend(acknowledged);
    cluster.wait_for_agreement();
    for at in 0..3 {
        for key in &keys {
            let found = cluster.local(at, &format!(r#"{{"op":"get","key":"{key}"}}"#));
            assert!(!found.contains("null"), "node {at} has lost {key}: {found}");
        }
    }
    for server in &mut nodes.cluster.servers {
        assert!(server.still_runs(), "{}", server.log());
        assert!(!server.log().contains("panicked"));
        assert_eq!(server.terminate(), Some(0), "it ends in order");
    }
}

/// With some space left, a group is read-only and not more: it answers, changes its members, and hands over.
#[test]
fn a_group_whose_disks_are_low_is_read_only_and_nothing_else() {
    let mut nodes = Nodes::told();
    let cluster = &nodes.cluster;
    cluster.cli().run(&["apply", &set("before")]).ok();
    let low = DISK_BYTES / 8;
    (0..3).for_each(|at| fill(cluster, at, low - (3 << 20)));
    (0..3).for_each(|at| await_space(cluster, at, Space::Low));
    for session in [false, true] {
        let extra: &[&str] = if session { &["--session"] } else { &[] };
        let command = set("refused");
        let mut arguments = vec!["apply", "--timeout", "3s", "-o", "json", &command];
        arguments.extend(extra);
        let refused = cluster.cli().run(&arguments).failed();
        assert!(refused.contains("no_space") && refused.contains("\"none\""), "{refused}");
    }
    // Leadership went to whoever was not low yet, if that was another one.
    let leader = cluster.eventually("somebody leads on", || {
        (0..3).find(|at| cluster.group(*at).is_some_and(|group| !group.read_only.is_empty()))
    });
    let shown = cluster.cli_of(leader).run(&["status", "--only"]).ok();
    assert!(shown.contains("leads a READ-ONLY group"), "{shown}");
    assert!(cluster.query(leader, r#"{"op":"get","key":"before"}"#).contains('1'));
    cluster.cli_of(leader).run(&["snapshot", "take"]).ok();
    let other = (0..3).find(|at| *at != leader).expect("three");
    let id = cluster.node_id(other).to_string();
    cluster.cli().run(&["members", "transfer", &id]).ok();
    cluster.cli().run(&["members", "demote", &id]).ok();
    cluster.cli().run(&["members", "promote", &id]).ok();
    (0..3).for_each(|at| nodes.free(at));
    serves_again(cluster, "after");
    assert!(nodes.cluster.servers.iter_mut().all(Server::still_runs));
}
