//! What the demo does, checks and says.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use raft_host_proto::client::Client;
use raft_host_proto::v1;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::writers::{Writers, Written, apply};

/// Commands before the leader is killed, between the crash and the verification, and on each
/// side of the upgrade.
const BEFORE_CRASH: u64 = 1_500;
const AFTER_CRASH: u64 = 1_500;
const AROUND_UPGRADE: u64 = 500;
/// Entries of one page of a range query.
const PAGE: usize = 1_000;
/// Patience with things that take a moment.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// Lifetime of the key that shows expiry.
const TTL_MS: u64 = 300;

type Entries = BTreeMap<String, String>;

struct Teller {
    quiet: bool,
    begun: Instant,
}

impl Teller {
    fn say(&self, words: &str) {
        if !self.quiet {
            println!("{:6.2} s  {words}", self.begun.elapsed().as_secs_f64());
        }
    }
}

pub(super) async fn tell(cluster: &mut Cluster, quiet: bool) -> anyhow::Result<()> {
    let teller = Teller { quiet, begun: Instant::now() };
    form(cluster, &teller).await?;
    let client = cluster.client()?;
    let mut entries = crash(cluster, &client, &teller).await?;
    upgrade(cluster, &client, &teller, &mut entries).await?;
    expiry(&client, &teller).await?;
    if cluster.is_secure() {
        super::rights::tell(cluster, &client, |words| teller.say(words)).await?;
    }
    teller.say("done: everything above was checked, not assumed");
    if quiet {
        println!("ok: {} keys, {:.1} s", entries.len(), teller.begun.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn form(cluster: &mut Cluster, teller: &Teller) -> anyhow::Result<()> {
    teller.say(&format!("three nodes, each its own process, in {}", cluster.path().display()));
    if cluster.is_secure() {
        teller.say(
            "`certs init` has made a CA, and certificates of the nodes and of the client `admin`; every \
             connection is TLS, and both ends prove who they are",
        );
    }
    cluster.add().await?;
    let first = cluster.processes()[0].address.clone();
    teller.say(&format!("node 1 formed a cluster with the kv plugin and listens on {first}"));
    for number in [2, 3] {
        cluster.add().await?;
        let address = &cluster.processes()[number - 1].address;
        teller.say(&format!("node {number} joined it from {address}"));
    }
    let client = cluster.client()?;
    until("all three nodes vote", async || {
        let members = client.members().await?.members;
        Ok(members.iter().filter(|member| member.is_voter()).count() == 3)
    })
    .await?;
    teller.say("all three have the plugin from the log, have caught up, and vote");
    Ok(())
}

/// Kills the leader under load and brings it back.
async fn crash(cluster: &mut Cluster, client: &Client, teller: &Teller) -> anyhow::Result<Entries> {
    let started = Instant::now();
    let mut writers = Writers::start(client, "first");
    writers.reach(BEFORE_CRASH).await?;
    let rate = BEFORE_CRASH as f64 / started.elapsed().as_secs_f64();
    teller.say(&format!(
        "16 clients have {BEFORE_CRASH} commands acknowledged ({rate:.0} a second), each one \
         durable on two disks at least"
    ));

    let leader = leader(cluster).await?;
    cluster.kill(leader)?;
    let killed = Instant::now();
    let acknowledged = writers.progress();
    teller.say(&format!("kill -9 of node {leader}, the leader, while they go on writing"));
    // Those answers that were on their way do not count.
    writers.reach(acknowledged + 32).await?;
    let outage = killed.elapsed();
    teller.say(&format!(
        "the others elected a leader; writes go on {:.0} ms after the kill, and no client saw \
         an error",
        outage.as_secs_f64() * 1e3
    ));
    writers.reach(acknowledged + AFTER_CRASH).await?;
    let written = writers.finish().await?;
    let survivors: Vec<usize> = (1..=3).filter(|number| *number != leader).collect();
    for number in &survivors {
        compare(cluster, *number, &written.entries).await?;
    }
    describe(teller, &written, &format!("nodes {} and {}", survivors[0], survivors[1]));

    let restarted = Instant::now();
    cluster.restart(leader).await?;
    compare(cluster, leader, &written.entries).await?;
    teller.say(&format!(
        "node {leader} is back without any flag about the cluster, and holds the same {} keys \
         {:.0} ms after its start",
        written.entries.len(),
        restarted.elapsed().as_secs_f64() * 1e3
    ));
    Ok(written.entries)
}

/// Replaces the plugin under load.
async fn upgrade(
    cluster: &Cluster,
    client: &Client,
    teller: &Teller,
    entries: &mut Entries,
) -> anyhow::Result<()> {
    let mut writers = Writers::start(client, "second");
    writers.reach(AROUND_UPGRADE).await?;
    let started = Instant::now();
    let module = cluster.second_version();
    let upgraded = client.upgrade(module, "kv_v2").await.context("upgrading")?;
    let took = started.elapsed();
    let reached = writers.progress();
    writers.reach(reached + AROUND_UPGRADE).await?;
    let written = writers.finish().await?;
    teller.say(&format!(
        "upgrade to kv version 2 under load: active from entry {} on, {:.0} ms after it was \
         proposed; the longest that a client waited for an answer: {:.0} ms",
        upgraded.index,
        took.as_secs_f64() * 1e3,
        written.longest_wait.as_secs_f64() * 1e3
    ));
    let commands = written.commands;
    entries.extend(written.entries);
    for number in 1..=3 {
        // Also waits until the node has applied everything.
        compare(cluster, number, entries).await?;
        let history = cluster.client_at(number)?.modules().await?.history;
        let last = history.last().context("a node knows of no activation")?;
        ensure!(
            last.index == upgraded.index && last.module_hash == upgraded.module_hash,
            "node {number} switched at entry {}, not {}",
            last.index,
            upgraded.index
        );
    }
    teller.say(&format!(
        "all three switched at entry {}; none of the {commands} commands meanwhile was lost or ran \
         twice; all {} keys, old and new, are readable",
        upgraded.index,
        entries.len()
    ));
    Ok(())
}

/// Shows what only the second version can.
async fn expiry(client: &Client, teller: &Teller) -> anyhow::Result<()> {
    let session = client.open_session(None).await?;
    let set = json!({ "op": "set", "key": "brief", "value": "here", "ttl_ms": TTL_MS });
    apply(&session, &set).await?;
    let get = json!({ "op": "get", "key": "brief" });
    let at_once = ask(client, &get).await?;
    ensure!(at_once["value"] == "here", "the key was not there at once: {at_once}");
    tokio::time::sleep(Duration::from_millis(TTL_MS + 50)).await;
    // The log's clock stands still between commands.
    apply(&session, &json!({ "op": "set", "key": "later", "value": "now" })).await?;
    let later = ask(client, &get).await?;
    ensure!(later["value"] == Value::Null, "the key did not expire: {later}");
    teller.say(&format!(
        "a key with a time to live of {TTL_MS} ms was there, and expired by the log's clock, on \
         every node at the same entry"
    ));
    Ok(())
}

fn describe(teller: &Teller, written: &Written, who: &str) {
    teller.say(&format!(
        "all {} acknowledged commands are on {who}: {} keys compared one by one, every counter \
         exact",
        written.commands,
        written.entries.len()
    ));
}

/// Reads everything from one node, linearizably, and compares it with what must be there.
async fn compare(cluster: &Cluster, number: usize, expected: &Entries) -> anyhow::Result<()> {
    let client = cluster.client_at(number)?;
    let mut found = Entries::new();
    let mut next = Some(String::new());
    while let Some(start) = next {
        let page = ask(&client, &json!({ "op": "range", "start": start, "limit": PAGE })).await?;
        for entry in page["entries"].as_array().context("a page without entries")? {
            let text = |name: &str| entry[name].as_str().map(str::to_owned);
            let key = text("key").context("an entry without a key")?;
            found.insert(key, text("value").context("an entry without a value")?);
        }
        next = page["next"].as_str().map(str::to_owned);
    }
    if found == *expected {
        return Ok(());
    }
    let lost = expected.iter().find(|(key, value)| found.get(*key) != Some(value));
    let extra = found.keys().find(|key| !expected.contains_key(*key));
    bail!(
        "node {number} has {} keys, {} were acknowledged; first that differs: {lost:?}, first \
         too many: {extra:?}",
        found.len(),
        expected.len()
    )
}

async fn ask(client: &Client, query: &Value) -> anyhow::Result<Value> {
    let answer = client
        .query(query.to_string(), v1::Consistency::Linearizable)
        .await
        .with_context(|| format!("asking {query}"))?;
    match answer.outcome.and_then(|outcome| outcome.kind) {
        Some(v1::outcome::Kind::Ok(bytes)) => Ok(serde_json::from_slice(&bytes)?),
        other => bail!("{query} was answered {other:?}"),
    }
}

/// Number of the process that leads.
async fn leader(cluster: &Cluster) -> anyhow::Result<usize> {
    let status = cluster.client()?.status().await?;
    let address = status.group("").map(|group| group.leader_address.clone()).unwrap_or_default();
    let mut processes = cluster.processes().iter();
    let leader = processes.find(|process| process.address == address);
    Ok(leader.context("nobody leads")?.number)
}

async fn until(
    what: &str,
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await? {
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
