//! AssemblyScript: Node and npm; the compiler itself is a package of the project.

use super::finder::Finder;
use super::{Plan, Remedy, ToolchainMissing, version_in};
use crate::project::tool::Step;
use crate::project::{Language, Project};

/// The oldest that the compiler runs on.
const OLDEST_NODE: u32 = 20;

const REMEDIES: &[Remedy] = &[
    Remedy::new("https://nodejs.org", "20 or newer; npm comes with it"),
    Remedy::new("apt-get install nodejs npm", "Debian 13 or newer; Debian 12 has Node 18"),
];

pub(super) fn plan(project: &Project, finder: &Finder) -> Result<Plan, ToolchainMissing> {
    let missing = |problem| ToolchainMissing {
        language: Language::AssemblyScript,
        problem,
        remedies: REMEDIES,
    };
    if !finder.has("node") {
        return Err(missing("Node is missing".to_owned()));
    }
    let version = finder.ask(&project.dir, &["node"], &["--version"]).unwrap_or_default();
    if version_in(&version).is_none_or(|(major, _)| major < OLDEST_NODE) {
        let problem = format!("Node is {version}, and {OLDEST_NODE} or newer is needed");
        return Err(missing(problem));
    }
    let npm = match finder.named("NPM") {
        Some(words) if finder.has(&words[0]) => words.to_vec(),
        Some(words) => {
            return Err(missing(format!("NPM names {}, which is not there", words.join(" "))));
        }
        None if finder.has("npm") => vec!["npm".to_owned()],
        None => return Err(missing("npm is missing".to_owned())),
    };
    let (program, first) = npm.split_first().expect("what was found has a first word");
    let step = |arguments: &[&str]| Step::new(program).args(first).args(arguments);
    let mut steps = Vec::new();
    if !project.dir.join("node_modules/.bin/asc").exists() {
        let install = step(&["install", "--no-audit", "--no-fund"]);
        steps.push(install.hint(
            "it fetches the AssemblyScript compiler that package.json names, once, and needs \
             npm's registry or cache for that",
        ));
    }
    steps.push(step(&["run", "build"]));
    Ok(Plan { steps, artifact: project.module.clone() })
}
