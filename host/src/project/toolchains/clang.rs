//! C and C++: a clang that has the target and its linker, or Zig, which is one; and make.

use super::finder::Finder;
use super::{IN_VENV, Plan, Remedy, ToolchainMissing, zig};
use crate::project::tool::Step;
use crate::project::{Language, Project};

/// What is different for C and C++.
pub(super) struct Dialect {
    language: Language,
    /// The variable that names the compiler, for people and for make.
    variable: &'static str,
    clang: &'static str,
    /// What Zig calls its compiler.
    zig: &'static str,
    /// The target that the template's Makefile names.
    target: &'static str,
    /// What of the language's library must be there for the target. Zig brings its own.
    libraries: &'static [&'static str],
    remedies: &'static [Remedy],
}

pub(super) const C: Dialect = Dialect {
    language: Language::C,
    variable: "CC",
    clang: "clang",
    zig: "cc",
    target: "wasm32-unknown-unknown",
    libraries: &[],
    remedies: &[
        Remedy::new("apt-get install make clang lld", "Debian 13 or newer"),
        Remedy::new("apt-get install make clang-19 lld-19", "Debian 12 or 13"),
        Remedy::new(PIP_AND_MAKE, IN_VENV),
    ],
};

pub(super) const CPP: Dialect = Dialect {
    language: Language::Cpp,
    variable: "CXX",
    clang: "clang++",
    zig: "c++",
    target: "wasm32-wasi",
    libraries: &["libc++.a", "libc++abi.a", "libc.a"],
    remedies: &[
        // Zig compiles its C++ library for the first module and again for the first test.
        Remedy::new(
            "apt-get install make clang lld libc++-dev-wasm32 libclang-rt-dev-wasm32",
            "Debian 13 or newer",
        ),
        Remedy::new(PIP_AND_MAKE, IN_VENV),
    ],
};

const PIP_AND_MAKE: &str = "make, and pip install ziglang==0.15.2";

/// Versions that distributions have beside each other, the newest first.
const VERSIONS: [u32; 9] = [22, 21, 20, 19, 18, 17, 16, 15, 14];

pub(super) fn plan(
    project: &Project,
    finder: &Finder,
    dialect: &Dialect,
) -> Result<Plan, ToolchainMissing> {
    let missing = |problem| ToolchainMissing {
        language: dialect.language,
        problem,
        remedies: dialect.remedies,
    };
    let make = ["make", "gmake"].into_iter().find(|make| finder.has(make));
    let make = make.ok_or_else(|| missing("make is missing".to_owned()))?;
    let compiler = compiler(project, finder, dialect).map_err(missing)?;
    let step = Step::new(make).arg(format!("{}={}", dialect.variable, compiler.join(" ")));
    let is_zig = compiler.iter().any(|word| word.contains("zig"));
    let step = match dialect.language {
        Language::Cpp if is_zig && !project.module.exists() => {
            step.patience("the first build compiles Zig's C++ library too: two to five minutes")
        }
        _ => step,
    };
    Ok(Plan { steps: vec![step], artifact: project.module.clone() })
}

/// The words that start the compiler, or what is wrong with all that could be it.
fn compiler(project: &Project, finder: &Finder, dialect: &Dialect) -> Result<Vec<String>, String> {
    let title = dialect.language.title();
    if let Some(words) = finder.named(dialect.variable) {
        let shown = words.join(" ");
        let variable = dialect.variable;
        if !finder.has(&words[0]) {
            return Err(format!("{variable} names {shown}, which is not there"));
        }
        return match problem_of(project, finder, dialect, words) {
            None => Ok(words.to_vec()),
            Some(problem) => Err(format!("{variable} names {shown}, which {problem}")),
        };
    }
    let mut seen = Vec::new();
    let numbered = VERSIONS.iter().map(|version| format!("{}-{version}", dialect.clang));
    for name in std::iter::once(dialect.clang.to_owned()).chain(numbered) {
        if !finder.has(&name) {
            continue;
        }
        let words = vec![name.clone()];
        match problem_of(project, finder, dialect, &words) {
            None => return Ok(words),
            Some(problem) => seen.push(format!("{name} {problem}")),
        }
    }
    if let Some(mut zig) = zig::find(&project.dir, finder) {
        zig.push(dialect.zig.to_owned());
        return Ok(zig);
    }
    Err(match seen.is_empty() {
        true => format!("there is no {title} compiler for WebAssembly: neither clang nor zig"),
        false => {
            format!("there is no {title} compiler for WebAssembly: {}", seen.join(", "))
        }
    })
}

/// Why a compiler cannot build a module.
fn problem_of(
    project: &Project,
    finder: &Finder,
    dialect: &Dialect,
    words: &[String],
) -> Option<String> {
    if words.iter().any(|word| word.contains("zig")) {
        return None;
    }
    let ask = |arguments: &[&str]| finder.ask(&project.dir, words, arguments);
    let targets = ask(&["--print-targets"]).unwrap_or_default();
    if !targets.contains("wasm32") {
        return Some("cannot compile to wasm32".to_owned());
    }
    // Clang prints the path of what it finds and the bare name of what it does not.
    let target = format!("--target={}", dialect.target);
    let finds = |question: &str, file: &str| {
        let question = format!("--print-{question}-name={file}");
        ask(&[&target, &question]).is_some_and(|found| found.contains('/'))
    };
    if !finds("prog", "wasm-ld") {
        return Some("has no wasm-ld".to_owned());
    }
    let missing = dialect.libraries.iter().find(|library| !finds("file", library))?;
    Some(format!("has no {missing} for {}", dialect.target))
}
