//! Where dev keeps what is of this machine only: a folder in the project that Git ignores.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Not looked at by the watcher and by builds either.
const FOLDER: &str = ".raft-host";

/// Makes the folder if it is not there.
pub(super) fn folder(project: &Path) -> anyhow::Result<PathBuf> {
    let dir = project.join(FOLDER);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let ignore = dir.join(".gitignore");
    if !ignore.exists() {
        fs::write(&ignore, "*\n").with_context(|| format!("writing {}", ignore.display()))?;
    }
    Ok(dir)
}
