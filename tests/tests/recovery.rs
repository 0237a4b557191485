//! Clusters that lost too many of their nodes for good: what a plan promises is what comes back.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raft_host_proto::client::{Client, ClientError, ClientOptions, Effect};
use raft_host_proto::v1::Consistency;
use raft_host_tests::history::{Action, Answer, Operation, Outcome, checker};
use raft_host_tests::{Cli, Cluster, Server, block_on};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// An operation, and the entry that holds it where somebody said so.
type Recorded = (Operation, Option<u64>);

/// Callers that write each to a key of its own, one number after the other, whatever happens.
struct Writers {
    began: Instant,
    until: Arc<AtomicBool>,
    highest: Arc<AtomicU64>,
    history: Arc<Mutex<Vec<Recorded>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    const COUNT: u64 = 8;

    fn start(client: &Client) -> Writers {
        let mut writers = Writers {
            began: Instant::now(),
            until: Arc::default(),
            highest: Arc::default(),
            history: Arc::default(),
            threads: Vec::new(),
        };
        for process in 0..Writers::COUNT {
            let (client, began) = (client.clone(), writers.began);
            let (until, history) = (Arc::clone(&writers.until), Arc::clone(&writers.history));
            let highest = Arc::clone(&writers.highest);
            writers.threads.push(std::thread::spawn(move || {
                for number in 1.. {
                    if until.load(Ordering::Relaxed) {
                        return;
                    }
                    let start_ns = now(began);
                    let command =
                        format!(r#"{{"op":"set","key":"w{process}","value":"{number}"}}"#);
                    let answer = block_on(client.apply(command));
                    let index = answer.as_ref().ok().and_then(|it| it.position).map(|it| it.index);
                    highest.fetch_max(index.unwrap_or(0), Ordering::Relaxed);
                    let action = Action::Write(number);
                    let outcome = outcome(answer.map(|_| Answer::Done));
                    let end_ns = now(began);
                    let key = format!("w{process}");
                    let operation = Operation { process, key, action, outcome, start_ns, end_ns };
                    history.lock().expect("lock").push((operation, index));
                }
            }));
        }
        writers
    }

    /// Until so many entries were acknowledged.
    fn wait_for(&self, index: u64) {
        while self.highest.load(Ordering::Relaxed) < index {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What they did, and the clock that it was noted by.
    fn stop(self) -> (Vec<Recorded>, Instant) {
        self.until.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a writer"));
        (std::mem::take(&mut *self.history.lock().expect("lock")), self.began)
    }
}

fn now(began: Instant) -> u64 {
    began.elapsed().as_nanos() as u64
}

fn outcome(answer: Result<Answer, ClientError>) -> Outcome {
    match answer {
        Ok(answer) => Outcome::Answered(answer),
        Err(error) if error.effect() == Effect::None => Outcome::Failed,
        Err(_) => Outcome::Unknown,
    }
}

/// The history goes on with what the new cluster answers, and everything that the plan gave up, and nothing else,
/// counts as never done.
fn judge(
    client: &Client,
    (mut history, began): (Vec<Recorded>, Instant),
    last_index: u64,
) -> usize {
    let mut lost = 0;
    for (operation, index) in &mut history {
        if index.is_some_and(|index| index > last_index) {
            operation.outcome = Outcome::Failed;
            lost += 1;
        }
    }
    let mut operations: Vec<Operation> =
        history.into_iter().map(|(operation, _)| operation).collect();
    for process in 0..Writers::COUNT {
        let (key, start_ns) = (format!("w{process}"), now(began));
        let query = format!(r#"{{"op":"get","key":"{key}"}}"#);
        let response = block_on(client.query(query, Consistency::Linearizable)).expect("an answer");
        let Some(raft_host_proto::v1::outcome::Kind::Ok(bytes)) = response.outcome.unwrap().kind
        else {
            panic!("no answer")
        };
        let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
        let value = answer["value"].as_str().map(|text| text.parse().expect("a number"));
        let outcome = Outcome::Answered(Answer::Value(value));
        let action = Action::Read;
        let end_ns = now(began);
        operations.push(Operation { process, key, action, outcome, start_ns, end_ns });
    }
    checker::check(&operations).unwrap_or_else(|violation| panic!("{violation:?}"));
    lost
}

fn signal(server: &Server, name: &str) {
    let pid = server.pid().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
    assert!(status.success());
}

fn json(cli: &Cli, arguments: &[&str]) -> Value {
    let output = cli.run(&[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&output.ok()).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Begins `recover apply` again and again and kills it each time a little later, until one gets through.
fn apply_killed_on_the_way(plan: &str, dir: &str) -> usize {
    let mut patience = Duration::from_millis(1);
    for killed in 0.. {
        let mut child = Command::new(PROGRAM)
            .args(["recover", "apply", plan, "--data-dir", dir])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = child.try_wait().expect("waited for") {
                let said = child.wait_with_output().expect("its words");
                assert!(status.success(), "{}", String::from_utf8_lossy(&said.stderr));
                return killed;
            }
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        patience = patience * 5 / 4 + Duration::from_millis(4);
    }
    unreachable!("it gets through in the end")
}

#[test]
fn two_of_five_become_a_cluster_with_what_the_plan_promised_and_who_was_left_behind_is_told() {
    let mut cluster = Cluster::new(PROGRAM, 5, &[]);
    let cli = Cli::new(PROGRAM, &[]);
    let old_id = json(&cluster.cli(), &["status"])["nodes"][0]["cluster_id"].clone();
    let old_id = old_id.as_str().expect("an id").to_owned();
    // Who writes to a cluster that is gone gives up soon.
    let options = ClientOptions { deadline: Duration::from_secs(5), ..ClientOptions::default() };
    let endpoints = cluster.addresses().into_iter().map(|address| address.to_string());
    let client = Client::connect(endpoints, options).expect("endpoints");
    let writers = Writers::start(&client);
    writers.wait_for(150);
    let leader = cluster.leader();
    let left: Vec<usize> = (0..5).filter(|at| *at != leader).take(2).collect();
    let gone: Vec<usize> = (0..5).filter(|at| !left.contains(at)).collect();
    // The other three go on without these two, and are then gone for good.
    left.iter().for_each(|at| signal(&cluster.servers[*at], "STOP"));
    let behind = writers.highest.load(Ordering::Relaxed);
    writers.wait_for(behind + 300);
    for at in &gone {
        cluster.servers[*at].kill();
    }
    left.iter().for_each(|at| signal(&cluster.servers[*at], "CONT"));
    // All but one, which turns up later.
    for at in &gone[1..] {
        fs::remove_dir_all(&cluster.servers[*at].data_dir).expect("removed");
    }

    let files: Vec<String> = left.iter().map(|at| format!("survivor-{at}")).collect();
    let files: Vec<_> = files.iter().map(|name| cluster.dir().join(name)).collect();
    let files: Vec<&str> = files.iter().map(|path| text(path)).collect();
    let dirs: Vec<_> = left.iter().map(|at| cluster.servers[*at].data_dir.clone()).collect();
    let dirs: Vec<&str> = dirs.iter().map(|path| text(path)).collect();
    let running = cli.run(&["recover", "inspect", files[0], "--data-dir", dirs[0]]).failed();
    assert!(running.contains("is in use by"), "{running}");
    assert!(!Path::new(files[0]).exists(), "nothing was written");
    for (at, (file, dir)) in left.iter().zip(files.iter().zip(&dirs)) {
        cluster.servers[*at].terminate();
        let said = json(&cli, &["recover", "inspect", file, "--data-dir", dir]);
        assert_eq!(said["cluster_id"], old_id.as_str());
    }
    let history = writers.stop();

    // The plan.
    let plan = cluster.dir().join("plan");
    let plan = text(&plan);
    let both = [files[0], files[1]];
    let refused = cli.run(&["recover", "plan", both[0], both[1], "--out", plan]).failed();
    assert!(refused.contains("May be lost: whatever was acknowledged after entry"), "{refused}");
    assert!(refused.contains("--accept-loss"), "{refused}");
    assert!(!Path::new(plan).exists(), "nothing was written");
    let accepting = ["recover", "plan", both[0], both[1], "--out", plan, "--accept-loss"];
    let planned = json(&cli, &accepting);
    let last_index = planned["last_index"].as_u64().expect("an index");
    assert_eq!(planned["may_lose"], true);
    let chosen = planned["data_dir"].as_str().expect("a directory").to_owned();
    let other = dirs.iter().find(|dir| **dir != chosen).expect("another one");

    // Where it does not belong; and half way.
    let refused = cli.run(&["recover", "apply", plan, "--data-dir", other]).failed();
    assert!(refused.contains("apply it where that node's data is"), "{refused}");
    let refused = cli.run(&["recover", "verify", plan, "--data-dir", &chosen]).failed();
    assert!(refused.contains("was not applied to"), "{refused}");
    let killed = apply_killed_on_the_way(plan, &chosen);
    assert!(killed > 0, "it takes more than a millisecond");
    let again = cli.run(&["recover", "apply", plan, "--data-dir", &chosen]).ok();
    assert!(again.contains("had been applied to"), "{again}");
    let verified = json(&cli, &["recover", "verify", plan, "--data-dir", &chosen]);
    assert!(verified["digest"].is_string(), "{verified}");
    // Whether the old one had certificates stands nowhere.
    let new_id = verified["cluster_id"].as_str().expect("an id");
    let certificates = format!("certs init DIR --cluster-id {new_id} --node n1=127.0.0.1 ");
    assert!(again.contains(&certificates), "{again}");

    // The new cluster.
    let at = left[dirs.iter().position(|dir| *dir == chosen).expect("one of them")];
    let new = &mut cluster.servers[at];
    new.start(&[]);
    let address = new.address.to_string();
    let client = cluster.client_of(at);
    let lost = judge(&client, history, last_index);
    assert!(lost > 0, "the three that are gone had agreed on more");
    let status = json(&cluster.cli_of(at), &["status", "--only"]);
    let group = &status["nodes"][0]["groups"][0];
    let origin = &group["origins"][0];
    assert_eq!(origin["cluster_id"].as_str(), Some(&*old_id));
    assert_eq!(origin["index"].as_u64(), Some(last_index));

    // Who comes back is told; who is emptied joins.
    cluster.servers[gone[0]].start(&[]);
    cluster.eventually("it is told", || {
        cluster.servers[gone[0]].log().contains("was left behind").then_some(())
    });
    cluster.servers[gone[0]].kill();
    let words = cluster.servers[gone[0]].refuses(&["--join", &address]);
    assert!(words.contains("belongs to cluster"), "{words}");
    for at in [left.iter().find(|it| **it != at).expect("two"), &gone[0]] {
        let server = &mut cluster.servers[*at];
        fs::remove_dir_all(&server.data_dir).expect("removed");
        server.start(&["--join", &address]);
    }
    cluster.wait_for_voters(3);
    cluster.wait_for_agreement();
    let compared = json(&cluster.cli_of(at), &["digest"]);
    assert_eq!(compared["all_agree"], true, "{compared}");
    // What was there is a data directory as before.
    let kept = fs::read_dir(&chosen).expect("listed").map(|entry| entry.expect("listed").path());
    let mut kept = kept.filter(|path| text(path).contains("before-"));
    let kept = kept.next().expect("kept aside");
    let replayed = json(&cli, &["replay", text(&kept)]);
    assert_eq!(replayed["agrees"], true, "{replayed}");
}

#[test]
fn one_of_three_is_recovered_by_one_command_that_asks() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let set = r#"{"op":"set","key":"k","value":"v"}"#;
    cluster.cli().run(&["apply", set]).ok();
    cluster.wait_for_agreement();
    cluster.servers.iter_mut().for_each(|server| {
        server.terminate();
    });
    let dir = text(&cluster.servers[2].data_dir).to_owned();
    let cli = Cli::new(PROGRAM, &[]);
    let now = ["recover", "now", "--data-dir", &dir];
    let refused = cli.run(&now).failed();
    assert!(refused.contains("May be lost"), "{refused}");
    let unasked = cli.run(&[&now[..], &["--accept-loss"]].concat());
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.stderr.contains("no terminal: --yes"), "{}", unasked.stderr);
    assert!(unasked.stdout.contains("Kept for certain: every entry up to"), "{}", unasked.stdout);
    // Nothing was changed until now.
    let inspected = json(&cli, &["recover", "inspect", "--data-dir", &dir]);
    assert_eq!(inspected["node_id"].as_u64(), Some(3));
    let done = json(&cli, &[&now[..], &["--accept-loss", "--yes"]].concat());
    assert_eq!(done["node_id"].as_u64(), Some(1));
    assert_eq!(done["address"], cluster.servers[2].address.to_string().as_str());
    assert!(done["digest"].is_string(), "{done}");
    cluster.servers[2].start(&[]);
    let answer = cluster.query(2, r#"{"op":"get","key":"k"}"#);
    assert!(answer.contains('v'), "{answer}");
    // It is a cluster that is whole.
    cluster.servers[2].terminate();
    let whole = cli.run(&[&now[..], &["--accept-loss", "--yes"]].concat()).failed();
    assert!(whole.contains("are a majority of the voters: start them"), "{whole}");
}

#[test]
fn a_plan_for_a_directory_that_went_on_is_refused() {
    let mut cluster = Cluster::new(PROGRAM, 3, &[]);
    let dir = text(&cluster.servers[1].data_dir).to_owned();
    cluster.servers[1].terminate();
    let cli = Cli::new(PROGRAM, &[]);
    let [file, plan] = ["file", "plan"].map(|name| text(&cluster.dir().join(name)).to_owned());
    cli.run(&["recover", "inspect", &file, "--data-dir", &dir]).ok();
    cli.run(&["recover", "plan", &file, "--out", &plan, "--accept-loss"]).ok();
    let again = cli.run(&["recover", "plan", &file, "--out", &plan, "--accept-loss"]).failed();
    assert!(again.contains("is there already, and is left alone"), "{again}");
    cluster.servers[1].start(&[]);
    cluster.cli().run(&["apply", r#"{"op":"set","key":"k","value":"v"}"#]).ok();
    cluster.wait_for_agreement();
    cluster.servers[1].terminate();
    let refused = cli.run(&["recover", "apply", &plan, "--data-dir", &dir]).failed();
    assert!(refused.contains("is not as it was when it was inspected"), "{refused}");
    cluster.servers[1].start(&[]);
    cluster.wait_for_agreement();

    let changed = fs::read_to_string(&plan)
        .expect("a plan")
        .replace("\"may_lose\": true", "\"may_lose\": false");
    fs::write(&plan, changed).expect("written");
    let refused = cli.run(&["recover", "apply", &plan, "--data-dir", &dir]).failed();
    assert!(refused.contains("was changed since it was written"), "{refused}");
    let refused = cli.run(&["recover", "plan", &plan]).failed();
    assert!(refused.contains("is not a survivor of raft-host, but recovery plan"), "{refused}");
}
