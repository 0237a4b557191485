//! `raft-host dev`, driven over its pipes as a script drives it. The project's "compiler" is a
//! shell script that copies a module, so that no toolchain is needed.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use raft_host_tests::{Cli, workspace};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");
/// Long enough for a debug build on a loaded machine; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the project's source says: how to make `counter.wasm`.
const PLAIN: &str = "cp modules/plain.wasm counter.wasm";
const DOUBLING: &str = "cp modules/doubling.wasm counter.wasm";
const INCOMPLETE: &str = "cp modules/incomplete.wasm counter.wasm";
const STRANGE: &str = "cp modules/strange.wasm counter.wasm";
const BROKEN: &str = "echo 'machine.c:3: error: no such thing' >&2; exit 1";

/// A folder with a project, its tools and the modules that these "compile" to.
struct Project {
    dir: TempDir,
}

impl Project {
    fn new(source: &str) -> Project {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let project = Project { dir };
        project.write("app/raft-host.toml", "name = \"counter\"\nlanguage = \"c\"\n");
        project.source(source);
        let text = fs::read_to_string(workspace("plugins/counter/counter.wat")).expect("read");
        let sum = "(i64.add (global.get $count) (local.get $number))";
        for (name, old, new) in [
            ("plain", sum, sum),
            // Its commands count twice.
            (
                "doubling",
                sum,
                "(i64.add (global.get $count) (i64.shl (local.get $number) (i64.const 1)))",
            ),
            // It lacks what it must have.
            ("incomplete", "(export \"restore\")", "(export \"restored\")"),
            // It takes its own snapshots only: nobody sees that but the nodes.
            ("strange", "\"CNT1\"", "\"ODD1\""),
        ] {
            assert!(text.contains(old), "the counter has changed: {old}");
            let module = wat::parse_str(text.replacen(old, new, 1)).expect("a module");
            project.write(&format!("app/modules/{name}.wasm"), &module);
        }
        // What `make` is to C, and a compiler that is asked nothing because of its name.
        project.program("tools/make", "#!/bin/sh\n. ./machine.sh\n");
        project.program("tools/zig", "#!/bin/sh\n");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("created");
        fs::write(path, content).expect("written");
    }

    fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(name), executable).expect("a mode is set");
    }

    /// Saves the source as an editor does: another file takes its place.
    fn source(&self, text: &str) {
        self.write("app/machine.sh.tmp", text);
        fs::rename(self.path("app/machine.sh.tmp"), self.path("app/machine.sh")).expect("renamed");
    }

    fn dev(&self, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").expect("there is a PATH");
        let tools = self.path("tools");
        let mut command = Command::new(PROGRAM);
        command
            .arg("dev")
            .arg(self.path("app"))
            .args(arguments)
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("CC", format!("{} cc", tools.join("zig").display()));
        command
    }
}

/// A session that runs.
struct Dev {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Dev {
    fn start(project: &Project, arguments: &[&str]) -> Dev {
        let mut child = project
            .dev(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program under test starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let line = line.expect("text");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Dev { child, input, lines, said: Vec::new() }
    }

    fn type_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it listens");
        writeln!(input, "{line}").expect("it listens");
    }

