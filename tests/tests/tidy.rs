//! The house rules that a machine can check: who may know whom, file sizes, nothing left open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Room → rooms of `crate::` it may name.
const ROOMS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("museum", &[]),
    ("text", &[]),
    ("storage", &["types"]),
    ("consensus", &["types", "storage"]),
    ("fsm", &["types"]),
    ("wasm", &["types", "fsm"]),
    ("check", &["types", "fsm", "wasm"]),
    ("project", &["fsm", "check"]),
    ("signing", &["types"]),
    ("machine", &["types", "fsm", "signing"]),
    ("tls", &["types", "certs"]),
    ("transport", &["types", "storage", "tls"]),
    (
        "node",
        &[
            "types",
            "storage",
            "consensus",
            "fsm",
            "machine",
            "transport",
            "signing",
            "replay",
            "rehearsal",
        ],
    ),
    ("replay", &["types", "storage", "consensus", "fsm", "machine"]),
    ("rehearsal", &["types", "storage", "consensus", "fsm", "machine"]),
    ("recovery", &["types", "storage", "consensus", "fsm", "machine", "replay"]),
    ("backup", &["types", "fsm", "machine"]),
    ("autopilot", &["types"]),
    ("certs", &["types"]),
    ("audit", &["types"]),
    (
        "api",
        &[
            "types",
            "storage",
            "consensus",
            "fsm",
            "machine",
            "transport",
            "node",
            "backup",
            "rehearsal",
            "autopilot",
            "signing",
            "audit",
            "certs",
            "tls",
        ],
    ),
];

/// The floors of `node`, from the ground up: a part may name parts of the floors below its own.
const NODE_FLOORS: &[&[&str]] = &[
    &[
        "config", "budget", "stop", "rivals", "roster", "standing", "room", "pace", "priority",
        "ahead", "courtesy",
    ],
    &["clock", "answer", "compilations"],
    &["metrics", "waiter"],
    &["shadow"],
    &["message", "work"],
    &["request"],
    &["group", "apply"],
    &["handle"],
    &["shell"],
];

/// Rooms that every room may name.
const EVERYWHERE: &[&str] = &["museum", "text"];

/// External crate → rooms that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("raft", &["consensus"]),
    ("protobuf", &["consensus", "storage"]),
    ("raft_engine", &["storage"]),
    ("sled", &["storage"]),
    ("wasmtime", &["wasm"]),
    ("wasmparser", &["wasm"]),
    ("wasm_encoder", &["wasm"]),
    ("rayon", &["wasm"]),
    ("xxhash_rust", &["wasm"]),
    ("ed25519_dalek", &["signing"]),
    ("tonic", &["transport", "api", "cli", "server"]),
    ("axum", &["api"]),
    ("prometheus_client", &["api"]),
    ("clap", &["cli", "config"]),
    ("reedline", &["cli"]),
    ("notify", &["cli"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls", "api"]),
    ("rcgen", &["certs"]),
    ("x509_parser", &["certs"]),
    (
        "raft_host_proto",
        &["consensus", "machine", "tls", "transport", "node", "backup", "api", "cli", "server"],
    ),
];

/// Lines of one file that are not tests.
const MAX_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member").to_owned()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory of the workspace") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<PathBuf> {
    ["host", "proto", "guest-sdk", "plugins", "tests"]
        .iter()
        .flat_map(|dir| sources(&root().join(dir)))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .collect()
}

fn is_test_file(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    in_tests || path.file_stem().is_some_and(|stem| stem == "tests" || stem == "test_fsm")
}

/// The lines of a file up to its test module.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("readable");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{'))
        .unwrap_or(lines.len());
    lines.truncate(tests);
    lines
}

