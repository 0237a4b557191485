//! Embeds what `raft-host new` writes: every file of `host/templates`, and of the SDKs the files
//! that a project takes with it. The result is `templates.rs`, see `src/project/templates.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Variant of `Language`, folder below `host/templates`, what of the SDKs goes where.
const LANGUAGES: &[(&str, &str, &[Copied])] = &[
    (
        "Rust",
        "rust",
        &[
            Copied::Tree { from: "guest-sdk/rust/src", to: "sdk/raft-fsm-sdk/src" },
            Copied::Tree { from: "guest-sdk/abi/src", to: "sdk/raft-fsm-abi/src" },
        ],
    ),
    ("C", "c", &[Copied::File { from: "guest-sdk/c/raft_fsm.h", to: "sdk/raft_fsm.h" }]),
    (
        "Cpp",
        "cpp",
        &[
            Copied::File { from: "guest-sdk/c/raft_fsm.h", to: "sdk/raft_fsm.h" },
            Copied::File { from: "guest-sdk/cpp/raft_fsm.hpp", to: "sdk/raft_fsm.hpp" },
        ],
    ),
    ("Zig", "zig", &[Copied::File { from: "guest-sdk/zig/raft_fsm.zig", to: "sdk/raft_fsm.zig" }]),
    ("Go", "go", &[Copied::GoPackage { from: "guest-sdk/go", to: "raftfsm" }]),
    (
        "AssemblyScript",
        "assemblyscript",
        &[Copied::File {
            from: "guest-sdk/assemblyscript/raft_fsm.ts",
            to: "assembly/raft_fsm.ts",
        }],
    ),
];

/// Files of an SDK and where a project has them.
enum Copied {
    File {
        from: &'static str,
        to: &'static str,
    },
    /// A folder and all below it.
    Tree {
        from: &'static str,
        to: &'static str,
    },
    /// The sources of one package, without its tests and its go.mod.
    GoPackage {
        from: &'static str,
        to: &'static str,
    },
}

/// What building a template in its folder leaves there.
const LEFTOVERS: &[&str] =
    &["node_modules", "target", "zig-out", "Cargo.lock", "package-lock.json"];

fn main() -> io::Result<()> {
    let host = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let repository = host.parent().expect("a member of the workspace").to_owned();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=templates");

    let mut code = String::from(
        "pub(super) fn embedded(language: Language) -> &'static [Embedded] {\n    match language {\n",
    );
    for (variant, folder, copied) in LANGUAGES {
        writeln!(code, "        Language::{variant} => &[").expect("memory");
        let template = host.join("templates").join(folder);
        if template.is_dir() {
            for (place, path) in tree(&template)? {
                embed(&mut code, &in_project(&place), &path, true);
            }
            for part in *copied {
                for (place, path) in part.files(&repository)? {
                    println!("cargo::rerun-if-changed={}", path.display());
                    embed(&mut code, &place, &path, false);
                }
            }
        }
        code.push_str("        ],\n");
    }
    code.push_str("    }\n}\n");
    fs::write(out.join("templates.rs"), code)
}

fn embed(code: &mut String, place: &str, path: &Path, is_template: bool) {
    writeln!(
        code,
        "            Embedded {{ place: {place:?}, content: include_str!({:?}), \
         is_template: {is_template} }},",
        path.display().to_string()
    )
    .expect("memory");
}

/// Where a template's file goes. Names that Git or Cargo would heed here are others here:
/// `gitignore` is `.gitignore`, and `Cargo.toml.in` is `Cargo.toml`.
fn in_project(place: &str) -> String {
    let (folder, name) = place.rsplit_once('/').unwrap_or(("", place));
    let name = match name {
        "gitignore" => ".gitignore",
        other => other.strip_suffix(".in").unwrap_or(other),
    };
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

impl Copied {
    fn files(&self, repository: &Path) -> io::Result<Vec<(String, PathBuf)>> {
        match self {
            Copied::File { from, to } => Ok(vec![((*to).to_owned(), repository.join(from))]),
            Copied::Tree { from, to } => {
                println!("cargo::rerun-if-changed={}", repository.join(from).display());
                let files = tree(&repository.join(from))?;
                Ok(files
                    .into_iter()
                    .map(|(inside, path)| (format!("{to}/{inside}"), path))
                    .collect())
            }
            Copied::GoPackage { from, to } => {
                println!("cargo::rerun-if-changed={}", repository.join(from).display());
                let files = tree(&repository.join(from))?.into_iter().filter(|(inside, _)| {
                    let source = inside.ends_with(".go") || inside.ends_with(".s");
                    source && !inside.contains('/') && !inside.ends_with("_test.go")
                });
                Ok(files.map(|(inside, path)| (format!("{to}/{inside}"), path)).collect())
            }
        }
    }
}

/// All files below a folder, by their path inside of it, in order.
fn tree(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    collect(folder, "", &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, inside: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().expect("names in the repository are UTF-8");
        let leftover =
            LEFTOVERS.contains(&name.as_str()) || name.starts_with('.') || name.ends_with(".wasm");
        if leftover {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{inside}{name}/"), files)?;
        } else {
            files.push((format!("{inside}{name}"), entry.path()));
        }
    }
    Ok(())
}
