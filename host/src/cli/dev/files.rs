//! Which files of a project are somebody's work, and whether they have changed.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

/// Folders of build outputs. Those whose name begins with a dot are left out too.
const OUTPUT_FOLDERS: [&str; 5] = ["target", "node_modules", "zig-out", "zig-cache", "build"];
/// Files that builds write beside the sources.
const OUTPUT_FILES: [&str; 2] = ["Cargo.lock", "package-lock.json"];
const OUTPUT_EXTENSIONS: [&str; 6] = ["wasm", "o", "a", "d", "swp", "tmp"];
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
    /// Looks through a project. What cannot be read is as if it were not there.
    pub(super) fn of(dir: &Path) -> Files {
        let mut found = Files { folders: vec![dir.to_owned()], files: Vec::new() };
        let mut next = 0;
        while let Some(folder) = found.folders.get(next).cloned() {
            next += 1;
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if found.folders.len() + found.files.len() >= ENTRIES_MAX {
                    return found.sorted();
                }
                // Links are not followed: they may lead round in circles.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && is_watched_folder(&entry.path()) => {
                        found.folders.push(entry.path());
                    }
                    Ok(kind) if kind.is_file() && is_watched_file(&entry.path()) => {
                        found.files.push(entry.path());
                    }
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

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_watched_folder(path: &Path) -> bool {
    let name = name(path);
    !name.starts_with('.') && !OUTPUT_FOLDERS.contains(&name)
}

fn is_watched_file(path: &Path) -> bool {
    let name = name(path);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !name.starts_with('.')
        && !name.ends_with('~')
        && !OUTPUT_FILES.contains(&name)
        && !OUTPUT_EXTENSIONS.contains(&extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_writes_counts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("created");
            std::fs::write(path, text).expect("written");
        };
        let look = || Files::of(dir.path()).fingerprint();
        write("src/main.c", "one");
        let first = look();
        for output in ["x.wasm", "src/main.o", "target/a.c", ".zig-cache/b", "Cargo.lock", "m.c~"] {
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