/// The code of a file without its trailing test module, without comments.
fn code(path: &Path) -> Vec<(usize, String)> {
    let numbered = lines(path).into_iter().enumerate();
    numbered
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Identifiers that follow `prefix` in a line.
fn after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    line.match_indices(prefix)
        .filter(|(at, _)| {
            !line[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
        })
        .map(|(at, _)| {
            let rest = &line[at + prefix.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        })
        .collect()
}

fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("host/src")).expect("below host/src");
    let first = inside.components().next().expect("a file").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn rooms_know_only_whom_they_may() {
    let mut wrong = Vec::new();
    for path in sources(&root().join("host/src")) {
        if is_test_file(&path) {
            continue;
        }
        let room = room_of(&path);
        let allowed = ROOMS.iter().find(|(name, _)| *name == room).map(|(_, allowed)| *allowed);
        for (number, line) in code(&path) {
            let at = format!("{}:{number}", path.display());
            for other in after(&line, "crate::") {
                let known = EVERYWHERE.contains(&other)
                    || allowed.is_none_or(|allowed| allowed.contains(&other));
                if !known && other != room && !other.is_empty() {
                    wrong.push(format!("{at}: {room} must not know {other}"));
                }
            }
            for (external, rooms) in CRATES {
                let used = line.contains(&format!("{external}::"))
                    && !after(&line, &format!("{external}::")).is_empty()
                    && !line.contains(&format!("crate::{external}"));
                if used && !rooms.contains(&room.as_str()) {
                    wrong.push(format!("{at}: {room} must not use the crate {external}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The paths that a file names, with the groups of `use` taken apart.
fn named_paths(path: &Path) -> Vec<String> {
    let code: Vec<String> = code(path).into_iter().map(|(_, line)| line).collect();
    let code = code.join("\n");
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut named = Vec::new();
    for prefix in ["super::", "self::", "crate::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(is_of_path) {
                continue;
            }
            let rest = &code[at..];
            let end = rest.find(|c| !is_of_path(c)).unwrap_or(rest.len());
            match rest[end..].starts_with('{') {
                true => take_apart(&rest[..end], &rest[end..], &mut named),
                false => named.push(rest[..end].to_owned()),
            }
        }
    }
    named
}

/// `a::{b, c::{d, e}}`: the paths in the braces, each behind what is before them.
fn take_apart(before: &str, braces: &str, named: &mut Vec<String>) {
    let mut open = vec![before.to_owned()];
    let mut word = String::new();
    for c in braces[1..].chars() {
        match c {
            '{' => {
                let inner = format!("{}{word}", open.last().expect("one is open"));
                open.push(inner);
                word.clear();
            }
            ',' | '}' => {
                if !word.is_empty() {
                    named.push(format!("{}{word}", open.last().expect("one is open")));
                    word.clear();
                }
                if c == '}' {
                    open.pop();
                    if open.is_empty() {
                        return;
                    }
                }
            }
            c if c.is_whitespace() => {}
            c => word.push(c),
        }
    }
}

/// Where a module of `host/src` is.
fn file_of(module: &[String]) -> Option<PathBuf> {
    let at = module.iter().fold(root().join("host/src"), |dir, name| dir.join(name));
    [at.with_extension("rs"), at.join("mod.rs")].into_iter().find(|path| path.is_file())
}

/// The file that a path leads to from a module; `None`: to no module below `host/src/node`.
fn leads_to(path: &str, from: &[String]) -> Option<PathBuf> {
    let mut module = from.to_vec();
    let mut steps = path.split("::").peekable();
    while let Some(step) = steps.next_if(|step| ["super", "self", "crate"].contains(step)) {
        match step {
            "super" => drop(module.pop()),
            "crate" => module.clear(),
            _ => {}
        }
    }
    let mut file = file_of(&module);
    for step in steps {
        module.push(step.to_owned());
        match file_of(&module) {
            Some(found) => file = Some(found),
            None => break,
        }
    }
    file.filter(|file| file.starts_with(root().join("host/src/node")))
}

fn module_of(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(root().join("host/src")).expect("below host/src");
    let mut module: Vec<String> =
        inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// What of the node each of its files names.
fn arrows_of_node() -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let files = sources(&root().join("host/src/node"));
    let files = files.into_iter().filter(|path| !is_test_file(path));
    let arrows = files.map(|path| {
        let module = module_of(&path);
        let named = named_paths(&path);
        let others = named.iter().filter_map(|named| leads_to(named, &module));
        let others = others.filter(|other| *other != path).collect();
        (path, others)
    });
    arrows.collect()
}

/// Each feature of the node is built on this: a circle of files can only be understood, and changed,
/// as a whole.
#[test]
fn the_files_of_the_node_know_each_other_in_no_circle() {
    let mut left = arrows_of_node();
    assert!(left.len() > 40 && left.values().map(BTreeSet::len).sum::<usize>() > 100, "{left:?}");
    loop {
        let free: Vec<PathBuf> = left
            .iter()
            .filter(|(_, others)| others.iter().all(|other| !left.contains_key(other)))
            .map(|(path, _)| path.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|path| drop(left.remove(path)));
    }
    let names: Vec<String> = left.keys().map(|path| path.display().to_string()).collect();
    assert!(names.is_empty(), "these are in a circle, or above one:\n{}", names.join("\n"));
}

#[test]
fn the_parts_of_the_node_stand_on_those_below_them() {
    let part = |path: &Path| module_of(path).get(1).cloned();
    let floor = |part: &str| NODE_FLOORS.iter().position(|floor| floor.contains(&part));
    let mut wrong = Vec::new();
    for (path, others) in arrows_of_node() {
        let Some(own) = part(&path) else { continue };
        let Some(own_floor) = floor(&own) else {
            wrong.push(format!("{}: stands on no floor", path.display()));
            continue;
        };
        for other in others {
            let Some(other_part) = part(&other).filter(|other| *other != own) else { continue };
            if floor(&other_part).is_none_or(|other| other >= own_floor) {
                wrong.push(format!("{}: must not know {other_part}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_file_outgrows_its_name() {
    let mut wrong = Vec::new();
    for path in all_sources() {
        if is_test_file(&path) {
            continue;
        }
        let lines = lines(&path).len();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_open() {
    // Written apart, so that this file does not find itself.
    let marks = [
        concat!("to", "do!("),
        concat!("unimplemen", "ted!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("dbg", "!("),
    ];
    let mut wrong = Vec::new();
    for path in all_sources() {
        let text = fs::read_to_string(&path).expect("readable");
        for (at, line) in text.lines().enumerate() {
            for mark in marks {
                if line.contains(mark) {
                    wrong.push(format!("{}:{}: {mark}", path.display(), at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_room_says_what_it_is() {
    for path in sources(&root().join("host/src")).iter().filter(|path| !is_test_file(path)) {
        let text = fs::read_to_string(path).expect("readable");
        assert!(text.starts_with("//!"), "{} does not open with its purpose", path.display());
    }
}
