//! What `dev` needs to know of a project: where its module is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

const MANIFEST: &str = "raft-host.toml";

/// A project's folder.
#[derive(Clone, Debug)]
pub(super) struct Project {
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) name: String,
    /// What the build writes. Absolute.
    pub(super) module: PathBuf,
}

/// The part of the manifest that matters here; `raft-host build` checks the whole.
#[derive(Deserialize)]
struct Manifest {
    name: String,
    module: Option<PathBuf>,
}

impl Project {
    pub(super) fn open(dir: &Path) -> anyhow::Result<Project> {
        let absolute = dir.canonicalize().with_context(|| {
            format!("{} cannot be opened; `raft-host new NAME` writes a project", dir.display())
        })?;
        let path = absolute.join(MANIFEST);
        if !path.exists() {
            bail!(
                "{} is no project: it has no {MANIFEST}. `raft-host new NAME` writes one",
                dir.display()
            );
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let manifest: Manifest =
            toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        ensure!(!manifest.name.is_empty(), "in {}: the name is empty", path.display());
        let module = manifest
            .module
            .unwrap_or_else(|| format!("{}.wasm", manifest.name.replace('-', "_")).into());
        Ok(Project { module: absolute.join(module), name: manifest.name, dir: absolute })
    }

    /// Where dev keeps what is of this machine only; Git ignores it.
    pub(super) fn own_dir(&self) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(".raft-host");
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let ignore = dir.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(&ignore, "*\n")
                .with_context(|| format!("writing {}", ignore.display()))?;
        }
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_named_after_the_project_unless_the_manifest_says_otherwise() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let without = Project::open(dir.path()).expect_err("nothing there").to_string();
        assert!(without.contains("raft-host new"), "{without}");
        let write = |text: &str| std::fs::write(dir.path().join(MANIFEST), text).expect("written");
        write("name = \"my-app\"\nlanguage = \"c\"\n");
        let project = Project::open(dir.path()).expect("a project");
        assert!(project.module.ends_with("my_app.wasm"), "{project:?}");
        write("name = \"my-app\"\nlanguage = \"c\"\nmodule = \"out/x.wasm\"\n");
        let project = Project::open(dir.path()).expect("a project");
        assert!(project.module.ends_with("out/x.wasm"), "{project:?}");
    }
}
