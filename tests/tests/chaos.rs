//! A bounded slice of the chaos program, and its judgement of histories in files.

use std::fs;
use std::io::BufReader;
use std::process::Command;
use std::time::Duration;

use raft_host_tests::chaos::{self, Fault, Options};
use raft_host_tests::history::{checker, json_lines};

#[test]
fn three_processes_survive_every_fault_with_a_linearizable_history() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let history = dir.path().join("history.jsonl");
    let options = Options {
        program: env!("CARGO_BIN_EXE_raft-host-under-test").into(),
        other_program: env!("CARGO_BIN_EXE_raft-host-next").into(),
        time: Duration::from_secs(45),
        nodes: 3,
        clients: 6,
        pause_max: Duration::from_millis(80),
        hold_max: Duration::from_millis(2_500),
        seed: 20,
        faults: Fault::ALL.to_vec(),
        tls: false,
        dir: dir.path().to_owned(),
        history: history.clone(),
        quiet: true,
    };
    let report = raft_host_tests::block_on(chaos::run(&options)).expect("the run can be made");
    println!("{report}");
    if !report.passed() {
        let events = fs::read_to_string(dir.path().join("events.txt")).expect("events");
        panic!("{report}\n{events}\nlogs and data: {}", dir.keep().display());
    }
    assert!(report.answered() > 0, "nobody was ever answered");
    // The file says the same.
    let file = fs::File::open(history).expect("the history is written");
    let read = json_lines::read(BufReader::new(file)).expect("in its format");
    assert!(read.len() >= report.answered());
    checker::check(&read).expect("linearizable, as the report says");
}

#[test]
fn a_history_in_a_file_is_judged_by_the_exit_code() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write =
        r#"{"process":0,"start_ns":0,"end_ns":1,"key":"k","op":"write","value":1,"outcome":"ok"}"#;
    let read = |result: &str| {
        format!(
            r#"{{"process":1,"start_ns":2,"end_ns":3,"key":"k","op":"read","outcome":"ok","result":{result}}}"#
        )
    };
    let cases = [
        (format!("{write}\n{}\n", read("1")), 0, "2 operations are linearizable"),
        (format!("{write}\n{}\n", read("null")), 1, "not linearizable"),
        (format!("{write}\nnonsense\n"), 2, "line 2"),
    ];
    for (text, code, expected) in cases {
        let file = dir.path().join("history.jsonl");
        fs::write(&file, text).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
            .arg("check")
            .arg(&file)
            .output()
            .expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
