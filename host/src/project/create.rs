//! Writes a new project, all of it or nothing.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::templates::files_for;
use super::{BadName, Language, Project, ProjectError, ProjectName};

/// Why there is no new project. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The last part of the path is no name for a project.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The repository had no template when this program was built; a test keeps that from happening.
    #[error("this raft-host was built without a template for {}", .0.title())]
    NoTemplate(Language),
    /// A folder with something in it is there already.
    #[error("{} is there already and not empty; nothing was changed. Choose another name, or remove it first", path.display())]
    NotEmpty {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A file or a link is there already.
    #[error("{} is there already and is no folder; nothing was changed. Choose another name", path.display())]
    NoFolder {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The folder around it is missing or cannot be written.
    #[error("cannot make {}: the folder {} cannot be written: {error}", path.display(), parent.display())]
    Parent {
        /// The path as it was given.
        path: PathBuf,
        /// The folder that is to hold it.
        parent: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {error}; nothing was made", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// What was written cannot be opened.
    #[error("the new project cannot be used: {0}")]
    Open(#[from] ProjectError),
}

/// Writes a project whose name is the last part of `path`. Folders above it are made if needed.
///
/// # Errors
///
/// A bad name, something that is there already, or a folder that cannot be written.
pub fn create(path: &Path, language: Language) -> Result<Project, CreateError> {
    let name = name_of(path)?;
    let files = files_for(language, &name);
    if files.is_empty() {
        return Err(CreateError::NoTemplate(language));
    }
    let replaces_empty = must_be_free(path)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed =
        |error| CreateError::Parent { path: path.to_owned(), parent: parent.to_owned(), error };
    fs::create_dir_all(parent).map_err(failed)?;
    // All files go into a folder of another name first: whoever sees the project sees all of it.
    let draft = tempfile::Builder::new()
        .prefix(".raft-host-new-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(failed)?;
    for (place, content) in files {
        let write = |error| CreateError::Write { path: path.join(&place), error };
        write_file(&draft.path().join(&place), &content).map_err(write)?;
    }
    if replaces_empty {
        fs::remove_dir(path).map_err(failed)?;
    }
    fs::rename(draft.path(), path).map_err(failed)?;
    // Renamed away: there is nothing left that could be removed.
    let _ = draft.keep();
    Ok(Project::open(path)?)
}

/// The name is what the path ends with; `.` and `..` end with none.
fn name_of(path: &Path) -> Result<ProjectName, BadName> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().parse()
}

/// Whether an empty folder is in the way.
fn must_be_free(path: &Path) -> Result<bool, CreateError> {
    let path = path.to_owned();
    match fs::symlink_metadata(&path) {
        Err(_) => Ok(false),
        Ok(metadata) if !metadata.is_dir() => Err(CreateError::NoFolder { path }),
        Ok(_) => match fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(true),
            _ => Err(CreateError::NotEmpty { path }),
        },
    }
}

fn write_file(path: &Path, content: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("a file of a folder"))?;
    fs::write(path, content)
}
