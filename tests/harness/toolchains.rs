//! Projects in other languages and shells, on machines that lack the tools of some.

use std::path::Path;
use std::process::{Command, Stdio};

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
        assert!(!all_must_be_here(), "{language}: {said}");
        eprintln!("skipped {language}, whose tools are not here: {said}");
    }
    no_tools || no_network
}

/// Whether there is no such shell on the path; says so. With `RAFT_HOST_ALL_TOOLCHAINS=1` in the
/// environment all must be there.
///
/// # Panics
///
/// If it must be there and is not.
pub fn lacks_shell(shell: &str) -> bool {
    let mut started = Command::new(shell);
    started.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let lacks = !started.status().is_ok_and(|status| status.success());
    if lacks {
        assert!(!all_must_be_here(), "{shell} is not here");
        eprintln!("skipped {shell}, which is not here");
    }
    lacks
}

/// Whether something that a client in another language needs is not here, which a command tells that
/// fails without it; says so. With `RAFT_HOST_ALL_TOOLCHAINS=1` in the environment all must be there.
///
/// # Panics
///
/// If it must be there and is not.
pub fn lacks_client_tools(what: &str, program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let said = match output {
        Ok(output) if output.status.success() => return false,
        Ok(output) => Output::from(output).stderr,
        Err(error) => format!("{program}: {error}"),
    };
    assert!(!all_must_be_here(), "{what}: {said}");
    eprintln!("skipped what needs {what}, which is not here: {said}");
    true
}

fn all_must_be_here() -> bool {
    std::env::var("RAFT_HOST_ALL_TOOLCHAINS").is_ok_and(|value| value == "1")
}

/// Has a new Rust project keep what cargo compiles in a folder below `temporary` (cargo's
/// `CARGO_TARGET_TMPDIR`) that all tests share: where rustup's target is missing, that includes
/// the standard library, which takes minutes.
pub fn share_compiled_crates(project: &Path, temporary: &Path) {
    let shared = temporary.join("rust-guests");
    std::fs::create_dir_all(&shared).expect("cargo made the folder above");
    std::os::unix::fs::symlink(shared, project.join("target")).expect("a new project has none");
}
