//! Zig: `zig`, or the one that PyPI's package brings.

use std::path::Path;

use super::finder::Finder;
use super::{IN_VENV, Plan, Remedy, ToolchainMissing, version_in};
use crate::project::tool::Step;
use crate::project::{Language, Project};

/// The oldest that the SDK is written for.
const OLDEST: (u32, u32) = (0, 14);

const REMEDIES: &[Remedy] = &[
    // Not 0.17, which works and takes minutes for the first build.
    Remedy::new("pip install ziglang==0.15.2", IN_VENV),
    Remedy::new("https://ziglang.org/download", "0.14 to 0.17, unpacked on your PATH"),
];

pub(super) fn plan(project: &Project, finder: &Finder) -> Result<Plan, ToolchainMissing> {
    let missing =
        |problem| ToolchainMissing { language: Language::Zig, problem, remedies: REMEDIES };
    let zig = find(&project.dir, finder).ok_or_else(|| {
        missing(match finder.named("ZIG") {
            Some(words) => format!("ZIG names {}, which does not run", words.join(" ")),
            None => "Zig is missing".to_owned(),
        })
    })?;
    let said = finder.ask(&project.dir, &zig, &["version"]).unwrap_or_default();
    if version_in(&said).is_none_or(|version| version < OLDEST) {
        let (zig, (major, minor)) = (zig.join(" "), OLDEST);
        return Err(missing(format!(
            "{zig} is version {said}, and {major}.{minor} or newer is needed"
        )));
    }
    let (program, first) = zig.split_first().expect("what was found has a first word");
    let step = Step::new(program).args(first).args(["build", "--release=small"]);
    let artifact = project.dir.join(format!("zig-out/bin/{}.wasm", project.name));
    Ok(Plan { steps: vec![step], artifact })
}

/// The words that start a Zig which runs.
pub(super) fn find(dir: &Path, finder: &Finder) -> Option<Vec<String>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let candidates = match finder.named("ZIG") {
        Some(named) => vec![named.to_vec()],
        None => ["zig", "python3 -m ziglang", "python-zig"].map(words).to_vec(),
    };
    candidates
        .into_iter()
        .find(|words| finder.has(&words[0]) && finder.ask(dir, words, &["version"]).is_some())
}
