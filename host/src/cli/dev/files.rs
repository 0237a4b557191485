//! Which files of a project are somebody's work, and whether they have changed.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use crate::project::Project;

/// Nobody writes longer sources; of such a file only length and time are looked at.
const READ_MAX_BYTES: u64 = 4 << 20;
/// A bound on what is looked at; a project that has more watches the first ones.
const ENTRIES_MAX: usize = 20_000;

/// Folders and files of a project, in order.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Files {
    /// Looks through a project, but not into `except`. What cannot be read is as if it were not
    /// there.
    pub(super) fn of(project: &Project, except: &Path) -> Files {
        let mut found = Files { folders: vec![project.dir.clone()], files: Vec::new() };
        let mut next = 0;
        while let Some(folder) = found.folders.get(next).cloned() {
            next += 1;
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if found.folders.len() + found.files.len() >= ENTRIES_MAX {
                    return found.sorted();
                }
                let path = entry.path();
                if path == except || !project.is_source(&path) {
                    continue;
                }
                // Links are not followed: they may lead round in circles.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => found.folders.push(path),
                    Ok(kind) if kind.is_file() => found.files.push(path),
                    _ => {}
                }
            }
        }
        found.sorted()
    }

    fn sorted(mut self) -> Files {
        self.files.sort();
        self
    }

    /// Differs when the name or the contents of a file do.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in &self.files {
            path.hash(&mut hasher);
            match path.metadata() {
                Ok(facts) if facts.len() > READ_MAX_BYTES => {
                    (facts.len(), facts.modified().ok()).hash(&mut hasher);
                }
                _ => std::fs::read(path).ok().hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_writes_counts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it is there");
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("created");
            std::fs::write(path, text).expect("written");
        };
        write("raft-host.toml", "name = \"x\"\nlanguage = \"c\"\n");
        let project = Project::open(&root).expect("a project");
        let except = root.join("data");
        let look = || Files::of(&project, &except).fingerprint();
        write("src/main.c", "one");
        let first = look();
        let outputs =
            ["x.wasm", "src/main.o", "target/a.c", ".raft-host/history", "data/log", "m.c~"];
        for output in outputs {
            write(output, "made");
            assert_eq!(look(), first, "{output}");
        }
        write("src/main.c", "two");
        let second = look();
        assert_ne!(second, first);
        write("src/deep/er/new.c", "");
        assert_ne!(look(), second);
    }
}
