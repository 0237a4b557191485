//! The counter of every template: one language takes over from the other in a running cluster.
//! With all tools here it takes minutes of a processor, most of them for Rust's standard library
//! (where rustup's target is missing, and no other test has built it) and for compiling Go's
//! module on each node.

use std::path::{Path, PathBuf};
use std::process::Command;

use raft_host_tests::{Output, lacks_tools, share_compiled_crates};

use super::{PROGRAM, Trial};

const LANGUAGES: [&str; 6] = ["rust", "c", "cpp", "zig", "go", "assemblyscript"];
const TEXT_COUNTER: &str = "plugins/counter/counter.wasm";

/// A new project of the language, built; `None` if its tools are not here.
fn built(language: &str, dir: &Path) -> Option<PathBuf> {
    let name = format!("counter-{language}");
    let new = run_in(dir, &["new", &name, "--lang", language]);
    assert_eq!(new.code, Some(0), "{language}: {new:?}");
    if language == "rust" {
        share_compiled_crates(&dir.join(&name), Path::new(env!("CARGO_TARGET_TMPDIR")));
    }
    let build = run_in(dir, &["build", &name]);
    if lacks_tools(language, &build) {
        return None;
    }
    assert_eq!(build.code, Some(0), "{language}: {build:?}");
    Some(dir.join(&name).join(format!("counter_{language}.wasm")))
}

fn run_in(dir: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(PROGRAM).args(arguments).current_dir(dir).output();
    output.expect("the program starts").into()
}

#[test]
fn the_counter_goes_on_from_language_to_language() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut trial = Trial::start(TEXT_COUNTER);
    let answers = trial.apply_through_a_killed_leader(vec!["5".to_owned(); 60]);
    assert_eq!(answers.iter().filter(|answer| answer.ok() == "300").count(), 1);
    let mut count = 300;
    let modules = LANGUAGES.iter().filter_map(|language| built(language, dir.path()));
    for module in modules.chain([TEXT_COUNTER.into()]) {
        let module = module.to_str().expect("UTF-8");
        trial.upgrade(module);
        assert_eq!(trial.query(""), count.to_string(), "{module}");
        count += 7;
        assert_eq!(trial.apply("7").ok(), count.to_string(), "{module}");
        let rejected = trial.apply("seven");
        assert!(rejected.reason().contains("a command is a decimal number"), "{rejected:?}");
        count -= 2;
        assert_eq!(trial.apply("-2").ok(), count.to_string(), "{module}");
    }
    // It must go through all of this by itself.
    trial.revive_and_compare();
    assert_eq!(trial.everywhere(""), count.to_string());
}
