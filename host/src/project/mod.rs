//! Projects: folders that hold the source of a state machine. Makes new ones, finds the language's
//! own tools, and runs them.
//!
//! Knows `check` and what that needs; nothing of nodes, clusters or terminals. Whoever calls it
//! prints what it returns.
//!
//! ```text
//!   templates (in the binary) ──► create ──► a folder with raft-host.toml
//!                                                │ manifest
//!                  toolchains: find the tool ──► Project ──► compile ──► module ──► check
//! ```

mod build;
mod create;
mod language;
mod manifest;
mod name;
mod sources;
mod templates;
#[cfg(test)]
mod tests;
mod tool;
mod toolchains;

pub use build::{BuildFailure, Compiled};
pub use create::{CreateError, create};
pub use language::{Language, UnknownLanguage};
pub use manifest::{MANIFEST, ManifestError};
pub use name::{BadName, ProjectName};
pub use tool::{Interrupt, ToolOutput};
pub use toolchains::ToolchainMissing;

use std::io;
use std::path::{Path, PathBuf};

/// A folder with a `raft-host.toml` that makes sense. What it names need not be there yet.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder. Absolute, without symbolic links.
    pub dir: PathBuf,
    /// The folder as the caller named it, for messages.
    pub shown: PathBuf,
    /// What the project is called.
    pub name: ProjectName,
    /// What it is written in.
    pub language: Language,
    /// Where `compile` puts the module. Absolute, below `dir`.
    pub module: PathBuf,
    /// Scripts that must hold, in this order. Absolute.
    pub scripts: Vec<PathBuf>,
}

/// Why a folder cannot be used as a project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no such folder, or it cannot be entered.
    #[error("cannot open {}: {error}", dir.display())]
    Folder {
        /// The folder as it was named.
        dir: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The folder has no manifest.
    #[error(
        "{} is not a project: it has no {MANIFEST}, the file that names the project and its \
         language; `raft-host new NAME --lang LANG` makes a project",
        dir.display()
    )]
    NoProject {
        /// The folder as it was named.
        dir: PathBuf,
    },
    /// The manifest cannot be understood.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Project {
    /// Reads the manifest of a folder.
    ///
    /// # Errors
    ///
    /// No folder, no manifest, or one that cannot be understood.
    pub fn open(dir: &Path) -> Result<Project, ProjectError> {
        let folder = |error| ProjectError::Folder { dir: dir.to_owned(), error };
        let absolute = dir.canonicalize().map_err(folder)?;
        if !absolute.is_dir() {
            return Err(folder(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let path = absolute.join(MANIFEST);
        if !path.exists() {
            return Err(ProjectError::NoProject { dir: dir.to_owned() });
        }
        let manifest = manifest::read(&path, &dir.join(MANIFEST))?;
        let scripts = manifest.scripts.unwrap_or_default();
        Ok(Project {
            shown: dir.to_owned(),
            module: absolute.join(&manifest.module),
            scripts: scripts.iter().map(|script| absolute.join(script)).collect(),
            name: manifest.name,
            language: manifest.language,
            dir: absolute,
        })
    }

    /// Whether a change of this file can change what is built: not the module itself, nor what
    /// tools write, nor what editors leave behind.
    pub fn is_source(&self, path: &Path) -> bool {
        sources::is_source(self, path)
    }

    /// A path below the folder as the caller would write it.
    pub fn shown_path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.dir) {
            Ok(inside) if self.shown == Path::new(".") => inside.to_owned(),
            Ok(inside) => self.shown.join(inside),
            Err(_) => path.to_owned(),
        }
    }
}
