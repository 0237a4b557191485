//! Which files of a project make a difference.

use std::path::{Component, Path};

use super::Project;

/// Folders that tools write into.
const WRITTEN: &[&str] = &[
    "target",
    "build",
    "zig-out",
    ".zig-cache",
    "zig-cache",
    "node_modules",
    ".git",
    ".hg",
    ".svn",
    ".jj",
    ".idea",
    ".vscode",
    "__pycache__",
    "raft-host-data",
    ".raft-host",
];

pub(super) fn is_source(project: &Project, path: &Path) -> bool {
    let inside = path.strip_prefix(&project.dir).or_else(|_| path.strip_prefix(&project.shown));
    let inside = match inside {
        Ok(inside) => inside,
        Err(_) if path.is_relative() => path,
        Err(_) => return false,
    };
    if project.dir.join(inside) == project.module {
        return false;
    }
    let mut parts = inside.components().rev();
    let Some(Component::Normal(file)) = parts.next() else { return false };
    let in_written = parts.any(|part| {
        let name = part.as_os_str().to_string_lossy();
        WRITTEN.contains(&&*name)
    });
    !in_written && !is_left_behind(&file.to_string_lossy())
}

/// Whether a file is named as tools and editors name what is not the user's.
fn is_left_behind(name: &str) -> bool {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    WRITTEN.contains(&name)
        // Vim's and Emacs's, of other editors, of sed -i; half-written modules and objects.
        || ends(&["~", ".swp", ".swo", ".swx", ".tmp", ".bak", ".orig", ".rej", ".part"])
        || ends(&[".wasm", ".o", ".d", ".log"])
        || (name.starts_with('#') && name.ends_with('#'))
        || name.starts_with(".#")
        || name.starts_with(".goutputstream-")
        || name.starts_with(".raft-host-build-")
        || name.strip_prefix("sed").is_some_and(|rest| rest.len() == 6 && !rest.contains('.'))
        || name == ".DS_Store"
        // Vim writes this one to see whether it can.
        || (name.len() >= 4 && digits(name))
        || ["Cargo.lock", "package-lock.json", "go.sum"].contains(&name)
}
