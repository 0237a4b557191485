//! Everything that decides the bytes of a project's module, except the toolchain.
//!
//! That is: the sources and build files of the project and of what it takes from its SDK. What a
//! build leaves behind is not, nor are pages of text and scripts of questions.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::manifest::sha256;
use crate::sources::file;

/// Endings of the names of files that a compiler or a build tool reads.
const ENDINGS: &[&str] =
    &["c", "cpp", "go", "h", "hpp", "json", "mod", "s", "toml", "ts", "zig", "zon"];
const OTHERS: &[&str] = &["Makefile"];
/// Folders that a build fills, and files that a package manager writes.
const LEFTOVERS: &[&str] = &["node_modules", "package-lock.json", "target", "zig-out"];

/// Marks a project: one inside of an SDK's folder is not the SDK.
const PROJECT: &str = "raft-host.toml";

/// The hash of a project's sources.
pub(crate) fn of_folders(root: &Path, folder: &str, sdk: &[&str]) -> Result<String> {
    let mut paths = Vec::new();
    for place in [folder].iter().chain(sdk) {
        collect(root, place, &mut paths)?;
    }
    paths.sort();
    let mut all = String::new();
    for path in paths {
        all += &file(root, &path)?;
    }
    Ok(sha256(all.as_bytes()))
}

fn collect(root: &Path, place: &str, paths: &mut Vec<String>) -> Result<()> {
    if root.join(place).is_file() {
        paths.push(place.to_owned());
        return Ok(());
    }
    let entries = root.join(place).read_dir().with_context(|| format!("listing {place}"))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().context("a file name that is no text")?;
        let path = format!("{place}/{name}");
        if name.starts_with('.') || LEFTOVERS.contains(&name) {
            continue;
        }
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        if entry.file_type()?.is_dir() {
            if !entry.path().join(PROJECT).exists() {
                collect(root, &path, paths)?;
            }
        } else if name.ends_with("_test.go") {
            continue;
        } else if OTHERS.contains(&name) || ending.is_some_and(|end| ENDINGS.contains(&end)) {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_count_and_leftovers_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("sample/src/main.zig", "one");
        write("sample/Makefile", "all:");
        write("sdk/raft_fsm.h", "one");
        let hash = || of_folders(dir.path(), "sample", &["sdk/raft_fsm.h"]).unwrap();
        let first = hash();
        for leftover in [
            "sample/zig-out/bin/a.zig",
            "sample/.zig-cache/a.zig",
            "sample/node_modules/a/a.ts",
            "sample/package-lock.json",
            "sample/sample.wasm",
            "sample/README.md",
            "sample/machine_test",
            "sample/main_test.go",
            "sample/probe/raft-host.toml",
            "sample/probe/main.zig",
            "sdk/other.h",
        ] {
            write(leftover, "anything");
            assert_eq!(hash(), first, "{leftover}");
        }
        write("sdk/raft_fsm.h", "two");
        let second = hash();
        assert_ne!(second, first);
        write("sample/src/more.zig", "");
        assert_ne!(hash(), second);
    }
}
