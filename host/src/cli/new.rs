//! `raft-host new`: a project that builds and runs as it is.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, print_json, print_text};
use crate::project::{self, CreateError, Language, Project, UnknownLanguage};

/// Writes a project for a state machine in the language of your choice.
///
/// It is a counter: source, unit tests, build file, a script that it must keep, a README, and the
/// SDK. Nothing is fetched. `raft-host build` builds it.
#[derive(Args, Clone, Debug)]
pub(super) struct NewArgs {
    /// The folder to make; its last part is the project's name, such as my-app.
    path: PathBuf,
    /// The language: rust, c, cpp, zig, go or assemblyscript.
    #[arg(long, value_name = "LANG")]
    lang: String,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

pub(super) fn run(args: &NewArgs) -> Ended {
    let usage = |error: UnknownLanguage| Failure::usage(error.to_string());
    let language: Language = args.lang.parse().map_err(usage)?;
    let project = project::create(&args.path, language).map_err(failure)?;
    match args.output {
        Output::Json => print_json(&json!({
            "dir": project.dir.display().to_string(),
            "name": project.name.as_str(),
            "language": language.name(),
            "module": project.module.display().to_string(),
        }))?,
        Output::Table => print_text(&told(&project))?,
    }
    Ok(Exit::Done)
}

fn failure(error: CreateError) -> Failure {
    match error {
        CreateError::Name(_) | CreateError::NotEmpty { .. } | CreateError::NoFolder { .. } => {
            Failure::usage(error.to_string())
        }
        other => Failure::new(other.to_string()),
    }
}

fn told(project: &Project) -> String {
    let dir = typed(&project.shown);
    let module = typed(&project.shown_path(&project.module));
    format!(
        "{dir} is a project in {}: a counter, to be made into what you need. Its README.md says \
         what is where.\n\n    raft-host build {dir}\n    raft-host --plugin {module}\n    \
         raft-host apply 5          # in another shell\n\nOr all of it at every save, on three \
         nodes that keep the state: raft-host dev {dir}",
        project.language.title()
    )
}

/// A path as a shell takes it.
pub(super) fn typed(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "-_./+,@".contains(c);
    match text.chars().all(plain) && !text.starts_with('-') {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
