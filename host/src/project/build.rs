//! From source to a module that is where the manifest says, and its examination.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::tool::{Step, ToolOutput};
use super::toolchains::{self, ToolchainMissing};
use super::{Language, Project};
use crate::check::{self, CompiledModules, Options, Report, Script, ScriptError};
use crate::fsm::HostFailure;

/// Largest module that is read back.
const MODULE_MAX_BYTES: u64 = 1 << 30;
/// Largest script that is read.
const SCRIPT_MAX_BYTES: u64 = 32 << 20;
/// What every module begins with.
const WASM_MAGIC: &[u8; 4] = b"\0asm";

/// A module that was just built.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Its bytes, as they are in the module's file.
    pub module: Vec<u8>,
    /// How long the tools took.
    pub elapsed: Duration,
    /// What the tools said, if that was captured.
    pub said: String,
    /// The last command that was run, as somebody would type it.
    pub command: String,
}

/// Why there is no module, or none that was examined.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// The language's tools are not here, or too old. The message says what to install.
    #[error(transparent)]
    Toolchain(#[from] ToolchainMissing),
    /// A tool ran and was not content: mostly an error in the source.
    #[error("the build failed: `{command}` ended with {status}{}", remark(hint))]
    Tool {
        /// The command, as somebody would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What to know about the command; may be empty.
        hint: &'static str,
        /// What it said, if that was captured.
        said: String,
    },
    /// A tool is there and cannot be started.
    #[error("cannot run `{command}`: {error}")]
    Start {
        /// The command, as somebody would type it.
        command: String,
        /// What the system says.
        error: io::Error,
    },
    /// The tools were content and no module is where it should be.
    #[error("`{command}` succeeded, but {problem}")]
    NoModule {
        /// The command, as somebody would type it.
        command: String,
        /// What is wrong, and what to change.
        problem: String,
        /// What the tools said, if that was captured.
        said: String,
    },
    /// A file of the project cannot be read or written.
    #[error("cannot {doing} {}: {error}", path.display())]
    File {
        /// "read" or "write".
        doing: &'static str,
        /// The file, as the caller would name it.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A script is no script.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// This machine cannot run guests.
    #[error("cannot run the module here: {0}")]
    Host(HostFailure),
}

impl BuildFailure {
    /// What the tools said, if that was captured and they said something.
    pub fn said(&self) -> Option<&str> {
        match self {
            BuildFailure::Tool { said, .. } | BuildFailure::NoModule { said, .. } => {
                Some(said.as_str()).filter(|said| !said.trim().is_empty())
            }
            _ => None,
        }
    }
}

impl Project {
    /// Runs the language's tools and puts the module where the manifest says. Blocks until they
    /// are done; a module that was there before stays if they fail.
    ///
    /// # Errors
    ///
    /// See [`BuildFailure`].
    pub fn compile(&self, output: &ToolOutput) -> Result<Compiled, BuildFailure> {
        let plan = toolchains::plan(self)?;
        let begun = Instant::now();
        let mut said = String::new();
        let mut command = String::new();
        for step in &plan.steps {
            command = step.to_string();
            said += &self.run(step, output)?;
        }
        let elapsed = begun.elapsed();
        let no_module = |problem| BuildFailure::NoModule {
            command: command.clone(),
            problem,
            said: said.clone(),
        };
        let module = self.read_artifact(&plan.artifact).map_err(no_module)?;
        if plan.artifact != self.module {
            self.place(&module)?;
        }
        Ok(Compiled { module, elapsed, said, command })
    }

    /// Examines a module with the project's scripts, and leaves it compiled in `modules`. Takes some
    /// seconds.
    ///
    /// # Errors
    ///
    /// A script that cannot be read or understood, or a machine that cannot run guests. Whatever
    /// is wrong with the module is in the report.
    pub fn check(&self, module: &[u8], modules: &CompiledModules) -> Result<Report, BuildFailure> {
        let mut scripts = Vec::new();
        for path in &self.scripts {
            let shown = self.shown_path(path);
            let bytes = read(path, SCRIPT_MAX_BYTES).map_err(|error| BuildFailure::File {
                doing: "read",
                path: shown.clone(),
                error,
            })?;
            scripts.push(Script::parse(&shown.display().to_string(), &bytes)?);
        }
        let options = Options { scripts, modules: modules.clone(), ..Options::default() };
        check::run(module, &options).map_err(BuildFailure::Host)
    }

    fn run(&self, step: &Step, output: &ToolOutput) -> Result<String, BuildFailure> {
        let start = |error| BuildFailure::Start { command: step.to_string(), error };
        let (status, said) = step.run(&self.dir, output).map_err(start)?;
        if status.success() {
            return Ok(said);
        }
        Err(BuildFailure::Tool { command: step.to_string(), status, hint: step.hint, said })
    }

    /// The artifact's bytes, or what is wrong with it.
    fn read_artifact(&self, artifact: &Path) -> Result<Vec<u8>, String> {
        let shown = self.shown_path(artifact);
        let shown = shown.display();
        let module = match read(artifact, MODULE_MAX_BYTES) {
            Ok(module) => module,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("there is no {shown}; {}", names_it(self.language)));
            }
            Err(error) => return Err(format!("{shown} cannot be read: {error}")),
        };
        if !module.starts_with(WASM_MAGIC) {
            return Err(format!("{shown} is not a WebAssembly module"));
        }
        Ok(module)
    }

    /// Puts the module into its place in one step, so that nobody reads half of it.
    fn place(&self, module: &[u8]) -> Result<(), BuildFailure> {
        let failed = |error| BuildFailure::File {
            doing: "write",
            path: self.shown_path(&self.module),
            error,
        };
        let folder = self.module.parent().expect("a file below the project's folder");
        fs::create_dir_all(folder).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .prefix(".raft-host-build-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(failed)?;
        file.write_all(module).map_err(failed)?;
        file.persist(&self.module).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

fn remark(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

/// Where the name of the artifact comes from.
fn names_it(language: Language) -> &'static str {
    match language {
        Language::Rust => {
            "the package's name in Cargo.toml must be the name in raft-host.toml, and the library \
             a cdylib"
        }
        Language::C | Language::Cpp => {
            "the first goal of the Makefile must write the module that raft-host.toml names"
        }
        Language::Zig => {
            "the executable's name in build.zig must be the name in raft-host.toml, and it must be \
             installed (b.installArtifact)"
        }
        Language::Go => "the folder must hold package main",
        Language::AssemblyScript => {
            "the script \"build\" in package.json must write the module that raft-host.toml names"
        }
    }
}

fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(bytes)
}
