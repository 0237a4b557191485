//! The embedded files, creating, opening, and what a watcher reacts to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::templates::files_for;
use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace").to_owned()
}

fn name(text: &str) -> ProjectName {
    text.parse().expect("a good name")
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("readable");
        let file = entry.file_name().into_string().expect("UTF-8");
        if entry.path().is_dir() {
            for (inside, content) in files(&entry.path()) {
                found.insert(format!("{file}/{inside}"), content);
            }
        } else {
            found.insert(file, fs::read_to_string(entry.path()).expect("text"));
        }
    }
    found
}

#[test]
fn every_file_of_every_template_is_embedded_and_every_language_has_one() {
    for language in Language::ALL {
        let folder = repository().join("host/templates").join(language.name());
        let new: BTreeMap<String, String> =
            files_for(language, &name("my-app")).into_iter().collect();
        for (place, content) in files(&folder) {
            let place = place.replace("gitignore", ".gitignore");
            let place = place.strip_suffix(".in").unwrap_or(&place);
            let place = place.replace("{{name}}", "my-app").replace("{{ident}}", "my_app");
            let content = content.replace("{{name}}", "my-app").replace("{{ident}}", "my_app");
            assert_eq!(new.get(&place), Some(&content), "{language}: {place}");
        }
        for file in [MANIFEST, "README.md", ".gitignore", "check.script"] {
            assert!(new.contains_key(file), "{language} has no {file}");
        }
        for (place, content) in &new {
            assert!(!content.contains("{{name}}"), "{language}: a placeholder is left in {place}");
            assert!(!content.contains("{{ident}}"), "{language}: a placeholder is left in {place}");
        }
    }
}

#[test]
fn every_project_takes_its_sdk_along() {
    for (language, places) in [
        (Language::Rust, &["sdk/raft-fsm-sdk/Cargo.toml", "sdk/raft-fsm-sdk/src/lib.rs"][..]),
        (Language::Rust, &["sdk/raft-fsm-abi/Cargo.toml", "sdk/raft-fsm-abi/src/lib.rs"]),
        (Language::C, &["sdk/raft_fsm.h"]),
        (Language::Cpp, &["sdk/raft_fsm.hpp"]),
        (Language::Zig, &["sdk/raft_fsm.zig"]),
        (Language::AssemblyScript, &["assembly/raft_fsm.ts"]),
    ] {
        let new: BTreeMap<String, String> = files_for(language, &name("x")).into_iter().collect();
        for place in places {
            assert!(new.contains_key(*place), "{language} has no {place}");
        }
    }
    let go = files_for(Language::Go, &name("x"));
    assert!(go.iter().any(|(place, _)| place.starts_with("raftfsm/") && place.ends_with(".go")));
    assert!(!go.iter().any(|(place, _)| place.starts_with("raftfsm/") && place.contains("_test.")));
}

#[test]
fn a_new_project_opens_as_what_it_was_made() {
    let dir = tempfile::tempdir().expect("a folder");
    for language in Language::ALL {
        let path = dir.path().join("some/where").join(format!("my-{language}"));
        let project = create(&path, language).expect("made");
        assert_eq!(project.language, language);
        assert_eq!(project.name.as_str(), format!("my-{language}"));
        assert_eq!(project.module, project.dir.join(format!("my_{language}.wasm")));
        assert_eq!(project.scripts, [project.dir.join("check.script")]);
        assert_eq!(project.shown_path(&project.module), path.join(format!("my_{language}.wasm")));
    }
    let left = fs::read_dir(dir.path().join("some/where")).expect("a folder").count();
    assert_eq!(left, Language::ALL.len(), "drafts are left");
}

#[test]
fn what_is_there_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).expect("made");
    create(&taken, Language::C).expect("an empty folder is free");
    fs::write(taken.join("machine.c"), "years of work").expect("written");
    let error = create(&taken, Language::C).expect_err("not empty").to_string();
    assert!(error.contains("taken is there already and not empty"), "{error}");
    assert_eq!(fs::read_to_string(taken.join("machine.c")).expect("there"), "years of work");
    let file = dir.path().join("file");
    fs::write(&file, "text").expect("written");
    assert!(matches!(create(&file, Language::C), Err(CreateError::NoFolder { .. })));
    assert!(matches!(create(&file.join("x"), Language::C), Err(CreateError::Parent { .. })));
    assert!(matches!(create(&dir.path().join("No"), Language::C), Err(CreateError::Name(_))));
    assert!(matches!(create(&dir.path().join(".."), Language::C), Err(CreateError::Name(_))));
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2);
}

#[test]
fn folders_without_a_manifest_say_what_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = Project::open(dir.path()).expect_err("no project").to_string();
    for part in ["not a project", MANIFEST, "raft-host new"] {
        assert!(error.contains(part), "{error}");
    }
    let error = Project::open(&dir.path().join("no")).expect_err("no folder").to_string();
    assert!(error.contains("no"), "{error}");
    fs::write(dir.path().join(MANIFEST), "name = \"x\"\nlanguage = \"c\"\ncolour = 3\n")
        .expect("written");
    let error = Project::open(dir.path()).expect_err("unknown key").to_string();
    assert!(error.contains("raft-host.toml:3: there is no key colour"), "{error}");
}

#[test]
fn a_watcher_reacts_to_sources_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let project = create(&dir.path().join("x"), Language::Zig).expect("made");
    let is_source = |path: &str| project.is_source(&project.dir.join(path));
    for source in
        ["src/main.zig", "raft-host.toml", "check.script", "sdk/raft_fsm.zig", "deep/er/x"]
    {
        assert!(is_source(source), "{source}");
        assert!(project.is_source(Path::new(source)), "{source}");
    }
    for other in [
        "",
        "x.wasm",
        "other.wasm",
        "zig-out/bin/x.wasm",
        "zig-out",
        ".zig-cache/h/1",
        "target/release/x.d",
        "build/x.o",
        "node_modules/a/index.js",
        ".git/index",
        "src/.main.zig.swp",
        "src/main.zig~",
        "src/#main.zig#",
        "src/.#main.zig",
        "src/4913",
        "sdk/sedAbC123",
        "Cargo.lock",
        "raft-host-data/1/log",
    ] {
        assert!(!is_source(other), "{other}");
    }
    assert!(!project.is_source(&dir.path().join("elsewhere.zig")));
}