    /// Reads on until a line has all these parts, and returns it.
    fn until(&mut self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{parts:?} was not said:\n{}", self.said.join("\n"));
                }
            }
        }
    }

    /// Types a line and reads on until the answer.
    fn ask(&mut self, line: &str, answer: &str) {
        self.type_line(line);
        let said = self.until(&["[index "]);
        let told = said.split("  [").next().unwrap_or_default();
        assert_eq!(told, answer, "{line}: {}", self.said.join("\n"));
    }

    /// Ends the input and waits for the end of the session.
    fn finish(mut self) -> Vec<String> {
        drop(self.input.take());
        let status = self.wait();
        self.said.extend(self.lines.iter());
        let said = std::mem::take(&mut self.said);
        assert!(status.success(), "{status}:\n{}", said.join("\n"));
        assert_eq!(said.last().map(String::as_str), Some("stopped"));
        said
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `until` needs to know that a version runs.
const RUNS: &[&str] = &["counter", "runs", "built in"];

#[test]
fn an_edit_changes_the_behaviour_and_keeps_the_state() {
    let project = Project::new(PLAIN);
    let mut dev = Dev::start(&project, &[]);
    dev.until(RUNS);
    dev.ask("5", "5");
    project.source(DOUBLING);
    // It is told what it answers otherwise, and goes on all the same.
    dev.until(&["rehearsed 1 commands on node"]);
    dev.until(&["reply: 1 differences"]);
    dev.until(&["before: ok: 5"]);
    dev.until(&["now:    ok: 10"]);
    let said = dev.until(&["runs from index", "with the state of", "after the build"]);
    eprintln!("{said}");
    dev.ask("?", "5");
    dev.ask("10", "25");
    project.source(PLAIN);
    dev.until(&["runs from index"]);
    dev.ask("10", "35");
    // Nothing that counts has changed.
    project.source("# a remark\ncp modules/plain.wasm counter.wasm");
    dev.until(&["unchanged", "checked before"]);
    dev.ask("1", "36");
    dev.finish();
}

#[test]
fn a_broken_edit_leaves_the_running_version_alone() {
    let project = Project::new(PLAIN);
    let mut dev = Dev::start(&project, &[]);
    dev.until(RUNS);
    dev.ask("5", "5");
    project.source(BROKEN);
    dev.until(&["machine.c:3: error: no such thing"]);
    dev.until(&["counter", "goes on"]);
    dev.ask("1", "6");
    // It builds, and no cluster would take it.
    project.source(INCOMPLETE);
    dev.until(&["it builds, but no cluster would take it", "restore"]);
    dev.until(&["counter", "goes on"]);
    dev.ask("1", "7");
    // It builds, and does not do what the project's script says.
    let doubles = "apply 5\nok 10\n";
    project.write("app/check.script", doubles);
    project.source(STRANGE);
    dev.until(&["check finds it unfit"]);
    dev.until(&["check.script:"]);
    dev.until(&["counter", "goes on"]);
    dev.ask("1", "8");
    // It does what the script says, and the nodes find that it does not take the state over.
    project.write("app/check.script", "apply 5\nok 5\n");
    dev.until(&["the nodes refuse it"]);
    dev.until(&["counter", "goes on"]);
    dev.ask("1", "9");
    project.write("app/check.script", doubles);
    project.source(DOUBLING);
    dev.until(&["runs from index"]);
    dev.ask("1", "11");
    dev.finish();
}

#[test]
fn a_node_is_killed_and_revived_and_the_others_go_on() {
    let project = Project::new(PLAIN);
    let mut dev = Dev::start(&project, &[]);
    dev.until(RUNS);
    dev.ask("1", "1");
    for number in 1..=3 {
        dev.type_line(&format!(":kill {number}"));
        dev.until(&[&format!("node {number} is killed; 2 of 3 go on")]);
        dev.ask("1", &(2 * number).to_string());
        dev.type_line(&format!(":revive {number}"));
        dev.until(&[&format!("node {number} is back from its disk and has all up to index")]);
        dev.ask("1", &(2 * number + 1).to_string());
    }
    // Without a quorum nothing is decided, and that is said at once; a build waits for it.
    dev.type_line(":toggle 2");
    dev.type_line(":toggle 3");
    dev.until(&["node 3 is killed; 1 of 3 nodes run"]);
    dev.type_line("1");
    dev.until(&["1 of 3 nodes run"]);
    project.source(DOUBLING);
    dev.until(&["it waits until 2 nodes run"]);
    dev.type_line(":toggle 3");
    dev.until(&["runs from index"]);
    dev.ask("1", "9");
    dev.type_line(":status");
    dev.until(&["2", "killed"]);
    dev.finish();
}

#[test]
fn a_save_during_a_build_leads_to_one_more_build() {
    let project = Project::new(PLAIN);
    let mut dev = Dev::start(&project, &[]);
    dev.until(RUNS);
    dev.ask("5", "5");
    project.source(&format!("touch ../begun; sleep 2; {PLAIN}"));
    let deadline = Instant::now() + PATIENCE;
    while !project.path("begun").exists() {
        assert!(Instant::now() < deadline, "no build has begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = dev.said.len();
    for _ in 0..5 {
        project.source(BROKEN);
        std::thread::sleep(Duration::from_millis(100));
    }
    project.source(DOUBLING);
    dev.until(&["runs from index"]);
    dev.ask("1", "7");
    let said = dev.finish();
    let builds = said[before..].iter().filter(|line| line.contains("building")).count();
    assert!(builds <= 2, "{}", said.join("\n"));
    assert!(!said.iter().any(|line| line.contains("no such thing")), "{}", said.join("\n"));
}

#[test]
fn a_first_build_that_fails_waits_for_a_better_one() {
    let project = Project::new(BROKEN);
    let mut dev = Dev::start(&project, &[]);
    dev.until(&["no version runs yet"]);
    dev.type_line("1");
    dev.until(&["no version runs yet"]);
    project.source(PLAIN);
    dev.until(RUNS);
    dev.ask("1", "1");
    dev.finish();
}

#[test]
fn a_kept_folder_goes_on_where_it_was_and_other_shells_reach_it() {
    let project = Project::new(PLAIN);
    let data = project.path("app/data");
    let arguments = ["--data-dir", data.to_str().expect("UTF-8")];
    let mut dev = Dev::start(&project, &arguments);
    dev.until(RUNS);
    dev.ask("5", "5");
    dev.finish();
    project.source(DOUBLING);
    let mut dev = Dev::start(&project, &arguments);
    dev.until(&["going on with counter"]);
    let addresses = dev.until(&["three nodes: "]);
    dev.until(&["runs from index", "with the state of"]);
    dev.ask("1", "7");
    let first = addresses.trim_start_matches("three nodes: ").split(", ").next().expect("one");
    let cli = Cli::new(PROGRAM, &[first.parse().expect("an address")]);
    assert_eq!(cli.run(&["apply", "1"]).ok().trim(), "9");

    // A second session on the same folder finds the address in use.
    let output = project.dev(&arguments).stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("in use") && text.contains("--data-dir"), "{text}");
    dev.finish();
}

#[test]
fn what_cannot_begin_ends_with_one_clear_message() {
    let project = Project::new(PLAIN);
    let failed = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("error: ") && !text.contains("panicked"), "{text}");
        text
    };
    let mut elsewhere = Command::new(PROGRAM);
    let text = failed(elsewhere.arg("dev").arg(project.path("tools")));
    assert!(text.contains("raft-host.toml") && text.contains("raft-host new"), "{text}");
    let mut elsewhere = Command::new(PROGRAM);
    let text = failed(elsewhere.arg("dev").arg(Path::new("/no/such/folder")));
    assert!(text.contains("/no/such/folder"), "{text}");
    let text = failed(project.dev(&[]).env("CC", "no-such-compiler"));
    assert!(text.contains("no-such-compiler") && text.contains("apt-get"), "{text}");
}

#[test]
fn the_end_of_the_input_ends_it_unless_it_is_to_be_kept_running() {
    let project = Project::new(PLAIN);
    let mut dev = Dev::start(&project, &["--keep-running"]);
    drop(dev.input.take());
    dev.until(RUNS);
    std::thread::sleep(Duration::from_millis(500));
    assert!(dev.child.try_wait().expect("a child can be looked at").is_none(), "it has ended");
    let killed = Command::new("kill").arg(dev.child.id().to_string()).status().expect("kill");
    assert!(killed.success());
    let said = dev.finish();
    assert!(said.iter().any(|line| line.starts_with("three nodes: ")), "{}", said.join("\n"));
}
