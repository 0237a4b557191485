//! From nothing to a running state machine, in every language whose tools are here, and what is
//! said when something is missing.
//!
//! A language without its tools is skipped with a line that names it; with
//! `RAFT_HOST_ALL_TOOLCHAINS=1` that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use raft_host_tests::{Cli, Output, Server, lacks_tools, share_compiled_crates, workspace};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Runs the program in a folder, without the variables that name tools.
fn run_in(dir: &Path, path: Option<&Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(dir);
    for variable in ["CC", "CXX", "ZIG", "GO", "CARGO", "NPM", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.output().expect("the program starts").into()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The end of the output for a run that must be refused as wrong usage.
fn refused(output: &Output, parts: &[&str]) {
    assert_eq!(output.code, Some(2), "{output:?}");
    says(&output.stderr, parts);
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Makes a project, builds it, serves it, and asks it; then builds it again with changes.
fn works_from_nothing(language: &str) {
    let dir = temporary();
    let made = run_in(dir.path(), None, &["new", "my-app", "--lang", language]).ok();
    says(&made, &["raft-host build my-app", "raft-host --plugin my-app/my_app.wasm"]);
    if language == "rust" {
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        share_compiled_crates(&dir.path().join("my-app"), temporary);
    }

    let built = run_in(dir.path(), None, &["build", "my-app", "-o", "json"]);
    if lacks_tools(language, &built) {
        return;
    }
    let report: serde_json::Value = serde_json::from_str(&built.ok()).expect("JSON");
    assert_eq!(report["check"]["accepted"], true, "{report}");
    let shown = report["module"].as_str().expect("a path");
    assert!(shown.ends_with("my-app/my_app.wasm"), "{shown}");

    let module = dir.path().join("my-app/my_app.wasm");
    let text = fs::read(&module).expect("there");
    let home = dir.path().display().to_string();
    let leaks = text.windows(home.len()).any(|window| window == home.as_bytes());
    assert!(!leaks, "{language}: the module names the folder it was built in");

    let mut node = Server::new(PROGRAM, dir.path(), "node");
    node.start(&["--plugin", module.to_str().expect("UTF-8")]);
    let cli = Cli::new(PROGRAM, &[node.address]);
    assert_eq!(cli.run(&["apply", "5"]).ok().trim(), "5");
    assert_eq!(cli.run(&["apply", "--", "-3"]).ok().trim(), "2");
    assert_eq!(cli.run(&["query", ""]).ok().trim(), "2");
    assert_eq!(cli.run(&["apply", "five"]).code, Some(3));
    // The state goes from this language to another one's counter, and on.
    let counter = workspace("plugins/counter/counter.wasm");
    cli.run(&["upgrade", counter.to_str().expect("UTF-8"), "--no-rehearsal"]).ok();
    assert_eq!(cli.run(&["query", ""]).ok().trim(), "2");

    let again = run_in(&dir.path().join("my-app"), None, &["build"]).ok();
    says(&again, &["built my_app.wasm", "script check.script", "a cluster would take this module"]);
    node.terminate();
}

#[test]
fn rust_works_from_nothing() {
    works_from_nothing("rust");
}

#[test]
fn c_works_from_nothing() {
    works_from_nothing("c");
}

#[test]
fn cpp_works_from_nothing() {
    works_from_nothing("cpp");
}

#[test]
fn zig_works_from_nothing() {
    works_from_nothing("zig");
}

#[test]
fn go_works_from_nothing() {
    works_from_nothing("go");
}

#[test]
fn assemblyscript_works_from_nothing() {
    works_from_nothing("assemblyscript");
}

#[test]
fn a_name_that_cannot_be_is_refused_with_one_that_can() {
    let dir = temporary();
    for (name, suggestion) in [
        ("My_App", "my-app would do"),
        ("2nd", "app-2nd would do"),
        ("some/where/Bad", "bad would do"),
        ("..", "begins with a letter"),
    ] {
        refused(&run_in(dir.path(), None, &["new", name, "--lang", "c"]), &[suggestion]);
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0, "something was made");
}

#[test]
fn an_unknown_language_is_refused_with_the_ones_that_there_are() {
    let dir = temporary();
    let all = "rust, c, cpp, zig, go, assemblyscript";
    let new = |language| run_in(dir.path(), None, &["new", "x", "--lang", language]);
    refused(&new("c++"), &["\"c++\"", "did you mean cpp?", all]);
    refused(&new("asemblyscript"), &["did you mean assemblyscript?", all]);
    refused(&new("cobol"), &["\"cobol\"", all]);
    refused(&run_in(dir.path(), None, &["new", "x"]), &["--lang"]);
}

#[test]
fn what_is_there_is_left_as_it_is() {
    let dir = temporary();
    fs::create_dir(dir.path().join("thesis")).expect("made");
    fs::write(dir.path().join("thesis/README.md"), "years of work").expect("written");
    let output = run_in(dir.path(), None, &["new", "thesis", "--lang", "c"]);
    refused(&output, &["thesis is there already and not empty", "nothing was changed"]);
    let kept = fs::read_to_string(dir.path().join("thesis/README.md")).expect("there");
    assert_eq!(kept, "years of work");
    assert_eq!(fs::read_dir(dir.path().join("thesis")).expect("a folder").count(), 1);

    fs::write(dir.path().join("file"), "text").expect("written");
    refused(&run_in(dir.path(), None, &["new", "file", "--lang", "c"]), &["is no folder"]);
    let below = run_in(dir.path(), None, &["new", "file/x", "--lang", "c"]);
    says(&below.failed(), &["cannot make file/x"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = temporary();
    let parent = dir.path().join("sealed");
    fs::create_dir(&parent).expect("made");
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o555)).expect("sealed");
    let output = run_in(dir.path(), None, &["new", "sealed/x", "--lang", "c"]);
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).expect("opened");
    // Whoever runs the tests as root can write anywhere.
    if output.code != Some(0) {
        says(&output.failed(), &["cannot make sealed/x", "sealed"]);
    }
    says(&run_in(dir.path(), None, &["new", "/proc/x/y", "--lang", "c"]).failed(), &["/proc/x/y"]);
}

#[test]
fn a_folder_without_a_project_says_what_makes_one() {
    let dir = temporary();
    let parts = ["not a project", "raft-host.toml", "raft-host new NAME --lang LANG"];
    refused(&run_in(dir.path(), None, &["build"]), &parts);
    refused(&run_in(dir.path(), None, &["build", "nowhere"]), &["nowhere"]);
}

#[test]
fn a_manifest_that_is_wrong_is_told_by_line_and_key() {
    let dir = temporary();
    for (manifest, parts) in [
        ("name = \"x\"\nlanguge = \"c\"\n", &["raft-host.toml:2", "did you mean language?"][..]),
        ("name = \"x\"\n\ncolour = \"red\"\n", &["raft-host.toml:3", "no key colour", "scripts"]),
        ("name = \"x\nlanguage = \"c\"\n", &["raft-host.toml:1"]),
        (
            "name = \"x\"\nlanguage = \"pascal\"\n",
            &["raft-host.toml:2", "pascal", "assemblyscript"],
        ),
        ("name = \"X Y\"\nlanguage = \"c\"\n", &["raft-host.toml:1", "x-y would do"]),
        ("language = \"c\"\n", &["name is missing"]),
        (
            "name = \"x\"\nlanguage = \"c\"\nmodule = \"../x.wasm\"\n",
            &["raft-host.toml:3", "module"],
        ),
    ] {
        fs::write(dir.path().join("raft-host.toml"), manifest).expect("written");
        refused(&run_in(dir.path(), None, &["build"]), parts);
    }
    let output = run_in(dir.path(), None, &["build", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&output.stderr).expect("JSON");
    assert_eq!(error["error"]["exit_code"], 2);
}

#[test]
fn a_missing_tool_is_named_with_what_to_install() {
    let dir = temporary();
    let empty = dir.path().join("bin");
    fs::create_dir(&empty).expect("made");
    for (language, parts) in [
        ("c", &["make is missing", "apt-get install make clang lld"][..]),
        ("cpp", &["make is missing", "pip install ziglang", "libc++-dev-wasm32"]),
        ("zig", &["Zig is missing", "pip install ziglang"]),
        ("assemblyscript", &["Node is missing", "https://nodejs.org"]),
    ] {
        let name = format!("my-{language}");
        run_in(dir.path(), None, &["new", &name, "--lang", language]).ok();
        refused(&run_in(dir.path(), Some(&empty), &["build", &name]), parts);
        assert!(!dir.path().join(&name).join(format!("my_{language}.wasm")).exists());
    }
}

/// A project in C whose make is a script.
fn staged(dir: &Path, make: &str) -> (PathBuf, PathBuf) {
    run_in(dir, None, &["new", "x", "--lang", "c"]).ok();
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("made");
    let program = |name: &str, lines: &str| {
        fs::write(bin.join(name), format!("#!/bin/sh\n{lines}\n")).expect("written");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bin.join(name), executable).expect("allowed");
    };
    program("zig", "echo 0.15.2");
    program("make", make);
    (dir.join("x"), bin)
}

#[test]
fn a_build_that_fails_shows_the_tool_and_keeps_the_module() {
    let dir = temporary();
    let (project, bin) = staged(dir.path(), "echo 'machine.c:1: no'; exit 2");
    fs::write(project.join("x.wasm"), "before").expect("written");
    let output = run_in(dir.path(), Some(&bin), &["build", "x"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    says(&output.stderr, &["machine.c:1: no", "the build failed", "make 'CC=zig cc'"]);
    assert_eq!(fs::read_to_string(project.join("x.wasm")).expect("kept"), "before");
}

#[test]
fn a_tool_that_writes_no_module_is_told() {
    let dir = temporary();
    let (project, bin) = staged(dir.path(), "exit 0");
    let build = || run_in(dir.path(), Some(&bin), &["build", "x"]);
    says(&build().failed(), &["there is no x/x.wasm", "Makefile"]);
    fs::write(project.join("x.wasm"), "text").expect("written");
    says(&build().failed(), &["x/x.wasm is not a WebAssembly module"]);
    fs::write(project.join("x.wasm"), b"\0asm\x01\0\0\0").expect("written");
    says(&build().failed(), &["a cluster would refuse x/x.wasm", "raft_fsm_abi_v1"]);
}

#[test]
fn scripts_that_do_not_hold_or_cannot_be_read_fail_the_build() {
    let dir = temporary();
    let counter = workspace("plugins/counter/counter.wasm");
    let (project, bin) = staged(dir.path(), "exit 0");
    fs::copy(counter, project.join("x.wasm")).expect("copied");
    let build = || run_in(dir.path(), Some(&bin), &["build", "x"]);
    says(&build().ok(), &["built x/x.wasm", "script x/check.script", "would take this module"]);
    fs::write(project.join("check.script"), "apply 5\nok 6\n").expect("written");
    let output = build();
    assert_eq!(output.code, Some(1), "{output:?}");
    says(&output.stdout, &["FAILED", "x/check.script:2", "not fit for a cluster"]);
    fs::write(project.join("check.script"), "aply 5\n").expect("written");
    says(&build().failed(), &["x/check.script:1", "aply"]);
    let manifest = "name = \"x\"\nlanguage = \"c\"\nscripts = [\"no.script\"]\n";
    fs::write(project.join("raft-host.toml"), manifest).expect("written");
    says(&build().failed(), &["cannot read x/no.script"]);
}
