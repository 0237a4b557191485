//! Looks for programs and asks them questions.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Variables that name tools.
const OVERRIDES: &[&str] = &["CC", "CXX", "ZIG", "GO", "CARGO", "NPM"];

/// Where tools are looked for: a `PATH` and the variables that name them.
#[derive(Clone, Debug, Default)]
pub(super) struct Finder {
    path: OsString,
    overrides: BTreeMap<String, Vec<String>>,
}

impl Finder {
    pub(super) fn of_this_process() -> Finder {
        let mut finder = Finder::new(&env::var_os("PATH").unwrap_or_default());
        for name in OVERRIDES {
            if let Ok(value) = env::var(name) {
                finder = finder.with(name, &value);
            }
        }
        finder
    }

    pub(super) fn new(path: &OsStr) -> Finder {
        Finder { path: path.to_owned(), overrides: BTreeMap::new() }
    }

    /// Adds a variable. Its value is words: `zig cc`, `python3 -m ziglang`.
    pub(super) fn with(mut self, name: &str, value: &str) -> Finder {
        let words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
        if !words.is_empty() {
            self.overrides.insert(name.to_owned(), words);
        }
        self
    }

    /// The words of a variable that names a tool.
    pub(super) fn named(&self, variable: &str) -> Option<&[String]> {
        self.overrides.get(variable).map(Vec::as_slice)
    }

    /// Whether a program is there: a name that is on `PATH`, or a path.
    pub(super) fn has(&self, program: &str) -> bool {
        if program.contains('/') {
            return is_program(Path::new(program));
        }
        env::split_paths(&self.path).any(|folder| is_program(&folder.join(program)))
    }

    /// What a program prints to stdout when all is well.
    pub(super) fn ask<S: AsRef<str>>(
        &self,
        dir: &Path,
        words: &[S],
        arguments: &[&str],
    ) -> Option<String> {
        let (program, first) = words.split_first()?;
        let output = Command::new(program.as_ref())
            .args(first.iter().map(AsRef::as_ref))
            .args(arguments)
            .env("PATH", &self.path)
            // What a proxy or a wrapper would fetch is not here.
            .env("GOTOOLCHAIN", "local")
            .env("RUSTUP_AUTO_INSTALL", "0")
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
