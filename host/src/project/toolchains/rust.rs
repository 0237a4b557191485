//! Rust: whatever toolchain has the target; else Debian's packages, which build the standard
//! library for it on the way.

use std::path::Path;

use super::finder::Finder;
use super::{Plan, Remedy, ToolchainMissing, version_in};
use crate::project::tool::Step;
use crate::project::{Language, Project};

const TARGET: &str = "wasm32-unknown-unknown";
/// The first with the edition of the SDK.
const OLDEST: (u32, u32) = (1, 85);

const REMEDIES: &[Remedy] = &[
    Remedy::new("rustup target add wasm32-unknown-unknown", "rustup is at https://rustup.rs"),
    // Debian 13 is the first whose compiler is new enough for the SDK, and there the target is a package.
    Remedy::new("apt-get install cargo rustc libstd-rust-dev-wasm32 lld", "Debian 13 or newer"),
    Remedy::new("apt-get install rustc-web cargo-web rust-web-src lld-19", "Debian 12"),
];

/// Where Debian's packages put things.
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std";
/// The crates that the standard library needs.
const DEBIAN_VENDOR: &str = "/usr/lib/rustlib/src/rust/library/vendor";
const DEBIAN_LINKERS: [&str; 8] = [
    "/usr/bin/wasm-ld-22",
    "/usr/bin/wasm-ld-21",
    "/usr/bin/wasm-ld-20",
    "/usr/bin/wasm-ld-19",
    "/usr/bin/wasm-ld-18",
    "/usr/bin/wasm-ld-17",
    "/usr/bin/wasm-ld-16",
    "/usr/bin/wasm-ld",
];

pub(super) fn plan(project: &Project, finder: &Finder) -> Result<Plan, ToolchainMissing> {
    let missing =
        |problem| ToolchainMissing { language: Language::Rust, problem, remedies: REMEDIES };
    let step = match ordinary(project, finder) {
        Ok(step) => step,
        Err(problem) => debian(project, finder).ok_or_else(|| missing(problem))?,
    };
    let step = step.args(["--target-dir", "target"]);
    let file = format!("{}.wasm", project.name.ident());
    let artifact = project.dir.join("target").join(TARGET).join("release").join(file);
    Ok(Plan { steps: vec![step], artifact })
}

fn build(step: Step) -> Step {
    step.args(["build", "--release", "--target", TARGET])
}

/// The toolchain of whoever calls, if it has the target.
pub(super) fn ordinary(project: &Project, finder: &Finder) -> Result<Step, String> {
    let cargo = match finder.named("CARGO") {
        Some(words) => words.to_vec(),
        None => vec!["cargo".to_owned()],
    };
    let shown = cargo.join(" ");
    if !finder.has(&cargo[0]) {
        return Err(format!("{shown} is missing"));
    }
    // Which compiler cargo takes depends on the folder, with rustup.
    let rustc = cargo[0].strip_suffix("cargo").map(|start| format!("{start}rustc"));
    let rustc = rustc.filter(|rustc| finder.has(rustc)).unwrap_or_else(|| "rustc".to_owned());
    let ask = |arguments: &[&str]| finder.ask(&project.dir, &[&rustc], arguments);
    let sysroot = ask(&["--print", "sysroot"])
        .ok_or_else(|| format!("{rustc} does not run, or is not there"))?;
    let version = ask(&["--version"]).unwrap_or_default();
    if version_in(&version).is_none_or(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        return Err(format!("{version} is too old: {major}.{minor} or newer is needed"));
    }
    if !Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Err(format!("{version} has no target {TARGET}"));
    }
    let (program, first) = cargo.split_first().expect("a variable with words, or cargo");
    Ok(build(Step::new(program).args(first)))
}

/// Debian's compiler with the sources of its standard library, if they are installed.
fn debian(project: &Project, finder: &Finder) -> Option<Step> {
    let version = finder.ask(&project.dir, &[DEBIAN_RUSTC], &["--version"])?;
    let linker = DEBIAN_LINKERS.into_iter().find(|linker| finder.has(linker))?;
    let complete = finder.has(DEBIAN_CARGO)
        && Path::new(DEBIAN_SOURCE).is_dir()
        && version_in(&version).is_some_and(|version| version >= OLDEST);
    if !complete {
        return None;
    }
    let step = Step::new(DEBIAN_CARGO)
        .env("RUSTC", DEBIAN_RUSTC)
        // Building the standard library is not stable; this is how Debian's compiler allows it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    // Without std's default features: a guest has no use for the code that prints backtraces.
    let step = match project.module.exists() {
        true => step,
        false => {
            step.patience("the first build compiles the standard library too: a minute or two")
        }
    };
    let step = build(step).args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features="]);
    if !Path::new(DEBIAN_VENDOR).is_dir() || !needs_no_registry(project, finder) {
        return Some(step);
    }
    let vendor = format!("source.vendor.directory=\"{DEBIAN_VENDOR}\"");
    Some(step.args(["--config", "source.crates-io.replace-with=\"vendor\"", "--config", &vendor]))
}

/// Whether all that the project uses is in its folder; then nothing else has to be fetched either.
fn needs_no_registry(project: &Project, finder: &Finder) -> bool {
    let arguments = ["metadata", "--format-version", "1", "--offline"];
    let metadata = finder.ask(&project.dir, &[DEBIAN_CARGO], &arguments);
    metadata.is_some_and(|metadata| !metadata.contains("\"registry+"))
}
