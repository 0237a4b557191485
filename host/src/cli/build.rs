//! `raft-host build`: the language's own tool, then `check`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::check;
use super::exit::{Ended, Exit, Failure};
use super::new::typed;
use super::output::{Output, human_bytes, human_duration, print_json, print_text};
use crate::project::{BuildFailure, Compiled, Project, ProjectError, ToolOutput};
use crate::wasm::{CompiledModules, CompilerConfig};

const HELP: &str = "\
Builds a project with its language's own tool, and checks the module.

The folder has a raft-host.toml (`raft-host new` writes one):

    name = \"my-app\"              # required
    language = \"go\"              # required: rust, c, cpp, zig, go, assemblyscript
    module = \"my_app.wasm\"       # where the module goes; this is the default
    scripts = [\"check.script\"]   # played after each build; the default if it is there

CC, CXX, ZIG, GO, CARGO and NPM name other tools than those on PATH. What the tool says goes to
stderr. Exit code 0 only if a cluster would take the module and all scripts hold.";

/// Builds a project with its language's own tool, and checks the module.
#[derive(Args, Clone, Debug)]
#[command(long_about = HELP)]
pub(super) struct BuildArgs {
    /// The project's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Shows all that `raft-host check` has to say.
    #[arg(short, long)]
    verbose: bool,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

pub(super) fn run(args: &BuildArgs) -> Ended {
    let unusable = |error: ProjectError| Failure::usage(error.to_string());
    let project = Project::open(&args.dir).map_err(unusable)?;
    let compiled = project.compile(&ToolOutput::Inherit).map_err(failure)?;
    let modules = CompiledModules::by_children(CompilerConfig::default());
    let report = project.check(&compiled.module, &modules).map_err(failure)?;
    let module = project.shown_path(&project.module);
    match (args.output, &report.refused) {
        (Output::Json, _) => print_json(&json!({
            "project": project.name.as_str(),
            "language": project.language.name(),
            "module": project.module.display().to_string(),
            "size_bytes": compiled.module.len(),
            "build_ms": u64::try_from(compiled.elapsed.as_millis()).unwrap_or(u64::MAX),
            "command": compiled.command,
            "check": check::to_json(&report),
        }))?,
        (Output::Table, Some(reason)) => {
            let module = module.display();
            return Err(Failure::new(format!("a cluster would refuse {module}: {reason}")));
        }
        (Output::Table, None) if args.verbose => {
            print_text(&head(&project, &compiled))?;
            print_text(&check::to_text(&module.display().to_string(), &report, true))?;
        }
        (Output::Table, None) => {
            let check = check::to_short_text(&report);
            print_text(&format!("{}\n{check}", head(&project, &compiled)))?;
        }
    }
    if report.is_fit() { Ok(Exit::Done) } else { Ok(Exit::Failed) }
}

fn head(project: &Project, compiled: &Compiled) -> String {
    let module = typed(&project.shown_path(&project.module));
    let size = human_bytes(compiled.module.len() as u64);
    let elapsed = human_duration(compiled.elapsed);
    format!("built {module}: {size}, in {elapsed}")
}

/// Tools that are not there are wrong usage: nothing was tried.
fn failure(failure: BuildFailure) -> Failure {
    match failure {
        BuildFailure::Toolchain(missing) => Failure::usage(missing.to_string()),
        other => Failure::new(other.to_string()),
    }
}
