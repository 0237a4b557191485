//! Clients in other languages, which were written from nothing but the contract, against real
//! processes: exactly once through the death of a leader, typed errors, reads of one's own writes.
//!
//! A language without its tools is skipped with a line that names it; with
//! `RAFT_HOST_ALL_TOOLCHAINS=1` that fails.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use raft_host_tests::{Cluster, lacks_client_tools, workspace};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// A command of a client's own, to its end.
fn prepare(folder: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A client's test program, which ends with this value.
struct Program {
    child: Child,
    /// What it wrote to standard error, once it has ended.
    errors: Option<JoinHandle<std::io::Result<String>>>,
}

impl Program {
    fn start(mut command: Command) -> Program {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it was there a moment ago");
        let stderr = child.stderr.take().expect("piped");
        let errors = std::thread::spawn(move || std::io::read_to_string(stderr));
        Program { child, errors: Some(errors) }
    }

    /// Has it go on.
    fn tell(&mut self, word: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        // A program that has ended says why below.
        let _ = writeln!(stdin, "{word}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client's program with the addresses of three nodes; kills the leader when it says that it
/// writes.
fn keeps_its_promises(folder: &Path, program: &str, arguments: &[&str]) {
    let mut cluster = Cluster::of(PROGRAM, &workspace("plugins/counter/counter.wasm"), 3, &[]);
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command.args(cluster.addresses().iter().map(ToString::to_string));
    let mut program = Program::start(command);
    let said = BufReader::new(program.child.stdout.take().expect("piped"));
    let mut lines = Vec::new();
    for line in said.lines() {
        let line = line.expect("a pipe reads");
        if line == "writing" {
            let leader = cluster.leader();
            cluster.servers[leader].kill();
            program.tell("killed");
            // Somebody else leads before it is back.
            cluster.leader();
            cluster.servers[leader].start(&[]);
            cluster.wait_for_agreement();
            program.tell("back");
        }
        lines.push(line);
    }
    let status = program.child.wait().expect("it can be waited for");
    let errors = program.errors.take().expect("it ended once").join().expect("no panic");
    assert!(status.success(), "{status}: {lines:?}\n{}", errors.expect("UTF-8"));
    assert!(lines.iter().any(|line| line == "writing"), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("done"), "{lines:?}");
}

#[test]
fn a_client_in_python_keeps_its_promises() {
    let folder = workspace("tests/clients/python");
    let packages = "import grpc, grpc_tools, grpc_health, grpc_reflection, google.rpc.status_pb2";
    if lacks_client_tools("Python's gRPC", "python3", &["-c", packages]) {
        return;
    }
    prepare(&folder, "python3", &["generate.py"]);
    prepare(&folder, "python3", &["-m", "unittest", "-q"]);
    keeps_its_promises(&folder, "python3", &["-m", "tests.whole_system"]);
}

#[test]
fn a_client_in_typescript_keeps_its_promises() {
    let folder = workspace("tests/clients/typescript");
    let recent = "process.exit(+process.versions.node.split('.')[0] < 20 ? 1 : 0)";
    if lacks_client_tools("Node.js 20", "node", &["-e", recent])
        || lacks_client_tools("npm", "npm", &["--version"])
    {
        return;
    }
    let installed = folder.join("node_modules/@grpc/grpc-js").exists();
    let install = [
        "ci",
        "--ignore-scripts",
        "--prefix",
        folder.to_str().expect("UTF-8"),
        "--no-audit",
        "--no-fund",
    ];
    // It comes from npm's registry.
    if !installed && lacks_client_tools("npm's registry", "npm", &install) {
        return;
    }
    prepare(&folder, "npm", &["run", "--silent", "build"]);
    prepare(&folder, "npm", &["test", "--silent"]);
    keeps_its_promises(&folder, "node", &["dist/test/whole_system.js"]);
}
