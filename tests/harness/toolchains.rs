//! Projects in other languages, on machines that lack the tools of some.

use std::path::Path;

use super::Output;

/// Whether `raft-host build` of a project could not begin for want of tools; says so. With
/// `RAFT_HOST_ALL_TOOLCHAINS=1` in the environment all must be there.
///
/// # Panics
///
/// If they must be there and are not.
pub fn lacks_tools(language: &str, build: &Output) -> bool {
    let said = format!("{}{}", build.stdout, build.stderr);
    let no_tools = build.code == Some(2) && said.contains("Install what is missing");
    // The compiler of AssemblyScript comes from npm's registry.
    let no_network = build.code == Some(1) && said.contains("the build failed: `npm install");
    if no_tools || no_network {
        let all = std::env::var("RAFT_HOST_ALL_TOOLCHAINS").is_ok_and(|value| value == "1");
        assert!(!all, "{language}: {said}");
        eprintln!("skipped {language}, whose tools are not here: {said}");
    }
    no_tools || no_network
}

/// Has a new Rust project keep what cargo compiles in a folder below `temporary` (cargo's
/// `CARGO_TARGET_TMPDIR`) that all tests share: where rustup's target is missing, that includes
/// the standard library, which takes minutes.
pub fn share_compiled_crates(project: &Path, temporary: &Path) {
    let shared = temporary.join("rust-guests");
    std::fs::create_dir_all(&shared).expect("cargo made the folder above");
    std::os::unix::fs::symlink(shared, project.join("target")).expect("a new project has none");
}
